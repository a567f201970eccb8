//! The sample application: a process of its own, as an application is. Nobody else of the demo opens its database while it writes.

use std::io;
use std::path::Path;
use std::process::{ExitCode, Stdio};

use farshore_engines::{postgres, sqlite};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};

use super::process::{Ending, Process};
use super::stage::Stage;

/// The word by which this program is told to be the sample application. Behind it stand an engine and where the database is.
pub const SAMPLE: &str = "sample-shop";
/// Behind these: takes orders until it is ended, with nobody to tell it anything.
const ALONE: &str = "alone";
/// What it complains of.
const LOG: &str = "shop.log";

/// Is the sample application, as the words behind [`SAMPLE`] say.
pub fn be(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match words.as_slice() {
        // Nobody tells it anything, and this never ends.
        [words @ .., ALONE] => run(words, io::BufReader::new(Silence), io::sink()),
        words => run(words, io::BufReader::new(io::stdin()), io::stdout()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Nobody may be listening; the exit code still tells.
            let _ = io::Write::write_all(&mut io::stderr(), format!("the shop ends: {why}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str], input: impl io::BufRead + Send + 'static, output: impl io::Write) -> io::Result<()> {
    match words {
        ["sqlite", path] => sqlite::sample::run(Path::new(path), input, output),
        ["postgres", sockets, port] => {
            let port = port.parse().map_err(io::Error::other)?;
            postgres::sample::run(Path::new(sockets), port, input, output)
        }
        _ => Err(io::Error::other("no such shop")),
    }
}

/// Says nothing for ever.
struct Silence;

impl io::Read for Silence {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        loop {
            std::thread::park();
        }
    }
}

/// The sample application.
pub(super) struct Shop {
    process: Process,
    told: ChildStdin,
    says: Lines<BufReader<ChildStdout>>,
}

/// What it answers.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    /// Orders that it holds.
    pub orders: u64,
    /// When it was asked, RFC 3339.
    pub at: String,
}

impl Shop {
    /// Opens it, where its database is.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn open(stage: &Stage, place: &[&str]) -> anyhow::Result<Self> {
        let mut command = stage.farshore(&[&[SAMPLE], place].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(stage.folder().join(LOG))?);
        let mut process = Process::start(command, Ending::SERVICE)?;
        let child = process.child();
        let (Some(told), Some(says)) = (child.stdin.take(), child.stdout.take()) else {
            anyhow::bail!("the shop cannot be spoken to");
        };
        Ok(Self { process, told, says: BufReader::new(says).lines() })
    }

    /// Starts it with nobody to tell it anything.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn alone(stage: &Stage, place: &[&str]) -> anyhow::Result<Process> {
        let mut command = stage.farshore(&[&[SAMPLE], place, &[ALONE]].concat());
        command.stderr(std::fs::File::create(stage.folder().join(LOG))?);
        Ok(Process::start(command, Ending::SERVICE)?)
    }

    /// Tells it something; its answer.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) async fn told(&mut self, stage: &Stage, what: &str) -> anyhow::Result<Answer> {
        let said = async {
            self.told.write_all(format!("{what}\n").as_bytes()).await?;
            tokio::time::timeout(super::SOON, self.says.next_line()).await?
        };
        match said.await {
            Ok(Some(line)) => Ok(serde_json::from_str(&line)?),
            Ok(None) => anyhow::bail!("the shop ended\n{}", stage.said_last(LOG)),
            Err(why) => anyhow::bail!("the shop does not answer: {why}\n{}", stage.said_last(LOG)),
        }
    }

    /// It closes.
    ///
    /// # Errors
    /// When it does not.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        let Self { mut process, told, says } = self;
        drop((told, says));
        tokio::time::timeout(super::process::END, process.output()).await??;
        Ok(())
    }
}
