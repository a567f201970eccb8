//! Where the demo plays: a folder of its own, the shop, the service, and the commands that are typed.
//!
//! What always holds: what was started ends when the [`Stage`] goes, and its folder is removed, unless it was left. The shop is a process of
//! its own, as an application is: nobody else of the demo opens its database.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use farshore_engines::sqlite::sample;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::LOOK;

/// The word by which this program is told to be the sample application, as a process of its own.
pub const SAMPLE: &str = "sample-shop";
/// Behind it: takes orders until it is ended, with nobody to tell it anything.
pub const ALONE: &str = "alone";

const CONFIGURATION: &str = "[stores.main]
url = \"file:store\"

[databases.shop]
engine = \"sqlite\"
path = \"shop.db\"
stores = [\"main\"]

[service]
listen = \"127.0.0.1:0\"
";

/// How long the service may need to end.
const END: Duration = Duration::from_secs(10);

/// The folder and what runs in it.
pub struct Stage {
    program: PathBuf,
    service: Option<Child>,
    standby: Option<Child>,
    keep: bool,
    /// Last: it goes when nothing runs in it any more.
    folder: Folder,
}

/// Removed when it goes.
struct Folder {
    path: PathBuf,
    left: bool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.left {
            // A process that was killed may be writing still. What cannot be removed is in the system's folder for what is temporary.
            let _ = (0..20).any(|_| {
                let gone = std::fs::remove_dir_all(&self.path).is_ok();
                if !gone {
                    std::thread::park_timeout(Duration::from_millis(50));
                }
                gone
            });
        }
    }
}

impl Stage {
    /// An empty one.
    ///
    /// # Errors
    /// When there can be no folder.
    pub fn new(keep: bool) -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("farshore-demo-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        let folder = Folder { path, left: false };
        std::fs::create_dir(folder.path.join("store"))?;
        Ok(Self { program: std::env::current_exe()?, service: None, standby: None, keep, folder })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder.path
    }

