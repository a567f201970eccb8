//! `farshore check`: gathers facts, judges them, prints the findings.
//!
//! The servers are asked in `server`, a SQLite file in `sqlite`, the stores in `stores`; [`crate::check`] judges.
//!
//! What always holds: exit 8 with a problem, 9 with something unknown, 0 otherwise. What could not be looked at
//! stays `None` in the facts and shows as unknown.

mod server;
mod sqlite;
mod stores;

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use chrono::{DateTime, Utc};
use farshore_engines::sqlite::kept;
use farshore_journal::DatabaseName;
use farshore_journal::format::VerifyKeys;
use farshore_shipper::spool::files::SpoolFiles;
use nix::unistd::{AccessFlags, access};
use serde::Serialize;

use crate::check::facts::{CheckFacts, HeadFacts, Pinning, SignedFacts, SpoolFacts, StoreFacts, Wanted};
use crate::check::{self, Finding, Level};
use crate::cli::DatabaseChoice;
use crate::cli::zone::Zone;
use crate::commands::{self, Context};
use crate::config::quantity::Span;
use crate::config::{Config, DatabaseConfig, EngineConfig, StoreName, protection};
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::output::Row;
use crate::wiring;

/// One finding with the database it is about.
#[derive(Debug, Serialize)]
struct Line {
    database: String,
    #[serde(flatten)]
    finding: Finding,
}

impl Row for Line {
    const HEADER: &'static [&'static str] = &["DATABASE", "LEVEL", "CHECK", "FOUND", "MEND"];

    fn cells(&self, _zone: Zone) -> Vec<String> {
        let finding = &self.finding;
        vec![
            self.database.clone(),
            finding.level.to_string(),
            finding.code.to_owned(),
            finding.what.clone(),
            finding.mend.clone().unwrap_or_default(),
        ]
    }
}

/// Runs it.
///
/// # Errors
/// When the configuration is wrong, the output fails, or there is a problem among the findings.
pub async fn run(context: &mut Context, args: DatabaseChoice) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let mut lines = Vec::new();
    for (name, database) in commands::databases(&config, args.database.as_ref())? {
        for store in &database.stores {
            if let Some(store_config) = config.stores.get(store) {
                let plan = database.flush_plan(store_config.billing());
                tracing::info!(database = %name, store = %store, "{plan}");
            }
        }
        let findings = match &database.engine {
            EngineConfig::Postgres { .. } => check::findings(&gather(&config, name, database).await),
            EngineConfig::Sqlite { path, .. } => {
                check::sqlite::findings(&sqlite::gather(&config, name, database, path).await)
            }
        };
        lines.extend(findings.into_iter().map(|finding| Line { database: name.to_string(), finding }));
    }
    context.output.list("farshore.check/1", &lines)?;
    let count = |level| lines.iter().filter(|line| line.finding.level == level).count();
    match (count(Level::Problem), count(Level::Unknown)) {
        (0, 0) => Ok(Exit::Done),
        (0, _) => Ok(Exit::Findings),
        (problems, unknown) => Err(OperatorMessage::new(
            Code::CheckFailed,
            format!("check found {problems} problems, and could not look at {unknown} things"),
            Safe::Unknown(
                "check looks at the way ahead, not at what is stored; `farshore verify` does".to_owned(),
            ),
            "do what each problem's last column says, then check again",
        )
        .into()),
    }
}

/// What the primary's `synchronous_standby_names` is to say; `None` where no commit waits.
fn waits_for(name: &DatabaseName, database: &DatabaseConfig) -> Option<String> {
    let waits = database.protection.reported().holds_commits();
    waits.then(|| protection::synchronous_names(name, database))
}

/// The facts of one PostgreSQL database: what the configuration tells, and what its servers and stores answer.
async fn gather(config: &Config, name: &DatabaseName, database: &DatabaseConfig) -> CheckFacts {
    let mut facts = CheckFacts {
        wanted: Wanted {
            database: name.to_string(),
            on_full: database.on_full,
            waits_for: waits_for(name, database),
            guarded: database.protection.guarded().is_some(),
            rpo: database.rpo.map(Span::get),
            ..Wanted::default()
        },
        heads: Some(head_keys(database)),
        signed: signed_to(config, name, database).await,
        ..CheckFacts::default()
    };
    let files = Box::pin(server::ask(name, database, &mut facts)).await;
    let devices = files.as_ref().map(|files| &files.devices[..]);
    facts.spool = spool(database, devices);
    facts.stores = Box::pin(ask_stores(config, name, database, devices)).await;
    facts
}

