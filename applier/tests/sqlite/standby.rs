//! A standby takes what the journal holds and nothing else: behind a gap, at damage and at another's write it ends, whole as it was.

use std::path::{Path, PathBuf};
use std::time::Duration;

use farshore_applier::plan::Asked;
use farshore_applier::source::Source;
use farshore_applier::standby::{Found, Promoted, Standby, StandbyError, look, promote};
use farshore_engines::sqlite::standby::{CopyError, Standing};
use farshore_journal::format::{Recipients, Unlock};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::application::{dump, integrity};
use crate::rig::{Rig, rewrite};

const EVERY: Duration = Duration::from_millis(10);
const SOON: Duration = Duration::from_secs(60);

type Ended = (Standing, Result<(), StandbyError>);

/// A standby that runs.
pub struct Running {
    task: JoinHandle<Result<Ended, StandbyError>>,
    cancel: CancellationToken,
}

impl Running {
    #[allow(clippy::disallowed_methods, reason = "joined by whoever ends it")]
    pub fn start(standby: Standby, source: &Source) -> Self {
        let (source, cancel) = (source.clone(), CancellationToken::new());
        let cancelled = cancel.clone();
        let task = tokio::spawn(async move { standby.follow(&source, EVERY, &cancelled).await });
        Self { task, cancel }
    }

    pub async fn stop(self) -> Standing {
        self.cancel.cancel();
        let (standing, ended) = self.task.await.unwrap().unwrap();
        ended.unwrap();
        standing
    }

    /// How it ends by itself.
    async fn ends(self) -> Ended {
        tokio::time::timeout(SOON, self.task).await.expect("it ends").unwrap().unwrap()
    }
}

/// A rig with a base and some log, and a standby that was made from it.
pub async fn begun() -> (Rig, TempDir, PathBuf) {
    let mut rig = Rig::new(Recipients::default()).await;
    rig.commits(5);
    rig.base().await;
    rig.commits(5);
    rig.ship().await;
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("standby");
    assert!(matches!(find(&rig, &directory), Ok(Found::Nothing)));
    assert!(!directory.exists(), "looking for one made it");
    drop(made(&rig, &directory).await);
    (rig, place, directory)
}

/// Makes one.
pub async fn made(rig: &Rig, directory: &Path) -> Standby {
    let source = rig.source(Unlock::none());
    let prepared = Standby::prepare(directory, &source).unwrap();
    let plan = rig.plan(Asked::Latest).await.unwrap();
    prepared.make(&source, &plan, std::sync::Arc::new(|_| {})).await.unwrap()
}

pub fn find(rig: &Rig, directory: &Path) -> Result<Found, StandbyError> {
    Standby::find(directory, &rig.source(Unlock::none()))
}

pub fn found(rig: &Rig, directory: &Path) -> Standby {
    match find(rig, directory) {
        Ok(Found::Standby(standby)) => *standby,
        other => panic!("{other:?}"),
    }
}

async fn promoted(directory: &Path) -> Result<Promoted, StandbyError> {
    promote(directory, None, &CancellationToken::new()).await
}

pub async fn reaches(rig: &Rig, directory: &Path) {
    let end = rig.ledger.last().unwrap().end;
    let until = tokio::time::Instant::now() + SOON;
    while look(directory).unwrap().1.end < end {
        assert!(tokio::time::Instant::now() < until, "{:?}", look(directory));
        tokio::time::sleep(EVERY).await;
    }
}

