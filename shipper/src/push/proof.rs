//! Do the files in the room continue the journal? Read in the place of the stream, and held to the same proof.
//!
//! What always holds: bytes are given out as fresh only behind a comparison that reached the journal's end and found all equal,
//! from a file that was decoded to its own end; the bytes given out are those that were decoded. What it does not do: append.

use farshore_engines::event::LogEvent;
use farshore_engines::postgres::log::{LogDecoder, LogError, LogShape, SegmentBytes};
use farshore_journal::{Offset, Position};

use super::room::LogFile;
use crate::batch::MAX_CHUNK_BYTES;
use crate::error::ShipError;
use crate::resume::{Comparison, Tail};

/// The most that is appended from files at once, and so the largest segment: it is held in memory whole.
pub const LARGEST_BYTES: u64 = 64 << 20;

/// Bytes for one chunk, with the end of the last whole record in all that was decoded up to their end.
#[derive(Debug)]
pub struct Piece {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The checked end, when any record was whole.
    pub checked: Option<Offset>,
}

/// What files prove of a journal's end.
#[derive(Debug)]
pub struct Proof {
    /// The journal's end that was compared.
    pub of: Position,
    /// Where the files read end: where a stream goes on.
    pub end: Position,
    /// A decoder that has read up to there.
    pub decoder: LogDecoder,
    /// The comparison, as far as the files reach.
    pub comparison: Comparison,
    /// What lies behind the journal's end, up to the end of the file that holds it.
    pub fresh: Vec<Piece>,
    /// Commits and points in what was read.
    pub events: Vec<LogEvent>,
    /// Why a later file was left out, if one was.
    pub left_out: Option<String>,
}

/// Why files prove nothing.
#[derive(Debug, thiserror::Error)]
pub enum Unproved {
    /// They cannot be read.
    #[error("the log's files cannot be read: {0}")]
    Room(#[from] std::io::Error),
    /// A file differs from the journal.
    #[error("{file} differs from the journal: {why}")]
    Differs {
        /// Which.
        file: String,
        /// Where.
        why: Box<ShipError>,
    },
    /// A file does not decode.
    #[error("{file} does not decode behind what the journal holds: {why}")]
    Decode {
        /// Which.
        file: String,
        /// Why.
        why: LogError,
    },
    /// It broke off.
    #[error("the reading broke off")]
    Ended,
}

/// Where whole log segments may stand.
pub trait LogFiles: Clone + Send + 'static {
    /// Those without a hole between them, the first of which holds `from`, on its timeline; none when it is not here. Not all need be told.
    ///
    /// # Errors
    /// When nobody can say.
    fn run_from(&self, from: Position, segment_bytes: SegmentBytes) -> std::io::Result<Vec<LogFile>>;
}

impl LogFiles for super::room::Room {
    fn run_from(&self, from: Position, segment_bytes: SegmentBytes) -> std::io::Result<Vec<LogFile>> {
        Self::run_from(self, from, segment_bytes)
    }
}

/// Reads the files that follow one another from where a resume compares: as many as may be held in memory.
/// `None` when there is none.
///
/// # Errors
/// When the first file proves nothing; a later one that does not is left out.
pub async fn prove(
    files: &impl LogFiles,
    shape: LogShape,
    tail: &Tail,
    next_transaction: Option<u64>,
) -> Result<Option<Proof>, Unproved> {
    let (files, tail) = (files.clone(), tail.clone());
    let proved = tokio::task::spawn_blocking(move || {
        let mut run = files.run_from(tail.compare_from(), shape.segment_bytes)?;
        let mut left_out = None;
        loop {
            match read(&run, shape, &tail, next_transaction) {
                Err((at, why)) if at > 0 => {
                    tracing::warn!(error = %why, "a file of log is left out");
                    left_out = Some(why.to_string());
                    run.truncate(at);
                }
                Err((_, why)) => return Err(why),
                Ok(proof) => return Ok(proof.map(|proof| Proof { left_out, ..proof })),
            }
        }
    });
    proved.await.unwrap_or(Err(Unproved::Ended))
}

/// As [`prove`], over these files; the error names the file by its place.
fn read(
    run: &[LogFile],
    shape: LogShape,
    tail: &Tail,
    next_transaction: Option<u64>,
) -> Result<Option<Proof>, (usize, Unproved)> {
    let mut end = tail.compare_from();
    if run.is_empty() || shape.segment_bytes.get() > LARGEST_BYTES {
        return Ok(None);
    }
    let name = |file: &LogFile| file.path.display().to_string();
    let decode = |at: usize, why| (at, Unproved::Decode { file: name(&run[at]), why });
    let mut decoder = LogDecoder::new(shape, end).map_err(|why| decode(0, why))?;
    if let Some(next) = next_transaction {
        decoder = decoder.with_transaction_anchor(next);
    }
    let mut comparison = Comparison::over(tail);
    let (mut fresh, mut events, mut gathered) = (Vec::new(), Vec::new(), 0);
    for (at, file) in run.iter().enumerate() {
        let bytes = std::fs::read(&file.path).map_err(|why| (at, why.into()))?;
        let skip = end.offset.bytes_since(file.start.offset).and_then(|skip| usize::try_from(skip).ok());
        let part = skip.and_then(|skip| bytes.get(skip..)).unwrap_or_default();
        if file.end.bytes_since(end.offset) != Some(part.len() as u64) {
            let why = std::io::Error::other("its length changed while it was read");
            return Err((at, why.into()));
        }
        let behind = match comparison.take(part) {
            Ok(behind) => behind,
            Err(why) => {
                // One that is damaged differs too, and says nothing of anybody's history.
                decoder.push(part, &mut |_| {}).map_err(|why| decode(at, why))?;
                return Err((at, Unproved::Differs { file: name(file), why: Box::new(why) }));
            }
        };
        let (known, behind) = part.split_at(part.len() - behind.len());
        decoder.push(known, &mut |event| events.push(event)).map_err(|why| decode(at, why))?;
        for piece in behind.chunks(MAX_CHUNK_BYTES) {
            decoder.push(piece, &mut |event| events.push(event)).map_err(|why| decode(at, why))?;
            fresh.push(Piece { bytes: piece.to_vec(), checked: decoder.checked_end() });
        }
        end.offset = file.end;
        gathered += behind.len() as u64;
        if gathered + shape.segment_bytes.get() > LARGEST_BYTES {
            break;
        }
    }
    Ok(Some(Proof { of: tail.end, end, decoder, comparison, fresh, events, left_out: None }))
}
