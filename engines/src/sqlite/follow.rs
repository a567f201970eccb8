//! Following a live database: each transaction becomes a record of our log, none is missed, and what cannot be proved is doubt.
//!
//! What always holds, with *shipped* the last commit frame that became a record, and *counted* the last that SQLite counts:
//! a record is made only of frames whose checksums go on from *shipped*'s; while a read of ours is held nobody begins the log anew;
//! it is let go only with writers held, nothing behind *shipped*, all copied back, and what no target has yet kept beside it; and it goes on only if our own row is the next transaction. `docs/adr/2026-11-26-sqlite-has-a-log-of-our-own.md` argues it.
//! A crash here leaves the database with a row of ours, and the log as it was.
//!
//! ```text
//!          prove ──▶ held ──(log is large)──▶ bridged ──(our row begins it anew)──▶ held
//!            │        ▲                          │
//!          doubt      └──── busy: a row behind ──┘
//! ```

mod anew;
mod holding;
mod proof;
mod recent;
mod spool;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::proof::Pending;
use self::recent::{Boundary, Recent};
use super::base;
use super::hold::{Bridge, Connections, HoldError};
use super::record::Head;
use super::wal::{Place, PlaceDigest, WalHeader};
use super::wal_file::{Encoder, WalFile, WalReadError};

/// Frames from which the log is begun anew: before SQLite's own thousand. From there on every commit of an application would try to copy back what
/// our read keeps from being copied back whole.
pub const LOG_FRAMES: u32 = 700;
/// Most bytes of records that no target has when the log is begun anew: they are kept beside it. More: it is not begun anew. Half a second
/// of a writer as fast as it goes.
pub const SPOOL_BYTES: u64 = 64 << 20;

/// How long it takes what is new before it asks whether anything else is wanted: a writer may be faster than that, and would have it take for ever.
const SLICE: Duration = Duration::from_millis(200);

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The number of the last transaction that was shipped; zero before the first.
    pub number: u64,
    /// Where our log ends: where its record does.
    pub offset: u64,
    /// What its place has as its digest. `None`: begin with whatever the database is now, of which a copy is taken.
    pub behind: Option<PlaceDigest>,
}

/// How to follow.
#[derive(Debug, Clone)]
pub struct Options {
    /// Frames of the log from which it is begun anew.
    pub log_frames: u32,
    /// How long it is left alone when that did not come about.
    pub pause: Duration,
    /// The file that keeps records while the log is begun anew: this follower's alone, on a disk that stays.
    pub spool: PathBuf,
}

impl Options {
    /// The usual ones.
    pub fn with_spool(spool: PathBuf) -> Self {
        Self { log_frames: LOG_FRAMES, pause: Duration::from_millis(500), spool }
    }
}

/// What is wanted next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// To see what is new.
    Look,
    /// To see what is new, and to name the state behind it.
    Point(String),
    /// To see what is new, and to prepare a copy of the file behind it.
    Base,
    /// To end.
    Stop,
}

/// Whoever takes the records.
pub trait Listener {
    /// A part of the record of all that the database's own log holds, for [`base`](Self::base).
    ///
    /// # Errors
    /// Ends the following.
    fn beneath(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// The record beneath was given whole. A copy of the database's file that begins now is the database, once that record is applied to
    /// it and the records from `at` up to the copy's end.
    fn base(&mut self, at: At);

    /// Bytes that continue our log, a record's or a part of one's. With `hurry` writers are held, and nobody may be waited for.
    ///
    /// # Errors
    /// Ends the following.
    fn log(&mut self, bytes: &[u8], hurry: bool) -> io::Result<()>;

    /// All that was committed when the database was looked at last was given: our log ends here.
    fn end(&mut self, at: At);

    /// Up to where our log is needed no more: whoever follows again will begin there or behind. Never waits.
    fn released(&mut self) -> u64;

    /// Whether anyone still takes what is said. Asked while a writer is waited for.
    fn listens(&self) -> bool;

    /// Waits until there may be something to do; with `more` there is, and it only asks whether anything else is wanted first. `taken` is what was
    /// taken of the writers so far.
    fn next(&mut self, taken: Taken, more: bool) -> Order;

    /// The time now, microseconds since 1970 UTC.
    fn now_micros(&mut self) -> i64;
}

/// Where following stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// The last transaction's number.
    pub number: u64,
    /// Where our log ends.
    pub offset: u64,
}

