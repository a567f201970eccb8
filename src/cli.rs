//! The command line: every verb, flag and example, and nothing of what they do.
//!
//! What always holds: what clap accepts is a value of a domain type; times, positions and names are judged here. A
//! wrong line ends with exit code 2 before anything is read, except where PostgreSQL reads the code (`exit.rs`).

pub mod access;
pub mod activity;
pub mod compare;
pub mod drill;
pub mod exposure;
pub mod job;
pub mod notify;
pub mod restore;
pub mod schedule;
pub mod standby;
pub mod throttle;
pub mod time;
pub mod zone;

use std::path::PathBuf;

use chrono_tz::Tz;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use farshore_journal::{BackupId, DatabaseName, HoldId};

use self::activity::ActivityCommand;
use self::compare::CompareCommand;
use self::drill::DrillCommand;
use self::exposure::ExposureCommand;
use self::job::JobCommand;
use self::notify::NotifyCommand;
use self::restore::Incarnation;
use self::schedule::ScheduleCommand;
use crate::config::OnFull;
use crate::config::quantity::Span;
pub use access::{TokenCommand, UserCommand};
pub use restore::{History, RestoreArgs};
pub use standby::StandbyCommand;
pub use throttle::ThrottleCommand;
use time::Moment;

/// Ship a database's log off its machine, take it back to any commit.
#[derive(Debug, Parser)]
#[command(name = "farshore", version, max_term_width = 100, propagate_version = true)]
#[command(before_help = "Examples:
  farshore init --url postgresql://farshore@db1/postgres --store s3://bucket/prod --on-full hold
  farshore check orders
  farshore run
  farshore restore orders --at 2026-03-29T14:02:17Z --to ./orders-before --dry-run")]
#[command(
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 not found, 4 refused by a safety rule, \
5 conflict, 6 unreachable, 7 not allowed, 8 objective breached or check failed, 9 finished with findings, 10 partly \
done, 130 interrupted. An unknown code is a failure."
)]
pub struct Cli {
    /// What holds for every verb.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every verb.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The configuration file
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        env = "FARSHORE_CONFIG",
        default_value = "farshore.toml"
    )]
    pub config: PathBuf,
    /// How answers are printed on standard output
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub output: Format,
    /// The time zone of tables, and of times given without an offset, as Europe/Berlin; UTC when not given
    #[arg(long, global = true, value_name = "ZONE", value_parser = parse_zone)]
    pub tz: Option<Tz>,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Answer yes to questions; never enough to restore in place
    #[arg(long, global = true)]
    pub yes: bool,
    /// Ask nothing; fail where an answer is missing
    #[arg(long, global = true)]
    pub no_input: bool,
}

fn parse_zone(text: &str) -> Result<Tz, String> {
    text.parse().map_err(|_| "no such time zone; write one as Europe/Berlin".to_owned())
}

/// `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The engine of the sample database
    #[arg(long, value_enum, default_value = "sqlite")]
    pub engine: DemoEngine,
    /// The folder of PostgreSQL's `postgres` and `initdb`; the newest that is found when not given
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Leave all of it running, and say how to end it
    #[arg(long)]
    pub keep: bool,
}

