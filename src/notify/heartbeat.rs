//! A dead man's switch per database: an address that is asked once a minute while the objective is known to hold. Whoever watches that address
//! alarms when nothing comes, also when this machine is gone.
//!
//! What always holds: nothing is sent while the state is unknown or anything but connected, while the catalog cannot be read, or while more may be exposed than the objective
//! allows; without an objective, while the state is connected.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use farshore_catalog::lag::ShownState;
use farshore_catalog::shipping::ShippingState;
use farshore_journal::DatabaseName;
use farshore_web::Metrics;
use reqwest::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::channel;
use crate::config::Config;
use crate::config::secret::SecretSource;

/// How often it is sent.
const EVERY: Duration = Duration::from_secs(60);
/// How often it is looked whether it may be.
const LOOK: Duration = Duration::from_secs(1);

/// Whether a database's objective is known to hold.
pub fn holds(metrics: &Metrics, database: &DatabaseName, now: DateTime<Utc>) -> bool {
    let Some(reading) = metrics.reading().filter(|reading| !reading.is_away(now)) else { return false };
    let Some(member) = reading.fleet.members.iter().find(|member| member.database == *database) else {
        return false;
    };
    let standing = member.standing(now, false);
    let rpo = metrics.objectives().get(database).and_then(|promised| promised.rpo);
    standing.state == ShownState::Known(ShippingState::Connected)
        && member.restorable.is_some()
        && rpo.is_none_or(|rpo| standing.exposure_seconds <= rpo.as_secs_f64())
}

/// Sends them until cancelled.
pub async fn beat(config: Arc<Config>, metrics: Arc<Metrics>, cancel: CancellationToken) {
    let addresses: BTreeMap<&DatabaseName, &SecretSource> = config
        .databases
        .iter()
        .filter_map(|(name, settings)| Some((name, settings.heartbeat.as_ref()?)))
        .collect();
    if addresses.is_empty() {
        return;
    }
    let client = match channel::client() {
        Ok(client) => client,
        Err(why) => return tracing::error!(error = why, "no heartbeat is sent"),
    };
    let mut sent: BTreeMap<&DatabaseName, Instant> = BTreeMap::new();
    let mut sending = JoinSet::new();
    loop {
        let now = Instant::now();
        for (name, address) in &addresses {
            let due = sent.get(name).is_none_or(|at| now.duration_since(*at) >= EVERY);
            if due && holds(&metrics, name, Utc::now()) {
                sent.insert(name, now);
                sending.spawn(one((*name).clone(), (*address).clone(), client.clone()));
            }
        }
        tokio::select! {
            () = cancel.cancelled() => break,
            () = tokio::time::sleep(LOOK) => {}
        }
        while sending.try_join_next().is_some() {}
    }
    // Each ends by its own deadline; what is not sent within that need not hold up the end.
    sending.shutdown().await;
}

async fn one(database: DatabaseName, address: SecretSource, client: Client) {
    let told = async {
        let url = address.read().map_err(|why| why.to_string())?;
        let url = channel::address(url.expose())?;
        let answer = client.get(url).send().await.map_err(|why| why.without_url().to_string())?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("it answered {status}")),
        }
    };
    if let Err(why) = told.await {
        tracing::warn!(%database, error = why, "a heartbeat was not taken");
    }
}
