//! `farshore man`: a manual page in roff, for the program or one verb.

use clap::CommandFactory;

use crate::cli::{Cli, ManArgs};
use crate::commands::Context;
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};

/// Prints it.
///
/// # Errors
/// When there is no such verb, or the output fails.
#[expect(clippy::unused_async, reason = "every verb is awaited alike")]
pub async fn run(context: &mut Context, args: ManArgs) -> anyhow::Result<Exit> {
    let mut root = Cli::command();
    root.build(); // gives the verbs their full names and the flags of every verb
    let mut command = &root;
    for verb in &args.verb {
        command = command.find_subcommand(verb).ok_or_else(|| {
            OperatorMessage::new(
                Code::VerbUnknown,
                format!("there is no verb `{}`", args.verb.join(" ")),
                Safe::Known("nothing was read or written".to_owned()),
                "see `farshore --help`",
            )
        })?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    context.output.bytes(&page)?;
    Ok(Exit::Done)
}
