//! The arguments of `farshore throttle`.

use clap::Subcommand;
use farshore_journal::DatabaseName;

use crate::config::quantity::Span;

/// `farshore throttle`
#[derive(Debug, Clone, Subcommand)]
pub enum ThrottleCommand {
    /// List each database's limit and the rules that may set one, how they stand, since when and why
    #[command(before_help = "Examples:
  farshore throttle list
  farshore throttle list orders -o json")]
    List {
        /// Of this database alone
        #[arg(value_name = "DB")]
        database: Option<DatabaseName>,
    },
    /// Say what the rules of the configuration would have done, from what was measured; nothing is done
    #[command(before_help = "Examples:
  farshore throttle test
  farshore -c ./draft.toml throttle test orders --since 2h")]
    Test {
        /// Of this database alone
        #[arg(value_name = "DB")]
        database: Option<DatabaseName>,
        /// From so long ago on; what was measured is kept for a day
        #[arg(long, value_name = "SPAN", default_value = "24h")]
        since: Span,
    },
}
