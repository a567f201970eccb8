//! The open catalog: its connections, its deadline, its transactions.
//!
//! What always holds: each statement, and each call as a whole, ends within the deadline; a write on SQLite takes
//! the write lock at its start (`begin immediate`), so that two writers wait for each other instead of failing
//! half-way; nothing is written to a SQLite file that is no longer the one at its path.
//!
//! A crash leaves whole transactions only. With [`Durability::Normal`] a power loss may take back the newest ones
//! on SQLite, which the store can prove again.
//!
//! # Cancel safety
//! A dropped call rolls its transaction back. A dropped commit may or may not have happened.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{AnyArguments, AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AnyPool, Executor as _, Transaction};

use crate::{Error, Result, migrations};

/// How long a SQLite writer waits for another. Below the default deadline, so that "busy" is told from "silent".
const SQLITE_BUSY: Duration = Duration::from_secs(5);

/// How much a commit waits for on SQLite. PostgreSQL's own settings decide there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A commit survives a power loss (`synchronous = full`).
    #[default]
    Full,
    /// A commit survives a crash of the process; a power loss may take back the newest (`synchronous = normal`).
    Normal,
}

/// How the catalog is opened.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What a commit waits for.
    pub durability: Durability,
    /// The longest any one call may take, waiting for a connection included.
    pub deadline: Duration,
    /// The most connections at once.
    pub connections: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { durability: Durability::Full, deadline: Duration::from_secs(10), connections: 4 }
    }
}

/// A SQLite file as it was when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OpenFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Which dialect of transaction start the catalog takes; queries are the same for both.
#[derive(Debug, Clone)]
enum Home {
    Sqlite(Arc<OpenFile>),
    Postgres,
}

/// An open catalog. Clones share their connections.
#[derive(Clone)]
pub struct Catalog {
    pool: AnyPool,
    home: Home,
    address: Arc<str>,
    deadline: Duration,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The pool's own notation would show the address with its password.
        f.debug_struct("Catalog").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A transaction of the catalog. Dropped without [`Txn::commit`], it leaves nothing behind.
pub struct Txn {
    inner: Transaction<'static, Any>,
    deadline: Duration,
}

impl std::fmt::Debug for Txn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Txn").finish_non_exhaustive()
    }
}

/// A query with its values bound.
pub(crate) type Bound = Query<'static, Any, AnyArguments>;

/// Runs one `*_in_txn` function in a transaction of its own, within the catalog's deadline.
macro_rules! in_own_txn {
    ($catalog:expr, $function:ident($($argument:expr),*)) => {
        $catalog
            .bounded(stringify!($function), async {
                let mut txn = $catalog.begin_unbounded().await?;
                let answer = $function(&mut txn, $($argument),*).await?;
                txn.commit_unbounded().await?;
                Ok(answer)
            })
            .await
    };
}

/// Runs one reading `*_in_txn` function on one snapshot of the catalog, within its deadline.
macro_rules! in_snapshot {
    ($catalog:expr, $function:ident($($argument:expr),*)) => {
        $catalog
            .bounded(stringify!($function), async {
                let mut txn = $catalog.begin_snapshot_unbounded().await?;
                $function(&mut txn, $($argument),*).await
            })
            .await
    };
}
pub(crate) use {in_own_txn, in_snapshot};

