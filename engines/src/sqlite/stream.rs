//! The stream of a SQLite database's log, from the process that follows it.
//!
//! What always holds: nothing is given before the process has shown that the database goes on from where it was to begin; bytes are
//! contiguous from there, or the stream fails; a process that says nothing for [`SILENCE`] is ended, since it may hold writers. The
//! process ends with the stream. A crash of either leaves what [`super::follow`] says.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use farshore_journal::Offset;
use nix::fcntl::{FcntlArg, fcntl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout, timeout_at};

use super::follow::{LOG_FRAMES, Start};
use super::kept;
use super::record::Head;
use super::talk::{Begin, HEAD_BYTES, Message, Tell, VERSION};

/// How long the process may say nothing; it says each second that it lives.
pub const SILENCE: Duration = Duration::from_secs(10);
/// How long it may need to show that the database goes on: it reads the whole log for that.
const PROOF: Duration = Duration::from_secs(120);
/// Bytes that a look at a database brings as a rule.
const LITTLE_BYTES: usize = 16 << 10;
/// Bytes that the buffer has room for, where no message needs more.
const READ_BYTES: usize = 256 << 10;
/// Bytes that the pipe holds which records come through.
const PIPE_BYTES: i32 = 1 << 20;
/// How long it may need to take an order, and to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a database is followed.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The database.
    pub path: PathBuf,
    /// The program that is started, and what it is told to be [`super::serve`]d.
    pub program: (PathBuf, Vec<String>),
    /// The file that keeps records while the database's log is begun anew.
    pub spool: PathBuf,
    /// How often the database is looked at.
    pub every: Duration,
    /// How large the database's own log may become while what was received waits. `None`: as large as it will.
    pub wal_limit: Option<u64>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process cannot be started, or speaks no more.
    #[error("the process that follows `{}`: {source}", .path.display())]
    Process {
        /// The database.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It said nothing for too long.
    #[error("the process that follows `{}` said nothing for {} seconds and was ended", .path.display(), .waited.as_secs())]
    Silent {
        /// The database.
        path: PathBuf,
        /// For how long.
        waited: Duration,
    },
    /// Nothing shows that the database goes on from where it was to begin, or had come.
    #[error("{why}")]
    Doubt {
        /// In words.
        why: String,
    },
    /// It cannot be followed.
    #[error("`{}` cannot be followed: {why}", .path.display())]
    Failed {
        /// The database.
        path: PathBuf,
        /// In words.
        why: String,
    },
}

/// What a stream brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Bytes of the log: whole records, or a part of one.
    Log {
        /// The bytes.
        bytes: Bytes,
        /// Whether a record goes on behind them.
        goes_on: bool,
    },
    /// All that was committed when the database was looked at was given, up to here.
    End(Offset),
    /// A sign of life. It says nothing of the log.
    Alive,
    /// It was shown that the database goes on from where this began: before all else, and never given out.
    Proven,
    /// A part of a copy that was asked for.
    Base(BasePart),
}

/// A part of a copy, in order: what lies beneath it, its begin, its bytes, and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BasePart {
    /// Bytes of the record of what the copy lacks.
    Beneath(Bytes),
    /// The copy begins. All log before this was given.
    Begin,
    /// Bytes of the file.
    Copy(Bytes),
    /// It is whole: together with what lies beneath, it is the database once the records up to the last that was given were applied.
    Whole,
    /// It broke off.
    Broken(String),
}

/// A database that is followed.
#[derive(Debug)]
pub struct Stream {
    path: PathBuf,
    wal_limit: Option<u64>,
    /// Killed when this is dropped.
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    buffer: BytesMut,
    /// Orders that are not yet written.
    orders: BytesMut,
    received: Offset,
    /// Bytes of the record that goes on.
    record_left: u64,
    /// Since when someone waits without hearing anything.
    listening: Option<Instant>,
}

impl Stream {
    /// Starts to follow. On `Ok` it was shown that the database goes on from `start`.
    ///
    /// # Errors
    /// [`Error::Doubt`] when that could not be shown.
    pub async fn open(settings: &Settings, start: Start) -> Result<Self, Error> {
        let failed = |source| Error::Process { path: settings.path.clone(), source };
        if let Some(folder) = settings.spool.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(failed)?;
        }
        let (program, arguments) = &settings.program;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        // What is typed at the service's terminal is not meant for it: it ends when its orders do.
        command.process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        // Fewer changes of who runs. Where so much is not allowed it stays as it is.
        let _ = fcntl(&output, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        let begin = Begin {
            path: settings.path.clone(),
            number: start.number,
            offset: start.offset,
            behind: start.behind,
            spool: settings.spool.clone(),
            log_frames: LOG_FRAMES,
            every: settings.every,
            version: VERSION.to_owned(),
        };
        let mut stream = Self {
            path: settings.path.clone(),
            wal_limit: settings.wal_limit,
            child,
            input,
            output,
            buffer: BytesMut::new(),
            orders: BytesMut::new(),
            received: Offset::new(start.offset),
            record_left: 0,
            listening: None,
        };
        stream.order(&begin).await?;
        // Signs of life come all the while, and prove nothing.
        let proven = async {
            while stream.read().await? != Event::Proven {}
            Ok(())
        };
        let proven = timeout(PROOF, proven).await;
        proven.map_err(|_| stream.silent(PROOF))??;
        Ok(stream)
    }

    /// The end of what was received: the next byte wanted.
    pub fn received(&self) -> Offset {
        self.received
    }

