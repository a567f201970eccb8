//! `farshore run`: ships every database of the configuration until stopped.
//!
//! What always holds: one database's end does not end the others, but the process then ends with a failure once all are
//! done; a database whose shipping ended is not ready, however well it stood; the catalog being away, at the start or later, or
//! a store, stops nothing. Base backups that fall due are taken beside, and jobs that were asked for are done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farshore_catalog::Catalog;
use farshore_engines::sqlite::mounted::{self, Kind};
use farshore_engines::sqlite::stream::Settings;
use farshore_journal::DatabaseName;
use farshore_journal::index::IndexLimits;
use farshore_journal::merge::MergeLimits;
use farshore_shipper::founding::Place;
use farshore_shipper::pipeline::copies::Copies;
use farshore_shipper::pipeline::points::Points;
use farshore_shipper::pipeline::postgres::Cluster;
use farshore_shipper::pipeline::sqlite::File;
use farshore_shipper::pipeline::{PipelineConfig, SourceConfig};
use farshore_shipper::progress::{PipelineState, Progress};
use farshore_shipper::push::room::Room;
use farshore_shipper::refreshing::Refreshing;
use farshore_shipper::spool::files::SpoolFiles;
use farshore_shipper::supervisor::{self, SpoolConfig, TargetConfig};
use farshore_shipper::throttle::valve::{Valve, object_bytes};
use farshore_shipper::waits::WaitsWatch;
use farshore_shipper::{ShipError, slots};
use farshore_web::{Health, Shipping};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::arrivals::Arrivals;
use crate::base_backups::{Streamed, Streams};
use crate::catalog_upkeep::Upkeep;
use crate::commands::{Context, check};
use crate::config::protection::synchronous_names;
use crate::config::quantity::{ByteCount, Rate};
use crate::config::{Config, DatabaseConfig, EngineConfig, OnFull, StoreName};
use crate::exit::Exit;
use crate::jobs::runner::Runner;
use crate::message::{Code, OperatorMessage, Safe};
use crate::room_lock::RoomLock;
use crate::supervised::Pulse;
use crate::throttles::task::{Watched, WatchedSpool};
use crate::wiring::{self, Purpose};
use crate::{listening, receiving, room_lock, serving, socket, supervised, throttles, watching};

/// How often the health endpoint's picture is renewed.
const HEALTH: Duration = Duration::from_millis(500);
/// How often a lock that another process holds is tried.
const LOCK: Duration = Duration::from_millis(200);

/// What is safe when a database is not shipped any more.
const WHEN_STOPPED: &str = "what was called stored stays stored; behind that a PostgreSQL primary keeps its log in the keep slot, and a SQLite database keeps it only until the applications have copied it back, when a new base backup is taken";

