//! Decides what a restored server is started with: a pure function from the source's settings to files.
//!
//! What always holds of a plan, whatever the source's settings were:
//! - the server reads only files in its own directory; none of the source's configuration is included;
//! - a setting is carried over only by an allow list and only with a plain value (`safe_start/rules.rs`);
//! - the limits are never below those `pg_control` demands, so that replay does not stop for them;
//! - recovery has exactly one target, on one numbered timeline; a copy that is to follow has none, and one place to follow;
//! - every setting of the source that does not apply is listed with its reason; values that may be secret are not.
//!
//! **Who may connect.** `local all all trust` on a socket in a directory of mode 0700, and no TCP. The owner of that
//! directory is the user the server runs as: he could read and change the data directory itself, so `trust` gives
//! him nothing that he lacks, while any other rule would depend on roles, maps and passwords inside the restored
//! data, which no one here may know. No rule admits replication connections.
//!
//! **The target.** PostgreSQL compares `recovery_target_lsn` with a record's start; inclusive, it stops after the first
//! record that begins at or behind it. Given the start of the last wanted record it stops at that record's end.
//! Source: `recoveryStopsAfter` in `src/backend/access/transam/xlogrecovery.c`; `tests/restore_real.rs`.
//!
//! It writes nothing: [`super::install`] does.

use std::fmt;
use std::path::{Path, PathBuf};

use farshore_journal::{Offset, Timeline};

use super::control::{ClusterState, ControlFile, Limits, Major};

mod conf;
mod rules;

use conf::{Conf, quoted};
use rules::{FORCED, KEPT, Kind, LIMITS, PLACED};

/// The longest path of a Unix socket, without its NUL. Source: `unix(7)`; 103 on the BSDs, so the smaller is taken.
const SOCKET_PATH_BYTES: usize = 103;
/// Where the source's configuration files are kept, for the operator to compare.
const KEPT_FILES: &str = "farshore.from-backup";
/// The most of them, and the most of one: configuration is small.
const MAX_CONFIG_FILES: usize = 200;
const MAX_CONFIG_BYTES: usize = 1 << 20;

/// One row of the source's `pg_settings`.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    /// `name`.
    pub name: String,
    /// `setting`, in the unit of the view.
    pub setting: String,
    /// `source`: where the value came from.
    pub source: String,
    /// `context`: when it can be changed.
    pub context: String,
}

/// Shows no value: it may be a secret.
impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Setting({} from {})", self.name, self.source)
    }
}

/// A configuration file of the source, wherever it lay.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Its path on the source's machine.
    pub path: String,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// Shows no content: it may hold secrets.
impl fmt::Debug for ConfigFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigFile({:?}, {} bytes)", self.path, self.content.len())
    }
}

/// What a backup keeps of its server's configuration.
#[derive(Debug, Clone, Default)]
pub struct SourceSettings {
    /// Rows of `pg_settings`.
    pub settings: Vec<Setting>,
    /// Configuration files, those outside the data directory too.
    pub config_files: Vec<ConfigFile>,
}

/// Where recovery ends: after one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveryTarget {
    /// Start of the last record to replay.
    pub record_start: Offset,
    /// On which timeline.
    pub timeline: Timeline,
    /// That record's end: what the restored server must answer with.
    pub end: Offset,
}

/// What happens at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Stay read-only and paused: the default.
    Pause,
    /// Open for writes on a new timeline.
    Promote,
    /// Stop.
    Shutdown,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The server's major; must be that of the data.
    pub major: Major,
    /// Names the socket; no TCP port is opened.
    pub port: u16,
    /// An absolute directory of mode 0700 for the socket and the server's messages.
    pub socket_dir: PathBuf,
    /// Where to end.
    pub target: RecoveryTarget,
    /// From where the data is consistent: the base backup's end position. No earlier target exists.
    pub consistent_from: Offset,
    /// What the log up to the target demands beyond what the control file does: a source that was restarted with larger limits
    /// says so in its log, and replay stops there when the copy has less. Source: `xlog_redo`, `XLOG_PARAMETER_CHANGE`.
    pub demanded: Option<Limits>,
    /// How log is fetched that is not in `pg_wal`; `None` when all of it is there.
    pub restore_command: Option<String>,
    /// Whom it follows as a standby, as `primary_conninfo` has it, in place of stopping at the target.
    pub follow: Option<String>,
    /// The most `shared_buffers` may take, in bytes.
    pub shared_buffers_limit: u64,
    /// Libraries to preload after all, named by the operator: a log with records of an extension's own needs its
    /// library to be replayed. Their workers then run.
    pub preload: Vec<String>,
}