/// What following took of the writers, and how often the log was begun anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// How often it was begun anew.
    pub begun_anew: u64,
    /// How often that was tried.
    pub tried: u64,
    /// How long writers were held in all.
    pub total: Duration,
    /// How long at most.
    pub longest: Duration,
    /// The most frames that the log had.
    pub most_frames: u32,
}

impl Taken {
    fn held(&mut self, time: Duration) {
        self.total += time;
        self.longest = self.longest.max(time);
    }
}

/// Why following ended otherwise than it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// SQLite.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// The log.
    #[error(transparent)]
    Wal(#[from] WalReadError),
    /// The operating system.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Nothing shows that what is there goes on from what was shipped.
    #[error("it cannot be shown that the database goes on from transaction {number}: {why}")]
    Doubt {
        /// The last that was shipped.
        number: u64,
        /// Why.
        why: String,
    },
}

impl FollowError {
    /// Whether nothing shows that the database goes on from what was shipped: a new base is wanted.
    pub fn is_doubt(&self) -> bool {
        match self {
            Self::Doubt { .. } | Self::Hold(HoldError::Replaced) => true,
            Self::Wal(WalReadError::Broken { .. } | WalReadError::BegunAnew | WalReadError::Fault(_)) => true,
            Self::Hold(_) | Self::Wal(WalReadError::Io(_)) | Self::Io(_) => false,
        }
    }
}

/// A database being followed.
pub struct Follower<'a, L> {
    connections: &'a Connections,
    listener: &'a mut L,
    options: Options,
    /// `None` until anything was written to it.
    log: Option<Log>,
    /// It begins with whatever is there, and nothing was given yet: where the log stands is seen with writers held, or it might be begun
    /// anew while it is read, again and again.
    fresh: bool,
    at: At,
    /// Records that come first: those that were kept when the log was begun anew.
    pending: Option<Pending>,
    recent: Recent,
    seen_micros: i64,
    /// The head of the last record, which a point repeats.
    last: Option<Head>,
    tried: Option<Instant>,
    /// When the log was begun anew last, and how long writers were held for it.
    begun: Option<(Instant, Duration)>,
    /// Writers are held.
    hurry: bool,
    taken: Taken,
}

/// The log, and how far it was shipped.
#[derive(Debug)]
struct Log {
    wal: WalFile,
    header: WalHeader,
    shipped: Place,
}

/// Why holding ended.
enum Next {
    Stop,
    Bridged(Bridge),
}

impl<'a, L: Listener> Follower<'a, L> {
    /// Follows until it is asked to stop; what it took of the writers.
    ///
    /// # Errors
    /// [`FollowError`]: nothing is held then.
    pub fn run(mut self) -> Result<Taken, FollowError> {
        self.give_pending()?;
        let mut next = self.first_hold()?;
        while let Next::Bridged(bridge) = next {
            next = self.begin_anew(bridge)?;
        }
        Ok(self.taken)
    }

    /// Does it with writers held: nobody else may be waited for.
    fn hurried<T>(&mut self, does: impl FnOnce(&mut Self) -> T) -> T {
        self.hurry = true;
        let result = does(self);
        self.hurry = false;
        result
    }

    /// Takes all that SQLite counts.
    fn look(&mut self) -> Result<(), FollowError> {
        self.look_until(None, None).map(|_| ())
    }

    /// Takes what SQLite counts, or up to `goal` of it, for a [`SLICE`]. Where it is not all taken, the goal to go on to.
    fn look_on(&mut self, goal: Option<u32>) -> Result<Option<u32>, FollowError> {
        self.look_until(goal, Some(Instant::now() + SLICE))
    }

