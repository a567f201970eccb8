//! The walk along a journal's chunks, and what it writes into the catalog.
//!
//! What always holds: each chunk continues the one before it; a range is written in one transaction with the commits and named
//! points in it, so that what is known of a range is all of it. Chunks that no key opens are passed over: decoding begins
//! again at the next place where a decoder can begin.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::branch::{Branch, Fork};
use farshore_catalog::commit::{Commit, commit_insert_in_txn};
use farshore_catalog::gap::Gap;
use farshore_catalog::mark::{Mark, MarkKind, mark_put_in_txn};
use farshore_catalog::range::{JournalRange, range_extend_in_txn};
use farshore_engines::event::{Happened, LogEvent};
use farshore_engines::log::Decoder;
use farshore_journal::chunk::Chunk;
use farshore_journal::expired::Spans;
use farshore_journal::format::body::{GapBody, TimelineBody};
use farshore_journal::format::{FormatError, Header, Kind};
use farshore_journal::reader::Keyring;
use farshore_journal::{JournalError, Offset, Position, Sequence};
use tokio::task::JoinSet;

use super::known::{self, GoOn, Known};
use super::{Held, Report};

/// Chunks that are asked for ahead of the one in hand.
const AHEAD: u64 = 8;
/// Commits that are written at once.
const BATCH: usize = 5_000;

/// A commit whose whole number is not known yet.
struct Unnumbered {
    low: u32,
    timeline: farshore_journal::Timeline,
    start: Offset,
    end: Offset,
    time: DateTime<Utc>,
}

