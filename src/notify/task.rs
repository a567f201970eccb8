//! The task that looks each second at what was read, decides what is told, claims it and hands it to the channels.
//!
//! What always holds: each channel has a task and a bounded queue of its own; a full one drops what is new and counts it. What a channel heard is what it
//! took, and nothing else; what it did not take is handed to it again, as it is then, by any service that has the channel. All tasks are joined.
//!
//! # Cancel safety
//! What waits in a queue when the service ends is not sent; no channel is taken to have heard it, and another service, or the next one, tells it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::notice::{Notice, NoticeHeard};
use farshore_journal::DatabaseName;
use farshore_web::Metrics;
use reqwest::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::channel::{self, SCHEMA, Telling};
use super::delivery::{self, Heard};
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
/// How long something may wait in a queue: afterwards it is handed out anew, as it is then.
const QUEUED: Duration = Duration::from_secs(20);
/// How long the catalog may take to answer, and how long it must be away before that is told.
const CATALOG: Duration = Duration::from_secs(3);
const CATALOG_AWAY: Duration = Duration::from_secs(10);

/// What a channel's task does with what was taken.
#[derive(Debug, Clone)]
enum Receipt {
    /// It stands in the catalog.
    Notice(Notice),
    /// This process alone knows of it: that it cannot read its catalog, or can again.
    Own(Word),
}

/// What waits for a channel.
struct Waiting {
    telling: Telling,
    receipt: Receipt,
    since: Instant,
}

/// What each channel heard of this process's own.
type Own = Arc<Mutex<HashMap<String, Heard>>>;

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
    let own = Own::default();
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
            own: Arc::clone(&own),
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
        stands: (Word::Well, Utc::now()),
        own,
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
    /// Since when the catalog is away.
    away: Option<Instant>,
    /// What is to be told of the catalog, and since when.
    stands: (Word, DateTime<Utc>),
    own: Own,
}

impl Teller {
    async fn look(&mut self) {
        let now = to_micros(Utc::now());
        let reading = self.metrics.reading().filter(|reading| !reading.is_away(now));
        self.catalog_stands(reading.is_some(), now);
        let (Some(reading), Some(catalog)) = (reading, self.catalog.clone()) else { return };
        let conditions = observe::conditions(&reading.fleet, &self.metrics, now);
        let known = async {
            Ok::<_, farshore_catalog::Error>((
                catalog.notice_list().await?,
                catalog.notice_heard_list().await?,
            ))
        };
        let (told, heard) = match tokio::time::timeout(CATALOG, known).await {
            Ok(Ok(known)) => known,
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
            if let Some(notice) = self.consider(&catalog, &condition, since, last, now).await {
                self.hand_out(&catalog, &condition, &notice, &heard, now).await;
            }
        }
        self.held = seen;
    }

    /// What is to be told of a condition now; `None` where another service just said so, or that is not known.
    async fn consider(
        &self,
        catalog: &Catalog,
        condition: &Condition,
        since: Instant,
        last: Option<&Notice>,
        now: DateTime<Utc>,
    ) -> Option<Notice> {
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
        });
        let Step::Tell(turns) = transition::step(before, seen) else { return last.cloned() };
        let notice = Notice {
            database: condition.database.clone(),
            topic: condition.topic.clone(),
            word: condition.word.text().to_owned(),
            mark: condition.mark,
            // The catalog's column holds what anybody could ever count.
            turns: turns.min(u64::from(u32::MAX)),
            told_at: now,
            node: self.node.clone(),
        };
        match tokio::time::timeout(CATALOG, catalog.notice_claim(last, &notice)).await {
            Ok(Ok(true)) => {
                tracing::info!(database = %notice.database, topic = notice.topic, word = notice.word, "told");
                Some(notice)
            }
            // Another service said it.
            Ok(Ok(false)) | Err(_) => None,
            Ok(Err(why)) => {
                tracing::debug!(error = %why, "a notification cannot be claimed");
                None
            }
        }
    }

    /// Hands a notice to each channel that has not heard it, while it is what is.
    async fn hand_out(
        &self,
        catalog: &Catalog,
        condition: &Condition,
        notice: &Notice,
        heard: &[NoticeHeard],
        now: DateTime<Utc>,
    ) {
        let is = (Word::from_text(&notice.word), notice.mark);
        // What is about to change, or what a later version calls otherwise, is not put into this version's words.
        if is.0 != condition.word || (is.1 != condition.mark && is.0 != Word::Well) {
            return;
        }
        for (name, queue) in &self.queues {
            let known = heard.iter().find(|heard| {
                heard.channel == *name && heard.database == notice.database && heard.topic == notice.topic
            });
            let before = known.map(as_heard);
            let Some(tries) = delivery::due(is, notice.told_at, before.as_ref(), now) else { continue };
            let trying = NoticeHeard {
                channel: name.clone(),
                database: notice.database.clone(),
                topic: notice.topic.clone(),
                word: None,
                mark: 0,
                trying: notice.told_at,
                tries: u64::from(tries.saturating_add(1)),
                next_at: now + delivery::pause(tries),
            };
            match tokio::time::timeout(CATALOG, catalog.notice_try(known, &trying)).await {
                Ok(Ok(true)) => {}
                // Another service tells it.
                Ok(Ok(false)) => continue,
                Ok(Err(why)) => return tracing::debug!(error = %why, "a notification cannot be claimed"),
                Err(_) => return,
            }
            let at = notice.told_at;
            let telling = Telling {
                schema: SCHEMA,
                id: format!("{}/{}/{}", notice.database, notice.topic, at.timestamp_micros()),
                at,
                database: Some(notice.database.to_string()),
                topic: notice.topic.clone(),
                word: is.0.text(),
                was: known.and_then(|known| known.word.clone()),
                node: self.node.clone(),
                message: condition.message.clone(),
            };
            self.queue(name, queue, telling, Receipt::Notice(notice.clone()));
        }
    }

    /// Without a catalog nobody can claim anything: each service says of itself that it cannot read it.
    fn catalog_stands(&mut self, is_read: bool, now: DateTime<Utc>) {
        let begins = self.away.is_none() && self.began.elapsed() < CATALOG_AWAY;
        if is_read {
            self.away = None;
            if self.stands.0 != Word::Well {
                self.stands = (Word::Well, now);
            }
        } else if !begins {
            let since = *self.away.get_or_insert_with(Instant::now);
            if self.stands.0 == Word::Well && since.elapsed() >= CATALOG_AWAY {
                self.stands = (Word::Unknown, now);
            }
        }
        let (word, since) = self.stands;
        for (name, queue) in &self.queues {
            let was = {
                let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
                let before = own.get(name).copied();
                let Some(tries) = delivery::due((word, 0), since, before.as_ref(), now) else { continue };
                let last = before.and_then(|before| before.last);
                let next_at = now + delivery::pause(tries);
                own.insert(
                    name.clone(),
                    Heard { last, trying: since, tries: tries.saturating_add(1), next_at },
                );
                last
            };
            let telling = Telling {
                schema: SCHEMA,
                id: format!("{}/catalog/{}", self.node, since.timestamp_micros()),
                at: since,
                database: None,
                topic: "catalog".to_owned(),
                word: word.text(),
                was: was.map(|(word, _)| word.text().to_owned()),
                node: self.node.clone(),
                message: of_catalog(&self.node, word),
            };
            self.queue(name, queue, telling, Receipt::Own(word));
        }
    }

    fn queue(&self, name: &str, queue: &mpsc::Sender<Waiting>, telling: Telling, receipt: Receipt) {
        if queue.try_send(Waiting { telling, receipt, since: Instant::now() }).is_err() {
            self.metrics.delivered(name, |delivered| delivered.failed += 1);
            tracing::warn!(channel = name, "a channel is too slow: a notification waits for its next turn");
        }
    }
}

