//! The task that looks each second at what was read, decides what is told, claims it and hands it to the channels.
//!
//! What always holds: each channel has a task of its own, and tells one message at a time. What is to be told meanwhile is claimed by nobody, so that it is not taken for tried: with the channel's next
//! turn all of it goes, as it is then, in one message. What a channel heard is what it took, and nothing else; what it did not take is handed to it again, as it is then, by any service that has the
//! channel. All tasks are joined.
//!
//! # Cancel safety
//! What was handed to a channel when the service ends may not be sent; no channel is taken to have heard it, and another service, or the next one, tells it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::notice::{Notice, NoticeHeard, NoticeTry};
use farshore_journal::DatabaseName;
use farshore_web::Metrics;
use farshore_web::metrics::reading::Reading;
use reqwest::Client;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
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
/// Messages that wait for one channel: whoever hands one over has the channel's only turn.
const QUEUE: usize = 1;
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

/// What a channel is told in one message.
struct Handed {
    tellings: Vec<Telling>,
    /// Of each.
    receipts: Vec<Receipt>,
    /// Back once it was told, or not taken.
    _turn: OwnedSemaphorePermit,
}

/// A channel, as whoever decides sees it.
struct Channel {
    name: String,
    queue: mpsc::Sender<Handed>,
    /// One turn: taken while the channel is told something.
    turn: Arc<Semaphore>,
    /// How much is claimed and told together.
    room: Arc<AtomicUsize>,
}

/// What is to be told, and what channels heard.
struct Known {
    told: Vec<(Condition, Notice)>,
    heard: Vec<NoticeHeard>,
    catalog: Catalog,
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
    let mut channels = Vec::new();
    let own = Own::default();
    for (name, settings) in &config.notify.channels {
        metrics.delivered(name, |_| {});
        let (queue, handed) = mpsc::channel(QUEUE);
        let (turn, room) = (Arc::new(Semaphore::new(1)), Arc::new(AtomicUsize::new(channel::most(settings))));
        channels.push(Channel { name: name.clone(), queue, turn, room: Arc::clone(&room) });
        let deliverer = Deliverer {
            name: name.clone(),
            settings: settings.clone(),
            client: client.clone(),
            catalog: catalog.clone(),
            metrics: Arc::clone(&metrics),
            own: Arc::clone(&own),
            room,
        };
        tasks.spawn(deliverer.run(handed, cancel.clone()));
    }
    let mut teller = Teller {
        node: wiring::node(),
        began: Instant::now(),
        config,
        catalog,
        metrics,
        channels,
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
    channels: Vec<Channel>,
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
        let known = match (&reading, self.catalog.clone()) {
            (Some(reading), Some(catalog)) => self.known(reading, catalog, now).await,
            _ => None,
        };
        for channel in &self.channels {
            // What is to be told to one that is being told something waits, untried, for its next turn.
            let Ok(turn) = Arc::clone(&channel.turn).try_acquire_owned() else { continue };
            let mut all = Vec::from_iter(self.own(channel, now));
            if let Some(known) = &known {
                all.extend(self.claimed(channel, known, all.len()).await);
            }
            let (tellings, receipts): (Vec<_>, Vec<_>) = all.into_iter().unzip();
            // Who has the turn finds the queue empty; a task that ended has ended with the service.
            if !tellings.is_empty() {
                let _ends = channel.queue.try_send(Handed { tellings, receipts, _turn: turn });
            }
        }
    }

