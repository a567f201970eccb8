//! What needs not to be root, run by root: PostgreSQL refuses root, and whoever plays the demo with it as root plays it as the user that
//! PostgreSQL's packages make.

use std::os::unix::process::ExitStatusExt;

use nix::unistd::{User, geteuid};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::process::{Ending, Process};
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};

/// The user.
const NAME: &str = "postgres";

/// Whom root becomes; nothing for everybody else, who stays who he is.
///
/// # Errors
/// When there is no such user.
pub(super) fn user() -> Result<Option<User>, OperatorMessage> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    match User::from_name(NAME) {
        Ok(Some(user)) if !user.uid.is_root() => Ok(Some(user)),
        _ => Err(OperatorMessage::new(
            Code::RootRefused,
            format!(
                "PostgreSQL does not run as root, and there is no user `{NAME}` on this machine to run it as"
            ),
            Safe::Known("nothing was begun".to_owned()),
            "run it as another user; `farshore demo` plays the same with SQLite, as root too",
        )),
    }
}

/// Runs this very command as a user, and ends as it ends.
///
/// # Errors
/// When it cannot be started.
pub(super) async fn again_as(user: &User, cancel: &CancellationToken) -> anyhow::Result<Exit> {
    // The program itself may be used, whoever may see the place where it is.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("farshore").args(std::env::args_os().skip(1));
    // Along with the user go the groups of root's.
    command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    command.env("HOME", &user.dir).env("USER", &user.name).env("LOGNAME", &user.name);
    let mut process = Process::start(command, Ending::PARENT)?;
    tokio::select! {
        () = cancel.cancelled() => process.ask(),
        status = process.child().wait() => return Ok(exit(status?)),
    }
    // It cleans up after itself, however long that takes.
    Ok(exit(process.child().wait().await?))
}

fn exit(status: std::process::ExitStatus) -> Exit {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let known = Exit::ALL.into_iter().find(|exit| Some(exit.code()) == code);
    match status.signal() {
        Some(_) => Exit::Interrupted,
        None => known.unwrap_or(Exit::Failed),
    }
}