/// What the catalog keeps of a time.
fn to_micros(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(time.timestamp_micros()).unwrap_or(time)
}

fn as_heard(known: &NoticeHeard) -> Heard {
    Heard {
        last: known.word.as_deref().map(|word| (Word::from_text(word), known.mark)),
        trying: known.trying,
        tries: u32::try_from(known.tries).unwrap_or(u32::MAX),
        next_at: known.next_at,
    }
}

/// What is said of this service's catalog.
fn of_catalog(node: &str, word: Word) -> OperatorMessage {
    let (code, happened, next) = match word {
        Word::Well => (Code::CatalogReadAgain, "reads its catalog again", "nothing need be done"),
        _ => (
            Code::CatalogUnread,
            "cannot read its catalog: how its databases stand is not known",
            "mend what `farshore status` says of the catalog; docs/runbook.md says how to go on",
        ),
    };
    let safe = Safe::Known("shipping and restores need no catalog and go on".to_owned());
    OperatorMessage::new(code, format!("the service on {node} {happened}"), safe, next)
}

/// Sends by one channel.
struct Deliverer {
    name: String,
    settings: ChannelConfig,
    client: Client,
    catalog: Option<Catalog>,
    metrics: Arc<Metrics>,
    own: Own,
}

impl Deliverer {
    async fn run(self, mut waiting: mpsc::Receiver<Waiting>, cancel: CancellationToken) {
        loop {
            let next = tokio::select! {
                () = cancel.cancelled() => return,
                next = waiting.recv() => match next {
                    Some(next) => next,
                    None => return,
                },
            };
            if next.since.elapsed() > QUEUED {
                tracing::debug!(
                    channel = self.name,
                    "a notification waited for too long and is handed out anew"
                );
                continue;
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.deliver(&next) => {}
            }
        }
    }

    async fn deliver(&self, waiting: &Waiting) {
        let mut pauses = channel::pauses(&self.settings);
        loop {
            let why = match channel::send(&self.client, &self.settings, &waiting.telling).await {
                Ok(refused) => {
                    for why in refused {
                        self.metrics.delivered(&self.name, |delivered| delivered.failed += 1);
                        tracing::warn!(
                            channel = self.name,
                            error = why,
                            "a notification was taken for others, and not for this recipient"
                        );
                    }
                    break;
                }
                Err(why) => why,
            };
            let Some(pause) = pauses.next() else {
                self.metrics.delivered(&self.name, |delivered| delivered.failed += 1);
                return tracing::warn!(
                    channel = self.name,
                    error = why,
                    "a notification was not taken: it is told again, as things stand then"
                );
            };
            tracing::debug!(channel = self.name, error = why, "a notification was not taken yet");
            tokio::time::sleep(pause).await;
        }
        self.metrics.delivered(&self.name, |delivered| delivered.sent += 1);
        match (&waiting.receipt, &self.catalog) {
            (Receipt::Own(word), _) => {
                let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(heard) = own.get_mut(&self.name) {
                    (heard.last, heard.tries) = (Some((*word, 0)), 0);
                }
            }
            (Receipt::Notice(notice), Some(catalog)) => {
                if let Err(why) = catalog.notice_took(&self.name, notice).await {
                    tracing::debug!(error = %why, "that a notification was taken is not recorded: it may be told again");
                }
            }
            (Receipt::Notice(_), None) => {}
        }
    }
}