/// The engine of a sample database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DemoEngine {
    /// A SQLite file: nothing need be installed
    Sqlite,
    /// A PostgreSQL cluster, where its programs are
    Postgres,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people; may change between versions
    Table,
    /// One JSON object with a versioned schema
    Json,
    /// One JSON object a line
    Jsonl,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// See the main job at work: a sample application, its journal, a wrong delete, and the restore
    #[command(before_help = "Examples:
  farshore demo
  farshore demo --engine postgres
  farshore demo --keep")]
    Demo(DemoArgs),
    /// Write a first configuration and say what the DBA must set up
    #[command(before_help = "Examples:
  farshore init
  farshore init --name orders --url postgresql://farshore@db1/postgres --store s3://bucket/prod --on-full hold --no-input
  farshore init --url postgresql://farshore@localhost/postgres --store file:///srv/farshore --on-full bypass --encrypt
  farshore init --name app --path /var/lib/app/app.db --store file:///srv/farshore --no-input")]
    Init(InitArgs),
    /// Ship every database of the configuration until stopped
    #[command(before_help = "Examples:
  farshore run
  farshore -c /etc/farshore/farshore.toml -v run")]
    Run,
    /// Serve journals to PostgreSQL standbys until stopped, and ship nothing
    #[command(before_help = "Examples:
  farshore serve-journal
  farshore -c /etc/farshore/standbys.toml -v serve-journal")]
    ServeJournal,
    /// Take other machines' journals into a directory of this one until stopped, and serve them to standbys where the configuration says so
    #[command(before_help = "Examples:
  farshore receive
  farshore -c /etc/farshore/receiver.toml -v receive")]
    Receive,
    /// Let commits of databases in `sync` go when no store takes them in time, and have them wait again when stores keep up
    #[command(before_help = "Examples:
  farshore guard
  farshore -c /etc/farshore/guard.toml guard orders")]
    Guard(DatabaseChoice),
    /// Check settings, rights, slots, store and keys; say how to mend what is wrong
    #[command(before_help = "Examples:
  farshore check
  farshore check orders -o json")]
    Check(DatabaseChoice),
    /// Show what is stored, how far behind it is and how far back it reaches
    #[command(before_help = "Examples:
  farshore status
  farshore status orders --watch")]
    Status(StatusArgs),
    /// Base backups
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Recovery points: list them, name one, keep one
    #[command(subcommand)]
    Points(PointsCommand),
    /// Restore a database to any commit, by default into a new place
    #[command(before_help = "Examples:
  farshore restore orders --latest --to ./orders-copy --dry-run
  farshore restore orders --at \"2026-03-29 16:02[Europe/Berlin]\" --to ./orders-before --start --port 5433
  farshore restore orders --pos 5F/3AA7B9A0 --in-place --confirm orders --then promote")]
    Restore(RestoreArgs),
    /// A copy of a SQLite database that applications read, kept up to date from a store
    #[command(subcommand)]
    Standby(StandbyCommand),
    /// Prove that the stored journal is whole
    #[command(before_help = "Examples:
  farshore verify
  farshore verify orders -o json
  farshore verify orders --no-wait")]
    Verify(VerifyArgs),
    /// Recovery drills: restore to a scratch place, check it, measure it, sign what came of it
    #[command(subcommand)]
    Drill(DrillCommand),
    /// Hold a standby against its primary: every row, at one position, while both go on
    #[command(subcommand)]
    Compare(CompareCommand),
    /// Long work: what there is, how far it is, what came of it
    #[command(subcommand)]
    Job(JobCommand),
    /// See whether those who are told of trouble can be reached
    #[command(subcommand)]
    Notify(NotifyCommand),
    /// What falls due by a clock
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Who did what, and whether the record of it is as it was written
    #[command(subcommand)]
    Activity(ActivityCommand),
    /// From when to when a promise did not hold, or was not known to, and why
    #[command(subcommand)]
    Exposure(ExposureCommand),
    /// What limits a database's shipping: how it stands, and what rules would have done
    #[command(subcommand)]
    Throttle(ThrottleCommand),
    /// Delete chunks that a merged segment replaces; the one verb whose credential may delete
    #[command(before_help = "Examples:
  farshore -c /etc/farshore/tidy.toml tidy --dry-run
  farshore -c /etc/farshore/tidy.toml tidy orders --grace 3d")]
    Tidy(TidyArgs),
    /// PostgreSQL's archive_command and restore_command
    #[command(subcommand)]
    Wal(WalCommand),
    /// The catalog
    #[command(subcommand)]
    Catalog(CatalogCommand),
    /// Tokens for the REST API
    #[command(subcommand)]
    Token(TokenCommand),
    /// People who log in
    #[command(subcommand)]
    User(UserCommand),
    /// Print completions for a shell
    #[command(before_help = "Examples:
  farshore completions bash > /etc/bash_completion.d/farshore")]
    Completions(CompletionsArgs),
    /// Print the manual page
    #[command(before_help = "Examples:
  farshore man | man -l -
  farshore man restore > farshore-restore.1")]
    Man(ManArgs),
}

/// One database, or all of the configuration.
#[derive(Debug, Clone, Args)]
pub struct DatabaseChoice {
    /// The database; all when not given
    #[arg(value_name = "DB")]
    pub database: Option<DatabaseName>,
}

