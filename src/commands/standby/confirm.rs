//! The word that a standby is removed on: `--yes`, or what is typed at a terminal.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use crate::commands::Context;
use crate::message::{Code, OperatorMessage, Safe};

/// The longest line that is read, in bytes.
const LONGEST: u64 = 256;

/// Asks whether a directory may be removed, unless `--yes` said so.
///
/// # Errors
/// When it may not, or nothing may be asked.
pub(super) async fn confirmed(
    context: &Context,
    directory: &Path,
    what: &str,
) -> Result<(), OperatorMessage> {
    if context.global.yes {
        return Ok(());
    }
    let place = directory.display().to_string();
    if context.global.no_input || !io::stdin().is_terminal() {
        return Err(refused(&place, what, "that was not confirmed, and nothing may be asked"));
    }
    let question = format!("{what}, in {place}, is removed with all files. Type `yes` to remove it: ");
    // The terminal holds up a thread.
    let answering = tokio::task::spawn_blocking(move || asked(&question));
    // Whoever interrupts the question has said no, whatever is typed then.
    let answer = tokio::select! {
        answer = answering => answer,
        () = context.cancel.cancelled() => return Err(refused(&place, what, "it was interrupted")),
    };
    match answer {
        Ok(Ok(answer)) if answer.trim() == "yes" => Ok(()),
        Ok(Ok(_)) => Err(refused(&place, what, "the answer was not `yes`")),
        Ok(Err(why)) => Err(refused(&place, what, &why.to_string())),
        Err(why) => Err(refused(&place, what, &why.to_string())),
    }
}

fn asked(question: &str) -> io::Result<String> {
    io::stderr().write_all(question.as_bytes())?;
    let mut line = String::new();
    io::stdin().lock().take(LONGEST).read_line(&mut line)?;
    Ok(line)
}

fn refused(place: &str, what: &str, why: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::StandbyRefused,
        format!("{what}, in `{place}`, was not removed: {why}"),
        Safe::Known("nothing was changed, stopped or removed".to_owned()),
        "give `--yes` too where it is to be removed",
    )
}
