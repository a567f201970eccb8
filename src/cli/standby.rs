//! The arguments of `farshore standby`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use farshore_journal::DatabaseName;

use crate::cli::History;
use crate::config::StoreName;
use crate::config::quantity::{QuantityError, Span};

/// `farshore standby`
#[derive(Debug, Clone, Subcommand)]
pub enum StandbyCommand {
    /// Make a copy of a SQLite database that applications may read, and keep it up to date until stopped
    #[command(before_help = "Examples:
  farshore standby run orders --to /srv/orders-standby
  farshore standby run orders --to /srv/orders-standby --store nas --every 2s")]
    Run(StandbyRunArgs),
    /// Show where a standby stands and how far it is behind the journal
    #[command(before_help = "Examples:\n  farshore standby status --to /srv/orders-standby -o json")]
    Status(StandbyPlace),
    /// Make a standby a database of its own, once it has all that is stored: a running PostgreSQL server, or a stopped copy of SQLite that is found whole
    #[command(before_help = "Examples:
  farshore standby promote --to /srv/orders-standby
  farshore standby promote --to /srv/oslo --user postgres --wait 10m
  farshore standby promote --to /srv/orders-standby --as-it-is   # the store is lost too")]
    Promote(StandbyPromoteArgs),
    /// Hold a PostgreSQL standby's replay where it is, while log still comes in
    #[command(before_help = "Examples:\n  farshore standby pause --to /srv/oslo --user postgres")]
    Pause(StandbyServerArgs),
    /// Let a PostgreSQL standby replay on
    #[command(before_help = "Examples:\n  farshore standby resume --to /srv/oslo --user postgres")]
    Resume(StandbyServerArgs),
    /// Remove a standby and its directory, and forget it
    #[command(before_help = "Examples:
  farshore standby drop --to /srv/orders-standby --yes
  farshore standby drop --to /srv/oslo --stop            # its server runs")]
    Drop(StandbyDropArgs),
    /// Make a PostgreSQL standby that follows the journal in place of its primary; it is not started
    #[command(before_help = "Examples:
  farshore standby create orders --to /srv/orders-standby --server 'host=journal.example port=5440 user=oslo passfile=/etc/oslo.pgpass'
  farshore standby create orders --to /srv/oslo --server 'host=127.0.0.1 port=5440 user=oslo' --name oslo --apply-delay 4h")]
    Create(StandbyCreateArgs),
    /// Make a former primary a standby of its successor's history, which moves only what differs; it is not started
    #[command(before_help = "Examples:
  farshore standby backfresh orders --to /var/lib/postgresql/17/main --from 'host=new dbname=postgres user=postgres' --server 'host=journal.example port=5440 user=oslo passfile=/etc/oslo.pgpass'")]
    Backfresh(StandbyBackfreshArgs),
    /// Show the PostgreSQL standbys that take a journal for their primary, and how far each is
    #[command(before_help = "Examples:\n  farshore standby list\n  farshore standby list orders -o json")]
    List(StandbyListArgs),
    /// Forget a PostgreSQL standby that is gone, or let one in that is known to be of the newest incarnation
    #[command(before_help = "Examples:\n  farshore standby forget orders oslo")]
    Forget(StandbyForgetArgs),
}

/// `farshore standby create`
#[derive(Debug, Clone, Args)]
pub struct StandbyCreateArgs {
    /// The database
    #[arg(value_name = "DB")]
    pub database: DatabaseName,
    /// Where it is made: a directory that is missing or empty
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Where the journal is served, as primary_conninfo has it
    #[arg(long, value_name = "CONNINFO", value_parser = parse_conninfo)]
    pub server: String,
    /// What the standby calls itself; this machine's name when not given
    #[arg(long, value_name = "NAME", value_parser = parse_standby)]
    pub name: Option<String>,
    /// The store that it is served from; without it the database's first
    #[arg(long, value_name = "NAME")]
    pub store: Option<StoreName>,
    /// Send it log only once it was written so long ago, so that a mistake can be stopped before it comes: 1s to 90d
    #[arg(long, value_name = "TIME", value_parser = parse_delay)]
    pub apply_delay: Option<Span>,
    /// Begin an interrupted one anew
    #[arg(long)]
    pub resume: bool,
}

