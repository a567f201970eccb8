//! Pages of all databases are drawn from what this service read a moment ago, and from nothing older: what is old, or cannot be read again, is never shown as good.

use chrono::{TimeDelta, Utc};
use farshore_catalog::access::Role;
use farshore_catalog::exposure::Minute;
use farshore_catalog::fleet::Fleet;
use farshore_catalog::shipping::{Shipping, ShippingState};
use farshore_web::metrics::reading;

use crate::many::add;
use crate::person::{Person, get, log_in};
use crate::rig::{Rig, name};

const WELL: &str = "db-001";

/// A rig with one database that is well, and somebody who looks.
async fn well() -> (Rig, Person) {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    add(&rig, 1, 2).await;
    let person = log_in(&rig, "ana").await;
    (rig, person)
}

async fn now_read(rig: &Rig) -> Fleet {
    rig.catalog.fleet(Utc::now()).await.unwrap()
}

/// The shipper's last word: it failed.
async fn fails(rig: &Rig) {
    let said = rig.catalog.shipping_find(&name(WELL)).await.unwrap().unwrap();
    let failed = Shipping { state: ShippingState::Failed, updated_at: Utc::now(), ..said };
    rig.catalog.shipping_put(&failed).await.unwrap();
}

/// How a page says that the database stands.
async fn level(rig: &Rig, person: &Person) -> String {
    let page = get(rig, &format!("/?q={WELL}"), &person.cookie).await;
    assert_eq!(page.status, 200, "{page:?}");
    let row = page.text.split("<tr role=\"row\" class=\"").find(|row| row.contains("data-database"));
    row.unwrap().split('"').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_drawn_from_a_reading_of_a_moment_ago_and_say_when_it_was_read() {
    let (rig, person) = well().await;
    let told = [(name(WELL), Minute::of(Utc::now() - TimeDelta::minutes(5), Some(7), false))];
    rig.catalog.exposure_add(&told).await.unwrap();
    let token = rig.token(farshore_catalog::access::Role::Viewer, None).await;
    let lag = rig.get(&format!("/api/v1/databases/{WELL}/lag"), &token).await.json();
    let steps = lag["steps"].as_array().unwrap();
    let known: Vec<_> = steps.iter().filter(|step| !step["worst_ms"].is_null()).collect();
    assert_eq!((&lag["step"], steps.len() >= 120, known.len()), (&60.into(), true, 1), "{lag}");
    assert_eq!((&known[0]["worst_ms"], &known[0]["unknown"]), (&7.into(), &false.into()), "{lag}");
    // Without a reading each page reads for itself.
    let asked_by = async |path: &str| {
        let before = rig.catalog.asked();
        let page = get(&rig, path, &person.cookie).await;
        assert_eq!(page.status, 200);
        (rig.catalog.asked() - before, page.text)
    };
    let (fleet_alone, _) = asked_by("/").await;
    let (drills_alone, _) = asked_by("/drills").await;
    let mut fleet = now_read(&rig).await;
    fleet.read_at -= TimeDelta::milliseconds(200);
    let read_at = fleet.read_at;
    rig.metrics.told(fleet);
    let (first, page) = asked_by("/").await;
    let (second, again) = asked_by("/").await;
    let (drills, _) = asked_by("/drills").await;
    // Who asks is looked up, and the minutes once.
    assert_eq!(second + 1, first);
    assert!(second <= 3 && second + 10 < fleet_alone, "{second}, {fleet_alone} alone");
    assert!(drills + 10 < drills_alone, "{drills}, {drills_alone} alone");
    for page in [page, again] {
        assert!(page.contains(&format!("data-at=\"{}\"", read_at.timestamp_millis())));
        assert!(page.contains("class=\"spark\""));
    }
    assert_eq!(level(&rig, &person).await, "protected");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_too_long_ago_or_before_the_catalog_failed_is_not_shown() {
    let (rig, person) = well().await;
    let good = now_read(&rig).await;
    fails(&rig).await;
    // Nobody reads any more: what was read last says that all is well.
    let mut old = good.clone();
    old.read_at = Utc::now() - reading::SHOWN - TimeDelta::milliseconds(1);
    rig.metrics.told(old);
    assert_eq!(level(&rig, &person).await, "unprotected");
    // The catalog was asked since, and did not answer.
    rig.metrics.told(Fleet { read_at: Utc::now(), ..good });
    rig.metrics.not_told("it did not answer in time");
    assert_eq!(level(&rig, &person).await, "unprotected");
    // It is read again, and what changed is seen.
    reading::read(&rig.metrics, &rig.catalog).await;
    assert_eq!(level(&rig, &person).await, "unprotected");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reading_says_is_judged_by_the_clock_of_whoever_looks() {
    let (rig, person) = well().await;
    let mut fleet = now_read(&rig).await;
    // Read a moment ago, and the source was not heard for longer than three heartbeats since.
    for member in &mut fleet.members {
        if let Some(said) = &mut member.shipping {
            let long_ago = Utc::now() - said.heartbeat * 4;
            (said.last_contact_at, said.updated_at) = (Some(long_ago), long_ago);
        }
    }
    rig.metrics.told(Fleet { read_at: Utc::now(), ..fleet });
    assert_eq!(level(&rig, &person).await, "unknown");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_that_went_away_leaves_no_page_that_says_protected() {
    let (rig, person) = well().await;
    reading::read(&rig.metrics, &rig.catalog).await;
    assert_eq!(level(&rig, &person).await, "protected");
    rig.catalog.close().await;
    reading::read(&rig.metrics, &rig.catalog).await;
    for path in ["/", "/drills"] {
        let page = get(&rig, path, &person.cookie).await;
        assert_eq!(page.status, 503, "{path}");
        assert!(
            !page.text.contains("data-database") && page.text.contains("not known"),
            "{path}: {}",
            page.text
        );
    }
    rig.end().await;
}
