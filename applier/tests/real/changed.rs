//! What was changed in a store is found by verify, and never comes back by a restore.

use std::path::Path;

use farshore_applier::heads::KnownHeads;
use farshore_applier::plan::{Asked, PlanError};
use farshore_applier::verify::{Verified, verify};
use farshore_engines::postgres::restore::safe_start::Then;
use farshore_journal::JournalError;
use farshore_journal::format::{FormatError, Recipients, Unlock};
use farshore_testkit::pg::Major;
use farshore_testkit::user;

use crate::rig::{Rig, restore, restored_rows};

async fn verified(rig: &Rig, unlock: Unlock) -> Verified {
    verify(&rig.source(unlock), &KnownHeads::default(), &|_, _| {}).await.unwrap()
}

/// Rewrites an object's file: the store itself never does that.
fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_chunk_or_part_is_reported_and_never_restored() {
    let mut rig = Rig::new(Major::V15, Recipients::default()).await;
    let base = rig.base().await;
    for _ in 0..4 {
        rig.commits(5).await;
        rig.ship().await;
    }
    let last = rig.writer.place().number().get() - 1;
    let sound = verified(&rig, Unlock::none()).await;
    assert!(sound.is_sound(), "{:?}", sound.bad);
    assert!(sound.objects > last);
    assert!(sound.gaps.is_empty());
    let source = rig.source(Unlock::none());
    let plan = rig.plan(Asked::Latest).await.unwrap();

    let part = rig.object(&format!("backups/{base}/part-{:016x}", 0));
    let chunk = rig.chunk(last - 1);
    let other = rig.chunk(last - 2);
    let (part_bytes, chunk_bytes) = (std::fs::read(&part).unwrap(), std::fs::read(&chunk).unwrap());
    let other_bytes = std::fs::read(&other).unwrap();
    for (what, path, bytes) in [("part", &part, &part_bytes), ("chunk", &chunk, &chunk_bytes)] {
        for (how, change) in [
            (
                "flipped",
                Box::new(|bytes: &mut Vec<u8>| {
                    let at = bytes.len() / 2;
                    bytes[at] ^= 1;
                }) as Box<dyn FnOnce(&mut Vec<u8>)>,
            ),
            ("cut", Box::new(|bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2))),
            ("swapped", Box::new(|bytes: &mut Vec<u8>| bytes.clone_from(&other_bytes))),
            ("emptied", Box::new(|bytes: &mut Vec<u8>| bytes.clear())),
        ] {
            rewrite(path, change);
            let found = verified(&rig, Unlock::none()).await;
            assert!(!found.is_sound(), "{what} {how}");
            let place = user::tempdir();
            let directory = place.path().join("r");
            let done = restore(&source, &plan, &directory, None).await;
            assert!(done.is_err(), "{what} {how}: {done:?}");
            assert!(!directory.join("global/pg_control").exists(), "{what} {how}");
            rewrite(path, |now| now.clone_from(bytes));
        }
    }
    // A chunk that is gone, and a name that is not ours.
    std::fs::remove_file(&chunk).unwrap();
    let found = verified(&rig, Unlock::none()).await;
    assert!(found.bad.iter().any(|bad| bad.what.contains("is not in the store")), "{:?}", found.bad);
    assert!(rig.plan(Asked::Latest).await.is_err());
    std::fs::write(&chunk, &chunk_bytes).unwrap();
    std::fs::write(rig.object("journal/foreign"), "x").unwrap();
    let found = verified(&rig, Unlock::none()).await;
    assert!(found.bad.iter().any(|bad| bad.object.contains("foreign")), "{:?}", found.bad);
    let after = verified(&rig, Unlock::none()).await;
    assert_eq!(after.chain_head, sound.chain_head);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_database_comes_back_with_its_key_and_is_refused_without() {
    let identity = age_identity();
    let mut rig = Rig::new(Major::V15, Recipients::parse([identity.1.as_str()]).unwrap()).await;
    rig.commits(3).await;
    rig.base().await;
    let last = rig.commits(3).await.pop().unwrap();
    rig.ship().await;
    let without = rig.plan(Asked::Latest).await;
    let Err(PlanError::Journal(JournalError::Object { source: FormatError::KeyMissing, .. })) = without
    else {
        panic!("{without:?}")
    };
    let sealed = verified(&rig, Unlock::none()).await;
    assert!(sealed.is_sound() && sealed.sealed > 0, "{sealed:?}");
    let unlock = Unlock::parse(&identity.0).unwrap();
    let opened = verified(&rig, unlock.clone()).await;
    assert!(opened.is_sound() && opened.sealed == 0, "{opened:?}");
    assert_eq!(opened.chain_head, sealed.chain_head);
    let source = rig.source(unlock);
    let plan = farshore_applier::plan::resolve(&source, Asked::Latest).await.unwrap();
    assert_eq!(restored_rows(&source, &plan, Then::Pause).await, (1..=last.id).collect::<Vec<_>>());
}

/// A private and a public key, made for this test.
fn age_identity() -> (String, String) {
    use age::secrecy::ExposeSecret;
    let identity = age::x25519::Identity::generate();
    (identity.to_string().expose_secret().to_owned(), identity.to_public().to_string())
}
