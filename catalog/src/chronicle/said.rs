//! What an entry of a chronicle says, between the catalog's own types and a page's JSON, and whether its digest is that of what it says: pure.

use farshore_journal::DatabaseName;
use farshore_journal::format::page::Entry;
use farshore_journal::format::{Chronicle, EntryDigest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Time;
use crate::activity::{Activity, activity_digest};
use crate::ledger::{Event, Numbered};

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Who did what.
    Activity(Activity),
    /// What became of a promise.
    Event(Event),
}

/// An entry with its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its number, from 1.
    pub number: u64,
    /// The digest of the entry before; none of the first.
    pub former: Option<EntryDigest>,
    /// Its own.
    pub digest: EntryDigest,
    /// What it says.
    pub said: Said,
}

/// Activity as a page holds it.
#[derive(Debug, Serialize, Deserialize)]
struct ActivityText {
    #[serde(with = "chrono::serde::ts_microseconds")]
    at: Time,
    who: String,
    what: String,
    database: Option<DatabaseName>,
    detail: String,
}

impl Kept {
    /// Reads an entry of a page, whose place is given; `None` when it is none of this chronicle, or its digest is not that of what it says.
    pub fn read(
        chronicle: &Chronicle,
        number: u64,
        former: Option<EntryDigest>,
        entry: &Entry,
    ) -> Option<Self> {
        let said = match chronicle {
            Chronicle::Activity => {
                let ActivityText { at, who, what, database, detail } =
                    serde_json::from_value(entry.said.clone()).ok()?;
                Said::Activity(Activity { at, who, what, database, detail })
            }
            Chronicle::Exposure(_) => Said::Event(serde_json::from_value(entry.said.clone()).ok()?),
        };
        let kept = Self { number, former, digest: entry.digest, said };
        kept.holds(chronicle).then_some(kept)
    }

    /// As a page holds it.
    ///
    /// # Errors
    /// When it is no JSON, which no entry gives cause for.
    pub fn entry(&self) -> serde_json::Result<Entry> {
        let said: Value = match &self.said {
            Said::Activity(activity) => serde_json::to_value(ActivityText {
                at: activity.at,
                who: activity.who.clone(),
                what: activity.what.clone(),
                database: activity.database.clone(),
                detail: activity.detail.clone(),
            })?,
            Said::Event(event) => serde_json::to_value(event)?,
        };
        Ok(Entry { digest: self.digest, said })
    }

    /// Whether its digest is that of what it says behind the entry before.
    pub fn holds(&self, chronicle: &Chronicle) -> bool {
        let own = match (chronicle, &self.said) {
            (Chronicle::Activity, Said::Activity(activity)) => {
                activity_digest(self.former, self.number, activity)
            }
            (Chronicle::Exposure(database), Said::Event(event)) => {
                Some(event.digest(self.former, self.number, database))
            }
            _ => None,
        };
        own == Some(self.digest)
    }

    /// The ledger's event that it is.
    pub fn event(&self) -> Option<Numbered> {
        match &self.said {
            Said::Event(event) => Some(Numbered {
                number: self.number,
                event: event.clone(),
                former: self.former,
                digest: self.digest,
            }),
            Said::Activity(_) => None,
        }
    }
}

impl From<Numbered> for Kept {
    fn from(one: Numbered) -> Self {
        let Numbered { number, event, former, digest } = one;
        Self { number, former, digest, said: Said::Event(event) }
    }
}
