//! A process of the demo's. It ends with its owner, unless it is left.

use std::io;
use std::process::Output;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// How long one may need to end once it was asked to.
pub(super) const END: Duration = Duration::from_secs(20);

/// One that was started.
pub(super) struct Process {
    child: Child,
    ending: Ending,
    left: bool,
}

/// How one is ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    /// What it is sent when there is time.
    pub ask: Signal,
    /// What it is sent when nobody can wait for it.
    pub last: Signal,
}

impl Ending {
    /// Of what ends in order when it is asked to, and loses nothing when it is not.
    pub(super) const SERVICE: Self = Self { ask: Signal::SIGTERM, last: Signal::SIGKILL };
    /// Of what has processes of its own, which it ends by itself: nothing may be sent that it cannot answer.
    pub(super) const PARENT: Self = Self { ask: Signal::SIGTERM, last: Signal::SIGTERM };
    /// Of PostgreSQL's server: its fast and its immediate shutdown. Killed, it would leave shared memory behind.
    pub(super) const POSTMASTER: Self = Self { ask: Signal::SIGINT, last: Signal::SIGQUIT };
}

impl Process {
    /// Starts one.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(mut command: Command, ending: Ending) -> io::Result<Self> {
        // What is typed at the demo's terminal is the demo's to answer.
        let child = command.process_group(0).spawn()?;
        Ok(Self { child, ending, left: false })
    }

    /// The pipes to it and from it.
    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// What it said when it has ended.
    ///
    /// # Errors
    /// When it cannot be heard.
    pub(super) async fn output(&mut self) -> io::Result<Output> {
        let (out, complaints) = (self.child.stdout.take(), self.child.stderr.take());
        let (stdout, stderr, status) = tokio::try_join!(heard(out), heard(complaints), self.child.wait())?;
        Ok(Output { status, stdout, stderr })
    }

    /// Whether it has ended, and how, for people.
    pub(super) fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }

    /// Asks it to end and waits for that; when it does not, it is ended.
    pub(super) async fn end(mut self) {
        self.signal(self.ending.ask);
        if tokio::time::timeout(END, self.child.wait()).await.is_err() {
            // What it leaves behind then is its own.
            let _ = self.child.kill().await;
        }
    }

    /// Asks it to end.
    pub(super) fn ask(&self) {
        self.signal(self.ending.ask);
    }

    /// Its id while it runs, and what it is to be sent to end.
    pub(super) fn told_to_end(&self) -> Option<(u32, Signal)> {
        Some((self.child.id()?, self.ending.ask))
    }

    /// Lets it run on by itself.
    pub(super) fn leave(mut self) {
        self.left = true;
    }

    /// The id is asked of the child each time: one that was waited for has none, so no stranger is hit.
    fn signal(&self, signal: Signal) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // One that has ended already is not there to be told.
            let _ = kill(Pid::from_raw(id), signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.left {
            self.signal(self.ending.last);
        }
    }
}

async fn heard(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}
