//! Starts a restored server and believes only what it answers itself.
//!
//! What always holds:
//! - `Ok` means the server answered, over its private socket, that it is paused at exactly the promised end; only
//!   then is it promoted or stopped, if that was asked. It is never open for writes before that proof;
//! - after promotion the new timeline's history file names the promised end as the point it left its parent;
//! - on any error, and when the call is dropped, the server is stopped.
//!
//! The configuration therefore always says `recovery_target_action = pause`: with `promote` or `shutdown` the server
//! would act first and could be asked later, or never.
//!
//! A crash of ours leaves the server running and paused, or opened as asked; its process group is its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use farshore_journal::{Offset, Timeline};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;

use super::control::{ClusterState, ControlError, ControlFile, Limits};
use super::safe_start::{RecoveryTarget, Then};
use super::watch::{Evidence, Stillness};

mod apart;
mod questions;
mod verdict;

pub use apart::Network;
use questions::Questions;
pub use verdict::{Answer, Ending};
use verdict::{Verdict, ending, last_switch, verdict};

/// Between two looks: short against a replay, long against a look's cost.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// For a stop with its last checkpoint.
const STOP_DEADLINE: Duration = Duration::from_secs(120);
/// Lines and bytes of the server's messages that an error carries.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 64 << 10;

/// How to start.
#[derive(Debug, Clone)]
pub struct Start {
    /// The program folder, from [`super::bin::find`].
    pub bin: PathBuf,
    /// The restored directory, after [`super::install`].
    pub data: PathBuf,
    /// The private socket directory of the plan; the server's messages go to `postgres.log` in it.
    pub socket_dir: PathBuf,
    /// The port of the plan.
    pub port: u16,
    /// A superuser of the restored data.
    pub user: String,
    /// A database to connect to.
    pub database: String,
    /// User and group ids for the server. Only root can say so; `None` runs it as ourselves.
    pub run_as: Option<(u32, u32)>,
    /// The plan's target.
    pub target: RecoveryTarget,
    /// What to do there.
    pub then: Then,
    /// The plan's limits.
    pub limits: Limits,
    /// How long nothing may move.
    pub stall: Duration,
    /// In a network namespace of its own, where this machine lets us make one: [`RunningServer::network`] says what came of it.
    pub apart: bool,
}

/// How far it is; told at each look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Not yet consistent: no answers.
    Starting,
    /// Replayed up to here.
    Replayed(Offset),
    /// At the target, being opened.
    Opening,
}

/// The end of a start.
#[derive(Debug)]
pub enum Reached {
    /// Read-only and paused.
    Paused(RunningServer),
    /// Open for writes on this timeline.
    Promoted(RunningServer, Timeline),
    /// Verified, then stopped.
    ShutDown,
}

/// Why the promised end was not reached.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// PostgreSQL refuses root.
    #[error("PostgreSQL does not run as root: run this as the user that shall own the restored database")]
    Root,
    /// The label is gone.
    #[error("`backup_label` is missing from `{data}`: the server would start, and be silently corrupt", data = data.display())]
    BackupLabelMissing {
        /// The directory.
        data: PathBuf,
    },
    /// Others could enter the socket's directory, where `trust` holds.
    #[error("`{path}` must be a directory of mode 0700", path = path.display())]
    SocketDirOpen {
        /// The directory.
        path: PathBuf,
    },
    /// The control file cannot be believed.
    #[error("the restored control file is damaged")]
    Control(#[from] ControlError),
    /// The operating system refused.
    #[error("cannot {what}")]
    Io {
        /// The operation.
        what: &'static str,
        /// Its answer.
        #[source]
        source: std::io::Error,
    },
    /// The server ended by itself.
    #[error("the server ended before the target ({ending:?}); its last messages:\n{messages}")]
    Ended {
        /// Named, where its messages do.
        ending: Ending,
        /// The last lines.
        messages: String,
        /// Its control file at the end, for a new plan when the limits were too small.
        control: Option<Box<ControlFile>>,
    },
    /// Replay paused somewhere else.
    #[error("replay paused at {at:?}, not at {promised}; the log demands {demanded:?}")]
    PausedElsewhere {
        /// Where.
        at: Option<Offset>,
        /// Where it should have.
        promised: Offset,
        /// The limits the log demands by now, when they exceed the plan's: plan again with them.
        demanded: Option<Limits>,
    },
    /// More was replayed than promised.
    #[error("replay went to {at}, beyond the promised {promised}")]
    Overshot {
        /// To where.
        at: Offset,
        /// Where it should have ended.
        promised: Offset,
    },
    /// It opened before the proof.
    #[error("the server opened for writes before it was seen at {promised}: discard this copy")]
    Opened {
        /// Where it should have paused.
        promised: Offset,
    },
    /// Promotion left the old timeline elsewhere.
    #[error(
        "the promoted server is on timeline {timeline}, which left its parent at {switch:?}, not at {promised}"
    )]
    SwitchElsewhere {
        /// The new timeline.
        timeline: Timeline,
        /// Parent and position in its history.
        switch: Option<(Timeline, Offset)>,
        /// Where it should have left.
        promised: Offset,
    },
    /// Nothing moved.
    #[error("nothing moved for {seconds} s at {at:?}; the server's last messages:\n{messages}")]
    Stalled {
        /// For how long.
        seconds: u64,
        /// The last answer.
        at: Option<Offset>,
        /// The last lines.
        messages: String,
    },
    /// The server answers, but not to us.
    #[error("the server refused the connection as `{user}` to `{database}`")]
    Refused {
        /// The role.
        user: String,
        /// The database.
        database: String,
        /// Its answer.
        #[source]
        source: tokio_postgres::Error,
    },
    /// It did not stop.
    #[error("the server did not stop")]
    NotStopped,
}

