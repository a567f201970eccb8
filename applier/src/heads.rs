//! Holding a journal against signed heads: what was signed of it must still be in it.
//!
//! What always holds: only a head that a pinned key signed says anything of a journal; where no key is pinned nothing is concluded. A
//! chunk that was signed and is not there is asked for again before it is called gone: the journal may have grown while it was read.
//! What it does not show: what was shipped after the newest head, and what whoever has the signing key signed.

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_journal::format::{Head, HeadStanding, Header, VerifyKeys};
use farshore_journal::{JournalError, Position, Sequence, heads};

use crate::source::Source;

/// What is known of a database's journals outside their store, and whose signature counts.
#[derive(Debug, Clone, Default)]
pub struct KnownHeads {
    /// The pinned keys.
    pub pinned: VerifyKeys,
    /// The heads that the catalog has.
    pub outside: Vec<Head>,
    /// Whether the catalog could be asked at all.
    pub outside_read: bool,
}

impl KnownHeads {
    /// The catalog's heads of one journal.
    pub(crate) fn outside_of<'a>(&'a self, source: &'a Source) -> impl Iterator<Item = &'a Head> {
        let (store, incarnation) = (source.reader().store_id(), source.reader().incarnation());
        self.outside
            .iter()
            .filter(move |head| head.said.store == store && head.said.incarnation == incarnation)
    }

    /// The catalog's heads, signed by pinned keys, of journals that are none of these: they are no longer in the store.
    pub fn vanished(&self, sources: &[Source]) -> Vec<&Head> {
        let held = |head: &&Head| {
            sources.iter().any(|source| {
                let reader = source.reader();
                (reader.store_id(), reader.incarnation()) == (head.said.store, head.said.incarnation)
            })
        };
        let trusted = |head: &&Head| head.standing(&self.pinned) == HeadStanding::Pinned;
        self.outside.iter().filter(trusted).filter(|head| !held(head)).collect()
    }
}

/// What a signed head says, and the journal does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// The journal ends before the chunk that was signed.
    Cut {
        /// The head.
        head: Box<Head>,
        /// The last chunk that is there, and where the journal ends behind it.
        end: Option<(Sequence, Position)>,
    },
    /// Another chunk stands at the number that was signed.
    Rewritten {
        /// The head.
        head: Box<Head>,
    },
}

impl Doubt {
    /// The head that says more, or otherwise.
    pub fn head(&self) -> &Head {
        match self {
            Self::Cut { head, .. } | Self::Rewritten { head } => head,
        }
    }
}

/// When a head was signed, for people.
pub fn signed_at(head: &Head) -> String {
    DateTime::<Utc>::from_timestamp_micros(head.signed_at)
        .map_or_else(|| "an unknown time".to_owned(), |at| at.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// Holds the journal's end against the newest heads there are, in the store and outside: what a restore asks before it takes the
/// journal for the whole. `None` when nothing speaks against it, or nothing is known.
///
/// # Errors
/// When the store does not answer, or the journal does not read.
pub async fn doubt(source: &Source, known: &KnownHeads) -> Result<Option<Doubt>, JournalError> {
    let reader = source.reader();
    let outside =
        known.outside_of(source).filter(|head| head.standing(&known.pinned) == HeadStanding::Pinned);
    let mut heads: Vec<Head> = outside.cloned().collect();
    heads.extend(heads::newest(reader, &known.pinned).await?);
    heads.sort_by_key(|head| std::cmp::Reverse(head.said.number));
    heads.dedup();
    for head in heads {
        match held(source, &head).await? {
            Held::Yes => {}
            Held::Other => return Ok(Some(Doubt::Rewritten { head: Box::new(head) })),
            Held::No => {
                let last = reader.last().await?;
                let end = last.map(|chunk| (chunk.header().number, chunk.header().end_position()));
                return Ok(Some(Doubt::Cut { head: Box::new(head), end }));
            }
        }
    }
    Ok(None)
}

/// How a journal stands to a head.
pub(crate) enum Held {
    Yes,
    Other,
    No,
}

/// Whether the chunk that a head speaks of is in the journal, asked of the store now.
pub(crate) async fn held(source: &Source, head: &Head) -> Result<Held, JournalError> {
    match source.reader().expected_header(head.said.number).await {
        Ok(chunk) => Ok(answer(head, &chunk)),
        Err(JournalError::Hole { .. }) => Ok(Held::No),
        Err(why) => Err(why),
    }
}

pub(crate) fn answer(head: &Head, chunk: &Header) -> Held {
    if head.said.is_of(chunk) { Held::Yes } else { Held::Other }
}
