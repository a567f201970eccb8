//! `farshore standby pause` and `resume`: a PostgreSQL standby's replay is held, and let go.
//!
//! What always holds: a pause is said only once the server says that replay stands, and where. Log is received all the while, for as long as the connection lasts. A copy of SQLite is held by ending the process that keeps it.

use std::time::Duration;

use farshore_engines::postgres::sql::Pause;
use serde::Serialize;
use tokio::time::Instant;

use super::place::{Place, Standby};
use super::server::Server;
use crate::cli::standby::StandbyServerArgs;
use crate::commands::Context;
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};

/// Replay stops between two records; one of them takes an instant, unless queries hold it up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Serialize)]
struct Shown {
    directory: std::path::PathBuf,
    database: String,
    standby: String,
    paused: bool,
    /// The end of what its queries see, on the timeline that it replays.
    replayed: Option<String>,
    /// The end of what it has received.
    received: String,
    /// Whether log comes in now.
    streams: bool,
}

/// Runs either.
pub(super) async fn run(context: &mut Context, args: &StandbyServerArgs, hold: bool) -> anyhow::Result<Exit> {
    let standby = match Place::look(&args.place.to)? {
        Place::Postgres(standby) => standby,
        Place::Leaving(directory) => return Err(super::remove::left(&directory).into()),
        Place::Sqlite(directory) => return Err(a_process(&directory, hold).into()),
    };
    let mut server = Server::ask(&standby, args.user.as_deref(), Duration::ZERO).await?;
    if !hold && server.recovery().await?.has_target {
        return Err(super::told_server::has_target(&standby).into());
    }
    let told = match hold {
        true => server.session.replay_pause().await,
        false => server.session.replay_resume().await,
    };
    told.map_err(|why| server.unanswered(&why))?;
    let until = Instant::now() + PATIENCE;
    let recovery = loop {
        let recovery = server.recovery().await?;
        let done = match hold {
            true => recovery.pause == Pause::Held,
            false => recovery.pause == Pause::Not,
        };
        match (done, recovery.in_recovery) {
            (true, true) => break recovery,
            (false, true) if Instant::now() < until && !context.cancel.is_cancelled() => {
                tokio::time::sleep(LOOK).await;
            }
            (false, true) if context.cancel.is_cancelled() => return Ok(Exit::Interrupted),
            (false, true) => return Err(not_in_time(&standby, hold).into()),
            (_, false) => {
                let database = standby.database.as_str();
                return Err(super::place::of_its_own(&standby.directory, database).into());
            }
        }
    };
    let received = server.received().await?;
    server.leave().await;
    let at = recovery
        .replayed
        .map(|offset| farshore_journal::Position::new(received.timeline, offset).to_string());
    let shown = Shown {
        directory: standby.directory.clone(),
        database: standby.database.to_string(),
        standby: standby.name.clone(),
        paused: hold,
        replayed: at,
        received: received.to_string(),
        streams: recovery.streams,
    };
    let comes = match (recovery.streams, hold) {
        (true, _) => "log is received all the while",
        // Replay asks for the connection, when it needs more: `WaitForWALToBecomeAvailable` in `xlogrecovery.c`.
        (false, true) => {
            "no log comes in now, and a server that is held does not connect again: resume it for that"
        }
        (false, false) => "no log comes in now: it connects by itself once whoever serves it is there",
    };
    let place = shown.replayed.as_deref().unwrap_or("no position yet");
    let text = match hold {
        true => format!("paused     {} at {place}; {comes}\nreceived   {}\n", standby.name, shown.received),
        false => {
            format!("replays    {} from {place} on; {comes}\nreceived   {}\n", standby.name, shown.received)
        }
    };
    context.output.one("farshore.standby-replay/1", &shown, &text)?;
    Ok(Exit::Done)
}

fn not_in_time(standby: &Standby, hold: bool) -> OperatorMessage {
    let (seconds, directory) = (PATIENCE.as_secs(), standby.directory.display());
    let what = match hold {
        true => "to hold its replay, and it has not stopped",
        false => "to replay on, and it has not begun",
    };
    OperatorMessage::new(
        Code::StandbyUndone,
        format!("the server of the standby in `{directory}` was told {what} within {seconds} s"),
        Safe::Known("it was told so still, and does it once the record in hand is replayed; log is received all the while".to_owned()),
        "look in pg_stat_activity for queries that replay waits for, then give the same command again",
    )
}

/// A copy of SQLite, which no server keeps.
fn a_process(directory: &std::path::Path, hold: bool) -> OperatorMessage {
    let directory = directory.display();
    let next = match hold {
        true => {
            "stop `farshore standby run` (SIGTERM): the copy then stays as of its last transaction, and can be read"
        }
        false => "start `farshore standby run` with the same directory: the copy goes on from where it is",
    };
    OperatorMessage::new(
        Code::StandbyRefused,
        format!(
            "what lies in `{directory}` is a copy of a SQLite database, which `farshore standby run` keeps, and no server whose replay could be held"
        ),
        Safe::Known("nothing was changed".to_owned()),
        next,
    )
}
