//! Resolves what was asked for against the journal: chooses the base, reads the log from it, finds the target.
//!
//! Bases are tried from the newest that may reach the target to older ones. A target that lies before a base's end is looked for
//! from the base before it, and no log is read twice but the stretch between.
//!
//! The journal's index shortens the search and decides nothing: around the base and around the target the log itself is read, what an
//! index leads to is confirmed from the log while it is restored, and a refusal is only ever given by a search that read all log.

use std::sync::atomic::{AtomicU64, Ordering};

use chrono::SecondsFormat;
use farshore_journal::backup::{Backup, Manifest};
use farshore_journal::{JournalError, Offset, Position, Timeline};

use super::bases::{Candidate, candidates, windows};
use super::confirm::wanted;
use super::gaps;
use super::scan::{CommitSeen, Found, Outcome, Scan};
use super::shortcut::Shortcuts;
use super::takes::takes;
use super::{Asked, AskedPosition, BadPageThen, Base, CommitThen, Plan, PlanError, Resolved, SCHEMA, Window};
use crate::branches::{BranchError, Branches, Stretch};
use crate::log::{Gap, LogReader, Next};
use crate::source::Source;

/// How far a search from an older base goes beyond the end of the newer one: more than any commit record takes.
const OVERLAP_BYTES: u64 = 256 << 20;
/// How far before a base commits are looked at, to know that it holds none that is later than a time.
const LOOK_BEFORE_BYTES: u64 = 64 << 20;
/// How many ends of windows are looked at for their last commit: there are several only where there are gaps.
const ENDS_LOOKED_AT: usize = 3;
/// Damaged pages that a plan names; more are counted.
const BAD_PAGES_NAMED: usize = 10;

/// Decides a restore.
///
/// # Errors
/// [`PlanError`] says what cannot be reached, and what can. Nothing was written in any case.
pub async fn resolve(source: &Source, asked: Asked) -> Result<Plan, PlanError> {
    let mut refused = match Box::pin(decide(source, asked.clone())).await {
        Ok(plan) => return Ok(plan),
        Err(refused) => refused,
    };
    if let Some(windows) = refused.windows_mut()
        && let Some(branches) = Branches::read(source.reader()).await.map_err(timelines)?
    {
        gaps::end_at_gaps(source.reader(), &branches, target_timeline(&branches, &asked), windows).await?;
        say_last_commits(source, windows).await;
    }
    Err(refused)
}

/// What can be restored to on the newest timeline: from each complete backup on, up to the first gap behind it.
///
/// # Errors
/// When the journal does not read, or has no backup that a restore could begin with.
pub async fn reachable(source: &Source) -> Result<Vec<Window>, PlanError> {
    let no_base = |unfit, why: String| PlanError::NoBase { unfit, incarnation: source.record().number, why };
    let Some(branches) = Branches::read(source.reader()).await.map_err(timelines)? else {
        return Err(no_base(0, "its journal is empty".to_owned()));
    };
    let timeline = branches.newest();
    let (candidates, unfit) = candidates(source, &branches, timeline).await?;
    let mut windows = windows(&branches, timeline, &candidates);
    gaps::end_at_gaps(source.reader(), &branches, timeline, &mut windows).await?;
    match windows.is_empty() {
        true => Err(no_base(unfit.count(), unfit.to_string())),
        false => Ok(windows),
    }
}

/// Adds to each window the last commit that it reaches, for the newest few ends: people ask for times, and a window knows positions. What does
/// not read is left out: the refusal stands without it.
async fn say_last_commits(source: &Source, windows: &mut [Window]) {
    let mut ends: Vec<(Timeline, Offset)> =
        windows.iter().map(|window| (window.timeline, window.to)).collect();
    ends.sort_unstable();
    ends.dedup();
    for (timeline, to) in ends.into_iter().rev().take(ENDS_LOOKED_AT) {
        let end = Asked::Position(AskedPosition { timeline: Some(timeline), offset: to });
        let Ok(plan) = Box::pin(decide(source, end)).await else { continue };
        for window in windows.iter_mut().filter(|window| (window.timeline, window.to) == (timeline, to)) {
            window.to_time = plan.resolved.time;
            window.to_transaction = plan.resolved.xid;
        }
    }
}

