//! What `farshore init` writes and prints: the configuration with its comments, and exactly what a DBA must apply.
//!
//! The least rights, and why each (PostgreSQL 14 to 18):
//! - `replication` attribute: opens a replication connection, takes base backups, creates and drops slots and moves
//!   them with `pg_replication_slot_advance`; those functions need no grant beside it. Ending farshore's own old
//!   stream needs nothing: a role may end its own backends.
//!   Source: <https://www.postgresql.org/docs/current/functions-admin.html> (9.28.2 and 9.28.6).
//! - `pg_monitor`: every setting (`config_file` and others are hidden without it), other connections' state, and
//!   the size of `pg_wal`. Source: <https://www.postgresql.org/docs/current/predefined-roles.html>.
//! - `pg_create_restore_point`: revoked from everyone at first, and granted per database, so in the one of the url.
//! - Configuration files outside the data directory need `pg_read_server_files` and the right to run
//!   `pg_read_file`: as much as reading every file of the server's user, so it is offered, not asked for.
//!
//! A `replication` line in `pg_hba.conf` is needed beside the one for SQL: `all` does not cover replication.
//! Both go above what is there: the first line that fits decides, and Debian's `local all all peer` fits everyone.
//! Source: <https://www.postgresql.org/docs/current/auth-pg-hba-conf.html>.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::commands::init::answers::{Answers, Source};
use crate::commands::init::sqlite;
use crate::config::OnFull;
use crate::config::address::{DatabaseUrl, StoreUrl};
use crate::config::flush::{Billing, FlushPlan, flush_plan};
use crate::config::variable_name;

/// A key pair that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFiles {
    /// The public key.
    pub recipient: String,
    /// Where the private key is.
    pub identity: PathBuf,
}

/// A key that signs heads and was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningFile {
    /// Its public half.
    pub public: String,
    /// Where it is.
    pub file: PathBuf,
    /// Its path as the configuration names it.
    pub named: PathBuf,
}

/// One server setting to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What it should be.
    pub value: &'static str,
    /// Whether the server must be restarted.
    pub restart: bool,
    /// Why.
    pub why: &'static str,
}

/// What the DBA must apply, and what it costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Guidance {
    /// The file that was written.
    pub config: PathBuf,
    /// The private key that was written and must be moved away.
    pub identity: Option<PathBuf>,
    /// The key that was written and signs the journal's heads.
    pub signing_key: PathBuf,
    /// Its public half, by which heads are checked.
    pub verify_key: String,
    /// Which engine the database is of, as the configuration names it.
    pub engine: &'static str,
    /// The database the SQL must be run in; a SQLite database's file.
    pub database: String,
    /// SQL for the role.
    pub sql: Vec<String>,
    /// SQL that may be run as well.
    pub optional_sql: Vec<String>,
    /// Lines for `pg_hba.conf`.
    pub pg_hba: Vec<String>,
    /// Settings to look at.
    pub settings: Vec<Setting>,
    /// What whoever runs the application must know; nothing for PostgreSQL, whose documents say it.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub know: Vec<String>,
    /// The flush interval, in milliseconds.
    pub flush_interval_milliseconds: u64,
    /// The most puts in a day.
    pub puts_per_day: u64,
    /// Their list price in millionths of a dollar a day; nothing where puts are free.
    pub put_micro_dollars_per_day: Option<u64>,
    #[serde(skip)]
    cost: String,
    #[serde(skip)]
    name: String,
}

