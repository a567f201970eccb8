//! The steps of a restore, and light and dark.

use farshore_catalog::access::Role;

use crate::person::{get, log_in, post};
use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_is_led_from_a_time_to_the_line_that_names_the_commit_by_its_position() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    let person = log_in(&rig, "ana").await;
    let base = "/databases/orders/restore";
    let point = get(&rig, base, &person.cookie).await.text;
    assert!(point.contains("Which point?") && !point.contains("--pos"), "{point}");
    let place =
        get(&rig, &format!("{base}?at=2026-03-29T14:00:20Z&pos=&xid=&point="), &person.cookie).await.text;
    assert!(place.contains("name=\"pos\" value=\"1:0/258\"") && place.contains("Where to?"), "{place}");
    let review =
        get(&rig, &format!("{base}?pos=1:0/258&to=/srv/my+copy&then=promote&port=5433"), &person.cookie)
            .await
            .text;
    let line = "farshore restore orders --pos 1:0/258 --to &#39;/srv/my copy&#39; --store main --then promote --start --port 5433";
    assert!(review.contains(&format!("<code id=\"line\">{line}</code>")), "{review}");
    assert!(review.contains("--dry-run</code>"));
    for (query, says) in [
        ("pos=1:0/258&to=relative", "absolute path"),
        ("pos=1:0/258&to=/srv/c&port=x", "1 to 65535"),
        ("pos=7:0/258", "no such timeline"),
        ("at=yesterday", "with its offset"),
        ("point=twice", "2 places"),
        ("xid=eleven", "is a number"),
        ("pos=1:0/258&xid=3", "give one of"),
    ] {
        let page = get(&rig, &format!("{base}?{query}"), &person.cookie).await;
        assert!(page.status == 200 && page.text.contains(says), "{query}: {}", page.text);
        assert!(!page.text.contains("id=\"line\""), "{query} is led on");
    }
    // Of billing nothing is stored.
    let none = get(&rig, "/databases/billing/restore?at=2026-03-29T14:00:20Z", &person.cookie).await.text;
    assert!(none.contains("nothing of its log is known"), "{none}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn light_or_dark_is_remembered_and_leads_back_to_the_same_page() {
    let rig = Rig::new().await;
    let here = [("sec-fetch-site", "same-origin")];
    let answer = post(&rig, "/theme", &here, &[("theme", "dark"), ("to", "/jobs?only=unended")]).await;
    assert_eq!((answer.status, answer.header("location")), (303, "/jobs?only=unended"));
    let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
    assert!(get(&rig, "/login", &cookie).await.text.contains("data-theme=\"dark\""));
    let hostile = post(&rig, "/theme", &here, &[("theme", "x; evil=1"), ("to", "//evil.example")]).await;
    assert_eq!(hostile.header("location"), "/");
    assert!(hostile.header("set-cookie").starts_with("farshore-theme=system;"), "{hostile:?}");
    rig.end().await;
}
