//! One database: a pipeline for each target, the recorders, and the keeper of the hosts' slots.
//!
//! What always holds: `released` is the least of what every target stored ([`crate::retention`]); no keep slot moves
//! beyond it. The tasks belong to one set that is joined; the unexpected end of one ends the database, loudly.

use std::sync::Arc;
use std::time::Duration;

use farshore_catalog::Catalog;
use farshore_engines::postgres::wire::SlotName;
use farshore_journal::DatabaseName;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::crash::{self, crash_point};
use crate::error::ShipError;
use crate::facts;
use crate::file_log::FileLog;
use crate::founding::Place;
use crate::keep::{FreeBytes, HostKept, Keeper, Kept, SpoolSeen};
use crate::pipeline::copies::Copies;
use crate::pipeline::points::Points;
use crate::pipeline::postgres::{Cluster, SpoolAccess};
use crate::pipeline::{Pipeline, PipelineConfig, SourceConfig};
use crate::progress::Progress;
use crate::recorder::{PrimaryFacts, Recorder, StandingRecorder};
use crate::refreshing::Refreshing;
use crate::spool::Spooled;
use crate::spool::files::SpoolFiles;
use crate::spool::task::Spooler;
use crate::waits::WaitsWatch;

/// A target: its pipeline's settings, its store, and its address without secrets.
#[derive(Debug, Clone)]
pub struct TargetConfig {
    /// The pipeline's settings.
    pub pipeline: PipelineConfig,
    /// The store.
    pub store: Place,
    /// Its address for the catalog.
    pub url: String,
}

/// A database that is shipped.
#[derive(Clone)]
pub struct DatabaseConfig {
    /// Its name.
    pub name: DatabaseName,
    /// Its targets, at least one.
    pub targets: Vec<TargetConfig>,
    /// Where copies are asked for, of an engine that gives them in its stream.
    pub copies: Copies,
    /// Whether a base backup is taken because of a gap.
    pub refreshing: Refreshing,
    /// Where points are asked for, of an engine that names them in its stream.
    pub points: Points,
    /// How many targets must have a position for it to count as stored.
    pub required: usize,
    /// This node's name.
    pub node: String,
    /// Looks for free space beside a server's log.
    pub free: FreeBytes,
    /// Looks whether commits wait, where they are to and no guard says so.
    pub waits: Option<WaitsWatch>,
    /// Its spool, of a PostgreSQL cluster that has one.
    pub spool: Option<SpoolConfig>,
    /// Told what is learnt of the source.
    pub primary: watch::Sender<PrimaryFacts>,
}

/// A database's spool.
#[derive(Debug, Clone)]
pub struct SpoolConfig {
    /// Its files.
    pub files: SpoolFiles,
    /// How much the primary may keep for us before any log is taken, in bytes.
    pub above: u64,
    /// Whether log that was let go because the spool had it is waited for where it is not found.
    pub holds: bool,
    /// Whether its further directories are in use.
    pub extended: watch::Receiver<bool>,
    /// Told how it stands.
    pub told: watch::Sender<Spooled>,
}

