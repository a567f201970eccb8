//! Odd questions: whatever is asked, the answer is never a fault of ours, and never an answer to something else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use farshore_catalog::access::Role;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::rig::Rig;

/// Encoded for a path or a query, byte by byte.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// A value of a parameter: near to what is right, or not at all.
fn value() -> impl Strategy<Value = String> {
    let number = any::<i128>().prop_map(|number| number.to_string());
    let position =
        (any::<u64>(), any::<u32>(), any::<u32>()).prop_map(|(tl, hi, lo)| format!("{tl}:{hi:X}/{lo:X}"));
    let time = ("[0-9]{4,6}", 0..14_u32, 0..33_u32, 0..26_u32, "(Z|\\+[0-9]{2}:[0-9]{2}|-23:59|)").prop_map(
        |(year, month, day, hour, zone)| {
            format!("{year}-{month:02}-{day:02}T{hour:02}:00:60.999999999{zone}")
        },
    );
    let inside = prop_oneof![
        Just("\"orders\"".to_owned()),
        any::<i128>().prop_map(|number| number.to_string()),
        (any::<u32>(), any::<i64>(), any::<i64>(), "(before|after)=[0-9]{1,9}:[0-9A-F]{1,8}/[0-9A-F]{1,8}").prop_map(
            |(timeline, from, to, cursor)| {
                let id = "01".repeat(16);
                let timeline = if timeline % 2 == 0 { 1 } else { timeline };
                let (from, to) = (from / 1000, to / 1000);
                format!("{{\"incarnation\":\"{id}\",\"timeline\":{timeline},\"walk\":{{\"Between\":[{from},{to}]}},\"cursor\":\"{cursor}\"}}")
            }
        ),
        (any::<i64>(), "[0-9a-f]{32}").prop_map(|(at, id)| format!("[\"billing\",{at},\"{id}\"]")),
    ];
    let list = prop_oneof![
        Just("databases"),
        Just("points"),
        Just("backups"),
        Just("nodes"),
        Just("activity"),
        Just("tokens"),
        Just("jobs"),
        Just("schedules")
    ];
    let cursor = (list, inside)
        .prop_map(|(list, at)| URL_SAFE_NO_PAD.encode(format!("{{\"of\":\"{list}\",\"at\":{at}}}")));
    prop_oneof![3 => cursor, 1 => number, 1 => position, 1 => time, 1 => ".{0,40}", 1 => Just(String::new()), 1 => Just("1".to_owned())]
}

fn question() -> impl Strategy<Value = String> {
    let path = prop_oneof![
        2 => prop_oneof![
            Just("databases".to_owned()),
            Just("databases/orders".to_owned()),
            Just("backups".to_owned()),
            Just("nodes".to_owned()),
            Just("activity".to_owned()),
            Just("tokens".to_owned()),
            Just("jobs".to_owned()),
            Just("schedules".to_owned()),
        ],
        2 => Just("databases/orders/points".to_owned()),
        2 => Just("databases/orders/points/resolve".to_owned()),
        1 => ".{0,90}".prop_map(|name| format!("databases/{}", encoded(&name))),
        1 => ".{0,20}".prop_map(|name| format!("jobs/{}", encoded(&name))),
        1 => "[ -~]{0,20}".prop_map(|name| encoded(&name)),
    ];
    let parameter = prop_oneof![
        Just("limit"),
        Just("cursor"),
        Just("around"),
        Just("from"),
        Just("to"),
        Just("at"),
        Just("pos"),
        Just("xid"),
        Just("point"),
        Just("incarnation"),
        Just("database"),
        Just("unended"),
        Just("wait"),
    ];
    let query = proptest::collection::vec((parameter, value()), 0..3);
    (path, query).prop_map(|(path, query)| {
        let query: Vec<String> =
            query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        format!("/api/v1/{path}?{}", query.join("&"))
    })
}

#[test]
fn no_question_makes_a_fault_or_an_answer_without_a_form() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let rig = runtime.block_on(Rig::new());
    let token = runtime.block_on(rig.token(Role::Admin, None));
    let cases = std::env::var("FARSHORE_ODD_QUESTIONS").map_or(800, |text| text.parse().unwrap());
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let (mut right, mut refused) = (0, 0);
    let (right, refused) = (std::cell::RefCell::new(&mut right), std::cell::RefCell::new(&mut refused));
    let outcome = runner.run(&question(), |path| {
        let answer = runtime.block_on(rig.get(&path, &token));
        match answer.status {
            200 => **right.borrow_mut() += 1,
            400..=499 => {
                **refused.borrow_mut() += 1;
                answer.problem();
            }
            _ => return Err(TestCaseError::fail(format!("{path}: {answer:?}"))),
        }
        Ok(())
    });
    let (right, refused) = (**right.borrow(), **refused.borrow());
    println!("{right} answered, {refused} refused");
    outcome.unwrap();
    assert!(
        right > 20 && refused > 100,
        "the questions are not odd in both ways: {right} answered, {refused} refused"
    );
    runtime.block_on(rig.end());
}