/// One setting of the source that does not apply to the copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neutralised {
    /// Its name.
    pub setting: String,
    /// The source's value; `None` when it may hold a secret.
    pub was: Option<String>,
    /// The copy's value; `None` means the default.
    pub now: Option<String>,
    /// The reason.
    pub why: &'static str,
}

/// A file to write into the restored directory, mode 0600 (0640 where the directory is group-readable).
#[derive(Clone, PartialEq, Eq)]
pub struct PlannedFile {
    /// Its path below the directory.
    pub name: String,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// Shows no content: the source's kept files may hold secrets.
impl fmt::Debug for PlannedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlannedFile({:?}, {} bytes)", self.name, self.content.len())
    }
}

/// The whole plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SafeStart {
    /// Files to write; a file of that name in the backup is first set aside as `<name>.from-backup`.
    pub files: Vec<PlannedFile>,
    /// Files to remove, if there.
    pub remove: Vec<&'static str>,
    /// Files to set aside as `<name>.from-backup`, if there.
    pub set_aside: Vec<&'static str>,
    /// What of the source does not apply.
    pub neutralised: Vec<Neutralised>,
    /// The limits the server will have.
    pub limits: Limits,
}

/// Why there is no safe way to start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The data belongs to another major.
    #[error("the data is of PostgreSQL {data}, the server asked for is {asked}")]
    Major {
        /// Of the data.
        data: Major,
        /// Asked for.
        asked: Major,
    },
    /// A target the base cannot reach.
    #[error(
        "the target {end} lies before {consistent_from}, from where this base backup is consistent: choose an earlier base"
    )]
    BeforeConsistency {
        /// The target's end.
        end: Offset,
        /// The base's end.
        consistent_from: Offset,
    },
    /// A target that is no record.
    #[error("the target's record would end at {end}, not behind its start {start}")]
    NotARecord {
        /// Its start.
        start: Offset,
        /// Its end.
        end: Offset,
    },
    /// A timeline before the base's own.
    #[error("the target is on timeline {target}, the base backup on the later timeline {base}")]
    Timeline {
        /// Of the target.
        target: Timeline,
        /// Of the base.
        base: Timeline,
    },
    /// The log cannot be replayed past the base.
    #[error("the source ran with wal_level = minimal: its log holds too little to replay")]
    MinimalLog,
    /// A socket directory the server could not use.
    #[error("`{path}` cannot hold the socket: {why}", path = path.display())]
    SocketDir {
        /// The directory.
        path: PathBuf,
        /// The reason.
        why: &'static str,
    },
    /// A text that cannot stand in a configuration file.
    #[error("the {what} holds a NUL or line break")]
    Text {
        /// Which.
        what: &'static str,
    },
    /// More configuration than any server has.
    #[error("the backup holds {files} configuration files, or one of more than {MAX_CONFIG_BYTES} bytes")]
    ConfigFiles {
        /// How many.
        files: usize,
    },
}

