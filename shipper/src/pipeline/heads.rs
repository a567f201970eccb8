//! Signing heads of the journal, beside the stream.
//!
//! What always holds: nothing waits for it, and it gates nothing. It knows one thing, the newest chunk that the journal confirmed to its
//! owner, and signs no other. At most one head is signed in [`Signing::every`], and one more when the pipeline ends, which
//! gives it two seconds. A head that cannot be signed or put is warned of and tried again with the newest chunk then. What stands in
//! the store is told to the catalog, so that it is known outside of it. A crash here leaves one head fewer, or one that the catalog
//! was not told of.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use farshore_journal::format::{Head, SigningKey, Statement};
use farshore_journal::reader::Reader;
use farshore_journal::store::StoreError;
use farshore_journal::writer::Writer;
use farshore_journal::{DatabaseName, JournalError, Sequence, heads};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::crash::crash_point;
use crate::error::ShipError;
use crate::facts::FactSender;
use crate::progress::{Fact, Progress};

/// How often a head is signed unless told otherwise: what may be cut off unseen is at most what was shipped in so long.
pub const EVERY: Duration = Duration::from_secs(60);
/// How long the last head may take once its pipeline has ended: no shutdown is held up by a store that is away.
pub(super) const LAST: Duration = Duration::from_secs(2);
/// How long a head may wait for its store before a newer one is tried.
const PUT: Duration = Duration::from_secs(30);

/// Opens the signing key, each time it is needed: one that was mended needs no restart.
pub type OpenKey = Arc<dyn Fn() -> Result<SigningKey, String> + Send + Sync>;

/// How heads are signed.
#[derive(Clone)]
pub struct Signing {
    /// The key.
    pub key: OpenKey,
    /// The shortest time from one head to the next.
    pub every: Duration,
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signing").field("every", &self.every).finish_non_exhaustive()
    }
}

/// A chunk that the journal confirmed to its owner.
#[derive(Debug, Clone)]
struct Confirmed {
    reader: Reader,
    said: Statement,
}

/// The pipeline's end: the newest confirmed chunk takes the place of the one before.
#[derive(Debug)]
pub(super) struct Tell {
    database: DatabaseName,
    newest: watch::Sender<Option<Confirmed>>,
}

impl Tell {
    /// Tells how far the journal reaches for its owner. Never waits.
    pub fn confirmed(&self, writer: &Writer) {
        let (place, reader) = (writer.place(), writer.reader());
        // A writer that owns a journal has put its opening, so there is a chunk before its place.
        let Some(number) = place.number().get().checked_sub(1) else { return };
        let said = Statement {
            store: reader.store_id(),
            incarnation: reader.incarnation(),
            database: self.database.clone(),
            number: Sequence::new(number),
            chain: place.chain(),
            end: place.at(),
            generation: writer.generation(),
        };
        self.newest.send_replace(Some(Confirmed { reader: reader.clone(), said }));
    }
}

/// The two ends. `signing` is `None` where no key is configured: nothing is signed then.
pub(super) fn channel(
    signing: Option<Signing>,
    database: DatabaseName,
    store: String,
    facts: FactSender,
    progress: Arc<watch::Sender<Progress>>,
) -> (Tell, Heads) {
    let (newest, told) = watch::channel(None);
    let tell = Tell { database: database.clone(), newest };
    (tell, Heads { signing, database, store, told, done: None, failing: false, facts, progress })
}

/// Signs and puts heads.
pub(super) struct Heads {
    signing: Option<Signing>,
    database: DatabaseName,
    store: String,
    told: watch::Receiver<Option<Confirmed>>,
    /// The last chunk that has a head.
    done: Option<Statement>,
    /// The last try failed, and it was said.
    failing: bool,
    facts: FactSender,
    progress: Arc<watch::Sender<Progress>>,
}

impl Heads {
    /// Runs until the pipeline is gone.
    pub async fn run(mut self) {
        let Some(signing) = self.signing.clone() else { return };
        let mut next = Instant::now();
        loop {
            let unsigned = self.unsigned();
            let told = tokio::select! {
                told = self.told.changed() => told,
                () = tokio::time::sleep_until(next), if unsigned.is_some() => {
                    if let Some(confirmed) = unsigned {
                        self.sign(&signing, confirmed).await;
                    }
                    next = Instant::now() + signing.every;
                    continue;
                }
            };
            if told.is_err() {
                // The pipeline is gone, and has said its last: the journal's end gets a head too.
                if let Some(confirmed) = self.unsigned() {
                    self.sign(&signing, confirmed).await;
                }
                return;
            }
        }
    }

    /// The newest confirmed chunk, unless it has a head.
    fn unsigned(&self) -> Option<Confirmed> {
        let newest = self.told.borrow();
        newest.as_ref().filter(|confirmed| self.done.as_ref() != Some(&confirmed.said)).cloned()
    }

    async fn sign(&mut self, signing: &Signing, confirmed: Confirmed) {
        let Confirmed { reader, said } = confirmed;
        let (database, store) = (&self.database, &self.store);
        match tokio::time::timeout(PUT, signed(signing, &reader, said.clone())).await {
            Ok(Ok(head)) => {
                crash_point!("ship-head-put");
                tracing::debug!(%database, %store, chunk = %said.number, position = %said.end, "a head was signed");
                self.failing = false;
                self.done = Some(said);
                if !self.facts.offer(Fact::Head { head: Box::new(head) }) {
                    // The store has it; whoever brings the catalog up reads it there.
                    self.progress.send_modify(|progress| progress.facts_dropped += 1);
                }
            }
            failed => {
                let why = match failed {
                    Ok(Err(why)) => why.to_string(),
                    _ => "the store did not take it".to_owned(),
                };
                // Once for as long as it stays: it is tried again every minute.
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%database, %store, chunk = %said.number, why, "the journal's head could not be signed; shipping goes on, and it is tried again");
                }
            }
        }
    }
}

/// Signs what was confirmed, and puts it.
async fn signed(signing: &Signing, reader: &Reader, said: Statement) -> Result<Head, SignError> {
    let (open, now) = (Arc::clone(&signing.key), Utc::now().timestamp_micros());
    let number = said.number;
    let made = tokio::task::spawn_blocking(move || open().map(|key| Head::sign(said, now, &key))).await;
    let head = made
        .map_err(|_| ShipError::TaskEnded { what: "signing" })
        .map_err(SignError::Ship)?
        .map_err(|why| SignError::Key { why })?;
    let trouble = |why: &StoreError| tracing::debug!(error = %why, "a head waits for its store");
    crash_point!("ship-head-signed");
    match heads::put(&**reader.store(), reader.layout(), &head, &trouble).await {
        Ok(()) => Ok(head),
        // One of an earlier try, whose answer was lost, says the same at another time.
        Err(JournalError::Another { .. }) => match heads::read(reader, number).await {
            Ok(there) if there.said == head.said && there.key == head.key => Ok(there),
            Ok(_) => Err(SignError::Taken { number }),
            Err(why) => Err(SignError::Ship(why.into())),
        },
        Err(why) => Err(SignError::Ship(why.into())),
    }
}

/// Why there is no head.
#[derive(Debug, thiserror::Error)]
enum SignError {
    #[error("the signing key: {why}")]
    Key { why: String },
    #[error("another head stands at chunk {number}, which this shipper wrote: someone else puts heads")]
    Taken { number: Sequence },
    #[error(transparent)]
    Ship(ShipError),
}
