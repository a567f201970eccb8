//! The task that looks each second at what was read, decides what is told, claims it and hands it to the channels.
//!
//! What always holds: each channel has a task and a bounded queue of its own; a full one drops what is new and counts it. A claim is marked delivered
//! once any channel took it; what none took is claimed again, by any service, after a while. All tasks are joined.
//!
//! # Cancel safety
//! What waits in a queue when the service ends is not sent; it is not marked delivered, and another service, or the next one, tells it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::notice::Notice;
use farshore_journal::DatabaseName;
use farshore_web::Metrics;
use reqwest::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::channel::{self, SCHEMA, Telling};
use super::observe::{self, Condition};
use super::transition::{self, BEGIN, Last, Seen, Step, Word};
use crate::config::Config;
use crate::config::notify::ChannelConfig;
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);
/// How much waits for one channel: more than all databases of a large installation tell in a minute when a network breaks.
const QUEUE: usize = 64;
/// Pauses before the second and third try of a delivery. All three tries end before it is told again.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// How long the catalog may take to answer, and how long it must be away before that is told.
const CATALOG: Duration = Duration::from_secs(3);
const CATALOG_AWAY: Duration = Duration::from_secs(10);

/// What waits for a channel: what is told, and what to mark once it is taken.
type Waiting = (Telling, Option<Notice>);

/// Tells until cancelled.
pub async fn tell(
    config: Arc<Config>,
    catalog: Option<Catalog>,
    metrics: Arc<Metrics>,
    cancel: CancellationToken,
) {
    if config.notify.channels.is_empty() {
        return;
    }
    let client = match channel::client() {
        Ok(client) => client,
        Err(why) => return tracing::error!(error = why, "nobody is notified of anything"),
    };
    let mut tasks = JoinSet::new();
    let mut queues = Vec::new();
    for (name, settings) in &config.notify.channels {
        metrics.delivered(name, |_| {});
        let (queue, waiting) = mpsc::channel(QUEUE);
        queues.push((name.clone(), queue));
        let deliverer = Deliverer {
            name: name.clone(),
            settings: settings.clone(),
            client: client.clone(),
            catalog: catalog.clone(),
            metrics: Arc::clone(&metrics),
        };
        tasks.spawn(deliverer.run(waiting, cancel.clone()));
    }
    let mut teller = Teller {
        node: wiring::node(),
        began: Instant::now(),
        config,
        catalog,
        metrics,
        queues,
        held: HashMap::new(),
        away: None,
        told_away: false,
    };
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            () = teller.look() => {}
        }
        tokio::select! {
            () = cancel.cancelled() => break,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    drop(teller);
    while tasks.join_next().await.is_some() {}
}

struct Teller {
    node: String,
    began: Instant,
    config: Arc<Config>,
    catalog: Option<Catalog>,
    metrics: Arc<Metrics>,
    queues: Vec<(String, mpsc::Sender<Waiting>)>,
    /// What was seen at the last look, and since when.
    held: HashMap<(DatabaseName, String), (Word, i64, Instant)>,
    /// Since when the catalog is away, and whether that was told.
    away: Option<Instant>,
    told_away: bool,
}

impl Teller {
    async fn look(&mut self) {
        let now = Utc::now();
        let reading = self.metrics.reading().filter(|reading| !reading.is_away(now));
        self.catalog_stands(reading.is_some(), now);
        let (Some(reading), Some(catalog)) = (reading, self.catalog.clone()) else { return };
        let conditions = observe::conditions(&reading.fleet, &self.metrics, now);
        let told = match tokio::time::timeout(CATALOG, catalog.notice_list()).await {
            Ok(Ok(told)) => told,
            Ok(Err(why)) => return tracing::debug!(error = %why, "what was told is not known"),
            Err(_) => return,
        };
        let mut seen = HashMap::new();
        for condition in conditions {
            let key = (condition.database.clone(), condition.topic.clone());
            let since = match self.held.get(&key) {
                Some((word, mark, since)) if (*word, *mark) == (condition.word, condition.mark) => *since,
                _ => Instant::now(),
            };
            seen.insert(key, (condition.word, condition.mark, since));
            let last =
                told.iter().find(|told| told.database == condition.database && told.topic == condition.topic);
            self.consider(&catalog, condition, since, last, now).await;
        }
        self.held = seen;
    }

