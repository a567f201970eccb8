//! Channels of notification over the API: which there are, and whether one takes a test.

use farshore_catalog::access::Role;
use reqwest::Method;
use serde_json::json;

use crate::rig::{Answer, Rig};

async fn test(rig: &Rig, token: &str, name: &str) -> Answer {
    let headers = [("authorization", &*format!("Bearer {token}"))];
    rig.send(Method::POST, &format!("/api/v1/channels/{name}/test"), &headers, "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_are_listed_by_name_and_kind_for_admins_of_all_databases_alone() {
    let rig = Rig::new().await;
    let admin = rig.token(Role::Admin, None).await;
    let known = [("dba", "slack"), ("pager", "webhook"), ("slow", "webhook")];
    let known = known.map(|(name, kind)| json!({ "name": name, "kind": kind }));
    assert_eq!(rig.all("/api/v1/channels?limit=2", &admin).await, known);
    for (role, database) in [(Role::Restorer, None), (Role::Admin, Some("orders"))] {
        let token = rig.token(role, database).await;
        assert_eq!(rig.get("/api/v1/channels", &token).await.problem(), "not-allowed");
        assert_eq!(test(&rig, &token, "pager").await.problem(), "not-allowed");
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_says_whether_it_was_taken_is_written_down_and_is_one_at_a_time() {
    let rig = Rig::new().await;
    let admin = rig.token(Role::Admin, None).await;
    let taken = test(&rig, &admin, "pager").await;
    assert_eq!(
        (taken.status, taken.json()),
        (200, json!({"channel": "pager", "taken": true, "problem": null}))
    );
    let not = test(&rig, &admin, "dba").await;
    let right = json!({"channel": "dba", "taken": false, "problem": "it answered 500 <sorry>"});
    assert_eq!((not.status, not.json()), (200, right));
    assert_eq!(test(&rig, &admin, "none").await.problem(), "channel-unknown");
    let written = rig.catalog.activity_list(None, 2).await.unwrap();
    let said: Vec<(&str, bool)> = written
        .iter()
        .map(|one| (one.activity.what.as_str(), one.activity.detail.contains("via the API, by token ")))
        .collect();
    assert_eq!(said, [("notify test", true); 2]);
    let (first, ()) = tokio::join!(test(&rig, &admin, "slow"), async {
        rig.slow_is_asked().await;
        let second = test(&rig, &admin, "slow").await;
        assert_eq!((second.status, second.problem().as_str()), (409, "channel-busy"));
        // Nor soon behind another one, of whatever channel: alarms go the same way.
        assert_eq!(test(&rig, &admin, "pager").await.problem(), "channel-busy");
        rig.slow_answers();
    });
    assert_eq!(first.json()["taken"], true);
    rig.end().await;
}