/// It holds what the primary held behind that transaction, and nothing is wrong with it.
pub fn is_at(rig: &Rig, directory: &Path, number: u64) {
    let commit = rig.ledger.iter().find(|commit| commit.number == number).unwrap();
    let copy = directory.join("app.db");
    assert_eq!(dump(&copy), commit.dump);
    assert_eq!(integrity(&copy).trim(), "[('ok',)]");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_what_comes_and_goes_on_where_it_was_stopped() {
    let (mut rig, _place, directory) = begun().await;
    let source = rig.source(Unlock::none());
    for _ in 0..4 {
        let running = Running::start(found(&rig, &directory), &source);
        for _ in 0..3 {
            let last = rig.commits(4).pop().unwrap();
            rig.ship().await;
            reaches(&rig, &directory).await;
            is_at(&rig, &directory, last.number);
        }
        assert!(matches!(find(&rig, &directory), Err(StandbyError::Busy { .. })));
        let standing = running.stop().await;
        assert_eq!(standing.transaction, Some(rig.ledger.last().unwrap().number));
        // What is shipped while it is stopped is taken later.
        rig.commits(30);
        rig.ship().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_ends_a_standby_whole_behind_the_last_transaction_before_it() {
    let (mut rig, _place, directory) = begun().await;
    let source = rig.source(Unlock::none());
    let running = Running::start(found(&rig, &directory), &source);
    let last = rig.commits(7).pop().unwrap();
    rig.ship().await;
    rig.gap().await;
    rig.commits(3);
    rig.ship().await;
    let (standing, ended) = running.ends().await;
    assert!(matches!(ended, Err(StandbyError::Gap { at, end: Some(_) }) if at == last.end), "{ended:?}");
    assert_eq!((standing.transaction, standing.end), (Some(last.number), last.end));
    is_at(&rig, &directory, last.number);
    // It does not go on later either.
    let (_, ended) = Running::start(found(&rig, &directory), &source).ends().await;
    assert!(matches!(ended, Err(StandbyError::Gap { .. })), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_chunk_ends_a_standby_and_mended_it_goes_on() {
    let (mut rig, _place, directory) = begun().await;
    let source = rig.source(Unlock::none());
    rig.commits(60);
    let first = rig.last() + 1;
    rig.ship().await;
    let damaged = first + (rig.last() - first) / 2;
    let sound = rewrite(&rig.chunk(damaged), |bytes| {
        let at = bytes.len() - 40;
        bytes[at] ^= 1;
    });
    let (standing, ended) = Running::start(found(&rig, &directory), &source).ends().await;
    assert!(matches!(ended, Err(StandbyError::Journal(_))), "{ended:?}");
    let number = standing.transaction.unwrap();
    assert!(number > 10 && number < rig.ledger.last().unwrap().number, "{number}");
    is_at(&rig, &directory, number);
    std::fs::write(rig.chunk(damaged), sound).unwrap();
    let running = Running::start(found(&rig, &directory), &source);
    reaches(&rig, &directory).await;
    running.stop().await;
    is_at(&rig, &directory, rig.ledger.last().unwrap().number);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_written_to_is_no_standby_any_more() {
    let (mut rig, _place, directory) = begun().await;
    let source = rig.source(Unlock::none());
    let running = Running::start(found(&rig, &directory), &source);
    rig.commits(3);
    rig.ship().await;
    reaches(&rig, &directory).await;
    running.stop().await;
    crate::application::python(&[
        "-c",
        "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute('create table mine (a)'); c.commit()",
        directory.join("app.db").to_str().unwrap(),
    ]);
    assert!(matches!(look(&directory), Err(StandbyError::Copy(CopyError::Written { .. }))));
    // Who finds it keeps it: from then on it is not even opened.
    let followed = found(&rig, &directory).follow(&source, EVERY, &CancellationToken::new()).await;
    assert!(matches!(followed, Err(StandbyError::Copy(CopyError::Written { .. }))), "{followed:?}");
    assert!(matches!(find(&rig, &directory), Err(StandbyError::Spoiled { .. })));
    assert!(matches!(look(&directory), Err(StandbyError::Spoiled { .. })));
    assert!(matches!(promoted(&directory).await, Err(StandbyError::Spoiled { .. })));
}

/// The pages that another changed in place are seen by nothing but the run that finds them: it must be the last.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_only_a_run_can_see_is_remembered_by_the_directory() {
    let (mut rig, _place, directory) = begun().await;
    let source = rig.source(Unlock::none());
    let running = Running::start(found(&rig, &directory), &source);
    rig.commits(3);
    rig.ship().await;
    reaches(&rig, &directory).await;
    crate::application::python(&[
        "-c",
        "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute('update ledger set content = 1'); c.commit()",
        directory.join("app.db").to_str().unwrap(),
    ]);
    rig.commits(1);
    rig.ship().await;
    let (_, ended) = running.ends().await;
    assert!(matches!(ended, Err(StandbyError::Copy(CopyError::Written { .. }))), "{ended:?}");
    assert!(matches!(find(&rig, &directory), Err(StandbyError::Spoiled { .. })));
    assert!(matches!(promoted(&directory).await, Err(StandbyError::Spoiled { .. })));
    assert!(matches!(look(&directory), Err(StandbyError::Spoiled { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_copy_is_followed_no_more() {
    let (mut rig, _place, directory) = begun().await;
    let source = rig.source(Unlock::none());
    let running = Running::start(found(&rig, &directory), &source);
    let last = rig.commits(3).pop().unwrap();
    rig.ship().await;
    reaches(&rig, &directory).await;
    assert!(matches!(promoted(&directory).await, Err(StandbyError::Busy { .. })));
    running.stop().await;
    let Promoted { file, standing, .. } = promoted(&directory).await.unwrap();
    assert_eq!((file, standing.transaction), (directory.join("app.db"), Some(last.number)));
    assert!(matches!(find(&rig, &directory), Err(StandbyError::Promoted { .. })));
    assert!(matches!(promoted(&directory).await, Err(StandbyError::Promoted { .. })));
    is_at(&rig, &directory, last.number);
}
