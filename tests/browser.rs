//! The promise: pages tell a person the truth, in a real browser: a page never looks good when nobody knows, and what it says to do is right.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

#[path = "browser/desk.rs"]
mod desk;
#[path = "browser/rig.rs"]
mod rig;
mod service;
#[path = "browser/settings.rs"]
mod settings;
mod sqlite;
mod watching;
#[path = "browser/work.rs"]
mod work;

use std::time::{Duration, Instant};

use farshore_testkit::browser::{Browser, axe, key};
use farshore_testkit::process::wait_for;
use nix::sys::signal::Signal;

use desk::Desk;
use rig::{Rig, STALE, pictures};
use serde_json::{Value, json};
use service::{SOON, let_pass};

const ORDERS: &str = "tr[data-database=orders] .word";
const BILLING: &str = "tr[data-database=billing] .word";

#[test]
fn a_database_whose_shipper_hangs_is_shown_unknown_and_a_page_that_is_not_answered_too() {
    let rig = Rig::new();
    let browser = Browser::start(true);
    // Before there is anybody, the page says how to make somebody.
    browser.go(&rig.url("/"));
    browser.wait_text("main", SOON, |text| text.contains("farshore user add"));
    rig.user("ana", "viewer");
    rig.log_in(&browser, "ana", "/");
    browser.wait_text(ORDERS, SOON, |word| word == "protected");
    browser.wait_text(BILLING, SOON, |word| word == "protected");
    // It is fetched anew, and so does not call itself old.
    let first = browser.attribute("#fleet", "data-at");
    assert!(wait_for(SOON, || (browser.attribute("#fleet", "data-at") != first).then_some(())).is_some());
    let_pass(Duration::from_secs(8));
    assert_eq!(browser.attribute("#stale", "hidden").as_deref(), Some(""));
    browser.picture(&pictures().join("fleet-protected.png"));

    // The process that ships one of them hangs: three heartbeats of a second, and a look every two.
    assert_eq!(browser.text("#alarm"), None, "nothing is red");
    rig.ships.process.signal(Signal::SIGSTOP);
    let began = Instant::now();
    browser.wait_text(ORDERS, STALE, |word| word == "unknown");
    println!("the page was red after {:?}", began.elapsed());
    let red = browser.text("#alarm").unwrap_or_default();
    assert!(red.starts_with("Of orders "), "{red}");
    assert_eq!(browser.text(BILLING).as_deref(), Some("protected"), "the page itself is fresh");
    browser.picture(&pictures().join("fleet-one-hangs.png"));
    rig.ships.process.signal(Signal::SIGCONT);
    browser.wait_text(ORDERS, SOON, |word| word == "protected");

    // The process that makes the pages hangs: the open page says so by itself, and calls nothing good.
    rig.shows.process.signal(Signal::SIGSTOP);
    let said = browser.wait_text("#stale", STALE, |text| text.contains("has not answered"));
    assert!(said.contains("may no longer be true"), "{said}");
    for css in [ORDERS, BILLING] {
        assert_eq!(browser.text(css).as_deref(), Some("unknown"), "{css}");
    }
    // Nor does it go on to count how many are protected, or to say that nothing would be lost.
    let page = browser.text("main").unwrap();
    assert!(!page.contains("protected") && !page.contains(" 0 s"), "{page}");
    assert_eq!(browser.text("tr[data-database=billing] .now").as_deref(), Some("not known"));
    browser.picture(&pictures().join("fleet-not-answered.png"));
    rig.shows.process.signal(Signal::SIGCONT);
    browser.wait_text(ORDERS, SOON, |word| word == "protected");
    assert!(wait_for(SOON, || browser.attribute("#stale", "hidden").map(drop)).is_some());

    // One database's page says the same, to whoever comes there by the keyboard.
    browser.tab_to("#db-orders");
    browser.press(key::ENTER);
    browser.wait_text("#facts .word", SOON, |word| word == "protected");
    rig.ships.process.signal(Signal::SIGSTOP);
    browser.wait_text("#facts .word", STALE, |word| word == "unknown");
    assert!(browser.text("#facts .bad-note").is_some(), "{:?}", browser.text("#facts"));
    browser.picture(&pictures().join("database-hangs.png"));
    rig.ships.process.signal(Signal::SIGCONT);
    browser.wait_text("#facts .word", SOON, |word| word == "protected");
}

