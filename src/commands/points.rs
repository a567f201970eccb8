//! `farshore points`: lists, marks, holds and releases recovery points.

use crate::cli::PointsCommand;
use crate::commands;
use crate::commands::Context;
use crate::exit::Exit;
use crate::message::OperatorMessage;

/// Runs it.
///
/// # Errors
/// Always in this version: its work is not built yet.
#[expect(clippy::unused_async, reason = "waits on the engine once it is wired")]
pub async fn run(context: &mut Context, args: PointsCommand) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let (verb, named) = match &args {
        PointsCommand::List { database } => ("points list", database),
        PointsCommand::Mark { database, .. } => ("points mark", database),
        PointsCommand::Hold { database, .. } => ("points hold", database),
        PointsCommand::Release { database, .. } => ("points release", database),
    };
    commands::database(&config, Some(named))?;
    Err(OperatorMessage::not_built(verb).into())
}
