//! Puts what a store lacks of each chronicle there, page by page.
//!
//! What always holds: a page goes to the number behind the last one that is known to stand there, so two who seal at once never overlap: one is taken, and the other reads it and
//! goes on behind it. Each store has a place of its own, found by digests (`place.rs`): one that is new or behind gets all that the catalog has. What the store
//! has and this catalog did not write is never gone on from: a life begins beside it, and that is said.

mod look;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use farshore_catalog::Catalog;
use farshore_catalog::chronicle::{Kept, Seal, Standing};
use farshore_journal::chronicle::{self, Put};
use farshore_journal::format::page::{PAGE_ENTRIES, Place};
use farshore_journal::format::{Chronicle, LifeId, Page, Recipients};
use farshore_journal::registry::Repository;
use farshore_journal::{DatabaseName, JournalError, StoreId};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, StoreName};
use crate::wiring::Purpose;

use super::opened::Opened;
use super::opening::{self, Keys};
use super::patience::Patience;
use super::place::{self, Run};
use super::settle::{Filled, Unsettled};

/// Pages of a chronicle that are put in one turn: the others' turn comes too.
const PAGES: usize = 16;
/// The most bytes of what a page's entries say; one entry of more goes alone.
const BYTES: usize = 1 << 20;
/// How long one turn may take at the end.
const LAST: Duration = Duration::from_secs(5);

/// Where pages go next in the store.
#[derive(Debug, Clone, Copy)]
struct End {
    store: StoreId,
    /// Whose first entry the catalog's was when it was looked: another catalog is looked at anew.
    catalog: Option<LifeId>,
    /// How often the catalog had been filled by then.
    filled: u64,
    /// The number of its newest entry then: where none gave a life its name, only a newer one can.
    seen: u64,
    /// Behind all that the store has.
    run: Run,
    /// Before what the store has: where, up to which number, and from where on it has all then.
    lower: Option<(Run, u64)>,
}

/// How it stood when it was told last.
type Told = (Option<(u64, u64)>, Option<String>);

/// One store's sealer.
pub struct Sealer {
    config: Arc<Config>,
    catalog: Catalog,
    store: StoreName,
    filled: watch::Receiver<Filled>,
    unsettled: watch::Receiver<Unsettled>,
    ends: BTreeMap<Chronicle, End>,
    said: BTreeMap<Chronicle, Told>,
    opened: Option<Opened>,
    patience: BTreeMap<Chronicle, Patience>,
    warned: BTreeSet<Chronicle>,
    belongs: BTreeSet<(StoreId, DatabaseName, LifeId)>,
    /// Lives in which a page stands that is not this catalog's: said once, and not gone on in.
    foreign: BTreeSet<(Chronicle, LifeId)>,
    flawed: BTreeSet<(Chronicle, LifeId)>,
    /// What the store confirmed once and did not have when it was looked at, as the catalog says, and what is to be said of it.
    gone: BTreeMap<Chronicle, (Seal, String)>,
    /// What waits for the catalog to be filled, and of which catalog: until then looking anew tells nothing new.
    waiting: BTreeMap<Chronicle, Option<LifeId>>,
}

impl Sealer {
    /// Of a store.
    pub fn new(
        config: Arc<Config>,
        catalog: Catalog,
        store: StoreName,
        (filled, unsettled): (watch::Receiver<Filled>, watch::Receiver<Unsettled>),
    ) -> Self {
        Self {
            config,
            catalog,
            store,
            filled,
            unsettled,
            ends: BTreeMap::new(),
            said: BTreeMap::new(),
            opened: None,
            patience: BTreeMap::new(),
            warned: BTreeSet::new(),
            belongs: BTreeSet::new(),
            foreign: BTreeSet::new(),
            flawed: BTreeSet::new(),
            gone: BTreeMap::new(),
            waiting: BTreeMap::new(),
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
            // What is known of the store's end stays where it fails: a page that may stand is found at its number.
            let trouble = self.seal(&chronicle).await.err().map(|why| format!("{why:#}"));
            self.tell(&chronicle, trouble).await;
        }
    }

