//! What of a database's configuration is a SQLite file's alone.
//!
//! What always holds: a key that would mean nothing for a file is refused, never left without a word.

use std::ops::Range;
use std::path::Path;

use farshore_journal::DatabaseName;

use super::diagnose::ConfigProblem;
use super::quantity::ByteCount;
use super::{EngineConfig, Judge, OnFull, document};

/// How large a database's own log may become unless told otherwise, where it is let go rather than kept.
const WAL_LIMIT: ByteCount = ByteCount::new(1 << 30);
/// As much is reached by one large transaction, with every store there.
const WAL_LIMIT_LEAST: ByteCount = ByteCount::new(64 << 20);

impl Judge<'_> {
    pub(super) fn sqlite(
        &mut self,
        name: &DatabaseName,
        span: Range<usize>,
        database: &document::Database,
    ) -> Result<EngineConfig, ConfigProblem> {
        if let Some(url) = &database.url {
            return Err(self.problem(url.span(), "`url` is for postgres; an sqlite database has a `path`"));
        }
        let of_servers = [("password_file", &database.password_file), ("bin_dir", &database.bin_dir)];
        if let Some((key, value)) = of_servers.iter().find_map(|(key, value)| Some((key, value.as_ref()?))) {
            return Err(self
                .problem(value.span(), format!("`{key}` is for postgres; an sqlite database has a `path`"))
                .hint("leave it out: a file is opened by the rights of the user that runs farshore"));
        }
        if let Some(refresh) = &database.refresh {
            return Err(self
                .problem(refresh.span(), "`refresh` is for postgres; an sqlite database is copied as a whole")
                .hint("leave it out"));
        }
        let Some(path) = &database.path else {
            return Err(self
                .problem(span, format!("database `{name}` has no `path`"))
                .hint("path = \"/var/lib/app/app.db\""));
        };
        let place = self.folder.join(path.get_ref());
        self.judge_one_name(name, path.span(), &place)?;
        Ok(EngineConfig::Sqlite { path: place, wal_limit: self.wal_limit(database)? })
    }

    /// Two names of one file would be two followers, which keep each other from beginning its log anew.
    fn judge_one_name(
        &mut self,
        name: &DatabaseName,
        span: Range<usize>,
        place: &Path,
    ) -> Result<(), ConfigProblem> {
        let file = place.canonicalize().unwrap_or_else(|_| place.to_owned());
        match self.files.insert(file, name.clone()) {
            None => Ok(()),
            Some(other) => Err(self
                .problem(span, format!("databases `{other}` and `{name}` are one file"))
                .hint("a file is shipped under one name: take one of the two out")),
        }
    }

    fn wal_limit(&self, database: &document::Database) -> Result<Option<ByteCount>, ConfigProblem> {
        match (database.on_full, &database.wal_limit) {
            (OnFull::Hold, None) => Ok(None),
            (OnFull::Hold, Some(limit)) => Err(self
                .problem(
                    limit.span(),
                    "`wal_limit` has no meaning with `on_full = \"hold\"`, which keeps all log",
                )
                .hint("write on_full = \"bypass\", or leave wal_limit out")),
            (OnFull::Bypass, None) => Ok(Some(WAL_LIMIT)),
            (OnFull::Bypass, Some(limit)) if *limit.get_ref() < WAL_LIMIT_LEAST => Err(self
                .problem(limit.span(), format!("`wal_limit` is {WAL_LIMIT_LEAST} or more"))
                .hint(format!("leave it out: {WAL_LIMIT} is right for most databases"))),
            (OnFull::Bypass, Some(limit)) => Ok(Some(*limit.get_ref())),
        }
    }
}
