//! What `verify` makes of signed heads.
//!
//! What always holds: every head in the store is read, the newest first, and named when it is not as it was written or the store does not
//! give it out; one that a pinned key signed is held against the chunk of its number, wherever that chunk's bytes stand. What the
//! catalog has is held against it too. Many heads that say the same of a journal are one finding. When too many count for nothing,
//! that is a finding, and the older ones are not read.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use farshore_journal::format::{Head, HeadStanding, Header};
use farshore_journal::heads::{self, HEAD_BYTES, Held, PASSED_OVER};
use farshore_journal::{JournalError, Position, Sequence};
use futures::StreamExt;
use serde::Serialize;

use super::{Verified, cut_off};
use crate::heads::{Doubt, KnownHeads};
use crate::source::{AHEAD, Source, in_a_task};

/// What signed heads say of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HeadsFound {
    /// Whether a key is pinned: if not, authenticity rests on the store's own access control.
    pub pinned: bool,
    /// The chunk of the newest head that a pinned key signed, wherever that head was found.
    pub sequence: Option<Sequence>,
    /// Where the journal ended behind that chunk.
    pub position: Option<Position>,
    /// When that was signed, by the signer's clock.
    pub signed_at: Option<DateTime<Utc>>,
    /// The chunk of the newest such head in the store.
    pub store: Option<Sequence>,
    /// The chunk of the newest such head in the catalog.
    pub catalog: Option<Sequence>,
    /// Whether the catalog could be asked.
    pub catalog_read: bool,
    /// Heads in the store that were read.
    pub read: u64,
    /// Heads, in the store and in the catalog, that a retired key signed: they count for nothing.
    pub retired: u64,
    /// What the journal does not hold of what was signed, for whoever says it to a person. It is among the bad objects too.
    #[serde(skip)]
    pub doubts: Vec<Doubt>,
}

/// The heads that count, by their chunk's number, while a journal is walked.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Not met yet. Several may speak of one chunk: the store's and the catalog's.
    open: BTreeMap<Sequence, Vec<Head>>,
    /// That say otherwise than the journal.
    other: Vec<Head>,
    /// The last chunk that was looked for.
    last: Option<Sequence>,
}

/// Reads the store's heads, and gathers those that count.
pub(super) async fn gather(
    source: &Source,
    listed: &[(Sequence, u64)],
    known: &KnownHeads,
    found: &mut Verified,
) -> Result<Wanted, JournalError> {
    let reader = source.reader();
    let mut wanted = Wanted::default();
    found.head = HeadsFound {
        pinned: !known.pinned.is_empty(),
        catalog_read: known.outside_read,
        ..HeadsFound::default()
    };
    let (fits, large): (Vec<_>, Vec<_>) =
        listed.iter().rev().copied().partition(|(_, size)| *size <= HEAD_BYTES);
    for (number, size) in large {
        let what = format!("it has {size} bytes: no head is that large, and it was not read");
        found.bad(reader.layout().head(number)?, what);
    }
    let fetched = futures::stream::iter(fits).map(|(number, _)| {
        let reader = reader.clone();
        in_a_task(async move { (number, heads::read(&reader, number).await) })
    });
    let mut fetched = std::pin::pin!(fetched.buffered(AHEAD));
    let mut passed = 0;
    while let Some(fetched) = fetched.next().await {
        let (number, head) = fetched.map_err(|_| cut_off())?;
        let name = reader.layout().head(number)?;
        if passed >= PASSED_OVER {
            let what = format!(
                "{passed} objects here count for nothing: heads of chunk {number} and before were not read"
            );
            found.bad(reader.layout().heads()?, what);
            break;
        }
        let head = match head {
            Ok(head) => head,
            // Tidied since it was listed.
            Err(JournalError::Store(why)) if why.is_not_found() => continue,
            Err(JournalError::Store(why)) => {
                passed += 1;
                found.bad(name, format!("the store does not give it out: {why}"));
                continue;
            }
            Err(why) => {
                passed += 1;
                found.bad(name, why);
                continue;
            }
        };
        found.objects += 1;
        found.head.read += 1;
        if known.pinned.contains(&head.key) {
            found.head.store = found.head.store.max(Some(number));
            wanted.add(head);
        } else if known.retired.contains(&head.key) {
            found.head.retired += 1;
        } else if !known.pinned.is_empty() {
            passed += 1;
            found.bad(name, format!("it is signed by the key {}, which is not among verify_keys", head.key));
        }
    }
    let mut outside: Option<&Head> = None;
    for head in known.outside_of(source).filter(|_| !known.pinned.is_empty()) {
        let number = head.said.number;
        match head.standing(&known.pinned) {
            HeadStanding::Pinned => {
                found.head.catalog = found.head.catalog.max(Some(number));
                outside = outside.filter(|former| former.said.number > number).or(Some(head));
                wanted.add(head.clone());
            }
            HeadStanding::UnknownKey if known.retired.contains(&head.key) => found.head.retired += 1,
            HeadStanding::UnknownKey | HeadStanding::Broken => {
                let what = "the catalog's copy of it is not signed by one of verify_keys";
                found.bad(reader.layout().head(number)?, what);
            }
        }
    }
    if let Some((number, newest)) = wanted.open.last_key_value()
        && let Some(head) = newest.first()
    {
        found.head.sequence = Some(*number);
        found.head.position = Some(head.said.end);
        found.head.signed_at = DateTime::from_timestamp_micros(head.signed_at);
    }
    // The head was in the store before the catalog was told of it, and nobody deletes the newest.
    if let Some(head) = outside.filter(|head| Some(head.said.number) > found.head.store) {
        let what = format!(
            "it is not in the store: the catalog has it, signed at {}; it was deleted, or the store lost it",
            head.signed_when()
        );
        found.bad(reader.layout().head(head.said.number)?, what);
    }
    Ok(wanted)
}

