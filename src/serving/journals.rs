//! The journals that are served: one server for each incarnation in a store, for all its standbys.
//!
//! What always holds: what is served is the newest incarnation. A standby is bound to the one that its copy is of: by `farshore.incarnation` in its `options`, else to the one that it was let
//! have first under its name, which is written down before it gets anything; one that has neither is let have nothing. Two incarnations of one cluster have the same system identifier and may have the same positions with other bytes behind them: nothing else
//! would keep a standby from taking the one's log for the other's. When a newer one is there, sessions of the former end.
//!
//! A standby that comes while the store does not answer, or what opens it is not at hand, and is known already, waits for its store: whatever is wrong is not its own matter. Where the store's records do not read it is `damaged`, and waits for nothing. Of one that is not known
//! nothing is written down. Private keys are read again with each look.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use farshore_applier::serve::JournalServer;
use farshore_catalog::Catalog;
use farshore_catalog::standby::StandbyState;
use farshore_engines::postgres::serve::Refusal;
use farshore_journal::store::{Operation, Retry, StoreError};
use farshore_journal::{DatabaseName, IncarnationId, JournalError};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::route::Asked;
use crate::arrivals::Arrivals;
use crate::config::{Config, StoreName};
use crate::message::{Code, OperatorMessage};
use crate::sources::{self, Unread};
use crate::wiring::Purpose;

/// How often it is looked whether an incarnation that is served is the newest still.
const LOOK: Duration = Duration::from_secs(15);
/// How long a store, or the catalog, may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// SQLSTATE of a server that is not ready.
const NOT_READY: &str = "57P03";
/// SQLSTATE of data that does not read.
const UNREADABLE: &str = "XX001";
/// SQLSTATE of a setting that makes no sense.
const NO_SETTING: &str = "22023";
/// What standbys call themselves that were given no name, and copies that were restored.
const NOBODY: [&str; 2] = ["walreceiver", "farshore restore"];
/// SQLSTATE of a history that is not this one.
const OTHER_HISTORY: &str = "55000";

/// A journal for one standby.
#[derive(Clone)]
pub struct Journal {
    /// Its server.
    pub server: JournalServer,
    /// Which store it is in.
    pub store: String,
    /// Which one it is.
    pub incarnation: IncarnationId,
    /// Its place in the order of that store's.
    number: u64,
    /// Ends its sessions: when the process ends, or a newer one is there.
    pub cancel: CancellationToken,
}

/// Why a standby gets none.
pub struct Refused {
    /// What it is told.
    pub refusal: Refusal,
    /// Of which incarnation it is, and how it stands now, where that is known.
    pub of: Option<(IncarnationId, StandbyState)>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, of: None }
    }
}

/// Why there is no journal that could be served.
struct NoJournal {
    refusal: Refusal,
    /// How the standbys stand that are known; `None`: that says nothing of them.
    stands: Option<StandbyState>,
}

impl From<Refusal> for NoJournal {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, stands: None }
    }
}

/// All that are served.
pub struct Journals {
    config: Arc<Config>,
    catalog: Option<Catalog>,
    arrivals: Arrivals,
    stop: CancellationToken,
    served: Mutex<HashMap<(DatabaseName, StoreName), Journal>>,
}

impl Journals {
    /// None yet.
    pub fn new(config: Arc<Config>, catalog: Option<Catalog>, arrivals: Arrivals) -> Self {
        Self { config, catalog, arrivals, stop: CancellationToken::new(), served: Mutex::default() }
    }

