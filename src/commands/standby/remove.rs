//! `farshore standby drop`: a standby is removed with its directory, and forgotten.
//!
//! What always holds: only what says of itself that it is a standby's is removed, held against all others of ours, and never a database of its own, nor one whose server runs: looked at again behind each wait. Removal goes by open handles,
//! from a folder to a name in it, and follows no link: tablespaces and log that lie elsewhere are named and stay. Behind the mark `global/pg_control` goes first, so that what a cut leaves
//! cannot be started (or, right behind the mark, is judged again as a standby is); the mark goes last, so that the same command goes on with it.
//!
//! ```text
//! judged ─▶ confirmed ─▶ (server stopped) ─▶ forgotten in the catalog ─▶ marked ─▶ pg_control ─▶ the rest ─▶ the mark ─▶ the directory
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::Utc;
use farshore_applier::restore::{self, MARKER, RestoreError};
use farshore_applier::standby::{self as copies, STATE};
use farshore_catalog::standby::StandbyState;
use farshore_engines::postgres::standby::Postmaster;
use farshore_journal::DatabaseName;
use serde::Serialize;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::patient;
use super::place::{LEAVING, Place, Standby, no_standby};
use super::told::told;
use crate::cli::standby::StandbyDropArgs;
use crate::commands::Context;
use crate::commands::standby::confirm::confirmed;
use crate::drill::process::{Process, is_server_in, stop_server_in, working_in};
use crate::drill::removal::Folder;
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring;

/// For a fast stop with its last restart point.
const STOPPING: Duration = Duration::from_secs(120);
/// Until whoever serves a standby has written down that it left.
const LEAVES: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(200);

#[derive(Default, Serialize)]
struct Shown {
    directory: PathBuf,
    database: Option<DatabaseName>,
    standby: Option<String>,
    stopped: bool,
    /// Whether the catalog forgot it; none where it could not be asked, or was not to be.
    forgotten: Option<bool>,
    /// What lies elsewhere, and stays.
    left: Vec<PathBuf>,
    /// Why the empty directory stays, if it does.
    directory_left: Option<String>,
}

/// Runs it.
pub(super) async fn run(context: &mut Context, args: &StandbyDropArgs) -> anyhow::Result<Exit> {
    match Place::look(&args.place.to)? {
        Place::Sqlite(directory) => of_sqlite(context, &directory).await,
        Place::Postgres(standby) => of_postgres(context, *standby, args.stop).await,
        Place::Leaving(directory) => {
            let _held = held(&directory)?;
            // A cut may have come before it could be started no more.
            let server = may_go(&directory, seen(&directory).await?, args.stop)?;
            still_a_standby(&directory)?;
            confirmed(context, &directory, "what is left of a standby whose removal was begun").await?;
            if let Some(server) = server {
                stopped(&directory, server).await?;
            }
            nobody_came(&directory).await?;
            still_a_standby(&directory)?;
            let shown = Shown { directory: directory.clone(), stopped: server.is_some(), ..Shown::default() };
            gone(context, shown, LEAVING).await
        }
    }
}

async fn of_sqlite(context: &mut Context, directory: &Path) -> anyhow::Result<Exit> {
    let leaving = patient(|| copies::leave(directory)).await.map_err(|why| told(directory, None, &why))?;
    confirmed(context, directory, &format!("the standby of {}", leaving.database)).await?;
    let shown = Shown {
        directory: directory.to_owned(),
        database: Some(leaving.database.clone()),
        ..Shown::default()
    };
    gone(context, shown, STATE).await
}

