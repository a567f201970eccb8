//! `farshore completions`: a script for a shell.

use clap::CommandFactory;

use crate::cli::{Cli, CompletionsArgs};
use crate::commands::Context;
use crate::exit::Exit;

/// Prints it.
///
/// # Errors
/// When the output fails.
#[expect(clippy::unused_async, reason = "every verb is awaited alike")]
pub async fn run(context: &mut Context, args: CompletionsArgs) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "farshore", &mut script);
    context.output.bytes(&script)?;
    Ok(Exit::Done)
}
