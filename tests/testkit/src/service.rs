//! A server program that chooses its port itself and says which: we read it from its log.

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::must::Must;
use crate::process::{Owned, wait_for};

/// Until a service says that it listens: its runtime loads hundreds of modules from a cold disk.
const START: Duration = Duration::from_secs(120);

/// A running service and the port it chose.
#[derive(Debug)]
pub(crate) struct Service {
    _process: Owned,
    folder: TempDir,
    /// On loopback.
    pub port: u16,
}

impl Service {
    /// Starts `command` and waits for a line with `marker`, which stands before the port.
    pub fn start(name: &str, marker: &str, mut command: Command) -> Self {
        let folder = tempfile::tempdir().must("make a temporary folder");
        let path = folder.path().join("log");
        let log = File::create(&path).must("make the log");
        command.current_dir(folder.path()).stdout(log.try_clone().must("share the log")).stderr(log);
        let mut process = Owned::spawn(command, Signal::SIGKILL);
        let text = || std::fs::read_to_string(&path).unwrap_or_default();
        let port = wait_for(START, || {
            if let Some(status) = process.ended() {
                panic!("{name} ended at start with {status}:\n{}", text());
            }
            port_after(&text(), marker)
        });
        match port {
            Some(port) => Self { _process: process, folder, port },
            None => panic!("{name} did not listen within {START:?}:\n{}", text()),
        }
    }

    /// What it printed until now.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// The number between `marker` and the line's end; `None` while the line is not whole.
fn port_after(log: &str, marker: &str) -> Option<u16> {
    let (port, _) = log.split_once(marker)?.1.split_once('\n')?;
    port.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_is_read_only_from_a_whole_line() {
        assert_eq!(port_after("x\n * Running on http://127.0.0.1:36869\n", "http://127.0.0.1:"), Some(36869));
        assert_eq!(port_after(" * Running on http://127.0.0.1:368", "http://127.0.0.1:"), None);
    }
}
