//! `/metrics`: what it says, to whom, and that it goes on saying it when the catalog is gone.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use farshore_catalog::access::Role;
use farshore_catalog::token::Bearer;
use farshore_testkit::tools;
use farshore_web::metrics::{PATH, reading};
use farshore_web::{Metrics, Objectives};
use reqwest::Method;

use crate::rig::{Rig, name};

/// The value of one sample, by its whole name with labels.
fn value(page: &str, sample: &str) -> Option<f64> {
    let line =
        page.lines().find(|line| line.strip_prefix(sample).is_some_and(|rest| rest.starts_with(' ')))?;
    Some(match line.rsplit_once(' ').unwrap().1 {
        "+Inf" => f64::INFINITY,
        number => number.parse().unwrap(),
    })
}

/// The states whose sample is 1.
fn states(page: &str, database: &str) -> Vec<String> {
    let start = format!("farshore_database_state{{database=\"{database}\",state=\"");
    let shown = page.lines().filter_map(|line| line.strip_prefix(&start)?.strip_suffix("\"} 1"));
    shown.map(str::to_owned).collect()
}

async fn read(rig: &Rig) {
    reading::read(&rig.metrics, &rig.catalog).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_say_how_every_database_stands_in_a_form_that_prometheus_takes() {
    let rig = Rig::new().await;
    let token = rig.token(Role::Viewer, None).await;
    read(&rig).await;
    assert_eq!(rig.get("/api/v1/databases/none", &token).await.status, 404);
    rig.get("/a/path/that/is/none", &token).await;
    let answer = rig.get(PATH, &token).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let page = &answer.text;
    let is =
        |sample: &str, expected: f64| assert_eq!(value(page, sample), Some(expected), "{sample}\n{page}");
    is("farshore_catalog_up", 1.0);
    assert_eq!(states(page, "orders"), ["connected"]);
    // Nobody ever spoke of it: unknown, and everything is exposed.
    assert_eq!(states(page, "billing"), ["unknown"]);
    is("farshore_rpo_exposure_seconds{database=\"orders\"}", 0.0);
    is("farshore_rpo_exposure_seconds{database=\"billing\"}", f64::INFINITY);
    is("farshore_rpo_objective_seconds{database=\"orders\"}", 1.0);
    is("farshore_rto_objective_seconds{database=\"orders\"}", 900.0);
    is("farshore_recovery_window_open{database=\"orders\"}", 1.0);
    is("farshore_recovery_window_open{database=\"billing\"}", 0.0);
    is("farshore_recovery_window_gaps{database=\"orders\"}", 0.0);
    is("farshore_log_lag_bytes{database=\"orders\",stage=\"receive\"}", 0.0);
    is("farshore_log_lag_bytes{database=\"orders\",target=\"main\",stage=\"store\"}", 0.0);
    is("farshore_source_log_time_to_full_seconds{database=\"orders\"}", 7200.0);
    is("farshore_backup_last_duration_seconds{database=\"orders\",type=\"base\"}", 100.0);
    is("farshore_target_state{database=\"orders\",target=\"main\",state=\"connected\"}", 1.0);
    // What `status` says of the window is what the metric says.
    let status = rig.get("/api/v1/databases/orders", &token).await.json();
    for (field, sample) in [("from_time", "start"), ("to_time", "end")] {
        let shown: chrono::DateTime<Utc> = status["window"][field].as_str().unwrap().parse().unwrap();
        #[allow(clippy::cast_precision_loss)] // seconds since 1970
        is(
            &format!("farshore_recovery_window_{sample}_timestamp_seconds{{database=\"orders\"}}"),
            shown.timestamp() as f64,
        );
    }
    is(
        "farshore_http_request_duration_seconds_count{route=\"/api/v1/databases/{name}\",method=\"GET\",status=\"404\"}",
        1.0,
    );
    is("farshore_http_request_duration_seconds_count{route=\"other\",method=\"GET\",status=\"404\"}", 1.0);
    let mut promtool = Command::new(tools::promtool())
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let judged = promtool.wait_with_output().unwrap();
    assert!(
        judged.status.success() && judged.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&judged.stderr)
    );
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_for_viewers_and_a_token_of_one_database_sees_that_one() {
    let rig = Rig::new().await;
    read(&rig).await;
    assert_eq!(rig.send(Method::GET, PATH, &[], "").await.status, 401);
    let one = rig.token(Role::Viewer, Some("billing")).await;
    let page = rig.get(PATH, &one).await.text;
    assert!(page.contains("database=\"billing\""), "{page}");
    assert!(!page.contains("orders") && !page.contains("http_request"), "{page}");
    // A token of nobody, and one that was taken back.
    let stranger = Bearer::mint().unwrap();
    assert_eq!(rig.get(PATH, &stranger.text()).await.status, 401);
    let bearer = Bearer::mint().unwrap();
    rig.insert(&bearer, "grafana", Role::Viewer, None, None).await;
    assert_eq!(rig.get(PATH, &bearer.text()).await.status, 200);
    rig.catalog.token_revoke("grafana", Utc::now()).await.unwrap();
    assert_eq!(rig.get(PATH, &bearer.text()).await.status, 401);
    // Once the catalog has refused it, its absence lets nobody in.
    std::fs::rename(rig.folder.path().join("catalog.db"), rig.folder.path().join("elsewhere.db")).unwrap();
    assert_eq!(rig.get(PATH, &bearer.text()).await.status, 503);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_catalog_no_metric_disappears_and_everything_is_unknown_and_exposed() {
    let rig = Rig::new().await;
    let token = rig.token(Role::Viewer, None).await;
    read(&rig).await;
    let before = rig.get(PATH, &token).await.text;
    let expires = Bearer::mint().unwrap();
    rig.insert(&expires, "short", Role::Viewer, None, Some(Utc::now() + TimeDelta::seconds(2))).await;
    assert_eq!(rig.get(PATH, &expires.text()).await.status, 200);
    let (file, elsewhere) = (rig.folder.path().join("catalog.db"), rig.folder.path().join("elsewhere.db"));
    std::fs::rename(&file, &elsewhere).unwrap();
    read(&rig).await;
    let away = rig.get(PATH, &token).await;
    assert_eq!(away.status, 200, "{away:?}");
    assert_eq!(value(&away.text, "farshore_catalog_up"), Some(0.0));
    assert_eq!(states(&away.text, "orders"), ["unknown"]);
    // What was known is known no more: nothing is called restorable, and no job is said to run.
    assert_eq!(value(&away.text, "farshore_recovery_window_open{database=\"orders\"}"), Some(0.0));
    assert!(before.contains("\nfarshore_jobs_running{") && !away.text.contains("\nfarshore_jobs_running{"));
    let exposure = "farshore_rpo_exposure_seconds{database=\"orders\"}";
    let first = value(&away.text, exposure).unwrap();
    assert!(first > 0.0, "{first}");
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let later = rig.get(PATH, &token).await.text;
    assert!(value(&later, exposure).unwrap() > first + 2.0, "{first}: {later}");
    // Only what would need somebody to vouch for it now is not there.
    let named = |page: &str| -> Vec<String> {
        let names = page
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.rsplit_once(' ').unwrap().0.to_owned());
        names.filter(|name| !name.contains("http_request")).collect()
    };
    let gone: Vec<String> =
        named(&before).into_iter().filter(|sample| !named(&later).contains(sample)).collect();
    let measured = [
        "farshore_log_lag_bytes",
        "farshore_source_retained_log_bytes",
        "farshore_source_log_time_to_full_seconds",
        "farshore_jobs_running",
    ];
    assert!(gone.iter().all(|sample| measured.iter().any(|name| sample.starts_with(name))), "{gone:?}");
    // One that was proved and has ended since, and one that never was, are not let in.
    assert_eq!(rig.get(PATH, &expires.text()).await.status, 503);
    assert_eq!(rig.get(PATH, &Bearer::mint().unwrap().text()).await.status, 503);
    std::fs::rename(&elsewhere, &file).unwrap();
    read(&rig).await;
    let back = rig.get(PATH, &token).await.text;
    assert_eq!(states(&back, "orders"), ["connected"], "{back}");
    assert_eq!(value(&back, "farshore_recovery_window_open{database=\"orders\"}"), Some(1.0));
    rig.end().await;
}

#[test]
fn a_database_of_the_configuration_that_was_never_read_is_unknown_and_exposed() {
    let objectives = BTreeMap::from([(
        name("orders"),
        Objectives { rpo: Some(Duration::from_secs(5)), ..Objectives::default() },
    )]);
    let metrics = Metrics::new(objectives, Box::new(|_, _| None));
    let page = metrics.page(Utc::now(), None);
    assert_eq!(states(&page, "orders"), ["unknown"]);
    assert_eq!(value(&page, "farshore_catalog_up"), Some(0.0));
    assert_eq!(value(&page, "farshore_rpo_exposure_seconds{database=\"orders\"}"), Some(f64::INFINITY));
    assert_eq!(value(&page, "farshore_rpo_objective_seconds{database=\"orders\"}"), Some(5.0));
}