async fn decide(source: &Source, asked: Asked) -> Result<Plan, PlanError> {
    let Some(branches) = Branches::read(source.reader()).await.map_err(timelines)? else {
        let incarnation = source.record().number;
        return Err(PlanError::NoBase { unfit: 0, incarnation, why: "its journal is empty".to_owned() });
    };
    let timeline = target_timeline(&branches, &asked);
    let (candidates, unfit) = candidates(source, &branches, timeline).await?;
    let windows = windows(&branches, timeline, &candidates);
    if candidates.is_empty() {
        return Err(PlanError::NoBase {
            unfit: unfit.count(),
            incarnation: source.record().number,
            why: unfit.to_string(),
        });
    }
    if let Asked::Position(position) = &asked {
        let stored = windows.iter().map(|window| window.to).max();
        if stored.is_none_or(|end| position.offset > end) {
            let why = "it lies behind what is stored".to_owned();
            return Err(PlanError::OutsideWindow { asked, why, windows });
        }
    }
    if let Asked::Position(AskedPosition { timeline: None, offset }) = &asked {
        let left = left_behind(&branches, timeline);
        let also = left.iter().filter(|left| left.from < *offset && *offset <= left.held.end);
        let mut at: Vec<Position> = also.map(|left| Position::new(left.held.timeline, *offset)).collect();
        if !at.is_empty() {
            at.push(Position::new(timeline, *offset));
            return Err(PlanError::Ambiguous { asked, at });
        }
    }
    let search = Search {
        source,
        branches: &branches,
        timeline,
        asked: &asked,
        windows: &windows,
        by_index: source.asks_index(),
        passed: AtomicU64::new(0),
    };
    let refused = match search.plan(&candidates).await {
        Ok(plan) => {
            let rests_on_index = search.passed.load(Ordering::Relaxed) > 0;
            return Ok(Plan { rests_on_index, ..plan });
        }
        Err(refused) => refused,
    };
    let store_is_away = matches!(refused, PlanError::Journal(JournalError::Store(_)));
    if search.passed.load(Ordering::Relaxed) == 0 || store_is_away {
        return Err(refused);
    }
    // An index may lead to a plan, and never to a refusal: the log itself is asked.
    tracing::info!(asked = %asked, "not found by the journal's index: all log is read");
    let plan = Search { by_index: false, ..search }.plan(&candidates).await?;
    tracing::warn!(asked = %asked, refused = %refused, "the journal's index says other than its log: the plan is made from the log alone; `farshore verify` names the index");
    Ok(plan)
}

impl Search<'_> {
    async fn plan(&self, candidates: &[Candidate]) -> Result<Plan, PlanError> {
        let (backup, found) = self.run(candidates).await?;
        let (backup, found) = self.by_a_sound_one(candidates, backup, found).await?;
        describe(self.source, self.branches, self.asked.clone(), self.timeline, &backup, *found).await
    }
}

/// Log that the journal holds and the target's history does not: a stretch of a timeline behind the place where that history left
/// it. Transaction numbers and positions in it were given out again.
fn left_behind(branches: &Branches, timeline: Timeline) -> Vec<Stretch> {
    let legs = branches.get(timeline).map_or(&[][..], |held| &held.legs);
    let left = branches.all().iter().filter_map(|held| {
        let from = match legs.iter().find(|leg| leg.timeline == held.timeline) {
            Some(leg) => leg.end?,
            // A branch that is none of its ancestors; what came before the journal's begin is not known.
            None if held.forked && held.timeline < timeline => held.begin,
            None => return None,
        };
        (from < held.end).then(|| Stretch { held: held.clone(), from, to: held.end })
    });
    left.collect()
}

