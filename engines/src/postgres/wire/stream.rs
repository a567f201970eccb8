//! The stream of a server's log.
//!
//! ```text
//!            CopyBoth                 CopyDone from the server          ReadyForQuery
//! start ───────────────▶ Streaming ──────────────────────────▶ Ending ───────────────▶ Ended
//!   └──── the row at once: nothing of this timeline is left ───────▶──┘
//! ```
//! What always holds: data is contiguous from `start`, or the stream fails; a server silent for
//! [`super::Timeouts::server_silence`] is an error, asked for a sign of life at half of it. The clock runs only while
//! someone waits in [`ReplicationStream::next_event`]: a slow consumer is not a silent server.
//!
//! What it does not do: answer keepalives. What is reported is the caller's decision; a caller that never reports
//! is dropped by the server after `wal_sender_timeout`.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-START-REPLICATION>.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use farshore_journal::{Offset, Position, Timeline};
use postgres_protocol::message::frontend;
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::{Connection, Row, SlotName, field, parse_row, slot_error};
use super::error::Error;
use super::message::{StreamMessage, put_status, server_message, stream_message};
use super::pipe::Frame;

const WHAT: &str = "START_REPLICATION";

/// What a stream brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// Bytes of the log.
    Data {
        /// Where they begin: where the last ones ended.
        start: Offset,
        /// The bytes.
        bytes: Bytes,
        /// The end of what the server had when it sent them.
        server_end: Offset,
        /// When it sent them, by its clock.
        sent_at: DateTime<Utc>,
    },
    /// A sign of life.
    KeepAlive {
        /// The end of what the server had.
        server_end: Offset,
        /// Whether it wants a status update at once; without one it may drop us.
        reply_requested: bool,
    },
    /// The timeline ends here: all of it was sent. [`ReplicationStream::stop`] gives the connection back, to
    /// stream the next one.
    TimelineEnd {
        /// The timeline that follows.
        next: Timeline,
        /// Where it branches off.
        switch_point: Offset,
    },
}

/// What we tell the server: which mode of protection this is decides what goes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StandbyStatus {
    /// The end of what we have: frees commits with `synchronous_commit = remote_write`.
    pub written: Offset,
    /// The end of what is durable with us: frees commits with `on`, and moves the slot.
    pub flushed: Offset,
    /// The end of what is replayed: frees commits with `remote_apply`.
    pub applied: Offset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Streaming,
    Ending { next: Option<(Timeline, Offset)> },
    Ended,
    Failed,
}

/// A connection that streams.
#[derive(Debug)]
pub struct ReplicationStream {
    connection: Connection,
    slot: Option<SlotName>,
    phase: Phase,
    timeline: Timeline,
    /// The next byte wanted.
    received: Offset,
    status: StandbyStatus,
    /// Since when someone waits without hearing anything.
    listening: Option<Instant>,
    asked: bool,
}

impl ReplicationStream {
    pub(super) async fn start(
        mut connection: Connection,
        slot: Option<&SlotName>,
        start: Position,
    ) -> Result<Self, Error> {
        if connection.server_version().major <= 14 {
            // 14 refuses on a standby unless the session has asked for the timeline before (55000, seen live).
            connection.identify_system().await?;
        }
        let slot_clause = slot.map(|slot| format!("SLOT \"{slot}\" ")).unwrap_or_default();
        let query =
            format!("START_REPLICATION {slot_clause}PHYSICAL {} TIMELINE {}", start.offset, start.timeline);
        connection.begin(WHAT, &query)?;
        let waited = connection.timeouts().answer;
        let deadline = Instant::now() + waited;
        let mut stream = Self {
            connection,
            slot: slot.cloned(),
            phase: Phase::Streaming,
            timeline: start.timeline,
            received: start.offset,
            status: StandbyStatus::default(),
            listening: None,
            asked: false,
        };
        let Frame { tag, body } = stream.connection.frame(WHAT, deadline, waited).await?;
        match tag {
            b'W' => Ok(stream),
            b'T' => {
                stream.phase = Phase::Ending { next: None };
                Ok(stream)
            }
            b'E' => Err(stream.refused(body)),
            _ => Err(Error::protocol(WHAT, format!("an unexpected message of kind {tag:#04x}"))),
        }
    }

