//! A client that was let in, between its commands.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use farshore_journal::{Offset, Position, Timeline};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::super::wire::{Frame, Pipe, SystemIdentity, text};
use super::command::{Command, Refusal};
use super::message::{self, Kind, Severity};
use super::scram::{Exchange, NONCE, PLAIN, ScramError, Secrets};
use super::startup::{self, Hello, LONGEST, Opening};
use super::stream::Stream;

/// The longest message that a client sends: a command, or how far it is.
const LONGEST_MESSAGE: usize = 64 << 10;
/// SQLSTATE of bytes that make no sense.
const PROTOCOL: &str = "08P01";
/// SQLSTATE of a password that does not fit.
const PASSWORD: &str = "28P01";

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
        /// Who it said it was.
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
    /// Lets a client in. `greets`: what it is told, once it has proved who it is, or why it is refused. The caller sets the deadline. `None`: it asked for nothing that is answered.
    ///
    /// TLS is not offered here: the caller takes connections from where nobody listens on the way.
    ///
    /// # Errors
    /// When it is not let in, or does not speak the protocol.
    pub async fn accept(
        mut socket: S,
        secrets: &Secrets,
        greets: impl FnOnce(&Hello) -> Result<Greeting, Refusal>,
    ) -> Result<Option<Self>, ServeError> {
        let Some((hello, physical, older)) = first(&mut socket).await? else { return Ok(None) };
        let mut pipe = Pipe::bounded(socket, LONGEST_MESSAGE);
        if let Some(unknown) = older {
            message::put_older(pipe.output(), &unknown);
        }
        authenticate(&mut pipe, secrets, &hello).await?;
        let greeting = match physical {
            true => greets(&hello),
            false => Err(Refusal::new(
                "0A000",
                "this is a journal: it takes connections for physical replication only",
            )
            .hint("write replication=true, as a standby's primary_conninfo does")),
        };
        let greeting = match greeting {
            Ok(greeting) => greeting,
            Err(refusal) => return Err(turned_away(&mut pipe, hello.user, &refusal).await?),
        };
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
        Ok(Some(Self { pipe, hello, major: greeting.major }))
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

/// Who connects, whether for physical replication, and what of the protocol it asked for in vain.
type First = (Hello, bool, Option<Vec<String>>);

async fn first<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut S) -> Result<Option<First>, ServeError> {
    let (mut tls, mut gss) = (false, false);
    loop {
        let packet = packet(socket).await?;
        match startup::opening(packet).ok_or(ServeError::Protocol("the first packet"))? {
            Opening::Cancel => return Ok(None),
            Opening::Tls if !std::mem::replace(&mut tls, true) => socket.write_all(b"N").await?,
            Opening::Gss if !std::mem::replace(&mut gss, true) => socket.write_all(b"N").await?,
            Opening::Tls | Opening::Gss => return Err(ServeError::Protocol("it asks twice for encryption")),
            Opening::Startup { hello, physical, newer, unknown } => {
                let older = (newer || !unknown.is_empty()).then_some(unknown);
                return Ok(Some((hello, physical, older)));
            }
        }
    }
}

async fn packet<S: AsyncRead + Unpin>(socket: &mut S) -> Result<Bytes, ServeError> {
    let length = socket.read_u32().await? as usize;
    if !(8..=LONGEST).contains(&length) {
        return Err(ServeError::Protocol("the length of the first packet"));
    }
    let mut packet = BytesMut::zeroed(length - 4);
    socket.read_exact(&mut packet).await?;
    Ok(packet.freeze())
}

/// Has the client prove its password.
async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    pipe: &mut Pipe<S>,
    secrets: &Secrets,
    hello: &Hello,
) -> Result<(), ServeError> {
    message::put_authentication(pipe.output(), 10, format!("{PLAIN}\0\0").as_bytes());
    let mut body = proof(pipe).await?;
    let mechanism = text(&mut body).ok_or(ServeError::Protocol("the password's proof"))?;
    let length = body.try_get_u32().map_err(|_| ServeError::Protocol("the password's proof"))? as usize;
    if length != body.len() {
        return Err(ServeError::Protocol("the password's proof"));
    }
    let mut random = [0; NONCE];
    getrandom::fill(&mut random).map_err(|why| io::Error::other(why.to_string()))?;
    let begun = Exchange::begin(secrets, &hello.user, (mechanism.as_str(), &body), None, random);
    let (exchange, answer) = match begun {
        Ok(begun) => begun,
        Err(why) => return Err(not_proved(pipe, hello, why).await?),
    };
    message::put_authentication(pipe.output(), 11, answer.as_bytes());
    let last = proof(pipe).await?;
    match exchange.finish(&last) {
        Ok(ours) => {
            message::put_authentication(pipe.output(), 12, ours.as_bytes());
            message::put_authentication(pipe.output(), 0, &[]);
            Ok(())
        }
        Err(why) => Err(not_proved(pipe, hello, why).await?),
    }
}

/// The client's next part of its proof; what is in the output goes out before.
async fn proof<S: AsyncRead + AsyncWrite + Unpin>(pipe: &mut Pipe<S>) -> Result<Bytes, ServeError> {
    pipe.send().await?;
    match pipe.next().await? {
        Some(Frame { tag: b'p', body }) => Ok(body),
        Some(_) => Err(ServeError::Protocol("another message than the password's proof")),
        // As clients do that find that they need a password.
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

async fn not_proved<S: AsyncRead + AsyncWrite + Unpin>(
    pipe: &mut Pipe<S>,
    hello: &Hello,
    why: ScramError,
) -> Result<ServeError, ServeError> {
    let user = &hello.user;
    let refusal = Refusal::new(PASSWORD, format!("password authentication failed for user \"{user}\""));
    message::put_error(pipe.output(), Severity::Fatal, &refusal);
    pipe.send().await?;
    Ok(ServeError::NotLetIn { user: user.clone(), why: why.to_string() })
}

async fn turned_away<S: AsyncRead + AsyncWrite + Unpin>(
    pipe: &mut Pipe<S>,
    user: String,
    refusal: &Refusal,
) -> Result<ServeError, ServeError> {
    message::put_error(pipe.output(), Severity::Fatal, refusal);
    pipe.send().await?;
    Ok(ServeError::NotLetIn { user, why: refusal.message.clone() })
}
