//! Which store a restore to the latest state reads, where none is named: the one that reaches furthest.
//!
//! What always holds: a store is taken in place of one that stands before it in the configuration only where what it holds goes on from that one's: more
//! log of the same cluster, or a later cluster of a database whose former one it knows; and only with a base backup to begin with. What
//! cannot be compared, or not be read, is said. Incarnations are each store's own, and so is what they are called; the cluster is the source's, and its
//! positions count alike in each store. (Several stores are shipped to of PostgreSQL alone.)

use std::fmt;

use farshore_applier::source::Source;
use farshore_journal::{DatabaseName, JournalError, Position};
use farshore_shipper::line;

use super::{Held, all, nothing_there, pick, pinned, stores};
use crate::cli::History;
use crate::config::{Config, StoreName};

/// How far a store reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reach {
    /// The cluster whose log would be restored, as the engine calls it.
    picked: String,
    /// All clusters of the database of which it has log.
    knows: Vec<String>,
    /// Where its log ends; `None`: it has none.
    end: Option<Position>,
    /// Whether a base backup leads to its end: stored, on its line, and with no gap behind it.
    based: bool,
}

/// How one store compares with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Than {
    Further,
    NotFurther,
    NotComparable,
}

impl Reach {
    fn than(&self, other: &Self) -> Than {
        if self.picked == other.picked {
            // A store that followed a promotion goes on from one that did not, also where the latter has more of what was left.
            let end = |reach: &Self| reach.end.map(|end| (end.timeline, end.offset));
            return if end(self) > end(other) { Than::Further } else { Than::NotFurther };
        }
        match (self.knows.contains(&other.picked), other.knows.contains(&self.picked)) {
            (true, false) => Than::Further,
            (false, true) => Than::NotFurther,
            _ => Than::NotComparable,
        }
    }
}

/// The one to read, of stores in the configuration's order, and those that cannot be compared with it.
fn furthest(reaches: &[Reach]) -> Option<(usize, Vec<usize>)> {
    let mut best = 0;
    for (index, reach) in reaches.iter().enumerate() {
        let before = reaches.get(best)?;
        // One that has no base is no reason to leave one that has, and a reason to be left.
        let is_better = match (reach.based, before.based) {
            (true, true) | (false, false) => reach.than(before) == Than::Further,
            // But for a later cluster, of which an earlier one is not the latest state: the plan says what it waits for.
            (true, false) => reach.picked == before.picked || reach.than(before) == Than::Further,
            (false, true) => false,
        };
        if is_better {
            best = index;
        }
    }
    let chosen = reaches.get(best)?;
    let unlike = reaches.iter().enumerate().filter(|(_, reach)| reach.than(chosen) == Than::NotComparable);
    Some((best, unlike.map(|(index, _)| index).collect()))
}

/// As [`super::chosen`], for the latest state: the store that reaches furthest of those that can be read.
///
/// # Errors
/// As [`super::chosen`]: one that cannot be read stands before all that can.
pub async fn for_latest(config: &Config, name: &DatabaseName, history: &History) -> anyhow::Result<Held> {
    let mut found = Vec::new();
    let mut known = Vec::new();
    let named = stores(config, name, history)?;
    for store in &named {
        let sources = match all(config, name, store).await {
            Ok(sources) => sources,
            Err(why) if found.is_empty() => {
                if named.len() > 1 {
                    tracing::error!(database = %name, %store, "this store cannot be read; another may hold less: name one with --store");
                }
                return Err(why);
            }
            Err(why) => {
                unread(name, store, &format!("{why:#}"));
                continue;
            }
        };
        known.extend(sources.iter().map(|source| (store.clone(), source.record().number)));
        let knows: Vec<String> = sources.iter().map(|source| source.record().identity.clone()).collect();
        let Some(source) = pick(sources, history.incarnation) else { continue };
        // A single store is read by the plan itself, which says more of what is wrong.
        if named.len() == 1 {
            return Ok(Held { store: store.to_string(), source, pinned: pinned(config, name) });
        }
        match reach(&source, knows).await {
            Ok(reach) => found.push((store, source, reach)),
            Err(why) if found.is_empty() => return Err(super::records_message(name, store, &why).into()),
            Err(why) => unread(name, store, &why),
        }
    }
    let reaches: Vec<Reach> = found.iter().map(|(_, _, reach)| reach.clone()).collect();
    let Some((best, unlike)) = furthest(&reaches) else {
        return Err(nothing_there(name, history, &known).into());
    };
    for index in unlike {
        if let Some((store, ..)) = found.get(index) {
            tracing::warn!(database = %name, %store, "this store has another history of it, which nothing says comes before or behind: name it with --store to restore that one");
        }
    }
    for (store, _, reach) in &found {
        if reaches.get(best).is_some_and(|chosen| reach.than(chosen) == Than::Further) {
            tracing::warn!(database = %name, %store, "this store reaches further, and has no base backup that leads to its end: restores go there once it has one");
        }
    }
    if best > 0
        && let (Some((first, _, less)), Some((store, _, more))) = (found.first(), found.get(best))
    {
        let end = |reach: &Reach| reach.end.map_or_else(|| "its begin".to_owned(), |end| end.to_string());
        let why = match less.based {
            true => format!("reaches further ({}) than {first} ({})", end(more), end(less)),
            false => format!(
                "is the first that has a base backup which leads to its end ({}; {first} has log up to {})",
                end(more),
                end(less)
            ),
        };
        tracing::warn!(database = %name, "the store {store} {why}, and is restored from: name {first} with --store to restore from there");
    }
    let (store, source, _) = found.swap_remove(best);
    Ok(Held { store: store.to_string(), source, pinned: pinned(config, name) })
}

