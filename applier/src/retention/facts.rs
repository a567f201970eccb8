//! What decides over retention, read from a store.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use farshore_catalog::backup::Backup as Known;
use farshore_journal::backup::{self, Backup};
use farshore_journal::expired::ExpiredRun;
use farshore_journal::format::{FormatError, Header, Kind};
use farshore_journal::reader::Reader;
use farshore_journal::store::{Listed, StoreError};
use farshore_journal::{BackupId, JournalError, Offset, Position, Sequence, Timeline, expiry, holds};

use super::{Base, Ended, Facts, Held, Needs, Stretch, Unfinished};
use crate::branches::{BranchError, Branches};
use crate::source::Source;

/// What a catalog says of a backup, as far as expiry asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownBackup {
    /// Pages that were damaged in the source; `None` when nobody who told the catalog had opened its manifest.
    pub bad_pages: Option<u64>,
    /// Whether a verification found it not to be as it was stored.
    pub bad: bool,
    /// Whether somebody who could open it told the catalog of it since it was there.
    pub checked: bool,
}

/// What a catalog says of an incarnation's backups.
pub type KnownBackups = HashMap<BackupId, KnownBackup>;

impl From<&Known> for KnownBackup {
    fn from(known: &Known) -> Self {
        Self { bad_pages: known.bad_pages, bad: known.bad_at.is_some(), checked: known.checked }
    }
}

/// Of a base that has been marked for long enough to go, and that the catalog forgot or knows from hearsay: whatever was known against it may be forgotten.
pub const BEGUN: &str = "its deletion was begun, and what was known of it is forgotten: it counts again once `farshore verify` finds it well";

/// Log before the journal's end that whoever goes on shipping may compare, whatever the source's segments are.
const COMPARED_BYTES: u64 = 64 << 20;

/// What could not be read, so that nothing is known of what may go.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The journal, a backup's mark or a hold does not read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Its timelines make no sense.
    #[error("the journal's timelines make no sense: {why}")]
    Timelines {
        /// Why.
        why: String,
    },
}

impl From<BranchError> for FactsError {
    fn from(why: BranchError) -> Self {
        match why {
            BranchError::Journal(why) => Self::Journal(why),
            other => Self::Timelines { why: other.to_string() },
        }
    }
}

/// The journal's chunks that are no data, and the stretches of data between them.
struct Walked {
    gaps: Vec<Sequence>,
    stretches: Vec<(Sequence, Sequence, Header)>,
}

/// Reads what decides over an incarnation; `None` for an empty journal. `known`: what the catalog says of each backup. `now`: the time by which a hold's end is judged; one that
/// ended within `lately` before is told with what it kept.
///
/// # Errors
/// When the store does not answer, or what must be known does not read.
pub async fn read(
    source: &Source,
    known: &KnownBackups,
    now: DateTime<Utc>,
    lately: TimeDelta,
) -> Result<Option<Facts>, FactsError> {
    Ok(looked(source, known, (now, lately)).await?.map(|looked| looked.facts))
}

/// What a look found.
struct Looked {
    facts: Facts,
    branches: Branches,
    lies: Lies,
}