async fn of_postgres(context: &mut Context, standby: Standby, stop: bool) -> anyhow::Result<Exit> {
    let directory = standby.directory.clone();
    let _held = held(&directory)?;
    may_go(&directory, seen(&directory).await?, stop)?;
    confirmed(context, &directory, &format!("the standby {} of {}", standby.name, standby.database)).await?;
    // An answer takes as long as it takes: it may have been started since, or promoted, and that one is not stopped.
    let server = may_go(&directory, seen(&directory).await?, stop)?;
    is_the_same(&directory, &standby)?;
    if let Some(server) = server {
        stopped(&directory, server).await?;
    }
    let forgotten = match forgotten(context, &standby).await {
        Ok(forgotten) => Some(forgotten),
        Err(why) => {
            tracing::warn!(error = %why, "`farshore standby forget {} {}` has the catalog forget it", standby.database, standby.name);
            None
        }
    };
    nobody_came(&directory).await?;
    is_the_same(&directory, &standby)?;
    let at = directory.clone();
    let left = spawn_blocking(move || {
        let left = elsewhere(&at);
        let folder = Folder::at(&at)?;
        folder.rename(MARKER, LEAVING)?;
        folder.remove_file(&["global"], "pg_control")?;
        std::io::Result::Ok(left)
    });
    let left = left.await?.map_err(|why| not_removed(&directory, &why.to_string()))?;
    let shown = Shown {
        directory,
        database: Some(standby.database),
        standby: Some(standby.name),
        stopped: server.is_some(),
        forgotten,
        left,
        directory_left: None,
    };
    let done = gone(context, shown, LEAVING).await?;
    Ok(if forgotten.is_some() { done } else { Exit::Partial })
}

/// Removes all that is in a directory, `last` behind all others, and its name; says so.
async fn gone(context: &mut Context, shown: Shown, last: &'static str) -> anyhow::Result<Exit> {
    let at = shown.directory.clone();
    let removed = spawn_blocking(move || {
        let folder = Folder::at(&at)?;
        folder.empty(last)?;
        std::io::Result::Ok(folder.remove_name().err().map(|why| why.to_string()))
    });
    let directory_left = removed.await?.map_err(|why| not_removed(&shown.directory, &why.to_string()))?;
    let shown = Shown { directory_left, ..shown };
    context.output.one("farshore.standby-dropped/1", &shown, &text(&shown))?;
    Ok(Exit::Done)
}

fn text(shown: &Shown) -> String {
    let place = shown.directory.display();
    let mut text = match &shown.directory_left {
        None => format!("removed    {place}\n"),
        Some(why) => format!("emptied    {place}; the empty directory stays: {why}\n"),
    };
    if let (Some(database), Some(standby)) = (&shown.database, &shown.standby) {
        text += &match shown.forgotten {
            Some(true) => format!("forgotten  {standby} of {database}\n"),
            Some(false) => {
                format!("forgotten  nothing: the catalog knows no {standby} of {database} that is away\n")
            }
            None => format!(
                "forgotten  nothing: the catalog was not asked; `farshore standby forget {database} {standby}`\n"
            ),
        };
    }
    for left in &shown.left {
        text += &format!("stays      {}\n", left.display());
    }
    text
}

fn held(directory: &Path) -> Result<restore::Held, OperatorMessage> {
    match restore::hold(directory) {
        Ok(Some(held)) => Ok(held),
        Ok(None) => Err(no_standby(directory, "it is gone")),
        Err(RestoreError::Busy { .. }) => {
            Err(taken(directory, "another process of farshore's has it", "wait until that has ended"))
        }
        Err(why) => Err(no_standby(directory, &why.to_string())),
    }
}

/// Who works in a directory now.
async fn seen(directory: &Path) -> anyhow::Result<Runs> {
    let at = directory.to_owned();
    Ok(spawn_blocking(move || runs(&at)).await?)
}

/// Refuses where a server was started since it was judged, or by itself once it was stopped.
async fn nobody_came(directory: &Path) -> anyhow::Result<()> {
    match seen(directory).await? {
        Runs::Nobody => Ok(()),
        runs => Err(may_go(directory, runs, false).err().unwrap_or_else(|| changed(directory)).into()),
    }
}

/// Refuses where what lies there is not what was judged: promoted, or another.
fn is_the_same(directory: &Path, standby: &Standby) -> Result<(), OperatorMessage> {
    match Place::look(directory)? {
        Place::Postgres(now) if now.incarnation == standby.incarnation && now.system == standby.system => {
            Ok(())
        }
        _ => Err(changed(directory)),
    }
}

