//! `/restores`: a database taken to a commit, in a new place of the machine that the service runs on.
//!
//! What always holds: nothing is asked for that this service's configuration does not allow: without `restore_roots` it does no restores, and a
//! place that is not beneath one of them is refused. What is judged here is the text; the service judges where it really leads when it restores.

use std::path::{Component, Path, PathBuf};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use farshore_catalog::database::Database;
use farshore_catalog::job::{JobKind, spec};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::database::NoParameters;
use crate::api::job::Job;
use crate::api::plan::{Target, history};
use crate::ask::{self, Key, Work};
use crate::auth::Who;
use crate::body;
use crate::page::Query;
use crate::problem::{Kind, Problem};
use crate::state::{Shared, Web};

/// The engine whose databases are files and no servers.
const SQLITE: &str = "sqlite";

/// What a restored server does at its target.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// Stays read-only there.
    Pause,
    /// Opens for writing on a new timeline.
    Promote,
    /// Stops.
    Shutdown,
}

/// How the restored server is started.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The number of its socket's name, from 1 on. No TCP port is opened.
    #[schema(minimum = 1)]
    port: u16,
    /// What it does at the target; `pause` when not given.
    then: Option<Then>,
}

/// A restore that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreAsked {
    /// Of this database.
    #[schema(example = "orders")]
    database: String,
    /// Where to.
    target: Target,
    #[schema(example = "/srv/restores/orders")]
    /// A new or empty directory beneath one of the service's `restore_roots`, as an absolute path of its machine.
    directory: Option<String>,
    /// True: over the database itself. Not built yet: refused.
    in_place: Option<bool>,
    /// Whether a PostgreSQL server is started there; it is not when not given.
    start: Option<Start>,
    /// From this store; from the first of the database's that has it when not given.
    store: Option<String>,
    /// Of this incarnation, by its number or id; of the newest when not given.
    incarnation: Option<String>,
}

/// Restore into a new place
///
/// The service that is asked restores, on its own machine. What came of it, and where a started server answers, is the job's result.
#[utoipa::path(
    post,
    path = "/restores",
    tag = "restores",
    params(("Idempotency-Key" = String, Header, description = "Names this question: asked again with it, the first answer comes")),
    request_body = RestoreAsked,
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
    let asked: RestoreAsked =
        body::json(&headers, &body, "{\"database\": ..., \"target\": ..., \"directory\": ...}")?;
    if asked.in_place == Some(true) {
        return Err(Problem::new(Kind::NotBuilt, "restoring in place is not built yet")
            .hint("name a new `directory`"));
    }
    let Some(directory) = asked.directory else {
        return Err(Problem::invalid("directory", "is missing: the new place of the restored database"));
    };
    let target = asked.target.read()?;
    let start = match asked.start {
        None => None,
        Some(Start { port: 0, .. }) => return Err(Problem::invalid("start.port", "is 1 to 65535")),
        Some(Start { port, then }) => {
            let then = match then.unwrap_or(Then::Pause) {
                Then::Pause => spec::Then::Pause,
                Then::Promote => spec::Then::Promote,
                Then::Shutdown => spec::Then::Shutdown,
            };
            Some(spec::Start { port, then })
        }
    };
    let history = history(asked.store, asked.incarnation)?;
    let spec = spec::Restore { target, history, directory, start, resolved: None };
    let database = judged(&web, &who, &asked.database, &spec).await?;
    let node = Some(web.here.node.clone());
    let work = Work { kind: JobKind::Restore, database: &database.name, spec: &spec, node };
    ask::queue(&web, &who, key, work).await
}

/// The database of a restore that this service may do as it is asked for.
///
/// # Errors
/// With the reason why it does not.
pub async fn judged(web: &Web, who: &Who, database: &str, spec: &spec::Restore) -> Result<Database, Problem> {
    placed(&spec.directory, &web.here.restore_roots)?;
    let database = ask::database(web, who, database).await?;
    if !web.objectives.contains_key(&database.name) {
        let detail = "the service that is asked does not have this database in its configuration";
        return Err(Problem::new(Kind::Refused, detail)
            .hint("ask a service that has it; GET /api/v1/nodes names them"));
    }
    if spec.start.is_some() && database.engine == SQLITE {
        let detail = "this is a SQLite database, a file and no server: `start` means nothing for it";
        return Err(Problem::new(Kind::Refused, detail).hint("leave `start` out"));
    }
    Ok(database)
}

/// That a place is one that a service may restore into, as far as its text says.
///
/// # Errors
/// With the reason why it is not.
pub fn placed(directory: &str, roots: &[PathBuf]) -> Result<(), Problem> {
    if roots.is_empty() {
        return Err(Problem::new(Kind::Refused, "this service does no restores: its configuration names no folder for them")
            .hint("name one with `restore_roots` in [service], or restore with `farshore restore` on a machine of your choice"));
    }
    let path = Path::new(directory);
    let is_plain = path.is_absolute()
        && !directory.contains('\0')
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !is_plain {
        return Err(Problem::invalid("directory", "is an absolute path without `..`"));
    }
    match roots.iter().any(|root| path.starts_with(root) && path != root) {
        true => Ok(()),
        false => Err(Problem::new(
            Kind::Refused,
            "`directory` is not beneath one of the folders that this service may restore into",
        )
        .hint("`restore_roots` in the [service] of its configuration names them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_beneath_a_folder_that_the_operator_named_or_it_is_none() {
        let roots = [PathBuf::from("/srv/restores")];
        assert_eq!(placed("/srv/restores/a/b", &roots), Ok(()));
        for (bad, kind) in [
            ("/srv/restores", Kind::Refused),
            ("/srv/restores/", Kind::Refused),
            ("/srv/restores-beside/a", Kind::Refused),
            ("/etc/a", Kind::Refused),
            ("/srv/restores/../a", Kind::Invalid),
            ("srv/restores/a", Kind::Invalid),
            ("", Kind::Invalid),
            ("/srv/restores/\0", Kind::Invalid),
        ] {
            assert_eq!(placed(bad, &roots).unwrap_err().kind, kind, "{bad:?}");
        }
        assert_eq!(placed("/srv/restores/a", &[]).unwrap_err().kind, Kind::Refused);
    }
}