    /// The next event.
    ///
    /// # Errors
    /// The stream is over after any.
    ///
    /// # Cancel safety
    /// May be dropped and asked again at any point; nothing is lost.
    pub async fn next_event(&mut self) -> Result<Event, Error> {
        let listening = *self.listening.get_or_insert_with(Instant::now);
        match timeout_at(listening + SILENCE, self.read()).await {
            Ok(event) => {
                self.listening = None;
                event.map(|event| self.took(event))
            }
            Err(_) => Err(self.silent(SILENCE)),
        }
    }

    fn took(&mut self, event: Event) -> Event {
        if let Event::Log { bytes, .. } = &event {
            self.received = Offset::new(self.received.get() + bytes.len() as u64);
        }
        event
    }

    fn silent(&mut self, waited: Duration) -> Error {
        // Stopped by a signal it may hold writers: it ends now, not when this is dropped.
        let _ = self.child.start_kill();
        Error::Silent { path: self.path.clone(), waited }
    }

    /// Says up to where the log is needed no more: whoever follows again begins there or behind.
    ///
    /// # Errors
    /// When the process takes no orders.
    pub async fn released(&mut self, offset: Offset) -> Result<(), Error> {
        self.order(&Tell::Released(offset.get())).await
    }

    /// How large the database's own log is, once it is larger than it may become.
    pub fn lets_go(&self) -> Option<u64> {
        let bytes = kept::log_bytes(&self.path).ok()?;
        self.wal_limit.is_some_and(|limit| bytes > limit).then_some(bytes)
    }

    /// Asks for a copy. One at a time is made.
    ///
    /// # Errors
    /// As [`released`](Self::released).
    pub async fn base(&mut self) -> Result<(), Error> {
        self.order(&Tell::Base).await
    }

    /// Has the state that is there now named, by a record of its own behind the last transaction's.
    ///
    /// # Errors
    /// As [`released`](Self::released).
    pub async fn point(&mut self, name: &str) -> Result<(), Error> {
        self.order(&Tell::Point(name.to_owned())).await
    }

    /// Has the process end by itself: nothing is held at the database behind this.
    pub async fn stop(mut self) {
        if self.order(&Tell::Stop).await.is_ok() {
            // What it says meanwhile was not asked for any more.
            drop(self.output);
            let _ = timeout(PATIENCE, self.child.wait()).await;
        }
    }

    async fn order<T: serde::Serialize>(&mut self, order: &T) -> Result<(), Error> {
        let line = serde_json::to_vec(order).map_err(|why| self.process(why.into()))?;
        self.orders.extend_from_slice(&line);
        self.orders.extend_from_slice(b"\n");
        let written = timeout(PATIENCE, self.input.write_all_buf(&mut self.orders)).await;
        written.map_err(|_| self.silent(PATIENCE))?.map_err(|why| self.process(why))
    }

    fn process(&self, source: io::Error) -> Error {
        Error::Process { path: self.path.clone(), source }
    }

    async fn read(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.message()? {
                return Ok(event);
            }
            let wanted = self.wanted();
            if self.buffer.capacity() - self.buffer.len() < wanted {
                // Room for many: what is given out of the buffer keeps it from being used again.
                self.buffer.reserve(wanted.max(READ_BYTES));
            }
            if self.output.read_buf(&mut self.buffer).await.map_err(|why| self.process(why))? == 0 {
                return Err(self.process(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Bytes that there should be room for: the rest of the message that began, or a little one.
    fn wanted(&self) -> usize {
        let begun = self.buffer.first_chunk::<HEAD_BYTES>().and_then(|head| Message::head(*head).ok());
        begun.map_or(0, |(_, length)| HEAD_BYTES + length - self.buffer.len()).max(LITTLE_BYTES)
    }

    /// The next message, if it is in the buffer whole.
    fn message(&mut self) -> Result<Option<Event>, Error> {
        let Some((head, _)) = self.buffer.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let (kind, length) = Message::head(*head).map_err(|why| self.process(why))?;
        if self.buffer.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEAD_BYTES);
        let bytes = self.buffer.split_to(length).freeze();
        Ok(Some(match Message::parse(kind, bytes).map_err(|why| self.process(why))? {
            Message::Log(bytes) => {
                self.record_left = left_behind(self.record_left, &bytes);
                Event::Log { bytes, goes_on: self.record_left > 0 }
            }
            Message::End(at) => Event::End(Offset::new(at.offset)),
            Message::Alive(_) => Event::Alive,
            Message::Proven => Event::Proven,
            Message::Beneath(bytes) => Event::Base(BasePart::Beneath(bytes)),
            Message::Base(_) => Event::Base(BasePart::Begin),
            Message::Copy(bytes) => Event::Base(BasePart::Copy(bytes)),
            Message::Copied => Event::Base(BasePart::Whole),
            Message::NotCopied(why) => Event::Base(BasePart::Broken(why)),
            Message::Failed(failed) if failed.doubt => return Err(Error::Doubt { why: failed.why }),
            Message::Failed(failed) => {
                return Err(Error::Failed { path: self.path.clone(), why: failed.why });
            }
        }))
    }
}

/// Bytes of a record that are to come behind these, of which `left` are the rest of one that began before.
fn left_behind(mut left: u64, mut bytes: &[u8]) -> u64 {
    while !bytes.is_empty() {
        if left == 0 {
            // One that is no record's is refused by whoever decodes it.
            let Some(head) = Head::of(bytes) else { return 0 };
            left = head.bytes;
        }
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        left -= now as u64;
        bytes = &bytes[now..];
    }
    left
}
