//! A catalog that is gone.

use farshore_testkit::process::wait_for;
use serde_json::Value;

use super::primary::Primary;
use super::story::{Story, up_to};
use crate::service::SOON;

pub fn a_lost_catalog_is_rebuilt_from_the_store_alone_to_the_same_points_and_backups<P: Primary>() {
    let (mut story, service) = Story::<P>::shipped();
    story.commit_all(1..=2);
    story.node.json(&["points", "mark", "orders", "here"]);
    story.node.json(&["backup", "run", "orders"]);
    let commits = story.commit_all(3..=4);
    story.wait_stored();
    // The catalog follows behind the store.
    let told = wait_for(SOON, || {
        let end = story.node.end()?.to_string();
        (story.node.status()?["window"]["to_position"] == *end).then_some(())
    });
    assert!(told.is_some(), "{:?}\n{}", story.node.status(), story.node.log());
    service.stop();
    let known = known(&story);
    for kind in ["commit", "restore_point"] {
        let points = known[0]["items"].as_array().unwrap();
        assert!(points.iter().any(|point| point["kind"] == kind), "{kind}: {points:?}");
    }
    assert_eq!(known[1]["items"].as_array().unwrap().len(), 2, "{}", known[1]);

    for name in ["farshore.db", "farshore.db-wal", "farshore.db-shm"] {
        let _was_not_there = std::fs::remove_file(story.node.folder().join(name));
    }
    // The primary is gone as well: all that is left is the store.
    story.primary.crash();
    story.node.json(&["catalog", "rebuild"]);
    assert_eq!(self::known(&story), known);
    assert_eq!(story.restored(&["--xid", &commits[0].xid]), up_to(3));
}

/// The points, the backups and the window.
fn known<P: Primary>(story: &Story<P>) -> [Value; 3] {
    let points = story.node.json(&["points", "list", "orders"]);
    let backups = story.node.json(&["backup", "list", "orders"]);
    let window = story.node.status().expect("the catalog knows it")["window"].clone();
    [points, backups, window]
}
