//! Who is let in, and to what.

use chrono::{TimeDelta, Utc};
use farshore_catalog::access::{Role, Secret};
use farshore_catalog::token::Bearer;
use farshore_web::router::document;
use reqwest::Method;
use serde_json::Value;

use crate::rig::{JOB, Rig};

/// Method, path with its names filled in, and the least role, of every operation of the description.
fn operations() -> Vec<(Method, String, Option<Role>)> {
    let doc: Value = serde_json::from_str(&document().unwrap()).unwrap();
    let mut all = Vec::new();
    for (path, item) in doc["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
            if !operation.is_object() {
                continue;
            }
            let role = operation["x-farshore-role"].as_str().map(|word| word.parse().unwrap());
            let path = path.replace("{name}", "orders").replace("tokens/{id}", "tokens/0123456789abcdef");
            all.push((method, path.replace("{id}", JOB), role));
        }
    }
    assert!(all.len() >= 12, "{all:?}");
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_may_what_the_description_says_and_nothing_more() {
    let rig = Rig::new().await;
    let mut tokens = Vec::new();
    for role in Role::ALL {
        tokens.push((role, format!("Bearer {}", rig.token(role, None).await)));
    }
    let mut refused = 0;
    for (method, path, least) in operations() {
        let bare = rig.send(method.clone(), &path, &[], "").await;
        let Some(least) = least else {
            assert!(
                (method.as_str(), path.as_str()) == ("POST", "/api/v1/session"),
                "open to all: {method} {path}"
            );
            assert!(!matches!(bare.status, 401 | 403), "{method} {path}: {bare:?}");
            continue;
        };
        assert_eq!((bare.status, bare.problem().as_str()), (401, "not-authenticated"), "{method} {path}");
        for (role, token) in &tokens {
            if role.may(least) && path.ends_with("/stream") {
                // What it answers has no end: `listening` asks it.
                continue;
            }
            let answer = rig.send(method.clone(), &path, &[("authorization", token)], "").await;
            match role.may(least) {
                true => {
                    // What is asked without a body, or has ended, is refused for what it is.
                    let is_answered = answer.status < 300 || matches!(answer.status, 400 | 404 | 409 | 415);
                    assert!(is_answered, "{role} {method} {path}: {answer:?}")
                }
                false => {
                    refused += 1;
                    assert_eq!(answer.problem(), "not-allowed", "{role} {method} {path}");
                }
            }
        }
    }
    assert!(refused >= 3, "nothing is for admins alone");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn until_a_token_or_a_user_exists_nobody_is_let_in_and_told_how_to_make_one() {
    let rig = Rig::empty().await;
    let shown = Bearer::mint().unwrap().text();
    for token in [None, Some(shown)] {
        let answer = match &token {
            None => rig.send(Method::GET, "/api/v1/databases", &[], "").await,
            Some(token) => rig.get("/api/v1/databases", token).await,
        };
        assert_eq!(answer.problem(), "not-authenticated");
        assert!(answer.json()["hint"].as_str().unwrap().contains("farshore token create"), "{answer:?}");
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
    }
    for open in ["/healthz", "/readyz"] {
        assert_eq!(rig.send(Method::GET, open, &[], "").await.status, 200, "{open}");
    }
    let token = rig.token(Role::Viewer, None).await;
    assert_eq!(rig.get("/api/v1/databases", &token).await.status, 200);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_a_revoked_a_wrong_and_an_unknown_token_are_refused_in_the_same_words() {
    let rig = Rig::new().await;
    let good = rig.token(Role::Admin, None).await;
    let (expired, revoked) = (Bearer::mint().unwrap(), Bearer::mint().unwrap());
    let past = Utc::now() - TimeDelta::seconds(1);
    rig.insert(&expired, "expired", Role::Admin, None, Some(past)).await;
    rig.insert(&revoked, "revoked", Role::Admin, None, None).await;
    assert_eq!(rig.get("/api/v1/databases", &revoked.text()).await.status, 200);
    rig.catalog.token_revoke("revoked", Utc::now()).await.unwrap();
    let of_good: Bearer = good.parse().unwrap();
    let wrong = Bearer { id: of_good.id, secret: Secret::mint().unwrap() };
    let mut said = Vec::new();
    for refused in
        [expired.text(), revoked.text(), wrong.text(), Bearer::mint().unwrap().text(), "x".to_owned()]
    {
        let answer = rig.get("/api/v1/databases", &refused).await;
        assert_eq!(answer.problem(), "not-authenticated", "{refused}");
        let mut body = answer.json();
        body["trace_id"] = Value::Null;
        said.push(body);
    }
    assert!(said.windows(2).all(|pair| pair[0] == pair[1]), "{said:?}");
    assert_eq!(rig.get("/api/v1/databases", &good).await.status, 200);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_one_database_finds_no_other() {
    let rig = Rig::new().await;
    let token = rig.token(Role::Admin, Some("orders")).await;
    let listed = rig.all("/api/v1/databases", &token).await;
    assert_eq!(listed.iter().map(|one| &one["database"]).collect::<Vec<_>>(), ["orders"]);
    let backups = rig.all("/api/v1/backups?limit=1", &token).await;
    assert!(backups.len() == 2 && backups.iter().all(|one| one["database"] == "orders"), "{backups:?}");
    let missing = rig.get("/api/v1/databases/nowhere", &token).await.json();
    for path in ["", "/window", "/points", "/points/resolve?xid=701"] {
        let answer = rig.get(&format!("/api/v1/databases/billing{path}"), &token).await;
        assert_eq!(answer.problem(), "database-unknown", "{path}");
        assert_eq!(answer.json()["detail"], missing["detail"], "it shows that there is one");
        let own = rig.get(&format!("/api/v1/databases/orders{path}"), &token).await;
        assert_eq!(own.status, 200, "{path}: {own:?}");
    }
    assert_eq!(rig.get("/api/v1/backups?database=billing", &token).await.problem(), "database-unknown");
    // Another database's incarnation is not reached by its id, nor by a cursor that names it.
    let of_billing = farshore_journal::IncarnationId::from_bytes([2; 16]);
    let path = format!("/api/v1/databases/orders/points?incarnation={of_billing}");
    assert_eq!(rig.get(&path, &token).await.problem(), "incarnation-unknown");
    for path in ["/api/v1/nodes", "/api/v1/activity", "/api/v1/tokens"] {
        assert_eq!(rig.get(path, &token).await.problem(), "not-allowed", "{path}");
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_failures_hold_up_whoever_guesses_and_nobody_with_a_token() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Admin).await;
    let good = rig.token(Role::Viewer, None).await;
    let mut last = String::new();
    for _ in 0..12 {
        let answer = rig.get("/api/v1/databases", &Bearer::mint().unwrap().text()).await;
        last = answer.problem();
    }
    assert_eq!(last, "too-many-attempts");
    let answer = rig.get("/api/v1/databases", "x").await;
    assert_eq!(answer.status, 429);
    assert!((1..=61).contains(&answer.header("retry-after").parse::<u32>().unwrap()), "{answer:?}");
    let login = format!("{{\"name\":\"ana\",\"password\":\"{}\"}}", crate::rig::PASSWORD);
    let json = [("content-type", "application/json")];
    assert_eq!(rig.send(Method::POST, "/api/v1/session", &json, &login).await.status, 429);
    assert_eq!(rig.get("/api/v1/databases", &good).await.status, 200);
    rig.end().await;
}
