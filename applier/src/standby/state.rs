//! What a standby's directory says of it: of which journal it is, how far its making came, and where its copy stands.
//!
//! What always holds: the file is the first one in the directory, before anything is restored there, and it is replaced whole and durably. Before each transaction of the copy it
//! says where the copy stands before and behind that one: the copy's own first page decides between the two. Once it says `promoted` or `spoiled` nothing of
//! ours writes to the copy any more. Each copy has a random id: who keeps one up to date finds at its next transaction that another's file is in the place of its own.
//!
//! ```text
//! preparing ─▶ standby ─▶ promoted
//!                 └─────▶ spoiled
//! ```

use std::io;
use std::path::Path;
use std::sync::Arc;

use chrono::{SecondsFormat, Utc};
use farshore_engines::sqlite::backup::is_file_name;
use farshore_engines::sqlite::standby::{Promise, Standing};
use farshore_journal::{DatabaseName, IncarnationId, StandbyId, StoreId};
use serde::{Deserialize, Serialize};

use crate::restore::Alone;

/// Its name in the standby's directory, which no database's file there can have.
pub const STATE: &str = "farshore-standby.json";
/// What it is called until it is durable.
pub(super) const NEXT: &str = "farshore-standby.json.next";
/// What it is called when it could not be replaced by one that refuses the copy.
const REFUSED: &str = "farshore-standby.json.refused";
const SCHEMA: &str = "farshore.standby/2";

/// What a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It is kept up to date, and nobody else may write to it. Set before it has its name.
    Standby,
    /// Somebody else wrote to it. Set by whoever finds that, before the directory is let go; for ever.
    Spoiled,
    /// It is a database of its own. Set by a promotion; for ever.
    Promoted,
}

/// Of which journal a standby is, and which copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The copy.
    pub standby: StandbyId,
    /// Of which database.
    pub database: DatabaseName,
    /// From which store.
    pub store: StoreId,
    /// Of which incarnation.
    pub incarnation: IncarnationId,
}

/// What it means that a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It goes on once what stopped it is mended.
    Stopped,
    /// Its journal goes no further for this copy, however often it is asked.
    NoFurther,
    /// Nor does it, since the database has another incarnation.
    Anew,
    /// Somebody else wrote to the copy.
    Spoiled,
}

/// Why a run ended, or what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// In words.
    pub what: String,
    /// When, RFC 3339.
    pub at: String,
    /// What it means.
    pub how: How,
}

impl Ended {
    pub(super) fn now(what: String, how: How) -> Self {
        Self { what, at: Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true), how }
    }
}

/// A copy that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Of what.
    pub origin: Origin,
    /// What it is.
    pub role: Role,
    /// The copy's file, in this directory.
    pub file: String,
    /// Where it stands.
    pub now: Standing,
    /// Where it stands instead, if that transaction was committed.
    pub next: Option<Standing>,
    /// Why the last run ended, if not because it was asked to; what was found, where the copy is spoiled.
    pub ended: Option<Ended>,
}

impl State {
    /// Of a copy that was just made.
    pub(super) fn first(origin: Origin, file: &str, now: Standing) -> Self {
        Self { origin, role: Role::Standby, file: file.to_owned(), now, next: None, ended: None }
    }

    /// What the copy may stand for.
    pub fn known(&self) -> Vec<&Standing> {
        std::iter::once(&self.now).chain(&self.next).collect()
    }

    /// Keeps for ever that somebody else wrote to the copy. Where a full disk leaves no room to say so, the directory is made to hold no standby any more.
    pub(super) fn spoil(&mut self, alone: &Alone, what: String) {
        self.role = Role::Spoiled;
        self.ended = Some(Ended::now(what, How::Spoiled));
        if let Err(why) = Record::Copy(Box::new(self.clone())).write(alone) {
            tracing::error!(error = %why, "that the copy was written to cannot be kept: its state is put aside, so that nothing takes it for a standby");
            if let Err(why) = alone.rename(STATE, REFUSED) {
                tracing::error!(error = %why, "nor can its state be put aside: do not start this standby again");
            }
        }
    }
}

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(super) enum Record {
    /// A standby is made here, or its making was cut off: nothing here has the database's name. Set before anything is restored.
    Preparing {
        /// Of what.
        origin: Origin,
    },
    /// A copy that was made.
    Copy(Box<State>),
}

#[derive(Serialize, Deserialize)]
struct Form<T> {
    schema: String,
    standby: T,
}

impl Record {
    pub(super) fn origin(&self) -> &Origin {
        match self {
            Self::Preparing { origin } => origin,
            Self::Copy(state) => &state.origin,
        }
    }

    /// What a directory that is ours says; `None` where there is nothing.
    ///
    /// # Errors
    /// When it cannot be read, or is none that this version writes.
    pub(super) fn read(alone: &Alone) -> io::Result<Option<Self>> {
        alone.read(STATE)?.map(|bytes| Self::parse(&bytes)).transpose()
    }

