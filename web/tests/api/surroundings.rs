//! What holds around every answer: headers, deadlines, a catalog that is away, TLS, and no secret anywhere.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farshore_catalog::access::Role;
use farshore_catalog::token::Bearer;
use farshore_web::{Health, Here, ServeError, Shipping, Web, tls};
use reqwest::Method;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::rig::{PASSWORD, Rig};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_carries_what_keeps_browsers_from_harm() {
    let rig = Rig::new().await;
    let token = format!("Bearer {}", rig.token(Role::Viewer, None).await);
    let own = [("authorization", token.as_str())];
    for (method, path, headers, status) in [
        (Method::GET, "/healthz", &[][..], 200),
        (Method::GET, "/readyz", &[], 200),
        (Method::GET, "/api/v1/databases", &own, 200),
        (Method::GET, "/api/v1/databases", &[], 401),
        (Method::GET, "/api/v1/databases/none", &own, 404),
        (Method::GET, "/api/v1/databases/%FF", &own, 400),
        (Method::GET, "/nowhere", &[], 404),
        (Method::POST, "/api/v1/databases", &own, 405),
        (Method::DELETE, "/api/v1/session", &own, 204),
        (Method::GET, "/api/openapi.json", &[], 200),
        (Method::GET, "/api/docs", &[], 308),
        (Method::GET, "/api/docs/", &[], 200),
        (Method::GET, "/api/docs/none.js", &[], 404),
    ] {
        let answer = rig.send(method.clone(), path, headers, "").await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(answer.header(name), value, "{method} {path}");
        }
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none';") && policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert_eq!(answer.header("x-trace-id").len(), 16);
        if status >= 400 {
            answer.problem();
        }
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_that_is_away_is_said_to_be_and_asked_again_when_it_is_back() {
    let rig = Rig::new().await;
    let token = rig.token(Role::Admin, None).await;
    let (file, elsewhere) = (rig.folder.path().join("catalog.db"), rig.folder.path().join("elsewhere.db"));
    for _ in 0..2 {
        assert_eq!(rig.get("/api/v1/databases", &token).await.status, 200);
        std::fs::rename(&file, &elsewhere).unwrap();
        for path in ["databases", "databases/orders", "backups", "nodes", "activity", "tokens", "session"] {
            let answer = rig.get(&format!("/api/v1/{path}"), &token).await;
            assert_eq!((answer.status, answer.problem().as_str()), (503, "catalog-away"), "{path}");
            assert!(!answer.text.contains("catalog.db"), "{answer:?}");
            assert_eq!(answer.header("retry-after"), "5");
        }
        assert_eq!(rig.send(Method::GET, "/healthz", &[], "").await.status, 200);
        std::fs::rename(&elsewhere, &file).unwrap();
    }
    assert_eq!(rig.get("/api/v1/databases", &token).await.status, 200);
    rig.end().await;
}

/// A log that is kept.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_an_answer_or_in_the_log_whatever_is_asked() {
    let log = Log::default();
    let written = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || written.clone())
        .init();
    let rig = Rig::new().await;
    rig.user("ana", Role::Admin).await;
    let bearer = Bearer::mint().unwrap();
    rig.insert(&bearer, "ci", Role::Admin, None, None).await;
    let token = bearer.text();
    let body = format!("{{\"name\":\"ana\",\"password\":\"{PASSWORD}\"}}");
    let login =
        rig.send(Method::POST, "/api/v1/session", &[("content-type", "application/json")], &body).await;
    assert_eq!(login.status, 200);
    let cookie = login.header("set-cookie").split(';').next().unwrap().to_owned();
    let (_, hash) = rig.catalog.user_find(&"ana".parse().unwrap()).await.unwrap().unwrap();
    let wrong = format!("{{\"name\":\"ana\",\"password\":\"{PASSWORD}\"");
    let mut answers = vec![
        rig.send(Method::POST, "/api/v1/session", &[("content-type", "application/json")], &wrong).await,
        // In the wrong places.
        rig.get(&format!("/api/v1/databases/{token}"), &token).await,
        rig.get(&format!("/api/v1/databases?token={token}"), &token).await,
        rig.get(&format!("/api/v1/databases?cursor={token}"), &token).await,
        rig.send(Method::GET, "/api/v1/nowhere", &[("authorization", &format!("Basic {token}"))], "").await,
        rig.send(Method::GET, "/api/v1/databases", &[("authorization", &format!("Basic {token}"))], "").await,
    ];
    for path in [
        "databases",
        "databases/orders",
        "databases/orders/points",
        "backups",
        "nodes",
        "activity",
        "tokens",
        "session",
    ] {
        answers.push(rig.get(&format!("/api/v1/{path}"), &token).await);
        answers.push(rig.send(Method::GET, &format!("/api/v1/{path}"), &[("cookie", &cookie)], "").await);
    }
    // A catalog that is away is what is logged most of.
    let file = rig.folder.path().join("catalog.db");
    std::fs::rename(&file, file.with_extension("away")).unwrap();
    answers.push(rig.get("/api/v1/databases", &token).await);
    std::fs::rename(file.with_extension("away"), &file).unwrap();
    rig.end().await;

    let secret = token.rsplit('_').next().unwrap();
    let secrets = [secret, PASSWORD, cookie.split('=').nth(1).unwrap(), hash.expose()];
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("a request failed") && log.contains("health endpoint listens"), "{log}");
    for (at, hidden) in secrets.iter().enumerate() {
        assert!(!log.contains(hidden), "secret {at} is in the log");
        for answer in &answers {
            assert!(!answer.text.contains(hidden), "secret {at}: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_others_can_reach_is_refused_without_tls() {
    let listener = TcpListener::bind(("0.0.0.0", 0)).await.unwrap();
    let (_tell, told) = watch::channel(Health::default());
    let app = farshore_web::router(Web::new(None, BTreeMap::new(), Here::default(), false, false), told);
    let served = farshore_web::serve(listener, None, app, CancellationToken::new()).await;
    assert!(matches!(served, Err(ServeError::NotLoopback { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tls_others_are_served_the_cookie_is_the_hosts_alone_and_the_description_asks_who_asks() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (rig.folder.path().join("tls.crt"), rig.folder.path().join("tls.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let acceptor = tls::load(&certificate, &key).unwrap();
    assert!(tls::load(&key, &key).is_err() && tls::load(&certificate, &certificate).is_err());

    let listener = TcpListener::bind(("0.0.0.0", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (_tell, told) = watch::channel(Health::default());
    let app = farshore_web::router(
        Web::new(Some(rig.catalog.clone()), BTreeMap::new(), Here::default(), true, false),
        told,
    );
    let cancel = CancellationToken::new();
    let mut served = JoinSet::new();
    served.spawn(farshore_web::serve(listener, Some(acceptor), app, cancel.clone()));

    let trusted = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([trusted]).no_proxy().build().unwrap();
    let url = |path: &str| format!("https://localhost:{port}{path}");
    assert_eq!(client.get(url("/healthz")).send().await.unwrap().status(), 200);
    for path in ["/api/openapi.json", "/api/docs/"] {
        assert_eq!(client.get(url(path)).send().await.unwrap().status(), 401, "{path}");
    }
    let body = format!("{{\"name\":\"ana\",\"password\":\"{PASSWORD}\"}}");
    let login = client.post(url("/api/v1/session")).header("content-type", "application/json").body(body);
    let answer = login.send().await.unwrap();
    let set = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(
        set.starts_with("__Host-farshore=") && set.ends_with("; Secure") && set.contains("Path=/;"),
        "{set}"
    );
    let cookie = set.split(';').next().unwrap();
    for path in ["/api/openapi.json", "/api/docs/", "/api/v1/databases"] {
        let answer = client.get(url(path)).header("cookie", cookie).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    cancel.cancel();
    drop(client);
    tokio::time::timeout(Duration::from_secs(30), served.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap()
        .unwrap();
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_connects_and_says_nothing_is_let_go() {
    let rig = Rig::empty().await;
    let mut silent = TcpStream::connect(rig.address).await.unwrap();
    let mut bytes = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(25), silent.read_to_end(&mut bytes)).await;
    assert!(closed.is_ok(), "it is still connected");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_is_said_only_while_every_database_is_and_the_teller_lives() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = watch::channel(Health::default());
    // No catalog: health needs none.
    let app = farshore_web::router(Web::new(None, BTreeMap::new(), Here::default(), false, true), told);
    let cancel = CancellationToken::new();
    let mut served = JoinSet::new();
    served.spawn(farshore_web::serve(listener, None, app, cancel.clone()));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |path: &str| {
        client.get(format!("http://{address}{path}")).send().await.unwrap().status().as_u16()
    };
    let health = |shipping: &[Shipping]| {
        let name = |at: usize| format!("db{at}").parse().unwrap();
        Health { databases: shipping.iter().enumerate().map(|(at, s)| (name(at), *s)).collect() }
    };
    assert_eq!(ask("/healthz").await, 200);
    assert_eq!(ask("/api/v1/databases").await, 503);
    for (shipping, status) in [
        (&[][..], 503),
        (&[Shipping::Starting], 503),
        (&[Shipping::Ready], 200),
        (&[Shipping::Ready, Shipping::Failing], 503),
        (&[Shipping::Ready], 200),
    ] {
        tell.send(health(shipping)).unwrap();
        assert_eq!(ask("/readyz").await, status, "{shipping:?}");
    }
    drop(tell);
    assert_eq!(ask("/readyz").await, 503);
    cancel.cancel();
    drop(client);
    tokio::time::timeout(Duration::from_secs(30), served.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_questions_leaves_a_connection_of_the_catalog_to_others() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (asking, seen) = (Arc::clone(&now), Arc::clone(&most));
    let handler = move || async move {
        seen.fetch_max(asking.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
        asking.fetch_sub(1, Ordering::SeqCst);
    };
    let web = Web::new(None, BTreeMap::new(), Here::default(), false, true);
    let app = axum::Router::new().route("/", axum::routing::get(handler));
    let app = app.layer(axum::middleware::from_fn_with_state(web, farshore_web::guard::in_turn));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let cancel = CancellationToken::new();
    let mut served = JoinSet::new();
    served.spawn(farshore_web::serve(listener, None, app, cancel.clone()));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut asked = JoinSet::new();
    for _ in 0..24 {
        asked.spawn(client.get(format!("http://{address}/")).send());
    }
    while let Some(answer) = asked.join_next().await {
        assert_eq!(answer.unwrap().unwrap().status(), 200);
    }
    let connections = usize::try_from(farshore_catalog::Options::default().connections).unwrap();
    assert_eq!(most.load(Ordering::SeqCst), connections - 1);
    cancel.cancel();
    drop(client);
    tokio::time::timeout(Duration::from_secs(30), served.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap()
        .unwrap();
}
