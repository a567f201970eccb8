//! One database at a glance, for the command line and the dashboard.
//!
//! All of it is read from one state of the catalog. Unknown is null, never 0, and never green. The JSON is a
//! contract: fields may be added under a new schema number, never change their meaning under this one.

use std::collections::{BTreeMap, BTreeSet};

use farshore_journal::{DatabaseName, IncarnationId, Offset, Position, Timeline};
use serde::{Serialize, Serializer};

use crate::backup::{Backup, BackupState, backup_list_in_txn};
use crate::branch::{Branch, Line, branch_list_in_txn};
use crate::connection::in_snapshot;
use crate::database::database_find_in_txn;
use crate::gap::{Gap, gap_list_in_txn};
use crate::incarnation::{Incarnation, incarnation_list_in_txn};
use crate::lag::{self, ShownState};
use crate::lineup;
use crate::points::commit_at_in_txn;
use crate::range::{JournalRange, range_list_in_txn};
use crate::shipping::shipping_find_in_txn;
use crate::target::{Target, target_list_in_txn};
use crate::window::{self, Span, Windows};
use crate::{Catalog, Error, Result, Time, Txn};

/// The name of the JSON's shape.
pub const SCHEMA: &str = "farshore.status/1";

/// A database as it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DatabaseStatus {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Its name.
    pub database: DatabaseName,
    /// Its engine's word.
    pub engine: String,
    /// How its shipping stands; `unknown` when nobody vouches for it.
    pub state: ShownState,
    /// When a service last wrote of it here.
    pub seen_at: Option<Time>,
    /// When the positions were written that follow: `ship_lag_seconds` has grown since, as if nothing had been stored after that.
    pub measured_at: Option<Time>,
    /// Why it does not stand as it should, as far as anybody said so; null when nothing is known to be wrong.
    pub why: Option<String>,
    /// Its current incarnation.
    pub incarnation: Option<IncarnationId>,
    /// The number that its store's record gives that one.
    pub incarnation_number: Option<u64>,
    /// The incarnations that it has now, in each store its own, one of which `incarnation` is.
    #[serde(skip)]
    pub present: Vec<IncarnationId>,
    /// The timeline of the four offsets.
    pub timeline: Option<Timeline>,
    /// Up to where our process has the bytes.
    pub received: Option<Offset>,
    /// Up to where the required targets have confirmed them.
    pub stored: Option<Offset>,
    /// Up to where the primary was told they are flushed.
    pub reported: Option<Offset>,
    /// Up to where the primary may recycle its log.
    pub released: Option<Offset>,
    /// Bytes of log not stored, as of the last contact.
    pub ship_lag_bytes: Option<u64>,
    /// Age of the oldest commit not stored.
    pub ship_lag_seconds: Option<f64>,
    /// Whether so much log was not received that nobody knows what would be lost ([`lag::is_unseen`]).
    #[serde(skip)]
    pub unseen: bool,
    /// What can be restored of the current incarnation; null when nothing can, or nothing is known.
    pub window: Option<Window>,
    /// The incarnations before the current one, oldest first: what can be restored of them stays so.
    pub former: Vec<Former>,
    /// Its base backups.
    pub backups: Backups,
    /// Its stores, by name.
    pub targets: Vec<TargetStatus>,
    /// What the primary keeps for us.
    pub primary: Primary,
}

/// An incarnation that another one followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Former {
    /// Its id.
    pub incarnation: IncarnationId,
    /// The number that its store's record gives it, which `restore --incarnation` takes; null when it was recorded before numbers
    /// were kept.
    pub number: Option<u64>,
    /// What can be restored of it; null when nothing can.
    pub window: Option<Window>,
}

/// The newest unbroken run of restorable positions of an incarnation, in the store that has the newest. Another store may
/// reach less far: a restore reads the first of the database's list unless it is told which.
///
/// A time is that of the last commit at or before its position in the same unbroken log. It is null when there is no such commit:
/// one from before a gap would promise times that cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    /// The store that has it.
    pub store: String,
    /// The time of the last commit at the window's start; null when the log of this run has none before it.
    pub from_time: Option<Time>,
    /// The time of its last commit; null when the log of this run has none.
    pub to_time: Option<Time>,
    /// The first restorable position.
    #[serde(serialize_with = "as_text")]
    pub from_position: Position,
    /// The last restorable position.
    #[serde(serialize_with = "as_text")]
    pub to_position: Position,
    /// What cannot be restored between the oldest restorable position and now, oldest first.
    pub gaps: Vec<WindowGap>,
}

