//! A replication connection and its short commands.
//!
//! What always holds: a command's whole answer is read, or the connection refuses every later command
//! ([`Error::Abandoned`]); so one command's answer is never taken for another's. A method's future may be dropped,
//! at the price of the connection.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-replication.html>.

use std::fmt;
use std::str::{self, FromStr};
use std::time::Duration;

use bytes::Bytes;
use farshore_journal::{Offset, ParseError, Position, Timeline};
use postgres_protocol::message::frontend;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::{Error, ServerMessage};
use super::message::{row, server_message};
use super::params::{ConnectParams, Host, Timeouts};
use super::pipe::{Frame, Pipe};
use super::socket::{Transport, dial};
use super::startup::{self, Of};
use super::stream::ReplicationStream;

/// The majors whose protocol, log and files farshore knows.
pub(crate) const SUPPORTED_MAJORS: std::ops::RangeInclusive<u32> = 14..=18;
/// More rows than any replication command gives.
const MAX_ROWS: usize = 10_000;

/// A replication slot's name: 1 to 63 of `a-z 0-9 _`.
///
/// Source: <https://www.postgresql.org/docs/current/warm-standby.html#STREAMING-REPLICATION-SLOTS-MANIPULATION>.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotName(String);

impl SlotName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SlotName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let letter = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_');
        if (1..=63).contains(&text.len()) && text.bytes().all(letter) {
            return Ok(Self(text.to_owned()));
        }
        let what = "replication slot name (1 to 63 of a-z, 0-9 and _)";
        Err(ParseError { text: text.chars().take(80).collect(), what })
    }
}

/// A server's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerVersion {
    /// 14 to 18.
    pub major: u32,
    /// What the server calls it, such as `15.20 (Debian 15.20-1)`.
    pub full: String,
}

impl ServerVersion {
    /// Parses `server_version`; refuses majors that are not supported.
    pub(crate) fn parse(full: &str, host: &Host) -> Result<Self, Error> {
        let digits = full.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or("");
        match digits.parse() {
            Ok(major) if SUPPORTED_MAJORS.contains(&major) => Ok(Self { major, full: full.to_owned() }),
            _ => Err(Error::UnsupportedVersion {
                host: host.to_string(),
                found: full.chars().take(80).collect(),
            }),
        }
    }
}

/// Which cluster a server is, and how far its log is flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemIdentity {
    /// Minted by `initdb`; the same on every copy of the cluster.
    pub system_identifier: u64,
    /// The timeline the server writes, or replays.
    pub timeline: Timeline,
    /// The end of what is durable there (on a standby: of what was received).
    pub flushed: Offset,
}

/// A timeline's history file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryFile {
    /// Its name in `pg_wal`, such as `00000002.history`.
    pub name: String,
    /// Its bytes.
    pub content: Bytes,
}

/// What a physical slot keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotPosition {
    /// The oldest log it keeps, if it keeps any yet, on the timeline the server says.
    pub restart: Option<Position>,
}

/// A connection for physical replication, between commands.
#[derive(Debug)]
pub struct Connection {
    pub(super) pipe: Pipe<Transport>,
    version: ServerVersion,
    host: Host,
    process_id: i32,
    timeouts: Timeouts,
    /// Set while a command's answer is not read to its end.
    busy: bool,
}

impl Connection {
    /// Connects to one host and logs in, within [`Timeouts::connect`].
    ///
    /// # Errors
    /// Whatever keeps us from a session, among it a server of an unsupported major.
    ///
    /// # Cancel safety
    /// May be dropped at any time; the server ends the session.
    pub async fn connect(params: &ConnectParams, host: &Host) -> Result<Self, Error> {
        Self::connect_of(params, host, Of::Cluster).await
    }

