//! Which incarnation a source continues by its identity, founding a new one, and what a person is told of the one that it follows.

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_engines::log::SQLITE;
use farshore_engines::sqlite::mark;
use farshore_journal::backup;
use farshore_journal::format::Kind;
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::reader::Reader;
use farshore_journal::registry::{Founding, Repository};
use farshore_journal::{JournalError, Position, Sequence};

use super::Pipeline;
use crate::error::ShipError;
use crate::founding::Witness;

/// How many chunks are looked at for the last one that holds log: a journal that was only opened again and again has none among them.
const LOOKED_AT: usize = 100;

/// What is left of an incarnation that another one follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    number: u64,
    engine: String,
    stored: Option<Stored>,
    /// Whether it has a complete base backup; `None` when the store did not say.
    has_base: Option<bool>,
}

/// How far its journal reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stored {
    end: Position,
    /// When that was stored, by the clock of whoever did.
    at_micros: i64,
    /// The last transaction, where a chunk says it in the clear.
    transaction: Option<u64>,
}

impl Left {
    /// What a store says of it. What it does not say is not known, and holds nothing up.
    pub(super) async fn of(repository: &Repository, record: &IncarnationRecord) -> Self {
        let mut left =
            Self { number: record.number, engine: record.engine.clone(), stored: None, has_base: None };
        let looked = async {
            let reader = Reader::new(repository, record)?;
            left.stored = stored(&reader, record.engine == SQLITE).await?;
            left.has_base = Some(has_base(&reader).await?);
            Ok::<_, JournalError>(())
        };
        if let Err(why) = looked.await {
            tracing::debug!(error = %why, "how far the incarnation before reaches is not known");
        }
        left
    }

    /// What it means that another incarnation follows this one: what happened, what is safe, what to do.
    pub(super) fn followed_by(&self, reason: &str) -> String {
        let (number, next) = (self.number, self.number.saturating_add(1));
        let reaches = match &self.stored {
            None => String::new(),
            Some(stored) => {
                let at = DateTime::from_timestamp_micros(stored.at_micros).map_or_else(String::new, |at| {
                    format!(", {}", at.to_rfc3339_opts(SecondsFormat::Secs, true))
                });
                let transaction =
                    stored.transaction.map_or_else(String::new, |number| format!(", transaction {number}"));
                format!(" up to {}{transaction}{at}", stored.end)
            }
        };
        let safe = match self.has_base {
            Some(true) => format!("incarnation {number} stays restorable{reaches}"),
            Some(false) => format!(
                "what incarnation {number} holds{reaches} stays as it is, but it has no complete base backup, so nothing of it can be restored"
            ),
            None => format!(
                "what incarnation {number} holds{reaches} stays as it is; whether it has a base backup is not known"
            ),
        };
        let back = match self.has_base {
            Some(false) => "",
            Some(true) | None => &format!("restore what was before with --incarnation {number}; "),
        };
        let standbys = match self.engine == SQLITE {
            true => "; standbys of the former one must be made anew",
            false => "",
        };
        format!(
            "a new incarnation begins: {reason}. What was written meanwhile cannot be proved to go on from what is stored, so incarnation {next} \
             begins with a copy of the whole database (a base backup, taken by itself). Safe: {safe}. Do: {back}nothing of incarnation {next} can be restored until its \
             first base backup is complete (`farshore backup list`){standbys}."
        )
    }
}

/// The last log that the journal holds.
async fn stored(reader: &Reader, marked: bool) -> Result<Option<Stored>, JournalError> {
    let Some(last) = reader.last().await? else { return Ok(None) };
    let end = last.header().end_position();
    let mut header = last.header().clone();
    for _ in 0..LOOKED_AT {
        if header.kind == Kind::Data {
            let transaction = mark::start(header.mark, header.end).number;
            let transaction = Some(transaction).filter(|_| marked && !header.mark.is_none());
            return Ok(Some(Stored { end, at_micros: header.written_at, transaction }));
        }
        let Some(before) = header.number.get().checked_sub(1) else { break };
        header = reader.expected_header(Sequence::new(before)).await?;
    }
    Ok(None)
}

/// Whether a base backup of the incarnation was completed.
async fn has_base(reader: &Reader) -> Result<bool, JournalError> {
    for id in backup::list(reader).await? {
        // One that is bad hides no other.
        if backup::standing(reader, id).await.is_ok_and(|standing| standing.complete.is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a source calls itself.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// Its engine's name.
    pub engine: &'static str,
    /// The identity, in the engine's own words.
    pub text: String,
    /// What the identity is, for people.
    pub what: &'static str,
    /// The engine's major version.
    pub major: u32,
    /// Bytes of one of its log segments.
    pub segment_bytes: u64,
}

impl Pipeline {
    /// The incarnation that this source continues by its identity, or the first one.
    pub(super) async fn incarnation(
        &self,
        repository: &Repository,
        identity: &Identity,
        witness: &impl Witness,
    ) -> Result<IncarnationRecord, ShipError> {
        let records = repository.incarnations(&self.config.database).await?;
        match records.last() {
            Some(record) if record.identity == identity.text && record.engine == identity.engine => {
                Ok(record.clone())
            }
            Some(record) => {
                let reason =
                    format!("the {} changed from {} to {}", identity.what, record.identity, identity.text);
                // As it should be where the database was made anew, and an operator's slip when the address is another database's.
                let left = Left::of(repository, record).await;
                tracing::error!(database = %self.config.database, "{}", left.followed_by(&reason));
                self.found(repository, identity, record.number + 1, &reason).await
            }
            None => {
                self.store.check_new(witness, "it holds nothing of this database").await?;
                self.found(repository, identity, 0, "first").await
            }
        }
    }

    pub(super) async fn found(
        &self,
        repository: &Repository,
        identity: &Identity,
        number: u64,
        reason: &str,
    ) -> Result<IncarnationRecord, ShipError> {
        let founding = Founding {
            database: &self.config.database,
            number,
            engine: identity.engine,
            identity: &identity.text,
            major: identity.major,
            segment_bytes: identity.segment_bytes,
            now: &Utc::now().to_rfc3339(),
            reason,
        };
        Ok(repository.found_incarnation(founding).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_journal::{Offset, Timeline};

    fn left(has_base: Option<bool>) -> Left {
        let stored = Stored {
            end: Position::new(Timeline::new(1), Offset::new(0xD364)),
            at_micros: 1_774_792_800_000_000,
            transaction: Some(4),
        };
        Left { number: 0, engine: SQLITE.to_owned(), stored: Some(stored), has_base }
    }

    #[test]
    fn who_is_told_of_a_new_incarnation_is_told_what_stays_restorable_and_how() {
        let said = left(Some(true)).followed_by("its log is empty");
        for part in [
            "a new incarnation begins: its log is empty. ",
            "cannot be proved",
            "incarnation 1 begins with a copy of the whole database",
            "Safe: incarnation 0 stays restorable up to 1:0/D364, transaction 4, 2026-03-29T14:00:00Z. Do: ",
            "with --incarnation 0",
            "standbys of the former one must be made anew",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn an_incarnation_without_a_base_backup_is_never_called_restorable() {
        for has_base in [Some(false), None] {
            let said = left(has_base).followed_by("its log is empty");
            assert!(!said.contains("stays restorable"), "{said}");
        }
        assert!(!left(Some(false)).followed_by("x").contains("--incarnation"));
    }
}
