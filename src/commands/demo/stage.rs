//! Where the demo plays: a folder of its own, what runs in it, and the commands that are typed.
//!
//! What always holds: what was started ends when the [`Stage`] is closed, in order, and when it goes, at once; its folder is removed then,
//! unless it was left. A command that is typed while the demo is told to end is told so too, and waited for: it may have started something.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::unistd::{AccessFlags, Pid, access};
use serde_json::Value;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::folder::Folder;
use super::process::{END, Ending, Process};
use super::{LOOK, SOON};
use crate::exit::Exit;

/// What `init` writes for the service's address, and what the demo puts there: it runs beside a service of this machine's.
const LISTEN: [&str; 2] = ["listen = \"127.0.0.1:7432\"", "listen = \"127.0.0.1:0\""];
/// Lines of a log that an error carries.
const TAIL: usize = 10;
/// The word that ends all of it.
const END_SCRIPT: &str = "end";

/// The folder and what runs in it.
pub(super) struct Stage {
    program: PathBuf,
    /// In the order in which it was started.
    running: Vec<Process>,
    /// Data directories whose server a command starts and leaves running.
    served: Vec<PathBuf>,
    typing: TaskTracker,
    over: CancellationToken,
    /// Last: it goes when nothing runs in it any more.
    folder: Folder,
}

