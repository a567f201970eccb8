//! What can go wrong between us and a PostgreSQL server, and whether trying again can help.
//!
//! What the shipper must tell apart has a variant of its own; anything else the server says is [`Error::Server`]
//! with its SQLSTATE. Texts of the server may be in its own language, so only codes are ever compared.

use std::io;
use std::time::Duration;

use farshore_journal::{ParseError, Position};

use super::connection::SlotName;

/// What a server said in an error response.
///
/// Source: <https://www.postgresql.org/docs/current/protocol-error-fields.html>.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerMessage {
    /// `ERROR`, `FATAL` or `PANIC`, never translated.
    pub severity: String,
    /// The five letters of its SQLSTATE.
    pub code: String,
    /// Its main text, in the server's language.
    pub message: String,
    /// More of it; empty when the server gave none.
    pub detail: String,
    /// What the server advises; empty when it gave none.
    pub hint: String,
}

impl ServerMessage {
    /// Whether the server ends the connection after this.
    pub(crate) fn ends_connection(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

impl std::fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.severity, self.code, self.message)?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        if !self.hint.is_empty() {
            write!(f, "; its hint: {}", self.hint)?;
        }
        Ok(())
    }
}

/// Whether, and how, a failed operation may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// At once.
    Now,
    /// After a growing pause: the cause may pass by itself.
    Backoff,
    /// After an operator changed something.
    Operator,
    /// Not at all: the same request fails the same way.
    Never,
}

