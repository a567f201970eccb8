//! `farshore.toml`, parsed at the border into types that cannot be wrong.
//!
//! What always holds: a [`Config`] names only stores that it defines; every path in it is absolute or starts at the
//! folder of the file; no secret stands in it as text; what is not built is refused, not ignored.
//!
//! The environment overrides one thing, secrets: `FARSHORE_DATABASES_<NAME>_PASSWORD`,
//! `FARSHORE_STORES_<NAME>_SECRET_ACCESS_KEY`, `FARSHORE_CATALOG_PASSWORD`, `FARSHORE_NOTIFY_<NAME>_SECRET` and `_URL`, with the name in capitals and `-` as
//! `_`. The environment wins over a file, a file over the URL. Every other key stands in the file alone, so that
//! one can read there what runs.

pub mod address;
pub mod compare;
pub mod diagnose;
mod document;
pub mod drill;
pub mod flush;
pub mod notify;
pub mod protection;
pub mod quantity;
pub mod receive;
pub mod retention;
pub mod schedule;
pub mod secret;
pub mod serve;
mod service;
pub mod spool;
mod sqlite;
pub mod throttle;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use farshore_engines::log::{POSTGRES, SQLITE};
use farshore_journal::DatabaseName;
use farshore_journal::format::{VerifyKey, VerifyKeys};
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use address::{CatalogUrl, DatabaseUrl, StoreUrl};
use compare::CompareConfig;
use diagnose::ConfigProblem;
use drill::DrillConfig;
use flush::{Billing, FlushPlan, flush_plan};
use notify::NotifyConfig;
pub use protection::Protection;
use quantity::{ByteCount, Rate, Span};
use receive::{ReceiveConfig, ReceiverFiles};
pub use retention::Retention;
use schedule::Schedules;
use secret::{Secret, SecretSource};
use serve::ServeConfig;
pub use service::{ServiceConfig, TlsFiles};

use self::spool::SpoolConfig;
use crate::throttles::rule::Rule;

/// The largest configuration file read, in bytes: thousands of databases fit, a wrong path does not.
const LARGEST_FILE_BYTES: u64 = 4 * 1024 * 1024;
const DEFAULT_CATALOG: &str = "sqlite:farshore.db";
/// From how much log on chunks are merged unless told otherwise: one of PostgreSQL's own log files.
const MERGE_AT: ByteCount = ByteCount::new(16 << 20);
/// Less is not worth an object; more is held in memory until it is merged.
const MERGE_AT_LEAST: ByteCount = ByteCount::new(64 << 10);
const MERGE_AT_MOST: ByteCount = ByteCount::new(64 << 20);

/// A store's name: 1 to 63 of `a-z 0-9 _ -`, as a database's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreName(String);

impl StoreName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for StoreName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The same letters as a database's name, for the same reason: both become parts of paths.
        text.parse::<DatabaseName>()
            .map(|_| Self(text.to_owned()))
            .map_err(|_| format!("`{text}` is not a store name (1 to 63 of a-z, 0-9, _ and -)"))
    }
}

impl<'de> Deserialize<'de> for StoreName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Which engine a database runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// PostgreSQL 14 to 18.
    Postgres,
    /// An SQLite file.
    Sqlite,
}

/// Which base backups refer to the blocks that earlier ones hold, in place of putting them again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refresh {
    /// Those that the service takes because a gap, or a promotion, left none that leads to now.
    #[default]
    AfterGaps,
    /// All that are not asked for as full ones.
    Always,
    /// None, and no digests of blocks are kept in the store.
    Never,
}

/// When a position counts as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durable {
    /// Every store has it.
    #[default]
    All,
    /// One store has it.
    Any,
    /// This many stores have it.
    AtLeast(NonZeroU8),
}

impl<'de> Deserialize<'de> for Durable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "\"all\", \"any\" or a whole number from 1 to 255")]
        enum Text {
            Word(String),
            Number(NonZeroU8),
        }
        match Text::deserialize(deserializer)? {
            Text::Word(word) if word == "all" => Ok(Self::All),
            Text::Word(word) if word == "any" => Ok(Self::Any),
            Text::Number(number) => Ok(Self::AtLeast(number)),
            Text::Word(_) => {
                Err(de::Error::custom("expected \"all\", \"any\" or a whole number from 1 to 255"))
            }
        }
    }
}

