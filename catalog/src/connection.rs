//! The open catalog: its connections, its deadline, its transactions.
//!
//! What always holds: each statement, and each call as a whole, ends within the deadline; a write on SQLite takes
//! the write lock at its start (`begin immediate`), so that two writers wait for each other instead of failing
//! half-way; nothing is written to a SQLite file that is no longer the one at its path. [`Catalog::renew`] opens the one
//! that is there now, for every clone; what was not told meanwhile is counted ([`Catalog::untold`]), so that whoever can
//! prove it anew knows that it must.
//!
//! A crash leaves whole transactions only. With [`Durability::Normal`] a power loss may take back the newest ones
//! on SQLite, which the store can prove again.
//!
//! # Cancel safety
//! A dropped call rolls its transaction back. A dropped commit may or may not have happened.

mod address;
mod file;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sqlx::any::{AnyArguments, AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AnyPool, Executor as _, Transaction, query};

use self::address::percent_encoded;
pub(crate) use self::address::without_secrets;
use self::file::OpenFile;
use crate::row::Read as _;
use crate::{Error, Result, Time, migrations};

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

/// Where a catalog is.
#[derive(Debug, Clone)]
enum Place {
    Sqlite(PathBuf),
    /// The address with its secrets.
    Postgres(String),
}

/// Connections to the catalog, and the file behind them where it is one.
struct Opened {
    pool: AnyPool,
    file: Option<OpenFile>,
}

/// The catalog's one state in this process.
struct Shared {
    place: Place,
    address: String,
    options: Options,
    /// Replaced as a whole; `None` until it was opened once.
    opened: RwLock<Option<Arc<Opened>>>,
    /// One at a time opens it anew.
    renewing: tokio::sync::Mutex<()>,
    /// Writes that began and were not committed.
    untold: Arc<AtomicU64>,
    /// Statements that were asked.
    asked: Arc<AtomicU64>,
}

/// A catalog. Clones share their connections, and all of them see it when one opens it anew.
#[derive(Clone)]
pub struct Catalog {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The pool's own notation would show the address with its password.
        f.debug_struct("Catalog").field("address", &self.shared.address).finish_non_exhaustive()
    }
}

/// What opening a catalog anew came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// It is the one that was open, with this version's tables.
    Same,
    /// Another one is open now: what it holds is not what was written through this handle.
    Another,
}

/// Counts a write as untold unless it was committed.
struct Telling(Option<Arc<AtomicU64>>);

