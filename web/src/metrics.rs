//! `/metrics`: how every database of the catalog stands, for Prometheus. `docs/adr/2026-11-27-metrics.md` argues it.
//!
//! What always holds: the page is written from memory, so that reading it costs nothing and cannot wait for the catalog; it never lacks a
//! database that this process's configuration names, nor one that was ever read, so that no alarm falls silent because its
//! figure is gone. The state and the exposure are judged by the catalog crate's own rules, at the moment of the question.
//! Nothing in it is a secret; a token for one database sees that database alone.

pub mod access;
pub mod families;
pub mod reading;
pub mod requests;
mod standing;
pub mod text;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chrono::Utc;
use farshore_catalog::Time;
use farshore_catalog::fleet::Fleet;
use farshore_catalog::schedule::Schedule;
use farshore_journal::DatabaseName;
use tokio::sync::watch;

use self::families as f;
use self::reading::{Ends, Reading};
use self::requests::Requests;
use self::text::{Page, whole};
use crate::auth::Who;
use crate::problem::Problem;
use crate::state::{Objectives, Shared};

/// Where it is.
pub const PATH: &str = "/metrics";

/// When a schedule's next run becomes overdue, given when such work last succeeded. Who can read cron expressions says it.
pub type Overdue = Box<dyn Fn(&Schedule, Option<Time>) -> Option<Time> + Send + Sync>;

/// How a channel of notification did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivered {
    /// What it took.
    pub sent: u64,
    /// What it did not take, or what was dropped because it was too slow.
    pub failed: u64,
}

/// What the page is written from.
pub struct Metrics {
    objectives: BTreeMap<DatabaseName, Objectives>,
    overdue: Overdue,
    reading: watch::Sender<Option<Arc<Reading>>>,
    channels: Mutex<BTreeMap<String, Delivered>>,
    requests: Requests,
    proved: access::Proved,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").field("objectives", &self.objectives).finish_non_exhaustive()
    }
}

impl Metrics {
    /// Of a service with these databases in its configuration.
    pub fn new(objectives: BTreeMap<DatabaseName, Objectives>, overdue: Overdue) -> Arc<Self> {
        Arc::new(Self {
            objectives,
            overdue,
            reading: watch::Sender::new(None),
            channels: Mutex::default(),
            requests: Requests::default(),
            proved: access::Proved::default(),
        })
    }

    /// The catalog was read.
    pub fn told(&self, fleet: Fleet) {
        self.reading.send_modify(|reading| {
            let ends = reading.as_ref().map(|reading| reading.ends.clone()).unwrap_or_default();
            *reading = Some(Arc::new(Reading { fleet: Arc::new(fleet), ends, failed: false }));
        });
    }

    /// The catalog could not be read.
    pub fn not_told(&self, why: &str) {
        tracing::debug!(error = why, "the catalog cannot be read for metrics");
        self.reading.send_modify(|reading| {
            *reading = reading.as_ref().map(|last| Arc::new(Reading { failed: true, ..(**last).clone() }));
        });
    }

    fn ends_found(&self, database: DatabaseName, ends: Ends) {
        self.reading.send_modify(|reading| {
            if let Some(reading) = reading {
                Arc::make_mut(reading).ends.insert(database, ends);
            }
        });
    }

    /// What was read last; `None` before anything was.
    pub fn reading(&self) -> Option<Arc<Reading>> {
        self.reading.borrow().clone()
    }

    /// What is promised of a database of this process's configuration.
    pub fn objectives(&self) -> &BTreeMap<DatabaseName, Objectives> {
        &self.objectives
    }

    /// When a schedule's next run becomes overdue.
    pub fn overdue(&self, schedule: &Schedule, fleet: &Fleet) -> Option<Time> {
        let of = |job: &&farshore_catalog::fleet::JobFacts| {
            job.kind == schedule.kind && job.database.as_ref() == Some(&schedule.database)
        };
        let succeeded = fleet.jobs.iter().find(of).and_then(|job| job.last_success);
        (self.overdue)(schedule, succeeded)
    }

    /// How a channel did so far; one that did nothing yet is there with 0.
    pub fn delivered(&self, channel: &str, change: impl FnOnce(&mut Delivered)) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        change(channels.entry(channel.to_owned()).or_default());
    }

    /// The page, as it may be shown to somebody who sees one database only, or all of them.
    pub fn page(&self, now: Time, only: Option<&DatabaseName>) -> String {
        let mut page = Page::default();
        let commit = option_env!("FARSHORE_COMMIT").unwrap_or("unknown");
        page.add(&f::BUILD_INFO, &[env!("CARGO_PKG_VERSION"), commit], 1.0);
        let reading = self.reading();
        let away = reading.as_ref().is_none_or(|reading| reading.is_away(now));
        page.add(&f::CATALOG_UP, &[], whole(u64::from(!away)));
        let read_at = reading.as_ref().map(|reading| reading.fleet.read_at);
        page.add(&f::CATALOG_READ, &[], standing::moment(read_at));
        standing::write(&mut page, self, now, (reading.as_deref(), away), only);
        if only.is_none() {
            self.requests.write(&mut page);
            let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
            for (channel, delivered) in &*channels {
                page.add(&f::NOTIFIED, &[channel], whole(delivered.sent));
                page.add(&f::NOTIFY_FAILED, &[channel], whole(delivered.failed));
            }
        }
        page.text()
    }
}

fn answer(text: String) -> Response {
    ([(header::CONTENT_TYPE, text::MEDIA_TYPE)], text).into_response()
}

/// The page, for whoever may see it.
pub(crate) async fn serve(State(web): State<Shared>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let Who { database, .. } = access::admit(&web, &parts).await?;
    Ok(answer(web.metrics.page(Utc::now(), database.as_ref())))
}

/// The page alone, for whoever reaches the address: one on loopback, that is configured for it.
pub fn open_router(metrics: Arc<Metrics>) -> Router {
    let page = |State(metrics): State<Arc<Metrics>>| async move { answer(metrics.page(Utc::now(), None)) };
    Router::new()
        .route(PATH, get(page))
        .with_state(metrics)
        .layer(axum::middleware::from_fn(crate::guard::around))
}
