//! The record of who did what: whole, or known not to be.

use chrono::TimeDelta;
use farshore_catalog::activity::{Activity, Finding, activity_append_in_txn};
use farshore_catalog::ask::{Ask, MOST_UNENDED, Told};
use farshore_catalog::job::{JobFilter, JobId, JobKind, NewJob, Via};
use farshore_catalog::{Catalog, Error, Time};
use farshore_journal::format::Chronicle;
use sqlx::AnyPool;
use tokio::task::JoinSet;

use crate::make::{name, time};

fn activity(who: &str, detail: &str) -> Activity {
    Activity {
        at: time(1),
        who: who.to_owned(),
        what: "restore".to_owned(),
        database: Some(name("orders")),
        detail: detail.to_owned(),
    }
}

async fn sound(catalog: &Catalog, entries: u64) {
    let verified = catalog.activity_verify().await.unwrap();
    assert_eq!((verified.entries, verified.last, verified.findings.as_slice()), (entries, entries, &[][..]));
}

/// Writers of several connections, some of which take their entry back, and a record that did not fork.
pub async fn writers_at_once_make_one_chain(catalog: Catalog) {
    sound(&catalog, 0).await;
    let mut writers = JoinSet::new();
    for writer in 0..6 {
        let catalog = catalog.clone();
        writers.spawn(async move {
            for round in 0..10 {
                let entry = activity(&format!("w{writer}"), &format!("{round}"));
                let mut txn = catalog.begin().await.unwrap();
                activity_append_in_txn(&mut txn, &entry).await.unwrap();
                match round % 3 {
                    0 => drop(txn),
                    _ => txn.commit().await.unwrap(),
                }
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    sound(&catalog, 36).await;
}

/// What somebody does to a record behind our back, and what is found of it.
pub async fn an_entry_that_was_changed_removed_or_moved_is_found(catalog: Catalog, raw: AnyPool) {
    for number in 1..=6 {
        catalog.activity_append(&activity("ana", &format!("entry {number}"))).await.unwrap();
    }
    sound(&catalog, 6).await;
    let found = async || catalog.activity_verify().await.unwrap().findings;
    let run = async |text: &'static str| {
        sqlx::query(text).execute(&raw).await.unwrap();
    };
    run("update activity set detail = 'another' where number = 3").await;
    assert_eq!(found().await, [(3, Finding::Changed)]);
    run("update activity set detail = 'entry 3' where number = 3").await;
    assert_eq!(found().await, []);
    run("update activity set at_us = at_us + 1 where number = 1").await;
    assert_eq!(found().await, [(1, Finding::Changed)]);
    run("update activity set at_us = at_us - 1 where number = 1").await;
    for text in [
        "update activity set number = 100 where number = 2",
        "update activity set number = 2 where number = 5",
        "update activity set number = 5 where number = 100",
    ] {
        run(text).await;
    }
    let moved = found().await;
    assert!(moved.contains(&(2, Finding::Changed)) && moved.contains(&(5, Finding::Changed)), "{moved:?}");
    for text in [
        "update activity set number = 100 where number = 2",
        "update activity set number = 2 where number = 5",
        "update activity set number = 5 where number = 100",
    ] {
        run(text).await;
    }
    assert_eq!(found().await, []);
    run("insert into activity (number, at_us, who, what, detail) values (7, 1, 'eve', 'nothing', '')").await;
    assert_eq!(found().await, [(7, Finding::Behind)]);
    run("delete from activity where number = 7").await;
    run("delete from activity where number = 6").await;
    assert_eq!(found().await, [(6, Finding::Missing { through: 6 })]);
    // What is appended then does not hide it.
    catalog.activity_append(&activity("ana", "later")).await.unwrap();
    assert_eq!(found().await[0], (6, Finding::Missing { through: 6 }));
    run("delete from activity where number = 2").await;
    assert_eq!(found().await[0], (2, Finding::Missing { through: 2 }));
    // Whoever seals behind the hole gets what is there, and its number says that it does not follow.
    let behind = catalog.chronicle_entries(&Chronicle::Activity, 2, 9).await.unwrap();
    assert_eq!(behind.iter().map(|entry| entry.number).collect::<Vec<_>>(), [3, 4, 5]);
    // Without its end the record goes on, and says so.
    run("delete from activity_head").await;
    assert!(found().await.iter().any(|(_, finding)| *finding == Finding::HeadLost));
    let number = catalog.activity_append(&activity("ana", "later still")).await.unwrap();
    assert_eq!(number, 9, "the loss is an entry of its own");
    assert!(found().await.contains(&(8, Finding::HeadLost)));
}

/// Entries of a version that knew no chain are taken into it with the first that is appended.
pub async fn entries_of_before_the_chain_are_taken_into_it(catalog: Catalog, raw: AnyPool) {
    for number in 1..=3 {
        let text = format!(
            "insert into activity (number, at_us, who, what, detail) values ({number}, {number}, 'ana', 'x', '')"
        );
        sqlx::query(sqlx::AssertSqlSafe(text)).execute(&raw).await.unwrap();
    }
    sqlx::query("update activity_head set number = 3").execute(&raw).await.unwrap();
    let before = catalog.activity_verify().await.unwrap();
    assert_eq!((before.entries, before.digest.as_str(), before.findings.len()), (3, "", 0));
    assert_eq!(catalog.activity_append(&activity("ana", "first")).await.unwrap(), 4);
    sound(&catalog, 4).await;
    sqlx::query("update activity set who = 'eve' where number = 2").execute(&raw).await.unwrap();
    assert_eq!(catalog.activity_verify().await.unwrap().findings, [(2, Finding::Changed)]);
}

fn ask(by: &str, key: &str, request: &str) -> Ask {
    let job = NewJob {
        id: JobId::mint(),
        kind: JobKind::Backup,
        database: Some(name("orders")),
        spec: "{}".to_owned(),
        asked_by: by.to_owned(),
        via: Via::Api,
        wanted_node: None,
    };
    let answer = format!("queued {}", job.id);
    Ask {
        by: by.to_owned(),
        key: key.to_owned(),
        request: request.to_owned(),
        answer,
        activity: activity(by, &job.id.to_string()),
        job,
    }
}

pub async fn work_that_is_asked_for_again_within_a_day_is_the_same_job(catalog: Catalog) {
    let jobs = async || catalog.job_list(&JobFilter::default(), 1000).await.unwrap().len();
    let at = |hours: i64| -> Time { time(0) + TimeDelta::hours(hours) };
    let first = ask("token 1", "k", "backup");
    assert_eq!(catalog.job_ask(&first, at(0)).await.unwrap(), Told::First);
    let again = Told::Again { answer: first.answer.clone(), job: first.job.id };
    for hours in [0, 1, 24] {
        assert_eq!(catalog.job_ask(&ask("token 1", "k", "backup"), at(hours)).await.unwrap(), again);
    }
    assert_eq!(catalog.job_ask(&ask("token 1", "k", "other"), at(1)).await.unwrap(), Told::Otherwise);
    assert_eq!(jobs().await, 1);
    sound(&catalog, 1).await;
    assert_eq!(catalog.job_ask(&ask("token 2", "k", "other"), at(1)).await.unwrap(), Told::First);
    assert_eq!(catalog.job_ask(&ask("token 1", "k", "other"), at(25)).await.unwrap(), Told::First);
    // Twenty at once are one.
    let mut asking = JoinSet::new();
    for _ in 0..20 {
        let catalog = catalog.clone();
        asking
            .spawn(async move { catalog.job_ask(&ask("token 1", "many", "backup"), time(0)).await.unwrap() });
    }
    let told = asking.join_all().await;
    assert_eq!(told.iter().filter(|told| **told == Told::First).count(), 1, "{told:?}");
    assert!(told.iter().all(|told| matches!(told, Told::First | Told::Again { .. })), "{told:?}");
    assert_eq!(jobs().await, 4);
    sound(&catalog, 4).await;
}

/// Whoever asks at once: so many wait as may, and of what was refused nothing is kept.
pub async fn no_more_work_of_a_database_is_asked_for_than_may_wait(catalog: Catalog) {
    let mut asking = JoinSet::new();
    for number in 0..MOST_UNENDED + 8 {
        let (catalog, ask) = (catalog.clone(), ask("token 1", &format!("k-{number}"), "backup"));
        asking.spawn(async move { catalog.job_ask(&ask, time(0)).await });
    }
    let told = asking.join_all().await;
    assert_eq!(told.iter().filter(|told| matches!(told, Ok(Told::First))).count() as u64, MOST_UNENDED);
    let refused = told.iter().filter(|told| matches!(told, Err(Error::QueueFull { .. }))).count();
    assert_eq!(refused, 8, "{told:?}");
    let waiting = catalog.job_unended().await.unwrap();
    assert_eq!(waiting.len() as u64, MOST_UNENDED);
    sound(&catalog, MOST_UNENDED).await;
    // Another database, and what is of none, has room of its own.
    for database in [Some(name("billing")), None] {
        let other = ask("token 1", &format!("other-{database:?}"), "backup");
        let other = Ask { job: NewJob { database, ..other.job.clone() }, ..other };
        assert_eq!(catalog.job_ask(&other, time(1)).await.unwrap(), Told::First);
    }
    // The same question is answered once there is room, as the first time.
    let late = ask("token 1", "late", "backup");
    assert!(matches!(
        catalog.job_ask(&late, time(2)).await,
        Err(Error::QueueFull { unended: 32, most: 32, .. })
    ));
    catalog.job_cancel(waiting[0].asked.id, "ana", time(3)).await.unwrap();
    assert_eq!(catalog.job_ask(&late, time(4)).await.unwrap(), Told::First);
}