async fn looked(
    source: &Source,
    known: &KnownBackups,
    (now, lately): (DateTime<Utc>, TimeDelta),
) -> Result<Option<Looked>, FactsError> {
    let reader = source.reader();
    let Some(branches) = Branches::read(reader).await? else { return Ok(None) };
    let last = branches.last.clone();
    let opening = reader.first_in(Sequence::FIRST, last.number, |h| h.generation >= last.generation).await?;
    // First, and many at once: the walk, and whoever asks later, know them then.
    let begun = reader.runs_begun().await?;
    let walked = walk(source, last.number).await?;
    let marked: HashMap<Sequence, DateTime<Utc>> =
        expiry::marked_runs(reader).await?.into_iter().map(|(run, since)| (run.name.first, since)).collect();
    let mut facts = Facts {
        bases: Vec::new(),
        unfinished: Vec::new(),
        holds: Vec::new(),
        ended: Vec::new(),
        newest_release: holds::newest_release(reader).await?,
        stretches: walked
            .stretches
            .iter()
            .filter(|(_, last, _)| *last < opening)
            .map(|(first, last, _)| Stretch {
                first: *first,
                last: *last,
                marked: marked.get(first).copied(),
            })
            .collect(),
        gaps: walked.gaps.clone(),
        compared_from: compared_from(&walked, &last),
        newest_chunk: newest_chunk(source, last.number).await?,
    };
    let mut ends = HashMap::new();
    for id in backup::list(reader).await? {
        let objects = objects(source, id).await?;
        let mark = reader.layout().backup_expiring(id)?;
        let marked = objects.iter().find(|listed| listed.key == mark).map(|listed| listed.modified);
        let own = objects.iter().filter(|listed| listed.key != mark);
        let newest_object = own.map(|listed| listed.modified).max().or(marked).unwrap_or(now);
        let manifest = reader.layout().backup_manifest(id)?;
        let Some(manifest) = objects.iter().find(|listed| listed.key == manifest) else {
            let (needs_from, refers) = match backup::opening(reader, id).await {
                // Its log begins in the stretch before the chunk that came next.
                Ok(opening) => (stretch_before(&walked, opening.next_sequence), opening.refers),
                Err(JournalError::Store(why)) if !why.is_not_found() => {
                    return Err(JournalError::from(why).into());
                }
                // What is left of one that was deleted, or is damaged: it needs nothing any more.
                Err(_) => (last.number, Vec::new()),
            };
            facts.unfinished.push(Unfinished { id, needs_from, newest_object, marked, refers });
            continue;
        };
        let may_be_begun = marked.is_some_and(|marked| now - marked >= lately);
        let (base, end) =
            base(source, &branches, &walked, (id, manifest, &objects), known, (marked, may_be_begun)).await?;
        ends.extend(end.map(|end| (base.id, end)));
        facts.bases.push(base);
    }
    judge_references(&mut facts.bases);
    let held = holds::list(reader).await?;
    let lies = Lies { ends, gaps: facts.gaps.clone(), begun };
    for hold in held {
        let over = hold.until.as_deref().map(DateTime::parse_from_rfc3339);
        // By the store's clock, as everything else.
        let by_now = now.min(facts.newest_chunk);
        if let Some(Ok(over)) = over
            && over <= by_now
        {
            // Of those that ended long ago, and there may be many, nothing depends on what they kept.
            if by_now.checked_sub_signed(lately).is_none_or(|since| over > since) {
                let keeps = kept_by(source, &branches, hold.point(), (&facts.bases, &lies)).await?;
                facts.ended.push(Ended { at: over.to_utc(), keeps });
            }
            continue;
        }
        let keeps = kept_by(source, &branches, hold.point(), (&facts.bases, &lies)).await?;
        facts.holds.push(Held { id: hold.hold, keeps });
    }
    Ok(Some(Looked { facts, branches, lies }))
}

/// A backup that refers to others is what they are. One that does not read names those it refers to no more: it counts for nothing, and what it needs is not known.
fn judge_references(bases: &mut [Base]) {
    let known: HashMap<BackupId, Option<String>> =
        bases.iter().map(|base| (base.id, base.unsound.clone())).collect();
    for base in bases.iter_mut().filter(|base| base.unsound.is_none()) {
        base.unsound = base.refers.iter().find_map(|id| match known.get(id) {
            None => Some(format!("backup {id}, to which it refers, is not there")),
            Some(why) => why.as_ref().map(|why| format!("it refers to backup {id}: {why}")),
        });
    }
}

async fn objects(source: &Source, id: BackupId) -> Result<Vec<Listed>, JournalError> {
    let reader = source.reader();
    Ok(reader.store().list(&reader.layout().backups()?.join(id)?, None, None).await?)
}

/// Steps from chunk that is no data to chunk that is none: their number is that of takeovers and forks.
async fn walk(source: &Source, last: Sequence) -> Result<Walked, JournalError> {
    let reader = source.reader();
    let mut walked = Walked { gaps: Vec::new(), stretches: Vec::new() };
    let mut at = Sequence::FIRST;
    while at <= last {
        let header = match reader.expected_header(at).await {
            // Of what expired it is known where it ends: there may be a stretch for each day of years.
            Err(JournalError::Expired { number, run }) if run.name.first == at && run.name.last < last => {
                walked.stretches.push((at, run.name.last, run.stand_in(number)));
                at = Sequence::new(run.name.last.get().saturating_add(1));
                continue;
            }
            Err(JournalError::Expired { number, run }) => run.stand_in(number),
            header => header?,
        };
        let end_of_journal = Sequence::new(last.get().saturating_add(1));
        if header.kind != Kind::Data {
            if header.kind == Kind::Gap {
                walked.gaps.push(at);
            }
            at = at.next().unwrap_or(end_of_journal);
            continue;
        }
        let (generation, timeline) = (header.generation, header.timeline);
        let later = move |h: &Header| h.generation > generation || h.timeline > timeline;
        let next = match later(&reader.searched_header(last).await?) {
            true => reader.first_in(at, last, later).await?,
            false => end_of_journal,
        };
        walked.stretches.push((at, Sequence::new(next.get() - 1), header));
        at = next;
    }
    Ok(walked)
}

