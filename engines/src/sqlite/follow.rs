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
mod pace;
mod proof;
mod recent;
mod spool;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::pace::Pace;
use self::proof::Pending;
use self::recent::{End, Recent};
use super::base;
use super::hold::{Bridge, Connections, HoldError};
use super::record::Head;
use super::wal::{Place, PlaceDigest, WalHeader};
use super::wal_file::{Encoder, Transactions, WalFile, WalReadError};

/// Frames from which the log is begun anew: before SQLite's own thousand. From there on every commit of an application would try to copy back what
/// our read keeps from being copied back whole.
pub const LOG_FRAMES: u32 = 700;
/// Most bytes of records that no target has when the log is begun anew: they are kept beside it. More: it is not begun anew. Half a second
/// of a writer as fast as it goes.
pub const SPOOL_BYTES: u64 = 128 << 20;

/// How long writers are waited for that are to be held because they are faster.
const BRAKE_PATIENCE: Duration = Duration::from_millis(200);
/// Most bytes of a transaction that is taken with such writers held.
const BRAKED_BYTES: u64 = 16 << 20;

/// Bytes from which whole records are given out; a record of more is given out by itself.
const TOGETHER_BYTES: usize = 128 << 10;

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

    /// Bytes that continue our log: whole records, or a part of one. Waits no longer than `until`, where that is given, for whoever takes them: writers are
    /// held, and there is room for what cannot wait.
    ///
    /// # Errors
    /// Ends the following.
    fn log(&mut self, bytes: Bytes, until: Option<Instant>) -> io::Result<()>;

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
    /// A row was put behind a bridge that nothing stood behind, and no try came to more since.
    behind: bool,
    /// When the log was begun anew last, and how long writers were held for it.
    begun: Option<(Instant, Duration)>,
    pace: Pace,
    /// Writers are held, so nobody is waited for any longer.
    hurry: Option<Instant>,
    taken: Taken,
}

/// The log, and how far it was shipped.
#[derive(Debug)]
struct Log {
    wal: WalFile,
    header: WalHeader,
    shipped: Place,
}

