//! Checks the journal's indexes: by themselves, against the chunks at their borders, and where the log is decoded anyway, against what it
//! says.
//!
//! What always holds: an index that is bad is named and hides nothing else; one that is missing is no finding, for nothing rests on it.
//! Memory is bounded by the runs that the walk is inside of, one for each level.

use std::collections::BTreeMap;

use farshore_engines::event::LogEvent;
use farshore_engines::indexed;
use farshore_engines::log::Decoder;
use farshore_journal::format::index::{Entry, Index, Number, What};
use farshore_journal::format::{ChainValue, FormatError, Header, Kind};
use farshore_journal::index::{self, Anew, IndexName, Sheet};
use farshore_journal::reader::Keyring;
use farshore_journal::{Generation, JournalError, Sequence, WriterId};

use super::{Verified, cut_off};
use crate::source::Source;

/// Said of an index that holds by itself and speaks of other chunks.
const OTHER_CHUNKS: &str = "it does not belong to the chunks that it names";
/// Said of one that the log does not bear out.
const OTHER_LOG: &str = "it says other than the log";
/// Said of one that names chunks behind the journal's end: an index follows its chunks, so they are gone.
const CHUNKS_GONE: &str = "it names chunks behind the journal's end: they were stored once, and are gone";
/// Half of the numbers that the log's 32 bits tell apart: nearer ones are of the same round.
const HALF_ROUND: u64 = 1 << 31;

/// An index that holds by itself.
#[derive(Debug, Clone)]
struct Sound {
    name: IndexName,
    /// None where no key is at hand.
    level: Option<u8>,
    before: ChainValue,
    after: ChainValue,
    generation: Generation,
    writer: WriterId,
}

/// The indexes, and those whose run the walk is inside of.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    by_first: BTreeMap<Sequence, Vec<Sound>>,
    open: Vec<(Sound, Option<Anew>)>,
    any_log: bool,
}

