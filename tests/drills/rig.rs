//! Drills as the tests ask for them, and what may be left of one: nothing.

use std::path::{Path, PathBuf};

use farshore_testkit::process::wait_for;
use serde_json::Value;

use crate::service::{Node, SOON};

/// What a drill's command said.
pub struct Drilled {
    pub exit: Option<i32>,
    /// The answer; null where there is none.
    pub said: Value,
    /// The message that it ended with; null where there is none.
    pub message: Value,
    pub stderr: String,
}

impl Drilled {
    /// The statement.
    pub fn statement(&self) -> &Value {
        &self.said["statement"]
    }

    /// The drill's id.
    pub fn id(&self) -> String {
        self.statement()["drill"].as_str().unwrap_or_else(|| panic!("no drill: {}", self.stderr)).to_owned()
    }

    /// A check, by its name.
    pub fn check(&self, name: &str) -> &Value {
        let checks = self.statement()["checks"].as_array().unwrap();
        checks
            .iter()
            .find(|check| check["name"] == name)
            .unwrap_or_else(|| panic!("no {name} in {checks:#?}"))
    }

    /// It passed, is certified, and says of every phase how long it took.
    #[track_caller]
    pub fn passed(self) -> Self {
        assert_eq!(self.exit, Some(0), "{} {}", self.said, self.stderr);
        let said = self.statement();
        assert_eq!((&said["verdict"], &said["removed"]), (&"passed".into(), &true.into()), "{said:#}");
        for phase in ["plan_us", "fetch_us", "replay_us", "open_us", "check_us", "cleanup_us"] {
            assert!(said["measured"][phase].is_u64(), "{phase}: {said:#}");
        }
        let parts = ["plan_us", "fetch_us", "replay_us", "open_us"];
        let sum: u64 = parts.iter().map(|phase| said["measured"][phase].as_u64().unwrap()).sum();
        assert_eq!(said["recovery_us"].as_u64(), Some(sum), "{said:#}");
        assert_eq!(self.said["certified"], true, "{}", self.said);
        self
    }

    /// It failed with this code and exit, and says this.
    #[track_caller]
    pub fn failed(self, code: &str, exit: i32, why: &str) -> Self {
        assert_eq!(self.exit, Some(exit), "{} {}", self.said, self.stderr);
        assert_eq!(self.message["code"], code, "{}", self.stderr);
        let happened = self.message["happened"].as_str().unwrap();
        assert!(happened.contains(why), "{why:?} is not in {happened:?}");
        if !self.said.is_null() {
            assert_eq!(self.statement()["verdict"], "failed", "{}", self.said);
        }
        self
    }
}

/// Does a drill with these further words.
pub fn drill(node: &Node, words: &[&str]) -> Drilled {
    drilled(&node.run(&[&["-o", "json", "drill", "run", "orders"], words].concat()))
}

pub fn drilled(output: &std::process::Output) -> Drilled {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut messages = stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let message = messages.rfind(|line| line["schema"] == "farshore.message/1").unwrap_or_default();
    let said = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Drilled { exit: output.status.code(), said, message, stderr }
}

/// Where copies go unless another place is named.
pub fn place(node: &Node) -> PathBuf {
    node.folder().join("farshore-drills")
}

/// Adds to the database's own tables.
pub fn configure(node: &Node, text: &str) {
    node.configure(|config| format!("{config}{text}"));
}

/// Processes that work below a folder.
pub fn working_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let works = entries.filter_map(|entry| {
        let works = std::fs::read_link(entry.path().join("cwd")).ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        works.starts_with(folder).then(|| String::from_utf8_lossy(&line).replace('\0', " "))
    });
    works.collect()
}

/// Nothing of any drill is on disk or runs. What was ended may take a moment until it is gone.
#[track_caller]
pub fn nothing_left(place: &Path) {
    let gone = wait_for(SOON, || working_in(place).is_empty().then_some(()));
    assert!(gone.is_some(), "{:?} run in {}", working_in(place), place.display());
    let left: Vec<PathBuf> = std::fs::read_dir(place)
        .map_or_else(|_| Vec::new(), |entries| entries.map(|entry| entry.unwrap().path()).collect());
    assert!(left.is_empty(), "{left:?}");
}

/// A certificate's object in the node's store.
pub fn certificate(node: &Node, id: &str) -> PathBuf {
    let found = find(&node.folder().join("journal"), id);
    found.unwrap_or_else(|| panic!("no certificate {id}"))
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(folder).ok()?.filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = find(&path, name) {
                return Some(found);
            }
        } else if entry.file_name() == name {
            return Some(path);
        }
    }
    None
}

/// The certificate of a drill verifies.
#[track_caller]
pub fn verifies(node: &Node, id: &str) {
    let verified = node.json(&["drill", "verify", id]);
    assert_eq!(
        (&verified["holds"], &verified["statement"]["drill"]),
        (&true.into(), &id.into()),
        "{verified}"
    );
}
