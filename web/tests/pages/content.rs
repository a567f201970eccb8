//! What pages say, and what they never let through.

use chrono::Utc;
use farshore_catalog::access::Role;
use farshore_catalog::activity::Activity;
use farshore_catalog::job::{Holder, JobEnd, JobId, JobKind, NewJob, Via};
use farshore_catalog::mark::{Mark, MarkKind};
use farshore_catalog::target::{Failure, Target};
use farshore_journal::format::certificate::DrillVerdict;
use farshore_journal::{DrillId, Offset, Position, Timeline};

use crate::drills;
use crate::person::{get, log_in};
use crate::rig::{Rig, name, time};

const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_wrote_is_shown_as_text_on_every_page() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Admin).await;
    let now = Utc::now();
    let incarnation = rig.catalog.incarnation_current(&name("orders")).await.unwrap().unwrap().id;
    let position = Position::new(Timeline::new(1), Offset::new(600));
    let mark = Mark {
        incarnation,
        kind: MarkKind::RestorePoint,
        name: HOSTILE.to_owned(),
        position,
        time: time(20),
        note: HOSTILE.to_owned(),
        held_until: None,
    };
    rig.catalog.mark_put(&mark).await.unwrap();
    let target = Target {
        database: name("orders"),
        store: "main".to_owned(),
        url: "file:///srv".to_owned(),
        state: "degraded".to_owned(),
        stored: Some(position),
        updated_at: now,
        failure: Some(Failure { code: "FS-0301".to_owned(), message: HOSTILE.to_owned(), at: now }),
    };
    rig.catalog.target_put(&target).await.unwrap();
    let activity = Activity {
        at: now,
        who: HOSTILE.to_owned(),
        what: HOSTILE.to_owned(),
        database: None,
        detail: HOSTILE.to_owned(),
    };
    rig.catalog.activity_append(&activity).await.unwrap();
    let job = NewJob {
        id: JobId::mint(),
        kind: JobKind::Backup,
        database: Some(name("orders")),
        spec: "{}".to_owned(),
        asked_by: HOSTILE.to_owned(),
        via: Via::Queue,
        wanted_node: None,
    };
    rig.catalog.job_put(&job, None, now).await.unwrap();
    let holder = Holder { node: HOSTILE.to_owned(), process: "p".to_owned() };
    let claim = rig.catalog.job_claim(job.id, &holder, now).await.unwrap().unwrap();
    let problem = serde_json::json!({"code": "FS-1", "happened": HOSTILE, "safe": HOSTILE, "do": HOSTILE});
    rig.catalog.job_end(&claim, &JobEnd::Failed(problem.to_string()), now).await.unwrap();
    let drill = odd_drill(&rig).await;
    let person = log_in(&rig, "ana").await;
    let escaped = "%3Cscript%3Ealert(1)%3C%2Fscript%3E%22";
    for path in [
        "/".to_owned(),
        format!("/?q={escaped}&level={escaped}"),
        "/databases/orders?zoom=all".to_owned(),
        format!("/databases/orders?at={escaped}&zoom={escaped}"),
        format!("/databases/orders?pos={escaped}"),
        format!("/databases/orders?point={escaped}"),
        format!("/databases/orders/restore?pos=1:0/258&to=/srv/{escaped}"),
        format!("/databases/orders/restore?point={escaped}"),
        "/drills".to_owned(),
        format!("/drills?database=orders&month={escaped}&day={escaped}"),
        format!("/drills/{drill}"),
        format!("/drills/{escaped}"),
        "/jobs".to_owned(),
        format!("/jobs/{}", job.id),
        format!("/jobs/{escaped}"),
        format!("/databases/{escaped}"),
        "/activity".to_owned(),
        "/settings".to_owned(),
        format!("/login?to=/{escaped}"),
    ] {
        let page = get(&rig, &path, &person.cookie).await;
        assert!(matches!(page.status, 200 | 303 | 404), "{path}: {page:?}");
        assert!(!page.text.contains("<script>") && !page.text.contains("<img"), "{path}: {}", page.text);
    }
    let of_drill = format!("/drills/{drill}");
    for path in ["/databases/orders?zoom=all", "/activity", "/jobs", "/drills", &of_drill] {
        let page = get(&rig, path, &person.cookie).await;
        assert!(page.text.contains("&#60;script&#62;"), "{path} does not show it at all");
    }
    rig.end().await;
}