    /// What is to be told of all that is seen, and what channels heard; `None` where the catalog does not say.
    async fn known(&mut self, reading: &Reading, catalog: Catalog, now: DateTime<Utc>) -> Option<Known> {
        let conditions = observe::conditions(&reading.fleet, &self.metrics, now);
        let known = async {
            Ok::<_, farshore_catalog::Error>((
                catalog.notice_list().await?,
                catalog.notice_heard_list().await?,
            ))
        };
        let (last, heard) = match tokio::time::timeout(CATALOG, known).await {
            Ok(Ok(known)) => known,
            Ok(Err(why)) => {
                tracing::debug!(error = %why, "what was told is not known");
                return None;
            }
            Err(_) => return None,
        };
        let (mut seen, mut told) = (HashMap::new(), Vec::new());
        for condition in conditions {
            let key = (condition.database.clone(), condition.topic.clone());
            let since = match self.held.get(&key) {
                Some((word, mark, since)) if (*word, *mark) == (condition.word, condition.mark) => *since,
                _ => Instant::now(),
            };
            seen.insert(key, (condition.word, condition.mark, since));
            let last =
                last.iter().find(|told| told.database == condition.database && told.topic == condition.topic);
            if let Some(notice) = self.consider(&catalog, &condition, since, last, now).await {
                told.push((condition, notice));
            }
        }
        self.held = seen;
        Some(Known { told, heard, catalog })
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

    /// What a channel has not heard of what is, the least tried and then the worst first, as much as it is told together with so much `beside` it: claimed, so that no other service tells it.
    async fn claimed(&self, channel: &Channel, known: &Known, beside: usize) -> Vec<(Telling, Receipt)> {
        let now = to_micros(Utc::now());
        let mut due = Vec::new();
        for (condition, notice) in &known.told {
            let is = (Word::from_text(&notice.word), notice.mark);
            // What is about to change, or what a later version calls otherwise, is not put into this version's words.
            if is.0 != condition.word || (is.1 != condition.mark && is.0 != Word::Well) {
                continue;
            }
            let heard = known.heard.iter().find(|heard| {
                heard.channel == channel.name
                    && heard.database == notice.database
                    && heard.topic == notice.topic
            });
            let before = heard.map(as_heard);
            let Some(tries) = delivery::due(is, notice.told_at, before.as_ref(), now) else { continue };
            let trying = NoticeHeard {
                channel: channel.name.clone(),
                database: notice.database.clone(),
                topic: notice.topic.clone(),
                word: None,
                mark: 0,
                trying: notice.told_at,
                tries: u64::from(tries.saturating_add(1)),
                next_at: now + delivery::pause(tries),
            };
            due.push((tries, condition, notice, NoticeTry { before: heard.cloned(), now: trying }));
        }
        // What was never tried waits for nothing that was tried in vain.
        due.sort_by_key(|(tries, condition, ..)| (*tries, Reverse(condition.word)));
        let (room, most) = (channel.room.load(Ordering::Relaxed), self.most(channel));
        due.truncate(delivery::go_together(due.iter().map(|(tries, ..)| *tries), room, most, beside));
        let mut due: Vec<_> = due
            .into_iter()
            .map(|(_, condition, notice, one)| (self.telling(condition, notice, &one), notice, one))
            .collect();
        // What does not fit has not been tried, and goes with the next message.
        if let Some(settings) = self.config.notify.channels.get(&channel.name) {
            due.truncate(channel::fitting(settings, due.iter().map(|(telling, ..)| telling)));
        }
        if due.is_empty() {
            return Vec::new();
        }
        let tries: Vec<_> = due.iter().map(|(.., one)| one.clone()).collect();
        let claimed = match tokio::time::timeout(CATALOG, known.catalog.notice_try(&tries)).await {
            Ok(Ok(claimed)) => claimed,
            Ok(Err(why)) => {
                tracing::debug!(error = %why, "notifications cannot be claimed");
                self.claim_less(channel);
                return Vec::new();
            }
            Err(_) => {
                self.claim_less(channel);
                return Vec::new();
            }
        };
        // Of the others another service tells.
        let ours = due.into_iter().zip(claimed).filter(|(_, is_ours)| *is_ours);
        ours.map(|((telling, notice, _), _)| (telling, Receipt::Notice(notice.clone()))).collect()
    }

    /// What is said of a condition to a channel that heard of it what `one` says.
    fn telling(&self, condition: &Condition, notice: &Notice, one: &NoticeTry) -> Telling {
        let at = notice.told_at;
        Telling {
            schema: SCHEMA,
            id: format!("{}/{}/{}", notice.database, notice.topic, at.timestamp_micros()),
            at,
            database: Some(notice.database.to_string()),
            topic: notice.topic.clone(),
            word: condition.word.text(),
            was: one.before.as_ref().and_then(|before| before.word.clone()),
            node: self.node.clone(),
            message: condition.message.clone(),
        }
    }

    /// What took too long to be claimed takes as long the next time: less of it is asked for then.
    fn claim_less(&self, channel: &Channel) {
        // Whoever holds the channel's turn is the only one who changes its room.
        let room = delivery::together(channel.room.load(Ordering::Relaxed), false, self.most(channel));
        channel.room.store(room, Ordering::Relaxed);
    }

    /// How much a channel is told together at most.
    fn most(&self, channel: &Channel) -> usize {
        self.config.notify.channels.get(&channel.name).map_or(1, channel::most)
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
    }

    /// What a channel has not heard of this process's own: it is tried now.
    fn own(&self, channel: &Channel, now: DateTime<Utc>) -> Option<(Telling, Receipt)> {
        let (word, since) = self.stands;
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let before = own.get(&channel.name).copied();
        let tries = delivery::due((word, 0), since, before.as_ref(), now)?;
        let last = before.and_then(|before| before.last);
        let next_at = now + delivery::pause(tries);
        let trying = Heard { last, trying: since, tries: tries.saturating_add(1), next_at };
        own.insert(channel.name.clone(), trying);
        let telling = Telling {
            schema: SCHEMA,
            id: format!("{}/catalog/{}", self.node, since.timestamp_micros()),
            at: since,
            database: None,
            topic: "catalog".to_owned(),
            word: word.text(),
            was: last.map(|(word, _)| word.text().to_owned()),
            node: self.node.clone(),
            message: of_catalog(&self.node, word),
        };
        Some((telling, Receipt::Own(word)))
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
    room: Arc<AtomicUsize>,
}

impl Deliverer {
    async fn run(self, mut handed: mpsc::Receiver<Handed>, cancel: CancellationToken) {
        loop {
            let next = tokio::select! {
                () = cancel.cancelled() => return,
                next = handed.recv() => match next {
                    Some(next) => next,
                    None => return,
                },
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.deliver(&next) => {}
            }
        }
    }

    async fn deliver(&self, handed: &Handed) {
        let took = self.told(&handed.tellings).await;
        let count = handed.tellings.len() as u64;
        self.metrics.delivered(&self.name, |delivered| match took {
            true => delivered.sent += count,
            false => delivered.failed += count,
        });
        let most = channel::most(&self.settings);
        let room = delivery::together(self.room.load(Ordering::Relaxed), took, most);
        self.room.store(room, Ordering::Relaxed);
        if took {
            self.took(&handed.receipts).await;
        }
    }

    /// Tries until it is taken, or not for now.
    async fn told(&self, tellings: &[Telling]) -> bool {
        let mut pauses = channel::pauses(&self.settings);
        loop {
            let why = match channel::send(&self.client, &self.settings, tellings).await {
                Ok(refused) => {
                    for why in refused {
                        self.metrics.delivered(&self.name, |delivered| delivered.failed += 1);
                        tracing::warn!(
                            channel = self.name,
                            error = why,
                            "a notification was taken for others, and not for this recipient"
                        );
                    }
                    return true;
                }
                Err(why) => why,
            };
            let Some(pause) = pauses.next() else {
                tracing::warn!(
                    channel = self.name,
                    count = tellings.len(),
                    error = why,
                    "a notification was not taken: it is told again, as things stand then"
                );
                return false;
            };
            tracing::debug!(channel = self.name, error = why, "a notification was not taken yet");
            tokio::time::sleep(pause).await;
        }
    }

    /// Writes down that they were taken.
    async fn took(&self, receipts: &[Receipt]) {
        let mut notices = Vec::new();
        for receipt in receipts {
            match receipt {
                Receipt::Own(word) => {
                    let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(heard) = own.get_mut(&self.name) {
                        (heard.last, heard.tries) = (Some((*word, 0)), 0);
                    }
                }
                Receipt::Notice(notice) => notices.push(notice.clone()),
            }
        }
        if notices.is_empty() {
            return;
        }
        if let Some(catalog) = &self.catalog
            && let Err(why) = catalog.notice_took(&self.name, &notices).await
        {
            tracing::debug!(error = %why, "that notifications were taken is not recorded: they may be told again");
        }
    }
}