/// Ships one database to all its targets until cancelled. `shown` gets each target's progress, in the order of the targets.
///
/// # Errors
/// The first pipeline's fault that waiting cannot mend, or its fencing; the others are then stopped.
pub async fn run(
    config: DatabaseConfig,
    catalog: Option<Catalog>,
    shown: watch::Sender<Vec<Progress>>,
    cancel: CancellationToken,
) -> Result<(), ShipError> {
    crash::prepare();
    let stop = cancel.child_token();
    // What is recorded and shown outlives the pipelines, so that how they ended is recorded and shown too.
    let ended = CancellationToken::new();
    let mut pipelines = JoinSet::new();
    let mut helpers = JoinSet::new();
    let mut watches = Vec::new();
    let mut config = config;
    let (primary_tx, primary_rx) = (config.primary.clone(), config.primary.subscribe());
    let kept_by = slots_on_hosts(&mut config.targets, config.spool.as_ref());
    let file = config.targets.iter().find_map(|target| match &target.pipeline.source {
        SourceConfig::Sqlite(file) => Some(file.follow.path.clone()),
        SourceConfig::Postgres(_) => None,
    });
    for target in config.targets {
        let (progress_tx, progress_rx) = watch::channel(Progress::default());
        let (facts_tx, facts_rx) = facts::channel();
        let store = target.pipeline.store_name.clone();
        let (copies, points) = (config.copies.clone(), config.points.clone());
        let pipeline = Pipeline::new(target.pipeline, target.store, progress_tx, facts_tx, copies, points);
        pipelines.spawn(pipeline.run(stop.clone()));
        match &catalog {
            Some(catalog) => {
                let recorder = Recorder {
                    catalog: catalog.clone(),
                    database: config.name.clone(),
                    store,
                    url: target.url,
                };
                helpers.spawn(recorder.run(facts_rx, progress_rx.clone(), ended.clone()));
            }
            // Without a catalog the facts go nowhere; the store holds them.
            None => drop(facts_rx),
        }
        watches.push(progress_rx);
    }
    if let Some(catalog) = catalog {
        let recorder = StandingRecorder {
            catalog,
            database: config.name.clone(),
            required: config.required,
            node: config.node,
            refreshing: config.refreshing.clone(),
            spool: config.spool.as_ref().map(|spool| spool.told.subscribe()),
        };
        helpers.spawn(recorder.run(watches.clone(), primary_rx, ended.clone()));
    }
    if let Some(path) = file {
        let log = FileLog { path, targets: watches.clone() };
        helpers.spawn(log.run(primary_tx, ended.clone()));
    } else if let Some((cluster, live, told)) = kept_by {
        let spool = config.spool.as_ref();
        let seen = spool.map(|spool| SpoolSeen { files: spool.files.clone(), told: spool.told.subscribe() });
        if let Some(spool) = config.spool {
            let spooler = Spooler {
                params: cluster.params.clone(),
                files: spool.files,
                above: spool.above,
                kept: cluster.kept.clone(),
                targets: watches.clone(),
                extended: spool.extended,
                told: spool.told,
            };
            helpers.spawn(spooler.run(ended.clone()));
        }
        let keeper = Keeper {
            params: cluster.params,
            keep: cluster.keep,
            live,
            targets: watches.clone(),
            free: config.free,
            waits: config.waits,
            spool: seen,
        };
        helpers.spawn(keeper.run(told, primary_tx, ended.clone()));
    }
    helpers.spawn(show(watches, shown, ended.clone()));
    crash_point!("supervise");
    let mut outcome = Ok(());
    while let Some(ended) = pipelines.join_next().await {
        let ended = ended.unwrap_or(Err(ShipError::TaskEnded { what: "pipeline" }));
        if let Err(why) = ended {
            tracing::error!(database = %config.name, error = %why, "shipping stopped");
            outcome = outcome.and(Err(why));
            stop.cancel();
        }
    }
    ended.cancel();
    while helpers.join_next().await.is_some() {}
    outcome
}

/// Has every target look at the keep slot on each of a cluster's hosts. Whose it is, the targets' own slots, and who is to say what is
/// learnt there, host by host; `None` for an engine that has no slots.
fn slots_on_hosts(
    targets: &mut [TargetConfig],
    spool: Option<&SpoolConfig>,
) -> Option<(Cluster, Vec<SlotName>, Vec<watch::Sender<HostKept>>)> {
    let mut clusters = Vec::new();
    for target in targets {
        match &mut target.pipeline.source {
            SourceConfig::Postgres(cluster) => clusters.push(cluster),
            SourceConfig::Sqlite(_) => {}
        }
    }
    let hosts = clusters.first()?.params.hosts().to_vec();
    let (told, kept): (Vec<_>, Kept) = hosts
        .into_iter()
        .map(|host| {
            let (told, heard) = watch::channel(HostKept::default());
            (told, (host, heard))
        })
        .unzip();
    let live = clusters.iter().map(|cluster| cluster.slot.clone()).collect();
    for cluster in &mut clusters {
        cluster.kept = kept.clone();
        cluster.spool = spool.map(|spool| SpoolAccess {
            files: spool.files.clone(),
            holds: spool.holds,
            reads: Arc::default(),
        });
    }
    let cluster = clusters.first().map(|cluster| (***cluster).clone())?;
    Some((cluster, live, told))
}

/// Gathers the targets' progress for whoever shows it.
async fn show(
    watches: Vec<watch::Receiver<Progress>>,
    shown: watch::Sender<Vec<Progress>>,
    cancel: CancellationToken,
) {
    let look = || watches.iter().map(|watch| watch.borrow().clone()).collect();
    loop {
        shown.send_replace(look());
        tokio::select! {
            () = cancel.cancelled() => {
                shown.send_replace(look());
                return;
            }
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
}
