//! A primary, the node that protects it, and what is asked of `farshore` about it: the words that all guarantees use.

use std::path::Path;
use std::process::Output;

use farshore_testkit::process::wait_for;
use serde_json::Value;

use super::primary::{Primary, Rows};
use crate::service::{Node, SOON, Service};

/// A primary and its node.
pub struct Story<P> {
    /// The configuration, the catalog and the store.
    pub node: Node,
    /// What it protects.
    pub primary: P,
}

/// A commit as `points list` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The row that it made.
    pub row: u64,
    /// Where it ends, as `--pos` takes it.
    pub position: String,
    /// Its transaction, as `--xid` takes it.
    pub xid: String,
}

impl<P: Primary> Story<P> {
    /// Both, and no service yet.
    pub fn begin() -> Self {
        let mut primary = None;
        let node = Node::configured(|folder| {
            let primary = primary.insert(P::begin(folder));
            configuration(&folder.join("journal"), primary)
        });
        Self { node, primary: primary.expect("it was begun") }
    }

    /// Both, and a service that has taken its first base backup.
    pub fn shipped() -> (Self, Service) {
        let story = Self::begin();
        let service = story.node.start(None);
        story.node.wait_backup(1);
        story.node.wait_connected();
        (story, service)
    }

    /// Commits a row and waits until the catalog shows it. A service runs, and nobody else commits.
    pub fn commit(&mut self, row: u64) -> Commit {
        let before = self.commits().last().cloned();
        let told = self.primary.commit(row).map(|xid| xid.to_string());
        let mut shown = Vec::new();
        let found = wait_for(SOON, || {
            shown = self.commits();
            match &told {
                Some(told) => shown.iter().find(|point| xid(point) == *told).cloned(),
                None => shown.last().filter(|newest| Some(*newest) != before.as_ref()).cloned(),
            }
        });
        let found = found.unwrap_or_else(|| panic!("row {row}, {told:?} in {shown:?}\n{}", self.node.log()));
        Commit { row, position: position(&found), xid: xid(&found) }
    }

    /// Commits rows, each of which the catalog shows before the next.
    pub fn commit_all(&mut self, rows: std::ops::RangeInclusive<u64>) -> Vec<Commit> {
        rows.map(|row| self.commit(row)).collect()
    }

    /// The commits that `points list` shows, oldest first; none while the catalog knows nothing of the database.
    pub fn commits(&self) -> Vec<Value> {
        let output = self.node.run(&["-o", "json", "points", "list", "orders"]);
        if !output.status.success() {
            return Vec::new();
        }
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let items = answer["items"].as_array().unwrap().clone();
        items.into_iter().filter(|item| item["kind"] == "commit").collect()
    }

    /// Waits until everything that was committed is stored.
    pub fn wait_stored(&mut self) {
        self.primary.wait_stored(&self.node);
    }

    /// The plan of a restore, which must be possible.
    pub fn plan(&self, target: &[&str]) -> Value {
        self.node.json(&[&["restore", "orders", "--dry-run", "--to", "/nowhere"], target].concat())
    }

    /// The rows of the copy at a target.
    pub fn restored(&self, target: &[&str]) -> Rows {
        P::restored(&self.node, target)
    }

    /// That a restore fails and leaves nothing that could be opened; what it said, and whether it left anything.
    pub fn restore_fails(&self, target: &[&str]) -> (Output, bool) {
        let place = farshore_testkit::user::tempdir();
        let to = place.path().join("copy");
        let fixed = ["-o", "json", "restore", "orders", "--to", to.to_str().unwrap()];
        let output = self.node.run(&[&fixed[..], target].concat());
        assert!(!output.status.success(), "{target:?}: {output:?}");
        assert!(!P::could_open(&to), "{target:?} failed and could be opened: {output:?}");
        (output, to.exists())
    }
}

/// What a node is told: a store, and a database in it.
fn configuration(store: &Path, primary: &impl Primary) -> String {
    format!(
        "[service]\nlisten = \"127.0.0.1:0\"\n[stores.main]\nurl = \"file:{}\"\n[databases.orders]\n{}\
         stores = [\"main\"]\nflush_interval = \"20ms\"\n",
        store.display(),
        primary.lines()
    )
}

/// A position of `points list`, as `--pos` takes it.
pub fn position(point: &Value) -> String {
    let position = &point["position"];
    format!("{}:{}", position["timeline"], position["offset"].as_str().expect("an offset"))
}

fn xid(point: &Value) -> String {
    point["xid"].to_string()
}

/// The rows from 1 to `last`.
pub fn up_to(last: u64) -> Rows {
    (1..=last).collect()
}
