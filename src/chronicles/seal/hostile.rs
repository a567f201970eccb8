//! A store that somebody else may write to, and one that goes back under a running service: what is there is not taken for more than it is, and nothing that the catalog
//! has stays out of it.

use chrono::Utc;
use farshore_catalog::chronicle::{Before, Former};
use farshore_journal::format::{EntryDigest, body};
use serde_json::{Value, json};

use super::tests::{Room, digests, say, turn};
use super::*;
use crate::chronicles::damage::{Pages, Shared};
use crate::chronicles::{ask, held, settle};

const ACTIVITY: Chronicle = Chronicle::Activity;

/// A catalog that took back the end of another one's record, and nothing else of it.
async fn behind(room: &Room, name: &str, lost: &Catalog) -> Catalog {
    let catalog = room.unsettled(name).await;
    let last = lost.chronicle_entries(&ACTIVITY, 1, 1000).await.unwrap().pop().unwrap();
    let (last, digest, written) = (last.number, last.digest, Utc::now());
    let former = Former { last, digest, entries: Vec::new(), marks: Vec::new(), written };
    catalog.chronicle_settle(&ACTIVITY, Before::Former(&former)).await.unwrap();
    catalog
}

/// Seals each of these as a page of its own.
async fn seal_pages(sealer: &mut Sealer, pages: &[&[&str]]) {
    for page in pages {
        for what in *page {
            say(&sealer.catalog, what).await;
        }
        turn(sealer).await;
    }
}

/// A page that states what another does, and holds this text as what is sealed.
fn instead(page: &std::path::Path, sealed: &str) {
    let mut document: Value = serde_json::from_slice(&std::fs::read(page).unwrap()).unwrap();
    document.as_object_mut().unwrap().remove("blake3");
    (document["entries"], document["sealed"]) = (Value::Null, json!(sealed));
    std::fs::write(page, body::to_document("page", &document).unwrap()).unwrap();
}

/// An age file for somebody whom nobody here knows.
fn for_nobody() -> String {
    let recipient = age::x25519::Identity::generate().to_public();
    age::encrypt_and_armor(&recipient, b"[]").unwrap()
}

async fn numbers(catalog: &Catalog) -> Vec<u64> {
    let all = catalog.activity_list(None, 1000).await.unwrap();
    all.into_iter().rev().map(|entry| entry.number).collect()
}

#[tokio::test]
async fn a_page_that_holds_nothing_is_found_and_cuts_off_nothing_of_what_is_taken_back() {
    for sealed in ["garbage".to_owned(), for_nobody()] {
        let room = Room::new(false).await;
        let lost = room.catalog("lost", &[]).await;
        let mut sealer = room.sealer(&lost);
        seal_pages(&mut sealer, &[&["1", "2"], &["3", "4"], &["5", "6"]]).await;
        let catalog = behind(&room, "new", &lost).await;
        instead(&room.pages()[1], &sealed);
        let held = room.held(&lost).await;
        assert_eq!((held.sound, held.not_opened), (Some(false), 0), "{held:?}");
        let alone = held::look(&room.config, &ACTIVITY, &room.store, None).await;
        assert_eq!(alone.sound, Some(false), "{alone:?}");
        assert_eq!(room.damaged(&lost).await.len(), 2, "{:?}", room.damaged(&lost).await);

        let mut stores = ask::Stores::default();
        let added = settle::fill(&room.config, &catalog, &mut stores, &ACTIVITY).await.unwrap();
        assert_eq!((added, numbers(&catalog).await), (4, vec![1, 2, 5, 6, 7]));
        // Once more from a start anew: nothing is added twice.
        assert_eq!(settle::fill(&room.config, &catalog, &mut stores, &ACTIVITY).await.unwrap(), 0);
    }
}

