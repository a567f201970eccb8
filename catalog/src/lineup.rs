//! Which incarnations of a database are its present one: pure.
//!
//! Incarnations are each store's own, and so are the numbers by which a store orders them: a database with two stores has two at a time, of one cluster. What always holds:
//! what is shown of them is one store's, and never pieced together of two; a former incarnation counts as present nowhere. Where a store has several incarnations of the
//! present cluster, it was put back, and the positions of a store that has not seen that are of the history before: then the newest counts, and those whose store has seen as much.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use farshore_journal::{IncarnationId, Position};

use crate::Time;
use crate::incarnation::Incarnation;

/// Stores that see one cluster begin anew found their own within this time. Later, it may be that each missed what the other saw.
const SOON: TimeDelta = TimeDelta::hours(1);

/// The present incarnations, the newest first. `all`: of one database, each store's oldest first. `stores`: in which stores there is anything of one.
pub(crate) fn present<'a>(
    all: &[Incarnation],
    stores: impl Fn(IncarnationId) -> BTreeSet<&'a str>,
) -> Vec<IncarnationId> {
    // Each store's, oldest first.
    let mut of_stores: BTreeMap<&str, Vec<&Incarnation>> = BTreeMap::new();
    for one in all {
        for store in stores(one.id) {
            of_stores.entry(store).or_default().push(one);
        }
    }
    let newest: Vec<&Incarnation> = of_stores.values().filter_map(|own| own.last().copied()).collect();
    // Of which nothing is stored yet: nobody knows in which store it is, but for its number. Where it may be a store's newest, what is stored there is of the one before.
    let bare = all.last().filter(|last| stores(last.id).is_empty());
    let may_be_newest = |bare: &&Incarnation| {
        of_stores.values().any(|own| own.last().is_some_and(|last| last.number < bare.number))
    };
    let Some(current) = newest.iter().copied().reduce(|one, other| later(one, other, &of_stores)) else {
        return all.last().map(|last| last.id).into_iter().collect();
    };
    if let Some(bare) = bare.filter(may_be_newest) {
        return vec![bare.id];
    }
    // Of each store that has the cluster now, when it began anew as far as that store has seen.
    let of_cluster = |own: &Vec<&Incarnation>| -> Vec<(IncarnationId, Time)> {
        let same = own.iter().filter(|one| one.engine_identity == current.engine_identity);
        same.map(|one| (one.id, one.created_at)).collect()
    };
    let has_it = |own: &&Vec<&Incarnation>| {
        own.last().is_some_and(|last| last.engine_identity == current.engine_identity)
    };
    let lines: Vec<_> = of_stores.values().filter(has_it).map(of_cluster).collect();
    let before = |line: &[(IncarnationId, Time)]| Some(line.get(line.len().checked_sub(2)?)?.1);
    let newest_line = lines.iter().find(|line| line.last().is_some_and(|(id, _)| *id == current.id));
    let mut present = vec![(current.id, current.created_at)];
    for line in &lines {
        let (Some(own), Some(last)) = (newest_line, line.last()) else { continue };
        // Each was founded behind the other's former one, and soon after the other: both saw the same.
        let is_behind = |at: Time, line| before(line).is_none_or(|former| at > former);
        let is_soon = own.len() == 1 || (last.1 - current.created_at).abs() <= SOON;
        let saw_as_much = line.len() == own.len()
            && is_soon
            && is_behind(last.1, own)
            && is_behind(current.created_at, line);
        if saw_as_much && !present.contains(last) {
            present.push(*last);
        }
    }
    present.into_iter().map(|(id, _)| id).collect()
}

/// The later of two stores' newest ones: of another cluster that the other's store has had before; else the one that was founded later.
fn later<'a>(
    one: &'a Incarnation,
    other: &'a Incarnation,
    of_stores: &BTreeMap<&str, Vec<&'a Incarnation>>,
) -> &'a Incarnation {
    let came_behind = |later: &Incarnation, earlier: &Incarnation| {
        let is_there = |own: &&Vec<&Incarnation>| own.last().is_some_and(|last| last.id == later.id);
        let had =
            |own: &Vec<&Incarnation>| own.iter().any(|one| one.engine_identity == earlier.engine_identity);
        of_stores.values().filter(is_there).any(had)
    };
    if one.engine_identity != other.engine_identity {
        match (came_behind(one, other), came_behind(other, one)) {
            (true, false) => return one,
            (false, true) => return other,
            _ => {}
        }
    }
    if (other.created_at, other.id) > (one.created_at, one.id) { other } else { one }
}

