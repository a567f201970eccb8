//! What a crash, a full disk or a failing fsync leaves of a file store: whole objects and honest errors.
//!
//! Crashes are real: a child process creates an object and kills itself at a named step. Fail points are one registry
//! for the process, so every test here that sets one holds the scenario's lock.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests too

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use farshore_journal::store::{
    Created, FileStore, Key, KeyPrefix, ObjectStore, Retry, StoreError, StoreOptions,
};

/// Tells the child what to do: folder and step.
const CHILD: &str = "FARSHORE_STORE_CRASH";
/// Larger than two blocks of a write, so that a crash can fall between.
const LENGTH: usize = 3 << 20;

fn object() -> Key {
    Key::new("journal/chunks/0000000000000001").unwrap()
}

fn content() -> Bytes {
    (0..LENGTH).map(|i| (i % 249) as u8).collect::<Vec<_>>().into()
}

fn open(root: &Path) -> FileStore {
    FileStore::open(root, &StoreOptions::for_writing()).unwrap()
}

fn temps(root: &Path) -> usize {
    std::fs::read_dir(root.join(".tmp")).unwrap().count()
}

/// The child's part; without its orders it has nothing to show and nothing to prove.
#[tokio::test]
async fn child_creates_an_object_and_is_killed_on_the_way() {
    let Ok(orders) = std::env::var(CHILD) else { return };
    let (step, root) = orders.split_once(':').unwrap();
    let store = open(Path::new(root));
    let seen = AtomicUsize::new(0);
    let (name, which) = step.split_once('#').map_or((step, 1), |(name, n)| (name, n.parse().unwrap()));
    fail::cfg_callback(name, move || {
        if seen.fetch_add(1, Ordering::SeqCst) + 1 == which {
            // Not abort: no handler, no destructor, no flush may run.
            nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL).unwrap();
            loop {
                std::thread::park();
            }
        }
    })
    .unwrap();
    let made = store.create(&object(), content()).await;
    panic!("outlived its step {step}: {made:?}");
}

#[tokio::test]
async fn a_creator_killed_at_any_step_leaves_a_whole_object_or_none() {
    for (step, visible) in [
        ("store-file-write#1", false),
        ("store-file-write#2", false),
        ("store-file-write#3", false),
        ("store-file-flush", false),
        ("store-file-folder#1", false),
        ("store-file-folder#2", false),
        ("store-file-link", false),
        ("store-file-linked", true),
        ("store-file-flushed", true),
    ] {
        let root = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        let child = Command::new(own)
            .args(["--exact", "child_creates_an_object_and_is_killed_on_the_way", "--nocapture"])
            .env(CHILD, format!("{step}:{}", root.path().display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.signal(), Some(9), "{step}: {:?}\n{text}", child.status);
        assert_eq!(temps(root.path()), 1, "{step}: the crash left its file in .tmp");

        // The next process sees a whole object or none, and the caller's rule works: send the same bytes again.
        let store = open(root.path());
        let listed = store.list(&KeyPrefix::ROOT, None, None).await.unwrap();
        assert_eq!(listed.len(), usize::from(visible), "{step}: {listed:?}");
        let (expected, made) = match store.get(&object()).await {
            Ok(bytes) => {
                assert_eq!(bytes, content(), "{step}: a part of an object is visible");
                (true, Created::Exists)
            }
            Err(error) => {
                assert!(error.is_not_found(), "{step}: {error:?}");
                (false, Created::New)
            }
        };
        assert_eq!(expected, visible, "{step}");
        assert_eq!(store.create(&object(), content()).await.unwrap(), made, "{step}");
        assert_eq!(store.get(&object()).await.unwrap(), content(), "{step}");
    }
}

#[tokio::test]
async fn leftovers_are_swept_after_a_day_and_not_before() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    store.create(&object(), content()).await.unwrap();
    let tmp = root.path().join(".tmp");
    // One of a running create, one of a dead one, and the mark of an object that nobody called durable.
    for (name, age) in [("fresh", 60), ("old", 25 * 3600)] {
        let file = std::fs::File::create(tmp.join(name)).unwrap();
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
        file.set_modified(then).unwrap();
    }
    std::fs::hard_link(tmp.join("old"), root.path().join("marked")).unwrap();
    drop(open(root.path()));
    let left: Vec<_> = std::fs::read_dir(&tmp).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["fresh"]);
    assert_eq!(store.get(&Key::new("marked").unwrap()).await.unwrap(), Bytes::new());
    assert_eq!(store.get(&object()).await.unwrap(), content());
}

#[tokio::test]
async fn a_failed_fsync_is_an_error_and_never_believed_the_second_time() {
    let scenario = fail::FailScenario::setup();
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());

    // The file's fsync: nothing visible, nothing left, and the same bytes sent again go into another file.
    fail::cfg("store-file-flush", "1*return(5)->off").unwrap();
    let error = store.create(&object(), content()).await.unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }) && !error.is_ambiguous(), "{error:?}");
    assert!(store.get(&object()).await.unwrap_err().is_not_found());
    assert_eq!(temps(root.path()), 0);
    assert_eq!(store.create(&object(), content()).await.unwrap(), Created::New);

    // A folder's fsync: in doubt, and this handle says nothing good any more about that object or a new one.
    let second = Key::new("journal/chunks/0000000000000002").unwrap();
    fail::cfg("store-file-flush-folder", "1*return(5)->off").unwrap();
    let error = store.create(&second, content()).await.unwrap_err();
    assert!(error.is_ambiguous(), "{error:?}");
    for error in [
        store.create(&second, content()).await.unwrap_err(),
        store.create(&Key::new("other").unwrap(), content()).await.unwrap_err(),
        store.get(&second).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Unsafe { .. }), "{error:?}");
    }
    assert_eq!(store.get(&object()).await.unwrap(), content(), "what was durable before stays readable");
    scenario.teardown();
}

