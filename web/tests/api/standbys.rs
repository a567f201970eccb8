//! Standbys that follow a journal: what is said of them over the API and in metrics, to whom, and that nobody vouches for one that is not heard.

use chrono::{TimeDelta, Utc};
use farshore_catalog::access::Role;
use farshore_catalog::standby::{Standby, StandbyState};
use farshore_web::metrics::{PATH, reading};

use crate::rig::{Rig, name, standby};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standbys_are_said_to_be_where_they_are_as_long_as_they_are_heard() {
    let rig = Rig::new().await;
    let (now, hour) = (TimeDelta::zero(), TimeDelta::hours(1));
    let all = [
        standby("orders", "oslo", StandbyState::Streaming, now),
        standby("orders", "rome", StandbyState::Streaming, hour),
        standby("billing", "wien", StandbyState::LogMissing, hour),
    ];
    rig.catalog.standby_put(&all).await.unwrap();
    let token = rig.token(Role::Viewer, None).await;
    let listed = rig.all("/api/v1/standbys?limit=1", &token).await;
    let said: Vec<_> =
        listed.iter().map(|one| (one["name"].as_str().unwrap(), one["state"].as_str().unwrap())).collect();
    assert_eq!(said, [("wien", "log_missing"), ("oslo", "streaming"), ("rome", "away")]);
    assert_eq!((&listed[1]["applied"], &listed[1]["lag_bytes"]), (&"3:0/400".into(), &0x200.into()));
    let lag = listed[1]["lag_ms"].as_u64().unwrap();
    assert!((2000..60_000).contains(&lag), "{lag}");
    assert!(listed[2]["lag_bytes"].is_null() && listed[2]["lag_ms"].is_null(), "{}", listed[2]);
    // Whoever may see one database sees its standbys.
    let token = rig.token(Role::Viewer, Some("billing")).await;
    assert_eq!(rig.all("/api/v1/standbys", &token).await.len(), 1);
    // A state that is as it was keeps its beginning; another begins.
    let again = standby("orders", "oslo", StandbyState::Streaming, now);
    rig.catalog.standby_put(&[Standby { since: Utc::now(), ..again }]).await.unwrap();
    let known = rig.catalog.standby_list(Some(&name("orders"))).await.unwrap();
    assert!(Utc::now() - known[0].since > TimeDelta::minutes(50), "{known:?}");
    let token = rig.token(Role::Viewer, None).await;
    reading::read(&rig.metrics, &rig.catalog).await;
    let page = rig.get(PATH, &token).await.text;
    let value = |sample: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{sample}: {page}")).parse::<f64>().unwrap()
    };
    let labels = |called: &str, state: &str| {
        format!("farshore_standby_state{{database=\"orders\",standby=\"{called}\",state=\"{state}\"}}")
    };
    assert_eq!((value(&labels("oslo", "streaming")), value(&labels("oslo", "away"))), (1.0, 0.0));
    assert_eq!((value(&labels("rome", "streaming")), value(&labels("rome", "away"))), (0.0, 1.0));
    assert!(value("farshore_standby_lag_seconds{database=\"orders\",standby=\"rome\"}") > 3600.0);
    assert!(rig.catalog.standby_forget(&name("orders"), "rome").await.unwrap());
    assert!(!rig.catalog.standby_forget(&name("orders"), "rome").await.unwrap());
    rig.end().await;
}
