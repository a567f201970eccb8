//! `farshore wal`: PostgreSQL's `archive_command` and `restore_command`. Its exit codes are translated in `exit.rs`:
//! return [`Exit::FetchAbsent`] from `wal fetch` only when the store said "not there".

use farshore_applier::wal_fetch::{self, Fetched};

use crate::cli::WalCommand;
use crate::commands::{self, Context};
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::sources;

/// Segments fetched ahead of the one that is asked for.
const AHEAD: u32 = 4;

/// Runs it.
///
/// # Errors
/// Any doubt, for `wal fetch`: PostgreSQL then stops instead of ending recovery early. `wal push` is not built yet.
pub async fn run(context: &mut Context, args: WalCommand) -> anyhow::Result<Exit> {
    let config = context.config()?;
    match args {
        WalCommand::Push { database, .. } => {
            commands::database(&config, database.as_ref())?;
            Err(OperatorMessage::not_built("wal push").into())
        }
        WalCommand::Fetch { database, file, path } => {
            let (name, _) = commands::database(&config, database.as_ref())?;
            let source = sources::current(&config, name).await?;
            match Box::pin(wal_fetch::fetch(&source, &file, &path, AHEAD)).await {
                Ok(Fetched::Found { .. }) => Ok(Exit::Done),
                Ok(Fetched::NotThere) => Ok(Exit::FetchAbsent),
                Err(why) => Err(OperatorMessage::new(
                    Code::FetchDoubt,
                    format!("{file} could not be fetched: {why}"),
                    Safe::Unknown(
                        "whether the journal holds it could not be settled; recovery must not end here"
                            .to_owned(),
                    ),
                    "mend what it says; PostgreSQL asks again when it is started again",
                )
                .into()),
            }
        }
    }
}
