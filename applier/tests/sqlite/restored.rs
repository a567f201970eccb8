//! What a restore leaves behind, however it ends.

use std::path::Path;

use farshore_applier::plan::{Asked, PlanError};
use farshore_applier::restore::{RestoreError, RestoreOptions, run};
use farshore_engines::sqlite::backup::{BENEATH, RESTORING};
use farshore_journal::backup::Entry;
use farshore_journal::format::{Recipients, Unlock};

use crate::application::{Database, dump};
use crate::rig::{Rig, options, restore, restored_dump, rewrite};

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_cut_off_leaves_no_database_and_is_resumed() {
    let mut rig = Rig::new(Recipients::default()).await;
    rig.commits(3);
    rig.base().await;
    let commits = rig.commits(30);
    rig.ship().await;
    let source = rig.source(Unlock::none());
    let plan = rig.plan(Asked::Transaction(commits[28].number)).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let full = place.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("mine"), b"precious").unwrap();
    assert!(matches!(restore(&source, &plan, &full).await, Err(RestoreError::Beneath(_))));
    assert_eq!(std::fs::read(full.join("mine")).unwrap(), b"precious");

    // A chunk near the target does not read for a while.
    let chunk = rig.chunk(rig.last() - 2);
    let sound = rewrite(&chunk, |bytes| {
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
    });
    let directory = place.path().join("r");
    let refused = restore(&source, &plan, &directory).await;
    assert!(matches!(refused, Err(RestoreError::Journal(_))), "{refused:?}");
    assert!(directory.join(RESTORING).exists());
    assert!(!directory.join("app.db").exists(), "what was cut off must not have its name");
    rewrite(&chunk, |bytes| *bytes = sound);

    let again = restore(&source, &plan, &directory).await;
    assert!(matches!(again, Err(RestoreError::Interrupted { same_plan: true, .. })), "{again:?}");
    let other = rig.plan(Asked::Latest).await.unwrap();
    let again = restore(&source, &other, &directory).await;
    assert!(matches!(again, Err(RestoreError::Interrupted { same_plan: false, .. })), "{again:?}");
    // What is not the restore's own stays, and is in the way: nothing is removed then, of what was restored neither.
    let resume = RestoreOptions { resume: true, ..options(&directory) };
    for name in ["mine", "app.db-wal", "app.db"] {
        std::fs::write(directory.join(name), b"precious").unwrap();
        let again = run(&source, &plan, &resume, std::sync::Arc::new(|_| {})).await;
        match name {
            "app.db" => assert!(matches!(again, Err(RestoreError::Named { .. })), "{again:?}"),
            _ => assert!(
                matches!(&again, Err(RestoreError::Others { names, .. }) if names == &[name]),
                "{again:?}"
            ),
        }
        assert_eq!(std::fs::read(directory.join(name)).unwrap(), b"precious");
        assert!(directory.join(RESTORING).exists() && directory.join("farshore-restore.json").exists());
        std::fs::remove_file(directory.join(name)).unwrap();
    }
    let restored = run(&source, &plan, &resume, std::sync::Arc::new(|_| {})).await.unwrap();
    assert_eq!(dump(&restored.file.unwrap().path), commits[28].dump);
    let again = restore(&source, &plan, &directory).await;
    assert!(matches!(again, Err(RestoreError::AlreadyThere { .. })), "{again:?}");
}

