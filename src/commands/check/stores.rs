//! Asks a database's stores what `check` judges.
//!
//! What always holds: nothing new stays in a store that was founded. Whether it can be written, and keeps a name's
//! first bytes, is asked with the store's own record: the very bytes that are there are offered again, and a sound
//! store says that they exist. A store that was never founded is raced as `run` would, and holds nothing to litter.
//! Only the user that owns a new directory writes into it here: what another user leaves could stop the shipper.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::format::{Cipher, DataKey, Recipients, Unlock};
use farshore_journal::layout;
use farshore_journal::reader::Reader;
use farshore_journal::registry::Repository;
use farshore_journal::store::{self, Created, ObjectStore, StoreError};
use farshore_journal::{DatabaseName, JournalError};

use crate::check::facts::{IdentityFacts, JournalFacts, KeyFacts, NewestKey, StoreFacts, StoreFound};
use crate::config::address::StoreUrl;
use crate::config::{Config, StoreConfig, StoreName};
use crate::message::with_causes;
use crate::wiring::{self, Purpose};

/// What one store tells. `devices` are those that the database lies on, where they are known.
pub(super) async fn ask(
    config: &Config,
    name: &StoreName,
    settings: &StoreConfig,
    database: &DatabaseName,
    devices: Option<&[u64]>,
    shipped_before: bool,
) -> StoreFacts {
    let mut facts = StoreFacts {
        name: name.to_string(),
        is_directory: settings.url.is_file(),
        keys: keys(settings),
        shipped_before,
        ..StoreFacts::default()
    };
    if let StoreUrl::File(path) = &settings.url {
        if !path.exists() {
            facts.found = Some(absent(path));
            return facts;
        }
        facts.free_bytes = super::free_bytes(path);
        facts.beside_database =
            devices.zip(path.metadata().ok()).map(|(devices, directory)| devices.contains(&directory.dev()));
    }
    let store = match wiring::open_store(config, name, Purpose::Read) {
        Ok((store, _)) => store,
        Err(why) => {
            facts.found = Some(StoreFound::Refused { said: why.happened });
            return facts;
        }
    };
    match Repository::open(store).await {
        Ok(repository) => {
            facts.found = Some(StoreFound::Founded);
            ask_founded(config, name, &repository, &mut facts).await;
            ask_journal(settings, &repository, database, &mut facts).await;
        }
        Err(JournalError::Store(StoreError::NotFound { .. })) => {
            facts.found = Some(StoreFound::New);
            ask_new(config, name, settings, &mut facts).await;
        }
        Err(why) => facts.found = Some(StoreFound::Refused { said: with_causes(&why) }),
    }
    facts
}

/// A directory that is not there: where it would have to be made.
fn absent(path: &Path) -> StoreFound {
    let parent = path.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let may_make = nix::unistd::access(parent, nix::unistd::AccessFlags::W_OK).is_ok();
    StoreFound::Absent { parent: parent.display().to_string(), may_make }
}

fn writable(config: &Config, name: &StoreName) -> Result<Arc<dyn ObjectStore>, String> {
    wiring::open_store(config, name, Purpose::Write).map(|(store, _)| store).map_err(|why| why.happened)
}

async fn ask_founded(config: &Config, name: &StoreName, repository: &Repository, facts: &mut StoreFacts) {
    let store = match writable(config, name) {
        Ok(store) => store,
        Err(said) => {
            facts.writable = Some(Err(said));
            return;
        }
    };
    let created = async {
        let key = layout::store_record()?;
        let record = repository.store().get(&key).await?;
        Ok::<_, JournalError>(store.create(&key, record).await?)
    };
    match created.await {
        Ok(Created::Exists) => (facts.writable, facts.creates_once) = (Some(Ok(())), Some(Ok(()))),
        Ok(Created::New) => {
            facts.writable = Some(Ok(()));
            facts.creates_once = Some(Err("it created its record a second time".to_owned()));
        }
        Err(why) => facts.writable = Some(Err(with_causes(&why))),
    }
}