    /// The timeline that is streamed.
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// The end of what was received: the next byte wanted.
    pub fn received(&self) -> Position {
        Position::new(self.timeline, self.received)
    }

    /// The connection beneath.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The next event. Status updates that [`Self::send_status`] could not finish go out meanwhile.
    ///
    /// # Errors
    /// [`Error::NoAnswer`] when the server is silent, [`Error::ServerStopped`] when it shuts down,
    /// [`Error::LogMissing`] when it no longer has what comes next. The stream is over after any error.
    ///
    /// # Cancel safety
    /// May be dropped and asked again at any point; nothing is lost.
    pub async fn next_event(&mut self) -> Result<StreamEvent, Error> {
        let silence = self.connection.timeouts().server_silence;
        loop {
            if matches!(self.phase, Phase::Ended | Phase::Failed) {
                return Err(Error::Closed { what: WHAT });
            }
            let listening = *self.listening.get_or_insert_with(Instant::now);
            let until = if self.asked { silence } else { silence / 2 };
            match timeout_at(listening + until, self.connection.pipe.next()).await {
                Ok(frame) => {
                    self.listening = None;
                    self.asked = false;
                    let frame = frame
                        .map_err(|source| Error::Transfer { what: WHAT, source })
                        .and_then(|frame| frame.ok_or(Error::Closed { what: WHAT }));
                    match frame.and_then(|frame| self.take(frame)) {
                        Ok(Some(event)) => return Ok(event),
                        Ok(None) => {}
                        Err(error) => {
                            self.phase = Phase::Failed;
                            return Err(error);
                        }
                    }
                }
                Err(_) if self.asked => {
                    self.phase = Phase::Failed;
                    return Err(Error::NoAnswer { what: "the log stream", waited: silence });
                }
                Err(_) => {
                    self.asked = true;
                    if self.phase == Phase::Streaming {
                        self.put_status(true);
                    }
                }
            }
        }
    }

    /// Tells the server how far we are. `reply_requested` asks it for a keepalive.
    ///
    /// # Errors
    /// When it cannot be sent in time.
    ///
    /// # Cancel safety
    /// When dropped, the update goes out with the next call of any method.
    pub async fn send_status(&mut self, status: StandbyStatus, reply_requested: bool) -> Result<(), Error> {
        self.status = status;
        if self.phase != Phase::Streaming {
            return Ok(());
        }
        self.put_status(reply_requested);
        let waited = self.connection.timeouts().answer;
        timeout(waited, self.connection.pipe.send())
            .await
            .map_err(|_| Error::NoAnswer { what: "a status update", waited })?
            .map_err(|source| Error::Transfer { what: WHAT, source })
    }

    /// Ends the stream and gives the connection back, ready for commands. Log that arrives meanwhile is dropped.
    ///
    /// # Errors
    /// When the stream has failed before, or the server does not end it in time.
    pub async fn stop(mut self) -> Result<Connection, Error> {
        let waited = self.connection.timeouts().answer;
        let deadline = Instant::now() + waited;
        let mut copying = match self.phase {
            Phase::Streaming => {
                frontend::copy_done(self.connection.pipe.output());
                true
            }
            Phase::Ending { .. } => false,
            Phase::Ended => return Ok(self.connection),
            Phase::Failed => return Err(Error::Abandoned),
        };
        loop {
            let Frame { tag, body } = self.connection.frame(WHAT, deadline, waited).await?;
            match tag {
                b'd' if copying || is_keepalive(&body) => {}
                b'c' if copying => copying = false,
                b'T' | b'D' | b'C' if !copying => {}
                b'Z' if !copying => break,
                b'C' => return Err(Error::ServerStopped),
                b'E' => return Err(self.refused(body)),
                _ => return Err(Error::protocol(WHAT, format!("an unexpected message of kind {tag:#04x}"))),
            }
        }
        self.connection.finish();
        Ok(self.connection)
    }

