//! A SQLite database of the tests' applications (`ledger.py`), and a node that ships it.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

use std::path::{Path, PathBuf};
use std::process::Command;

use farshore_testkit::user;
use serde_json::Value;

use crate::service::Node;

/// A node that ships a database of its own, with a flush interval of 20 ms.
pub fn node(page_bytes: u32) -> Node {
    let node = Node::configured(|folder| {
        format!(
            "[service]\nlisten = \"127.0.0.1:0\"\n[stores.main]\nurl = \"file:{}\"\n[databases.orders]\nengine = \"sqlite\"\n\
             path = \"app.db\"\nstores = [\"main\"]\nflush_interval = \"20ms\"\n",
            folder.join("journal").display()
        )
    });
    ledger(&["make", &text(&database(&node)), &page_bytes.to_string()]);
    node
}

/// The database's file.
pub fn database(node: &Node) -> PathBuf {
    node.folder().join("app.db")
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.display().to_string()
}

/// One of `ledger.py`'s verbs, as the unprivileged user.
pub fn python(arguments: &[&str]) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sqlite/ledger.py");
    let mut command = Command::new("/usr/bin/python3");
    // The unprivileged user may not read the project's folder.
    command.arg("-c").arg(std::fs::read_to_string(script).unwrap()).args(arguments);
    user::run_as(command)
}

/// Runs it to its end.
pub fn ledger(arguments: &[&str]) -> Value {
    let done = python(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap_or(Value::Null)
}
