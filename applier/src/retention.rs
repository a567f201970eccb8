//! What no rule keeps: which base backups and which stretches of log may go. `FORMAT.md` section 13.
//!
//! What always holds: what is not known to be of no use is kept. A backup counts as one that lets older ones go only when it is sound, on the journal's present line, and was
//! completed within the window; log goes only when no base that is kept, no hold and no unfinished backup needs it; a backup that one refers to goes only behind it.
//! What it does not do: it deletes nothing and reads nothing; [`facts`] reads, [`farshore_journal::expiry`] marks and deletes.

pub mod facts;

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use farshore_journal::{BackupId, HoldId, Sequence};

/// How long an unfinished backup, of which nothing new came, may still be one that runs.
pub const UNFINISHED: TimeDelta = TimeDelta::days(7);

/// What an operator wants kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Every point this far back can be restored.
    pub window: TimeDelta,
    /// At least so many sound base backups stay.
    pub count: usize,
}

/// Chunks that are needed, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// The first.
    pub from: Sequence,
    /// The last.
    pub until: Sequence,
}

impl Needs {
    fn meets(&self, (first, last): (Sequence, Sequence)) -> bool {
        self.from <= last && first <= self.until
    }
}

/// A complete base backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Its id.
    pub id: BackupId,
    /// The log that it cannot do without; none when the journal does not hold it.
    pub needs: Option<Needs>,
    /// When its manifest was stored, by the store's clock.
    pub stored_at: DateTime<Utc>,
    /// Whether the journal's present history goes through its end.
    pub on_line: bool,
    /// Why it is none that others may go for.
    pub unsound: Option<String>,
    /// Since when it may be deleted.
    pub marked: Option<DateTime<Utc>>,
    /// The backups whose bytes it may refer to.
    pub refers: Vec<BackupId>,
}

/// A backup without a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Its id.
    pub id: BackupId,
    /// The log that it will need.
    pub needs_from: Sequence,
    /// When its newest object was stored.
    pub newest_object: DateTime<Utc>,
    /// Since when it may be deleted.
    pub marked: Option<DateTime<Utc>>,
    /// The backups whose bytes it may refer to.
    pub refers: Vec<BackupId>,
}

/// A hold that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its id.
    pub id: HoldId,
    /// The base that it keeps, and the log from there to its point; none when no sound base leads there.
    pub keeps: Option<(BackupId, Needs)>,
}

/// A hold whose time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// When it ended.
    pub at: DateTime<Utc>,
    /// What it kept; none when no sound base leads to its point any more: it may have kept anything.
    pub keeps: Option<(BackupId, Needs)>,
}

/// All data chunks between two that are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The first.
    pub first: Sequence,
    /// The last.
    pub last: Sequence,
    /// Since when it may be deleted.
    pub marked: Option<DateTime<Utc>>,
}

/// An incarnation's journal and backups in one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its complete backups.
    pub bases: Vec<Base>,
    /// Its others.
    pub unfinished: Vec<Unfinished>,
    /// Its holds.
    pub holds: Vec<Held>,
    /// Holds whose time was over lately.
    pub ended: Vec<Ended>,
    /// When the newest hold was released.
    pub newest_release: Option<DateTime<Utc>>,
    /// The stretches before the newest opening.
    pub stretches: Vec<Stretch>,
    /// Chunks that say that log before them is lost.
    pub gaps: Vec<Sequence>,
    /// From here on whoever goes on shipping may compare.
    pub compared_from: Sequence,
    /// When its newest chunk was stored.
    pub newest_chunk: DateTime<Utc>,
}

/// What may go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Backups that no rule keeps.
    pub backups: Vec<BackupId>,
    /// Stretches that no rule keeps.
    pub stretches: Vec<(Sequence, Sequence)>,
    /// Bases that are kept, and why: for people.
    pub kept: Vec<(BackupId, &'static str)>,
}

