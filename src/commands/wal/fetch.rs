//! `farshore wal fetch`: a log file from any of the database's stores.
//!
//! What always holds: "not there" is answered only when every store was read, each of them says so, and it is sure which incarnation
//! was meant, and a segment is given in part only when every store has no more of it. A store that does not answer, holds nothing, or holds several incarnations of which none was named, or whose journal's end signed heads speak against, is doubt:
//! PostgreSQL then stops, where "not there" would make it end its recovery before log that another store holds.

use std::path::{Path, PathBuf};

use farshore_applier::heads::{doubts, unwitnessed};
use farshore_applier::source::Source;
use farshore_applier::wal_fetch::{self, Fetched};
use farshore_journal::DatabaseName;

use crate::cli::History;
use crate::config::{Config, StoreName};
use crate::exit::Exit;
use crate::heads;
use crate::message::{Code, OperatorMessage, Safe};
use crate::sources::{self, InStore};

/// Segments fetched ahead of the one that is asked for.
const AHEAD: u32 = 4;

/// Runs it.
///
/// # Errors
/// Any doubt.
pub(super) async fn run(
    config: &Config,
    name: &DatabaseName,
    history: &History,
    file: &str,
    path: &Path,
) -> anyhow::Result<Exit> {
    let mut doubts = Vec::new();
    let mut asked = 0;
    let mut part: Option<Part> = None;
    for store in sources::in_each(config, name, history).await? {
        asked += 1;
        let InStore { store, source, only } = match store {
            Ok(store) => store,
            Err(why) => {
                doubts.push(format!("{why:#}"));
                continue;
            }
        };
        let Some(source) = source else {
            doubts.push(format!("{store} holds nothing of it"));
            continue;
        };
        if !only {
            // Two incarnations have files of one name with other bytes.
            doubts.push(format!("{store} holds several incarnations: name one with --incarnation"));
            continue;
        }
        let mut place = path.as_os_str().to_owned();
        place.push(format!(".{store}"));
        let place = Part { path: place.into(), log_bytes: 0 };
        match Box::pin(wal_fetch::fetch(&source, file, &place.path, AHEAD)).await {
            Ok(Fetched::Found { log_bytes, .. }) => {
                // A history is given whole or not at all.
                let is_segment = super::is_segment(file);
                if !is_segment || log_bytes == source.shape().segment_bytes() {
                    place.keep(path)?;
                    return Ok(Exit::Done);
                }
                doubts.extend(ends_too_early(config, name, history, &store, &source).await);
                // Zeros behind the last byte that this store has are the log's end to the server: another may have more.
                if part.as_ref().is_none_or(|part| part.log_bytes < log_bytes) {
                    part = Some(place.with(log_bytes));
                }
            }
            Ok(Fetched::NotThere) => {
                doubts.extend(ends_too_early(config, name, history, &store, &source).await);
            }
            Err(why) => doubts.push(format!("{store}: {why}")),
        }
    }
    if let Some(part) = part.filter(|_| doubts.is_empty()) {
        part.keep(path)?;
        return Ok(Exit::Done);
    }
    match doubts.is_empty() && asked > 0 {
        true => Ok(Exit::FetchAbsent),
        false => Err(OperatorMessage::new(
            Code::FetchDoubt,
            format!("{file} could not be fetched: {}", doubts.join("; ")),
            Safe::Unknown(
                "whether the journal holds it could not be settled; recovery must not end here".to_owned(),
            ),
            "mend what it says; PostgreSQL asks again when it is started again",
        )
        .into()),
    }
}

/// What signed heads have against taking a store's end for the journal's: recovery would end there.
async fn ends_too_early(
    config: &Config,
    name: &DatabaseName,
    history: &History,
    store: &StoreName,
    source: &Source,
) -> Option<String> {
    let settings = config.databases.get(name).filter(|settings| !settings.verify_keys.is_empty())?;
    let known = heads::known(config, name, settings, store).await;
    let all = match sources::all(config, name, store).await {
        Ok(all) => all,
        Err(why) => return Some(format!("{store}: {why:#}")),
    };
    if let Some(head) = known.vanished(&all).first() {
        return Some(heads::vanished(name, store.as_str(), head).happened);
    }
    if history.incarnation.is_none() {
        match Box::pin(unwitnessed(source, &all, &known)).await {
            Ok(None) => {}
            Ok(Some(found)) => return Some(heads::unwitnessed(name, store.as_str(), &found).happened),
            Err(why) => return Some(format!("{store}: {why}")),
        }
    }
    match Box::pin(doubts(source, &known)).await {
        Ok(found) => found.first().map(|doubt| heads::not_held(name, store.as_str(), doubt).happened),
        Err(why) => Some(format!("{store}: {why}")),
    }
}

/// A file beside the destination; removed unless it is kept.
#[derive(Default)]
struct Part {
    path: PathBuf,
    log_bytes: u64,
}

impl Part {
    fn with(mut self, log_bytes: u64) -> Self {
        self.log_bytes = log_bytes;
        self
    }

    fn keep(mut self, destination: &Path) -> std::io::Result<()> {
        std::fs::rename(std::mem::take(&mut self.path), destination)?;
        let folder = destination.parent().filter(|folder| !folder.as_os_str().is_empty());
        std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _was_never_there = std::fs::remove_file(&self.path);
        }
    }
}
