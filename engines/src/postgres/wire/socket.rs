//! From a host to a byte stream: TCP or a socket file, with TLS on top where it is asked for.
//!
//! Both kinds of session, replication and SQL, are dialled here, so both are protected alike. What this does not
//! do: log in (see [`super::startup`]).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::Error;
use super::params::{ConnectParams, Host, HostPlace, SslMode};
use super::tls;

/// A byte stream to a server.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Whether what is sent can be read on the way.
    pub(crate) fn is_readable_on_the_way(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// Whether TLS is on.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// What a password's proof can be bound to.
    pub(crate) fn server_end_point(&self) -> Option<Vec<u8>> {
        match self {
            Self::Tls(stream) => tls::server_end_point(stream.get_ref().1.peer_certificates()?.first()?),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }
}

/// Connects to a host, with TLS as the parameters demand it. The caller sets the deadline.
pub(crate) async fn dial(params: &ConnectParams, host: &Host) -> Result<Transport, Error> {
    let failed = |source| Error::Connect { host: host.to_string(), source };
    let name = match &host.place {
        HostPlace::Unix(folder) => {
            // Source: <https://www.postgresql.org/docs/current/runtime-config-connection.html>, unix_socket_directories.
            let path = folder.join(format!(".s.PGSQL.{}", host.port));
            return UnixStream::connect(path).await.map(Transport::Unix).map_err(failed);
        }
        HostPlace::Tcp(name) => name,
    };
    let mut stream = TcpStream::connect((name.as_str(), host.port)).await.map_err(failed)?;
    // Status updates are small and must not wait for more to send.
    stream.set_nodelay(true).map_err(failed)?;
    let mode = params.ssl_mode(host);
    if mode == SslMode::Disable {
        return Ok(Transport::Tcp(stream));
    }
    let config = tls::client_config(params, mode).await?;
    if !offers_tls(&mut stream).await.map_err(failed)? {
        if mode == SslMode::Prefer {
            return Ok(Transport::Tcp(stream));
        }
        return Err(Error::TlsMissing { host: host.to_string(), sslmode: mode.name() });
    }
    let shaken = |source| Error::TlsHandshake { host: host.to_string(), source };
    let server_name = tls::server_name(name).map_err(shaken)?;
    let stream = TlsConnector::from(config).connect(server_name, stream).await.map_err(shaken)?;
    Ok(Transport::Tls(Box::new(stream)))
}

/// Asks for TLS. Exactly one byte is read before the handshake, so nothing that someone on the way sends ahead in
/// the clear can be taken for the server's words.
///
/// Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL>.
async fn offers_tls(stream: &mut TcpStream) -> io::Result<bool> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await?;
    match stream.read_u8().await? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the answer to the request for TLS is neither S nor N",
        )),
    }
}

macro_rules! each {
    ($transport:expr, $stream:ident => $call:expr) => {
        match $transport.get_mut() {
            Transport::Tcp($stream) => $call,
            Transport::Unix($stream) => $call,
            Transport::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
