//! `farshore.toml` as it is written: keys and plain values, nothing decided yet.
//!
//! What always holds: every table refuses unknown keys; a value that can be judged alone is parsed here, so that
//! the reader's error carries its line. What needs two keys to be judged is judged in `config.rs`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use farshore_journal::DatabaseName;
use serde::Deserialize;
use toml::Spanned;

use crate::config::notify::ChannelKind;
use crate::config::quantity::{ByteCount, Rate, Span};
use crate::config::{Compression, Durable, EngineKind, OnFull, Refresh, StoreName};

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) catalog: Option<Catalog>,
    #[serde(default)]
    pub(super) stores: BTreeMap<StoreName, Spanned<Store>>,
    #[serde(default)]
    pub(super) databases: BTreeMap<DatabaseName, Spanned<Database>>,
    #[serde(default)]
    pub(super) service: Service,
    #[serde(default)]
    pub(super) notify: BTreeMap<StoreName, Spanned<Channel>>,
    pub(super) serve: Option<Spanned<Serve>>,
    pub(super) receive: Option<Spanned<Receive>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Serve {
    pub(super) listen: Spanned<SocketAddr>,
    pub(super) tls_certificate: Option<Spanned<PathBuf>>,
    pub(super) tls_key: Option<Spanned<PathBuf>>,
    #[serde(default)]
    pub(super) users: BTreeMap<StoreName, Spanned<ServeUser>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServeUser {
    pub(super) password_file: Option<PathBuf>,
    pub(super) databases: Spanned<Vec<Spanned<DatabaseName>>>,
    pub(super) store: Option<Spanned<StoreName>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Receive {
    pub(super) listen: Spanned<SocketAddr>,
    pub(super) store: Spanned<StoreName>,
    pub(super) tls_certificate: Option<Spanned<PathBuf>>,
    pub(super) tls_key: Option<Spanned<PathBuf>>,
    pub(super) client_ca: PathBuf,
    #[serde(default)]
    pub(super) clients: BTreeMap<String, Spanned<ReceiveClient>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReceiveClient {
    pub(super) databases: Vec<DatabaseName>,
    #[serde(default)]
    pub(super) delete: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Channel {
    pub(super) kind: ChannelKind,
    pub(super) url: Option<Spanned<String>>,
    pub(super) url_file: Option<PathBuf>,
    pub(super) secret_file: Option<PathBuf>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) from: Option<Spanned<String>>,
    pub(super) to: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Catalog {
    pub(super) url: Spanned<String>,
    pub(super) password_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    pub(super) url: Spanned<String>,
    pub(super) endpoint: Option<String>,
    pub(super) region: Option<String>,
    pub(super) access_key_id: Option<String>,
    pub(super) secret_access_key_file: Option<PathBuf>,
    pub(super) credentials_file: Option<PathBuf>,
    pub(super) tls_ca: Option<PathBuf>,
    pub(super) tls_certificate: Option<Spanned<PathBuf>>,
    pub(super) tls_key: Option<Spanned<PathBuf>>,
    #[serde(default)]
    pub(super) recipients: Vec<Spanned<String>>,
    pub(super) identity_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Database {
    pub(super) engine: EngineKind,
    pub(super) url: Option<Spanned<String>>,
    pub(super) path: Option<Spanned<PathBuf>>,
    pub(super) password_file: Option<Spanned<PathBuf>>,
    pub(super) stores: Spanned<Vec<Spanned<StoreName>>>,
    pub(super) durable: Option<Spanned<Durable>>,
    pub(super) rpo: Option<Span>,
    pub(super) rto: Option<Span>,
    pub(super) protection: Option<Spanned<Protection>>,
    pub(super) protection_bound: Option<Spanned<ByteCount>>,
    pub(super) sync_timeout: Option<Spanned<Span>>,
    pub(super) flush_interval: Option<Span>,
    pub(super) merge_at: Option<Spanned<ByteCount>>,
    #[serde(default)]
    pub(super) on_full: OnFull,
    pub(super) refresh: Option<Spanned<Refresh>>,
    pub(super) wal_limit: Option<Spanned<ByteCount>>,
    pub(super) bin_dir: Option<Spanned<PathBuf>>,
    #[serde(default)]
    pub(super) compression: Compression,
    pub(super) signing_key: Option<PathBuf>,
    #[serde(default)]
    pub(super) verify_keys: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) retired_keys: Vec<Spanned<String>>,
    pub(super) schedule: Option<Schedule>,
    pub(super) heartbeat_url: Option<Spanned<String>>,
    pub(super) heartbeat_url_file: Option<PathBuf>,
    pub(super) drill: Option<Drill>,
    pub(super) compare: Option<Compare>,
    pub(super) retention: Option<Retention>,
    pub(super) bandwidth: Option<Spanned<Rate>>,
    pub(super) spool: Option<Spanned<Spool>>,
    #[serde(default)]
    pub(super) throttles: Vec<Spanned<Throttle>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spool {
    pub(super) directory: Spanned<PathBuf>,
    pub(super) limit: Spanned<ByteCount>,
    pub(super) above: Option<ByteCount>,
    #[serde(default)]
    pub(super) extensions: Vec<Spanned<SpoolExtension>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpoolExtension {
    pub(super) directory: Spanned<PathBuf>,
    pub(super) limit: Spanned<ByteCount>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Throttle {
    pub(super) name: Spanned<String>,
    pub(super) when: Option<Spanned<String>>,
    pub(super) days: Option<Spanned<String>>,
    pub(super) zone: Option<Spanned<String>>,
    pub(super) test: Option<Spanned<String>>,
    pub(super) actions: Spanned<Vec<Spanned<ThrottleAction>>>,
}

/// Exactly one of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ThrottleAction {
    pub(super) bandwidth: Option<Spanned<Rate>>,
    pub(super) log: Option<Spanned<String>>,
    pub(super) notify: Option<Spanned<bool>>,
    pub(super) run: Option<Spanned<Vec<String>>>,
    pub(super) timeout: Option<Spanned<Span>>,
    pub(super) extend_spool: Option<Spanned<bool>>,
    pub(super) release_spool: Option<Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drill {
    pub(super) point: Option<Spanned<String>>,
    pub(super) scratch: Option<PathBuf>,
    pub(super) database: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) tables: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) assertions: Vec<Spanned<Assertion>>,
    pub(super) statement_timeout: Option<Span>,
    pub(super) foreign_keys: Option<Spanned<bool>>,
    pub(super) signing_key: Option<PathBuf>,
    #[serde(default)]
    pub(super) verify_keys: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Compare {
    #[serde(default)]
    pub(super) standbys: BTreeMap<String, Spanned<String>>,
    pub(super) rate: Option<Spanned<Rate>>,
    #[serde(default)]
    pub(super) exclude: Vec<Spanned<String>>,
    pub(super) keys: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Assertion {
    pub(super) name: String,
    pub(super) sql: String,
}

/// What is kept; all of it where there is no such section.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retention {
    pub(super) window: Spanned<Span>,
    pub(super) count: Option<Spanned<usize>>,
    pub(super) grace: Option<Spanned<Span>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Schedule {
    pub(super) backup: Option<Spanned<String>>,
    pub(super) verify: Option<Spanned<String>>,
    pub(super) drill: Option<Spanned<String>>,
    pub(super) expire: Option<Spanned<String>>,
    pub(super) compare: Option<Spanned<String>>,
    pub(super) zone: Option<Spanned<String>>,
}

/// What a commit waits for.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Protection {
    Async,
    NearSync,
    Sync,
    Strict,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    pub(super) listen: Option<Spanned<SocketAddr>>,
    pub(super) tls_certificate: Option<Spanned<PathBuf>>,
    pub(super) tls_key: Option<Spanned<PathBuf>>,
    pub(super) socket: Option<PathBuf>,
    #[serde(default)]
    pub(super) restore_roots: Vec<Spanned<PathBuf>>,
    pub(super) metrics_listen: Option<Spanned<SocketAddr>>,
    #[serde(default)]
    pub(super) expire: bool,
}
