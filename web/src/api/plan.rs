//! `/plans`: what a restore would do. A plan is read from the store, which this crate does not know: so it is a quick job of a service, and its
//! result is what `farshore restore --dry-run` shows.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, Utc};
use farshore_catalog::job::{JobKind, spec};
use farshore_journal::{IncarnationId, Offset, Position};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::database::NoParameters;
use crate::api::job::Job;
use crate::ask::{self, Key, Work};
use crate::auth::Who;
use crate::body;
use crate::page::Query;
use crate::problem::{Kind, Problem};
use crate::state::Shared;

/// Where a restore is to lead: exactly one of these.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// True: to the newest stored commit.
    latest: Option<bool>,
    /// A time: just before the first commit, in log order, that is later.
    at: Option<DateTime<Utc>>,
    /// A position, as `1:5F/3AA7B9A0`, or without its timeline.
    pos: Option<String>,
    /// The commit of this transaction, with its epoch.
    xid: Option<u64>,
    /// A named point.
    point: Option<String>,
}

impl Target {
    /// A position, as a form has it.
    pub fn of_position(pos: Option<String>) -> Self {
        Self { pos, ..Self::default() }
    }

    /// The one that is given.
    ///
    /// # Errors
    /// When it is not one, or cannot be one.
    pub fn read(self) -> Result<spec::Target, Problem> {
        let Self { latest, at, pos, xid, point } = self;
        let one = || {
            Problem::new(
                Kind::Invalid,
                "`target` is exactly one of `latest` (true), `at`, `pos`, `xid` and `point`",
            )
        };
        let target = match (latest, at, pos, xid, point) {
            (Some(true), None, None, None, None) => spec::Target::Latest,
            (None, Some(at), None, None, None) => spec::Target::At(at),
            (None, None, Some(pos), None, None) => {
                let is_one = pos.parse::<Position>().is_ok() || pos.parse::<Offset>().is_ok();
                if !is_one {
                    return Err(Problem::invalid(
                        "target.pos",
                        "is a timeline and an offset, as 1:5F/3AA7B9A0, or the offset",
                    ));
                }
                spec::Target::Pos(pos)
            }
            (None, None, None, Some(xid), None) => spec::Target::Xid(xid),
            (None, None, None, None, Some(point)) if !point.is_empty() => spec::Target::Point(point),
            _ => return Err(one()),
        };
        Ok(target)
    }
}

/// A store's name, whose letters are those of a database's.
///
/// # Errors
/// [`Kind::Invalid`].
pub fn store(text: &str) -> Result<String, Problem> {
    match text.parse::<farshore_journal::DatabaseName>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(Problem::invalid("store", "is the name of a store: 1 to 63 of a-z, 0-9, _ and -")),
    }
}

/// Which history, as far as it is named.
///
/// # Errors
/// When a name cannot be one.
pub fn history(store: Option<String>, incarnation: Option<String>) -> Result<spec::History, Problem> {
    let store = store.as_deref().map(self::store).transpose()?;
    let is_one = |text: &String| text.parse::<IncarnationId>().is_ok() || text.parse::<u64>().is_ok();
    if incarnation.as_ref().is_some_and(|text| !is_one(text)) {
        return Err(Problem::invalid("incarnation", "is an incarnation's number or its id"));
    }
    Ok(spec::History { store, incarnation })
}

/// A plan that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanAsked {
    /// Of this database.
    #[schema(example = "orders")]
    database: String,
    /// Where to.
    target: Target,
    /// From this store; from the first of the database's that has it when not given.
    store: Option<String>,
    /// Of this incarnation, by its number or id; of the newest when not given.
    incarnation: Option<String>,
}

/// Plan a restore
///
/// A quick job that reads the store and writes nothing. Its result is the plan: the commit that the target leads to, base, bytes, settings.
#[utoipa::path(
    post,
    path = "/plans",
    tag = "plans",
    params(("Idempotency-Key" = String, Header, description = "Names this question: asked again with it, the first answer comes")),
    request_body = PlanAsked,
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
    let asked: PlanAsked = body::json(&headers, &body, "{\"database\": ..., \"target\": ...}")?;
    let spec = spec::Plan { target: asked.target.read()?, history: history(asked.store, asked.incarnation)? };
    let database = ask::database(&web, &who, &asked.database).await?;
    let work = Work { kind: JobKind::Plan, database: &database.name, spec: &spec, node: None };
    ask::queue(&web, &who, key, work).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_exactly_one_and_one_that_can_be() {
        let read = |text: &str| serde_json::from_str::<Target>(text).unwrap().read();
        assert_eq!(read("{\"latest\":true}").unwrap(), spec::Target::Latest);
        assert_eq!(read("{\"xid\":7}").unwrap(), spec::Target::Xid(7));
        assert_eq!(read("{\"pos\":\"5F/3AA7B9A0\"}").unwrap(), spec::Target::Pos("5F/3AA7B9A0".to_owned()));
        for bad in [
            "{}",
            "{\"latest\":false}",
            "{\"latest\":true,\"xid\":7}",
            "{\"pos\":\"here\"}",
            "{\"point\":\"\"}",
        ] {
            assert_eq!(read(bad).unwrap_err().kind, Kind::Invalid, "{bad}");
        }
    }
}
