//! `farshore catalog`: makes the catalog anew from the stores.

use crate::cli::CatalogCommand;
use crate::commands::Context;
use crate::exit::Exit;
use crate::message::OperatorMessage;

/// Runs it.
///
/// # Errors
/// Always in this version: its work is not built yet.
#[expect(clippy::unused_async, reason = "waits on the engine once it is wired")]
pub async fn run(context: &mut Context, args: CatalogCommand) -> anyhow::Result<Exit> {
    context.config()?;
    let verb = match args {
        CatalogCommand::Rebuild => "catalog rebuild",
    };
    Err(OperatorMessage::not_built(verb).into())
}
