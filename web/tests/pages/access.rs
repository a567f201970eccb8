//! Who sees a page, and who may send a form.

use farshore_catalog::access::Role;
use farshore_catalog::job::{JobId, JobKind, NewJob, Via};
use reqwest::Method;

use crate::person::{get, log_in, post, send};
use crate::rig::{PASSWORD, Rig, name};

/// Every page, and the least role that sees it.
const PAGES: [&str; 9] = [
    "/",
    "/drills",
    "/drills?database=orders&month=2026-01&day=2026-01-07",
    "/databases/orders",
    "/databases/billing",
    "/databases/orders/restore",
    "/jobs",
    "/activity",
    "/settings",
];

/// Every form that changes something, the least role that may send it, and what it is answered when that role does.
const FORMS: [(&str, Role, u16); 15] = [
    ("/databases/orders/backup", Role::Operator, 303),
    ("/databases/orders/verify", Role::Operator, 303),
    ("/drills", Role::Operator, 303),
    ("/databases/orders/restore/plan", Role::Operator, 303),
    ("/databases/orders/restore", Role::Operator, 303),
    ("/jobs/JOB/cancel", Role::Operator, 303),
    // Sent without what they ask for.
    ("/settings/password", Role::Viewer, 422),
    ("/settings/users", Role::Admin, 422),
    ("/settings/users/viewer/password", Role::Admin, 422),
    ("/settings/users/viewer/disable", Role::Admin, 200),
    ("/settings/users/viewer/enable", Role::Admin, 200),
    ("/settings/tokens", Role::Admin, 422),
    ("/settings/tokens/0123456789abcdef/revoke", Role::Admin, 404),
    ("/settings/channels/pager/test", Role::Admin, 200),
    ("/logout", Role::Viewer, 303),
];

