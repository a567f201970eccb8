//! What pages say of drills, and what REST does.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use farshore_catalog::Time;
use farshore_catalog::access::Role;
use farshore_catalog::drill::Drill;
use farshore_catalog::job::{Holder, JobEnd, JobId};
use farshore_journal::format::certificate::{
    CheckOutcome, ChosenPoint, CountedTable, DrillCheck, DrillFailure, DrillStatement, DrillTarget,
    DrillVerdict, Measured, SCHEMA, statement_text,
};
use farshore_journal::format::{Certificate, HeadStanding, SigningKey, VerifyKeys};
use farshore_journal::{BackupId, DrillId, IncarnationId, Offset, Position, StoreId, Timeline};
use reqwest::Method;

use crate::person::{get, log_in};
use crate::rig::{Rig, name, time};

/// A drill of `orders` without a signature.
pub fn drill(number: u8, verdict: DrillVerdict, began: Time, took: Option<u64>) -> Drill {
    let said = statement(number, verdict, began, took);
    Drill {
        id: said.drill,
        database: said.database.clone(),
        store: "main".to_owned(),
        incarnation: said.incarnation,
        verdict,
        began,
        ended: began + TimeDelta::seconds(9),
        recovery: took.map(Duration::from_secs),
        objective: Some(Duration::from_secs(900)),
        replayed: took.map(|took| (Duration::from_secs(took / 2), 32 << 20)),
        statement: statement_text(&said).unwrap(),
        signed: None,
        uncertified: Some("no signing_key is configured".to_owned()),
    }
}

fn statement(number: u8, verdict: DrillVerdict, began: Time, took: Option<u64>) -> DrillStatement {
    let position = Position::new(Timeline::new(1), Offset::new(600));
    let micros = |seconds: u64| Some(seconds * 1_000_000);
    let failed = verdict == DrillVerdict::Failed;
    let check = |name: &str, outcome| DrillCheck {
        name: name.to_owned(),
        outcome,
        required: true,
        detail: "PLACE".to_owned(),
    };
    DrillStatement {
        certificate: SCHEMA.to_owned(),
        drill: DrillId::from_bytes([number; 16]),
        database: name("orders"),
        engine: "postgres".to_owned(),
        store: StoreId::from_bytes([3; 16]),
        incarnation: IncarnationId::from_bytes([1; 16]),
        incarnation_number: 0,
        node: "oslo PLACE".to_owned(),
        version: "0.1.0".to_owned(),
        machine: "Linux".to_owned(),
        began: began.to_rfc3339(),
        ended: began.to_rfc3339(),
        verdict,
        point: ChosenPoint { asked: "random PLACE".to_owned(), seed: Some(7), spans: Vec::new() },
        journal: None,
        target: took.map(|_| DrillTarget {
            position,
            time: Some("2026-03-29T14:00:20Z".to_owned()),
            transaction: Some(720),
            base: BackupId::from_bytes([1; 16]),
            base_end: position,
            replay_bytes: 4096,
            planned_bytes: 8192,
        }),
        failure: failed.then(|| DrillFailure {
            phase: "replay".to_owned(),
            code: "FS-0403".to_owned(),
            happened: "a chunk is missing PLACE".to_owned(),
        }),
        checks: vec![
            check("answers reads", if failed { CheckOutcome::Failed } else { CheckOutcome::Passed }),
            check("pg_amcheck PLACE", CheckOutcome::NotLookedAt),
        ],
        tables: vec![CountedTable { table: "public.orders".to_owned(), rows: Some(42) }],
        measured: Measured {
            plan_us: micros(1),
            fetch_us: micros(2),
            replay_us: took.and_then(micros),
            ..Measured::default()
        },
        recovery_us: took.and_then(micros),
        objective_us: micros(900),
        network: "a network of its own".to_owned(),
        removed: true,
    }
}

/// The same, signed.
pub fn certified(drill: Drill, key: &SigningKey) -> Drill {
    let said: DrillStatement = serde_json::from_str(&drill.statement).unwrap();
    let certificate = Certificate::sign(said, key).unwrap();
    let signed = Some((certificate.key, certificate.signature));
    Drill { statement: certificate.text().to_owned(), signed, uncertified: None, ..drill }
}

/// A queued job is done, and this came of it.
pub async fn succeeds(rig: &Rig, id: JobId, result: &str) {
    let holder = Holder { node: "oslo".to_owned(), process: "p".to_owned() };
    let claim = rig.catalog.job_claim(id, &holder, Utc::now()).await.unwrap().unwrap();
    rig.catalog.job_end(&claim, &JobEnd::Succeeded(result.to_owned()), Utc::now()).await.unwrap();
}