/// An SQL name: as it is when it needs no quotes.
fn identifier(name: &str) -> String {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if first && plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A name in `pg_hba.conf`; some words have a meaning there unless they are quoted.
fn hba_name(name: &str) -> String {
    if matches!(name, "all" | "replication" | "sameuser" | "samerole" | "samegroup") {
        return format!("\"{name}\"");
    }
    identifier(name)
}

fn plan_of(answers: &Answers) -> FlushPlan {
    let billing =
        StoreUrl::parse(&answers.store, Path::new("/")).map_or(Billing::PerPut, |url| url.billing());
    flush_plan(billing, Some(answers.rpo), None)
}

impl Guidance {
    /// What follows from the answers.
    pub fn of(answers: &Answers, config: &Path, keys: Option<&KeyFiles>, signing: &SigningFile) -> Self {
        let plan = plan_of(answers);
        let mut cost = plan.to_string();
        if plan.holds_rpo == Some(false) {
            cost.push_str("; the rpo leaves no time for a put, so it will not hold in this store");
        }
        let apply = match &answers.source {
            Source::Postgres { url, on_full, .. } => Apply::of_server(url, *on_full),
            Source::Sqlite { path } => Apply {
                engine: "sqlite",
                database: path.clone(),
                sql: vec![sqlite::WAL.to_owned()],
                know: sqlite::know(),
                ..Apply::default()
            },
        };
        Self {
            config: config.to_owned(),
            identity: keys.map(|keys| keys.identity.clone()),
            signing_key: signing.file.clone(),
            verify_key: signing.public.clone(),
            engine: apply.engine,
            database: apply.database,
            sql: apply.sql,
            optional_sql: apply.optional_sql,
            pg_hba: apply.pg_hba,
            settings: apply.settings,
            know: apply.know,
            flush_interval_milliseconds: u64::try_from(plan.interval.as_millis()).unwrap_or(u64::MAX),
            puts_per_day: plan.puts_per_day,
            put_micro_dollars_per_day: plan.micro_dollars_per_day,
            cost,
            name: answers.name.to_string(),
        }
    }
}

/// What is to be applied, by engine.
#[derive(Default)]
struct Apply {
    engine: &'static str,
    database: String,
    sql: Vec<String>,
    optional_sql: Vec<String>,
    pg_hba: Vec<String>,
    settings: Vec<Setting>,
    know: Vec<String>,
}

impl Apply {
    fn of_server(url: &DatabaseUrl, on_full: OnFull) -> Self {
        let role = identifier(url.user());
        Self {
            engine: "postgres",
            database: url.database().to_owned(),
            sql: vec![
                format!("create role {role} with login replication;"),
                format!("grant pg_monitor to {role};"),
                format!("grant execute on function pg_create_restore_point(text) to {role};"),
            ],
            optional_sql: vec![
                format!("grant pg_read_server_files to {role};"),
                format!("grant execute on function pg_read_file(text) to {role};"),
            ],
            pg_hba: hba_lines(url),
            settings: settings(on_full),
            know: Vec::new(),
        }
    }
}

fn hba_lines(url: &DatabaseUrl) -> Vec<String> {
    let (role, database) = (hba_name(url.user()), hba_name(url.database()));
    // A host that is a path is a directory of sockets, and only `local` lines are looked at for it.
    let socket = |host: &String| host.starts_with("%2F") || host.starts_with("%2f");
    let hosts = url.hosts();
    let mut places: Vec<(&str, &str)> = Vec::new();
    if hosts.is_empty() || hosts.iter().any(socket) {
        places.push(("local", ""));
    }
    if !hosts.iter().all(socket) {
        places.extend_from_slice(match url.is_local() {
            true => &[("host", "127.0.0.1/32"), ("host", "::1/128")],
            false => &[("hostssl", "ADDRESS/32")],
        });
    }
    let line = |kind: &str, database: &str, address: &str| {
        format!("{kind:<8} {database:<12} {role:<12} {address:<15} scram-sha-256")
    };
    let both =
        |(kind, address): &(&str, &str)| [line(kind, "replication", address), line(kind, &database, address)];
    places.iter().flat_map(both).collect()
}

fn settings(on_full: OnFull) -> Vec<Setting> {
    let keep = match on_full {
        OnFull::Hold => Setting {
            name: "max_slot_wal_keep_size",
            value: "-1",
            restart: false,
            why: "hold: the primary keeps its log however far farshore is behind; watch the space of pg_wal",
        },
        OnFull::Bypass => Setting {
            name: "max_slot_wal_keep_size",
            value: "SIZE",
            restart: false,
            why: "bypass: SIZE is about half of the free space of pg_wal, for instance 50GB; beyond it the primary \
                  lets log go and farshore records the gap",
        },
    };
    let setting = |name, value, restart, why| Setting { name, value, restart, why };
    vec![
        setting("wal_level", "replica", true, "so by default; logical is fine too, minimal is not"),
        setting(
            "max_wal_senders",
            "10",
            true,
            "so by default; 3 must be free: one streams, two take a base backup",
        ),
        setting(
            "max_replication_slots",
            "10",
            true,
            "so by default; 2 must be free: one streams, one keeps the log",
        ),
        keep,
        setting(
            "idle_replication_slot_timeout",
            "0",
            false,
            "from PostgreSQL 18 on; so by default; any other value takes the slots of a farshore that is down",
        ),
    ]
}

impl fmt::Display for Guidance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Wrote {} (readable by its owner alone).", self.config.display())?;
        if let Some(identity) = &self.identity {
            writeln!(f, "\nWrote the private key {}.", identity.display())?;
            writeln!(
                f,
                "  Move it away from this machine, to where restores run, and keep a copy in a safe."
            )?;
            writeln!(f, "  Without it nothing that is stored can be read, by anyone.")?;
        }
        writeln!(f, "\nWrote the signing key {} (readable by its owner alone).", self.signing_key.display())?;
        writeln!(f, "  It stays here: farshore signs with it how far the journal reaches. Its public half,")?;
        writeln!(f, "  verify_keys, belongs into every configuration that verifies or restores: a journal")?;
        writeln!(f, "  that was cut off or rewritten is found by it.")?;
        match self.engine {
            "sqlite" => sqlite::steps(self, f)?,
            _ => self.steps(f)?,
        }
        writeln!(f, ". Cost: {}.", self.cost)?;
        writeln!(f, "\nNext: farshore -c {} check {}", self.config.display(), self.name)
    }
}

