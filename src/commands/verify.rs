//! `farshore verify`: proves that the stored journal is whole, object by object, without the catalog.

use farshore_applier::heads::unwitnessed;
use farshore_applier::verify::{Verified, verify};
use farshore_catalog::Catalog;
use farshore_catalog::backup::Read;
use farshore_catalog::job::{JobKind, JobProgress};
use farshore_journal::DatabaseName;
use serde::Serialize;
use serde_json::{Value, json};

use crate::chronicles::damage::Pages;
use crate::cli::VerifyArgs;
use crate::cli::zone::Zone;
use crate::commands::{self, Context, job};
use crate::config::{Config, DatabaseConfig, StoreName};
use crate::exit::Exit;
use crate::jobs::held::Reporter;
use crate::jobs::{record, spec};
use crate::message::{Code, OperatorMessage, Safe};
use crate::output::Row;
use crate::{heads, sources};

/// One incarnation in one store, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct Shown {
    database: DatabaseName,
    store: String,
    incarnation: String,
    /// The number that its store's record gives the incarnation.
    incarnation_number: u64,
    sound: bool,
    /// What speaks against the store's pages of the database's exposure ledger and of the record of activity; with the newest incarnation.
    pages: Vec<String>,
    #[serde(flatten)]
    found: Verified,
}

impl Row for Shown {
    const HEADER: &'static [&'static str] = &[
        "DATABASE",
        "STORE",
        "INC",
        "INCARNATION",
        "OBJECTS",
        "BYTES",
        "BAD",
        "GAPS",
        "CHAIN HEAD",
        "SIGNED TO",
    ];

    fn cells(&self, _zone: Zone) -> Vec<String> {
        let head =
            self.found.chain_head.map_or_else(|| "-".to_owned(), |head| head.to_string()[..16].to_owned());
        vec![
            self.database.to_string(),
            self.store.clone(),
            self.incarnation_number.to_string(),
            self.incarnation.clone(),
            self.found.objects.to_string(),
            self.found.bytes.to_string(),
            (self.found.bad.len() as u64 + self.found.more + self.pages.len() as u64).to_string(),
            self.found.gaps.len().to_string(),
            head,
            self.signed(),
        ]
    }
}

impl Shown {
    /// In short.
    fn summary(&self) -> Value {
        json!({
            "store": self.store,
            "incarnation": self.incarnation_number,
            "sound": self.sound,
            "objects": self.found.objects,
            "bytes": self.found.bytes,
            "bad": self.found.bad.len() as u64 + self.found.more,
            "gaps": self.found.gaps.len(),
            "pages": self.pages.len(),
        })
    }

    /// How far a head that counts reaches, and its age by the signer's clock is in the JSON.
    fn signed(&self) -> String {
        let head = &self.found.head;
        match (head.pinned, head.position) {
            (false, _) => "no key".to_owned(),
            (true, None) => "no head".to_owned(),
            (true, Some(position)) => position.to_string(),
        }
    }
}

/// An empty answer would read as a sound one.
fn nothing_stored(name: &DatabaseName, store: &StoreName) -> OperatorMessage {
    OperatorMessage::new(
        Code::NothingStored,
        format!("the store {store} holds nothing of {name}"),
        Safe::Known(format!("{name} cannot be restored from {store}")),
        "start `farshore run`; if it has shipped there before, look whether the configuration names that place",
    )
}

/// Runs it. Ends with 9 when something is bad, and names it.
///
/// # Errors
/// When a store does not answer, its records are not as they were written, or it holds nothing of a database; what was
/// found elsewhere is printed all the same.
pub async fn run(context: &mut Context, args: VerifyArgs) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let chosen = commands::databases(&config, args.choice.database.as_ref())?;
    if args.no_wait {
        let asked = spec::queued(JobKind::Verify, args.choice.database.as_ref(), &spec::Verify {});
        return job::queue(context, &config, asked).await;
    }
    let mut all = Found::default();
    let mut interrupted = false;
    let catalog = record::catalog(&config).await;
    let pages = Pages::new(catalog.as_ref()).await;
    for (name, settings) in chosen {
        let asked = spec::asked(JobKind::Verify, Some(name), &spec::Verify {});
        let held = record::begin(catalog.as_ref(), asked, &context.cancel).await;
        let reporter = held.reporter();
        let Some(found) = held
            .beside(Box::pin(verified(&config, (name, settings), catalog.as_ref(), &reporter, &pages)))
            .await
        else {
            held.end_stopped().await;
            // What was found before is told all the same.
            interrupted = true;
            break;
        };
        let summary = found.summary().map(|summary| summary.to_string());
        held.end_done(summary).await;
        all.shown.extend(found.shown);
        all.failed = all.failed.or(found.failed);
    }
    if all.failed.is_none() || !all.shown.is_empty() {
        context.output.list("farshore.verify/1", &all.shown)?;
    }
    if let Some(why) = all.failed {
        return Err(why);
    }
    if interrupted {
        return Ok(Exit::Interrupted);
    }
    Ok(if all.shown.iter().all(|shown| shown.sound) { Exit::Done } else { Exit::Findings })
}

/// What a verification found.
#[derive(Default)]
pub struct Found {
    shown: Vec<Shown>,
    /// What could not be read: what one store does not say must not hide what another one has.
    failed: Option<anyhow::Error>,
}

