//! The arguments of `farshore drill`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use farshore_journal::format::VerifyKey;
use farshore_journal::{DatabaseName, DrillId, ParseError};

use crate::config::StoreName;
use crate::drill::point::Point;

/// `farshore drill`
#[derive(Debug, Clone, Subcommand)]
pub enum DrillCommand {
    /// Restore to a scratch place now, check the copy, measure each phase, remove it; ends with 8 when a check failed or the objective is breached
    #[command(before_help = "Examples:
  farshore drill run orders
  farshore drill run orders --point random --seed 42 --scratch /srv/drills
  farshore drill run orders --point \"2026-11-26T14:02:17Z\" -o json
  farshore drill run orders --no-wait")]
    Run(DrillRun),
    /// List drills, newest first
    #[command(before_help = "Examples:\n  farshore drill list orders -o json")]
    List {
        /// Of this database alone
        #[arg(value_name = "DB")]
        database: Option<DatabaseName>,
    },
    /// Show one drill: what was restored, how long it took, what each check found
    #[command(before_help = "Examples:\n  farshore drill show 0123456789abcdef0123456789abcdef")]
    Show {
        /// The drill's id
        #[arg(value_name = "DRILL")]
        drill: DrillId,
    },
    /// What all drills came to, for whoever asks for proof: as JSON, or as a page that prints
    #[command(before_help = "Examples:
  farshore drill report -o json
  farshore drill report orders --html report.html")]
    Report {
        /// Of this database alone
        #[arg(value_name = "DB")]
        database: Option<DatabaseName>,
        /// Write a page of its own into this file, which must not be there
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// Check a certificate with the public key alone; ends with 8 when it does not hold
    #[command(before_help = "Examples:
  farshore drill verify 0123456789abcdef0123456789abcdef
  farshore drill verify certificate.json --key 3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")]
    Verify {
        /// A certificate's file, or a drill's id, which is looked for in the stores
        #[arg(value_name = "FILE_OR_DRILL")]
        which: Which,
        /// A public key that counts; those of the configuration when none is given
        #[arg(long = "key", value_name = "HEX")]
        keys: Vec<VerifyKey>,
    },
}

/// `farshore drill run`
#[derive(Debug, Clone, Args)]
pub struct DrillRun {
    /// The database
    #[arg(value_name = "DB")]
    pub database: DatabaseName,
    /// latest, random (evenly over what can be restored to), oldest, a time, a position, or a named point; the configuration's without it
    #[arg(long, value_name = "POINT")]
    pub point: Option<Point>,
    /// Where the copy goes and is removed from; the configuration's without it
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// The seed of a random choice, to make the same one again
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// The store to read from; without it the first of the database's stores that holds it
    #[arg(long, value_name = "NAME")]
    pub store: Option<StoreName>,
    /// Leave it to a service that has the database, and say only the job's name
    #[arg(long)]
    pub no_wait: bool,
}

/// Which certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// That of this drill, in a store.
    Drill(DrillId),
    /// A file.
    File(PathBuf),
}

impl std::str::FromStr for Which {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Ok(text.parse().map_or_else(|_| Self::File(text.into()), Self::Drill))
    }
}
