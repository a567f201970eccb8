//! One running (or stopped) PostgreSQL server and its folder.
//!
//! The postmaster is a direct child of the test, not a daemon: its pid is ours for as long as we have not reaped it,
//! so stop, crash and restart can never meet a stranger's process. Port and socket are given on the command line, so a
//! data directory copied elsewhere starts under another server without a change to its files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::builder::append;
use super::clock::Clock;
use super::{Builder, Major};
use crate::must::Must;
use crate::ports::Port;
use crate::process::{self, Owned, wait_for};
use crate::user;

/// Until a server answers or ends: much, for a loaded machine and a crash recovery.
const START: Duration = Duration::from_secs(60);
/// Until a stopped server is gone. Fast and smart stops wait for replicas to take the last WAL.
const STOP: Duration = Duration::from_secs(60);

/// How to stop. Source: PostgreSQL manual, "Shutting Down the Server".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// SIGINT: ends sessions, writes a shutdown checkpoint, waits for walsenders to be caught up.
    Fast,
    /// SIGTERM: waits for all sessions to end by themselves.
    Smart,
    /// SIGQUIT: stops at once, without a checkpoint; the next start recovers.
    Immediate,
}

/// A PostgreSQL server of this test, stopped and removed on drop.
#[derive(Debug)]
pub struct Server {
    // Dropped in this order: the process before its files and its port.
    postmaster: Mutex<Option<Owned>>,
    major: Major,
    data: PathBuf,
    folder: TempDir,
    port: Port,
    scram: Option<(String, String)>,
    tls: bool,
    clock: Option<Clock>,
}

impl Server {
    /// A cluster to be made.
    #[must_use]
    pub fn builder(major: Major) -> Builder {
        Builder::new(major)
    }

    /// A new cluster with the kit's defaults, started.
    #[must_use]
    pub fn start_new(major: Major) -> Self {
        Self::builder(major).start()
    }

    /// A server for an existing data directory, such as a restored one: nothing is started, and no file is changed but
    /// owner and mode. It listens at a port of its own, whatever the directory's settings say. The directory stays
    /// on drop: it is not ours.
    #[must_use]
    pub fn on_data_dir(major: Major, data: &Path) -> Self {
        use std::os::unix::fs::PermissionsExt;
        user::give(data);
        // PostgreSQL refuses a data directory that others may write to.
        std::fs::set_permissions(data, PermissionsExt::from_mode(0o700))
            .must(format_args!("protect {}", data.display()));
        Self::new(major, user::tempdir(), data.to_owned(), None, false)
    }

    pub(super) fn make_clock_shiftable(&mut self) {
        let clock = Clock::new(self.folder.path());
        self.clock = Some(clock);
    }

    /// Shifts the server's clock against the machine's by so many seconds: every process of it sees it at its next look.
    ///
    /// # Panics
    /// If it was not built with a [shiftable clock](Builder::shiftable_clock).
    pub fn shift_clock(&self, seconds: i64) {
        self.clock.as_ref().must("a shiftable clock").shift(seconds);
    }

    pub(super) fn new(
        major: Major,
        folder: TempDir,
        data: PathBuf,
        scram: Option<(String, String)>,
        tls: bool,
    ) -> Self {
        let sockets = folder.path().join("s");
        std::fs::create_dir_all(&sockets).must("make the socket folder");
        user::give(&sockets);
        Self {
            postmaster: Mutex::new(None),
            major,
            data,
            folder,
            port: Port::reserve(),
            scram,
            tls,
            clock: None,
        }
    }

    /// Starts it and waits until it takes connections.
    ///
    /// # Panics
    /// If it runs already, ends, or does not answer in time; with its log.
    pub fn start(&self) {
        let what = match self.try_start() {
            Ok(()) => return,
            Err(what) => what,
        };
        panic!("{what}; its log ends:\n{}", self.log_tail());
    }

    /// As [`Server::start`], for tests in which a server may refuse to start. The error says how it ended.
    ///
    /// # Errors
    /// If the postmaster ended, or did not answer in time (it is then stopped).
    pub fn try_start(&self) -> Result<(), String> {
        let mut slot = self.slot();
        assert!(slot.is_none(), "PostgreSQL {} runs already", self.major);
        let log = File::options().create(true).append(true).open(self.log_path()).must("open the log");
        let mut command = Command::new(self.major.bin().join("postgres"));
        command
            .arg("-D")
            .arg(&self.data)
            .args(["-c", "listen_addresses=127.0.0.1", "-c", &format!("port={}", self.port())])
            .args(["-c", &format!("unix_socket_directories={}", self.socket_dir().display())])
            .args(["-c", "logging_collector=off", "-c", "log_destination=stderr"])
            .stdout(log.try_clone().must("share the log"))
            .stderr(log);
        if let Some(clock) = &self.clock {
            clock.wind(&mut command);
        }
        let mut postmaster = Owned::spawn(user::run_as(command), Signal::SIGQUIT);
        let answer = wait_for(START, || {
            if let Some(status) = postmaster.ended() {
                return Some(Err(format!("PostgreSQL {} ended at start with {status}", self.major)));
            }
            self.says_ready(postmaster.id()).then_some(Ok(()))
        });
        let answer = answer
            .unwrap_or_else(|| Err(format!("PostgreSQL {} did not answer within {START:?}", self.major)));
        if answer.is_ok() {
            *slot = Some(postmaster);
        } else {
            end(&mut postmaster);
        }
        answer
    }

