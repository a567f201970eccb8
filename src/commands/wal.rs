//! `farshore wal`: PostgreSQL's `archive_command` and `restore_command`. Its exit codes are translated in `exit.rs`:
//! return [`Exit::FetchAbsent`] from `wal fetch` only when the store said "not there".

use crate::cli::WalCommand;
use crate::commands;
use crate::commands::Context;
use crate::exit::Exit;
use crate::message::OperatorMessage;

/// Runs it.
///
/// # Errors
/// Always in this version: its work is not built yet.
#[expect(clippy::unused_async, reason = "waits on the engine once it is wired")]
pub async fn run(context: &mut Context, args: WalCommand) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let (verb, named) = match &args {
        WalCommand::Push { database, .. } => ("wal push", database.as_ref()),
        WalCommand::Fetch { database, .. } => ("wal fetch", database.as_ref()),
    };
    commands::database(&config, named)?;
    Err(OperatorMessage::not_built(verb).into())
}
