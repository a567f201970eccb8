//! What no store implies: the exposure ledger, and taking both chronicles back behind a lost catalog.

use chrono::{TimeDelta, Utc};
use farshore_catalog::activity::Activity;
use farshore_catalog::chronicle::{BATCH, Before, Former, Said, Seal, Settled};
use farshore_catalog::ledger::{RPO, Seen, What, Why, entries};
use farshore_catalog::{Catalog, Options, Time};
use farshore_journal::format::{Chronicle, LifeId};
use tokio::task::JoinSet;

use crate::make::name;

fn activity(what: &str, at: Time) -> Activity {
    Activity {
        at,
        who: "ana".to_owned(),
        what: what.to_owned(),
        database: None,
        detail: "a \"b\"".to_owned(),
    }
}

/// A catalog that is lost later.
async fn other() -> (tempfile::TempDir, Catalog) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/other.db", folder.path().display());
    let catalog = Catalog::open(&url, Options::default()).await.unwrap();
    (folder, catalog)
}

/// All of a chronicle, as a store would give it back.
async fn former(catalog: &Catalog, chronicle: &Chronicle, written: Time) -> Former {
    let entries = catalog.chronicle_entries(chronicle, 1, 1000).await.unwrap();
    let last = entries.last().unwrap();
    let marks = entries.iter().map(|entry| (entry.number, entry.digest)).collect();
    Former { last: last.number, digest: last.digest, written, marks, entries: entries.clone() }
}

/// Entries keep their numbers and digests, what a new catalog wrote meanwhile goes on behind them, and it is done once.
pub async fn a_lost_record_of_activity_comes_back_and_goes_on_behind_its_end(catalog: Catalog) {
    let (_folder, lost) = other().await;
    for n in 0..7 {
        lost.activity_append(&activity(&format!("lost {n}"), Utc::now())).await.unwrap();
    }
    let chronicle = Chronicle::Activity;
    let former = former(&lost, &chronicle, Utc::now()).await;
    catalog.activity_append(&activity("new", Utc::now())).await.unwrap();
    assert!(!catalog.chronicle_standing(&chronicle).await.unwrap().settled);
    let settled = catalog.chronicle_settle(&chronicle, Before::Former(&former)).await.unwrap();
    assert_eq!(settled, Settled::TakenBack { last: 7, entries: 7 });
    assert_eq!(catalog.chronicle_settle(&chronicle, Before::Former(&former)).await.unwrap(), Settled::Before);
    catalog.activity_append(&activity("newer", Utc::now())).await.unwrap();
    let all = catalog.chronicle_entries(&chronicle, 1, 1000).await.unwrap();
    assert_eq!(all[..7], former.entries);
    let said = |at: usize| match &all[at].said {
        Said::Activity(activity) => activity.what.clone(),
        Said::Event(_) => String::new(),
    };
    assert_eq!([7, 8, 9].map(said), ["new", "activity taken back", "newer"]);
    let verified = catalog.activity_verify().await.unwrap();
    assert_eq!((verified.entries, verified.findings.as_slice()), (10, &[][..]));
    let standing = catalog.chronicle_standing(&chronicle).await.unwrap();
    assert_eq!((standing.first, standing.last, standing.life), (8, 10, Some(LifeId::of(&all[7].digest))));
}

