//! Brings the catalog up to what a store proves: from nothing after it was lost, or from where it stopped being told.
//!
//! What always holds: the store is only read; what is written twice changes nothing; the journal's chain is walked as it is
//! read, so a chunk that does not continue the one before it is an error and never a fact. Commits need the log's bytes, so a
//! journal that is encrypted and has no private key at hand gives ranges without commits, and the report says so.

use chrono::{DateTime, Utc};
use farshore_applier::source::Source;
use farshore_catalog::Catalog;
use farshore_catalog::backup::{Backup, BackupState};
use farshore_catalog::branch::{Branch, Fork};
use farshore_catalog::commit::Commit;
use farshore_catalog::database::Database;
use farshore_catalog::gap::Gap;
use farshore_catalog::incarnation::Incarnation;
use farshore_catalog::mark::{Mark, MarkKind};
use farshore_catalog::range::JournalRange;
use farshore_engines::event::{Happened, LogEvent};
use farshore_engines::postgres::log::LogDecoder;
use farshore_journal::chunk::Chunk;
use farshore_journal::format::body::{GapBody, IncarnationRecord, TimelineBody};
use farshore_journal::format::{FormatError, Header, Kind};
use farshore_journal::reader::Keyring;
use farshore_journal::{JournalError, Offset, Position, Sequence, backup};
use serde::Serialize;
use tokio::task::JoinSet;

/// Chunks that are asked for ahead of the one in hand.
const AHEAD: u64 = 8;
/// Commits that are written at once.
const BATCH: usize = 5_000;

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Chunks read.
    pub chunks: u64,
    /// Commits found.
    pub commits: u64,
    /// Complete backups found.
    pub backups: u64,
    /// Gaps found.
    pub gaps: u64,
    /// Chunks whose log could not be opened, for want of a private key: their commits are not in the catalog.
    pub sealed: u64,
}

/// Brings one incarnation in one store up to date. `whole` reads everything anew; otherwise what the catalog has is gone on from.
///
/// # Errors
/// When the store or the catalog does not answer, or the journal is not whole.
pub async fn bring_up(
    catalog: &Catalog,
    source: &Source,
    store: &str,
    whole: bool,
) -> anyhow::Result<Report> {
    let record = source.record();
    let mut report = Report::default();
    put_record(catalog, record).await?;
    let anchor = put_backups(catalog, source, store, &mut report).await?;
    let Some(last) = source.reader().last().await? else { return Ok(report) };
    let last = last.header().number;
    let mut walk = Walk {
        catalog,
        source,
        store,
        keys: Keyring::new(source.unlock().clone()),
        anchor,
        former: None,
        decoder: None,
        range: None,
        commits: Vec::new(),
        report,
        skip_to: None,
    };
    let first = if whole { Sequence::FIRST } else { walk.go_on(last).await? };
    let mut fetching = JoinSet::new();
    let mut arrived = std::collections::BTreeMap::new();
    let mut wanted = first.get();
    let mut asked = wanted;
    while wanted <= last.get() {
        while asked <= last.get() && asked < wanted + AHEAD {
            let (reader, number) = (source.reader().clone(), Sequence::new(asked));
            fetching.spawn(async move { (number.get(), reader.expected_chunk(number).await) });
            asked += 1;
        }
        while !arrived.contains_key(&wanted) {
            let Some(one) = fetching.join_next().await else { anyhow::bail!("a read was cut off") };
            let (number, chunk) = one?;
            arrived.insert(number, chunk?);
        }
        if let Some(chunk) = arrived.remove(&wanted) {
            walk.take(&chunk).await?;
        }
        wanted += 1;
    }
    walk.flush().await?;
    Ok(walk.report)
}

async fn put_record(catalog: &Catalog, record: &IncarnationRecord) -> farshore_catalog::Result<()> {
    let created_at = time_of(&record.created);
    let (name, engine) = (record.database.clone(), record.engine.clone());
    catalog.database_put(&Database { name, engine, added_at: Utc::now() }).await?;
    catalog
        .incarnation_put(&Incarnation {
            id: record.incarnation,
            database: record.database.clone(),
            engine_identity: record.identity.clone(),
            created_at,
            parent: None,
            reason: record.reason.clone(),
            segment_bytes: record.segment_bytes,
            major_version: Some(record.major),
        })
        .await
}

