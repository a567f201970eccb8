//! A primary whose past is another one than the journal's.

use farshore_testkit::process::wait_for;

use super::primary::Primary;
use super::story::{Story, up_to};
use crate::service::SOON;

pub fn a_primary_put_back_to_an_older_state_begins_a_new_incarnation_and_both_stay_restorable<P: Primary>() {
    let (mut story, service) = Story::<P>::shipped();
    story.commit_all(1..=2);
    story.wait_stored();
    service.stop();
    let kept = farshore_testkit::user::tempdir();
    story.primary.keep(kept.path());
    let service = story.node.start(None);
    let lost = story.commit_all(3..=4);
    story.wait_stored();
    service.stop();
    assert_eq!(story.node.incarnations().len(), 1, "what was kept is no other past: {}", story.node.log());

    story.primary.put_back(kept.path());
    assert_eq!(story.primary.rows(), up_to(2));
    story.primary.commit(30);
    let service = story.node.start(None);
    let founded = wait_for(SOON, || (story.node.incarnations().len() == 2).then_some(()));
    assert!(founded.is_some(), "{:?}\n{}", story.node.status(), story.node.log());
    story.node.wait_backup(1);
    story.wait_stored();
    service.stop();
    assert_eq!(story.node.walk(&|_, _| {}).len(), 2);
    assert_eq!(story.restored(&["--latest"]), [1, 2, 30]);
    assert_eq!(story.restored(&["--latest", "--incarnation", "0"]), up_to(4));
    // Each commit of either, not their ends alone.
    let plan = story.plan(&["--pos", &lost[0].position, "--incarnation", "0"]);
    assert_eq!(plan["resolved"]["xid"].to_string(), lost[0].xid, "{plan}");
}
