//! Whoever listens hears what changes: all of it, of what he may see, for as long as he is let in.

use std::time::{Duration, Instant};

use chrono::Utc;
use farshore_catalog::access::Role;
use farshore_catalog::job::{Holder, JobEnd, JobId, JobKind, NewJob, Via};
use farshore_catalog::token::Bearer;
use reqwest::Response;
use serde_json::Value;

use crate::rig::{Rig, connected, name};

const STREAM: &str = "/api/v1/events/stream";
/// For anything that should take seconds, on a machine that does much else.
const SOON: Duration = Duration::from_secs(30);

/// Somebody who listens.
struct Listener {
    response: Response,
    text: String,
}

/// An event, or a comment, whose kind is empty.
#[derive(Debug)]
struct Heard {
    kind: String,
    id: String,
    data: Value,
}

impl Listener {
    async fn begin(rig: &Rig, token: &str, query: &str, last: Option<&str>) -> Self {
        let mut request = rig.client.get(rig.url(&format!("{STREAM}{query}"))).bearer_auth(token);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next event or comment; `None` when the stream ended.
    async fn next(&mut self) -> Option<Heard> {
        loop {
            if let Some((one, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = one.lines().find_map(|line| line.strip_prefix(name));
                    line.map(|value| value.trim_start().to_owned()).unwrap_or_default()
                };
                let data = serde_json::from_str(&field("data:")).unwrap_or(Value::Null);
                let heard = Heard { kind: field("event:"), id: field("id:"), data };
                self.text = rest.to_owned();
                return Some(heard);
            }
            let chunk = tokio::time::timeout(SOON, self.response.chunk()).await.expect("it says nothing");
            // A stream whose service ends may be cut.
            let chunk = chunk.ok().flatten()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next event.
    async fn event(&mut self) -> Heard {
        loop {
            let heard = self.next().await.expect("it ended");
            if !heard.kind.is_empty() {
                return heard;
            }
        }
    }
}

async fn queued(rig: &Rig, database: &str) -> JobId {
    let job = NewJob {
        id: JobId::mint(),
        kind: JobKind::Backup,
        database: Some(name(database)),
        spec: "{}".to_owned(),
        asked_by: "ana".to_owned(),
        via: Via::Queue,
        wanted_node: None,
    };
    rig.catalog.job_put(&job, None, Utc::now()).await.unwrap();
    job.id
}

/// Does a job, so fast that nobody looks between.
async fn done(rig: &Rig, id: JobId) {
    let holder = Holder { node: "oslo".to_owned(), process: "p".to_owned() };
    let claim = rig.catalog.job_claim(id, &holder, Utc::now()).await.unwrap().unwrap();
    rig.catalog.job_end(&claim, &JobEnd::Succeeded("{}".to_owned()), Utc::now()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_is_heard_and_nothing_that_is_as_it_was() {
    let rig = Rig::new().await;
    let token = rig.token(Role::Viewer, None).await;
    let before = queued(&rig, "orders").await;
    let mut listener = Listener::begin(&rig, &token, "?types=job", None).await;
    let id = queued(&rig, "orders").await;
    let heard = listener.event().await;
    assert_eq!((heard.kind.as_str(), heard.data["id"].as_str()), ("job", Some(id.to_string().as_str())));
    assert_eq!(heard.data["state"], "queued", "{heard:?}");
    done(&rig, before).await;
    let heard = listener.event().await;
    assert_eq!(
        (heard.data["id"].as_str(), heard.data["state"].as_str()),
        (Some(before.to_string().as_str()), Some("succeeded"))
    );
    // A database that stands otherwise is heard of by whoever listens to that.
    let mut statuses = Listener::begin(&rig, &token, "?types=status", None).await;
    connected(&rig.catalog).await;
    let heard = statuses.event().await;
    assert_eq!(
        (heard.kind.as_str(), &heard.data["database"]),
        ("status", &Value::from("orders")),
        "{heard:?}"
    );
    for wrong in ["?types=rpo", "?types=", "?database=nowhere!", "?since=1"] {
        let answer = rig.get(&format!("{STREAM}{wrong}"), &token).await;
        assert!(matches!(answer.status, 400 | 404), "{wrong}: {answer:?}");
    }
    // Whoever listens is let go when the service ends.
    rig.end().await;
    while listener.next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_hears_what_he_missed_or_that_he_missed_something() {
    let rig = Rig::new().await;
    let token = rig.token(Role::Viewer, None).await;
    let mut listener = Listener::begin(&rig, &token, "?types=job", None).await;
    let first = queued(&rig, "orders").await;
    let last = listener.event().await;
    assert_eq!(last.data["id"], first.to_string());
    drop(listener);
    // While nobody listens the catalog is not looked at; what changed is told all the same.
    let second = queued(&rig, "orders").await;
    done(&rig, second).await;
    let mut listener = Listener::begin(&rig, &token, "?types=job", Some(&last.id)).await;
    let heard = listener.event().await;
    assert_eq!((&heard.data["id"], &heard.data["state"]), (&second.to_string().into(), &"succeeded".into()));
    let number = |id: &str| id.split('.').nth(1).unwrap().parse::<u64>().unwrap();
    assert!(number(&heard.id) > number(&last.id));
    drop(listener);
    for unknown in ["00000000.7", "7", "x", "ffffffffffffffffffff.1"] {
        let mut listener = Listener::begin(&rig, &token, "", Some(unknown)).await;
        assert_eq!(listener.event().await.kind, "reset", "{unknown}");
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_one_database_hears_of_no_other() {
    let rig = Rig::new().await;
    let (own, all) = (rig.token(Role::Viewer, Some("orders")).await, rig.token(Role::Viewer, None).await);
    let hidden = rig.get(&format!("{STREAM}?database=billing"), &own).await;
    assert_eq!(hidden.problem(), "database-unknown");
    let mut of_orders = Listener::begin(&rig, &own, "?types=job", None).await;
    let mut of_billing = Listener::begin(&rig, &all, "?types=job&database=billing", None).await;
    let mut of_all = Listener::begin(&rig, &all, "?types=job", None).await;
    let billing = queued(&rig, "billing").await.to_string();
    assert_eq!(of_all.event().await.data["id"], billing);
    let orders = queued(&rig, "orders").await.to_string();
    assert_eq!(of_all.event().await.data["id"], orders);
    assert_eq!(of_orders.event().await.data["id"], orders);
    assert_eq!(of_billing.event().await.data["id"], billing);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_let_in_no_more_is_ended_soon_and_a_silent_stream_is_kept_open() {
    let rig = Rig::new().await;
    let bearer = Bearer::mint().unwrap();
    rig.insert(&bearer, "listener", Role::Viewer, None, None).await;
    let mut listener = Listener::begin(&rig, &bearer.text(), "?types=job", None).await;
    let began = Instant::now();
    let comment = listener.next().await.expect("a heartbeat");
    assert!(
        comment.kind.is_empty() && (10..25).contains(&began.elapsed().as_secs()),
        "{:?}",
        began.elapsed()
    );
    rig.catalog.token_revoke("listener", Utc::now()).await.unwrap();
    let revoked = Instant::now();
    // What changes behind its revocation is heard for some seconds at most.
    while listener.next().await.is_some() {}
    assert!(revoked.elapsed() < Duration::from_secs(10), "{:?}", revoked.elapsed());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_listen_than_there_are_places_and_a_place_is_free_again() {
    let rig = Rig::new().await;
    let token = rig.token(Role::Viewer, None).await;
    let mut all = Vec::new();
    for _ in 0..32 {
        all.push(rig.client.get(rig.url(STREAM)).bearer_auth(&token).send());
    }
    let mut listening = Vec::new();
    let answers = tokio::time::timeout(SOON, futures(all)).await.expect("all are let in");
    for answer in answers {
        assert_eq!(answer.status(), 200);
        listening.push(answer);
    }
    let refused = rig.get(STREAM, &token).await;
    assert_eq!((refused.status, refused.problem().as_str()), (503, "too-many-listeners"));
    assert!(!refused.header("retry-after").is_empty());
    // Others are answered meanwhile.
    assert_eq!(rig.get("/api/v1/databases", &token).await.status, 200);
    drop(listening);
    let begun = Instant::now();
    loop {
        let answer = rig.client.get(rig.url(STREAM)).bearer_auth(&token).send().await.unwrap();
        if answer.status() == 200 {
            break;
        }
        assert!(begun.elapsed() < SOON, "no place is free again");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    rig.end().await;
}

/// All answers, asked at once.
async fn futures(
    asked: Vec<impl Future<Output = reqwest::Result<Response>> + Send + 'static>,
) -> Vec<Response> {
    let mut asking = tokio::task::JoinSet::new();
    asked.into_iter().for_each(|one| {
        asking.spawn(one);
    });
    asking.join_all().await.into_iter().map(|answer| answer.unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_the_catalog_is_away_and_that_it_is_back_is_said_to_every_listener() {
    let rig = Rig::new().await;
    let token = rig.token(Role::Viewer, None).await;
    let one = rig.token(Role::Viewer, Some("billing")).await;
    let mut jobs = Listener::begin(&rig, &token, "?types=job", None).await;
    let mut others = Listener::begin(&rig, &one, "?types=status", None).await;
    let (file, elsewhere) = (rig.folder.path().join("catalog.db"), rig.folder.path().join("elsewhere.db"));
    std::fs::rename(&file, &elsewhere).unwrap();
    for listener in [&mut jobs, &mut others] {
        let heard = listener.event().await;
        assert_eq!((heard.kind.as_str(), heard.id.as_str()), ("catalog", ""), "{heard:?}");
        assert_eq!(heard.data, serde_json::json!({ "reachable": false }));
    }
    std::fs::rename(&elsewhere, &file).unwrap();
    for listener in [&mut jobs, &mut others] {
        let heard = listener.event().await;
        assert_eq!(
            (heard.kind.as_str(), &heard.data),
            ("catalog", &serde_json::json!({ "reachable": true }))
        );
    }
    // It goes on where it was.
    let id = queued(&rig, "orders").await;
    let heard = jobs.event().await;
    assert_eq!((heard.kind.as_str(), heard.data["id"].as_str()), ("job", Some(id.to_string().as_str())));
    drop((jobs, others));
    rig.end().await;
}