/// Why nothing may go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Keep {
    /// None of the bases is one that others may go for.
    #[error("none of its base backups is known to be sound and on the journal's present line")]
    NoSoundBase,
    /// No base was completed within the window.
    #[error(
        "no sound base backup was completed within the window: older ones do not go for want of new ones"
    )]
    NoRecentBase,
    /// A hold has no base.
    #[error("no sound base backup leads to the point of hold {0}")]
    HoldWithoutBase(HoldId),
}

/// What may go of an incarnation. `newest`: whether it is the database's newest one. `now` by the store's clock.
///
/// # Errors
/// When nothing may go, and why.
pub fn decide(facts: &Facts, rule: Rule, newest: bool, now: DateTime<Utc>) -> Result<Decision, Keep> {
    let cut = now - rule.window;
    let mut sound: Vec<&Base> = facts.bases.iter().filter(|base| is_sound(base)).collect();
    sound.sort_by_key(|base| std::cmp::Reverse((base.needs.map(|needs| needs.until), base.stored_at)));
    let Some(last) = sound.first() else { return Err(Keep::NoSoundBase) };
    if newest && last.stored_at <= cut {
        return Err(Keep::NoRecentBase);
    }
    if let Some(hold) = facts.holds.iter().find(|hold| hold.keeps.is_none()) {
        return Err(Keep::HoldWithoutBase(hold.id));
    }
    // An older incarnation whose newest log is older than the window keeps its newest base: nothing of it is within the window.
    let anchor = match !newest && facts.newest_chunk <= cut {
        true => Some(0),
        false => sound.iter().position(|base| base.stored_at <= cut),
    };
    let enough = rule.count.max(1) - 1;
    let floor = anchor.map(|anchor| anchor.max(if newest { enough } else { 0 })).and_then(|at| sound.get(at));
    let floor_needs = floor.and_then(|base| base.needs);
    let mut decision = Decision::default();
    let mut needed: Vec<Needs> = Vec::new();
    let behind = |needs: Option<Needs>| match (needs, floor_needs) {
        (_, None) => true,
        (Some(needs), Some(floor)) => needs.until >= floor.until,
        (None, Some(_)) => false,
    };
    for base in &facts.bases {
        let held = facts.holds.iter().any(|hold| hold.keeps.is_some_and(|(id, _)| id == base.id));
        let why = if held {
            Some("hold")
        } else if floor.is_none() || base.stored_at > cut {
            Some("window")
        } else if base.on_line && behind(base.needs) {
            Some(if Some(base.id) == floor.map(|floor| floor.id) { "first of the window" } else { "count" })
        } else {
            None
        };
        match why {
            Some(why) => {
                decision.kept.push((base.id, why));
                needed.extend(base.needs);
            }
            None => decision.backups.push(base.id),
        }
    }
    let to_the_end = |from| Needs { from, until: Sequence::new(u64::MAX) };
    match floor_needs {
        Some(floor) => needed.push(to_the_end(floor.from)),
        None => needed.push(to_the_end(Sequence::FIRST)),
    }
    needed.extend(facts.holds.iter().filter_map(|hold| hold.keeps.map(|(_, needs)| needs)));
    needed.push(to_the_end(facts.compared_from));
    // What is kept is nothing without what it refers to; nor is one that may still become complete.
    let stays = |unfinished: &&Unfinished| !is_over(unfinished, now);
    let mut referred: HashSet<BackupId> =
        facts.unfinished.iter().filter(stays).flat_map(|backup| backup.refers.iter().copied()).collect();
    loop {
        let kept: HashSet<BackupId> = decision.kept.iter().map(|(id, _)| *id).collect();
        let of_kept = facts.bases.iter().filter(|base| kept.contains(&base.id));
        referred.extend(of_kept.flat_map(|base| base.refers.iter().copied()));
        let more = facts.bases.iter().filter(|base| referred.contains(&base.id) && !kept.contains(&base.id));
        let more: Vec<&Base> = more.collect();
        if more.is_empty() {
            break;
        }
        for base in more {
            decision.kept.push((base.id, "referred to"));
            decision.backups.retain(|id| *id != base.id);
            needed.extend(base.needs);
        }
    }
    for unfinished in &facts.unfinished {
        // One that is marked was idle for long, or its deletion was begun.
        match is_over(unfinished, now) {
            true => decision.backups.push(unfinished.id),
            false => needed.push(to_the_end(unfinished.needs_from)),
        }
    }
    let is_free = |stretch: &&Stretch| !needed.iter().any(|needs| needs.meets((stretch.first, stretch.last)));
    decision.stretches =
        facts.stretches.iter().filter(is_free).map(|stretch| (stretch.first, stretch.last)).collect();
    Ok(decision)
}

