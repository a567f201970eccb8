//! What all handlers share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farshore_catalog::Catalog;
use farshore_journal::DatabaseName;
use tokio::sync::Semaphore;

use crate::attempts::Attempts;
use crate::metrics::Metrics;
use crate::password;
use crate::problem::Problem;

/// Requests that may ask the catalog at once: of its four connections one is left to whoever records how shipping stands.
const ASKING: usize = 3;

/// What is promised of a database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Objectives {
    /// The most data, as time, that may be lost.
    pub rpo: Option<Duration>,
    /// The most time to resume service.
    pub rto: Option<Duration>,
}

/// The handlers' one state.
pub type Shared = Arc<Web>;

/// What all handlers share.
pub struct Web {
    /// `None` where the configured one cannot be named at all.
    catalog: Option<Catalog>,
    /// Of the databases of this service's configuration; others may share the catalog.
    pub objectives: BTreeMap<DatabaseName, Objectives>,
    /// Whether TLS carries the requests.
    pub secure: bool,
    /// Whether only this machine can ask.
    pub loopback: bool,
    /// Who failed to be let in.
    pub attempts: Attempts,
    /// Passwords that are checked at once.
    pub checking: Arc<Semaphore>,
    /// Requests that ask the catalog at once.
    pub asking: Semaphore,
    /// How everything stands, for whoever watches.
    pub metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Web {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Web").field("secure", &self.secure).finish_non_exhaustive()
    }
}

impl Web {
    /// Over a catalog, for requests that arrive as said.
    pub fn new(
        catalog: Option<Catalog>,
        objectives: BTreeMap<DatabaseName, Objectives>,
        secure: bool,
        loopback: bool,
    ) -> Shared {
        let metrics = Metrics::new(objectives.clone(), Box::new(|_, _| None));
        Self::measured(catalog, objectives, (secure, loopback), metrics)
    }

    /// As [`new`](Self::new), with metrics that others write too.
    pub fn measured(
        catalog: Option<Catalog>,
        objectives: BTreeMap<DatabaseName, Objectives>,
        (secure, loopback): (bool, bool),
        metrics: Arc<Metrics>,
    ) -> Shared {
        let checking = Arc::new(Semaphore::new(password::AT_ONCE));
        Arc::new(Self {
            catalog,
            objectives,
            secure,
            loopback,
            attempts: Attempts::default(),
            checking,
            asking: Semaphore::new(ASKING),
            metrics,
        })
    }

    /// The catalog.
    ///
    /// # Errors
    /// When there is none that could be asked.
    pub fn catalog(&self) -> Result<&Catalog, Problem> {
        self.catalog.as_ref().ok_or_else(Problem::away)
    }
}