    fn put_status(&mut self, reply_requested: bool) {
        let StandbyStatus { written, flushed, applied } = self.status;
        put_status(self.connection.pipe.output(), [written, flushed, applied], Utc::now(), reply_requested);
    }

    /// Takes one message; pure but for what it queues for sending.
    fn take(&mut self, Frame { tag, body }: Frame) -> Result<Option<StreamEvent>, Error> {
        match (self.phase, tag) {
            (_, b'N' | b'S' | b'A') => Ok(None),
            (_, b'E') => Err(self.refused(body)),
            (Phase::Streaming, b'd') => self.take_data(body).map(Some),
            (Phase::Streaming, b'c') => {
                frontend::copy_done(self.connection.pipe.output());
                self.phase = Phase::Ending { next: None };
                Ok(None)
            }
            // Source: `WalSndDone` in PostgreSQL's `walsender.c`: a server that shuts down completes the command.
            (Phase::Streaming, b'C') => Err(Error::ServerStopped),
            (Phase::Ending { .. }, b'T' | b'C') => Ok(None),
            (Phase::Ending { .. }, b'd') if is_keepalive(&body) => Ok(None),
            (Phase::Ending { next: None }, b'D') => {
                let row: Row = parse_row(WHAT, body)?;
                self.phase = Phase::Ending { next: Some((field(WHAT, &row, 0)?, field(WHAT, &row, 1)?)) };
                Ok(None)
            }
            (Phase::Ending { next: Some((next, switch_point)) }, b'Z') => {
                self.connection.finish();
                self.phase = Phase::Ended;
                Ok(Some(StreamEvent::TimelineEnd { next, switch_point }))
            }
            _ => Err(Error::protocol(WHAT, format!("an unexpected message of kind {tag:#04x}"))),
        }
    }

    fn take_data(&mut self, body: Bytes) -> Result<StreamEvent, Error> {
        match stream_message(body).ok_or_else(|| Error::protocol(WHAT, "a malformed message"))? {
            StreamMessage::Log { start, server_end, sent_at, bytes } => {
                if start != self.received {
                    let problem = format!("log from {start} came where {} was due", self.received);
                    return Err(Error::protocol(WHAT, problem));
                }
                let end = start.checked_add(bytes.len() as u64);
                self.received = end.ok_or_else(|| Error::protocol(WHAT, "log beyond the address space"))?;
                Ok(StreamEvent::Data { start, bytes, server_end, sent_at })
            }
            StreamMessage::KeepAlive { server_end, reply_requested } => {
                Ok(StreamEvent::KeepAlive { server_end, reply_requested })
            }
        }
    }

    /// Source: PostgreSQL's `walsender.c`: a segment that was removed is 58P01 (undefined file).
    fn refused(&self, body: Bytes) -> Error {
        let message = server_message(body);
        if message.code == "58P01" {
            return Error::LogMissing { start: self.received(), message };
        }
        match &self.slot {
            // With a slot, "not in prerequisite state" is said of the slot: its log was given up.
            Some(slot) if message.code == "55000" => Error::SlotInvalidated { slot: slot.clone(), message },
            Some(slot) => slot_error(Error::Server { what: WHAT, message }, slot),
            None => Error::Server { what: WHAT, message },
        }
    }
}

/// A server that has ended its side of the copy still answers a status update that asks for a reply, until it reads that
/// we have ended ours. Source: `ProcessStandbyReplyMessage` in PostgreSQL's `walsender.c`, which does not look at that.
fn is_keepalive(body: &[u8]) -> bool {
    body.first() == Some(&b'k')
}
