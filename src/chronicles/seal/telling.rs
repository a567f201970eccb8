//! What a sealer says: in the catalog, how far its store is and what keeps it from more; once each, what a human should look at.
//!
//! What always holds: what a store confirmed and has no longer stays said until it has it again, and is not written over by less.

use std::time::Duration;

use chrono::Utc;
use farshore_catalog::chronicle::Seal;
use farshore_journal::format::{Chronicle, LifeId};
use tokio::time::Instant;

use super::Sealer;
use crate::chronicles::place::Run;
use crate::chronicles::{QUIET, ask, word};
use crate::message::{Code, OperatorMessage, Safe};

impl Sealer {
    /// Says in the catalog how far the store is, when that changed.
    pub(super) async fn tell(&mut self, chronicle: &Chronicle, trouble: Option<String>) {
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

    /// Says once of a life that what stands there from a number on is not this catalog's. Nothing is gone on from it.
    pub(super) fn say_forked(&mut self, chronicle: &Chronicle, life: LifeId, from: u64) {
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
            format!("`farshore {} list --store {}` shows what the store has", word(chronicle), self.store),
        );
        tracing::error!("{message}");
    }

    /// Says once what the store confirmed and has no longer. It is kept until the store has it again: what is sealed from here on does not cover it up.
    pub(super) fn say_gone(&mut self, chronicle: &Chronicle, gone: Option<(Seal, String)>) {
        let Some((seal, what)) = gone else {
            self.gone.remove(chronicle);
            return;
        };
        let message = ask::flawed(chronicle, self.store.as_str(), std::slice::from_ref(&what));
        if self.gone.insert(chronicle.clone(), (seal, what)).is_none() {
            tracing::error!("{message}");
        }
    }

    pub(super) fn say_flawed(&mut self, chronicle: &Chronicle, life: LifeId, flaws: &[String]) {
        if self.flawed.insert((chronicle.clone(), life)) {
            tracing::error!("{}", ask::flawed(chronicle, self.store.as_str(), flaws));
        }
    }
}

/// How far a store is that lacks what it confirmed once: it holds what it holds now, and where it began once stays. Until it is as far again, so does what it confirmed,
/// with nothing that counts as held.
pub(super) fn beside_gone(now: Seal, confirmed: &Seal) -> Seal {
    let once = confirmed.once.min(now.once);
    match now.number < confirmed.number {
        true => {
            let (number, digest) = (confirmed.number, confirmed.digest.clone());
            Seal { first: number + 1, once, number, digest, ..now }
        }
        false => Seal { once, ..now },
    }
}
