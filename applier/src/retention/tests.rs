//! The decision over retention, held against what it must mean, over random journals.

use proptest::prelude::*;

use super::*;

fn day(number: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + number * 86_400, 0).unwrap()
}

fn id(number: u8) -> BackupId {
    BackupId::from_bytes([number; 16])
}

/// A journal of `days` stretches of ten chunks, with an opening before each, and a base taken every day in which `taken` says so.
fn journal(days: i64, taken: impl Fn(i64) -> bool) -> Facts {
    let number = |day: i64, more: u64| Sequence::new(day as u64 * 11 + more);
    let base = |at: i64| Base {
        id: id(at as u8),
        needs: Some(Needs { from: number(at, 3), until: number(at, 5) }),
        stored_at: day(at),
        on_line: true,
        unsound: None,
        marked: None,
        refers: Vec::new(),
    };
    Facts {
        gaps: Vec::new(),
        bases: (0..days).filter(|at| taken(*at)).map(base).collect(),
        unfinished: Vec::new(),
        holds: Vec::new(),
        ended: Vec::new(),
        newest_release: None,
        stretches: (0..days - 1)
            .map(|at| Stretch { first: number(at, 1), last: number(at, 10), marked: None })
            .collect(),
        compared_from: number((days - 2).max(0), 1),
        newest_chunk: day(days - 1),
    }
}

const RULE: Rule = Rule { window: TimeDelta::days(7), count: 2 };

#[test]
fn what_the_window_needs_stays_and_what_lies_before_its_base_goes() {
    let facts = journal(30, |day| day % 3 == 0);
    let decision = decide(&facts, RULE, true, day(29)).unwrap();
    // The cut is day 22: the base of day 21 leads to every point behind it.
    let expected: Vec<BackupId> = (0..21).filter(|day| day % 3 == 0).map(|day| id(day as u8)).collect();
    assert_eq!(decision.backups, expected);
    assert_eq!(decision.stretches.len(), 21, "{decision:?}");
    assert_eq!(decision.stretches.last().unwrap().1, Sequence::new(20 * 11 + 10));
}

#[test]
fn nothing_goes_for_a_base_that_is_not_known_to_be_sound_or_that_lies_off_the_line() {
    let spoilt: [fn(&mut Base); 3] = [
        |base| base.unsound = Some("a part is missing".to_owned()),
        |base| base.on_line = false,
        |base| base.needs = None,
    ];
    for spoil in spoilt {
        let mut facts = journal(30, |day| day % 3 == 0);
        facts.bases.iter_mut().filter(|base| base.stored_at > day(15)).for_each(spoil);
        assert_eq!(decide(&facts, RULE, true, day(29)), Err(Keep::NoRecentBase));
        facts.bases.iter_mut().for_each(spoil);
        assert_eq!(decide(&facts, RULE, true, day(29)), Err(Keep::NoSoundBase));
    }
}

#[test]
fn nothing_goes_where_no_base_was_taken_within_the_window() {
    let facts = journal(30, |day| day < 20);
    assert_eq!(decide(&facts, RULE, true, day(29)), Err(Keep::NoRecentBase));
}

#[test]
fn an_older_incarnation_keeps_its_newest_base_with_its_log_and_no_more() {
    let facts = journal(10, |_| true);
    let decision = decide(&facts, RULE, false, day(100)).unwrap();
    assert_eq!(decision.backups.len(), 9);
    assert_eq!(decision.kept, [(id(9), "first of the window")]);
    let within = decide(&facts, RULE, false, day(12)).unwrap();
    assert_eq!(within.backups.len(), 5, "part of it is within the window");
}

#[test]
fn a_hold_keeps_its_base_and_the_log_from_there_to_its_point_and_nothing_between() {
    let mut facts = journal(30, |day| day % 3 == 0);
    let needs = Needs { from: Sequence::new(6 * 11 + 3), until: Sequence::new(7 * 11 + 4) };
    let hold = HoldId::from_bytes([7; 16]);
    facts.holds.push(Held { id: hold, keeps: Some((id(6), needs)) });
    let decision = decide(&facts, RULE, true, day(29)).unwrap();
    assert!(!decision.backups.contains(&id(6)) && decision.backups.contains(&id(9)));
    let goes =
        |day: u64| decision.stretches.contains(&(Sequence::new(day * 11 + 1), Sequence::new(day * 11 + 10)));
    assert!(goes(5) && !goes(6) && !goes(7) && goes(8));
    facts.holds[0].keeps = None;
    assert_eq!(decide(&facts, RULE, true, day(29)), Err(Keep::HoldWithoutBase(hold)));
}

