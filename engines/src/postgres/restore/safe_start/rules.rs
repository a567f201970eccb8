//! What becomes of each setting of the source: kept, forced, or left at its default, with the reason.
//!
//! The rule is an allow list: a setting is carried over only if it is named here and its value is of a plain kind.
//! Whatever a hostile or future source has set is otherwise left at its default, and listed.

use super::super::control::Major;

/// What kind of value a kept setting may have: the value comes from a store, and one bad value stops the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A whole number, in the unit `pg_settings` gives it.
    Number,
    /// A word: letters, digits, `_`, `-`, `/`, `+`, and for lists `, `.
    Word,
}

/// Settings carried over: they decide what queries answer, not what the server does to others.
pub(super) const KEPT: &[(&str, Kind)] = &[
    ("DateStyle", Kind::Word),
    ("IntervalStyle", Kind::Word),
    ("TimeZone", Kind::Word),
    ("array_nulls", Kind::Word),
    ("bytea_output", Kind::Word),
    ("default_toast_compression", Kind::Word),
    ("extra_float_digits", Kind::Number),
    ("max_files_per_process", Kind::Number),
    ("max_pred_locks_per_transaction", Kind::Number),
    // Replay of a source's replication origins needs as many places as it had, or the start fails.
    // Source: `StartupReplicationOrigin` in `src/backend/replication/logical/origin.c`.
    ("max_replication_slots", Kind::Number),
    ("max_active_replication_origins", Kind::Number),
    ("max_wal_size", Kind::Number),
    // With segments above 32 MiB a server refuses its own default. Source: `ReadControlFile`,
    // src/backend/access/transam/xlog.c: at least two segments.
    ("min_wal_size", Kind::Number),
    ("quote_all_identifiers", Kind::Word),
    ("row_security", Kind::Word),
    ("standard_conforming_strings", Kind::Word),
    ("transform_null_equals", Kind::Word),
    ("xmlbinary", Kind::Word),
    ("xmloption", Kind::Word),
];

/// One forced setting: its value here, and why the source's is not used.
pub(super) struct Forced {
    pub(super) name: &'static str,
    pub(super) now: &'static str,
    pub(super) why: &'static str,
    /// Majors that know it: an unknown name would stop the server.
    pub(super) majors: (u32, u32),
}

const fn forced(name: &'static str, now: &'static str, why: &'static str) -> Forced {
    Forced { name, now, why, majors: (14, 18) }
}

const fn since(first: u32, name: &'static str, now: &'static str, why: &'static str) -> Forced {
    Forced { name, now, why, majors: (first, 18) }
}

const fn until(last: u32, name: &'static str, now: &'static str, why: &'static str) -> Forced {
    Forced { name, now, why, majors: (14, last) }
}

