//! What `check` says about all that is around the server: the role, the slots, clocks, space and programs.

use std::time::Duration;

use crate::check::facts::{CheckFacts, ClockDifference, KeepFound, RoleFacts, SlotFacts};
use crate::check::{Finding, Level};
use crate::config::OnFull;
use crate::config::quantity::ByteCount;

/// Clocks further apart than this confuse a restore by time and the signatures of stores (15 minutes at most).
const CLOCK_WARNING: Duration = Duration::from_secs(2);
/// Beyond this S3 refuses requests.
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html> (`RequestTimeTooSkewed`).
const CLOCK_PROBLEM: Duration = Duration::from_secs(15 * 60);

/// The role's rights.
pub(super) fn judge_role(facts: &CheckFacts, findings: &mut Vec<Finding>) {
    let Some(role) = &facts.role else {
        findings.push(Finding::unknown("role.rights", "the role's rights"));
        return;
    };
    judge_rights(role, findings);
}

fn judge_rights(role: &RoleFacts, findings: &mut Vec<Finding>) {
    let name = &role.name;
    let all = role.superuser == Some(true);
    if all {
        findings.push(Finding::warning(
            "role.superuser",
            format!("{name} is a superuser: farshore needs far less"),
            format!("alter role {name} nosuperuser replication; then grant what `farshore init` prints"),
        ));
    }
    let rights = [
        (
            "role.replication",
            role.replication,
            "the REPLICATION attribute, to stream and to move its slots",
            Level::Problem,
            format!("alter role {name} replication"),
        ),
        (
            "role.settings",
            role.reads_settings,
            "the right to read every setting",
            Level::Problem,
            format!("grant pg_monitor to {name}"),
        ),
        (
            "role.stats",
            role.reads_stats,
            "the right to read the state of other connections",
            Level::Warning,
            format!("grant pg_monitor to {name}"),
        ),
        (
            "role.points",
            role.marks_points,
            "the right to mark recovery points",
            Level::Warning,
            format!("grant execute on function pg_create_restore_point(text) to {name}"),
        ),
    ];
    for (code, right, what, level, mend) in rights {
        findings.push(match right {
            _ if all => Finding::ok(code, format!("{name} has {what}")),
            None => Finding::unknown(code, format!("whether {name} has {what}")),
            Some(true) => Finding::ok(code, format!("{name} has {what}")),
            Some(false) => Finding { code, level, what: format!("{name} lacks {what}"), mend: Some(mend) },
        });
    }
}

/// The two slots.
pub(super) fn judge_slots(facts: &CheckFacts, findings: &mut Vec<Finding>) {
    let code = "slots.state";
    let Some(slots) = &facts.slots else {
        findings.push(Finding::unknown(code, "the replication slots"));
        return;
    };
    if slots.is_empty() {
        findings.push(Finding::warning(
            code,
            "farshore has no slots on this server yet: its log may go before it is shipped",
            "start `farshore run`, which creates them",
        ));
        return;
    }
    findings.extend(slots.iter().map(judge_slot));
    findings.extend(facts.slots_missing.iter().map(|name| {
        Finding::warning(
            code,
            format!("slot {name} is not there: the primary may let log go before it is shipped"),
            "start `farshore run`, which creates it",
        )
    }));
}

/// The keep slot on the standbys: after a failover to one of them it is all that holds the log that is not yet stored.
pub(super) fn judge_standby_slots(facts: &CheckFacts, findings: &mut Vec<Finding>) {
    let code = "slots.standby";
    // Before the first `farshore run` there is none anywhere, which is said of the primary.
    if facts.slots.as_ref().is_none_or(Vec::is_empty) {
        return;
    }
    for host in facts.hosts.iter().filter(|host| host.in_recovery == Some(true)) {
        let name = &host.name;
        let after = "after a failover to it, log that is not yet stored may go";
        findings.push(match host.keep {
            None => Finding::unknown(code, format!("whether the standby {name} keeps log that is not yet stored")),
            Some(KeepFound::Keeps) => Finding::ok(code, format!("the standby {name} keeps log that is not yet stored")),
            Some(KeepFound::Missing) => Finding::warning(
                code,
                format!("the standby {name} has no keep slot: {after}"),
                format!("let `farshore run` reach {name}, which creates it; max_replication_slots there must leave room"),
            ),
            Some(KeepFound::Lost) => Finding::warning(
                code,
                format!("the standby {name} let the log go that its keep slot kept: {after}"),
                format!("let `farshore run` reach {name}, which makes it anew; raise max_slot_wal_keep_size there"),
            ),
        });
    }
}