impl Catalog {
    /// Opens the catalog at `url` and brings its tables to this version.
    ///
    /// `sqlite:PATH` creates the file, readable by its owner only, when there is none; its folder must exist.
    /// `postgresql://...` (or `postgres://`) names a database that exists.
    ///
    /// # Errors
    /// When the address is refused, the catalog does not answer in time, or holds a newer version's tables.
    pub async fn open(url: &str, options: Options) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let address = without_secrets(url);
        let refused = |reason| Error::Address { address: address.clone(), reason };
        let (home, connect_to) = if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.starts_with(':') || path.contains('?') {
                return Err(refused("expected sqlite:PATH, the path of a file and nothing after it"));
            }
            let file = file_open(Path::new(path))?;
            let text = file.path.to_str().ok_or_else(|| refused("the path is not UTF-8"))?;
            let connect_to = format!("sqlite:{}?mode=rw", percent_encoded(text));
            (Home::Sqlite(Arc::new(file)), connect_to)
        } else if url.starts_with("postgresql://") || url.starts_with("postgres://") {
            (Home::Postgres, url.to_owned())
        } else {
            return Err(refused("expected sqlite:PATH or postgresql://..."));
        };
        let connect_to: AnyConnectOptions = connect_to.parse().map_err(|_| refused("it is not a URL"))?;

        let set_up = set_up_statements(&home, options);
        let pool = AnyPoolOptions::new()
            .max_connections(options.connections.max(1))
            .acquire_timeout(options.deadline)
            .after_connect(move |connection, _| {
                let set_up = set_up.clone();
                Box::pin(async move {
                    for statement in set_up {
                        connection.execute(sqlx::AssertSqlSafe(statement)).await?;
                    }
                    Ok(())
                })
            })
            .connect_lazy_with(connect_to);
        let catalog = Self { pool, home, address: address.into(), deadline: options.deadline };
        catalog.bounded("open", catalog.migrate()).await?;
        Ok(catalog)
    }

    /// The address without its secrets, for messages.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Ends all connections. Calls made afterwards fail.
    pub async fn close(&self) {
        // A server that does not answer must not hold up the shutdown.
        let _ = tokio::time::timeout(self.deadline, self.pool.close()).await;
    }

    /// Begins a transaction that writes. On SQLite it is the only one until it ends.
    ///
    /// # Errors
    /// When no connection or no write lock was to be had in time.
    pub async fn begin(&self) -> Result<Txn> {
        self.bounded("begin", self.begin_unbounded()).await
    }

    /// Begins a transaction that reads one unchanging state of the catalog.
    pub(crate) async fn begin_snapshot_unbounded(&self) -> Result<Txn> {
        let start = match &self.home {
            Home::Sqlite(_) => "begin",
            Home::Postgres => "begin isolation level repeatable read read only",
        };
        self.begin_with(start).await
    }

    pub(crate) async fn begin_unbounded(&self) -> Result<Txn> {
        let start = match &self.home {
            Home::Sqlite(_) => "begin immediate",
            Home::Postgres => "begin",
        };
        self.begin_with(start).await
    }

    async fn begin_with(&self, start: &'static str) -> Result<Txn> {
        self.still_there()?;
        let inner =
            self.pool.begin_with(start).await.map_err(|source| Error::Query { query: "begin", source })?;
        Ok(Txn { inner, deadline: self.deadline })
    }

    /// Waits for `work`, but no longer than the deadline.
    pub(crate) async fn bounded<T>(
        &self,
        query: &'static str,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let deadline = self.deadline;
        // On the heap: callers await these deep inside their own loops.
        tokio::time::timeout(deadline, Box::pin(work))
            .await
            .unwrap_or(Err(Error::Deadline { query, deadline }))
    }

    /// A deleted SQLite file stays writable for whoever has it open, and everything written to it is lost.
    fn still_there(&self) -> Result<()> {
        let Home::Sqlite(file) = &self.home else { return Ok(()) };
        match file_identity(&file.path) {
            Ok(now) if now == **file => Ok(()),
            Ok(_) => Err(Error::Gone { path: file.path.clone() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::Gone { path: file.path.clone() })
            }
            Err(source) => Err(Error::File { path: file.path.clone(), source }),
        }
    }

    async fn migrate(&self) -> Result<()> {
        let unreachable = |source| Error::Connect { address: self.address.to_string(), source };
        let refused = |source| Error::Migrate { address: self.address.to_string(), source: Box::new(source) };
        match &self.home {
            Home::Sqlite(_) => {
                let mut txn = self.pool.begin_with("begin immediate").await.map_err(unreachable)?;
                migrations::run(&mut txn).await.map_err(refused)?;
                txn.commit().await.map_err(unreachable)
            }
            Home::Postgres => {
                let mut connection = self.pool.acquire().await.map_err(unreachable)?;
                migrations::run(&mut connection).await.map_err(refused)
            }
        }
    }
}

impl Txn {
    /// Makes the transaction's writes lasting and visible.
    ///
    /// # Errors
    /// When the catalog refused, or did not answer in time: then it is not known whether they are.
    pub async fn commit(self) -> Result<()> {
        let deadline = self.deadline;
        tokio::time::timeout(deadline, self.commit_unbounded())
            .await
            .unwrap_or(Err(Error::Deadline { query: "commit", deadline }))
    }

