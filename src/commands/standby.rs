//! `farshore standby`: a copy of a SQLite database that applications read, kept up to date from a store.
//!
//! What always holds: a copy begins as `restore --latest` makes one, and is held against signed heads as that is. Whatever ends a run, the copy is whole; the message says as of when.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_applier::plan::{Asked, resolve};
use farshore_applier::restore::{self, RestoreError, RestoreOptions};
use farshore_applier::source::Source;
use farshore_applier::standby::{self, Found, Role, Standby, StandbyError};
use farshore_engines::sqlite::check::Checked;
use farshore_engines::sqlite::standby::{CopyError, Standing};
use farshore_journal::DatabaseName;
use serde::Serialize;

use crate::cli::restore::{History, Incarnation, Target};
use crate::cli::standby::{StandbyCommand, StandbyPlace, StandbyRunArgs};
use crate::commands::restore::{failed, hold_against_heads, may_be_misled, unreachable};
use crate::commands::{self, Context};
use crate::config::{Config, StoreName};
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::sources;

/// How often a directory's chunks are looked for.
const EVERY_LOCAL: Duration = Duration::from_millis(50);
/// The same of a store that answers over a network, and may count questions.
const EVERY_REMOTE: Duration = Duration::from_secs(1);
/// How long a directory may be taken by a look at it, which takes an instant.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs it.
///
/// # Errors
/// When there is no standby, it cannot be made, or does not go on.
pub async fn run(context: &mut Context, command: StandbyCommand) -> anyhow::Result<Exit> {
    match command {
        StandbyCommand::Run(args) => Box::pin(keep(context, args)).await,
        StandbyCommand::Status(place) => status(context, &place).await,
        StandbyCommand::Promote(place) => promote(context, &place).await,
    }
}

async fn keep(context: &mut Context, args: StandbyRunArgs) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let (name, settings) = commands::database(&config, Some(&args.database))?;
    let directory = std::path::absolute(&args.to)?;
    let held = sources::chosen(&config, name, &args.history).await?;
    let (source, store) = (held.source, held.store);
    let named = args.history.incarnation.is_some();
    let standby = match find(&directory, &source).await {
        Ok(Found::Standby(standby)) => standby,
        Ok(Found::Nothing) => {
            hold_against_heads(&config, name, settings, &source, &store, &Target::Latest, named).await?;
            if !made(context, name, &source, &directory).await? {
                return Ok(Exit::Interrupted);
            }
            match find(&directory, &source).await {
                Ok(Found::Standby(standby)) => standby,
                Ok(Found::Nothing) => return Err(stopped(name, &directory, None, &none(&directory)).into()),
                Err(why) => return Err(stopped(name, &directory, None, &why).into()),
            }
        }
        Err(why) => return Err(stopped(name, &directory, None, &why).into()),
    };
    let state = standby.state().clone();
    let every = args.every.map_or_else(|| default_interval(&config, &store), |every| every.get());
    let followed = standby.follow(&source, every, &context.cancel).await;
    let (standing, ended) = followed.map_err(|why| stopped(name, &directory, Some(&state.now), &why))?;
    ended.map_err(|why| stopped(name, &directory, Some(&standing), &why))?;
    tracing::info!(position = %standing.end, transaction = standing.transaction, "the standby is stopped");
    Ok(Exit::Done)
}

/// As [`Standby::find`], patient with a look at the directory.
async fn find(directory: &Path, source: &Source) -> Result<Found, StandbyError> {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        match Standby::find(directory, source) {
            Err(StandbyError::Busy { .. }) if tokio::time::Instant::now() < until => {
                tokio::time::sleep(PATIENCE / 20).await;
            }
            other => return other,
        }
    }
}

/// Restores the newest state; `false` when the run was asked to end meanwhile.
async fn made(
    context: &Context,
    name: &DatabaseName,
    source: &Source,
    directory: &Path,
) -> anyhow::Result<bool> {
    let mut source = source.clone();
    let options = RestoreOptions {
        directory: directory.to_owned(),
        tablespaces: std::collections::BTreeMap::new(),
        // A standby that was cut off while it was made is made again by the same command.
        resume: true,
        port: 0,
        shared_buffers_limit: 0,
        preload: Vec::new(),
        start: None,
    };
    loop {
        let plan =
            Box::pin(resolve(&source, Asked::Latest)).await.map_err(|why| unreachable(name, &why, None))?;
        let restored = tokio::select! {
            () = context.cancel.cancelled() => return Ok(false),
            restored = Box::pin(restore::run(&source, &plan, &options, Arc::new(|_| {}))) => restored,
        };
        match restored {
            Ok(_) => return Ok(true),
            Err(why) if source.asks_index() && may_be_misled(&why, &plan) => {
                tracing::warn!(error = %why, "the journal's index may have misled the restore: it begins anew, planned from the log alone");
                source = source.without_index();
            }
            Err(RestoreError::Busy { directory }) => {
                return Err(stopped(
                    name,
                    &directory,
                    None,
                    &StandbyError::Busy { directory: directory.clone() },
                )
                .into());
            }
            Err(why) => return Err(failed(name, &source, directory, &why).into()),
        }
    }
}

