//! A standby's directory is one from its first byte, whatever it is called meanwhile, and nothing else ever becomes one.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use farshore_applier::plan::Asked;
use farshore_applier::restore::RestoreError;
use farshore_applier::standby::{Found, STATE, Standby, StandbyError, look, promote};
use farshore_engines::sqlite::backup::RESTORING;
use farshore_journal::format::{Recipients, Unlock};
use tokio_util::sync::CancellationToken;

use crate::rig::{Rig, options, restore};
use crate::standby::{Running, begun, find, found, is_at, made, reaches};

/// Names and contents.
fn everything(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_renamed_under_its_standby_shares_nothing_with_the_next_one_of_its_name() {
    let (mut rig, place, directory) = begun().await;
    let source = rig.source(Unlock::none());
    let first = Running::start(found(&rig, &directory), &source);
    rig.commits(3);
    rig.ship().await;
    reaches(&rig, &directory).await;
    let moved = place.path().join("moved");
    std::fs::rename(&directory, &moved).unwrap();
    let second = Running::start(made(&rig, &directory).await, &source);
    for _ in 0..10 {
        rig.commits(2);
        rig.ship().await;
        reaches(&rig, &directory).await;
        reaches(&rig, &moved).await;
    }
    first.stop().await;
    second.stop().await;
    let last = rig.ledger.last().unwrap().number;
    let (one, other) = (look(&moved).unwrap(), look(&directory).unwrap());
    assert_ne!(one.0.origin.standby, other.0.origin.standby);
    for (place, (state, standing, running)) in [(&moved, one), (&directory, other)] {
        assert_eq!((standing.transaction, state.next, running), (Some(last), None, false));
        is_at(&rig, place, last);
        // Each goes on from what is written of it, and of it alone.
        Running::start(found(&rig, place), &source).stop().await;
    }
}

/// Dropped wherever it stands, a making leaves nothing under the database's name or a standby, and the same command goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_making_that_is_dropped_at_any_moment_is_made_again_or_goes_on() {
    let mut rig = Rig::new(Recipients::default()).await;
    rig.commits(3);
    rig.base().await;
    rig.commits(20);
    rig.ship().await;
    let last = rig.ledger.last().unwrap().number;
    let source = rig.source(Unlock::none());
    let plan = rig.plan(Asked::Latest).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let (mut dropped, mut named) = (0, 0);
    for micros in (0..60_000).step_by(2_000) {
        let directory = place.path().join(format!("s{micros}"));
        let prepared = Standby::prepare(&directory, &source).unwrap();
        let short = Duration::from_micros(micros);
        let make = prepared.make(&source, &plan, std::sync::Arc::new(|_| {}));
        dropped += u32::from(tokio::time::timeout(short, make).await.is_err());
        drop(prepared);
        let until = Instant::now() + Duration::from_secs(20);
        let standby = loop {
            match find(&rig, &directory) {
                Ok(Found::Standby(standby)) => break *standby,
                Ok(Found::Nothing) => {
                    assert!(!directory.join("app.db").exists(), "it has its name and is no standby");
                    assert!(matches!(look(&directory), Err(StandbyError::Preparing { .. })));
                    named += u32::from(directory.join(RESTORING).exists());
                    break made(&rig, &directory).await;
                }
                // What is still being checked keeps the directory until it is.
                Err(StandbyError::Busy { .. }) => assert!(Instant::now() < until),
                Err(why) => panic!("{why:?}"),
            }
        };
        Running::start(standby, &source).stop().await;
        is_at(&rig, &directory, last);
    }
    assert!(dropped > 3 && named > 0, "{dropped} were dropped, {named} amid the copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_standbys_is_never_taken_for_one_and_is_left_as_it_is() {
    let mut rig = Rig::new(Recipients::default()).await;
    rig.commits(3);
    rig.base().await;
    rig.commits(5);
    rig.ship().await;
    let source = rig.source(Unlock::none());
    let place = tempfile::tempdir().unwrap();
    // A point in time, the newest state, an interrupted restore, a file of somebody's, and a database amid a making.
    let plan = rig.plan(Asked::Transaction(4)).await.unwrap();
    restore(&source, &plan, &place.path().join("point")).await.unwrap();
    let plan = rig.plan(Asked::Latest).await.unwrap();
    restore(&source, &plan, &place.path().join("latest")).await.unwrap();
    restore(&source, &plan, &place.path().join("running")).await.unwrap();
    let marker = place.path().join("running/farshore-restore.json");
    let running = std::fs::read_to_string(&marker).unwrap().replace("\"complete\"", "\"running\"");
    std::fs::write(&marker, running).unwrap();
    std::fs::create_dir(place.path().join("file")).unwrap();
    std::fs::write(place.path().join("file/mine"), b"precious").unwrap();
    drop(Standby::prepare(&place.path().join("making"), &source).unwrap());
    std::fs::write(place.path().join("making/app.db"), b"precious").unwrap();
    for name in ["point", "latest", "running", "file", "making"] {
        let directory = place.path().join(name);
        let before = everything(&directory);
        let refused = [find(&rig, &directory).map(drop), Standby::prepare(&directory, &source).map(drop)];
        for refused in refused {
            match name {
                "file" | "making" => {
                    assert!(matches!(refused, Err(StandbyError::Foreign { .. })), "{name}: {refused:?}")
                }
                _ => assert!(
                    matches!(refused, Err(StandbyError::Restored { complete, .. }) if complete == (name != "running")),
                    "{name}: {refused:?}"
                ),
            }
        }
        assert!(look(&directory).is_err());
        assert!(promote(&directory, None, &CancellationToken::new()).await.is_err());
        assert_eq!(everything(&directory), before, "{name}");
    }
    // Nor does a restore go into a standby's.
    let directory = place.path().join("standby");
    drop(made(&rig, &directory).await);
    let before = everything(&directory);
    let resume = farshore_applier::restore::RestoreOptions { resume: true, ..options(&directory) };
    let refused = farshore_applier::restore::run(&source, &plan, &resume, std::sync::Arc::new(|_| {})).await;
    assert!(matches!(refused, Err(RestoreError::Standbys { .. })), "{refused:?}");
    assert_eq!(everything(&directory), before);
    assert!(before.contains_key(STATE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_any_name_becomes_a_standby_but_of_the_standbys_own_file() {
    for name in ["my-farshore-restore.db", "farshore-standby.json.db", STATE] {
        let mut rig = Rig::new(Recipients::default()).await;
        rig.commits(3);
        name.clone_into(&mut rig.name);
        rig.base().await;
        rig.commits(2);
        rig.ship().await;
        let source = rig.source(Unlock::none());
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("standby");
        let prepared = Standby::prepare(&directory, &source).unwrap();
        let plan = rig.plan(Asked::Latest).await.unwrap();
        let made = prepared.make(&source, &plan, std::sync::Arc::new(|_| {})).await;
        if name == STATE {
            assert!(matches!(made, Err(RestoreError::Beneath(_))), "{made:?}");
            assert!(matches!(look(&directory), Err(StandbyError::Preparing { .. })));
            continue;
        }
        drop((made.unwrap(), prepared));
        Running::start(found(&rig, &directory), &source).stop().await;
        assert_eq!(look(&directory).unwrap().0.file, name);
        assert_eq!(crate::application::dump(&directory.join(name)), rig.ledger.last().unwrap().dump);
    }
}