fn unread(name: &DatabaseName, store: &StoreName, why: &dyn fmt::Display) {
    tracing::warn!(database = %name, %store, error = %why, "this store cannot be read, and may reach further than the one that is restored from");
}

async fn reach(source: &Source, knows: Vec<String>) -> Result<Reach, JournalError> {
    let reader = source.reader();
    let end = reader.last().await?.map(|last| last.header().end_position());
    // What does not read is no base; the plan says so, and verify names it.
    let due = line::due(reader, source.record().segment_bytes).await;
    let based = end.is_some() && matches!(due, Ok(None));
    Ok(Reach { picked: source.record().identity.clone(), knows, end, based })
}

#[cfg(test)]
mod tests {
    use farshore_journal::{Offset, Timeline};

    use super::*;

    fn reach(knows: &[u8], end: Option<(u32, u64)>, based: bool) -> Reach {
        let knows: Vec<String> = knows.iter().map(u8::to_string).collect();
        let end = end.map(|(timeline, offset)| Position::new(Timeline::new(timeline), Offset::new(offset)));
        Reach { picked: knows.last().unwrap().clone(), knows, end, based }
    }

    #[test]
    fn the_store_that_reaches_furthest_is_read_and_of_equals_the_first() {
        let (short, long) = (reach(&[1], Some((1, 50)), true), reach(&[1], Some((1, 90)), true));
        let promoted = reach(&[1], Some((2, 40)), true);
        let (later, empty) = (reach(&[1, 2], Some((1, 10)), true), reach(&[1], None, false));
        let (bare, other) = (reach(&[1], Some((1, 90)), false), reach(&[7], Some((1, 999)), true));
        for (case, reaches, expected) in [
            ("more log", vec![short.clone(), long.clone()], (1, vec![])),
            ("as much", vec![short.clone(), short.clone()], (0, vec![])),
            ("less log", vec![long.clone(), short.clone()], (0, vec![])),
            ("a later timeline", vec![long.clone(), promoted.clone()], (1, vec![])),
            ("a later cluster", vec![long.clone(), later.clone()], (1, vec![])),
            ("an earlier cluster", vec![later.clone(), long.clone()], (0, vec![])),
            ("no base to begin with", vec![short.clone(), bare.clone()], (0, vec![])),
            ("the first has no base", vec![bare.clone(), short.clone()], (1, vec![])),
            (
                "an earlier cluster with a base",
                vec![reach(&[1, 2], Some((1, 10)), false), short.clone()],
                (0, vec![]),
            ),
            (
                "a later cluster without one yet",
                vec![short.clone(), reach(&[1, 2], None, false)],
                (0, vec![]),
            ),
            ("nothing in the first", vec![empty, short.clone(), long.clone()], (2, vec![])),
            ("another history", vec![short.clone(), other.clone()], (0, vec![1])),
            ("another history first", vec![other, long], (0, vec![1])),
        ] {
            assert_eq!(furthest(&reaches), Some(expected), "{case}");
        }
        assert_eq!(furthest(&[]), None);
    }
}
