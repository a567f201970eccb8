//! `farshore verify`: proves that the stored journal is whole.

use crate::cli::DatabaseChoice;
use crate::commands;
use crate::commands::Context;
use crate::exit::Exit;
use crate::message::OperatorMessage;

/// Runs it.
///
/// # Errors
/// Always in this version: its work is not built yet.
#[expect(clippy::unused_async, reason = "waits on the engine once it is wired")]
pub async fn run(context: &mut Context, args: DatabaseChoice) -> anyhow::Result<Exit> {
    let config = context.config()?;
    commands::databases(&config, args.database.as_ref())?;
    Err(OperatorMessage::not_built("verify").into())
}
