//! What limits a database, on its page: state, since when, why; and nothing good of what nobody spoke of lately.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use farshore_catalog::access::Role;
use farshore_catalog::throttle::{Rule, RuleState, Throttles};

use crate::person::{get, log_in};
use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttles_are_shown_with_state_since_when_and_why_and_none_that_is_not_heard_as_well() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    let person = log_in(&rig, "ana").await;
    let none = get(&rig, "/databases/orders", &person.cookie).await.text;
    assert!(none.contains("limit now <b class=\"not-known\">not known"), "{none}");
    let now = Utc::now();
    let rule = |name: &str, state, bandwidth| Rule {
        name: name.to_owned(),
        state,
        since: now - TimeDelta::hours(2),
        why: "ship_lag is <45.6s>".to_owned(),
        bandwidth,
        notifies: false,
        past: None,
        fired_at: None,
    };
    let said = Throttles {
        database: "orders".parse().unwrap(),
        bandwidth: Some(5 << 20),
        sent: 0,
        waited: Duration::from_secs(90),
        node: "oslo-1".to_owned(),
        heard_at: now,
        rules: vec![rule("busy", RuleState::Active, Some(5 << 20)), rule("calm", RuleState::Quiet, None)],
    };
    rig.catalog.throttle_put(&said).await.unwrap();
    let page = get(&rig, "/databases/orders", &person.cookie).await.text;
    let rows: Vec<&str> = page.split("data-throttle=\"").skip(1).collect();
    assert!(page.contains("limit now <b>5.0 MiB/s</b>"), "{page}");
    assert!(rows[0].starts_with("busy") && rows[0].contains("state degraded"), "{}", rows[0]);
    assert!(rows[0].contains(">active<") && rows[0].contains("&#60;45.6s&#62;"), "{}", rows[0]);
    assert!(rows[1].starts_with("calm") && rows[1].contains("state protected"), "{}", rows[1]);

    let silent = Throttles { heard_at: now - TimeDelta::minutes(5), ..said };
    rig.catalog.throttle_put(&silent).await.unwrap();
    let page = get(&rig, "/databases/orders", &person.cookie).await.text;
    let rows: Vec<&str> = page.split("data-throttle=\"").skip(1).collect();
    assert!(page.contains("limit now <b class=\"not-known\">not known"), "{page}");
    assert!(rows.iter().all(|row| row.contains("state unknown")), "{rows:?}");
    rig.end().await;
}
