//! Puts what a store lacks of each chronicle there, page by page.
//!
//! What always holds: a page goes to the number behind the last one that is known to stand there, so two who seal at once never overlap: one is taken, and the other reads it and
//! goes on behind it. Each store has a place of its own, found by digests (`place.rs`): one that is new or behind gets all that the catalog has. What the store
//! has and this catalog did not write is never gone on from: a life begins beside it, and that is said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use farshore_catalog::Catalog;
use farshore_catalog::chronicle::{Kept, Seal, Standing};
use farshore_journal::chronicle::{self, Put};
use farshore_journal::format::page::{PAGE_ENTRIES, Place};
use farshore_journal::format::{Chronicle, LifeId, Page, Recipients, VerifyKeys};
use farshore_journal::registry::Repository;
use farshore_journal::{DatabaseName, JournalError, StoreId};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, StoreName};
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring::Purpose;

use super::QUIET;
use super::damage;
use super::found;
use super::opened::Opened;
use super::patience::Patience;
use super::place::{self, Run};
use super::settle::{self, Filled, Unsettled};

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
        if let Some(why) = &trouble
            && failing >= QUIET
            && self.warned.insert(chronicle.clone())
        {
            tracing::warn!(%chronicle, store = %self.store, error = why, "not sealed: it is tried again, and until then this is in the catalog alone");
        }
        let end = self.ends.get(chronicle).map(|end| end.run);
        if self.is_back(chronicle, end).await {
            self.gone.remove(chronicle);
        }
        let gone = self.gone.get(chronicle);
        let unsettled = self.unsettled.borrow().get(chronicle).map(|why| format!("not settled: {why}"));
        let trouble: Vec<String> =
            trouble.into_iter().chain(unsettled).chain(gone.map(|(_, what)| what.clone())).collect();
        let trouble = Some(trouble.join("; ")).filter(|trouble| !trouble.is_empty());
        let told = (end.map(|run| (run.begins, run.next - 1)), trouble);
        if self.said.get(chronicle) == Some(&told) {
            return;
        }
        let said = match end {
            // What was confirmed before this service looked stays as it is.
            None => self.catalog.seal_trouble(chronicle, self.store.as_str(), told.1.as_deref()).await,
            Some(run) => {
                let has = run.next > run.begins;
                let seal = Seal {
                    chronicle: chronicle.to_string(),
                    store: self.store.to_string(),
                    first: run.begins,
                    once: run.begins,
                    number: if has { run.next - 1 } else { 0 },
                    digest: run.before.filter(|_| has).map(|digest| digest.to_string()).unwrap_or_default(),
                    at: Utc::now(),
                    trouble: told.1.clone(),
                };
                let seal = match gone {
                    Some((confirmed, _)) => beside_gone(seal, confirmed),
                    None => seal,
                };
                self.catalog.seal_put(&seal).await
            }
        };
        if said.is_ok() {
            self.said.insert(chronicle.clone(), told);
        }
    }

    /// Whether the store leads again to what it had confirmed and had not, since the catalog had it still.
    async fn is_back(&self, chronicle: &Chronicle, end: Option<Run>) -> bool {
        let Some(((confirmed, _), run)) = self.gone.get(chronicle).zip(end) else { return false };
        if run.begins > confirmed.once || run.next <= confirmed.number {
            return false;
        }
        let here = self.catalog.chronicle_digest(chronicle, confirmed.number).await;
        here.is_ok_and(|here| here.is_some_and(|here| here.to_string() == confirmed.digest))
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
        if *chronicle == Chronicle::Activity
            && let Some(life) = end.run.life
        {
            self.belong(&repository, life).await?;
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
                Placed::Foreign => {
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

    /// Where the store's pages and the catalog's entries agree, and so where the next one goes; `None` while what the store lacks may still be taken back into
    /// the catalog.
    async fn look(
        &mut self,
        repository: &Repository,
        chronicle: &Chronicle,
        catalog: Option<LifeId>,
        filled: Option<u64>,
    ) -> anyhow::Result<Option<End>> {
        // Before the store: what was confirmed by then is in it.
        let confirmed = self.catalog.seal_of(chronicle, self.store.as_str()).await?;
        // What has the catalog's digests needs nobody's signature here.
        let found = found::read(repository, chronicle, &VerifyKeys::default()).await?;
        // Behind the store: what another service seals meanwhile is in the catalog by then, and no other's.
        let own = self.catalog.chronicle_own(chronicle).await?;
        let unlock = super::unlock(&self.config, &self.store);
        let gone = confirmed
            .and_then(|seal| damage::gone(&found, chronicle, &unlock, &seal).map(|what| (seal, what)));
        self.say_gone(chronicle, gone);
        let agreed = place::agreed(&found, chronicle, &unlock, &own);
        if filled.is_none() && own.oldest() > 1 && agreed.as_ref().is_none_or(|one| one.begins > 1) {
            self.waiting.insert(chronicle.clone(), catalog);
            return Ok(None);
        }
        self.waiting.remove(chronicle);
        let forked = match &agreed {
            Some(one) => (!one.is_end).then_some((one.life, one.through + 1)),
            None => {
                let newest =
                    settle::newest_life(&self.config, chronicle, &self.store, repository, &found).await?;
                newest.and_then(|life| {
                    let met = place::agreement(&found.line(chronicle, life, &unlock)?.marks, &own);
                    // What is older than all that the catalog has cannot be compared: it may be what it could not open.
                    let from = met.differs.or(met.newer.map(|(first, _)| first))?;
                    Some((life, from))
                })
            }
        };
        if let Some((life, from)) = forked
            && found.strands.get(&life).is_none_or(|strand| strand.flaws.is_empty())
        {
            self.say_forked(chronicle, life, from);
        }
        for (life, strand) in found.strands.iter().filter(|(_, strand)| !strand.flaws.is_empty()) {
            let flaws: Vec<String> = strand.flaws.iter().map(ToString::to_string).collect();
            self.say_flawed(chronicle, *life, &flaws);
        }
        let names: BTreeSet<LifeId> = found.strands.keys().copied().collect();
        let foreign = self.foreign.iter().filter(|(of, _)| of == chronicle).map(|(_, life)| *life).collect();
        let run = place::run(agreed.as_ref(), &own, &names, &foreign);
        let lower = (run.begins > own.oldest().max(1)).then(|| {
            let own = own.through(run.begins - 1);
            let agreed = place::agreed(&found, chronicle, &unlock, &own);
            (place::run(agreed.as_ref(), &own, &names, &foreign), run.begins - 1)
        });
        // Where nothing gives the lower part a name there is none; nor where all of it is there, though nothing links it.
        let lower = lower.filter(|(lower, through)| lower.life.is_some() && lower.next <= *through);
        let (store, seen) = (repository.id(), own.last());
        Ok(Some(End { store, catalog, filled: filled.unwrap_or_default(), seen, run, lower }))
    }

    /// Whether a page is this catalog's: held against it entry by entry where it opens, and by where it begins and ends where it does not.
    async fn is_own(&self, chronicle: &Chronicle, page: &Page) -> anyhow::Result<bool> {
        let first = page.place().first;
        let many = page.last().saturating_add(1).saturating_sub(first);
        let Ok(limit) = u32::try_from(many) else { return Ok(false) };
        let own = self.catalog.chronicle_entries(chronicle, first, limit).await?;
        Ok(place::is_same(
            &own,
            page,
            found::opened(chronicle, page, &super::unlock(&self.config, &self.store)),
        ))
    }

    /// Says once of a life that what stands there from a number on is not this catalog's. Nothing is gone on from it.
    fn say_forked(&mut self, chronicle: &Chronicle, life: LifeId, from: u64) {
        if !self.foreign.insert((chronicle.clone(), life)) {
            return;
        }
        let message = OperatorMessage::new(
            Code::ChronicleForked,
            format!(
                "the store {} has entries of {chronicle} from {from} on that this catalog did not write: it was put back from an older copy, or two are used in its place",
                self.store
            ),
            Safe::Known("both stay in the store, and neither replaces the other; from here on this catalog's go beside those".to_owned()),
            format!("`farshore {} list --store {}` shows what the store has", super::word(chronicle), self.store),
        );
        tracing::error!("{message}");
    }

    /// Says once what the store confirmed and has no longer. It is kept until the store has it again: what is sealed from here on does not cover it up.
    fn say_gone(&mut self, chronicle: &Chronicle, gone: Option<(Seal, String)>) {
        let Some((seal, what)) = gone else {
            self.gone.remove(chronicle);
            return;
        };
        let message = settle::flawed(chronicle, self.store.as_str(), std::slice::from_ref(&what));
        if self.gone.insert(chronicle.clone(), (seal, what)).is_none() {
            tracing::error!("{message}");
        }
    }

    fn say_flawed(&mut self, chronicle: &Chronicle, life: LifeId, flaws: &[String]) {
        if self.flawed.insert((chronicle.clone(), life)) {
            tracing::error!("{}", settle::flawed(chronicle, self.store.as_str(), flaws));
        }
    }
}

/// How far a store is that lacks what it confirmed once: it holds what it holds now, and where it began once stays. Until it is as far again, so does what it confirmed,
/// with nothing that counts as held.
fn beside_gone(now: Seal, confirmed: &Seal) -> Seal {
    let once = confirmed.once.min(now.once);
    match now.number < confirmed.number {
        true => {
            let (number, digest) = (confirmed.number, confirmed.digest.clone());
            Seal { first: number + 1, once, number, digest, ..now }
        }
        false => Seal { once, ..now },
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
}

#[cfg(test)]
mod tests;