    async fn consider(
        &self,
        catalog: &Catalog,
        condition: Condition,
        since: Instant,
        last: Option<&Notice>,
        now: DateTime<Utc>,
    ) {
        let ours = self.config.databases.contains_key(&condition.database);
        let seen = Seen {
            word: condition.word,
            mark: condition.mark,
            held: since.elapsed(),
            warm: condition.is_new || (self.began.elapsed() < BEGIN && ours),
        };
        let before = last.map(|last| Last {
            word: Word::from_text(&last.word),
            mark: last.mark,
            // A clock that was set back says that it was just now.
            ago: (now - last.told_at).to_std().unwrap_or_default(),
            turns: last.turns,
            delivered: last.delivered,
        });
        let Step::Tell(turns) = transition::step(before, seen) else { return };
        let notice = Notice {
            database: condition.database.clone(),
            topic: condition.topic.clone(),
            word: condition.word.text().to_owned(),
            mark: condition.mark,
            // The catalog's column holds what anybody could ever count.
            turns: turns.min(u64::from(u32::MAX)),
            told_at: now,
            node: self.node.clone(),
            delivered: false,
        };
        match tokio::time::timeout(CATALOG, catalog.notice_claim(last, &notice)).await {
            Ok(Ok(true)) => {}
            // Another service tells it.
            Ok(Ok(false)) => return,
            Ok(Err(why)) => return tracing::debug!(error = %why, "a notification cannot be claimed"),
            Err(_) => return,
        }
        let telling = Telling {
            schema: SCHEMA,
            id: format!("{}/{}/{}", notice.database, notice.topic, notice.told_at.timestamp_micros()),
            at: now,
            database: Some(condition.database.to_string()),
            topic: condition.topic,
            word: condition.word.text(),
            was: last.map(|last| last.word.clone()),
            node: self.node.clone(),
            message: condition.message,
        };
        tracing::info!(database = %notice.database, topic = notice.topic, word = notice.word, "told");
        self.queue(&telling, Some(&notice));
    }

    /// Without a catalog nobody can claim anything: each service says of itself that it cannot read it.
    fn catalog_stands(&mut self, is_read: bool, now: DateTime<Utc>) {
        let begins = self.away.is_none() && self.began.elapsed() < CATALOG_AWAY;
        let (word, code, happened, next) = match (is_read, self.told_away) {
            (true, false) => {
                self.away = None;
                return;
            }
            (true, true) => {
                (self.away, self.told_away) = (None, false);
                (Word::Well, Code::CatalogReadAgain, "reads its catalog again", "nothing need be done")
            }
            (false, told) => {
                let since = *self.away.get_or_insert_with(Instant::now);
                if told || begins || since.elapsed() < CATALOG_AWAY {
                    return;
                }
                self.told_away = true;
                let next =
                    "mend what `farshore status` says of the catalog; docs/runbook.md says how to go on";
                (
                    Word::Unknown,
                    Code::CatalogUnread,
                    "cannot read its catalog: how its databases stand is not known",
                    next,
                )
            }
        };
        let safe = Safe::Known("shipping and restores need no catalog and go on".to_owned());
        let message =
            OperatorMessage::new(code, format!("the service on {} {happened}", self.node), safe, next);
        let telling = Telling {
            schema: SCHEMA,
            id: format!("{}/catalog/{}", self.node, now.timestamp_micros()),
            at: now,
            database: None,
            topic: "catalog".to_owned(),
            word: word.text(),
            was: None,
            node: self.node.clone(),
            message,
        };
        self.queue(&telling, None);
    }

    fn queue(&self, telling: &Telling, notice: Option<&Notice>) {
        for (name, queue) in &self.queues {
            if queue.try_send((telling.clone(), notice.cloned())).is_err() {
                self.metrics.delivered(name, |delivered| delivered.failed += 1);
                tracing::warn!(channel = name, "a channel is too slow: a notification is not sent by it");
            }
        }
    }
}

/// Sends by one channel.
struct Deliverer {
    name: String,
    settings: ChannelConfig,
    client: Client,
    catalog: Option<Catalog>,
    metrics: Arc<Metrics>,
}

impl Deliverer {
    async fn run(self, mut waiting: mpsc::Receiver<Waiting>, cancel: CancellationToken) {
        loop {
            let (telling, notice) = tokio::select! {
                () = cancel.cancelled() => return,
                next = waiting.recv() => match next {
                    Some(next) => next,
                    None => return,
                },
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.deliver(&telling, notice.as_ref()) => {}
            }
        }
    }

    async fn deliver(&self, telling: &Telling, notice: Option<&Notice>) {
        let mut pauses = PAUSES.into_iter();
        loop {
            let Err(why) = channel::send(&self.client, &self.settings, telling).await else { break };
            let Some(pause) = pauses.next() else {
                self.metrics.delivered(&self.name, |delivered| delivered.failed += 1);
                return tracing::warn!(channel = self.name, error = why, "a notification was not taken");
            };
            tracing::debug!(channel = self.name, error = why, "a notification was not taken yet");
            tokio::time::sleep(pause).await;
        }
        self.metrics.delivered(&self.name, |delivered| delivered.sent += 1);
        if let (Some(catalog), Some(notice)) = (&self.catalog, notice)
            && let Err(why) = catalog.notice_delivered(notice).await
        {
            tracing::debug!(error = %why, "that a notification was taken is not recorded: it may be told again");
        }
    }
}
