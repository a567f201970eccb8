//! `farshore restore`: takes a database to any commit.
//!
//! What always holds: the target and the destination are judged before anything is read; in place is refused unless
//! the database's name was typed again, letter for letter, whatever `--yes` says.

use crate::cli::RestoreArgs;
use crate::commands::{self, Context};
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};

/// Runs it.
///
/// # Errors
/// When the confirmation differs, and always in this version: its work is not built yet.
#[expect(clippy::unused_async, reason = "waits on the applier once it is wired")]
pub async fn run(context: &mut Context, args: RestoreArgs) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let (name, _) = commands::database(&config, Some(&args.database))?;
    let (Some(_target), Some(_destination)) = (args.target(), args.destination()) else {
        let refused = OperatorMessage::new(
            Code::RestoreNotConfirmed,
            format!("restoring {name} in place was not confirmed: --confirm must be the database's name"),
            Safe::Known(format!("nothing was written; {name} is as it was")),
            format!("write --confirm {name} if its present content may go, or --to DIR for a copy"),
        );
        return Err(refused.into());
    };
    Err(OperatorMessage::not_built("restore").into())
}