#[tokio::test]
async fn an_error_at_any_step_before_the_link_leaves_nothing() {
    let scenario = fail::FailScenario::setup();
    for step in ["store-file-write", "store-file-flush", "store-file-link"] {
        for (number, full) in [(28, true), (122, true), (5, false)] {
            let root = tempfile::tempdir().unwrap();
            let store = open(root.path());
            fail::cfg(step, &format!("1*return({number})->off")).unwrap();
            let error = store.create(&object(), content()).await.unwrap_err();
            assert_eq!(matches!(error, StoreError::Full { .. }), full, "{step} {number}: {error:?}");
            assert!(!error.is_ambiguous(), "{step} {number}: {error:?}");
            assert_eq!(store.list(&KeyPrefix::ROOT, None, None).await.unwrap(), [], "{step} {number}");
            assert_eq!(temps(root.path()), 0, "{step} {number}");
            assert_eq!(store.create(&object(), content()).await.unwrap(), Created::New, "{step} {number}");
        }
    }
    scenario.teardown();
}

#[tokio::test]
async fn a_file_system_without_hard_links_is_refused() {
    let scenario = fail::FailScenario::setup();
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    fail::cfg("store-file-link", "return(1)").unwrap();
    let error = store.create(&object(), content()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unsafe { .. }), "{error:?}");
    fail::cfg("store-file-flush", "return(22)").unwrap();
    let error = FileStore::open(root.path(), &StoreOptions::for_writing()).unwrap_err();
    assert!(matches!(error, StoreError::Unsafe { .. }), "{error:?}");
    scenario.teardown();
}

/// A file system of one MiB.
struct Tiny(tempfile::TempDir);

impl Tiny {
    fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "farshore-test"])
            .arg(folder.path())
            .output()
            .expect("the tool `mount` is there");
        assert!(
            mounted.status.success(),
            "a full disk needs a disk of its own: run as root with the right to mount, or under `unshare -rm`: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        Self(folder)
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        // Lazily: the store still holds its root when a test fails.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_full_and_shows_nothing_of_what_did_not_fit() {
    let tiny = Tiny::mount();
    let store = open(tiny.0.path());
    let small = Key::new("a/small").unwrap();
    store.create(&small, Bytes::from_static(b"small")).await.unwrap();
    let error = store.create(&object(), content()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Full { bytes, .. } if *bytes == LENGTH as u64), "{error:?}");
    assert_eq!(error.retry(), Retry::Operator);
    assert!(!error.is_ambiguous());
    assert!(store.get(&object()).await.unwrap_err().is_not_found());
    assert_eq!(temps(tiny.0.path()), 0, "what did not fit must not stay and fill the disk");
    assert_eq!(store.get(&small).await.unwrap(), "small");
    let fits = Key::new("a/fits").unwrap();
    assert_eq!(store.create(&fits, Bytes::from(vec![1; 500 << 10])).await.unwrap(), Created::New);
}

#[tokio::test]
async fn no_link_leads_a_read_or_a_create_out_of_the_store() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join("folder")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), root.path().join("file")).unwrap();
    let store = open(root.path());
    for name in ["folder/secret", "folder/new", "file"] {
        let key = Key::new(name).unwrap();
        for error in [
            store.get(&key).await.unwrap_err(),
            store.size(&key).await.unwrap_err(),
            store.create(&key, "x".into()).await.unwrap_err(),
        ] {
            assert!(!error.is_not_found(), "{name}: a link is a doubt: {error:?}");
        }
    }
    assert_eq!(store.list(&KeyPrefix::ROOT, None, None).await.unwrap(), []);
    assert!(!outside.path().join("new").exists());
}

#[tokio::test]
async fn a_folder_that_is_not_mounted_does_not_become_a_store() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("mnt/backup");
    let error = FileStore::open(&path, &StoreOptions::for_writing()).unwrap_err();
    assert!(matches!(error, StoreError::NoStore { .. }), "{error:?}");
    assert!(!path.exists());
    let store = FileStore::open(&path, &StoreOptions::for_writing().make_root()).unwrap();
    store.create(&object(), content()).await.unwrap();
    // Opened for reading it changes nothing.
    let reader = FileStore::open(&path, &StoreOptions::new()).unwrap();
    let error = reader.create(&Key::new("x").unwrap(), "x".into()).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
    assert!(matches!(reader.delete(&object()).await.unwrap_err(), StoreError::Refused { .. }));
    // Removed beneath us, absence is no longer an answer.
    std::fs::remove_dir_all(&path).unwrap();
    for error in [
        reader.get(&object()).await.unwrap_err(),
        reader.list(&KeyPrefix::ROOT, None, None).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::NoStore { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn files_and_folders_are_not_for_everyone() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    open(root.path()).create(&object(), content()).await.unwrap();
    for (path, most) in
        [("journal", 0o750), ("journal/chunks", 0o750), (".tmp", 0o750), (object().as_str(), 0o640)]
    {
        let mode = std::fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & !most, 0, "{path} has {mode:o}");
    }
}