impl Telling {
    fn told(mut self) {
        self.0 = None;
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if let Some(untold) = &self.0 {
            untold.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A transaction of the catalog. Dropped without [`Txn::commit`], it leaves nothing behind.
pub struct Txn {
    inner: Transaction<'static, Any>,
    telling: Telling,
    asked: Arc<AtomicU64>,
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

/// As [`in_own_txn`], for what no store implies and so none can prove anew (jobs, nodes): that it was not told is for who told it to
/// know, and brings nobody to read the stores.
macro_rules! in_local_txn {
    ($catalog:expr, $function:ident($($argument:expr),*)) => {
        $catalog
            .bounded(stringify!($function), async {
                let mut txn = $catalog.begin_local_unbounded().await?;
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
pub(crate) use {in_local_txn, in_own_txn, in_snapshot};

async fn server_clock_in_txn(txn: &mut Txn) -> Result<Time> {
    let asked = query("select (extract(epoch from clock_timestamp()) * 1000000)::bigint as now_us");
    let row = txn.row("server_clock", asked).await?;
    row.ok_or_else(|| Error::corrupt("now_us", "no row"))?.time("now_us")
}

impl Catalog {
    /// Opens the catalog at `url` and brings its tables to this version.
    ///
    /// `sqlite:PATH` creates the file, readable by its owner only, when there is none; its folder must exist.
    /// `postgresql://...` (or `postgres://`) names a database that exists.
    ///
    /// # Errors
    /// When the address is refused, the catalog does not answer in time, or holds a newer version's tables.
    pub async fn open(url: &str, options: Options) -> Result<Self> {
        let catalog = Self::unopened(url, options)?;
        catalog.renew().await?;
        Ok(catalog)
    }

    /// The catalog at `url`, of which nothing is asked yet: every call fails until [`Self::renew`] opened it. For whoever must
    /// go on while the catalog is away.
    ///
    /// # Errors
    /// When the address is refused.
    pub fn unopened(url: &str, options: Options) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let address = without_secrets(url);
        let refused = |reason| Error::Address { address: address.clone(), reason };
        let place = if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.starts_with(':') || path.contains('?') {
                return Err(refused("expected sqlite:PATH, the path of a file and nothing after it"));
            }
            Place::Sqlite(path.into())
        } else if url.starts_with("postgresql://") || url.starts_with("postgres://") {
            let _readable: AnyConnectOptions = url.parse().map_err(|_| refused("it is not a URL"))?;
            Place::Postgres(url.to_owned())
        } else {
            return Err(refused("expected sqlite:PATH or postgresql://..."));
        };
        let shared = Shared {
            place,
            address,
            options,
            opened: RwLock::new(None),
            renewing: tokio::sync::Mutex::new(()),
            untold: Arc::new(AtomicU64::new(0)),
            asked: Arc::new(AtomicU64::new(0)),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Opens the catalog when it is not open, or when its file was deleted or replaced; a file that is gone is made anew.
    /// Its tables are brought to this version in any case. Every clone has the new one on `Ok`.
    ///
    /// # Errors
    /// As [`Self::open`]; what was open stays so, and gives its own errors.
    pub async fn renew(&self) -> Result<Renewal> {
        self.bounded("open", async {
            let _one = self.shared.renewing.lock().await;
            let former = self.current();
            match former.as_ref().map(|open| (open, open.still_there())) {
                Some((open, Ok(()))) => {
                    self.migrate(&open.pool).await?;
                    return Ok(Renewal::Same);
                }
                Some((open, Err(Error::Gone { .. }))) => {
                    // First of all, so that a file in the former one's place is not opened with what belongs to that one.
                    open.pool.close().await;
                    open.file.as_ref().map_or(Ok(()), OpenFile::clear_away)?;
                }
                Some((_, Err(why))) => return Err(why),
                None => {}
            }
            let mut opened = self.connect().await?;
            self.migrate(&opened.pool).await?;
            if let Some(file) = &mut opened.file {
                file.learn_companions();
            }
            *self.shared.opened.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(opened));
            Ok(Renewal::Another)
        })
        .await
    }

    /// Whether it is open and, as far as can be told without asking it, the one that was opened.
    ///
    /// # Errors
    /// [`Error::NotOpen`], or [`Error::Gone`] when its file was deleted or replaced.
    pub fn still_there(&self) -> Result<()> {
        self.open_one()?.still_there()
    }

    /// How many writes through this handle and its clones were begun and not committed: what they said is not in the catalog,
    /// or it is not known whether it is. It only rises.
    pub fn untold(&self) -> u64 {
        self.shared.untold.load(Ordering::Relaxed)
    }

    /// How many statements were asked through this handle and its clones, beside those that begin and end transactions. It only rises: whoever wants
    /// to know what something asks looks before and behind it.
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::Relaxed)
    }

    /// The address without its secrets, for messages.
    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// Ends all connections. Calls made afterwards fail.
    pub async fn close(&self) {
        let Some(open) = self.current() else { return };
        // A server that does not answer must not hold up the shutdown.
        let _ = tokio::time::timeout(self.shared.options.deadline, open.pool.close()).await;
    }

    fn current(&self) -> Option<Arc<Opened>> {
        self.shared.opened.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open_one(&self) -> Result<Arc<Opened>> {
        self.current().ok_or_else(|| Error::NotOpen { address: self.shared.address.clone() })
    }

    async fn connect(&self) -> Result<Opened> {
        let refused = |reason| Error::Address { address: self.shared.address.clone(), reason };
        let (file, connect_to) = match &self.shared.place {
            Place::Sqlite(path) => {
                let file = OpenFile::open(path).await?;
                let text = file.path().to_str().ok_or_else(|| refused("the path is not UTF-8"))?;
                let connect_to = format!("sqlite:{}?mode=rw", percent_encoded(text));
                (Some(file), connect_to)
            }
            Place::Postgres(url) => (None, url.clone()),
        };
        let connect_to: AnyConnectOptions = connect_to.parse().map_err(|_| refused("it is not a URL"))?;
        let options = self.shared.options;
        let set_up = set_up_statements(&self.shared.place, options);
        let mut pool = AnyPoolOptions::new()
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
            });
        if file.is_some() {
            // The last connection that ends takes the log beside the file with it, and the next one makes another: then a
            // log that a former file left could not be told from a new one's.
            pool = pool.idle_timeout(None).max_lifetime(None);
        }
        Ok(Opened { pool: pool.connect_lazy_with(connect_to), file })
    }

    /// Begins a transaction that writes. On SQLite it is the only one until it ends.
    ///
    /// # Errors
    /// When no connection or no write lock was to be had in time.
    pub async fn begin(&self) -> Result<Txn> {
        self.bounded("begin", self.begin_unbounded()).await
    }

    /// As [`Self::begin`], for what no store implies: that it was not committed brings nobody to read the stores.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub async fn begin_local(&self) -> Result<Txn> {
        self.bounded("begin", self.begin_local_unbounded()).await
    }

    /// The time by the clock that all who share this catalog have in common: the server's, or this machine's where it is a file.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn clock(&self) -> Result<Time> {
        match &self.shared.place {
            Place::Sqlite(_) => Ok(chrono::Utc::now()),
            Place::Postgres(_) => in_snapshot!(self, server_clock_in_txn()),
        }
    }

    /// Begins a transaction that reads one unchanging state of the catalog.
    pub(crate) async fn begin_snapshot_unbounded(&self) -> Result<Txn> {
        let start = match &self.shared.place {
            Place::Sqlite(_) => "begin",
            Place::Postgres(_) => "begin isolation level repeatable read read only",
        };
        self.begin_with(start, Telling(None)).await
    }

    pub(crate) async fn begin_unbounded(&self) -> Result<Txn> {
        self.begin_with(self.writing(), Telling(Some(Arc::clone(&self.shared.untold)))).await
    }

    /// Begins a transaction that writes what no store implies.
    pub(crate) async fn begin_local_unbounded(&self) -> Result<Txn> {
        self.begin_with(self.writing(), Telling(None)).await
    }

    fn writing(&self) -> &'static str {
        match &self.shared.place {
            Place::Sqlite(_) => "begin immediate",
            Place::Postgres(_) => "begin",
        }
    }

    async fn begin_with(&self, start: &'static str, telling: Telling) -> Result<Txn> {
        let open = self.open_one()?;
        open.still_there()?;
        let inner =
            open.pool.begin_with(start).await.map_err(|source| Error::Query { query: "begin", source })?;
        Ok(Txn {
            inner,
            telling,
            asked: Arc::clone(&self.shared.asked),
            deadline: self.shared.options.deadline,
        })
    }

    /// How SQLite goes about a statement, for tests that hold it to its indexes.
    #[cfg(test)]
    pub(crate) async fn plan_of(&self, statement: &str) -> String {
        use crate::row::Read as _;
        let mut txn = self.begin_snapshot_unbounded().await.unwrap();
        let explain = sqlx::query(sqlx::AssertSqlSafe(format!("explain query plan {statement}")));
        let rows = txn.rows("plan", explain).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.text("detail").unwrap()).collect();
        plan.join("\n")
    }

