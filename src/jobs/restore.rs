//! Restores and their plans, as jobs of a service.
//!
//! What always holds: where it goes and what it reads are judged anew when it is done, whatever was judged when it was asked for. A restore that is
//! stopped leaves a marker `running`, with which nothing starts or opens.

use farshore_applier::restore::RestoreOptions;
use farshore_engines::log::Shape;
use farshore_journal::DatabaseName;

use super::held::Reporter;
use super::place;
use super::spec;
use super::work::{Means, message, not_readable};
use crate::cli::zone::Zone;
use crate::commands;
use crate::commands::restore::{self, Chosen, Planned, wish};
use crate::config::DatabaseConfig;
use crate::message::OperatorMessage;

/// What a restore would do.
pub(super) async fn plan(
    means: &Means,
    database: &DatabaseName,
    asked: &spec::Plan,
) -> Result<String, OperatorMessage> {
    let (name, settings) = commands::database(&means.config, Some(database))?;
    let chosen = chosen(means, (name, settings), &asked.target, &asked.history).await?;
    let planned = Box::pin(chosen.planned(&means.config, name)).await.map_err(message)?;
    Ok(restore::plan_result(&planned))
}

/// Restores.
pub(super) async fn restored(
    means: &Means,
    database: &DatabaseName,
    asked: &spec::Restore,
    reporter: &Reporter,
) -> Result<String, OperatorMessage> {
    let (name, settings) = commands::database(&means.config, Some(database))?;
    let directory = place::judged(asked.directory.as_ref(), &means.config.service.restore_roots)?;
    let mut chosen = chosen(means, (name, settings), &asked.target, &asked.history).await?;
    // Whatever the log says, nothing is made outside of `restore_roots`.
    chosen.source = chosen.source.confined();
    if let Shape::Sqlite { .. } = chosen.source.shape() {
        restore::no_server(name, asked.start.is_some(), false)?;
    }
    let mut planned: Planned = Box::pin(chosen.planned(&means.config, name)).await.map_err(message)?;
    // Where the base's own tablespaces go: beside it, and judged like it before anything is written.
    for tablespace in &planned.plan.tablespaces {
        let mut beside = directory.clone().into_os_string();
        beside.push(format!("-tablespace-{}", tablespace.oid));
        place::judged(beside.as_ref(), &means.config.service.restore_roots)?;
    }
    tracing::info!(database = %name, directory = %directory.display(), "{}", restore::describe(&planned, Zone::UTC));
    let start = asked.start.as_ref().map(|start| (start.port, wish::then(start.then)));
    let mut options: RestoreOptions = restore::options(settings, directory, start);
    let done = Box::pin(planned.followed(&mut options, Some(&means.catalog), reporter)).await;
    let restored = done.map_err(|why| restore::failed(name, &planned.source, &options.directory, &why))?;
    let result = restore::result_of(&restored, &planned, options.port);
    restore::leave(restored);
    Ok(result)
}

async fn chosen(
    means: &Means,
    database: (&DatabaseName, &DatabaseConfig),
    target: &spec::Target,
    history: &spec::History,
) -> Result<Chosen, OperatorMessage> {
    let target = wish::target(target).map_err(|why| not_readable(&why))?;
    let history = wish::history(history).map_err(|why| not_readable(&why))?;
    Box::pin(Chosen::open(&means.config, database, &target, &history)).await.map_err(message)
}
