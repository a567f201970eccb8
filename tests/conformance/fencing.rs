//! Two services of one database.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;

use super::primary::Primary;
use super::story::{Story, up_to};
use crate::service::SOON;

pub fn a_second_shipper_fences_the_first_and_nothing_is_in_the_journal_twice<P: Primary>() {
    let (mut story, mut first) = Story::<P>::shipped();
    story.commit_all(1..=2);
    story.wait_stored();
    // As a machine that is thought to be dead, and is not.
    first.process.signal(Signal::SIGSTOP);
    let other = story.node.twin();
    let second = other.start(None);
    second.wait_log("took the journal over");
    story.primary.commit(3);
    story.primary.wait_stored(&other);
    first.process.signal(Signal::SIGCONT);
    story.primary.commit(4);
    let ended = first.process.wait(SOON);
    let ended = ended.unwrap_or_else(|| panic!("both live\n{}\n--\n{}", first.log(), second.log()));
    assert_eq!(ended.code(), Some(5), "{}", first.log());
    assert!(first.log().contains("FS-0401"), "{}", first.log());
    story.primary.commit(5);
    story.primary.wait_stored(&other);
    second.stop();
    let walked = story.node.walk(&|_, _| {});
    assert!(walked.len() == 1 && walked[0].gaps.is_empty(), "{walked:?}\n{}", other.log());
    assert_eq!(story.restored(&["--latest"]), up_to(5));
    // Told to a catalog that knows nothing of either, each transaction is one point.
    story.node.json(&["catalog", "rebuild"]);
    let commits = story.commits();
    let numbers: BTreeSet<String> = commits.iter().map(|point| point["xid"].to_string()).collect();
    assert_eq!(numbers.len(), commits.len(), "{commits:?}");
}
