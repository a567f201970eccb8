//! Holding a journal against signed heads: what was signed of it must still be in it.
//!
//! What always holds: only a head that a pinned key signed says anything of a journal; where no key is pinned nothing is concluded. A
//! chunk that was signed and is not there is asked for again before it is called gone: the journal may have grown while it was read.
//! A witness that cannot be read is a doubt of its own and hides no other.
//! What it does not show: what was shipped after the newest head, what whoever has the signing key signed, and of the chunks before
//! the head's own whether they lead to it: only the head's chunk is asked for here, and `verify` walks to it.

use farshore_journal::format::{Head, HeadStanding, VerifyKeys};
use farshore_journal::heads::{self, Held, PASSED_OVER};
use farshore_journal::{JournalError, Position, Sequence};

use crate::source::Source;

/// What is known of a database's journals outside their store, and whose signature counts.
#[derive(Debug, Clone, Default)]
pub struct KnownHeads {
    /// The pinned keys.
    pub pinned: VerifyKeys,
    /// Keys that signed once and count for nothing any more: their heads are no sign of a forgery.
    pub retired: VerifyKeys,
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

/// What speaks against taking a journal for the one that was shipped, the gravest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Gravity {
    Rewritten,
    Missing,
    Unread,
}

/// What a signed head says, and the journal does not; or why a witness could not be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// The journal ends before the chunk that was signed.
    Cut {
        /// The head.
        head: Box<Head>,
        /// The last chunk that is there, and where the journal ends behind it.
        end: Option<(Sequence, Position)>,
    },
    /// The chunk that was signed, or one before it, is missing and later ones are there.
    Hole {
        /// The head.
        head: Box<Head>,
        /// The first chunk that is known to be missing.
        missing: Sequence,
        /// Where the chunk before the missing one ends, if that one reads.
        before: Option<Position>,
    },
    /// Another chunk stands at the number that was signed.
    Rewritten {
        /// The head.
        head: Box<Head>,
    },
    /// What would speak for the journal or against it is there and cannot be read.
    Unread {
        /// The object's name.
        object: String,
        /// Why.
        why: String,
    },
    /// So many objects at heads' names count for nothing that the newest true head was not looked for any further.
    GivenUp {
        /// How many were looked at.
        looked: usize,
    },
}

impl Doubt {
    fn gravity(&self) -> Gravity {
        match self {
            Self::Rewritten { .. } => Gravity::Rewritten,
            Self::Cut { .. } | Self::Hole { .. } => Gravity::Missing,
            Self::Unread { .. } | Self::GivenUp { .. } => Gravity::Unread,
        }
    }
}

/// An incarnation of which nothing is signed, behind one of which something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwitnessed {
    /// The number of the incarnation that nobody signed.
    pub number: u64,
    /// The number of the one before it that has a head, or may have one.
    pub earlier: u64,
    /// Its newest head; `None` when it may have one that could not be looked at.
    pub head: Option<Box<Head>>,
}

/// Holds the journal's end against the newest heads there are, in the store and outside: what a restore asks before it takes the
/// journal for the whole. Empty when nothing speaks against it, or nothing is known; the gravest doubt comes first.
///
/// # Errors
/// When the store does not list.
pub async fn doubts(source: &Source, known: &KnownHeads) -> Result<Vec<Doubt>, JournalError> {
    let reader = source.reader();
    let newest = heads::newest(reader, &known.pinned, &known.retired).await?;
    let mut heads: Vec<Head> = pinned_outside(source, known).cloned().collect();
    heads.extend(newest.head);
    heads.sort_by_key(|head| std::cmp::Reverse(head.said.number));
    heads.dedup();
    let mut doubts: Vec<Doubt> = Vec::new();
    for head in heads {
        let doubt = match heads::held(reader, &head).await {
            Ok(Held::Yes | Held::Expired) => continue,
            Ok(Held::Other) => Doubt::Rewritten { head: Box::new(head) },
            // What a later head says of a missing end, an earlier one need not say again.
            Ok(Held::No) if doubts.iter().any(|doubt| doubt.gravity() == Gravity::Missing) => continue,
            Ok(Held::No) => missing(source, head).await?,
            Err(why) => {
                let object = reader.layout().chunk(head.said.number)?.to_string();
                Doubt::Unread { object, why: why.to_string() }
            }
        };
        doubts.push(doubt);
    }
    let unread = newest.unread.into_iter();
    doubts.extend(unread.map(|one| Doubt::Unread { object: one.object.to_string(), why: one.why }));
    doubts.extend(newest.given_up.then_some(Doubt::GivenUp { looked: PASSED_OVER }));
    doubts.sort_by_key(Doubt::gravity);
    Ok(doubts)
}

/// What it is that a head's chunk is not there: an end that is gone, or a hole.
async fn missing(source: &Source, head: Head) -> Result<Doubt, JournalError> {
    let (reader, number, head) = (source.reader(), head.said.number, Box::new(head));
    let missing = match reader.chunks_end().await {
        Ok(Some(last)) if last.header().number > number => number,
        Ok(last) => {
            let end = last.map(|chunk| (chunk.header().number, chunk.header().end_position()));
            return Ok(Doubt::Cut { head, end });
        }
        Err(JournalError::Hole { missing }) => missing.min(number),
        Err(why) => {
            return Ok(Doubt::Unread { object: reader.layout().journal().to_string(), why: why.to_string() });
        }
    };
    let before = match missing.get().checked_sub(1) {
        Some(before) => reader.expected_header(Sequence::new(before)).await.ok(),
        None => None,
    };
    Ok(Doubt::Hole { head, missing, before: before.map(|chunk| chunk.end_position()) })
}

/// The catalog's heads of a journal that count.
fn pinned_outside<'a>(source: &'a Source, known: &'a KnownHeads) -> impl Iterator<Item = &'a Head> {
    known.outside_of(source).filter(|head| head.standing(&known.pinned) == HeadStanding::Pinned)
}

/// Whether nothing of an incarnation is signed though something of one before it is: whoever may write to the store can add an
/// incarnation of his own, behind all others. `None` where no key is pinned, and where none of them was ever signed.
///
/// # Errors
/// When the store does not list.
pub async fn unwitnessed(
    chosen: &Source,
    all: &[Source],
    known: &KnownHeads,
) -> Result<Option<Unwitnessed>, JournalError> {
    if known.pinned.is_empty() || pinned_outside(chosen, known).next().is_some() {
        return Ok(None);
    }
    let number = chosen.record().number;
    let earlier: Vec<&Source> = all.iter().filter(|source| source.record().number < number).collect();
    if earlier.is_empty() {
        return Ok(None);
    }
    // Whether what could not be looked at would speak for it, nobody knows: that is a doubt of its own.
    let newest = heads::newest(chosen.reader(), &known.pinned, &known.retired).await?;
    if newest.head.is_some() || newest.may_be_newer() {
        return Ok(None);
    }
    for source in earlier.into_iter().rev() {
        let newest = heads::newest(source.reader(), &known.pinned, &known.retired).await?;
        let may_be = newest.may_be_newer();
        let head = pinned_outside(source, known).next().cloned().or(newest.head);
        if head.is_some() || may_be {
            let earlier = source.record().number;
            return Ok(Some(Unwitnessed { number, earlier, head: head.map(Box::new) }));
        }
    }
    Ok(None)
}