/// Refuses what could be started and is no standby: it was marked, cut off, started and promoted.
fn still_a_standby(directory: &Path) -> Result<(), OperatorMessage> {
    let has = |name: &str| directory.join(name).exists();
    match has("global/pg_control") && !has("standby.signal") {
        true => Err(super::place::of_its_own(directory, "a database")),
        false => Ok(()),
    }
}

fn changed(directory: &Path) -> OperatorMessage {
    no_standby(directory, "it changed meanwhile")
}

/// Who works in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Runs {
    /// Nobody that may be seen.
    Nobody,
    /// A server, by its postmaster.
    Server(Process),
    /// Processes that are none of a server that its file names.
    Others(Vec<i32>),
    /// Whether a server runs cannot be seen.
    Unknown(String),
}

/// Looks who does. What the directory's file names is believed once that process is seen to be a server's that works there.
fn runs(directory: &Path) -> Runs {
    let named = match Postmaster::read(directory) {
        Ok(named) => named,
        Err(why) => return Runs::Unknown(why.to_string()),
    };
    if let Some(postmaster) = named
        && let Some(process) = Process::of(postmaster.pid)
    {
        match is_server_in(process, directory) {
            Some(true) => return Runs::Server(process),
            // The number was given to another since.
            Some(false) => {}
            None => return Runs::Unknown(format!("process {} is another user's", postmaster.pid)),
        }
    }
    match working_in(directory) {
        others if others.is_empty() => Runs::Nobody,
        others => Runs::Others(others.into_iter().map(|process| process.pid).collect()),
    }
}

/// Why a directory is not one in which nobody works; `None` where nobody does.
pub(super) fn works_in(directory: &Path) -> Option<String> {
    match runs(directory) {
        Runs::Nobody => None,
        Runs::Server(server) => Some(format!("its server runs (process {})", server.pid)),
        Runs::Others(pids) => Some(format!("processes work in it: {}", listed(&pids))),
        Runs::Unknown(why) => Some(format!("whether its server runs cannot be seen: {why}")),
    }
}

/// Whether a directory may go, and which server is to be stopped before.
fn may_go(directory: &Path, runs: Runs, stop: bool) -> Result<Option<Process>, OperatorMessage> {
    match (runs, stop) {
        (Runs::Nobody, _) => Ok(None),
        (Runs::Server(server), true) => Ok(Some(server)),
        (Runs::Server(server), false) => Err(taken(
            directory,
            &format!("its server runs (process {})", server.pid),
            "stop it, or give `--stop` too, which stops it as `pg_ctl stop -m fast` does",
        )),
        (Runs::Others(pids), _) => Err(taken(
            directory,
            &format!("processes work in it, and none of them is its server: {}", listed(&pids)),
            "end them (a shell that stands there is one), then give the same command again",
        )),
        (Runs::Unknown(why), _) => Err(taken(
            directory,
            &format!("whether its server runs cannot be seen: {why}"),
            "give the same command as the user whom the directory belongs to",
        )),
    }
}

