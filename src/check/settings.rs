//! What `check` says about a PostgreSQL server: its version, its settings, and services that do not let its log out.

use crate::check::facts::CheckFacts;
use crate::check::{Finding, Level};
use crate::config::{OnFull, protection};

/// Slots of one database: one that streams, one that keeps.
const SLOTS: u64 = 2;
/// WAL senders of one database: one streams, two run a base backup.
/// Source: <https://www.postgresql.org/docs/current/app-pgbasebackup.html>.
const SENDERS: u64 = 3;

/// A managed service shows itself by settings of its own. None of them lets a customer open a physical replication
/// connection from outside.
/// Source: the providers' lists of supported parameters.
const MANAGED: [(&str, &str); 6] = [
    ("rds.", "Amazon RDS or Aurora"),
    ("apg_", "Amazon Aurora"),
    ("cloudsql.", "Google Cloud SQL"),
    ("alloydb.", "Google AlloyDB"),
    ("azure.", "Azure Database for PostgreSQL"),
    ("neon.", "Neon"),
];

/// Everything about the server itself.
pub(super) fn judge(facts: &CheckFacts, findings: &mut Vec<Finding>) {
    judge_version(facts.server_version, findings);
    match facts.in_recovery {
        None => findings.push(Finding::unknown("server.primary", "whether the server is a primary")),
        Some(false) => findings.push(Finding::ok("server.primary", "the server is a primary")),
        Some(true) => findings.push(Finding::problem(
            "server.primary",
            "the server is a standby; its log is shipped from its primary",
            "name the primary in url, or all hosts: postgresql://farshore@db1,db2/postgres",
        )),
    }
    let Some(settings) = &facts.settings else {
        findings.push(Finding::unknown("server.settings", "the server's settings"));
        return;
    };
    let settings = Settings(settings);
    judge_service(&settings, findings);
    judge_durability(&settings, findings);
    judge_room(&settings, facts, findings);
    judge_retention(&settings, facts.wanted.on_full, findings);
    judge_idle_timeout(&settings, facts.server_version, findings);
    judge_waits_from_the_start(facts.server_version, facts.wanted.waits_for.is_some(), findings);
    if facts.wanted.guarded {
        judge_guard(facts.guard, &facts.wanted.database, findings);
    }
    judge_synchronous(&settings, facts, findings);
}

/// Settings by name; one that is not shown is not known.
struct Settings<'a>(&'a std::collections::BTreeMap<String, String>);

impl Settings<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }
}

fn judge_version(version: Option<u32>, findings: &mut Vec<Finding>) {
    let code = "server.version";
    findings.push(match version.map(|number| number / 10_000) {
        None => Finding::unknown(code, "the server's version"),
        Some(major @ 14..=18) => Finding::ok(code, format!("PostgreSQL {major}")),
        Some(major @ ..14) => Finding::problem(
            code,
            format!("PostgreSQL {major} is older than farshore can ship from"),
            "upgrade to 14 or later",
        ),
        Some(major) => Finding::problem(
            code,
            format!("PostgreSQL {major} is newer than this version of farshore can ship from"),
            "look for a newer farshore",
        ),
    });
}

fn judge_service(settings: &Settings<'_>, findings: &mut Vec<Finding>) {
    let code = "server.service";
    let found = MANAGED.iter().find(|(start, _)| settings.0.keys().any(|name| name.starts_with(start)));
    findings.push(match found {
        None => Finding::ok(code, "no sign of a managed service"),
        Some((_, service)) => Finding::problem(
            code,
            format!("{service} does not let its log out: physical replication is closed to customers"),
            "not supported; use the service's own recovery, or move the database to a server of your own",
        ),
    });
}

fn judge_durability(settings: &Settings<'_>, findings: &mut Vec<Finding>) {
    findings.push(match settings.text("wal_level") {
        None => Finding::unknown("settings.wal_level", "wal_level"),
        Some("replica" | "logical") => Finding::ok("settings.wal_level", "wal_level is enough"),
        Some(level) => Finding::problem(
            "settings.wal_level",
            format!("wal_level is {level}: the log does not hold what a restore needs"),
            "alter system set wal_level = 'replica'; then restart the server",
        ),
    });
    for (name, why) in [
        ("fsync", "a crash of the primary can corrupt it and its log alike"),
        ("full_page_writes", "a restore cannot mend pages that were torn during a base backup"),
    ] {
        let code = if name == "fsync" { "settings.fsync" } else { "settings.full_page_writes" };
        findings.push(match settings.text(name) {
            None => Finding::unknown(code, name),
            Some("on") => Finding::ok(code, format!("{name} is on")),
            Some(_) => Finding::problem(
                code,
                format!("{name} is off: {why}"),
                format!("alter system set {name} = on; then select pg_reload_conf()"),
            ),
        });
    }
    findings.push(match settings.text("data_checksums") {
        None => Finding::unknown("settings.data_checksums", "data_checksums"),
        Some("on") => Finding::ok("settings.data_checksums", "data checksums are on"),
        Some(_) => Finding::warning(
            "settings.data_checksums",
            "data checksums are off: rot on the primary's disk goes into base backups unseen",
            "switch them on with pg_checksums --enable while the server is stopped",
        ),
    });
}

