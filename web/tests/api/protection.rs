//! What commits wait for, over the API: what is asked for, and what somebody saw of it a moment ago.

use chrono::{TimeDelta, Utc};
use farshore_catalog::access::Role;
use farshore_catalog::guard::{Guard, GuardPhase};
use serde_json::Value;

use crate::rig::{Rig, name};

const ORDERS: &str = "/api/v1/databases/orders/protection";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_nobody_told_a_moment_ago_is_not_known() {
    let rig = Rig::new().await;
    let token = rig.token(Role::Viewer, None).await;
    let asked =
        async |path: &str| -> Value { serde_json::from_str(&rig.get(path, &token).await.text).unwrap() };
    let nothing = asked(ORDERS).await;
    assert_eq!((&nothing["mode"], &nothing["state"]), (&"async".into(), &Value::Null), "{nothing}");
    assert_eq!(asked("/api/v1/databases/billing/protection").await["mode"], Value::Null);
    let at = Utc::now();
    let armed = Guard {
        database: name("orders"),
        node: Some("oslo".to_owned()),
        phase: GuardPhase::Armed,
        is_exposed: false,
        exposed_since: None,
        why: Some("waited".to_owned()),
        trouble: None,
        looked_at: Some(at),
        told_at: Some(at),
    };
    rig.catalog.guard_put(&armed).await.unwrap();
    let said = asked(ORDERS).await;
    assert_eq!((&said["state"], &said["exposed_since"]), (&"armed".into(), &Value::Null), "{said}");
    assert!(said["why"].is_null() && said["node"] == "oslo", "{said}");
    let (old, exposed) = (at + TimeDelta::seconds(1), Some(at - TimeDelta::hours(1)));
    let broken = Guard {
        phase: GuardPhase::Disarmed,
        is_exposed: true,
        exposed_since: exposed,
        looked_at: Some(old),
        ..armed
    };
    rig.catalog.guard_put(&broken).await.unwrap();
    let said = asked(ORDERS).await;
    assert_eq!((&said["state"], &said["why"]), (&"disarmed".into(), &"waited".into()), "{said}");
    assert!(said["exposed_since"].is_string(), "{said}");
    assert_eq!(rig.get("/api/v1/databases/nobody/protection", &token).await.status, 404);
    let other = rig.token(Role::Viewer, Some("billing")).await;
    assert_eq!(rig.get(ORDERS, &other).await.status, 404);
    rig.end().await;
}