fn io(what: &'static str) -> impl Fn(std::io::Error) -> ServerError {
    move |source| ServerError::Io { what, source }
}

/// A server we started. Dropped without [`RunningServer::leave`] or [`RunningServer::stop`], it is stopped at once.
#[derive(Debug)]
pub struct RunningServer {
    child: Child,
    log: PathBuf,
    left: bool,
}

impl RunningServer {
    /// Its postmaster's process id, while it lives.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Which network it has, asked of the running process.
    pub fn network(&self) -> Network {
        self.pid().map_or(Network::Unknown, apart::network_of)
    }

    /// The last of its messages.
    pub fn messages(&self) -> String {
        tail(&self.log)
    }

    /// Lets it run on by itself; its process id.
    pub fn leave(mut self) -> Option<u32> {
        self.left = true;
        self.child.id()
    }

    /// Stops it: sessions end, a last checkpoint is written.
    ///
    /// # Errors
    /// When it does not stop; it is then ended the hard way, and recovers at its next start.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        self.signal(Signal::SIGINT);
        if tokio::time::timeout(STOP_DEADLINE, self.child.wait()).await.is_ok() {
            return Ok(());
        }
        self.signal(Signal::SIGQUIT);
        let ended = tokio::time::timeout(STOP_DEADLINE, self.child.wait()).await;
        ended.map_err(|_| ServerError::NotStopped)?.map(drop).map_err(io("wait for the server"))
    }

    /// The id is asked of the child each time: a reaped one has none, so no stranger is hit.
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may end by itself in between; then there is nothing to signal.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        if !self.left {
            self.signal(Signal::SIGQUIT);
        }
    }
}

/// Starts the server, waits until it stands at exactly the target, and does what was asked.
///
/// # Errors
/// Whenever that is not proved. The server is then stopped.
///
/// # Cancel safety
/// Dropped, it stops the server.
pub async fn start(start: &Start, mut progress: impl FnMut(Progress)) -> Result<Reached, ServerError> {
    before(start)?;
    let apart = start.apart && apart::is_possible().await;
    let mut server = spawn(start, apart)?;
    match wait(start, &mut server, &mut progress).await {
        Ok(()) => {}
        Err(error) => {
            // The first error is the one to report; `Drop` ends what would not stop.
            let _ = server.stop().await;
            return Err(error);
        }
    }
    match start.then {
        Then::Pause => Ok(Reached::Paused(server)),
        Then::Shutdown => server.stop().await.map(|()| Reached::ShutDown),
        Then::Promote => match promote(start, &mut server, &mut progress).await {
            Ok(timeline) => Ok(Reached::Promoted(server, timeline)),
            Err(error) => {
                let _ = server.stop().await;
                Err(error)
            }
        },
    }
}

fn before(start: &Start) -> Result<(), ServerError> {
    use std::os::unix::fs::PermissionsExt;
    if nix::unistd::geteuid().is_root() && start.run_as.is_none_or(|(user, _)| user == 0) {
        return Err(ServerError::Root);
    }
    let socket_dir =
        std::fs::symlink_metadata(&start.socket_dir).map_err(io("look at the socket directory"))?;
    if !socket_dir.is_dir() || socket_dir.permissions().mode() & 0o077 != 0 {
        return Err(ServerError::SocketDirOpen { path: start.socket_dir.clone() });
    }
    let control = control(&start.data)?;
    // Once recovery has begun the server keeps the label's content in its control file.
    let begun = matches!(control.state, ClusterState::InArchiveRecovery | ClusterState::ShutDownInRecovery);
    if !begun && !start.data.join("backup_label").is_file() {
        return Err(ServerError::BackupLabelMissing { data: start.data.clone() });
    }
    Ok(())
}

fn control(data: &Path) -> Result<ControlFile, ServerError> {
    let bytes = std::fs::read(data.join("global/pg_control")).map_err(io("read pg_control"))?;
    Ok(ControlFile::parse(&bytes)?)
}

