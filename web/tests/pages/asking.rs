//! Work that is asked for by a form: once, under the name of who asked, and ended.

use farshore_catalog::access::Role;
use farshore_catalog::job::{Job, JobFilter, JobId, JobKind, Via};
use serde_json::Value;

use crate::person::{Person, get, log_in, send};
use crate::rig::{Rig, name};

async fn jobs(rig: &Rig) -> Vec<Job> {
    rig.catalog.job_list(&JobFilter::default(), 100).await.unwrap()
}

/// The key that a page's form has.
fn key(page: &str, form: &str) -> String {
    let form = page.split(form).nth(1).unwrap_or_else(|| panic!("no {form} in {page}"));
    form.split("name=\"key\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

async fn job_at(rig: &Rig, path: &str) -> Job {
    let id: JobId = path.strip_prefix("/jobs/").unwrap().parse().unwrap();
    rig.catalog.job_get(id).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_that_is_sent_twice_asks_once_and_is_written_down_once() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Operator).await;
    let person = log_in(&rig, "ana").await;
    let before = jobs(&rig).await.len();
    let page = get(&rig, "/databases/orders", &person.cookie).await.text;
    for (path, kind) in [
        ("/databases/orders/backup", JobKind::Backup),
        ("/databases/orders/verify", JobKind::Verify),
        ("/drills", JobKind::Drill),
        ("/databases/orders/expiry-preview", JobKind::Preview),
    ] {
        let key = key(&page, &format!("action=\"{path}\""));
        let fields = [("csrf", person.csrf.as_str()), ("key", &key), ("database", "orders")];
        let first = send(&rig, path, &person.cookie, &fields).await;
        let again = send(&rig, path, &person.cookie, &fields).await;
        assert_eq!(first.status, 303, "{first:?}");
        assert_eq!(first.header("location"), again.header("location"), "{path}");
        let job = job_at(&rig, first.header("location")).await;
        assert_eq!((job.asked.kind, job.asked.asked_by.as_str(), job.asked.via), (kind, "ana", Via::Api));
        assert_eq!((job.asked.database, job.asked.spec.as_str()), (Some(name("orders")), "{}"));
        let written = rig.catalog.activity_list(None, 100).await.unwrap();
        let of_it = |one: &&farshore_catalog::activity::ActivityEntry| {
            one.activity.detail.contains(&job.asked.id.to_string())
        };
        assert_eq!(written.iter().filter(of_it).count(), 1, "{path}");
        assert_eq!(
            (written[0].activity.who.as_str(), written[0].activity.what.clone()),
            ("ana", format!("{kind} ask"))
        );
        assert!(written[0].activity.detail.contains("via a page, by user ana"), "{:?}", written[0]);
        // A page that is loaded anew asks for something new.
        let anew = get(&rig, "/databases/orders", &person.cookie).await.text;
        assert_ne!(self::key(&anew, &format!("action=\"{path}\"")), key);
    }
    assert_eq!(jobs(&rig).await.len(), before + 4);
    let own = [("csrf", person.csrf.as_str()), ("database", "orders")];
    for path in ["/databases/orders/backup", "/databases/orders/verify", "/drills"] {
        let bare = send(&rig, path, &person.cookie, &own).await;
        assert!(bare.status == 400 && bare.text.contains("asking twice"), "{path}: {bare:?}");
    }
    let none = [("csrf", person.csrf.as_str()), ("key", "k"), ("database", "none")];
    for path in ["/databases/none/backup", "/drills", "/databases/none/restore/plan"] {
        let none = send(&rig, path, &person.cookie, &[&none[..], &[("pos", "1:0/258")]].concat()).await;
        assert_eq!(none.status, 404, "{path}: {none:?}");
    }
    assert_eq!(jobs(&rig).await.len(), before + 4);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_ended_once_and_one_that_ended_otherwise_says_so() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Operator).await;
    let person = log_in(&rig, "ana").await;
    let own = [("csrf", person.csrf.as_str())];
    let fields = [("csrf", person.csrf.as_str()), ("key", "k")];
    let path =
        send(&rig, "/databases/orders/backup", &person.cookie, &fields).await.header("location").to_owned();
    let page = get(&rig, &path, &person.cookie).await;
    assert!(page.text.contains(">queued<") && page.text.contains("id=\"cancel\""), "{}", page.text);
    // Whoever presses it twice has it ended once, and is not told that he came too late.
    for _ in 0..2 {
        let ended = send(&rig, &format!("{path}/cancel"), &person.cookie, &own).await;
        assert_eq!((ended.status, ended.header("location")), (303, path.as_str()), "{ended:?}");
    }
    let page = get(&rig, &path, &person.cookie).await.text;
    assert!(page.contains(">cancelled<") && !page.contains("id=\"cancel\""), "{page}");
    let written = rig.catalog.activity_list(None, 2).await.unwrap();
    let said: Vec<&str> = written.iter().map(|one| one.activity.what.as_str()).collect();
    assert_eq!(said, ["job cancel", "backup ask"]);
    // The rig's own job has succeeded long ago.
    let late = send(&rig, &format!("/jobs/{}/cancel", crate::rig::JOB), &person.cookie, &own).await;
    assert!(late.status == 409 && late.text.contains("ended already"), "{late:?}");
    rig.end().await;
}