    /// Waits for `work`, but no longer than the deadline.
    pub(crate) async fn bounded<T>(
        &self,
        query: &'static str,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let deadline = self.shared.options.deadline;
        // On the heap: callers await these deep inside their own loops.
        tokio::time::timeout(deadline, Box::pin(work))
            .await
            .unwrap_or(Err(Error::Deadline { query, deadline }))
    }

    async fn migrate(&self, pool: &AnyPool) -> Result<()> {
        let address = || self.shared.address.clone();
        let unreachable = |source| Error::Connect { address: address(), source };
        let refused = |source| Error::Migrate { address: address(), source: Box::new(source) };
        match &self.shared.place {
            Place::Sqlite(_) => {
                if let Ok(mut connection) = pool.acquire().await
                    && migrations::is_current(&mut connection).await
                {
                    return Ok(());
                }
                let mut txn = pool.begin_with("begin immediate").await.map_err(unreachable)?;
                migrations::run(&mut txn).await.map_err(refused)?;
                txn.commit().await.map_err(unreachable)
            }
            Place::Postgres(_) => {
                let mut connection = pool.acquire().await.map_err(unreachable)?;
                migrations::run(&mut connection).await.map_err(refused)
            }
        }
    }
}

impl Opened {
    fn still_there(&self) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), OpenFile::still_there)
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
        self.inner.commit().await.map_err(|source| Error::Query { query: "commit", source })?;
        self.telling.told();
        Ok(())
    }

    /// Runs a statement; the count of rows it changed.
    pub(crate) async fn execute(&mut self, query: &'static str, bound: Bound) -> Result<u64> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let connection: &mut AnyConnection = &mut self.inner;
        let done = within(self.deadline, query, bound.execute(connection)).await?;
        Ok(done.rows_affected())
    }

    /// All rows of a query. Each query bounds their number itself.
    pub(crate) async fn rows(&mut self, query: &'static str, bound: Bound) -> Result<Vec<AnyRow>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let connection: &mut AnyConnection = &mut self.inner;
        within(self.deadline, query, bound.fetch_all(connection)).await
    }

    /// The first row of a query, when there is one.
    pub(crate) async fn row(&mut self, query: &'static str, bound: Bound) -> Result<Option<AnyRow>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
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
fn set_up_statements(place: &Place, options: Options) -> Vec<String> {
    let milliseconds = options.deadline.as_millis().clamp(1, i32::MAX as u128);
    match place {
        Place::Sqlite(_) => {
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
        Place::Postgres(_) => vec![
            format!("set statement_timeout = {milliseconds}"),
            format!("set idle_in_transaction_session_timeout = {}", milliseconds.saturating_mul(6)),
        ],
    }
}