    async fn seal(&mut self, chronicle: &Chronicle) -> anyhow::Result<()> {
        let standing = self.catalog.chronicle_standing(chronicle).await?;
        if !standing.settled || standing.last == 0 {
            return Ok(());
        }
        let filled = self.filled.borrow().get(chronicle).copied();
        if filled.is_none() && self.waiting.get(chronicle) == Some(&standing.life) {
            return Ok(());
        }
        let known = self.known(chronicle, &standing, filled).await?;
        let is_done = |end: &End| standing.last < end.run.next || end.run.life.is_none();
        if known.is_some_and(|end| is_done(&end) && end.lower.is_none()) {
            return Ok(());
        }
        let opened = match self.opened.take() {
            Some(opened) => opened,
            None => Opened::new(&self.config, &self.store, Purpose::Append)?,
        };
        // Put back before it is awaited: whoever is cut off here has not forgotten what is under way.
        let repository = self.opened.insert(opened).repository().await?;
        if !self.is_shipped(&repository, chronicle).await? {
            self.ends.remove(chronicle);
            anyhow::bail!("nothing was shipped there yet, or the store lost it");
        }
        let mut end = match known.filter(|end| end.store == repository.id()) {
            Some(end) => end,
            None => match self.look(&repository, chronicle, standing.life, filled).await? {
                Some(end) => end,
                None => return Ok(()),
            },
        };
        self.ends.insert(chronicle.clone(), end);
        if *chronicle == Chronicle::Activity {
            // Each life that gets a page: one that no database belongs to is nobody's for whoever lost the catalog.
            let lower = end.lower.and_then(|(run, _)| run.life);
            for life in end.run.life.into_iter().chain(lower) {
                self.belong(&repository, life).await?;
            }
        }
        let (mut lower, mut through) = (end.lower.map(|(run, _)| run), end.lower.map(|(_, through)| through));
        for _ in 0..PAGES {
            let (run, upto) = match (&mut lower, through) {
                (Some(lower), Some(through)) if standing.last < end.run.next => (lower, through),
                _ => (&mut end.run, u64::MAX),
            };
            match self.put(&repository, chronicle, run, upto).await? {
                Placed::Page => {}
                Placed::Nothing if end.lower.is_some() && standing.last < end.run.next => {
                    // It joins what was there, or the catalog has it no longer; whether there is more before it, the next look tells.
                    if let Some((joined, _)) =
                        lower.zip(through).filter(|(lower, through)| lower.next > *through)
                    {
                        end.run.begins = joined.begins;
                    }
                    (lower, through) = (None, None);
                    end.lower = None;
                    end.filled = u64::MAX;
                }
                Placed::Nothing => break,
                // The store is looked at anew in the next turn.
                Placed::Foreign | Placed::Behind => {
                    self.ends.remove(chronicle);
                    return Ok(());
                }
            }
            end.lower = lower.zip(through);
            self.ends.insert(chronicle.clone(), end);
        }
        self.ends.insert(chronicle.clone(), end);
        Ok(())
    }

    /// What was found when the store was looked at, where nothing says that this is another catalog now. One that was put back from an older copy under this service
    /// has the same first entry: whether it still has what was sealed last decides, be it shorter now or longer.
    async fn known(
        &self,
        chronicle: &Chronicle,
        standing: &Standing,
        filled: Option<u64>,
    ) -> anyhow::Result<Option<End>> {
        let known = self.ends.get(chronicle).copied().filter(|end| {
            end.catalog == standing.life
                && (end.run.begins == 1 || filled.is_none_or(|filled| filled == end.filled))
                && (end.run.life.is_some() || standing.last <= end.seen)
        });
        let Some(end) = known else { return Ok(None) };
        let here = self.catalog.chronicle_digest(chronicle, end.run.next - 1).await?;
        Ok((here == end.run.before).then_some(end))
    }

