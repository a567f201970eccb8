//! What opens a store's pages, and what it means that none does.
//!
//! What always holds: a page counts as not opened only where somebody may open it. One that was never sealed, or that is sealed where nothing is, does not hold:
//! it may state every digest right and hold nothing.

use farshore_catalog::chronicle::Kept;
use farshore_journal::chronicle::Flaw;
use farshore_journal::format::{Chronicle, EntryDigest, FormatError, Page, Unlock};

use crate::config::{Config, StoreName};
use crate::wiring;

/// The private keys at hand for a store, and whether anything is sealed there.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    unlock: Unlock,
    seals: bool,
}

impl Keys {
    /// Of a store of the configuration, as far as its keys read.
    pub fn of(config: &Config, store: &StoreName) -> Self {
        let Some(settings) = config.stores.get(store) else { return Self::default() };
        let unlock = wiring::unlock(settings).unwrap_or_default();
        Self { unlock, seals: !settings.recipients.is_empty() }
    }
}

/// The entries of a page; `None` where it is sealed for somebody whose key is not at hand.
///
/// # Errors
/// What speaks against it.
pub fn opened(chronicle: &Chronicle, page: &Page, keys: &Keys) -> Result<Option<Vec<Kept>>, Flaw> {
    let place = page.place();
    let unread = |at, why: String| Flaw::Unread { at, why };
    let entries = match page.entries(&keys.unlock) {
        Ok(entries) => entries,
        Err(FormatError::KeyMissing | FormatError::Key { .. }) if keys.seals => return Ok(None),
        Err(FormatError::KeyMissing | FormatError::Key { .. }) => {
            let why = "it is sealed, the store has no recipients, and no private key at hand opens it";
            return Err(unread(place.first, why.to_owned()));
        }
        Err(why) => return Err(unread(place.first, why.to_string())),
    };
    let mut former: Option<EntryDigest> = place.before;
    let mut kept = Vec::with_capacity(entries.len());
    for (number, entry) in (place.first..).zip(&entries) {
        let Some(one) = Kept::read(chronicle, number, former, entry) else {
            return Err(unread(number, "its digest is not that of what it says".to_owned()));
        };
        former = Some(one.digest);
        kept.push(one);
    }
    Ok(Some(kept))
}
