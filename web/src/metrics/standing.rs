//! The samples of databases and their work.

use std::collections::{BTreeMap, BTreeSet};

use farshore_catalog::Time;
use farshore_catalog::chronicle::unsealed_anywhere;
use farshore_catalog::fleet::{Member, Standing};
use farshore_catalog::guard::{Guard, GuardPhase};
use farshore_catalog::lag::{self, ShownState};
use farshore_catalog::proof::Proof;
use farshore_catalog::shipping::ShippingState;
use farshore_catalog::spool::{Spool, SpoolState};
use farshore_catalog::standby::{Standby, StandbyState};
use farshore_catalog::throttle::{RuleState, Throttles};
use farshore_journal::DatabaseName;
use farshore_journal::format::certificate::DrillVerdict;

use super::Metrics;
use super::families as f;
use super::reading::Reading;
use super::text::{Family, Page, whole};

/// The one type of base backup there is.
const BASE: &str = "base";

/// A moment as seconds since 1970; 0 is never.
pub(super) fn moment(time: Option<Time>) -> f64 {
    time.map_or(0.0, |time| {
        #[allow(clippy::cast_precision_loss)] // microseconds since 1970 are below 2^53 until the year 2255
        let micros = time.timestamp_micros() as f64;
        micros / 1e6
    })
}

/// Writes what is known of each database, and of those of which nothing is known that this is so.
pub(super) fn write(
    page: &mut Page,
    metrics: &Metrics,
    now: Time,
    (reading, away): (Option<&Reading>, bool),
    only: Option<&DatabaseName>,
) {
    let sees = |name: &DatabaseName| only.is_none_or(|only| only == name);
    let members: BTreeMap<&DatabaseName, &Member> = reading
        .iter()
        .flat_map(|reading| &reading.fleet.members)
        .map(|member| (&member.database, member))
        .collect();
    let names: BTreeSet<&DatabaseName> = members.keys().copied().chain(metrics.objectives().keys()).collect();
    for name in names.into_iter().filter(|name| sees(name)) {
        match members.get(name) {
            Some(member) => known(page, member, now, away, reading),
            None => unheard_of(page, name),
        }
    }
    for (name, promised) in metrics.objectives().iter().filter(|(name, _)| sees(name)) {
        let all = [(&f::RPO_OBJECTIVE, promised.rpo), (&f::RTO_OBJECTIVE, promised.rto)];
        for (family, objective) in all {
            if let Some(objective) = objective {
                page.add(family, &[name.as_str()], objective.as_secs_f64());
            }
        }
    }
    let Some(reading) = reading else { return };
    for (seal, last) in &reading.fleet.seals {
        let of = seal.chronicle.strip_prefix("exposure/").unwrap_or_default();
        if only.is_none_or(|only| only.as_str() == of) {
            page.add(&f::UNSEALED, &[of, &seal.store], whole(seal.lacks(*last)));
        }
    }
    // The last entry of each chronicle.
    let chronicles: BTreeMap<&str, u64> =
        reading.fleet.seals.iter().map(|(seal, last)| (seal.chronicle.as_str(), *last)).collect();
    for (chronicle, last) in chronicles {
        let of = chronicle.strip_prefix("exposure/").unwrap_or_default();
        if only.is_none_or(|only| only.as_str() == of) {
            let seals = reading.fleet.seals.iter().filter(|(seal, _)| seal.chronicle == chronicle);
            let held: Vec<(u64, u64)> = seals.map(|(seal, _)| (seal.first, seal.number)).collect();
            page.add(&f::UNSEALED_ANYWHERE, &[of], whole(unsealed_anywhere(last, &held)));
        }
    }
    for standby in reading.fleet.standbys.iter().filter(|standby| sees(&standby.database)) {
        follows(page, standby, now, away);
    }
    for guard in reading.fleet.guards.iter().filter(|guard| sees(&guard.database)) {
        protects(page, guard, now, away);
    }
    for spool in reading.fleet.spools.iter().filter(|spool| sees(&spool.database)) {
        spools(page, spool, now, away);
    }
    for throttles in reading.fleet.throttles.iter().filter(|throttles| sees(&throttles.database)) {
        limits(page, throttles, now, away);
    }
    for schedule in reading.fleet.schedules.iter().filter(|schedule| sees(&schedule.database)) {
        if let Some(due) = metrics.overdue(schedule, &reading.fleet) {
            page.add(
                &f::SCHEDULE_DUE,
                &[schedule.database.as_str(), schedule.kind.word()],
                moment(Some(due)),
            );
        }
    }
    let jobs = reading.fleet.jobs.iter().filter(|job| job.database.as_ref().map_or(only.is_none(), sees));
    for job in jobs {
        let labels = [job.database.as_ref().map_or("", DatabaseName::as_str), job.kind.word()];
        // What ran when the catalog was last read may have ended, and other work may run.
        if !away {
            page.add(&f::JOBS_RUNNING, &labels, whole(job.running));
        }
        page.add(&f::JOB_SUCCESS, &labels, moment(job.last_success));
        page.add(&f::JOB_FAILURE, &labels, moment(job.last_failure));
    }
}

