//! Base backups that a person asks for.

use super::primary::Primary;
use super::story::{Story, up_to};

pub fn a_backup_by_hand_is_listed_complete_and_a_restore_from_behind_it_begins_with_it<P: Primary>() {
    let (mut story, service) = Story::<P>::shipped();
    let before = story.commit(1);
    story.commit(2);
    let taken = story.node.json(&["backup", "run", "orders"]);
    let by_hand = &taken["items"][0];
    let behind = story.commit(3);
    story.wait_stored();
    let listed = story.node.json(&["backup", "list", "orders"]);
    service.stop();
    let listed = listed["items"].as_array().unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    let found = listed.iter().find(|backup| backup["id"] == by_hand["id"]).expect("it is listed");
    assert_eq!((&found["state"], &found["label"]), (&"complete".into(), &"by hand".into()), "{found}");
    assert!(found["finished"].is_string() && found["stored_bytes"].as_u64() > Some(0), "{found}");
    // From before it a restore begins with the older one.
    assert_ne!(story.plan(&["--xid", &before.xid])["base"]["id"], by_hand["id"]);
    let plan = story.plan(&["--xid", &behind.xid]);
    assert_eq!(plan["base"]["id"], by_hand["id"], "{plan}");
    // And needs it alone.
    let other = listed.iter().find(|backup| backup["id"] != by_hand["id"]).unwrap();
    let incarnation = other["incarnation"].as_str().unwrap();
    let id = other["id"].as_str().unwrap();
    let object = story.node.folder().join(format!("journal/db/orders/{incarnation}/backups/{id}"));
    std::fs::remove_dir_all(object).unwrap();
    assert_eq!(story.restored(&["--xid", &behind.xid]), up_to(3));
}
