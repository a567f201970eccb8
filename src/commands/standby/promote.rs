//! `farshore standby promote`: a standby becomes a database of its own: here a copy of SQLite, and in `promote_server.rs` one that a PostgreSQL server keeps.
//!
//! What always holds: it has all that its store holds of the database, or `--as-it-is` said that it need not. A store that cannot be asked is not taken for one that holds no more.

use std::path::{Path, PathBuf};

use farshore_applier::source::Source;
use farshore_applier::standby::{self, Origin, Promoted, StandbyError, State};
use farshore_engines::sqlite::check::Checked;
use farshore_engines::sqlite::standby::Standing;
use serde::Serialize;

use super::place::Place;
use super::told::{as_of, behind, time, told, unasked};
use super::{Journals, PATIENCE, journals, promote_server, remove};
use crate::cli::restore::Target;
use crate::cli::standby::StandbyPromoteArgs;
use crate::commands::restore::hold_against_heads;
use crate::commands::{self, Context};
use crate::exit::Exit;

#[derive(Serialize)]
struct Shown {
    file: PathBuf,
    position: String,
    transaction: Option<u64>,
    time: Option<String>,
    /// Whether all that the store holds is in it; none where the store was not asked.
    reaches_the_end: Option<bool>,
}

/// Runs it.
pub(super) async fn run(context: &mut Context, args: &StandbyPromoteArgs) -> anyhow::Result<Exit> {
    match Place::look(&args.server.place.to)? {
        Place::Sqlite(_) => {}
        Place::Postgres(standby) => return Box::pin(promote_server::run(context, args, &standby)).await,
        Place::Leaving(directory) => return Err(remove::left(&directory).into()),
    }
    let directory = std::path::absolute(&args.server.place.to)?;
    let source = match args.as_it_is {
        true => None,
        false => {
            let (state, standing) = looked(&directory).await?;
            let found = Box::pin(held(context, &state)).await;
            Some(found.map_err(|why| unasked(&directory, &standing, &why))?)
        }
    };
    let until = tokio::time::Instant::now() + PATIENCE;
    let promoted = loop {
        match Box::pin(standby::promote(&directory, source.as_ref(), &context.cancel)).await {
            // A look at it has it for an instant.
            Err(StandbyError::Busy { .. }) if tokio::time::Instant::now() < until => {
                tokio::time::sleep(PATIENCE / 20).await;
            }
            Err(StandbyError::CutOff) if context.cancel.is_cancelled() => return Ok(Exit::Interrupted),
            other => break other,
        }
    };
    let promoted = promoted.map_err(|why| match &why {
        StandbyError::Behind { standing, left, why } => behind(&directory, standing, *left, why),
        _ => told(&directory, None, &why),
    })?;
    show(context, promoted, source.is_some())
}

/// The standby's own journal, held against what is known of its end: one whose end was cut off is none that a promotion may call all there is.
async fn held(context: &Context, state: &State) -> anyhow::Result<Source> {
    let config = context.config()?;
    let (name, settings) = commands::database(&config, Some(&state.origin.database))?;
    let Origin { database, store, incarnation, .. } = &state.origin;
    let Journals { mut all, own, store } = journals(&config, (database, *store, *incarnation)).await?;
    let source = all.swap_remove(own);
    hold_against_heads(&config, name, settings, &source, store.as_str(), &Target::Latest, true).await?;
    Ok(source)
}

/// What a standby is of, and where it stands. One that is kept up to date, or promoted, is refused by the promotion itself.
async fn looked(directory: &Path) -> anyhow::Result<(State, Standing)> {
    let at = directory.to_owned();
    let looked = tokio::task::spawn_blocking(move || standby::look(&at)).await?;
    let (state, standing, running) = looked.map_err(|why| told(directory, None, &why))?;
    let refused = match (state.role, running) {
        (standby::Role::Promoted, _) => StandbyError::Promoted { directory: directory.to_owned() },
        (_, true) => StandbyError::Busy { directory: directory.to_owned() },
        _ => return Ok((state, standing)),
    };
    Err(told(directory, None, &refused).into())
}

fn show(context: &mut Context, promoted: Promoted, asked: bool) -> anyhow::Result<Exit> {
    let Promoted { file, standing, checked } = promoted;
    let found = match checked {
        Checked::Whole => "SQLite finds it whole".to_owned(),
        Checked::InPart { why } => {
            format!(
                "SQLite could check it only in part ({why}): have the application ask `pragma integrity_check`"
            )
        }
    };
    let holds = match asked {
        true => "it has all that is stored",
        false => "whether the store holds more was not asked",
    };
    let text = format!(
        "promoted   {} as of {}; {holds}; {found}; it is free for use\n",
        file.display(),
        as_of(&standing)
    );
    let (position, transaction, time) = (standing.end.to_string(), standing.transaction, time(&standing));
    let shown = Shown { file, position, transaction, time, reaches_the_end: asked.then_some(true) };
    context.output.one("farshore.standby-promoted/1", &shown, &text)?;
    Ok(Exit::Done)
}
