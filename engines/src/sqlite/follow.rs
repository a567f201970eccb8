//! Following a live database: each transaction becomes a record of our log, none is missed, and what cannot be proved is doubt.
//!
//! What always holds, with *shipped* the last commit frame that became a record, and *counted* the last that SQLite counts:
//! a record is made only of frames whose checksums go on from *shipped*'s; while a read of ours is held nobody begins the log anew;
//! it is let go only with writers held, nothing behind *shipped*, all copied back, and the listener saying that it needs the log no
//! more; and it goes on only if our own row is the next transaction. `docs/adr/2026-11-26-sqlite-has-a-log-of-our-own.md` argues it.
//! A crash here leaves the database with a row of ours, and the log as it was.
//!
//! ```text
//!          prove ──▶ held ──(log is large)──▶ bridged ──(our row begins it anew)──▶ held
//!            │        ▲                          │
//!          doubt      └──── busy: a row behind ──┘
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use farshore_journal::Offset;
use serde::{Deserialize, Serialize};

use super::base;
use super::decoder::{Part, RecordDecoder};
use super::hold::{Beat, Bridge, Connections, HoldError, Turn};
use super::recent::{Boundary, Recent};
use super::record::Head;
use super::spool::{self, Kept};
use super::wal::{Place, Salts, WalHeader};
use super::wal_file::{Encoder, Transactions, WalFile, WalReadError};

/// Transactions are taken, and pages copied back, with writers held only when there are at most this many bytes of them.
const REST_BYTES: u64 = 4 << 20;
/// The same where there is no other way: writers that are faster than following are held for as long as following needs. It waits
/// in memory.
const MOST_REST_BYTES: u64 = 64 << 20;
/// How long writers are waited for before a read is first held.
const FIRST_PATIENCE: Duration = Duration::from_secs(30);
/// How long they are waited for to begin the log anew, which can be tried again.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often in a row that is tried.
const TRIES: usize = 8;

/// Frames from which the log is begun anew: before SQLite's own thousand. From there on every commit of an application would try to copy back what
/// our read keeps from being copied back whole.
pub const LOG_FRAMES: u32 = 700;
/// How many times larger than it should be the log may become before writers are held until all of it is taken.
const FASTEST: u32 = 16;
/// Most bytes of records that no target has when the log is begun anew: they are kept beside it. More: it is not begun anew.
const SPOOL_BYTES: usize = 8 << 20;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The number of the last transaction that was shipped; zero before the first.
    pub number: u64,
    /// Where our log ends: where its record does.
    pub offset: u64,
    /// What its place has as [`place_digest`]. `None`: begin with whatever the database is now, of which a copy is taken.
    pub behind: Option<PlaceDigest>,
}

/// Eight bytes of a place's digest.
pub type PlaceDigest = [u8; 8];

