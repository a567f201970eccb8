//! A receiver's directory as a store: asked over HTTP/2 with TLS, both sides with certificates.
//!
//! What always holds: a create that was not answered by the receiver itself is in doubt, and stays so whatever another path answers but "created" or "exists"; one that is asked again
//! over another path is told "exists" where the first took effect, which is what the trait says of it. Nothing is sent twice over one path. Ways that lead to different stores are told apart
//! by the digest of the store's record, and nothing that the other one says is believed. A machine that is gone is found by the connection's signs of life within `ALIVE` and `SILENT` together,
//! so that no call waits for its whole deadline then.
//!
//! What it does not do: it makes nothing durable (the receiver's directory does), and keeps nobody from anything (the receiver's names do).

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use reqwest::Client;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::task::JoinSet;

use super::options::{MAX_GET, StoreOptions, deadline};
use super::{Created, HasTails, Key, KeyPrefix, Listed, ObjectStore, Operation, StoreError};
use paths::{Path, Paths};
use wire::{Answer, Asked, Failure, Word};

mod paths;
mod tails;
pub mod wire;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(3);
/// How often a connection shows a sign of life.
const ALIVE: Duration = Duration::from_secs(2);
/// How long it may be silent after one.
const SILENT: Duration = Duration::from_secs(5);
/// How long one path may take to answer while there is another one; bytes get their time besides.
const ONE_PATH: Duration = Duration::from_secs(8);
/// How long the next bytes of an answer may take to come.
const NEXT_BYTES: Duration = Duration::from_secs(30);
/// How often a path that failed is tried.
const AGAIN: Duration = Duration::from_secs(1);
/// Bytes of an answer on the way before some were taken: more would hold up the signs of life on a slow line.
const WINDOW: u32 = 1 << 20;
/// What a store without a record is called.
const NO_RECORD: &str = "-";
/// The options that it knows.
const CA: &str = "tls_ca";
const CERTIFICATE: &str = "tls_certificate";
const KEY: &str = "tls_key";

/// One way to the receiver.
#[derive(Clone)]
struct Way {
    client: Client,
    /// `https://host:port`
    base: String,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

/// A store at a receiver. See the module's text for what it guarantees.
#[derive(Clone)]
pub struct RemoteStore {
    paths: Arc<Paths<Way>>,
    timeout: Duration,
    trying: Arc<Trying>,
    /// Tries what failed; ends with the store.
    tasks: Arc<Mutex<JoinSet<()>>>,
    /// Which store the first answer came from.
    store: Arc<OnceLock<String>>,
}

/// Whether somebody tries the paths that failed.
#[derive(Default)]
struct Trying(Mutex<bool>);

impl fmt::Debug for RemoteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteStore({:?})", self.paths)
    }
}

impl RemoteStore {
    /// The store at one or more addresses (`host:port`) of one receiver. The files of the options are read here; nothing is asked yet.
    ///
    /// # Errors
    /// [`StoreError::Settings`] when a file does not read or an option is missing or unknown.
    pub(super) fn open(addresses: &[String], options: &StoreOptions) -> Result<Self, StoreError> {
        let tls = tls(options)?;
        let way = |address: &String| -> Result<Way, StoreError> {
            let client = Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .http2_prior_knowledge()
                .http2_initial_stream_window_size(WINDOW)
                .http2_initial_connection_window_size(WINDOW * 2)
                .http2_keep_alive_interval(ALIVE)
                .http2_keep_alive_timeout(SILENT)
                .http2_keep_alive_while_idle(true)
                .connect_timeout(CONNECT)
                .tcp_nodelay(true)
                // A create that may have run is the caller's to ask again.
                .retry(reqwest::retry::never())
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .build()
                .map_err(|why| settings(&innermost(&why)))?;
            Ok(Way { client, base: format!("https://{address}") })
        };
        let ways = addresses.iter().map(way).collect::<Result<Vec<_>, _>>()?;
        let paths = Arc::new(Paths::new(ways));
        let (trying, tasks, store) = (Arc::default(), Arc::default(), Arc::default());
        Ok(Self { paths, timeout: options.timeout, trying, tasks, store })
    }