    /// Puts the next page of a run, up to a number.
    async fn put(
        &mut self,
        repository: &Repository,
        chronicle: &Chronicle,
        run: &mut Run,
        through: u64,
    ) -> anyhow::Result<Placed> {
        let Some(life) = run.life else { return Ok(Placed::Nothing) };
        let limit = u64::try_from(PAGE_ENTRIES)?
            .min((through + u64::from(through < u64::MAX)).saturating_sub(run.next));
        if limit == 0 {
            return Ok(Placed::Nothing);
        }
        let entries = self.catalog.chronicle_entries(chronicle, run.next, u32::try_from(limit)?).await?;
        let Some(page) = self.page(repository.id(), chronicle, (life, run), &entries)? else {
            return Ok(Placed::Nothing);
        };
        // The store may have been put back from an older copy under this service: a page that leads to nothing is a hole which its own number would hide.
        if let Some((life, first)) = run.page
            && !chronicle::stands(repository, chronicle, life, first).await?
        {
            tracing::warn!(%chronicle, store = %self.store, number = run.next - 1, "the page that the next one goes on from is not there any more: the store is looked at anew");
            return Ok(Placed::Behind);
        }
        let there = match chronicle::put(repository, &page).await {
            Ok(Put::Done) => page,
            Ok(Put::There(other)) => *other,
            // Something stands there that is no page: nothing is gone on from it.
            Err(why @ (JournalError::Object { .. } | JournalError::Misplaced { .. })) => {
                self.say_flawed(chronicle, life, &[why.to_string()]);
                self.foreign.insert((chronicle.clone(), life));
                return Ok(Placed::Foreign);
            }
            Err(why) => return Err(why.into()),
        };
        if !self.is_own(chronicle, &there).await? {
            self.say_forked(chronicle, life, there.place().first);
            return Ok(Placed::Foreign);
        }
        run.page = Some((life, there.place().first));
        (run.next, run.before) = (there.last() + 1, Some(there.after()));
        Ok(Placed::Page)
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
    fn page(
        &self,
        store: StoreId,
        chronicle: &Chronicle,
        (life, run): (LifeId, &Run),
        entries: &[Kept],
    ) -> anyhow::Result<Option<Page>> {
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
            first.number == run.next && first.former == run.before,
            "entry {} of the catalog does not follow what the store has",
            first.number
        );
        let settings = &self.config.stores[&self.store];
        let recipients = match chronicle {
            Chronicle::Activity => Recipients::parse(settings.recipients.iter().map(String::as_str))?,
            // Times and words of a closed set: no more than the times of the journal's objects tell.
            Chronicle::Exposure(_) => Recipients::default(),
        };
        let place = Place { store, chronicle: chronicle.clone(), life, first: run.next, before: run.before };
        let key = super::signing_key(&self.config, chronicle, &self.store)?;
        Ok(Some(Page::make(place, taken, &recipients, key.as_ref())?))
    }

    /// Whether a page is this catalog's: held against it entry by entry where it opens, and by where it begins and ends where it does not.
    async fn is_own(&self, chronicle: &Chronicle, page: &Page) -> anyhow::Result<bool> {
        let first = page.place().first;
        let many = page.last().saturating_add(1).saturating_sub(first);
        let Ok(limit) = u32::try_from(many) else { return Ok(false) };
        let own = self.catalog.chronicle_entries(chronicle, first, limit).await?;
        let keys = Keys::of(&self.config, &self.store);
        Ok(place::is_same(&own, page, opening::opened(chronicle, page, &keys)))
    }
}

/// What putting a page came to.
enum Placed {
    /// It stands there, or one with the same entries does.
    Page,
    /// There was none to put.
    Nothing,
    /// What stands there is not this catalog's.
    Foreign,
    /// What it goes on from is not there any more.
    Behind,
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
