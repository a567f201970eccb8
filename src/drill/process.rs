//! Processes, told apart by more than their number: by when they started, and where they work.
//!
//! What always holds: a number alone is never believed, it is given again. Who is ended works in the directory that is cleared, and was looked at right before.
//! Source: proc(5), `/proc/pid/stat` field 22 and `/proc/pid/cwd`.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How long a server is given to end at once, and then to be ended.
const PATIENCE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it started, in ticks since the machine did.
    pub started: u64,
}

impl Process {
    /// The process of this number, if there is one that has not ended.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Its name stands in brackets, and may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        (state != "Z" && state != "X").then_some(Self { pid, started })
    }

    /// Whether it is still there.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// This process.
pub fn this() -> Option<Process> {
    Process::of(i32::try_from(std::process::id()).ok()?)
}

/// The machine's start, by its own random name.
pub fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned())
}

/// Those that work in a directory or below it, and may be looked at by this user.
pub fn all_in(directory: &Path) -> Vec<Process> {
    let Ok(directory) = directory.canonicalize() else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let me = this();
    let works_there = |pid: i32| {
        let process = Process::of(pid)?;
        let works = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        works.starts_with(&directory).then_some(process)
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(works_there).filter(|process| Some(*process) != me).collect()
}

/// Ends all that work in a directory: as a server is told to end at once, and then for good. How many there were.
///
/// # Errors
/// In words, when one does not end.
#[allow(clippy::disallowed_methods)] // on a thread for blocking work: the processes are no children of ours, so there is nothing to wait on
pub fn end_all_in(directory: &Path) -> Result<usize, String> {
    let mut ended = std::collections::BTreeSet::new();
    for signal in [Signal::SIGQUIT, Signal::SIGKILL] {
        let deadline = Instant::now() + PATIENCE;
        let mut told = std::collections::BTreeSet::new();
        loop {
            let there = all_in(directory);
            if there.is_empty() {
                return Ok(ended.len());
            }
            for process in there {
                ended.insert((process.pid, process.started));
                // Once each: a second one could reach what a server's end still has to do.
                if told.insert((process.pid, process.started)) && process.is_alive() {
                    let _gone_meanwhile = kill(Pid::from_raw(process.pid), signal);
                }
            }
            if Instant::now() > deadline {
                break;
            }
            std::thread::sleep(LOOK);
        }
    }
    Err(format!("processes in {} do not end", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_when_it_started() {
        let me = this().unwrap();
        assert!(me.is_alive());
        assert!(!Process { started: me.started + 1, ..me }.is_alive());
        let mut child = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let process = Process::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(process.is_alive() && process.started >= me.started);
        child.kill().unwrap();
        // One that has ended and was not waited for is not alive.
        let end = Instant::now() + Duration::from_secs(20);
        while process.is_alive() {
            assert!(Instant::now() < end);
        }
        child.wait().unwrap();
        assert_eq!(Process::of(i32::MAX), None);
    }
}
