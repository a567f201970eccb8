//! What a recovery to the newest position would take now, reckoned from what drills of the database took.
//!
//! What always holds: nothing is reckoned that no drill measured, and of the newest drills the slowest counts, part by part: a guess that is wrong is rather too
//! long. It is the time on the machines that drilled, at their load, as a drill's own is. Whoever asks for a point further back may get another base backup and less log.

use std::collections::BTreeMap;
use std::time::Duration;

use farshore_journal::DatabaseName;
use sqlx::any::AnyRow;
use sqlx::query;

use crate::backup::{Backup, BackupState, backup_list_in_txn};
use crate::branch::{Line, branch_list_in_txn};
use crate::connection::in_snapshot;
use crate::gap::gap_list_in_txn;
use crate::incarnation::incarnation_list_in_txn;
use crate::lag;
use crate::lineup;
use crate::range::range_list_in_txn;
use crate::row::Read as _;
use crate::shipping::shipping_find_in_txn;
use crate::status::{newest_timeline, shown_timeline, windows_by_store};
use crate::window::newest_usable;
use crate::{Catalog, Result, Time, Txn};

/// How many of the newest drills count.
const NEWEST: u32 = 3;
/// Bytes of log below which the time of a replay says nothing of its pace: it is the time of beginning and ending then.
const ENOUGH: u64 = 16 << 20;

/// What one drill's recovery took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Took {
    /// All of it.
    pub whole: Duration,
    /// Of that the replay.
    pub replay: Duration,
    /// Bytes of log that were replayed.
    pub bytes: u64,
}

/// How fast recoveries of a database are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// All but the replay: the slowest of them.
    pub rest: Duration,
    /// The slowest replay of them that was too small to tell a pace.
    small: Option<Duration>,
    /// Seconds for a byte of log, of the slowest that was large enough.
    per_byte: Option<f64>,
}

impl Pace {
    /// Of the newest drills; `None` where none came to its end.
    pub fn of(drills: &[Took]) -> Option<Self> {
        let rest = drills.iter().map(|one| one.whole.saturating_sub(one.replay)).max()?;
        let (large, small): (Vec<&Took>, Vec<&Took>) = drills.iter().partition(|one| one.bytes >= ENOUGH);
        #[allow(clippy::cast_precision_loss)] // a time in seconds is shown in two units
        let per_byte = large.iter().map(|one| one.replay.as_secs_f64() / one.bytes as f64).reduce(f64::max);
        Some(Self { rest, small: small.iter().map(|one| one.replay).max(), per_byte })
    }

    /// How long so much log is replayed; `None` when no drill replayed enough to tell.
    pub fn replay(&self, bytes: u64) -> Option<Duration> {
        #[allow(clippy::cast_precision_loss)] // as above
        let paced = self.per_byte.map(|per_byte| Duration::try_from_secs_f64(per_byte * bytes as f64));
        match (paced, self.small) {
            (Some(paced), small) => Some(paced.unwrap_or(Duration::MAX).max(small.unwrap_or_default())),
            (None, Some(small)) => (bytes <= ENOUGH).then_some(small),
            (None, None) => None,
        }
    }
}

/// A recovery to the newest position of one store.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovery {
    /// The store.
    pub store: String,
    /// The base backup that it would begin with.
    pub base: Backup,
    /// The complete one that was begun last, which it would begin with if nothing spoke against it.
    pub newest: Backup,
    /// Bytes of log from there on.
    pub log_bytes: u64,
    /// How fast it would be; `None` where no drill came to its end.
    pub pace: Option<Pace>,
}

impl Recovery {
    /// How long it would take; `None` when that is not known.
    pub fn whole(&self) -> Option<Duration> {
        let pace = self.pace?;
        Some(pace.rest.saturating_add(pace.replay(self.log_bytes)?))
    }
}

impl Catalog {
    /// What a recovery of a database would take now, store by store; only stores from which there is one.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn recovery(&self, database: &DatabaseName, now: Time) -> Result<Vec<Recovery>> {
        in_snapshot!(self, recovery_in_txn(database, now))
    }
}