fn timelines(why: BranchError) -> PlanError {
    match why {
        BranchError::Journal(why) => PlanError::Journal(why),
        other => PlanError::Timelines { why: other.to_string() },
    }
}

fn target_timeline(branches: &Branches, asked: &Asked) -> Timeline {
    match asked {
        Asked::Position(position) => position.timeline.unwrap_or(branches.newest()),
        Asked::Latest | Asked::Time(_) | Asked::Transaction(_) | Asked::Point(_) => branches.newest(),
    }
}

/// Which log is read for a search.
#[derive(Debug, Clone, Copy)]
struct Reading {
    timeline: Timeline,
    /// Where reading begins: where a decoder can.
    first: Offset,
    /// From where on it counts.
    base_start: Offset,
    until: Option<Offset>,
}

struct Search<'a> {
    source: &'a Source,
    branches: &'a Branches,
    timeline: Timeline,
    asked: &'a Asked,
    windows: &'a [Window],
    /// Whether the journal's index is asked.
    by_index: bool,
    /// How many runs of log were passed over on its word.
    passed: AtomicU64,
}

impl Search<'_> {
    async fn run(&self, candidates: &[Candidate]) -> Result<(Backup, Box<Found>), PlanError> {
        // What was read from a newer base need not be read again to know that the target is not there.
        let mut until = None;
        let mut last_refusal = None;
        // A name may have been given more than once: all log is looked at before one counts.
        let mut fits: Vec<(Backup, Box<Found>)> = Vec::new();
        let mut anchor = None;
        for candidate in candidates {
            if matches!(self.asked, Asked::Position(p) if p.offset < candidate.end.offset) {
                continue;
            }
            let Some(backup) =
                Backup::open(self.source.reader(), candidate.standing.id, self.source.unlock()).await?
            else {
                continue;
            };
            anchor = anchor.or(backup.manifest().next_transaction);
            let (outcome, gap) = self.from(&backup, until, self.by_index).await?;
            if let Some(gap) = &gap
                && !self.settled_before(&outcome, gap)
            {
                let refusal = self.behind(gap);
                match (&outcome, self.asked) {
                    // It may lie before this base: an older one is asked.
                    (Outcome::Absent, Asked::Transaction(_) | Asked::Point(_)) => {
                        last_refusal.get_or_insert(refusal);
                    }
                    _ => return Err(refusal),
                }
            }
            match outcome {
                Outcome::Found(found) if found.record.end >= candidate.end.offset && found.base_is_early => {
                    if !matches!(self.asked, Asked::Point(_)) {
                        self.nowhere_else(&backup, found.record.end).await?;
                        return Ok((backup, found));
                    }
                    if fits.iter().all(|(_, known)| known.record != found.record) {
                        fits.push((backup, found));
                    }
                    until = candidate.end.offset.checked_add(OVERLAP_BYTES);
                }
                // The target lies before this base is consistent, or is not behind it.
                Outcome::Found(_) | Outcome::Before | Outcome::Absent => {
                    until = candidate.end.offset.checked_add(OVERLAP_BYTES);
                }
                Outcome::Aborted { at } => {
                    let xid = if let Asked::Transaction(xid) = self.asked { *xid } else { 0 };
                    return Err(PlanError::Aborted { xid, at });
                }
                Outcome::Ambiguous { at } => return Err(self.ambiguous(at)),
                Outcome::TimeBeyond { newest_micros } => {
                    let newest = newest_micros.and_then(chrono::DateTime::from_timestamp_micros);
                    let why = match newest {
                        Some(newest) => {
                            format!(
                                "the newest time in the journal is {}; --latest takes the newest state",
                                newest.to_rfc3339_opts(SecondsFormat::AutoSi, true)
                            )
                        }
                        None => "the journal holds no time behind the base".to_owned(),
                    };
                    last_refusal.get_or_insert(self.outside(why));
                    break;
                }
            }
        }
        if fits.len() > 1 {
            return Err(self.ambiguous(fits.iter().map(|(_, found)| found.record.end).collect()));
        }
        if let Some(fit) = fits.pop() {
            return Ok(fit);
        }
        if matches!(self.asked, Asked::Transaction(_))
            && let Some(at) = self.left_with(anchor).await?.into_iter().next()
        {
            return Err(PlanError::LeftBehind { asked: self.asked.clone(), at });
        }
        Err(last_refusal.unwrap_or_else(|| match self.asked {
            Asked::Transaction(_) | Asked::Point(_) => {
                PlanError::NotFound { asked: self.asked.clone(), windows: self.windows.to_vec() }
            }
            Asked::Latest | Asked::Time(_) | Asked::Position(_) => {
                self.outside("it lies before the first restorable moment".to_owned())
            }
        }))
    }

    /// The newest sound base from which the very same record is reached, where the one that was found is known to be damaged; that
    /// one where there is none.
    async fn by_a_sound_one(
        &self,
        candidates: &[Candidate],
        backup: Backup,
        found: Box<Found>,
    ) -> Result<(Backup, Box<Found>), PlanError> {
        if !is_damaged(backup.manifest()) {
            return Ok((backup, found));
        }
        let older = candidates.iter().skip_while(|candidate| candidate.standing.id != backup.id()).skip(1);
        for candidate in older {
            let opened =
                Backup::open(self.source.reader(), candidate.standing.id, self.source.unlock()).await?;
            let Some(sound) = opened.filter(|backup| !is_damaged(backup.manifest())) else { continue };
            // That no sound base reaches the target is said of all log.
            let (outcome, gap) = match self.from(&sound, None, false).await {
                Ok(reached) => reached,
                // Its log is damaged before the target: this base does not reach it.
                Err(PlanError::Damaged { .. }) => continue,
                Err(why) => return Err(why),
            };
            let before_gap = gap.is_none_or(|gap| self.settled_before(&outcome, &gap));
            if let Outcome::Found(same) = outcome
                && before_gap
                && same.base_is_early
                && same.record == found.record
            {
                return Ok((sound, same));
            }
        }
        Ok((backup, found))
    }

    /// Whether what was found in front of a gap is the answer, whatever the gap held.
    fn settled_before(&self, outcome: &Outcome, gap: &Gap) -> bool {
        match (outcome, self.asked) {
            (Outcome::Aborted { .. } | Outcome::Ambiguous { .. }, _) => true,
            (Outcome::Found(_), Asked::Transaction(_) | Asked::Point(_)) => true,
            // All log up to it was read.
            (Outcome::Found(_), Asked::Position(position)) => position.offset <= gap.at.offset,
            _ => false,
        }
    }

    fn behind(&self, gap: &Gap) -> PlanError {
        PlanError::Gap { asked: self.asked.clone(), at: gap.at, end: gap.end, windows: self.windows.to_vec() }
    }

    fn ambiguous(&self, at: Vec<Offset>) -> PlanError {
        let on = |end: Offset| Position::new(self.branches.timeline_before(self.timeline, end), end);
        PlanError::Ambiguous { asked: self.asked.clone(), at: at.into_iter().map(on).collect() }
    }

    /// A transaction number may have been given out again after a promotion: whoever has it from the time before means the other one.
    async fn nowhere_else(&self, backup: &Backup, end: Offset) -> Result<(), PlanError> {
        if !matches!(self.asked, Asked::Transaction(_)) {
            return Ok(());
        }
        let mut at = self.left_with(backup.manifest().next_transaction).await?;
        if at.is_empty() {
            return Ok(());
        }
        at.push(Position::new(self.branches.timeline_before(self.timeline, end), end));
        Err(PlanError::Ambiguous { asked: self.asked.clone(), at })
    }

    /// Where the transaction was committed in log that the target's history does not have.
    async fn left_with(&self, anchor: Option<u64>) -> Result<Vec<Position>, PlanError> {
        let mut at = Vec::new();
        for left in left_behind(self.branches, self.timeline) {
            let timeline = left.held.timeline;
            let first = self.source.shape().read_from(left.from);
            let reading = Reading { timeline, first, base_start: left.from, until: None };
            // That a number was not given out twice is said of all log there, so all is read.
            let (outcome, _) = self.scan(reading, anchor, false).await?;
            match outcome {
                Outcome::Found(found) if found.record.start >= left.from => {
                    at.push(Position::new(timeline, found.record.end));
                }
                Outcome::Ambiguous { at: ends } => {
                    at.extend(ends.into_iter().map(|end| Position::new(timeline, end)));
                }
                _ => {}
            }
        }
        Ok(at)
    }

    fn outside(&self, why: String) -> PlanError {
        PlanError::OutsideWindow { asked: self.asked.clone(), why, windows: self.windows.to_vec() }
    }

    /// Reads the log from the base's start on, until the target is found. For a time, from some way before: a base that holds a
    /// later commit is no base for it, whatever follows.
    async fn from(
        &self,
        backup: &Backup,
        until: Option<Offset>,
        by_index: bool,
    ) -> Result<(Outcome, Option<Gap>), PlanError> {
        let manifest = backup.manifest();
        let start = manifest.start.offset;
        let first = self.source.shape().read_from(start);
        let before = match self.asked {
            Asked::Time(_) => self.before(first),
            Asked::Latest | Asked::Position(_) | Asked::Transaction(_) | Asked::Point(_) => first,
        };
        let reading = Reading { timeline: self.timeline, first: before, base_start: start, until };
        // An index may know whole numbers that the log from here on does not tell.
        let by_index = by_index && manifest.next_transaction.is_some();
        match self.scan(reading, manifest.next_transaction, by_index).await? {
            // What lies before the base may have a gap, or be another incarnation's begin: not our matter.
            (_, Some(gap)) if gap.at.offset < start => {
                self.scan(Reading { first, ..reading }, manifest.next_transaction, by_index).await
            }
            other => Ok(other),
        }
    }

    /// The earliest place, not too far before `first`, from which the log can be read and is stored without a break.
    fn before(&self, first: Offset) -> Offset {
        let mut stored =
            self.source.shape().begins_before(first, LOOK_BEFORE_BYTES).filter(|start| {
                self.branches.stored_end(self.timeline, *start).is_some_and(|end| end > first)
            });
        stored.next().unwrap_or(first)
    }

    async fn scan(
        &self,
        reading: Reading,
        next_transaction: Option<u64>,
        by_index: bool,
    ) -> Result<(Outcome, Option<Gap>), PlanError> {
        let Reading { timeline, first, base_start, until } = reading;
        let base = Position::new(timeline, first);
        let damaged = |whole_to, source| PlanError::Damaged { base, whole_to, source };
        let scan = Scan::new(self.source.shape(), base, base_start, next_transaction, wanted(self.asked));
        let mut scan = scan.map_err(|source| damaged(None, source))?;
        let mut log = LogReader::new(self.source, self.branches, timeline, first, until);
        let mut shortcuts = Shortcuts::new(self.source);
        loop {
            // What lies before the base's start is read, or the base could hold what nobody saw.
            let border =
                log.border().filter(|border| by_index && border.offset >= base_start && scan.may_pass());
            if let Some(border) = border
                && let Some(run) = shortcuts.over(border, |run| scan.lies_behind(run)).await
            {
                self.passed.fetch_add(1, Ordering::Relaxed);
                scan.pass(&run).map_err(|source| damaged(scan.whole_to(), source))?;
                log.skip(&run);
                continue;
            }
            let next = match log.next().await {
                Ok(next) => next,
                // What is found in front of damage is found.
                Err(why) if scan.is_settled() && !matches!(why, JournalError::Store(_)) => {
                    tracing::warn!(error = %why, "the log behind the target is damaged: commits that are out of order there are not named");
                    return Ok((scan.finish(), None));
                }
                Err(why) => return Err(why.into()),
            };
            match next {
                Next::Passed => {}
                Next::Bytes(piece) => {
                    // Decoding takes a core for as long as a checksum of the log does.
                    let pushed = tokio::task::spawn_blocking(move || {
                        let done = scan.push(&piece.bytes);
                        (scan, done)
                    });
                    let (back, done) = pushed.await.map_err(|_| cut_off())?;
                    scan = back;
                    if done.map_err(|source| damaged(scan.whole_to(), source))? {
                        return Ok((scan.finish(), None));
                    }
                }
                // A time whose first later commit was seen is settled, whatever the gap held.
                Next::Gap(gap) => {
                    let gap = Some(gap).filter(|_| !scan.is_settled());
                    return Ok((scan.finish(), gap));
                }
                Next::Misled => {
                    return Err(PlanError::Misled { at: scan.whole_to().unwrap_or(first) });
                }
                Next::End => return Ok((scan.finish(), None)),
            }
        }
    }
}

