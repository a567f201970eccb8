//! One database: a pipeline for each target, the recorder, and the watch over the primary's log.
//!
//! What always holds: `released` is the least of what every target stored ([`crate::retention`]); the keep slot never moves
//! beyond it. The tasks belong to one set that is joined; the unexpected end of one ends the database, loudly.

use std::sync::Arc;
use std::time::Duration;

use farshore_catalog::Catalog;
use farshore_engines::postgres::sql::Session;
use farshore_engines::postgres::wire::{ConnectParams, SlotName};
use farshore_journal::store::ObjectStore;
use farshore_journal::{DatabaseName, Position};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::crash;
use crate::error::ShipError;
use crate::pipeline::{Pipeline, PipelineConfig};
use crate::progress::Progress;
use crate::recorder::{FACTS_WAITING, PrimaryFacts, Recorder};
use crate::retention;

/// How often the keep slot is moved and the primary's log is looked at.
const WATCH: Duration = Duration::from_secs(1);

/// A target: its pipeline's settings, its store, and its address without secrets.
#[derive(Debug, Clone)]
pub struct TargetConfig {
    /// The pipeline's settings.
    pub pipeline: PipelineConfig,
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// Its address for the catalog.
    pub url: String,
}

/// A database that is shipped.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// Its name.
    pub name: DatabaseName,
    /// How its servers are reached.
    pub params: ConnectParams,
    /// The slot that keeps the log until it is released.
    pub keep: SlotName,
    /// Its targets, at least one.
    pub targets: Vec<TargetConfig>,
    /// This node's name.
    pub node: String,
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
    let mut pipelines = JoinSet::new();
    let mut helpers = JoinSet::new();
    let mut watches = Vec::new();
    let (primary_tx, primary_rx) = watch::channel(PrimaryFacts::default());
    for target in config.targets {
        let (progress_tx, progress_rx) = watch::channel(Progress::default());
        let (facts_tx, facts_rx) = mpsc::channel(FACTS_WAITING);
        let store = target.pipeline.store_name.clone();
        let pipeline = Pipeline::new(target.pipeline, target.store, progress_tx, facts_tx);
        pipelines.spawn(pipeline.run(stop.clone()));
        match &catalog {
            Some(catalog) => {
                let recorder = Recorder {
                    catalog: catalog.clone(),
                    database: config.name.clone(),
                    store,
                    url: target.url,
                    node: config.node.clone(),
                };
                helpers.spawn(recorder.run(facts_rx, progress_rx.clone(), primary_rx.clone(), stop.clone()));
            }
            // Without a catalog the facts go nowhere; the store holds them.
            None => drop(facts_rx),
        }
        watches.push(progress_rx);
    }
    helpers.spawn(watch_primary(config.params, config.keep, watches.clone(), primary_tx, stop.clone()));
    helpers.spawn(show(watches, shown, stop.clone()));
    let mut outcome = Ok(());
    while let Some(ended) = pipelines.join_next().await {
        let ended = ended.unwrap_or(Err(ShipError::TaskEnded { what: "pipeline" }));
        if let Err(why) = ended {
            tracing::error!(database = %config.name, error = %why, "shipping stopped");
            outcome = outcome.and(Err(why));
            stop.cancel();
        }
    }
    stop.cancel();
    while helpers.join_next().await.is_some() {}
    outcome
}

/// Moves the keep slot to what is released, and looks at how much log the primary keeps.
async fn watch_primary(
    params: ConnectParams,
    keep: SlotName,
    watches: Vec<watch::Receiver<Progress>>,
    facts: watch::Sender<PrimaryFacts>,
    cancel: CancellationToken,
) {
    let mut session: Option<Session> = None;
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(WATCH) => {}
        }
        let stored: Vec<Option<Position>> = watches.iter().map(|watch| watch.borrow().releasable).collect();
        let segment_bytes = watches.iter().find_map(|watch| watch.borrow().segment_bytes);
        let looked = async {
            if session.is_none() {
                session = primary_session(&params).await;
            }
            let Some(sql) = session.as_ref() else { return Ok(()) };
            look(sql, &keep, &stored, segment_bytes, &facts).await
        };
        // A primary that is away keeps its log by itself: the slots are there.
        if let Err(why) = looked.await {
            tracing::debug!(error = %why, "the primary's log could not be looked at");
            session = None;
            facts.send_modify(|facts| facts.retained_bytes = None);
        }
    }
}

async fn look(
    sql: &Session,
    keep: &SlotName,
    stored: &[Option<Position>],
    segment_bytes: Option<u64>,
    facts: &watch::Sender<PrimaryFacts>,
) -> Result<(), ShipError> {
    let slot = match sql.slot_get(keep).await? {
        // A slot whose log was given up keeps nothing and cannot be moved: only a new one keeps what comes.
        Some(slot) if slot.is_lost() => {
            tracing::error!(slot = %keep, "the primary gave up the log that this slot kept; it is made anew");
            sql.slot_drop(keep).await?;
            sql.slot_create_keep(keep).await?;
            return Ok(());
        }
        Some(slot) => slot,
        None => {
            sql.slot_create_keep(keep).await?;
            return Ok(());
        }
    };
    // The slot's position is on the primary's own timeline: move it only by what is stored on that one.
    let timeline = sql.current_position().await?.timeline;
    let released = segment_bytes.and_then(|bytes| retention::released(stored, bytes));
    let released = released.filter(|position| position.timeline == timeline);
    if let Some(released) = released.filter(|r| slot.restart.is_none_or(|restart| restart < r.offset)) {
        sql.slot_advance(keep, released.offset).await?;
    }
    let retained_bytes = sql.retained_bytes().await?;
    facts.send_modify(|facts| {
        facts.released = released.or(facts.released);
        facts.retained_bytes = Some(retained_bytes);
    });
    Ok(())
}

/// The host that takes writes; of several the one on the newest timeline, as the pipelines choose.
async fn primary_session(params: &ConnectParams) -> Option<Session> {
    let mut found = None;
    for host in params.hosts() {
        let Ok(session) = Session::connect(params, host).await else { continue };
        if matches!(session.in_recovery().await, Ok(false)) {
            let Ok(position) = session.current_position().await else { continue };
            if found.as_ref().is_none_or(|(timeline, _)| *timeline < position.timeline) {
                found = Some((position.timeline, session));
            }
        }
    }
    found.map(|(_, session)| session)
}

/// Gathers the targets' progress for whoever shows it.
async fn show(
    watches: Vec<watch::Receiver<Progress>>,
    shown: watch::Sender<Vec<Progress>>,
    cancel: CancellationToken,
) {
    loop {
        shown.send_replace(watches.iter().map(|watch| watch.borrow().clone()).collect());
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
}
