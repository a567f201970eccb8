//! Signing heads of the journal, beside the stream.
//!
//! What always holds: nothing waits for it, and it gates nothing. It knows one thing, the newest chunk that the journal confirmed to its
//! owner, and signs no other. Before the first head of a generation, the newest heads there are, in the store and in the catalog, are
//! held against the journal: one that was rewritten or cut off before it was taken over is shipped into and not signed, and the
//! catalog keeps what it has as the witness; what the catalog could not be asked of is not told to it. An incarnation gets its first
//! head at once. After that at most one is signed in [`Signing::every`], and one more when the pipeline ends, which gives it two seconds. A head that cannot be signed or put is warned of and tried again with the newest chunk then. What stands in
//! the store is told to the catalog, so that it is known outside of it. A crash here leaves one head fewer, or one that the catalog
//! was not told of.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use farshore_catalog::Catalog;
use farshore_journal::format::{Head, HeadStanding, SigningKey, Statement, VerifyKeys};
use farshore_journal::heads::{self, Held};
use farshore_journal::reader::Reader;
use farshore_journal::store::StoreError;
use farshore_journal::writer::Writer;
use farshore_journal::{DatabaseName, Generation, IncarnationId, JournalError, Sequence};
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
/// How long the heads that are there may take to be looked at, once for each generation.
const CHECK: Duration = Duration::from_secs(300);

/// Opens the signing key, each time it is needed: one that was mended needs no restart.
pub type OpenKey = Arc<dyn Fn() -> Result<SigningKey, String> + Send + Sync>;

/// How heads are signed.
#[derive(Clone)]
pub struct Signing {
    /// The key.
    pub key: OpenKey,
    /// The keys whose heads count; without any, the key's own does.
    pub pinned: VerifyKeys,
    /// Keys that signed once and count for nothing any more.
    pub retired: VerifyKeys,
    /// What knows heads outside the store, where there is one.
    pub catalog: Option<Catalog>,
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
    let heads = Heads {
        signing,
        database,
        store,
        told,
        done: None,
        begun: None,
        checked: None,
        failing: false,
        refused: false,
        facts,
        progress,
    };
    (tell, heads)
}

/// A generation whose journal holds the heads that were there before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Checked {
    generation: (IncarnationId, Generation),
    /// The catalog's heads were held against it too.
    outside: bool,
}

/// Signs and puts heads.
pub(super) struct Heads {
    signing: Option<Signing>,
    database: DatabaseName,
    store: String,
    told: watch::Receiver<Option<Confirmed>>,
    /// The last chunk that has a head.
    done: Option<Statement>,
    /// The incarnation for which a head was tried last.
    begun: Option<IncarnationId>,
    checked: Option<Checked>,
    /// The last try failed, and it was said.
    failing: bool,
    /// The journal does not hold what was signed of it, and that was said.
    refused: bool,
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
            // Whoever reads takes an incarnation without a head for a forgery, so a new one waits for nothing.
            let incarnation = self.unsigned().map(|confirmed| confirmed.said.incarnation);
            if incarnation.is_some() && incarnation != self.begun {
                (self.begun, next) = (incarnation, Instant::now());
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
        let (database, store) = (self.database.clone(), self.store.clone());
        let generation = (said.incarnation, said.generation);
        let checked = self.checked.is_some_and(|checked| checked.generation == generation);
        let bound = if checked { PUT } else { CHECK + PUT };
        match tokio::time::timeout(bound, self.held_and_signed(signing, &reader, said.clone())).await {
            Ok(Ok((head, pinned))) => {
                crash_point!("ship-head-put");
                tracing::debug!(%database, %store, chunk = %said.number, position = %said.end, "a head was signed");
                (self.failing, self.refused) = (false, false);
                self.done = Some(said);
                let outside = self.checked.is_some_and(|checked| checked.outside);
                if !(outside && self.facts.offer(Fact::Head { head: Box::new(head), pinned })) {
                    // The store has it; whoever brings the catalog up reads it there.
                    self.progress.send_modify(|progress| progress.facts_dropped += 1);
                }
            }
            failed => {
                // Each once for as long as it stays: it is tried again every minute.
                let refused = matches!(failed, Ok(Err(SignError::NotHeld { .. })));
                let said_before = if refused { &mut self.refused } else { &mut self.failing };
                if std::mem::replace(said_before, true) {
                    return;
                }
                match failed {
                    Ok(Err(why)) if refused => {
                        tracing::error!(%database, %store, chunk = %said.number, %why, "the journal is shipped into and not signed: `farshore verify` says more");
                    }
                    failed => {
                        let why = match failed {
                            Ok(Err(why)) => why.to_string(),
                            _ => "the store did not take it".to_owned(),
                        };
                        tracing::warn!(%database, %store, chunk = %said.number, why, "the journal's head could not be signed; shipping goes on, and it is tried again");
                    }
                }
            }
        }
    }

