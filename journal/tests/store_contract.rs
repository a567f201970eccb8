//! Every store and wrapper runs the same suite, and the probe tells a safe store from one that is not.

use std::sync::Arc;

use farshore_journal::store::conformance;
use farshore_journal::store::faults::{Fault, Faults, Faulty};
use farshore_journal::store::memory::MemoryStore;
use farshore_journal::store::{self, ObjectStore, StoreError, StoreOptions, probe};

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
