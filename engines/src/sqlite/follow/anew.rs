//! Beginning the database's log anew, so that it does not grow without bound.
//!
//! What always holds: the log is let go only with writers held, nothing behind *shipped*, all copied back, and what no target has yet
//! kept beside it. A crash at any line leaves a log that still holds what was shipped last, or a spool that leads on from it; only between the
//! last copying back and our row another's transaction can begin the log anew, which is doubt.

use std::io;
use std::time::{Duration, Instant};

use super::holding::{FIRST_PATIENCE, How, beat};
use super::spool::Anew;
use super::{FollowError, Follower, Listener, Next};
use crate::sqlite::hold::{Beat, Bridge, Counted};

/// Transactions are taken, and pages copied back, with writers held only when there are at most this many bytes of them.
const REST_BYTES: u64 = 4 << 20;
/// The same where there is no other way: writers that are faster than following are held for as long as following needs. It waits
/// in memory.
pub(super) const MOST_REST_BYTES: u64 = 64 << 20;
/// What is so little is copied back at once, and what is not is copied back with nobody held.
const LITTLE_BYTES: u64 = 1 << 20;
/// How long the bulk is taken at a time, and how often in a row before orders are heard.
const SLICE: Duration = Duration::from_millis(200);
const LOOKS: usize = 4;
/// How long it is waited for that something stands behind a bridge.
const BEHIND_PATIENCE: Duration = Duration::from_millis(5);
/// How long they are waited for to begin the log anew, which can be tried again.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long, with writers held, an application's own checkpoint is waited for, which one of its commits begins: it has an end, since nobody commits.
const CHECKPOINT_PATIENCE: Duration = Duration::from_millis(50);
/// How often in a row that is tried.
const TRIES: usize = 8;
/// How many times larger than it should be the log may become before writers are held until all of it is taken.
const FASTEST: u32 = 16;
/// How many times longer than they were held writers are left alone, unless the log becomes that large meanwhile.
const FREE: u32 = 8;

/// What came of taking and copying back the bulk with nobody held.
enum Bulk {
    /// Little is left, or what is left does not become less.
    Settled,
    /// There is more than can be taken in a moment.
    More,
    /// Nothing stands behind the bridge, and much is not copied back.
    NothingBehind,
}

/// What came of taking the rest with writers held.
pub(super) enum Rest {
    /// It is taken, and the log may be begun anew.
    Taken,
    /// There is more of it, or it could not be copied back: it may be tried again at once.
    More,
    /// What no target has could not be kept: that does not heal at once.
    NotKept,
}

