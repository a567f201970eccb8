//! `farshore standby`: copies that are kept up to date from a store: of SQLite by a process of ours, of PostgreSQL by a stock server.
//!
//! What always holds: a copy begins as `restore --latest` makes one, and is held against signed heads as that is, in a directory that is a standby's from its first byte. Whatever ends
//! a run, the message says what the copy is and as of when.

mod backfresh;
mod confirm;
mod create;
mod kept;
mod list;
mod pause;
mod place;
mod promote;
mod promote_server;
mod remove;
mod server;
mod status;
mod successor;
mod told;
mod told_server;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farshore_applier::plan::{Asked, Plan, PlanError, resolve};
use farshore_applier::source::Source;
use farshore_applier::standby::{Found, Prepared, Standby, StandbyError};
use farshore_journal::{DatabaseName, IncarnationId, StoreId};
use tokio::time::Instant;

use crate::cli::restore::Target;
use crate::cli::standby::{StandbyCommand, StandbyRunArgs};
use crate::commands::restore::{hold_against_heads, may_be_misled, unreachable};
use crate::commands::{self, Context};
use crate::config::{Config, StoreName};
use crate::exit::Exit;
use crate::sources;
use told::{not_made, stopped};

/// How long a directory may be taken by a look at it, which takes an instant.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a backup that is complete may wait for its last log to be stored: a shipper's flush.
const FLUSH: Duration = Duration::from_secs(10);

/// Runs it.
///
/// # Errors
/// When there is no standby, it cannot be made, or does not go on.
pub async fn run(context: &mut Context, command: StandbyCommand) -> anyhow::Result<Exit> {
    match command {
        StandbyCommand::Run(args) => Box::pin(keep(context, args)).await,
        StandbyCommand::Status(place) => status::run(context, &place).await,
        StandbyCommand::Promote(args) => Box::pin(promote::run(context, &args)).await,
        StandbyCommand::Pause(args) => Box::pin(pause::run(context, &args, true)).await,
        StandbyCommand::Resume(args) => Box::pin(pause::run(context, &args, false)).await,
        StandbyCommand::Drop(args) => Box::pin(remove::run(context, &args)).await,
        StandbyCommand::Create(args) => Box::pin(create::run(context, args)).await,
        StandbyCommand::Backfresh(args) => Box::pin(backfresh::run(context, args)).await,
        StandbyCommand::List(args) => list::list(context, args).await,
        StandbyCommand::Forget(args) => list::forget(context, args).await,
    }
}

async fn keep(context: &mut Context, args: StandbyRunArgs) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let (name, settings) = commands::database(&config, Some(&args.database))?;
    let directory = std::path::absolute(&args.to)?;
    let held = sources::chosen(&config, name, &args.history).await?;
    let (source, store) = (held.source, held.store);
    let named = args.history.incarnation.is_some();
    let why_not = |why: StandbyError| stopped(name, &directory, None, &why);
    let found = patient(|| Standby::find(&directory, &source)).await.map_err(why_not)?;
    let standby = match found {
        Found::Standby(standby) => *standby,
        Found::Nothing => {
            hold_against_heads(&config, name, settings, &source, &store, &Target::Latest, named).await?;
            let Some(plan) = planned(context, name, &source).await? else { return Ok(Exit::Interrupted) };
            let prepared = patient(|| Standby::prepare(&directory, &source)).await.map_err(why_not)?;
            match made(context, name, &source, &directory, &prepared, plan).await? {
                Some(standby) => standby,
                None => return Ok(Exit::Interrupted),
            }
        }
    };
    let state = standby.state().clone();
    let every = args.every.map_or_else(|| sources::look_interval(&config, &store), |every| every.get());
    let followed = standby.follow(&source, every, &context.cancel).await;
    let (standing, ended) = followed.map_err(|why| stopped(name, &directory, Some(&state.now), &why))?;
    ended.map_err(|why| stopped(name, &directory, Some(&standing), &why))?;
    tracing::info!(position = %standing.end, transaction = standing.transaction, "the standby is stopped");
    Ok(Exit::Done)
}