/// Without a private key only the end is known: the chain goes on behind it, and the entries come when they can be opened.
pub async fn entries_that_could_not_be_opened_are_filled_in_later_and_only_the_right_ones(catalog: Catalog) {
    let (_folder, lost) = other().await;
    for n in 0..5 {
        lost.activity_append(&activity(&format!("lost {n}"), Utc::now())).await.unwrap();
    }
    let chronicle = Chronicle::Activity;
    let former = former(&lost, &chronicle, Utc::now()).await;
    let sealed = Former { entries: Vec::new(), ..former.clone() };
    catalog.chronicle_settle(&chronicle, Before::Former(&sealed)).await.unwrap();
    assert!(!catalog.activity_verify().await.unwrap().findings.is_empty(), "what is missing is said");
    let (_folder, stranger) = other().await;
    for n in 0..5 {
        stranger.activity_append(&activity(&format!("another's {n}"), Utc::now())).await.unwrap();
    }
    let wrong = self::former(&stranger, &chronicle, Utc::now()).await;
    for (former, added) in [(&wrong, None), (&former, Some(5)), (&former, Some(0))] {
        let end = (former.last, former.digest);
        assert_eq!(catalog.chronicle_fill(&chronicle, end, &former.entries).await.unwrap(), added);
    }
    assert_eq!(catalog.activity_verify().await.unwrap().findings, []);
    assert_eq!(catalog.chronicle_entries(&chronicle, 1, 5).await.unwrap(), former.entries);
}

/// However long the record is, one transaction takes back a bounded part of it, from the end on; a crash between two leaves what is whole from a number on.
pub async fn a_long_record_is_taken_back_in_parts_that_each_lead_to_what_is_there(catalog: Catalog) {
    let (_folder, lost) = other().await;
    let long = 2 * BATCH as u64 + 7;
    for n in 0..long {
        lost.activity_append(&activity(&format!("lost {n}"), Utc::now())).await.unwrap();
    }
    let chronicle = Chronicle::Activity;
    let mut former = former(&lost, &chronicle, Utc::now()).await;
    let all = former.entries.clone();
    let settled = catalog.chronicle_settle(&chronicle, Before::Former(&former)).await.unwrap();
    assert_eq!(settled, Settled::TakenBack { last: long, entries: long });
    let mut parts = 0;
    loop {
        let oldest = catalog.chronicle_own(&chronicle).await.unwrap().oldest();
        let here = catalog.chronicle_entries(&chronicle, oldest, 1000).await.unwrap();
        assert_eq!(here.last().unwrap().number, long + 1, "unbroken from {oldest} on");
        former.entries.retain(|entry| entry.number < oldest);
        let Some(last) = former.entries.last() else { break };
        let end = (last.number, last.digest);
        let newest = &former.entries[former.entries.len().saturating_sub(BATCH)..];
        let added = catalog.chronicle_fill(&chronicle, end, newest).await.unwrap().unwrap();
        assert!((1..=BATCH as u64).contains(&added), "{added}");
        parts += 1;
    }
    assert_eq!(parts, 2);
    assert_eq!(catalog.chronicle_entries(&chronicle, 1, 1000).await.unwrap()[..all.len()], all);
    assert_eq!(catalog.activity_verify().await.unwrap().findings, []);
}

/// What is stored may end in an entry that nobody can open: numbers go on behind it all the same, or nothing could be sealed there.
pub async fn a_ledger_whose_end_could_not_be_opened_goes_on_behind_that_end(catalog: Catalog) {
    let (_folder, lost) = other().await;
    let orders = name("orders");
    for (seen, seconds) in [(Seen::Kept(0), -90), (Seen::Not(Why::Behind, Some(9)), -85)] {
        let at = Utc::now() + TimeDelta::seconds(seconds);
        lost.exposure_look(&orders, RPO, 1000, seen, at).await.unwrap();
    }
    let chronicle = Chronicle::Exposure(orders.clone());
    let mut former = former(&lost, &chronicle, Utc::now()).await;
    former.entries.pop();
    catalog.exposure_look(&orders, RPO, 1000, Seen::Kept(0), Utc::now()).await.unwrap();
    catalog.chronicle_settle(&chronicle, Before::Former(&former)).await.unwrap();
    let standing = catalog.chronicle_standing(&chronicle).await.unwrap();
    let begins = catalog.chronicle_entries(&chronicle, standing.first, 1).await.unwrap();
    assert_eq!((begins[0].number, begins[0].former), (former.last + 1, Some(former.digest)));
}

