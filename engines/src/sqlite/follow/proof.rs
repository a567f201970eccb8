//! Does the database go on from what was shipped? Decided before anything is written to it.
//!
//! What always holds: only a place that the checksums from the log's header on lead to is known again, or one in what was kept when the
//! log was begun anew, if the log that is there was begun by the row that was to begin it. All else is doubt.

use std::io;
use std::path::Path;

use farshore_journal::Offset;

use super::recent::{Boundary, Recent};
use super::{At, FollowError, Follower, Listener, Log, Options, SPOOL_BYTES, Start, Taken, spool};
use crate::sqlite::decoder::{Part, RecordDecoder};
use crate::sqlite::hold::Connections;
use crate::sqlite::wal::{Place, PlaceDigest, WalHeader};
use crate::sqlite::wal_file::{Encoder, Transactions, WalFile};

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

    /// Gives what was kept when the log was begun anew.
    pub(super) fn give_pending(&mut self) -> Result<(), FollowError> {
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
}

/// The log, where anything was ever written to it.
pub(super) fn open(connections: &Connections) -> Result<Option<(WalFile, WalHeader)>, FollowError> {
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
        if behind == Some(transaction.place.digest()) {
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