    /// What a standby of this name gets.
    ///
    /// # Errors
    /// What it is refused with.
    pub async fn of(&self, asked: &Asked, store: Option<&StoreName>, name: &str) -> Result<Journal, Refused> {
        let database = &asked.database;
        let first = self.config.databases.get(database).and_then(|settings| settings.stores.first());
        let Some(store) = store.or(first) else {
            return Err(Refusal::new(NOT_READY, format!("{database} has no store")).into());
        };
        let journal = match self.newest(database, store).await {
            Ok(journal) => journal,
            Err(NoJournal { refusal, stands: None }) => return Err(refusal.into()),
            Err(NoJournal { refusal, stands: Some(state) }) => {
                let of = match asked.incarnation {
                    Some(incarnation) => Some(incarnation),
                    None => self.known_as(database, name).await,
                };
                return Err(Refused { refusal, of: of.map(|of| (of, state)) });
            }
        };
        let by_itself = asked.incarnation.is_some();
        let bound = match asked.incarnation {
            Some(incarnation) => incarnation,
            None if NOBODY.contains(&name) => {
                return Err(Refusal::new(
                    NO_SETTING,
                    format!("a standby that calls itself \"{name}\" cannot be told from another"),
                )
                .hint("give it an application_name of its own in primary_conninfo, or options='-c farshore.incarnation=ID'")
                .into());
            }
            None => self.bound(database, name, journal.incarnation).await?,
        };
        if bound == journal.incarnation {
            return Ok(journal);
        }
        let refusal = Refusal::new(
            OTHER_HISTORY,
            format!(
                "this standby is of incarnation {bound} of {database}, and what is served of it from {} is {}",
                journal.store, journal.incarnation
            ),
        );
        let refusal = match by_itself {
            true => refusal.hint("make the standby anew, from the store that it is served from"),
            false => refusal.hint("make the standby anew; if you know that its copy is of the newest one, `farshore standby forget` lets it in"),
        };
        Err(Refused { refusal, of: Some((bound, StandbyState::Diverged)) })
    }

    /// The incarnation that a standby of this name is bound to: this one, if it was none.
    async fn bound(
        &self,
        database: &DatabaseName,
        name: &str,
        incarnation: IncarnationId,
    ) -> Result<IncarnationId, Refusal> {
        let unknown = |why: &dyn std::fmt::Display| {
            tracing::warn!(%database, standby = name, error = %why, "it is not known which incarnation this standby is of: it waits");
            Refusal::new(
                NOT_READY,
                "the catalog does not answer, and with it is known which incarnation this standby is of",
            )
            .hint("options='-c farshore.incarnation=ID' in primary_conninfo needs no catalog")
        };
        let Some(catalog) = &self.catalog else { return Err(unknown(&"there is no catalog")) };
        let bound = catalog.standby_bind((database, name), incarnation, Utc::now());
        match tokio::time::timeout(PATIENCE, bound).await {
            Ok(Ok(bound)) => Ok(bound),
            Ok(Err(why)) => Err(unknown(&why)),
            Err(_) => Err(unknown(&"it hangs")),
        }
    }

    /// The incarnation that a standby of this name is bound to, where it is to one, and that is known.
    async fn known_as(&self, database: &DatabaseName, name: &str) -> Option<IncarnationId> {
        let bound = self.catalog.as_ref()?.standby_bound(database, name);
        tokio::time::timeout(PATIENCE, bound).await.ok()?.ok()?
    }

    /// Tells the catalog that a standby that it knows was refused.
    pub async fn refused(&self, (database, name): (&DatabaseName, &str), refused: &Refused) {
        let (Some(catalog), Some((incarnation, state))) = (&self.catalog, refused.of) else { return };
        let problem = refused.refusal.message.as_str();
        let told = catalog.standby_refused((database, name), incarnation, (state, problem), Utc::now());
        if !matches!(tokio::time::timeout(PATIENCE, told).await, Ok(Ok(()))) {
            tracing::debug!(%database, standby = name, "that a standby was refused is not recorded");
        }
    }

    /// The newest incarnation's, as the store has it now.
    async fn newest(&self, database: &DatabaseName, store: &StoreName) -> Result<Journal, NoJournal> {
        let found = sources::all_or_why(&self.config, database, store, Purpose::Read);
        let found = tokio::time::timeout(PATIENCE, found).await;
        let found = found.unwrap_or_else(|_| Err(hangs()));
        let source = found.map_err(|why| no_journal(database, store, &why))?.pop();
        let Some(source) = source else {
            return Err(Refusal::new(NOT_READY, format!("nothing of {database} is stored yet")).into());
        };
        let (incarnation, number) = (source.record().incarnation, source.record().number);
        let key = (database.clone(), store.clone());
        let mut served = self.served.lock().await;
        if let Some(known) = served.get(&key) {
            // A listing that began earlier may end later.
            if known.incarnation == incarnation || known.number > number {
                // A key that was not at hand may be by now.
                known.server.go_on_with(source.unlock());
                return Ok(known.clone());
            }
            known.cancel.cancel();
        }
        let every = sources::look_interval(&self.config, store.as_str());
        let Some(server) = JournalServer::new(source, every, self.arrivals.of(database)) else {
            return Err(Refusal::new(NOT_READY, format!("{database} is no PostgreSQL database")).into());
        };
        let cancel = self.stop.child_token();
        let journal = Journal { server, store: store.to_string(), incarnation, number, cancel };
        served.insert(key, journal.clone());
        Ok(journal)
    }

