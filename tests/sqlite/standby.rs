//! A standby copy beside a node that ships a SQLite database.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use farshore_testkit::process::{Owned, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::text;
use crate::service::{Node, SOON, let_pass};

/// Where it is.
pub fn directory(node: &Node) -> PathBuf {
    node.folder().join("standby")
}

/// Its file.
pub fn copy(node: &Node) -> PathBuf {
    directory(node).join("app.db")
}

/// Starts one; what it says goes to a file of this name.
pub fn follow(node: &Node, log: &str) -> Owned {
    node.beside_others(&["-v", "standby", "run", "orders", "--to", &text(&directory(node))], log)
}

/// What one said.
pub fn said(node: &Node, log: &str) -> String {
    std::fs::read_to_string(node.folder().join(log)).unwrap()
}

/// `farshore standby status`, if there is one.
pub fn status(node: &Node) -> Option<Value> {
    let asked = node.run(&["-o", "json", "standby", "status", "--to", &text(&directory(node))]);
    asked.status.success().then(|| serde_json::from_slice(&asked.stdout).unwrap())
}

/// Waits until there is a copy that is kept up to date.
pub fn wait_made(node: &Node, log: &str) {
    let made = wait_for(SOON, || status(node).filter(|status| status["running"] == true).map(drop));
    assert!(made.is_some(), "{}\n{}", said(node, log), node.log());
}

/// Waits until everything that was committed is stored and is in the copy.
pub fn wait_caught_up(node: &Node, log: &str) {
    let mut before = None;
    let settled = wait_for(SOON, || {
        let_pass(Duration::from_millis(500));
        let end = node.end();
        let stands = end.is_some() && end == before;
        before = end;
        let shipped = node.status()?;
        let standby = status(node)?;
        (stands && shipped["ship_lag_bytes"] == 0 && standby["lag_bytes"] == 0).then_some(())
    });
    assert!(settled.is_some(), "{:?} {:?}\n{}\n{}", node.status(), status(node), said(node, log), node.log());
}

/// Ends one as an operator would.
pub fn stop(mut standby: Owned, node: &Node, log: &str) {
    standby.signal(Signal::SIGTERM);
    let ended = standby.wait(SOON).expect("it stops");
    assert!(ended.success(), "{ended:?}: {}", said(node, log));
}

/// A standby that is killed and started again, and made anew behind a new incarnation.
pub struct Standby {
    process: Owned,
    log: String,
    starts: u64,
}

impl Standby {
    /// One that is kept up to date. The service runs.
    pub fn begin(node: &Node) -> Self {
        let mut standby = Self { process: follow(node, "standby-0"), log: "standby-0".to_owned(), starts: 0 };
        standby.wait_made(node);
        standby
    }

    /// What the last start of it said.
    pub fn said(&self, node: &Node) -> String {
        said(node, &self.log)
    }

    /// Starts it again.
    pub fn again(&mut self, node: &Node) {
        self.starts += 1;
        self.log = format!("standby-{}", self.starts);
        self.process = follow(node, &self.log);
    }

    /// Kills it; `false` when it had ended by itself, which only a new incarnation may make it do.
    pub fn kill(&mut self, node: &Node) -> bool {
        if self.has_ended(node) {
            return false;
        }
        self.process.signal(Signal::SIGKILL);
        self.process.wait(SOON).expect("a killed process ends");
        true
    }

    /// Whether it ended by itself, which only a new incarnation may make it do.
    pub fn has_ended(&mut self, node: &Node) -> bool {
        let Some(ended) = self.process.ended() else { return false };
        self.assert_began_anew(node, ended);
        true
    }

    fn assert_began_anew(&self, node: &Node, ended: ExitStatus) {
        let said = self.said(node);
        // A first restore may meet an incarnation that began a moment ago, and has no base yet.
        let has_no_base = said.contains("FS-0502") && said.contains("has no complete backup yet");
        let began_anew = said.contains("FS-0504") || has_no_base;
        assert!(ended.code() == Some(4) && began_anew, "{ended:?}\n{said}\n{}", node.log());
    }

    /// Begins another one in place of one that ended by itself. The service runs.
    pub fn anew(&mut self, node: &Node) {
        std::fs::remove_dir_all(directory(node)).unwrap();
        // Applications that begin the log anew again and again keep a new incarnation from its first hold, and so from its base, for longer than anything else takes.
        let base = wait_for(SOON * 4, || (node.backups() > 0).then_some(()));
        assert!(base.is_some(), "no base backup\n{}", node.log());
        self.again(node);
        self.wait_made(node);
    }

    /// Waits until there is a copy that is kept up to date, or that it ended at a new incarnation meanwhile.
    fn wait_made(&mut self, node: &Node) {
        let made = wait_for(SOON, || {
            let running = status(node).is_some_and(|status| status["running"] == true);
            (running || self.process.ended().is_some()).then_some(())
        });
        assert!(made.is_some(), "{}\n{}", self.said(node), node.log());
    }

    /// Ends it as an operator would.
    pub fn stop(self, node: &Node) {
        stop(self.process, node, &self.log);
    }
}
