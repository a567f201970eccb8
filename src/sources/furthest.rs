//! Which store a restore to the latest state reads, where none is named: the one that reaches furthest.
//!
//! What always holds: a store is taken in place of another only where what it holds goes on from that one's: more log of the same history, or a later
//! cluster of a database whose former one it knows. Where nothing says that one goes on from the other, none is taken, and the restore is refused
//! until one is named. What cannot be read, and what reaches further and has no base backup, is said. Incarnations are each store's own, and
//! so is what they are called; the cluster is the source's, and its positions count alike in each store, as long as it was never put back: a store that has several
//! incarnations of one cluster has seen that, and is not compared. (Several stores are shipped to of PostgreSQL alone.)

use std::fmt;

use farshore_applier::source::Source;
use farshore_engines::postgres::log::history::TimelineHistory;
use farshore_journal::{DatabaseName, JournalError, Position};
use farshore_shipper::error::ShipError;
use farshore_shipper::line;

use super::{Held, all, nothing_there, pick, pinned, stores};
use crate::cli::History;
use crate::config::{Config, StoreName};
use crate::message::{Code, OperatorMessage, Safe};

/// How far a store reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reach {
    /// The cluster whose log would be restored, as the engine calls it.
    picked: String,
    /// The clusters of the incarnations of the database that it has, up to that one.
    knows: Vec<String>,
    /// Whether it has several incarnations of that cluster, behind that one too: one of its histories was left, and their positions mean different things.
    put_back: bool,
    /// Where its log ends; `None`: it has none.
    end: Option<Position>,
    /// The history of the timeline that it ends on; `None`: it has no log, or does not hold it.
    history: Option<TimelineHistory>,
    /// Whether a base backup leads to its end: stored, on its line, and with no gap behind it.
    based: bool,
}

/// How one store compares with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Than {
    Further,
    Same,
    Behind,
    NotComparable,
}

impl Reach {
    fn than(&self, other: &Self) -> Than {
        if self.picked != other.picked {
            return match (self.knows.contains(&other.picked), other.knows.contains(&self.picked)) {
                (true, false) => Than::Further,
                (false, true) => Than::Behind,
                _ => Than::NotComparable,
            };
        }
        if self.put_back || other.put_back {
            return Than::NotComparable;
        }
        let (Some(end), Some(others)) = (self.end, other.end) else {
            return match (self.end, other.end) {
                (Some(_), None) => Than::Further,
                (None, Some(_)) => Than::Behind,
                _ => Than::Same,
            };
        };
        match (&self.history, &other.history) {
            (Some(own), Some(theirs)) if own == theirs => match end.offset.cmp(&others.offset) {
                std::cmp::Ordering::Greater => Than::Further,
                std::cmp::Ordering::Equal => Than::Same,
                std::cmp::Ordering::Less => Than::Behind,
            },
            // A store that followed a promotion goes on from one that did not, also where the latter has more of what was left.
            (Some(own), Some(theirs)) if left(own, theirs) => Than::Further,
            (Some(own), Some(theirs)) if left(theirs, own) => Than::Behind,
            _ => Than::NotComparable,
        }
    }

    /// Whether all of its log is part of what another reaches: it may lack the end, and has nothing that was left.
    fn is_part_of(&self, other: &Self) -> bool {
        let (Some(own), Some(theirs)) = (&self.history, &other.history) else { return false };
        let left_before = |end: Position| left(theirs, own) && theirs.contains(end);
        own == theirs || self.end.is_some_and(left_before)
    }
}

/// Whether a history has left the timeline of an older one, and was the same before.
fn left(history: &TimelineHistory, older: &TimelineHistory) -> bool {
    let before = history.ancestors().iter().take_while(|ancestor| ancestor.timeline != older.timeline());
    history.leaves(older.timeline()).is_some() && before.eq(older.ancestors())
}

/// What there is to choose.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    /// This one. The others reach further, and have no base backup that leads to their end.
    One(usize, Vec<usize>),
    /// None: of these nothing says which goes on from which.
    Unclear(Vec<usize>),
}

