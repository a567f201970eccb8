//! One module a verb: takes the parsed arguments, does the work through the other crates, prints, and says how it
//! ended.
//!
//! What always holds: a verb that fails says so with an [`OperatorMessage`]; an error without one is a fault of
//! ours and is shown as FS-0001. Nothing is printed on standard output but the answer.

pub mod activity;
pub mod backup;
pub mod catalog;
pub mod check;
mod compare;
pub mod completions;
pub mod demo;
pub mod drill;
pub mod expire;
mod exposure;
pub mod guard;
pub mod hold;
pub mod init;
pub mod job;
pub mod man;
pub mod notify;
pub mod points;
pub mod receive;
pub mod restore;
pub mod run;
pub mod schedule;
pub mod serve_journal;
pub mod standby;
pub mod status;
mod throttle;
pub mod tidy;
pub mod token;
pub mod user;
pub mod verify;
pub mod wal;

use farshore_journal::DatabaseName;
use tokio_util::sync::CancellationToken;

use crate::cli::zone::Zone;
use crate::cli::{Cli, Command, Global};
use crate::config::{self, Config, ConfigError, DatabaseConfig};
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::output::Output;

/// What every verb is given.
pub struct Context {
    /// The flags of every verb.
    pub global: Global,
    /// Standard output.
    pub output: Output,
    /// Cancelled when the run is asked to end; long work drains and returns.
    pub cancel: CancellationToken,
}

impl Context {
    /// The configuration, with its warnings logged.
    ///
    /// # Errors
    /// When the file cannot be read or is wrong.
    pub fn config(&self) -> Result<Config, OperatorMessage> {
        let path = &self.global.config;
        let nothing = || Safe::Known("nothing was begun; what is stored is untouched".to_owned());
        let loaded = config::load(path, &config::process_environment());
        let config = loaded.map_err(|error| match error {
            ConfigError::Read { path, source } => OperatorMessage::new(
                Code::ConfigUnreadable,
                format!("the configuration {} cannot be read: {source}", path.display()),
                nothing(),
                "name it with -c, or write a first one with `farshore init`",
            ),
            ConfigError::Invalid(problem) => {
                OperatorMessage::new(Code::ConfigInvalid, problem.to_string(), nothing(), "correct that line")
            }
        })?;
        for warning in &config.warnings {
            tracing::warn!(config = %path.display(), "{warning}");
        }
        Ok(config)
    }
}

/// One database of the configuration: the one named, or the only one.
///
/// # Errors
/// When it is not there, or none is named and there is not exactly one.
pub fn database<'a>(
    config: &'a Config,
    named: Option<&DatabaseName>,
) -> Result<(&'a DatabaseName, &'a DatabaseConfig), OperatorMessage> {
    let known = || config.databases.keys().map(DatabaseName::as_str).collect::<Vec<_>>().join(", ");
    let nothing = || Safe::Known("nothing was begun".to_owned());
    match named {
        Some(name) => config.databases.get_key_value(name).ok_or_else(|| {
            OperatorMessage::new(
                Code::DatabaseUnknown,
                format!("no database is named {name} in {}", config.path.display()),
                nothing(),
                format!("name one of: {}", known()),
            )
        }),
        None => {
            let mut all = config.databases.iter();
            match (all.next(), all.next()) {
                (Some(only), None) => Ok(only),
                (None, _) => Err(OperatorMessage::new(
                    Code::DatabaseUnknown,
                    format!("{} names no database", config.path.display()),
                    nothing(),
                    "add a [databases.NAME] table",
                )),
                (Some(_), Some(_)) => Err(OperatorMessage::new(
                    Code::DatabaseAmbiguous,
                    format!("{} names several databases and this command needs one", config.path.display()),
                    nothing(),
                    format!("name one of: {}", known()),
                )),
            }
        }
    }
}

/// The databases a verb is about: the one named, or all.
///
/// # Errors
/// When the one named is not there, or there is none at all.
pub fn databases<'a>(
    config: &'a Config,
    named: Option<&DatabaseName>,
) -> Result<Vec<(&'a DatabaseName, &'a DatabaseConfig)>, OperatorMessage> {
    if named.is_some() || config.databases.is_empty() {
        return database(config, named).map(|one| vec![one]);
    }
    Ok(config.databases.iter().collect())
}

/// Runs the verb of a parsed line.
///
/// # Errors
/// What the verb says; an [`OperatorMessage`] unless it is a fault of ours.
pub async fn dispatch(cli: Cli, cancel: CancellationToken) -> anyhow::Result<Exit> {
    let output = Output::stdout(cli.global.output).in_zone(Zone::of(cli.global.tz));
    let mut context = Context { global: cli.global, output, cancel };
    match cli.command {
        Command::Demo(args) => demo::run(&mut context, args).await,
        Command::Init(args) => init::run(&mut context, args).await,
        Command::Run => run::run(&mut context).await,
        Command::ServeJournal => serve_journal::run(&mut context).await,
        Command::Receive => receive::run(&mut context).await,
        Command::Guard(args) => guard::run(&mut context, args).await,
        Command::Check(args) => check::run(&mut context, args).await,
        Command::Status(args) => status::run(&mut context, args).await,
        Command::Backup(args) => backup::run(&mut context, args).await,
        Command::Points(args) => points::run(&mut context, args).await,
        Command::Restore(args) => restore::run(&mut context, args).await,
        Command::Standby(command) => standby::run(&mut context, command).await,
        Command::Verify(args) => verify::run(&mut context, args).await,
        Command::Drill(command) => Box::pin(drill::run(&mut context, command)).await,
        Command::Compare(command) => Box::pin(compare::run(&mut context, command)).await,
        Command::Job(command) => job::run(&mut context, command).await,
        Command::Notify(command) => notify::run(&mut context, command).await,
        Command::Schedule(command) => schedule::run(&mut context, command).await,
        Command::Activity(command) => activity::run(&mut context, command).await,
        Command::Exposure(command) => exposure::run(&mut context, command).await,
        Command::Throttle(command) => throttle::run(&mut context, command).await,
        Command::Tidy(args) => tidy::run(&mut context, args).await,
        Command::Wal(args) => wal::run(&mut context, args).await,
        Command::Catalog(args) => catalog::run(&mut context, args).await,
        Command::Token(command) => token::run(&mut context, command).await,
        Command::User(command) => user::run(&mut context, command).await,
        Command::Completions(args) => completions::run(&mut context, args).await,
        Command::Man(args) => man::run(&mut context, args).await,
    }
}