/// Settings that are the same in every restored server, written out even where they equal the default: a reader of
/// the file sees that nothing was forgotten.
pub(super) const FORCED: &[Forced] = &[
    forced("archive_mode", "off", "the copy must not write into its source's archive"),
    forced("archive_command", "", "the copy must not write into its source's archive"),
    since(15, "archive_library", "", "the copy must not write into its source's archive"),
    forced("archive_cleanup_command", "", "a command of the source could delete the source's archive"),
    forced("recovery_end_command", "", "a command of the source would run on this machine"),
    forced("recovery_min_apply_delay", "0", "a delayed standby's delay would hold the restore back"),
    forced("primary_conninfo", "", "the copy must not connect to its source"),
    forced("primary_slot_name", "", "the copy must not use its source's slots"),
    until(15, "promote_trigger_file", "", "a file of the source's other tools could promote the copy"),
    since(17, "sync_replication_slots", "off", "the copy must not connect to its source"),
    since(17, "synchronized_standby_slots", "", "the slots are not part of a restore"),
    since(17, "summarize_wal", "off", "summaries of a passing copy serve nobody"),
    since(17, "event_triggers", "off", "a login trigger could refuse or act on every connection"),
    forced("synchronous_standby_names", "", "commits would wait for standbys that are not there"),
    forced("listen_addresses", "", "only the private socket: the source's clients must not reach the copy"),
    forced("bonjour", "off", "the copy must not announce itself"),
    forced("ssl", "off", "no TCP; the certificate's files are the source's"),
    forced("unix_socket_permissions", "0700", "only its owner may connect"),
    forced("unix_socket_group", "", "the group may not exist here"),
    forced("external_pid_file", "", "the file is the source's"),
    forced(
        "cluster_name",
        "farshore restore",
        "process lists and metrics must not take the copy for its source",
    ),
    forced("logging_collector", "off", "its directory may be the source's"),
    forced("log_destination", "stderr", "farshore keeps the copy's messages beside its socket"),
    forced("lc_messages", "C", "a locale missing here would stop the server"),
    forced("lc_monetary", "C", "a locale missing here would stop the server"),
    forced("lc_numeric", "C", "a locale missing here would stop the server"),
    forced("lc_time", "C", "a locale missing here would stop the server"),
    forced("session_preload_libraries", "", "a library missing here would refuse every connection"),
    forced("local_preload_libraries", "", "a library missing here would refuse every connection"),
    forced("dynamic_library_path", "$libdir", "the source's other folders may be absent, or others' here"),
    forced("jit", "off", "its library may be absent"),
    forced("max_logical_replication_workers", "0", "the source's subscriptions must not run twice"),
    forced("huge_pages", "try", "this machine may have none reserved"),
    forced("hot_standby", "on", "the copy is inspected before it is opened"),
    forced("wal_level", "replica", "enough to replay; nothing decodes from a copy"),
    forced("fsync", "on", "a restore that a power loss undoes is none"),
    forced("full_page_writes", "on", "a restore that a power loss undoes is none"),
    forced("ignore_invalid_pages", "off", "damage must stop the restore, not be skipped"),
    forced("ignore_checksum_failure", "off", "damage must be reported"),
    forced("zero_damaged_pages", "off", "damage must be reported"),
    forced("allow_system_table_mods", "off", "not needed"),
    forced(
        "recovery_init_sync_method",
        "fsync",
        "what was put here must be durable before replay relies on it",
    ),
    forced("update_process_title", "on", "shows the segment being replayed"),
    since(15, "log_startup_progress_interval", "1s", "shows that a long replay moves"),
];

/// Reasons for settings that are replaced in another way than by a line of [`FORCED`].
pub(super) const PLACED: &[(&str, &str)] = &[
    ("config_file", "the restored directory has its own"),
    ("hba_file", "the restored directory has its own"),
    ("ident_file", "the restored directory has its own"),
    ("data_directory", "the restored directory itself"),
    ("restore_command", "the source's would fetch another log than the plan's"),
    ("port", "the source may run on this machine"),
    ("unix_socket_directories", "a private directory"),
    (
        "shared_preload_libraries",
        "its workers and jobs would run twice, and a missing one would stop the server",
    ),
    ("shared_buffers", "bounded, so that source and copy fit on one machine"),
    ("recovery_target", "the plan's target"),
    ("recovery_target_action", "what the request says"),
    ("recovery_target_inclusive", "the plan's target"),
    ("recovery_target_lsn", "the plan's target"),
    ("recovery_target_name", "the plan's target"),
    ("recovery_target_time", "the plan's target"),
    ("recovery_target_timeline", "the plan's target"),
    ("recovery_target_xid", "the plan's target"),
    ("data_directory_mode", "follows the restored directory"),
];

/// Settings the log's limits decide; raised, never lowered.
pub(super) const LIMITS: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

/// Whether a server of this major knows the forced setting.
pub(super) fn applies(rule: &Forced, major: Major) -> bool {
    (rule.majors.0..=rule.majors.1).contains(&major.get())
}

/// Whether a setting exists only from some major on, among those kept.
pub(super) fn kept_applies(name: &str, major: Major) -> bool {
    name != "max_active_replication_origins" || major.get() >= 18
}

/// Whether a value may hold a secret: then the plan says that it was set, not to what.
pub(super) fn secret(name: &str) -> bool {
    // A name with a dot belongs to an extension, of which nothing is known.
    name.contains('.') || name.contains("command") || name.contains("conninfo") || name.contains("passphrase")
}