    /// The same, let in as a session in the database of the parameters is: where `pg_hba.conf` has no line for replication. It takes commands such as
    /// `IDENTIFY_SYSTEM`; physical log is not for it.
    ///
    /// Source: <https://www.postgresql.org/docs/current/protocol-replication.html>, `replication=database`; `check_db` in `hba.c`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// As [`connect`](Self::connect).
    pub async fn connect_to_database(params: &ConnectParams, host: &Host) -> Result<Self, Error> {
        Self::connect_of(params, host, Of::Database).await
    }

    async fn connect_of(params: &ConnectParams, host: &Host, of: Of) -> Result<Self, Error> {
        let timeouts = params.timeouts();
        let session = async {
            let mut pipe = Pipe::new(dial(params, host).await?);
            let greeting = startup::start(&mut pipe, params, host, of).await?;
            Ok::<_, Error>((pipe, greeting))
        };
        let (pipe, greeting) = timeout(timeouts.connect, session)
            .await
            .map_err(|_| Error::NoAnswer { what: "the connection attempt", waited: timeouts.connect })??;
        let version = ServerVersion::parse(&greeting.version, host)?;
        let process_id = greeting.process_id;
        Ok(Self { pipe, version, host: host.clone(), process_id, timeouts, busy: false })
    }

    /// The server's version.
    pub fn server_version(&self) -> &ServerVersion {
        &self.version
    }

    /// Whom we are connected to.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The server's process that serves this connection, as `pg_stat_replication` shows it.
    pub fn process_id(&self) -> i32 {
        self.process_id
    }

    /// Whether TLS is on.
    pub fn is_tls(&self) -> bool {
        self.pipe.socket().is_tls()
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Which cluster this is.
    ///
    /// # Errors
    /// When the server refuses, is silent, or answers what makes no sense.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, Error> {
        const WHAT: &str = "IDENTIFY_SYSTEM";
        let rows = self.rows(WHAT, WHAT).await?;
        let row = one(WHAT, rows)?;
        Ok(SystemIdentity {
            system_identifier: field(WHAT, &row, 0)?,
            timeline: field(WHAT, &row, 1)?,
            flushed: field(WHAT, &row, 2)?,
        })
    }

    /// A setting's value, with its unit, as the server shows it.
    ///
    /// # Errors
    /// When there is no such setting, or it may not be seen.
    pub async fn show(&mut self, name: &str) -> Result<String, Error> {
        const WHAT: &str = "SHOW";
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if name.is_empty() || !name.bytes().all(letter) {
            return Err(ParseError { text: name.chars().take(80).collect(), what: "setting name" }.into());
        }
        let rows = self.rows(WHAT, &format!("SHOW {name}")).await?;
        field(WHAT, &one(WHAT, rows)?, 0)
    }

    /// The history file of a timeline. Timeline 1 has none and is never asked for: the error would cost the
    /// connection its temporary slots.
    ///
    /// # Errors
    /// When the server has no such file, or names another.
    pub async fn timeline_history(&mut self, timeline: Timeline) -> Result<Option<HistoryFile>, Error> {
        const WHAT: &str = "TIMELINE_HISTORY";
        if timeline.get() <= 1 {
            return Ok(None);
        }
        let rows = self.rows(WHAT, &format!("TIMELINE_HISTORY {timeline}")).await?;
        let row = one(WHAT, rows)?;
        let name: String = field(WHAT, &row, 0)?;
        let expected = format!("{:08X}.history", timeline.get());
        if name != expected {
            return Err(Error::protocol(WHAT, format!("it is not named {expected}")));
        }
        let content = row.get(1).cloned().flatten();
        let content = content.ok_or_else(|| Error::protocol(WHAT, "it has no content"))?;
        Ok(Some(HistoryFile { name, content }))
    }

    /// Makes a permanent physical slot; with `reserve` it keeps the log from the last checkpoint's start on.
    ///
    /// # Errors
    /// [`Error::SlotExists`] when there is one of that name.
    pub async fn create_physical_slot(&mut self, slot: &SlotName, reserve: bool) -> Result<(), Error> {
        let option = match (reserve, self.version.major) {
            (false, _) => "",
            (true, ..=14) => " RESERVE_WAL",
            (true, _) => " (RESERVE_WAL)",
        };
        let query = format!("CREATE_REPLICATION_SLOT \"{slot}\" PHYSICAL{option}");
        let made = self.rows("CREATE_REPLICATION_SLOT", &query).await;
        made.map(drop).map_err(|error| slot_error(error, slot))
    }

