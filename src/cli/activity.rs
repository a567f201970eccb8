//! The arguments of `farshore activity`.

use clap::Subcommand;

/// `farshore activity`
#[derive(Debug, Clone, Subcommand)]
pub enum ActivityCommand {
    /// List who did what, newest first
    #[command(
        before_help = "Examples:\n  farshore activity list\n  farshore activity list --before 1000 -o json"
    )]
    List {
        /// Only entries older than this number
        #[arg(long, value_name = "NUMBER")]
        before: Option<u64>,
    },
    /// Find entries that were changed, removed or put in another place
    #[command(before_help = "Examples:\n  farshore activity verify\n  farshore activity verify -o json")]
    Verify,
}
