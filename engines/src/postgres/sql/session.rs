//! One SQL session.
//!
//! Socket and TLS come from [`crate::postgres::wire`] and are ready before the SQL client sees them, so that both
//! kinds of session are protected by one piece of code. The client's driver runs in a task that ends with the
//! session.

use std::error::Error as _;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::config::{ChannelBinding as ClientBinding, SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding as StreamBinding, TlsConnect, TlsStream};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use crate::postgres::wire::{
    ChannelBinding, ConnectParams, Error, Host, ServerMessage, ServerVersion, Timeouts, Transport, dial,
};

/// A session in the database that the URL names.
#[derive(Debug)]
pub struct Session {
    client: Client,
    version: ServerVersion,
    timeouts: Timeouts,
    application_name: String,
    _driver: JoinSet<()>,
}

impl Session {
    /// Connects to one host and logs in, within [`Timeouts::connect`].
    ///
    /// # Errors
    /// Whatever keeps us from a session, among it a server of an unsupported major.
    ///
    /// # Cancel safety
    /// May be dropped at any time; the server ends the session.
    pub async fn connect(params: &ConnectParams, host: &Host) -> Result<Self, Error> {
        let timeouts = params.timeouts();
        let mut config = tokio_postgres::Config::new();
        config.user(params.user()).dbname(params.database()).application_name(params.application_name());
        // The stream given to it is already what it shall be: it must negotiate nothing.
        config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        config.channel_binding(match params.channel_binding() {
            ChannelBinding::Disable => ClientBinding::Disable,
            ChannelBinding::Prefer => ClientBinding::Prefer,
            ChannelBinding::Require => ClientBinding::Require,
        });
        let statement = timeouts.answer.as_millis().max(1);
        let mut options = format!("-c search_path=pg_catalog -c statement_timeout={statement}");
        for (name, value) in params.settings() {
            options.push_str(&format!(" -c {name}={value}"));
        }
        config.options(options);
        if let Some(password) = params.password(host) {
            config.password(password.as_bytes());
        }
        let session = async {
            let stream = Guarded::new(dial(params, host).await?);
            config.connect_raw(stream, Established).await.map_err(|error| login_error(error, host))
        };
        let (client, connection) = timeout(timeouts.connect, Box::pin(session))
            .await
            .map_err(|_| Error::NoAnswer { what: "the connection attempt", waited: timeouts.connect })??;
        let version = ServerVersion::parse(connection.parameter("server_version").unwrap_or(""), host)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Its error reaches the statement under way, or the next one.
            let _ = connection.await;
        });
        let application_name = params.application_name().to_owned();
        Ok(Self { client, version, timeouts, application_name, _driver: driver })
    }

    /// The server's version.
    pub fn server_version(&self) -> &ServerVersion {
        &self.version
    }

    /// What this session calls itself.
    pub(super) fn application_name(&self) -> &str {
        &self.application_name
    }

    /// Runs one statement and gives its rows, within [`Timeouts::answer`].
    pub(super) async fn rows(
        &self,
        what: &'static str,
        statement: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let waited = self.timeouts.answer;
        timeout(waited, self.client.query(statement, values))
            .await
            .map_err(|_| Error::NoAnswer { what, waited })?
            .map_err(|error| sql_error(what, error))
    }

    /// Runs one statement whose answer is one row.
    pub(super) async fn row(
        &self,
        what: &'static str,
        statement: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, Error> {
        let mut rows = self.rows(what, statement, values).await?;
        match (rows.pop(), rows.is_empty()) {
            (Some(row), true) => Ok(row),
            _ => Err(Error::protocol(what, "not exactly one row")),
        }
    }
}

/// A column by its name, of the type that the statement gives it.
pub(super) fn column<'a, T>(what: &'static str, row: &'a Row, name: &str) -> Result<T, Error>
where
    T: tokio_postgres::types::FromSql<'a>,
{
    row.try_get(name).map_err(|_| Error::protocol(what, format!("column {name} makes no sense")))
}

/// A column that is text in the answer and more than text to us.
pub(super) fn parsed<T: std::str::FromStr>(
    what: &'static str,
    row: &Row,
    name: &str,
) -> Result<Option<T>, Error> {
    let Some(text) = column::<Option<&str>>(what, row, name)? else { return Ok(None) };
    let value = text.parse().map_err(|_| Error::protocol(what, format!("column {name} makes no sense")))?;
    Ok(Some(value))
}

fn sql_error(what: &'static str, error: tokio_postgres::Error) -> Error {
    if let Some(said) = error.as_db_error() {
        let message = ServerMessage {
            severity: said.severity().to_owned(),
            code: said.code().code().to_owned(),
            message: said.message().to_owned(),
            detail: said.detail().unwrap_or_default().to_owned(),
            hint: said.hint().unwrap_or_default().to_owned(),
        };
        return Error::Server { what, message: Box::new(message) };
    }
    if error.is_closed() {
        return Error::Closed { what };
    }
    Error::Transfer { what, source: io::Error::other(error) }
}

fn login_error(error: tokio_postgres::Error, host: &Host) -> Error {
    let by_socket = error.source().is_some_and(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|cause| {
            !matches!(cause.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Other)
        })
    });
    if error.as_db_error().is_some() || error.is_closed() || by_socket {
        return sql_error("start-up", error);
    }
    let problem = match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    Error::Authenticate { host: host.to_string(), problem }
}

/// Hands out a stream whose TLS, if any, is established.
struct Established;

impl TlsConnect<Guarded> for Established {
    type Stream = Guarded;
    type Error = io::Error;
    type Future = Ready<io::Result<Guarded>>;

    fn connect(self, stream: Guarded) -> Self::Future {
        ready(Ok(stream))
    }
}

impl TlsStream for Guarded {
    fn channel_binding(&self) -> StreamBinding {
        match self.inner.server_end_point() {
            Some(digest) => StreamBinding::tls_server_end_point(digest),
            None => StreamBinding::none(),
        }
    }
}

/// The server's request for a password in the clear: `R`, length 8, kind 3.
///
/// Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>, AuthenticationCleartextPassword.
const CLEAR_PASSWORD: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 3];

/// A transport on which the SQL client never sees a request for a password in the clear that it would answer over
/// a network without TLS. The request can only be the server's first message.
struct Guarded {
    inner: Transport,
    /// How many bytes of the request have come; `None` once it cannot come any more.
    matched: Option<usize>,
}

impl Guarded {
    fn new(inner: Transport) -> Self {
        let matched = inner.is_readable_on_the_way().then_some(0);
        Self { inner, matched }
    }

    fn look_at(&mut self, bytes: &[u8]) -> io::Result<()> {
        for byte in bytes {
            let Some(at) = self.matched else { return Ok(()) };
            self.matched = (CLEAR_PASSWORD[at] == *byte).then_some(at + 1);
            if self.matched == Some(CLEAR_PASSWORD.len()) {
                let problem = "it asks for the password in the clear without TLS";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
            }
        }
        Ok(())
    }
}

impl AsyncRead for Guarded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = read {
            this.look_at(&buf.filled()[before..])?;
        }
        read
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
