//! A journal with a chunk that is not what was written.

use std::path::PathBuf;

use farshore_journal::format::{Header, Kind};
use farshore_journal::{Offset, Position, Sequence};
use serde_json::Value;

use super::primary::Primary;
use super::story::{Commit, Story, up_to};
use crate::service::{Node, wait};

pub fn a_damaged_chunk_is_named_and_nothing_behind_it_is_restored<P: Primary>() {
    let (mut story, service) = Story::<P>::shipped();
    story.commit_all(1..=2);
    story.node.json(&["backup", "run", "orders"]);
    let commits = story.commit_all(3..=8);
    story.wait_stored();
    service.stop();
    assert_eq!(verified(&story.node)["sound"], true);

    let chunks = chunks(&story.node);
    let holds = |commit: &Commit| {
        let end: Position = commit.position.parse().unwrap();
        let found = chunks.iter().position(|(_, header)| {
            header.kind == Kind::Data && header.start < end.offset && end.offset <= header.end
        });
        found.expect("it is in the journal")
    };
    // Whichever chunk is damaged that lies before a target's base or behind the target, the target is found; but for the first two and the last two, by
    // which the journal's begin and end are known.
    let plan = story.plan(&["--pos", &commits[0].position]);
    let base: Offset = plan["base"]["start"]["offset"].as_str().unwrap().parse().unwrap();
    let before = chunks[2..].iter().take_while(|(_, header)| header.end <= base);
    let behind = &chunks[holds(&commits[0]) + 1..chunks.len() - 2];
    assert!(before.clone().count() > 0 && behind.len() > 2, "{chunks:?}");
    for (key, _) in before.chain(behind) {
        let _damaged = Damaged::chunk(&story.node, key);
        let plan = story.plan(&["--pos", &commits[0].position]);
        assert_eq!(plan["resolved"]["xid"].to_string(), commits[0].xid, "{key} is damaged: {plan}");
    }

    let (key, _) = &chunks[holds(&commits[1])];
    let _damaged = Damaged::chunk(&story.node, key);
    let output = story.node.run(&["-o", "json", "verify", "orders"]);
    assert_eq!(output.status.code(), Some(9), "{output:?}");
    let verified = verified(&story.node);
    assert_eq!(verified["sound"], false, "{verified}");
    let bad = verified["bad"].as_array().unwrap();
    assert!(bad.iter().any(|bad| bad.to_string().contains(key)), "{key} is not named: {verified}");
    for commit in &commits[1..] {
        story.restore_fails(&["--pos", &commit.position]);
        story.restore_fails(&["--xid", &commit.xid]);
    }
    story.restore_fails(&["--latest"]);
    // What lies before it is as it was.
    assert_eq!(story.restored(&["--pos", &commits[0].position]), up_to(3));
}

fn verified(node: &Node) -> Value {
    let output = node.run(&["-o", "json", "verify", "orders"]);
    let answer: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{why}: {output:?}"));
    answer["items"][0].clone()
}

/// The names and headers of the newest incarnation's chunks.
fn chunks(node: &Node) -> Vec<(String, Header)> {
    let (record, reader) = node.incarnations().pop().unwrap();
    let last = wait(reader.last()).unwrap().unwrap().header().number;
    let named = |number: u64| {
        let chunk = wait(reader.chunk(Sequence::new(number))).unwrap();
        (format!("db/orders/{}/journal/{number:016x}", record.incarnation), chunk.header().clone())
    };
    (0..=last.get()).map(named).collect()
}

/// An object with one bit changed, for as long as this lives.
struct Damaged {
    path: PathBuf,
    sound: Vec<u8>,
}

impl Damaged {
    fn chunk(node: &Node, key: &str) -> Self {
        let path = node.folder().join("journal").join(key);
        let sound = std::fs::read(&path).unwrap();
        let mut bytes = sound.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        Self { path, sound }
    }
}

impl Drop for Damaged {
    fn drop(&mut self) {
        std::fs::write(&self.path, &self.sound).unwrap();
    }
}
