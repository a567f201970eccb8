//! Logging in: what a person's browser is given, and what it must show.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use farshore_catalog::access::Role;
use reqwest::Method;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::rig::{Answer, PASSWORD, Rig};

async fn login(rig: &Rig, name: &str, password: &str) -> Answer {
    let body = serde_json::json!({ "name": name, "password": password }).to_string();
    rig.send(Method::POST, "/api/v1/session", &[("content-type", "application/json")], &body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_lets_in_until_it_is_ended_and_changes_nothing_without_its_token() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    let answer = login(&rig, "ana", PASSWORD).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let set = answer.header("set-cookie").to_owned();
    assert!(set.starts_with("farshore=") && set.contains("; HttpOnly; SameSite=Lax"), "{set}");
    let cookie = set.split(';').next().unwrap();
    let csrf = answer.json()["csrf_token"].as_str().unwrap().to_owned();
    assert!(!set.contains(&csrf));

    let mine = rig.send(Method::GET, "/api/v1/session", &[("cookie", cookie)], "").await.json();
    assert_eq!(
        (&mine["name"], &mine["role"], &mine["csrf_token"]),
        (&"ana".into(), &"viewer".into(), &Value::from(csrf.clone()))
    );
    assert_eq!(rig.send(Method::GET, "/api/v1/tokens", &[("cookie", cookie)], "").await.status, 403);
    let other = login(&rig, "ana", PASSWORD).await.json()["csrf_token"].as_str().unwrap().to_owned();
    for headers in [&[("cookie", cookie)][..], &[("cookie", cookie), ("x-csrf-token", &other)]] {
        let refused = rig.send(Method::DELETE, "/api/v1/session", headers, "").await;
        assert_eq!(refused.problem(), "not-allowed");
    }
    assert_eq!(rig.send(Method::GET, "/api/v1/session", &[("cookie", cookie)], "").await.status, 200);
    let ended =
        rig.send(Method::DELETE, "/api/v1/session", &[("cookie", cookie), ("x-csrf-token", &csrf)], "").await;
    assert_eq!(ended.status, 204);
    assert!(ended.header("set-cookie").contains("Max-Age=0"), "{ended:?}");
    assert_eq!(rig.send(Method::GET, "/api/v1/session", &[("cookie", cookie)], "").await.status, 401);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_login_does_not_say_what_was_wrong() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    rig.user("bob", Role::Viewer).await;
    rig.catalog.user_disable(&"bob".parse().unwrap(), true).await.unwrap();
    let mut said = Vec::new();
    for (name, password) in
        [("ana", "a wrong password"), ("nobody", PASSWORD), ("bob", PASSWORD), ("no name at all", PASSWORD)]
    {
        let answer = login(&rig, name, password).await;
        assert_eq!(answer.problem(), "not-authenticated", "{name}");
        assert_eq!(answer.header("set-cookie"), "");
        let mut body = answer.json();
        body["trace_id"] = Value::Null;
        said.push(body);
    }
    assert!(said.windows(2).all(|pair| pair[0] == pair[1]), "{said:?}");
    for (kind, body, code) in [
        ("text/plain", "{\"name\":\"ana\",\"password\":\"x\"}", "media-type"),
        ("application/json", "{\"name\":\"ana\",\"pass", "request-invalid"),
        ("application/json", "{\"name\":\"ana\",\"password\":\"x\",\"more\":1}", "request-invalid"),
    ] {
        let answer = rig.send(Method::POST, "/api/v1/session", &[("content-type", kind)], body).await;
        assert_eq!(answer.problem(), code, "{kind} {body}");
    }
    let large = format!("{{\"name\":\"ana\",\"password\":\"{}\"}}", "x".repeat(20_000));
    let answer =
        rig.send(Method::POST, "/api/v1/session", &[("content-type", "application/json")], &large).await;
    assert_eq!(answer.problem(), "body-too-large");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_made_over_http_is_shown_once_and_lets_nobody_in_once_revoked() {
    let rig = Rig::new().await;
    let admin = format!("Bearer {}", rig.token(Role::Admin, None).await);
    let one = format!("Bearer {}", rig.token(Role::Admin, Some("orders")).await);
    let json = ("content-type", "application/json");
    let make = async |token: &str, body: &str| {
        rig.send(Method::POST, "/api/v1/tokens", &[("authorization", token), json], body).await
    };
    let whole = "{\"name\":\"ci\",\"role\":\"viewer\",\"database\":\"orders\",\"expires_in_seconds\":60}";
    let made = make(&admin, whole).await;
    assert_eq!(made.status, 201, "{made:?}");
    let (token, secret) = (made.json()["token"].clone(), made.json()["secret"].as_str().unwrap().to_owned());
    assert_eq!((&token["role"], &token["database"]), (&"viewer".into(), &"orders".into()));
    let id = token["id"].as_str().unwrap().to_owned();
    assert_eq!(made.header("location"), format!("/api/v1/tokens/{id}"));
    assert_eq!(rig.get("/api/v1/databases/orders", &secret).await.status, 200);
    assert_eq!(make(&admin, whole).await.problem(), "conflict", "a valid token has the name");
    for (body, code) in [
        ("{\"name\":\"X\",\"role\":\"viewer\"}", "request-invalid"),
        ("{\"name\":\"x\",\"role\":\"root\"}", "request-invalid"),
        ("{\"name\":\"x\",\"role\":\"viewer\",\"expires_in_seconds\":0}", "request-invalid"),
        ("{\"name\":\"x\",\"role\":\"viewer\",\"database\":\"nowhere\"}", "database-unknown"),
    ] {
        assert_eq!(make(&admin, body).await.problem(), code, "{body}");
    }
    // Who sees one database only says nothing of who may ask.
    assert_eq!(make(&one, whole).await.problem(), "not-allowed");
    let path = format!("/api/v1/tokens/{id}");
    assert_eq!(
        rig.send(Method::DELETE, &path, &[("authorization", &one)], "").await.problem(),
        "not-allowed"
    );
    let revoked = rig.send(Method::DELETE, &path, &[("authorization", &admin)], "").await;
    assert_eq!((revoked.status, &revoked.json()["valid"]), (200, &false.into()), "{revoked:?}");
    assert_eq!(rig.get("/api/v1/databases/orders", &secret).await.status, 401);
    let again = rig.send(Method::DELETE, &path, &[("authorization", &admin)], "").await;
    assert_eq!((again.status, again.problem().as_str()), (404, "token-unknown"));
    let entries = rig.catalog.activity_list(None, 2).await.unwrap();
    assert_eq!(
        entries.iter().map(|entry| entry.activity.what.as_str()).collect::<Vec<_>>(),
        ["token revoke", "token create"]
    );
    let hidden = secret.rsplit('_').next().unwrap();
    let listed = rig.send(Method::GET, "/api/v1/tokens", &[("authorization", &admin)], "").await;
    assert!(!listed.text.contains(hidden) && !format!("{entries:?}").contains(hidden));
    rig.end().await;
}

/// More log in at once than questions have turns; a password takes a processor, and whoever asks for something else meanwhile waits for none of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_checked_keeps_nobody_from_the_catalog() {
    let rig = Arc::new(Rig::new().await);
    rig.user("ana", Role::Viewer).await;
    let token = rig.token(Role::Viewer, None).await;
    let (done, mut logins) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for _ in 0..16 {
        let (rig, done) = (Arc::clone(&rig), Arc::clone(&done));
        logins.spawn(async move {
            let answer = login(&rig, "ana", PASSWORD).await;
            done.fetch_add(1, Ordering::SeqCst);
            answer.status
        });
    }
    // The first has come back: all the others are here, and most of them wait.
    while done.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.get("/api/v1/databases", &token).await.status, 200);
    let before = done.load(Ordering::SeqCst);
    assert!(before < 8, "it waited for {before} logins");
    assert!(logins.join_all().await.into_iter().all(|status| status == 200));
    Arc::into_inner(rig).unwrap().end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_guesses_many_passwords_at_once_has_no_more_tries_than_one_after_the_other() {
    let rig = Arc::new(Rig::new().await);
    rig.user("ana", Role::Viewer).await;
    let mut logins = JoinSet::new();
    for _ in 0..30 {
        let rig = Arc::clone(&rig);
        logins.spawn(async move { login(&rig, "ana", "a wrong password").await.status });
    }
    let answers = logins.join_all().await;
    let looked_at = answers.iter().filter(|status| **status == 401).count();
    // Ten, and the one that is checked beside the tenth.
    assert!((10..=11).contains(&looked_at), "{answers:?}");
    assert!(answers.iter().all(|status| matches!(status, 401 | 429)), "{answers:?}");
    Arc::into_inner(rig).unwrap().end().await;
}