    /// Takes what SQLite counts, or up to `goal` of it, which it counted before; until `until`, but one transaction at least. Where it is not all taken, the goal to go on to.
    fn look_until(&mut self, goal: Option<u32>, until: Option<Instant>) -> Result<Option<u32>, FollowError> {
        self.connections.check_in_place()?;
        let Some(log) = self.log.take() else { return Ok(None) };
        let counted = self.connections.counted()?.frames;
        self.taken.most_frames = self.taken.most_frames.max(counted);
        if counted < log.shipped.frames || log.wal.header()? != Some(log.header) || !log.wal.is_in_place()? {
            return Err(self.doubt("its log was begun anew or replaced"));
        }
        let goal = goal.map_or(counted, |goal| goal.min(counted));
        let shipped = self.take(&log, goal, until)?;
        let Log { wal, header, .. } = log;
        self.log = Some(Log { wal, header, shipped });
        Ok(Some(goal).filter(|goal| shipped.frames < *goal))
    }

    fn take(&mut self, log: &Log, goal: u32, until: Option<Instant>) -> Result<Place, FollowError> {
        let mut fresh = log.wal.transactions(log.header, log.shipped, goal);
        while let Some(transaction) = fresh.next()? {
            let encoder = Encoder { wal: &log.wal, header: log.header };
            let number = self.at.number + 1;
            let seen = self.now();
            let (listener, recent, hurry) = (&mut *self.listener, &mut self.recent, self.hurry);
            encoder.encode(&transaction, number, seen, &mut |bytes| {
                recent.push(bytes);
                listener.log(bytes, hurry)
            })?;
            let head = encoder.head(&transaction, number);
            self.at = At { number, offset: self.at.offset + head.bytes };
            self.recent.end(Boundary::behind(&head, self.at.offset));
            self.last = Some(head);
            if until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
        }
        Ok(fresh.place())
    }

    /// Never before the last record's.
    fn now(&mut self) -> i64 {
        self.seen_micros = self.seen_micros.max(self.listener.now_micros());
        self.seen_micros
    }

    /// Follows while the log is held.
    fn follow(&mut self) -> Result<Next, FollowError> {
        let mut goal = None;
        loop {
            goal = self.look_on(goal)?;
            self.recent.release(self.listener.released());
            self.recent.sweep();
            if goal.is_none()
                && self.is_large()
                && self.recent.are_all()
                && let Some(bridge) = self.connections.bridge(None)?
            {
                return Ok(Next::Bridged(bridge));
            }
            if goal.is_none() {
                self.listener.end(self.at);
            }
            match self.listener.next(self.taken, goal.is_some()) {
                Order::Look => {}
                Order::Stop => {
                    self.look()?;
                    self.listener.end(self.at);
                    return Ok(Next::Stop);
                }
                Order::Point(name) => {
                    self.look()?;
                    self.point(&name)?;
                    goal = None;
                }
                Order::Base => self.base()?,
            }
        }
    }

    /// Names the state behind the last record.
    fn point(&mut self, name: &str) -> Result<(), FollowError> {
        let Some(last) = self.last else { return Ok(()) };
        let head = last.point(name);
        let seen = self.now();
        let mut record = head.encode().to_vec();
        record.extend_from_slice(name.as_bytes());
        record.extend_from_slice(&super::record::foot(crc32c::crc32c(name.as_bytes()), seen));
        self.listener.log(&record, false)?;
        self.at.offset += head.bytes;
        self.recent.push(&record);
        self.recent.end(Boundary::behind(&head, self.at.offset));
        Ok(())
    }

    /// Gives what the file may lack of all that was shipped.
    fn base(&mut self) -> Result<(), FollowError> {
        let Some(log) = &self.log else { return Ok(()) };
        let encoder = Encoder { wal: &log.wal, header: log.header };
        if let Some(beneath) = base::beneath(encoder, log.shipped)? {
            let listener = &mut *self.listener;
            encoder
                .encode(&beneath, self.at.number, self.seen_micros, &mut |bytes| listener.beneath(bytes))?;
        }
        self.listener.base(self.at);
        Ok(())
    }

    fn doubt(&self, why: &str) -> FollowError {
        FollowError::Doubt { number: self.at.number, why: why.to_owned() }
    }
}