/// The first chunk of the stretch that lies before `number`, or holds it.
fn stretch_before(walked: &Walked, number: Sequence) -> Sequence {
    let before = walked.stretches.iter().rev().find(|(first, _, _)| *first < number);
    before.map_or(Sequence::FIRST, |(first, _, _)| *first)
}

/// From where on log stays for whoever compares: the newest two stretches, and those that begin within a fixed length of the end.
fn compared_from(walked: &Walked, last: &Header) -> Sequence {
    let floor = Offset::new(last.end.get().saturating_sub(COMPARED_BYTES));
    let near = walked
        .stretches
        .iter()
        .find(|(_, _, header)| header.timeline == last.timeline && header.end >= floor);
    let before = near.map(|(first, _, _)| stretch_before(walked, *first));
    let newest = walked.stretches.iter().rev().nth(1).map(|(first, _, _)| *first);
    [before, newest].into_iter().flatten().min().unwrap_or(Sequence::FIRST)
}

async fn newest_chunk(source: &Source, last: Sequence) -> Result<DateTime<Utc>, JournalError> {
    let reader = source.reader();
    let after = last.get().checked_sub(1).map(|before| reader.layout().chunk(Sequence::new(before)));
    let after = after.transpose()?;
    let listed = reader.store().list(reader.layout().journal(), after.as_ref(), Some(1)).await?;
    match listed.first() {
        Some(listed) => Ok(listed.modified),
        None => Err(JournalError::Hole { missing: last }),
    }
}

/// The chunks from that which holds byte `from` to that which holds the byte before `to`, along `timeline`'s history; none when the journal does not hold all.
async fn needs(
    source: &Source,
    branches: &Branches,
    timeline: Timeline,
    (from, to): (Offset, Offset),
) -> Result<Option<Needs>, JournalError> {
    let reader = source.reader();
    let stretches = branches.stretches(timeline, from, Some(to));
    let (Some(first), Some(last)) = (stretches.first(), stretches.last()) else { return Ok(None) };
    if last.to < to {
        return Ok(None);
    }
    let before_end = Offset::new(to.get().saturating_sub(1));
    let from_chunk = branches.chunk_behind(reader, &first.held, first.from).await?;
    let last_chunk = branches.chunk_behind(reader, &last.held, before_end.max(last.from)).await?;
    let (Some(from_chunk), Some(last_chunk)) = (from_chunk, last_chunk) else { return Ok(None) };
    // A chunk that begins behind what was sought: that log expired.
    let held = |number, offset| async move {
        match reader.expected_header(number).await {
            Ok(header) => Ok(header.kind == Kind::Data && header.start <= offset),
            Err(JournalError::Expired { .. }) => Ok(false),
            Err(why) => Err(why),
        }
    };
    let whole = held(from_chunk, first.from).await? && held(last_chunk, before_end).await?;
    Ok(whole.then_some(Needs { from: from_chunk, until: last_chunk }))
}

