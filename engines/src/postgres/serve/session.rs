//! A client that was let in, between its commands.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use farshore_journal::{Offset, Position, Timeline};
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::wire::{Frame, Pipe, SystemIdentity, text};
use super::command::{Command, Refusal};
use super::message::{self, Kind, Severity};
use super::startup::Hello;
use super::stream::Stream;

/// SQLSTATE of bytes that make no sense.
const PROTOCOL: &str = "08P01";

/// Why a session is over.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Transfer(#[from] io::Error),
    /// The other side does not speak the protocol.
    #[error("the other side does not speak the replication protocol: {0}")]
    Protocol(&'static str),
    /// It was not let in, and was told so.
    #[error("{user} was not let in: {why}")]
    NotLetIn {
        /// Who it said it was, bounded and without control characters.
        user: String,
        /// Why.
        why: String,
    },
}

/// What a client is told of us before its first command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// `server_version`: its leading number is the major that the client's commands are written for.
    pub version: String,
    /// The cluster's major.
    pub major: u32,
}

/// A session.
#[derive(Debug)]
pub struct Session<S> {
    pub(super) pipe: Pipe<S>,
    hello: Hello,
    major: u32,
}

/// The number that the next session goes by, as a process would: temporary slots are named after it.
static NEXT: AtomicU32 = AtomicU32::new(1);

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Begins it: what a client is told of us before its first command.
    pub(super) async fn begin(
        mut pipe: Pipe<S>,
        hello: Hello,
        greeting: &Greeting,
    ) -> Result<Self, ServeError> {
        let out = pipe.output();
        for (name, value) in [
            ("server_version", greeting.version.as_str()),
            ("server_encoding", "UTF8"),
            ("client_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
            ("integer_datetimes", "on"),
            // Where a client wants a server that takes writes, or one that does not: this question never becomes SQL.
            ("in_hot_standby", "off"),
            ("default_transaction_read_only", "off"),
        ] {
            message::put_parameter(out, name, value);
        }
        let mut key = [0; 4];
        getrandom::fill(&mut key).map_err(|why| io::Error::other(why.to_string()))?;
        // Processes have numbers above 0, and clients take them for signed.
        let process = NEXT.fetch_add(1, Ordering::Relaxed) & 0x7fff_ffff;
        message::put_key(out, process, key);
        message::put_ready(out);
        pipe.send().await?;
        Ok(Self { pipe, hello, major: greeting.major })
    }

    /// Who it is.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The next command; `None` when the client has left. What is no command is refused here. Cancel-safe.
    ///
    /// # Errors
    /// When the connection broke, or something else than a command came.
    pub async fn command(&mut self) -> Result<Option<Command>, ServeError> {
        loop {
            let Some(Frame { tag, mut body }) = self.pipe.next().await? else { return Ok(None) };
            match tag {
                b'Q' => {
                    let asked = text(&mut body).ok_or(ServeError::Protocol("a command without an end"))?;
                    match Command::parse(&asked) {
                        Ok(command) => return Ok(Some(command)),
                        Err(refusal) => self.refuse(&refusal).await?,
                    }
                }
                b'X' => return Ok(None),
                // What was under way when a stream ended.
                b'd' | b'c' | b'f' => {}
                _ => {
                    let refusal = Refusal::new(PROTOCOL, "only replication commands are taken");
                    message::put_error(self.pipe.output(), Severity::Fatal, &refusal);
                    self.pipe.send().await?;
                    return Err(ServeError::Protocol("another message than a command"));
                }
            }
        }
    }

    /// Refuses a command; the session goes on.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn refuse(&mut self, refusal: &Refusal) -> Result<(), ServeError> {
        message::put_error(self.pipe.output(), Severity::Error, refusal);
        message::put_ready(self.pipe.output());
        Ok(self.pipe.send().await?)
    }

    /// Which cluster this is, and how far its log is here.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn identify(&mut self, identity: SystemIdentity) -> Result<(), ServeError> {
        let timeline = if self.major >= 16 { Kind::Int8 } else { Kind::Int4 };
        let columns = [
            ("systemid", Kind::Text),
            ("timeline", timeline),
            ("xlogpos", Kind::Text),
            ("dbname", Kind::Text),
        ];
        let row = [
            identity.system_identifier.to_string(),
            identity.timeline.to_string(),
            identity.flushed.to_string(),
        ];
        let [system, timeline, end] = row.each_ref().map(|text| Some(text.as_bytes()));
        self.answer(&columns, Some(&[system, timeline, end, None]), "IDENTIFY_SYSTEM").await
    }

    /// A setting's value.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn show(&mut self, name: &str, value: &str) -> Result<(), ServeError> {
        self.answer(&[(name, Kind::Text)], Some(&[Some(value.as_bytes())]), "SHOW").await
    }

    /// A timeline's history file.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn history(&mut self, timeline: Timeline, content: &[u8]) -> Result<(), ServeError> {
        let name = format!("{:08X}.history", timeline.get());
        let columns = [("filename", Kind::Text), ("content", Kind::Text)];
        self.answer(&columns, Some(&[Some(name.as_bytes()), Some(content)]), "TIMELINE_HISTORY").await
    }

    /// That a slot is there: log is kept by rules here and not by slots.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn slot_made(&mut self, name: &str) -> Result<(), ServeError> {
        const NAMES: [&str; 4] = ["slot_name", "consistent_point", "snapshot_name", "output_plugin"];
        let row = [Some(name.as_bytes()), Some(&b"0/0"[..]), None, None];
        self.answer(&NAMES.map(|name| (name, Kind::Text)), Some(&row), "CREATE_REPLICATION_SLOT").await
    }

    /// What a slot keeps; `None` where there is none of that name.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn slot(&mut self, kept: Option<Position>) -> Result<(), ServeError> {
        let columns = [("slot_type", Kind::Text), ("restart_lsn", Kind::Text), ("restart_tli", Kind::Int8)];
        let said = kept.map(|kept| [kept.offset.to_string(), kept.timeline.to_string()]);
        let row = match &said {
            Some([offset, timeline]) => {
                [Some(&b"physical"[..]), Some(offset.as_bytes()), Some(timeline.as_bytes())]
            }
            None => [None; 3],
        };
        self.answer(&columns, Some(&row), "READ_REPLICATION_SLOT").await
    }

    /// That a slot is gone.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn slot_dropped(&mut self) -> Result<(), ServeError> {
        message::put_complete(self.pipe.output(), "DROP_REPLICATION_SLOT");
        message::put_ready(self.pipe.output());
        Ok(self.pipe.send().await?)
    }

    /// Begins to stream.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn stream(mut self) -> Result<Stream<S>, ServeError> {
        message::put_copy_both(self.pipe.output());
        self.pipe.send().await?;
        Ok(Stream::new(self))
    }

    /// That there is nothing to stream on the timeline that was asked for: it was left where that would begin.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn left_already(&mut self, next: Timeline, at: Offset) -> Result<(), ServeError> {
        self.put_left(Some((next, at)));
        Ok(self.pipe.send().await?)
    }

    /// The end of a stream's command: where the history goes on, if the timeline was left.
    pub(super) fn put_left(&mut self, next: Option<(Timeline, Offset)>) {
        let out = self.pipe.output();
        if let Some((next, at)) = next {
            let columns = [("next_tli", Kind::Int8), ("next_tli_startpos", Kind::Text)];
            let (next, at) = (next.to_string(), at.to_string());
            message::put_rows(out, &columns, Some(&[Some(next.as_bytes()), Some(at.as_bytes())]));
            message::put_complete(out, "START_STREAMING");
        }
        // A client that was not let into the stream takes the last of these, and expects no row behind it.
        message::put_complete(out, "START_REPLICATION");
        message::put_ready(out);
    }

    async fn answer(
        &mut self,
        columns: &[(&str, Kind)],
        row: Option<&[Option<&[u8]>]>,
        tag: &str,
    ) -> Result<(), ServeError> {
        let out = self.pipe.output();
        message::put_rows(out, columns, row);
        message::put_complete(out, tag);
        message::put_ready(out);
        Ok(self.pipe.send().await?)
    }
}