fn spawn(start: &Start, apart: bool) -> Result<RunningServer, ServerError> {
    let log = start.socket_dir.join("postgres.log");
    let messages =
        std::fs::File::options().create(true).append(true).open(&log).map_err(io("open the server's log"))?;
    let mut command = apart::command(&start.bin.join("postgres"), apart);
    // The environment may name other configuration, data, libraries or a locale that is not here.
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C");
    for (file, name) in
        [("config_file", "postgresql.conf"), ("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")]
    {
        command.arg("-c").arg(format!("{file}={}", start.data.join(name).display()));
    }
    command
        .arg("-D")
        .arg(&start.data)
        // Where the server goes by itself too: from its first moment on it is known by this whose it is.
        .current_dir(&start.data)
        .stdin(Stdio::null())
        .stdout(messages.try_clone().map_err(io("share the server's log"))?)
        .stderr(messages)
        // An interrupt at our terminal is ours to handle, not the server's.
        .process_group(0);
    if let Some((user, group)) = start.run_as {
        command.uid(user).gid(group);
    }
    let child = command.spawn().map_err(io("start postgres"))?;
    Ok(RunningServer { child, log, left: false })
}

async fn wait(
    start: &Start,
    server: &mut RunningServer,
    progress: &mut impl FnMut(Progress),
) -> Result<(), ServerError> {
    let mut questions = Questions::to(start);
    let mut still = Stillness::new((None, Evidence::default()), Instant::now());
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = server.child.wait() => return Err(ended(start, server)),
            _ = ticks.tick() => {}
        }
        let promised = start.target.end;
        let answer = questions.where_it_stands().await?;
        let at = answer.and_then(|answer| answer.replayed);
        progress(at.map_or(Progress::Starting, Progress::Replayed));
        match answer.map_or(Verdict::Wait, |answer| verdict(answer, &start.target)) {
            Verdict::Wait => {}
            Verdict::Reached => return Ok(()),
            Verdict::Overshot(at) => return Err(ServerError::Overshot { at, promised }),
            Verdict::Opened => return Err(ServerError::Opened { promised }),
            Verdict::PausedElsewhere(at) => {
                let demanded = control(&start.data)?.limits;
                let demanded = (!start.limits.satisfy(&demanded)).then_some(demanded);
                return Err(ServerError::PausedElsewhere { at, promised, demanded });
            }
        }
        let evidence = look(start, server).await;
        let stood = still.seen((at, evidence), Instant::now());
        if stood >= start.stall {
            return Err(ServerError::Stalled { seconds: stood.as_secs(), at, messages: tail(&server.log) });
        }
    }
}

async fn look(start: &Start, server: &RunningServer) -> Evidence {
    let (data, log, pid) = (start.data.clone(), server.log.clone(), server.child.id().unwrap_or(0));
    tokio::task::spawn_blocking(move || Evidence::look(&data, &log, pid)).await.unwrap_or_default()
}

async fn promote(
    start: &Start,
    server: &mut RunningServer,
    progress: &mut impl FnMut(Progress),
) -> Result<Timeline, ServerError> {
    progress(Progress::Opening);
    let mut questions = Questions::to(start);
    questions.ask("select pg_catalog.pg_promote(false)").await?;
    let mut still = Stillness::new(Evidence::default(), Instant::now());
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            _ = server.child.wait() => return Err(ended(start, server)),
            _ = ticks.tick() => {}
        }
        if questions.where_it_stands().await?.is_some_and(|answer| !answer.in_recovery) {
            break;
        }
        let stood = still.seen(look(start, server).await, Instant::now());
        if stood >= start.stall {
            let messages = tail(&server.log);
            return Err(ServerError::Stalled { seconds: stood.as_secs(), at: None, messages });
        }
    }
    let segment = "select pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())";
    let segment = questions.ask(segment).await?.and_then(|row| row.try_get::<_, String>(0).ok());
    let number = segment.and_then(|name| u32::from_str_radix(name.get(..8)?, 16).ok());
    let timeline = Timeline::new(number.unwrap_or(0));
    let history = start.data.join(format!("pg_wal/{:08X}.history", timeline.get()));
    let switch = last_switch(&std::fs::read_to_string(history).unwrap_or_default());
    if timeline <= start.target.timeline || switch != Some((start.target.timeline, start.target.end)) {
        return Err(ServerError::SwitchElsewhere { timeline, switch, promised: start.target.end });
    }
    Ok(timeline)
}

fn ended(start: &Start, server: &RunningServer) -> ServerError {
    let messages = tail(&server.log);
    let control = control(&start.data).ok().map(Box::new);
    ServerError::Ended { ending: ending(&messages), messages, control }
}

/// The last lines of the server's messages. They are for the operator's eyes; a failure to read them is no failure.
fn tail(log: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let mut bytes = Vec::new();
    let _ = std::fs::File::open(log).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        file.take(TAIL_BYTES).read_to_end(&mut bytes)
    });
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