/// Whole records that were not given out yet, and where each ends.
#[derive(Debug, Default)]
struct Records {
    bytes: Vec<u8>,
    ends: Vec<End>,
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
        self.hurried_until(Instant::now(), does)
    }

    fn hurried_until<T>(&mut self, until: Instant, does: impl FnOnce(&mut Self) -> T) -> T {
        self.hurry = Some(until);
        let result = does(self);
        self.hurry = None;
        result
    }

    /// Takes all that SQLite counts.
    fn look(&mut self) -> Result<(), FollowError> {
        self.look_until(None, None, u64::MAX).map(|_| ())
    }

    /// Takes what SQLite counts, or up to `goal` of it, for a while. Where it is not all taken, the goal to go on to.
    fn look_on(&mut self, goal: Option<u32>) -> Result<Option<u32>, FollowError> {
        self.look_until(goal, Some(Instant::now() + self.pace.free()), u64::MAX)
    }

    /// Holds writers for a moment where they are faster than following, and takes what it can of what they wrote.
    fn slow_down(&mut self) -> Result<(), FollowError> {
        let Some((counted, taken)) = self.stands()? else { return Ok(()) };
        let Some(hold) = self.pace.look(counted, taken) else { return Ok(()) };
        let connections = self.connections;
        let looked = connections.with_writers_braked(BRAKE_PATIENCE, || {
            let begun = Instant::now();
            let until = begun + hold;
            let looked = self.hurried_until(until, |this| this.look_until(None, Some(until), BRAKED_BYTES));
            self.taken.held(begun.elapsed());
            looked
        });
        match looked {
            Ok(looked) => looked?,
            // One writer writes for long: nobody else can, and its transaction is not there yet.
            Err(why) if why.is_busy() => None,
            Err(why) => return Err(why.into()),
        };
        if let Some((counted, taken)) = self.stands()? {
            self.pace.held(counted, taken);
        }
        Ok(())
    }

    /// Bytes of the log that SQLite counts, and of them taken.
    fn stands(&self) -> Result<Option<(u64, u64)>, FollowError> {
        let Some(log) = &self.log else { return Ok(None) };
        let bytes = |frames: u32| u64::from(frames) * log.header.frame_bytes() as u64;
        Ok(Some((bytes(self.connections.counted()?.frames), bytes(log.shipped.frames))))
    }

    /// Takes what SQLite counts, or up to `goal` of it, which it counted before; until `until`, but one transaction at least, and none of more than `most` bytes.
    /// Where it is not all taken, the goal to go on to.
    fn look_until(
        &mut self,
        goal: Option<u32>,
        until: Option<Instant>,
        most: u64,
    ) -> Result<Option<u32>, FollowError> {
        self.connections.check_in_place()?;
        let counted = self.connections.counted()?.frames;
        let Some(log) = self.log.take() else { return Ok(None) };
        self.taken.most_frames = self.taken.most_frames.max(counted);
        if counted < log.shipped.frames || log.wal.header()? != Some(log.header) || !log.wal.is_in_place()? {
            return Err(self.doubt("its log was begun anew or replaced"));
        }
        let goal = goal.map_or(counted, |goal| goal.min(counted));
        let shipped = self.take(&log, goal, until, most)?;
        let Log { wal, header, .. } = log;
        self.log = Some(Log { wal, header, shipped });
        Ok(Some(goal).filter(|goal| shipped.frames < *goal))
    }

    fn take(
        &mut self,
        log: &Log,
        goal: u32,
        until: Option<Instant>,
        most: u64,
    ) -> Result<Place, FollowError> {
        let encoder = Encoder { wal: &log.wal, header: log.header };
        let mut fresh = log.wal.transactions(log.header, log.shipped, goal).of_at_most(most);
        let mut whole = Records::default();
        let taken = self.take_into(&mut whole, encoder, &mut fresh, until);
        // What came before something that failed was taken all the same.
        self.give(whole)?;
        taken?;
        Ok(fresh.place())
    }

    fn take_into(
        &mut self,
        whole: &mut Records,
        encoder: Encoder<'_>,
        fresh: &mut Transactions<'_>,
        until: Option<Instant>,
    ) -> Result<(), FollowError> {
        while let Some(transaction) = fresh.next()? {
            let number = self.at.number + 1;
            let seen = self.now();
            let head = encoder.head(&transaction, number);
            let end = End::behind(&head, self.at.offset + head.bytes);
            let fits = head.bytes <= TOGETHER_BYTES as u64;
            if fits && encoder.append(fresh, &transaction, &head, seen, &mut whole.bytes) {
                whole.ends.push(end);
            } else {
                // A long one begins a piece of its own, and nothing else is in its pieces.
                self.give(std::mem::take(whole))?;
                let (listener, recent, hurry) = (&mut *self.listener, &mut self.recent, self.hurry);
                encoder.encode(&transaction, number, seen, &mut |bytes| {
                    let bytes = Bytes::copy_from_slice(bytes);
                    recent.push(bytes.clone());
                    listener.log(bytes, hurry)
                })?;
                self.recent.end(end);
            }
            self.at = At { number, offset: end.offset };
            self.last = Some(head);
            if whole.bytes.len() >= TOGETHER_BYTES {
                self.give(std::mem::take(whole))?;
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
        }
        Ok(())
    }

    /// Gives whole records out.
    fn give(&mut self, Records { bytes, ends }: Records) -> io::Result<()> {
        if ends.is_empty() {
            return Ok(());
        }
        let bytes = Bytes::from(bytes);
        self.recent.records(bytes.clone(), &ends);
        self.listener.log(bytes, self.hurry)
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
            if goal.is_some() {
                self.slow_down()?;
            }
            self.recent.release(self.listener.released());
            self.recent.sweep();
            if goal.is_none() && self.is_large() && self.recent.are_all() {
                self.synchronise()?;
                if let Some(bridge) = self.connections.bridge(None)? {
                    return Ok(Next::Bridged(bridge));
                }
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
        self.at.offset += head.bytes;
        self.give(Records { bytes: record, ends: vec![End::behind(&head, self.at.offset)] })?;
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
