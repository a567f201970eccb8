//! The arguments of `farshore standby`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use farshore_journal::DatabaseName;

use crate::cli::History;
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
    /// Make a stopped standby a database of its own, once it has all that is stored and is found whole
    #[command(before_help = "Examples:
  farshore standby promote --to /srv/orders-standby
  farshore standby promote --to /srv/orders-standby --as-it-is   # the store is lost too")]
    Promote(StandbyPromoteArgs),
}

/// Where a standby is.
#[derive(Debug, Clone, Args)]
pub struct StandbyPlace {
    /// The standby's directory
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
}

/// `farshore standby promote`
#[derive(Debug, Clone, Args)]
pub struct StandbyPromoteArgs {
    /// Where it is
    #[command(flatten)]
    pub place: StandbyPlace,
    /// Promote the copy as it stands: the store is not asked, and what it holds more is not in it
    #[arg(long)]
    pub as_it_is: bool,
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