/// The fields of a restore that was reviewed.
fn reviewed<'a>(person: &'a Person, key: &'a str, to: &'a str, port: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("csrf", &person.csrf),
        ("key", key),
        ("pos", "1:0/258"),
        ("to", to),
        ("store", "main"),
        ("then", "promote"),
        ("port", port),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_is_planned_and_started_at_the_reviewed_position_and_only_where_this_service_may_write() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Operator).await;
    rig.user("viewer", Role::Viewer).await;
    let (ana, viewer) = (log_in(&rig, "ana").await, log_in(&rig, "viewer").await);
    let base = "/databases/orders/restore";
    let place = "/srv/restores/my copy";
    // Where it goes is suggested beneath the service's folder.
    let page = get(&rig, &format!("{base}?pos=1:0/258"), &ana.cookie).await.text;
    assert!(page.contains("value=\"/srv/restores/orders-1-0-258\""), "{page}");
    // The review begins with the plan.
    let planned = send(&rig, &format!("{base}/plan"), &ana.cookie, &reviewed(&ana, "p", place, "5433")).await;
    let review = planned.header("location").to_owned();
    assert!(
        review.starts_with("/databases/orders/restore?pos=1%3A0/258&to=/srv/restores/my%20copy&store=main&then=promote&port=5433&plan=jb-"),
        "{review}"
    );
    let id = review.split("plan=").nth(1).unwrap();
    let job = job_at(&rig, &format!("/jobs/{id}")).await;
    let spec: Value = serde_json::from_str(&job.asked.spec).unwrap();
    assert_eq!((job.asked.kind, &spec["target"]["pos"]), (JobKind::Plan, &"1:0/258".into()));
    let page = get(&rig, &review, &ana.cookie).await.text;
    assert!(page.contains(">queued<") && !page.contains("id=\"start\""), "{page}");
    // Once it is made, it is shown, and the restore may be started.
    let result = serde_json::json!({"store": "main", "incarnation": 0, "plan": {
        "resolved": {"position": "0/258", "timeline": 1}, "replay_bytes": 4096, "writes_bytes": 1 << 30, "base": {"id": "b-1", "bytes": 1024}}});
    crate::drills::succeeds(&rig, job.asked.id, &result.to_string()).await;
    let page = get(&rig, &review, &ana.cookie).await.text;
    assert!(page.contains("id=\"start\"") && page.contains("1.0 GiB") && page.contains("b-1"), "{page}");
    // It is not another point's plan.
    let other = review.replace("258", "23A");
    let other = get(&rig, &other, &ana.cookie).await.text;
    assert!(other.contains("make it anew") && !other.contains("id=\"start\""), "{other}");
    // A viewer reviews, and does not start.
    let page = get(&rig, &review, &viewer.cookie).await.text;
    assert!(!page.contains("id=\"start\"") && page.contains("takes the role operator"), "{page}");
    let before = jobs(&rig).await.len();
    let key = self::key(&get(&rig, &review, &ana.cookie).await.text, "id=\"start-form\"");
    let fields = reviewed(&ana, &key, place, "5433");
    let first = send(&rig, base, &ana.cookie, &fields).await;
    let again = send(&rig, base, &ana.cookie, &fields).await;
    assert_eq!((first.status, first.header("location")), (303, again.header("location")), "{first:?}");
    let job = job_at(&rig, first.header("location")).await;
    let spec: Value = serde_json::from_str(&job.asked.spec).unwrap();
    let said = (
        &spec["target"]["pos"],
        &spec["directory"],
        &spec["history"]["store"],
        &spec["start"]["port"],
        &spec["start"]["then"],
    );
    assert_eq!(said, (&"1:0/258".into(), &place.into(), &"main".into(), &5433.into(), &"promote".into()));
    assert_eq!((job.asked.kind, job.asked.wanted_node.as_deref()), (JobKind::Restore, Some("oslo")));
    assert_eq!(jobs(&rig).await.len(), before + 1);
    // Elsewhere it is not started, whoever writes the form.
    for (to, port) in [
        ("/etc/copy", ""),
        ("/srv/restores", ""),
        ("/srv/restores/../etc", ""),
        ("", ""),
        ("/srv/restores/c", "0"),
        ("/srv/restores/c", "70000"),
    ] {
        let refused = send(&rig, base, &ana.cookie, &reviewed(&ana, to, to, port)).await;
        assert!(matches!(refused.status, 400 | 422), "{to} {port}: {refused:?}");
    }
    assert_eq!(jobs(&rig).await.len(), before + 1);
    let page = get(&rig, &format!("{base}?pos=1:0/258&to=/etc/copy"), &ana.cookie).await.text;
    assert!(page.contains("--to /etc/copy"), "the line is shown all the same: {page}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_expiry_would_do_is_read_line_by_line_and_an_admin_alone_asks_for_it_from_there() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Operator).await;
    rig.user("root", Role::Admin).await;
    let (ana, root) = (log_in(&rig, "ana").await, log_in(&rig, "root").await);
    let page = get(&rig, "/databases/orders", &ana.cookie).await.text;
    let (asks, expires) = ("/databases/orders/expiry-preview", "/databases/orders/expire");
    let key = key(&page, &format!("action=\"{asks}\""));
    let asked = send(&rig, asks, &ana.cookie, &[("csrf", &ana.csrf), ("key", &key)]).await;
    let path = asked.header("location").to_owned();
    let result = serde_json::json!({"preview": [{"store": "nas", "incarnation": 0, "dry_run": true,
        "kept": [["b-kept", "the newest from before the window"]], "marked_backups": 1, "marking": ["b-marked"], "marked_stretches": 2, "waiting": 0,
        "deleted_backups": 1, "deleting": ["b-gone"], "deleted": {"objects": 0, "bytes": 2048, "foreign": 0}, "refused": null},
        {"store": "tape", "incarnation": 0, "dry_run": true, "kept": [], "marked_backups": 0, "marking": [], "marked_stretches": 0, "waiting": 0,
        "deleted_backups": 0, "deleting": [], "deleted": {"objects": 0, "bytes": 0, "foreign": 0}, "refused": "no base backup is sound"}]});
    crate::drills::succeeds(&rig, path.strip_prefix("/jobs/").unwrap().parse().unwrap(), &result.to_string())
        .await;
    let page = get(&rig, &path, &ana.cookie).await.text;
    for said in
        ["b-kept", "the newest from before the window", "b-marked", "2 stretches of log", "b-gone", "2.0 KiB"]
    {
        assert!(page.contains(said), "{said}: {page}");
    }
    assert!(page.contains("Nothing goes: no base backup is sound."), "{page}");
    assert!(!page.contains(expires), "{page}");
    let fields = [("csrf", ana.csrf.as_str()), ("key", "k")];
    assert_eq!(send(&rig, expires, &ana.cookie, &fields).await.status, 403);
    let page = get(&rig, &path, &root.cookie).await.text;
    let key = self::key(&page, &format!("action=\"{expires}\""));
    let asked = send(&rig, expires, &root.cookie, &[("csrf", &root.csrf), ("key", &key)]).await;
    let job = job_at(&rig, asked.header("location")).await;
    assert_eq!((job.asked.kind, job.asked.asked_by.as_str()), (JobKind::Expire, "root"));
    // What a service would refuse is not offered.
    let asked = send(&rig, asks, &ana.cookie, &[("csrf", &ana.csrf), ("key", "another")]).await;
    let refused = asked.header("location").to_owned();
    assert_ne!(refused, path);
    let mut result = result;
    result["preview"][0]["needs_yes"] = "3 of its 4 base backups would be marked at once".into();
    crate::drills::succeeds(
        &rig,
        refused.strip_prefix("/jobs/").unwrap().parse().unwrap(),
        &result.to_string(),
    )
    .await;
    let page = get(&rig, &refused, &root.cookie).await.text;
    assert!(page.contains("A service would refuse it: 3 of its 4") && !page.contains(expires), "{page}");
    rig.end().await;
}
