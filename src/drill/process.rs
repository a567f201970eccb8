//! Processes, told apart by more than their number: by when they started, and where they work.
//!
//! What always holds: a number alone is never believed, it is given again: a signal goes to a handle of the process, and what it works in is looked at
//! behind the opening of that handle. Who is ended works in the directory that is cleared, which is known by an open handle too and not by its name.
//! Source: proc(5), `/proc/pid/stat` field 22 and `/proc/pid/cwd`; pidfd_open(2).

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
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

/// Where an open directory is now, whatever it was opened as.
fn place_of(directory: BorrowedFd<'_>) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok()
}

fn works_in(process: Process, place: &Path) -> bool {
    let works = std::fs::read_link(format!("/proc/{}/cwd", process.pid));
    works.is_ok_and(|works| works.starts_with(place)) && process.is_alive()
}

/// Those that work in a directory or below it, and may be looked at by this user.
fn all_in(place: &Path) -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let me = this();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let others = pids.filter_map(Process::of).filter(|process| Some(*process) != me);
    others.filter(|process| works_in(*process, place)).collect()
}

/// Signals a process, if it is still the one that was seen and works there still. Whatever keeps that from being so, nobody else is signalled.
fn signal(process: Process, place: &Path, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.pid) else { return };
    match pidfd_open(pid, PidfdFlags::empty()) {
        // From here on the handle means one process, and what is seen of its number is seen of that one or of one that came later: then its start differs.
        Ok(handle) if works_in(process, place) => {
            let _gone_meanwhile = pidfd_send_signal(handle.as_fd(), signal);
        }
        // Before Linux 5.3 there is only the number.
        Err(Errno::NOSYS) if works_in(process, place) => {
            let _gone_meanwhile = kill_process(pid, signal);
        }
        Ok(_) | Err(_) => {}
    }
}

/// Those that work in a directory or below it, as far as this user may see.
pub(crate) fn working_in(directory: &Path) -> Vec<Process> {
    all_in(directory)
}

/// Whether a process is a PostgreSQL server's that works in this directory itself; `None` where this user may not see that.
///
/// Source: `ChangeToDataDir` in `miscinit.c`: a server's processes work in its data directory.
pub(crate) fn is_server_in(process: Process, directory: &Path) -> Option<bool> {
    let works = std::fs::read_link(format!("/proc/{}/cwd", process.pid)).ok()?;
    let name = std::fs::read_to_string(format!("/proc/{}/comm", process.pid)).ok()?;
    Some(works == directory && name.trim_end() == "postgres" && process.is_alive())
}

/// Tells a server to stop as `pg_ctl stop -m fast` does, if it is still the one that was seen and works there still, and waits until all that work there have ended. Whether they have.
///
/// Source: <https://www.postgresql.org/docs/current/server-shutdown.html>: SIGINT is the fast stop.
#[allow(clippy::disallowed_methods)] // on a thread for blocking work: the server is no child of ours, so there is nothing to wait on
pub(crate) fn stop_server_in(process: Process, directory: &Path, deadline: Duration) -> bool {
    signal(process, directory, Signal::INT);
    let until = Instant::now() + deadline;
    while process.is_alive() || !all_in(directory).is_empty() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

/// Ends all that work in a directory: as a server is told to end at once, and then for good. How many there were.
///
/// # Errors
/// In words, when one does not end.
#[allow(clippy::disallowed_methods)] // on a thread for blocking work: the processes are no children of ours, so there is nothing to wait on
pub fn end_all_in(directory: BorrowedFd<'_>) -> Result<usize, String> {
    let place = place_of(directory).ok_or("it cannot be told by /proc where the directory is")?;
    let mut ended = std::collections::BTreeSet::new();
    for how in [Signal::QUIT, Signal::KILL] {
        let deadline = Instant::now() + PATIENCE;
        let mut told = std::collections::BTreeSet::new();
        loop {
            let there = all_in(&place);
            if there.is_empty() {
                return Ok(ended.len());
            }
            for process in there {
                ended.insert((process.pid, process.started));
                // Once each: a second one could reach what a server's end still has to do.
                if told.insert((process.pid, process.started)) {
                    signal(process, &place, how);
                }
            }
            if Instant::now() > deadline {
                break;
            }
            std::thread::sleep(LOOK);
        }
    }
    Err(format!("processes in {} do not end", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_process_that_was_seen_and_works_there_still_is_signalled() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().canonicalize().unwrap();
        let sleep =
            |at: &Path| std::process::Command::new("/bin/sleep").arg("100").current_dir(at).spawn().unwrap();
        let (mut inside, mut outside) = (sleep(&place), sleep(Path::new("/")));
        let of = |child: &std::process::Child| Process::of(i32::try_from(child.id()).unwrap()).unwrap();
        let (seen, other) = (of(&inside), of(&outside));
        // A number that was given again, and one that works elsewhere.
        signal(Process { started: seen.started + 1, ..seen }, &place, Signal::KILL);
        signal(other, &place, Signal::KILL);
        assert!(inside.try_wait().unwrap().is_none() && outside.try_wait().unwrap().is_none());
        signal(seen, &place, Signal::KILL);
        assert!(!inside.wait().unwrap().success());
        outside.kill().unwrap();
        outside.wait().unwrap();
    }

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