/// A state as one sample for every word there is.
fn one_hot(page: &mut Page, family: &'static Family, labels: &[&str], shown: &str) {
    let words = ShippingState::ALL.into_iter().map(ShippingState::word);
    for word in words.chain([ShownState::Unknown.word()]) {
        let values: Vec<&str> = labels.iter().copied().chain([word]).collect();
        page.add(family, &values, whole(u64::from(word == shown)));
    }
}

/// How far a standby is. What was read before the catalog was away vouches for nobody now.
fn follows(page: &mut Page, standby: &Standby, now: Time, away: bool) {
    let labels = [standby.database.as_str(), standby.name.as_str()];
    let state = match standby.shown(now) {
        state if away && state.follows() => StandbyState::Away,
        state => state,
    };
    for one in StandbyState::ALL {
        let [database, name] = labels;
        page.add(&f::STANDBY_STATE, &[database, name, one.word()], whole(u64::from(one == state)));
    }
    let behind = standby.behind_now(now).map_or(f64::INFINITY, |behind| behind.as_secs_f64());
    page.add(&f::STANDBY_LAG, &labels, behind);
}

/// Whether commits wait until they are stored. What was read before the catalog was away vouches for nobody now.
fn protects(page: &mut Page, guard: &Guard, now: Time, away: bool) {
    let shown = if away { GuardPhase::Unknown } else { guard.shown(now) };
    for one in GuardPhase::ALL {
        let labels = [guard.database.as_str(), one.word()];
        page.add(&f::PROTECTION_STATE, &labels, whole(u64::from(*one == shown)));
    }
    if shown != GuardPhase::Armed {
        page.add(&f::EXPOSED, &[guard.database.as_str()], moment(guard.waited_until()));
    }
}

/// How a spool stands. What was read before the catalog was away vouches for nothing now.
fn spools(page: &mut Page, spool: &Spool, now: Time, away: bool) {
    let name = spool.database.as_str();
    let shown = if away { SpoolState::Unknown } else { spool.shown(now) };
    for one in SpoolState::ALL {
        page.add(&f::SPOOL_STATE, &[name, one.word()], whole(u64::from(one == shown)));
    }
    if let Some(bytes) = spool.bytes.filter(|_| shown != SpoolState::Unknown) {
        page.add(&f::SPOOL_BYTES, &[name], whole(bytes));
    }
    page.add(&f::SPOOL_LIMIT, &[name], whole(spool.limit));
}

/// What limits a database. The time that was waited is a count: it stays what it was while nobody speaks.
fn limits(page: &mut Page, throttles: &Throttles, now: Time, away: bool) {
    let name = throttles.database.as_str();
    page.add(&f::THROTTLE_WAIT, &[name], throttles.waited.as_secs_f64());
    if away || throttles.is_silent(now) {
        return;
    }
    if let Some(limit) = throttles.bandwidth {
        page.add(&f::THROTTLE_LIMIT, &[name], whole(limit));
    }
    for rule in throttles.rules.iter().filter(|rule| rule.state != RuleState::Unknown) {
        page.add(&f::THROTTLE_ACTIVE, &[name, &rule.name], whole(u64::from(rule.state == RuleState::Active)));
    }
}