#[test]
fn a_commit_is_picked_by_keyboard_and_the_command_that_is_shown_restores_it() {
    let mut rig = Rig::new();
    rig.user("ana", "viewer");
    let browser = Browser::start(true);
    rig.log_in(&browser, "ana", "/databases/orders");
    let position = || browser.text("#picked-position").unwrap_or_default();
    let slider = |name: &str| browser.attribute("#thumb", name).unwrap_or_default();
    let newest = browser.wait_text("#picked-position", SOON, |text| text.starts_with("1:0/"));
    let seen = |before: &str| {
        let moved = wait_for(SOON, || Some(position()).filter(|now| now != before && !now.is_empty()));
        moved.unwrap_or_else(|| panic!("{before} stays picked: {:?}", browser.text("#timeline")))
    };
    // Five commits back by the left key, one on by the right; the thumb keeps the keyboard.
    let mut walked = vec![newest.clone()];
    for _ in 0..5 {
        browser.keys("#thumb", key::LEFT);
        walked.push(seen(walked.last().unwrap()));
    }
    browser.keys("#thumb", key::RIGHT);
    let picked = seen(walked.last().unwrap());
    assert_eq!(picked, walked[4], "{walked:?}");
    let focused = browser.script("return document.activeElement && document.activeElement.id", &json!([]));
    assert_eq!(focused, "thumb");
    assert!(slider("aria-valuetext").contains(&picked), "{}", slider("aria-valuetext"));
    let number = |name: &str| slider(name).parse::<i64>().unwrap();
    assert!(
        number("aria-valuemin") <= number("aria-valuenow")
            && number("aria-valuenow") <= number("aria-valuemax")
    );
    browser.keys("#thumb", key::HOME);
    let oldest = seen(&picked);
    browser.keys("#thumb", key::END);
    assert_eq!(seen(&oldest), newest);
    browser.go(&rig.url(&format!("/databases/orders?pos={picked}")));
    browser.wait_text("#picked-position", SOON, |text| text == picked);
    // What is committed meanwhile moves nothing that was picked.
    rig.application.ask("insert into notes values ('too late')");
    let_pass(Duration::from_secs(7));
    assert_eq!(position(), picked);
    browser.picture(&pictures().join("database-picked.png"));

    browser.click("#use");
    browser.wait_text("h1", SOON, |text| text == "Restore orders");
    let copy = rig.orders.folder().join("a copy");
    browser.keys("form.stack input[name=to]", copy.to_str().unwrap());
    browser.click("form.stack button.primary");
    let line = browser.wait_text("#line", SOON, |text| text.starts_with("farshore restore orders --pos"));
    assert!(line.contains(&picked), "{line}");
    browser.picture(&pictures().join("restore-review.png"));
    let dry = rig.shell(&browser.text("#dry").unwrap());
    assert!(dry.status.success() && !copy.exists(), "{dry:?}");
    let done = rig.shell(&line);
    assert!(done.status.success(), "{line}: {done:?}");
    // Twenty notes; three commits of the newest are left out.
    let file = std::fs::read_dir(&copy).unwrap().map(|entry| entry.unwrap().path());
    let file =
        file.into_iter().find(|path| path.extension().is_some_and(|end| end == "db")).expect("a database");
    let mut restored = sqlite::application::Application::open(&file);
    assert_eq!(
        restored.ask("select count(*), max(what = 'note 16'), max(what = 'note 17') from notes"),
        "[[16, 1, 0]]"
    );
}