    /// As [`read`](Self::read), of a directory that another process may have.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) fn look(directory: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(directory.join(STATE)) {
            Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(why) => Err(why),
            Ok(bytes) => Self::parse(&bytes).map(Some),
        }
    }

    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let form: Form<serde_json::Value> = match serde_json::from_slice(bytes) {
            Ok(form) => form,
            Err(why) => return Err(io::Error::other(not_ours(bytes, &why))),
        };
        if form.schema != SCHEMA {
            return Err(io::Error::other(other_schema(&form.schema)));
        }
        let record = serde_json::from_value(form.standby).map_err(io::Error::other)?;
        // The name comes from a file that others may have written to.
        match &record {
            Self::Copy(state)
                if !is_file_name(&state.file) || [STATE, NEXT].contains(&state.file.as_str()) =>
            {
                Err(io::Error::other("the name that it gives the copy is none"))
            }
            _ => Ok(record),
        }
    }

    /// Replaces it; durable on `Ok`.
    pub(super) fn write(&self, alone: &Alone) -> io::Result<()> {
        let form = Form { schema: SCHEMA.to_owned(), standby: self };
        alone.replace(STATE, NEXT, &serde_json::to_vec(&form)?)
    }
}

fn other_schema(schema: &str) -> String {
    let schema: String = schema.chars().take(40).collect();
    format!("it is written in the form `{schema}`, and this version reads `{SCHEMA}` only")
}

/// What a file is that has not this version's form.
fn not_ours(bytes: &[u8], why: &serde_json::Error) -> String {
    let value: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
    match value.as_ref().and_then(|value| value["schema"].as_str()) {
        Some(schema) => other_schema(schema),
        None => why.to_string(),
    }
}

/// Keeps a standby's state in its directory.
#[derive(Debug)]
pub(super) struct Keeper {
    /// The directory, held for as long as anything is written.
    pub alone: Arc<Alone>,
    pub state: State,
}

impl Promise for Keeper {
    fn promise(&mut self, now: &Standing, next: &Standing) -> io::Result<()> {
        let there = Record::read(&self.alone)?;
        if there.is_none_or(|record| record.origin().standby != self.state.origin.standby) {
            return Err(io::Error::other(format!("`{STATE}` is another copy's, or gone")));
        }
        self.state.now = now.clone();
        self.state.next = Some(next.clone());
        Record::Copy(Box::new(self.state.clone())).write(&self.alone)
    }
}

#[cfg(test)]
mod tests {
    use farshore_engines::sqlite::standby::Proof;
    use farshore_journal::Offset;

    use super::*;
    use crate::restore::lock;

    fn state() -> State {
        let origin = Origin {
            standby: StandbyId::mint(),
            database: "orders".parse().unwrap(),
            store: StoreId::from_bytes([1; 16]),
            incarnation: IncarnationId::from_bytes([2; 16]),
        };
        let mut page = vec![7; 512];
        page[24..28].copy_from_slice(&9u32.to_be_bytes());
        let now = Standing {
            proof: Proof::of(&page).unwrap(),
            end: Offset::new(u64::MAX - 1),
            transaction: Some(u64::MAX),
            seen_micros: Some(-1),
            pages: u32::MAX,
        };
        State::first(origin, "app.db", now)
    }

    #[test]
    fn what_is_written_is_read_again_in_every_role() {
        let folder = tempfile::tempdir().unwrap();
        let alone = lock(folder.path()).unwrap();
        assert_eq!(Record::read(&alone).unwrap(), None);
        let state = state();
        let mut records = vec![Record::Preparing { origin: state.origin.clone() }];
        for role in [Role::Standby, Role::Spoiled, Role::Promoted] {
            let ended = Some(Ended::now("why".to_owned(), How::NoFurther));
            records.push(Record::Copy(Box::new(State {
                role,
                ended,
                next: Some(state.now.clone()),
                ..state.clone()
            })));
        }
        for record in records {
            record.write(&alone).unwrap();
            assert_eq!(Record::read(&alone).unwrap().as_ref(), Some(&record));
            assert_eq!(Record::look(folder.path()).unwrap(), Some(record));
        }
    }

    #[test]
    fn a_file_of_another_form_is_refused_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let alone = lock(folder.path()).unwrap();
        let hostile = |name: &str| {
            let form = Form {
                schema: SCHEMA.to_owned(),
                standby: Record::Copy(Box::new(State { file: name.to_owned(), ..state() })),
            };
            serde_json::to_string(&form).unwrap()
        };
        for (text, says) in [
            (
                r#"{"schema":"farshore.standby/1","role":"standby","file":"app.db"}"#.to_owned(),
                "farshore.standby/1",
            ),
            (r#"{"schema":"farshore.standby/3","standby":{}}"#.to_owned(), "farshore.standby/3"),
            (r#"{"schema":"farshore.standby/2","standby":{"is":"preparing"}}"#.to_owned(), "origin"),
            ("not json".to_owned(), "expected"),
            (hostile("../app.db"), "none"),
            (hostile(STATE), "none"),
        ] {
            std::fs::write(folder.path().join(STATE), &text).unwrap();
            let why = Record::read(&alone).unwrap_err().to_string();
            assert!(why.contains(says), "{text}: {why}");
        }
    }

    #[test]
    fn a_promise_is_not_kept_where_another_copys_state_stands() {
        let folder = tempfile::tempdir().unwrap();
        let alone = Arc::new(lock(folder.path()).unwrap());
        let (own, other) = (state(), state());
        let mut keeper = Keeper { alone: Arc::clone(&alone), state: own.clone() };
        assert!(keeper.promise(&own.now, &own.now).is_err(), "there is none");
        Record::Copy(Box::new(own.clone())).write(&alone).unwrap();
        keeper.promise(&own.now, &own.now).unwrap();
        Record::Copy(Box::new(other.clone())).write(&alone).unwrap();
        assert!(keeper.promise(&own.now, &own.now).is_err());
        assert_eq!(Record::read(&alone).unwrap(), Some(Record::Copy(Box::new(other))));
    }
}
