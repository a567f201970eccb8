//! Puts what a store lacks of each chronicle there, page by page.
//!
//! What always holds: a page goes to the number behind the last one that is known to stand there, so two who seal at once never overlap: one is taken, and the other reads it and
//! goes on behind it. What the store has and this catalog did not write is never gone on from: a life begins beside it, and that is said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use farshore_catalog::Catalog;
use farshore_catalog::chronicle::{Kept, Seal, Standing};
use farshore_journal::chronicle::{self, Put};
use farshore_journal::format::page::{PAGE_ENTRIES, Place};
use farshore_journal::format::{Chronicle, EntryDigest, LifeId, Page, Recipients};
use farshore_journal::registry::Repository;
use farshore_journal::{DatabaseName, JournalError, StoreId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, StoreName};
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring::Purpose;

use super::opened::Opened;
use super::patience::Patience;
use super::settle;

/// Pages of a chronicle that are put in one turn: the others' turn comes too.
const PAGES: usize = 16;
/// The most bytes of what a page's entries say; one entry of more goes alone.
const BYTES: usize = 1 << 20;
/// For how long failing is nobody's business: a store that is founded this moment, or away for a minute.
const QUIET: Duration = Duration::from_secs(60);
/// How long one turn may take at the end.
const LAST: Duration = Duration::from_secs(5);

/// Where a life ends in the store.
#[derive(Debug, Clone, Copy)]
struct End {
    store: StoreId,
    life: LifeId,
    next: u64,
    before: Option<EntryDigest>,
}

/// One store's sealer.
pub struct Sealer {
    config: Arc<Config>,
    catalog: Catalog,
    store: StoreName,
    ends: BTreeMap<Chronicle, End>,
    said: BTreeMap<Chronicle, (u64, Option<String>)>,
    opened: Option<Opened>,
    patience: BTreeMap<Chronicle, Patience>,
    warned: BTreeSet<Chronicle>,
    belongs: BTreeSet<(StoreId, DatabaseName, LifeId)>,
}

impl Sealer {
    /// Of a store.
    pub fn new(config: Arc<Config>, catalog: Catalog, store: StoreName) -> Self {
        Self {
            config,
            catalog,
            store,
            ends: BTreeMap::new(),
            said: BTreeMap::new(),
            opened: None,
            patience: BTreeMap::new(),
            warned: BTreeSet::new(),
            belongs: BTreeSet::new(),
        }
    }