/// Runs it.
///
/// # Errors
/// When nothing can be shipped as configured, or a database's shipping stopped for good.
pub async fn run(context: &mut Context) -> anyhow::Result<Exit> {
    let config = Arc::new(context.config()?);
    let catalog = match wiring::unopened_catalog(&config) {
        Ok(catalog) => Some(catalog),
        Err(why) => {
            tracing::error!("{why}");
            None
        }
    };
    if let Some(catalog) = &catalog
        && let Err(why) = catalog.renew().await
    {
        tracing::error!("{}", wiring::catalog_away(&why));
    }
    crate::drill::sweep(&config, None).await;
    let cancel = context.cancel.child_token();
    let mut databases = JoinSet::new();
    let (mut shown, mut throttled) = (Vec::new(), Vec::new());
    let (mut streams, mut points) = (Streams::new(), BTreeMap::new());
    for (name, settings) in &config.databases {
        let known = known_stores(catalog.as_ref(), name).await;
        // Until rules are judged for the first time, the lowest limit that they may set holds.
        let lowest = settings.lowest_bandwidth().map(Rate::get);
        let valve = Arc::new(Valve::new(lowest, settings.stores.len()));
        let mut database = database(&config, name, settings, &known, catalog.as_ref(), &valve)?;
        let spool = spool(settings);
        database.spool = spool.as_ref().map(|(spool, ..)| spool.clone());
        let streamed = Streamed {
            copies: database.copies.clone(),
            valve: Arc::clone(&valve),
            refreshing: database.refreshing.clone(),
        };
        streams.insert(name.clone(), streamed);
        points.insert(name.clone(), database.points.clone());
        let (progress_tx, progress_rx) = watch::channel(Vec::new());
        throttled.push(Watched {
            database: name.clone(),
            valve,
            targets: progress_rx.clone(),
            primary: database.primary.subscribe(),
            spool: spool.map(|(spool, limit, extended)| WatchedSpool {
                told: spool.told.subscribe(),
                extended,
                limit,
            }),
        });
        shown.push((name.clone(), progress_rx));
        let room = Room::new(config.service.room(name));
        databases.spawn(ship(name.clone(), database, room, catalog.clone(), progress_tx, cancel.clone()));
    }
    let mut service = JoinSet::new();
    let (health_tx, health_rx) = watch::channel(Health::default());
    let metrics = watching::metrics(&config);
    service.spawn(listening::listen(
        Arc::clone(&config),
        catalog.clone(),
        health_rx,
        Arc::clone(&metrics),
        cancel.clone(),
    ));
    let arrivals = Arrivals::default();
    let (serves, knows, came, stop) =
        (Arc::clone(&config), catalog.clone(), arrivals.clone(), cancel.clone());
    service.spawn(async move {
        if let Err(why) = serving::serve(serves, knows, came, stop).await {
            tracing::error!("{why}");
        }
    });
    let (receives, stop) = (Arc::clone(&config), cancel.clone());
    service.spawn(async move {
        if let Err(why) = receiving::receive(receives, arrivals, stop).await {
            tracing::error!("{why}");
        }
    });
    let watched = Pulse::default();
    let watch =
        watching::watch(Arc::clone(&config), catalog.clone(), metrics, watched.clone(), cancel.clone());
    service.spawn(watch);
    let mut pictures = JoinSet::new();
    match socket::listen(&config.service.socket).await {
        Ok(listener) => {
            let does = socket::Does {
                config: Arc::clone(&config),
                shown: shown.clone(),
                streams: streams.clone(),
                points,
                catalog: catalog.clone(),
            };
            pictures.spawn(socket::serve(listener, does, cancel.clone()));
        }
        Err(why) => {
            tracing::error!(socket = %config.service.socket.display(), error = %why,
                "no command reaches this service: `wal push` holds its files against the stores by itself, `backup run` and `points mark` do nothing for SQLite");
        }
    }
    let (judges, stop) = (Arc::clone(&config), cancel.clone());
    pictures.spawn(throttles::task::keep(judges, throttled, catalog.clone(), stop));
    let pulse = Pulse::default();
    pictures.spawn(health(shown.clone(), health_tx, pulse.clone(), cancel.clone()));
    let what = format!("ships {} databases", shown.len());
    pictures.spawn(supervised::tell(what, shown.clone(), vec![pulse, watched], cancel.clone()));
    if let Some(catalog) = catalog.clone() {
        let upkeep = Upkeep { config: Arc::clone(&config), catalog, shown: shown.clone() };
        pictures.spawn(upkeep.run(cancel.clone()));
    }
    if let Some(catalog) = catalog.clone() {
        let runner = Runner::new(Arc::clone(&config), catalog, streams.clone(), shown.clone());
        pictures.spawn(runner.run(cancel.clone()));
    }
    if let Some(catalog) = &catalog {
        let own = config.databases.keys().cloned().collect();
        pictures.spawn(crate::exposure::keep(catalog.clone(), own, cancel.clone()));
        pictures.spawn(crate::chronicles::ledger::keep(Arc::clone(&config), catalog.clone(), cancel.clone()));
        pictures.spawn(crate::chronicles::keep(Arc::clone(&config), catalog.clone(), cancel.clone()));
    }
    pictures.spawn(crate::base_backups::keep_taken(
        Arc::clone(&config),
        shown,
        streams,
        catalog,
        cancel.clone(),
    ));
    let mut failed = None;
    while let Some(ended) = databases.join_next().await {
        match ended {
            Ok((_, Ok(()))) => {}
            Ok((name, Err(why))) => failed = Some(stopped(&name, &why)),
            Err(why) => failed = Some(broke(&why)),
        }
    }
    cancel.cancel();
    while service.join_next().await.is_some() {}
    while pictures.join_next().await.is_some() {}
    match failed {
        None => Ok(Exit::Done),
        Some(message) => Err(message.into()),
    }
}

/// One database's shipping, with its name for whoever joins it.
async fn ship(
    name: DatabaseName,
    database: supervisor::DatabaseConfig,
    room: Room,
    catalog: Option<Catalog>,
    shown: watch::Sender<Vec<Progress>>,
    cancel: CancellationToken,
) -> (DatabaseName, Result<(), ShipError>) {
    let Some(_lock) = lock(&name, &room, &cancel).await else { return (name, Ok(())) };
    let ended = Box::pin(supervisor::run(database, catalog, shown, cancel)).await;
    (name, ended)
}

/// The stores into which this database was shipped before, as far as the catalog knows.
async fn known_stores(catalog: Option<&Catalog>, name: &DatabaseName) -> BTreeSet<String> {
    let Some(catalog) = catalog else { return BTreeSet::new() };
    match catalog.target_list(name).await {
        Ok(targets) => {
            targets.into_iter().filter(|target| target.stored.is_some()).map(|target| target.store).collect()
        }
        Err(why) => {
            tracing::warn!(database = %name, error = %why, "the catalog does not say which stores were shipped into before");
            BTreeSet::new()
        }
    }
}

