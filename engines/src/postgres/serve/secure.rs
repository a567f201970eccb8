//! TLS on a connection, before anything is said.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::super::wire::server_end_point;

/// What clients of 17 and later call the protocol, and ask for in the handshake. Source: PostgreSQL's `src/include/libpq/pqcomm.h`, `PG_ALPN_PROTOCOL`.
const ALPN: &[u8] = b"postgresql";

/// What TLS is spoken with.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    /// What passwords' proofs are bound to; a certificate whose signature has no digest of its own (Ed25519) gives none (RFC 5929, section 4.1).
    binding: Option<Vec<u8>>,
}

impl Tls {
    /// With a certificate, its chain behind it, and its key.
    ///
    /// # Errors
    /// When they do not belong together or are not usable.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        let binding = chain.first().and_then(|own| server_end_point(own));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), binding })
    }

    /// Shakes hands. What was sent ahead in the clear is taken for part of it, and breaks it.
    pub(super) async fn accept<S>(&self, socket: S) -> io::Result<Socket<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        Ok(Socket::Tls(Box::new(self.acceptor.accept(socket).await?)))
    }

    pub(super) fn binding(&self) -> Option<&[u8]> {
        self.binding.as_deref()
    }
}

/// How clients are let come.
#[derive(Clone, Default)]
pub struct Door {
    /// By TLS; `None`: nobody can.
    pub tls: Option<Tls>,
    /// Whether in the clear: where nobody listens on the way.
    pub clear: bool,
}

/// A connection, encrypted or not.
#[derive(Debug)]
pub enum Socket<S> {
    /// Not.
    Clear(S),
    /// By TLS.
    Tls(Box<TlsStream<S>>),
}

macro_rules! each {
    ($socket:expr, $stream:ident => $call:expr) => {
        match $socket.get_mut() {
            Socket::Clear($stream) => $call,
            Socket::Tls($stream) => $call,
        }
    };
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
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