#[test]
fn the_log_of_a_backup_that_runs_stays_and_one_that_was_cut_off_goes_after_a_week() {
    let mut facts = journal(30, |day| day >= 25 || day == 0);
    let running = Unfinished {
        id: id(200),
        needs_from: Sequence::new(3),
        newest_object: day(28),
        marked: None,
        refers: vec![],
    };
    facts.unfinished.push(running);
    let decision = decide(&facts, Rule { window: TimeDelta::days(2), count: 1 }, true, day(29)).unwrap();
    assert!(decision.stretches.is_empty() && !decision.backups.contains(&id(200)));
    facts.unfinished[0].newest_object = day(10);
    let decision = decide(&facts, Rule { window: TimeDelta::days(2), count: 1 }, true, day(29)).unwrap();
    assert!(decision.backups.contains(&id(200)) && !decision.stretches.is_empty());
}

#[test]
fn what_a_hold_kept_has_its_grace_from_its_release_on() {
    let mut facts = journal(30, |_| true);
    facts.bases.iter_mut().for_each(|base| base.marked = Some(day(1)));
    facts.newest_release = Some(day(29));
    let now = day(29) + TimeDelta::hours(5);
    let decision = decide(&facts, RULE, true, now).unwrap();
    assert!(due(&facts, &decision, TimeDelta::days(1), now).backups.is_empty());
    facts.newest_release = None;
    assert!(!due(&facts, &decision, TimeDelta::days(1), now).backups.is_empty());
}