    /// Holds the journal against the heads that are there, unless that was done for this generation, and signs it. Gives the
    /// keys that count too.
    async fn held_and_signed(
        &mut self,
        signing: &Signing,
        reader: &Reader,
        said: Statement,
    ) -> Result<(Head, VerifyKeys), SignError> {
        let open = Arc::clone(&signing.key);
        let key = tokio::task::spawn_blocking(move || open()).await;
        let key = key
            .map_err(|_| ShipError::TaskEnded { what: "signing" })
            .map_err(SignError::Ship)?
            .map_err(|why| SignError::Key { why })?;
        let pinned = match signing.pinned.is_empty() {
            true => VerifyKeys::new(vec![key.public()]),
            false => signing.pinned.clone(),
        };
        let generation = (said.incarnation, said.generation);
        let mut checked = match self.checked.filter(|checked| checked.generation == generation) {
            Some(checked) => checked,
            None => {
                hold_store(reader, &pinned, &signing.retired).await?;
                Checked { generation, outside: signing.catalog.is_none() }
            }
        };
        if let (false, Some(catalog)) = (checked.outside, &signing.catalog) {
            match catalog.head_list(&said.database).await {
                Ok(known) => {
                    for known in known {
                        let of = (known.head.said.store, known.head.said.incarnation);
                        if of == (reader.store_id(), reader.incarnation())
                            && known.head.standing(&pinned) == HeadStanding::Pinned
                        {
                            hold(reader, known.head).await?;
                        }
                    }
                    checked.outside = true;
                }
                // It gates nothing: what it knows is held against the journal when it is back, and until then it is told of no head.
                Err(why) => {
                    tracing::debug!(database = %self.database, error = %why, "the catalog's heads were not looked at");
                }
            }
        }
        self.checked = Some(checked);
        let head = signed(&key, reader, said).await?;
        Ok((head, pinned))
    }
}

/// Holds the journal against the newest head of the store. What could not be looked at may be a newer one.
async fn hold_store(reader: &Reader, pinned: &VerifyKeys, retired: &VerifyKeys) -> Result<(), SignError> {
    let newest = heads::newest(reader, pinned, retired).await.map_err(|why| SignError::Ship(why.into()))?;
    if newest.may_be_newer() {
        let first = newest.unread.first();
        let what = first.map_or_else(
            || "too many objects that are none".to_owned(),
            |one| format!("{}: {}", one.object, one.why),
        );
        return Err(SignError::Unread { what });
    }
    match newest.head {
        Some(head) => hold(reader, head).await,
        None => Ok(()),
    }
}

/// Refuses a journal that does not hold what was signed of it.
async fn hold(reader: &Reader, head: Head) -> Result<(), SignError> {
    match heads::held(reader, &head).await {
        Ok(Held::Yes | Held::Expired) => Ok(()),
        Ok(Held::Other) => Err(SignError::NotHeld { head: Box::new(head), what: "is another one" }),
        Ok(Held::No) => Err(SignError::NotHeld { head: Box::new(head), what: "is not there" }),
        Err(why) => Err(SignError::Ship(why.into())),
    }
}

