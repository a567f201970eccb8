//! Does the database go on from what was shipped? Decided before anything is written to it.
//!
//! What always holds: only a place that the checksums from the log's header on lead to is known again, or one in what was kept when the
//! log was begun anew, if the log that is there was begun by the row that was to begin it. All else is doubt.

use std::io;
use std::path::Path;

use bytes::Bytes;
use farshore_journal::Offset;

use super::pace::Pace;
use super::recent::{Boundary, Recent};
use super::spool::{self, Kept, Spool};
use super::{At, FollowError, Follower, Listener, Log, Options, SPOOL_BYTES, Start, Taken};
use crate::sqlite::decoder::{Part, RecordDecoder};
use crate::sqlite::hold::Connections;
use crate::sqlite::wal::{Place, PlaceDigest, WalHeader};
use crate::sqlite::wal_file::{Encoder, Transactions, WalFile, WalReadError};

/// Bytes of a log that are read through with writers held, once, when following begins with whatever is there: some milliseconds.
const BEGIN_BYTES: u64 = 8 << 20;

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
        // Another life that is still at it may keep what is looked for here: it is waited for.
        let spool = Spool::open(&options.spool)?;
        let begin =
            Boundary { offset: start.offset, number: start.number, digest: start.behind.unwrap_or_default() };
        let mut pending = None;
        let found = match open(connections)? {
            Some((wal, header)) => Some((wal, header, connections.counted()?.frames)),
            None => None,
        };
        let fresh = start.behind.is_none()
            && found.as_ref().is_none_or(|(_, header, counted)| header.is_within(*counted, BEGIN_BYTES));
        let log = match found {
            Some(_) if fresh => None,
            Some((wal, header, counted)) => {
                let mut all = wal.transactions(header, header.begin(), counted);
                let shipped = match find(&mut all, start.behind)? {
                    true => all.place(),
                    false => {
                        let kept = kept(&options.spool, begin, &wal, header, counted)?;
                        let (kept, place) =
                            kept.ok_or_else(|| doubt("its log does not hold that transaction any more"))?;
                        pending = Some(kept);
                        place
                    }
                };
                Some(Log { wal, header, shipped })
            }
            None if start.behind.is_none() => None,
            None => return Err(doubt("its log is empty")),
        };
        Ok(Self {
            connections,
            listener,
            options,
            log,
            fresh,
            at: At { number: start.number, offset: start.offset },
            pending,
            recent: Recent::behind(begin, spool, SPOOL_BYTES),
            seen_micros: i64::MIN,
            last: None,
            tried: None,
            behind: false,
            begun: None,
            pace: Pace::new(),
            hurry: None,
            taken: Taken::default(),
        })
    }

    /// With writers held: begins with whatever is there.
    ///
    /// # Errors
    /// [`FollowError::Doubt`] for a log that became large meanwhile: it is read with writers free.
    pub(super) fn begin_here(&mut self) -> Result<(), FollowError> {
        if let Some((wal, header)) = open(self.connections)? {
            let counted = self.connections.counted()?.frames;
            if !header.is_within(counted, BEGIN_BYTES) {
                return Err(self.doubt("its log became large before it was held"));
            }
            let mut all = wal.transactions(header, header.begin(), counted);
            find(&mut all, None)?;
            let shipped = all.place();
            self.log = Some(Log { wal, header, shipped });
        }
        self.fresh = false;
        Ok(())
    }

    /// Gives what was kept when the log was begun anew.
    pub(super) fn give_pending(&mut self) -> Result<(), FollowError> {
        let Some(Pending { records, ends, seen_micros }) = self.pending.take() else { return Ok(()) };
        let mut rest = Bytes::from(records);
        for end in ends {
            let record = rest.split_to((end.offset - self.at.offset) as usize);
            self.recent.records(record.clone(), &[end.into()]);
            self.listener.log(record, None)?;
            self.at = At { number: end.number, offset: end.offset };
        }
        self.seen_micros = seen_micros;
        Ok(())
    }
}

/// The log, where anything was ever written to it.
pub(super) fn open(connections: &Connections) -> Result<Option<(WalFile, WalHeader)>, FollowError> {
    let wal = match WalFile::open(&connections.wal_path()) {
        Ok(wal) => wal,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(why.into()),
    };
    match wal.header() {
        Ok(header) => Ok(header.map(|header| (wal, header))),
        // SQLite takes a log whose header is none for an empty one, and writes it anew: a power loss leaves such.
        Err(WalReadError::Fault(_)) if connections.counted()?.frames == 0 => Ok(None),
        Err(why) => Err(why.into()),
    }
}

/// Goes through the log up to where following starts; whether that is in it.
fn find(all: &mut Transactions<'_>, behind: Option<PlaceDigest>) -> Result<bool, FollowError> {
    while let Some(transaction) = all.next()? {
        if behind == Some(transaction.place.digest()) {
            return Ok(true);
        }
    }
    Ok(behind.is_none())
}

/// Records behind where following starts, of a log that was begun anew since.
#[derive(Debug)]
pub(super) struct Pending {
    records: Vec<u8>,
    /// Where each ends.
    ends: Vec<Boundary>,
    /// When the last one was seen.
    seen_micros: i64,
}

/// What was kept when the log was to be begun anew, if following starts in it and the log that is there now goes on behind it, and where:
/// because it was begun by the row that was to begin it, or was not begun anew at all.
fn kept(
    spool: &Path,
    begin: Boundary,
    wal: &WalFile,
    header: WalHeader,
    counted: u32,
) -> Result<Option<(Pending, Place)>, FollowError> {
    let Some(Kept { before, anew, mut records }) = spool::read(spool)? else { return Ok(None) };
    let mut ends = vec![before];
    let mut seen_micros = i64::MIN;
    let mut decoder = RecordDecoder::new(Offset::new(before.offset));
    let decoded = decoder.push(&records, &mut |part| {
        if let Part::End(ended) = part {
            ends.push(Boundary::behind(&ended.head, ended.end.get()));
            seen_micros = seen_micros.max(ended.seen_micros);
        }
    });
    let Some(last) = ends.last().copied() else { return Ok(None) };
    let dense =
        ends.windows(2).all(|two| two[1].number == two[0].number || two[1].number == two[0].number + 1);
    let whole = decoded.is_ok() && dense && last.offset - before.offset == records.len() as u64;
    let Some(at) = ends.iter().position(|end| *end == begin).filter(|_| whole) else { return Ok(None) };
    let mut all = wal.transactions(header, header.begin(), counted);
    let place = if header.salts.follow(anew.salts) {
        let begun_by_it = match all.next()? {
            // A row of ours that stood elsewhere before has the same bytes, and a VACUUM or a DROP may move its page into the first
            // transaction: never alone.
            Some(first) => first.pages.len() == 1 && Encoder { wal, header }.holds(&first, &anew.beat)?,
            None => false,
        };
        begun_by_it.then_some(header.begin())
    } else {
        find(&mut all, Some(last.digest))?.then_some(all.place())
    };
    records.drain(..(begin.offset - before.offset) as usize);
    ends.drain(..=at);
    Ok(place.map(|place| (Pending { records, ends, seen_micros }, place)))
}
