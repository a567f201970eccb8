//! How everything stands, for whoever watches: read from the catalog once a second, shown at `/metrics`, and told to people.
//!
//! What always holds: the catalog gates nothing, so this runs beside the shipping; an address without tokens is on loopback, and opened only
//! where the configuration names it.

use std::sync::Arc;

use farshore_catalog::Catalog;
use farshore_web::metrics::{self, Metrics, reading};
use farshore_web::serve::serve_called;
use farshore_web::{Objectives, Waits};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Protection};
use crate::jobs::overdue;
use crate::message::{Code, OperatorMessage, Safe, with_causes};
use crate::notify::{heartbeat, task};
use crate::supervised::Pulse;

/// What the service's metrics are written from.
pub fn metrics(config: &Config) -> Arc<Metrics> {
    let objectives = config.databases.iter().map(|(name, settings)| {
        let promised = Objectives {
            rpo: settings.rpo.map(|rpo| rpo.get()),
            rto: settings.rto.map(|rto| rto.get()),
            waits: waits(settings.protection),
        };
        (name.clone(), promised)
    });
    Metrics::new(objectives.collect(), Box::new(overdue::overdue_at))
}

/// What commits wait for, as pages and the API show it.
const fn waits(protection: Protection) -> Waits {
    match protection {
        Protection::Async => Waits::Nothing,
        Protection::NearSync { bound } => Waits::Within { bound_bytes: bound.get() },
        Protection::Sync { timeout } => Waits::Stored { timeout: Some(timeout) },
        Protection::Strict => Waits::Stored { timeout: None },
    }
}

/// Reads the catalog and shows what it says, until cancelled.
pub async fn watch(
    config: Arc<Config>,
    catalog: Option<Catalog>,
    metrics: Arc<Metrics>,
    pulse: Pulse,
    cancel: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    if let Some(catalog) = catalog.clone() {
        tasks.spawn(read(Arc::clone(&metrics), catalog, pulse, cancel.clone()));
    } else {
        tasks.spawn(beat(pulse, cancel.clone()));
    }
    tasks.spawn(heartbeat::beat(Arc::clone(&config), Arc::clone(&metrics), cancel.clone()));
    tasks.spawn(task::tell(Arc::clone(&config), catalog, Arc::clone(&metrics), cancel.clone()));
    tasks.spawn(open(config, metrics, cancel));
    while let Some(ended) = tasks.join_next().await {
        if let Err(why) = ended {
            tracing::error!(error = %why, "watching broke off: this is a fault in farshore");
        }
    }
}

/// Reads the catalog again and again. However the catalog fails to answer, this turns: its questions have deadlines.
async fn read(metrics: Arc<Metrics>, catalog: Catalog, pulse: Pulse, cancel: CancellationToken) {
    reading::keep(metrics, catalog, &|| pulse.beat(), cancel).await;
}

/// Without a catalog there is nothing to read, and nothing that could hang in it.
async fn beat(pulse: Pulse, cancel: CancellationToken) {
    while !cancel.is_cancelled() {
        pulse.beat();
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(reading::EVERY) => {}
        }
    }
}

/// Serves the metrics alone, without tokens, where the configuration names an address for that.
async fn open(config: Arc<Config>, metrics: Arc<Metrics>, cancel: CancellationToken) {
    let Some(address) = config.service.metrics_listen else { return };
    let served = match TcpListener::bind(address).await {
        Ok(listener) => {
            serve_called("metrics without a token", listener, None, metrics::open_router(metrics), cancel)
                .await
                .map_err(|why| with_causes(&why))
        }
        Err(why) => Err(why.to_string()),
    };
    if let Err(why) = served {
        let message = OperatorMessage::new(
            Code::ListenRefused,
            format!("metrics are not offered on {address}: {why}"),
            Safe::Known(
                "shipping, base backups and the commands of this machine do not need it and go on".to_owned(),
            ),
            "give `service.metrics_listen` a loopback address that is free, and start `farshore run` again",
        );
        tracing::error!("{message}");
    }
}
