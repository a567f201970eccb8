//! Asking for work by a form, and ending it.
//!
//! What always holds: what is asked for, the key of its form and its entry in the record of activity are one transaction, as where the REST API asks; a form that is sent twice asks
//! once. Nothing is done here: a service takes it from the catalog's queue.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use farshore_catalog::Error;
use farshore_catalog::job::{JobKind, JobState, spec};
use serde::Serialize;

use crate::api::job;
use crate::ask::{self, Key, Work};
use crate::pages::visitor::{Posted, Visitor};
use crate::problem::{Kind, Problem};
use crate::state::Shared;

/// How the record of activity says that a page asked.
pub const WAY: &str = "a page";

/// Wants a job ended. One that was cancelled already is as it was wished.
///
/// # Errors
/// When there is none, or it has ended otherwise.
pub async fn cancel(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    _form: Posted,
) -> Result<Response, Problem> {
    let found = job::one(&web, &visitor.who, &id).await?;
    if !matches!(found.state, JobState::Cancelling | JobState::Cancelled) {
        match job::cancelled(web.catalog()?, &visitor.who, &found, WAY).await {
            Ok(_) => {}
            Err(Error::Conflict { reason, .. }) => {
                let detail = format!("the job {id} was not cancelled: {reason}");
                return Err(Problem::new(Kind::JobEnded, detail).hint("its page says what came of it"));
            }
            Err(why) => return Err(why.into()),
        }
    }
    Ok(to(found.asked.id))
}

/// Asks for a base backup.
///
/// # Errors
/// When there is no such database for whoever asks, as much is queued as may be, or the catalog is away.
pub async fn backup(
    web: State<Shared>,
    visitor: Extension<Visitor>,
    name: Path<String>,
    form: Posted,
) -> Result<Response, Problem> {
    // Whatever is not said is as it is for all: into each of the database's stores.
    asked(web, visitor, name, form, JobKind::Backup, &spec::Backup::default()).await
}

/// Asks for a verification.
///
/// # Errors
/// As [`backup`].
pub async fn verify(
    web: State<Shared>,
    visitor: Extension<Visitor>,
    name: Path<String>,
    form: Posted,
) -> Result<Response, Problem> {
    asked(web, visitor, name, form, JobKind::Verify, &spec::Verify {}).await
}

/// Asks what an expiry would do.
///
/// # Errors
/// As [`backup`].
pub async fn expiry_preview(
    web: State<Shared>,
    visitor: Extension<Visitor>,
    name: Path<String>,
    form: Posted,
) -> Result<Response, Problem> {
    let database = ask::database(&web, &visitor.who, &name).await?;
    // One is enough for all who ask.
    match ask::under_way(&web, JobKind::Preview, &database.name).await? {
        Some(found) => Ok(to(found.asked.id)),
        None => asked(web, visitor, name, form, JobKind::Preview, &spec::Preview {}).await,
    }
}

/// Asks for an expiry.
///
/// # Errors
/// As [`backup`].
pub async fn expire(
    web: State<Shared>,
    visitor: Extension<Visitor>,
    name: Path<String>,
    form: Posted,
) -> Result<Response, Problem> {
    asked(web, visitor, name, form, JobKind::Expire, &spec::Expire {}).await
}

async fn asked<T: Serialize + Sync>(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    form: Posted,
    kind: JobKind,
    spec: &T,
) -> Result<Response, Problem> {
    let key = Key::of_form(&form)?;
    let database = ask::database(&web, &visitor.who, &name).await?;
    let work = Work { kind, database: &database.name, spec, node: None };
    Ok(to(ask::put(&web, &visitor.who, key, work, WAY).await?.job))
}

/// To a job's page.
pub fn to(job: impl std::fmt::Display) -> Response {
    Redirect::to(&format!("/jobs/{job}")).into_response()
}