/// A walk along the chunks.
pub(super) struct Walk<'a> {
    catalog: &'a Catalog,
    held: &'a Held,
    keys: Keyring,
    /// A transaction number that is not far from those of the log in hand.
    anchor: Option<u64>,
    former: Option<Header>,
    decoder: Option<Decoder>,
    /// What was walked since it was last written.
    range: Option<JournalRange>,
    /// A chunk on this stretch could not be opened: nothing behind it is called checked here.
    unseen: bool,
    /// Log before this expired: where a record starts is not known until the decoder began anew.
    behind_run: bool,
    commits: Vec<Commit>,
    unnumbered: Vec<Unnumbered>,
    marks: Vec<Mark>,
    report: Report,
    /// In the first chunk, the log before this offset is not decoded: decoding begins where a decoder can.
    skip_to: Option<Offset>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(catalog: &'a Catalog, held: &'a Held, anchor: Option<u64>, report: Report) -> Self {
        Self {
            catalog,
            held,
            keys: Keyring::new(held.source.unlock().clone()),
            anchor,
            former: None,
            decoder: None,
            range: None,
            unseen: false,
            behind_run: false,
            commits: Vec::new(),
            unnumbered: Vec::new(),
            marks: Vec::new(),
            report,
            skip_to: None,
        }
    }

    /// Walks what the catalog does not know, up to `last`.
    pub(super) async fn run(mut self, last: Sequence) -> anyhow::Result<Report> {
        let gone = self.held.source.reader().runs_begun().await?;
        // First, so that no window is shown meanwhile that leads across what expired.
        for run in &gone {
            super::put_expired(self.catalog, self.held.source.record(), &self.held.store, run).await?;
        }
        let first = self.begin(last).await?;
        let mut fetching = JoinSet::new();
        let mut arrived = BTreeMap::new();
        let mut asked = first.get();
        let gone = Spans::of(gone.iter().map(|run| run.name));
        let is_gone = |number: u64| gone.covers(Sequence::new(number));
        for wanted in super::numbers(first, last) {
            while asked <= last.get() && asked < wanted.get() + AHEAD {
                if !is_gone(asked) {
                    let (reader, number) = (self.held.source.reader().clone(), Sequence::new(asked));
                    fetching.spawn(async move { (number, reader.expected_chunk(number).await) });
                }
                asked += 1;
            }
            if is_gone(wanted.get()) {
                // The log ends before it and begins anew behind it.
                if self.former.take().is_some() {
                    self.flush().await?;
                    (self.decoder, self.unseen) = (None, false);
                }
                self.behind_run = true;
                continue;
            }
            while !arrived.contains_key(&wanted) {
                let Some(one) = fetching.join_next().await else { anyhow::bail!("a read was cut off") };
                let (number, chunk) = one?;
                arrived.insert(number, chunk?);
            }
            if let Some(chunk) = arrived.remove(&wanted) {
                self.take(&chunk).await?;
            }
        }
        self.flush().await?;
        Ok(self.report)
    }

    /// Takes what stands before the journal's first log, and finds the chunk to go on from: the one that holds the start of the log
    /// segment in which the catalog's knowledge first ends.
    async fn begin(&mut self, last: Sequence) -> anyhow::Result<Sequence> {
        let reader = self.held.source.reader();
        let mut at = Sequence::FIRST;
        let begins = loop {
            let chunk = match reader.expected_chunk(at).await {
                Ok(chunk) => chunk,
                Err(JournalError::Expired { run, .. }) => {
                    self.former = None;
                    self.behind_run = true;
                    at = run.name.last.next().filter(|next| *next <= last).unwrap_or(last);
                    continue;
                }
                Err(why) => return Err(why.into()),
            };
            if chunk.header().kind == Kind::Data {
                break Position::new(chunk.header().timeline, chunk.header().start);
            }
            self.take(&chunk).await?;
            match at.next().filter(|next| *next <= last) {
                Some(next) => at = next,
                None => return Ok(last.next().unwrap_or(last)),
            }
        };
        let all = Known::read(self.catalog, self.held).await?;
        let known = match known::goes_on(all.whole_to(begins), last) {
            GoOn::First => return Ok(at),
            GoOn::Nowhere => return Ok(last.next().unwrap_or(last)),
            GoOn::In(known) => known,
        };
        let timeline = known.timeline;
        let incarnation = self.held.source.record().incarnation;
        let shape = self.held.source.shape();
        let from = if shape.finds_records() {
            known::decoding_start(known, shape.segment_bytes())
        } else {
            let checked = Position::new(timeline, known::checked_within(known));
            let commit = self.catalog.commit_at(incarnation, timeline, checked).await?;
            match commit.map(|commit| commit.end).max(all.gap_end_before(checked)) {
                Some(record) => record,
                None => return Ok(at),
            }
        };
        let behind = move |header: &Header| {
            header.timeline > timeline || (header.timeline == timeline && header.end > from)
        };
        let chunk = reader.first_where(last, behind).await?;
        let goes_on = chunk.header().number;
        // The log from there expired: where a record starts behind it is not known.
        let expired = chunk.header().timeline == timeline && chunk.header().start > from;
        if goes_on <= at {
            return Ok(at);
        }
        let newest = self.catalog.commit_at(incarnation, timeline, Position::new(timeline, from)).await?;
        self.anchor = newest.map(|commit| commit.xid + 1).or(self.anchor);
        self.skip_to = Some(from);
        self.behind_run = expired;
        self.former = None;
        Ok(goes_on)
    }

    async fn take(&mut self, chunk: &Chunk) -> anyhow::Result<()> {
        let header = chunk.header();
        let reader = self.held.source.reader();
        match &self.former {
            Some(former) => reader.check_follows(former, header)?,
            None if header.number == Sequence::FIRST && header.before != reader.genesis() => {
                return Err(JournalError::Broken { before: header.number, at: header.number }.into());
            }
            None => {}
        }
        self.report.chunks += 1;
        let incarnation = self.held.source.record().incarnation;
        match header.kind {
            Kind::Data => self.data(chunk).await?,
            Kind::Timeline => {
                self.flush().await?;
                (self.decoder, self.unseen) = (None, false);
                let body: TimelineBody = reader.body(chunk)?;
                let fork = Some(Fork { parent: body.parent, at: header.start });
                let branch =
                    Branch { incarnation, timeline: header.timeline, fork, first_seen_at: Utc::now() };
                self.catalog.branch_put(&branch).await?;
            }
            Kind::Gap => {
                self.flush().await?;
                (self.decoder, self.unseen) = (None, false);
                let body: GapBody = reader.body(chunk)?;
                self.report.gaps += 1;
                self.catalog
                    .gap_put(&Gap {
                        incarnation,
                        store: self.held.store.clone(),
                        timeline: header.timeline,
                        start: header.start,
                        end: header.end,
                        reason: body.reason,
                        seen_at: Utc::now(),
                    })
                    .await?;
            }
            _ => {}
        }
        self.former = Some(header.clone());
        Ok(())
    }

    async fn data(&mut self, chunk: &Chunk) -> anyhow::Result<()> {
        let header = chunk.header();
        let reader = self.held.source.reader();
        match self.keys.for_chunk(reader, header).await {
            Ok(key) => {
                let name = reader.layout().chunk(header.number)?;
                let plain = chunk
                    .plain_all(key.as_ref())
                    .map_err(|source| JournalError::Object { key: name, source })?;
                self.decode(header, &plain)?;
            }
            Err(JournalError::Object {
                source: FormatError::KeyMissing | FormatError::Key { .. }, ..
            }) => {
                self.report.sealed += 1;
                self.unseen = true;
                (self.decoder, self.skip_to) = (None, None);
            }
            Err(why) => return Err(why.into()),
        }
        // A marked chunk ends where a record does.
        self.behind_run &= header.mark.is_none();
        let checked = self.decoder.as_ref().and_then(Decoder::checked_end).filter(|_| !self.unseen);
        match &mut self.range {
            Some(range) => {
                range.end = header.end;
                range.last_sequence = header.number;
                range.checked_end =
                    checked.unwrap_or(range.checked_end).max(range.checked_end).min(header.end);
            }
            None => {
                self.range = Some(JournalRange {
                    incarnation: self.held.source.record().incarnation,
                    store: self.held.store.clone(),
                    timeline: header.timeline,
                    start: header.start,
                    end: header.end,
                    checked_end: checked.unwrap_or(header.start).max(header.start).min(header.end),
                    first_sequence: header.number,
                    last_sequence: header.number,
                });
            }
        }
        // A range that is not checked to its end stays in one piece: what follows must not be joined to it as checked.
        if self.commits.len() >= BATCH && self.unnumbered.is_empty() && !self.unseen {
            self.flush().await?;
        }
        Ok(())
    }

    fn decode(&mut self, header: &Header, plain: &[u8]) -> anyhow::Result<()> {
        let skip = self.skip_to.take().filter(|to| *to > header.start).unwrap_or(header.start);
        let mut from = usize::try_from(skip.bytes_since(header.start).unwrap_or(0))?.min(plain.len());
        let mut at = Position::new(header.timeline, skip);
        if self.decoder.is_none() {
            // Behind what could not be opened a record's start is not known.
            if self.unseen || self.behind_run {
                let next = self.held.source.shape().next_begin(at.offset, false);
                let Some(next) = next.filter(|next| *next < header.end) else { return Ok(()) };
                from += usize::try_from(next.bytes_since(at.offset).unwrap_or(0))?;
                at = Position::new(header.timeline, next);
            }
            let decoder = self.held.source.shape().decoder(at)?;
            self.behind_run = false;
            self.decoder = Some(match self.anchor {
                Some(next) => decoder.with_transaction_anchor(next),
                None => decoder,
            });
        }
        let Some(decoder) = self.decoder.as_mut() else { return Ok(()) };
        let incarnation = self.held.source.record().incarnation;
        let timeline = at.timeline;
        let Self { commits, unnumbered, marks, report, anchor, .. } = self;
        decoder.push(&plain[from..], &mut |event: LogEvent| match event.what {
            Happened::Commit(commit) => {
                let Some(time) = DateTime::from_timestamp_micros(commit.time_micros) else { return };
                let (start, end) = (event.start, event.end);
                report.commits += 1;
                match commit.transaction.full {
                    Some(xid) => {
                        *anchor = Some(anchor.map_or(xid + 1, |known| known.max(xid + 1)));
                        commits.push(Commit { timeline, start, end, time, xid });
                    }
                    None => unnumbered.push(Unnumbered {
                        low: commit.transaction.low,
                        timeline,
                        start,
                        end,
                        time,
                    }),
                }
            }
            Happened::Checkpoint(checkpoint) => {
                let next = checkpoint.next_transaction;
                *anchor = Some(anchor.map_or(next, |known| known.max(next)));
                for one in unnumbered.drain(..) {
                    let Some(xid) = whole_before(next, one.low) else { continue };
                    let Unnumbered { timeline, start, end, time, .. } = one;
                    commits.push(Commit { timeline, start, end, time, xid });
                }
            }
            Happened::RestorePoint { name, time_micros } => {
                if let Some(time) = DateTime::from_timestamp_micros(time_micros) {
                    marks.push(Mark {
                        incarnation,
                        kind: MarkKind::RestorePoint,
                        name,
                        position: Position::new(timeline, event.end),
                        time,
                        note: String::new(),
                        held_until: None,
                    });
                }
            }
            _ => {}
        })?;
        Ok(())
    }

    /// Writes what was gathered, in one transaction. Commits whose number is not known wait for a checkpoint to tell it; where none
    /// follows, the range waits with them for the next bring-up.
    async fn flush(&mut self) -> anyhow::Result<()> {
        let (range, commits, marks) =
            (self.range.take(), std::mem::take(&mut self.commits), std::mem::take(&mut self.marks));
        if !std::mem::take(&mut self.unnumbered).is_empty() {
            return Ok(());
        }
        let mut txn = self.catalog.begin().await?;
        commit_insert_in_txn(&mut txn, self.held.source.record().incarnation, &commits).await?;
        for mark in &marks {
            mark_put_in_txn(&mut txn, mark).await?;
        }
        if let Some(range) = &range {
            range_extend_in_txn(&mut txn, range).await?;
        }
        Ok(txn.commit().await?)
    }
}

