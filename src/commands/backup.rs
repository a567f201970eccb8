//! `farshore backup`: takes, lists and shows base backups.

use crate::cli::BackupCommand;
use crate::commands;
use crate::commands::Context;
use crate::exit::Exit;
use crate::message::OperatorMessage;

/// Runs it.
///
/// # Errors
/// Always in this version: its work is not built yet.
#[expect(clippy::unused_async, reason = "waits on the engine once it is wired")]
pub async fn run(context: &mut Context, args: BackupCommand) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let (verb, named) = match &args {
        BackupCommand::Run { database } => ("backup run", Some(database)),
        BackupCommand::List(choice) => ("backup list", choice.database.as_ref()),
        BackupCommand::Show { database, .. } => ("backup show", Some(database)),
    };
    commands::databases(&config, named)?;
    Err(OperatorMessage::not_built(verb).into())
}
