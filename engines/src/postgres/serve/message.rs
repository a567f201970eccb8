//! Bytes to and from a client, as pure functions. Hostile bytes give `None`, never a panic.
//!
//! ```text
//! log data   'w' | start u64 | server end u64 | sent i64 | bytes          in CopyData, to it
//! keepalive  'k' | server end u64 | sent i64 | reply wanted u8            in CopyData, to it
//! status     'r' | written u64 | flushed u64 | applied u64 | sent i64 | reply wanted u8     in CopyData, from it
//! feedback   'h' | sent i64 | xmin u32 | epoch u32 | catalog xmin u32 | epoch u32           in CopyData, from it
//! ```
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>,
//! <https://www.postgresql.org/docs/current/protocol-replication.html>.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use chrono::{DateTime, Utc};
use farshore_journal::Offset;

use super::super::wire::{PG_EPOCH_MICROS, StandbyStatus};
use super::command::Refusal;

/// What a column of an answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int4,
    Int8,
}

impl Kind {
    /// Its number among types, and its length. Source: `pg_type.dat`.
    fn oid(self) -> (u32, i16) {
        match self {
            Self::Text => (25, -1),
            Self::Int4 => (23, 4),
            Self::Int8 => (20, 8),
        }
    }
}

/// Puts a whole message: its tag, its length, and what `body` writes.
fn put(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let at = out.len();
    out.put_u32(0);
    body(out);
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    // What follows a NUL would be read as something else.
    out.put_slice(text.split('\0').next().unwrap_or_default().as_bytes());
    out.put_u8(0);
}

/// An authentication request: its kind and what belongs to it.
pub(super) fn put_authentication(out: &mut BytesMut, kind: u32, rest: &[u8]) {
    put(out, b'R', |out| {
        out.put_u32(kind);
        out.put_slice(rest);
    });
}

/// A setting of the session.
pub(super) fn put_parameter(out: &mut BytesMut, name: &str, value: &str) {
    put(out, b'S', |out| {
        put_text(out, name);
        put_text(out, value);
    });
}

/// What a cancel request would name.
pub(super) fn put_key(out: &mut BytesMut, process: u32, key: [u8; 4]) {
    put(out, b'K', |out| {
        out.put_u32(process);
        out.put_slice(&key);
    });
}

/// That the next command may come.
pub(super) fn put_ready(out: &mut BytesMut) {
    put(out, b'Z', |out| out.put_u8(b'I'));
}

/// That the protocol is spoken as of 3.0, and which of the options that were asked for nobody here knows.
pub(super) fn put_older(out: &mut BytesMut, unknown: &[String]) {
    put(out, b'v', |out| {
        // The whole version, as servers send it (`SendNegotiateProtocolVersion` in `backend_startup.c`), whatever the documentation calls the field.
        out.put_u32(3 << 16);
        out.put_u32(u32::try_from(unknown.len()).unwrap_or_default());
        unknown.iter().for_each(|name| put_text(out, name));
    });
}

/// Whether a session or only a command is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    Error,
    Fatal,
}

/// An error.
pub(super) fn put_error(out: &mut BytesMut, severity: Severity, refusal: &Refusal) {
    let severity = match severity {
        Severity::Error => "ERROR",
        Severity::Fatal => "FATAL",
    };
    put(out, b'E', |out| {
        let mut field = |kind: u8, text: &str| {
            out.put_u8(kind);
            put_text(out, text);
        };
        field(b'S', severity);
        field(b'V', severity);
        field(b'C', refusal.code);
        field(b'M', &refusal.message);
        if !refusal.hint.is_empty() {
            field(b'H', &refusal.hint);
        }
        out.put_u8(0);
    });
}

/// An answer of one row, or of none.
pub(super) fn put_rows(out: &mut BytesMut, columns: &[(&str, Kind)], row: Option<&[Option<&[u8]>]>) {
    put(out, b'T', |out| {
        out.put_u16(u16::try_from(columns.len()).unwrap_or_default());
        for (name, kind) in columns {
            put_text(out, name);
            // Of no table.
            out.put_u32(0);
            out.put_u16(0);
            let (oid, length) = kind.oid();
            out.put_u32(oid);
            out.put_i16(length);
            out.put_i32(-1);
            // As text.
            out.put_u16(0);
        }
    });
    if let Some(row) = row {
        put(out, b'D', |out| {
            out.put_u16(u16::try_from(row.len()).unwrap_or_default());
            for value in row {
                match value {
                    None => out.put_i32(-1),
                    Some(bytes) => {
                        out.put_i32(i32::try_from(bytes.len()).unwrap_or_default());
                        out.put_slice(bytes);
                    }
                }
            }
        });
    }
}