impl Found {
    /// In short, for a job's result.
    ///
    /// # Errors
    /// When a store could not be read: what was found elsewhere proves nothing of it.
    pub fn summary(&self) -> Result<Value, OperatorMessage> {
        if let Some(why) = &self.failed {
            return Err(match why.downcast_ref::<OperatorMessage>() {
                Some(message) => message.clone(),
                None => OperatorMessage::new(
                    Code::Unexpected,
                    format!("not all could be verified: {why:#}"),
                    Safe::Unknown("what could not be read may be damaged".to_owned()),
                    "mend what it says, and verify again",
                ),
            });
        }
        let journals: Vec<Value> = self.shown.iter().map(Shown::summary).collect();
        Ok(json!({ "sound": self.shown.iter().all(|shown| shown.sound), "journals": journals }))
    }
}

/// Verifies all that the stores have of a database; what is found is logged as it comes, and the catalog is told of base backups: no window begins with one that is
/// bad, and nothing expires for it.
pub async fn verified(
    config: &Config,
    (name, settings): (&DatabaseName, &DatabaseConfig),
    catalog: Option<&Catalog>,
    reporter: &Reporter,
    pages: &Pages,
) -> Found {
    let mut found = Found::default();
    for store in &settings.stores {
        let one = of_store(config, (name, settings), store, catalog, reporter, pages, &mut found.shown);
        if let Err(why) = Box::pin(one).await {
            tracing::error!(database = %name, store = %store, "not verified: {why}");
            found.failed.get_or_insert(why);
        }
    }
    found
}

/// Verifies what one store has of a database, incarnation by incarnation.
async fn of_store(
    config: &Config,
    (name, settings): (&DatabaseName, &DatabaseConfig),
    store: &StoreName,
    catalog: Option<&Catalog>,
    reporter: &Reporter,
    sealed: &Pages,
    shown: &mut Vec<Shown>,
) -> anyhow::Result<()> {
    // First, so that what it knows was stored before the store is read.
    let known = heads::known(config, name, settings, store).await;
    let sources = sources::all(config, name, store).await?;
    if sources.is_empty() {
        return Err(nothing_stored(name, store).into());
    }
    if known.pinned.is_empty() {
        tracing::warn!(database = %name, store = %store, "no verify_keys: that the journal's end was cut off, or all of it rewritten, is not looked for; authenticity rests on the store's own access control");
    }
    for (at, source) in sources.iter().enumerate() {
        let number = source.record().number;
        let say = |_, bytes| {
            let phase = Some(format!("reading incarnation {number} in {store}"));
            reporter.say(JobProgress { phase, done_bytes: Some(bytes), ..JobProgress::default() });
        };
        let mut found = Box::pin(verify(source, &known, &say)).await?;
        tell_of_backups(catalog, (name, store), &found).await;
        // Of a journal that is not there nothing can be shown: the newest one that is there says so.
        if at + 1 == sources.len() {
            for head in known.vanished(&sources) {
                tracing::error!(database = %name, store = %store, "{}", heads::vanished(name, store.as_str(), head));
                found.vanished(head);
            }
        }
        if let Some(one) = Box::pin(unwitnessed(source, &sources, &known)).await? {
            tracing::error!(database = %name, store = %store, "{}", heads::unwitnessed(name, store.as_str(), &one));
            found.unwitnessed(source.record(), &one);
        }
        for doubt in &found.head.doubts {
            tracing::error!(database = %name, store = %store, "{}", heads::not_held(name, store.as_str(), doubt));
        }
        if found.head.retired > 0 {
            tracing::info!(database = %name, store = %store, heads = found.head.retired, "signed by a key of retired_keys: they count for nothing");
        }
        if found.head.pinned && found.head.sequence.is_none() {
            tracing::warn!(database = %name, store = %store, incarnation = %source.record().incarnation, "there is no head that one of verify_keys signed: that the journal's end was cut off would not be seen");
        }
        for bad in &found.bad {
            tracing::error!(database = %name, store = %store, object = bad.object, "{}", bad.what);
        }
        for backup in &found.damaged_backups {
            tracing::warn!(database = %name, store = %store, backup = %backup.id, pages = backup.pages, first = backup.first,
                "the source's pages were damaged when this backup was taken: take another, and look at the source");
        }
        for id in &found.unfinished_backups {
            tracing::warn!(database = %name, store = %store, backup = %id, "a backup without its manifest: running, cut off, or its manifest was deleted; no restore uses it");
        }
        if found.sealed > 0 {
            tracing::warn!(database = %name, objects = found.sealed, "not opened: no private key is at hand; checksums and chain were checked");
        }
        let pages = match at + 1 == sources.len() {
            true => Box::pin(sealed.of(config, name, store)).await,
            false => Vec::new(),
        };
        shown.push(Shown {
            database: name.clone(),
            store: store.to_string(),
            incarnation: source.record().incarnation.to_string(),
            incarnation_number: source.record().number,
            sound: found.is_sound() && pages.is_empty(),
            pages,
            found,
        });
    }
    Ok(())
}

/// Tells the catalog what reading the base backups came to. It is a finding all the same where there is none, or it does not take it.
async fn tell_of_backups(
    catalog: Option<&Catalog>,
    (name, store): (&DatabaseName, &StoreName),
    found: &Verified,
) {
    let any_bad = found.backups.iter().any(|(_, read)| *read == Read::Bad);
    let Some(catalog) = catalog else {
        if any_bad {
            tracing::warn!(database = %name, %store, "there is no catalog that could be told which base backups are bad: windows may begin with them, and `farshore backup expire` may count on them");
        }
        return;
    };
    for (id, read) in &found.backups {
        if let Err(why) = catalog.backup_verified(*id, *read, chrono::Utc::now()).await {
            tracing::error!(database = %name, %store, backup = %id, error = %why, "the catalog was not told what was found of the base backup: verify again before anything expires");
        }
    }
}