/// Plans a safe start of data with this control file.
///
/// # Errors
/// When the target cannot be reached from this base, or the request cannot be written down.
pub fn plan(
    source: &SourceSettings,
    control: &ControlFile,
    request: &Request,
) -> Result<SafeStart, PlanError> {
    check(control, request)?;
    let socket_dir = socket_dir(request)?;
    if let Some(command) = &request.restore_command {
        plain(command, "restore command")?;
    }
    let was = |name: &str| source.settings.iter().find(|row| row.name.eq_ignore_ascii_case(name));
    let number = |name: &str| was(name).and_then(|row| row.setting.parse::<u64>().ok());
    let mut conf = Conf::default();
    conf.comment(&[
        "Written by farshore for a restored copy; the source's own is kept as postgresql.conf.from-backup.",
        "Until you mean this server to take its source's place, change nothing here.",
    ]);

    let limits = limits(control, request.demanded.as_ref(), &number);
    for (name, value) in LIMITS.iter().zip(limit_values(&limits)) {
        conf.set(name, &value.to_string(), "at least what the log demands");
    }
    let commit_times = if control.track_commit_timestamp { "on" } else { "off" };
    conf.set(
        "track_commit_timestamp",
        commit_times,
        "as in the log: off would drop the times that are there",
    );
    let buffers = number("shared_buffers").and_then(|blocks| blocks.checked_mul(control.block_bytes.into()));
    // 128 MiB is the server's own default; 1 MiB keeps a request of nothing startable.
    let buffers = buffers.unwrap_or(128 << 20).min(request.shared_buffers_limit).max(1 << 20);
    conf.set("shared_buffers", &format!("{}kB", buffers >> 10), "bounded for this machine");

    conf.set("port", &request.port.to_string(), "");
    conf.set("unix_socket_directories", socket_dir, "private");
    for rule in FORCED.iter().filter(|rule| rules::applies(rule, request.major)) {
        conf.set(rule.name, rule.now, rule.why);
    }
    for library in &request.preload {
        plain(library, "library to preload")?;
    }
    conf.set("shared_preload_libraries", &request.preload.join(","), "only what the operator named");
    for (name, kind) in KEPT.iter().filter(|(name, _)| rules::kept_applies(name, request.major)) {
        if let Some(row) = was(name).filter(|row| row.source != "default" && has_kind(&row.setting, *kind)) {
            conf.set(name, &row.setting, "as on the source");
        }
    }
    // Without a command PostgreSQL refuses archive recovery; `false` says "not there" to each segment that is
    // then found in pg_wal, within the shell, at no cost worth naming.
    conf.set("restore_command", request.restore_command.as_deref().unwrap_or("false"), "");
    conf.set("recovery_target_lsn", &request.target.record_start.to_string(), "the last record's start");
    conf.set("recovery_target_inclusive", "on", "that record is replayed");
    conf.set("recovery_target_timeline", &request.target.timeline.to_string(), "never `latest`");
    conf.set("recovery_target_action", "pause", "farshore looks first, then opens or stops it");

    let mut files = vec![
        file("postgresql.conf", conf.into_text()),
        file("postgresql.auto.conf", auto_conf(request.follow.as_deref())?),
        file("pg_hba.conf", HBA.to_owned()),
        file("pg_ident.conf", "# No maps: pg_hba.conf needs none.\n".to_owned()),
        file(if request.follow.is_some() { "standby.signal" } else { "recovery.signal" }, String::new()),
    ];
    files.extend(kept_files(&source.config_files)?);
    Ok(SafeStart {
        files,
        remove: vec![
            if request.follow.is_some() { "recovery.signal" } else { "standby.signal" },
            "postmaster.pid",
            "postmaster.opts",
            "backup_label.old",
            "tablespace_map.old",
        ],
        // With it, the server would make links to the *source's* places in front of ours.
        set_aside: vec!["tablespace_map", "recovery.done", "recovery.conf"],
        neutralised: neutralised(source, request, &limits, buffers / u64::from(control.block_bytes)),
        limits,
    })
}

/// The settings that win over all others: none, or those of a standby.
fn auto_conf(follow: Option<&str>) -> Result<String, PlanError> {
    let Some(follow) = follow else {
        return Ok("# Emptied by farshore; see postgresql.auto.conf.from-backup.\n".to_owned());
    };
    plain(follow, "connection to follow")?;
    let mut conf = Conf::default();
    conf.comment(&[
        "Written by farshore for a standby: these take the place of the target in postgresql.conf.",
        "The source's own is kept as postgresql.auto.conf.from-backup.",
    ]);
    conf.set("primary_conninfo", follow, "");
    conf.set("restore_command", "", "log comes from there alone");
    conf.set("recovery_target_lsn", "", "none: it follows");
    conf.set("recovery_target_timeline", "latest", "over promotions");
    conf.set("recovery_target_action", "pause", "");
    Ok(conf.into_text())
}