/// `farshore verify`
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// Which
    #[command(flatten)]
    pub choice: DatabaseChoice,
    /// Leave it to a service that has the database, and say only the job's name
    #[arg(long, requires = "database")]
    pub no_wait: bool,
}

/// `farshore init`
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// A short name for the database: a-z, 0-9, _ and -
    #[arg(long)]
    pub name: Option<DatabaseName>,
    /// Where it is: postgresql://farshore@HOST/DATABASE, further hosts behind commas
    #[arg(long)]
    pub url: Option<String>,
    /// Where it is, for SQLite: the database's file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["url", "password_file", "on_full"])]
    pub path: Option<PathBuf>,
    /// A file that holds the role's password
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Where its journal goes: s3:// gs:// az:// file:///
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// When no more log can be kept: hold (the primary keeps it, its disk may fill) or bypass (its disk is saved,
    /// a gap is recorded and a new base backup follows)
    #[arg(long, value_enum)]
    pub on_full: Option<OnFull>,
    /// The most data, as time, that may be lost
    #[arg(long)]
    pub rpo: Option<Span>,
    /// The most time to resume service
    #[arg(long)]
    pub rto: Option<Span>,
    /// Encrypt the journal; writes a private key that must then be moved away from this machine
    #[arg(long)]
    pub encrypt: bool,
    /// Where the private key is written
    #[arg(long, value_name = "FILE", requires = "encrypt")]
    pub identity_out: Option<PathBuf>,
    /// Where the key is written that signs the journal's heads; it stays on the machine that ships
    #[arg(long, value_name = "FILE")]
    pub signing_key_out: Option<PathBuf>,
}

/// `farshore tidy`
#[derive(Debug, Clone, Args)]
pub struct TidyArgs {
    /// The database; all when not given
    #[arg(value_name = "DB")]
    pub database: Option<DatabaseName>,
    /// How long a chunk and its segment must have stood, by the store's clock; a day at least
    #[arg(long, default_value = "1d", value_parser = parse_grace)]
    pub grace: Span,
    /// Say what would be deleted, and delete nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `farshore backup expire`
#[derive(Debug, Clone, Args)]
pub struct ExpireArgs {
    /// The database; all when not given
    #[arg(value_name = "DB")]
    pub database: Option<DatabaseName>,
    /// How long what is to be deleted must have been marked, by the store's clock; a day at least, and at least what `grace` of
    /// its retention says
    #[arg(long, value_parser = parse_grace, conflicts_with = "no_wait")]
    pub grace: Option<Span>,
    /// Say what would be marked and deleted, and do neither
    #[arg(long)]
    pub dry_run: bool,
    /// Leave it to a service that may delete (`expire = true` in its configuration), and say only the job's name; with
    /// `--dry-run` to one that has the database's rule
    #[arg(long, requires = "database")]
    pub no_wait: bool,
}

/// A shipper may still wait for an answer that is half a grace old (FORMAT.md, R6): less than a day is unsafe.
fn parse_grace(text: &str) -> Result<Span, String> {
    let grace: Span = text.parse().map_err(|why: crate::config::quantity::QuantityError| why.to_string())?;
    match grace.get() >= farshore_journal::writer::TIDY_GRACE {
        true => Ok(grace),
        false => {
            Err("a shipper may still wait for an answer that is half a day old: write 1d or more".to_owned())
        }
    }
}

/// `farshore status`
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// The database; all when not given
    #[arg(value_name = "DB")]
    pub database: Option<DatabaseName>,
    /// Show it again as it changes, until interrupted
    #[arg(long)]
    pub watch: bool,
}