/// What happens when neither spool nor primary can keep more log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnFull {
    /// The primary keeps its log: nothing is lost, and its disk can fill until it stops.
    #[default]
    Hold,
    /// The primary's disk is saved: the log is let go, the gap is recorded, a new base backup follows.
    Bypass,
}

impl fmt::Display for OnFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hold => "hold",
            Self::Bypass => "bypass",
        })
    }
}

/// How journal bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Compression {
    /// zstd, level 1.
    #[default]
    #[serde(rename = "zstd:1")]
    Zstd1,
    /// zstd, level 3.
    #[serde(rename = "zstd:3")]
    Zstd3,
    /// None.
    #[serde(rename = "none")]
    None,
}

/// One store.
pub struct StoreConfig {
    /// Where it is.
    pub url: StoreUrl,
    /// Another server than the provider's own.
    pub endpoint: Option<String>,
    /// The provider's region.
    pub region: Option<String>,
    /// The public half of an access key.
    pub access_key_id: Option<String>,
    /// Its secret half.
    pub secret_access_key: Option<SecretSource>,
    /// A provider's credentials file (a Google service account).
    pub credentials_file: Option<PathBuf>,
    /// What a receiver is spoken to with; `None` for any other store.
    pub receiver: Option<ReceiverFiles>,
    /// Public age keys the journal is encrypted for; empty means not encrypted.
    pub recipients: Vec<String>,
    /// The private age key, where restores run.
    pub identity_file: Option<PathBuf>,
}

impl StoreConfig {
    /// What puts cost there.
    pub const fn billing(&self) -> Billing {
        self.url.billing()
    }
}

/// What is particular to a database's engine.
pub enum EngineConfig {
    /// A PostgreSQL cluster.
    Postgres {
        /// Where it is.
        url: DatabaseUrl,
        /// The role's password; `None` where the server asks for none.
        password: Option<SecretSource>,
        /// Where the server's programs are, for restores.
        bin_dir: Option<PathBuf>,
    },
    /// An SQLite file.
    Sqlite {
        /// The file.
        path: PathBuf,
        /// How large its own log may become while its store takes nothing; `None` with `on_full = "hold"`.
        wal_limit: Option<ByteCount>,
    },
}

impl EngineConfig {
    /// What the engine is called in stores.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Postgres { .. } => POSTGRES,
            Self::Sqlite { .. } => SQLITE,
        }
    }
}

/// One protected database.
pub struct DatabaseConfig {
    /// Its engine.
    pub engine: EngineConfig,
    /// Where its journal goes, at least one.
    pub stores: Vec<StoreName>,
    /// When a position counts as stored.
    pub durable: Durable,
    /// The most data, as time, that may be lost.
    pub rpo: Option<Span>,
    /// The most time to resume service.
    pub rto: Option<Span>,
    /// What a commit waits for.
    pub protection: Protection,
    /// The flush interval set by hand.
    pub flush_interval: Option<Span>,
    /// From how much log on stored chunks are merged into a segment.
    pub merge_at: ByteCount,
    /// What happens when no more log can be kept.
    pub on_full: OnFull,
    /// Which base backups refer to what earlier ones hold.
    pub refresh: Refresh,
    /// How its journal is compressed.
    pub compression: Compression,
    /// The private key that signs its journals' heads, where they are shipped; without one no heads are written.
    pub signing_key: Option<PathBuf>,
    /// The public keys whose heads count; without one none does.
    pub verify_keys: VerifyKeys,
    /// Public keys that signed once and count for nothing any more: their heads are no finding.
    pub retired_keys: VerifyKeys,
    /// What falls due by a clock.
    pub schedules: Schedules,
    /// Asked once a minute while the objective is known to hold.
    pub heartbeat: Option<SecretSource>,
    /// How drills are done.
    pub drill: DrillConfig,
    /// How its standbys are compared with it.
    pub compare: CompareConfig,
    /// What expiry keeps; `None`: all of it, for ever.
    pub retention: Option<Retention>,
    /// The most that goes to all its stores together, at all times; `None`: as much as they take.
    pub bandwidth: Option<Rate>,
    /// Where its log may be kept for stores that are away.
    pub spool: Option<SpoolConfig>,
    /// The rules that limit and tell.
    pub throttles: Vec<Rule>,
}

