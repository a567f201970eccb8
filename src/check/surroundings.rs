//! What `check` says about all that is around the server: the role, the slots, stores, keys, clocks and space.

use std::time::Duration;

use crate::check::facts::{CheckFacts, ClockDifference, KeyFacts, RoleFacts, SlotFacts, StoreFacts};
use crate::check::{Finding, Level};
use crate::config::OnFull;
use crate::config::quantity::ByteCount;

/// Clocks further apart than this confuse a restore by time and the signatures of stores (15 minutes at most).
const CLOCK_WARNING: Duration = Duration::from_secs(2);
/// Beyond this S3 refuses requests.
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html> (`RequestTimeTooSkewed`).
const CLOCK_PROBLEM: Duration = Duration::from_secs(15 * 60);

/// The connection and the role's rights.
pub(super) fn judge_role(facts: &CheckFacts, findings: &mut Vec<Finding>) {
    findings.push(match facts.replication_connects {
        None => Finding::unknown("connection.replication", "whether replication connections are accepted"),
        Some(true) => Finding::ok("connection.replication", "replication connections are accepted"),
        Some(false) => Finding::problem(
            "connection.replication",
            "the server refuses a replication connection; `all` in pg_hba.conf does not cover it",
            "add a `replication` line for the role to pg_hba.conf; then select pg_reload_conf()",
        ),
    });
    findings.push(match facts.encrypted {
        None => Finding::unknown("connection.encrypted", "whether the connection is encrypted"),
        Some(true) => Finding::ok("connection.encrypted", "the connection is encrypted, or local"),
        Some(false) => Finding::warning(
            "connection.encrypted",
            "the connection is not encrypted: every row crosses the network in the clear",
            "use hostssl lines in pg_hba.conf and sslmode=require in url",
        ),
    });
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
    }
    findings.extend(slots.iter().map(judge_slot));
}

fn judge_slot(slot: &SlotFacts) -> Finding {
    let (code, name) = ("slots.state", &slot.name);
    match slot.wal_status.as_deref() {
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
    let (Some(retained), Some(free)) = (facts.retained_bytes, facts.wal_free_bytes) else {
        findings.push(Finding::unknown(
            code,
            "the log the primary keeps for farshore, or the space left beside it",
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

/// One store with its keys.
pub(super) fn judge_store(store: &StoreFacts, findings: &mut Vec<Finding>) {
    let name = &store.name;
    findings.push(match store.reachable {
        None => Finding::unknown("store.reachable", format!("whether store {name} answers")),
        Some(true) => Finding::ok("store.reachable", format!("store {name} answers")),
        Some(false) => Finding::problem(
            "store.reachable",
            format!("store {name} does not answer, or refuses the credentials"),
            "check its url, endpoint, region and credentials",
        ),
    });
    findings.push(match store.creates_once {
        None => Finding::unknown("store.creates_once", format!("whether store {name} lets only one writer create a name")),
        Some(true) => Finding::ok("store.creates_once", format!("store {name} lets only one writer create a name")),
        Some(false) => Finding::problem(
            "store.creates_once",
            format!("store {name} let two writers create one name: it cannot keep a journal whole"),
            "use a store that honours create-only puts (If-None-Match), or a directory with hard links and fsync",
        ),
    });
    judge_clock("store.clock", &format!("the clock of store {name}"), store.clock_difference, findings);
    if store.is_directory {
        findings.push(match store.free_bytes {
            None => Finding::unknown("store.space", format!("the space left in store {name}")),
            Some(0) => Finding::problem(
                "store.space",
                format!("store {name} is full"),
                "free space there, or add another store",
            ),
            Some(bytes) => {
                Finding::ok("store.space", format!("store {name} has {} free", ByteCount::new(bytes)))
            }
        });
        findings.push(match store.beside_database {
            None => Finding::unknown(
                "store.apart",
                format!("whether store {name} lies on the database's own disk"),
            ),
            Some(false) => Finding::ok("store.apart", format!("store {name} lies on another file system")),
            Some(true) => Finding::warning(
                "store.apart",
                format!("store {name} lies on the database's own file system: both go with one disk"),
                "put it on another machine, or name a second store",
            ),
        });
    }
    judge_keys(name, store.keys, findings);
}

fn judge_keys(store: &str, keys: KeyFacts, findings: &mut Vec<Finding>) {
    if keys.recipients == 0 {
        findings.push(Finding::warning(
            "keys.encryption",
            format!("the journal in store {store} is not encrypted"),
            "write recipients = [\"age1...\"]; `farshore init --encrypt` makes a pair",
        ));
        return;
    }
    findings.push(Finding::ok(
        "keys.encryption",
        format!("store {store} is encrypted for {} keys", keys.recipients),
    ));
    findings.push(match keys.identity_here {
        None => Finding::unknown("keys.apart", format!("whether a private key of store {store} lies on this machine")),
        Some(false) => Finding::ok("keys.apart", "no private key lies on this machine"),
        Some(true) => Finding::warning(
            "keys.apart",
            format!("a private key of store {store} lies beside the shipper: who takes this machine reads the history"),
            "move it to where restores run, and to a safe",
        ),
    });
    findings.push(match keys.identity_opens {
        None => Finding::unknown(
            "keys.opens",
            format!("whether any private key opens the newest generation in store {store}"),
        ),
        Some(true) => Finding::ok("keys.opens", "a private key opens the newest generation"),
        Some(false) => Finding::problem(
            "keys.opens",
            format!("the private key does not open the newest generation in store {store}: it could not be restored"),
            "find the key that belongs to the recipients, or write the right recipients and restart farshore",
        ),
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
