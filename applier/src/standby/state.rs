//! What a standby's directory says of it: of which journal it is, and where its copy stands.
//!
//! What always holds: the file is replaced whole and durably, before each transaction of the copy, and says where the copy stands before and behind that one: the copy's own first page
//! decides between the two. Once it says `promoted` nothing of ours writes to the copy any more.

use std::io::{self, Write};
use std::path::Path;

use farshore_engines::sqlite::standby::{Promise, Standing};
use farshore_journal::{DatabaseName, IncarnationId, StoreId};
use serde::{Deserialize, Serialize};

/// Its name in the standby's directory. Names that begin so are no database's there.
pub const STATE: &str = "farshore-standby.json";
/// What it is called until it is durable.
const NEXT: &str = "farshore-standby.json.next";
const SCHEMA: &str = "farshore.standby/1";

/// What a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It is kept up to date, and nobody else may write to it. Set when it was restored.
    Standby,
    /// It is a database of its own. Set by a promotion.
    Promoted,
}

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// `farshore.standby/1`.
    pub schema: String,
    /// What the copy is.
    pub role: Role,
    /// Of which database.
    pub database: DatabaseName,
    /// From which store.
    pub store: StoreId,
    /// Of which incarnation.
    pub incarnation: IncarnationId,
    /// The copy's file, in this directory.
    pub file: String,
    /// Where it stands.
    pub now: Standing,
    /// Where it stands instead, if that transaction was committed.
    pub next: Option<Standing>,
}

impl State {
    /// Of a copy that was just made.
    pub(super) fn first(
        database: &DatabaseName,
        store: StoreId,
        incarnation: IncarnationId,
        file: &str,
        now: Standing,
    ) -> Self {
        let (schema, role, file) = (SCHEMA.to_owned(), Role::Standby, file.to_owned());
        Self { schema, role, database: database.clone(), store, incarnation, file, now, next: None }
    }

    /// What the copy may stand for.
    pub fn known(&self) -> Vec<&Standing> {
        std::iter::once(&self.now).chain(&self.next).collect()
    }

    /// The state in a directory; `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is none that this version writes.
    pub(super) fn read(directory: &Path) -> io::Result<Option<Self>> {
        let bytes = match std::fs::read(directory.join(STATE)) {
            Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            other => other?,
        };
        let state: Self = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
        // The name comes from a file that others may have written to.
        let plain =
            farshore_engines::sqlite::backup::is_file_name(&state.file) && !state.file.starts_with(STATE);
        match state.schema == SCHEMA && plain {
            true => Ok(Some(state)),
            false => Err(io::Error::other("it is not one that this version writes")),
        }
    }

    /// Replaces it; durable on `Ok`.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let next = directory.join(NEXT);
        let mut file = std::fs::File::create(&next)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        std::fs::rename(&next, directory.join(STATE))?;
        std::fs::File::open(directory)?.sync_all()
    }
}

/// Keeps a standby's state in its directory.
#[derive(Debug)]
pub(super) struct Keeper {
    pub directory: std::path::PathBuf,
    pub state: State,
}

impl Promise for Keeper {
    fn promise(&mut self, now: &Standing, next: &Standing) -> io::Result<()> {
        self.state.now = now.clone();
        self.state.next = Some(next.clone());
        self.state.write(&self.directory)
    }
}
