//! `farshore notify`.

use clap::Subcommand;

/// What is done about notifications.
#[derive(Debug, Subcommand)]
pub enum NotifyCommand {
    /// Send a test by one channel of the configuration, or by all of them, and say what the other side answered
    #[command(before_help = "Examples:\n  farshore notify test\n  farshore notify test pager -o json")]
    Test {
        /// The channel; all when not given
        channel: Option<String>,
    },
}