    /// Ends sessions of incarnations that are not the newest any more, until cancelled, and then all.
    pub async fn watch(&self, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                () = tokio::time::sleep(LOOK) => {}
            }
            let keys: Vec<_> = self.served.lock().await.keys().cloned().collect();
            for (database, store) in keys {
                tokio::select! {
                    () = cancel.cancelled() => break,
                    // It ends the former one's itself.
                    _ = self.newest(&database, &store) => {}
                }
            }
        }
        self.stop.cancel();
    }
}

fn hangs() -> Unread {
    let (operation, what) = (Operation::Open, "its journals".to_owned());
    let why = StoreError::TimedOut { operation, what, after: PATIENCE, ambiguous: false };
    Unread { why: anyhow::anyhow!("{why}"), failed: Some(JournalError::Store(why)) }
}

/// What is said, and told to a standby, of a journal that cannot be had.
fn no_journal(database: &DatabaseName, store: &StoreName, unread: &Unread) -> NoJournal {
    let (why, stands) = (&unread.why, stands(unread));
    let refusal = match stands {
        Some(StandbyState::WaitsForStore) if is_secret(why) => {
            tracing::error!(%database, %store, error = %why, "a standby waits for a secret of its store: what is stored is sound");
            let what = "a key or password of the store does not read where it is served; its server's log says which";
            Refusal::new(NOT_READY, what)
        }
        Some(StandbyState::WaitsForStore) => {
            tracing::warn!(%database, %store, error = %why, "a standby waits for its store");
            Refusal::new(NOT_READY, "the store cannot be read now; the journal's server's log says why")
        }
        _ => {
            tracing::error!(%database, %store, error = %why, "what is stored cannot be served to a standby");
            let code = stands.map_or(NOT_READY, |_| UNREADABLE);
            Refusal::new(code, "what is stored cannot be served; the journal's server's log says why")
        }
    };
    NoJournal { refusal, stands }
}

/// How a known standby stands whose journal cannot be had; `None`: what is wrong says nothing of it. What a store does not answer, or does not let be opened, it may yet.
fn stands(Unread { why, failed }: &Unread) -> Option<StandbyState> {
    match failed {
        // Whose store has no record, and is known, was served from it once: another place is mounted there, or none.
        Some(JournalError::Store(why)) => {
            (why.retry() != Retry::Never || why.is_not_found()).then_some(StandbyState::WaitsForStore)
        }
        Some(_) => Some(StandbyState::Damaged),
        // A secret does not read; or a directory that is not mounted is not opened at all.
        None => why.downcast_ref::<OperatorMessage>().map(|_| StandbyState::WaitsForStore),
    }
}

/// Whether what opens a store does not read, and nothing is wrong with the store.
fn is_secret(why: &anyhow::Error) -> bool {
    why.downcast_ref::<OperatorMessage>().is_some_and(|why| why.code == Code::SecretUnreadable)
}

#[cfg(test)]
mod tests {
    use farshore_journal::layout;

    use super::*;
    use crate::message::Safe;

    #[test]
    fn a_standby_waits_for_a_store_that_may_answer_yet_and_for_a_key_and_for_nothing_else() {
        let message = |code| OperatorMessage::new(code, "it", Safe::Known("all".to_owned()), "nothing");
        let failed = |why| Unread { failed: Some(why), ..message(Code::StoreUnusable).into() };
        let waits = Some(StandbyState::WaitsForStore);
        assert_eq!(stands(&hangs()), waits);
        let gone = StoreError::NoStore { operation: Operation::Open, reason: "not mounted".to_owned() };
        assert_eq!(stands(&failed(JournalError::Store(gone))), waits);
        assert_eq!(stands(&message(Code::SecretUnreadable).into()), waits);
        assert_eq!(stands(&message(Code::StoreUnusable).into()), waits);
        // An empty folder is where the store is to be mounted.
        let key = layout::store_record().unwrap();
        assert_eq!(stands(&failed(JournalError::Store(StoreError::NotFound { key: key.clone() }))), waits);
        let range = StoreError::OutOfRange { key: key.clone(), range: 0..0 };
        assert_eq!(stands(&failed(JournalError::Store(range))), None);
        assert_eq!(stands(&failed(JournalError::RecordLost { key })), Some(StandbyState::Damaged));
        assert_eq!(stands(&anyhow::anyhow!("an engine that this build does not read").into()), None);
    }
}
