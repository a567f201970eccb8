//! Load by `pgbench`.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::Server;
use crate::must::Must;
use crate::process::Owned;

/// How long a load runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// About this long; whole seconds, at least one.
    For(Duration),
    /// This many transactions by each client.
    Transactions(u32),
}

/// What a load did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadReport {
    /// Transactions committed, over all clients.
    pub transactions: u64,
    /// All that `pgbench` printed.
    pub text: String,
}

/// A running `pgbench`, ended on drop.
#[derive(Debug)]
pub struct Load {
    process: Owned,
    output: PathBuf,
    length: Length,
}

impl Server {
    /// Makes and fills the tables of `pgbench`: 100 000 accounts per scale, about 15 MB each.
    ///
    /// # Panics
    /// If `pgbench` fails.
    pub fn pgbench_init(&self, scale: u32) {
        let mut pgbench = self.client_command("pgbench");
        pgbench.args(["-i", "-q", "-s", &scale.to_string(), "postgres"]);
        let done = pgbench.output().must("run pgbench");
        assert!(done.status.success(), "pgbench -i: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Starts its standard transactions, which need [`Server::pgbench_init`].
    #[must_use]
    pub fn pgbench(&self, clients: u32, length: Length) -> Load {
        self.pgbench_with(clients, length, &[])
    }

    /// As [`Server::pgbench`], with further arguments.
    #[must_use]
    pub fn pgbench_with(&self, clients: u32, length: Length, arguments: &[&str]) -> Load {
        let mut pgbench = self.client_command("pgbench");
        pgbench.args(["-n", "-c", &clients.to_string(), "-j", "1"]).args(arguments);
        match length {
            Length::For(time) => pgbench.args(["-T", &time.as_secs().max(1).to_string()]),
            Length::Transactions(count) => pgbench.args(["-t", &count.to_string()]),
        };
        pgbench.arg("postgres");
        let named =
            tempfile::Builder::new().prefix("pgbench-").tempfile_in(self.folder()).must("make a file");
        let (file, output) = named.keep().must("keep the file");
        let again: File = file.try_clone().must("share the file");
        pgbench.stdout(file).stderr(again);
        Load { process: Owned::spawn(pgbench, Signal::SIGKILL), output, length }
    }
}

impl Load {
    /// Waits for its end.
    ///
    /// # Panics
    /// If it failed, or is not done long after its length.
    #[must_use]
    pub fn wait(mut self) -> LoadReport {
        let deadline = match self.length {
            Length::For(time) => time + Duration::from_secs(60),
            Length::Transactions(_) => Duration::from_secs(600),
        };
        let status = self.process.wait(deadline).must("wait for pgbench in time");
        let text = self.text();
        assert!(status.success(), "pgbench: {text}");
        LoadReport { transactions: committed(&text).must("find the count of transactions"), text }
    }

    /// Waits for its end, however it ends: its server may have been taken away under it.
    pub fn wait_any(mut self, deadline: Duration) {
        self.process.wait(deadline).must("wait for pgbench in time");
    }

    /// Is it still at work?
    pub fn is_running(&mut self) -> bool {
        self.process.ended().is_none()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap_or_default()).into_owned()
    }
}

/// "number of transactions actually processed: 20/20", or without the slash when it ran by time.
fn committed(text: &str) -> Option<u64> {
    let rest = text.split_once("transactions actually processed: ")?.1;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_of_transactions_is_read_in_both_forms() {
        assert_eq!(committed("number of transactions actually processed: 20/20\n"), Some(20));
        assert_eq!(committed("x\nnumber of transactions actually processed: 317\nlatency"), Some(317));
        assert_eq!(committed("pgbench: error"), None);
    }
}