async fn job(rig: &Rig) -> JobId {
    let job = NewJob {
        id: JobId::mint(),
        kind: JobKind::Backup,
        database: Some(name("orders")),
        spec: "{}".to_owned(),
        asked_by: "ana".to_owned(),
        via: Via::Queue,
        wanted_node: None,
    };
    rig.catalog.job_put(&job, None, chrono::Utc::now()).await.unwrap();
    job.id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_page_is_seen_before_a_login_on_loopback_too() {
    let rig = Rig::new().await;
    let token = rig.token(Role::Admin, None).await;
    for path in PAGES {
        let bare = get(&rig, path, "").await;
        assert_eq!((bare.status, bare.text.as_str()), (303, ""), "{path}: {bare:?}");
        assert!(bare.header("location").starts_with("/login"), "{path}: {bare:?}");
        // A cookie of nobody, and a token, which is for programs.
        let wrong = get(&rig, path, &format!("farshore={}", "0".repeat(64))).await;
        assert_eq!(wrong.status, 303, "{path}");
        assert_eq!(rig.get(path, &token).await.status, 303, "{path}");
        // The script of a page that is open is told so, and sends nobody anywhere.
        let part = rig.send(Method::GET, path, &[("hx-request", "true"), ("accept", "*/*")], "").await;
        assert_eq!(part.status, 401, "{path}");
    }
    for (path, ..) in FORMS {
        let sent = send(&rig, path, "", &[]).await;
        assert_eq!((sent.status, sent.header("location")), (303, "/login"), "{path}");
    }
    assert_eq!(rig.jobs().await, 0);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_sees_every_page_and_sends_the_forms_that_are_its_own() {
    let rig = Rig::new().await;
    for role in Role::ALL {
        rig.user(role.word(), role).await;
        let person = log_in(&rig, role.word()).await;
        for path in PAGES {
            let page = get(&rig, path, &person.cookie).await;
            assert_eq!(page.status, 200, "{role} {path}: {page:?}");
            assert!(page.text.contains(&format!("<span class=\"quiet\">{}</span>", role.word())), "{path}");
        }
        // Who may ask is for admins alone.
        let settings = get(&rig, "/settings", &person.cookie).await;
        assert_eq!(settings.text.contains("id=\"users\""), role == Role::Admin, "{role}");
        let id = job(&rig).await;
        for (path, least, answer) in FORMS {
            let path = path.replace("JOB", &id.to_string());
            let key = format!("{role}{path}");
            let fields = [
                ("csrf", person.csrf.as_str()),
                ("key", &key),
                ("database", "orders"),
                ("pos", "1:0/258"),
                ("to", "/srv/restores/copy"),
            ];
            let sent = send(&rig, &path, &person.cookie, &fields).await;
            let right = if role.may(least) { answer } else { 403 };
            assert_eq!(sent.status, right, "{role} {path}: {sent:?}");
        }
        // Logged out last: the cookie is of nobody now.
        assert_eq!(get(&rig, "/", &person.cookie).await.status, 303);
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_that_does_not_come_from_a_page_of_this_session_changes_nothing() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Admin).await;
    rig.user("eve", Role::Admin).await;
    let (ana, eve) = (log_in(&rig, "ana").await, log_in(&rig, "eve").await);
    let path = "/databases/orders/backup";
    let own = [("cookie", ana.cookie.as_str()), ("sec-fetch-site", "same-origin")];
    for (case, headers, fields) in [
        ("no token", own.to_vec(), vec![]),
        ("another session's", own.to_vec(), vec![("csrf", eve.csrf.as_str())]),
        ("not a token", own.to_vec(), vec![("csrf", "x")]),
        ("another site", vec![own[0], ("sec-fetch-site", "cross-site")], vec![("csrf", ana.csrf.as_str())]),
        ("another port", vec![own[0], ("sec-fetch-site", "same-site")], vec![("csrf", ana.csrf.as_str())]),
        (
            "another origin",
            vec![own[0], ("origin", "http://evil.example")],
            vec![("csrf", ana.csrf.as_str())],
        ),
        ("from nowhere", vec![own[0]], vec![("csrf", ana.csrf.as_str())]),
    ] {
        let sent = post(&rig, path, &headers, &fields).await;
        assert_eq!(sent.status, 403, "{case}: {sent:?}");
        assert!(sent.text.contains("<!doctype html>"), "{case}");
    }
    assert_eq!(rig.jobs().await, 0);
    // As an older browser says it.
    let origin = format!("http://{}", rig.address);
    let fields = [("csrf", ana.csrf.as_str()), ("key", "k")];
    let sent = post(&rig, path, &[own[0], ("origin", &origin)], &fields).await;
    assert_eq!(sent.status, 303, "{sent:?}");
    assert_eq!(rig.jobs().await, 1);
    // Nor does another site log anybody in.
    let sent =
        post(&rig, "/login", &[("sec-fetch-site", "cross-site")], &[("name", "eve"), ("password", PASSWORD)])
            .await;
    assert_eq!((sent.status, sent.header("set-cookie")), (403, ""), "{sent:?}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_leads_to_where_one_wanted_to_go_and_never_to_another_place() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    let bare = get(&rig, "/databases/orders?zoom=7d&pos=1:0/1E", "").await;
    let to = bare.header("location").to_owned();
    assert_eq!(to, "/login?to=/databases/orders%3Fzoom%3D7d%26pos%3D1%3A0/1E");
    let form = get(&rig, &to, "").await;
    assert!(
        form.text.contains("name=\"to\" value=\"/databases/orders?zoom=7d&#38;pos=1:0/1E\""),
        "{}",
        form.text
    );
    for (to, right) in [
        ("/databases/orders?zoom=7d&pos=1:0/1E", "/databases/orders?zoom=7d&pos=1:0/1E"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("/\t/evil.example", "/"),
        ("/a\r\nset-cookie: x=y", "/"),
    ] {
        let fields = [("name", "ana"), ("password", PASSWORD), ("to", to)];
        let answer = send(&rig, "/login", "", &fields).await;
        assert_eq!((answer.status, answer.header("location")), (303, right), "{to:?}");
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_a_password_is_held_up_and_an_open_page_whose_session_is_over_holds_up_nobody() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    // A page that asks on and on with the cookie of a session that is over.
    for _ in 0..40 {
        let over = format!("farshore={}", "1".repeat(64));
        let part = rig.send(Method::GET, "/", &[("hx-request", "true"), ("cookie", &over)], "").await;
        assert_eq!(part.status, 401);
    }
    log_in(&rig, "ana").await;
    let mut held = 0;
    for _ in 0..14 {
        let fields = [("name", "ana"), ("password", "wrong"), ("to", "/jobs")];
        let answer = send(&rig, "/login", "", &fields).await;
        assert!(
            answer.header("set-cookie").is_empty() && answer.text.contains("role=\"alert\""),
            "{answer:?}"
        );
        assert!(
            answer.text.contains("value=\"/jobs\"") && answer.text.contains("value=\"ana\""),
            "{}",
            answer.text
        );
        assert!(!answer.text.contains("wrong\""), "the password comes back");
        held += usize::from(answer.status == 429);
        assert!(matches!(answer.status, 403 | 429), "{answer:?}");
    }
    assert!(held >= 3, "{held}");
    let right = send(&rig, "/login", "", &[("name", "ana"), ("password", PASSWORD)]).await;
    assert_eq!(right.status, 429, "{right:?}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_there_is_a_user_the_page_says_how_to_make_one() {
    let rig = Rig::empty().await;
    let page = get(&rig, "/login", "").await;
    assert!(page.status == 200 && page.text.contains("farshore user add NAME --role viewer"), "{page:?}");
    assert!(!page.text.contains("type=\"password\""));
    rig.user("ana", Role::Viewer).await;
    assert!(get(&rig, "/login", "").await.text.contains("type=\"password\""));
    rig.end().await;
}