/// `farshore standby backfresh`
#[derive(Debug, Clone, Args)]
pub struct StandbyBackfreshArgs {
    /// The database
    #[arg(value_name = "DB")]
    pub database: DatabaseName,
    /// The former primary's data directory; nothing may run there
    #[command(flatten)]
    pub place: StandbyPlace,
    /// Its successor, which runs, as pg_rewind's --source-server has it: a superuser, or one who may read its files and has REPLICATION
    #[arg(long, value_name = "CONNINFO")]
    pub from: String,
    /// Where the journal is served, as primary_conninfo has it
    #[arg(long, value_name = "CONNINFO", value_parser = parse_conninfo)]
    pub server: String,
    /// What the standby calls itself; this machine's name when not given
    #[arg(long, value_name = "NAME", value_parser = parse_standby)]
    pub name: Option<String>,
    /// The store that it is served from; without it the database's first
    #[arg(long, value_name = "NAME")]
    pub store: Option<StoreName>,
    /// Send it log only once it was written so long ago: 1s to 90d
    #[arg(long, value_name = "TIME", value_parser = parse_delay)]
    pub apply_delay: Option<Span>,
    /// Where what its successor never had is kept; a folder beside the directory when not given
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

fn parse_delay(text: &str) -> Result<Span, String> {
    let delay: Span = text.parse().map_err(|why: QuantityError| why.to_string())?;
    match delay.get().as_millis() {
        1_000..=7_776_000_000 => Ok(delay),
        _ => Err("write 1s to 90d".to_owned()),
    }
}

fn parse_conninfo(text: &str) -> Result<String, String> {
    let keys = text.contains('=') && !text.contains("://") && !text.chars().any(char::is_control);
    let is_ours = text.split_whitespace().any(|word| word == "options" || word.starts_with("options="));
    match (keys, is_ours) {
        (true, false) => Ok(text.to_owned()),
        (true, true) => Err("leave `options` out: by it the standby says which journal it is of".to_owned()),
        (false, _) => Err("write it as host=HOST port=PORT user=USER".to_owned()),
    }
}

pub(crate) fn parse_standby(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match (1..=63).contains(&text.len()) && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("1 to 63 of letters, digits, `-`, `_` and `.`".to_owned()),
    }
}

/// `farshore standby list`
#[derive(Debug, Clone, Args)]
pub struct StandbyListArgs {
    /// The database; all when not given
    #[arg(value_name = "DB")]
    pub database: Option<DatabaseName>,
}

/// `farshore standby forget`
#[derive(Debug, Clone, Args)]
pub struct StandbyForgetArgs {
    /// The database
    #[arg(value_name = "DB")]
    pub database: DatabaseName,
    /// What the standby calls itself: its application_name, else its cluster_name
    #[arg(value_name = "STANDBY")]
    pub standby: String,
}

/// Where a standby is.
#[derive(Debug, Clone, Args)]
pub struct StandbyPlace {
    /// The standby's directory
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
}

/// Where a PostgreSQL standby is, and as whom its server is asked.
#[derive(Debug, Clone, Args)]
pub struct StandbyServerArgs {
    /// Where it is
    #[command(flatten)]
    pub place: StandbyPlace,
    /// The role that the server is asked as, a superuser; this user's name when not given. Its password is read from PGPASSWORD
    #[arg(long, value_name = "ROLE")]
    pub user: Option<String>,
}

/// `farshore standby drop`
#[derive(Debug, Clone, Args)]
pub struct StandbyDropArgs {
    /// Where it is
    #[command(flatten)]
    pub place: StandbyPlace,
    /// Stop a PostgreSQL server that runs there
    #[arg(long)]
    pub stop: bool,
}

/// `farshore standby promote`
#[derive(Debug, Clone, Args)]
pub struct StandbyPromoteArgs {
    /// Where it is
    #[command(flatten)]
    pub server: StandbyServerArgs,
    /// How long a PostgreSQL standby may take to replay what it has, and then to be promoted: 1s to 1d
    #[arg(long, value_name = "TIME", value_parser = parse_wait, default_value = "1m")]
    pub wait: Span,
    /// Promote the copy as it stands: the store is not asked, and what it holds more is not in it
    #[arg(long)]
    pub as_it_is: bool,
}

fn parse_wait(text: &str) -> Result<Span, String> {
    let wait: Span = text.parse().map_err(|why: QuantityError| why.to_string())?;
    match wait.get().as_millis() {
        1_000..=86_400_000 => Ok(wait),
        _ => Err("write 1s to 1d".to_owned()),
    }
}

/// `farshore standby run`
#[derive(Debug, Clone, Args)]
pub struct StandbyRunArgs {
    /// The database
    #[arg(value_name = "DB")]
    pub database: DatabaseName,
    /// Where the copy is, or is made: a directory that is missing, empty, or this standby's already
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Which history
    #[command(flatten)]
    pub history: History,
    /// How often the store is asked for more; without it 50ms where the store is a directory, else 1s
    #[arg(long, value_name = "TIME", value_parser = parse_every)]
    pub every: Option<Span>,
}

/// More often serves nobody, and a store may count each question.
fn parse_every(text: &str) -> Result<Span, String> {
    let every: Span = text.parse().map_err(|why: QuantityError| why.to_string())?;
    match every.get().as_millis() {
        10..=600_000 => Ok(every),
        _ => Err("write 10ms to 10m".to_owned()),
    }
}