impl Guidance {
    /// What is to be done at a server; ends with the number of what follows.
    fn steps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n1. On the primary, in database {}, as a superuser:\n", self.database)?;
        self.sql.iter().try_for_each(|line| writeln!(f, "   {line}"))?;
        writeln!(
            f,
            "\n   Give it a password with psql's \\password, and put that into a file named by password_file."
        )?;
        writeln!(
            f,
            "\n   Only if configuration files outside the data directory should go into backups (this lets the"
        )?;
        writeln!(f, "   role read every file the server can read):\n")?;
        self.optional_sql.iter().try_for_each(|line| writeln!(f, "   {line}"))?;
        writeln!(
            f,
            "\n2. In pg_hba.conf of every host, above the lines that are there: the first that fits decides,"
        )?;
        writeln!(f, "   even if its method then fails. Then select pg_reload_conf():\n")?;
        self.pg_hba.iter().try_for_each(|line| writeln!(f, "   {line}"))?;
        if self.pg_hba.iter().any(|line| line.contains("ADDRESS")) {
            writeln!(f, "\n   ADDRESS is this machine as the server sees it.")?;
        }
        writeln!(f, "\n3. Settings of every host:\n")?;
        for setting in &self.settings {
            let restart = if setting.restart { "; a change needs a restart" } else { "" };
            writeln!(f, "   {} = {}", setting.name, setting.value)?;
            writeln!(f, "       {}{restart}", setting.why)?;
        }
        write!(f, "\n4")
    }
}

/// A TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The configuration to write.
pub fn document(answers: &Answers, keys: Option<&KeyFiles>, signing: &SigningFile) -> String {
    let name = &answers.name;
    let recipients = match keys {
        Some(keys) => format!(
            "recipients = [{}]   # public keys; whoever holds the private half can restore",
            quoted(&keys.recipient)
        ),
        None => "# recipients = [\"age1...\"]   # public keys; without one the journal is not encrypted"
            .to_owned(),
    };
    let (place, on_full) = match &answers.source {
        Source::Postgres { url, password_file, on_full } => {
            let variable = variable_name(&format!("databases.{name}.password"));
            let password = match password_file {
                Some(path) => format!("password_file = {}", quoted(&path.to_string_lossy())),
                None => {
                    format!(
                        "# password_file = \"{name}.password\"   # or the environment variable {variable}"
                    )
                }
            };
            let what = match on_full {
                OnFull::Hold => "hold: the primary keeps its log; its disk can fill",
                OnFull::Bypass => {
                    "bypass: the primary's disk is saved; a gap is recorded, a base backup follows"
                }
            };
            (
                format!("engine = \"postgres\"\nurl = {}\n{password}", quoted(url.as_str())),
                format!("on_full = \"{on_full}\"       # {what}\n"),
            )
        }
        Source::Sqlite { path } => (sqlite::place(path), String::new()),
    };
    format!(
        "# farshore: what is protected, where its journal goes, and what is promised.
# Unknown keys are refused. Relative paths start at the folder of this file.
# Secrets stand in files or in the environment, not here.

[catalog]
url = \"sqlite:farshore.db\"

[stores.main]
url = {store}
{recipients}

[databases.{name}]
{place}
stores = [\"main\"]
rpo = \"{rpo}\"            # the most data, as time, that may be lost
rto = \"{rto}\"           # the most time to resume service
protection = \"async\"   # a commit waits for nothing
{on_full}# {plan}
# flush_interval = \"{interval}ms\"   # derived from rpo unless it is set
# Private, stays on the machine that ships: signs how far the journal reaches.
signing_key = {signing_key}
# Its public half, for every machine that verifies or restores: finds a journal that was cut off or rewritten.
verify_keys = [\"{verify_key}\"]

[service]
listen = \"127.0.0.1:7432\"   # /healthz, /readyz and, with a token, the REST API
",
        signing_key = quoted(&signing.named.to_string_lossy()),
        verify_key = signing.public,
        store = quoted(&answers.store),
        rpo = answers.rpo,
        rto = answers.rto,
        plan = plan_of(answers),
        interval = plan_of(answers).interval.as_millis(),
    )
}
