//! From the configuration to the crates' own types: the one place that knows both.
//!
//! What always holds: secrets are read here, when they are needed, and handed on in types that do not print them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farshore_catalog::Catalog;
use farshore_engines::postgres::wire::{ConnectParams, Password};
use farshore_journal::format::object;
use farshore_journal::format::{Recipients, SigningKey, Unlock, VerifyKeys};
use farshore_journal::registry::Repository;
use farshore_journal::store::{self, ObjectStore, StoreError, StoreOptions};
use farshore_journal::writer::WriterOptions;
use farshore_journal::{DatabaseName, JournalError};
use farshore_shipper::founding;
use farshore_shipper::pipeline::heads::{self, Signing};

use crate::config::address::CatalogUrl;
use crate::config::secret::SecretSource;
use crate::config::{Compression, Config, DatabaseConfig, EngineConfig, StoreConfig, StoreName, protection};
use crate::message::{Code, OperatorMessage, Safe, with_causes};

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To read only.
    Read,
    /// To ship into. A directory that is not there is not made: a mount that is away must not become a store on another disk.
    Write,
    /// To delete what was merged; nothing is made.
    Tidy,
    /// To append to what is there.
    Append,
}

fn nothing_begun() -> Safe {
    Safe::Known("nothing was begun; what is stored is untouched".to_owned())
}

pub(crate) fn secret(source: &SecretSource) -> Result<String, OperatorMessage> {
    source.read().map(|secret| secret.expose().to_owned()).map_err(|why| {
        OperatorMessage::new(
            Code::SecretUnreadable,
            format!("{why}"),
            nothing_begun(),
            format!("make {} readable for this user, with one line in it", source.origin()),
        )
    })
}

/// How a store of the configuration is opened, later and as often as it takes: one that is away now may come back.
///
/// # Errors
/// When a secret cannot be read or the address cannot be used: waiting does not mend that.
pub fn opener(
    config: &Config,
    name: &StoreName,
    purpose: Purpose,
) -> Result<(founding::Open, String), OperatorMessage> {
    let settings = config.stores.get(name).ok_or_else(|| no_such_store(name))?;
    let url = settings.url.to_string();
    let options = store_options(settings, purpose)?;
    if let Err(why @ (StoreError::Settings { .. } | StoreError::Key(_))) = store::open(&url, &options) {
        return Err(store_message(name, &url, &why));
    }
    let address = url.clone();
    Ok((Arc::new(move || store::open(&address, &options)), url))
}

/// As [`opener`], and nothing is opened to see whether it can be: whoever opens it says so.
///
/// # Errors
/// When a secret cannot be read.
pub fn unopened(
    config: &Config,
    name: &StoreName,
    purpose: Purpose,
) -> Result<(founding::Open, String), OperatorMessage> {
    let settings = config.stores.get(name).ok_or_else(|| no_such_store(name))?;
    let (url, options) = (settings.url.to_string(), store_options(settings, purpose)?);
    let address = url.clone();
    Ok((Arc::new(move || store::open(&address, &options)), url))
}

fn no_such_store(name: &StoreName) -> OperatorMessage {
    OperatorMessage::new(
        Code::StoreUnusable,
        format!("the store {name} is not in the configuration"),
        nothing_begun(),
        format!("add a [stores.{name}] table"),
    )
}

/// A store of the configuration.
///
/// # Errors
/// When a secret cannot be read or the address cannot be used.
pub fn open_store(
    config: &Config,
    name: &StoreName,
    purpose: Purpose,
) -> Result<(Arc<dyn ObjectStore>, String), OperatorMessage> {
    let settings = config.stores.get(name).ok_or_else(|| no_such_store(name))?;
    let url = settings.url.to_string();
    let opened = store::open(&url, &store_options(settings, purpose)?);
    let store = opened.map_err(|why| store_message(name, &url, &why))?;
    Ok((store, url))
}