async fn base(
    source: &Source,
    branches: &Branches,
    walked: &Walked,
    (id, manifest, objects): (BackupId, &Listed, &[Listed]),
    known: &KnownBackups,
    (marked, may_be_begun): (Option<DateTime<Utc>>, bool),
) -> Result<(Base, Option<Position>), FactsError> {
    let reader = source.reader();
    let mut fact = Base {
        id,
        needs: None,
        stored_at: manifest.modified,
        on_line: false,
        unsound: None,
        marked,
        refers: Vec::new(),
    };
    let standing = match backup::standing(reader, id).await {
        Ok(standing) => standing,
        Err(JournalError::Store(why)) if !why.is_not_found() => return Err(JournalError::from(why).into()),
        Err(why) => {
            fact.unsound = Some(why.to_string());
            return Ok((fact, None));
        }
    };
    fact.refers = standing.opening.refers;
    let Some(range) = standing.complete else {
        fact.unsound = Some("its manifest is gone".to_owned());
        return Ok((fact, None));
    };
    fact.on_line = branches.is_in_history(branches.newest(), range.end);
    let from = source.shape().read_from(range.start.offset);
    fact.needs = needs(source, branches, range.end.timeline, (from, range.end.offset)).await?;
    fact.unsound = match fact.needs {
        None => Some("the journal does not hold its log".to_owned()),
        Some(needs) if walked.gaps.iter().any(|gap| needs.from < *gap && *gap < needs.until) => {
            Some("a gap lies in its log".to_owned())
        }
        // Here only names and lengths are looked at: who read all of it knows better.
        Some(_) if known.get(&id).is_some_and(|known| known.bad) => {
            Some("a verification found that it is not as it was stored".to_owned())
        }
        // What was known of it is forgotten, and it may be gone at any moment.
        Some(_) if may_be_begun && known.get(&id).is_none_or(|known| !known.checked) => {
            Some(BEGUN.to_owned())
        }
        Some(_) => unsound(source, id, objects, known.get(&id).copied()).await?,
    };
    Ok((fact, Some(range.end)))
}

/// Why a backup is none that others may go for, as far as its objects' names and lengths, its manifest where a key is at hand, and the catalog say.
async fn unsound(
    source: &Source,
    id: BackupId,
    objects: &[Listed],
    known: Option<KnownBackup>,
) -> Result<Option<String>, FactsError> {
    let parts: HashMap<&str, u64> = objects
        .iter()
        .filter_map(|listed| Some((listed.key.name().strip_prefix("part-")?, listed.size)))
        .collect();
    match Backup::open(source.reader(), id, source.unlock()).await {
        Ok(Some(backup)) => {
            let manifest = backup.manifest();
            let lacks = manifest
                .parts
                .iter()
                .find(|part| parts.get(part.number.to_string().as_str()) != Some(&part.bytes));
            Ok(if let Some(part) = lacks {
                Some(format!("its part {} is not there as it was stored", part.number))
            } else if manifest.damaged || !manifest.bad_pages.is_empty() {
                Some("pages were damaged in the source already".to_owned())
            } else {
                None
            })
        }
        Ok(None) => Ok(Some("its manifest is gone".to_owned())),
        // No private key is at hand: what the catalog was told by whoever could open it, and that no part is missing in the midst. A catalog that only found it says nothing.
        Err(JournalError::Object { source: FormatError::KeyMissing | FormatError::Key { .. }, .. }) => {
            let dense = (0..parts.len() as u64)
                .all(|number| parts.contains_key(Sequence::new(number).to_string().as_str()));
            Ok(sealed(known, dense && !parts.is_empty()))
        }
        Err(JournalError::Store(why @ StoreError::NotFound { .. })) => Ok(Some(why.to_string())),
        Err(JournalError::Store(why)) => Err(JournalError::from(why).into()),
        Err(why) => Ok(Some(why.to_string())),
    }
}

/// Why a backup that no key at hand opens is none that others may go for. `has_parts`: none of its parts is missing in the midst.
fn sealed(known: Option<KnownBackup>, has_parts: bool) -> Option<String> {
    let why = match known.and_then(|known| known.bad_pages) {
        Some(0) if has_parts => return None,
        Some(0) => "a part of it is missing",
        Some(_) => "pages were damaged in the source already",
        None => "it is sealed, and nobody who could open it has told the catalog of it",
    };
    Some(why.to_owned())
}

/// Where base backups end, and log that no restore crosses.
struct Lies {
    ends: HashMap<BackupId, Position>,
    gaps: Vec<Sequence>,
    /// Runs of which something went.
    begun: Vec<Arc<ExpiredRun>>,
}

