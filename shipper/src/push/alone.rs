//! `wal push` without a service: appends what the room holds behind the journal's end, and is gone.
//!
//! What always holds: the caller holds the room's lock, so no service of this machine ships the database meanwhile; a journal whose
//! newest opening was written on another machine is left alone, so that an archiver never fences a shipper elsewhere. A crash
//! leaves at most an opening or one chunk that nobody counted. What it does not do: begin a journal, or follow a promotion.

use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::reader::Reader;
use farshore_journal::writer::{Writer, WriterOptions, encode_data};

use super::proof::{Unproved, prove};
use super::room::Room;
use super::shape;
use crate::crash::{self, crash_point};
use crate::error::ShipError;
use crate::resume;

/// Why nothing, or nothing more, was appended.
#[derive(Debug, thiserror::Error)]
pub enum Left {
    /// The journal is empty, or was opened and nothing more.
    #[error("nothing was shipped yet: start `farshore run` first")]
    NotBegun,
    /// Another machine ships it.
    #[error("{host} ships this journal")]
    ShippedElsewhere {
        /// Which.
        host: String,
    },
    /// The files do not continue it.
    #[error(transparent)]
    Unproved(#[from] Unproved),
    /// The journal, or its store.
    #[error(transparent)]
    Ship(#[from] ShipError),
}

/// Appends what the room's files hold behind the journal's end. `host` is this machine's name, as openings have it.
///
/// # Errors
/// [`Left`] says why nothing more was appended. On `Ok` the room holds nothing more that continues the journal.
pub async fn append(
    reader: &Reader,
    record: &IncarnationRecord,
    room: &Room,
    options: &WriterOptions,
) -> Result<(), Left> {
    crash::prepare();
    let options = WriterOptions { segment_bytes: record.segment_bytes, ..options.clone() };
    let shape = shape(record).map_err(ShipError::from)?;
    let mut writer: Option<Writer> = None;
    loop {
        let Some(tail) = resume::tail(reader, record.segment_bytes, &options.host).await? else {
            return Err(Left::NotBegun);
        };
        if tail.lacks_history || !tail.can_be_compared() {
            return Err(Left::NotBegun);
        }
        if writer.is_none() {
            let last = reader.chunk(tail.last).await.map_err(ShipError::from)?;
            let opening =
                reader.opening(last.header().generation, tail.last).await.map_err(ShipError::from)?;
            if opening.host != options.host {
                return Err(Left::ShippedElsewhere { host: opening.host });
            }
        }
        let Some(proof) = prove(room, shape, &tail, None).await? else { return Ok(()) };
        if proof.fresh.is_empty() {
            return Ok(());
        }
        let owner = match &mut writer {
            Some(writer) => writer,
            None => {
                crash_point!("push-before-takeover");
                let taken = Writer::take_over(reader.clone(), &options, tail.end, &|_| {}).await;
                let taken = taken.map_err(ShipError::from)?;
                if taken.found().map(|header| header.number) != Some(tail.last) {
                    // Someone appended after the comparison: compare anew, now as the owner.
                    writer = Some(taken);
                    continue;
                }
                writer.insert(taken)
            }
        };
        for piece in proof.fresh {
            let place = owner.place().clone();
            let encoded = tokio::task::spawn_blocking(move || encode_data(&place, &piece.bytes)).await;
            let encoded = encoded.map_err(|_| ShipError::TaskEnded { what: "encoding" })?;
            let (chunk, _) = encoded.map_err(ShipError::from)?;
            crash_point!("push-encoded");
            owner.append(&chunk, &|_| {}).await.map_err(ShipError::from)?;
            crash_point!("push-appended");
        }
    }
}
