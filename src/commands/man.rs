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
    // The page's writer leaves out what stands before the help, which is where our examples are.
    if let Some(examples) = command.get_before_help() {
        page.extend_from_slice(examples_section(&examples.to_string()).as_bytes());
    }
    context.output.bytes(&page)?;
    Ok(Exit::Done)
}

/// A section of lines kept as they are. A line that begins with `.` or `'` would be a command to roff, and a
/// backslash an escape.
fn examples_section(text: &str) -> String {
    let escape = |line: &str| format!("\\&{}\n", line.trim_start().replace('\\', "\\e").replace('-', "\\-"));
    let lines: String = text.lines().filter(|line| *line != "Examples:").map(escape).collect();
    format!(".SH EXAMPLES\n.nf\n{lines}.fi\n")
}
