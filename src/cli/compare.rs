//! The arguments of `farshore compare`.

use clap::{Args, Subcommand};
use farshore_journal::{CompareId, DatabaseName};

use crate::config::quantity::Rate;

/// `farshore compare`
#[derive(Debug, Clone, Subcommand)]
pub enum CompareCommand {
    /// Compare a standby with its primary now, row by row, while both go on; ends with 9 when a row differs, with 10 when not all was compared
    #[command(before_help = "Examples:
  farshore compare run orders --standby oslo
  farshore compare run orders --standby oslo --table public.accounts --rate 20MiB/s
  farshore compare run orders --no-wait")]
    Run(CompareRun),
    /// List comparisons, newest first
    #[command(before_help = "Examples:\n  farshore compare list orders -o json")]
    List {
        /// Of this database alone
        #[arg(value_name = "DB")]
        database: Option<DatabaseName>,
    },
    /// Show one comparison: each table, and the rows that differ
    #[command(before_help = "Examples:\n  farshore compare show 0123456789abcdef0123456789abcdef")]
    Show {
        /// Its id
        #[arg(value_name = "COMPARE")]
        compare: CompareId,
    },
}

/// `farshore compare run`
#[derive(Debug, Clone, Args)]
pub struct CompareRun {
    /// The database
    #[arg(value_name = "DB")]
    pub database: DatabaseName,
    /// The standby, by the name that `standby list` shows; each whose address the configuration has without it
    #[arg(long, value_name = "NAME")]
    pub standby: Option<String>,
    /// One database of the cluster alone; all that take connections without it
    #[arg(long, value_name = "NAME")]
    pub within: Option<String>,
    /// These tables alone, as schema.table
    #[arg(long = "table", value_name = "TABLE")]
    pub tables: Vec<String>,
    /// Without these, as schema.table
    #[arg(long = "exclude", value_name = "TABLE")]
    pub exclude: Vec<String>,
    /// The most that is read of each side, as 20MiB/s
    #[arg(long, value_name = "RATE")]
    pub rate: Option<Rate>,
    /// Leave it to a service that has the database, and say only the job's name
    #[arg(long)]
    pub no_wait: bool,
}