/// The one to read, of stores in the configuration's order; `None` where there are none.
fn furthest(reaches: &[Reach]) -> Option<Choice> {
    let all: Vec<usize> = (0..reaches.len()).collect();
    let top = undominated(reaches, &all);
    let first = *top.first()?;
    if let Some(unlike) = unlike(reaches, &top) {
        return Some(Choice::Unclear(unlike));
    }
    if let Some(based) = top.iter().copied().find(|one| reaches.get(*one).is_some_and(|reach| reach.based)) {
        return Some(Choice::One(based, Vec::new()));
    }
    // Of the same history one that reaches less far and has a base. A former cluster, and a timeline that was left, is not the latest state: the plan says what it waits for.
    let is_same = |one: &usize| match (reaches.get(*one), reaches.get(first)) {
        (Some(one), Some(first)) => one.based && one.picked == first.picked && one.is_part_of(first),
        _ => false,
    };
    let based: Vec<usize> = all.into_iter().filter(is_same).collect();
    let best = undominated(reaches, &based);
    Some(match (best.first(), unlike(reaches, &best)) {
        (_, Some(unlike)) => Choice::Unclear(unlike),
        (Some(best), None) => Choice::One(*best, top),
        (None, None) => Choice::One(first, Vec::new()),
    })
}

/// Those of `of` than which no other reaches further.
fn undominated(reaches: &[Reach], of: &[usize]) -> Vec<usize> {
    let further = |one: usize, other: usize| matches!((reaches.get(one), reaches.get(other)), (Some(one), Some(other)) if one.than(other) == Than::Further);
    of.iter().copied().filter(|one| !of.iter().any(|other| further(*other, *one))).collect()
}

/// Those of `of`, when two of them cannot be compared.
fn unlike(reaches: &[Reach], of: &[usize]) -> Option<Vec<usize>> {
    let two = |one: usize, other: usize| matches!((reaches.get(one), reaches.get(other)), (Some(one), Some(other)) if one.than(other) == Than::NotComparable);
    of.iter().any(|one| of.iter().any(|other| one != other && two(*one, *other))).then(|| of.to_vec())
}

/// As [`super::chosen`], for the latest state: the store that reaches furthest of those that can be read, and what is to be said of the others.
///
/// # Errors
/// As [`super::chosen`]: one that cannot be read stands before all that can. When nothing says which of two stores has the latest state.
pub async fn for_latest(
    config: &Config,
    name: &DatabaseName,
    history: &History,
) -> anyhow::Result<(Held, Vec<String>)> {
    let (mut found, mut known, mut remarks) = (Vec::new(), Vec::new(), Vec::new());
    let named = stores(config, name, history)?;
    let held =
        |store: &StoreName, source| Held { store: store.to_string(), source, pinned: pinned(config, name) };
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
                remarks.push(unread(store, &format!("{why:#}")));
                continue;
            }
        };
        known.extend(sources.iter().map(|source| (store.clone(), source.record().number)));
        let clusters: Vec<(u64, String)> =
            sources.iter().map(|source| (source.record().number, source.record().identity.clone())).collect();
        let Some(source) = pick(sources, history.incarnation) else {
            if named.len() > 1 {
                remarks.push(format!("the store {store} holds nothing of what was asked for"));
            }
            continue;
        };
        // A single store is read by the plan itself, which says more of what is wrong.
        if named.len() == 1 {
            return Ok((held(store, source), remarks));
        }
        let own = &source.record().identity;
        let put_back = clusters.iter().filter(|(_, cluster)| cluster == own).count() > 1;
        // What came behind the one that is meant says nothing of how far that one reaches.
        let before = clusters.into_iter().filter(|(number, _)| *number <= source.record().number);
        match reach(&source, before.map(|(_, cluster)| cluster).collect(), put_back).await {
            Ok(reach) => found.push((store, source, reach)),
            Err(why) if found.is_empty() => return Err(unreadable(name, store, &why).into()),
            Err(why) => remarks.push(unread(store, &why)),
        }
    }
    let reaches: Vec<Reach> = found.iter().map(|(_, _, reach)| reach.clone()).collect();
    let said = |of: &[usize]| {
        let of = of.iter().filter_map(|index| found.get(*index));
        of.map(|(store, _, reach)| format!("{store} ends at {}", end(reach))).collect::<Vec<_>>().join(", ")
    };
    let best = match furthest(&reaches) {
        None => return Err(nothing_there(name, history, &known).into()),
        Some(Choice::Unclear(of)) => return Err(unclear(name, &said(&of)).into()),
        Some(Choice::One(best, lacking)) => {
            if !lacking.is_empty() {
                remarks.push(format!("there is more log without a base backup that leads to it: {}; restores go there once there is one", said(&lacking)));
            }
            best
        }
    };
    if best > 0
        && let (Some((first, _, less)), Some((store, _, more))) = (found.first(), found.get(best))
    {
        let why = match less.based {
            true => format!("reaches further ({}) than {first} ({})", end(more), end(less)),
            false => format!(
                "is the first that has a base backup which leads to its end ({}; {first} has log up to {})",
                end(more),
                end(less)
            ),
        };
        remarks.push(format!(
            "the store {store} {why}, and is restored from: name {first} with --store to restore from there"
        ));
    }
    let (store, source, _) = found.swap_remove(best);
    for remark in &remarks {
        tracing::warn!(database = %name, "{remark}");
    }
    Ok((held(store, source), remarks))
}