/// Directories of tablespaces the log will create while it is replayed, which must not be used on this machine.
///
/// Replay creates a tablespace in the place the *source* named, and some majors empty that place first: on the
/// source's own machine that destroys the live tablespace. `created` are the locations of the tablespace creations
/// between base and target; those returned exist here (`exists` decides), and the restore must be refused.
/// Source: `create_tablespace_directories` in `src/backend/commands/tablespace.c`.
pub fn tablespaces_in_the_way<'a>(
    created: impl IntoIterator<Item = &'a Path>,
    exists: impl Fn(&Path) -> bool,
) -> Vec<&'a Path> {
    created.into_iter().filter(|location| exists(location)).collect()
}

const HBA: &str = "\
# Written by farshore. The socket lies in a directory that only this server's own user can enter, who could as well
# read the files: trust gives nothing away. No TCP, no replication.
local all all trust
";

fn check(control: &ControlFile, request: &Request) -> Result<(), PlanError> {
    let target = request.target;
    if control.major != request.major {
        return Err(PlanError::Major { data: control.major, asked: request.major });
    }
    if target.end <= target.record_start {
        return Err(PlanError::NotARecord { start: target.record_start, end: target.end });
    }
    if target.end < request.consistent_from {
        return Err(PlanError::BeforeConsistency {
            end: target.end,
            consistent_from: request.consistent_from,
        });
    }
    if target.timeline < control.timeline {
        return Err(PlanError::Timeline { target: target.timeline, base: control.timeline });
    }
    let archived = control.wal_level > super::control::WalLevel::Minimal;
    if !archived && control.state != ClusterState::ShutDown {
        return Err(PlanError::MinimalLog);
    }
    Ok(())
}

fn socket_dir(request: &Request) -> Result<&str, PlanError> {
    let path = &request.socket_dir;
    let refuse = |why| PlanError::SocketDir { path: path.clone(), why };
    let text = path.to_str().filter(|text| path.is_absolute() && !text.starts_with('@'));
    let text = text.ok_or_else(|| refuse("it must be an absolute path in plain text"))?;
    // The setting is a list with its own quoting; names that need it are not worth the risk.
    if text.chars().any(|c| c.is_control() || matches!(c, ',' | '"' | '\'' | '\\' | ' ')) {
        return Err(refuse("its name holds a space, comma, quote, backslash or control character"));
    }
    if text.len() + format!("/.s.PGSQL.{}.lock", request.port).len() > SOCKET_PATH_BYTES {
        return Err(refuse("its name is too long for a socket"));
    }
    Ok(text)
}

fn plain(text: &str, what: &'static str) -> Result<(), PlanError> {
    let broken = text.chars().any(|c| matches!(c, '\0' | '\n' | '\r'));
    if broken { Err(PlanError::Text { what }) } else { Ok(()) }
}

fn limits(control: &ControlFile, in_log: Option<&Limits>, number: &impl Fn(&str) -> Option<u64>) -> Limits {
    let demanded = in_log.map_or(control.limits, |in_log| control.limits.with(in_log));
    // A source may have been configured higher than its last start wrote down, never meaningfully above 2^18.
    let larger = |name, demanded: u32| {
        let configured = number(name).and_then(|n| u32::try_from(n).ok()).filter(|n| *n < 1 << 18);
        configured.unwrap_or(0).max(demanded)
    };
    Limits {
        max_connections: larger("max_connections", demanded.max_connections),
        max_worker_processes: larger("max_worker_processes", demanded.max_worker_processes),
        max_wal_senders: larger("max_wal_senders", demanded.max_wal_senders),
        max_prepared_transactions: larger("max_prepared_transactions", demanded.max_prepared_transactions),
        max_locks_per_transaction: larger("max_locks_per_transaction", demanded.max_locks_per_transaction),
    }
}