/// It states the digests of all that the catalog has, and begins as early; nobody can read it.
#[tokio::test]
async fn a_page_for_somebody_else_takes_neither_the_stores_place_nor_the_lines() {
    let mut room = Room::new(true).await;
    room.with_identity();
    let catalog = room.catalog("first", &[]).await;
    let mut sealer = room.sealer(&catalog);
    seal_pages(&mut sealer, &[&["1", "2"], &["3", "4"]]).await;
    let life = sealer.ends[&ACTIVITY].run.life.unwrap();
    for what in ["5", "6"] {
        say(&catalog, what).await;
    }
    let own = digests(&catalog).await;
    let repository =
        Opened::new(&room.config, &room.store, Purpose::Append).unwrap().repository().await.unwrap();
    let far = 1_000_000;
    for (name, first, before, after) in [(0, 1, None, own[5]), (1, far, Some(own[0]), own[1])] {
        let store = repository.id();
        let forged = LifeId::from_bytes([name; 16]);
        let place = Place { store, chronicle: ACTIVITY, life: forged, first, before };
        let entry = |digest: EntryDigest| farshore_journal::format::page::Entry { digest, said: Value::Null };
        let entries = (0..5).map(|_| entry(own[0])).chain([entry(after)]).collect();
        let recipient = age::x25519::Identity::generate().to_public().to_string();
        let recipients = Recipients::parse([recipient.as_str()]).unwrap();
        let page = Page::make(place, entries, &recipients, None).unwrap();
        assert_eq!(chronicle::put(&repository, &page).await.unwrap(), Put::Done);
    }
    let found = room.found().await;
    let all: BTreeSet<LifeId> = found.strands.keys().copied().collect();
    assert_eq!(all.len(), 3);
    let far: BTreeSet<LifeId> =
        all.iter().copied().filter(|one| *one != LifeId::from_bytes([0; 16])).collect();
    assert_eq!(found.leaf(&far), Some(life), "a number that is far away makes no line");

    let mut sealer = room.sealer(&catalog);
    turn(&mut sealer).await;
    assert_eq!(room.found().await.strands[&life].end(), Some((6, own[5])), "all that the catalog has is put");
    let held = room.held(&catalog).await;
    assert_eq!((held.lacks, held.not_opened), (Some(0), 0), "{held:?}");
}

/// Whoever loses the catalog finds his own lives by what says so beside his databases.
#[tokio::test]
async fn each_life_that_gets_a_page_is_said_to_be_the_databases_and_one_that_is_not_is_named_when_settling() {
    let room = Room::new(false).await;
    let lost = room.catalog("lost", &["1", "2", "3"]).await;
    let catalog = behind(&room, "new", &lost).await;
    turn(&mut room.sealer(&catalog)).await;
    let entries = lost.chronicle_entries(&ACTIVITY, 1, 9).await.unwrap();
    let end = (3, entries[2].digest);
    assert_eq!(catalog.chronicle_fill(&ACTIVITY, end, &entries).await.unwrap(), Some(3));
    turn(&mut room.sealer(&catalog)).await;
    let own = digests(&catalog).await;
    let belongs = |at: usize| {
        let life = LifeId::of(&own[at]).to_string();
        room.folder.path().join("journal/db/orders/activity").join(life)
    };
    assert_eq!(room.found().await.strands.len(), 2);
    assert!(belongs(0).exists() && belongs(3).exists());

    let besides = async || {
        let mut stores = ask::Stores::default();
        let mut answers = ask::ask(&room.config, &mut stores, &ACTIVITY).await;
        answers.remove(&room.store).unwrap().unwrap().besides
    };
    assert_eq!(besides().await, []);
    // The newer leads to the older: that one is known by it.
    std::fs::remove_file(belongs(0)).unwrap();
    assert_eq!(besides().await, []);
    std::fs::remove_file(belongs(3)).unwrap();
    assert_eq!(besides().await.len(), 2);
}

#[tokio::test]
async fn a_store_that_is_put_back_under_a_running_service_gets_again_what_it_lost_and_no_hole() {
    let room = Room::new(false).await;
    let catalog = room.catalog("first", &[]).await;
    let mut sealer = room.sealer(&catalog);
    seal_pages(&mut sealer, &[&["1", "2"], &["3"], &["4"]]).await;
    for page in &room.pages()[1..] {
        std::fs::remove_file(page).unwrap();
    }
    say(&catalog, "5").await;
    for _ in 0..3 {
        sealer.turn(true).await;
    }
    let held = room.held(&catalog).await;
    assert_eq!((held.sound, held.lacks, held.branches), (Some(true), Some(0), 0), "{held:?}");
    assert_eq!(room.found().await.strands.len(), 1);
    turn(&mut sealer).await;
}

/// Jobs that a schedule asks for together read it once; who asks later has it read again.
#[tokio::test]
async fn what_was_read_of_activity_since_a_job_was_asked_for_is_not_read_again_and_nothing_older_is_taken() {
    let room = Room::new(false).await;
    let catalog = room.catalog("first", &["1"]).await;
    turn(&mut room.sealer(&catalog)).await;
    let (shared, asked) = (Shared::default(), Utc::now());
    let orders = "orders".parse().unwrap();
    let of = async |asked| {
        let pages = Pages::asked_for(Some(&catalog), shared.clone(), asked).await;
        pages.of(&room.config, &orders, &room.store).await
    };
    assert_eq!(of(asked).await, Vec::<String>::new());
    std::fs::write(&room.pages()[0], b"{").unwrap();
    assert_eq!(of(asked).await, Vec::<String>::new(), "it is not read again");
    assert!(!of(Utc::now()).await.is_empty(), "what was read before it was asked for says nothing");
}