fn judge_slot(slot: &SlotFacts) -> Finding {
    let (code, name) = ("slots.state", &slot.name);
    match slot.wal_status.as_deref() {
        _ if !slot.physical => Finding::problem(
            code,
            format!("slot {name} is a logical one: it was not made by farshore"),
            format!("give it another name, or drop it with select pg_drop_replication_slot('{name}')"),
        ),
        _ if slot.temporary => Finding::problem(
            code,
            format!("slot {name} is temporary: it goes with its connection"),
            format!("select pg_drop_replication_slot('{name}') and start `farshore run`"),
        ),
        Some("lost") => Finding::problem(
            code,
            format!("slot {name} is lost: the primary let log go that may not be stored"),
            "start `farshore run`: it records the gap with its bounds and takes a new base backup",
        ),
        Some("unreserved") => Finding::problem(
            code,
            format!("slot {name} is unreserved: the next checkpoint may remove log it needs"),
            "find out why shipping is behind; raise max_slot_wal_keep_size meanwhile",
        ),
        _ if !slot.reserves => Finding::problem(
            code,
            format!("slot {name} holds no position: it keeps no log"),
            "start `farshore run`, which moves it",
        ),
        Some("reserved" | "extended") => Finding::ok(code, format!("slot {name} keeps its log")),
        Some(_) | None => Finding::unknown(code, format!("the state of slot {name}")),
    }
}

/// The primary's retained log against its free space.
pub(super) fn judge_space(facts: &CheckFacts, findings: &mut Vec<Finding>) {
    let code = "space.pg_wal";
    let Some(retained) = facts.retained_bytes else {
        findings.push(Finding::unknown(code, "how much log the primary keeps for farshore"));
        return;
    };
    let Some(free) = facts.wal_free_bytes else {
        findings.push(Finding::unknown_until(
            code,
            format!(
                "the space left beside pg_wal, where the primary keeps {} of log for farshore",
                ByteCount::new(retained)
            ),
            "watch it on the server's machine: SQL cannot ask for it, and it cannot be seen from here",
        ));
        return;
    };
    let what = format!(
        "the primary keeps {} of log for farshore and has {} free",
        ByteCount::new(retained),
        ByteCount::new(free)
    );
    // As much again as is kept now is the least that should still fit; below a tenth of it minutes count.
    findings.push(if free / 10 < retained / 100 || free == 0 {
        Finding::problem(
            code,
            what,
            match facts.wanted.on_full {
                OnFull::Hold => {
                    "give pg_wal more space now: on_full is hold, so a full disk stops the primary"
                }
                OnFull::Bypass => {
                    "mend the store: on_full is bypass, so the log will be let go and a gap recorded"
                }
            },
        )
    } else if free < retained {
        Finding::warning(code, what, "find out why shipping is behind; see `farshore status`")
    } else {
        Finding::ok(code, what)
    });
}

/// Two clocks. The measurement's own error is taken off: a slow network is no wrong clock.
pub(super) fn judge_clock(
    code: &'static str,
    what: &str,
    difference: Option<ClockDifference>,
    findings: &mut Vec<Finding>,
) {
    let Some(ClockDifference { size, error }) = difference else {
        findings.push(Finding::unknown(code, format!("{what} against this machine's")));
        return;
    };
    let at_least = size.saturating_sub(error);
    let text = format!("{what} and this machine's differ by at least {} ms", at_least.as_millis());
    let mend = "run a time service on both machines";
    findings.push(if at_least >= CLOCK_PROBLEM {
        Finding::problem(code, text, mend)
    } else if at_least >= CLOCK_WARNING {
        Finding::warning(code, text, mend)
    } else {
        Finding::ok(code, format!("{what} agrees with this machine's"))
    });
}

/// The programs that a restore starts.
pub(super) fn judge_programs(found: Option<bool>, findings: &mut Vec<Finding>) {
    let code = "restore.programs";
    findings.push(match found {
        None => {
            Finding::unknown(code, "whether server programs of the same major version are on this machine")
        }
        Some(true) => Finding::ok(code, "server programs of the same major version are on this machine"),
        Some(false) => Finding::warning(
            code,
            "no server programs of the same major version on this machine: a restore cannot be started here",
            "install the server of that version, or name its folder in bin_dir",
        ),
    });
}