impl Lies {
    /// Whether log is whole up to a point.
    async fn is_whole(
        &self,
        reader: &Reader,
        branches: &Branches,
        (needs, point): (Needs, Position),
    ) -> Result<bool, FactsError> {
        // But for what lies on a timeline that the point's history had left before.
        let concerns = |timeline, start: Offset| {
            let first_missing = Offset::new(start.get().saturating_add(1));
            branches.is_in_history(point.timeline, Position::new(timeline, first_missing))
        };
        let meets = |run: &&Arc<ExpiredRun>| needs.meets((run.name.first, run.name.last));
        if self.begun.iter().filter(meets).any(|run| concerns(run.name.timeline, run.name.start)) {
            return Ok(false);
        }
        for gap in self.gaps.iter().filter(|gap| needs.from < **gap && **gap <= needs.until) {
            let gap = reader.searched_header(*gap).await?;
            if concerns(gap.timeline, gap.start) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The newest sound base that leads to a point: in its history, and over log without a gap; and the log from there to it.
async fn kept_by(
    source: &Source,
    branches: &Branches,
    point: Position,
    (bases, lies): (&[Base], &Lies),
) -> Result<Option<(BackupId, Needs)>, FactsError> {
    let reader = source.reader();
    let Some(held) = branches.get(point.timeline) else { return Ok(None) };
    let before = Offset::new(point.offset.get().saturating_sub(1));
    let Some(chunk) = branches.chunk_behind(reader, held, before).await? else { return Ok(None) };
    let mut leading = Vec::new();
    for base in bases.iter().filter(|base| base.unsound.is_none()) {
        let (Some(needs), Some(end)) = (base.needs, lies.ends.get(&base.id)) else { continue };
        let needs = Needs { from: needs.from, until: chunk };
        if end.offset <= point.offset
            && branches.is_in_history(point.timeline, *end)
            && lies.is_whole(reader, branches, (needs, point)).await?
        {
            leading.push((end.offset, (base.id, needs)));
        }
    }
    Ok(newest(leading))
}

/// What belongs to the base that ends last: bases come in no order of time.
fn newest<T>(leading: Vec<(Offset, T)>) -> Option<T> {
    leading.into_iter().max_by_key(|(end, _)| *end).map(|(_, base)| base)
}

/// A point that can be held: where it is, and the base and log that a hold keeps for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdable {
    /// The point, its timeline named.
    pub point: Position,
    /// The base.
    pub base: BackupId,
    /// The log from the base's first segment to the point.
    pub needs: Needs,
}

/// What a hold at a point would keep; `None` when no sound base in this incarnation leads there, over log without a gap, or what it needs has been marked for `in_time`
/// or longer, or is gone in part.
///
/// # Errors
/// As [`read`].
pub async fn holdable(
    source: &Source,
    known: &KnownBackups,
    point: Position,
    in_time: TimeDelta,
) -> Result<Option<Holdable>, FactsError> {
    let Some(looked) = looked(source, known, (Utc::now(), in_time)).await? else { return Ok(None) };
    let Looked { facts, branches, lies } = &looked;
    let kept = kept_by(source, branches, point, (&facts.bases, lies)).await?;
    let Some((base, needs)) = kept else { return Ok(None) };
    let late = |marked: Option<DateTime<Utc>>| {
        marked.is_some_and(|marked| Utc::now().max(facts.newest_chunk) - marked >= in_time)
    };
    let refers =
        facts.bases.iter().find(|fact| fact.id == base).map(|fact| &*fact.refers).unwrap_or_default();
    let base_goes =
        facts.bases.iter().any(|fact| (fact.id == base || refers.contains(&fact.id)) && late(fact.marked));
    let log_goes = facts
        .stretches
        .iter()
        .any(|stretch| needs.meets((stretch.first, stretch.last)) && late(stretch.marked));
    Ok((!base_goes && !log_goes).then_some(Holdable { point, base, needs }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It kept whichever came first: a year of log where a day was meant.
    #[test]
    fn a_hold_keeps_the_newest_base_before_its_point_in_whatever_order_they_come() {
        for ends in [[10, 20, 30], [30, 20, 10], [20, 30, 10]] {
            let leading = ends.map(|end| (Offset::new(end), end)).to_vec();
            assert_eq!(newest(leading), Some(30), "{ends:?}");
        }
        assert_eq!(newest::<u64>(Vec::new()), None);
    }

    /// A catalog that was lost and is brought up without a private key knows that a backup is there, and no more.
    #[test]
    fn a_sealed_backup_is_sound_only_where_somebody_opened_it_and_found_no_damaged_page() {
        let known = |bad_pages| Some(KnownBackup { bad_pages, bad: false, checked: true });
        assert_eq!(sealed(known(Some(0)), true), None);
        for (known, has_parts, says) in [
            (known(None), true, "nobody who could open it"),
            (None, true, "nobody who could open it"),
            (known(Some(3)), true, "damaged"),
            (known(Some(0)), false, "missing"),
        ] {
            assert!(sealed(known, has_parts).unwrap().contains(says), "{known:?}");
        }
    }
}