/// A drill whose every word is hostile.
async fn odd_drill(rig: &Rig) -> DrillId {
    let mut drill = drills::drill(7, DrillVerdict::Failed, time(0), None);
    let said = drill.statement.replace("PLACE", HOSTILE.replace('"', "\\\"").as_str());
    drill.statement = said;
    drill.uncertified = Some(HOSTILE.to_owned());
    drill.signed = None;
    rig.catalog.drill_put(&drill).await.unwrap();
    drill.id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_forbids_what_is_not_a_file_of_this_service() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    let person = log_in(&rig, "ana").await;
    for (path, cookie) in [
        ("/login", ""),
        ("/", person.cookie.as_str()),
        ("/databases/orders", &person.cookie),
        ("/databases/orders/restore?pos=1:0/258&to=/srv/c", &person.cookie),
        ("/jobs", &person.cookie),
        ("/drills", &person.cookie),
        ("/settings", &person.cookie),
        ("/databases/none", &person.cookie),
        ("/nothing", ""),
    ] {
        let page = get(&rig, path, cookie).await;
        assert_eq!(
            page.header("content-security-policy"),
            "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
            "{path}"
        );
        assert_eq!(
            (page.header("cache-control"), page.header("x-frame-options")),
            ("no-store", "DENY"),
            "{path}"
        );
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert!(page.header("content-type").starts_with("text/html"), "{path}: {page:?}");
        // What the policy would stop is not in the page to begin with.
        for inline in [" style=", "<style", "javascript:", " onclick", " onload", "http://", "https://"] {
            assert!(!page.text.contains(inline), "{path} holds {inline}");
        }
        assert_eq!(page.text.matches("<script ").count(), 2, "{path}");
        for asset in page.text.split('"').filter(|part| part.starts_with("/assets/")) {
            let file = get(&rig, asset, "").await;
            assert_eq!(
                (file.status, file.header("cache-control")),
                (200, "public, max-age=31536000, immutable"),
                "{asset}"
            );
            assert!(file.header("content-security-policy").starts_with("default-src 'none'"), "{asset}");
        }
    }
    // By a name that is not its content's, nothing is kept.
    assert_eq!(get(&rig, "/assets/farshore.css?d=0", "").await.header("cache-control"), "no-store");
    assert_eq!(get(&rig, "/assets/none.css", "").await.status, 404);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_known_is_never_drawn_as_good() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    let person = log_in(&rig, "ana").await;
    let fleet = get(&rig, "/", &person.cookie).await.text;
    let row = |name: &str| {
        let from = fleet.split(&format!("data-database=\"{name}\"")).nth(1).unwrap();
        from.split("</tr>").next().unwrap().to_owned()
    };
    assert!(row("orders").contains("class=\"state protected\""), "{}", row("orders"));
    let billing = row("billing");
    assert!(billing.contains("class=\"state unknown\"") && billing.contains("not known"), "{billing}");
    assert!(!billing.contains("protected") && !billing.contains(">0 s<"), "{billing}");
    assert!(
        fleet.find("data-database=\"billing\"") < fleet.find("data-database=\"orders\""),
        "the worst comes first"
    );
    // The catalog goes away: no state at all is shown.
    rig.catalog.close().await;
    let away = get(&rig, "/", &person.cookie).await;
    assert_eq!(away.status, 503);
    assert!(away.text.contains("not known") && !away.text.contains("state protected"), "{}", away.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_timeline_goes_by_links_alone_to_the_commit_before_and_after() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    let person = log_in(&rig, "ana").await;
    let href = |text: &str, step: &str| {
        let link =
            text.split(&format!("id=\"step-{step}\"")).nth(1)?.split("href=\"").nth(1)?.split('"').next()?;
        Some(link.replace("&#38;", "&").replace("&amp;", "&"))
    };
    let picked = |text: &str| {
        text.split("id=\"picked-position\">").nth(1).unwrap().split('<').next().unwrap().to_owned()
    };
    // 0x258 is 600, the twentieth of commits that are thirty bytes apart.
    let mut page = get(&rig, "/databases/orders?pos=1:0/258", &person.cookie).await.text;
    assert_eq!(picked(&page), "1:0/258");
    for (step, right) in [
        ("commit-back", "1:0/23A"),
        ("commit-back", "1:0/21C"),
        ("commit-on", "1:0/23A"),
        ("event-back", "1:0/1F4"),
        ("event-back", "1:0/190"),
        ("event-back", "1:0/131"),
        ("end", "1:0/3B6"),
        ("home", "1:0/3C"),
        ("event-on", "1:0/131"),
    ] {
        let to = href(&page, step).unwrap_or_else(|| panic!("no {step}: {page}"));
        page = get(&rig, &to, &person.cookie).await.text;
        assert_eq!(picked(&page), right, "{step}");
    }
    // At an edge there is no step, rather than one that leads nowhere.
    let first = get(&rig, "/databases/orders?pos=1:0/1E", &person.cookie).await.text;
    assert!(href(&first, "commit-back").is_none() && href(&first, "commit-on").is_some());
    // A time leads where a restore would go: before the commit whose clock was ahead.
    let at = get(&rig, "/databases/orders?at=2026-03-29T14:00:12Z", &person.cookie).await.text;
    assert_eq!(picked(&at), "1:0/10E");
    let refused = get(&rig, "/databases/orders?at=14:00", &person.cookie).await;
    assert!(refused.status == 200 && refused.text.contains("with its offset"), "{}", refused.text);
    rig.end().await;
}