/// A part of the history that cannot be restored, after an older run that can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WindowGap {
    /// The time of the last restorable commit before it; null when the run before it has none.
    pub from_time: Option<Time>,
    /// The time of the last commit at the first restorable position after it; null when there is none between the gap and there.
    pub to_time: Option<Time>,
    /// The last restorable position before it.
    #[serde(serialize_with = "as_text")]
    pub from_position: Position,
    /// The first restorable position after it; null while there is none.
    #[serde(serialize_with = "as_maybe_text")]
    pub to_position: Option<Position>,
    /// Why.
    pub reason: String,
    /// Whether it is a loss: log that expired before something that can be restored is none.
    #[serde(skip)]
    pub is_loss: bool,
    /// The first restorable position of the older run that ends here.
    #[serde(serialize_with = "as_text")]
    pub older_from_position: Position,
    /// The time of the last commit there; null when the log of that run has none before it.
    pub older_from_time: Option<Time>,
}

/// The complete base backups of the present incarnation, over all stores.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Backups {
    /// How many.
    pub count: u64,
    /// How many of them have pages that were damaged at the primary already: a restore takes those last.
    pub damaged: u64,
    /// How many of them nobody has opened: they are sealed, and were found in the store where no private key is at hand. Whether pages of theirs are damaged is not known.
    pub unopened: u64,
    /// How many of them a verification found to be not as they were stored: no window begins with one.
    pub bad: u64,
    /// When the newest ended.
    pub last_at: Option<Time>,
}

impl Backups {
    /// Counts those of another store besides.
    pub(crate) fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.damaged += other.damaged;
        self.unopened += other.unopened;
        self.bad += other.bad;
        self.last_at = self.last_at.max(other.last_at);
    }
}

/// A store of the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TargetStatus {
    /// Its name.
    pub store: String,
    /// Up to where it has confirmed the journal.
    #[serde(serialize_with = "as_maybe_text")]
    pub stored: Option<Position>,
    /// The shipper's word for it; `unknown` when nobody vouches for the database, or nobody for this store any more.
    pub state: String,
    /// What last went wrong there, until it is mended.
    pub why: Option<String>,
}

/// The primary's log disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Primary {
    /// Bytes of log it keeps for us.
    pub retained_bytes: Option<u64>,
    /// Seconds until its disk is full at the present rate.
    pub seconds_to_full: Option<u64>,
}

fn as_text<S: Serializer>(position: &Position, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(position)
}

#[allow(clippy::ref_option)] // the signature is serde's
fn as_maybe_text<S: Serializer>(
    position: &Option<Position>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    match position {
        Some(position) => serializer.collect_str(position),
        None => serializer.serialize_none(),
    }
}

impl Catalog {
    /// How a database stands at `now`.
    ///
    /// # Errors
    /// [`Error::NoDatabase`] when it is not known.
    pub async fn status(&self, database: &DatabaseName, now: Time) -> Result<DatabaseStatus> {
        in_snapshot!(self, status_in_txn(database, now))
    }

    /// What can be restored of an incarnation along the line to `timeline`, store by store.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn windows(
        &self,
        incarnation: IncarnationId,
        timeline: Timeline,
    ) -> Result<Vec<(String, Windows)>> {
        in_snapshot!(self, windows_in_txn(incarnation, timeline))
    }
}

