//! Who did what, newest first.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use chrono::Utc;
use serde::Deserialize;

use crate::page::Query;
use crate::pages::frame::{self, Page, Part};
use crate::pages::render;
use crate::pages::visitor::Visitor;
use crate::pages::words::Moment;
use crate::problem::Problem;
use crate::state::Shared;

/// Entries on a page.
const LISTED: u32 = 100;

/// From where on.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Entries older than this number.
    before: Option<u64>,
}

struct Line {
    number: u64,
    at: Moment,
    who: String,
    what: String,
    database: Option<String>,
    detail: String,
}

#[derive(Template)]
#[template(path = "activity.html")]
struct ActivityPage {
    lines: Vec<Line>,
    older: Option<u64>,
    newest: bool,
}

/// The record.
///
/// # Errors
/// When the catalog is away, or whoever asks sees one database only.
pub async fn page(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    visitor.who.sees_all()?;
    let now = Utc::now();
    let entries = web.catalog()?.activity_list(asked.before, LISTED).await?;
    let older = entries.last().filter(|last| last.number > 1).map(|last| last.number);
    let lines = entries.into_iter().map(|entry| Line {
        number: entry.number,
        at: Moment::new(now, entry.activity.at),
        who: entry.activity.who,
        what: entry.activity.what,
        database: entry.activity.database.map(|name| name.to_string()),
        detail: entry.activity.detail,
    });
    let body = render(&ActivityPage { lines: lines.collect(), older, newest: asked.before.is_none() })?;
    let page =
        Page { title: "Activity".to_owned(), part: Part::Activity, trail: Vec::new(), said: None, body };
    frame::show(&page, &visitor)
}