fn store_options(settings: &StoreConfig, purpose: Purpose) -> Result<StoreOptions, OperatorMessage> {
    let mut options = match purpose {
        Purpose::Read => StoreOptions::new(),
        Purpose::Write | Purpose::Append | Purpose::Tidy => StoreOptions::for_writing(),
    };
    if let Some(endpoint) = &settings.endpoint {
        options = options.with("endpoint", endpoint);
        // An endpoint of one's own without TLS is for stores on the same machine or a protected network.
        if endpoint.starts_with("http://") {
            options = options.with("allow_http", "true");
        }
    }
    if let Some(region) = &settings.region {
        options = options.with("region", region);
    }
    if let Some(key) = &settings.access_key_id {
        options = options.with("access_key_id", key);
    }
    if let Some(source) = &settings.secret_access_key {
        options = options.with("secret_access_key", secret(source)?);
    }
    if let Some(files) = &settings.receiver {
        options = options
            .with("tls_ca", files.ca.display().to_string())
            .with("tls_certificate", files.own.certificate.display().to_string())
            .with("tls_key", files.own.key.display().to_string());
    }
    if let Some(path) = &settings.credentials_file {
        options = options.with("service_account", path.display().to_string());
    }
    Ok(options)
}

/// What a store's failure means to a DBA who was about to use it.
pub fn store_message(name: &StoreName, url: &str, why: &StoreError) -> OperatorMessage {
    OperatorMessage::new(
        Code::StoreUnusable,
        format!("the store {name} ({url}) cannot be used: {why}"),
        Safe::Unknown("what it holds could not be looked at".to_owned()),
        "mend what it says, then `farshore check`",
    )
}

/// A store that was founded, to be read.
///
/// # Errors
/// When it cannot be opened or was never founded.
pub async fn repository(config: &Config, name: &StoreName) -> Result<Repository, OperatorMessage> {
    repository_for(config, name, Purpose::Read).await
}

/// A store that was founded, for something.
///
/// # Errors
/// As [`repository`].
pub async fn repository_for(
    config: &Config,
    name: &StoreName,
    purpose: Purpose,
) -> Result<Repository, OperatorMessage> {
    let (store, url) = open_store(config, name, purpose)?;
    Repository::open(store).await.map_err(|why| unread_message(name, &url, &why))
}

/// What it means that the record of a store does not read, or cannot be read.
pub fn unread_message(name: &StoreName, url: &str, why: &JournalError) -> OperatorMessage {
    OperatorMessage::new(
        Code::StoreUnusable,
        format!("the store {name} ({url}) cannot be read: {why}"),
        Safe::Unknown("what it holds could not be looked at".to_owned()),
        "check its address; a store is founded by the first `farshore run`",
    )
}

/// The private keys with which a store's journal is opened; none where no identity file is configured.
///
/// # Errors
/// When the file does not read.
pub fn unlock(settings: &StoreConfig) -> Result<Unlock, OperatorMessage> {
    let Some(path) = &settings.identity_file else { return Ok(Unlock::none()) };
    let wrong = |why: String| {
        OperatorMessage::new(
            Code::SecretUnreadable,
            format!("the identity file {} does not read: {why}", path.display()),
            nothing_begun(),
            "name a file with the age private key that the journal is encrypted for",
        )
    };
    let text = std::fs::read_to_string(path).map_err(|why| wrong(why.to_string()))?;
    Unlock::parse(&text).map_err(|why| wrong(why.to_string()))
}

/// The key that signs a database's heads, read now.
///
/// # Errors
/// In words, when it does not read, or nobody who has this configuration would believe what it signs.
pub fn signing_key(path: &Path, pinned: &VerifyKeys) -> Result<SigningKey, String> {
    let text =
        std::fs::read_to_string(path).map_err(|why| format!("{} does not read: {why}", path.display()))?;
    let key = SigningKey::parse(&text).map_err(|why| format!("{} does not read: {why}", path.display()))?;
    match pinned.is_empty() || pinned.contains(&key.public()) {
        true => Ok(key),
        false => Err(format!("the public half of {} is not among verify_keys", path.display())),
    }
}

