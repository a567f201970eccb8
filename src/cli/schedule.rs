//! The arguments of `farshore schedule`.

use clap::Subcommand;
use farshore_journal::DatabaseName;

/// `farshore schedule`
#[derive(Debug, Clone, Subcommand)]
pub enum ScheduleCommand {
    /// List what falls due by a clock, when it does next, and which job answered it last
    #[command(before_help = "Examples:\n  farshore schedule list\n  farshore schedule list orders -o json")]
    List {
        /// Of this database alone
        #[arg(value_name = "DB")]
        database: Option<DatabaseName>,
    },
}
