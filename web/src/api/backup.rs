//! `/backups`: base backups, of one database or of all.

use axum::body::Bytes;
use axum::extract::{OriginalUri, State};
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, Utc};
use farshore_catalog::backup::{Backup as Known, BackupKey};
use farshore_catalog::job::{JobKind, spec};
use farshore_journal::{DatabaseName, Position};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::database::NoParameters;
use crate::api::job::Job;
use crate::api::{named, plan};
use crate::ask::{self, Key, Work};
use crate::auth::Who;
use crate::body;
use crate::page::{self, Page, Query, cursor_invalid};
use crate::problem::Problem;
use crate::state::Shared;

const LIST: &str = "backups";

/// Which backups.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// Of this database; of all that may be seen when not given.
    database: Option<String>,
    /// The most items, 1 to 1000; 100 when not given.
    limit: Option<u32>,
    /// From `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A base backup.
#[derive(Debug, Serialize, ToSchema)]
pub struct Backup {
    /// Its id.
    pub id: String,
    /// Its database.
    pub database: String,
    /// The incarnation that it is of.
    pub incarnation: String,
    /// The store that holds it.
    pub store: String,
    /// `running`, `complete` or `failed`.
    pub state: String,
    /// Where its log begins.
    pub from_position: String,
    /// From where on it can be restored from; null until it is complete.
    pub to_position: Option<String>,
    /// When it was begun.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// Bytes that it copied.
    pub bytes: Option<u64>,
    /// Bytes that it takes in the store.
    pub stored_bytes: Option<u64>,
    /// Whether its manifest was checked and found right.
    pub checked: bool,
    /// Why it was taken.
    pub label: String,
    /// Pages that were damaged at the primary already; null while nobody has opened its manifest, so that it is not known.
    pub bad_pages: Option<u64>,
    /// When a verification found that it is not as it was stored; null while nothing speaks against it.
    pub bad_at: Option<DateTime<Utc>>,
}

impl Backup {
    fn new(database: &DatabaseName, backup: Known) -> Self {
        let Known {
            id,
            incarnation,
            store,
            timeline,
            start,
            end,
            started_at,
            finished_at,
            bytes,
            stored_bytes,
            state,
            checked,
            label,
            bad_pages,
            bad_at,
        } = backup;
        Self {
            id: id.to_string(),
            database: database.to_string(),
            incarnation: incarnation.to_string(),
            store,
            state: state.word().to_owned(),
            from_position: Position::new(timeline, start).to_string(),
            to_position: end.map(|end| Position::new(timeline, end).to_string()),
            started_at,
            finished_at,
            bytes,
            stored_bytes,
            checked,
            label,
            bad_pages,
            bad_at,
        }
    }
}

/// Where a page ends: database, microseconds of the begin, id.
type Place = (String, i64, String);

/// Base backups, by database and begin
#[utoipa::path(get, path = "/backups", tag = "backups", params(Asked),
    responses((status = 200, description = "A page of them", body = Page<Backup>)))]
pub async fn list(
    State(web): State<Shared>,
    who: Who,
    uri: OriginalUri,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let limit = page::limit(asked.limit)?;
    let database = match asked.database {
        Some(text) => Some(named(&text, &who)?),
        None => who.database.clone(),
    };
    let after = asked.cursor.map(|cursor| page::place(LIST, &cursor).and_then(key)).transpose()?;
    let catalog = web.catalog()?;
    if let Some(name) = &database
        && catalog.database_find(name).await?.is_none()
    {
        return Err(farshore_catalog::Error::NoDatabase { name: name.clone() }.into());
    }
    let mut found = catalog.backup_page(database.as_ref(), after.as_ref(), limit + 1).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let last = found.last().filter(|_| more);
    let next_cursor = last
        .map(|(database, last)| {
            let place: Place =
                (database.to_string(), last.started_at.timestamp_micros(), last.id.to_string());
            page::cursor(LIST, &place)
        })
        .transpose()?;
    let items = found.into_iter().map(|(database, backup)| Backup::new(&database, backup)).collect();
    Ok(page::answer(&uri, &["limit", "database"], items, next_cursor))
}

/// A base backup that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupAsked {
    /// Of this database.
    #[schema(example = "orders")]
    database: String,
    /// Into this store; into each of the database's when not given.
    store: Option<String>,
}

/// Take a base backup
#[utoipa::path(
    post,
    path = "/backups",
    tag = "backups",
    params(("Idempotency-Key" = String, Header, description = "Names this question: asked again with it, the first answer comes")),
    request_body = BackupAsked,
    responses((status = 202, description = "Its job; `Location` says where it is", body = Job))
)]
pub async fn ask(
    State(web): State<Shared>,
    who: Who,
    key: Key,
    headers: HeaderMap,
    Query(NoParameters {}): Query<NoParameters>,
    body: Bytes,
) -> Result<Response, Problem> {
    let asked: BackupAsked = body::json(&headers, &body, "{\"database\": ..., \"store\": ...}")?;
    let database = ask::database(&web, &who, &asked.database).await?;
    let store = asked.store.as_deref().map(plan::store).transpose()?;
    let spec = spec::Backup { store, refresh: None };
    let work = Work { kind: JobKind::Backup, database: &database.name, spec: &spec, node: None };
    ask::queue(&web, &who, key, work).await
}

fn key((database, started_at, id): Place) -> Result<BackupKey, Problem> {
    Ok(BackupKey {
        database: database.parse().map_err(|_| cursor_invalid())?,
        started_at: DateTime::from_timestamp_micros(started_at).ok_or_else(cursor_invalid)?,
        id: id.parse().map_err(|_| cursor_invalid())?,
    })
}