#[test]
fn every_page_can_be_used_by_everybody_light_and_dark_wide_and_narrow() {
    let rig = Rig::new();
    rig.user("ana", "admin");
    let browser = Browser::start(true);
    browser.go(&rig.url("/login"));
    let mut found = checked(&browser, "login");
    rig.log_in(&browser, "ana", "/");
    // A service without folders to restore into, and with a database that was never drilled.
    for (name, path) in [
        ("drills-never", "/drills"),
        ("restore-elsewhere", "/databases/orders/restore?at=2099-01-01T00:00:00Z"),
    ] {
        browser.go(&rig.url(path));
        found.extend(checked(&browser, name));
    }
    // A job, for its page.
    browser.go(&rig.url("/databases/orders"));
    browser.click("form[action$=verify] button");
    browser.wait_text(".word", SOON, |word| matches!(word, "succeeded" | "queued" | "running" | "failed"));
    let job = browser.url();
    // Its end, so that the page shows what came of it.
    browser.wait_text(".word", SOON, |word| matches!(word, "succeeded" | "failed"));
    let job = job.trim_start_matches(&rig.site).to_owned();
    for (name, path) in [
        ("fleet", "/"),
        ("database", "/databases/orders"),
        ("restore-point", "/databases/orders/restore"),
        ("restore-review-elsewhere", "/databases/orders/restore?at=2099-01-01T00:00:00Z&to=/srv/copy"),
        ("jobs", "/jobs"),
        ("job", job.as_str()),
        ("activity", "/activity"),
        ("settings", "/settings"),
        ("refusal", "/databases/none"),
    ] {
        browser.go(&rig.url(path));
        found.extend(checked(&browser, name));
    }
    assert!(found.is_empty(), "{}", serde_json::to_string_pretty(&found).unwrap());
}

#[test]
fn pages_of_drills_and_of_a_restore_can_be_used_by_everybody_light_and_dark_wide_and_narrow() {
    let desk = Desk::new();
    for point in ["oldest", "random", "latest", "point:none"] {
        // The last one leads nowhere: it failed, and is shown so.
        let _drilled = desk.node.run(&["drill", "run", "orders", "--point", point]);
    }
    let browser = desk.logged_in("ana", "admin", true);
    browser.wait_text("tr[data-database=orders]", SOON, |row| row.contains("failed"));
    let mut found = checked(&browser, "fleet-drilled");
    for (name, path) in [
        ("drills", "/drills"),
        ("drills-of-one", "/drills?database=orders"),
        ("database-drilled", "/databases/orders"),
        ("standbys-none", "/standbys"),
        ("protection", "/protection"),
        ("restore-where", "/databases/orders/restore?at=2099-01-01T00:00:00Z"),
    ] {
        browser.go(&desk.url(path));
        found.extend(checked(&browser, name));
    }
    let heard = desk.standbys();
    browser.go(&desk.url("/standbys"));
    browser.wait_text("tr[data-standby=oslo] .word", SOON, |word| word == "streaming");
    found.extend(checked(&browser, "standbys"));
    drop(heard);
    browser.wait_text("tr[data-standby=oslo] .word", SOON, |word| word == "away");
    browser.go(&desk.url("/databases/orders"));
    browser.click("#preview");
    browser.wait_text(".word", SOON, |word| word == "succeeded");
    found.extend(checked(&browser, "expiry-preview"));
    browser.go(&desk.url("/databases/orders/restore?at=2099-01-01T00:00:00Z"));
    browser.click("#review");
    browser.wait_text("#plan-part", SOON, |text| text.contains("Base backup"));
    found.extend(checked(&browser, "restore-review"));
    browser.click("#start");
    browser.wait_text(".card.next", SOON, |text| text.contains("SQLite finds it whole"));
    found.extend(checked(&browser, "restore-done"));
    browser.go(&desk.url("/drills"));
    for (name, css) in [("drill", ".state.protected"), ("drill-failed", ".state.unprotected")] {
        let link = format!(
            "return [...document.querySelectorAll('table tr')].find(row => row.querySelector('{css}') && \
             row.querySelector('a[id^=drill-]')).querySelector('a[id^=drill-]').getAttribute('href')"
        );
        let link = browser.script(&link, &json!([]));
        browser.go(&desk.url(link.as_str().expect("a drill")));
        found.extend(checked(&browser, name));
        browser.go(&desk.url("/drills"));
    }
    assert!(found.is_empty(), "{}", serde_json::to_string_pretty(&found).unwrap());
}

