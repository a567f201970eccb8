//! Chronicles in a store: putting their pages, reading them, and finding what leads to what. `FORMAT.md` section 14.
//!
//! What always holds: a page is put at the number behind the last one that its writer read or put, so pages of a life never overlap; of two who put at one
//! number the store takes one, and the other reads it. Nothing of the journal reads a page or waits for one.
//! A crash leaves a page that is there or is not: whoever comes next looks.
//! What it does not do: it does not know what an entry says.

mod strand;
mod tree;

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use self::strand::{Flaw, Strand};
pub use self::tree::Tree;
use crate::error::JournalError;
use crate::format::header::VERSION;
use crate::format::page::PAGE_BYTES;
use crate::format::{Chronicle, FormatError, LifeId, Page, body};
use crate::identity::{DatabaseName, Sequence, StoreId};
use crate::layout;
use crate::registry::Repository;
use crate::store::{Created, Key, StoreError};

/// What putting a page found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// It is there.
    Done,
    /// Another stood there first: this one.
    There(Box<Page>),
}

/// The names that a chronicle has in a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The first numbers of the pages of each life, rising.
    pub lives: BTreeMap<LifeId, Vec<u64>>,
    /// When the newest page of each was written, by the store's clock. For a choice that may be wrong, never for order.
    pub newest: BTreeMap<LifeId, DateTime<Utc>>,
    /// When the oldest of all was written, by the same clock.
    pub oldest: Option<DateTime<Utc>>,
    /// What farshore never put there.
    pub strangers: Vec<Key>,
}

/// Says that a database belongs to the catalog whose activity a life is.
#[derive(Debug, Serialize, Deserialize)]
struct Belongs {
    format: u16,
    store: StoreId,
    database: DatabaseName,
    life: LifeId,
}

fn key(chronicle: &Chronicle, life: LifeId, first: u64) -> Result<Key, JournalError> {
    Ok(layout::chronicle(chronicle)?.join(life)?.key(Sequence::new(first))?)
}

/// Puts a page, once: after a failure that leaves doubt whoever tries again finds what is there.
///
/// # Errors
/// When the store does not answer, or what stands there is no page of this life.
///
/// # Cancel safety
/// Dropped midway, it may or may not stand. If it does, it holds.
pub async fn put(repository: &Repository, page: &Page) -> Result<Put, JournalError> {
    let place = page.place();
    let bytes = page.encode().map_err(|source| JournalError::Encode { what: "page", source })?;
    match repository.store().create(&key(&place.chronicle, place.life, place.first)?, bytes).await? {
        Created::New => Ok(Put::Done),
        Created::Exists => {
            let there = read(repository, &place.chronicle, place.life, place.first).await?;
            Ok(if there == *page { Put::Done } else { Put::There(Box::new(there)) })
        }
    }
}

/// One page, in its place and whole. Its signature was not looked at.
///
/// # Errors
/// [`StoreError::NotFound`] when there is none; [`JournalError::Object`] or [`JournalError::Misplaced`] when it is not what was
/// written there.
pub async fn read(
    repository: &Repository,
    chronicle: &Chronicle,
    life: LifeId,
    first: u64,
) -> Result<Page, JournalError> {
    let key = key(chronicle, life, first)?;
    let bytes = match repository.store().get_range(&key, 0..PAGE_BYTES + 1).await {
        Err(StoreError::OutOfRange { .. }) => Bytes::new(),
        other => other?,
    };
    let bad = |source: FormatError| JournalError::Object { key: key.clone(), source };
    let page = Page::decode(&bytes).map_err(bad)?;
    let place = page.place();
    let misplaced = if place.store != repository.id() {
        Some("store id")
    } else if place.chronicle != *chronicle {
        Some("chronicle")
    } else if place.life != life {
        Some("life")
    } else if place.first != first {
        Some("number")
    } else {
        None
    };
    misplaced.map_or(Ok(page), |field| Err(JournalError::Misplaced { key, field }))
}

/// Whether a page stands at a name, be it what it may.
///
/// # Errors
/// When the store does not answer.
pub async fn stands(
    repository: &Repository,
    chronicle: &Chronicle,
    life: LifeId,
    first: u64,
) -> Result<bool, JournalError> {
    match repository.store().size(&key(chronicle, life, first)?).await {
        Ok(_) => Ok(true),
        Err(why) if why.is_not_found() => Ok(false),
        Err(why) => Err(why.into()),
    }
}

/// What a chronicle has in a store.
///
/// # Errors
/// When the store does not answer.
pub async fn names(repository: &Repository, chronicle: &Chronicle) -> Result<Names, JournalError> {
    let prefix = layout::chronicle(chronicle)?;
    let mut names = Names::default();
    for listed in repository.store().list(&prefix, None, None).await? {
        names.oldest = Some(names.oldest.map_or(listed.modified, |oldest| oldest.min(listed.modified)));
        let parts: Vec<&str> =
            listed.key.below(&prefix).map(|rest| rest.split('/').collect()).unwrap_or_default();
        let parsed = match parts.as_slice() {
            [life, first] => life.parse::<LifeId>().ok().zip(first.parse::<Sequence>().ok()),
            _ => None,
        };
        let Some((life, first)) = parsed else {
            names.strangers.push(listed.key);
            continue;
        };
        names.lives.entry(life).or_default().push(first.get());
        let newest = names.newest.entry(life).or_insert(listed.modified);
        *newest = listed.modified.max(*newest);
    }
    Ok(names)
}

/// Says that a database belongs to the catalog of a life; saying it again changes nothing.
///
/// # Errors
/// When the store does not answer.
pub async fn belong(
    repository: &Repository,
    database: &DatabaseName,
    life: LifeId,
) -> Result<(), JournalError> {
    let said = Belongs { format: VERSION, store: repository.id(), database: database.clone(), life };
    let bytes = body::to_document("activity's name", &said)
        .map_err(|source| JournalError::Encode { what: "activity's name", source })?;
    let key = layout::activity_of(database)?.key(life)?;
    repository.store().create(&key, Bytes::from(bytes)).await?;
    Ok(())
}

/// The lives of activity that a database was said to belong to. What does not read counts for nothing.
///
/// # Errors
/// When the store does not answer.
pub async fn belongs(repository: &Repository, database: &DatabaseName) -> Result<Vec<LifeId>, JournalError> {
    let mut lives = Vec::new();
    for listed in repository.store().list(&layout::activity_of(database)?, None, None).await? {
        let Ok(life) = listed.key.name().parse::<LifeId>() else { continue };
        let bytes = repository.store().get(&listed.key).await?;
        match body::from_document::<Belongs>("activity's name", &bytes) {
            Ok(said) if said.life == life && said.store == repository.id() && said.database == *database => {
                lives.push(life);
            }
            _ => tracing::warn!(key = %listed.key, "it does not say which activity the database belongs to"),
        }
    }
    Ok(lives)
}