    /// What a physical slot keeps; `None` when there is no such slot. From major 15 on: on 14 ask by SQL.
    ///
    /// # Errors
    /// When the server is older than 15, or the slot is a logical one.
    pub async fn read_slot(&mut self, slot: &SlotName) -> Result<Option<SlotPosition>, Error> {
        const WHAT: &str = "READ_REPLICATION_SLOT";
        if self.version.major < 15 {
            return Err(Error::NotInVersion { what: WHAT, major: self.version.major });
        }
        let rows = self.rows(WHAT, &format!("READ_REPLICATION_SLOT \"{slot}\"")).await?;
        let row = one(WHAT, rows)?;
        if row.first().cloned().flatten().is_none() {
            return Ok(None);
        }
        let offset: Option<Offset> = optional(WHAT, &row, 1)?;
        let timeline: Option<Timeline> = optional(WHAT, &row, 2)?;
        let restart = timeline.zip(offset).map(|(timeline, offset)| Position::new(timeline, offset));
        Ok(Some(SlotPosition { restart }))
    }

    /// Drops a slot that no one uses.
    ///
    /// # Errors
    /// [`Error::SlotMissing`], [`Error::SlotInUse`].
    pub async fn drop_slot(&mut self, slot: &SlotName) -> Result<(), Error> {
        let dropped = self.rows("DROP_REPLICATION_SLOT", &format!("DROP_REPLICATION_SLOT \"{slot}\"")).await;
        dropped.map(drop).map_err(|error| slot_error(error, slot))
    }

    /// Starts to stream the log from `start` on. Start at the beginning of a log segment unless the bytes before
    /// it on its page are at hand.
    ///
    /// # Errors
    /// [`Error::LogMissing`] (it may also come from the stream itself), [`Error::SlotInUse`],
    /// [`Error::SlotMissing`], [`Error::SlotInvalidated`]; [`Error::Server`] when the server's history does not
    /// hold `start`. The connection is closed then.
    pub async fn start_physical(
        self,
        slot: Option<&SlotName>,
        start: Position,
    ) -> Result<ReplicationStream, Error> {
        ReplicationStream::start(self, slot, start).await
    }

    /// Says good-bye and closes the connection.
    pub async fn close(mut self) {
        frontend::terminate(self.pipe.output());
        // The server also notices the closed socket: nothing is lost when this fails.
        let _ = timeout(self.timeouts.answer, self.pipe.send()).await;
    }

    /// Queues a command and marks the connection busy until its answer is read.
    pub(crate) fn begin(&mut self, what: &'static str, query: &str) -> Result<(), Error> {
        if self.busy {
            return Err(Error::Abandoned);
        }
        self.busy = true;
        frontend::query(query, self.pipe.output())
            .map_err(|_| Error::protocol(what, "a command with a NUL was not sent"))
    }

    /// The answer was read to its end.
    pub(crate) fn finish(&mut self) {
        self.busy = false;
    }

    /// The next message, whatever it is, without a deadline of its own. Cancel-safe.
    pub(crate) async fn next_frame(&mut self) -> std::io::Result<Option<Frame>> {
        self.pipe.next().await
    }

    /// The next message that belongs to the answer, at most until `deadline`. Cancel-safe.
    pub(crate) async fn frame(
        &mut self,
        what: &'static str,
        deadline: Instant,
        waited: Duration,
    ) -> Result<Frame, Error> {
        loop {
            let next = timeout_at(deadline, self.pipe.next()).await;
            let frame = next
                .map_err(|_| Error::NoAnswer { what, waited })?
                .map_err(|source| Error::Transfer { what, source })?
                .ok_or(Error::Closed { what })?;
            match frame.tag {
                // Notices, changed settings and notifications may come at any time and answer nothing.
                b'N' | b'S' | b'A' => {}
                _ => return Ok(frame),
            }
        }
    }