/// What the journal keeps in the clear of a place, to know it again.
pub fn place_digest(place: Place) -> PlaceDigest {
    let mut hasher = blake3::Hasher::new_derive_key("farshore 2026-11 sqlite place v1");
    hasher.update(&place.salts.rising.to_le_bytes());
    hasher.update(&place.salts.random.to_le_bytes());
    hasher.update(&place.frames.to_le_bytes());
    hasher.update(&place.sum.bytes());
    let mut digest = [0; 8];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    digest
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

    /// Waits until there may be something to do. `taken` is what was taken of the writers so far.
    fn next(&mut self, taken: Taken) -> Order;

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
    /// Pages of the database; zero where no transaction was seen yet.
    pub database_pages: u32,
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
    at: At,
    /// Records that come first: those that were kept when the log was begun anew.
    pending: Vec<u8>,
    recent: Recent,
    seen_micros: i64,
    /// The head of the last record, which a point repeats.
    last: Option<Head>,
    tried: Option<Instant>,
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
    /// Proves that the database goes on from `start`. Writes nothing.
    ///
    /// # Errors
    /// [`FollowError::Doubt`] when that cannot be shown.
    pub fn prove(
        connections: &'a Connections,
        listener: &'a mut L,
        start: Start,
        options: Options,
    ) -> Result<Self, FollowError> {
        let doubt = |why: &str| FollowError::Doubt { number: start.number, why: why.to_owned() };
        connections.check_in_place()?;
        let mut at = At { number: start.number, offset: start.offset, database_pages: 0 };
        let mut pending = Vec::new();
        let log = match (open(connections)?, start.behind) {
            (Some((wal, header)), behind) => {
                let mut all = wal.transactions(header, header.begin(), connections.counted()?.frames);
                let shipped = match find(&mut all, behind, &mut at)? {
                    true => all.place(),
                    false => {
                        let kept = kept(&options.spool, start, &wal, header, connections.counted()?.frames)?;
                        let kept =
                            kept.ok_or_else(|| doubt("its log does not hold that transaction any more"))?;
                        (at.number, at.offset, pending) = (kept.number, kept.offset, kept.records);
                        kept.place
                    }
                };
                Some(Log { wal, header, shipped })
            }
            (None, None) => None,
            (None, Some(_)) => return Err(doubt("its log is empty")),
        };
        let behind = start.behind.unwrap_or_default();
        let begin = Boundary { offset: start.offset, number: start.number, digest: behind };
        Ok(Self {
            connections,
            listener,
            options,
            log,
            at,
            pending,
            recent: Recent::behind(begin, SPOOL_BYTES),
            seen_micros: i64::MIN,
            last: None,
            tried: None,
            hurry: false,
            taken: Taken::default(),
        })
    }

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

    /// Holds for the first time, behind all that there is.
    fn first_hold(&mut self) -> Result<Next, FollowError> {
        loop {
            self.look()?;
            if let Some(held) = self.hold(FIRST_PATIENCE, How::Behind, beat()?)? {
                return held;
            }
        }
    }

    /// Begins the log anew while `bridge` holds it; where that does not come about, holds it as it is.
    fn begin_anew(&mut self, mut bridge: Bridge) -> Result<Next, FollowError> {
        let connections = self.connections;
        // The bulk, with nobody held. Never all: were this process to end then, another's transaction would begin the log anew.
        let counted = connections.counted()?;
        if counted.frames > bridge.frames {
            connections.copy_back()?;
        } else if !self.is_little(counted.frames - counted.copied, REST_BYTES) {
            // Nothing stands behind the bridge: a row of ours shall, and the bulk is copied back up to it.
            return self.as_it_is(bridge);
        }
        let row = beat()?;
        for _ in 0..TRIES {
            self.look()?;
            self.taken.tried += 1;
            // The rest, with writers held: little, and no more comes.
            let ready = connections.with_writers_held(PATIENCE, || {
                let begun = Instant::now();
                self.hurry = true;
                let ready = self.take_rest(&mut bridge, row);
                self.hurry = false;
                self.taken.held(begun.elapsed());
                ready
            });
            match ready {
                Ok(ready) => match ready? {
                    true => {}
                    false => continue,
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
        self.as_it_is(bridge)
    }

    /// Holds by a row that stands wherever it comes to stand.
    fn as_it_is(&mut self, bridge: Bridge) -> Result<Next, FollowError> {
        self.tried = Some(Instant::now());
        match self.hold(FIRST_PATIENCE, How::AsItIs(bridge), beat()?)? {
            Some(next) => next,
            None => Err(self.doubt("its log could not be held")),
        }
    }

    /// With writers held: takes what is left, moves the bridge behind it, copies it back, and keeps what no target has yet. Whether the
    /// log may be begun anew then, by this row.
    fn take_rest(&mut self, bridge: &mut Bridge, row: Beat) -> Result<bool, FollowError> {
        // The log must not grow without bound.
        let fast = self.has_frames(FASTEST.saturating_mul(self.options.log_frames));
        if !self.rest_is_within(if fast { MOST_REST_BYTES } else { REST_BYTES })? {
            return Ok(false);
        }
        self.look()?;
        // A bridge that stands behind everything stays.
        if self.connections.counted()?.frames != bridge.frames {
            let Some(next) = self.connections.bridge(Some(*bridge))? else { return Ok(false) };
            self.connections.end_bridge(*bridge)?;
            *bridge = next;
        }
        if !self.keep(row)? {
            return Ok(false);
        }
        // Last: from here on whoever writes next begins the log anew, should this process end.
        let counted = self.connections.copy_back()?;
        Ok(counted.is_some_and(|counted| counted.copied == counted.frames))
    }

    /// Keeps what no target has yet, for a log that is begun anew by this row. Whether that is all.
    fn keep(&mut self, row: Beat) -> Result<bool, FollowError> {
        let Some(log) = &self.log else { return Ok(false) };
        self.recent.release(self.listener.released());
        let Some((before, records)) = self.recent.all() else { return Ok(false) };
        let Boundary { offset, number, digest } = before;
        let Salts { rising, random } = log.header.salts;
        let kept = Kept { number, digest, from: offset, rising, random, beat: row };
        spool::write(&self.options.spool, &kept, records)?;
        Ok(true)
    }

    #[allow(clippy::type_complexity)] // whether it was held, and what came of that
    fn hold(
        &mut self,
        patience: Duration,
        how: How,
        row: Beat,
    ) -> Result<Option<Result<Next, FollowError>>, FollowError> {
        let connections = self.connections;
        let mut turn = Holding { follower: self, how, since: None };
        connections.hold(patience, row, &mut turn)
    }

    /// Gives what was kept when the log was begun anew.
    fn give_pending(&mut self) -> Result<(), FollowError> {
        let pending = std::mem::take(&mut self.pending);
        let mut ends = Vec::new();
        let mut decoder = RecordDecoder::new(Offset::new(self.at.offset - pending.len() as u64));
        let decoded = decoder.push(&pending, &mut |part| {
            if let Part::End(ended) = part {
                ends.push(ended.clone());
            }
        });
        decoded.map_err(io::Error::other)?;
        let mut rest = &pending[..];
        for ended in ends {
            let (record, behind) = rest.split_at(ended.head.bytes as usize);
            rest = behind;
            self.listener.log(record, false)?;
            self.recent.push(record);
            self.recent.end(Boundary::behind(&ended.head, ended.end.get()));
            self.seen_micros = self.seen_micros.max(ended.seen_micros);
        }
        Ok(())
    }

    /// Whether what SQLite counts behind what was shipped is at most so many bytes.
    fn rest_is_within(&self, bytes: u64) -> Result<bool, FollowError> {
        let Some(log) = &self.log else { return Ok(true) };
        let frames = self.connections.counted()?.frames.saturating_sub(log.shipped.frames);
        Ok(self.is_little(frames, bytes))
    }

    /// Whether so many frames are at most so many bytes.
    fn is_little(&self, frames: u32, bytes: u64) -> bool {
        let frame = self.log.as_ref().map_or(0, |log| log.header.frame_bytes() as u64);
        u64::from(frames) * frame <= bytes
    }

    /// Takes all that SQLite counts.
    fn look(&mut self) -> Result<(), FollowError> {
        self.connections.check_in_place()?;
        let Some(log) = self.log.take() else { return Ok(()) };
        let counted = self.connections.counted()?.frames;
        self.taken.most_frames = self.taken.most_frames.max(counted);
        let taken = self.take(&log, counted);
        let Log { wal, header, .. } = log;
        self.log = Some(Log { wal, header, shipped: taken? });
        Ok(())
    }

    fn take(&mut self, log: &Log, counted: u32) -> Result<Place, FollowError> {
        if counted < log.shipped.frames || log.wal.header()? != Some(log.header) || !log.wal.is_in_place()? {
            return Err(self.doubt("its log was begun anew or replaced"));
        }
        let mut fresh = log.wal.transactions(log.header, log.shipped, counted);
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
            self.recent.end(Boundary::behind(&head, self.at.offset + head.bytes));
            self.at = At {
                number,
                offset: self.at.offset + head.bytes,
                database_pages: transaction.database_pages,
            };
            self.last = Some(head);
        }
        Ok(fresh.place())
    }

    /// Never before the last record's.
    fn now(&mut self) -> i64 {
        self.seen_micros = self.seen_micros.max(self.listener.now_micros());
        self.seen_micros
    }

    /// Whether the row that was just written is the next transaction, in the log as it was or in one begun anew: then nothing lies
    /// between what was shipped and it.
    fn find_row(&mut self, beat: Beat) -> Result<Row, FollowError> {
        let before = self.log.take();
        let now = match before {
            Some(Log { wal, shipped, .. }) if wal.is_in_place()? => {
                wal.header()?.map(|header| (wal, header, Some(shipped)))
            }
            Some(_) => None,
            None => open(self.connections)?.map(|(wal, header)| (wal, header, None)),
        };
        let Some((wal, header, shipped)) = now else {
            return Err(self.doubt("its log is another one than a moment ago"));
        };
        let (from, row) = match shipped {
            Some(shipped) if shipped.salts == header.salts => (shipped, Row::Behind),
            Some(shipped) if header.salts.follow(shipped.salts) => {
                self.taken.begun_anew += 1;
                (header.begin(), Row::First)
            }
            Some(_) => return Err(self.doubt("its log was begun anew more than once")),
            None => (header.begin(), Row::First),
        };
        let mut fresh = wal.transactions(header, from, self.connections.counted()?.frames);
        let ours = match fresh.next()? {
            // The bytes are new: nobody else can have them.
            Some(transaction) => Encoder { wal: &wal, header }.holds(&transaction, &beat)?,
            None => false,
        };
        if !ours {
            return Err(self.doubt("another transaction came before ours"));
        }
        self.log = Some(Log { wal, header, shipped: from });
        Ok(row)
    }

    /// Follows while the log is held.
    fn follow(&mut self) -> Result<Next, FollowError> {
        loop {
            self.look()?;
            self.recent.release(self.listener.released());
            if self.is_large()
                && self.recent.are_all()
                && let Some(bridge) = self.connections.bridge(None)?
            {
                return Ok(Next::Bridged(bridge));
            }
            self.listener.end(self.at);
            match self.listener.next(self.taken) {
                Order::Look => {}
                Order::Stop => {
                    self.look()?;
                    self.listener.end(self.at);
                    return Ok(Next::Stop);
                }
                Order::Point(name) => {
                    self.look()?;
                    self.point(&name)?;
                }
                Order::Base => {
                    self.look()?;
                    self.base()?;
                }
            }
        }
    }

    fn is_large(&self) -> bool {
        self.has_frames(self.options.log_frames)
            && self.tried.is_none_or(|tried| tried.elapsed() >= self.options.pause)
    }

    fn has_frames(&self, frames: u32) -> bool {
        self.log.as_ref().is_some_and(|log| log.shipped.frames >= frames)
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

/// Where a row of ours came to stand.
enum Row {
    /// Behind what was shipped.
    Behind,
    /// It began the log anew.
    First,
}

/// How the log comes to be held.
#[derive(Debug, Clone, Copy)]
enum How {
    /// Behind all that there is, for the first time.
    Behind,
    /// By a row that begins it anew, while this bridge holds it until then.
    Anew(Bridge),
    /// By a row that stands wherever it comes to stand, since this bridge holds the log until then.
    AsItIs(Bridge),
}

struct Holding<'f, 'a, L> {
    follower: &'f mut Follower<'a, L>,
    how: How,
    since: Option<Instant>,
}

impl<L: Listener> Turn for Holding<'_, '_, L> {
    type Held = Result<Next, FollowError>;
    type Error = FollowError;

    fn before(&mut self) -> Result<bool, FollowError> {
        self.since = Some(Instant::now());
        let follower = &mut *self.follower;
        match self.how {
            How::Behind if follower.rest_is_within(MOST_REST_BYTES)? => {
                follower.hurry = true;
                let looked = follower.look();
                follower.hurry = false;
                looked.map(|()| true)
            }
            How::Behind => Ok(false),
            How::Anew(bridge) => {
                let counted = follower.connections.counted()?;
                let shipped = follower.log.as_ref().map_or(0, |log| log.shipped.frames);
                let nothing_behind = counted.frames == bridge.frames && shipped == counted.frames;
                if !nothing_behind || counted.copied != counted.frames {
                    return Ok(false);
                }
                follower.connections.end_bridge(bridge)?;
                Ok(true)
            }
            How::AsItIs(_) => Ok(true),
        }
    }

    fn held(&mut self, beat: Beat) -> Result<Next, FollowError> {
        if let Some(since) = self.since {
            self.follower.taken.held(since.elapsed());
        }
        match self.how {
            How::AsItIs(bridge) => {
                self.follower.connections.end_bridge(bridge)?;
                self.follower.connections.copy_back()?;
            }
            How::Behind => {
                self.follower.find_row(beat)?;
            }
            How::Anew(_) => {
                if let Row::Behind = self.follower.find_row(beat)? {
                    // It did not begin the log anew, so no log that is begun anew later may be known by it.
                    self.follower.keep(super::follow::beat()?)?;
                }
            }
        }
        self.follower.follow()
    }
}

/// The log, where anything was ever written to it.
fn open(connections: &Connections) -> Result<Option<(WalFile, WalHeader)>, FollowError> {
    let wal = match WalFile::open(&connections.wal_path()) {
        Ok(wal) => wal,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(why.into()),
    };
    Ok(wal.header()?.map(|header| (wal, header)))
}

/// Goes through the log up to where following starts; whether that is in it.
fn find(all: &mut Transactions<'_>, behind: Option<PlaceDigest>, at: &mut At) -> Result<bool, FollowError> {
    while let Some(transaction) = all.next()? {
        at.database_pages = transaction.database_pages;
        if behind == Some(place_digest(transaction.place)) {
            return Ok(true);
        }
    }
    Ok(behind.is_none())
}

/// Records behind where following starts, of a log that was begun anew since.
struct Before {
    records: Vec<u8>,
    /// The last one's transaction, and where it ends.
    number: u64,
    offset: u64,
    /// Where the log that is there now goes on behind it.
    place: Place,
}

/// What was kept when the log was to be begun anew, if following starts in it and the log that is there now goes on behind it: because
/// it was begun by the row that was to begin it, or was not begun anew at all.
fn kept(
    spool: &Path,
    start: Start,
    wal: &WalFile,
    header: WalHeader,
    counted: u32,
) -> Result<Option<Before>, FollowError> {
    let Some((kept, records)) = spool::read(spool)? else { return Ok(None) };
    let mut ends = vec![Boundary { offset: kept.from, number: kept.number, digest: kept.digest }];
    let mut decoder = RecordDecoder::new(Offset::new(kept.from));
    let decoded = decoder.push(&records, &mut |part| {
        if let Part::End(ended) = part {
            ends.push(Boundary::behind(&ended.head, ended.end.get()));
        }
    });
    let digest = start.behind.unwrap_or_default();
    let wanted = Boundary { offset: start.offset, number: start.number, digest };
    let Some(last) = ends.last().copied() else { return Ok(None) };
    let dense =
        ends.windows(2).all(|two| two[1].number == two[0].number || two[1].number == two[0].number + 1);
    let whole = decoded.is_ok() && dense && last.offset - kept.from == records.len() as u64;
    if !whole || !ends.contains(&wanted) {
        return Ok(None);
    }
    let mut all = wal.transactions(header, header.begin(), counted);
    let place = if header.salts.follow(kept.salts()) {
        let begun_by_it = match all.next()? {
            // A row of ours that stood elsewhere before has the same bytes, and a VACUUM or a DROP may move its page into the first
            // transaction: never alone.
            Some(first) => first.pages.len() == 1 && Encoder { wal, header }.holds(&first, &kept.beat)?,
            None => false,
        };
        begun_by_it.then_some(header.begin())
    } else {
        let mut at = At { number: 0, offset: 0, database_pages: 0 };
        find(&mut all, Some(last.digest), &mut at)?.then_some(all.place())
    };
    let skip = (start.offset - kept.from) as usize;
    let before = |place| {
        let records = records[skip..].to_vec();
        Before { records, number: last.number, offset: last.offset, place }
    };
    Ok(place.map(before))
}

/// New bytes that no other transaction has.
fn beat() -> Result<Beat, FollowError> {
    let mut beat = [0; 16];
    getrandom::fill(&mut beat).map_err(|why| io::Error::other(why.to_string()))?;
    Ok(beat)
}