/// The whole number with these low 32 bits that was given out before `next`: the nearest below it.
fn whole_before(next: u64, low: u32) -> Option<u64> {
    const ROUND: u64 = 1 << 32;
    let candidate = (next & !(ROUND - 1)) | u64::from(low);
    if candidate < next { Some(candidate) } else { candidate.checked_sub(ROUND) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_completed_from_the_next_checkpoint() {
        assert_eq!(whole_before(800, 700), Some(700));
        assert_eq!(whole_before((5 << 32) + 10, 7), Some((5 << 32) + 7));
        assert_eq!(whole_before((5 << 32) + 10, u32::MAX), Some((5 << 32) - 1));
        assert_eq!(whole_before(800, 900), None);
    }

    /// A record of one SQLite transaction that changed no page.
    fn record(number: u64) -> Vec<u8> {
        use farshore_engines::sqlite::record::{Head, foot};
        use farshore_engines::sqlite::wal::{PageBytes, Place, Salts, Sum};
        let place = Place { salts: Salts { rising: 1, random: 2 }, frames: 3, sum: Sum::from_bytes([0; 8]) };
        let head = Head::transaction(PageBytes::new(4096).unwrap(), 0, number, 1, place);
        [&head.encode()[..], &foot(0, i64::try_from(number).unwrap())].concat()
    }

    /// Chunks of a SQLite database's log end anywhere in a record, and its records are found from a record's start only.
    #[tokio::test]
    async fn a_walk_along_records_goes_on_where_one_starts_and_knows_each_once() {
        use farshore_catalog::Options;
        use farshore_journal::Timeline;
        use farshore_journal::format::object::Compression;
        use farshore_journal::format::{Recipients, Unlock, VerifyKeys};
        use farshore_journal::registry::{Founding, Repository};
        use farshore_journal::store::{self, StoreOptions};
        use farshore_journal::writer::{Writer, WriterOptions, encode_data, encode_gap};

        let quiet = |_: &store::StoreError| {};
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/catalog.db", folder.path().display());
        let catalog = Catalog::open(&url, Options::default()).await.unwrap();
        let stored = tempfile::tempdir().unwrap();
        let address = format!("file://{}", stored.path().display());
        let opened = store::open(&address, &StoreOptions::for_writing()).unwrap();
        let now = "2026-11-26T00:00:00Z";
        let repository = Repository::open_or_found(opened, now).await.unwrap();
        let founding = Founding {
            database: &"orders".parse().unwrap(),
            number: 0,
            engine: farshore_engines::log::SQLITE,
            identity: "one",
            major: 3,
            segment_bytes: 16 << 20,
            now,
            reason: "first",
        };
        let record_of_it = repository.found_incarnation(founding).await.unwrap();
        super::super::put_record(&catalog, &record_of_it).await.unwrap();
        let source =
            farshore_applier::source::Source::new(&repository, record_of_it.clone(), Unlock::none()).unwrap();
        let held = Held { store: "main".to_owned(), source, pinned: VerifyKeys::default() };
        let options = WriterOptions {
            compression: Compression::None,
            recipients: Recipients::default(),
            segment_bytes: 16 << 20,
            host: "test".to_owned(),
        };
        let timeline = Timeline::new(1);
        let begin = Position::new(timeline, Offset::new(0));
        let mut writer =
            Writer::take_over(held.source.reader().clone(), &options, begin, &quiet).await.unwrap();

        // Records 1 to 40, and behind a gap 51 to 70.
        let before: Vec<u8> = (1..=40).flat_map(record).collect();
        let behind: Vec<u8> = (51..=70).flat_map(record).collect();
        let gap_end = Offset::new(before.len() as u64 + 1000);
        let mut pieces: Vec<Option<&[u8]>> = before.chunks(100).map(Some).collect();
        pieces.push(None);
        pieces.extend(behind.chunks(90).map(Some));
        for (at, piece) in pieces.iter().enumerate() {
            let (chunk, _) = match piece {
                Some(log) => encode_data(writer.place(), log).unwrap(),
                None => {
                    let body = GapBody { reason: "lost".to_owned() };
                    encode_gap(writer.place(), gap_end, &body).unwrap()
                }
            };
            writer.append(&chunk, &quiet).await.unwrap();
            // Now and then the catalog is brought up, wherever in a record the journal ends.
            if at % 7 == 3 || at + 1 == pieces.len() {
                let last = writer.place().number().get() - 1;
                let walk = Walk::new(&catalog, &held, None, Report::default());
                walk.run(Sequence::new(last)).await.unwrap();
            }
        }
        for number in 1..=71u64 {
            let expected = usize::from((1..=40).contains(&number) || (51..=70).contains(&number));
            let found = catalog.commit_by_xid(record_of_it.incarnation, number).await.unwrap();
            assert_eq!(found.len(), expected, "transaction {number}");
        }
    }
}
