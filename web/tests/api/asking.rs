//! Work that is asked for: once, by whoever may, and followed to its end.

use std::time::{Duration, Instant};

use chrono::Utc;
use farshore_catalog::access::Role;
use farshore_catalog::job::{Claim, Holder, JobEnd, JobId, JobProgress};
use farshore_testkit::pg::{Major, Server};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::rig::{Answer, Rig, facts};

const BACKUPS: &str = "/api/v1/backups";

/// Asks for work with a key.
async fn post(rig: &Rig, path: &str, token: &str, key: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers =
        [("authorization", bearer.as_str()), ("content-type", "application/json"), ("idempotency-key", key)];
    rig.send(Method::POST, path, &headers, &body.to_string()).await
}

async fn claimed(rig: &Rig, id: &str) -> Claim {
    let holder = Holder { node: "oslo".to_owned(), process: "p".to_owned() };
    let id: JobId = id.parse().unwrap();
    rig.catalog.job_claim(id, &holder, Utc::now()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_question_is_answered_as_it_first_was_and_begins_nothing_anew() {
    let rig = Rig::new().await;
    let token = rig.token(Role::Operator, None).await;
    let before = rig.jobs().await;
    let first = post(&rig, BACKUPS, &token, "k-1", &json!({ "database": "orders" })).await;
    assert_eq!(first.status, 202, "{first:?}");
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(first.header("location"), format!("/api/v1/jobs/{id}"));
    assert!(first.header("retry-after").parse::<u32>().is_ok());
    assert_eq!((&first.json()["state"], &first.json()["asked_via"]), (&"queued".into(), &"api".into()));
    // It is done meanwhile: the first answer stays the first.
    let claim = claimed(&rig, &id).await;
    rig.catalog.job_end(&claim, &JobEnd::Succeeded("{}".to_owned()), Utc::now()).await.unwrap();
    let spaced = "{ \"store\": null,\n \"database\": \"orders\" }";
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("idempotency-key", "k-1"),
    ];
    let again = rig.send(Method::POST, BACKUPS, &headers, spaced).await;
    assert_eq!((again.status, &again.text), (202, &first.text));
    assert_eq!(again.header("location"), first.header("location"));
    let other = post(&rig, BACKUPS, &token, "k-1", &json!({ "database": "billing" })).await;
    assert_eq!((other.status, other.problem().as_str()), (422, "idempotency-key-used"));
    let other = post(&rig, "/api/v1/verifies", &token, "k-1", &json!({ "database": "orders" })).await;
    assert_eq!(other.problem(), "idempotency-key-used");
    assert_eq!(rig.jobs().await, before + 1);
    // Nobody meets another's keys.
    let stranger = rig.token(Role::Operator, None).await;
    let own = post(&rig, BACKUPS, &stranger, "k-1", &json!({ "database": "orders" })).await;
    assert_ne!(own.json()["id"], first.json()["id"]);
    // Without a key nothing is begun, and with one that is none.
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let bare = rig.send(Method::POST, BACKUPS, &headers, "{\"database\":\"orders\"}").await;
    assert_eq!((bare.status, bare.problem().as_str()), (400, "idempotency-key-missing"));
    let odd = post(&rig, BACKUPS, &token, &"k".repeat(201), &json!({ "database": "orders" })).await;
    assert_eq!(odd.problem(), "idempotency-key-invalid");
    assert_eq!(rig.jobs().await, before + 2);
    rig.end().await;
}

/// Twenty that ask at once with one key make one job, and all get the same answer.
async fn twenty_at_once(rig: &Rig) {
    let token = rig.token(Role::Operator, None).await;
    for round in 0..5 {
        let before = rig.jobs().await;
        let mut asking = JoinSet::new();
        for _ in 0..20 {
            let request = rig.client.post(rig.url(BACKUPS)).bearer_auth(&token);
            let request = request.header("idempotency-key", format!("round-{round}"));
            let request =
                request.header("content-type", "application/json").body("{\"database\":\"orders\"}");
            asking.spawn(async move {
                let answer = request.send().await.unwrap();
                (answer.status().as_u16(), answer.text().await.unwrap())
            });
        }
        let answers = asking.join_all().await;
        assert_eq!(answers.len(), 20);
        assert!(answers.iter().all(|answer| answer.0 == 202 && *answer == answers[0]), "{answers:?}");
        assert_eq!(rig.jobs().await, before + 1, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_questions_at_once_with_one_key_one_job_is_made() {
    let rig = Rig::new().await;
    twenty_at_once(&rig).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_questions_at_once_with_one_key_one_job_is_made_on_postgresql_too() {
    let server = Server::start_new(Major::V15);
    let rig = Rig::over(&server.url(), tempfile::tempdir().unwrap(), true).await;
    facts(&rig.catalog).await;
    twenty_at_once(&rig).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_followed_to_what_came_of_it() {
    let rig = Rig::new().await;
    let token = rig.token(Role::Operator, None).await;
    let ask = async |key: &str| {
        let asked = post(&rig, "/api/v1/verifies", &token, key, &json!({ "database": "orders" })).await;
        asked.header("location").to_owned()
    };
    let done = ask("a").await;
    let early = rig.get(&format!("{done}/result"), &token).await;
    assert_eq!((early.status, early.problem().as_str()), (404, "job-not-finished"));
    let claim = claimed(&rig, done.rsplit('/').next().unwrap()).await;
    let progress = JobProgress {
        phase: Some("reading".to_owned()),
        done_bytes: Some(1),
        total_bytes: Some(4),
        ..JobProgress::default()
    };
    rig.catalog.job_beat(&claim, &progress, Utc::now()).await.unwrap();
    let running = rig.get(&done, &token).await;
    assert_eq!(
        (&running.json()["state"], &running.json()["percent"]),
        (&"running".into(), &json!(25.0)),
        "{running:?}"
    );
    // Who waits hears of the end when it comes, and keeps no place from others who ask meanwhile.
    let began = Instant::now();
    let waiting = async { rig.get(&format!("{done}?wait=30"), &token).await };
    let ending = async {
        for _ in 0..8 {
            assert_eq!(rig.get("/api/v1/databases", &token).await.status, 200);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let result = JobEnd::Succeeded("{\"sound\":true}".to_owned());
        rig.catalog.job_end(&claim, &result, Utc::now()).await.unwrap();
    };
    let (waited, ()) = tokio::join!(waiting, ending);
    assert_eq!(waited.json()["state"], "succeeded", "{waited:?}");
    assert!((1..10).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    let result = rig.get(&format!("{done}/result"), &token).await;
    assert_eq!((result.status, &result.json()["result"]["sound"]), (200, &Value::Bool(true)));
    // Who has it as it stands waits for a change, and is told that there was none.
    let idle = ask("b").await;
    let tag = rig.get(&idle, &token).await.header("etag").to_owned();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("if-none-match", tag.as_str())];
    let unchanged = rig.send(Method::GET, &format!("{idle}?wait=1"), &headers, "").await;
    assert_eq!(unchanged.status, 304, "{unchanged:?}");
    let cancelled = rig.send(Method::POST, &format!("{idle}/cancel"), &headers[..1], "").await;
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &"cancelled".into()), "{cancelled:?}");
    let result = rig.get(&format!("{idle}/result"), &token).await;
    assert_eq!((result.status, result.problem().as_str()), (424, "job-cancelled"));
    let late = rig.send(Method::POST, &format!("{idle}/cancel"), &headers[..1], "").await;
    assert_eq!((late.status, late.problem().as_str()), (409, "job-ended"));
    let failed = ask("c").await;
    let claim = claimed(&rig, failed.rsplit('/').next().unwrap()).await;
    let said =
        "{\"code\":\"FS-0404\",\"happened\":\"the store is full\",\"safe\":\"all\",\"do\":\"make room\"}";
    rig.catalog.job_end(&claim, &JobEnd::Failed(said.to_owned()), Utc::now()).await.unwrap();
    let result = rig.get(&format!("{failed}/result"), &token).await;
    assert_eq!((result.status, result.problem().as_str()), (424, "job-failed"));
    let body = result.json();
    assert_eq!((&body["detail"], &body["hint"]), (&"the store is full".into(), &"make room".into()));
    assert_eq!(body["job_problem"]["code"], "FS-0404");
    for none in ["/api/v1/jobs/jb-zzzzzzzzzz", "/api/v1/jobs/7", "/api/v1/jobs/%00/result"] {
        assert_eq!(rig.get(none, &token).await.problem(), "job-unknown", "{none}");
    }
    for wrong in ["wait=0", "wait=31", "wait=-1"] {
        assert_eq!(rig.get(&format!("{done}?{wrong}"), &token).await.problem(), "request-invalid", "{wrong}");
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_listed_once_each_and_those_of_another_database_are_not_there() {
    let rig = Rig::new().await;
    let (all, orders) =
        (rig.token(Role::Operator, None).await, rig.token(Role::Operator, Some("orders")).await);
    let mut of_billing = String::new();
    for at in 0..5 {
        let database = if at % 2 == 0 { "orders" } else { "billing" };
        let asked = post(&rig, BACKUPS, &all, &format!("k-{at}"), &json!({ "database": database })).await;
        if database == "billing" {
            of_billing = asked.json()["id"].as_str().unwrap().to_owned();
        }
    }
    let unlimited = rig.all("/api/v1/jobs", &all).await;
    for limit in 1..=7 {
        assert_eq!(rig.all(&format!("/api/v1/jobs?limit={limit}"), &all).await, unlimited, "{limit}");
    }
    assert_eq!(rig.all("/api/v1/jobs?database=billing&limit=1&unended=true", &all).await.len(), 2);
    let own = rig.all("/api/v1/jobs?limit=2", &orders).await;
    assert!(own.len() >= 3 && own.iter().all(|job| job["database"] == "orders"), "{own:?}");
    for path in ["", "/result"] {
        let hidden = rig.get(&format!("/api/v1/jobs/{of_billing}{path}"), &orders).await;
        assert_eq!(hidden.problem(), "job-unknown", "{path}");
    }
    let bearer = format!("Bearer {orders}");
    let path = format!("/api/v1/jobs/{of_billing}/cancel");
    let refused = rig.send(Method::POST, &path, &[("authorization", &bearer)], "").await;
    assert_eq!(refused.problem(), "job-unknown");
    let asked = post(&rig, BACKUPS, &orders, "mine", &json!({ "database": "billing" })).await;
    assert_eq!((asked.status, asked.problem().as_str()), (404, "database-unknown"));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_goes_beneath_a_named_folder_and_what_is_not_built_is_refused() {
    let rig = Rig::new().await;
    let token = rig.token(Role::Operator, None).await;
    let before = rig.jobs().await;
    let whole = json!({ "database": "orders", "target": { "latest": true }, "directory": "/srv/restores/a" });
    let with = |changes: Value| {
        let mut body = whole.clone();
        for (key, value) in changes.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    };
    for (at, (changes, status, code)) in [
        (json!({ "directory": "/etc/a" }), 422, "refused"),
        (json!({ "directory": "/srv/restores" }), 422, "refused"),
        (json!({ "directory": "/srv/restores/../a" }), 400, "request-invalid"),
        (json!({ "directory": null }), 400, "request-invalid"),
        (json!({ "in_place": true }), 422, "not-built"),
        (json!({ "target": {} }), 400, "request-invalid"),
        (json!({ "target": { "latest": true, "xid": 7 } }), 400, "request-invalid"),
        (json!({ "target": { "pos": "here" } }), 400, "request-invalid"),
        (json!({ "incarnation": "x" }), 400, "request-invalid"),
        (json!({ "store": "../x" }), 400, "request-invalid"),
        (json!({ "start": { "port": 0 } }), 400, "request-invalid"),
        (json!({ "confirm": "orders" }), 400, "request-invalid"),
        (json!({ "database": "nowhere" }), 404, "database-unknown"),
        // It is in the catalog, and not in this service's configuration.
        (json!({ "database": "billing" }), 422, "refused"),
    ]
    .into_iter()
    .enumerate()
    {
        let body = with(changes);
        let refused = post(&rig, "/api/v1/restores", &token, &format!("k-{at}"), &body).await;
        assert_eq!((refused.status, refused.problem().as_str()), (status, code), "{body}: {refused:?}");
    }
    assert_eq!(rig.jobs().await, before);
    let body = with(json!({ "start": { "port": 5433 } }));
    let asked = post(&rig, "/api/v1/restores", &token, "yes", &body).await;
    assert_eq!(asked.status, 202, "{asked:?}");
    let job = asked.json();
    assert_eq!(job["wanted_node"], "oslo", "the service that is asked restores on its own machine");
    assert_eq!(
        job["spec"],
        json!({ "target": "latest", "history": {}, "directory": "/srv/restores/a", "start": { "port": 5433, "then": "pause" } })
    );
    let plan = json!({ "database": "orders", "target": { "at": "2026-03-29T14:00:12Z" } });
    let asked = post(&rig, "/api/v1/plans", &token, "plan", &plan).await;
    assert_eq!((asked.status, &asked.json()["kind"]), (202, &"plan".into()), "{asked:?}");
    let asked = post(&rig, "/api/v1/expiry-previews", &token, "p", &json!({ "database": "orders" })).await;
    assert_eq!((asked.status, &asked.json()["kind"]), (202, &"preview".into()), "{asked:?}");
    // One is enough for all who ask meanwhile.
    let again = post(&rig, "/api/v1/expiry-previews", &token, "q", &json!({ "database": "orders" })).await;
    assert_eq!((again.status, &again.json()["id"]), (202, &asked.json()["id"]), "{again:?}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_for_is_in_the_record_of_activity_once_with_its_asker() {
    let rig = Rig::new().await;
    let token = rig.token(Role::Operator, None).await;
    let before = rig.catalog.activity_list(None, 1000).await.unwrap().len();
    let mut asked = Value::Null;
    for _ in 0..3 {
        asked = post(&rig, BACKUPS, &token, "k", &json!({ "database": "orders" })).await.json();
    }
    let id = asked["id"].as_str().unwrap();
    let bearer = format!("Bearer {token}");
    rig.send(Method::POST, &format!("/api/v1/jobs/{id}/cancel"), &[("authorization", &bearer)], "").await;
    let entries = rig.catalog.activity_list(None, 1000).await.unwrap();
    assert_eq!(entries.len(), before + 2, "{entries:?}");
    assert_eq!(rig.catalog.activity_verify().await.unwrap().findings, []);
    let newest: Vec<_> = entries.iter().take(2).map(|entry| entry.activity.what.as_str()).collect();
    assert_eq!(newest, ["job cancel", "backup ask"]);
    for entry in entries.iter().take(2) {
        assert_eq!(entry.activity.who, asked["asked_by"].as_str().unwrap());
        assert!(entry.activity.detail.contains(id) && entry.activity.detail.contains("token "), "{entry:?}");
        assert!(!entry.activity.detail.contains(token.rsplit('_').next().unwrap()));
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_one_database_fills_its_own_queue_and_nobody_elses() {
    let rig = Rig::new().await;
    let one = rig.token(Role::Operator, Some("orders")).await;
    let body = json!({ "database": "orders" });
    let mut queued = Vec::new();
    let full = loop {
        let answer = post(&rig, BACKUPS, &one, &format!("k-{}", queued.len()), &body).await;
        match answer.status {
            202 => queued.push(answer.header("location").to_owned()),
            _ => break answer,
        }
        assert!(queued.len() <= 32, "it has no end");
    };
    assert_eq!((full.status, full.problem().as_str()), (409, "queue-full"), "{full:?}");
    let said = full.json();
    assert!(said["detail"].as_str().unwrap().contains("nothing was queued"), "{said}");
    assert!(
        said["hint"].as_str().unwrap().contains("cancel") && full.header("retry-after") == "60",
        "{said}"
    );
    let all = rig.token(Role::Operator, None).await;
    let other = post(&rig, BACKUPS, &all, "other", &json!({ "database": "billing" })).await;
    assert_eq!(other.status, 202, "{other:?}");
    // With the same key, once there is room.
    let key = format!("k-{}", queued.len());
    let ended = format!("{}/cancel", queued[0]);
    let bearer = format!("Bearer {one}");
    let cancelled = rig.send(Method::POST, &ended, &[("authorization", bearer.as_str())], "").await;
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    assert_eq!(post(&rig, BACKUPS, &one, &key, &body).await.status, 202);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_of_work_that_is_asked_for_is_a_name() {
    let rig = Rig::new().await;
    let token = rig.token(Role::Operator, None).await;
    let before = rig.jobs().await;
    for (number, bad) in ["", "../main", "Main", "a b", &"m".repeat(64), "<b>"].into_iter().enumerate() {
        let body = json!({ "database": "orders", "store": bad });
        let answer = post(&rig, BACKUPS, &token, &format!("k-{number}"), &body).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "request-invalid"), "{bad:?}");
    }
    assert_eq!(rig.jobs().await, before);
    let good = post(&rig, BACKUPS, &token, "good", &json!({ "database": "orders", "store": "main" })).await;
    assert_eq!(good.status, 202, "{good:?}");
    rig.end().await;
}