fn limit_values(limits: &Limits) -> [u32; 5] {
    [
        limits.max_connections,
        limits.max_worker_processes,
        limits.max_wal_senders,
        limits.max_prepared_transactions,
        limits.max_locks_per_transaction,
    ]
}

fn has_kind(value: &str, kind: Kind) -> bool {
    match kind {
        Kind::Number => {
            let digits = value.strip_prefix('-').unwrap_or(value);
            !digits.is_empty() && digits.len() <= 10 && digits.bytes().all(|b| b.is_ascii_digit())
        }
        Kind::Word => {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '+' | ',' | ' ');
            !value.is_empty() && value.len() <= 64 && value.chars().all(plain)
        }
    }
}

fn file(name: &str, content: String) -> PlannedFile {
    PlannedFile { name: name.to_owned(), content: content.into_bytes() }
}

/// The source's configuration files, by number and last name: their folders are the source's, and may be hostile.
fn kept_files(config_files: &[ConfigFile]) -> Result<Vec<PlannedFile>, PlanError> {
    let too_long = config_files.iter().any(|file| file.content.len() > MAX_CONFIG_BYTES);
    if too_long || config_files.len() > MAX_CONFIG_FILES {
        return Err(PlanError::ConfigFiles { files: config_files.len() });
    }
    let mut kept = Vec::new();
    let mut list = String::new();
    for (number, config) in config_files.iter().enumerate() {
        let last = config.path.rsplit('/').next().unwrap_or("");
        let safe: String = last
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
            .take(80)
            .collect();
        let name = format!("{number:03}-{safe}");
        list.push_str(&format!("{name} = {}\n", quoted(&config.path)));
        kept.push(PlannedFile { name: format!("{KEPT_FILES}/{name}"), content: config.content.clone() });
    }
    if !kept.is_empty() {
        kept.push(file(&format!("{KEPT_FILES}/list"), list));
    }
    Ok(kept)
}

fn neutralised(
    source: &SourceSettings,
    request: &Request,
    limits: &Limits,
    buffers: u64,
) -> Vec<Neutralised> {
    let mut list = Vec::new();
    for row in &source.settings {
        // `override` and `default` are the server's own doing, not the operator's.
        if row.source == "default"
            || row.source == "override" && !is_placed(&row.name)
            || row.context == "internal"
        {
            continue;
        }
        let name = row.name.as_str();
        let (now, why) = if let Some(rule) = FORCED.iter().find(|rule| rule.name.eq_ignore_ascii_case(name)) {
            (Some(rule.now.to_owned()), rule.why)
        } else if let Some((_, why)) = PLACED.iter().find(|(placed, _)| *placed == name) {
            (placed_value(name, request, buffers), *why)
        } else if let Some(at) = LIMITS.iter().position(|limit| *limit == name) {
            (Some(limit_values(limits)[at].to_string()), "raised to what the log demands")
        } else if KEPT
            .iter()
            .any(|(kept, kind)| kept.eq_ignore_ascii_case(name) && has_kind(&row.setting, *kind))
        {
            continue;
        } else {
            (None, "not needed to read the data")
        };
        if now.as_ref() == Some(&row.setting) {
            continue;
        }
        let was = (!rules::secret(name)).then(|| row.setting.chars().take(200).collect());
        list.push(Neutralised { setting: name.to_owned(), was, now, why });
    }
    list.sort_by(|a, b| a.setting.cmp(&b.setting));
    list
}

fn is_placed(name: &str) -> bool {
    PLACED.iter().any(|(placed, _)| *placed == name)
}

fn placed_value(name: &str, request: &Request, buffers: u64) -> Option<String> {
    match name {
        "port" => Some(request.port.to_string()),
        "unix_socket_directories" => request.socket_dir.to_str().map(str::to_owned),
        "shared_buffers" => Some(buffers.to_string()),
        "shared_preload_libraries" => Some(request.preload.join(",")),
        "recovery_target_lsn" => Some(request.target.record_start.to_string()),
        "recovery_target_timeline" => Some(request.target.timeline.to_string()),
        "recovery_target_action" => Some("pause".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