impl Stage {
    /// An empty one.
    ///
    /// # Errors
    /// When there can be no folder.
    pub(super) fn new() -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        std::fs::create_dir(folder.path().join("store"))?;
        Ok(Self {
            program: program()?,
            running: Vec::new(),
            served: Vec::new(),
            typing: TaskTracker::new(),
            over: CancellationToken::new(),
            folder,
        })
    }

    /// Where it is.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A command of this program's, in the folder.
    pub(super) fn farshore(&self, arguments: &[&str]) -> Command {
        self.command(&self.program, arguments)
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder()).env_remove("FARSHORE_CONFIG");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if program == self.program {
            command.arg0("farshore");
        }
        command
    }

    /// Starts what runs beside the commands, and what it says goes into a file; its place among what runs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(
        &mut self,
        program: Option<&Path>,
        arguments: &[&str],
        log: &str,
        ending: Ending,
    ) -> anyhow::Result<usize> {
        let log = File::create(self.folder().join(log))?;
        let mut command = self.command(program.unwrap_or(&self.program), arguments);
        command.stdout(log.try_clone()?).stderr(log);
        self.running.push(Process::start(command, ending)?);
        Ok(self.running.len() - 1)
    }

    /// How something that was started has ended, if it has.
    pub(super) fn ended(&mut self, which: usize) -> Option<String> {
        self.running.get_mut(which).and_then(Process::ended)
    }

    /// A command may leave a PostgreSQL server running in this directory of the folder.
    pub(super) fn may_be_served(&mut self, directory: &str) {
        self.served.push(self.folder().join(directory));
    }

    /// Has `init` write the configuration. What a DBA has to apply, as `init` says it, and the configuration without its comments.
    ///
    /// # Errors
    /// When it does not.
    pub(super) async fn init(
        &self,
        arguments: &[&str],
        more: Option<(&str, String)>,
    ) -> anyhow::Result<(Value, String)> {
        let said = self.run(&[&["-o", "json"], arguments].concat()).await?;
        let path = self.folder().join("farshore.toml");
        let mut text = std::fs::read_to_string(&path)?;
        let more = more.map(|(behind, line)| (behind, format!("{behind}\n{line}")));
        for (was, is) in [(LISTEN[0], LISTEN[1].to_owned())].into_iter().chain(more) {
            anyhow::ensure!(text.contains(was), "init wrote no `{was}` into {}", path.display());
            text = text.replacen(was, &is, 1);
        }
        std::fs::write(&path, &text)?;
        let bare = text.lines().map(|line| line.split("   #").next().unwrap_or(line).trim_end());
        let bare: Vec<&str> = bare.filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        Ok((serde_json::from_str(&said)?, bare.join("\n")))
    }

    /// What a command of this program's says.
    ///
    /// # Errors
    /// With what it said when it fails.
    pub(super) async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.typed(None, arguments).await
    }

    /// What a command says.
    ///
    /// # Errors
    /// With what it said when it fails.
    pub(super) async fn typed(&self, program: Option<&Path>, arguments: &[&str]) -> anyhow::Result<String> {
        let program = program.unwrap_or(&self.program);
        let name = program.file_name().filter(|_| program != self.program).unwrap_or("farshore".as_ref());
        let name = format!("{} {}", name.to_string_lossy(), arguments.join(" "));
        let mut command = self.command(program, arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::start(command, Ending::PARENT)
            .map_err(|why| anyhow::anyhow!("`{}` cannot be started: {why}", program.display()))?;
        let over = self.over.clone();
        let done = self.typing.spawn(async move {
            let done = tokio::select! {
                done = process.output() => Some(done),
                () = over.cancelled() => None,
            };
            if done.is_none() {
                process.end().await;
            }
            done
        });
        let Some(done) = done.await? else { anyhow::bail!("`{name}` was told to end") };
        let done = done?;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        // What says that something is not as it should be is an answer too.
        let told = arguments.contains(&"status") && done.status.code().is_some_and(Exit::is_told);
        match done.status.success() || told {
            true => Ok(said),
            false => anyhow::bail!(
                "`{name}` failed:\n{said}{}{}",
                String::from_utf8_lossy(&done.stderr),
                self.said_last("run.log")
            ),
        }
    }

    /// The end of what something that runs has said.
    pub(super) fn said_last(&self, log: &str) -> String {
        let text = std::fs::read_to_string(self.folder().join(log)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        match lines.len() {
            0 => String::new(),
            all => format!("{log} ends:\n{}", lines[all.saturating_sub(TAIL)..].join("\n")),
        }
    }

    /// Waits until the shop's status is so.
    ///
    /// # Errors
    /// When it never is.
    pub(super) async fn wait(&self, what: &str, is: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + SOON;
        loop {
            // Before the first look of the service's there is no status.
            let status = self.run(&["-o", "json", "status", "shop"]).await;
            let status = status.ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
            if status.is_some_and(|status| is(&status["items"][0])) {
                return Ok(());
            }
            if Instant::now() > deadline {
                anyhow::bail!("{what} did not come\n{}", self.said_last("run.log"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends what runs, as services are ended, and removes the folder.
    ///
    /// # Errors
    /// When the folder cannot be removed.
    pub(super) async fn close(&mut self) -> anyhow::Result<()> {
        self.over.cancel();
        self.typing.close();
        self.typing.wait().await;
        for data in &self.served {
            stop(data).await;
        }
        while let Some(last) = self.running.pop() {
            last.end().await;
        }
        let removed = self.folder.remove().await;
        removed.map_err(|why| anyhow::anyhow!("{} cannot be removed: {why}", self.folder().display()))
    }

    /// Leaves it as it is, running, with the shop alone; how it is ended.
    ///
    /// # Errors
    /// When what ends it cannot be written. Nothing is left then.
    pub(super) fn leave(&mut self, shop: Process) -> anyhow::Result<String> {
        let place = self.folder().display().to_string();
        let served: Vec<_> = self.served.iter().filter_map(|data| postmaster(data)).collect();
        let served = served.into_iter().map(|id| (id.as_raw().unsigned_abs(), Ending::POSTMASTER.ask));
        let running = self.running.iter().rev().filter_map(Process::told_to_end);
        let ends: Vec<String> = shop
            .told_to_end()
            .into_iter()
            .chain(served)
            .chain(running)
            .map(|(id, signal)| format!("end {id} {}\n", signal.as_str().trim_start_matches("SIG")))
            .collect();
        std::fs::write(self.folder().join(END_SCRIPT), ending(&place, &ends.concat()))?;
        shop.leave();
        self.running.drain(..).for_each(Process::leave);
        self.served.clear();
        self.folder.leave();
        Ok(format!("To end it: sh {place}/{END_SCRIPT}\n"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.over.cancel();
        for id in self.served.iter().filter_map(|data| postmaster(data)) {
            // It may have ended by itself.
            let _ = kill(id, Ending::POSTMASTER.last);
        }
        self.running.clear();
    }
}

/// What ends all of it. An id may be a stranger's by then: only what works in the folder is told to end.
fn ending(place: &str, ends: &str) -> String {
    format!(
        "# Ends what `farshore demo --keep` left running in this folder, each waited for, and removes the folder.
place='{place}'
cd /
works() {{
    case $(readlink \"/proc/$1/cwd\") in \"$place\" | \"$place\"/*) ;; *) return 1 ;; esac
}}
end() {{
    works \"$1\" && kill -s \"$2\" \"$1\"
    while works \"$1\"; do sleep 0.1; done
}}
{ends}rm -r \"$place\"
",
        place = place.replace('\'', "'\\''"),
    )
}

/// The program that runs. Whoever became another user may not be allowed to the place where it is; to the program itself he is.
fn program() -> std::io::Result<PathBuf> {
    let named = std::env::current_exe()?;
    Ok(if access(&named, AccessFlags::X_OK).is_ok() { named } else { PathBuf::from("/proc/self/exe") })
}

/// The server of a data directory, if one runs.
fn postmaster(data: &Path) -> Option<Pid> {
    let file = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let id = file.lines().next()?.trim().parse().ok()?;
    // The file may have outlived its server; whoever has the number now works elsewhere.
    works_in(id, data).then(|| Pid::from_raw(id))
}

fn works_in(id: i32, folder: &Path) -> bool {
    std::fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|place| place == folder)
}

/// Stops the server of a data directory, if one runs.
async fn stop(data: &Path) {
    let Some(id) = postmaster(data) else { return };
    for signal in [Ending::POSTMASTER.ask, Ending::POSTMASTER.last] {
        // It may have ended by itself.
        let _ = kill(id, signal);
        let deadline = Instant::now() + END;
        while works_in(id.as_raw(), data) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
