//! The arguments of `farshore job`.

use clap::Subcommand;
use farshore_catalog::job::JobId;
use farshore_journal::DatabaseName;

/// `farshore job`
#[derive(Debug, Clone, Subcommand)]
pub enum JobCommand {
    /// List long work, newest first
    #[command(before_help = "Examples:
  farshore job list
  farshore job list orders --unended -o json")]
    List {
        /// Of this database alone
        #[arg(value_name = "DB")]
        database: Option<DatabaseName>,
        /// Only what waits or is being done
        #[arg(long)]
        unended: bool,
    },
    /// Show one job: what was asked, how far it is, what came of it
    #[command(before_help = "Examples:\n  farshore job show jb-4k9x2m7q3d")]
    Show {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobId,
    },
    /// Follow a job until it ends; ends with 0 when it succeeded, 9 when it found damage, 8 when it breached an objective, 1 when it failed, 130 when it was cancelled
    #[command(before_help = "Examples:\n  farshore job watch jb-4k9x2m7q3d")]
    Watch {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobId,
    },
    /// End a job at its next safe point
    #[command(before_help = "Examples:\n  farshore job cancel jb-4k9x2m7q3d")]
    Cancel {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobId,
    },
}