/// Which of several runs of restorable positions, each of another store, is shown for all: the one that reaches furthest, of equals the longest. Given by their ends.
pub(crate) fn shown(runs: &[(Position, Position)]) -> Option<usize> {
    let reach = |(from, to): &(Position, Position)| (to.timeline, to.offset, std::cmp::Reverse(from.offset));
    (0..runs.len()).rev().max_by_key(|at| runs.get(*at).map(reach))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use farshore_journal::{Offset, Timeline};

    use super::*;

    /// Founded in this order, each of a cluster and in a store (of which nothing is stored yet where that begins with `?`); what is present, newest first. They come ordered by each store's own
    /// numbers, as the catalog has them.
    fn of(founded: &[(u8, &'static str, &'static str)]) -> Vec<u8> {
        let mut listed: Vec<Incarnation> = Vec::new();
        for (id, cluster, store) in founded {
            let place = |store: &'static str| store.trim_start_matches('?');
            let before = founded.iter().take_while(|one| one.0 != *id);
            let number = before.filter(|one| place(one.2) == place(store)).count();
            listed.push(Incarnation {
                id: IncarnationId::from_bytes([*id; 16]),
                database: "orders".parse().unwrap(),
                engine_identity: (*cluster).to_owned(),
                number: Some(number as u64),
                created_at: DateTime::from_timestamp(i64::from(*id) * 600, 0).unwrap(),
                parent: None,
                reason: String::new(),
                segment_bytes: 16 << 20,
                major_version: Some(15),
            });
        }
        listed.sort_by_key(|one| (one.number, one.created_at));
        let stores = |asked: IncarnationId| {
            let own = founded.iter().filter(|(id, ..)| IncarnationId::from_bytes([*id; 16]) == asked);
            own.map(|(_, _, store)| *store).filter(|store| !store.starts_with('?')).collect::<BTreeSet<_>>()
        };
        present(&listed, stores).iter().map(|id| id.as_bytes()[0]).collect()
    }

    #[test]
    fn each_stores_own_incarnation_of_the_cluster_is_present_and_what_was_left_is_not() {
        assert!(of(&[]).is_empty());
        assert_eq!(of(&[(1, "a", "main")]), [1]);
        assert_eq!(of(&[(1, "a", "main"), (2, "a", "second")]), [2, 1]);
        assert_eq!(of(&[(1, "a", "main"), (2, "b", "main"), (3, "b", "second")]), [3, 2], "a former cluster");
        assert_eq!(
            of(&[(1, "a", "second"), (2, "b", "main")]),
            [2],
            "the other store has the former one alone"
        );
        // Whatever numbers a store has come to.
        let many = [(1, "x", "main"), (2, "y", "main"), (3, "y", "second"), (4, "z", "second")];
        assert_eq!(of(&many), [4], "main was away when the cluster became another");
    }

    #[test]
    fn a_clock_does_not_make_a_former_cluster_the_present_one_where_a_store_saw_it_left() {
        // The store that has both founded the later one by a clock that was behind.
        assert_eq!(of(&[(5, "a", "main"), (3, "b", "main"), (9, "a", "second")]), [3]);
    }

    #[test]
    fn where_a_cluster_was_put_back_the_newest_counts_and_whoever_has_seen_as_much() {
        // Positions of the other store may be of the history before.
        assert_eq!(of(&[(1, "a", "main"), (2, "a", "second"), (3, "a", "main")]), [3]);
        // Nobody knows whether what main has was left before second came.
        assert_eq!(of(&[(1, "a", "main"), (2, "a", "main"), (3, "a", "second")]), [3]);
        // Both saw it, and each founded its own.
        let both = [(1, "a", "main"), (2, "a", "second"), (3, "a", "second"), (4, "a", "main")];
        assert_eq!(of(&both), [4, 3]);
        // Each saw another: main the first, second, which came between, the next.
        let each = [(1, "a", "main"), (2, "a", "main"), (3, "a", "second"), (4, "a", "second")];
        assert_eq!(of(&each), [4]);
        // Each was away for what the other saw.
        let missed = [(1, "a", "main"), (2, "a", "second"), (3, "a", "second"), (40, "a", "main")];
        assert_eq!(of(&missed), [40]);
    }

    #[test]
    fn one_of_which_nothing_is_stored_is_the_present_one_where_it_may_be_a_stores_newest() {
        assert_eq!(of(&[(1, "a", "main"), (2, "a", "?main")]), [2], "nothing of it can be restored yet");
        assert_eq!(of(&[(1, "a", "main"), (2, "b", "?main")]), [2]);
        assert_eq!(of(&[(1, "a", "main"), (2, "a", "?second")]), [1], "main has one of that number");
        assert_eq!(of(&[(1, "a", "main"), (2, "b", "main"), (3, "b", "?second")]), [2]);
        assert_eq!(of(&[(1, "a", "?main"), (2, "a", "?main")]), [2]);
    }

    #[test]
    fn the_store_that_reaches_furthest_is_shown_and_of_equals_the_one_that_reaches_back() {
        let run = |timeline: u32, from: u64, to: u64| {
            let at = |offset| Position::new(Timeline::new(timeline), Offset::new(offset));
            (at(from), at(to))
        };
        assert_eq!(shown(&[]), None);
        assert_eq!(shown(&[run(1, 50, 100), run(1, 20, 90)]), Some(0));
        assert_eq!(shown(&[run(1, 50, 100), run(1, 20, 100)]), Some(1));
        assert_eq!(shown(&[run(1, 20, 100), run(1, 20, 100)]), Some(0));
        assert_eq!(shown(&[run(1, 20, 900), run(2, 50, 100)]), Some(1), "a later timeline");
    }
}
