//! Looking at a store: what of it is this catalog's, and so where the next page goes.
//!
//! What always holds: the store is read before the catalog, so that what another service of it seals meanwhile is no stranger's; what the store confirmed once and does
//! not have is said before anything is put there.

use std::collections::BTreeSet;

use farshore_catalog::chronicle::Own;
use farshore_journal::format::{Chronicle, LifeId};
use farshore_journal::registry::Repository;

use super::{End, Sealer};
use crate::chronicles::opening::Keys;
use crate::chronicles::place::{self, Agreed, Run};
use crate::chronicles::{ask, damage, found, pinned};

impl Sealer {
    /// Where the store's pages and the catalog's entries agree, and so where the next one goes; `None` while what the store lacks may still be taken back into
    /// the catalog.
    pub(super) async fn look(
        &mut self,
        repository: &Repository,
        chronicle: &Chronicle,
        catalog: Option<LifeId>,
        filled: Option<u64>,
    ) -> anyhow::Result<Option<End>> {
        // Before the store: what was confirmed by then is in it.
        let confirmed = self.catalog.seal_of(chronicle, self.store.as_str()).await?;
        let pinned = pinned(&self.config, chronicle, &self.store);
        let keys = Keys::of(&self.config, &self.store);
        // What has the catalog's digests needs nobody's signature here, where it was read; of what was not, one goes before none.
        let found = found::read(repository, chronicle, &pinned, &keys).await?;
        let vouched = found.vouched(&pinned);
        // Behind the store: what another service seals meanwhile is in the catalog by then, and no other's.
        let own = self.catalog.chronicle_own(chronicle).await?;
        let gone = confirmed.and_then(|seal| damage::gone(&found, &seal).map(|what| (seal, what)));
        self.say_gone(chronicle, gone);
        let agreed = place::agreed(&found, &own, &vouched);
        if filled.is_none() && own.oldest() > 1 && agreed.as_ref().is_none_or(|one| one.begins > 1) {
            self.waiting.insert(chronicle.clone(), catalog);
            return Ok(None);
        }
        self.waiting.remove(chronicle);
        let forked = match &agreed {
            Some(one) => (!one.is_end).then_some((one.life, one.through + 1)),
            None => {
                let newest =
                    ask::newest_life(&self.config, chronicle, &self.store, repository, &found).await?;
                newest.and_then(|life| {
                    let met = place::agreement(&found.line(life)?.marks, &own);
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
        let behind = |agreed: Option<&Agreed>, own: &Own| {
            let run = place::run(agreed, own, &names, &foreign);
            let line = agreed.and_then(|one| found.line(one.life));
            Run { page: line.and_then(|line| found.page_of(&line, run.next - 1)), ..run }
        };
        let run = behind(agreed.as_ref(), &own);
        let lower = (run.begins > own.oldest().max(1)).then(|| {
            let own = own.through(run.begins - 1);
            let agreed = place::agreed(&found, &own, &vouched);
            (behind(agreed.as_ref(), &own), run.begins - 1)
        });
        // Where nothing gives the lower part a name there is none; nor where all of it is there, though nothing links it.
        let lower = lower.filter(|(lower, through)| lower.life.is_some() && lower.next <= *through);
        let (store, seen) = (repository.id(), own.last());
        Ok(Some(End { store, catalog, filled: filled.unwrap_or_default(), seen, run, lower }))
    }
}