    /// Seals until cancelled, and once more then.
    pub async fn run(mut self, every: Duration, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                () = self.turn(false) => {}
            }
            tokio::select! {
                () = cancel.cancelled() => break,
                () = tokio::time::sleep(every) => {}
            }
        }
        // What is cut off here is sealed by the next start.
        let _ = tokio::time::timeout(LAST, self.turn(true)).await;
    }

    /// Seals what may be tried now; at the end all.
    async fn turn(&mut self, is_last: bool) {
        for chronicle in super::chronicles_in(&self.config, &self.store) {
            let patience = self.patience.get(&chronicle).copied().unwrap_or_default();
            if !is_last && !patience.is_due(Instant::now()) {
                continue;
            }
            let sealed = self.seal(&chronicle).await;
            let trouble = match sealed {
                Ok(()) => None,
                Err(why) => {
                    // What is known of the store's end may be old.
                    self.ends.remove(&chronicle);
                    Some(format!("{why:#}"))
                }
            };
            self.tell(&chronicle, trouble).await;
        }
    }

    /// Says in the catalog how far the store is, when that changed.
    async fn tell(&mut self, chronicle: &Chronicle, trouble: Option<String>) {
        let patience = self.patience.entry(chronicle.clone()).or_default();
        let failing = match trouble {
            Some(_) => {
                patience.failed(Instant::now());
                patience.failing_for(Instant::now())
            }
            None => {
                patience.well();
                self.warned.remove(chronicle);
                Duration::ZERO
            }
        };
        let known = self.said.get(chronicle).cloned();
        let end = self.ends.get(chronicle).copied();
        let number = end.map_or_else(|| known.as_ref().map_or(0, |(number, _)| *number), |end| end.next - 1);
        if let Some(why) = &trouble
            && failing >= QUIET
            && self.warned.insert(chronicle.clone())
        {
            tracing::warn!(%chronicle, store = %self.store, error = why, "not sealed: it is tried again, and until then this is in the catalog alone");
        }
        if known.as_ref() == Some(&(number, trouble.clone())) {
            return;
        }
        let seal = Seal {
            chronicle: chronicle.to_string(),
            store: self.store.to_string(),
            number,
            digest: end.and_then(|end| end.before).map(|digest| digest.to_string()).unwrap_or_default(),
            at: Utc::now(),
            trouble: trouble.clone(),
        };
        if self.catalog.seal_put(&seal).await.is_ok() {
            self.said.insert(chronicle.clone(), (number, trouble));
        }
    }

    async fn seal(&mut self, chronicle: &Chronicle) -> anyhow::Result<()> {
        let standing = self.catalog.chronicle_standing(chronicle).await?;
        let (true, Some(life)) = (standing.settled, standing.life) else { return Ok(()) };
        let known = self.ends.get(chronicle).copied().filter(|end| end.life == life);
        if known.is_some_and(|end| standing.last < end.next) {
            return Ok(());
        }
        let opened = match self.opened.take() {
            Some(opened) => opened,
            None => Opened::new(&self.config, &self.store, Purpose::Append)?,
        };
        // Put back before it is awaited: whoever is cut off here has not forgotten what is under way.
        let repository = self.opened.insert(opened).repository().await?;
        anyhow::ensure!(
            self.is_shipped(&repository, chronicle).await?,
            "nothing was shipped there yet, or the store lost it"
        );
        let mut end = match known.filter(|end| end.store == repository.id()) {
            Some(end) => end,
            None => match self.look(&repository, chronicle, &standing, life).await? {
                Some(end) => end,
                None => return Ok(()),
            },
        };
        if *chronicle == Chronicle::Activity {
            self.belong(&repository, life).await?;
        }
        for _ in 0..PAGES {
            self.ends.insert(chronicle.clone(), end);
            let limit = u32::try_from(PAGE_ENTRIES)?;
            let entries = self.catalog.chronicle_entries(chronicle, end.next, limit).await?;
            let Some(page) = self.page(chronicle, end, &entries)? else { return Ok(()) };
            let there = match chronicle::put(&repository, &page).await? {
                Put::Done => page,
                Put::There(other) => *other,
            };
            if !self.is_own(chronicle, &there).await? {
                return self.branch(chronicle, there.place().first, end.next.checked_sub(1)).await;
            }
            end = End { next: there.last() + 1, before: Some(there.after()), ..end };
        }
        self.ends.insert(chronicle.clone(), end);
        Ok(())
    }

    /// Says which databases the activity is of: whoever has one of them finds it by that.
    async fn belong(&mut self, repository: &Repository, life: LifeId) -> anyhow::Result<()> {
        let config = Arc::clone(&self.config);
        for name in super::databases_in(&config, &self.store) {
            let one = (repository.id(), name.clone(), life);
            if !self.belongs.contains(&one)
                && self.is_shipped(repository, &Chronicle::Exposure(name.clone())).await?
            {
                chronicle::belong(repository, name, life).await?;
                self.belongs.insert(one);
            }
        }
        Ok(())
    }

    /// Whether the store has what is sealed beside: nothing is put into one that is away, or was emptied.
    async fn is_shipped(&self, repository: &Repository, chronicle: &Chronicle) -> anyhow::Result<bool> {
        for name in super::databases_in(&self.config, &self.store) {
            let asked = chronicle.database().is_none_or(|one| one == name);
            let records = farshore_journal::layout::incarnations(name)?;
            if asked && !repository.store().list(&records, None, Some(1)).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The next page; `None` where nothing is left to seal.
    fn page(&self, chronicle: &Chronicle, end: End, entries: &[Kept]) -> anyhow::Result<Option<Page>> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for kept in entries {
            let entry = kept.entry()?;
            bytes += entry.said.to_string().len();
            if !taken.is_empty() && bytes > BYTES {
                break;
            }
            taken.push(entry);
        }
        let Some(first) = entries.first() else { return Ok(None) };
        anyhow::ensure!(
            first.former == end.before,
            "entry {} does not follow what the store has",
            first.number
        );
        let settings = &self.config.stores[&self.store];
        let recipients = match chronicle {
            Chronicle::Activity => Recipients::parse(settings.recipients.iter().map(String::as_str))?,
            // Times and words of a closed set: no more than the times of the journal's objects tell.
            Chronicle::Exposure(_) => Recipients::default(),
        };
        let place = Place {
            store: end.store,
            chronicle: chronicle.clone(),
            life: end.life,
            first: end.next,
            before: end.before,
        };
        let key = super::signing_key(&self.config, chronicle, &self.store)?;
        Ok(Some(Page::make(place, taken, &recipients, key.as_ref())?))
    }

    /// Where the store's pages of this life end; `None` when they are not this catalog's, and another life was begun.
    async fn look(
        &self,
        repository: &Repository,
        chronicle: &Chronicle,
        standing: &Standing,
        life: LifeId,
    ) -> anyhow::Result<Option<End>> {
        let mut firsts =
            chronicle::names(repository, chronicle).await?.lives.remove(&life).unwrap_or_default();
        let Some(newest) = firsts.pop() else {
            let begins = self.catalog.chronicle_entries(chronicle, standing.first, 1).await?.pop();
            let before = begins.and_then(|entry| entry.former);
            return Ok(Some(End { store: repository.id(), life, next: standing.first, before }));
        };
        // What does not read is not this catalog's, and stops nothing: a life is begun beside it.
        let (mut own, mut foreign, mut unread) = (None, None, None);
        for first in std::iter::once(newest).chain(firsts.into_iter().rev()) {
            match chronicle::read(repository, chronicle, life, first).await {
                Ok(page) if self.is_own(chronicle, &page).await? => {
                    own = Some(page);
                    break;
                }
                Ok(_) => {}
                Err(JournalError::Store(why)) => return Err(why.into()),
                Err(why) => unread = Some(why),
            }
            foreign = Some(first);
        }
        let end = |page: &Page| End {
            store: repository.id(),
            life,
            next: page.last() + 1,
            before: Some(page.after()),
        };
        let Some(foreign) = foreign else { return Ok(own.as_ref().map(end)) };
        if let Some(why) = unread {
            let said = settle::flawed(chronicle, self.store.as_str(), &[why.to_string()]);
            tracing::error!("{said}");
        }
        self.branch(chronicle, foreign, own.map(|page| page.last())).await?;
        Ok(None)
    }

    /// Whether a page ends with an entry of this catalog, which stands for all before it.
    async fn is_own(&self, chronicle: &Chronicle, page: &Page) -> anyhow::Result<bool> {
        let own = self.catalog.chronicle_entries(chronicle, page.last(), 1).await?.pop();
        Ok(own.is_some_and(|own| own.number == page.last() && own.digest == page.after()))
    }

    /// Begins another life beside what the store has from a number on; `own` is the last entry there that is this catalog's.
    async fn branch(&self, chronicle: &Chronicle, foreign: u64, own: Option<u64>) -> anyhow::Result<()> {
        let standing = self.catalog.chronicle_standing(chronicle).await?;
        let first = begins_at(own, standing.first, standing.last);
        let message = OperatorMessage::new(
            Code::ChronicleForked,
            format!(
                "the store {} has entries of {chronicle} from {foreign} on that this catalog did not write: it was put back from an older copy, or two are used in its place",
                self.store
            ),
            Safe::Known("both stay in the store, and neither replaces the other; from here on this catalog's go beside those".to_owned()),
            format!("`farshore {} list --store {}` shows what the store has", super::word(chronicle), self.store),
        );
        tracing::error!("{message}");
        Ok(self.catalog.chronicle_branch(chronicle, first).await?)
    }
}