/// Reads every index by itself.
pub(super) async fn read(
    source: &Source,
    names: &[IndexName],
    found: &mut Verified,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Indexes, JournalError> {
    let reader = source.reader();
    let mut keys = Keyring::new(source.unlock().clone());
    let mut indexes = Indexes::default();
    for name in names {
        let key = reader.layout().index(name)?;
        let object = match index::object(reader, name).await {
            Ok(object) => object,
            Err(JournalError::Store(why)) if why.is_not_found() => continue,
            Err(JournalError::Store(why)) => return Err(why.into()),
            Err(why) => {
                found.bad(&key, why);
                continue;
            }
        };
        found.objects += 1;
        found.bytes += object.header().object_bytes();
        progress(found.objects, found.bytes);
        let level = match index::open(reader, &mut keys, name, &object).await {
            Ok(opened) => Some(opened.index.level),
            Err(JournalError::Object { source: FormatError::KeyMissing, .. }) => {
                found.sealed += 1;
                None
            }
            Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
            // Of itself, or of a key that is not its chunks'.
            Err(why @ JournalError::Object { .. }) => {
                found.bad(&key, why);
                continue;
            }
            Err(JournalError::Misplaced { key: named, field }) if named == key => {
                found.bad(&key, JournalError::Misplaced { key: named, field });
                continue;
            }
            // Another object on the way to its key is bad, and is named where it is read.
            Err(_) => None,
        };
        let header = object.header();
        let (before, after, generation, writer) =
            (header.before, header.after, header.generation, header.writer);
        let sound = Sound { name: *name, level, before, after, generation, writer };
        indexes.by_first.entry(name.first).or_default().push(sound);
    }
    Ok(indexes)
}

impl Indexes {
    /// A chunk whose place in the chain was looked at. `log` is the decoder in front of it.
    pub fn chunk(
        &mut self,
        source: &Source,
        header: &Header,
        log: Option<&Decoder>,
        found: &mut Verified,
    ) -> Result<(), JournalError> {
        let layout = source.reader().layout();
        let goes_on = log.is_some_and(|log| log.next_wanted() == header.start);
        // The journal's very first log was decoded from here by whoever made the index, too.
        let begins = !self.any_log && source.shape().next_begin(header.start, true) == Some(header.start);
        for sound in self.by_first.remove(&header.number).into_iter().flatten() {
            let of_these = sound.before == header.before
                && (sound.generation, sound.writer) == (header.generation, header.writer);
            if !of_these {
                found.bad(layout.index(&sound.name)?, OTHER_CHUNKS);
                continue;
            }
            let anew = sound.level.filter(|_| goes_on || begins).map(|level| Anew::of(level, header));
            self.open.push((sound, anew));
        }
        self.any_log |= header.kind == Kind::Data;
        // The last chunk of one that is behind was bad or not decoded, and was said to be.
        self.open.retain(|(sound, _)| sound.name.last >= header.number);
        let other = |(sound, _): &mut (Sound, Option<Anew>)| {
            sound.name.last == header.number && sound.after != header.after
        };
        for (sound, _) in self.open.extract_if(.., other) {
            found.bad(layout.index(&sound.name)?, OTHER_CHUNKS);
        }
        Ok(())
    }

    /// The walk is over, and this was the last number: what an index names behind it was stored once.
    pub fn finish(
        self,
        source: &Source,
        last: Option<Sequence>,
        found: &mut Verified,
    ) -> Result<(), JournalError> {
        let left = self.by_first.into_values().flatten().chain(self.open.into_iter().map(|(sound, _)| sound));
        for sound in left.filter(|sound| last.is_none_or(|last| sound.name.last > last)) {
            found.bad(source.reader().layout().index(&sound.name)?, CHUNKS_GONE);
        }
        Ok(())
    }

    /// Whether the walk is inside of a run that can be held against the log.
    pub fn wants_events(&self) -> bool {
        self.open.iter().any(|(_, anew)| anew.is_some())
    }

    /// What an event gives.
    pub fn note(seen: &mut Vec<Entry>, event: &LogEvent) {
        seen.extend(indexed::entry(event));
    }

    /// The chunk in hand was decoded: `log` stands behind it, `None` where it does not read as log.
    pub async fn decoded(
        &mut self,
        source: &Source,
        header: &Header,
        log: Option<&Decoder>,
        seen: Vec<Entry>,
        found: &mut Verified,
    ) -> Result<(), JournalError> {
        for (_, anew) in &mut self.open {
            match (log, &mut *anew) {
                // A chunk before this one was not decoded.
                (Some(_), Some(one)) if !one.continues(header) => *anew = None,
                (Some(log), Some(one)) => {
                    one.take(header, Sheet { entries: seen.clone(), whole: log.whole() });
                }
                (None, anew) => *anew = None,
                (Some(_), None) => {}
            }
        }
        let ended: Vec<_> = self.open.extract_if(.., |(sound, _)| sound.name.last == header.number).collect();
        for (sound, anew) in ended {
            let Some(anew) = anew else { continue };
            let (reader, mut keys) = (source.reader(), Keyring::new(source.unlock().clone()));
            let says = match index::read(reader, &mut keys, &sound.name).await {
                Ok(read) => read.index,
                Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
                // What is wrong with it, or with the chunks on the way to its key, was said where that was read.
                Err(_) => continue,
            };
            let checked = tokio::task::spawn_blocking(move || {
                anew.index().is_some_and(|true_one| agrees(&says, &true_one))
            });
            if !checked.await.map_err(|_| cut_off())? {
                found.bad(reader.layout().index(&sound.name)?, OTHER_LOG);
            }
        }
        Ok(())
    }
}

/// Whether an index says what was found anew. A number whose high half one of the two did not know is compared by its low half.
fn agrees(says: &Index, anew: &Index) -> bool {
    let whole = (says.whole.to, says.whole.last_record) == (anew.whole.to, anew.whole.last_record);
    let near = match (says.whole.next_transaction, anew.whole.next_transaction) {
        (Some(one), Some(other)) => one.abs_diff(other) < HALF_ROUND,
        _ => true,
    };
    let claims = (says.claims.newest, says.claims.newest_commit, says.claims.commits)
        == (anew.claims.newest, anew.claims.newest_commit, anew.claims.commits);
    let numbers = says.claims.unknown || anew.claims.unknown || says.claims.numbers == anew.claims.numbers;
    let entries = says.entries.len() == anew.entries.len()
        && says.entries.iter().zip(&anew.entries).all(|(one, other)| {
            (one.start, one.end) == (other.start, other.end) && same(&one.what, &other.what)
        });
    (says.level, says.last, says.resume) == (anew.level, anew.last, anew.resume)
        && whole
        && near
        && claims
        && numbers
        && entries
}

fn same(one: &What, other: &What) -> bool {
    match (one, other) {
        (
            What::Commit { time, number, within, prepared },
            What::Commit { time: t, number: n, within: w, prepared: p },
        )
        | (
            What::Abort { time, number, within, prepared },
            What::Abort { time: t, number: n, within: w, prepared: p },
        ) => {
            (time, prepared) == (t, p)
                && same_number(*number, *n)
                && within.len() == w.len()
                && within.iter().zip(w).all(|(one, other)| same_number(*one, *other))
        }
        (What::Prepare { time, number, name }, What::Prepare { time: t, number: n, name: m }) => {
            (time, name) == (t, m) && same_number(*number, *n)
        }
        _ => one == other,
    }
}

fn same_number(one: Number, other: Number) -> bool {
    one.low == other.low && (one.full.is_none() || other.full.is_none() || one.full == other.full)
}