/// As [`Catalog::status`].
///
/// # Errors
/// [`Error::NoDatabase`] when it is not known.
pub async fn status_in_txn(txn: &mut Txn, name: &DatabaseName, now: Time) -> Result<DatabaseStatus> {
    let database =
        database_find_in_txn(txn, name).await?.ok_or_else(|| Error::NoDatabase { name: name.clone() })?;
    let shipping = shipping_find_in_txn(txn, name).await?;
    // Oldest first: the last one is the current one.
    let incarnations = incarnation_list_in_txn(txn, name).await?;
    let targets = target_list_in_txn(txn, name).await?;
    let stored = stores_of(txn, &incarnations).await?;
    let of = |id| {
        let own = stored.get(&id).into_iter().flatten().map(String::as_str);
        own.filter(|store| is_target(store, &targets)).collect()
    };
    let present = lineup::present(&incarnations, of);
    let state = lag::shown_state(now, shipping.as_ref());
    let silent =
        shipping.as_ref().is_none_or(|said| lag::is_silent(now, said.last_contact_at, said.heartbeat));

    let (mut windows, mut backups) = (Vec::new(), Backups::default());
    for id in &present {
        let shipped = shipping.as_ref().and_then(|shipping| shipping.timeline);
        let newest = newest_timeline_in_txn(txn, *id).await?;
        if let Some(timeline) = shown_timeline(state, shipped, newest)
            && let Some(window) = window_in_txn(txn, *id, timeline).await?
        {
            windows.push((*id, window));
        }
        let all = backup_list_in_txn(txn, *id).await?;
        let complete = || all.iter().filter(|backup| backup.state == BackupState::Complete);
        backups.add(&Backups {
            count: complete().count() as u64,
            damaged: complete().filter(|backup| backup.bad_pages.is_some_and(|pages| pages > 0)).count()
                as u64,
            unopened: complete().filter(|backup| !backup.checked).count() as u64,
            bad: complete().filter(|backup| backup.bad_at.is_some()).count() as u64,
            last_at: complete().filter_map(|backup| backup.finished_at).max(),
        });
    }
    let runs: Vec<_> = windows.iter().map(|(_, window)| (window.from_position, window.to_position)).collect();
    let shown = lineup::shown(&runs).map(|at| windows.swap_remove(at));
    let (incarnation, window) = match shown {
        Some((id, window)) => (Some(id), Some(window)),
        None => (present.first().copied(), None),
    };
    let number = incarnations.iter().find(|one| Some(one.id) == incarnation).and_then(|one| one.number);
    let former = incarnations.into_iter().filter(|one| !present.contains(&one.id)).collect();
    let former = former_in_txn(txn, former).await?;
    let seen_at = lag::seen_at(shipping.as_ref(), &targets);
    let why = lag::why(now, shipping.as_ref(), &targets);
    let targets = targets
        .into_iter()
        .map(|target| TargetStatus {
            state: match state {
                ShownState::Unknown => state.word().to_owned(),
                ShownState::Known(_) => lag::shown_target_state(now, silent, &target),
            },
            why: target.failure.map(|failure| failure.message),
            store: target.store,
            stored: target.stored,
        })
        .collect();
    let said = shipping.as_ref();
    let (source, stored) = (said.and_then(|s| s.source), said.and_then(|s| s.stored));
    let oldest_unstored = said.and_then(|s| s.oldest_unstored_commit_at);
    let lag_seconds = lag::lag_seconds(now, silent, source, stored, oldest_unstored);
    Ok(DatabaseStatus {
        schema: SCHEMA,
        database: database.name,
        engine: database.engine,
        state,
        seen_at,
        measured_at: said.map(|said| said.updated_at),
        why,
        incarnation,
        incarnation_number: number,
        present,
        timeline: said.and_then(|s| s.timeline),
        received: said.and_then(|s| s.received),
        stored,
        reported: said.and_then(|s| s.reported),
        released: said.and_then(|s| s.released),
        ship_lag_bytes: lag::lag_bytes(source, stored).filter(|_| !silent),
        ship_lag_seconds: lag_seconds,
        unseen: lag::is_unseen(lag_seconds, source, said.and_then(|s| s.received)),
        window,
        former,
        backups,
        targets,
        primary: Primary {
            // After a last word nobody measures them.
            retained_bytes: said.and_then(|s| s.retained_bytes).filter(|_| ships(state)),
            seconds_to_full: said.and_then(|s| s.seconds_to_full).filter(|_| ships(state)),
        },
    })
}

/// Whether a store is still one of the database's; before a service said which are, each is.
pub(crate) fn is_target(store: &str, targets: &[Target]) -> bool {
    targets.is_empty() || targets.iter().any(|target| target.store == store)
}

/// In which stores there is log of each incarnation.
async fn stores_of(
    txn: &mut Txn,
    incarnations: &[Incarnation],
) -> Result<BTreeMap<IncarnationId, BTreeSet<String>>> {
    let mut stores = BTreeMap::new();
    for one in incarnations {
        let ranges = range_list_in_txn(txn, one.id).await?;
        stores.insert(one.id, ranges.into_iter().map(|range| range.store).collect());
    }
    Ok(stores)
}

/// What can be restored of incarnations that nothing ships to any more.
async fn former_in_txn(txn: &mut Txn, incarnations: Vec<Incarnation>) -> Result<Vec<Former>> {
    let mut former = Vec::with_capacity(incarnations.len());
    for Incarnation { id: incarnation, number, .. } in incarnations {
        let window = match newest_timeline_in_txn(txn, incarnation).await? {
            Some(timeline) => window_in_txn(txn, incarnation, timeline).await?,
            None => None,
        };
        former.push(Former { incarnation, number, window });
    }
    Ok(former)
}

/// Whether a shipper vouches for the timeline that it ships.
pub(crate) fn ships(state: ShownState) -> bool {
    match state {
        ShownState::Unknown => false,
        ShownState::Known(state) => !state.is_stopped(),
    }
}

/// The newest timeline that the catalog has heard of: the first one of a journal has log and no branch.
async fn newest_timeline_in_txn(txn: &mut Txn, incarnation: IncarnationId) -> Result<Option<Timeline>> {
    let branches = branch_list_in_txn(txn, incarnation).await?;
    let ranges = range_list_in_txn(txn, incarnation).await?;
    Ok(newest_timeline(&branches, &ranges))
}