impl<L: Listener> Follower<'_, L> {
    /// Begins the log anew while `bridge` holds it; where that does not come about, holds it as it is.
    pub(super) fn begin_anew(&mut self, mut bridge: Bridge) -> Result<Next, FollowError> {
        let connections = self.connections;
        for _ in 0..TRIES {
            // Its own for each try: after a power loss the spool may read as the try before left it, and nothing but the row tells the two apart.
            let row = beat()?;
            match self.settle(&mut bridge)? {
                Bulk::Settled => self.behind = false,
                // Nobody is held for that, and orders are not left unheard.
                Bulk::More => break,
                // A row of ours shall stand behind it, and the bulk is copied back up to it. That is no failed try, where it was not just done.
                Bulk::NothingBehind if !self.behind => {
                    self.behind = true;
                    return self.as_it_is(bridge);
                }
                Bulk::NothingBehind => break,
            }
            // What is written to the spool now is not while writers wait.
            self.recent.spill();
            self.taken.tried += 1;
            // The rest, with writers held: little, and no more comes.
            let mut held = Duration::ZERO;
            let ready = connections.with_writers_held(PATIENCE, || {
                let begun = Instant::now();
                let ready = self.hurried(|this| this.take_rest(&mut bridge, row));
                held = begun.elapsed();
                self.taken.held(held);
                ready
            });
            self.recent.sweep();
            self.begun = Some((Instant::now(), held));
            match ready {
                Ok(rest) => match rest? {
                    Rest::Taken => {}
                    Rest::More => continue,
                    Rest::NotKept => break,
                },
                Err(why) if why.is_busy() => break,
                Err(why) => return Err(why.into()),
            }
            // Writers are free for an instant: a transaction that was begun before the last copying back never begins the log anew.
            match self.hold(PATIENCE, How::Anew(bridge), row) {
                Ok(Some(next)) => return next,
                Ok(None) => {}
                Err(FollowError::Hold(why)) if why.is_busy() => break,
                Err(why) => return Err(why),
            }
        }
        self.tried = Some(Instant::now());
        self.as_it_is(bridge)
    }

    /// Takes and copies back the bulk with nobody held, then what came meanwhile, and so on while that is less each time. Never all is copied back: were this
    /// process to end then, another's transaction would begin the log anew.
    fn settle(&mut self, bridge: &mut Bridge) -> Result<Bulk, FollowError> {
        let connections = self.connections;
        let mut before = u32::MAX;
        loop {
            if !self.take_bulk()? {
                return Ok(Bulk::More);
            }
            let counted = connections.counted_behind(bridge.frames, BEHIND_PATIENCE)?;
            if counted.frames <= bridge.frames {
                let is_little = self.is_little(counted.frames - counted.copied, REST_BYTES);
                return Ok(if is_little { Bulk::Settled } else { Bulk::NothingBehind });
            }
            // Something stands behind the bridge, so it keeps that from being copied back.
            connections.copy_back()?;
            if !self.is_little(counted.frames - counted.copied, LITTLE_BYTES) {
                // Copying back all, with writers held, would wait for the disk to have all of this.
                self.synchronise()?;
            }
            let left = self.left(connections.counted()?);
            if self.is_little(left, LITTLE_BYTES) || left > before / 4 * 3 {
                return Ok(Bulk::Settled);
            }
            before = left;
            // The next copying back comes right behind it, or an application's commit would do it.
            if let Some(next) = connections.bridge(Some(*bridge))? {
                connections.end_bridge(*bridge)?;
                *bridge = next;
            }
        }
    }

    /// Takes what there is, and slows writers down that are faster. Whether it came to an end of it.
    fn take_bulk(&mut self) -> Result<bool, FollowError> {
        let mut goal = None;
        for _ in 0..LOOKS {
            goal = self.look_until(goal, Some(Instant::now() + SLICE), u64::MAX)?;
            if goal.is_none() {
                return Ok(true);
            }
            self.slow_down()?;
        }
        Ok(false)
    }

    /// What was written to the database and to its log is on the disk: whoever copies back next, and be it an application, has to wait for little then.
    pub(super) fn synchronise(&self) -> io::Result<()> {
        if let Some(log) = &self.log {
            log.wal.synchronise()?;
        }
        self.connections.file().sync_data()
    }

    /// Holds by a row that stands wherever it comes to stand.
    pub(super) fn as_it_is(&mut self, bridge: Bridge) -> Result<Next, FollowError> {
        loop {
            match self.hold(FIRST_PATIENCE, How::AsItIs(bridge), beat()?) {
                Ok(Some(next)) => return next,
                Ok(None) => return Err(self.doubt("its log could not be held")),
                // One writer writes for long, and nobody else can meanwhile; the bridge holds.
                Err(FollowError::Hold(why)) if why.is_busy() && self.listener.listens() => {
                    self.look_on(None)?;
                }
                Err(why) => return Err(why),
            }
        }
    }

    /// With writers held: takes what is left, moves the bridge behind it, copies it back, and keeps what no target has yet. Whether the
    /// log may be begun anew then, by this row.
    pub(super) fn take_rest(&mut self, bridge: &mut Bridge, row: Beat) -> Result<Rest, FollowError> {
        // The log must not grow without bound.
        let fast = self.has_frames(FASTEST.saturating_mul(self.options.log_frames));
        let most = if fast { MOST_REST_BYTES } else { REST_BYTES };
        if !self.is_little(self.left(self.connections.counted()?), most) {
            return Ok(Rest::More);
        }
        self.look()?;
        let counted = self.connections.counted()?;
        // All is copied back, which a bridge before the end would have kept from being so.
        bridge.exact |= counted.frames == bridge.frames && counted.copied == counted.frames;
        // A bridge that stands behind everything stays.
        if !bridge.exact || counted.frames != bridge.frames {
            let Some(next) = self.connections.bridge(Some(*bridge))? else { return Ok(Rest::More) };
            self.connections.end_bridge(*bridge)?;
            *bridge = next;
        }
        // Where there is no space to keep it, the log stays as it is.
        if !self.keep(row).unwrap_or(false) {
            return Ok(Rest::NotKept);
        }
        // Last: from here on whoever writes next begins the log anew, should this process end.
        let counted = self.connections.copy_back_within(CHECKPOINT_PATIENCE)?;
        Ok(match counted {
            Some(counted) if counted.copied == counted.frames => Rest::Taken,
            _ => Rest::More,
        })
    }

    /// Keeps what no target has yet, for a log that is begun anew by this row. Whether that is all.
    pub(super) fn keep(&mut self, row: Beat) -> io::Result<bool> {
        let Some(log) = &self.log else { return Ok(false) };
        self.recent.release(self.listener.released());
        self.recent.keep(Anew { salts: log.header.salts, beat: row })
    }

    /// Frames that SQLite counts, from the first on that is not taken or not copied back.
    fn left(&self, counted: Counted) -> u32 {
        let taken = self.log.as_ref().map_or(0, |log| log.shipped.frames);
        counted.frames.saturating_sub(counted.copied.min(taken))
    }

    /// Whether what SQLite counts behind what was shipped is at most so many bytes.
    pub(super) fn rest_is_within(&self, bytes: u64) -> Result<bool, FollowError> {
        let Some(log) = &self.log else { return Ok(true) };
        let frames = self.connections.counted()?.frames.saturating_sub(log.shipped.frames);
        Ok(self.is_little(frames, bytes))
    }

    /// Whether so many frames are at most so many bytes.
    pub(super) fn is_little(&self, frames: u32, bytes: u64) -> bool {
        self.log.as_ref().is_none_or(|log| log.header.is_within(frames, bytes))
    }

    pub(super) fn is_large(&self) -> bool {
        self.has_frames(self.options.log_frames)
            && self.tried.is_none_or(|tried| tried.elapsed() >= self.options.pause)
            && (self.has_frames(FASTEST.saturating_mul(self.options.log_frames))
                || self.begun.is_none_or(|(begun, held)| begun.elapsed() >= held * FREE))
    }

    pub(super) fn has_frames(&self, frames: u32) -> bool {
        self.log.as_ref().is_some_and(|log| log.shipped.frames >= frames)
    }
}
