//! Running a rule's program.
//!
//! What always holds: it is run without a shell, in a group of its own that is ended as a whole when the program has ended, when its time is
//! over, and when the service stops; it is given nothing of the service's secrets; what it prints goes nowhere.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use farshore_journal::DatabaseName;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether a program has ended.
const LOOK: Duration = Duration::from_millis(50);

/// What of the service's environment a program is given.
const KEPT: [&str; 5] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ"];

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// By itself, and well.
    Well,
    /// By itself, and not well, in words.
    Badly(String),
    /// Its time was over.
    Late,
    /// The service stops.
    Stopped,
}

/// Why a program is run.
#[derive(Debug, Clone, Copy)]
pub struct Because<'a> {
    /// Of which database.
    pub database: &'a DatabaseName,
    /// By which rule.
    pub rule: &'a str,
    /// What was measured.
    pub why: &'a str,
}

/// Its whole group, ended when this is dropped. The group's number is its leader's, who is not waited for before: it cannot be given again.
struct Group {
    child: Child,
}

impl Group {
    fn end(&self) {
        let leader = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(leader) = leader {
            let _gone_already = killpg(Pid::from_raw(leader), Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs a program to its end, or until `timeout` or the service's stop.
pub async fn run(
    (program, arguments): (&Path, &[String]),
    because: Because<'_>,
    timeout: Duration,
    cancel: &CancellationToken,
) -> Ended {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.current_dir("/").process_group(0).kill_on_drop(true);
    // Passwords and credentials stand there, under whatever names stores and databases have for them.
    command.env_clear();
    for name in KEPT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.env("FARSHORE_DATABASE", because.database.as_str());
    command.env("FARSHORE_RULE", because.rule).env("FARSHORE_WHY", because.why);
    let mut group = match command.spawn() {
        Ok(child) => Group { child },
        Err(why) => return Ended::Badly(why.to_string()),
    };
    tokio::select! {
        ended = leader_ended(&group.child) => {
            // Before it is waited for: until then its number is its own.
            group.end();
            let status = match ended {
                Ok(()) => group.child.wait().await,
                Err(why) => Err(why),
            };
            match status {
                Ok(status) if status.success() => Ended::Well,
                Ok(status) => Ended::Badly(status.to_string()),
                Err(why) => Ended::Badly(why.to_string()),
            }
        }
        () = tokio::time::sleep(timeout) => Ended::Late,
        () = cancel.cancelled() => Ended::Stopped,
    }
}

/// Waits until a child has ended, and leaves it to be waited for.
async fn leader_ended(child: &Child) -> std::io::Result<()> {
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) else { return Ok(()) };
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    loop {
        match waitid(Id::Pid(Pid::from_raw(id)), flags)? {
            WaitStatus::StillAlive => tokio::time::sleep(LOOK).await,
            _ => return Ok(()),
        }
    }
}