/// What decides is digests: however old a catalog is, and whatever its clock said, it goes on behind what a store has, unless it is the one that wrote it.
pub async fn a_catalog_goes_on_behind_what_a_store_has_whatever_the_clocks_say(catalog: Catalog) {
    let (_folder, lost) = other().await;
    lost.activity_append(&activity("another's", Utc::now())).await.unwrap();
    let long_ago = Utc::now() - TimeDelta::days(3);
    catalog.activity_append(&activity("own", long_ago)).await.unwrap();
    let chronicle = Chronicle::Activity;
    let former = former(&lost, &chronicle, Utc::now() - TimeDelta::days(9)).await;
    let settled = lost.chronicle_settle(&chronicle, Before::Former(&former)).await.unwrap();
    assert_eq!(settled, Settled::Own);
    assert_eq!(lost.activity_verify().await.unwrap().entries, 1, "nothing is taken that is there");
    let settled = catalog.chronicle_settle(&chronicle, Before::Former(&former)).await.unwrap();
    assert_eq!(settled, Settled::TakenBack { last: 1, entries: 1 });
    let own = catalog.chronicle_own(&chronicle).await.unwrap();
    assert_eq!((own.oldest(), own.last(), own.digest(1)), (1, 3, Some(former.digest)));
}

/// Pages that count for nothing vouch for nothing: since they were put the promise is not known to have held, and that is an entry.
pub async fn where_pages_stand_and_none_counts_the_ledger_says_that_nobody_vouches(catalog: Catalog) {
    let orders = name("orders");
    let (since, begin) = (Utc::now() - TimeDelta::days(5), Utc::now() - TimeDelta::seconds(300));
    catalog.exposure_look(&orders, RPO, 1000, Seen::Kept(0), begin).await.unwrap();
    let chronicle = Chronicle::Exposure(orders.clone());
    let before = Before::Unvouched { since, objective_ms: 1000 };
    assert_eq!(catalog.chronicle_settle(&chronicle, before).await.unwrap(), Settled::Unvouched);
    let ledger = catalog.ledger_of(&orders).await.unwrap();
    let shown = entries(&ledger, Utc::now());
    assert_eq!((shown.len(), shown[0].whys.to_string(), shown[0].until), (1, "not_looked".to_owned(), None));
    assert_eq!(shown[0].from.timestamp_micros(), since.timestamp_micros());
    // It ends as every entry does: once the promise was seen kept for a while.
    for seconds in 1..6 {
        let at = Utc::now() + TimeDelta::seconds(seconds * 5);
        catalog.exposure_look(&orders, RPO, 1000, Seen::Kept(0), at).await.unwrap();
    }
    let shown = entries(&catalog.ledger_of(&orders).await.unwrap(), Utc::now() + TimeDelta::seconds(25));
    assert!(shown.len() == 1 && shown[0].until.is_some_and(|until| until > begin), "{shown:?}");
    let own = catalog.chronicle_own(&chronicle).await.unwrap();
    assert_eq!(own.oldest(), 1);
    // Of activity a note says it.
    let before = Before::Unvouched { since, objective_ms: 0 };
    catalog.chronicle_settle(&Chronicle::Activity, before).await.unwrap();
    assert_eq!(catalog.activity_list(None, 1).await.unwrap()[0].activity.what, "activity not taken back");
}

