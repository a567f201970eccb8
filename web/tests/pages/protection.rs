//! The page of protection: the worst first, nothing good of commits that nobody saw wait, and to nobody who may not see a database.

use chrono::{TimeDelta, Utc};
use farshore_catalog::access::Role;
use farshore_catalog::guard::{Guard, GuardPhase};
use farshore_catalog::spool::{Spool, SpoolState};

use crate::person::{get, log_in};
use crate::rig::{Rig, name};

fn said(database: &str, phase: GuardPhase, before: TimeDelta) -> Guard {
    let at = Utc::now() - before;
    Guard {
        database: name(database),
        node: Some("oslo".to_owned()),
        phase,
        is_exposed: phase != GuardPhase::Armed,
        exposed_since: (phase != GuardPhase::Armed).then(|| at - TimeDelta::hours(3)),
        why: None,
        trouble: (phase == GuardPhase::HandsOff).then(|| "the setting is '<mine>'".to_owned()),
        looked_at: Some(at),
        told_at: Some(at),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_are_shown_to_wait_only_where_somebody_saw_it_a_moment_ago() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    let person = log_in(&rig, "ana").await;
    let page = async || get(&rig, "/protection", &person.cookie).await.text;
    let rows = |page: &str| {
        let rows = page.split("data-protection=\"").skip(1);
        rows.map(|row| (row.split('"').next().unwrap().to_owned(), row.to_owned())).collect::<Vec<_>>()
    };
    // Nothing is asked for, and nobody says anything.
    let first = rows(&page().await);
    let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["billing", "orders"]);
    assert!(!first.iter().any(|(_, row)| row.contains("state protected")), "{first:?}");
    let now = TimeDelta::zero();
    rig.catalog.guard_put(&said("orders", GuardPhase::HandsOff, now)).await.unwrap();
    rig.catalog.guard_put(&said("billing", GuardPhase::Armed, now)).await.unwrap();
    let second = rows(&page().await);
    assert_eq!(second[0].0, "orders", "the worst first");
    assert!(
        second[0].1.contains("state unprotected") && second[0].1.contains("&#60;mine&#62;"),
        "{second:?}"
    );
    assert!(second[0].1.contains("3 h ago"), "{second:?}");
    assert!(second[1].1.contains("state protected"), "{second:?}");
    // What was said is old soon.
    rig.catalog.guard_expect(&[(name("billing"), false)]).await.unwrap();
    rig.catalog.guard_put(&said("billing", GuardPhase::Armed, TimeDelta::minutes(1))).await.unwrap();
    let third = rows(&page().await);
    let billing = &third.iter().find(|(name, _)| name == "billing").unwrap().1;
    assert!(billing.contains("state unknown") && billing.contains("not known to wait"), "{billing}");
    assert_eq!(get(&rig, "/protection?what=1", &person.cookie).await.status, 400);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_is_shown_with_what_is_the_matter_and_is_not_known_once_its_service_is_silent() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    let person = log_in(&rig, "ana").await;
    let page = async || get(&rig, "/protection", &person.cookie).await.text;
    let full = Spool {
        database: name("orders"),
        node: None,
        state: SpoolState::Full,
        bytes: Some(3 << 20),
        limit: 4 << 20,
        run: None,
        trouble: Some("there is no room <here>".to_owned()),
        told_at: Utc::now(),
    };
    rig.catalog.spool_put(&full).await.unwrap();
    let shown = page().await;
    assert!(shown.contains("full, 3") && shown.contains("Spool: there is no room &#60;here&#62;"), "{shown}");
    rig.catalog.spool_put(&Spool { told_at: Utc::now() - TimeDelta::minutes(1), ..full }).await.unwrap();
    let shown = page().await;
    assert!(shown.contains("data-label=\"Spool\">not known<") && !shown.contains("no room"), "{shown}");
    rig.catalog.spool_forget(&name("orders")).await.unwrap();
    assert!(!page().await.contains("data-label=\"Spool\">not known<"));
    rig.end().await;
}