/// Signs what was confirmed, and puts it.
async fn signed(key: &SigningKey, reader: &Reader, said: Statement) -> Result<Head, SignError> {
    let number = said.number;
    let head = Head::sign(said, Utc::now().timestamp_micros(), key);
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
    #[error(
        "not every head of the journal can be looked at, which it must hold before it is signed anew ({what}): `farshore verify` names them"
    )]
    Unread { what: String },
    #[error("another head stands at chunk {number}, which this shipper wrote: someone else puts heads")]
    Taken { number: Sequence },
    #[error(
        "chunk {} {what}, and a head signed at {} says that it was stored: the journal was rewritten or cut off before this shipper \
         took it over. To sign it as it is, use another signing key and name the former one in retired_keys",
        head.said.number,
        head.signed_when()
    )]
    NotHeld { head: Box<Head>, what: &'static str },
    #[error(transparent)]
    Ship(ShipError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_journal::format::Recipients;
    use farshore_journal::format::object::Compression;
    use farshore_journal::registry::{Founding, Repository};
    use farshore_journal::store::ObjectStore;
    use farshore_journal::store::memory::MemoryStore;
    use farshore_journal::writer::{WriterOptions, encode_data};
    use farshore_journal::{Offset, Position, Timeline};
    use tokio::task::JoinSet;

    use crate::facts::{self, FactReceiver};

    /// One store and database, whose incarnations are written and told of.
    struct Rig {
        repository: Repository,
        key: Arc<SigningKey>,
        file: String,
    }

    impl Rig {
        async fn new() -> Self {
            let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
            let repository = Repository::open_or_found(store, "2026-11-26T00:00:00Z").await.unwrap();
            let (key, file) = SigningKey::mint().unwrap();
            Self { repository, key: Arc::new(key), file }
        }

        /// The writer of a new incarnation of this number.
        async fn found(&self, number: u64) -> Writer {
            let founding = Founding {
                database: &"orders".parse().unwrap(),
                number,
                engine: "postgres",
                identity: "7",
                major: 15,
                segment_bytes: 1 << 20,
                now: "2026-11-26T00:00:00Z",
                reason: "first",
            };
            let record = self.repository.found_incarnation(founding).await.unwrap();
            own(Reader::new(&self.repository, &record).unwrap()).await
        }

        /// A shipper's two ends, and what it tells the catalog.
        fn signing(&self) -> (Tell, JoinSet<()>, FactReceiver) {
            let file = self.file.clone();
            let signing = Signing {
                key: Arc::new(move || SigningKey::parse(&file).map_err(|why| why.to_string())),
                pinned: VerifyKeys::new(vec![self.key.public()]),
                retired: VerifyKeys::default(),
                catalog: None,
                every: EVERY,
            };
            let (sender, receiver) = facts::channel();
            let progress = Arc::new(watch::channel(Progress::default()).0);
            let (tell, heads) =
                channel(Some(signing), "orders".parse().unwrap(), "main".to_owned(), sender, progress);
            let mut run = JoinSet::new();
            run.spawn(heads.run());
            (tell, run, receiver)
        }
    }

    async fn own(reader: Reader) -> Writer {
        let options = WriterOptions {
            compression: Compression::None,
            recipients: Recipients::default(),
            segment_bytes: 1 << 20,
            host: "here".to_owned(),
        };
        let at = Position::new(Timeline::new(1), Offset::new(0));
        Writer::take_over(reader, &options, at, &|_| {}).await.unwrap()
    }

    async fn append(writer: &mut Writer, log: &[u8]) {
        let (chunk, _) = encode_data(writer.place(), log).unwrap();
        writer.append(&chunk, &|_| {}).await.unwrap();
    }

    async fn count(writer: &Writer) -> usize {
        heads::list(writer.reader()).await.unwrap().len()
    }

    /// A shipper whose source becomes another cluster goes on within the same process.
    #[tokio::test]
    async fn a_new_incarnation_is_signed_at_once_however_young_the_last_head_is() {
        let rig = Rig::new().await;
        let (first, second) = (rig.found(0).await, rig.found(1).await);
        let (tell, run, mut facts) = rig.signing();
        for writer in [&first, &second] {
            tell.confirmed(writer);
            let told = tokio::time::timeout(EVERY / 4, facts.recv()).await;
            let Ok(Some(Fact::Head { head, .. })) = told else { panic!("no head: {told:?}") };
            assert_eq!(head.said.incarnation, writer.reader().incarnation());
        }
        drop(tell);
        run.join_all().await;
    }

    /// A shipper that starts reads the journal's end and not what it once was: whoever rewrote it meanwhile must not be signed.
    #[tokio::test]
    async fn a_journal_that_was_rewritten_or_cut_before_the_takeover_gets_no_head() {
        let rig = Rig::new().await;
        let mut writer = rig.found(0).await;
        append(&mut writer, b"one").await;
        append(&mut writer, b"two").await;
        let (tell, run, mut facts) = rig.signing();
        tell.confirmed(&writer);
        drop(tell);
        run.join_all().await;
        assert!(matches!(facts.recv().await, Some(Fact::Head { .. })));
        assert_eq!(count(&writer).await, 1);
        let (store, layout) = (Arc::clone(writer.reader().store()), writer.reader().layout().clone());
        let record = rig.repository.incarnations(&"orders".parse().unwrap()).await.unwrap().remove(0);
        // Cut by one chunk and taken over: first shorter than what was signed, then as long and longer.
        store.delete(&layout.chunk(Sequence::new(2)).unwrap()).await.unwrap();
        store.delete(&layout.chunk(Sequence::new(1)).unwrap()).await.unwrap();
        let reader = Reader::new(&rig.repository, &record).unwrap();
        let mut another = own(reader).await;
        for _ in 0..3 {
            let (tell, run, mut facts) = rig.signing();
            tell.confirmed(&another);
            drop(tell);
            run.join_all().await;
            assert!(facts.recv().await.is_none(), "the catalog keeps its witness");
            assert_eq!(count(&another).await, 1, "nothing is signed");
            append(&mut another, b"regrown").await;
        }
    }
}