/// `farshore backup`
#[derive(Debug, Clone, Subcommand)]
pub enum BackupCommand {
    /// Take a base backup now
    #[command(before_help = "Examples:
  farshore backup run orders
  farshore backup run orders --refresh
  farshore backup run orders --no-wait")]
    Run {
        /// The database
        #[arg(value_name = "DB")]
        database: DatabaseName,
        /// Put only the blocks that an earlier base backup in the store does not hold; of the others refer to that one, which stays as long
        #[arg(long, conflicts_with = "full")]
        refresh: bool,
        /// Put all blocks, whatever `refresh` of the configuration says
        #[arg(long)]
        full: bool,
        /// Leave it to a service that has the database, and say only the job's name
        #[arg(long)]
        no_wait: bool,
    },
    /// List base backups
    #[command(before_help = "Examples:\n  farshore backup list orders -o json")]
    List(DatabaseChoice),
    /// Delete base backups and log that no rule keeps, a day after they were marked
    #[command(before_help = "Examples:
  farshore -c /etc/farshore/tidy.toml backup expire --dry-run
  farshore -c /etc/farshore/tidy.toml backup expire orders --grace 3d
  farshore backup expire orders --no-wait")]
    Expire(ExpireArgs),
    /// Show one base backup
    #[command(before_help = "Examples:\n  farshore backup show orders 0123456789abcdef0123456789abcdef")]
    Show {
        /// The database
        #[arg(value_name = "DB")]
        database: DatabaseName,
        /// The backup's id
        #[arg(value_name = "BACKUP")]
        backup: BackupId,
    },
}

/// `farshore points`
#[derive(Debug, Clone, Subcommand)]
pub enum PointsCommand {
    /// List recovery points
    #[command(before_help = "Examples:
  farshore points list orders
  farshore points list orders --around 2026-03-29T14:02:17Z
  farshore --tz Europe/Berlin points list orders --around \"2026-03-29 16:02\"")]
    List {
        /// The database
        #[arg(value_name = "DB")]
        database: DatabaseName,
        /// The commits nearest to this time, in place of the newest ones
        #[arg(long, value_name = "TIME")]
        around: Option<Moment>,
        /// Of this incarnation alone, by its number or id; without it of all
        #[arg(long, value_name = "N_OR_ID")]
        incarnation: Option<Incarnation>,
    },
    /// Name the present moment in the database's own log
    #[command(before_help = "Examples:\n  farshore points mark orders before-release-812")]
    Mark {
        /// The database
        #[arg(value_name = "DB")]
        database: DatabaseName,
        /// The name: 1 to 63 bytes
        #[arg(value_parser = parse_point)]
        name: String,
    },
    /// Keep a recovery point from expiry
    #[command(before_help = "Examples:
  farshore points hold orders before-release-812 --reason audit
  farshore points hold orders 1:5F/3AA7B9A0 --reason \"end of the year\" --until 2033-12-31T00:00:00Z")]
    Hold {
        /// The database
        #[arg(value_name = "DB")]
        database: DatabaseName,
        /// The point's name, or a position
        #[arg(value_name = "POINT")]
        point: String,
        /// Why it is kept
        #[arg(long)]
        reason: String,
        /// From when on it is kept no longer; kept until it is released when not given
        #[arg(long, value_name = "TIME")]
        until: Option<Moment>,
        /// Of this incarnation, by its number or id: needed where several hold the point
        #[arg(long, value_name = "N_OR_ID")]
        incarnation: Option<Incarnation>,
    },
    /// List the points that are kept from expiry
    #[command(before_help = "Examples:\n  farshore points holds orders")]
    Holds {
        /// The database
        #[arg(value_name = "DB")]
        database: DatabaseName,
    },
    /// Let expiry take a held recovery point
    #[command(before_help = "Examples:\n  farshore points release orders 0123456789abcdef0123456789abcdef")]
    Release {
        /// The database
        #[arg(value_name = "DB")]
        database: DatabaseName,
        /// The hold, as `points holds` shows it
        #[arg(value_name = "HOLD")]
        hold: HoldId,
    },
}

/// PostgreSQL cuts a restore point's name at 63 bytes without an error: two names could become one.
/// Source: `pg_create_restore_point`, `MAXFNAMELEN` is 64 with its closing zero.
fn parse_point(text: &str) -> Result<String, String> {
    if (1..=63).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("a point's name has 1 to 63 bytes and no control characters".to_owned())
    }
}