fn judge_room(settings: &Settings<'_>, facts: &CheckFacts, findings: &mut Vec<Finding>) {
    for (code, name, wanted) in [
        ("settings.max_replication_slots", "max_replication_slots", SLOTS),
        ("settings.max_wal_senders", "max_wal_senders", SENDERS),
    ] {
        let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
        findings.push(match settings.number(name) {
            None => Finding::unknown(code, name),
            Some(number) if number < wanted => Finding::problem(
                code,
                format!("{name} is {number}; one database needs {wanted}"),
                format!("alter system set {name} = {}; then restart the server", wanted.max(10)),
            ),
            Some(number) => Finding::ok(code, format!("{name} is {number}")),
        });
    }
    let Some((limit, used)) = settings.number("max_replication_slots").zip(facts.slots_used) else { return };
    let (used, wanted) = (i64::from(used), i64::try_from(facts.slots_missing.len()).unwrap_or(i64::MAX));
    let mend = || {
        format!(
            "alter system set max_replication_slots = {}; then restart the server",
            limit.saturating_add(4)
        )
    };
    if wanted > limit.saturating_sub(used) {
        findings.push(Finding::problem(
            "settings.slots_in_use",
            format!(
                "{used} of {limit} replication slots are in use: farshore finds none for {wanted} of its own"
            ),
            mend(),
        ));
    } else if used >= limit {
        findings.push(Finding::warning(
            "settings.slots_in_use",
            format!(
                "{used} of {limit} replication slots are in use: a failover or a second database finds none"
            ),
            mend(),
        ));
    }
}

/// `max_slot_wal_keep_size` is where the operator's choice takes effect: the server itself lets the log go.
/// Source: <https://www.postgresql.org/docs/current/runtime-config-replication.html#GUC-MAX-SLOT-WAL-KEEP-SIZE>.
fn judge_retention(settings: &Settings<'_>, on_full: OnFull, findings: &mut Vec<Finding>) {
    let code = "settings.max_slot_wal_keep_size";
    findings.push(match (settings.number("max_slot_wal_keep_size"), on_full) {
        (None, _) => Finding::unknown(code, "max_slot_wal_keep_size"),
        (Some(-1), OnFull::Hold) => {
            Finding::ok(code, "the primary keeps its log for as long as farshore needs it")
        }
        (Some(-1), OnFull::Bypass) => Finding::problem(
            code,
            "on_full is bypass and max_slot_wal_keep_size is -1: the primary's disk would fill all the same",
            "alter system set max_slot_wal_keep_size to about half of the free space of pg_wal",
        ),
        (Some(mebibytes), OnFull::Hold) => Finding::problem(
            code,
            format!("on_full is hold and the primary lets log go beyond {mebibytes} MiB: a gap can arise"),
            "alter system set max_slot_wal_keep_size = -1, or choose on_full = \"bypass\"",
        ),
        (Some(mebibytes), OnFull::Bypass) => {
            Finding::ok(code, format!("the primary lets log go beyond {mebibytes} MiB"))
        }
    });
}

/// The keeping slot never streams; it is moved over SQL, which counts as use. A short timeout can still take it
/// while farshore is down.
/// Source: <https://www.postgresql.org/docs/18/runtime-config-replication.html#GUC-IDLE-REPLICATION-SLOT-TIMEOUT>.
fn judge_idle_timeout(settings: &Settings<'_>, version: Option<u32>, findings: &mut Vec<Finding>) {
    let code = "settings.idle_replication_slot_timeout";
    match (settings.number("idle_replication_slot_timeout"), version) {
        (Some(0), _) => findings.push(Finding::ok(code, "slots are kept however long they are idle")),
        (Some(seconds), _) => findings.push(Finding::warning(
            code,
            format!(
                "idle_replication_slot_timeout is {seconds} s: a farshore that is down longer loses its slots"
            ),
            "alter system set idle_replication_slot_timeout = 0; then select pg_reload_conf()",
        )),
        (None, Some(..180_000)) => {}
        (None, Some(_) | None) => findings.push(Finding::unknown(code, "idle_replication_slot_timeout")),
    }
}