    /// Asks, over one path after another while they do not answer. What failed is an error.
    async fn ask(&self, asked: &Asked, body: Bytes) -> Result<Answer, StoreError> {
        let bytes = body.len() as u64;
        let until = tokio::time::Instant::now() + deadline(self.timeout, bytes);
        let (mut failed, mut doubt) = (None, false);
        let mut paths = self.paths.in_order();
        if !asked.may_be_repeated() {
            paths.truncate(1);
        }
        for (at, path) in paths.iter().enumerate() {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            let is_last = at + 1 == paths.len();
            let within = if is_last { left } else { left.min(deadline(ONE_PATH, bytes)) };
            let answered = path.way.ask(asked, body.clone(), within).await;
            match answered.and_then(|(store, answer)| self.of_one_store(asked, &store).map(|()| answer)) {
                Ok(answer) => {
                    path.came(true);
                    return match answer {
                        Answer::Failed(failure) => Err(failure_of(failure, asked, doubt)),
                        answer => Ok(answer),
                    };
                }
                Err(why) => {
                    self.failed(path, &why);
                    doubt |= why.is_ambiguous();
                    failed = Some(why);
                }
            }
        }
        let why = failed.unwrap_or_else(|| settings("the address names no receiver"));
        Err(if doubt { in_doubt(why, asked) } else { why })
    }

    /// Refuses an answer of another store than the first one's.
    fn of_one_store(&self, asked: &Asked, store: &str) -> Result<(), StoreError> {
        if !self.paths.are_several() || store == NO_RECORD && self.store.get().is_none() {
            return Ok(());
        }
        match self.store.get_or_init(|| store.to_owned()) == store {
            true => Ok(()),
            false => Err(StoreError::Answer {
                operation: asked.operation(),
                what: asked.what(),
                reason: "the ways of this address lead to different stores".to_owned(),
                ambiguous: asked.writes(),
            }),
        }
    }

    /// Takes a path out, and has it tried until it answers, where there is another one.
    fn failed(&self, path: &Path<Way>, why: &StoreError) {
        let is_news = path.came(false);
        if !self.paths.are_several() {
            return;
        }
        if is_news {
            tracing::warn!(path = ?path.way, "a path to the receiver is out: {why}");
        }
        let mut active = self.trying.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !*active {
            *active = true;
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            while tasks.try_join_next().is_some() {}
            tasks.spawn(tried(Arc::clone(&self.paths), Arc::clone(&self.trying)));
        }
    }
}

/// Asks the paths that failed whether they are there, until all are.
async fn tried(paths: Arc<Paths<Way>>, trying: Arc<Trying>) {
    loop {
        tokio::time::sleep(AGAIN).await;
        for path in paths.failed() {
            if let Ok((_, Answer::Alive)) = path.way.ask(&Asked::Alive, Bytes::new(), CONNECT + SILENT).await
            {
                path.came(true);
                tracing::info!(path = ?path.way, "a path to the receiver is back");
            }
        }
        // Whoever finds one failed from here on waits for this lock, and begins anew.
        let mut active = trying.0.lock().unwrap_or_else(PoisonError::into_inner);
        if paths.failed().next().is_none() {
            *active = false;
            return;
        }
    }
}

impl Way {
    /// Which store answers, and what.
    async fn ask(
        &self,
        asked: &Asked,
        body: Bytes,
        within: Duration,
    ) -> Result<(String, Answer), StoreError> {
        let (method, path, headers) = asked.to_http();
        let request = self.client.request(method, format!("{}{path}", self.base)).headers(headers);
        let (operation, what, ambiguous) = (asked.operation(), asked.what(), asked.writes());
        let timed_out = |after| StoreError::TimedOut { operation, what: what.clone(), after, ambiguous };
        let sent = tokio::time::timeout(within, request.body(body).send()).await;
        let mut answer = sent
            .map_err(|_| timed_out(within))?
            .map_err(|why| unreachable(&why, operation, what.clone(), ambiguous))?;
        let headers = answer.headers().clone();
        // However much it is, it comes; how long it may take is its length's matter.
        let mut body = BytesMut::new();
        loop {
            let next = tokio::time::timeout(NEXT_BYTES, answer.chunk()).await;
            match next.map_err(|_| timed_out(NEXT_BYTES))? {
                Ok(Some(bytes)) if body.len() as u64 + bytes.len() as u64 <= MAX_GET => {
                    body.extend_from_slice(&bytes);
                }
                Ok(None) => break,
                Ok(Some(_)) => {
                    let reason = "it answers without end".to_owned();
                    return Err(StoreError::Answer { operation, what, reason, ambiguous });
                }
                Err(why) => return Err(unreachable(&why, operation, what, ambiguous)),
            }
        }
        let store = headers.get(wire::STORE).and_then(|store| store.to_str().ok());
        let store = store.unwrap_or(NO_RECORD).to_owned();
        let answer = Answer::read(&headers, body.freeze()).map_err(|reason| StoreError::Answer {
            operation,
            what,
            reason,
            ambiguous,
        })?;
        Ok((store, answer))
    }
}