fn end(reach: &Reach) -> String {
    reach.end.map_or_else(|| "its begin".to_owned(), |end| end.to_string())
}

fn unread(store: &StoreName, why: &dyn fmt::Display) -> String {
    format!(
        "the store {store} cannot be read, and may reach further than the one that is restored from: {why}"
    )
}

fn unclear(name: &DatabaseName, said: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::RestoreUnreachable,
        format!(
            "which store has the latest state of {name} is not known: {said}, and nothing says that one of them goes on from another (a server that was put back, or two promotions, look like this)"
        ),
        Safe::Known("nothing was written, and each of these histories is there".to_owned()),
        format!(
            "name the one that is meant: `farshore restore {name} --latest --store STORE --dry-run` says what each reaches"
        ),
    )
}

fn unreadable(name: &DatabaseName, store: &StoreName, why: &ShipError) -> OperatorMessage {
    OperatorMessage::new(
        Code::StoreUnusable,
        format!("how far the journal of {name} reaches in {store} is not known: {why}"),
        Safe::Unknown("what is stored was only read".to_owned()),
        format!(
            "`farshore verify {name}` says whether it is damaged; another store may hold less: name one with --store"
        ),
    )
}

async fn reach(source: &Source, knows: Vec<String>, put_back: bool) -> Result<Reach, ShipError> {
    let (reader, picked) = (source.reader(), source.record().identity.clone());
    let Some(last) = reader.last().await? else {
        return Ok(Reach { picked, knows, put_back, end: None, history: None, based: false });
    };
    let history = line::history(reader, last.header()).await?;
    let based = match line::due(reader, source.record().segment_bytes).await {
        Ok(due) => due.is_none(),
        // A store that does not answer now says nothing of its backups.
        Err(why @ ShipError::Journal(JournalError::Store(_))) => return Err(why),
        // What does not read is no base; the plan says so, and verify names it.
        Err(_) => false,
    };
    Ok(Reach { picked, knows, put_back, end: Some(last.header().end_position()), history, based })
}

#[cfg(test)]
mod tests {
    use farshore_journal::{Offset, Timeline};

    use super::*;

    /// Of a store that knows these clusters, ends there on a timeline that left the first one at 30, and has a base or not.
    fn reach(knows: &[u8], end: Option<(u32, u64)>, based: bool) -> Reach {
        reach_by(knows, end, "1\t0/1E\tpromoted\n", based)
    }

    fn reach_by(knows: &[u8], end: Option<(u32, u64)>, history: &str, based: bool) -> Reach {
        let knows: Vec<String> = knows.iter().map(u8::to_string).collect();
        let end = end.map(|(timeline, offset)| Position::new(Timeline::new(timeline), Offset::new(offset)));
        let history = end.map(|end| match end.timeline.get() {
            1 => TimelineHistory::first(),
            _ => TimelineHistory::parse(end.timeline, history.as_bytes()).unwrap(),
        });
        let picked = knows.last().unwrap().clone();
        let put_back = knows.iter().filter(|known| **known == picked).count() > 1;
        Reach { picked, knows, put_back, end, history, based }
    }