/// Records the complete backups that the catalog lacks. The transaction number that one of them knows completes those of the log.
async fn put_backups(
    catalog: &Catalog,
    source: &Source,
    store: &str,
    report: &mut Report,
) -> anyhow::Result<Option<u64>> {
    let mut anchor = None;
    let known = catalog.backup_list(source.record().incarnation).await?;
    for id in backup::list(source.reader()).await? {
        let Some(range) = backup::standing(source.reader(), id).await?.complete else { continue };
        report.backups += 1;
        let opened = match backup::Backup::open(source.reader(), id, source.unlock()).await {
            Ok(opened) => opened,
            Err(JournalError::Object {
                source: FormatError::KeyMissing | FormatError::Key { .. }, ..
            }) => None,
            Err(why) => return Err(why.into()),
        };
        let opening = backup::opening(source.reader(), id).await?;
        let manifest = opened.as_ref().map(backup::Backup::manifest);
        anchor = anchor.or(manifest.and_then(|manifest| manifest.next_transaction));
        if known.iter().any(|known| known.id == id) {
            continue;
        }
        let written = DateTime::from_timestamp_micros(range.written_at);
        catalog
            .backup_insert(&Backup {
                id,
                incarnation: source.record().incarnation,
                store: store.to_owned(),
                timeline: range.start.timeline,
                start: range.start.offset,
                end: Some(range.end.offset),
                started_at: time_of(manifest.map_or(&opening.started, |manifest| &manifest.started)),
                finished_at: manifest.map_or(written, |manifest| Some(time_of(&manifest.finished))),
                bytes: manifest.map(|manifest| manifest.plain_bytes),
                stored_bytes: manifest.map(|manifest| manifest.parts.iter().map(|part| part.bytes).sum()),
                state: BackupState::Complete,
                checked: true,
                label: opening.label.clone(),
                bad_pages: manifest.map_or(0, |manifest| manifest.bad_pages.len() as u64),
            })
            .await?;
    }
    Ok(anchor)
}

/// A walk along the chunks.
struct Walk<'a> {
    catalog: &'a Catalog,
    source: &'a Source,
    store: &'a str,
    keys: Keyring,
    anchor: Option<u64>,
    former: Option<Header>,
    decoder: Option<LogDecoder>,
    range: Option<JournalRange>,
    commits: Vec<Commit>,
    report: Report,
    /// In the first chunk, the log before this offset is not decoded: decoding begins at a log segment's start.
    skip_to: Option<Offset>,
}