/// A failure between us and a server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A connection URL says something that cannot be used.
    #[error("the connection URL cannot be used: {problem}")]
    ReadUrl {
        /// What is wrong with it. Never holds a password.
        problem: String,
    },
    /// A file that the connection needs could not be read or understood.
    #[error("{file}: {problem}")]
    ReadFile {
        /// Which file, as the operator named it.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No connection to the server's address.
    #[error("no connection to {host}")]
    Connect {
        /// Whom we tried to reach.
        host: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The server has no TLS, and the connection must have it.
    #[error("{host} does not offer TLS, and sslmode={sslmode} demands it")]
    TlsMissing {
        /// Whom we reached.
        host: String,
        /// What was asked for.
        sslmode: &'static str,
    },
    /// The TLS handshake failed: certificate, name, or protocol.
    #[error("TLS with {host} failed")]
    TlsHandshake {
        /// Whom we reached.
        host: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Server and we do not agree on a way to prove who we are.
    #[error("{host} could not be authenticated with: {problem}")]
    Authenticate {
        /// Whom we reached.
        host: String,
        /// What was asked for that we do not give.
        problem: String,
    },
    /// A server of a major version that farshore does not know.
    #[error("{host} runs PostgreSQL {found}; supported are the majors 14, 15, 16, 17 and 18")]
    UnsupportedVersion {
        /// Whom we reached.
        host: String,
        /// What the server calls its version.
        found: String,
    },
    /// The server refused, with a code that has no variant of its own.
    #[error("{what} was refused: {message}")]
    Server {
        /// What was asked.
        what: &'static str,
        /// What it said.
        message: Box<ServerMessage>,
    },
    /// The log from the position wanted on is no longer on the server (SQLSTATE 58P01).
    #[error("the log from {start} on is no longer on the server: {message}")]
    LogMissing {
        /// Where streaming should have started or gone on.
        start: Position,
        /// What it said.
        message: Box<ServerMessage>,
    },
    /// Another connection holds the slot (SQLSTATE 55006).
    #[error("replication slot {slot} is in use: {message}")]
    SlotInUse {
        /// The slot.
        slot: SlotName,
        /// What it said; its process id is in the text.
        message: Box<ServerMessage>,
    },
    /// The slot does not exist (SQLSTATE 42704).
    #[error("replication slot {slot} does not exist")]
    SlotMissing {
        /// The slot.
        slot: SlotName,
    },
    /// A slot of that name exists already (SQLSTATE 42710).
    #[error("replication slot {slot} exists already")]
    SlotExists {
        /// The slot.
        slot: SlotName,
    },
    /// The server gave up the slot's log, so the slot no longer keeps anything (SQLSTATE 55000).
    #[error("replication slot {slot} was invalidated: {message}")]
    SlotInvalidated {
        /// The slot.
        slot: SlotName,
        /// What it said.
        message: Box<ServerMessage>,
    },
    /// The server ended the stream because it shuts down; all it had was sent before.
    #[error("the server ended the stream because it is shutting down")]
    ServerStopped,
    /// Nothing came from the server in time.
    #[error("no answer from the server to {what} within {waited:?}")]
    NoAnswer {
        /// What was asked.
        what: &'static str,
        /// How long we waited.
        waited: Duration,
    },
    /// The server closed the connection without a word.
    #[error("the server closed the connection during {what}")]
    Closed {
        /// What was under way.
        what: &'static str,
    },
    /// The connection broke.
    #[error("the connection broke during {what}")]
    Transfer {
        /// What was under way.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The server said something that the protocol does not allow here.
    #[error("the server broke the protocol during {what}: {problem}")]
    Protocol {
        /// What was under way.
        what: &'static str,
        /// What it did.
        problem: String,
    },
    /// The server's major has no such command.
    #[error("PostgreSQL {major} has no {what}")]
    NotInVersion {
        /// What was asked.
        what: &'static str,
        /// The server's major.
        major: u32,
    },
    /// An earlier command on this connection was abandoned half way: connect again.
    #[error("an earlier command on this connection was abandoned; connect again")]
    Abandoned,
    /// A name that PostgreSQL would not take.
    #[error(transparent)]
    ParseName(#[from] ParseError),
}

impl Error {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Connect { .. }
            | Self::ServerStopped
            | Self::SlotInUse { .. }
            | Self::NoAnswer { .. }
            | Self::Closed { .. }
            | Self::Transfer { .. }
            | Self::Protocol { .. }
            | Self::Abandoned => Retry::Backoff,
            Self::Server { message, .. } => retry_of_code(&message.code),
            Self::ReadUrl { .. }
            | Self::ReadFile { .. }
            | Self::TlsMissing { .. }
            | Self::TlsHandshake { .. }
            | Self::Authenticate { .. }
            | Self::UnsupportedVersion { .. }
            | Self::LogMissing { .. }
            | Self::SlotMissing { .. }
            | Self::SlotInvalidated { .. } => Retry::Operator,
            Self::SlotExists { .. } | Self::NotInVersion { .. } | Self::ParseName(_) => Retry::Never,
        }
    }

    /// The SQLSTATE, when the server gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Server { message, .. }
            | Self::LogMissing { message, .. }
            | Self::SlotInUse { message, .. }
            | Self::SlotInvalidated { message, .. } => Some(&message.code),
            _ => None,
        }
    }

    pub(crate) fn protocol(what: &'static str, problem: impl Into<String>) -> Self {
        Self::Protocol { what, problem: problem.into() }
    }
}

/// Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>: class 08 connection, 53 resources,
/// 57 operator intervention (start-up and shutdown among them), 40 rollback.
fn retry_of_code(code: &str) -> Retry {
    match code.get(..2) {
        Some("08" | "53" | "57" | "40") => Retry::Backoff,
        _ => Retry::Operator,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_starts_up_is_waited_for_and_a_wrong_password_is_not() {
        let said = |code: &str| Error::Server {
            what: "start-up",
            message: Box::new(ServerMessage { code: code.to_owned(), ..ServerMessage::default() }),
        };
        assert_eq!(said("57P03").retry(), Retry::Backoff);
        assert_eq!(said("53300").retry(), Retry::Backoff);
        assert_eq!(said("28P01").retry(), Retry::Operator);
        assert_eq!(said("").retry(), Retry::Operator);
    }
}