/// How a database's heads are signed; `None` where no key is configured. Nothing is read yet: a key that is not there stops no
/// shipping. `catalog` is what knows heads outside the store.
pub fn signing(settings: &DatabaseConfig, catalog: Option<&Catalog>) -> Option<Signing> {
    let (path, pinned) = (settings.signing_key.clone()?, settings.verify_keys.clone());
    Some(Signing {
        pinned: pinned.clone(),
        retired: settings.retired_keys.clone(),
        catalog: catalog.cloned(),
        key: Arc::new(move || signing_key(&path, &pinned)),
        every: heads::EVERY,
    })
}

/// How a database's servers are reached.
///
/// # Errors
/// When it is not a PostgreSQL, its address does not read, or its password cannot be read.
pub fn connect_params(
    name: &DatabaseName,
    settings: &DatabaseConfig,
) -> Result<ConnectParams, OperatorMessage> {
    let EngineConfig::Postgres { url, password, .. } = &settings.engine else {
        return Err(OperatorMessage::not_built("points mark (of a SQLite database)"));
    };
    let mut params: ConnectParams = url.as_str().parse().map_err(|why| {
        OperatorMessage::new(
            Code::ConfigInvalid,
            format!("the url of {name} cannot be used: {why}"),
            nothing_begun(),
            "correct it in the configuration",
        )
    })?;
    if let Some(source) = password {
        params = params.with_password(Password::new(secret(source)?));
    }
    Ok(params.with_application_name(format!("farshore {name}")))
}

/// How a database's servers are reached for the log of one of its stores: as a standby of its own, where commits wait for it.
///
/// # Errors
/// As [`connect_params`].
pub fn stream_params(
    name: &DatabaseName,
    settings: &DatabaseConfig,
    store: &StoreName,
) -> Result<ConnectParams, OperatorMessage> {
    let params = connect_params(name, settings)?;
    Ok(match settings.protection.reported().holds_commits() {
        true => params.with_application_name(protection::standby_name(settings.protection, name, store)),
        false => params,
    })
}

/// How a database's journal is written into a store.
///
/// # Errors
/// When a recipient is not an age public key.
pub fn writer_options(
    settings: &DatabaseConfig,
    store: &StoreConfig,
) -> Result<WriterOptions, OperatorMessage> {
    let recipients = Recipients::parse(store.recipients.iter().map(String::as_str)).map_err(|why| {
        OperatorMessage::new(
            Code::ConfigInvalid,
            format!("recipients of a store: {why}"),
            nothing_begun(),
            "write the public half of an age key pair: it begins with age1",
        )
    })?;
    Ok(WriterOptions {
        compression: compression(settings),
        recipients,
        segment_bytes: 16 << 20,
        host: node(),
    })
}

/// How a database's objects are compressed.
pub fn compression(settings: &DatabaseConfig) -> object::Compression {
    match settings.compression {
        Compression::Zstd1 => object::Compression::Zstd(1),
        Compression::Zstd3 => object::Compression::Zstd(3),
        Compression::None => object::Compression::None,
    }
}

/// The catalog, open.
///
/// # Errors
/// When it cannot be opened; shipping and restores go on without it.
pub async fn catalog(config: &Config) -> Result<Catalog, OperatorMessage> {
    // Opening one would make it, for whoever asks: a file of root's would shut the service out.
    if let CatalogUrl::Sqlite(path) = &config.catalog
        && catalog_is_absent(config)
    {
        return Err(OperatorMessage::new(
            Code::StatusUnknown,
            format!("there is no catalog at {}", path.display()),
            Safe::Unknown("the stores were not looked at".to_owned()),
            "start `farshore run`, which makes it, or `farshore catalog rebuild` after it was lost",
        ));
    }
    catalog_made(config).await
}