    /// Stops it and waits until it is gone. Nothing happens if it is not running.
    ///
    /// # Panics
    /// If it is not gone in time; it is then killed first.
    pub fn stop(&self, mode: Mode) {
        let mut slot = self.slot();
        let Some(mut postmaster) = slot.take() else { return };
        postmaster.signal(match mode {
            Mode::Fast => Signal::SIGINT,
            Mode::Smart => Signal::SIGTERM,
            Mode::Immediate => Signal::SIGQUIT,
        });
        if postmaster.wait(STOP).is_none() {
            end(&mut postmaster);
            panic!(
                "PostgreSQL {} was not stopped by {mode:?} within {STOP:?}:\n{}",
                self.major,
                self.log_tail()
            );
        }
    }

    /// A fast stop and a start.
    pub fn restart(&self) {
        self.stop(Mode::Fast);
        self.start();
    }

    /// As if the machine's power failed for the server alone: every process of it is gone at once, no shutdown code
    /// runs. What the kernel has been given stays, as the machine itself lives on.
    pub fn kill9(&self) {
        let mut slot = self.slot();
        let Some(mut postmaster) = slot.take() else { return };
        // Stopped first, or it would answer its children's death with a crash recovery of its own.
        postmaster.signal(Signal::SIGSTOP);
        let children = postmaster.children();
        for child in &children {
            process::kill_hard(*child);
        }
        end(&mut postmaster);
        // A child that lingers would hold the shared memory, and the next start would refuse.
        let gone = wait_for(STOP, || {
            children
                .iter()
                .all(|child| process::stat(*child).is_none_or(|(state, _)| state == 'Z'))
                .then_some(())
        });
        assert!(gone.is_some(), "processes of PostgreSQL {} outlived SIGKILL", self.major);
    }

    /// Makes a standby a primary, and waits until it is.
    pub fn promote(&self) {
        let promoted = self.sql("select pg_promote(true, 60)");
        assert_eq!(promoted, "t", "PostgreSQL {} was not promoted:\n{}", self.major, self.log_tail());
    }

    /// Does the postmaster live?
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.slot().as_mut().is_some_and(|postmaster| postmaster.ended().is_none())
    }

    /// Waits until the postmaster has ended by itself, as `recovery_target_action = shutdown` makes it.
    ///
    /// # Panics
    /// If it has not by `deadline`.
    pub fn wait_end(&self, deadline: Duration) {
        let mut slot = self.slot();
        if let Some(postmaster) = slot.as_mut()
            && postmaster.wait(deadline).is_none()
        {
            panic!("PostgreSQL {} still runs after {deadline:?}:\n{}", self.major, self.log_tail());
        }
        *slot = None;
    }

    /// Waits until the log holds `text`.
    ///
    /// # Panics
    /// If it does not by `deadline`.
    pub fn wait_log(&self, text: &str, deadline: Duration) {
        let found = wait_for(deadline, || self.log().contains(text).then_some(()));
        assert!(found.is_some(), "no {text:?} in the log of PostgreSQL {}:\n{}", self.major, self.log_tail());
    }

    /// Adds a line to `postgresql.conf`; [`Server::reload`] or a restart makes it count.
    pub fn conf(&self, line: &str) {
        append(&self.data.join("postgresql.conf"), &format!("{line}\n"));
    }

    /// Makes the server read its configuration files again.
    pub fn reload(&self) {
        self.sql("select pg_reload_conf()");
    }

    /// Its major version.
    #[must_use]
    pub fn major(&self) -> Major {
        self.major
    }

    /// The TCP port on 127.0.0.1; the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The folder of the Unix socket.
    #[must_use]
    pub fn socket_dir(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The authority to trust, if the server was built with TLS.
    #[must_use]
    pub fn ca_path(&self) -> Option<PathBuf> {
        self.tls.then(|| self.folder.path().join("ca.pem"))
    }

    /// How a client reaches it over TCP: `postgresql://role[:password]@127.0.0.1:port/postgres`, with `sslmode` and
    /// `sslrootcert` if it was built with TLS.
    #[must_use]
    pub fn url(&self) -> String {
        let who = match &self.scram {
            Some((role, password)) => format!("{role}:{password}"),
            None => "postgres".to_owned(),
        };
        let tls = match self.ca_path() {
            Some(ca) => format!("?sslmode=verify-full&sslrootcert={}", ca.display()),
            None => String::new(),
        };
        format!("postgresql://{who}@127.0.0.1:{}/postgres{tls}", self.port())
    }

    /// All the server has logged, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// A folder of this server's that the unprivileged user owns and that is removed on drop.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The last lines: enough to see why a start failed.
    pub(super) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Source: PostgreSQL's `miscadmin.h`: line 1 of `postmaster.pid` is the pid, line 8 the state; a primary and a
    /// hot standby become "ready", a standby that takes no connections "standby".
    fn says_ready(&self, pid: u32) -> bool {
        let Ok(text) = std::fs::read_to_string(self.data.join("postmaster.pid")) else { return false };
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.first().is_some_and(|first| *first == pid.to_string())
            && matches!(lines.get(7), Some(&"ready" | &"standby"))
    }

    /// A test that panicked elsewhere still wants its server stopped.
    fn slot(&self) -> MutexGuard<'_, Option<Owned>> {
        self.postmaster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        let Some(mut postmaster) = self.slot().take() else { return };
        // Orderly enough that no backend is left behind; SIGKILL follows by itself if this does not help.
        postmaster.signal(Signal::SIGQUIT);
        let _killed_by_drop_otherwise = postmaster.wait(Duration::from_secs(10));
        if failed {
            eprintln!("PostgreSQL {} of the failed test logged last:\n{}", self.major, self.log_tail());
        }
    }
}

/// SIGKILL, and the end of it.
fn end(postmaster: &mut Owned) {
    postmaster.signal(Signal::SIGKILL);
    let _gone = postmaster.wait(STOP);
}