/// The newest timeline of an incarnation's branches and ranges.
pub(crate) fn newest_timeline(branches: &[Branch], ranges: &[JournalRange]) -> Option<Timeline> {
    let stored = ranges.iter().map(|range| range.timeline);
    branches.iter().map(|branch| branch.timeline).chain(stored).max()
}

/// The timeline whose window is shown. While nothing ships, the one that was shipped last may be one that the journal has left behind.
pub(crate) fn shown_timeline(
    state: ShownState,
    shipped: Option<Timeline>,
    newest: Option<Timeline>,
) -> Option<Timeline> {
    if ships(state) { shipped.or(newest) } else { newest.or(shipped) }
}

/// As [`Catalog::windows`].
///
/// # Errors
/// When the catalog is away.
pub async fn windows_in_txn(
    txn: &mut Txn,
    incarnation: IncarnationId,
    timeline: Timeline,
) -> Result<Vec<(String, Windows)>> {
    let line = Line::to(timeline, &branch_list_in_txn(txn, incarnation).await?);
    let ranges = range_list_in_txn(txn, incarnation).await?;
    let gaps = gap_list_in_txn(txn, incarnation).await?;
    let backups = backup_list_in_txn(txn, incarnation).await?;
    Ok(windows_by_store(&line, &ranges, &gaps, &backups))
}

/// The windows along a line, store by store, from one incarnation's rows; ranges come sorted by store.
pub(crate) fn windows_by_store(
    line: &Line,
    ranges: &[JournalRange],
    gaps: &[Gap],
    backups: &[Backup],
) -> Vec<(String, Windows)> {
    let of_stores = ranges.chunk_by(|a, b| a.store == b.store).filter_map(|ranges| {
        let store = &ranges.first()?.store;
        let gaps: Vec<_> = gaps.iter().filter(|gap| gap.store == *store).cloned().collect();
        let backups: Vec<_> = backups.iter().filter(|backup| backup.store == *store).cloned().collect();
        Some((store.clone(), window::windows(line, ranges, &gaps, &backups)))
    });
    of_stores.collect()
}

/// The store that reaches furthest along the line, with its newest span; of two equals, the longer one.
pub(crate) fn furthest(of_stores: Vec<(String, Windows)>) -> Option<(Span, String, Windows)> {
    let furthest = of_stores.into_iter().filter_map(|(store, windows)| {
        let newest = windows.spans.last()?.clone();
        Some((newest, store, windows))
    });
    // Along one line the offset alone orders positions.
    furthest.max_by_key(|(newest, _, _)| (newest.to.offset, std::cmp::Reverse(newest.from.offset)))
}

/// The window of the store that reaches furthest, with its times. One store's alone: what two stores could only do
/// together is not claimed.
async fn window_in_txn(
    txn: &mut Txn,
    incarnation: IncarnationId,
    timeline: Timeline,
) -> Result<Option<Window>> {
    let of_stores = windows_in_txn(txn, incarnation, timeline).await?;
    let Some((newest, store, windows)) = furthest(of_stores) else { return Ok(None) };
    let along = Along { incarnation, timeline };
    let mut gaps = Vec::new();
    for (index, (lost, older)) in windows.breaks.iter().zip(&windows.spans).enumerate() {
        gaps.push(WindowGap {
            from_time: along.time_at(txn, older, lost.from).await?,
            to_time: match (lost.to, windows.spans.get(index + 1)) {
                (Some(to), Some(next)) => along.time_at(txn, next, to).await?,
                _ => None,
            },
            from_position: lost.from,
            to_position: lost.to,
            reason: lost.reason.clone(),
            is_loss: lost.is_loss(),
            older_from_position: older.from,
            older_from_time: along.time_at(txn, older, older.from).await?,
        });
    }
    Ok(Some(Window {
        store,
        from_time: along.time_at(txn, &newest, newest.from).await?,
        to_time: along.time_at(txn, &newest, newest.to).await?,
        from_position: newest.from,
        to_position: newest.to,
        gaps,
    }))
}

/// The line along which times are looked up.
pub(crate) struct Along {
    pub(crate) incarnation: IncarnationId,
    pub(crate) timeline: Timeline,
}

impl Along {
    /// The time of the last commit at or before a position of a span; `None` when the span's log holds none up to there. A commit
    /// from before that log says nothing: whoever asks for its time is refused.
    pub(crate) async fn time_at(
        &self,
        txn: &mut Txn,
        span: &Span,
        position: Position,
    ) -> Result<Option<Time>> {
        let last = commit_at_in_txn(txn, self.incarnation, self.timeline, position).await?;
        Ok(last.filter(|commit| commit.start >= span.log_from).map(|commit| commit.time))
    }
}
