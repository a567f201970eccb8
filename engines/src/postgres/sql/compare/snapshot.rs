//! Which transactions a snapshot sees: pure.
//!
//! A snapshot of a server that takes writes names those below `xmax` that run, prepared ones among them. One of a standby names none: they stand in the part that `pg_current_snapshot`
//! does not show. Source: `GetSnapshotData` (src/backend/storage/ipc/procarray.c) puts all of a standby's into `subxip`; `pg_current_snapshot` (src/backend/utils/adt/xid8funcs.c) shows `xip`.

use std::str::FromStr;

/// A snapshot, as `pg_current_snapshot` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    xmin: u64,
    xmax: u64,
    running: Vec<u64>,
}

/// A text that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no snapshot")]
pub struct SnapshotError;

impl Snapshot {
    /// Whether a transaction that has committed is seen. Of a sub-transaction its parent is asked for.
    pub fn sees(&self, transaction: u64) -> bool {
        transaction < self.xmin
            || (transaction < self.xmax && self.running.binary_search(&transaction).is_err())
    }

    /// The first number that no transaction had that had ended.
    pub fn xmax(&self) -> u64 {
        self.xmax
    }

    /// Every number below `end` that is not seen; `None` where there are more than `most`.
    pub fn unseen(&self, end: u64, most: usize) -> Option<Vec<u64>> {
        let above = usize::try_from(end.saturating_sub(self.xmax)).ok()?;
        if above.checked_add(self.running.len())? > most {
            return None;
        }
        let running = self.running.iter().copied().filter(|number| *number < end);
        Some(running.chain(self.xmax..end.max(self.xmax)).collect())
    }
}

impl FromStr for Snapshot {
    type Err = SnapshotError;

    fn from_str(text: &str) -> Result<Self, SnapshotError> {
        let mut parts = text.split(':');
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok()).ok_or(SnapshotError);
        let (xmin, xmax) = (number()?, number()?);
        let rest = parts.next().ok_or(SnapshotError)?;
        let running = rest.split(',').filter(|one| !one.is_empty()).map(str::parse);
        let running: Vec<u64> = running.collect::<Result<_, _>>().map_err(|_| SnapshotError)?;
        let is_sound = xmin <= xmax
            && parts.next().is_none()
            && running.iter().all(|one| (xmin..xmax).contains(one))
            && running.windows(2).all(|pair| pair[0] < pair[1]);
        is_sound.then_some(Self { xmin, xmax, running }).ok_or(SnapshotError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_what_had_ended_and_nothing_that_ran_or_came_later() {
        let snapshot: Snapshot = "10:20:10,12,15".parse().unwrap();
        let seen: Vec<u64> = (8..22).filter(|one| snapshot.sees(*one)).collect();
        assert_eq!(seen, [8, 9, 11, 13, 14, 16, 17, 18, 19]);
        assert_eq!(snapshot.unseen(22, 5), Some(vec![10, 12, 15, 20, 21]));
        assert_eq!(snapshot.unseen(18, 5), Some(vec![10, 12, 15]));
        assert_eq!(snapshot.unseen(12, 5), Some(vec![10]));
        assert_eq!(snapshot.unseen(22, 4), None);
        assert!("7:7:".parse::<Snapshot>().unwrap().sees(6));
        for wrong in ["", "7", "7:7", "8:7:", "1:3:3", "1:3:0", "1:9:5,4", "1:9:x", "1:9:2:3", "-1:9:"] {
            assert!(wrong.parse::<Snapshot>().is_err(), "{wrong}");
        }
    }
}
