//! Work that a command does by itself, recorded as a job that it holds from the start.
//!
//! What always holds: where the catalog is away or was never made, the work is done all the same, nothing is made for it, and it waits for the
//! catalog no longer than `BRIEFLY`.

use chrono::Utc;
use farshore_catalog::Catalog;
use farshore_catalog::job::{Claim, NewJob};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::held::{BRIEFLY, Held, Patience};
use super::this_process;
use crate::config::Config;
use crate::wiring;

/// The catalog that a command's work is recorded in, if it can be opened now.
pub async fn catalog(config: &Config) -> Option<Catalog> {
    farshore_shipper::crash::prepare();
    if wiring::catalog_is_absent(config) {
        return None;
    }
    match timeout(BRIEFLY, wiring::catalog(config)).await {
        Ok(Ok(catalog)) => Some(catalog),
        Ok(Err(why)) => {
            tracing::warn!(error = %why.happened, "what is done is not recorded as a job");
            None
        }
        Err(_) => {
            tracing::warn!("what is done is not recorded as a job: the catalog does not answer");
            None
        }
    }
}

/// Records work that begins now. It ends when `process` is cancelled, or when somebody cancels the job.
pub async fn begin(catalog: Option<&Catalog>, job: NewJob, process: &CancellationToken) -> Held {
    let holder = this_process();
    let claim = Claim { id: job.id, attempt: 1, process: holder.process.clone() };
    if let Some(catalog) = catalog {
        match timeout(BRIEFLY, catalog.job_put(&job, Some(&holder), Utc::now())).await {
            Ok(Ok(())) => tracing::debug!(job = %job.id, "recorded"),
            // It may be recorded all the same: then its beats are heard, and else they say nothing to anybody.
            Ok(Err(why)) => tracing::warn!(error = %why, "the {} may not be recorded as a job", job.kind),
            Err(_) => tracing::warn!("the {} may not be recorded as a job: the catalog is slow", job.kind),
        }
    }
    Held::new(catalog.cloned(), (claim, job.kind), Patience::Command, process)
}