/// The ledger comes back with its entries; what happened since its end is not known, and an entry.
pub async fn a_lost_ledger_comes_back_and_the_time_since_its_end_is_an_entry(catalog: Catalog) {
    let (_folder, lost) = other().await;
    let (orders, begin) = (name("orders"), Utc::now() - TimeDelta::seconds(3001));
    let at = |seconds: i64| begin + TimeDelta::seconds(seconds);
    let look = async |catalog: &Catalog, seen, seconds: i64| {
        catalog.exposure_look(&orders, RPO, 1000, seen, at(seconds)).await.unwrap()
    };
    look(&lost, Seen::Kept(0), 0).await;
    look(&lost, Seen::Not(Why::TargetFailing, Some(4000)), 5).await;
    look(&lost, Seen::Not(Why::SourceSilent, None), 10).await;
    for seconds in [15, 20, 25, 30, 35] {
        look(&lost, Seen::Kept(10), seconds).await;
    }
    let told = lost.ledger_of(&orders).await.unwrap();
    let words: Vec<What> = told.events.iter().map(|one| one.event.what).collect();
    assert_eq!(words, [What::Kept, What::Opened, What::Grew, What::Ended]);
    let shown = entries(&told, at(36));
    assert_eq!(
        (shown.len(), shown[0].from, shown[0].until),
        (1, told.events[1].event.from, Some(told.events[3].event.until))
    );
    assert_eq!(
        (shown[0].whys.to_string(), shown[0].worst_ms),
        ("target_failing,source_silent".to_owned(), Some(4000))
    );
    assert_eq!(entries(&told, at(90)).pop().map(|entry| entry.number), Some(None), "nobody looks");

    let chronicle = Chronicle::Exposure(orders.clone());
    let former = former(&lost, &chronicle, at(40)).await;
    look(&catalog, Seen::Kept(0), 3000).await;
    let settled = catalog.chronicle_settle(&chronicle, Before::Former(&former)).await.unwrap();
    assert_eq!(settled, Settled::TakenBack { last: 4, entries: 4 });
    look(&catalog, Seen::Kept(0), 3005).await;
    let ledger = catalog.ledger_of(&orders).await.unwrap();
    assert_eq!(ledger.events[..4], told.events);
    let shown = entries(&ledger, at(3006));
    assert_eq!((shown.len(), shown[1].whys.to_string(), shown[1].until), (2, "not_looked".to_owned(), None));
    assert!(shown[1].from <= at(36), "{shown:?}");
    // However short the time is: what the lost catalog saw last vouches for nothing behind it.
    assert_eq!(
        ledger.events.iter().map(|one| one.event.what).skip(4).collect::<Vec<_>>(),
        [What::Kept, What::Opened]
    );
    // Every event follows the one before.
    let all = catalog.chronicle_entries(&chronicle, 1, 1000).await.unwrap();
    assert!(all.windows(2).all(|pair| pair[1].former == Some(pair[0].digest)), "{all:?}");
}

/// Two services look at once, and the events are one chain.
pub async fn two_who_look_at_once_write_one_ledger(catalog: Catalog) {
    let (orders, begin) = (name("orders"), Utc::now());
    let mut looks = JoinSet::new();
    for which in 0..2 {
        let (catalog, orders) = (catalog.clone(), orders.clone());
        looks.spawn(async move {
            for round in 0..40 {
                let seen = match (round + which) % 4 {
                    0 => Seen::Not(Why::ALL[round % Why::ALL.len()], Some(9)),
                    _ => Seen::Kept(0),
                };
                let now = begin + TimeDelta::seconds(i64::try_from(round).unwrap() * 20);
                catalog.exposure_look(&orders, RPO, 1, seen, now).await.unwrap();
            }
        });
    }
    while let Some(ended) = looks.join_next().await {
        ended.unwrap();
    }
    let ledger = catalog.ledger_of(&orders).await.unwrap();
    let numbers: Vec<u64> = ledger.events.iter().map(|one| one.number).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let all = catalog.chronicle_entries(&Chronicle::Exposure(orders), 1, 1000).await.unwrap();
    assert!(all.windows(2).all(|pair| pair[1].former == Some(pair[0].digest)));
}

