//! Which incarnations of a database are its present one: pure.
//!
//! Incarnations are each store's own, so a database with two stores has two at a time, of one cluster. What always holds: what is shown of them is one store's, and
//! never pieced together of two; a former incarnation counts as present nowhere. Where a store has several incarnations of one cluster, it was put back once, and the
//! positions of another store may be of another history: then the newest stands alone.

use std::collections::BTreeSet;

use farshore_journal::{IncarnationId, Position};

use crate::incarnation::Incarnation;

/// Bytes of log by which a store may be behind the furthest and be shown in its place: two stores that are shipped to pass each other all the time.
const ABREAST: u64 = 64 << 20;

/// The present incarnations, the current one first. `all`: of one database, oldest first. `stores`: in which stores there is anything of one.
pub(crate) fn present<'a>(
    all: &[Incarnation],
    stores: impl Fn(IncarnationId) -> BTreeSet<&'a str>,
) -> Vec<IncarnationId> {
    let Some((current, former)) = all.split_last() else { return Vec::new() };
    let mut taken = stores(current.id);
    let mut present = vec![current.id];
    if taken.is_empty() {
        return present;
    }
    for one in former.iter().rev().filter(|one| one.engine_identity == current.engine_identity) {
        let own = stores(one.id);
        if own.iter().any(|store| taken.contains(store)) {
            return vec![current.id];
        }
        if !own.is_empty() {
            present.push(one.id);
            taken.extend(own);
        }
    }
    present
}

/// Which of several runs of restorable positions, each of another store, is shown for all: of those that reach as far as any, but for little, the longest; of equals the
/// first. Given by their ends.
pub(crate) fn shown(runs: &[(Position, Position)]) -> Option<usize> {
    let furthest = runs.iter().map(|(_, to)| (to.timeline, to.offset)).max()?;
    let abreast = |to: &Position| {
        to.timeline == furthest.0 && furthest.1.get().saturating_sub(to.offset.get()) <= ABREAST
    };
    let all = runs.iter().enumerate().filter(|(_, (_, to))| abreast(to));
    all.min_by_key(|(_, (from, _))| from.offset).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use farshore_journal::{Offset, Timeline};

    use super::*;

    fn incarnation(id: u8, identity: &str) -> Incarnation {
        Incarnation {
            id: IncarnationId::from_bytes([id; 16]),
            database: "orders".parse().unwrap(),
            engine_identity: identity.to_owned(),
            number: None,
            created_at: DateTime::from_timestamp(i64::from(id), 0).unwrap(),
            parent: None,
            reason: String::new(),
            segment_bytes: 16 << 20,
            major_version: Some(15),
        }
    }

    #[test]
    fn each_stores_own_incarnation_of_the_cluster_is_present_and_what_was_left_is_not() {
        let of = |all: &[(u8, &str, &'static str)]| {
            let listed: Vec<Incarnation> =
                all.iter().map(|(id, cluster, _)| incarnation(*id, cluster)).collect();
            let stores = |asked: IncarnationId| {
                let own = all.iter().filter(|(id, ..)| IncarnationId::from_bytes([*id; 16]) == asked);
                own.map(|(_, _, store)| *store).filter(|store| !store.is_empty()).collect::<BTreeSet<_>>()
            };
            let present = present(&listed, stores);
            present.iter().map(|id| id.as_bytes()[0]).collect::<Vec<u8>>()
        };
        assert!(of(&[]).is_empty());
        assert_eq!(of(&[(1, "a", "main")]), [1]);
        assert_eq!(of(&[(1, "a", "main"), (2, "a", "second")]), [2, 1]);
        assert_eq!(of(&[(1, "a", "main"), (2, "b", "main"), (3, "b", "second")]), [3, 2], "a former cluster");
        assert_eq!(
            of(&[(1, "a", "second"), (2, "b", "main")]),
            [2],
            "the other store has the former one alone"
        );
        // Put back: positions of the other store may be of the history before.
        assert_eq!(of(&[(1, "a", "main"), (2, "a", "second"), (3, "a", "main")]), [3]);
        assert_eq!(of(&[(1, "a", "main"), (2, "a", "main"), (3, "a", "second")]), [3]);
        // Of the newest nothing is stored yet, so that nobody knows in which store it is.
        assert_eq!(of(&[(1, "a", "main"), (2, "a", "")]), [2]);
    }

    #[test]
    fn of_stores_that_are_abreast_the_one_that_reaches_further_back_is_shown() {
        let run = |timeline: u32, from: u64, to: u64| {
            let at = |offset| Position::new(Timeline::new(timeline), Offset::new(offset));
            (at(from), at(to))
        };
        assert_eq!(shown(&[]), None);
        assert_eq!(shown(&[run(1, 50, 100), run(1, 20, 90)]), Some(1));
        assert_eq!(
            shown(&[run(1, 20, 90), run(1, 20, 100)]),
            Some(0),
            "and of equals the first, whoever is ahead"
        );
        assert_eq!(shown(&[run(1, 20, 90), run(1, 50, 91 + ABREAST)]), Some(1));
        assert_eq!(shown(&[run(1, 20, 900), run(2, 50, 100)]), Some(1), "a later timeline");
    }
}
