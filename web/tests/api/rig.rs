//! A server over a catalog with something in it, and whoever asks it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, TimeZone as _, Utc};
use farshore_catalog::access::Role;
use farshore_catalog::activity::Activity;
use farshore_catalog::backup::{Backup, BackupState};
use farshore_catalog::branch::Branch;
use farshore_catalog::commit::Commit;
use farshore_catalog::database::Database;
use farshore_catalog::incarnation::Incarnation;
use farshore_catalog::job::{Claim, Holder, JobEnd, JobFilter, JobKind, NewJob, Via};
use farshore_catalog::mark::{Mark, MarkKind};
use farshore_catalog::node::Node;
use farshore_catalog::range::JournalRange;
use farshore_catalog::shipping::{Shipping, ShippingState};
use farshore_catalog::standby::{Standby, StandbyState};
use farshore_catalog::target::Target;
use farshore_catalog::token::{Bearer, Token};
use farshore_catalog::user::User;
use farshore_catalog::{Catalog, Options, Time};
use farshore_journal::{BackupId, DatabaseName, IncarnationId, Offset, Position, Sequence, Timeline};
use farshore_web::{
    Channel, Channels, Health, Here, Metrics, Objectives, Shipping as Readiness, Web, password,
};
use reqwest::{Client, Method, Response};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A job of `orders` that has succeeded.
pub const JOB: &str = "jb-0000000001";

/// The password of the users that [`Rig::user`] adds.
pub const PASSWORD: &str = "correct horse battery";

pub fn time(seconds: i64) -> Time {
    Utc.with_ymd_and_hms(2026, 3, 29, 14, 0, 0).unwrap() + TimeDelta::seconds(seconds)
}

pub fn name(text: &str) -> DatabaseName {
    text.parse().unwrap()
}

/// A server and its catalog.
pub struct Rig {
    pub catalog: Catalog,
    pub address: SocketAddr,
    pub client: Client,
    pub folder: TempDir,
    pub metrics: Arc<Metrics>,
    slow: Arc<(Semaphore, Semaphore)>,
    cancel: CancellationToken,
    _health: watch::Sender<Health>,
    served: JoinSet<()>,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The code of a problem, having its form checked.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], self.status, "{body}");
        for field in ["type", "title", "detail", "code", "trace_id"] {
            assert!(body[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {body}");
        }
        assert_eq!(body["trace_id"], self.header("x-trace-id"));
        body["code"].as_str().unwrap().to_owned()
    }
}

impl Rig {
    /// Over a SQLite catalog with facts of `orders` and `billing` in it.
    pub async fn new() -> Self {
        let rig = Self::empty().await;
        facts(&rig.catalog).await;
        rig
    }

