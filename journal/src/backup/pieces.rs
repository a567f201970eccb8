//! Where a backup's bytes stand: among its own, or among those of an earlier backup that it refers to. `FORMAT.md` section 15.
//!
//! What always holds of a [`Borrowed`] that passed its check: its pieces make the whole stream without a hole; no two of them share a byte of any backup; each lies
//! within the own bytes of the backup it names. So what a manifest gives is the very bytes that it names, and no more of them than it states.

use serde::{Deserialize, Serialize};

use super::manifest::{Entry, Part};
use crate::format::{Digest, FormatError};
use crate::identity::{BackupId, Sequence};

/// Most backups that one refers to: each costs a restore a manifest, and keeps one from expiring.
pub const MAX_HOLDERS: usize = 7;
/// Most pieces of a whole stream: some 16 MiB of memory while it is taken, and as many bytes of manifest.
pub const MAX_PIECES: usize = 1 << 20;

/// A backup that holds bytes of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its id.
    pub backup: BackupId,
    /// The trailer of its manifest, which binds its parts.
    pub manifest: Digest,
}

/// A run of the whole stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u32, u64)", into = "(u64, u32, u64)")]
pub struct Piece {
    /// How many bytes.
    pub bytes: u64,
    /// Whose: 0 is the backup itself, n the n-th that it refers to.
    pub from: u32,
    /// Where they begin among that one's own bytes.
    pub at: u64,
}

impl From<(u64, u32, u64)> for Piece {
    fn from((bytes, from, at): (u64, u32, u64)) -> Self {
        Self { bytes, from, at }
    }
}

impl From<Piece> for (u64, u32, u64) {
    fn from(Piece { bytes, from, at }: Piece) -> Self {
        (bytes, from, at)
    }
}

/// What a backup has of others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Borrowed {
    /// The others.
    pub from: Vec<Held>,
    /// The whole stream, run by run.
    pub pieces: Vec<Piece>,
}

impl Borrowed {
    /// Checks what can be told without the others: `own` is the backup's id, `own_bytes` are those that its parts hold.
    ///
    /// # Errors
    /// [`FormatError::Field`].
    pub fn check(&self, own: BackupId, own_bytes: u64, plain_bytes: u64) -> Result<(), FormatError> {
        let wrong = |field| Err(FormatError::Field { field });
        let twice = |at: usize| {
            self.from[..at]
                .iter()
                .chain(std::iter::once(&Held { backup: own, manifest: Digest::of(b"") }))
                .any(|held| held.backup == self.from[at].backup)
        };
        if self.from.is_empty() || self.from.len() > MAX_HOLDERS || (0..self.from.len()).any(twice) {
            return wrong("borrowed from");
        }
        if self.pieces.len() > MAX_PIECES {
            return wrong("pieces");
        }
        let mut whole = 0u64;
        for piece in &self.pieces {
            let end = piece.at.checked_add(piece.bytes).filter(|_| piece.bytes > 0);
            let fits = end.is_some_and(|end| piece.from > 0 || end <= own_bytes);
            if !fits || piece.from as usize > self.from.len() {
                return wrong("pieces");
            }
            whole = whole.checked_add(piece.bytes).ok_or(FormatError::Field { field: "pieces" })?;
        }
        let mut sorted: Vec<&Piece> = self.pieces.iter().collect();
        sorted.sort_unstable_by_key(|piece| (piece.from, piece.at));
        let shared =
            sorted.windows(2).any(|two| two[0].from == two[1].from && two[0].at + two[0].bytes > two[1].at);
        if shared || whole != plain_bytes {
            return wrong("pieces");
        }
        Ok(())
    }

    /// Bytes that it has of others.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().filter(|piece| piece.from > 0).map(|piece| piece.bytes).sum()
    }

    /// How many own bytes the `number`-th of the others must have.
    pub fn reaches(&self, number: usize) -> u64 {
        let of = self.pieces.iter().filter(|piece| piece.from as usize == number);
        of.map(|piece| piece.at.saturating_add(piece.bytes)).max().unwrap_or(0)
    }
}

/// A run of an entry's bytes within one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The entry's index.
    pub entry: usize,
    /// Where in the entry.
    pub offset: u64,
    /// Where in the part's plain bytes.
    pub in_part: u64,
    /// How many.
    pub bytes: u64,
}

/// A part that holds something of a backup's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Whose part: 0 is the backup itself, n the n-th that it refers to.
    pub of: usize,
    /// Its number.
    pub number: Sequence,
    /// What of which entries, in the part's order, without overlap.
    pub places: Vec<Place>,
}

impl Share {
    /// Bytes of entries in it.
    pub fn bytes(&self) -> u64 {
        self.places.iter().map(|place| place.bytes).sum()
    }
}

/// A run of an entry's bytes among the own bytes of a backup.
struct Run {
    from: u32,
    at: u64,
    bytes: u64,
    entry: usize,
    offset: u64,
}

/// The parts that hold anything of these entries, in the order in which the entries begin to need them. `parts` are those of the backup itself, then of the others.
pub(super) fn shares(entries: &[Entry], pieces: &[Piece], parts: &[&[Part]]) -> Vec<Share> {
    let mut runs = runs(entries, pieces);
    runs.sort_unstable_by_key(|run| (run.from, run.at));
    let mut shares: Vec<Share> = Vec::new();
    let mut runs = runs.into_iter().peekable();
    for (of, parts) in parts.iter().enumerate() {
        let mut begin = 0u64;
        for part in *parts {
            let end = begin.saturating_add(part.plain_bytes);
            let mut places = Vec::new();
            while let Some(run) = runs.peek_mut().filter(|run| run.from as usize == of && run.at < end) {
                let bytes = run.bytes.min(end - run.at);
                places.push(Place {
                    entry: run.entry,
                    offset: run.offset,
                    in_part: run.at.saturating_sub(begin),
                    bytes,
                });
                if bytes < run.bytes {
                    (run.at, run.offset, run.bytes) = (end, run.offset + bytes, run.bytes - bytes);
                    break;
                }
                runs.next();
            }
            if !places.is_empty() {
                shares.push(Share { of, number: part.number, places });
            }
            begin = end;
        }
        // What lies behind its last part: a check refuses it, and nobody is given it.
        while runs.next_if(|run| run.from as usize == of).is_some() {}
    }
    let first = |share: &Share| share.places.iter().map(|place| (place.entry, place.offset)).min();
    shares.sort_by_cached_key(first);
    shares
}

fn runs(entries: &[Entry], pieces: &[Piece]) -> Vec<Run> {
    let mut found = Vec::new();
    let mut pieces = pieces.iter();
    let (mut piece, mut begin) = (pieces.next(), 0u64);
    for (index, entry) in entries.iter().enumerate() {
        let entry_end = entry.at.saturating_add(entry.size);
        let mut at = entry.at;
        while at < entry_end {
            let Some(now) = piece else { return found };
            let end = begin.saturating_add(now.bytes);
            if end <= at {
                (piece, begin) = (pieces.next(), end);
                continue;
            }
            let bytes = entry_end.min(end) - at;
            let within = at - begin;
            found.push(Run {
                from: now.from,
                at: now.at + within,
                bytes,
                entry: index,
                offset: at - entry.at,
            });
            at += bytes;
        }
    }
    found
}
