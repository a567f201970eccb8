//! The arguments of `farshore exposure`.

use clap::Subcommand;
use farshore_journal::DatabaseName;

use crate::config::StoreName;

/// `farshore exposure`
#[derive(Debug, Clone, Subcommand)]
pub enum ExposureCommand {
    /// List from when to when each promise did not hold, or was not known to, and why; oldest first
    #[command(before_help = "Examples:
  farshore exposure list
  farshore exposure list orders -o json
  farshore exposure list orders --store main")]
    List {
        /// Of this database alone
        #[arg(value_name = "DB")]
        database: Option<DatabaseName>,
        /// What this store has of it: the catalog is not asked
        #[arg(long, value_name = "NAME")]
        store: Option<StoreName>,
    },
    /// Show one entry with every event of it
    #[command(
        before_help = "Examples:\n  farshore exposure show orders 12\n  farshore exposure show orders 12 --store main"
    )]
    Show {
        /// The database
        #[arg(value_name = "DB")]
        database: DatabaseName,
        /// The entry's number
        #[arg(value_name = "NUMBER")]
        number: u64,
        /// What this store has of it: the catalog is not asked
        #[arg(long, value_name = "NAME")]
        store: Option<StoreName>,
    },
    /// Find events that were changed, removed or put in another place, in every store; says how far each store has them
    #[command(
        before_help = "Examples:\n  farshore exposure verify\n  farshore exposure verify orders --store main -o json"
    )]
    Verify {
        /// Of this database alone
        #[arg(value_name = "DB")]
        database: Option<DatabaseName>,
        /// In this store alone: the catalog is not asked
        #[arg(long, value_name = "NAME")]
        store: Option<StoreName>,
    },
}
