//! A server that has a network of its own, in which there is nothing: not even the machine's loopback.
//!
//! `unshare` of util-linux makes a user and a network namespace and becomes the server, so the process that was started is the postmaster. Nothing needs root. A
//! Unix socket is reached by its path all the same: `unix(7)`, pathname sockets belong to no network namespace.
//! What always holds: which network a server has is read from the running process, never concluded from how it was started. Whether a machine permits it is tried, once for
//! each start: containers and some distributions do not.
//! Source: `unshare(1)`, `user_namespaces(7)`, `network_namespaces(7)`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

const PROGRAM: &str = "unshare";
const ARGUMENTS: [&str; 4] = ["--user", "--map-current-user", "--net", "--"];
/// Where it is looked for: the server's environment is ours, not the caller's.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// It answers at once; one that hangs is no way to start a server.
const DEADLINE: Duration = Duration::from_secs(10);

/// Which network a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// One of its own, without any interface that is up.
    Own,
    /// The machine's. It listens nowhere but on its private socket.
    Machines,
    /// It could not be asked.
    Unknown,
}

/// Whether this machine lets us make such namespaces.
pub(super) async fn is_possible() -> bool {
    let mut command = Command::new(PROGRAM);
    command.args(ARGUMENTS).arg("true").env_clear().env("PATH", PATH);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    matches!(tokio::time::timeout(DEADLINE, command.status()).await, Ok(Ok(status)) if status.success())
}

/// A command that becomes `program`, apart or not. The environment is to be set by the caller, with a `PATH`.
pub(super) fn command(program: &Path, apart: bool) -> Command {
    match apart {
        false => Command::new(program),
        true => {
            let mut command = Command::new(PROGRAM);
            command.args(ARGUMENTS).arg(program);
            command
        }
    }
}

/// The network of a process.
pub(super) fn network_of(pid: u32) -> Network {
    let namespace = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/net")).ok();
    match (namespace("self"), namespace(&pid.to_string())) {
        (Some(ours), Some(its)) if ours != its => Network::Own,
        (Some(_), Some(_)) => Network::Machines,
        _ => Network::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_that_is_apart_is_seen_to_be_and_one_that_is_not_is_not() {
        assert_eq!(network_of(std::process::id()), Network::Machines);
        assert_eq!(network_of(u32::MAX), Network::Unknown);
        if !is_possible().await {
            return;
        }
        let mut command = command(Path::new("/bin/sleep"), true);
        let mut child = command.arg("30").env_clear().env("PATH", PATH).kill_on_drop(true).spawn().unwrap();
        let pid = child.id().unwrap();
        let mut network = network_of(pid);
        for _ in 0..200 {
            // It is in the namespace once it is the program.
            tokio::time::sleep(Duration::from_millis(20)).await;
            network = network_of(pid);
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
            if name.trim() == "sleep" {
                break;
            }
        }
        assert_eq!(network, Network::Own);
        child.kill().await.unwrap();
    }
}
