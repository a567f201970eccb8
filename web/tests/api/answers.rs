//! What is answered: what the catalog knows, page by page, and nothing that it does not.

use farshore_catalog::access::Role;
use farshore_catalog::branch::{Branch, Fork};
use farshore_catalog::commit::Commit;
use farshore_catalog::range::JournalRange;
use farshore_journal::{IncarnationId, Offset, Sequence, Timeline};
use farshore_testkit::pg::{Major, Mode, Server};
use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{Rig, facts, name, time};

/// All that must hold of the queries, on either kind of catalog.
async fn every_query(rig: &Rig) {
    let token = rig.token(Role::Admin, None).await;
    lists(rig, &token).await;
    points(rig, &token).await;
    resolutions(rig, &token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_show_everything_once_and_points_lead_to_their_commits() {
    let rig = Rig::new().await;
    every_query(&rig).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_on_a_catalog_in_postgresql() {
    let server = Server::start_new(Major::V15);
    let rig = Rig::over(&server.url(), tempfile::tempdir().unwrap(), true).await;
    facts(&rig.catalog).await;
    every_query(&rig).await;
    rig.end().await;
}

async fn lists(rig: &Rig, token: &str) {
    for (path, field, wanted) in [
        ("databases", "database", json!(["billing", "orders"])),
        ("nodes", "name", json!(["bergen", "oslo", "tromso"])),
        ("activity", "number", json!([8, 7, 6, 5, 4, 3, 2, 1])),
        ("backups", "to_position", json!(["1:0/B4", "1:0/3C", "1:0/78"])),
        ("backups?database=orders", "to_position", json!(["1:0/3C", "1:0/78"])),
    ] {
        for limit in 1..=8 {
            let separator = if path.contains('?') { '&' } else { '?' };
            let all = rig.all(&format!("/api/v1/{path}{separator}limit={limit}"), token).await;
            let shown: Vec<&Value> = all.iter().map(|one| &one[field]).collect();
            assert_eq!(json!(shown), wanted, "{path} by {limit}");
        }
    }
    let tokens = rig.all("/api/v1/tokens?limit=1", token).await;
    assert!(tokens.iter().any(|one| one["role"] == "admin" && one["valid"] == true), "{tokens:?}");
}

fn xids(items: &[Value]) -> Vec<u64> {
    items.iter().filter_map(|point| point["xid"].as_u64()).map(|xid| xid - 700).collect()
}

async fn points(rig: &Rig, token: &str) {
    let path = "/api/v1/databases/orders/points";
    let newest = rig.get(&format!("{path}?limit=4"), token).await.json();
    assert_eq!(xids(newest["items"].as_array().unwrap()), [27, 28, 29, 30]);
    assert_eq!((&newest["incarnation_number"], &newest["timeline"]), (&json!(0), &json!(1)));
    // Back to the first one, each once, marks in their places.
    let mut pages = vec![newest];
    while let Some(cursor) = pages.last().unwrap()["previous_cursor"].as_str() {
        let page = rig.get(&format!("{path}?limit=4&cursor={cursor}"), token).await;
        assert_eq!(page.status, 200, "{page:?}");
        pages.push(page.json());
        assert!(pages.len() < 20);
    }
    let all: Vec<Value> =
        pages.iter().rev().flat_map(|page| page["items"].as_array().unwrap().iter().cloned()).collect();
    assert_eq!(xids(&all), (1..=30).collect::<Vec<_>>());
    let marks: Vec<&Value> =
        all.iter().filter_map(|one| Some(&one["name"]).filter(|name| name.is_string())).collect();
    assert_eq!(json!(marks), json!(["before-release", "twice", "twice"]));
    assert!(all.iter().all(|point| point["stores"] == json!(["main"])), "{all:?}");

    // Between two times: both ends are in, and log order decides where a clock stepped back.
    let between = |from: &str, to: &str| {
        format!("{path}?limit=3&from=2026-03-29T14:00:{from}Z&to=2026-03-29T14:00:{to}Z")
    };
    for (from, to, wanted) in [
        ("20", "25", (20..=25).collect::<Vec<u64>>()),
        ("20.5", "21", vec![21]),
        ("29", "59", vec![29, 30]),
        ("31", "59", vec![]),
    ] {
        let found = rig.all(&between(from, to), token).await;
        assert_eq!(xids(&found), wanted, "{from} to {to}");
    }
    let open = rig.all(&format!("{path}?limit=7&from=2026-03-29T14:00:25Z"), token).await;
    assert_eq!(xids(&open), [25, 26, 27, 28, 29, 30]);
    let around = rig.get(&format!("{path}?limit=3&around=2026-03-29T16:00:20%2B02:00"), token).await.json();
    assert!(xids(around["items"].as_array().unwrap()).contains(&20), "{around}");
    for (query, code) in [
        ("around=2026-03-29T14:00:20", "request-invalid"),
        ("from=2026-03-29T14:00:20Z&to=2026-03-29T14:00:19Z", "request-invalid"),
        ("from=2026-03-29T14:00:20Z&around=2026-03-29T14:00:19Z", "request-invalid"),
        ("limit=0", "request-invalid"),
        ("limit=1001", "request-invalid"),
        ("arround=x", "request-invalid"),
        ("incarnation=7", "incarnation-unknown"),
        ("cursor=x", "cursor-invalid"),
    ] {
        assert_eq!(rig.get(&format!("{path}?{query}"), token).await.problem(), code, "{query}");
    }
    let nothing = rig.get("/api/v1/databases/billing/points", token).await.json();
    assert_eq!((&nothing["items"], &nothing["timeline"]), (&json!([]), &Value::Null));
    assert_eq!(rig.get("/api/v1/databases/none/points", token).await.problem(), "database-unknown");
}

async fn resolutions(rig: &Rig, token: &str) {
    let path = "/api/v1/databases/orders/points/resolve";
    let commit = |answer: &Value| answer["commit"]["xid"].as_u64().map(|xid| xid - 700);
    for (query, xid, position, is_final, restorable) in [
        ("at=2026-03-29T14:00:20Z", 20, "1:0/258", true, true),
        ("at=2026-03-29T14:00:20.9Z", 20, "1:0/258", true, true),
        // The tenth is later than this: what is behind it in the log is not held, though its time is earlier.
        ("at=2026-03-29T14:00:12Z", 9, "1:0/10E", true, true),
        // Behind all that is stored: commits may come yet.
        ("at=2026-03-29T15:00:00Z", 30, "1:0/384", false, true),
        // Before the oldest base backup's end.
        ("at=2026-03-29T14:00:01Z", 1, "1:0/1E", true, false),
        ("pos=1:0/25F", 20, "1:0/25F", true, true),
        ("xid=717", 17, "1:0/1FE", true, true),
        ("point=before-release", 10, "1:0/131", true, true),
        // Behind the last checked record.
        ("pos=1:0/3E0", 30, "1:0/3E0", false, false),
    ] {
        let answer = rig.get(&format!("{path}?{query}"), token).await;
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        let body = answer.json();
        assert_eq!(
            (commit(&body), body["position"].as_str(), body["is_final"].as_bool()),
            (Some(xid), Some(position), Some(is_final)),
            "{query}: {body}"
        );
        assert_eq!(body["restorable_in"] == json!(["main"]), restorable, "{query}: {body}");
    }
    let stepped = rig.get(&format!("{path}?at=2026-03-29T14:00:12Z"), token).await.json();
    let left: Vec<u64> =
        stepped["out_of_order"].as_array().unwrap().iter().filter_map(|one| one["xid"].as_u64()).collect();
    assert_eq!(left, [711, 712], "{stepped}");
    for (query, code) in [
        ("at=2026-03-29T13:00:00Z", "point-unknown"),
        ("xid=9", "point-unknown"),
        ("xid=18446744073709551615", "point-unknown"),
        ("point=none", "point-unknown"),
        ("point=twice", "point-ambiguous"),
        ("pos=7:0/100", "point-unknown"),
        ("pos=0/100", "request-invalid"),
        ("pos=1:0/100&xid=717", "request-invalid"),
        ("", "request-invalid"),
        ("xid=-1", "request-invalid"),
    ] {
        assert_eq!(rig.get(&format!("{path}?{query}"), token).await.problem(), code, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_is_the_catalogs_own_and_one_that_is_not_known_is_never_good() {
    let rig = Rig::new().await;
    let token = rig.token(Role::Viewer, None).await;
    for (database, state) in [("orders", "connected"), ("billing", "unknown")] {
        let path = format!("/api/v1/databases/{database}");
        let shown = rig.get(&path, &token).await.json();
        let known = rig.catalog.status(&name(database), chrono::Utc::now()).await.unwrap();
        for (field, value) in serde_json::to_value(&known).unwrap().as_object().unwrap() {
            assert_eq!(&shown[field], value, "{database} {field}");
        }
        assert_eq!(shown["state"], state);
        let window = rig.get(&format!("{path}/window"), &token).await.json();
        assert_eq!((&window["window"], &window["incarnation"]), (&shown["window"], &shown["incarnation"]));
    }
    let orders = rig.get("/api/v1/databases/orders", &token).await.json();
    assert_eq!(
        (&orders["rpo_seconds"], &orders["rpo_breached"], &orders["rto_seconds"]),
        (&json!(1.0), &json!(false), &json!(900.0))
    );
    let billing = rig.get("/api/v1/databases/billing", &token).await.json();
    for field in ["ship_lag_seconds", "ship_lag_bytes", "stored", "window", "rpo_breached", "seen_at"] {
        assert_eq!(billing[field], Value::Null, "{field}: {billing}");
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_thing_is_sent_again_only_when_it_changed() {
    let rig = Rig::new().await;
    let token = format!("Bearer {}", rig.token(Role::Viewer, None).await);
    let window = "/api/v1/databases/orders/window";
    let first = rig.send(Method::GET, window, &[("authorization", &token)], "").await;
    let tag = first.header("etag").to_owned();
    let with = [("authorization", token.as_str()), ("if-none-match", tag.as_str())];
    let again = rig.send(Method::GET, window, &with, "").await;
    assert_eq!((again.status, again.text.as_str(), again.header("etag")), (304, "", tag.as_str()));
    let id = farshore_journal::BackupId::from_bytes([1; 16]);
    rig.catalog.backup_delete(id).await.unwrap();
    let changed = rig.send(Method::GET, window, &with, "").await;
    assert!(changed.status == 200 && changed.header("etag") != tag, "{changed:?}");
    rig.end().await;
}

/// A promotion: timeline 2 left timeline 1 behind commit 25, and has five commits of its own.
async fn promote(rig: &Rig) {
    let incarnation = IncarnationId::from_bytes([1; 16]);
    let (timeline, at) = (Timeline::new(2), Offset::new);
    let fork = Some(Fork { parent: Timeline::new(1), at: at(760) });
    let branch = Branch { incarnation, timeline, fork, first_seen_at: time(60) };
    rig.catalog.branch_put(&branch).await.unwrap();
    let range = JournalRange {
        incarnation,
        store: "main".to_owned(),
        timeline,
        start: at(760),
        end: at(1200),
        checked_end: at(1200),
        first_sequence: Sequence::new(10),
        last_sequence: Sequence::new(12),
    };
    rig.catalog.range_extend(&range).await.unwrap();
    let commits = (1..=5_u32).map(|number| Commit {
        timeline,
        start: at(u64::from(number) * 30 + 780),
        end: at(u64::from(number) * 30 + 790),
        time: time(i64::from(number) + 60),
        xid: 800 + u64::from(number),
    });
    rig.catalog.commit_insert(incarnation, &commits.collect::<Vec<_>>()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_stays_on_the_history_it_began_on_whatever_is_promoted_meanwhile() {
    let rig = Rig::new().await;
    let token = rig.token(Role::Viewer, None).await;
    let path = "/api/v1/databases/orders/points";
    let first = rig.get(&format!("{path}?limit=4"), &token).await.json();
    promote(&rig).await;
    let cursor = first["previous_cursor"].as_str().unwrap();
    let second = rig.get(&format!("{path}?limit=4&cursor={cursor}"), &token).await.json();
    assert_eq!(
        (xids(second["items"].as_array().unwrap()), &second["timeline"]),
        (vec![23, 24, 25, 26], &json!(1))
    );
    // A new walk is on the new history: nothing of what the promotion left behind is in it.
    let all = rig.all(&format!("{path}?limit=7&from=2026-03-29T14:00:20Z"), &token).await;
    assert_eq!(xids(&all), [20, 21, 22, 23, 24, 25, 101, 102, 103, 104, 105]);
    let resolve = async |query: &str| rig.get(&format!("{path}/resolve?{query}"), &token).await;
    // What was left behind is found when it is named, and is not said to be on the way to now.
    for (query, xid) in
        [("xid=728", 728), ("pos=1:0/348", 728), ("xid=803", 803), ("at=2026-03-29T14:00:40Z", 725)]
    {
        let answer = resolve(query).await;
        assert_eq!(answer.json()["commit"]["xid"], xid, "{query}: {answer:?}");
        assert_eq!(answer.json()["restorable_in"], json!(["main"]), "{query}: {answer:?}");
    }
    assert_eq!(resolve("pos=3:0/348").await.problem(), "point-unknown");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_in_postgresql_may_be_away_for_a_while() {
    let server = Server::start_new(Major::V15);
    let rig = Rig::over(&server.url(), tempfile::tempdir().unwrap(), true).await;
    facts(&rig.catalog).await;
    let token = rig.token(Role::Viewer, None).await;
    let path = "/api/v1/databases/orders/window";
    assert_eq!(rig.get(path, &token).await.status, 200);
    server.stop(Mode::Fast);
    let away = rig.get(path, &token).await;
    assert_eq!((away.status, away.problem().as_str()), (503, "catalog-away"));
    server.start();
    assert_eq!(rig.get(path, &token).await.status, 200);
    rig.end().await;
}