fn row(page: &str, database: &str) -> String {
    let row = page.split(&format!("data-database=\"{database}\"")).nth(1).unwrap();
    row.split("</tr>").next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_never_drilled_is_said_to_be_never_proved_and_a_failure_is_not_covered_by_a_pass() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    let person = log_in(&rig, "ana").await;
    let page = |path: &'static str| get(&rig, path, &person.cookie);
    for path in ["/", "/drills"] {
        let shown = page(path).await.text;
        for database in ["orders", "billing"] {
            let row = row(&shown, database);
            assert!(row.contains("<span class=\"word\">never</span>"), "{path}: {row}");
            assert!(!row.contains("<span class=\"word\">proved</span>"), "{path}: {row}");
        }
    }
    assert!(page("/").await.text.contains("<b>2</b> never proved by a drill"));
    assert!(page("/databases/orders").await.text.contains("is not proved"));
    // Of another incarnation: it says nothing of this one.
    let now = Utc::now();
    let hour = |hours| now - TimeDelta::hours(hours);
    let former = Drill {
        incarnation: IncarnationId::from_bytes([9; 16]),
        ..drill(1, DrillVerdict::Passed, hour(30), Some(5))
    };
    rig.catalog.drill_put(&former).await.unwrap();
    let shown = row(&page("/drills").await.text, "orders");
    assert!(shown.contains(">never<") && shown.contains("says nothing of this one"), "{shown}");
    rig.catalog.drill_put(&drill(2, DrillVerdict::Passed, hour(20), Some(5))).await.unwrap();
    for path in ["/", "/drills"] {
        let shown = row(&page(path).await.text, "orders");
        assert!(
            shown.contains("<span class=\"word\">proved</span>") && shown.contains("19 h ago"),
            "{path}: {shown}"
        );
        assert!(shown.contains("5.0 s") && shown.contains("15 min"), "{path}: {shown}");
    }
    rig.catalog.drill_put(&drill(3, DrillVerdict::Failed, hour(2), None)).await.unwrap();
    for path in ["/", "/drills"] {
        let shown = row(&page(path).await.text, "orders");
        assert!(shown.contains("<span class=\"word\">failed</span>"), "{path}: {shown}");
        assert!(!shown.contains("<span class=\"word\">proved</span>"), "{path}: {shown}");
    }
    let all = page("/drills?database=orders").await.text;
    assert!(all.contains("in replay: FS-0403 a chunk is missing"), "{all}");
    assert!(all.contains("not certified") && all.contains("class=\"trend\""), "{all}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drills_page_says_what_was_measured_and_never_calls_passed_what_was_not_looked_at() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    let person = log_in(&rig, "ana").await;
    let one = drill(1, DrillVerdict::Passed, time(0), Some(5));
    rig.catalog.drill_put(&one).await.unwrap();
    let page = get(&rig, &format!("/drills/{}", one.id), &person.cookie).await.text;
    assert!(page.contains("1 of 2 passed") && page.contains("not looked at"), "{page}");
    // What it did not come to has no time.
    let open = page.split("open").last().unwrap();
    assert!(page.contains("not come to") && !open.contains("0 s"), "{page}");
    assert!(page.contains("no signing_key is configured") && !page.contains("id=\"certificate\""), "{page}");
    assert!(page.contains("42 rows") && page.contains("1:0/258"), "{page}");
    // It is drawn at the time of what it restored, and of two in one place the one that did not hold.
    let timeline = |text: String| text.split("id=\"timeline\"").nth(1).unwrap().to_owned();
    let shown = || get(&rig, "/databases/orders?zoom=all", &person.cookie);
    let drawn = timeline(shown().await.text);
    let link = |id: DrillId| format!("<a href=\"/drills/{id}\"");
    assert!(
        drawn.contains(&link(one.id)) && drawn.contains("drill passed at 2026-03-29T14:00:20"),
        "{drawn}"
    );
    let other = Drill {
        incarnation: IncarnationId::from_bytes([9; 16]),
        ..drill(4, DrillVerdict::Failed, time(3), Some(5))
    };
    let failed = drill(3, DrillVerdict::Failed, time(2), Some(5));
    rig.catalog.drill_put(&other).await.unwrap();
    assert!(timeline(shown().await.text).contains(&link(one.id)), "of another incarnation's it is no matter");
    rig.catalog.drill_put(&failed).await.unwrap();
    let drawn = timeline(shown().await.text);
    assert!(drawn.contains(&link(failed.id)) && !drawn.contains(&link(one.id)), "{drawn}");
    // One that this version cannot read is said to be one.
    let odd = Drill { id: DrillId::from_bytes([2; 16]), statement: "{}".to_owned(), ..one.clone() };
    rig.catalog.drill_put(&odd).await.unwrap();
    let page = get(&rig, &format!("/drills/{}", odd.id), &person.cookie).await;
    assert!(page.status == 200 && page.text.contains("does not read"), "{page:?}");
    assert_eq!(get(&rig, "/drills", &person.cookie).await.status, 200);
    for id in ["0".repeat(32), "x".to_owned()] {
        assert_eq!(get(&rig, &format!("/drills/{id}"), &person.cookie).await.status, 404);
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_given_to_a_session_and_to_a_token_as_it_was_signed_and_never_when_it_was_changed() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    let person = log_in(&rig, "ana").await;
    let (key, _) = SigningKey::mint().unwrap();
    let one = certified(drill(1, DrillVerdict::Passed, time(0), Some(5)), &key);
    rig.catalog.drill_put(&one).await.unwrap();
    let path = format!("/api/v1/drills/{}/certificate", one.id);
    let page = get(&rig, &format!("/drills/{}", one.id), &person.cookie).await.text;
    assert!(page.contains(&format!("href=\"{path}\" download")), "{page}");
    let token = rig.token(Role::Viewer, None).await;
    for given in [get(&rig, &path, &person.cookie).await, rig.get(&path, &token).await] {
        assert_eq!(given.status, 200, "{given:?}");
        assert_eq!(
            given.header("content-disposition"),
            format!("attachment; filename=\"drill-{}.certificate\"", one.id)
        );
        let read = Certificate::decode(given.text.as_bytes()).unwrap();
        assert_eq!(read.standing(&VerifyKeys::new(vec![key.public()])), HeadStanding::Pinned);
        assert_eq!(read.said().drill, one.id);
    }
    // Nobody else's, and nobody's without a login.
    let stranger = rig.token(Role::Viewer, Some("billing")).await;
    assert_eq!(rig.get(&path, &stranger).await.problem(), "drill-unknown");
    assert_eq!(rig.send(Method::GET, &path, &[], "").await.status, 401);
    // One that was not signed, and one whose text was changed since.
    let bare = drill(2, DrillVerdict::Passed, time(0), Some(5));
    let changed = Drill {
        id: DrillId::from_bytes([3; 16]),
        statement: one.statement.replace("\"recovery_us\":5000000", "\"recovery_us\":1000000"),
        ..one.clone()
    };
    assert_ne!(changed.statement, one.statement);
    for (drill, status, code) in [(bare, 404, "drill-unknown"), (changed, 409, "conflict")] {
        rig.catalog.drill_put(&drill).await.unwrap();
        let refused = rig.get(&format!("/api/v1/drills/{}/certificate", drill.id), &token).await;
        assert_eq!((refused.status, refused.problem().as_str()), (status, code));
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_drills_are_reached_page_by_page_and_day_by_day() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    let person = log_in(&rig, "ana").await;
    for number in 1..=60 {
        let began = time(i64::from(number) * 3600);
        rig.catalog.drill_put(&drill(number, DrillVerdict::Passed, began, Some(1))).await.unwrap();
    }
    let ids = |page: &str| -> Vec<String> {
        let all = page.split("id=\"drill-").skip(1);
        all.map(|rest| rest.split('"').next().unwrap().to_owned()).filter(|id| id.len() == 32).collect()
    };
    let (mut path, mut seen) = ("/drills?database=orders".to_owned(), Vec::new());
    loop {
        let page = get(&rig, &path, &person.cookie).await.text;
        seen.extend(ids(&page));
        let Some(older) = page.split("id=\"older\" href=\"").nth(1) else { break };
        path = older.split('"').next().unwrap().replace("&amp;", "&").replace("&#38;", "&");
    }
    let right: Vec<String> =
        (1..=60).rev().map(|number| DrillId::from_bytes([number; 16]).to_string()).collect();
    assert_eq!(seen, right);
    // Ten began on the first day, from three in the afternoon on.
    let day = get(&rig, "/drills?database=orders&day=2026-03-29", &person.cookie).await.text;
    assert_eq!(ids(&day).len(), 9, "{:?}", ids(&day));
    assert!(
        day.contains("<span>29</span><span class=\"heard\">: 9 passed</span>") && day.contains("March 2026"),
        "{day}"
    );
    // The same over REST.
    let token = rig.token(Role::Viewer, None).await;
    let all = rig.all("/api/v1/drills?limit=7&database=orders", &token).await;
    let all: Vec<&str> = all.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(all, right);
    rig.end().await;
}