/// What a store does not have yet is counted.
pub async fn how_far_a_store_has_a_chronicle_is_told_with_what_it_lacks(catalog: Catalog) {
    for _ in 0..3 {
        catalog.activity_append(&activity("what", Utc::now())).await.unwrap();
    }
    let seal = Seal {
        chronicle: Chronicle::Activity.to_string(),
        store: "main".to_owned(),
        first: 1,
        once: 1,
        number: 1,
        digest: "ab".to_owned(),
        at: crate::make::time(1),
        trouble: Some("away".to_owned()),
    };
    catalog.seal_put(&seal).await.unwrap();
    assert_eq!(catalog.seal_list().await.unwrap(), [(seal.clone(), 3)]);
    catalog.seal_trouble(&Chronicle::Activity, "main", Some("full")).await.unwrap();
    let listed = catalog.seal_list().await.unwrap().pop().unwrap().0;
    assert_eq!((listed.number, listed.trouble), (1, Some("full".to_owned())), "what it has, it has");
    // It holds the newest alone: what is before counts too.
    let seal = Seal { first: 2, number: 3, trouble: None, ..seal };
    assert_eq!(seal.lacks(3), 1);
    catalog.seal_put(&seal).await.unwrap();
    assert_eq!(catalog.fleet(Utc::now()).await.unwrap().seals, [(seal, 3)]);
}

/// Another catalog has other digests, however long it is; of the one before the oldest entry the next tells.
pub async fn the_digest_of_an_entry_is_told_by_itself_or_by_the_one_behind_it(catalog: Catalog) {
    let (_folder, lost) = other().await;
    for n in 0..3 {
        lost.activity_append(&activity(&format!("lost {n}"), Utc::now())).await.unwrap();
    }
    let chronicle = Chronicle::Activity;
    let former = former(&lost, &chronicle, Utc::now()).await;
    assert_eq!(catalog.chronicle_digest(&chronicle, 3).await.unwrap(), None);
    let sealed = Former { entries: Vec::new(), ..former.clone() };
    catalog.chronicle_settle(&chronicle, Before::Former(&sealed)).await.unwrap();
    let all = catalog.chronicle_entries(&chronicle, 4, 9).await.unwrap();
    assert_eq!((all.len(), all[0].number), (1, 4));
    for (number, digest) in
        [(0, None), (2, None), (3, Some(former.digest)), (4, Some(all[0].digest)), (5, None)]
    {
        assert_eq!(catalog.chronicle_digest(&chronicle, number).await.unwrap(), digest, "{number}");
    }
    let orders = name("orders");
    catalog.exposure_look(&orders, RPO, 1000, Seen::Kept(0), Utc::now()).await.unwrap();
    let own = catalog.chronicle_own(&Chronicle::Exposure(orders.clone())).await.unwrap();
    let ledger = Chronicle::Exposure(orders);
    assert_eq!(catalog.chronicle_digest(&ledger, 1).await.unwrap(), own.digest(1));
    let another = Chronicle::Exposure(name("invoices"));
    assert_eq!(catalog.chronicle_digest(&another, 1).await.unwrap(), None);
}

/// A store that is no longer a database's holds nothing that counts.
pub async fn how_far_a_store_had_a_chronicle_is_forgotten_with_the_store(catalog: Catalog) {
    let (orders, invoices) = (name("orders"), name("invoices"));
    for chronicle in [&orders, &invoices].map(|name| Chronicle::Exposure(name.clone())) {
        catalog.seal_trouble(&chronicle, "old", Some("away")).await.unwrap();
    }
    catalog.seal_trouble(&Chronicle::Activity, "old", None).await.unwrap();
    catalog.seal_trouble(&Chronicle::Activity, "kept", None).await.unwrap();
    let rows = async || -> Vec<String> {
        let all = catalog.seal_list().await.unwrap();
        all.into_iter().map(|(seal, _)| format!("{} in {}", seal.chronicle, seal.store)).collect()
    };
    assert_eq!(catalog.store_list(&orders).await.unwrap(), ["old"]);
    catalog.store_forget(&orders, "old").await.unwrap();
    assert_eq!(rows().await, ["activity in kept", "activity in old", "exposure/invoices in old"]);
    catalog.store_forget(&invoices, "old").await.unwrap();
    assert_eq!(rows().await, ["activity in kept"]);
}

