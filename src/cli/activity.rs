//! The arguments of `farshore activity`.

use clap::Subcommand;

use crate::config::StoreName;

/// `farshore activity`
#[derive(Debug, Clone, Subcommand)]
pub enum ActivityCommand {
    /// List who did what, newest first
    #[command(before_help = "Examples:
  farshore activity list
  farshore activity list --before 1000 -o json
  farshore activity list --store main")]
    List {
        /// Only entries older than this number
        #[arg(long, value_name = "NUMBER")]
        before: Option<u64>,
        /// What this store has of it: the catalog is not asked
        #[arg(long, value_name = "NAME")]
        store: Option<StoreName>,
    },
    /// Find entries that were changed, removed or put in another place, in the catalog and in every store; says how far each store has it
    #[command(before_help = "Examples:
  farshore activity verify
  farshore activity verify -o json
  farshore activity verify --store main")]
    Verify {
        /// In this store alone: the catalog is not asked
        #[arg(long, value_name = "NAME")]
        store: Option<StoreName>,
    },
}
