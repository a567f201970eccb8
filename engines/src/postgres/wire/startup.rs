//! The first exchange on a connection: who we are, the password's proof, and what the server tells of itself.
//!
//! What always holds: a password in the clear goes over TLS or a socket file only; with `channel_binding=require`
//! no other way of proving it is taken; a proof that the server knows the password too is demanded with SCRAM.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>,
//! <https://www.postgresql.org/docs/current/sasl-authentication.html>.

use bytes::{Buf, Bytes};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::frontend;

use super::error::Error;
use super::message::{server_message, text};
use super::params::{ChannelBinding, ConnectParams, Host, Password};
use super::pipe::{Frame, Pipe};
use super::socket::Transport;

const WHAT: &str = "start-up";

/// What a server tells of itself before the first command.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    /// `server_version`, such as `15.20 (Debian 15.20-1)`.
    pub(super) version: String,
    /// The process that serves us.
    pub(super) process_id: i32,
}

/// What a connection for replication is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// The cluster: pg_hba.conf lets it in by the word `replication`.
    Cluster,
    /// The database of the parameters: pg_hba.conf lets it in as it does a session there.
    Database,
}

/// Logs in for replication. The caller sets the deadline.
pub(super) async fn start(
    pipe: &mut Pipe<Transport>,
    params: &ConnectParams,
    host: &Host,
    of: Of,
) -> Result<Greeting, Error> {
    let (database, replication) = match of {
        // As libpq sends it: pg_hba.conf matches physical replication by this word.
        Of::Cluster => ("replication", "true"),
        Of::Database => (params.database(), "database"),
    };
    let settings = [
        ("user", params.user()),
        ("database", database),
        ("replication", replication),
        ("application_name", params.application_name()),
        ("client_encoding", "UTF8"),
    ];
    frontend::startup_message(settings, pipe.output())
        .map_err(|_| Error::ReadUrl { problem: "a value holds a NUL".to_owned() })?;
    let mut login = Login { pipe, params, host, bound: false };
    login.authenticate().await?;
    login.greeting().await
}

struct Login<'a> {
    pipe: &'a mut Pipe<Transport>,
    params: &'a ConnectParams,
    host: &'a Host,
    bound: bool,
}

