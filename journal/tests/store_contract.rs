//! Every store and wrapper runs the same suite, and the probe tells a safe store from one that is not.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests too

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use farshore_journal::store::conformance;
use farshore_journal::store::faults::{Fault, Faults, Faulty};
use farshore_journal::store::memory::MemoryStore;
use farshore_journal::store::{self, Key, KeyPrefix, ObjectStore, Retry, StoreError, StoreOptions, probe};
use farshore_testkit::stores::{Azurite, Moto};

fn file_store(folder: &tempfile::TempDir) -> Arc<dyn ObjectStore> {
    let address = url::Url::from_directory_path(folder.path()).unwrap();
    store::open(address.as_str(), &StoreOptions::for_writing()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn file_store_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store = file_store(&folder);
    conformance::run(&*store).await;
    probe(&*store).await.unwrap();
    let left = std::fs::read_dir(folder.path().join(".tmp")).unwrap().count();
    assert_eq!(left, 0, "creates that ended leave nothing in .tmp");
}

#[tokio::test]
async fn memory_store_keeps_the_contract() {
    let store = MemoryStore::new();
    conformance::run(&store).await;
    probe(&store).await.unwrap();
}

#[tokio::test]
async fn a_faulty_store_without_faults_keeps_the_contract() {
    let store = Faulty::new(MemoryStore::new(), 1, Faults::default());
    conformance::run(&store).await;
    probe(&store).await.unwrap();
    assert!(store.injected().is_empty(), "{:?}", store.injected());
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused_by_name() {
    // One in twenty creates is enough: 180 are tried.
    let store = Faulty::new(MemoryStore::new(), 7, Faults { overwrite: 0.05, ..Faults::default() });
    let error = probe(&store).await.unwrap_err();
    let StoreError::Unsafe { what } = &error else { panic!("{error:?}") };
    assert!(what.contains("probe/") && what.contains("creat"), "{what}");
    assert!(store.injected()[&Fault::Overwrite] > 0);
}

#[tokio::test]
async fn a_probe_that_could_not_be_made_is_not_a_verdict() {
    let store = Faulty::new(MemoryStore::new(), 7, Faults { before: 1.0, ..Faults::default() });
    assert!(matches!(probe(&store).await, Err(StoreError::Unreachable { .. })));
}

fn moto_store(moto: &Moto, bucket: &str) -> Arc<dyn ObjectStore> {
    let options = StoreOptions::for_writing()
        .without_environment()
        .with("endpoint", moto.endpoint())
        .with("allow_http", "true")
        .with("region", moto.region())
        .with("access_key_id", moto.access_key())
        .with("secret_access_key", moto.secret_key());
    store::open(&format!("s3://{bucket}/some/prefix"), &options).unwrap()
}

fn azurite_store(azurite: &Azurite, container: &str) -> Arc<dyn ObjectStore> {
    let options = StoreOptions::for_writing()
        .without_environment()
        .with("endpoint", azurite.endpoint())
        .with("allow_http", "true")
        .with("account_name", azurite.account())
        .with("account_key", azurite.key());
    store::open(&format!("az://{container}/some/prefix"), &options).unwrap()
}

fn object(text: &str) -> Key {
    Key::new(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_store_keeps_the_contract() {
    let moto = Moto::start();
    let store = moto_store(&moto, moto.bucket());
    conformance::run(&*store).await;
    probe(&*store).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_store_keeps_the_contract() {
    let azurite = Azurite::start();
    let store = azurite_store(&azurite, azurite.container());
    conformance::run(&*store).await;
    probe(&*store).await.unwrap();
}

async fn says_that_the_store_is_missing(store: &dyn ObjectStore) {
    let key = object("a/b");
    for (what, error) in [
        ("create", store.create(&key, "x".into()).await.err()),
        ("get", store.get(&key).await.err()),
        ("get_range", store.get_range(&key, 0..1).await.err()),
        ("size", store.size(&key).await.err()),
        ("list", store.list(&KeyPrefix::ROOT, None, None).await.err()),
    ] {
        assert!(matches!(error, Some(StoreError::NoStore { .. })), "{what}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_is_never_a_missing_object() {
    let moto = Moto::start();
    says_that_the_store_is_missing(&*moto_store(&moto, "no-such-bucket")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_container_is_never_a_missing_object() {
    let azurite = Azurite::start();
    says_that_the_store_is_missing(&*azurite_store(&azurite, "no-such-container")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_refused_and_not_shown() {
    let azurite = Azurite::start();
    let options = StoreOptions::for_writing()
        .without_environment()
        .with("endpoint", azurite.endpoint())
        .with("allow_http", "true")
        .with("account_name", azurite.account())
        .with("account_key", "aHVudGVyMmh1bnRlcjI=");
    let store = store::open(&format!("az://{}", azurite.container()), &options).unwrap();
    for error in [store.get(&object("a")).await.unwrap_err(), store.size(&object("a")).await.unwrap_err()] {
        assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
        assert_eq!(error.retry(), Retry::Operator);
    }
    let error = store.create(&object("a"), "x".into()).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }) && !error.is_ambiguous(), "{error:?}");
    let shown = format!("{store:?} {error:?} {error}");
    assert!(!shown.contains("aHVudGVy"), "{shown}");
}

/// Takes one connection after another, reads the request's head and body, and then does what `answer` says: bytes to
/// send back, or nothing and the connection is dropped. Returns how many requests came.
fn server(answer: Option<&'static str>, count: Arc<AtomicUsize>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    // Ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let mut body = vec![0; length.and_then(|l| l.parse().ok()).unwrap_or(0)];
            stream.read_exact(&mut body).unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            if let Some(answer) = answer {
                stream.write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    endpoint
}

fn s3_at(endpoint: &str, timeout: Duration) -> Arc<dyn ObjectStore> {
    let options = StoreOptions::for_writing()
        .without_environment()
        .with("endpoint", endpoint)
        .with("allow_http", "true")
        .with("region", "us-east-1")
        .with("access_key_id", "k")
        .with("secret_access_key", "s")
        .timeout(timeout);
    store::open("s3://bucket", &options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_whose_connection_broke_is_sent_once_and_in_doubt() {
    for answer in [
        None,
        Some("HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        Some("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    ] {
        let count = Arc::new(AtomicUsize::new(0));
        let store = s3_at(&server(answer, count.clone()), Duration::from_secs(20));
        let error = store.create(&object("a"), "bytes".into()).await.unwrap_err();
        assert!(error.is_ambiguous(), "{error:?}");
        assert_eq!(error.retry(), Retry::Backoff);
        assert_eq!(count.load(Ordering::SeqCst), 1, "sent again after {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_in_flight_is_retried_by_the_caller_and_no_verdict() {
    let body = "<Error><Code>ConditionalRequestConflict</Code></Error>";
    let answer =
        format!("HTTP/1.1 409 Conflict\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    let store = s3_at(&server(Some(answer.leak()), Arc::default()), Duration::from_secs(20));
    let error = store.create(&object("a"), "bytes".into()).await.unwrap_err();
    assert!(matches!(error, StoreError::Busy { ambiguous: false, .. }), "{error:?}");
    assert_eq!(error.retry(), Retry::Backoff);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_repeated_a_few_times_and_no_doubt_becomes_not_found() {
    for (answer, requests) in [
        (Some("HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), 5),
        (Some("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), 1),
        (Some("HTTP/1.1 403 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), 1),
    ] {
        let count = Arc::new(AtomicUsize::new(0));
        let store = s3_at(&server(answer, count.clone()), Duration::from_secs(30));
        let error = store.get(&object("a")).await.unwrap_err();
        assert!(!error.is_not_found(), "{error:?}");
        assert_eq!(count.load(Ordering::SeqCst), requests, "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_never_answers_is_given_up_at_the_deadline_and_a_create_is_in_doubt() {
    // Connects, and then nothing: the listener's queue takes the connection, nobody reads.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let store = s3_at(&format!("http://{}", listener.local_addr().unwrap()), Duration::from_millis(500));
    let error = store.create(&object("a"), "bytes".into()).await.unwrap_err();
    assert!(matches!(error, StoreError::TimedOut { ambiguous: true, .. }), "{error:?}");
    let error = store.list(&KeyPrefix::ROOT, None, None).await.unwrap_err();
    assert!(matches!(error, StoreError::TimedOut { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_leaves_no_doubt_about_a_create() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let store = s3_at(&format!("http://{port}"), Duration::from_secs(30));
    let error = store.create(&object("a"), "bytes".into()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { ambiguous: false, .. }), "{error:?}");
}

#[test]
fn an_option_that_nobody_knows_is_an_error() {
    let options = StoreOptions::new().with("endpiont", "http://hunter2");
    for address in ["s3://bucket", "gs://bucket", "az://container"] {
        let error = store::open(address, &options).unwrap_err();
        assert!(matches!(error, StoreError::Settings { .. }), "{error:?}");
        assert!(error.to_string().contains("endpiont") && !error.to_string().contains("hunter2"), "{error}");
    }
    let options = StoreOptions::new().with("conditional_put", "disabled");
    assert!(store::open("s3://bucket", &options).is_err());
}