/// That a command is done.
pub(super) fn put_complete(out: &mut BytesMut, tag: &str) {
    put(out, b'C', |out| put_text(out, tag));
}

/// That log follows, and positions come back.
pub(super) fn put_copy_both(out: &mut BytesMut) {
    put(out, b'W', |out| {
        out.put_u8(0);
        out.put_u16(0);
    });
}

/// That no more log follows.
pub(super) fn put_copy_done(out: &mut BytesMut) {
    put(out, b'c', |_| {});
}

/// Log.
pub(super) fn put_log(
    out: &mut BytesMut,
    start: Offset,
    server_end: Offset,
    now: DateTime<Utc>,
    bytes: &[u8],
) {
    out.reserve(bytes.len() + 30);
    put(out, b'd', |out| {
        out.put_u8(b'w');
        out.put_u64(start.get());
        out.put_u64(server_end.get());
        out.put_i64(micros(now));
        out.put_slice(bytes);
    });
}

/// A sign of life.
pub(super) fn put_keepalive(
    out: &mut BytesMut,
    server_end: Offset,
    now: DateTime<Utc>,
    reply_requested: bool,
) {
    put(out, b'd', |out| {
        out.put_u8(b'k');
        out.put_u64(server_end.get());
        out.put_i64(micros(now));
        out.put_u8(reply_requested.into());
    });
}

fn micros(now: DateTime<Utc>) -> i64 {
    now.timestamp_micros().saturating_sub(PG_EPOCH_MICROS)
}

/// What a standby says while log is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// How far it is.
    Status { status: StandbyStatus, reply_requested: bool },
    /// The oldest transaction that its queries may look at: nothing can be done about it here.
    Feedback { xmin: u32 },
}

/// Decodes the body of a CopyData message; `None` when it is malformed.
pub(super) fn said(mut body: Bytes) -> Option<Said> {
    match body.try_get_u8().ok()? {
        b'r' if body.len() == 33 => {
            let [written, flushed, applied] =
                [body.get_u64(), body.get_u64(), body.get_u64()].map(Offset::new);
            body.advance(8);
            let status = StandbyStatus { written, flushed, applied };
            Some(Said::Status { status, reply_requested: body.get_u8() != 0 })
        }
        b'h' if body.len() == 24 => {
            body.advance(8);
            Some(Said::Feedback { xmin: body.get_u32() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::wire::{put_status, row, server_message};
    use super::*;
    use proptest::prelude::*;

    /// The only message there is.
    fn message(out: BytesMut) -> (u8, Bytes) {
        let mut bytes = out.freeze();
        let (tag, length) = (bytes.get_u8(), bytes.get_u32());
        assert_eq!(length as usize, bytes.len() + 4);
        (tag, bytes)
    }

    proptest! {
        #[test]
        fn a_status_reads_back_as_our_own_client_writes_it(written: u64, flushed: u64, applied: u64, asks: bool) {
            let mut out = BytesMut::new();
            let positions = [written, flushed, applied].map(Offset::new);
            put_status(&mut out, positions, Utc::now(), asks);
            let (tag, body) = message(out);
            let [written, flushed, applied] = positions;
            let status = StandbyStatus { written, flushed, applied };
            prop_assert_eq!((tag, said(body)), (b'd', Some(Said::Status { status, reply_requested: asks })));
        }

        #[test]
        fn hostile_bytes_never_panic(tag in prop::sample::select(vec![b'r', b'h', b'x']), rest: Vec<u8>) {
            let _ = said(Bytes::from([&[tag][..], &rest].concat()));
        }
    }

    #[test]
    fn a_row_and_an_error_read_back_as_our_own_client_reads_them() {
        let mut out = BytesMut::new();
        put_rows(&mut out, &[("a", Kind::Text), ("b", Kind::Int8)], Some(&[Some(b"x"), None]));
        let described = out.iter().position(|byte| *byte == b'D').unwrap();
        let (tag, body) = message(out.split_off(described));
        assert_eq!((tag, row(body)), (b'D', Some(vec![Some(Bytes::from_static(b"x")), None])));
        let mut out = BytesMut::new();
        let refusal = Refusal::new("58P01", "gone\0 and more").hint("make it anew");
        put_error(&mut out, Severity::Error, &refusal);
        let (tag, body) = message(out);
        let said = server_message(body);
        assert_eq!((tag, said.severity.as_str(), said.code.as_str()), (b'E', "ERROR", "58P01"));
        assert_eq!((said.message.as_str(), said.hint.as_str()), ("gone", "make it anew"));
    }
}
