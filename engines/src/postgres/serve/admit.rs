//! Who comes in: encrypted or not, and proved by a password.
//!
//! What always holds: a client that is not let in is told that its password does not fit, or that it came the wrong way, and nothing else; with TLS the proof is bound to
//! the certificate wherever the client can, so that nobody between the two passes it on.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::super::wire::{Frame, Pipe, text};
use super::command::Refusal;
use super::message::{self, Severity};
use super::scram::{Exchange, NONCE, PLAIN, PLUS, ScramError, Secrets};
use super::secure::{Door, Socket};
use super::session::{Greeting, ServeError, Session};
use super::startup::{self, Hello, LONGEST, Opening};

/// The longest message that a client sends: a command, or how far it is.
const LONGEST_MESSAGE: usize = 64 << 10;
/// SQLSTATE of a password that does not fit.
const PASSWORD: &str = "28P01";
/// SQLSTATE of somebody who may not come in this way.
const NOT_THIS_WAY: &str = "28000";

/// Somebody who has proved who he is, and was told nothing yet.
#[derive(Debug)]
pub struct Guest<S> {
    pipe: Pipe<Socket<S>>,
    hello: Hello,
    physical: bool,
}

/// What is known before a password is asked for.
struct Came<S> {
    socket: Socket<S>,
    hello: Hello,
    physical: bool,
    /// What of the protocol it asked for in vain.
    older: Option<Vec<String>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guest<S> {
    /// Has a client prove who it is. The caller sets the deadline. `None`: it asked for nothing that is answered.
    ///
    /// # Errors
    /// When it is not let in, or does not speak the protocol.
    pub async fn admit(socket: S, door: &Door, secrets: &Secrets) -> Result<Option<Self>, ServeError> {
        let Some(Came { socket, hello, physical, older }) = came(socket, door).await? else {
            return Ok(None);
        };
        let binding = match &socket {
            Socket::Clear(_) => None,
            Socket::Tls(_) => door.tls.as_ref().and_then(|tls| tls.binding()),
        };
        let is_clear = matches!(socket, Socket::Clear(_));
        let mut pipe = Pipe::bounded(socket, LONGEST_MESSAGE);
        if let Some(unknown) = older {
            message::put_older(pipe.output(), &unknown);
        }
        if is_clear && !door.clear {
            let refusal = Refusal::new(NOT_THIS_WAY, "this journal is served by TLS only")
                .hint("write sslmode=require, or better verify-full with sslrootcert, into primary_conninfo");
            return Err(not_let_in(&mut pipe, &hello.user, &refusal, &refusal.message).await?);
        }
        authenticate(&mut pipe, secrets, &hello, binding).await?;
        Ok(Some(Self { pipe, hello, physical }))
    }

    /// Who it is.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Lets it in.
    ///
    /// # Errors
    /// When it came for something else than physical replication, or the connection broke.
    pub async fn welcome(self, greeting: &Greeting) -> Result<Session<Socket<S>>, ServeError> {
        if !self.physical {
            let refusal = Refusal::new(
                "0A000",
                "this is a journal: it takes connections for physical replication only",
            )
            .hint("write replication=true, as a standby's primary_conninfo does");
            return Err(self.turn_away(&refusal).await?);
        }
        Session::begin(self.pipe, self.hello, greeting).await
    }

    /// Does not let it in, and says why. What comes back is that.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn turn_away(mut self, refusal: &Refusal) -> Result<ServeError, ServeError> {
        not_let_in(&mut self.pipe, &self.hello.user, refusal, &refusal.message).await
    }
}

async fn came<S: AsyncRead + AsyncWrite + Unpin>(
    socket: S,
    door: &Door,
) -> Result<Option<Came<S>>, ServeError> {
    let mut socket = Socket::Clear(socket);
    let (mut tls, mut gss) = (false, false);
    loop {
        let packet = packet(&mut socket).await?;
        match startup::opening(packet).ok_or(ServeError::Protocol("the first packet"))? {
            Opening::Cancel => return Ok(None),
            Opening::Tls if !std::mem::replace(&mut tls, true) => {
                socket = match (socket, &door.tls) {
                    (Socket::Clear(mut clear), Some(offered)) => {
                        clear.write_all(b"S").await?;
                        offered.accept(clear).await?
                    }
                    (mut socket, _) => {
                        socket.write_all(b"N").await?;
                        socket
                    }
                };
            }
            Opening::Gss if matches!(socket, Socket::Clear(_)) && !std::mem::replace(&mut gss, true) => {
                socket.write_all(b"N").await?;
            }
            Opening::Tls | Opening::Gss => return Err(ServeError::Protocol("it asks twice for encryption")),
            Opening::Startup { hello, physical, newer, unknown } => {
                let older = (newer || !unknown.is_empty()).then_some(unknown);
                return Ok(Some(Came { socket, hello, physical, older }));
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

/// Has the client prove its password. `binding`: what the proof is bound to, where that is offered.
async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    pipe: &mut Pipe<S>,
    secrets: &Secrets,
    hello: &Hello,
    binding: Option<&[u8]>,
) -> Result<(), ServeError> {
    let mechanisms = match binding {
        Some(_) => format!("{PLUS}\0{PLAIN}\0\0"),
        None => format!("{PLAIN}\0\0"),
    };
    message::put_authentication(pipe.output(), 10, mechanisms.as_bytes());
    let mut body = proof(pipe).await?;
    let mechanism = text(&mut body).ok_or(ServeError::Protocol("the password's proof"))?;
    let length = body.try_get_u32().map_err(|_| ServeError::Protocol("the password's proof"))? as usize;
    if length != body.len() {
        return Err(ServeError::Protocol("the password's proof"));
    }
    let mut random = [0; NONCE];
    getrandom::fill(&mut random).map_err(|why| io::Error::other(why.to_string()))?;
    let begun = Exchange::begin(secrets, &hello.user, (mechanism.as_str(), &body), binding, random);
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
    not_let_in(pipe, user, &refusal, &why.to_string()).await
}

async fn not_let_in<S: AsyncRead + AsyncWrite + Unpin>(
    pipe: &mut Pipe<S>,
    user: &str,
    refusal: &Refusal,
    why: &str,
) -> Result<ServeError, ServeError> {
    message::put_error(pipe.output(), Severity::Fatal, refusal);
    pipe.send().await?;
    Ok(ServeError::NotLetIn { user: shown(user), why: why.to_owned() })
}

/// A stranger's text, as it may stand in a log.
pub fn shown(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(64).collect()
}