/// `farshore wal`
#[derive(Debug, Clone, Subcommand)]
pub enum WalCommand {
    /// archive_command: exits 0 only once the file is stored
    #[command(before_help = "Examples:
  archive_command = 'farshore -c /etc/farshore/farshore.toml wal push %p'")]
    Push {
        /// The database; may be left out when the configuration names one
        #[arg(long = "db", value_name = "DB")]
        database: Option<DatabaseName>,
        /// Exit 0 too for a file whose log lies before the journal's begin or in a recorded gap: it will never be stored
        #[arg(long)]
        pass_unheld: bool,
        /// PostgreSQL's %p
        #[arg(value_name = "%p")]
        path: PathBuf,
    },
    /// restore_command: exits 0 found, 1 only when the store said "not there", 170 for any doubt
    #[command(before_help = "Examples:
  restore_command = 'farshore -c /etc/farshore/farshore.toml wal fetch %f %p'
  restore_command = 'farshore -c /etc/farshore/farshore.toml wal fetch --incarnation 0 %f %p'")]
    Fetch {
        /// The database; may be left out when the configuration names one
        #[arg(long = "db", value_name = "DB")]
        database: Option<DatabaseName>,
        /// Which history
        #[command(flatten)]
        history: History,
        /// PostgreSQL's %f
        #[arg(value_name = "%f")]
        file: String,
        /// PostgreSQL's %p
        #[arg(value_name = "%p")]
        path: PathBuf,
    },
}

/// `farshore catalog`
#[derive(Debug, Clone, Subcommand)]
pub enum CatalogCommand {
    /// Make the catalog anew from the stores
    #[command(before_help = "Examples:\n  farshore catalog rebuild")]
    Rebuild,
}

/// `farshore completions`
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// `farshore man`
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// The verb to describe, as in `man backup run`; the whole program when not given
    #[arg(value_name = "VERB")]
    pub verb: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::restore::{Destination, Incarnation, LogPoint, Target};

    fn restore(line: &str) -> Result<RestoreArgs, clap::error::ErrorKind> {
        let words = ["farshore", "restore", "orders"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).map_err(|e| e.kind())?.command {
            Command::Restore(args) => Ok(args),
            _ => Err(clap::error::ErrorKind::InvalidSubcommand),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_restore_has_exactly_one_target_and_one_destination() {
        use clap::error::ErrorKind::{ArgumentConflict, MissingRequiredArgument};
        for (line, error) in [
            ("", MissingRequiredArgument),
            ("--to x", MissingRequiredArgument),
            ("--latest", MissingRequiredArgument),
            ("--latest --xid 7 --to x", ArgumentConflict),
            ("--latest --to x --in-place --confirm orders", ArgumentConflict),
            ("--latest --in-place", MissingRequiredArgument),
            ("--latest --to x --start", MissingRequiredArgument),
            ("--latest --to x --port 5433", MissingRequiredArgument),
        ] {
            assert_eq!(restore(line).map(|_| ()).unwrap_err(), error, "{line}");
        }
        let args = restore("--pos 4:5F/3AA7B9A0 --to x --tablespace 16412=/srv/fast").unwrap();
        assert!(matches!(args.target(), Some(Target::Pos(LogPoint::On(_)))));
        assert_eq!(args.destination(), Some(Destination::To("x".into())));
        assert_eq!(args.tablespaces.len(), 1);
        let args = restore("--latest --to x --store nas --incarnation 2").unwrap();
        assert_eq!(args.history.incarnation, Some(Incarnation::Number(2)));
        let id = "0123456789abcdef0123456789abcdef";
        let args = restore(&format!("--latest --to x --incarnation {id}")).unwrap();
        assert_eq!(args.history.incarnation, Some(Incarnation::Id(id.parse().unwrap())));
    }

    #[test]
    fn in_place_needs_the_same_name_typed_again() {
        let at = |line| restore(line).unwrap().destination();
        assert_eq!(at("--latest --in-place --confirm orders"), Some(Destination::InPlace));
        assert_eq!(at("--latest --in-place --confirm Orders"), None);
        assert_eq!(at("--latest --in-place --confirm order"), None);
    }

    #[test]
    fn a_point_name_that_postgresql_would_cut_is_refused() {
        assert!(parse_point(&"a".repeat(63)).is_ok());
        assert!(parse_point(&"a".repeat(64)).is_err());
        assert!(parse_point("").is_err());
    }

    #[test]
    fn every_verb_shows_an_example_first() {
        fn walk(command: &clap::Command) {
            if command.has_subcommands() {
                command.get_subcommands().for_each(walk);
            } else {
                let shown = command.get_before_help().map(ToString::to_string).unwrap_or_default();
                assert!(shown.starts_with("Examples:"), "{}", command.get_name());
            }
        }
        walk(&Cli::command());
    }
}
