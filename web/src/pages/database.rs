//! One database: is it safe, where can it be taken back to, and which point matters.
//!
//! What always holds: a refresh never moves what was picked. What is shown to be restorable is what the catalog knows; the restore's own plan reads the store.

mod facts;
mod history;
mod picture;
mod points;
mod throttles;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::access::Role;
use farshore_catalog::proof::Proof;
use farshore_catalog::status::DatabaseStatus;
use farshore_journal::DatabaseName;
use serde::Deserialize;

use self::facts::facts;
use self::history::{BACKUPS, BackupLine, History};
use self::points::timeline;
use crate::api::named;
use crate::ask::Key;
use crate::page::Query;
use crate::pages::exposure::{self, Chart};
use crate::pages::frame::{self, Page, Part};
use crate::pages::visitor::Visitor;
use crate::pages::words::{self, Moment};
use crate::pages::{html, is_part, render};
use crate::problem::Problem;
use crate::state::Shared;

/// Which point, and how much of the history.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    pos: Option<String>,
    at: Option<String>,
    point: Option<String>,
    #[serde(default)]
    zoom: String,
    /// The part that is fetched anew.
    #[serde(default)]
    part: String,
}

impl Asked {
    /// Empty fields of a form are none.
    fn given(self) -> Self {
        let some =
            |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        Self { pos: some(self.pos), at: some(self.at), point: some(self.point), ..self }
    }
}

struct FormerLine {
    number: String,
    from: Option<Moment>,
    to: Option<Moment>,
    restorable: bool,
}

#[derive(Template)]
#[template(path = "exposure.html")]
struct ExposurePart {
    chart: Chart,
    objective: Option<String>,
}

#[derive(Template)]
#[template(path = "database.html")]
struct DatabasePage {
    name: String,
    csrf: String,
    key: String,
    operator: bool,
    zoom: String,
    facts: String,
    exposure: String,
    throttles: String,
    timeline: String,
    typed: String,
    backups: Vec<BackupLine>,
    more_backups: usize,
    former: Vec<FormerLine>,
}

/// The page, or the part of it that is asked for anew.
///
/// # Errors
/// When there is no such database for whoever asks, or the catalog is away.
pub async fn page(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let name = named(&name, &visitor.who)?;
    let asked = asked.given();
    let now = Utc::now();
    let catalog = web.catalog()?;
    let status = catalog.status(&name, now).await?;
    let part = if is_part(&headers) { asked.part.as_str() } else { "" };
    if part == "facts" {
        let proof = proof(catalog, &name, &status).await?;
        let recovery = catalog.recovery(&name, now).await?;
        let guard = catalog.guard_of(&name).await?;
        return Ok(html(render(&facts(&web, &name, now, status, (guard.as_ref(), &proof, &recovery)))?));
    }
    if part == "throttles" {
        return Ok(html(throttles(catalog, &name, now).await?));
    }
    let history = History::read(catalog, &status).await?;
    let timeline = timeline(catalog, &name, now, &status, &history, &asked).await?;
    if part == "timeline" {
        return Ok(html(timeline));
    }
    let proof = proof(catalog, &name, &status).await?;
    let recovery = catalog.recovery(&name, now).await?;
    let guard = catalog.guard_of(&name).await?;
    let page = DatabasePage {
        name: name.to_string(),
        csrf: visitor.csrf.clone(),
        key: Key::mint()?,
        operator: visitor.may(Role::Operator),
        zoom: asked.zoom.clone(),
        typed: asked.at.clone().unwrap_or_default(),
        backups: history.lines(now),
        more_backups: history.backups.len().saturating_sub(BACKUPS),
        former: former(now, &status),
        exposure: exposure(&web, catalog, &name, now).await?,
        throttles: throttles(catalog, &name, now).await?,
        timeline,
        facts: render(&facts(&web, &name, now, status, (guard.as_ref(), &proof, &recovery)))?,
    };
    let trail = vec![("/".to_owned(), "Fleet".to_owned())];
    frame::show(
        &Page { title: name.to_string(), part: Part::Fleet, trail, said: None, body: render(&page)? },
        &visitor,
    )
}

/// What drills say of its current incarnation.
async fn proof(catalog: &Catalog, name: &DatabaseName, status: &DatabaseStatus) -> Result<Proof, Problem> {
    Ok(Proof::of(&status.present, &catalog.drill_newest(Some(name)).await?))
}

/// What limits it now.
async fn throttles(catalog: &Catalog, name: &DatabaseName, now: DateTime<Utc>) -> Result<String, Problem> {
    let all = catalog.throttle_list().await?;
    render(&throttles::shown(name, now, all.iter().find(|one| one.database == *name)))
}

/// How the exposure went over the last day.
async fn exposure(
    web: &Shared,
    catalog: &Catalog,
    name: &DatabaseName,
    now: DateTime<Utc>,
) -> Result<String, Problem> {
    let from = now - TimeDelta::days(1);
    let kept = catalog.exposure_of(name, from).await?;
    let rpo = web.objectives.get(name).and_then(|promised| promised.rpo).map(|rpo| rpo.as_secs_f64());
    render(&ExposurePart {
        chart: exposure::chart(from, now, &kept, rpo),
        objective: rpo.map(words::seconds),
    })
}

fn former(now: DateTime<Utc>, status: &DatabaseStatus) -> Vec<FormerLine> {
    let line = |former: &farshore_catalog::status::Former| FormerLine {
        number: former.number.map_or_else(|| former.incarnation.to_string(), |number| number.to_string()),
        from: Moment::maybe(now, former.window.as_ref().and_then(|window| window.from_time)),
        to: Moment::maybe(now, former.window.as_ref().and_then(|window| window.to_time)),
        restorable: former.window.is_some(),
    };
    status.former.iter().map(line).collect()
}
