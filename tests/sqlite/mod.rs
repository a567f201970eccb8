//! A SQLite database of the tests' applications, and a node that ships it.
//!
//! `ledger.py` has applications whose transactions say of themselves what the database must hold of theirs: for single tests. `oracle` knows all content.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message
#![allow(dead_code)] // each test binary uses a part of it

pub mod application;
pub mod oracle;
pub mod standby;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use farshore_journal::Offset;
use farshore_testkit::process::wait_for;
use farshore_testkit::user;
use serde_json::Value;

use crate::service::{Node, SOON, let_pass};

/// A node that ships a database of its own, with a flush interval of 20 ms.
pub fn node(page_bytes: u32) -> Node {
    let node = unmade();
    ledger(&["make", &text(&database(&node)), &page_bytes.to_string()]);
    node
}

/// The same, whose database is not made yet.
fn unmade() -> Node {
    Node::configured(|folder| {
        format!(
            "[service]\nlisten = \"127.0.0.1:0\"\n[stores.main]\nurl = \"file:{}\"\n[databases.orders]\nengine = \"sqlite\"\n\
             path = \"app.db\"\nstores = [\"main\"]\nflush_interval = \"20ms\"\n",
            folder.join("journal").display()
        )
    })
}

/// The database's file.
pub fn database(node: &Node) -> PathBuf {
    node.folder().join("app.db")
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A position as the number that it is.
pub fn offset(position: &Value) -> u64 {
    let position = position.as_str().expect("a position");
    position.parse::<Offset>().unwrap_or_else(|why| panic!("{position}: {why}")).get()
}

/// One of `ledger.py`'s verbs, as the unprivileged user.
pub fn python(arguments: &[&str]) -> Command {
    script("ledger.py", arguments)
}

/// One of a script's verbs, as the unprivileged user.
fn script(name: &str, arguments: &[&str]) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sqlite").join(name);
    let mut command = Command::new("/usr/bin/python3");
    // The unprivileged user may not read the project's folder.
    command.arg("-c").arg(std::fs::read_to_string(script).unwrap()).args(arguments);
    user::run_as(command)
}

/// Runs one of `ledger.py`'s verbs to its end.
pub fn ledger(arguments: &[&str]) -> Value {
    done(python(arguments), arguments)
}

fn done(mut command: Command, arguments: &[&str]) -> Value {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap_or(Value::Null)
}

/// Waits until everything that was committed is stored: the journal's end stands still, and the service says that nothing is behind.
pub fn settle(node: &Node) {
    let mut before = None;
    let settled = wait_for(SOON, || {
        let_pass(Duration::from_millis(700));
        let end = node.end();
        let stands = end.is_some() && end == before;
        before = end;
        let status = node.status()?;
        (stands && status["state"] == "connected" && status["ship_lag_bytes"] == 0).then_some(())
    });
    assert!(settled.is_some(), "{:?}\n{}", node.status(), node.log());
}