    /// Writes the configuration; its text.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn configure(&self) -> anyhow::Result<String> {
        std::fs::write(self.folder.path.join("farshore.toml"), CONFIGURATION)?;
        Ok(CONFIGURATION.to_owned())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(&self.folder.path).env_remove("FARSHORE_CONFIG");
        command.stdin(Stdio::null()).kill_on_drop(!self.keep);
        // What is typed at the demo's terminal is the demo's to answer.
        command.process_group(0);
        command
    }

    /// Starts `farshore run`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_service(&mut self) -> anyhow::Result<()> {
        self.service = Some(self.beside(&["-v", "run"], "run.log")?);
        Ok(())
    }

    /// Starts `farshore standby run`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_standby(&mut self) -> anyhow::Result<()> {
        self.standby = Some(self.beside(&["standby", "run", "shop", "--to", "standby"], "standby.log")?);
        Ok(())
    }

    /// Starts what runs beside the commands.
    fn beside(&self, arguments: &[&str], log: &str) -> anyhow::Result<Child> {
        let log = File::create(self.folder.path.join(log))?;
        let mut command = self.command(arguments);
        command.stdout(log.try_clone()?).stderr(log);
        Ok(command.spawn()?)
    }

    /// What a command says.
    ///
    /// # Errors
    /// With what it said when it fails.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let done = self.command(arguments).output().await?;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        match done.status.success() {
            true => Ok(said),
            false => anyhow::bail!(
                "`farshore {}` failed:\n{said}{}{}",
                arguments.join(" "),
                String::from_utf8_lossy(&done.stderr),
                self.service_said()
            ),
        }
    }

    /// The end of what the service said.
    fn service_said(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path.join("run.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("the service said last:\n{}", lines[lines.len().saturating_sub(10)..].join("\n"))
    }

    /// Waits until the shop's status is so.
    ///
    /// # Errors
    /// When it never is.
    pub async fn wait(
        &self,
        patience: Duration,
        what: &str,
        is: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            // Before the first look of the service's there is no status.
            let status = self.run(&["-o", "json", "status", "shop"]).await;
            let status = status.ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
            if status.is_some_and(|status| is(&status["items"][0])) {
                return Ok(());
            }
            if Instant::now() > deadline {
                anyhow::bail!("{what} did not come\n{}", self.service_said());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends what runs, as services are ended.
    pub async fn close(&mut self) {
        for mut one in [self.standby.take(), self.service.take()].into_iter().flatten() {
            if let Some(id) = one.id().and_then(|id| i32::try_from(id).ok()) {
                // One that has ended already is not there to be told.
                let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
            }
            if tokio::time::timeout(END, one.wait()).await.is_err() {
                let _ = one.kill().await;
            }
        }
    }

    /// How many orders a copy holds, and when the last one was placed.
    ///
    /// # Errors
    /// When it is no copy of the shop.
    pub async fn orders_in(&self, copy: &str, is_written: bool) -> anyhow::Result<(u64, String)> {
        let copy = self.folder.path.join(copy);
        Ok(tokio::task::spawn_blocking(move || sample::orders_in(&copy, is_written)).await??)
    }

    /// Waits until the standby's copy holds so many orders.
    ///
    /// # Errors
    /// When it never does.
    pub async fn standby_has(&self, patience: Duration, orders: Range<u64>) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            // While it is being made there is no copy.
            let found = self.orders_in("standby/shop.db", true).await;
            match found {
                Ok((found, _)) if orders.contains(&found) => return Ok(()),
                found if Instant::now() > deadline => anyhow::bail!("the standby did not follow: {found:?}"),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Leaves it as it is, running; how it is ended.
    ///
    /// # Errors
    /// When the shop cannot be left alone.
    pub fn leave(&mut self) -> anyhow::Result<String> {
        self.folder.left = true;
        let mut alone = self.command(&[SAMPLE, "shop.db", ALONE]);
        let alone = alone.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let id = |child: Option<Child>| child.and_then(|child| child.id());
        let ids = [id(self.service.take()), id(self.standby.take()), alone.id()];
        let ids: Vec<String> = ids.into_iter().flatten().map(|id| id.to_string()).collect();
        let place = self.folder.path.display();
        Ok(format!(
            "All of it goes on: `cd {place}` and type any of these commands.\nTo end it: kill {} && sleep 3 && rm -r {place}\n",
            ids.join(" ")
        ))
    }
}

/// The sample application.
pub struct Shop {
    child: Child,
    told: ChildStdin,
    says: Lines<BufReader<ChildStdout>>,
}

/// What it answers.
#[derive(Debug, Deserialize)]
pub struct Answer {
    /// Orders that it holds.
    pub orders: u64,
    /// When it was asked, RFC 3339.
    pub at: String,
}

impl Shop {
    /// Makes its database and opens it.
    ///
    /// # Errors
    /// When it cannot be made or started.
    pub async fn open(stage: &Stage) -> anyhow::Result<Self> {
        let path = stage.folder().join("shop.db");
        tokio::task::spawn_blocking(move || sample::make(&path)).await??;
        let mut command = stage.command(&[SAMPLE, "shop.db"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let (Some(told), Some(says)) = (child.stdin.take(), child.stdout.take()) else {
            anyhow::bail!("the shop cannot be spoken to");
        };
        Ok(Self { child, told, says: BufReader::new(says).lines() })
    }

    /// Tells it something; its answer.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn told(&mut self, what: &str) -> anyhow::Result<Answer> {
        self.told.write_all(format!("{what}\n").as_bytes()).await?;
        match tokio::time::timeout(super::SOON, self.says.next_line()).await?? {
            Some(line) => Ok(serde_json::from_str(&line)?),
            None => anyhow::bail!("the shop ended: {:?}", self.child.try_wait()),
        }
    }

    /// It closes.
    ///
    /// # Errors
    /// When it does not.
    pub async fn close(self) -> anyhow::Result<()> {
        let Self { mut child, told, says } = self;
        drop((told, says));
        tokio::time::timeout(END, child.wait()).await??;
        Ok(())
    }
}
