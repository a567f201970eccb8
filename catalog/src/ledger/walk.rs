//! Walks a ledger's chain: pure.
//!
//! What always holds: an event that was changed, removed or put elsewhere is found. That the newest are gone is not: nothing in the catalog but how far its
//! stores confirmed it says so, and the stores themselves.

use farshore_journal::DatabaseName;
use farshore_journal::format::EntryDigest;

use super::Numbered;
use crate::activity::{Finding, Verified};

/// What speaks against events, the oldest first. `sealed_to` is the number up to which a store confirmed them once.
pub fn walk(database: &DatabaseName, events: &[Numbered], sealed_to: u64) -> Verified {
    let (mut next, mut before): (u64, Option<EntryDigest>) = (1, None);
    let mut findings = Vec::new();
    for one in events {
        let follows = one.number == next;
        if one.number > next {
            findings.push((next, Finding::Missing { through: one.number - 1 }));
        }
        if one.event.digest(one.former, one.number, database) != one.digest {
            findings.push((one.number, Finding::Changed));
        } else if follows && one.former != before {
            findings.push((one.number, Finding::Unchained));
        }
        (next, before) = (one.number + 1, Some(one.digest));
    }
    if next <= sealed_to {
        findings.push((next, Finding::Missing { through: sealed_to }));
    }
    let digest = before.map(|digest| digest.to_string()).unwrap_or_default();
    Verified { entries: events.len() as u64, last: next - 1, digest, findings }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Time;
    use crate::ledger::{Event, RPO, What, Whys};

    fn events() -> (DatabaseName, Vec<Numbered>) {
        let (database, mut former): (DatabaseName, _) = ("orders".parse().unwrap(), None);
        let one = |number| {
            let at = Time::UNIX_EPOCH;
            let event = Event {
                at,
                promise: RPO.to_owned(),
                what: What::Kept,
                from: at,
                until: at,
                whys: Whys::default(),
                worst_ms: None,
                objective_ms: number,
            };
            let digest = event.digest(former, number, &database);
            let one = Numbered { number, event, former, digest };
            former = Some(digest);
            one
        };
        let events = (1..=6).map(one).collect();
        (database, events)
    }

    #[test]
    fn an_event_that_was_changed_removed_or_put_elsewhere_is_found_and_so_is_an_end_that_a_store_once_had() {
        let (database, whole) = events();
        let found = |change: &dyn Fn(&mut Vec<Numbered>), sealed_to| {
            let mut events = whole.clone();
            change(&mut events);
            walk(&database, &events, sealed_to).findings
        };
        assert_eq!(found(&|_| {}, 6), []);
        assert_eq!(found(&|all| all[2].event.objective_ms = 9, 6), [(3, Finding::Changed)]);
        assert_eq!(found(&|all| drop(all.remove(2)), 6), [(3, Finding::Missing { through: 3 })]);
        assert_eq!(found(&|all| all.truncate(4), 6), [(5, Finding::Missing { through: 6 })]);
        assert_eq!(found(&|all| all.truncate(4), 2), [], "no store knows of it: nobody does");
        // Written anew with a digest that fits: the one behind it follows another.
        let anew = |all: &mut Vec<Numbered>| {
            all[2].event.objective_ms = 9;
            all[2].digest = all[2].event.digest(all[2].former, 3, &database);
        };
        assert_eq!(found(&anew, 6), [(4, Finding::Unchained)]);
        assert_eq!(found(&|all| drop(all.drain(..2)), 6), [(1, Finding::Missing { through: 2 })]);
    }
}