impl Wanted {
    fn add(&mut self, head: Head) {
        self.open.entry(head.said.number).or_default().push(head);
    }

    /// A chunk of the journal was read.
    pub fn met(&mut self, chunk: &Header) {
        self.last = Some(chunk.number);
        let Some(heads) = self.open.remove(&chunk.number) else { return };
        self.other.extend(heads.into_iter().filter(|head| !head.said.is_of(chunk)));
    }

    /// A chunk was looked for, and it was said what is wrong with it.
    pub fn named(&mut self, number: Sequence) {
        self.last = Some(number);
        self.open.remove(&number);
    }

    /// The journal was walked to its end, whose header this is: what was signed and not met is missing.
    pub async fn judge(
        mut self,
        source: &Source,
        end: Option<&Header>,
        found: &mut Verified,
    ) -> Result<(), JournalError> {
        let open: Vec<Head> = std::mem::take(&mut self.open).into_values().flatten().collect();
        let mut cut: Option<&Head> = None;
        for head in &open {
            match heads::held(source.reader(), head).await {
                Ok(Held::Yes | Held::Expired) => self.last = Some(head.said.number),
                Ok(Held::Other) => self.other.push(head.clone()),
                // Numbers are dense: with this one all later ones are gone.
                Ok(Held::No) => {
                    cut = open.last();
                    break;
                }
                Err(why) => found.bad(source.reader().layout().chunk(head.said.number)?, why),
            }
        }
        self.rewritten(source, found)?;
        let Some(head) = cut.cloned() else { return Ok(()) };
        let first = self.last.map_or(Some(Sequence::FIRST), Sequence::next).unwrap_or(head.said.number);
        let which = match first == head.said.number {
            true => format!("chunk {first} is"),
            false => format!("chunks {first} to {} are", head.said.number),
        };
        let what = format!(
            "{which} missing: a head signed at {} says that the journal reached {} there. Its end was cut off",
            head.signed_when(),
            head.said.end
        );
        found.bad(source.reader().layout().chunk(head.said.number)?, what);
        let end = end.map(|end| (end.number, end.end_position()));
        found.head.doubts.push(Doubt::Cut { head: Box::new(head), end });
        Ok(())
    }

    /// One finding for all heads that say otherwise: they will be all from one chunk on.
    fn rewritten(&self, source: &Source, found: &mut Verified) -> Result<(), JournalError> {
        let Some(first) = self.other.iter().min_by_key(|head| head.said.number) else { return Ok(()) };
        let what = format!(
            "it is another chunk than the one that was signed at {}; {} heads in all say otherwise than the journal, which was \
             rewritten here or before",
            first.signed_when(),
            self.other.len()
        );
        found.bad(source.reader().layout().chunk(first.said.number)?, what);
        found.head.doubts.push(Doubt::Rewritten { head: Box::new(first.clone()) });
        Ok(())
    }
}
