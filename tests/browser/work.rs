//! Work that a page starts, to its end: a restore whose rows are there, a drill whose certificate holds.

use std::path::Path;

use farshore_testkit::browser::{Browser, key};
use farshore_testkit::process::wait_for;
use farshore_testkit::user;

use crate::desk::{Desk, NOTES};
use crate::rig::pictures;
use crate::service::SOON;

/// A button that leads on: by a click, or by the keyboard alone.
#[derive(Clone, Copy)]
enum Hand {
    Mouse,
    Keyboard,
}

impl Hand {
    #[track_caller]
    fn press(self, browser: &Browser, css: &str) {
        match self {
            Self::Mouse => browser.click(css),
            Self::Keyboard => {
                browser.tab_to(css);
                browser.press(key::ENTER);
            }
        }
    }
}

/// Picks the commit `back` commits before the newest, restores it from the page, and finds the rows.
fn a_restore(hand: Hand) {
    let desk = Desk::new();
    let browser = desk.logged_in("ana", "operator", true);
    browser.wait_text("tr[data-database=orders] .word", SOON, |word| word == "protected");
    hand.press(&browser, "#db-orders");
    let newest = browser.wait_text("#picked-position", SOON, |text| text.starts_with("1:0/"));
    // Three commits back on the timeline.
    let mut at = newest;
    for _ in 0..3 {
        match hand {
            Hand::Mouse => browser.click("#step-commit-back"),
            Hand::Keyboard => {
                browser.tab_to("#thumb");
                browser.press(key::LEFT);
            }
        }
        at = browser.wait_text("#picked-position", SOON, |text| text != at);
    }
    hand.press(&browser, "#use");
    browser.wait_text("h1", SOON, |text| text == "Restore orders");
    // A place beneath the service's folder is there already.
    let place = browser.script("return document.querySelector('#to').value", &serde_json::json!([]));
    let place = place.as_str().unwrap().to_owned();
    assert!(place.starts_with(desk.node.folder().join("restores/orders-1-").to_str().unwrap()), "{place}");
    browser.picture(&pictures().join("wizard-where.png"));
    hand.press(&browser, "#review");
    browser.wait_text("#plan-part", SOON, |text| text.contains("Base backup"));
    browser.wait_text("#line", SOON, |line| line.contains(&at));
    browser.picture(&pictures().join("wizard-review.png"));
    hand.press(&browser, "#start");
    browser.wait_text("h1", SOON, |text| text.starts_with("restore of"));
    browser.wait_text(".word", SOON, |word| word == "succeeded");
    let next = browser.wait_text(".card.next", SOON, |text| text.contains("SQLite finds it whole"));
    assert!(next.contains("sqlite3 -readonly"), "{next}");
    browser.picture(&pictures().join("wizard-done.png"));
    let note = NOTES - 3;
    assert_eq!(desk.restored(Path::new(&place), note), format!("[[{note}, 1]]"));
    assert_eq!(desk.restored(Path::new(&place), note + 1), format!("[[{note}, 0]]"));
}

#[test]
fn a_commit_that_is_picked_is_restored_from_the_page_and_its_rows_are_there() {
    a_restore(Hand::Mouse);
}

#[test]
fn a_commit_is_restored_from_the_page_by_the_keyboard_alone() {
    a_restore(Hand::Keyboard);
}

/// Runs a drill from the page, downloads its certificate, and has it verified.
fn a_drill(hand: Hand) {
    let desk = Desk::new();
    let browser = desk.logged_in("ana", "operator", true);
    let folder = user::tempdir();
    browser.download_into(folder.path());
    browser.wait_text("tr[data-database=orders]", SOON, |row| row.contains("never"));
    hand.press(&browser, "header nav a[href='/drills']");
    browser.wait_text("#drills tr[data-database=orders] .word", SOON, |word| word == "never");
    browser.picture(&pictures().join("drills-never.png"));
    hand.press(&browser, "#run");
    browser.wait_text("h1", SOON, |text| text.starts_with("drill of"));
    browser.wait_text(".word", SOON, |word| word == "succeeded");
    hand.press(&browser, "#go-on");
    browser.wait_text("h1", SOON, |text| text == "Drill of orders");
    assert_eq!(browser.text(".word").as_deref(), Some("passed"));
    let checks = browser.text("main").unwrap();
    assert!(checks.contains("there are notes") && checks.contains(&format!("{NOTES} rows")), "{checks}");
    browser.picture(&pictures().join("drill-passed.png"));
    hand.press(&browser, "#certificate");
    let file = Desk::downloaded(folder.path());
    let verified = |arguments: &[&str]| {
        desk.node.run(&[&["drill", "verify", file.to_str().unwrap()], arguments].concat())
    };
    // With the public key alone; and not with another.
    let key = desk.key.public().to_string();
    let holds = verified(&["--key", &key]);
    assert!(holds.status.success(), "{holds:?}");
    assert!(String::from_utf8_lossy(&holds.stdout).contains("the certificate holds"), "{holds:?}");
    let other = verified(&["--key", &"3".repeat(64)]);
    assert_eq!(other.status.code(), Some(8), "{other:?}");
    // The fleet knows it too.
    hand.press(&browser, "header nav a[href='/']");
    browser
        .wait_text("tr[data-database=orders]", SOON, |row| row.contains("proved") && !row.contains("never"));
}

#[test]
fn a_drill_that_is_run_from_the_page_gives_a_certificate_that_holds() {
    a_drill(Hand::Mouse);
}

#[test]
fn a_drill_is_run_from_the_page_by_the_keyboard_alone() {
    a_drill(Hand::Keyboard);
}

#[test]
fn a_button_that_is_pressed_twice_begins_one_drill() {
    let desk = Desk::new();
    let browser = desk.logged_in("ana", "operator", true);
    browser.go(&desk.url("/drills?database=orders"));
    // Two presses before the first is answered.
    let twice = "const form = document.querySelector('#drill-form'); const body = new URLSearchParams(new FormData(form)); \
                 const done = arguments[arguments.length - 1]; \
                 Promise.all([1, 2].map(() => fetch('/drills', { method: 'POST', body }))).then(all => done(all.map(one => one.url)));";
    let went = browser.script_that_calls(twice);
    let went = went.as_array().unwrap();
    assert!(went[0].as_str().unwrap().contains("/jobs/jb-"), "{went:?}");
    assert_eq!(went[0], went[1]);
    let jobs = || desk.node.json(&["job", "list", "orders"]);
    let drills = |jobs: &serde_json::Value| {
        let all = jobs["items"].as_array().or_else(|| jobs.as_array()).unwrap();
        all.iter().filter(|job| job["kind"] == "drill").count()
    };
    assert_eq!(drills(&jobs()), 1, "{}", jobs());
    // It is followed where it runs, without a reload.
    browser.go(&desk.url("/drills"));
    let proved = wait_for(SOON, || {
        (browser.text("#drills tr[data-database=orders] .word")? == "proved").then_some(())
    });
    assert!(proved.is_some(), "{:?}", browser.text("main"));
}