/// Dropped wherever it stands, a restore leaves either nothing under the database's name or all of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_dropped_at_any_moment_leaves_no_half_database() {
    let mut rig = Rig::new(Recipients::default()).await;
    rig.commits(3);
    rig.base().await;
    let commits = rig.commits(20);
    rig.ship().await;
    let source = rig.source(Unlock::none());
    let plan = rig.plan(Asked::Latest).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let mut dropped = 0;
    for micros in (0..60_000).step_by(3_000) {
        let directory = place.path().join(format!("r{micros}"));
        let short = std::time::Duration::from_micros(micros);
        let restored = tokio::time::timeout(short, restore(&source, &plan, &directory)).await;
        if directory.join("app.db").exists() {
            assert_eq!(dump(&directory.join("app.db")), commits[19].dump);
        }
        if restored.is_ok() {
            continue;
        }
        dropped += 1;
        let begun = std::time::Instant::now();
        let resume = RestoreOptions { resume: true, ..options(&directory) };
        loop {
            // What is still being checked keeps the directory until it is.
            match run(&source, &plan, &resume, std::sync::Arc::new(|_| {})).await {
                Ok(restored) => {
                    assert_eq!(dump(&restored.file.unwrap().path), commits[19].dump);
                    break;
                }
                Err(RestoreError::AlreadyThere { .. }) => break,
                // It has its name: what is there is the database, which was compared above or is so here.
                Err(RestoreError::Named { path }) => {
                    assert_eq!(dump(&path), commits[19].dump);
                    break;
                }
                Err(why) => assert!(begun.elapsed().as_secs() < 20, "{why:?}"),
            }
        }
    }
    assert!(dropped > 3, "{dropped} were dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_with_a_hostile_name_is_refused_before_anything_is_written() {
    let mut rig = Rig::new(Recipients::default()).await;
    rig.commits(3);
    let copy = rig.follow.copy();
    let sound = rig.base().await;
    rig.commits(2);
    rig.ship().await;
    let place = tempfile::tempdir().unwrap();
    let source = rig.source(Unlock::none());
    let planned = rig.plan(Asked::Latest).await.unwrap();
    assert_eq!(planned.base.id, sound);
    remove_backup(&rig, &sound.to_string());
    let names =
        ["../out.db", "/tmp/out.db", "a/b.db", "..", ".", "", "a\nb", RESTORING, "farshore-restore.json"];
    for name in names {
        name.clone_into(&mut rig.name);
        let id = rig.keep(&copy, |_| {}).await;
        let mut hostile = planned.clone();
        hostile.base.id = id;
        let directory = place.path().join("r");
        let refused = restore(&source, &hostile, &directory).await;
        assert!(matches!(refused, Err(RestoreError::Plan(PlanError::Files { .. }))), "{name:?}: {refused:?}");
        let refused = rig.plan(Asked::Latest).await;
        assert!(matches!(refused, Err(PlanError::Files { .. })), "{name:?}: {refused:?}");
        remove_backup(&rig, &id.to_string());
    }
    // Two files, none, and the beneath alone.
    "app.db".clone_into(&mut rig.name);
    let changes: [fn(&mut Vec<Entry>); 3] = [
        |entries| entries[1].path = "other.db".to_owned(),
        |entries| entries.clear(),
        |entries| entries.retain(|entry| entry.path == BENEATH),
    ];
    for change in changes {
        let id = rig.keep(&copy, |manifest| change(&mut manifest.entries)).await;
        let mut hostile = planned.clone();
        hostile.base.id = id;
        let refused = restore(&source, &hostile, &place.path().join("r")).await;
        assert!(matches!(refused, Err(RestoreError::Plan(PlanError::Files { .. }))), "{refused:?}");
        remove_backup(&rig, &id.to_string());
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

fn remove_backup(rig: &Rig, id: &str) {
    std::fs::remove_dir_all(rig.object(&format!("backups/{id}"))).unwrap();
}

/// A base that is not the database: the log fits, the pages do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_sqlite_finds_damaged_never_gets_its_name() {
    let database = Database::new(4096, "select 1");
    database.sql(
        "insert into ledger with recursive n (v) as (select 1000 union all select v + 1 from n where v < 1200) select v, 0, v, randomblob(900) from n",
    );
    let mut rig = Rig::on(database, Recipients::default()).await;
    let mut copy = rig.follow.copy();
    rig.commits(2);
    rig.ship().await;
    let pages = copy.file.len() / 4096;
    assert!(pages > 5, "{pages} pages");
    // Where nothing beneath covers them.
    for page in 2..pages {
        copy.file[page * 4096..][..100].fill(0xa5);
    }
    copy.beneath.clear();
    rig.keep(&copy, |_| {}).await;
    let source = rig.source(Unlock::none());
    let plan = rig.plan(Asked::Latest).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("r");
    let refused = restore(&source, &plan, &directory).await;
    match &refused {
        Err(RestoreError::NotWhole { path, source }) => {
            assert_eq!(path, &directory.canonicalize().unwrap().join(RESTORING));
            assert!(source.to_string().contains("damaged"), "{source}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!directory.join("app.db").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_beneath_that_is_cut_off_or_changed_is_refused() {
    let mut rig = Rig::new(Recipients::default()).await;
    rig.commits(10);
    let copy = rig.follow.copy();
    assert!(!copy.beneath.is_empty());
    rig.commits(2);
    rig.ship().await;
    let source = rig.source(Unlock::none());
    let place = tempfile::tempdir().unwrap();
    let whole = copy.beneath.clone();
    let changes: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| {
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
        },
        |bytes| bytes.extend_from_within(..),
        |bytes| bytes.push(0),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut bytes = whole.clone();
        change(&mut bytes);
        let changed = crate::follow::Copy { file: copy.file.clone(), beneath: bytes, ..copy };
        let id = rig.keep(&changed, |_| {}).await;
        let plan = rig.plan(Asked::Latest).await.unwrap();
        assert_eq!(plan.base.id, id);
        let directory = place.path().join(at.to_string());
        let refused = restore(&source, &plan, &directory).await;
        assert!(matches!(refused, Err(RestoreError::BeneathRecord { .. })), "{at}: {refused:?}");
        assert!(!Path::new(&directory.join("app.db")).exists());
        remove_backup(&rig, &id.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_journal_is_restored_with_its_key_and_not_without() {
    use age::secrecy::ExposeSecret;
    let identity = age::x25519::Identity::generate();
    let (private, public) =
        (identity.to_string().expose_secret().to_owned(), identity.to_public().to_string());
    let mut rig = Rig::new(Recipients::parse([public.as_str()]).unwrap()).await;
    rig.commits(3);
    rig.base().await;
    let commits = rig.commits(20);
    rig.ship().await;
    let unlock = || Unlock::parse(&private).unwrap();
    let source = rig.source(unlock());
    let place = tempfile::tempdir().unwrap();
    let plan =
        farshore_applier::plan::resolve(&source, Asked::Transaction(commits[11].number)).await.unwrap();
    assert_eq!(restored_dump(&source, &plan, place.path()).await, commits[11].dump);
    assert!(rig.verified(unlock()).await.is_sound());
    let sealed = rig.verified(Unlock::none()).await;
    assert!(sealed.is_sound() && sealed.sealed > 0, "{:?}", sealed.bad);
    assert!(rig.plan(Asked::Latest).await.is_err());
    let refused = restore(&rig.source(Unlock::none()), &plan, &place.path().join("without")).await;
    assert!(matches!(refused, Err(RestoreError::Journal(_))), "{refused:?}");
}
