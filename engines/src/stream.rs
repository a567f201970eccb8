//! The stream of a database's log as it is written, whichever engine writes it.
//!
//! What always holds: data is contiguous, or the stream fails; [`Stream::next_event`] may be dropped and asked again. What is
//! reported is the caller's decision.

use bytes::Bytes;
use farshore_journal::{Offset, Position, Timeline};

use crate::postgres::wire::{self, ReplicationStream, StandbyStatus, StreamEvent};
use crate::sqlite::stream as sqlite;

/// What a stream brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Bytes of the log.
    Data {
        /// The bytes: they continue those before.
        bytes: Bytes,
        /// The end of the source's log when it sent them, where it says so. Otherwise more is to come, and a sign of life tells
        /// when all came.
        source_end: Option<Offset>,
        /// Whether a record begins in them, or goes on, that does not end in them, where the log's bytes come in records.
        goes_on: bool,
    },
    /// A sign of life.
    KeepAlive {
        /// The end of the source's log, where it is said.
        source_end: Option<Offset>,
        /// Whether a report is wanted at once.
        reply_requested: bool,
    },
    /// The timeline ends here: all of it was sent.
    TimelineEnd,
    /// A part of a copy of the database, which was asked for with [`Stream::base`].
    Base(sqlite::BasePart),
}

/// How far we are, for the source.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// What may be called flushed here; `None`: nothing is.
    pub reported: Option<Offset>,
    /// Whether a commit may wait for it: then it alone is said, as written, flushed and applied alike.
    pub frees: bool,
    /// Up to where the log is needed no more, for a source that keeps it by what its stream is told: whoever resumes begins there or
    /// behind. `None`: nothing is known of that yet.
    pub released: Option<Offset>,
    /// Whether to ask for a sign of life.
    pub ask: bool,
}

/// Why a stream failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PostgreSQL's.
    #[error(transparent)]
    Postgres(#[from] wire::Error),
    /// A SQLite database's.
    #[error(transparent)]
    Sqlite(#[from] sqlite::Error),
}

/// A database's log, streamed.
#[derive(Debug)]
pub enum Stream {
    /// PostgreSQL's.
    Postgres(Box<ReplicationStream>),
    /// A SQLite database's.
    Sqlite(Box<sqlite::Stream>),
}

impl Stream {
    /// The end of what was received.
    pub fn received(&self) -> Position {
        match self {
            Self::Postgres(stream) => stream.received(),
            Self::Sqlite(stream) => Position::new(Timeline::new(1), stream.received()),
        }
    }

    /// The next event.
    ///
    /// # Errors
    /// The stream is over after any.
    ///
    /// # Cancel safety
    /// May be dropped and asked again at any point; nothing is lost.
    pub async fn next_event(&mut self) -> Result<Event, Error> {
        Ok(match self {
            Self::Postgres(stream) => match stream.next_event().await? {
                StreamEvent::Data { bytes, server_end, .. } => {
                    Event::Data { bytes, source_end: Some(server_end), goes_on: false }
                }
                StreamEvent::KeepAlive { server_end, reply_requested } => {
                    Event::KeepAlive { source_end: Some(server_end), reply_requested }
                }
                StreamEvent::TimelineEnd { .. } => Event::TimelineEnd,
            },
            Self::Sqlite(stream) => match stream.next_event().await? {
                sqlite::Event::Log { bytes, goes_on } => Event::Data { bytes, source_end: None, goes_on },
                sqlite::Event::End(end) => Event::KeepAlive { source_end: Some(end), reply_requested: false },
                sqlite::Event::Alive | sqlite::Event::Proven => {
                    Event::KeepAlive { source_end: None, reply_requested: false }
                }
                sqlite::Event::Base(part) => Event::Base(part),
            },
        })
    }

    /// Whether the stream itself is what holds the log at the source: it is closed for nothing else's sake, and told at once what is
    /// released.
    pub fn holds_log(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// How large the log is at the source that this stream holds, once it is larger than it may become.
    pub fn lets_go(&self) -> Option<u64> {
        match self {
            Self::Postgres(_) => None,
            Self::Sqlite(stream) => stream.lets_go(),
        }
    }

    /// Tells the source how far we are.
    ///
    /// # Errors
    /// When it cannot be told in time.
    pub async fn report(&mut self, report: Report) -> Result<(), Error> {
        let Report { reported, frees, released, ask } = report;
        match self {
            Self::Postgres(stream) => {
                let received = stream.received().offset;
                let status = |flushed| StandbyStatus { written: received, flushed, applied: flushed };
                // "Nothing flushed" frees no commit, whatever is called written. Source: `SyncRepReleaseWaiters`, syncrep.c.
                let Some(reported) = reported else {
                    stream.send_status(status(Offset::new(0)), ask).await?;
                    return Ok(());
                };
                if frees {
                    let all = StandbyStatus { written: reported, flushed: reported, applied: reported };
                    stream.send_status(all, ask).await?;
                } else if reported < received {
                    stream.send_status(status(reported), false).await?;
                    // "Nothing flushed" leaves the slot where it is, and a primary that shuts down then waits for what was written
                    // only. Source: `ProcessStandbyReplyMessage` and `WalSndDone`, walsender.c.
                    stream.send_status(status(Offset::new(0)), ask).await?;
                } else {
                    stream.send_status(status(received), ask).await?;
                }
            }
            Self::Sqlite(stream) => {
                if let Some(released) = released {
                    stream.released(released).await?;
                }
            }
        }
        Ok(())
    }

    /// Asks for a copy of the database in this stream. `false`: this engine's copies come another way.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn base(&mut self) -> Result<bool, Error> {
        match self {
            Self::Postgres(_) => Ok(false),
            Self::Sqlite(stream) => {
                stream.base().await?;
                Ok(true)
            }
        }
    }

    /// Has the state that is there now named in this stream: the point comes as log does. `false`: this engine's points come another
    /// way.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn point(&mut self, name: &str) -> Result<bool, Error> {
        match self {
            Self::Postgres(_) => Ok(false),
            Self::Sqlite(stream) => {
                stream.point(name).await?;
                Ok(true)
            }
        }
    }

    /// Ends it politely, if the source lets it.
    pub async fn stop(self) {
        match self {
            Self::Postgres(stream) => {
                // A stream that cannot be ended politely is ended by closing it.
                let _ = stream.stop().await;
            }
            Self::Sqlite(stream) => stream.stop().await,
        }
    }
}
