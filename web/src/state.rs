//! What all handlers share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::schedule::Schedule;
use farshore_journal::DatabaseName;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::attempts::Attempts;
use crate::channels::Channels;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::pages::look::Lately;
use crate::password;
use crate::problem::Problem;

/// Requests that may ask the catalog at once: of its four connections one is left to whoever records how shipping stands.
const ASKING: usize = 3;

/// Callers that may wait for a job at once: each looks at it twice a second.
const WAITING: usize = 64;

/// What a commit of a database waits for, as the configuration asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Waits {
    /// Nothing.
    #[default]
    Nothing,
    /// Until no more than so much log is not stored.
    Within {
        /// Bytes of log.
        bound_bytes: u64,
    },
    /// Until it is stored.
    Stored {
        /// For so long at most; `None`: as long as it takes.
        timeout: Option<Duration>,
    },
}

/// What is promised of a database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Objectives {
    /// The most data, as time, that may be lost.
    pub rpo: Option<Duration>,
    /// The most time to resume service.
    pub rto: Option<Duration>,
    /// What its commits wait for.
    pub waits: Waits,
}

/// The service that answers.
#[derive(Debug, Clone, Default)]
pub struct Here {
    /// Its machine's name.
    pub node: String,
    /// The folders beneath which it may restore; none: it does no restores.
    pub restore_roots: Vec<PathBuf>,
    /// Cancelled when it is to end: who waits is answered.
    pub stop: CancellationToken,
    /// Whom it tells.
    pub channels: Channels,
    /// When what falls due by a clock does next; `None` where nobody can say.
    pub due: Option<Due>,
}

/// The next few due times behind a time, of a cron expression in a zone; none where it cannot be read.
pub type Due = fn(cron: &str, zone: &str, now: DateTime<Utc>) -> Vec<DateTime<Utc>>;

impl Here {
    /// The next few due times of a schedule.
    pub fn due(&self, schedule: &Schedule, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        self.due.map_or_else(Vec::new, |due| due(&schedule.cron, &schedule.zone, now))
    }
}

/// The handlers' one state.
pub type Shared = Arc<Web>;

/// What all handlers share.
pub struct Web {
    /// `None` where the configured one cannot be named at all.
    catalog: Option<Catalog>,
    /// Of the databases of this service's configuration; others may share the catalog.
    pub objectives: BTreeMap<DatabaseName, Objectives>,
    /// The service that answers.
    pub here: Here,
    /// What changes, for whoever listens.
    pub events: Events,
    /// Whether TLS carries the requests.
    pub secure: bool,
    /// Whether only this machine can ask.
    pub loopback: bool,
    /// Who failed to be let in.
    pub attempts: Attempts,
    /// Passwords that are checked at once.
    pub checking: Arc<Semaphore>,
    /// Callers that wait for a job at once.
    pub waiting: Semaphore,
    /// Requests that ask the catalog at once.
    pub asking: Arc<Semaphore>,
    /// How everything stands, for whoever watches, and for pages of all databases.
    pub metrics: Arc<Metrics>,
    /// How the exposure of all databases went lately.
    pub lately: Lately,
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
        here: Here,
        secure: bool,
        loopback: bool,
    ) -> Shared {
        let metrics = Metrics::new(objectives.clone(), Box::new(|_, _| None));
        Self::measured(catalog, objectives, here, (secure, loopback), metrics)
    }

    /// As [`new`](Self::new), with metrics that others write too.
    pub fn measured(
        catalog: Option<Catalog>,
        objectives: BTreeMap<DatabaseName, Objectives>,
        here: Here,
        (secure, loopback): (bool, bool),
        metrics: Arc<Metrics>,
    ) -> Shared {
        let checking = Arc::new(Semaphore::new(password::AT_ONCE));
        Arc::new(Self {
            catalog,
            objectives,
            here,
            events: Events::default(),
            secure,
            loopback,
            attempts: Attempts::default(),
            checking,
            waiting: Semaphore::new(WAITING),
            asking: Arc::new(Semaphore::new(ASKING)),
            metrics,
            lately: Lately::default(),
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