impl DatabaseConfig {
    /// How many stores must have a position for it to count as stored.
    pub fn required(&self) -> usize {
        match self.durable {
            Durable::All => self.stores.len(),
            Durable::Any => 1,
            Durable::AtLeast(count) => usize::from(count.get()),
        }
    }

    /// How often it is put into a store of this billing.
    pub fn flush_plan(&self, billing: Billing) -> FlushPlan {
        flush_plan(billing, self.rpo, self.flush_interval)
    }
}

/// The whole configuration.
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// Where the catalog is.
    pub catalog: CatalogUrl,
    /// The catalog's password.
    pub catalog_password: Option<SecretSource>,
    /// The stores by name.
    pub stores: BTreeMap<StoreName, StoreConfig>,
    /// The databases by name.
    pub databases: BTreeMap<DatabaseName, DatabaseConfig>,
    /// The service.
    pub service: ServiceConfig,
    /// Whom to tell.
    pub notify: NotifyConfig,
    /// Where journals are served to standbys; `None`: nowhere.
    pub serve: Option<ServeConfig>,
    /// Where other machines' journals are received; `None`: nowhere.
    pub receive: Option<ReceiveConfig>,
    /// What is accepted but should be better.
    pub warnings: Vec<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read configuration {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is wrong.
    #[error(transparent)]
    Invalid(#[from] ConfigProblem),
}

/// The secrets of an environment, by variable name.
pub type Environment = BTreeMap<String, Secret>;

/// The variables of this process that may matter: those that begin with `FARSHORE_`.
pub fn process_environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("FARSHORE_"))
        .map(|(name, value)| (name, Secret::new(value)))
        .collect()
}

/// Reads and judges a configuration file.
///
/// # Errors
/// When it cannot be read or is wrong; a wrong file is shown with line and caret.
pub fn load(path: &Path, environment: &Environment) -> Result<Config, ConfigError> {
    use std::io::Read;
    let fail = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(fail)?
        .take(LARGEST_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(fail)?;
    let whole =
        |what: &str| ConfigProblem { path: path.to_owned(), place: None, what: what.to_owned(), hint: None };
    if bytes.len() as u64 > LARGEST_FILE_BYTES {
        return Err(whole("larger than 4 MiB: not taken for a configuration").into());
    }
    let text = String::from_utf8(bytes).map_err(|_| whole("not UTF-8 text"))?;
    // Paths in it must keep their meaning when the working directory changes.
    let absolute = std::path::absolute(path).map_err(fail)?;
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    Ok(parse(path, folder, &text, environment)?)
}

/// Judges the text of a configuration file; relative paths start at `folder`.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(
    path: &Path,
    folder: &Path,
    text: &str,
    environment: &Environment,
) -> Result<Config, ConfigProblem> {
    let document: document::Document =
        toml::from_str(text).map_err(|error| ConfigProblem::of_toml(path, text, &error))?;
    let (warnings, variables, files) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    let may_expire = document.service.expire;
    let spools = BTreeSet::new();
    Judge { path, folder, text, environment, warnings, variables, files, spools, may_expire }.config(document)
}

/// Carries what every judgement needs.
struct Judge<'a> {
    path: &'a Path,
    folder: &'a Path,
    text: &'a str,
    environment: &'a Environment,
    warnings: Vec<String>,
    /// Every variable name that stands for a key, and what it stands for: two keys must not share one.
    variables: BTreeMap<String, String>,
    /// The SQLite files, and what each is called.
    files: BTreeMap<PathBuf, DatabaseName>,
    /// The directories of spools.
    spools: BTreeSet<PathBuf>,
    /// Whether the service may delete what no rule keeps.
    may_expire: bool,
}

