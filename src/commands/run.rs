//! `farshore run`: ships every database of the configuration until stopped.

use crate::commands::Context;
use crate::exit::Exit;
use crate::message::OperatorMessage;

/// Runs it.
///
/// # Errors
/// Always in this version: its work is not built yet.
#[expect(clippy::unused_async, reason = "waits on the engine once it is wired")]
pub async fn run(context: &mut Context) -> anyhow::Result<Exit> {
    context.config()?;
    Err(OperatorMessage::not_built("run").into())
}
