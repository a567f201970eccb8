//! Restores to every kind of target, and to none.

use std::time::Duration;

use serde_json::Value;

use super::primary::Primary;
use super::story::{Story, up_to};
use crate::service::let_pass;

/// Longer than it takes until a commit of an idle database is seen, and has its time.
const BETWEEN: Duration = Duration::from_millis(500);

pub fn every_commit_is_restorable_by_every_kind_of_target_and_the_copy_holds_exactly_what_was_committed_by_it<
    P: Primary,
>() {
    let (mut story, service) = Story::<P>::shipped();
    let commits = story.commit_all(1..=3);
    let_pass(BETWEEN);
    let between = farshore_now();
    let_pass(BETWEEN);
    story.commit(4);
    let named = story.node.json(&["points", "mark", "orders", "before the mistake"]);
    assert_eq!(named["items"][0]["name"], "before the mistake", "{named}");
    story.commit(5);
    story.wait_stored();
    assert_eq!(story.primary.rows(), up_to(5));
    service.stop();

    // Each position is its transaction's end and the other way round.
    for commit in &commits {
        for target in [["--pos", &commit.position], ["--xid", &commit.xid]] {
            let resolved = &story.plan(&target)["resolved"];
            let position = format!("{}:{}", resolved["timeline"], resolved["position"].as_str().unwrap());
            assert_eq!(
                (resolved["xid"].to_string(), position),
                (commit.xid.clone(), commit.position.clone()),
                "{commit:?} {target:?}"
            );
        }
    }
    assert_eq!(story.restored(&["--pos", &commits[0].position]), up_to(1));
    assert_eq!(story.restored(&["--xid", &commits[1].xid]), up_to(2));
    assert_eq!(story.restored(&["--at", &between]), up_to(3));
    assert_eq!(story.restored(&["--point", "before the mistake"]), up_to(4));
    assert_eq!(story.restored(&["--latest"]), up_to(5));
}

fn farshore_now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

pub fn a_target_that_does_not_exist_is_refused_and_nothing_is_written<P: Primary>() {
    let (mut story, service) = Story::<P>::shipped();
    story.commit(1);
    story.wait_stored();
    service.stop();
    for (target, words) in [
        (["--at", "2001-01-01T00:00:00Z"], "before the first restorable moment"),
        (["--at", "2199-01-01T00:00:00Z"], "the newest time in the journal is"),
        (["--pos", "0/1"], "before the first restorable moment"),
        (["--pos", "FF/0"], "behind what is stored"),
        (["--xid", "4000000000"], "is not in the journal"),
        (["--point", "never-set"], "is not in the journal"),
    ] {
        let (output, wrote) = story.restore_fails(&target);
        assert_eq!((output.status.code(), wrote), (Some(4), false), "{target:?}: {output:?}");
        let message: Value = serde_json::from_slice(&output.stderr).unwrap();
        let part = |name: &str| message[name].as_str().unwrap_or_else(|| panic!("{message}"));
        assert_eq!((part("code"), part("safe")), ("FS-0502", "nothing was written"), "{target:?}");
        assert!(part("do").contains("inside a window"), "{message}");
        for words in [words, "; restorable: 20", "Z (timeline 1 from ", ", transaction "] {
            assert!(part("happened").contains(words), "{words}: {message}");
        }
    }
    let (output, wrote) = story.restore_fails(&["--latest", "--incarnation", "7"]);
    assert_eq!((output.status.code(), wrote), (Some(3), false), "{output:?}");
}