/// Where a life begins beside pages that are not this catalog's: behind the last entry of the store that is, whatever number the others claim. A life's name is
/// its first entry's, so that one that has a name already is left: of it the first entry alone is taken for said there.
fn begins_at(own: Option<u64>, first: u64, last: u64) -> u64 {
    own.map_or(0, |own| own + 1).max(first + 1).min(last.max(first) + 1)
}

#[cfg(test)]
mod tests {
    use super::begins_at;

    #[test]
    fn a_life_beside_foreign_pages_begins_behind_the_last_own_entry_has_a_name_of_its_own_and_leaves_nothing_unsealed()
     {
        // A stray page far ahead: what follows the own pages is sealed, and no number is waited for that never comes.
        assert_eq!(begins_at(Some(40), 1, 57), 41);
        // All own entries are there already: the next one begins it.
        assert_eq!(begins_at(Some(57), 1, 57), 58);
        // A copy that was put back from within the life's first page: its own entries from there on are sealed.
        assert_eq!(begins_at(None, 8, 20), 9);
        assert_eq!(begins_at(Some(7), 8, 20), 9);
        assert_eq!(begins_at(None, 8, 8), 9);
        for own in (0..30).map(|own| (own > 0).then_some(own)) {
            for (first, last) in [(1, 0), (1, 1), (1, 29), (8, 20), (8, 8)] {
                let begins = begins_at(own, first, last);
                assert!(first < begins && begins <= last.max(first) + 1, "{own:?} {first} {last}: {begins}");
            }
        }
    }
}