/// With `remote_apply` a commit would wait for something farshore never reports.
/// A server of these minor versions may let commits go without a wait in the first moments behind its start.
/// Source: release notes of 17.5, 16.9, 15.13 and 14.18 (`synchronous_standby_names` right after startup).
fn judge_waits_from_the_start(version: Option<u32>, waits: bool, findings: &mut Vec<Finding>) {
    let Some(version) = version.filter(|_| waits) else { return };
    let mended = [140_018, 150_013, 160_009, 170_005];
    let Some(first) = mended.into_iter().find(|mended| mended / 10_000 == version / 10_000) else { return };
    if version < first {
        findings.push(Finding {
            code: "settings.synchronous_commit",
            level: Level::Warning,
            what: format!(
                "PostgreSQL {}.{} may acknowledge commits without a wait in the first moments behind its start",
                version / 10_000,
                version % 10_000
            ),
            mend: Some(format!("upgrade to {}.{} or later", first / 10_000, first % 10_000)),
        });
    }
}

/// Without a guard `sync` is no promise: nobody makes commits wait, or nobody lets them go.
fn judge_guard(guard: Option<bool>, database: &str, findings: &mut Vec<Finding>) {
    let code = "protection.guard";
    findings.push(match guard {
        None => Finding::unknown(code, format!("whether a guard of {database} is connected to the primary")),
        Some(true) => Finding::ok(code, format!("a guard of {database} is connected to the primary")),
        Some(false) => Finding::problem(
            code,
            format!("no guard of {database} is connected to the primary: nobody has commits wait until they are stored, nor lets those go that wait"),
            format!("run `farshore guard {database}`, best on the primary's machine; docs/protection.md says how"),
        ),
    });
}

/// Whether commits wait as protection says.
fn waited_for((level, names): (&str, &str), wanted: &str, database: &str, guarded: bool) -> Finding {
    let code = "settings.synchronous_commit";
    match level {
        "off" | "local" | "remote_write" => Finding::problem(
            code,
            format!(
                "synchronous_commit is {level}: commits do not wait until they are stored, whatever protection says"
            ),
            "alter system set synchronous_commit = on; then select pg_reload_conf()",
        ),
        _ if names == wanted => Finding::ok(code, "commits wait until they are stored, as protection says"),
        _ if guarded && names.is_empty() => Finding {
            code,
            level: Level::Warning,
            what: format!(
                "commits of {database} do not wait now: its guard has them wait once its stores keep up"
            ),
            mend: Some("nothing, while a guard is there: `farshore status` says since when".to_owned()),
        },
        _ if guarded => Finding::problem(
            code,
            format!(
                "synchronous_standby_names is '{names}', which is somebody's own: the guard of {database} leaves it alone, and commits are not known to be protected"
            ),
            "alter system reset synchronous_standby_names; then select pg_reload_conf(): the guard makes it what it is to be",
        ),
        _ => Finding::problem(
            code,
            format!(
                "synchronous_standby_names is '{names}', which is not what protection and durable of {database} ask for"
            ),
            format!("alter system set synchronous_standby_names = '{wanted}'; then select pg_reload_conf()"),
        ),
    }
}

fn judge_synchronous(settings: &Settings<'_>, facts: &CheckFacts, findings: &mut Vec<Finding>) {
    let code = "settings.synchronous_commit";
    let (database, waits_for) = (&facts.wanted.database, facts.wanted.waits_for.as_deref());
    let names = settings.text("synchronous_standby_names");
    findings.push(match (settings.text("synchronous_commit"), names) {
        (None, _) | (_, None) => Finding::unknown(code, "synchronous_commit and synchronous_standby_names"),
        (Some(level), Some(names)) if waits_for.is_some() => {
            waited_for((level, names), waits_for.unwrap_or_default(), database, facts.wanted.guarded)
        }
        (Some("remote_apply"), Some(names)) if names.contains("farshore") || names.contains('*') => Finding::problem(
            code,
            format!("synchronous_commit is remote_apply and names farshore: commits of {database} would wait for ever"),
            "take farshore out of synchronous_standby_names, or set synchronous_commit = on",
        ),
        (Some(_), Some(names)) if protection::names_stream(names, database) => Finding::problem(
            code,
            format!("synchronous_standby_names is '{names}', and protection is async: commits of {database} wait for a standby that nobody is"),
            "take farshore out of it, or set protection back to what it was",
        ),
        (Some(_), Some(names)) if names.contains("farshore") || names.contains('*') => Finding {
            code,
            level: Level::Warning,
            what: "synchronous_standby_names can choose farshore, which reports what it received, not what is stored"
                .to_owned(),
            mend: Some("take farshore out of it, or set protection = \"strict\" for this database".to_owned()),
        },
        (Some(_), Some(_)) => Finding::ok(code, "no commit waits for farshore"),
    });
}
