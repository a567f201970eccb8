//! A writer's tail: what counts as stored before it is a chunk (`FORMAT.md` section 5a, an owner's half).
//!
//! ```text
//! round ── what counts ─▶ ahead ── what was sent ─▶        (sent: where ahead was at its furthest in this round)
//! ```

use futures::FutureExt as _;

use super::{Place, TIDY_GRACE, Writer, encode_data, encode_packed, frames_of};
use crate::error::JournalError;
use crate::format::object::{Compression, Encoded};
use crate::format::{Kind, Mark};
use crate::packing::Packers;

/// Bytes of an entry beyond its log's at most: header, trailer, and each frame's head and what sealing and compression add to it.
const ENTRY_OVERHEAD: u64 = 64 << 10;
/// Entries that may be on their way to a tail: enough that none waits for an answer to be flushed, few enough that a failure costs little.
const MOST_IN_FLIGHT: usize = 8;
/// From so many on, one is to fill the block that it takes: a source that sends many small messages would fill the tail with little.
const MANY_IN_FLIGHT: usize = 4;
/// Bytes of log that are not worth compressing: with what an object has around them they fit into one of a tail's blocks.
const NOT_COMPRESSED: usize = 3 << 10;

/// What a tail takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailTakes {
    /// An entry.
    Now,
    /// One, once it is [begun](Writer::begin_tail).
    OnceBegun,
    /// One, once something is [heard](Writer::heard) of those that are on their way.
    Later,
    /// None in this round: the next chunk is to be put.
    Nothing,
}

/// Encodes an entry for [`tail_place`](Writer::tail_place), of log that is at most as long as one takes. What fits into the block that it takes anyway stays as it is.
///
/// # Errors
/// As [`encode_packed`].
pub fn encode_entry(place: &Place, log: &[u8], packers: &Packers) -> Result<Encoded, JournalError> {
    if log.len() <= NOT_COMPRESSED {
        let place = Place { compression: Compression::None, ..place.clone() };
        return Ok(encode_data(&place, log)?.0);
    }
    let frames = frames_of(place, log, |plain| packers.pack(plain))?;
    Ok(encode_packed(place, frames, Mark::NONE)?.0)
}

impl Writer {
    /// Whether something was sent to the tail that no chunk holds yet.
    pub fn has_tail(&self) -> bool {
        self.sent > self.place.at.offset
    }

    /// Whether the tail takes an entry of so many plain bytes.
    pub fn tail_takes(&self, plain_bytes: usize) -> TailTakes {
        let most = plain_bytes as u64 + ENTRY_OVERHEAD;
        // T4: behind an entry that did not count a chunk comes first.
        let may = self.sent == self.ahead.at.offset && !self.is_stale();
        if !may || !self.tail.takes(self.reader.store().tails(), most) {
            return TailTakes::Nothing;
        }
        match (self.tail.is_begun(), self.tail.in_flight()) {
            (false, _) => TailTakes::OnceBegun,
            (true, MOST_IN_FLIGHT..) => TailTakes::Later,
            (true, MANY_IN_FLIGHT..) if plain_bytes < NOT_COMPRESSED => TailTakes::Later,
            (true, _) => TailTakes::Now,
        }
    }

    /// Where the next entry of the tail would stand, if it takes one.
    pub fn tail_place(&self) -> &Place {
        &self.ahead
    }

    /// Whether entries were sent whose answers are to come.
    pub fn is_in_flight(&self) -> bool {
        self.tail.in_flight() > 0
    }

    /// Begins a tail, where there is none. `false`: none can be, now or at all.
    ///
    /// # Cancel safety
    /// As `false`.
    pub async fn begin_tail(&mut self) -> bool {
        self.tail.begin(&self.reader, self.place.generation).await
    }

    /// Sends an entry to the tail that was encoded for [`tail_place`](Self::tail_place), where it [takes](Self::tail_takes) one now. Never waits. It counts once it was [heard](Self::heard) of. `false`: nothing was sent.
    ///
    /// # Errors
    /// As [`append`](Self::append), for an entry of another place.
    pub fn send(&mut self, entry: &Encoded) -> Result<bool, JournalError> {
        let header = &entry.header;
        if self.poisoned
            || header.kind != Kind::Data
            || (header.number, header.before) != (self.ahead.number, self.ahead.chain)
        {
            return Err(JournalError::OpenAnew { at: self.place.number });
        }
        let Some(behind) = self.ahead.behind(entry) else { return Ok(false) };
        if self.sent != self.ahead.at.offset || !self.tail.is_begun() {
            return Ok(false);
        }
        let free = self.reader.layout().chunk(self.place.number)?;
        self.tail.send(&entry.bytes, &free);
        self.sent = self.sent.max(header.end);
        self.ahead = behind.clone();
        self.flying.push_back(behind);
        Ok(true)
    }

    /// The answer to what was sent to the tail. `true`: it is durable up to [`stored`](Self::stored), and counts. `false`: what was not heard of may stand there, and counts for nothing; the next chunk is to hold it
    /// and all that was counted, and whatever was counted stays so. Pending for ever while nothing is on its way.
    ///
    /// # Cancel safety
    /// May be dropped and asked again.
    pub async fn heard(&mut self) -> bool {
        let mut is_well = self.tail.heard().await;
        loop {
            match self.flying.pop_front() {
                // T3: its number may have been freed since.
                Some(behind) if is_well && self.former_sent.elapsed() < TIDY_GRACE / 2 => self.round = behind,
                _ => {
                    self.tail.give_up();
                    self.flying.clear();
                    self.ahead = self.round.clone();
                    return false;
                }
            }
            // What was flushed with it was answered with it.
            match self.tail.heard().now_or_never() {
                Some(next) => is_well = next,
                None => return true,
            }
        }
    }

    /// Begins a tail where there is none, sends an entry and hears of it. On `Ok(true)` it is durable and counts as stored; `Ok(false)` as [`heard`](Self::heard) has it.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// Dropped midway it counts for nothing yet.
    pub async fn extend(&mut self, entry: &Encoded) -> Result<bool, JournalError> {
        if !self.begin_tail().await || !self.send(entry)? {
            return Ok(false);
        }
        while self.is_in_flight() {
            if !self.heard().await {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