fn default_interval(config: &Config, store: &str) -> Duration {
    let store: Option<StoreName> = store.parse().ok();
    let url = store.and_then(|store| config.stores.get(&store)).map(|settings| settings.url.to_string());
    match url.is_some_and(|url| url.starts_with("file:")) {
        true => EVERY_LOCAL,
        false => EVERY_REMOTE,
    }
}

#[derive(Serialize)]
struct Shown {
    database: DatabaseName,
    incarnation: String,
    file: PathBuf,
    role: Role,
    running: bool,
    position: String,
    transaction: Option<u64>,
    /// When the last applied commit was seen.
    time: Option<String>,
    /// The journal's end; none where the store cannot be read.
    stored: Option<String>,
    lag_bytes: Option<u64>,
    lag_seconds: Option<f64>,
}

async fn status(context: &mut Context, place: &StandbyPlace) -> anyhow::Result<Exit> {
    let directory = std::path::absolute(&place.to)?;
    let at = directory.clone();
    let looked = tokio::task::spawn_blocking(move || standby::look(&at)).await?;
    let (state, standing, running) = looked.map_err(|why| told(&directory, None, &why))?;
    let stored = match state.role {
        Role::Promoted => None,
        Role::Standby => stored(context, &state).await,
    };
    let lag_bytes = stored.map(|end| end.saturating_sub(standing.end.get()));
    #[allow(clippy::cast_precision_loss)] // seconds, for people
    let behind = |seen: i64| (Utc::now().timestamp_micros() - seen).max(0) as f64 / 1e6;
    let shown = Shown {
        database: state.database.clone(),
        incarnation: state.incarnation.to_string(),
        file: directory.join(&state.file),
        role: state.role,
        running,
        position: standing.end.to_string(),
        transaction: standing.transaction,
        time: time(&standing),
        stored: stored.map(|end| farshore_journal::Offset::new(end).to_string()),
        lag_bytes,
        // What is stored is applied: nothing is behind, however old the last commit is.
        lag_seconds: lag_bytes
            .and_then(|bytes| if bytes == 0 { Some(0.0) } else { standing.seen_micros.map(behind) }),
    };
    let lag = match (shown.lag_bytes, shown.lag_seconds) {
        (Some(bytes), Some(seconds)) => format!("{bytes} B, {seconds:.1} s"),
        (Some(bytes), None) => format!("{bytes} B"),
        _ => "unknown".to_owned(),
    };
    let role = match (shown.role, shown.running) {
        (Role::Promoted, _) => "promoted: a database of its own",
        (Role::Standby, true) => "standby, kept up to date",
        (Role::Standby, false) => "standby, stopped",
    };
    let text = format!(
        "file         {}\nrole         {role}\nof           {}, incarnation {}\nposition     {}\ntransaction  {}\ntime         {}\nlag          {lag}\n",
        shown.file.display(),
        shown.database,
        shown.incarnation,
        shown.position,
        shown.transaction.map_or_else(|| "?".to_owned(), |number| number.to_string()),
        shown.time.as_deref().map_or_else(|| "?".to_owned(), |time| context.output.zone().show_written(time)),
    );
    context.output.one("farshore.standby-status/1", &shown, &text)?;
    Ok(Exit::Done)
}

/// Where the standby's journal ends; `None`, and why is logged, where that cannot be read.
async fn stored(context: &Context, state: &standby::State) -> Option<u64> {
    let read = async {
        let config = context.config()?;
        let (name, settings) = commands::database(&config, Some(&state.database))?;
        let incarnation = Some(Incarnation::Id(state.incarnation));
        for store in &settings.stores {
            let history = History { store: Some(store.clone()), incarnation };
            let held = sources::chosen(&config, name, &history).await?;
            if held.source.reader().store_id() == state.store {
                let last = held.source.reader().last().await?;
                return Ok(last.map(|chunk| chunk.header().end.get()));
            }
        }
        anyhow::Ok(None)
    };
    read.await.unwrap_or_else(|why| {
        tracing::warn!(error = %why, "the journal's end is not known");
        None
    })
}