/// What is found of its spool's directories.
fn spool(database: &DatabaseConfig, devices: Option<&[u64]>) -> Vec<SpoolFacts> {
    let Some(spool) = &database.spool else { return Vec::new() };
    let files = SpoolFiles::new(spool.places.clone());
    let looked = files.looked_at().into_iter().map(|(place, found)| {
        let device = place.directory.metadata().ok().map(|about| about.dev());
        SpoolFacts {
            directory: place.directory.display().to_string(),
            limit: place.limit,
            found: found.map_err(|why| why.to_string()),
            is_writable: access(&place.directory, AccessFlags::W_OK | AccessFlags::X_OK).is_ok(),
            is_beside_log: devices.zip(device).map(|(devices, device)| devices.contains(&device)),
        }
    });
    looked.collect()
}

/// What each of a database's stores tells.
async fn ask_stores(
    config: &Config,
    name: &DatabaseName,
    database: &DatabaseConfig,
    devices: Option<&[u64]>,
) -> Vec<StoreFacts> {
    let (mut facts, known) = (Vec::new(), shipped_before(config, name).await);
    for store in &database.stores {
        if let Some(settings) = config.stores.get(store) {
            let before = known.contains(store.as_str());
            facts.push(Box::pin(stores::ask(config, store, settings, name, devices, before)).await);
        }
    }
    facts
}

/// The stores that hold something of the database, as the catalog has it. One that does not answer says nothing of it.
async fn shipped_before(config: &Config, name: &DatabaseName) -> BTreeSet<String> {
    let asked = async { anyhow::Ok(wiring::catalog(config).await?.target_list(name).await?) };
    let targets = asked.await.unwrap_or_default();
    targets.into_iter().filter(|target| target.stored.is_some()).map(|target| target.store).collect()
}

/// What can be told of the keys of signed heads.
fn head_keys(database: &DatabaseConfig) -> HeadFacts {
    let pinned = &database.verify_keys;
    let Some(path) = &database.signing_key else {
        return if pinned.is_empty() { HeadFacts::Neither } else { HeadFacts::PinnedOnly };
    };
    // Whether it fits is judged apart: a key that reads and does not fit is another fault.
    let key = match wiring::signing_key(path, &VerifyKeys::default()) {
        Ok(key) => key.public(),
        Err(why) => return HeadFacts::Unreadable { why },
    };
    let mode = path.metadata().map(|found| found.permissions().mode());
    let public = key.to_string();
    HeadFacts::Read {
        open_to_others: !mode.is_ok_and(|mode| mode & 0o077 == 0),
        pinning: if pinned.is_empty() {
            Pinning::Nothing { public }
        } else if pinned.contains(&key) {
            Pinning::Fits
        } else {
            Pinning::Other { public }
        },
    }
}

/// How far the journal is signed in each store, as the catalog has it; `None` when there is one and it does not say.
async fn signed_to(
    config: &Config,
    name: &DatabaseName,
    database: &DatabaseConfig,
) -> Option<Vec<SignedFacts>> {
    // Before anything is shipped there is no catalog.
    if database.signing_key.is_none() || wiring::catalog_is_absent(config) {
        return Some(Vec::new());
    }
    let catalog = wiring::catalog(config).await.ok()?;
    let (heads, targets) = (catalog.head_list(name).await.ok()?, catalog.target_list(name).await.ok()?);
    let now = Utc::now();
    let of_store = |store: &StoreName| {
        let newest = heads.iter().filter(|known| known.store == store.as_str());
        let newest = newest.max_by_key(|known| known.head.signed_at).map(|known| &known.head);
        SignedFacts {
            store: store.to_string(),
            newest: newest.map(|head| {
                let signed = DateTime::from_timestamp_micros(head.signed_at).unwrap_or_default();
                (head.said.end, (now - signed).to_std().unwrap_or_default())
            }),
            stored: targets
                .iter()
                .find(|target| target.store == store.as_str())
                .and_then(|target| target.stored),
        }
    };
    Some(database.stores.iter().map(of_store).collect())
}

/// Free bytes beside the log of the server with this data directory and system identifier, when its files are on this machine.
pub fn free_beside_log(directory: &str, cluster: u64) -> Option<u64> {
    server::wal_directory(Path::new(directory), cluster).and_then(|wal| free_bytes(&wal))
}

/// What an unprivileged process may still write on the file system of `path`.
fn free_bytes(path: &Path) -> Option<u64> {
    kept::free_bytes(path).ok()
}