    /// Over a SQLite catalog that was just made.
    pub async fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/catalog.db", folder.path().display());
        Self::over(&url, folder, true).await
    }

    /// Over a catalog; `loopback` says what the server is told of its address.
    pub async fn over(url: &str, folder: TempDir, loopback: bool) -> Self {
        // The provider is one for the process; a second test in it finds the first one's.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = Options { deadline: Duration::from_secs(10), ..Options::default() };
        let catalog = Catalog::open(url, options).await.unwrap();
        let promised = Objectives {
            rpo: Some(Duration::from_secs(1)),
            rto: Some(Duration::from_secs(900)),
            ..Objectives::default()
        };
        let cancel = CancellationToken::new();
        let slow = Arc::new((Semaphore::new(0), Semaphore::new(0)));
        let here = Here {
            node: "oslo".to_owned(),
            restore_roots: vec!["/srv/restores".into()],
            stop: cancel.clone(),
            channels: channels(&slow),
            // Whatever the expression: in an hour.
            due: Some(|_, _, now| vec![now + TimeDelta::hours(1)]),
        };
        let promised = BTreeMap::from([(name("orders"), promised)]);
        let web = Web::new(Some(catalog.clone()), promised, here, false, loopback);
        let metrics = Arc::clone(&web.metrics);
        let (tell, told) =
            watch::channel(Health { databases: BTreeMap::from([(name("orders"), Readiness::Ready)]) });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut served = JoinSet::new();
        let (app, stop) = (farshore_web::router(web.clone(), told), cancel.clone());
        served.spawn(farshore_web::events::poll(web, cancel.clone()));
        served.spawn(async move { farshore_web::serve(listener, None, app, stop).await.unwrap() });
        let client = Client::builder().timeout(Duration::from_secs(60)).no_proxy();
        let client = client.redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { catalog, address, client, folder, metrics, slow, cancel, _health: tell, served }
    }

    /// Waits until the channel `slow` was sent a test.
    pub async fn slow_is_asked(&self) {
        let asked = tokio::time::timeout(Duration::from_secs(30), self.slow.0.acquire()).await;
        asked.expect("it is asked").unwrap().forget();
    }

    /// Has the channel `slow` take its test.
    pub fn slow_answers(&self) {
        self.slow.1.add_permits(1);
    }

    /// How many jobs were asked for, beside [`JOB`].
    pub async fn jobs(&self) -> usize {
        let jobs = self.catalog.job_list(&JobFilter::default(), 1000).await.unwrap();
        jobs.iter().filter(|job| job.asked.id.to_string() != JOB).count()
    }

    /// Ends the server; it must end by itself.
    pub async fn end(self) {
        self.cancel.cancel();
        drop(self.client);
        let ended = tokio::time::timeout(Duration::from_secs(30), self.served.join_all()).await;
        ended.expect("the server ends");
        self.catalog.close().await;
    }

    /// A token's whole text.
    pub async fn token(&self, role: Role, database: Option<&str>) -> String {
        let bearer = Bearer::mint().unwrap();
        let called = format!("t-{}", bearer.id);
        self.insert(&bearer, &called, role, database, None).await;
        bearer.text()
    }

    pub async fn insert(
        &self,
        bearer: &Bearer,
        called: &str,
        role: Role,
        database: Option<&str>,
        expires_at: Option<Time>,
    ) {
        let token = Token {
            id: bearer.id,
            name: called.parse().unwrap(),
            role,
            database: database.map(name),
            created_at: Utc::now(),
            expires_at,
            last_used_at: None,
            revoked_at: None,
        };
        self.catalog.token_insert(&token, bearer.secret.digest()).await.unwrap();
    }

    /// A user with [`PASSWORD`].
    pub async fn user(&self, called: &str, role: Role) {
        let user = User { name: called.parse().unwrap(), role, disabled: false, created_at: Utc::now() };
        self.catalog.user_insert(&user, &password::hash(PASSWORD).unwrap()).await.unwrap();
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = self.client.request(method, self.url(path)).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send().await.unwrap()).await
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.send(Method::GET, path, &[("authorization", &format!("Bearer {token}"))], "").await
    }

    /// The items of a whole list, following `next` of its `Link` header as a client does.
    pub async fn all(&self, path: &str, token: &str) -> Vec<Value> {
        let (mut items, mut path) = (Vec::new(), path.to_owned());
        for _ in 0..1000 {
            let answer = self.get(&path, token).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            let body = answer.json();
            items.extend(body["items"].as_array().unwrap().iter().cloned());
            let next = answer.header("link").split(", ").find(|link| link.ends_with("rel=\"next\""));
            assert_eq!(next.is_some(), body["next_cursor"].is_string(), "{path}: {answer:?}");
            let Some(next) = next else { return items };
            path = next.trim_start_matches('<').split('>').next().unwrap().to_owned();
        }
        panic!("{path} has no end");
    }
}

/// `pager` takes a test, `dba` does not, `slow` waits until it is let.
fn channels(slow: &Arc<(Semaphore, Semaphore)>) -> Channels {
    let known = [("pager", "webhook"), ("dba", "slack"), ("slow", "webhook")];
    let known = known.map(|(name, kind)| Channel { name: name.to_owned(), kind: kind.to_owned() }).into();
    let slow = Arc::clone(slow);
    Channels::new(
        known,
        Arc::new(move |name| {
            let slow = Arc::clone(&slow);
            Box::pin(async move {
                match name.as_str() {
                    "pager" => Ok(()),
                    "slow" => {
                        slow.0.add_permits(1);
                        slow.1.acquire().await.unwrap().forget();
                        Ok(())
                    }
                    _ => Err("it answered 500 <sorry>".to_owned()),
                }
            })
        }),
    )
}

async fn answer(response: Response) -> Answer {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, text: response.text().await.unwrap() }
}

