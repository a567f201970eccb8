//! Work that a command does by itself, recorded as a job that it holds from the start.
//!
//! What always holds: where the catalog is away or was never made, the work is done all the same, and nothing is made for it.

use chrono::Utc;
use farshore_catalog::job::NewJob;
use tokio_util::sync::CancellationToken;

use super::held::Held;
use super::this_process;
use crate::config::Config;
use crate::wiring;

/// Records work that begins now. It ends when `process` is cancelled, or when somebody cancels the job.
pub async fn begin(config: &Config, job: NewJob, process: &CancellationToken) -> Held {
    farshore_shipper::crash::prepare();
    let claim = (job.id, job.kind, 1);
    let catalog = match wiring::catalog_is_absent(config) {
        true => None,
        false => match wiring::catalog(config).await {
            Ok(catalog) => match catalog.job_put(&job, Some(&this_process()), Utc::now()).await {
                Ok(()) => Some(catalog),
                Err(why) => {
                    tracing::warn!(error = %why, "the {} is not recorded as a job", job.kind);
                    None
                }
            },
            Err(why) => {
                tracing::warn!(error = %why.happened, "the {} is not recorded as a job", job.kind);
                None
            }
        },
    };
    if catalog.is_some() {
        tracing::debug!(job = %job.id, "recorded");
    }
    Held::new(catalog, claim, process)
}
