//! A ledger's events as entries: from when to when, and why. Pure.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use super::decide::BEARABLE;
#[cfg(test)]
use super::decide::Watch;
#[cfg(test)]
use super::event::Event;
use super::event::{What, Why, Whys};
use super::{Ledger, Numbered};
use crate::Time;

/// A span in which a promise did not hold, or was not known to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The number of the event that opened it; `None` of one that nobody has written yet.
    pub number: Option<u64>,
    /// Which promise.
    pub promise: String,
    /// What was promised, in milliseconds.
    pub objective_ms: u64,
    /// From when on.
    pub from: Time,
    /// When it held again; `None` while that is not known.
    pub until: Option<Time>,
    /// Why.
    pub whys: Whys,
    /// The worst exposure that was seen, in milliseconds.
    pub worst_ms: Option<u64>,
}

/// The entries of a ledger as it may be shown now, oldest first. Where nobody has looked lately, that is an entry though no one has written it.
pub fn entries(ledger: &Ledger, now: Time) -> Vec<Entry> {
    let mut all = of_events(&ledger.events);
    for (promise, watch) in &ledger.watches {
        let open = all.iter_mut().rev().find(|entry| entry.promise == *promise && entry.until.is_none());
        match (open, &watch.open) {
            (Some(entry), Some(open)) => {
                entry.from = entry.from.min(open.from);
                entry.worst_ms = entry.worst_ms.max(open.worst_ms);
            }
            (None, None) if is_over(watch.last, now) => {
                let objective_ms = ledger
                    .events
                    .iter()
                    .rev()
                    .find(|one| one.event.promise == *promise)
                    .map_or(0, |one| one.event.objective_ms);
                all.push(Entry {
                    number: None,
                    promise: promise.clone(),
                    objective_ms,
                    from: watch.last.min(now),
                    until: None,
                    whys: Why::NotLooked.into(),
                    worst_ms: None,
                });
            }
            _ => {}
        }
    }
    all
}

/// Whether a look is too long ago, or too far in the future, to vouch for now.
pub fn is_over(last: Time, now: Time) -> bool {
    (now - last).abs() > BEARABLE + TimeDelta::seconds(5)
}

fn of_events(events: &[Numbered]) -> Vec<Entry> {
    let mut all: Vec<Entry> = Vec::new();
    // Where the entry of a promise is that is not over: looked for among all of them a long ledger would take its length squared.
    let mut opened: BTreeMap<&str, usize> = BTreeMap::new();
    for Numbered { number, event, .. } in events {
        let open = opened.get(event.promise.as_str()).copied();
        let at = match (event.what, open) {
            (What::Kept, _) => continue,
            (_, Some(at)) => at,
            (_, None) => {
                all.push(Entry {
                    number: Some(*number),
                    promise: event.promise.clone(),
                    objective_ms: event.objective_ms,
                    from: event.from,
                    until: None,
                    whys: Whys::default(),
                    worst_ms: None,
                });
                opened.insert(&event.promise, all.len() - 1);
                all.len() - 1
            }
        };
        let entry = &mut all[at];
        entry.from = entry.from.min(event.from);
        entry.whys.0.extend(event.whys.0.iter().copied());
        entry.worst_ms = entry.worst_ms.max(event.worst_ms);
        if event.what == What::Ended {
            entry.until = Some(event.until);
            opened.remove(event.promise.as_str());
        }
    }
    all
}

/// The spans of events that follow each other, and of what is kept beside them.
#[cfg(test)]
pub(super) fn spans(events: &[Event], watch: Option<&Watch>) -> Vec<(Time, Option<Time>)> {
    use farshore_journal::format::EntryDigest;
    let digest = EntryDigest::from_bytes([0; 32]);
    let numbered = |(at, event): (usize, &Event)| Numbered {
        number: at as u64 + 1,
        event: event.clone(),
        former: None,
        digest,
    };
    let events: Vec<Numbered> = events.iter().enumerate().map(numbered).collect();
    let now = watch.map(|watch| watch.last).unwrap_or_default();
    let watches = watch.map(|watch| (String::new(), watch.clone())).into_iter().collect();
    entries(&Ledger { events, watches }, now).into_iter().map(|entry| (entry.from, entry.until)).collect()
}
