//! `/compares`: standbys held against their primaries, what each comparison came to; and asking for one.
//!
//! What always holds: what was not compared says so, and is never called equal. A statement names tables and, where the configuration lets it, keys of rows that differ, and no other value of a row.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{OriginalUri, Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use farshore_catalog::compare::{Compare as Known, CompareFilter};
use farshore_catalog::job::{JobKind, spec};
use farshore_journal::CompareId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::api::database::NoParameters;
use crate::api::job::Job;
use crate::api::named;
use crate::ask::{self, Key, Work};
use crate::auth::Who;
use crate::body;
use crate::page::{self, Page, Query};
use crate::problem::{Kind, Problem};
use crate::state::{Shared, Web};

const LIST: &str = "compares";
/// The longest name of a standby, a database or a table, and the most of them.
const NAME_BYTES: usize = 200;
const MOST_NAMES: usize = 1000;

/// Which comparisons.
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

/// A comparison.
#[derive(Debug, Serialize, ToSchema)]
pub struct Compare {
    /// Its id.
    pub id: String,
    /// Its database.
    pub database: String,
    /// The standby.
    pub standby: String,
    /// `equal`, `different`, or `not_compared`: nothing is known to differ, and not all was looked at.
    pub verdict: String,
    /// When it began.
    pub began_at: DateTime<Utc>,
    /// When it was over.
    pub ended_at: DateTime<Utc>,
}

/// A comparison, with all that it says.
#[derive(Debug, Serialize, ToSchema)]
pub struct CompareShown {
    /// What lists have of it.
    pub compare: Compare,
    /// Its statement: databases, positions, tables, rows that differ, and what was not compared with the reason. Null where what the catalog has does not read.
    #[schema(value_type = Option<Object>)]
    pub statement: Option<Value>,
}

impl Compare {
    fn new(compare: &Known) -> Self {
        Self {
            id: compare.id.to_string(),
            database: compare.database.to_string(),
            standby: compare.standby.clone(),
            verdict: compare.verdict.word().to_owned(),
            began_at: compare.began,
            ended_at: compare.ended,
        }
    }
}

/// Comparisons, newest first
#[utoipa::path(get, path = "/compares", tag = "compares", params(Asked),
    responses((status = 200, description = "A page of them", body = Page<Compare>)))]
pub async fn list(
    State(web): State<Shared>,
    who: Who,
    uri: OriginalUri,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let limit = page::limit(asked.limit)?;
    let database = match &asked.database {
        Some(text) => Some(named(text, &who)?),
        None => who.database.clone(),
    };
    let before = asked.cursor.map(|cursor| page::moment(LIST, &cursor)).transpose()?;
    let filter = CompareFilter { database, before };
    let found = web.catalog()?.compare_list(&filter, limit).await?;
    // A page that is full may be the last: the one behind it is empty then.
    let last = found.last().filter(|_| found.len() == limit as usize);
    let place = last.map(|last| (last.began.timestamp_micros(), last.id.to_string()));
    let next_cursor = place.map(|place| page::cursor(LIST, &place)).transpose()?;
    let items = found.iter().map(Compare::new).collect();
    Ok(page::answer(&uri, &["limit", "database"], items, next_cursor))
}

/// One comparison
#[utoipa::path(
    get,
    path = "/compares/{id}",
    tag = "compares",
    params(("id" = String, Path, description = "The comparison's id", example = "0123456789abcdef0123456789abcdef")),
    responses((status = 200, description = "What it came to", body = CompareShown))
)]
pub async fn show(
    State(web): State<Shared>,
    who: Who,
    Path(id): Path<String>,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Response, Problem> {
    let found = one(&web, &who, &id).await?;
    let statement = serde_json::from_str(&found.statement).ok().filter(Value::is_object);
    Ok(Json(CompareShown { compare: Compare::new(&found), statement }).into_response())
}

/// A comparison that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompareAsked {
    /// Of this database.
    #[schema(example = "orders")]
    database: String,
    /// With this standby; with each whose address the configuration has when not given.
    #[schema(example = "oslo")]
    standby: Option<String>,
    /// One database of the cluster alone.
    within: Option<String>,
    /// These tables alone, as `schema.table`.
    #[serde(default)]
    tables: Vec<String>,
    /// Without these, as `schema.table`.
    #[serde(default)]
    exclude: Vec<String>,
    /// The most that is read of each side.
    rate_bytes_per_second: Option<u64>,
}

/// Compare a standby with its primary
///
/// A service that has the database holds the standby at one position, digests every row on both sides there, and lets it follow again. The job fails where something differs or was not compared, and names the comparison.
#[utoipa::path(
    post,
    path = "/compares",
    tag = "compares",
    params(("Idempotency-Key" = String, Header, description = "Names this question: asked again with it, the first answer comes")),
    request_body = CompareAsked,
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
    let asked: CompareAsked = body::json(&headers, &body, "{\"database\": ...}")?;
    let CompareAsked { database, standby, within, tables, exclude, rate_bytes_per_second: rate } = asked;
    let spec = wanted(spec::Compare { standby, within, tables, exclude, rate })?;
    let database = ask::database(&web, &who, &database).await?;
    let work = Work { kind: JobKind::Compare, database: &database.name, spec: &spec, node: None };
    ask::queue(&web, &who, key, work).await
}

/// A comparison as the job keeps it.
///
/// # Errors
/// When a part of it cannot be one.
pub fn wanted(spec: spec::Compare) -> Result<spec::Compare, Problem> {
    let is_name =
        |name: &String| (1..=NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
    for (field, name) in [("standby", &spec.standby), ("within", &spec.within)] {
        if name.as_ref().is_some_and(|name| !is_name(name)) {
            return Err(Problem::invalid(field, "is a name"));
        }
    }
    for (field, names) in [("tables", &spec.tables), ("exclude", &spec.exclude)] {
        if names.len() > MOST_NAMES || names.iter().any(|name| !is_name(name) || !name.contains('.')) {
            return Err(Problem::invalid(field, "is a list of tables, each as schema.table"));
        }
    }
    match spec.rate {
        Some(0) => Err(Problem::invalid("rate_bytes_per_second", "is 1 at least")),
        _ => Ok(spec),
    }
}

/// A comparison that is there for whoever asks.
///
/// # Errors
/// [`Kind::CompareUnknown`].
pub async fn one(web: &Web, who: &Who, text: &str) -> Result<Known, Problem> {
    let unknown = || {
        Problem::new(Kind::CompareUnknown, "the catalog knows no such comparison")
            .hint("GET /api/v1/compares lists those there are")
    };
    let id: CompareId = text.parse().map_err(|_| unknown())?;
    let found = web.catalog()?.compare_get(id).await?;
    found.filter(|compare| who.sees(&compare.database)).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_of_a_comparison_names_what_can_have_such_names() {
        let named = |standby: &str, table: &str, rate| spec::Compare {
            standby: Some(standby.to_owned()),
            tables: vec![table.to_owned()],
            rate,
            ..spec::Compare::default()
        };
        assert!(wanted(spec::Compare::default()).is_ok());
        assert!(wanted(named("oslo", "public.orders", Some(1))).is_ok());
        for wrong in [
            named("", "public.orders", None),
            named("os\nlo", "public.orders", None),
            named("oslo", "orders", None),
            named("oslo", "", None),
            named("oslo", "public.orders", Some(0)),
            named(&"o".repeat(NAME_BYTES + 1), "public.orders", None),
        ] {
            assert_eq!(wanted(wrong).unwrap_err().kind, Kind::Invalid);
        }
    }
}