fn is_over(unfinished: &Unfinished, now: DateTime<Utc>) -> bool {
    unfinished.marked.is_some() || now - unfinished.newest_object > UNFINISHED
}

impl Facts {
    /// Each backup that is there with those that it may refer to.
    fn references(&self) -> impl Iterator<Item = (BackupId, &[BackupId])> {
        let of_base = self.bases.iter().map(|base| (base.id, &*base.refers));
        of_base.chain(self.unfinished.iter().map(|backup| (backup.id, &*backup.refers)))
    }
}

fn is_sound(base: &Base) -> bool {
    base.on_line && base.unsound.is_none() && base.needs.is_some()
}

/// What may be deleted now: what was marked a whole grace ago, is kept by nothing today, and of log what no backup needs that is still there, be it marked or not.
pub fn due(facts: &Facts, decision: &Decision, grace: TimeDelta, now: DateTime<Utc>) -> Decision {
    // What a hold kept until now has its grace from then on.
    let stood = |marked: Option<DateTime<Utc>>, kept: &dyn Fn(BackupId, Needs) -> bool| {
        let ended = facts.ended.iter().filter(|hold| hold.keeps.is_none_or(|(id, needs)| kept(id, needs)));
        let kept_until = ended.map(|hold| hold.at).chain(facts.newest_release).max();
        let since = marked.map(|marked| kept_until.map_or(marked, |until| until.max(marked)));
        since.is_some_and(|since| now - since >= grace)
    };
    let of_base = facts.bases.iter().map(|base| (base.id, base.marked));
    let of_unfinished = facts.unfinished.iter().map(|backup| (backup.id, backup.marked));
    // What a hold kept is its base, and what that one refers to.
    let kept_with = |held: BackupId, id: BackupId| {
        held == id || facts.references().any(|(of, refers)| of == held && refers.contains(&id))
    };
    let mut backups: Vec<BackupId> = of_base
        .chain(of_unfinished)
        .filter(|(id, marked)| {
            decision.backups.contains(id) && stood(*marked, &|held, _| kept_with(held, *id))
        })
        .map(|(id, _)| id)
        .collect();
    // One that is referred to goes behind all that refer to it, or not at all.
    let mut ordered: Vec<BackupId> = Vec::with_capacity(backups.len());
    loop {
        let is_free = |id: &BackupId| {
            let mut referring = facts.references().filter(|(of, refers)| of != id && refers.contains(id));
            referring.all(|(of, _)| ordered.contains(&of))
        };
        let (free, waiting): (Vec<BackupId>, Vec<BackupId>) = backups.into_iter().partition(is_free);
        if free.is_empty() {
            break;
        }
        ordered.extend(free);
        backups = waiting;
    }
    let backups = ordered;
    let there = |stretch: &Stretch| {
        let bases = facts.bases.iter().filter(|base| !backups.contains(&base.id));
        let mut needs = bases.filter_map(|base| base.needs);
        needs.any(|needs| needs.meets((stretch.first, stretch.last)))
    };
    let stretches = facts
        .stretches
        .iter()
        .filter(|stretch| {
            decision.stretches.contains(&(stretch.first, stretch.last))
                && stood(stretch.marked, &|_, needs| needs.meets((stretch.first, stretch.last)))
                && !there(stretch)
        })
        .map(|stretch| (stretch.first, stretch.last))
        .collect();
    Decision { backups, stretches, kept: Vec::new() }
}

#[cfg(test)]
mod tests;