    /// Runs a command whose answer is rows, within [`Timeouts::answer`].
    pub(crate) async fn rows(&mut self, what: &'static str, query: &str) -> Result<Vec<Row>, Error> {
        self.begin(what, query)?;
        let waited = self.timeouts.answer;
        let deadline = Instant::now() + waited;
        let mut rows = Vec::new();
        let mut refused: Option<Box<ServerMessage>> = None;
        loop {
            let Frame { tag, body } = self.frame(what, deadline, waited).await?;
            match tag {
                b'T' | b'C' | b'I' => {}
                b'D' if rows.len() < MAX_ROWS => rows.push(parse_row(what, body)?),
                b'E' => {
                    let message = server_message(body);
                    if message.ends_connection() {
                        return Err(Error::Server { what, message });
                    }
                    refused.get_or_insert(message);
                }
                b'Z' => break,
                _ => return Err(Error::protocol(what, format!("an unexpected message of kind {tag:#04x}"))),
            }
        }
        self.finish();
        match refused {
            None => Ok(rows),
            Some(message) => Err(Error::Server { what, message }),
        }
    }
}

/// The columns of a row as text, in the order of the command's documentation.
pub(crate) type Row = Vec<Option<Bytes>>;

pub(crate) fn parse_row(what: &'static str, body: Bytes) -> Result<Row, Error> {
    row(body).ok_or_else(|| Error::protocol(what, "a malformed row"))
}

pub(crate) fn one(what: &'static str, rows: Vec<Row>) -> Result<Row, Error> {
    match <[Row; 1]>::try_from(rows) {
        Ok([row]) => Ok(row),
        Err(rows) => Err(Error::protocol(what, format!("{} rows in place of one", rows.len()))),
    }
}

pub(crate) fn optional<T: FromStr>(what: &'static str, row: &Row, at: usize) -> Result<Option<T>, Error> {
    let Some(bytes) = row.get(at).cloned().flatten() else { return Ok(None) };
    let parsed = str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
    parsed.map(Some).ok_or_else(|| Error::protocol(what, format!("column {} makes no sense", at + 1)))
}

pub(crate) fn field<T: FromStr>(what: &'static str, row: &Row, at: usize) -> Result<T, Error> {
    optional(what, row, at)?.ok_or_else(|| Error::protocol(what, format!("column {} is missing", at + 1)))
}

/// Gives the errors that concern a slot their own variants.
///
/// Source: `replication/slot.c` of PostgreSQL: 42704 undefined object, 42710 duplicate object, 55006 object in use.
pub(crate) fn slot_error(error: Error, slot: &SlotName) -> Error {
    let slot = slot.clone();
    match error {
        Error::Server { message, what } => match message.code.as_str() {
            "42704" => Error::SlotMissing { slot },
            "42710" => Error::SlotExists { slot },
            "55006" => Error::SlotInUse { slot, message },
            _ => Error::Server { what, message },
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_name_cannot_leave_its_quotes() {
        for name in ["", "a\"b", "A", "a b", "a-b", &"a".repeat(64)] {
            assert!(name.parse::<SlotName>().is_err(), "{name:?}");
        }
        assert!("farshore_orders_live".parse::<SlotName>().is_ok());
    }

    #[test]
    fn a_major_that_is_not_known_is_refused() {
        let host = "postgresql://u@h/d".parse::<ConnectParams>().unwrap().hosts()[0].clone();
        for (full, major) in [("15.20 (Debian 15.20-1)", 15), ("18.4", 18), ("14beta2", 14)] {
            assert_eq!(ServerVersion::parse(full, &host).unwrap().major, major);
        }
        for full in ["13.9", "19beta1", "", "x", "99999999999.1"] {
            let error = ServerVersion::parse(full, &host).unwrap_err();
            assert!(error.to_string().contains("14, 15, 16, 17 and 18"), "{error}");
        }
    }
}
