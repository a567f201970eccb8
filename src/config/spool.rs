//! A database's spool: `[databases.NAME.spool]`.
//!
//! What always holds: a directory is one database's alone, and named once; only a PostgreSQL database has a spool.

use std::path::PathBuf;

use farshore_shipper::spool::files::Place;
use toml::Spanned;

use super::diagnose::ConfigProblem;
use super::quantity::ByteCount;
use super::{EngineKind, Judge, document};

/// How much the primary may keep for us before log is taken, unless told otherwise.
const ABOVE: ByteCount = ByteCount::new(64 << 20);
/// Less than this holds no log segment of the usual size.
const LIMIT_LEAST: ByteCount = ByteCount::new(16 << 20);

/// A database's spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolConfig {
    /// Its directory, then those that are in use while it is extended.
    pub places: Vec<Place>,
    /// How much the primary may keep for us before log is taken.
    pub above: ByteCount,
}

impl Judge<'_> {
    pub(super) fn spool(
        &mut self,
        written: Option<&Spanned<document::Spool>>,
        engine: EngineKind,
    ) -> Result<Option<SpoolConfig>, ConfigProblem> {
        let Some(written) = written else { return Ok(None) };
        if engine != EngineKind::Postgres {
            return Err(self
                .problem(written.span(), "a SQLite database has no spool: its log is kept beside its file")
                .hint("leave the section out; `wal_limit` bounds that log"));
        }
        let spool = written.get_ref();
        let mut places = vec![self.spool_place(&spool.directory, &spool.limit)?];
        for further in &spool.extensions {
            let further = further.get_ref();
            places.push(self.spool_place(&further.directory, &further.limit)?);
        }
        Ok(Some(SpoolConfig { places, above: spool.above.unwrap_or(ABOVE) }))
    }

    fn spool_place(
        &mut self,
        directory: &Spanned<PathBuf>,
        limit: &Spanned<ByteCount>,
    ) -> Result<Place, ConfigProblem> {
        if *limit.get_ref() < LIMIT_LEAST {
            return Err(self.problem(limit.span(), format!("a spool's `limit` is {LIMIT_LEAST} or more")));
        }
        let place = self.folder.join(directory.get_ref());
        let place = place.canonicalize().unwrap_or(place);
        if !self.spools.insert(place.clone()) {
            return Err(self
                .problem(directory.span(), "this directory is named twice for a spool")
                .hint("each database has directories of its own: make a folder for each"));
        }
        Ok(Place { directory: place, limit: limit.get_ref().get() })
    }
}
