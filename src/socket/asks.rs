//! What a command asks of the service because only its stream has it: to name a point, and to copy the database.
//!
//! What always holds: "done" is answered only for what is stored. Where the answer is missing nobody knows what became of it, and the
//! message says where to look.

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use farshore_engines::sqlite::record;
use farshore_journal::{BackupId, DatabaseName, Position};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Does, Request, connect, heard, say};
use crate::base_backups::{self, Process, STUCK};
use crate::config::StoreName;

/// How long a point may take to be stored.
const STORED: Duration = Duration::from_secs(30);

/// A point to be named.
#[derive(Debug, Serialize, Deserialize)]
pub struct Point {
    /// Of which database.
    pub database: DatabaseName,
    /// Its name.
    pub name: String,
}

/// A point that is stored.
#[derive(Debug, Serialize, Deserialize)]
pub struct Named {
    /// A restore to it ends here.
    pub position: Position,
    /// When it was named.
    pub time: DateTime<Utc>,
}

/// A base backup to be taken.
#[derive(Debug, Serialize, Deserialize)]
pub struct Backup {
    /// Of which database.
    pub database: DatabaseName,
    /// Into which store.
    pub store: String,
}

/// A base backup that is complete.
#[derive(Debug, Serialize, Deserialize)]
pub struct Complete {
    /// Its id.
    pub id: BackupId,
}

/// What came of it, or why nothing did.
pub type Answer<T> = Result<T, String>;

pub(super) fn line<T: Serialize>(answer: &Answer<T>) -> Option<Vec<u8>> {
    serde_json::to_vec(answer).ok()
}

pub(super) async fn point(does: &Does, asked: Point) -> Answer<Named> {
    if !record::is_name(&asked.name) || asked.name.chars().any(char::is_control) {
        return Err(format!(
            "a point's name has 1 to {} bytes and no control characters",
            record::MAX_NAME_BYTES
        ));
    }
    let Some(points) = does.points.get(&asked.database) else {
        return Err(format!("{} is not shipped by this service", asked.database));
    };
    match tokio::time::timeout(STORED, points.ask(asked.name)).await {
        Ok(Ok(named)) => Ok(Named { position: named.at, time: named.time }),
        Ok(Err(_)) => {
            Err("shipping was interrupted meanwhile; `farshore points list` shows whether it was named"
                .to_owned())
        }
        Err(_) => Err(format!(
            "nothing is shipped now, or the store takes nothing: it was not stored within {} seconds",
            STORED.as_secs()
        )),
    }
}

pub(super) async fn backup(does: &Does, asked: Backup) -> Answer<Complete> {
    let store: StoreName = asked.store.parse()?;
    let process = Process { streams: &does.streams, catalog: does.catalog.as_ref() };
    // Of a SQLite database, which is copied as a whole.
    let how = base_backups::Asked { label: "by hand", how: base_backups::How::AsConfigured };
    let take = base_backups::take(&does.config, &asked.database, &store, how, process, STUCK, &|_| {});
    match Box::pin(take).await {
        Ok(taken) => Ok(Complete { id: taken.id }),
        Err(why) => Err(why.happened),
    }
}

/// Asks the service; `None` when nobody listens.
///
/// # Errors
/// When someone listens and does not answer.
pub async fn ask<T: DeserializeOwned>(socket: &Path, request: &Request) -> anyhow::Result<Option<Answer<T>>> {
    let Some(mut stream) = connect(socket).await? else { return Ok(None) };
    say(&mut stream, request).await?;
    match heard(&mut stream).await? {
        Some(answer) => Ok(Some(serde_json::from_str(&answer)?)),
        None => anyhow::bail!("the service ended before it answered"),
    }
}
