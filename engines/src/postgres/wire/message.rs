//! Bytes from and to a server, as pure functions. Hostile bytes give `None` or an error, never a panic.
//!
//! ```text
//! frame      tag u8 | length u32, counts itself | body
//! log data   'w' | start u64 | server end u64 | sent i64 | bytes       in CopyData
//! keepalive  'k' | server end u64 | sent i64 | reply wanted u8         in CopyData
//! status     'r' | written u64 | flushed u64 | applied u64 | sent i64 | reply wanted u8, to the server
//! ```
//! Times are microseconds since 2000-01-01 UTC; all numbers are big-endian.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>,
//! <https://www.postgresql.org/docs/current/protocol-replication.html>.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use chrono::{DateTime, Utc};
use farshore_journal::Offset;

use super::error::ServerMessage;

/// Microseconds from 1970-01-01 to 2000-01-01, PostgreSQL's epoch: 10 957 days.
pub(crate) const PG_EPOCH_MICROS: i64 = 10_957 * 86_400 * 1_000_000;
const LOG_HEAD: usize = 25;
const KEEPALIVE: usize = 18;

/// What a CopyData message of a physical stream holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StreamMessage {
    Log { start: Offset, server_end: Offset, sent_at: DateTime<Utc>, bytes: Bytes },
    KeepAlive { server_end: Offset, reply_requested: bool },
}

/// Decodes the body of a CopyData message; `None` when it is malformed.
pub(super) fn stream_message(mut body: Bytes) -> Option<StreamMessage> {
    match *body.first()? {
        b'w' if body.len() >= LOG_HEAD => {
            body.advance(1);
            let start = Offset::new(body.get_u64());
            let server_end = Offset::new(body.get_u64());
            let sent_at = time(body.get_i64())?;
            Some(StreamMessage::Log { start, server_end, sent_at, bytes: body })
        }
        b'k' if body.len() == KEEPALIVE => {
            body.advance(1);
            let server_end = Offset::new(body.get_u64());
            time(body.get_i64())?;
            Some(StreamMessage::KeepAlive { server_end, reply_requested: body.get_u8() != 0 })
        }
        _ => None,
    }
}

fn time(micros: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros.checked_add(PG_EPOCH_MICROS)?)
}

/// A standby status update, as a whole frame.
pub(crate) fn put_status(
    out: &mut BytesMut,
    [written, flushed, applied]: [Offset; 3],
    now: DateTime<Utc>,
    reply_requested: bool,
) {
    out.reserve(39);
    out.put_u8(b'd');
    out.put_u32(4 + 34);
    out.put_u8(b'r');
    for offset in [written, flushed, applied] {
        out.put_u64(offset.get());
    }
    out.put_i64(now.timestamp_micros().saturating_sub(PG_EPOCH_MICROS));
    out.put_u8(reply_requested.into());
}

/// The columns of a DataRow; `None` when it is malformed.
pub(crate) fn row(mut body: Bytes) -> Option<Vec<Option<Bytes>>> {
    let count = body.try_get_u16().ok()?;
    let mut columns = Vec::with_capacity(usize::from(count).min(64));
    for _ in 0..count {
        let length = body.try_get_i32().ok()?;
        columns.push(match length {
            -1 => None,
            _ => {
                let length = usize::try_from(length).ok().filter(|length| *length <= body.len())?;
                Some(body.split_to(length))
            }
        });
    }
    body.is_empty().then_some(columns)
}

/// The fields of an ErrorResponse or NoticeResponse. What is malformed is left out: an error stays an error.
pub(crate) fn server_message(mut body: Bytes) -> Box<ServerMessage> {
    let mut said = Box::<ServerMessage>::default();
    let mut shown_severity = String::new();
    while let Ok(kind @ 1..) = body.try_get_u8() {
        let Some(text) = text(&mut body) else { break };
        match kind {
            b'V' => said.severity = text,
            b'S' => shown_severity = text,
            b'C' => said.code = text,
            b'M' => said.message = text,
            b'D' => said.detail = text,
            b'H' => said.hint = text,
            _ => {}
        }
    }
    if said.severity.is_empty() {
        said.severity = shown_severity;
    }
    said
}

/// Takes a NUL-terminated text off the front; bytes that are not UTF-8 are replaced.
pub(crate) fn text(body: &mut Bytes) -> Option<String> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let text = String::from_utf8_lossy(&body.split_to(end)).into_owned();
    body.advance(1);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            let _ = stream_message(bytes.clone());
            let _ = row(bytes.clone());
            let _ = server_message(bytes);
        }

        #[test]
        fn hostile_stream_messages_never_panic(tag in prop::sample::select(vec![b'w', b'k']), rest: Vec<u8>) {
            let mut bytes = vec![tag];
            bytes.extend(rest);
            let _ = stream_message(Bytes::from(bytes));
        }

        #[test]
        fn log_data_keeps_its_positions_and_bytes(start: u64, end: u64, content: Vec<u8>) {
            let mut body = BytesMut::new();
            body.put_u8(b'w');
            body.put_u64(start);
            body.put_u64(end);
            body.put_i64(0);
            body.put_slice(&content);
            let decoded = stream_message(body.freeze()).unwrap();
            let sent_at = "2000-01-01T00:00:00Z".parse().unwrap();
            let (start, server_end) = (Offset::new(start), Offset::new(end));
            prop_assert_eq!(decoded, StreamMessage::Log { start, server_end, sent_at, bytes: content.into() });
        }
    }

    #[test]
    fn an_impossible_time_is_malformed_not_a_panic() {
        let mut body = vec![b'k'];
        body.extend([0; 8]);
        body.extend(i64::MAX.to_be_bytes());
        body.push(1);
        assert_eq!(stream_message(body.into()), None);
    }

    #[test]
    fn a_status_update_is_39_bytes_in_the_documented_order() {
        let mut out = BytesMut::new();
        let now = "2000-01-01T00:00:01Z".parse().unwrap();
        put_status(&mut out, [Offset::new(3), Offset::new(2), Offset::new(1)], now, true);
        let mut expected = vec![b'd', 0, 0, 0, 38, b'r'];
        for number in [3u64, 2, 1, 1_000_000] {
            expected.extend(number.to_be_bytes());
        }
        expected.push(1);
        assert_eq!(out.as_ref(), expected);
    }

    #[test]
    fn a_row_tells_null_from_empty_and_refuses_lies_about_length() {
        let good = [0, 2, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
        assert_eq!(row(Bytes::copy_from_slice(&good)), Some(vec![None, Some(Bytes::new())]));
        assert_eq!(row(Bytes::from_static(&[0, 1, 0, 0, 0, 9, 1])), None);
        assert_eq!(row(Bytes::from_static(&[0, 1, 0xFF, 0xFF, 0xFF, 0xFE])), None);
        assert_eq!(row(Bytes::from_static(&[0, 0, 1])), None);
    }

    #[test]
    fn an_error_keeps_its_code_and_untranslated_severity() {
        let said = server_message(Bytes::from_static(b"SFEHLER\0VERROR\0C58P01\0Mfort\0Hhol es\0\0"));
        assert_eq!((said.severity.as_str(), said.code.as_str()), ("ERROR", "58P01"));
        assert_eq!((said.message.as_str(), said.hint.as_str()), ("fort", "hol es"));
    }
}