/// A copy of a catalog from before it was settled: what it wrote by then is in the store under its own numbers, or, where another's was taken back, under others.
pub async fn a_copy_from_before_it_was_settled_writes_nothing_a_second_time(catalog: Catalog) {
    let chronicle = Chronicle::Activity;
    let said = ["one", "two", "three"].map(|what| activity(what, Utc::now()));
    let whats = async |catalog: &Catalog| -> Vec<String> {
        let all = catalog.activity_list(None, 100).await.unwrap();
        all.into_iter().rev().map(|entry| entry.activity.what).collect()
    };
    let (_folder, first) = other().await;
    for one in &said {
        first.activity_append(one).await.unwrap();
    }
    first.chronicle_settle(&chronicle, Before::Nothing).await.unwrap();
    first.activity_append(&activity("four", Utc::now())).await.unwrap();
    // Its own numbers, opened or not; two were written when the copy was made, and one behind that which no store has.
    let whole = former(&first, &chronicle, Utc::now()).await;
    for former in [whole.clone(), Former { entries: Vec::new(), ..whole.clone() }] {
        let (_folder, copy) = other().await;
        for one in said[..2].iter().chain([&activity("new", Utc::now())]) {
            copy.activity_append(one).await.unwrap();
        }
        copy.chronicle_settle(&chronicle, Before::Former(&former)).await.unwrap();
        let whats = whats(&copy).await;
        assert_eq!(whats[former.entries.len()..], ["new", "activity taken back"], "{whats:?}");
    }
    // Others: it had taken another's record back before.
    let (_folder, lost) = other().await;
    lost.activity_append(&activity("lost", Utc::now())).await.unwrap();
    let lost = former(&lost, &chronicle, Utc::now()).await;
    for one in &said {
        catalog.activity_append(one).await.unwrap();
    }
    let (_folder, copy) = other().await;
    for one in &said[..2] {
        copy.activity_append(one).await.unwrap();
    }
    catalog.chronicle_settle(&chronicle, Before::Former(&lost)).await.unwrap();
    let former = former(&catalog, &chronicle, Utc::now()).await;
    copy.chronicle_settle(&chronicle, Before::Former(&former)).await.unwrap();
    let whats = whats(&copy).await;
    assert_eq!(whats, ["lost", "one", "two", "three", "activity taken back", "activity taken back"]);
    assert_eq!(copy.activity_verify().await.unwrap().findings, []);
}

/// The same of a ledger: an entry that was widened twice by one event would show a promise broken that was not.
pub async fn a_copy_of_a_ledger_from_before_it_was_settled_writes_nothing_a_second_time(catalog: Catalog) {
    let (orders, now) = (name("orders"), Utc::now());
    let chronicle = Chronicle::Exposure(orders.clone());
    let look = async |catalog: &Catalog, seen, seconds: i64| {
        let at = now - TimeDelta::seconds(600 - seconds);
        catalog.exposure_look(&orders, RPO, 1000, seen, at).await.unwrap();
    };
    let (_folder, copy) = other().await;
    for catalog in [&catalog, &copy] {
        look(catalog, Seen::Kept(0), 0).await;
        look(catalog, Seen::Not(Why::Behind, Some(9000)), 5).await;
    }
    catalog.chronicle_settle(&chronicle, Before::Nothing).await.unwrap();
    look(&catalog, Seen::Kept(0), 10).await;
    let former = former(&catalog, &chronicle, Utc::now()).await;
    let before = copy.chronicle_entries(&chronicle, 1, 100).await.unwrap();
    assert_eq!(former.entries[..before.len()], before);
    copy.chronicle_settle(&chronicle, Before::Former(&former)).await.unwrap();
    let after = copy.chronicle_entries(&chronicle, 1, 100).await.unwrap();
    let opened = |entry: &&farshore_catalog::chronicle::Kept| matches!(&entry.said, Said::Event(event) if event.whys.0.contains(&Why::Behind) && event.what == What::Opened);
    assert_eq!(after.iter().filter(opened).count(), 1, "{after:#?}");
    assert_eq!(copy.ledger_verify(&orders).await.unwrap().findings, []);
}
