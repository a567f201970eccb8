//! The one look at the catalog for all listeners.
//!
//! What always holds: what is the same as at the last look is no event; the first look makes none. A job that began and ended between two looks is told as it
//! ended. A catalog that is away, or does not answer for [`PATIENCE`], is said to be, and what changed meanwhile is told when it is back.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::job::{Job as Known, JobFilter, JobId};
use farshore_journal::DatabaseName;
use tokio_util::sync::CancellationToken;

use super::Kind;
use crate::api::job::Job;
use crate::api::shape::Status;
use crate::state::{Shared, Web};

/// Between two looks at the jobs.
const LOOK: Duration = Duration::from_secs(1);
/// How long a look may take until the catalog counts as away.
const PATIENCE: Duration = Duration::from_secs(3);
/// Looks at the jobs between two at the databases: more is asked of the catalog for each of those.
const STATUS_LOOKS: u32 = 5;
/// Jobs that are looked at although they have ended: more do not end between two looks.
const ENDED: u32 = 100;

/// What was seen at the last look.
#[derive(Default)]
struct Seen {
    jobs: Option<BTreeMap<JobId, String>>,
    databases: Option<BTreeMap<DatabaseName, String>>,
}

/// Looks while anybody listens, until cancelled.
pub async fn poll(web: Shared, cancel: CancellationToken) {
    let mut seen = Seen::default();
    let mut came = web.events.came.subscribe();
    let mut looks = 0_u32;
    loop {
        let goes_on = web.events.is_heard();
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = came.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK), if goes_on => {}
        }
        let looking = Box::pin(look(&web, &mut seen, looks.is_multiple_of(STATUS_LOOKS)));
        let looked = tokio::select! {
            () = cancel.cancelled() => return,
            looked = slowly(&web, looking) => looked,
        };
        web.events.catalog_is(looked.is_err());
        match looked {
            Ok(()) => {
                looks = looks.wrapping_add(1);
                web.events.looked.send_modify(|looked| *looked += 1);
            }
            Err(why) => tracing::debug!(error = %why, "what changed cannot be told: the catalog is away"),
        }
    }
}

/// A look, which is not given up when it takes long: what it told by then is not to be told twice.
async fn slowly<T>(web: &Web, mut looking: impl Future<Output = T> + Unpin) -> T {
    tokio::select! {
        biased;
        looked = &mut looking => return looked,
        () = tokio::time::sleep(PATIENCE) => web.events.catalog_is(true),
    }
    looking.await
}

async fn look(web: &Web, seen: &mut Seen, databases: bool) -> farshore_catalog::Result<()> {
    // Nobody listens where there is no catalog to know him.
    let Ok(catalog) = web.catalog() else { return Ok(()) };
    let now = Utc::now();
    let jobs = {
        let _turn = web.asking.acquire().await;
        jobs(catalog, seen.jobs.as_ref()).await?
    };
    let mut shown = BTreeMap::new();
    for (id, job) in jobs {
        let database = job.asked.database.clone();
        let data = json(&Job::new(job, now));
        let is_new = seen.jobs.as_ref().is_some_and(|seen| seen.get(&id) != Some(&data));
        if is_new {
            web.events.add(Kind::Job, database, data.clone());
        }
        shown.insert(id, data);
    }
    seen.jobs = Some(shown);
    if databases || seen.databases.is_none() {
        self::databases(web, catalog, seen, now).await?;
    }
    Ok(())
}

/// The jobs that may be other than they were seen: those that have not ended, those that had not, and the newest.
async fn jobs(
    catalog: &Catalog,
    seen: Option<&BTreeMap<JobId, String>>,
) -> farshore_catalog::Result<BTreeMap<JobId, Known>> {
    let mut found: BTreeMap<JobId, Known> = BTreeMap::new();
    let newest = catalog.job_list(&JobFilter::default(), ENDED).await?;
    for job in catalog.job_unended().await?.into_iter().chain(newest) {
        found.insert(job.asked.id, job);
    }
    // What had not ended and is in neither list has ended since.
    let is_open = |shown: &str| {
        !["succeeded", "failed", "cancelled"]
            .iter()
            .any(|word| shown.contains(&format!("\"state\":\"{word}\"")))
    };
    for (id, _) in seen.into_iter().flatten().filter(|(_, shown)| is_open(shown)) {
        if !found.contains_key(id)
            && let Some(job) = catalog.job_get(*id).await?
        {
            found.insert(*id, job);
        }
    }
    Ok(found)
}

async fn databases(
    web: &Web,
    catalog: &Catalog,
    seen: &mut Seen,
    now: DateTime<Utc>,
) -> farshore_catalog::Result<()> {
    let all = {
        let _turn = web.asking.acquire().await;
        catalog.database_list().await?
    };
    let mut shown = BTreeMap::new();
    for database in all {
        let _turn = web.asking.acquire().await;
        let status = match catalog.status(&database.name, now).await {
            Ok(status) => status,
            // Forgotten since the list was read.
            Err(farshore_catalog::Error::NoDatabase { .. }) => continue,
            Err(why) => return Err(why),
        };
        let promised = web.objectives.get(&database.name).copied().unwrap_or_default();
        let data = json(&Status::new(now, status, promised));
        let is_new = seen.databases.as_ref().is_some_and(|seen| seen.get(&database.name) != Some(&data));
        if is_new {
            web.events.add(Kind::Status, Some(database.name.clone()), data.clone());
        }
        shown.insert(database.name, data);
    }
    seen.databases = Some(shown);
    Ok(())
}

/// Strings, numbers and times: there is nothing that could not be written.
fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