#[test]
fn the_settings_can_be_used_by_everybody_light_and_dark_wide_and_narrow() {
    // Channels that nothing is told on.
    let desk = Desk::with(
        "[notify.pager]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:9/\"\nsecret_file = \"key\"\n\
         [notify.dba]\nkind = \"slack\"\nurl = \"http://127.0.0.1:9/services/T0\"\n",
    );
    desk.user("eve", "operator");
    desk.user("bob-with-a-rather-long-name.from-the-night-shift", "viewer");
    let browser = desk.logged_in("ana", "admin", true);
    let mut found = Vec::new();
    let open = "document.querySelectorAll('details').forEach(one => { one.open = true; })";
    let send =
        "const form = document.querySelector(arguments[0]); form.noValidate = true; form.requestSubmit();";
    browser.go(&desk.url("/settings"));
    found.extend(checked(&browser, "settings-folded"));
    browser.script(open, &json!([]));
    found.extend(checked(&browser, "settings-open"));
    browser.keys("#token-name", "grafana-of-the-second-floor.and-its-neighbours");
    browser.click("#make");
    browser.wait_text("#secret", SOON, |text| text.starts_with("fsh_"));
    found.extend(checked(&browser, "settings-made"));
    // Each form refused for all that can be wrong with it.
    for (form, problem) in [
        ("#make-token form", "#token-name-problem"),
        ("#add-user form", "#user-password-problem"),
        ("#own form", "#own-present-problem"),
        ("#user-eve form.stack", "#password-eve-password-problem"),
    ] {
        browser.go(&desk.url("/settings"));
        browser.script(open, &json!([]));
        browser.script(send, &json!([form]));
        browser.wait_text(problem, SOON, |text| !text.is_empty());
        found.extend(checked(
            &browser,
            &format!("settings-refused{}", form.split(' ').next().unwrap().replace('#', "-")),
        ));
    }
    browser.go(&desk.url("/settings"));
    browser.click("#test-dba");
    browser.wait_text("#channel-dba .told", SOON, |text| text.starts_with("Not taken"));
    found.extend(checked(&browser, "settings-told"));
    browser.go(&desk.url("/settings"));
    browser.click("section[aria-labelledby=tokens] .acting summary");
    browser.click("section[aria-labelledby=tokens] button.danger");
    browser.wait_text(".said", SOON, |text| text.contains("lets nobody in"));
    browser.click("#former > summary");
    found.extend(checked(&browser, "settings-revoked"));
    assert!(found.is_empty(), "{}", serde_json::to_string_pretty(&found).unwrap());
}

/// What axe-core finds on the page that is open, in each of four views; a picture of each is kept.
fn checked(browser: &Browser, name: &str) -> Vec<Value> {
    let mut found = Vec::new();
    for (width, height) in [(1440, 900), (390, 844)] {
        for dark in [false, true] {
            browser.view(width, height, dark);
            let scheme = if dark { "dark" } else { "light" };
            browser.picture(&pictures().join(format!("{name}-{width}-{scheme}.png")));
            let wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
            let wide = browser.script(wide, &json!([]));
            if wide != 0 {
                found.push(json!({"page": name, "width": width, "wider by": wide}));
            }
            browser.script(&axe(), &json!([]));
            let said = browser.script_that_calls(
                "const done = arguments[arguments.length - 1]; \
                 axe.run({resultTypes: ['violations']}).then(r => done(r.violations.map(v => \
                 ({id: v.id, impact: v.impact, nodes: v.nodes.slice(0, 3).map(n => n.html.slice(0, 300) + ' ' + n.failureSummary)}))))",
            );
            let serious = said.as_array().expect("axe answers").iter().filter(|one| one["impact"] != "minor");
            found.extend(
                serious.map(|one| json!({"page": name, "width": width, "scheme": scheme, "violation": one})),
            );
        }
    }
    browser.view(1440, 900, false);
    found
}

#[test]
fn pages_can_be_read_and_used_without_script() {
    let rig = Rig::new();
    rig.user("ana", "operator");
    let browser = Browser::start(false);
    rig.log_in(&browser, "ana", "/databases/orders");
    browser.wait_text("#facts .word", SOON, |word| word == "protected");
    let newest = browser.text("#picked-position").unwrap();
    browser.click("#step-commit-back");
    let before = browser.wait_text("#picked-position", SOON, |text| text != newest);
    browser.click("#step-commit-on");
    browser.wait_text("#picked-position", SOON, |text| text == newest && text != before);
    browser.click("form[action$=backup] button");
    browser.wait_text(".word", SOON, |word| matches!(word, "queued" | "running" | "succeeded" | "failed"));
    assert!(browser.url().contains("/jobs/jb-"), "{}", browser.url());
    browser.click(".me form[action='/logout'] button");
    browser.wait_text("h1", SOON, |text| text == "Log in");
}