async fn describe(
    source: &Source,
    branches: &Branches,
    asked: Asked,
    timeline: Timeline,
    backup: &Backup,
    found: Found,
) -> Result<Plan, PlanError> {
    let manifest = backup.manifest();
    // The timeline that holds the record, not a later one: a copy that was promoted from before a fork would else write a history
    // whose offsets fall, which no server's and no shipper's reader takes.
    let timeline = branches.timeline_before(timeline, found.record.end);
    if let Some(at) = found.minimal_from {
        return Err(PlanError::Minimal { at });
    }
    let takes = takes(source, backup, &found, timeline).await?;
    let files: u64 = manifest.entries.iter().map(|entry| entry.size).sum();
    let reader = source.reader();
    Ok(Plan {
        schema: SCHEMA.to_owned(),
        database: source.record().database.clone(),
        store: reader.store_id(),
        incarnation: reader.incarnation(),
        asked,
        resolved: Resolved {
            time: found.commit.and_then(|commit| chrono::DateTime::from_timestamp_micros(commit.time_micros)),
            position: found.record.end,
            xid: found.commit.and_then(|commit| commit.xid),
            commit_position: found.commit.map(|commit| commit.end),
            timeline,
            record_start: found.record.start,
        },
        base: Base {
            id: backup.id(),
            label: manifest.label.clone(),
            start: manifest.start,
            end: manifest.end,
            finished: manifest.finished.clone(),
            bytes: files,
            entries: manifest.entries.len() as u64,
            bad_pages: manifest.bad_pages.len() as u64,
            first_bad_pages: manifest
                .bad_pages
                .iter()
                .take(BAD_PAGES_NAMED)
                .map(|bad| BadPageThen { path: bad.path.clone(), page: bad.page })
                .collect(),
            damaged: manifest.damaged,
        },
        replay_bytes: found.record.end.get().saturating_sub(manifest.start.offset.get()),
        segments: takes.segments,
        writes_bytes: takes.writes_bytes,
        estimate_seconds: None,
        neutralised: takes.neutralised,
        prepared: takes.prepared,
        out_of_order: found.out_of_order.iter().map(commit_then).collect(),
        tablespaces: takes.tablespaces,
        demanded: found.demanded.map(Into::into),
        rests_on_index: false,
    })
}

/// Whether a backup is known to hold damaged pages.
fn is_damaged(manifest: &Manifest) -> bool {
    manifest.damaged || !manifest.bad_pages.is_empty()
}

fn commit_then(commit: &CommitSeen) -> CommitThen {
    CommitThen {
        xid: commit.xid,
        time: chrono::DateTime::from_timestamp_micros(commit.time_micros),
        position: commit.end,
    }
}

fn cut_off() -> PlanError {
    PlanError::Journal(JournalError::NotHeld { what: "the log: reading it was cut off".to_owned() })
}