    pub(crate) async fn commit_unbounded(self) -> Result<()> {
        self.inner.commit().await.map_err(|source| Error::Query { query: "commit", source })
    }

    /// Runs a statement; the count of rows it changed.
    pub(crate) async fn execute(&mut self, query: &'static str, bound: Bound) -> Result<u64> {
        let connection: &mut AnyConnection = &mut self.inner;
        let done = within(self.deadline, query, bound.execute(connection)).await?;
        Ok(done.rows_affected())
    }

    /// All rows of a query. Each query bounds their number itself.
    pub(crate) async fn rows(&mut self, query: &'static str, bound: Bound) -> Result<Vec<AnyRow>> {
        let connection: &mut AnyConnection = &mut self.inner;
        within(self.deadline, query, bound.fetch_all(connection)).await
    }

    /// The first row of a query, when there is one.
    pub(crate) async fn row(&mut self, query: &'static str, bound: Bound) -> Result<Option<AnyRow>> {
        let connection: &mut AnyConnection = &mut self.inner;
        within(self.deadline, query, bound.fetch_optional(connection)).await
    }
}

async fn within<T>(
    deadline: Duration,
    query: &'static str,
    work: impl Future<Output = std::result::Result<T, sqlx::Error>>,
) -> Result<T> {
    match tokio::time::timeout(deadline, work).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(Error::Query { query, source }),
        Err(_) => Err(Error::Deadline { query, deadline }),
    }
}

/// What each new connection is told first. The texts hold numbers of ours only.
fn set_up_statements(home: &Home, options: Options) -> Vec<String> {
    let milliseconds = options.deadline.as_millis().clamp(1, i32::MAX as u128);
    match home {
        Home::Sqlite(_) => {
            let busy = SQLITE_BUSY.as_millis().min(milliseconds);
            let synchronous = match options.durability {
                Durability::Full => "full",
                Durability::Normal => "normal",
            };
            // The busy timeout comes first: switching to WAL needs the lock that another opener may hold.
            vec![
                format!("pragma busy_timeout = {busy}"),
                "pragma journal_mode = wal".to_owned(),
                format!("pragma synchronous = {synchronous}"),
                "pragma foreign_keys = on".to_owned(),
            ]
        }
        // The server gives a statement up itself, so that a cancelled call does not go on there.
        Home::Postgres => vec![
            format!("set statement_timeout = {milliseconds}"),
            format!("set idle_in_transaction_session_timeout = {}", milliseconds.saturating_mul(6)),
        ],
    }
}

/// The file at `path`, created for its owner only when there was none.
fn file_open(path: &Path) -> Result<OpenFile> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let path = fs::canonicalize(path).map_err(failed)?;
    file_identity(&path).map_err(failed)
}

fn file_identity(path: &Path) -> io::Result<OpenFile> {
    let metadata = fs::metadata(path)?;
    Ok(OpenFile { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
}

/// The path as it may stand in a URL.
fn percent_encoded(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// The address without user information and parameters, either of which may hold a secret.
pub(crate) fn without_secrets(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        // Without an authority there is no password; a parameter might still be one.
        return url.split(['?', '#']).next().unwrap_or_default().to_owned();
    };
    // An unescaped `?` before an `@` may stand in the password or begin the parameters: then nothing is shown.
    let rest = match rest.rsplit_once('@') {
        Some((before, _)) if before.contains(['?', '#']) => "(hidden)",
        Some((_, after)) => after,
        None => rest,
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_an_address_that_may_be_secret_is_shown() {
        for (url, shown) in [
            ("postgresql://me:s3cret@db:5432/f?sslmode=require", "postgresql://db:5432/f"),
            ("postgresql://me:s3@cret@db/f", "postgresql://db/f"),
            ("postgresql://me:s3/c?r@db/f", "postgresql://(hidden)"),
            ("postgresql:///f?host=/run&password=s3cret", "postgresql:///f"),
            ("postgresql://db/f?password=a@b", "postgresql://(hidden)"),
            ("s3://bucket/prefix", "s3://bucket/prefix"),
            ("sqlite:farshore.db", "sqlite:farshore.db"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[test]
    fn a_path_reads_back_from_its_url() {
        assert_eq!(percent_encoded("/a b/ü?%.db"), "/a%20b/%C3%BC%3F%25.db");
    }
}
