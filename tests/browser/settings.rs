//! Who may ask and whom to tell, changed by an admin in a browser; and what that does outside of it.

use std::process::Command;

use farshore_testkit::browser::{Browser, key};
use serde_json::{Value, json};

use crate::desk::Desk;
use crate::rig::{PASSWORD, STALE, pictures};
use crate::service::SOON;
use crate::watching::receiver::{KEY, Receiver};

/// The status and the body of a question to the API.
fn ask(desk: &Desk, path: &str, token: &str) -> (String, String) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--max-time", "60", "--write-out", "\n%{http_code}"]);
    command.args(["--header", &format!("Authorization: Bearer {token}"), &desk.url(path)]);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

fn is_visible(browser: &Browser, css: &str) -> bool {
    let visible =
        "const one = document.querySelector(arguments[0]); return one !== null && one.checkVisibility();";
    browser.script(visible, &json!([css])) == true
}

#[test]
fn a_token_made_in_the_page_lets_one_ask_and_a_user_who_is_kept_out_there_is_logged_out() {
    let (pager, broken) = (Receiver::start(), Receiver::start());
    *broken.status.lock().unwrap() = 503;
    let desk = Desk::with(&format!("{}{}", pager.channel("pager"), broken.channel("other")));
    std::fs::write(desk.node.folder().join("key"), KEY).unwrap();
    let ana = desk.logged_in("ana", "admin", true);
    let eve = desk.logged_in("eve", "viewer", true);

    // A token, by the keyboard alone.
    ana.go(&desk.url("/settings"));
    assert!(!is_visible(&ana, "#make"), "it is folded away until it is wanted");
    ana.tab_to("#make-token > summary");
    ana.press(key::ENTER);
    ana.tab_to("#token-name");
    ana.press("ci");
    ana.tab_to("#make");
    ana.press(key::ENTER);
    let secret = ana.wait_text("#secret", SOON, |text| text.starts_with("fsh_"));
    ana.picture(&pictures().join("settings-token.png"));
    ana.click("[data-copy=secret]");
    ana.wait_text("[data-copy=secret]", SOON, |word| matches!(word, "Copied" | "Marked"));
    let (status, body) = ask(&desk, "/api/v1/databases/orders", &secret);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status.as_str(), &body["database"]), ("200", &"orders".into()), "{body}");
    // Loaded anew the page has no secret, nor has it after going back.
    ana.go(&desk.url("/settings/tokens"));
    assert_eq!((ana.url(), ana.text("#secret")), (desk.url("/settings"), None));
    ana.script("history.back()", &json!([]));
    ana.wait_text("body", SOON, |text| !text.contains(&secret));
    ana.go(&desk.url("/settings"));
    ana.click("section[aria-labelledby=tokens] .acting summary");
    ana.click("#revoke-ci");
    ana.wait_text(".said", SOON, |text| text.contains("ci lets nobody in any more"));
    assert_eq!(ask(&desk, "/api/v1/databases/orders", &secret).0, "401");

    // Somebody who looks at a page is kept out: the page says so by itself, and shows nothing as good.
    eve.wait_text("tr[data-database=orders] .word", SOON, |word| word == "protected");
    ana.click("#user-eve .acting summary");
    ana.click("#disable-eve");
    ana.wait_text(".said", SOON, |text| text.contains("eve is kept out now"));
    ana.picture(&pictures().join("settings-kept-out.png"));
    eve.wait_text("#stale", STALE, |text| text.contains("session is over"));
    eve.wait_text("tr[data-database=orders] .word", SOON, |word| word == "unknown");
    eve.go(&desk.url("/settings"));
    assert!(eve.url().starts_with(&desk.url("/login")), "{}", eve.url());
    eve.keys("input[name=name]", "eve");
    eve.keys("input[name=password]", PASSWORD);
    eve.click("form.stack button");
    eve.wait_text("[role=alert].bad-note", SOON, |text| text.contains("disabled"));

    // The same test as `farshore notify test` sends.
    ana.click("#test-pager");
    ana.wait_text("#channel-pager .told", SOON, |text| text.starts_with("Taken"));
    let told = pager.received.lock().unwrap().clone();
    assert!(told.iter().any(|(_, told)| told["topic"] == "test"), "{told:?}");
    ana.click("#test-other");
    let said = ana.wait_text("#channel-other .told", SOON, |text| text.starts_with("Not taken"));
    assert!(said.contains("503") && !said.contains("127.0.0.1"), "{said}");
    ana.picture(&pictures().join("settings-channels.png"));
    let activity = desk.node.run(&["activity", "list"]);
    let activity = String::from_utf8_lossy(&activity.stdout).into_owned();
    for what in ["token create", "token revoke", "user disable", "notify test"] {
        assert!(activity.contains(what), "{what}: {activity}");
    }
    assert!(!activity.contains(&secret[30..]), "{activity}");
}

#[test]
fn who_may_ask_is_changed_without_script_and_a_refused_form_says_what_is_wrong() {
    let desk = Desk::new();
    let ana = desk.logged_in("ana", "admin", false);
    ana.go(&desk.url("/settings"));
    ana.click("#add-user > summary");
    ana.keys("#user-name", "eve");
    ana.keys("#user-password", PASSWORD);
    ana.keys("#user-again", "another one");
    ana.click("#add-user button");
    ana.wait_text("#user-again-problem", SOON, |text| text.contains("not the same"));
    // It is open, holds the name, and the keyboard is where it goes on.
    assert_eq!(ana.attribute("#user-name", "value").as_deref(), Some("eve"));
    ana.keys("#user-password", PASSWORD);
    ana.keys("#user-again", PASSWORD);
    ana.click("#add-user button");
    ana.wait_text(".said", SOON, |text| text.contains("eve may log in now, as viewer"));
    ana.click("#own > summary");
    ana.keys("#own-present", PASSWORD);
    let other = "another horse battery";
    ana.keys("#own-password", other);
    ana.keys("#own-again", other);
    ana.click("#own button");
    ana.wait_text(".said", SOON, |text| text.contains("Your password is changed"));
    // The session goes on, with its new cookie.
    ana.go(&desk.url("/jobs"));
    ana.wait_text("h1", SOON, |text| text == "Jobs");
}
