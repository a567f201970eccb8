//! `/schedules`: what falls due by a clock, and up to when it was answered.

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Who;
use crate::page::{self, Asked, Page, Query};
use crate::problem::Problem;
use crate::state::Shared;

const LIST: &str = "schedules";

/// A schedule, as the services last had it in their configuration.
#[derive(Debug, Serialize, ToSchema)]
pub struct Schedule {
    /// The database.
    pub database: String,
    /// What is done.
    pub kind: String,
    /// When, as a cron expression.
    pub cron: String,
    /// In this zone.
    pub zone: String,
    /// The next due times, the soonest first: five, or fewer where there are not as many; none where the expression cannot be read here.
    pub next: Vec<DateTime<Utc>>,
    /// The newest due time that was answered, with a job or by leaving it out.
    pub answered: DateTime<Utc>,
    /// The job that last answered one.
    pub job: Option<String>,
}

/// What falls due by a clock, by database and kind
#[utoipa::path(get, path = "/schedules", tag = "schedules", params(Asked),
    responses((status = 200, description = "A page of them", body = Page<Schedule>)))]
pub async fn list(
    State(web): State<Shared>,
    who: Who,
    uri: OriginalUri,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let (page, now) = (asked.read(LIST)?, Utc::now());
    let mut all = web.catalog()?.schedule_list().await?;
    all.retain(|schedule| who.sees(&schedule.database));
    let key =
        |one: &farshore_catalog::schedule::Schedule| (one.database.to_string(), one.kind.word().to_owned());
    let (all, next_cursor) = page::cut(all, LIST, page, key)?;
    let items = all
        .into_iter()
        .map(|schedule| Schedule {
            next: web.here.due(&schedule, now),
            database: schedule.database.to_string(),
            kind: schedule.kind.word().to_owned(),
            cron: schedule.cron,
            zone: schedule.zone,
            answered: schedule.due,
            job: schedule.job.map(|job| job.to_string()),
        })
        .collect();
    Ok(page::answer(&uri, &["limit"], items, next_cursor))
}