fn listed(pids: &[i32]) -> String {
    pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

async fn stopped(directory: &Path, server: Process) -> anyhow::Result<()> {
    let at = directory.to_owned();
    let ended = spawn_blocking(move || stop_server_in(server, &at, STOPPING)).await?;
    let at = directory.to_owned();
    let pids: Vec<i32> =
        spawn_blocking(move || working_in(&at)).await?.into_iter().map(|process| process.pid).collect();
    match ended && pids.is_empty() {
        true => Ok(()),
        false => Err(OperatorMessage::new(
            Code::StandbyUndone,
            format!(
                "the server in `{}` was told to stop, and processes work there still: {}",
                directory.display(),
                listed(&pids)
            ),
            Safe::Known("nothing was removed".to_owned()),
            "look at the server's log; end them, then give the same command again",
        )
        .into()),
    }
}

/// Has the catalog forget it, once whoever serves it wrote down that it left; whether there was one to forget. One that follows still is another of the same name.
async fn forgotten(context: &Context, standby: &Standby) -> anyhow::Result<bool> {
    let catalog = wiring::catalog(&context.config()?).await?;
    let until = Instant::now() + LEAVES;
    loop {
        let now = Utc::now();
        let known = catalog.standby_list(Some(&standby.database)).await?;
        // One of the same name and of another incarnation is another standby.
        let known = known
            .into_iter()
            .find(|known| known.name == standby.name && known.incarnation == standby.incarnation);
        match known {
            None => return Ok(false),
            // Of a refused one its state says why, for as long as it comes again.
            Some(known)
                if matches!(known.shown(now), StandbyState::Away)
                    || (now - known.heard_at).to_std().is_ok_and(|ago| ago >= LEAVES) =>
            {
                return Ok(catalog.standby_forget(&standby.database, &standby.name).await?);
            }
            Some(_) if Instant::now() < until => tokio::time::sleep(LOOK).await,
            Some(_) => return Ok(false),
        }
    }
}

/// What links in a data directory lead to: its tablespaces, and its log where that was put elsewhere.
fn elsewhere(directory: &Path) -> Vec<PathBuf> {
    let linked = std::fs::read_dir(directory.join("pg_tblspc")).into_iter().flatten();
    let linked = linked.filter_map(|entry| Some(entry.ok()?.path()));
    let mut left: Vec<PathBuf> =
        linked.chain([directory.join("pg_wal")]).filter_map(|link| std::fs::read_link(link).ok()).collect();
    left.sort();
    left
}

fn taken(directory: &Path, why: &str, next: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::StandbyTaken,
        format!("the standby in `{}` was not removed: {why}", directory.display()),
        Safe::Known("nothing in it was changed".to_owned()),
        next,
    )
}

fn not_removed(directory: &Path, why: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::StandbyUndone,
        format!("the standby in `{}` was not removed to its end: {why}", directory.display()),
        Safe::Known(
            "it was removed in part, or not at all: nothing outside of it was touched, and the store was not"
                .to_owned(),
        ),
        "mend what it says, then give the same command again: it goes on with what is left",
    )
}

/// A command that needs a standby met what is left of one.
pub(super) fn left(directory: &Path) -> OperatorMessage {
    no_standby(directory, "the removal of the one that lay there was begun; `farshore standby drop` ends it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_which_anybody_works_goes_only_when_that_is_its_server_and_may_be_stopped() {
        let place = Path::new("/srv/oslo");
        let server = Process { pid: 7, started: 1 };
        for (runs, stop, goes) in [
            (Runs::Nobody, false, Some(None)),
            (Runs::Nobody, true, Some(None)),
            (Runs::Server(server), true, Some(Some(server))),
            (Runs::Server(server), false, None),
            (Runs::Others(vec![8]), true, None),
            (Runs::Others(vec![8]), false, None),
            (Runs::Unknown("why".to_owned()), true, None),
            (Runs::Unknown("why".to_owned()), false, None),
        ] {
            let may = may_go(place, runs.clone(), stop);
            assert_eq!(may.as_ref().ok().copied(), goes, "{runs:?} {stop}");
            assert!(may.is_ok() || may.is_err_and(|why| why.code == Code::StandbyTaken));
        }
    }

    #[test]
    fn a_file_that_a_crash_left_names_no_server() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().canonicalize().unwrap();
        assert_eq!(runs(&place), Runs::Nobody);
        // This process lives, works elsewhere, and is no server.
        let text = format!("{}\n{}\n1\n5432\n/run\n\n", std::process::id(), place.display());
        std::fs::write(place.join("postmaster.pid"), text).unwrap();
        assert_eq!(runs(&place), Runs::Nobody);
        let mut shell =
            std::process::Command::new("/bin/sleep").arg("100").current_dir(&place).spawn().unwrap();
        assert_eq!(runs(&place), Runs::Others(vec![i32::try_from(shell.id()).unwrap()]));
        shell.kill().unwrap();
        shell.wait().unwrap();
        std::fs::write(place.join("postmaster.pid"), "none").unwrap();
        assert!(matches!(runs(&place), Runs::Unknown(_)));
    }
}
