//! Asking for a restore's plan, and for the restore.
//!
//! What always holds: both name the commit by its position and the store that was reviewed; both are asked for once however often their form is sent, and a restore goes only where the
//! REST API would let it go.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use farshore_catalog::job::{JobKind, spec};

use super::then;
use crate::api::plan::{Target, history};
use crate::api::restore;
use crate::ask::{self, Key, Work};
use crate::pages::jobs::asking::{self, WAY};
use crate::pages::visitor::{Posted, Visitor};
use crate::pages::words;
use crate::problem::Problem;
use crate::state::Shared;

/// Asks for the plan of what was reviewed, and leads back to the review with it.
///
/// # Errors
/// When there is no such database for whoever asks, what is asked for cannot be one, or the catalog is away.
pub async fn plan(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    form: Posted,
) -> Result<Response, Problem> {
    let key = Key::of_form(&form)?;
    let spec = spec::Plan { target: target(&form)?, history: history(field(&form, "store"), None)? };
    let database = ask::database(&web, &visitor.who, &name).await?;
    let work = Work { kind: JobKind::Plan, database: &database.name, spec: &spec, node: None };
    let queued = ask::put(&web, &visitor.who, key, work, WAY).await?;
    let mut to = format!("/databases/{}/restore?", database.name);
    for name in ["pos", "to", "store", "then", "port"] {
        if let Some(value) = form.field(name) {
            to.push_str(&format!("{name}={}&", words::escaped(value)));
        }
    }
    Ok(Redirect::to(&format!("{to}plan={}", queued.job)).into_response())
}

/// Asks for the restore.
///
/// # Errors
/// When this service may not do it as it is asked for, or the catalog is away.
pub async fn begin(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    form: Posted,
) -> Result<Response, Problem> {
    let key = Key::of_form(&form)?;
    let start = match form.field("port").map(str::parse::<u16>) {
        None => None,
        Some(Ok(port)) if port > 0 => {
            let then = match then(form.field("then").unwrap_or_default()) {
                "promote" => spec::Then::Promote,
                "shutdown" => spec::Then::Shutdown,
                _ => spec::Then::Pause,
            };
            Some(spec::Start { port, then })
        }
        Some(_) => return Err(Problem::invalid("port", "is 1 to 65535, or empty to start no server")),
    };
    let spec = spec::Restore {
        target: target(&form)?,
        history: history(field(&form, "store"), None)?,
        directory: field(&form, "to").unwrap_or_default(),
        start,
        resolved: None,
    };
    let database = restore::judged(&web, &visitor.who, &name, &spec).await?;
    let node = Some(web.here.node.clone());
    let work = Work { kind: JobKind::Restore, database: &database.name, spec: &spec, node };
    Ok(asking::to(ask::put(&web, &visitor.who, key, work, WAY).await?.job))
}

fn field(form: &Posted, name: &str) -> Option<String> {
    form.field(name).map(str::to_owned)
}

/// The commit that was reviewed.
fn target(form: &Posted) -> Result<spec::Target, Problem> {
    Target::of_position(field(form, "pos")).read()
}