fn unreachable(why: &reqwest::Error, operation: Operation, what: String, writes: bool) -> StoreError {
    // Nothing was sent on a connection that was not made.
    let ambiguous = writes && !why.is_connect();
    StoreError::Unreachable { operation, what, reason: innermost(why), ambiguous }
}

/// The innermost cause: "connection refused", a certificate's fault.
fn innermost(why: &(dyn std::error::Error + 'static)) -> String {
    let mut at = why;
    while let Some(inner) = at.source() {
        at = inner;
    }
    at.to_string()
}

/// The same failure, of something that may have taken effect at an earlier try.
fn in_doubt(why: StoreError, asked: &Asked) -> StoreError {
    match why {
        doubtful if doubtful.is_ambiguous() => doubtful,
        other => StoreError::Busy {
            operation: asked.operation(),
            what: asked.what(),
            reason: format!("another way was cut off before, and then: {other}"),
            ambiguous: true,
        },
    }
}

/// What a receiver's failure means, behind an earlier try that is in doubt or none.
fn failure_of(failure: Failure, asked: &Asked, doubt: bool) -> StoreError {
    let why = failed(failure, asked);
    if doubt { in_doubt(why, asked) } else { why }
}

fn settings(what: &str) -> StoreError {
    StoreError::Settings { what: what.to_owned() }
}

fn tls(options: &StoreOptions) -> Result<ClientConfig, StoreError> {
    for name in options.values.keys() {
        if ![CA, CERTIFICATE, KEY].contains(&name.as_str()) {
            return Err(settings(&format!("no option of a receiver goes by {name:?}")));
        }
    }
    let file = |name: &str| {
        let missing =
            || settings(&format!("a receiver needs `{CA}`, `{CERTIFICATE}` and `{KEY}`: {name} is missing"));
        options.values.get(name).map(std::path::Path::new).ok_or_else(missing)
    };
    let certificates = |name: &str| -> Result<Vec<CertificateDer<'static>>, StoreError> {
        let path = file(name)?;
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let read = read.map_err(|why| settings(&format!("{name} {}: {why}", path.display())))?;
        match read.is_empty() {
            true => Err(settings(&format!("{name} {} holds no certificate", path.display()))),
            false => Ok(read),
        }
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(CA)? {
        roots.add(authority).map_err(|why| settings(&format!("{CA}: {why}")))?;
    }
    let key = file(KEY)?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|why| settings(&format!("{KEY} {}: {why}", key.display())))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|why| settings(&why.to_string()))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(CERTIFICATE)?, key)
        .map_err(|why| settings(&format!("{CERTIFICATE} and {KEY}: {why}")))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// What a failure means to whoever asked.
fn failed(failure: Failure, asked: &Asked) -> StoreError {
    let Failure { word, ambiguous, reason } = failure;
    let (operation, what) = (asked.operation(), asked.what());
    match (word, asked) {
        (
            Word::NotFound,
            Asked::Create { key, .. } | Asked::Get { key, .. } | Asked::Size { key } | Asked::Delete { key },
        ) => StoreError::NotFound { key: key.clone() },
        (Word::OutOfRange, Asked::Get { key, range: Some(range) }) => {
            StoreError::OutOfRange { key: key.clone(), range: range.clone() }
        }
        (Word::Full, Asked::Create { key, length, .. }) => {
            StoreError::Full { key: key.clone(), bytes: *length }
        }
        (Word::Refused, _) => StoreError::Refused { operation, what, reason },
        (Word::NoStore, _) => StoreError::NoStore { operation, reason },
        (Word::Unsafe, _) => StoreError::Unsafe { what: reason },
        (Word::Busy | Word::Full, _) => StoreError::Busy { operation, what, reason, ambiguous },
        (Word::Malformed | Word::NotFound | Word::OutOfRange, _) => {
            StoreError::Answer { operation, what, reason, ambiguous }
        }
    }
}