/// Waits until no other process of this machine appends to the database's journal. `None` when cancelled meanwhile. Where there can
/// be no lock, shipping goes on without: between machines there is none either, and the put is the fence.
async fn lock(name: &DatabaseName, room: &Room, cancel: &CancellationToken) -> Option<Option<RoomLock>> {
    let mut said = false;
    loop {
        match room_lock::try_lock(room) {
            Ok(Some(lock)) => return Some(Some(lock)),
            Ok(None) if !said => {
                said = true;
                tracing::warn!(database = %name, "another farshore of this machine has the journal's lock: waiting for it to end");
            }
            Ok(None) => {}
            Err(why) => {
                tracing::warn!(database = %name, error = %why, "there is no lock beside the socket: `wal push` appends nothing without a service");
                return Some(None);
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return None,
            () = tokio::time::sleep(LOCK) => {}
        }
    }
}

/// A database as the shipper wants it. `known` are the stores that were shipped into before.
fn database(
    config: &Config,
    name: &DatabaseName,
    settings: &DatabaseConfig,
    known: &BTreeSet<String>,
    catalog: Option<&Catalog>,
    valve: &Arc<Valve>,
) -> Result<supervisor::DatabaseConfig, OperatorMessage> {
    let mut targets = Vec::new();
    // An object that is made of stored chunks is small where little may go, so that a limit holds over a minute too.
    let merged = match settings.lowest_bandwidth() {
        None => settings.merge_at.get(),
        Some(lowest) => settings.merge_at.get().min(object_bytes(lowest.get())),
    };
    for store_name in &settings.stores {
        let (open, url) = wiring::opener(config, store_name, Purpose::Write)?;
        let store = Place::new(open, known.contains(store_name.as_str())).behind(Arc::clone(valve));
        let Some(store_config) = config.stores.get(store_name) else { continue };
        let pipeline = PipelineConfig {
            database: name.clone(),
            source: source(config, name, settings, store_name)?,
            store_name: store_name.to_string(),
            protection: settings.protection.reported(),
            flush_interval: settings.flush_plan(store_config.billing()).interval,
            writer: wiring::writer_options(settings, store_config)?,
            merge: MergeLimits { bytes: merged, ..MergeLimits::default() },
            signing: wiring::signing(settings, catalog),
            index: IndexLimits { bytes: settings.merge_at.get(), ..IndexLimits::default() },
        };
        targets.push(TargetConfig { pipeline, store, url });
    }
    one_slot_each(name, &targets)?;
    let required = settings.required();
    Ok(supervisor::DatabaseConfig {
        name: name.clone(),
        targets,
        copies: Copies::default(),
        refreshing: Refreshing::default(),
        points: Points::default(),
        required,
        node: wiring::node(),
        free: Arc::new(check::free_beside_log),
        waits: waits(name, settings),
        spool: None,
        primary: watch::Sender::default(),
    })
}

/// A database's spool, with the limit of its own directory, and who says whether it is extended.
fn spool(settings: &DatabaseConfig) -> Option<(SpoolConfig, u64, watch::Sender<bool>)> {
    let spool = settings.spool.as_ref()?;
    let (extended_tx, extended) = watch::channel(false);
    let config = SpoolConfig {
        files: SpoolFiles::new(spool.places.clone()),
        above: spool.above.get(),
        holds: settings.on_full == OnFull::Hold,
        extended,
        told: watch::Sender::default(),
    };
    Some((config, spool.places.first()?.limit, extended_tx))
}

/// Whoever lets commits go looks whether they wait; where nobody does, the shipper looks.
fn waits(name: &DatabaseName, settings: &DatabaseConfig) -> Option<WaitsWatch> {
    let watched = settings.protection.reported().holds_commits() && settings.protection.guarded().is_none();
    watched.then(|| WaitsWatch::new(synchronous_names(name, settings), format!("{name}/")))
}

/// Where a database's log comes from, for one of its stores.
fn source(
    config: &Config,
    name: &DatabaseName,
    settings: &DatabaseConfig,
    store: &StoreName,
) -> Result<SourceConfig, OperatorMessage> {
    let slot_name = |why: farshore_journal::ParseError| {
        let safe = Safe::Known("nothing was begun".to_owned());
        OperatorMessage::new(Code::ConfigInvalid, why.to_string(), safe, "choose another name")
    };
    Ok(match &settings.engine {
        EngineConfig::Postgres { .. } => SourceConfig::Postgres(Box::new(Cluster {
            params: wiring::stream_params(name, settings, store)?,
            slot: slots::live(name, store.as_str()).map_err(slot_name)?,
            keep: slots::keep(name).map_err(slot_name)?,
            room: Room::new(config.service.room(name)),
            spool: None,
            kept: Vec::new(),
        })),
        EngineConfig::Sqlite { path, wal_limit } => {
            if settings.stores.len() > 1 {
                return Err(OperatorMessage::new(
                    Code::ConfigInvalid,
                    format!(
                        "{name} has {} stores; a SQLite database is shipped into one",
                        settings.stores.len()
                    ),
                    Safe::Known("nothing was begun".to_owned()),
                    "name one store; several are not built yet",
                ));
            }
            refuse_network(name, path)?;
            let follow = wiring::follow(config, name, path, store)?;
            let wal_limit = wal_limit.map(ByteCount::get);
            SourceConfig::Sqlite(Box::new(File { follow: Settings { wal_limit, ..follow } }))
        }
    })
}

/// A file system whose machines share no memory cannot carry SQLite's log: two that write there damage the database, and what is
/// followed there is not what the other wrote. All else that `check` finds may be mended while this runs.
fn refuse_network(name: &DatabaseName, path: &Path) -> Result<(), OperatorMessage> {
    match mounted::file_system(path) {
        Ok(found) if found.kind == Kind::Network => Err(OperatorMessage::new(
            Code::SourceRefused,
            format!(
                "{name} lies on {}, a file system of several machines: SQLite's log needs memory that all its processes share",
                found.name
            ),
            Safe::Known("nothing was begun; the database was not opened".to_owned()),
            "move it to a disk of the machine that the application runs on, and run farshore there",
        )),
        // Not there yet, or not to be seen from here: the session says so, and tries again.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Two targets of one slot would end each other's streams for ever: names are cut to the length of a slot's, and letters that
/// PostgreSQL does not take become one.
fn one_slot_each(name: &DatabaseName, targets: &[TargetConfig]) -> Result<(), OperatorMessage> {
    let slot = |target: &TargetConfig| match &target.pipeline.source {
        SourceConfig::Postgres(cluster) => Some(cluster.slot.clone()),
        SourceConfig::Sqlite(_) => None,
    };
    for (at, one) in targets.iter().enumerate() {
        let Some(shared) = slot(one) else { continue };
        let other = targets.iter().skip(at + 1).find(|other| slot(other).as_ref() == Some(&shared));
        let Some(other) = other else { continue };
        return Err(OperatorMessage::new(
            Code::ConfigInvalid,
            format!(
                "the stores {} and {} of {name} would share the slot {}",
                one.pipeline.store_name, other.pipeline.store_name, shared
            ),
            Safe::Known("nothing was begun".to_owned()),
            "give one of the stores a shorter, different name",
        ));
    }
    Ok(())
}

fn stopped(name: &DatabaseName, why: &ShipError) -> OperatorMessage {
    match why.is_fenced() {
        true => OperatorMessage::new(
            Code::Fenced,
            format!("shipping of {name} stopped here: {why}"),
            Safe::Known("everything that this process called stored is in the journal; the other shipper goes on behind it".to_owned()),
            format!("let one shipper run for {name}; `farshore status {name}` names its node"),
        ),
        false => OperatorMessage::new(
            Code::ShippingStopped,
            format!("shipping of {name} stopped: {why}"),
            Safe::Known(WHEN_STOPPED.to_owned()),
            "mend what it says and start `farshore run` again",
        ),
    }
}

fn broke(why: &tokio::task::JoinError) -> OperatorMessage {
    OperatorMessage::new(
        Code::ShippingStopped,
        format!("a database's shipping broke off: {why}"),
        Safe::Known(WHEN_STOPPED.to_owned()),
        "this is a fault in farshore: keep the log of it, and start `farshore run` again",
    )
}

/// Renews the health endpoint's picture.
async fn health(
    shown: Vec<(DatabaseName, watch::Receiver<Vec<Progress>>)>,
    health: watch::Sender<Health>,
    pulse: Pulse,
    cancel: CancellationToken,
) {
    loop {
        pulse.beat();
        let databases = shown
            .iter()
            .map(|(name, progress)| {
                // Nobody speaks for a database any more whose shipping ended, however well it stood at last.
                let ended = progress.has_changed().is_err();
                let shown = if ended { Shipping::Failing } else { shipping(&progress.borrow()) };
                (name.clone(), shown)
            })
            .collect();
        health.send_replace(Health { databases });
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(HEALTH) => {}
        }
    }
}

/// Ready is: every target connected. Nothing known is starting, anything else failing.
fn shipping(targets: &[Progress]) -> Shipping {
    let all = |state| !targets.is_empty() && targets.iter().all(|target| target.state == state);
    match targets {
        _ if all(PipelineState::Connected) => Shipping::Ready,
        [] => Shipping::Starting,
        _ if all(PipelineState::Setup) => Shipping::Starting,
        _ => Shipping::Failing,
    }
}