impl Login<'_> {
    async fn authenticate(&mut self) -> Result<(), Error> {
        let mut scram: Option<ScramSha256> = None;
        loop {
            let (kind, body) = self.request().await?;
            match kind {
                0 => break,
                3 => {
                    if self.pipe.socket().is_readable_on_the_way() {
                        return Err(self.refused("it asks for the password in the clear without TLS"));
                    }
                    let password = self.password()?;
                    self.put(|out| frontend::password_message(password.as_bytes(), out))?;
                }
                5 => {
                    let salt = body.first_chunk::<4>().copied().ok_or_else(malformed)?;
                    let hash = md5_hash(self.params.user().as_bytes(), self.password()?.as_bytes(), salt);
                    self.put(|out| frontend::password_message(hash.as_bytes(), out))?;
                }
                10 if scram.is_none() => scram = Some(self.begin_scram(body)?),
                11 => {
                    let scram = scram.as_mut().ok_or_else(malformed)?;
                    scram.update(&body).map_err(|error| self.refused(&error.to_string()))?;
                    let answer = scram.message().to_vec();
                    self.put(|out| frontend::sasl_response(&answer, out))?;
                }
                12 => {
                    let mut scram = scram.take().ok_or_else(malformed)?;
                    scram.finish(&body).map_err(|error| self.refused(&error.to_string()))?;
                    if !matches!(self.request().await?, (0, _)) {
                        return Err(malformed());
                    }
                    break;
                }
                other => {
                    let problem =
                        format!("it asks for authentication method {other}, which is not supported");
                    return Err(self.refused(&problem));
                }
            }
            if scram.is_some() && !matches!(kind, 10 | 11) {
                return Err(malformed());
            }
        }
        if scram.is_some() {
            // The server said yes without its own proof: it may not know the password at all.
            return Err(self.refused("it did not prove that it knows the password"));
        }
        if self.params.channel_binding() == ChannelBinding::Require && !self.bound {
            return Err(self.refused("channel_binding=require, and it was not used"));
        }
        Ok(())
    }

    fn begin_scram(&mut self, mut offered: Bytes) -> Result<ScramSha256, Error> {
        let (mut plain, mut plus) = (false, false);
        while let Some(name) = text(&mut offered).filter(|name| !name.is_empty()) {
            plain |= name == SCRAM_SHA_256;
            plus |= name == SCRAM_SHA_256_PLUS;
        }
        let wanted = self.params.channel_binding();
        let binding = match wanted {
            ChannelBinding::Disable => None,
            ChannelBinding::Prefer | ChannelBinding::Require => self.pipe.socket().server_end_point(),
        };
        let (binding, mechanism) = match binding {
            Some(digest) if plus => {
                self.bound = true;
                (sasl::ChannelBinding::tls_server_end_point(digest), SCRAM_SHA_256_PLUS)
            }
            // "We could, but the server seems unable": a server that could then knows of a relay between us.
            Some(_) if plain => (sasl::ChannelBinding::unrequested(), SCRAM_SHA_256),
            None if plain => (sasl::ChannelBinding::unsupported(), SCRAM_SHA_256),
            _ => return Err(self.refused("it offers no SCRAM-SHA-256")),
        };
        if wanted == ChannelBinding::Require && !self.bound {
            return Err(self.refused("channel_binding=require, and it or its certificate does not allow it"));
        }
        let scram = ScramSha256::new(self.password()?.as_bytes(), binding);
        self.put(|out| frontend::sasl_initial_response(mechanism, scram.message(), out))?;
        Ok(scram)
    }

    /// The next authentication request: its kind and what follows.
    async fn request(&mut self) -> Result<(i32, Bytes), Error> {
        loop {
            let Frame { tag, mut body } = self.frame().await?;
            match tag {
                b'R' => return Ok((body.try_get_i32().map_err(|_| malformed())?, body)),
                b'N' => {}
                // Protocol 3.0 is the oldest of the supported servers: nothing to negotiate.
                _ => return Err(malformed()),
            }
        }
    }

    async fn greeting(&mut self) -> Result<Greeting, Error> {
        let mut greeting = Greeting::default();
        loop {
            let Frame { tag, mut body } = self.frame().await?;
            match tag {
                b'S' => {
                    let name = text(&mut body).ok_or_else(malformed)?;
                    let value = text(&mut body).ok_or_else(malformed)?;
                    if name == "server_version" {
                        greeting.version = value;
                    }
                }
                b'K' => greeting.process_id = body.try_get_i32().map_err(|_| malformed())?,
                b'N' => {}
                b'Z' => return Ok(greeting),
                _ => return Err(malformed()),
            }
        }
    }

    async fn frame(&mut self) -> Result<Frame, Error> {
        let frame = self.pipe.next().await.map_err(|source| Error::Transfer { what: WHAT, source })?;
        let frame = frame.ok_or(Error::Closed { what: WHAT })?;
        match frame.tag {
            b'E' => Err(Error::Server { what: WHAT, message: server_message(frame.body) }),
            _ => Ok(frame),
        }
    }

    fn put(&mut self, write: impl FnOnce(&mut bytes::BytesMut) -> std::io::Result<()>) -> Result<(), Error> {
        write(self.pipe.output()).map_err(|error| self.refused(&error.to_string()))
    }

    fn password(&self) -> Result<Password, Error> {
        self.params
            .password(self.host)
            .ok_or_else(|| self.refused("it asks for a password and none is given"))
    }

    fn refused(&self, problem: &str) -> Error {
        Error::Authenticate { host: self.host.to_string(), problem: problem.to_owned() }
    }
}

fn malformed() -> Error {
    Error::protocol(WHAT, "a message that is malformed or out of order")
}