/// Whether there is no catalog yet, or no more.
pub fn catalog_is_absent(config: &Config) -> bool {
    matches!(&config.catalog, CatalogUrl::Sqlite(path) if matches!(path.try_exists(), Ok(false)))
}

/// The catalog, brought to this version's tables; one that is not there is made.
///
/// # Errors
/// As [`catalog`].
pub async fn catalog_made(config: &Config) -> Result<Catalog, OperatorMessage> {
    let catalog = unopened_catalog(config)?;
    catalog.renew().await.map_err(|why| catalog_away(&why))?;
    Ok(catalog)
}

/// The catalog, of which nothing was asked yet: for the service, which opens it when it can.
///
/// # Errors
/// When its password cannot be read or its address cannot be used.
pub fn unopened_catalog(config: &Config) -> Result<Catalog, OperatorMessage> {
    let url = match &config.catalog {
        CatalogUrl::Sqlite(path) => format!("sqlite:{}", path.display()),
        CatalogUrl::Postgres(url) => match &config.catalog_password {
            None => url.as_str().to_owned(),
            Some(source) => with_password(url.as_str(), &secret(source)?),
        },
    };
    Catalog::unopened(&url, farshore_catalog::Options::default()).map_err(|why| catalog_away(&why))
}

/// What it means that the catalog cannot be opened.
pub fn catalog_away(why: &farshore_catalog::Error) -> OperatorMessage {
    OperatorMessage::new(
        Code::CatalogAway,
        format!("the catalog cannot be opened: {}", with_causes(why)),
        Safe::Known("the stores hold everything; shipping and restores do not need the catalog".to_owned()),
        "mend what it says, or `farshore catalog rebuild` into a new one",
    )
}

/// The address with a password, percent-encoded, behind the user's name.
fn with_password(url: &str, password: &str) -> String {
    let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
    match url.split_once("://").map(|(scheme, rest)| (scheme, rest.split_once('@'))) {
        Some((scheme, Some((user, rest)))) => format!("{scheme}://{user}:{encoded}@{rest}"),
        _ => url.to_owned(),
    }
}

/// How often a SQLite database is looked at, for a flush interval: often enough that looking adds little to it.
fn look_every(flush: Duration) -> Duration {
    (flush / 4).clamp(Duration::from_millis(2), Duration::from_millis(20))
}

/// How a SQLite database is followed for one store.
///
/// # Errors
/// When this program cannot be found, which is started for it.
pub fn follow(
    config: &Config,
    name: &DatabaseName,
    path: &Path,
    store: &StoreName,
) -> Result<farshore_engines::sqlite::stream::Settings, OperatorMessage> {
    let program = std::env::current_exe().map_err(|why| {
        OperatorMessage::new(
            Code::Unexpected,
            format!("farshore's own program cannot be found: {why}"),
            nothing_begun(),
            "start it by its full path",
        )
    })?;
    let billing = config.stores.get(store).map(StoreConfig::billing);
    let interval = config
        .databases
        .get(name)
        .zip(billing)
        .map_or(Duration::from_millis(200), |(settings, billing)| settings.flush_plan(billing).interval);
    Ok(farshore_engines::sqlite::stream::Settings {
        path: path.to_owned(),
        program: (program, vec![FOLLOW.to_owned()]),
        spool: config.service.room(name).join(format!("{store}.spool")),
        every: look_every(interval),
        wal_limit: None,
    })
}

/// The word by which this program is told to follow a SQLite database, as a process of its own.
pub const FOLLOW: &str = "follow-sqlite";

/// This machine's name.
pub fn node() -> String {
    let named = std::fs::read_to_string("/proc/sys/kernel/hostname");
    named.map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_put_behind_the_user_whatever_letters_it_has() {
        let url = with_password("postgresql://farshore@db/catalog", "p@ss/1");
        assert_eq!(url, "postgresql://farshore:%70%40%73%73%2F%31@db/catalog");
    }
}