/// `orders`, shipped into `main` with 30 commits, and `billing`, of which nobody has said anything.
pub async fn facts(catalog: &Catalog) -> IncarnationId {
    for (database, engine) in [("orders", "postgres"), ("billing", "sqlite")] {
        let database = Database { name: name(database), engine: engine.to_owned(), added_at: time(0) };
        catalog.database_put(&database).await.unwrap();
    }
    let of = |database: &str, id: u8| Incarnation {
        id: IncarnationId::from_bytes([id; 16]),
        database: name(database),
        engine_identity: "7301234567890123456".to_owned(),
        number: Some(0),
        created_at: time(0),
        parent: None,
        reason: "first contact".to_owned(),
        segment_bytes: 16 << 20,
        major_version: Some(15),
    };
    let (first, other) = (of("orders", 1), of("billing", 2));
    catalog.incarnation_put(&first).await.unwrap();
    catalog.incarnation_put(&other).await.unwrap();
    let (timeline, at) = (Timeline::new(1), Offset::new);
    let branch = Branch { incarnation: first.id, timeline, fork: None, first_seen_at: time(0) };
    catalog.branch_put(&branch).await.unwrap();
    let range = JournalRange {
        incarnation: first.id,
        store: "main".to_owned(),
        timeline,
        start: at(0),
        end: at(1000),
        checked_end: at(950),
        first_sequence: Sequence::new(0),
        last_sequence: Sequence::new(9),
    };
    catalog.range_extend(&range).await.unwrap();
    // The tenth commit's clock was ahead of the two behind it.
    let commits: Vec<Commit> = (1..=30_u32)
        .map(|number| Commit {
            timeline,
            start: at(u64::from(number) * 30 - 10),
            end: at(u64::from(number) * 30),
            time: time(if number == 10 { 13 } else { number.into() }),
            xid: 700 + u64::from(number),
        })
        .collect();
    catalog.commit_insert(first.id, &commits).await.unwrap();
    for (id, of) in [(1, first.id), (2, first.id), (3, other.id)] {
        let backup = Backup {
            id: BackupId::from_bytes([id; 16]),
            incarnation: of,
            store: "main".to_owned(),
            timeline,
            start: at(10),
            end: Some(at(u64::from(id) * 60)),
            started_at: time(i64::from(id)),
            finished_at: Some(time(100 + i64::from(id))),
            bytes: Some(1 << 40),
            stored_bytes: Some(1 << 38),
            state: BackupState::Complete,
            checked: true,
            label: "nightly".to_owned(),
            bad_pages: Some(0),
            bad_at: None,
        };
        catalog.backup_insert(&backup).await.unwrap();
    }
    for (called, offset) in [("before-release", 305), ("twice", 400), ("twice", 500)] {
        let mark = Mark {
            incarnation: first.id,
            kind: MarkKind::RestorePoint,
            name: called.to_owned(),
            position: Position::new(timeline, at(offset)),
            time: time(10),
            note: String::new(),
            held_until: None,
        };
        catalog.mark_put(&mark).await.unwrap();
    }
    let target = Target {
        database: name("orders"),
        store: "main".to_owned(),
        url: "file:///srv/journal".to_owned(),
        state: "connected".to_owned(),
        stored: Some(Position::new(timeline, at(1000))),
        updated_at: Utc::now(),
        failure: None,
    };
    catalog.target_put(&target).await.unwrap();
    for number in 1..=7 {
        let activity = Activity {
            at: time(number),
            who: "ana@oslo".to_owned(),
            what: "backup run".to_owned(),
            database: Some(name("orders")),
            detail: format!("entry {number}"),
        };
        catalog.activity_append(&activity).await.unwrap();
    }
    for called in ["bergen", "oslo", "tromso"] {
        let node = Node {
            name: called.to_owned(),
            version: "0.1.0".to_owned(),
            roles: vec!["ships".to_owned(), "jobs".to_owned()],
            started_at: time(0),
            heartbeat_at: time(9),
        };
        catalog.node_put(&node).await.unwrap();
    }
    let job = NewJob {
        id: JOB.parse().unwrap(),
        kind: JobKind::Verify,
        database: Some(name("orders")),
        spec: "{}".to_owned(),
        asked_by: "ana".to_owned(),
        via: Via::Command,
        wanted_node: None,
    };
    let holder = Holder { node: "oslo".to_owned(), process: "p".to_owned() };
    let claim = Claim { id: job.id, attempt: 1, process: holder.process.clone() };
    catalog.job_put(&job, Some(&holder), time(0)).await.unwrap();
    catalog.job_end(&claim, &JobEnd::Succeeded("{\"sound\":true}".to_owned()), time(5)).await.unwrap();
    connected(catalog).await;
    first.id
}

/// That a shipper spoke of `orders` just now.
pub async fn connected(catalog: &Catalog) {
    let offset = |bytes| Some(Offset::new(bytes));
    let now = Utc::now();
    let shipping = Shipping {
        database: name("orders"),
        state: ShippingState::Connected,
        timeline: Some(Timeline::new(1)),
        received: offset(1000),
        stored: offset(1000),
        reported: offset(1000),
        released: offset(800),
        source: offset(1000),
        retained_bytes: Some(5 << 30),
        seconds_to_full: Some(7200),
        heartbeat: Duration::from_secs(60),
        last_contact_at: Some(now),
        last_stored_commit_at: Some(time(30)),
        oldest_unstored_commit_at: None,
        updated_at: now,
        node: Some("oslo".to_owned()),
    };
    catalog.shipping_put(&shipping).await.unwrap();
}

/// A standby that was heard of so long ago.
pub fn standby(database: &str, called: &str, state: StandbyState, heard_ago: TimeDelta) -> Standby {
    let at = Offset::new;
    Standby {
        database: name(database),
        name: called.to_owned(),
        node: "db2".to_owned(),
        login: "far".to_owned(),
        address: "10.0.0.7:41234".to_owned(),
        store: "main".to_owned(),
        incarnation: IncarnationId::from_bytes([7; 16]),
        timeline: Timeline::new(3),
        sent: at(0x500),
        written: at(0x500),
        flushed: at(0x480),
        applied: at(0x400),
        end: at(0x600),
        state,
        since: Utc::now() - TimeDelta::hours(1),
        problem: None,
        behind: Some(Duration::from_secs(2)),
        delay: None,
        heard_at: Utc::now() - heard_ago,
    }
}