/// A database of the configuration that no reading has shown.
fn unheard_of(page: &mut Page, name: &DatabaseName) {
    let name = name.as_str();
    one_hot(page, &f::DATABASE_STATE, &[name], ShownState::Unknown.word());
    page.add(&f::RPO_EXPOSURE, &[name], lag::exposure_seconds(Time::default(), None));
    page.add(&f::WINDOW_OPEN, &[name], 0.0);
    page.add(&f::WINDOW_GAPS, &[name], 0.0);
    page.add(&f::CONTACT, &[name], 0.0);
    page.add(&f::BACKUP_SUCCESS, &[name, BASE], 0.0);
    page.add(&f::DRILL_PROVED, &[name], 0.0);
}

/// What drills say of the current incarnation.
fn drills(page: &mut Page, name: &str, proof: &Proof) {
    page.add(&f::DRILL_PROVED, &[name], moment(proof.proved.as_ref().map(|one| one.ended)));
    if let Some(took) = proof.proved.as_ref().and_then(|one| one.recovery) {
        page.add(&f::RTO_DRILL, &[name], took.as_secs_f64());
    }
    if let Some(last) = &proof.last {
        page.add(&f::DRILL_PASSED, &[name], whole(u64::from(last.verdict != DrillVerdict::Failed)));
    }
}

fn known(page: &mut Page, member: &Member, now: Time, away: bool, reading: Option<&Reading>) {
    let name = member.database.as_str();
    let standing = member.standing(now, away);
    let version = member.major_version.map(|major| major.to_string()).unwrap_or_default();
    page.add(&f::DATABASE_INFO, &[name, &member.engine, &version], 1.0);
    one_hot(page, &f::DATABASE_STATE, &[name], standing.state.word());
    page.add(&f::RPO_EXPOSURE, &[name], standing.exposure_seconds);
    let contact = member.shipping.as_ref().and_then(|said| said.last_contact_at);
    page.add(&f::CONTACT, &[name], moment(contact));
    log(page, member, &standing, now);
    let restorable = member.restorable.as_ref();
    // Known, and not: was known when the catalog was last read.
    page.add(&f::WINDOW_OPEN, &[name], whole(u64::from(restorable.is_some() && !away)));
    page.add(&f::WINDOW_GAPS, &[name], whole(restorable.map_or(0, |found| found.gaps as u64)));
    let ends =
        reading.and_then(|reading| reading.ends.get(&member.database)).filter(|_| restorable.is_some());
    for (family, time) in
        [(&f::WINDOW_START, ends.and_then(|ends| ends.from)), (&f::WINDOW_END, ends.and_then(|ends| ends.to))]
    {
        if time.is_some() {
            page.add(family, &[name], moment(time));
        }
    }
    page.add(&f::BACKUP_SUCCESS, &[name, BASE], moment(member.last_backup.map(|backup| backup.finished_at)));
    drills(page, name, &member.proof);
    if let Some(backup) = member.last_backup {
        let took = (backup.finished_at - backup.started_at).as_seconds_f64();
        page.add(&f::BACKUP_DURATION, &[name, BASE], took.max(0.0));
        if let Some(bytes) = backup.stored_bytes {
            page.add(&f::BACKUP_SIZE, &[name, BASE], whole(bytes));
        }
        if let Some(bytes) = backup.bytes {
            page.add(&f::BACKUP_DATABASE, &[name, BASE], whole(bytes));
        }
    }
}

fn log(page: &mut Page, member: &Member, standing: &Standing, now: Time) {
    let name = member.database.as_str();
    for target in &member.targets {
        let shown = match standing.state {
            ShownState::Unknown => ShownState::Unknown.word().to_owned(),
            ShownState::Known(_) => lag::shown_target_state(now, standing.silent, target),
        };
        one_hot(page, &f::TARGET_STATE, &[name, &target.store], &shown);
    }
    if let Some(bytes) = standing.receive_lag_bytes {
        page.add(&f::LOG_LAG, &[name, "", "receive"], whole(bytes));
    }
    for (store, bytes) in &standing.store_lag_bytes {
        page.add(&f::LOG_LAG, &[name, store, "store"], whole(*bytes));
    }
    if let Some(stored) = member.shipping.as_ref().and_then(|said| said.stored) {
        page.add(&f::LOG_STORED, &[name], whole(stored.get()));
    }
    for (family, figure) in [(&f::RETAINED, standing.retained_bytes), (&f::TO_FULL, standing.seconds_to_full)]
    {
        if let Some(figure) = figure {
            page.add(family, &[name], whole(figure));
        }
    }
}
