//! Log to a standby, and how far it is.
//!
//! What always holds: sending and hearing go on together, so that a standby that is slow to take is heard all the same. Whoever uses this puts log in only
//! when what was put before has gone ([`Stream::is_clear`]): then what is held for a standby is one message.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use farshore_journal::{Offset, Timeline};
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::wire::{Frame, StandbyStatus};
use super::command::Refusal;
use super::message::{self, Said, Severity};
use super::session::{ServeError, Session};

/// The most log in one message: `MAX_SEND_SIZE` of PostgreSQL's `walsender.c`. A message that is cut for its size is to end at a page: standbys count on no record being
/// split over two messages elsewhere.
pub const MAX_DATA: usize = 16 * 8192;

/// How long the other side is waited for once it was told that it is over.
const LINGER: Duration = Duration::from_secs(1);

/// What comes from a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromStandby {
    /// How far it is.
    Status {
        /// What it has written, made durable, and replayed.
        status: StandbyStatus,
        /// Whether it wants a sign of life at once; without one it may go.
        reply_requested: bool,
    },
    /// The oldest transaction that its queries look at.
    Feedback {
        /// Its number; 0 for none.
        xmin: u32,
    },
    /// It wants no more log; [`Stream::end`] gives the session back.
    Done,
    /// It left.
    Gone,
    /// Nothing: what was put has gone to the connection, and more may be put.
    Sent,
}

/// A session that streams.
#[derive(Debug)]
pub struct Stream<S> {
    session: Session<S>,
    /// Whether the standby has ended it.
    done: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    pub(super) fn new(session: Session<S>) -> Self {
        Self { session, done: false }
    }

    /// Whether all that was put has been handed to the connection.
    pub fn is_clear(&self) -> bool {
        self.session.pipe.is_sent()
    }

    /// Puts log: at most [`MAX_DATA`] bytes. `end`: the end of what could be sent, of this and of what follows.
    pub fn put_log(&mut self, start: Offset, bytes: &Bytes, end: Offset, now: DateTime<Utc>) {
        message::put_log(self.session.pipe.output(), start, end, now, bytes);
    }

    /// Puts a sign of life. `end`: the end of what was sent.
    pub fn put_keepalive(&mut self, end: Offset, now: DateTime<Utc>, reply_requested: bool) {
        message::put_keepalive(self.session.pipe.output(), end, now, reply_requested);
    }

    /// Sends what was put. Cancel-safe.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn send(&mut self) -> Result<(), ServeError> {
        Ok(self.session.pipe.send().await?)
    }

    /// What comes next, be it that what was put has gone out meanwhile. Cancel-safe.
    ///
    /// # Errors
    /// When the connection broke, or what came makes no sense.
    pub async fn next(&mut self) -> Result<FromStandby, ServeError> {
        let Frame { tag, body } = match self.session.pipe.next_or_sent().await? {
            Some(Some(frame)) => frame,
            Some(None) => return Ok(FromStandby::Sent),
            None => return Ok(FromStandby::Gone),
        };
        match tag {
            b'd' => match message::said(body) {
                Some(Said::Status { status, reply_requested }) => {
                    Ok(FromStandby::Status { status, reply_requested })
                }
                Some(Said::Feedback { xmin }) => Ok(FromStandby::Feedback { xmin }),
                None => Err(ServeError::Protocol("what a standby says of itself")),
            },
            b'c' => {
                self.done = true;
                Ok(FromStandby::Done)
            }
            b'X' => Ok(FromStandby::Gone),
            _ => Err(ServeError::Protocol("another message than a standby's while log is sent")),
        }
    }

    /// Ends the stream, with where the history goes on if the timeline ends here, and waits until the standby has ended it too. The caller sets the deadline. `None`: it left.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn end(mut self, next: Option<(Timeline, Offset)>) -> Result<Option<Session<S>>, ServeError> {
        message::put_copy_done(self.session.pipe.output());
        while !self.done {
            if self.next().await? == FromStandby::Gone {
                return Ok(None);
            }
        }
        self.session.put_left(next);
        self.session.pipe.send().await?;
        Ok(Some(self.session))
    }

    /// Ends it and the session with an error.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn fail(mut self, refusal: &Refusal) -> Result<(), ServeError> {
        message::put_error(self.session.pipe.output(), Severity::Fatal, refusal);
        self.session.pipe.send().await?;
        self.linger().await
    }

    /// A connection that is closed with something unread takes what was said last with it, and standbys say something all the time.
    async fn linger(&mut self) -> Result<(), ServeError> {
        let lingered = tokio::time::timeout(LINGER, self.session.pipe.linger()).await;
        Ok(lingered.unwrap_or(Ok(()))?)
    }

    /// Ends it since we stop: the standby comes again by itself. The caller sets the deadline.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn stop(mut self) -> Result<(), ServeError> {
        message::put_complete(self.session.pipe.output(), "COPY 0");
        self.session.pipe.send().await?;
        self.linger().await
    }
}