/// Takes a directory, patient with a look at it.
async fn patient<T>(take: impl Fn() -> Result<T, StandbyError>) -> Result<T, StandbyError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match take() {
            Err(StandbyError::Busy { .. }) if Instant::now() < until => {
                tokio::time::sleep(PATIENCE / 20).await;
            }
            other => return other,
        }
    }
}

/// The plan of the newest state, patient with a backup that was just completed; `None` when the run was asked to end meanwhile.
async fn planned(context: &Context, name: &DatabaseName, source: &Source) -> anyhow::Result<Option<Plan>> {
    let until = Instant::now() + FLUSH;
    loop {
        match Box::pin(resolve(source, Asked::Latest)).await {
            Ok(plan) => return Ok(Some(plan)),
            Err(PlanError::NoBase { unfit, .. }) if unfit > 0 && Instant::now() < until => {
                tokio::select! {
                    () = context.cancel.cancelled() => return Ok(None),
                    () = tokio::time::sleep(FLUSH / 40) => {}
                }
            }
            Err(why) => return Err(unreachable(name, &why, None).into()),
        }
    }
}

/// Makes the copy; `None` when the run was asked to end meanwhile.
async fn made(
    context: &Context,
    name: &DatabaseName,
    source: &Source,
    directory: &Path,
    prepared: &Prepared,
    mut plan: Plan,
) -> anyhow::Result<Option<Standby>> {
    let mut source = source.clone();
    loop {
        let made = tokio::select! {
            () = context.cancel.cancelled() => return Ok(None),
            made = Box::pin(prepared.make(&source, &plan, Arc::new(|_| {}))) => made,
        };
        match made {
            Ok(standby) => return Ok(Some(standby)),
            Err(why) if source.asks_index() && may_be_misled(&why, &plan) => {
                tracing::warn!(error = %why, "the journal's index may have misled the restore: it begins anew, planned from the log alone");
                source = source.without_index();
                match planned(context, name, &source).await? {
                    Some(other) => plan = other,
                    None => return Ok(None),
                }
            }
            Err(why) => return Err(not_made(name, directory, &why).into()),
        }
    }
}

/// Every incarnation of a standby's database in the standby's own store.
struct Journals {
    /// Oldest first.
    all: Vec<Source>,
    /// Which of them is the standby's.
    own: usize,
    store: StoreName,
}

impl Journals {
    /// What began behind the standby's own incarnation, in words.
    fn newer(&self) -> Option<String> {
        let own = self.all.get(self.own).map(|source| source.record().number);
        let newest = self.all.iter().map(|source| source.record()).max_by_key(|record| record.number);
        newest.filter(|newest| own.is_some_and(|own| newest.number > own)).map(|newest| {
            let (number, id, created) = (newest.number, newest.incarnation, &newest.created);
            format!("incarnation {number} ({id}) of the database began at {created}")
        })
    }
}

/// The journals of a database in the store of this id, which holds this incarnation.
async fn journals(
    config: &Config,
    (database, in_store, incarnation): (&DatabaseName, StoreId, IncarnationId),
) -> anyhow::Result<Journals> {
    let (name, settings) = commands::database(config, Some(database))?;
    let mut unread = None;
    for store in &settings.stores {
        match sources::all(config, name, store).await {
            Err(why) => unread = Some(why),
            Ok(all) => {
                let own = all.iter().position(|source| {
                    source.reader().store_id() == in_store && source.record().incarnation == incarnation
                });
                if let Some(own) = own {
                    return Ok(Journals { all, own, store: store.clone() });
                }
            }
        }
    }
    Err(unread.unwrap_or_else(|| {
        anyhow::anyhow!("no store of {name} in the configuration is the standby's ({in_store}) and holds its incarnation ({incarnation})")
    }))
}