/// That the receiver answered something else.
fn strange(asked: &Asked) -> StoreError {
    StoreError::Answer {
        operation: asked.operation(),
        what: asked.what(),
        reason: "it answers another question".to_owned(),
        ambiguous: true,
    }
}

#[async_trait]
impl ObjectStore for RemoteStore {
    async fn create(&self, key: &Key, bytes: Bytes) -> Result<Created, StoreError> {
        let digest = *blake3::hash(&bytes).as_bytes();
        let asked = Asked::Create { key: key.clone(), length: bytes.len() as u64, digest };
        match self.ask(&asked, bytes).await? {
            Answer::Created => Ok(Created::New),
            Answer::Exists => Ok(Created::Exists),
            _ => Err(strange(&asked)),
        }
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        let asked = Asked::Get { key: key.clone(), range: None };
        match self.ask(&asked, Bytes::new()).await? {
            Answer::Object(bytes) => Ok(bytes),
            _ => Err(strange(&asked)),
        }
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            // No range of HTTP says that; whether the object is there is asked all the same.
            self.size(key).await?;
            return Err(StoreError::OutOfRange { key: key.clone(), range });
        }
        let asked = Asked::Get { key: key.clone(), range: Some(range.clone()) };
        match self.ask(&asked, Bytes::new()).await? {
            Answer::Object(bytes) if bytes.len() as u64 <= range.end - range.start => Ok(bytes),
            _ => Err(strange(&asked)),
        }
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        let asked = Asked::Size { key: key.clone() };
        match self.ask(&asked, Bytes::new()).await? {
            Answer::Length(length) => Ok(length),
            _ => Err(strange(&asked)),
        }
    }

    async fn list(
        &self,
        prefix: &KeyPrefix,
        after: Option<&Key>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        let mut all: Vec<Listed> = Vec::new();
        if limit == Some(0) {
            return Ok(all);
        }
        loop {
            let after = all.last().map(|last| &last.key).or(after).cloned();
            let left = limit.map(|limit| limit - all.len());
            let asked = Asked::List { prefix: prefix.clone(), after: after.clone(), limit: left };
            let Answer::Listed { listed: page, more } = self.ask(&asked, Bytes::new()).await? else {
                return Err(strange(&asked));
            };
            // One that has more and shows none would be asked for without end.
            if more && page.is_empty() {
                return Err(strange(&asked));
            }
            // A page that does not go on from the last one would be asked for without end.
            let mut behind = after.as_ref();
            for listed in &page {
                if behind.is_some_and(|behind| listed.key <= *behind) || !listed.key.is_below(prefix) {
                    return Err(strange(&asked));
                }
                behind = Some(&listed.key);
            }
            all.extend(page);
            if !more || limit.is_some_and(|limit| all.len() >= limit) {
                return Ok(all);
            }
        }
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let asked = Asked::Delete { key: key.clone() };
        match self.ask(&asked, Bytes::new()).await? {
            Answer::Deleted => Ok(()),
            _ => Err(strange(&asked)),
        }
    }

    fn tails(&self) -> HasTails<'_> {
        HasTails::Yes(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create() -> Asked {
        Asked::Create { key: Key::new("db/orders/x/1").unwrap(), length: 1, digest: [0; 32] }
    }

    #[test]
    fn a_create_that_was_cut_off_on_one_path_stays_in_doubt_whatever_another_says() {
        for word in [Word::Full, Word::Unsafe, Word::Busy, Word::Malformed, Word::Refused, Word::NoStore] {
            let failure = || Failure { word, ambiguous: false, reason: "why".to_owned() };
            assert!(!failure_of(failure(), &create(), false).is_ambiguous(), "{word:?}");
            assert!(failure_of(failure(), &create(), true).is_ambiguous(), "{word:?}");
        }
    }

    #[test]
    fn only_the_receivers_own_word_means_that_an_object_is_not_there() {
        let get = Asked::Get { key: Key::new("a").unwrap(), range: None };
        let said = |word| failed(Failure { word, ambiguous: false, reason: String::new() }, &get);
        assert!(said(Word::NotFound).is_not_found());
        for word in [Word::Malformed, Word::Busy, Word::Refused, Word::NoStore, Word::OutOfRange] {
            assert!(!said(word).is_not_found(), "{word:?}");
        }
    }
}