async fn ask_new(config: &Config, name: &StoreName, settings: &StoreConfig, facts: &mut StoreFacts) {
    if let StoreUrl::File(path) = &settings.url {
        let ours = path.metadata().is_ok_and(|found| found.uid() == nix::unistd::geteuid().as_raw());
        if !ours {
            tracing::warn!(store = %name, "the directory belongs to another user: it is not written to");
            return;
        }
    }
    let store = match writable(config, name) {
        Ok(store) => store,
        Err(said) => {
            facts.writable = Some(Err(said));
            return;
        }
    };
    // Opening a directory for writing has proved links and fsync; a provider must be raced.
    let probed = if facts.is_directory { Ok(()) } else { store::probe(&*store).await };
    match probed {
        Ok(()) => (facts.writable, facts.creates_once) = (Some(Ok(())), Some(Ok(()))),
        Err(StoreError::Unsafe { what }) => {
            (facts.writable, facts.creates_once) = (Some(Ok(())), Some(Err(what)));
        }
        Err(why) => facts.writable = Some(Err(with_causes(&why))),
    }
}

/// What the store holds of the database, and whether the private key opens it.
async fn ask_journal(
    settings: &StoreConfig,
    repository: &Repository,
    database: &DatabaseName,
    facts: &mut StoreFacts,
) {
    let current = match repository.incarnations(database).await {
        Ok(mut records) => records.pop(),
        Err(why) => {
            facts.journal = Some(JournalFacts::Unreadable { why: with_causes(&why) });
            return;
        }
    };
    let Some(record) = current else {
        facts.journal = Some(JournalFacts::Empty);
        facts.keys.newest = Some(NewestKey::NothingStored);
        return;
    };
    facts.journal = Some(JournalFacts::Current { cluster: record.identity.clone(), major: record.major });
    if matches!(facts.keys.identity, Some(IdentityFacts::Read { .. }))
        && let Ok(unlock) = wiring::unlock(settings)
    {
        match newest(repository, &record, unlock).await {
            Ok(newest) => facts.keys.newest = Some(newest),
            Err(why) => facts.journal = Some(JournalFacts::Unreadable { why: with_causes(&why) }),
        }
    }
}

/// Opens the data key of the newest generation, as a restore would.
async fn newest(
    repository: &Repository,
    record: &IncarnationRecord,
    unlock: Unlock,
) -> Result<NewestKey, JournalError> {
    let reader = Reader::new(repository, record)?;
    let Some(last) = reader.chunks_end().await? else { return Ok(NewestKey::NothingStored) };
    let opening = reader.opening(last.header().generation, last.header().number).await?;
    let Some(wrapped) = opening.key else { return Ok(NewestKey::Clear) };
    let opened = unlock.unwrap(&wrapped).and_then(|key| match last.header().cipher {
        // An opening is not sealed itself; its generation's key is all there is to try.
        Cipher::Clear => Ok(()),
        _ => last.plain(0, Some(&key)).map(drop),
    });
    Ok(match opened {
        Ok(()) => NewestKey::Opens,
        Err(why) => NewestKey::Shut { why: why.to_string() },
    })
}

/// What can be told of the keys without the store.
fn keys(settings: &StoreConfig) -> KeyFacts {
    let recipients = Recipients::parse(settings.recipients.iter().map(String::as_str));
    let identity = settings.identity_file.as_ref().map(|_| match wiring::unlock(settings) {
        Err(why) => IdentityFacts::Unreadable { why: why.happened },
        Ok(unlock) => {
            IdentityFacts::Read { fits: recipients.as_ref().is_ok_and(|known| fits(known, &unlock)) }
        }
    });
    KeyFacts {
        recipients: u32::try_from(settings.recipients.len()).unwrap_or(u32::MAX),
        recipients_wrong: recipients.as_ref().err().map(ToString::to_string),
        identity,
        newest: None,
    }
}

/// Whether a key wrapped for the recipients opens: with a key made for this question.
fn fits(recipients: &Recipients, unlock: &Unlock) -> bool {
    let wrapped = DataKey::mint().and_then(|key| Ok((key.wrap(recipients)?, key)));
    wrapped.is_ok_and(|(wrapped, key)| unlock.unwrap(&wrapped).is_ok_and(|opened| opened == key))
}