fn facts() -> impl Strategy<Value = (Facts, Rule, i64)> {
    let shape = (4i64..40, any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    (shape, 0i64..20, 0usize..6, prop::option::of((0i64..40, 0i64..4)), 0i64..4).prop_map(
        |((days, taken, unsound, off, marks, refers), window, count, hold, later)| {
            let bit = |bits: u64, at: i64| bits >> (at % 64) & 1 == 1;
            let mut facts = journal(days, |at| bit(taken, at));
            for (at, base) in facts.bases.iter_mut().enumerate() {
                let at = at as i64;
                base.unsound = (bit(unsound, at) && bit(unsound, at + 7)).then(|| "rot".to_owned());
                base.on_line = !(bit(off, at) && bit(off, at + 5));
                base.marked = bit(marks, at).then(|| base.stored_at + TimeDelta::days(2));
            }
            let ids: Vec<BackupId> = facts.bases.iter().map(|base| base.id).collect();
            for (at, base) in facts.bases.iter_mut().enumerate().skip(1) {
                let earlier = [1, 3].into_iter().filter(|back| bit(refers, at as i64 * back));
                base.refers = earlier.filter_map(|back| Some(ids[at.checked_sub(back as usize)?])).collect();
            }
            if bit(refers, 60) {
                let refers = ids.first().copied().into_iter().collect();
                let (needs_from, newest_object) = (Sequence::new(1), day(days - 1 - window));
                facts.unfinished.push(Unfinished {
                    id: id(250),
                    needs_from,
                    newest_object,
                    marked: None,
                    refers,
                });
            }
            for (at, stretch) in facts.stretches.iter_mut().enumerate() {
                stretch.marked = bit(marks, at as i64 + 3).then(|| day(at as i64 + 1));
            }
            if let Some((at, more)) = hold
                && let Some(base) =
                    facts.bases.iter().rfind(|base| base.stored_at <= day(at) && base.unsound.is_none())
            {
                let until = Sequence::new((at.min(days - 1) + more).min(days - 1) as u64 * 11 + 9);
                let needs = Needs { from: base.needs.unwrap().from, until };
                facts.holds.push(Held { id: HoldId::from_bytes([1; 16]), keeps: Some((base.id, needs)) });
            }
            (facts, Rule { window: TimeDelta::days(window), count }, days - 1 + later)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn every_point_within_the_window_and_every_held_point_keeps_a_base_and_its_log((facts, rule, today) in facts()) {
        let now = day(today);
        let Ok(decision) = decide(&facts, rule, true, now) else { return Ok(()) };
        let due = due(&facts, &decision, TimeDelta::days(1), now);
        let stays = |from: Sequence, until: Sequence| !facts.stretches.iter().any(|stretch| {
            decision.stretches.contains(&(stretch.first, stretch.last)) && from <= stretch.last && stretch.first <= until
        });
        // Any point of log that stood at the cut or came later, as the chunk that holds it: the newest sound base on the line before it is there, and all log from it on.
        for at in 0..=today.min(facts.newest_chunk.signed_duration_since(day(0)).num_days()) {
            if day(at) < now - rule.window {
                continue;
            }
            let point = Sequence::new(at as u64 * 11 + 8);
            let base = facts.bases.iter().filter(|base| super::is_sound(base) && base.needs.unwrap().until <= point)
                .max_by_key(|base| base.needs.unwrap().until);
            if let Some(base) = base {
                prop_assert!(!decision.backups.contains(&base.id), "the base for day {at} goes");
                prop_assert!(stays(base.needs.unwrap().from, point), "log of day {at} goes");
            }
        }
        for hold in &facts.holds {
            let (base, needs) = hold.keeps.unwrap();
            prop_assert!(!decision.backups.contains(&base));
            prop_assert!(stays(needs.from, needs.until));
        }
        let mut sound: Vec<&Base> = facts.bases.iter().filter(|base| super::is_sound(base)).collect();
        sound.sort_by_key(|base| std::cmp::Reverse(base.needs.unwrap().until));
        for base in sound.iter().take(rule.count.max(1)) {
            prop_assert!(!decision.backups.contains(&base.id), "one of the newest {} goes", rule.count);
        }
        for base in facts.bases.iter().filter(|base| !decision.backups.contains(&base.id)) {
            prop_assert!(!base.refers.iter().any(|id| decision.backups.contains(id)), "what a kept one refers to goes");
        }
        for running in facts.unfinished.iter().filter(|backup| !decision.backups.contains(&backup.id)) {
            prop_assert!(!running.refers.iter().any(|id| decision.backups.contains(id)), "what one that runs may refer to goes");
        }
        for (at, backup) in due.backups.iter().enumerate() {
            for (of, refers) in facts.references() {
                let before = due.backups.iter().position(|id| *id == of).is_some_and(|of| of < at);
                prop_assert!(!refers.contains(backup) || before, "what one that is there refers to goes before it");
            }
        }
        for backup in due.backups.iter().filter(|id| **id != super::tests::id(250)) {
            prop_assert!(decision.backups.contains(backup));
            let base = facts.bases.iter().find(|base| base.id == *backup).unwrap();
            prop_assert!(now - base.marked.unwrap() >= TimeDelta::days(1));
        }
        for (first, last) in &due.stretches {
            prop_assert!(decision.stretches.contains(&(*first, *last)));
            for base in facts.bases.iter().filter(|base| !due.backups.contains(&base.id)) {
                prop_assert!(base.needs.is_none_or(|needs| needs.until < *first || needs.from > *last), "a base that is there needs it");
            }
        }
    }
}

/// Marked, held for weeks until a day that was said beforehand, and due at once when that day came: nobody could have put another hold in time.
#[test]
fn what_a_hold_kept_until_a_day_has_its_grace_from_then_on_and_nothing_else_waits_for_it() {
    let mut facts = journal(30, |day| day % 3 == 0);
    let decision = decide(&facts, RULE, true, day(29)).unwrap();
    let grace = TimeDelta::days(1);
    facts.bases.iter_mut().for_each(|base| base.marked = Some(day(10)));
    facts.stretches.iter_mut().for_each(|stretch| stretch.marked = Some(day(10)));
    let all = due(&facts, &decision, grace, day(29));
    let hours = |hours| day(29) - TimeDelta::hours(hours);
    // It kept the base of day 6, and the log from there to day 8.
    let (from, until) = (Sequence::new(6 * 11 + 3), Sequence::new(8 * 11 + 2));
    let keeps = Some((id(6), Needs { from, until }));
    facts.ended = vec![Ended { at: hours(2), keeps }];
    let waits = due(&facts, &decision, grace, day(29));
    assert!(all.backups.contains(&id(6)) && !waits.backups.contains(&id(6)));
    assert_eq!(waits.backups.len() + 1, all.backups.len(), "others do not wait for it");
    let free = |stretches: &[(Sequence, Sequence)]| {
        stretches.iter().filter(|(first, last)| from <= *last && *first <= until).count()
    };
    assert_eq!((free(&all.stretches), free(&waits.stretches)), (3, 0));
    assert_eq!(waits.stretches.len() + 3, all.stretches.len());
    // A grace later it goes with the rest.
    facts.ended = vec![Ended { at: hours(25), keeps }];
    assert_eq!(due(&facts, &decision, grace, day(29)), all);
    // Of one whose base is not known any more everything waits.
    facts.ended = vec![Ended { at: hours(2), keeps: None }];
    assert_eq!(due(&facts, &decision, grace, day(29)), Decision::default());
}

#[test]
fn what_a_kept_backup_refers_to_stays_with_its_log_and_goes_behind_it() {
    let mut facts = journal(30, |day| day % 3 == 0);
    let at = |facts: &Facts, day: u8| facts.bases.iter().position(|base| base.id == id(day)).unwrap();
    // The base of day 21 is the first of the window.
    let newest = at(&facts, 21);
    facts.bases[newest].refers = vec![id(6), id(12)];
    let decision = decide(&facts, RULE, true, day(29)).unwrap();
    assert!(
        !decision.backups.contains(&id(6))
            && !decision.backups.contains(&id(12))
            && decision.backups.contains(&id(9))
    );
    assert!(decision.kept.contains(&(id(6), "referred to")));
    // When nobody keeps it any more, both are due at once, and the one that refers goes first.
    let mut facts = journal(60, |day| day % 3 == 0);
    let former = at(&facts, 21);
    facts.bases[former].refers = vec![id(6)];
    facts.bases.iter_mut().for_each(|base| base.marked = Some(day(40)));
    let decision = decide(&facts, RULE, true, day(59)).unwrap();
    let gone = due(&facts, &decision, TimeDelta::days(1), day(59)).backups;
    let place = |day| gone.iter().position(|gone| *gone == id(day)).unwrap();
    assert!(place(21) < place(6), "{gone:?}");
    // One that refers and is not due yet keeps what it refers to.
    facts.bases[former].marked = None;
    let decision = decide(&facts, RULE, true, day(59)).unwrap();
    assert!(decision.backups.contains(&id(6)));
    assert!(!due(&facts, &decision, TimeDelta::days(1), day(59)).backups.contains(&id(6)));
}

#[test]
fn what_a_running_refresh_may_refer_to_stays_for_a_week_and_a_hold_gives_its_grace_to_all_of_it() {
    let mut facts = journal(30, |day| day % 3 == 0);
    let running = Unfinished {
        id: id(200),
        needs_from: Sequence::new(3),
        newest_object: day(28),
        marked: None,
        refers: vec![id(3)],
    };
    facts.unfinished.push(running);
    let decision = decide(&facts, RULE, true, day(29)).unwrap();
    assert!(!decision.backups.contains(&id(3)) && decision.backups.contains(&id(0)));
    facts.unfinished[0].newest_object = day(20);
    assert!(decide(&facts, RULE, true, day(29)).unwrap().backups.contains(&id(3)));

    let mut facts = journal(30, |day| day % 3 == 0);
    let held = facts.bases.iter().position(|base| base.id == id(9)).unwrap();
    facts.bases[held].refers = vec![id(0)];
    let needs = Needs { from: Sequence::new(9 * 11 + 3), until: Sequence::new(9 * 11 + 9) };
    let hold = Held { id: HoldId::from_bytes([7; 16]), keeps: Some((id(9), needs)) };
    facts.holds.push(hold);
    let decision = decide(&facts, RULE, true, day(29)).unwrap();
    assert!(!decision.backups.contains(&id(0)) && decision.backups.contains(&id(3)));
    // Its time is over: both have a grace from then on.
    facts.holds.clear();
    facts.ended = vec![Ended { at: day(29) - TimeDelta::hours(2), keeps: Some((id(9), needs)) }];
    facts.bases.iter_mut().for_each(|base| base.marked = Some(day(20)));
    let decision = decide(&facts, RULE, true, day(29)).unwrap();
    let gone = due(&facts, &decision, TimeDelta::days(1), day(29)).backups;
    assert!(gone.contains(&id(3)) && !gone.contains(&id(9)) && !gone.contains(&id(0)), "{gone:?}");
}