impl Judge<'_> {
    fn config(mut self, document: document::Document) -> Result<Config, ConfigProblem> {
        let (catalog, catalog_password) = self.catalog(document.catalog)?;
        let mut stores = BTreeMap::new();
        for (name, store) in document.stores {
            let judged = self.store(&name, store)?;
            stores.insert(name, judged);
        }
        let mut databases = BTreeMap::new();
        for (name, database) in document.databases {
            let judged = self.database(&name, database, &stores)?;
            databases.insert(name, judged);
        }
        let service = self.service(document.service)?;
        let notify = self.notify(document.notify)?;
        let serve = self.serve(document.serve, &databases)?;
        let receive = self.receive(document.receive, &stores)?;
        self.warn_of_idle_variables();
        Ok(Config {
            path: self.path.to_owned(),
            catalog,
            catalog_password,
            stores,
            databases,
            service,
            notify,
            serve,
            receive,
            warnings: self.warnings,
        })
    }

    fn problem(&self, span: std::ops::Range<usize>, what: impl Into<String>) -> ConfigProblem {
        ConfigProblem::at(self.path, self.text, span, what)
    }

    /// Environment before file before URL.
    fn secret(
        &mut self,
        key: &str,
        span: std::ops::Range<usize>,
        file: Option<PathBuf>,
        in_url: Option<Secret>,
    ) -> Result<Option<SecretSource>, ConfigProblem> {
        let variable = variable_name(key);
        if let Some(other) = self.variables.insert(variable.clone(), key.to_owned()) {
            return Err(self
                .problem(span, format!("{key} and {other} would share the environment variable {variable}"))
                .hint("rename one of them"));
        }
        if in_url.is_some() {
            let better = format!("put it into a file named by `password_file`, or into {variable}");
            if file.is_some() {
                return Err(self
                    .problem(span, "both the url and `password_file` give a password")
                    .hint(better));
            }
            self.warnings.push(format!("{key} stands in the url in {}; {better}", self.path.display()));
        }
        let from_environment = self.environment.get(&variable).cloned();
        Ok(match (from_environment, file, in_url) {
            (Some(secret), _, _) => Some(SecretSource::Environment(variable, secret)),
            (None, Some(path), _) => Some(SecretSource::File(self.folder.join(path))),
            (None, None, Some(secret)) => Some(SecretSource::Url(secret)),
            (None, None, None) => None,
        })
    }

    fn catalog(
        &mut self,
        catalog: Option<document::Catalog>,
    ) -> Result<(CatalogUrl, Option<SecretSource>), ConfigProblem> {
        let (text, span, file) = match catalog {
            Some(catalog) => (catalog.url.get_ref().clone(), catalog.url.span(), catalog.password_file),
            None => (DEFAULT_CATALOG.to_owned(), 0..0, None),
        };
        let (url, in_url) = CatalogUrl::parse(&text, self.folder)
            .map_err(|error| self.problem(span.clone(), error.to_string()))?;
        let password = self.secret("catalog.password", span, file, in_url)?;
        Ok((url, password))
    }

    fn store(
        &mut self,
        name: &StoreName,
        store: Spanned<document::Store>,
    ) -> Result<StoreConfig, ConfigProblem> {
        let span = store.span();
        let store = store.into_inner();
        let url = StoreUrl::parse(store.url.get_ref(), self.folder)
            .map_err(|error| self.problem(store.url.span(), error.to_string()))?;
        for recipient in &store.recipients {
            // `AGE-SECRET-KEY-` here would hand the private key to the machine it must be kept from.
            if recipient.get_ref().starts_with("AGE-SECRET-KEY-") {
                let what = "a private age key among the recipients; the shipper must hold public keys only";
                let mut problem = self.problem(recipient.span(), what).hint("write its public key, age1...");
                problem.place.iter_mut().for_each(|place| place.text = None);
                return Err(problem);
            }
            if !recipient.get_ref().starts_with("age1") {
                return Err(self.problem(recipient.span(), "not a public age key; it begins with age1"));
            }
        }
        let receiver =
            self.receiver_files(&url, span.clone(), store.tls_ca, (store.tls_certificate, store.tls_key))?;
        let key = format!("stores.{name}.secret_access_key");
        let secret_access_key = self.secret(&key, span, store.secret_access_key_file, None)?;
        Ok(StoreConfig {
            url,
            endpoint: store.endpoint,
            region: store.region,
            access_key_id: store.access_key_id,
            secret_access_key,
            credentials_file: store.credentials_file.map(|path| self.folder.join(path)),
            receiver,
            recipients: store.recipients.into_iter().map(Spanned::into_inner).collect(),
            identity_file: store.identity_file.map(|path| self.folder.join(path)),
        })
    }

    fn database(
        &mut self,
        name: &DatabaseName,
        database: Spanned<document::Database>,
        stores: &BTreeMap<StoreName, StoreConfig>,
    ) -> Result<DatabaseConfig, ConfigProblem> {
        let span = database.span();
        let database = database.into_inner();
        self.judge_stores(&database.stores, stores)?;
        let chosen = database.stores.get_ref().len();
        let durable = database.durable.as_ref().map_or(Durable::All, |durable| *durable.get_ref());
        if let (Durable::AtLeast(number), Some(place)) = (durable, &database.durable)
            && usize::from(number.get()) > chosen
        {
            let what = format!("`durable` asks for {number} stores and {chosen} are named");
            return Err(self.problem(place.span(), what));
        }
        let engine = self.engine(name, span.clone(), &database)?;
        let written = protection::Written {
            mode: database.protection.as_ref(),
            bound: database.protection_bound.as_ref(),
            timeout: database.sync_timeout.as_ref(),
        };
        let protection = self.protection(name, database.engine, database.stores.get_ref(), written)?;
        let key = format!("databases.{name}.heartbeat");
        let heartbeat = self.address(
            &key,
            span.clone(),
            database.heartbeat_url.as_ref(),
            database.heartbeat_url_file.clone(),
        )?;
        let judged = DatabaseConfig {
            engine,
            stores: database.stores.into_inner().into_iter().map(Spanned::into_inner).collect(),
            durable,
            rpo: database.rpo,
            rto: database.rto,
            protection,
            flush_interval: database.flush_interval,
            merge_at: self.merge_at(database.merge_at.as_ref())?,
            on_full: database.on_full,
            refresh: database.refresh.as_ref().map_or(Refresh::default(), |refresh| *refresh.get_ref()),
            compression: database.compression,
            signing_key: database.signing_key.map(|path| self.folder.join(path)),
            verify_keys: self.public_keys(&database.verify_keys)?,
            retired_keys: self.public_keys(&database.retired_keys)?,
            schedules: self.schedules(database.schedule.as_ref(), database.retention.is_some())?,
            heartbeat,
            drill: self.drill(database.drill.as_ref(), database.engine)?,
            compare: self.compare(database.compare.as_ref(), database.engine)?,
            retention: self.retention(database.retention.as_ref())?,
            bandwidth: self.bandwidth(database.bandwidth.as_ref())?,
            spool: self.spool(database.spool.as_ref(), database.engine)?,
            throttles: self.throttles(&database.throttles)?,
        };
        if let (Some(spool), true) = (&judged.spool, judged.extends_spool())
            && spool.places.len() < 2
        {
            return Err(self
                .problem(span, "a throttle extends the spool, and it has no `extensions`")
                .hint("extensions = [{ directory = \"/mnt/more/orders\", limit = \"50GiB\" }]"));
        }
        if judged.spool.is_none() && judged.extends_spool() {
            return Err(self.problem(span, "a throttle extends the spool, and there is none"));
        }
        self.judge_retired(&database.retired_keys, &judged.verify_keys)?;
        if let (Some(lowest), false) = (judged.lowest_bandwidth(), judged.protection == Protection::Async) {
            self.warnings.push(format!(
                "databases.{name}: its commits wait for what is stored, and that for a limit of {lowest}: a load of more log runs at its pace"
            ));
        }
        for store in &judged.stores {
            let Some(billing) = stores.get(store).map(StoreConfig::billing) else { continue };
            if judged.flush_plan(billing).holds_rpo == Some(false) {
                self.warnings.push(format!(
                    "databases.{name}: its rpo leaves no time for a put into store {store}; it will not hold there"
                ));
            }
        }
        Ok(judged)
    }

    fn judge_retired(&self, retired: &[Spanned<String>], pinned: &VerifyKeys) -> Result<(), ConfigProblem> {
        let counts = |key: &&Spanned<String>| key.get_ref().parse().is_ok_and(|key| pinned.contains(&key));
        match retired.iter().find(counts) {
            None => Ok(()),
            Some(key) => Err(self
                .problem(key.span(), "this key is among verify_keys too")
                .hint("a key counts or it does not: take it out of one of the two")),
        }
    }

    fn public_keys(&self, named: &[Spanned<String>]) -> Result<VerifyKeys, ConfigProblem> {
        let keys = named.iter().map(|text| {
            text.get_ref().parse::<VerifyKey>().map_err(|_| {
                // What stands there may be a private key: it is not shown.
                let what = "not a public key of signed heads: 64 lower-case hexadecimal digits";
                let mut problem = self.problem(text.span(), what);
                problem.place.iter_mut().for_each(|place| place.text = None);
                problem.hint("`farshore init` writes it beside signing_key")
            })
        });
        Ok(VerifyKeys::new(keys.collect::<Result<_, _>>()?))
    }

    fn merge_at(&self, asked: Option<&Spanned<ByteCount>>) -> Result<ByteCount, ConfigProblem> {
        let Some(asked) = asked else { return Ok(MERGE_AT) };
        match MERGE_AT_LEAST <= *asked.get_ref() && *asked.get_ref() <= MERGE_AT_MOST {
            true => Ok(*asked.get_ref()),
            false => Err(self
                .problem(
                    asked.span(),
                    format!("`merge_at` lies between {MERGE_AT_LEAST} and {MERGE_AT_MOST}"),
                )
                .hint(format!("leave it out: {MERGE_AT} is right for most databases"))),
        }
    }

    fn judge_stores(
        &self,
        named: &Spanned<Vec<Spanned<StoreName>>>,
        stores: &BTreeMap<StoreName, StoreConfig>,
    ) -> Result<(), ConfigProblem> {
        if named.get_ref().is_empty() {
            return Err(self.problem(named.span(), "a database needs at least one store"));
        }
        for (at, store) in named.get_ref().iter().enumerate() {
            let name = store.get_ref();
            if !stores.contains_key(name) {
                let known: Vec<&str> = stores.keys().map(StoreName::as_str).collect();
                let hint = diagnose::nearest(name.as_str(), &known).map_or_else(
                    || format!("define it as [stores.{name}]"),
                    |near| format!("did you mean `{near}`?"),
                );
                return Err(self.problem(store.span(), format!("no store is named `{name}`")).hint(hint));
            }
            if named.get_ref()[..at].iter().any(|earlier| earlier.get_ref() == name) {
                return Err(self.problem(store.span(), format!("store `{name}` is named twice")));
            }
        }
        Ok(())
    }

    fn engine(
        &mut self,
        name: &DatabaseName,
        span: std::ops::Range<usize>,
        database: &document::Database,
    ) -> Result<EngineConfig, ConfigProblem> {
        match database.engine {
            EngineKind::Postgres => {
                if let Some(path) = &database.path {
                    return Err(
                        self.problem(path.span(), "`path` is for sqlite; a postgres database has a `url`")
                    );
                }
                let Some(url) = &database.url else {
                    return Err(self
                        .problem(span, format!("database `{name}` has no `url`"))
                        .hint("url = \"postgresql://farshore@HOST/postgres\""));
                };
                let (parsed, in_url) = DatabaseUrl::parse(url.get_ref())
                    .map_err(|error| self.problem(url.span(), error.to_string()))?;
                let key = format!("databases.{name}.password");
                let password_file = database.password_file.as_ref().map(|path| path.get_ref().clone());
                let password = self.secret(&key, url.span(), password_file, in_url)?;
                let bin_dir = database.bin_dir.as_ref().map(|path| self.folder.join(path.get_ref()));
                if let Some(limit) = &database.wal_limit {
                    return Err(self
                        .problem(limit.span(), "`wal_limit` is for sqlite")
                        .hint("a PostgreSQL server has a bound of its own: max_slot_wal_keep_size"));
                }
                Ok(EngineConfig::Postgres { url: parsed, password, bin_dir })
            }
            EngineKind::Sqlite => self.sqlite(name, span, database),
        }
    }

    /// A misspelt variable would leave a secret unset without a word.
    fn warn_of_idle_variables(&mut self) {
        for name in self.environment.keys() {
            const OURS: [&str; 5] = [
                "FARSHORE_DATABASES_",
                "FARSHORE_STORES_",
                "FARSHORE_CATALOG_",
                "FARSHORE_NOTIFY_",
                "FARSHORE_SERVE_",
            ];
            if OURS.iter().any(|start| name.starts_with(start)) && !self.variables.contains_key(name) {
                self.warnings
                    .push(format!("environment variable {name} stands for no secret of this configuration"));
            }
        }
    }
}

/// `databases.orders-eu.password` becomes `FARSHORE_DATABASES_ORDERS_EU_PASSWORD`.
pub fn variable_name(key: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("FARSHORE_{}", key.chars().map(plain).collect::<String>())
}