async fn promote(context: &mut Context, place: &StandbyPlace) -> anyhow::Result<Exit> {
    let directory = std::path::absolute(&place.to)?;
    let at = directory.clone();
    let promoted = tokio::task::spawn_blocking(move || standby::promote(&at)).await?;
    let (file, standing, checked) = promoted.map_err(|why| told(&directory, None, &why))?;
    let found = match checked {
        Checked::Whole => "SQLite finds it whole".to_owned(),
        Checked::InPart { why } => {
            format!(
                "SQLite could check it only in part ({why}): have the application ask `pragma integrity_check`"
            )
        }
    };
    #[derive(Serialize)]
    struct Promoted {
        file: PathBuf,
        position: String,
        transaction: Option<u64>,
        time: Option<String>,
    }
    let text =
        format!("promoted   {} as of {}; {found}; it is free for use\n", file.display(), as_of(&standing));
    let (position, transaction, time) = (standing.end.to_string(), standing.transaction, time(&standing));
    context.output.one(
        "farshore.standby-promoted/1",
        &Promoted { file, position, transaction, time },
        &text,
    )?;
    Ok(Exit::Done)
}

fn time(standing: &Standing) -> Option<String> {
    let time = standing.seen_micros.and_then(DateTime::from_timestamp_micros);
    time.map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn as_of(standing: &Standing) -> String {
    let number =
        standing.transaction.map_or_else(|| "an unknown one".to_owned(), |number| number.to_string());
    let time = time(standing).map_or_else(String::new, |time| format!(", seen at {time}"));
    format!("transaction {number}{time} (position {})", standing.end)
}

fn none(directory: &Path) -> StandbyError {
    StandbyError::None { directory: directory.to_owned() }
}

fn stopped(
    name: &DatabaseName,
    directory: &Path,
    standing: Option<&Standing>,
    why: &StandbyError,
) -> OperatorMessage {
    let message = told(directory, standing, why);
    OperatorMessage {
        happened: format!("the standby of {name} does not go on: {}", message.happened),
        ..message
    }
}

/// What it means.
fn told(directory: &Path, standing: Option<&Standing>, why: &StandbyError) -> OperatorMessage {
    let whole = || match standing {
        Some(standing) => Safe::Known(format!(
            "the copy in `{}` is whole as of {}, and applications may go on reading it; the store was only read",
            directory.display(),
            as_of(standing)
        )),
        None => {
            Safe::Known(format!("nothing in `{}` was changed; the store was only read", directory.display()))
        }
    };
    let (code, safe, next) = match why {
        StandbyError::Gap { .. } | StandbyError::Cut { .. } | StandbyError::Anew { .. } => (
            Code::StandbyEnded,
            whole(),
            "make it anew: `farshore standby run` into an empty directory, then have the applications read that one",
        ),
        StandbyError::OfAnother { .. } => (
            Code::StandbyEnded,
            whole(),
            "make it anew in an empty directory; or name its own incarnation with --incarnation, to bring it to the end of that one",
        ),
        StandbyError::Copy(CopyError::Written { .. }) => (
            Code::StandbyWritten,
            Safe::Unknown(
                "what was written to the copy is in it still, and was not the primary's; the store was only read".to_owned(),
            ),
            "find who writes there (or ran a RESTART or TRUNCATE checkpoint) and have it read only; then make the standby anew in an empty directory",
        ),
        StandbyError::Busy { .. } => (
            Code::StandbyTaken,
            whole(),
            "stop the process that has it (SIGTERM to `farshore standby run`), then give the same command again",
        ),
        StandbyError::Promoted { .. } | StandbyError::Other { .. } => {
            (Code::StandbyTaken, whole(), "use what is there, or name an empty directory")
        }
        StandbyError::None { .. } => {
            (Code::StandbyUnknown, whole(), "name the directory that `farshore standby run --to` was given")
        }
        StandbyError::Damaged(_) | StandbyError::Journal(_) => (
            Code::StandbyFailed,
            whole(),
            "`farshore verify` names what is wrong with the journal; mend the store and start it again: it goes on from there, or make it anew from another store",
        ),
        StandbyError::Unsound(_) => (
            Code::StandbyFailed,
            Safe::Unknown("the copy stays a standby and was not promoted; the store was only read".to_owned()),
            "restore from the store with `farshore restore`",
        ),
        StandbyError::Engine => {
            (Code::StandbyFailed, whole(), "use `farshore restore` for a database of another engine")
        }
        StandbyError::State { .. } | StandbyError::Copy(_) | StandbyError::CutOff => {
            (Code::StandbyFailed, whole(), "mend what it says, then start it again: it goes on from there")
        }
    };
    OperatorMessage::new(code, why.to_string(), safe, next)
}
