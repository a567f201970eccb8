//! Child processes that cannot outlive the test that started them.
//!
//! Two ends are covered: an orderly one (drop, or an explicit stop), and the death of the test process itself by a
//! signal, where no drop runs. For the latter every child has a *guard*: a shell that reads from a pipe we never
//! write to. When we die, the kernel closes the pipe, and the guard signals the child. The guard is ended before
//! the child's pid is given back to the kernel, so it can never hit a stranger.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::must::Must;

/// How long to look away between two looks at something that sends no event.
const GLANCE: Duration = Duration::from_millis(10);
const LONG_GLANCE: Duration = Duration::from_millis(300);

/// Asks `look` until it answers or `deadline` has passed; `None` then.
///
/// It blocks its thread, which in a test is what one wants from "wait until the server is up".
pub fn wait_for<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        let begun = Instant::now();
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        // A look that starts a program would keep a core busy, and what is waited for would wait for it.
        std::thread::park_timeout((begun.elapsed() * 3).clamp(GLANCE, LONG_GLANCE));
    }
}

/// Waits blindly for a time that is itself the experiment: when a process is stopped, or how long a database is quiet.
pub fn let_pass(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// A child process of ours, ended on drop (by SIGKILL, unless it was stopped before).
#[derive(Debug)]
pub struct Owned {
    child: Child,
    guard: Child,
}

impl Owned {
    /// Starts `command` without standard input. `last` is the signal that ends it if we die.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(mut command: Command, last: Signal) -> Self {
        let child = command.stdin(Stdio::null()).spawn().must(format_args!("start {command:?}"));
        // Its own process group: a signal sent to the whole test (Ctrl-C, a runner's timeout) must not end it early.
        let mut guard = Command::new("/bin/sh");
        std::os::unix::process::CommandExt::process_group(&mut guard, 0);
        let guard = guard
            .args(["-c", "cat >/dev/null; kill -\"$1\" \"$2\" 2>/dev/null", "farshore-test-guard"])
            .arg((last as i32).to_string())
            .arg(child.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .must("start the guard");
        Self { child, guard }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        // Reaping frees the pid. If it has ended, the guard must be gone first.
        if self.is_zombie() {
            self.dismiss_guard();
        }
        self.child.try_wait().must("ask for the child's state")
    }

    /// Sends a signal; nothing happens if the process has ended.
    pub fn signal(&self, signal: Signal) {
        let _already_gone = kill(self.pid(), signal);
    }

    /// Waits for the end.
    pub fn wait(&mut self, deadline: Duration) -> Option<ExitStatus> {
        wait_for(deadline, || self.ended())
    }

    /// The children of this process, by `/proc`.
    #[must_use]
    pub fn children(&self) -> Vec<u32> {
        let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
        all.flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| stat(*pid).is_some_and(|(_, parent)| parent == self.id()))
            .collect()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    fn is_zombie(&self) -> bool {
        stat(self.id()).is_none_or(|(state, _)| state == 'Z')
    }

    fn dismiss_guard(&mut self) {
        let _already_gone = self.guard.kill();
        let _reaped = self.guard.wait();
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.dismiss_guard();
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// State letter and parent of a process. Source: proc(5), `/proc/pid/stat`: "pid (name) state ppid ...".
pub(crate) fn stat(pid: u32) -> Option<(char, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold blanks and parentheses of its own: what counts starts behind the last one.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Sends SIGKILL to a process that may be gone.
pub(crate) fn kill_hard(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        let _already_gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}
