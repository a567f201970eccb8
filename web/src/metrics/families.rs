//! Every metric there is: its name, what it is, its labels, and what it says. `docs/metrics.md` is held to this list by a test.
//!
//! What always holds: no file name, position, table, job id or address is ever a label; each label has as many values as there are
//! databases, stores, standbys, throttles, states, kinds of work, paths of the API or channels of notification.

use crate::metrics::text::{Family, Kind};

macro_rules! families {
    ($($id:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(#[doc = $help] pub static $id: Family =
            Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*
        /// All of them.
        pub static ALL: &[&Family] = &[$(&$id,)*];
    };
}

families! {
    BUILD_INFO = Gauge "farshore_build_info" ["version", "commit"] "Always 1: which farshore answers.";
    CATALOG_UP = Gauge "farshore_catalog_up" []
        "Whether the catalog was read within the last seconds; while it is 0 every database is unknown and its exposure grows.";
    CATALOG_READ = Gauge "farshore_catalog_last_read_timestamp_seconds" [] "When the catalog was last read; 0: never by this process.";
    DATABASE_INFO = Gauge "farshore_database_info" ["database", "engine", "engine_version"] "Always 1: what a database is.";
    DATABASE_STATE = Gauge "farshore_database_state" ["database", "state"]
        "1 for the state that `farshore status` shows, 0 for every other; unknown is a state.";
    TARGET_STATE = Gauge "farshore_target_state" ["database", "target", "state"]
        "1 for the state of a store of a database that `farshore status` shows, 0 for every other.";
    RPO_EXPOSURE = Gauge "farshore_rpo_exposure_seconds" ["database"]
        "The most that would be lost if the primary were lost now, as time; while a source is silent it grows, and +Inf is: nothing bounds it.";
    RPO_OBJECTIVE = Gauge "farshore_rpo_objective_seconds" ["database"] "The most that may be lost, from the configuration of this process.";
    RTO_OBJECTIVE = Gauge "farshore_rto_objective_seconds" ["database"] "The longest a recovery may take, from the configuration of this process.";
    RTO_DRILL = Gauge "farshore_rto_last_drill_seconds" ["database"]
        "How long recovery took in the newest drill that restored and passed its checks; absent: none did.";
    DRILL_PROVED = Gauge "farshore_drill_last_proved_timestamp_seconds" ["database"] "When that drill ended; 0: never for the current incarnation.";
    DRILL_PASSED = Gauge "farshore_drill_last_passed" ["database"]
        "Whether the newest drill of the current incarnation restored and passed its checks, in time or not; absent: there is none.";
    WINDOW_OPEN = Gauge "farshore_recovery_window_open" ["database"] "Whether anything of the current incarnation is known to be restorable; 0 while the catalog is away.";
    WINDOW_START = Gauge "farshore_recovery_window_start_timestamp_seconds" ["database"]
        "The time of the last commit at the start of what can be restored without a break.";
    WINDOW_END = Gauge "farshore_recovery_window_end_timestamp_seconds" ["database"] "The time of the newest commit that can be restored.";
    WINDOW_GAPS = Gauge "farshore_recovery_window_gaps" ["database"] "Parts of the history, after an older restorable one, that were lost and cannot be restored.";
    LOG_LAG = Gauge "farshore_log_lag_bytes" ["database", "target", "stage"]
        "Bytes of the source's log that are not received (stage receive), or not in a store (stage store); absent while the source is silent.";
    LOG_STORED = Counter "farshore_log_stored_bytes_total" ["database"]
        "Where in its log the database is stored up to, in bytes; a new incarnation begins anew.";
    UNSEALED = Gauge "farshore_chronicle_unsealed_entries" ["database", "target"]
        "Entries of the exposure ledger, or with an empty database of the record of activity, that are in the catalog and not known to be in a store: newer than what it has, or older than where that begins.";
    UNSEALED_ANYWHERE = Gauge "farshore_chronicle_unsealed_anywhere_entries" ["database"]
        "The same that are not known to be in any store: a catalog that is lost now loses them.";
    RETAINED = Gauge "farshore_source_retained_log_bytes" ["database"] "Bytes of log that the source keeps for farshore, while they are measured.";
    TO_FULL = Gauge "farshore_source_log_time_to_full_seconds" ["database"]
        "Seconds until the disk of the source's log is full at the present rate, while that is measured and it fills.";
    SPOOL_STATE = Gauge "farshore_spool_state" ["database", "state"]
        "1 for how the spool of a database stands, 0 for every other: idle, taking, full, waiting, unknown; absent: it has none.";
    SPOOL_BYTES = Gauge "farshore_spool_bytes" ["database"] "Bytes of log in the spool, which no store may have yet, while that is known.";
    SPOOL_LIMIT = Gauge "farshore_spool_limit_bytes" ["database"] "Bytes that the spool may hold, in the directories that are in use.";
    CONTACT = Gauge "farshore_source_last_contact_timestamp_seconds" ["database"] "When the source was last heard; 0: never.";
    BACKUP_SUCCESS = Gauge "farshore_backup_last_success_timestamp_seconds" ["database", "type"]
        "When the newest complete base backup of the current incarnation ended; 0: there is none.";
    BACKUP_DURATION = Gauge "farshore_backup_last_duration_seconds" ["database", "type"] "How long that one took.";
    BACKUP_SIZE = Gauge "farshore_backup_last_size_bytes" ["database", "type"]
        "What was moved to its store for it: less than the database where it refers to an earlier one.";
    BACKUP_DATABASE = Gauge "farshore_backup_last_database_bytes" ["database", "type"] "Bytes of the database's files in it.";
    SCHEDULE_DUE = Gauge "farshore_schedule_due_timestamp_seconds" ["database", "kind"]
        "When the next run of a schedule becomes overdue, unless one succeeds before.";
    STANDBY_STATE = Gauge "farshore_standby_state" ["database", "standby", "state"]
        "1 for the state that `farshore standby list` shows of a PostgreSQL standby that follows the journal, 0 for every other.";
    STANDBY_LAG = Gauge "farshore_standby_lag_seconds" ["database", "standby"]
        "For how long the journal has had what a standby has not replayed; while it is not heard it grows, and +Inf is: it never said how far it is.";
    PROTECTION_STATE = Gauge "farshore_protection_state" ["database", "state"]
        "Of a database with `protection` other than `async`: 1 for what is known of its commits, 0 for every other: `armed` (each waits, until it is stored or within its bound), `arming`, `disarmed`, `hands_off`, `unknown`. In `sync` its guard says so, else its shipper.";
    EXPOSED = Gauge "farshore_protection_exposed_since_timestamp_seconds" ["database"]
        "Of such a database: up to when its commits are known to have waited, while they do not or are not known to; 0: nobody knows. Absent while they wait.";
    THROTTLE_ACTIVE = Gauge "farshore_throttle_active" ["database", "rule"]
        "Whether a throttle of the configuration is active; absent while that is not known.";
    THROTTLE_LIMIT = Gauge "farshore_throttle_limit_bytes_per_second" ["database"]
        "The most that goes to a database's stores now; absent where nothing limits it, or that is not known.";
    THROTTLE_WAIT = Counter "farshore_throttle_wait_seconds_total" ["database"]
        "For how long something that goes to a database's stores waited for a limit, since its service began.";
    JOBS_RUNNING = Gauge "farshore_jobs_running" ["database", "kind"] "Jobs that run now; absent while the catalog is away.";
    JOB_SUCCESS = Gauge "farshore_job_last_success_timestamp_seconds" ["database", "kind"] "When such a job last succeeded; 0: none is known to have.";
    JOB_FAILURE = Gauge "farshore_job_last_failure_timestamp_seconds" ["database", "kind"] "When such a job last failed; 0: none is known to have.";
    NOTIFIED = Counter "farshore_notifications_total" ["channel"] "Notifications that a channel took, since this process began.";
    NOTIFY_FAILED = Counter "farshore_notification_failures_total" ["channel"]
        "Notifications that a channel did not take, or that were dropped because it was too slow, since this process began.";
    HTTP = Histogram "farshore_http_request_duration_seconds" ["route", "method", "status"] "How long this process took to answer.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_every_metric_as_it_is_and_no_other() {
        let doc = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let doc = std::fs::read_to_string(doc).unwrap();
        let mut written: Vec<&str> = doc.lines().filter(|line| line.starts_with("| `farshore_")).collect();
        let row = |family: &&Family| {
            let labels = if family.labels.is_empty() { "none".to_owned() } else { family.labels.join(", ") };
            format!("| `{}` | {} | {labels} | {} |", family.name, family.kind.word(), family.help)
        };
        let mut rows: Vec<String> = ALL.iter().map(row).collect();
        rows.sort();
        written.sort_unstable();
        assert_eq!(written, rows);
        let names: std::collections::BTreeSet<&str> = ALL.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
