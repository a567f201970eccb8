//! What was changed in a store is found by verify, and never comes back by a restore.

use farshore_applier::plan::{Asked, PlanError};
use farshore_applier::restore::RestoreError;
use farshore_journal::format::{Recipients, Unlock};
use farshore_journal::writer::encode_data;

use crate::rig::{Rig, restore, rewrite};

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_chunk_or_part_is_reported_and_never_restored() {
    let mut rig = Rig::new(Recipients::default()).await;
    rig.commits(3);
    let base = rig.base().await;
    rig.commits(30);
    rig.ship().await;
    let sound = rig.verified(Unlock::none()).await;
    assert!(sound.is_sound(), "{:?}", sound.bad);
    assert!(sound.objects > rig.last() && sound.gaps.is_empty());
    let source = rig.source(Unlock::none());
    let plan = rig.plan(Asked::Latest).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let part = rig.object(&format!("backups/{base}/part-{:016x}", 0));
    for (what, path) in [("chunk", rig.chunk(rig.last() - 3)), ("part", part)] {
        let before = rewrite(&path, |bytes| {
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
        });
        let found = rig.verified(Unlock::none()).await;
        assert_eq!(found.bad.len(), 1, "{what}: {:?}", found.bad);
        assert!(path.ends_with(found.bad[0].object.rsplit('/').next().unwrap()), "{:?}", found.bad);
        let directory = place.path().join(what);
        let refused = restore(&source, &plan, &directory).await;
        assert!(matches!(refused, Err(RestoreError::Journal(_))), "{what}: {refused:?}");
        assert!(!directory.join("app.db").exists());
        if what == "chunk" {
            assert!(matches!(rig.plan(Asked::Latest).await, Err(PlanError::Journal(_))));
        }
        rewrite(&path, |bytes| *bytes = before);
    }
    assert!(rig.verified(Unlock::none()).await.is_sound());
}

/// Log that has right checksums in the store, and was wrong when it was shipped.
#[tokio::test(flavor = "multi_thread")]
async fn log_that_is_no_record_is_named_by_verify_and_ends_a_plan() {
    let mut rig = Rig::new(Recipients::default()).await;
    rig.commits(3);
    rig.base().await;
    let commits = rig.commits(3);
    rig.ship().await;
    let (chunk, _) = encode_data(rig.writer.place(), &[7; 200]).unwrap();
    rig.writer.append(&chunk, &|_| {}).await.unwrap();
    let found = rig.verified(Unlock::none()).await;
    assert_eq!(found.bad.len(), 1, "{:?}", found.bad);
    assert!(found.bad[0].what.contains("log record"), "{:?}", found.bad);
    let refused = rig.plan(Asked::Latest).await;
    let whole = commits.last().map(|commit| commit.end);
    assert!(matches!(refused, Err(PlanError::Damaged { whole_to, .. }) if whole_to == whole), "{refused:?}");
    assert!(rig.plan(Asked::Transaction(commits[2].number)).await.is_ok());
}

/// Behind a chunk that does not read a record's start is not known: nothing there is called damaged, and a gap's end begins anew.
#[tokio::test(flavor = "multi_thread")]
async fn verify_reads_on_behind_a_gap_and_not_behind_a_chunk_that_does_not_read() {
    let mut rig = Rig::new(Recipients::default()).await;
    rig.commits(10);
    rig.ship().await;
    let damaged = rig.chunk(rig.last() - 1);
    rig.commits(10);
    rig.ship().await;
    rewrite(&damaged, |bytes| bytes[300] ^= 1);
    let found = rig.verified(Unlock::none()).await;
    assert_eq!(found.bad.len(), 1, "{:?}", found.bad);
    rig.gap().await;
    rig.commits(3);
    rig.ship().await;
    let (chunk, _) = encode_data(rig.writer.place(), &[7; 200]).unwrap();
    rig.writer.append(&chunk, &|_| {}).await.unwrap();
    // What is no log behind the gap is found, so it was read.
    let found = rig.verified(Unlock::none()).await;
    assert_eq!(found.bad.len(), 2, "{:?}", found.bad);
}