    #[test]
    fn the_store_that_reaches_furthest_is_read_and_of_equals_the_first() {
        let one = |index| Choice::One(index, vec![]);
        let (short, long) = (reach(&[1], Some((1, 50)), true), reach(&[1], Some((1, 90)), true));
        let promoted = reach(&[1], Some((2, 40)), true);
        let (later, empty) = (reach(&[1, 2], Some((1, 10)), true), reach(&[1], None, false));
        let bare = reach(&[1], Some((1, 90)), false);
        let (bare_promoted, before_fork) =
            (reach(&[1], Some((2, 40)), false), reach(&[1], Some((1, 30)), true));
        for (case, reaches, expected) in [
            ("more log", vec![short.clone(), long.clone()], one(1)),
            ("as much", vec![short.clone(), short.clone()], one(0)),
            ("less log", vec![long.clone(), short.clone()], one(0)),
            ("a later timeline", vec![long.clone(), promoted.clone()], one(1)),
            ("a later timeline first", vec![promoted.clone(), long.clone()], one(0)),
            ("a later cluster", vec![long.clone(), later.clone()], one(1)),
            ("an earlier cluster", vec![later.clone(), long.clone()], one(0)),
            ("no base to begin with", vec![short.clone(), bare.clone()], Choice::One(0, vec![1])),
            ("the first has no base", vec![bare.clone(), short.clone()], Choice::One(1, vec![0])),
            ("a base on a timeline that was left", vec![bare_promoted.clone(), long.clone()], one(0)),
            ("a base before the fork", vec![bare_promoted, before_fork], Choice::One(1, vec![0])),
            ("nothing in the first", vec![empty, short.clone(), long.clone()], one(2)),
        ] {
            assert_eq!(furthest(&reaches), Some(expected), "{case}");
        }
        assert_eq!(furthest(&[]), None);
    }

    #[test]
    fn a_former_cluster_is_not_the_latest_state_whatever_base_it_has() {
        let short = reach(&[1], Some((1, 50)), true);
        let waits = |end| reach(&[1, 2], end, false);
        assert_eq!(furthest(&[waits(Some((1, 10))), short.clone()]), Some(Choice::One(0, vec![])));
        assert_eq!(furthest(&[short.clone(), waits(Some((1, 10)))]), Some(Choice::One(1, vec![])));
        assert_eq!(furthest(&[short, waits(None)]), Some(Choice::One(1, vec![])));
    }

    #[test]
    fn of_histories_of_which_none_goes_on_from_the_other_none_is_taken() {
        let (short, long) = (reach(&[1], Some((1, 50)), true), reach(&[1], Some((1, 90)), true));
        let other = reach(&[7], Some((1, 999)), true);
        // It was put back from a snapshot: what the store has of it before is another history.
        let put_back = reach(&[1, 1], Some((1, 60)), true);
        let waiting = reach(&[1, 1], Some((1, 60)), false);
        let (founded, former) =
            (reach(&[1, 1], None, false), Reach { put_back: true, ..reach(&[1], Some((1, 50)), true) });
        // Two standbys were promoted, and each took the next number.
        let (one, two) = (
            reach_by(&[1], Some((2, 900)), "1\t0/500\tpromoted\n", true),
            reach_by(&[1], Some((2, 700)), "1\t0/400\tpromoted\n", true),
        );
        let third = reach_by(&[1], Some((3, 950)), "1\t0/500\tpromoted\n2\t0/910\tpromoted\n", true);
        let unclear = |of: &[usize]| Some(Choice::Unclear(of.to_vec()));
        assert_eq!(furthest(&[short.clone(), other.clone()]), unclear(&[0, 1]));
        assert_eq!(furthest(&[other, long.clone()]), unclear(&[0, 1]));
        assert_eq!(furthest(&[put_back.clone(), long.clone()]), unclear(&[0, 1]));
        assert_eq!(furthest(&[long.clone(), waiting]), unclear(&[0, 1]));
        assert_eq!(furthest(&[long.clone(), founded]), unclear(&[0, 1]), "nothing came to it yet");
        assert_eq!(furthest(&[former, long.clone()]), unclear(&[0, 1]), "the former one was named");
        assert_eq!(furthest(&[one.clone(), two.clone()]), unclear(&[0, 1]));
        // One that goes on from the first of them decides nothing about the second.
        assert_eq!(furthest(&[one.clone(), two, third.clone()]), unclear(&[1, 2]));
        assert_eq!(furthest(&[one, third, short]), Some(Choice::One(1, vec![])));
        // Which history it ends on is not recorded yet.
        let unknown = Reach { history: None, ..reach(&[1], Some((2, 40)), true) };
        assert_eq!(furthest(&[long, unknown]), unclear(&[0, 1]));
    }
}