impl Walk<'_> {
    /// The chunk to go on from: the one that holds the start of the log segment in which the catalog's knowledge ends.
    async fn go_on(&mut self, last: Sequence) -> anyhow::Result<Sequence> {
        let incarnation = self.source.record().incarnation;
        let mut ranges = self.catalog.range_list(incarnation).await?;
        ranges.retain(|range| range.store == self.store);
        let mut gaps = self.catalog.gap_list(incarnation).await?;
        gaps.retain(|gap| gap.store == self.store);
        let branches = self.catalog.branch_list(incarnation).await?;
        let known = known_without_hole(ranges, &gaps, &branches);
        let Some(known) = known.filter(|range| range.last_sequence <= last) else {
            return Ok(Sequence::FIRST);
        };
        let end = known.end.get().saturating_sub(1);
        let from = Offset::new(end).segment_start(self.source.record().segment_bytes).max(known.start);
        let timeline = known.timeline;
        let behind = move |header: &Header| {
            header.timeline > timeline || (header.timeline == timeline && header.end > from)
        };
        let chunk = self.source.reader().first_where(last, behind).await?;
        self.skip_to = Some(from);
        Ok(chunk.header().number)
    }

    async fn take(&mut self, chunk: &Chunk) -> anyhow::Result<()> {
        let header = chunk.header();
        let reader = self.source.reader();
        match &self.former {
            Some(former) => reader.check_follows(former, header)?,
            None if header.number == Sequence::FIRST && header.before != reader.genesis() => {
                return Err(JournalError::Broken { before: header.number, at: header.number }.into());
            }
            None => {}
        }
        self.report.chunks += 1;
        let incarnation = self.source.record().incarnation;
        match header.kind {
            Kind::Data => self.data(chunk).await?,
            Kind::Timeline => {
                self.flush().await?;
                self.decoder = None;
                let body: TimelineBody = reader.body(chunk)?;
                let fork = Some(Fork { parent: body.parent, at: header.start });
                let branch =
                    Branch { incarnation, timeline: header.timeline, fork, first_seen_at: Utc::now() };
                self.catalog.branch_put(&branch).await?;
            }
            Kind::Gap => {
                self.flush().await?;
                self.decoder = None;
                let body: GapBody = reader.body(chunk)?;
                self.report.gaps += 1;
                self.catalog
                    .gap_put(&Gap {
                        incarnation,
                        store: self.store.to_owned(),
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
        let opened = match self.keys.for_chunk(self.source.reader(), header).await {
            Ok(key) => {
                let key_of = self.source.reader().layout().chunk(header.number)?;
                Some(
                    chunk
                        .plain_all(key.as_ref())
                        .map_err(|source| JournalError::Object { key: key_of, source })?,
                )
            }
            Err(JournalError::Object {
                source: FormatError::KeyMissing | FormatError::Key { .. }, ..
            }) => None,
            Err(why) => return Err(why.into()),
        };
        let mut marks = Vec::new();
        match &opened {
            None => self.report.sealed += 1,
            Some(plain) => self.decode(header, plain, &mut marks)?,
        }
        for mark in marks {
            self.catalog.mark_put(&mark).await?;
        }
        let checked = self.decoder.as_ref().and_then(LogDecoder::checked_end);
        let checked_end = checked.unwrap_or(header.start).max(header.start).min(header.end);
        match &mut self.range {
            Some(range) => {
                range.end = header.end;
                range.last_sequence = header.number;
                range.checked_end =
                    checked.unwrap_or(range.checked_end).max(range.checked_end).min(header.end);
            }
            None => {
                self.range = Some(JournalRange {
                    incarnation: self.source.record().incarnation,
                    store: self.store.to_owned(),
                    timeline: header.timeline,
                    start: header.start,
                    end: header.end,
                    checked_end,
                    first_sequence: header.number,
                    last_sequence: header.number,
                });
            }
        }
        if self.commits.len() >= BATCH {
            self.flush().await?;
        }
        Ok(())
    }

    fn decode(&mut self, header: &Header, plain: &[u8], marks: &mut Vec<Mark>) -> anyhow::Result<()> {
        let skip = self.skip_to.take().filter(|to| *to > header.start).unwrap_or(header.start);
        let from = usize::try_from(skip.bytes_since(header.start).unwrap_or(0))?.min(plain.len());
        let at = Position::new(header.timeline, skip);
        if self.decoder.is_none() {
            let decoder = LogDecoder::new(self.source.shape(), at)?;
            self.decoder = Some(match self.anchor {
                Some(next) => decoder.with_transaction_anchor(next),
                None => decoder,
            });
        }
        let Some(decoder) = self.decoder.as_mut() else { return Ok(()) };
        let (commits, report) = (&mut self.commits, &mut self.report);
        let incarnation = self.source.record().incarnation;
        decoder.push(&plain[from..], &mut |event: LogEvent| match event.what {
            Happened::Commit(commit) => {
                let time = DateTime::from_timestamp_micros(commit.time_micros);
                if let (Some(xid), Some(time)) = (commit.transaction.full, time) {
                    report.commits += 1;
                    commits.push(Commit {
                        timeline: at.timeline,
                        start: event.start,
                        end: event.end,
                        time,
                        xid,
                    });
                }
            }
            Happened::RestorePoint { name, time_micros } => {
                if let Some(time) = DateTime::from_timestamp_micros(time_micros) {
                    marks.push(Mark {
                        incarnation,
                        kind: MarkKind::RestorePoint,
                        name,
                        position: Position::new(at.timeline, event.end),
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

    async fn flush(&mut self) -> anyhow::Result<()> {
        if let Some(range) = self.range.take() {
            self.catalog.range_extend(&range).await?;
        }
        let commits = std::mem::take(&mut self.commits);
        if !commits.is_empty() {
            self.catalog.commit_insert(self.source.record().incarnation, &commits).await?;
        }
        Ok(())
    }
}

/// The last range up to which the catalog knows the journal without a hole: what came to the store while the catalog was away, or
/// was dropped, lies behind it, also when later ranges are known.
fn known_without_hole(
    mut ranges: Vec<JournalRange>,
    gaps: &[Gap],
    branches: &[Branch],
) -> Option<JournalRange> {
    ranges.sort_by_key(|range| range.first_sequence);
    let mut ranges = ranges.into_iter();
    let mut known = ranges.next()?;
    for next in ranges {
        let gap_before = |from: Offset| {
            let covers =
                |gap: &&Gap| gap.timeline == next.timeline && gap.start <= from && gap.end >= next.start;
            gaps.iter().any(|gap| covers(&gap))
        };
        let joined = match next.timeline == known.timeline {
            true => next.start <= known.end || gap_before(known.end),
            false => branches.iter().any(|branch| {
                let at = branch.fork.as_ref().map(|fork| fork.at);
                branch.timeline == next.timeline && at.is_some_and(|at| at == next.start || gap_before(at))
            }),
        };
        if !joined {
            break;
        }
        known = next;
    }
    Some(known)
}

fn time_of(text: &str) -> DateTime<Utc> {
    text.parse().unwrap_or(DateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_journal::{IncarnationId, Timeline};

    fn range(timeline: u32, start: u64, end: u64, first: u64) -> JournalRange {
        JournalRange {
            incarnation: IncarnationId::mint(),
            store: "main".to_owned(),
            timeline: Timeline::new(timeline),
            start: Offset::new(start),
            end: Offset::new(end),
            checked_end: Offset::new(end),
            first_sequence: Sequence::new(first),
            last_sequence: Sequence::new(first + 1),
        }
    }

    fn end(ranges: &[JournalRange], gaps: &[Gap], branches: &[Branch]) -> Option<u64> {
        known_without_hole(ranges.to_vec(), gaps, branches).map(|range| range.end.get())
    }

    #[test]
    fn the_catalog_is_brought_up_from_its_first_hole_and_not_from_its_newest_range() {
        let incarnation = IncarnationId::mint();
        let gap = |timeline, start, end| Gap {
            incarnation,
            store: "main".to_owned(),
            timeline: Timeline::new(timeline),
            start: Offset::new(start),
            end: Offset::new(end),
            reason: String::new(),
            seen_at: Utc::now(),
        };
        let branch = Branch {
            incarnation,
            timeline: Timeline::new(2),
            fork: Some(Fork { parent: Timeline::new(1), at: Offset::new(50) }),
            first_seen_at: Utc::now(),
        };
        assert_eq!(end(&[], &[], &[]), None);
        let hole = [range(1, 0, 20, 0), range(1, 30, 40, 9)];
        assert_eq!(end(&hole, &[], &[]), Some(20));
        assert_eq!(end(&hole, &[gap(1, 20, 30)], &[]), Some(40));
        assert_eq!(end(&hole, &[gap(2, 20, 30)], &[]), Some(20));
        let forked = [range(1, 0, 60, 0), range(2, 50, 70, 9)];
        assert_eq!(end(&forked, &[], &[]), Some(60));
        assert_eq!(end(&forked, &[], std::slice::from_ref(&branch)), Some(70));
        let late = [range(1, 0, 60, 0), range(2, 64, 70, 9)];
        assert_eq!(end(&late, &[], std::slice::from_ref(&branch)), Some(60));
        assert_eq!(end(&late, &[gap(2, 50, 64)], std::slice::from_ref(&branch)), Some(70));
    }
}
