//! `farshore standby status`: where a copy stands, and how far it is behind what is stored.
//!
//! What always holds: nothing is written. A copy whose database began anew is never called up to date, and one that somebody else wrote to is an error.

use std::path::PathBuf;

use chrono::Utc;
use farshore_applier::standby::{self, Ended, How, Origin, Role, State};
use farshore_engines::sqlite::standby::Standing;
use farshore_journal::{DatabaseName, Offset};
use serde::Serialize;

use super::journals;
use super::told::{time, told};
use crate::cli::standby::StandbyPlace;
use crate::cli::zone::Zone;
use crate::commands::Context;
use crate::exit::Exit;

/// What a copy is, for people and programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Shows {
    /// It is kept up to date, or can be.
    Standby,
    /// Its journal goes no further.
    Ended,
    /// It is a database of its own.
    Promoted,
}

#[derive(Serialize)]
struct Shown {
    database: DatabaseName,
    incarnation: String,
    file: PathBuf,
    role: Shows,
    running: bool,
    /// Why it does not go on, or why its last run ended.
    why: Option<String>,
    position: String,
    transaction: Option<u64>,
    /// When the last applied commit was seen.
    time: Option<String>,
    /// The journal's end; none where the store cannot be read.
    stored: Option<String>,
    /// None where that is not known, and where the database began anew.
    lag_bytes: Option<u64>,
    lag_seconds: Option<f64>,
}

/// What the store says of a standby's journal.
struct Stored {
    end: Option<Offset>,
    /// The incarnation that the database has now, where it is another.
    newer: Option<String>,
}

/// Runs it.
pub(super) async fn run(context: &mut Context, place: &StandbyPlace) -> anyhow::Result<Exit> {
    let directory = std::path::absolute(&place.to)?;
    let at = directory.clone();
    let looked = tokio::task::spawn_blocking(move || standby::look(&at)).await?;
    let (state, standing, running) = looked.map_err(|why| told(&directory, None, &why))?;
    let stored = match state.role {
        Role::Standby => stored(context, &state).await,
        Role::Promoted | Role::Spoiled => Stored { end: None, newer: None },
    };
    // Where the database has another journal, the end of this one says nothing of how far behind the copy is.
    let anew = stored.newer.is_some() || state.ended.as_ref().is_some_and(|ended| ended.how == How::Anew);
    let (role, why) = shows(&state, running, stored.newer);
    let lag = stored.end.filter(|_| !anew).map(|end| end.get().saturating_sub(standing.end.get()));
    let shown = shown(directory.join(&state.file), &state, &standing, (role, running, why), stored.end, lag);
    let text = text(&shown, context.output.zone());
    context.output.one("farshore.standby-status/1", &shown, &text)?;
    Ok(Exit::Done)
}

/// What a copy is, and why it is not more.
fn shows(state: &State, running: bool, newer: Option<String>) -> (Shows, Option<String>) {
    let ended = state.ended.as_ref().filter(|_| !running);
    let said = |ended: &Ended| format!("{} (found at {})", ended.what, ended.at);
    match (state.role, newer, ended) {
        (Role::Promoted, _, _) => (Shows::Promoted, None),
        (_, Some(newer), _) => (Shows::Ended, Some(newer)),
        (_, None, Some(ended)) => match ended.how {
            How::NoFurther | How::Anew => (Shows::Ended, Some(said(ended))),
            How::Stopped | How::Spoiled => (Shows::Standby, Some(said(ended))),
        },
        (_, None, None) => (Shows::Standby, None),
    }
}

fn shown(
    file: PathBuf,
    state: &State,
    standing: &Standing,
    (role, running, why): (Shows, bool, Option<String>),
    stored: Option<Offset>,
    lag_bytes: Option<u64>,
) -> Shown {
    #[allow(clippy::cast_precision_loss)] // seconds, for people
    let behind = |seen: i64| (Utc::now().timestamp_micros() - seen).max(0) as f64 / 1e6;
    Shown {
        database: state.origin.database.clone(),
        incarnation: state.origin.incarnation.to_string(),
        file,
        role,
        running,
        why,
        position: standing.end.to_string(),
        transaction: standing.transaction,
        time: time(standing),
        stored: stored.map(|end| end.to_string()),
        lag_bytes,
        // What is stored is applied: nothing is behind, however old the last commit is.
        lag_seconds: lag_bytes
            .and_then(|bytes| if bytes == 0 { Some(0.0) } else { standing.seen_micros.map(behind) }),
    }
}

fn text(shown: &Shown, zone: Zone) -> String {
    let lag = match (shown.lag_bytes, shown.lag_seconds) {
        (Some(bytes), Some(seconds)) => format!("{bytes} B, {seconds:.1} s"),
        (Some(bytes), None) => format!("{bytes} B"),
        _ => "unknown".to_owned(),
    };
    let why = shown.why.as_deref().unwrap_or_default();
    let role = match (shown.role, shown.running) {
        (Shows::Promoted, _) => "promoted: a database of its own".to_owned(),
        (Shows::Ended, _) => format!("ended: {why}"),
        (Shows::Standby, true) => "standby, kept up to date".to_owned(),
        (Shows::Standby, false) if why.is_empty() => "standby, stopped".to_owned(),
        (Shows::Standby, false) => format!("standby, stopped: {why}"),
    };
    format!(
        "file         {}\nrole         {role}\nof           {}, incarnation {}\nposition     {}\ntransaction  {}\ntime         {}\nlag          {lag}\n",
        shown.file.display(),
        shown.database,
        shown.incarnation,
        shown.position,
        shown.transaction.map_or_else(|| "?".to_owned(), |number| number.to_string()),
        shown.time.as_deref().map_or_else(|| "?".to_owned(), |time| zone.show_written(time)),
    )
}

/// What the store says; nothing, and why is logged, where it cannot be read.
async fn stored(context: &Context, state: &State) -> Stored {
    let read = async {
        let Origin { database, store, incarnation, .. } = &state.origin;
        let found = journals(&context.config()?, (database, *store, *incarnation)).await?;
        let newer = found.newer();
        let last = found.all[found.own].reader().chunks_end().await?;
        anyhow::Ok(Stored { end: last.map(|chunk| chunk.header().end), newer })
    };
    read.await.unwrap_or_else(|why| {
        tracing::warn!(error = %why, "the journal's end is not known");
        Stored { end: None, newer: None }
    })
}