/// As [`Catalog::recovery`].
///
/// # Errors
/// When the catalog is away.
pub async fn recovery_in_txn(txn: &mut Txn, database: &DatabaseName, now: Time) -> Result<Vec<Recovery>> {
    let shipping = shipping_find_in_txn(txn, database).await?;
    let state = lag::shown_state(now, shipping.as_ref());
    let shipped = shipping.as_ref().and_then(|said| said.timeline);
    let bound = query(text::MEASURED).bind(database.to_string()).bind(i64::from(NEWEST));
    let drills: Result<Vec<Took>> = txn.rows("drill_measured", bound).await?.iter().map(took).collect();
    let pace = Pace::of(&drills?);
    let incarnations = incarnation_list_in_txn(txn, database).await?;
    let mut ranges = BTreeMap::new();
    for one in &incarnations {
        ranges.insert(one.id, range_list_in_txn(txn, one.id).await?);
    }
    let stores = |id| ranges.get(&id).into_iter().flatten().map(|range| range.store.as_str()).collect();
    let present = lineup::present(&incarnations, stores);
    let mut found = Vec::new();
    for id in present {
        let ranges = ranges.remove(&id).unwrap_or_default();
        let branches = branch_list_in_txn(txn, id).await?;
        let newest = newest_timeline(&branches, &ranges);
        let Some(timeline) = shown_timeline(state, shipped, newest) else { continue };
        let gaps = gap_list_in_txn(txn, id).await?;
        let bases = backup_list_in_txn(txn, id).await?;
        let line = Line::to(timeline, &branches);
        let windows = windows_by_store(&line, &ranges, &gaps, &bases);
        found.extend(windows.into_iter().filter_map(|(store, windows)| {
            let span = windows.spans.last()?;
            let own: Vec<Backup> = bases.iter().filter(|base| base.store == store).cloned().collect();
            let base = newest_usable(&line, span, &own)?.clone();
            let complete = own.into_iter().filter(|one| one.state == BackupState::Complete);
            let newest = complete.max_by_key(|one| one.started_at)?;
            let log_bytes = span.to.offset.get().saturating_sub(base.start.get());
            Some(Recovery { store, base, newest, log_bytes, pace })
        }));
    }
    found.sort_by(|one, other| one.store.cmp(&other.store));
    Ok(found)
}

fn took(row: &AnyRow) -> Result<Took> {
    let time = |column| row.count(column).map(Duration::from_micros);
    Ok(Took { whole: time("recovery_us")?, replay: time("replay_us")?, bytes: row.count("replay_bytes")? })
}

pub(crate) mod text {
    pub(crate) const MEASURED: &str = "select recovery_us, replay_us, replay_bytes from drill \
                                       where database_name = $1 and recovery_us is not null and replay_us is not null \
                                       and replay_bytes is not null order by began_at desc, id desc limit $2";
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn took(whole: u64, replay: u64, mib: u64) -> Took {
        Took { whole: Duration::from_secs(whole), replay: Duration::from_secs(replay), bytes: mib * MIB }
    }

    #[test]
    fn a_recovery_is_reckoned_by_the_slowest_of_the_newest_drills_part_by_part() {
        let pace = Pace::of(&[took(30, 20, 200), took(50, 10, 50), took(7, 5, 1)]).unwrap();
        assert_eq!(pace.rest, Duration::from_secs(40));
        assert_eq!(pace.replay(500 * MIB).map(|took| took.as_secs_f64().round()), Some(100.0));
        assert_eq!(pace.replay(MIB), Some(Duration::from_secs(5)), "less than one took that had as little");
    }

    #[test]
    fn what_no_drill_measured_is_not_known() {
        assert_eq!(Pace::of(&[]), None);
        let pace = Pace::of(&[took(7, 5, 1)]).unwrap();
        assert_eq!(pace.replay(16 * MIB), Some(Duration::from_secs(5)));
        assert_eq!(pace.replay(16 * MIB + 1), None);
        let pace = Pace::of(&[took(1000, 900, 16)]).unwrap();
        assert_eq!(pace.replay(u64::MAX), Some(Duration::from_secs_f64(900.0 / 16.0 * (1u64 << 44) as f64)));
    }
}
