//! The server that keeps a PostgreSQL standby, asked over its own socket.
//!
//! What always holds: who answers is believed to be the directory's server only once it says so itself: it works in that directory, it is of that cluster, and it recovers. Nothing is said to
//! one that is not.

use std::path::Path;
use std::time::Duration;

use farshore_engines::postgres::sql::{Recovery, Session};
use farshore_engines::postgres::standby::Postmaster;
use farshore_engines::postgres::wire::{ConnectParams, Connection, Error, Host, Password, Timeouts};
use farshore_journal::Position;
use nix::unistd::{User, geteuid};

use super::place::{Standby, of_its_own};
use crate::message::{Code, OperatorMessage, Safe, with_causes};

/// Each question is a short one over a local socket, on a loaded machine.
const ANSWER: Duration = Duration::from_secs(30);
/// As for other programs that speak to PostgreSQL.
const PASSWORD: &str = "PGPASSWORD";

/// A standby's server, which answers.
pub(super) struct Server<'s> {
    pub standby: &'s Standby,
    pub session: Session,
    params: ConnectParams,
    host: Host,
    /// The connection that was told last how much it received: one look does not cost the server a process each.
    replication: Option<Connection>,
}

impl<'s> Server<'s> {
    /// Asks the server that has the standby's directory; `longest` is how long its longest statement may take.
    ///
    /// # Errors
    /// When none answers, it lets us not in, or it is another.
    pub async fn ask(
        standby: &'s Standby,
        user: Option<&str>,
        longest: Duration,
    ) -> Result<Self, OperatorMessage> {
        let directory = &standby.directory;
        let Some(host) = host(directory)? else { return Err(none_answers(directory, "none runs there")) };
        let user = match user {
            Some(user) => user.to_owned(),
            None => own_name().ok_or_else(|| refused(directory, "?", "this user has no name"))?,
        };
        let mut params = ConnectParams::of(host.clone(), &user, "postgres")
            .with_application_name("farshore standby")
            .with_timeouts(Timeouts { answer: ANSWER.max(longest), ..Timeouts::default() });
        if let Ok(password) = std::env::var(PASSWORD) {
            params = params.with_password(Password::new(password));
        }
        let session =
            Session::connect(&params, &host).await.map_err(|why| not_let_in(directory, &user, &why))?;
        let server = Self { standby, session, params, host, replication: None };
        server.is_the_one(&user).await?;
        Ok(server)
    }

    async fn is_the_one(&self, user: &str) -> Result<(), OperatorMessage> {
        let directory = &self.standby.directory;
        let said = |why| self.unanswered(&why);
        let Some(data) = self.session.data_directory().await.map_err(said)? else {
            return Err(refused(directory, user, "the role may not see the server's settings"));
        };
        let same = std::fs::canonicalize(&data).is_ok_and(|data| data == *directory);
        let system = self.session.system_identifier().await.map_err(said)?;
        if !same || system != self.standby.system {
            return Err(none_answers(
                directory,
                &format!("who answers at {} is the server of `{data}`, cluster {system}", self.host),
            ));
        }
        match self.session.in_recovery().await.map_err(said)? {
            true => Ok(()),
            false => Err(of_its_own(directory, self.standby.database.as_str())),
        }
    }

    /// How far its recovery is.
    ///
    /// # Errors
    /// When it does not answer any more.
    pub async fn recovery(&self) -> Result<Recovery, OperatorMessage> {
        self.session.recovery().await.map_err(|why| self.unanswered(&why))
    }

    /// The end of what it has durable, on the timeline that it replays.
    ///
    /// Only a connection for replication is told both: `IDENTIFY_SYSTEM` gives what was received, where that is on the timeline that is replayed, and else what was replayed. Source:
    /// `GetStandbyFlushRecPtr` in `walsender.c`.
    ///
    /// # Errors
    /// When it does not answer, or our role may not.
    pub async fn received(&mut self) -> Result<Position, OperatorMessage> {
        let kept = self.replication.take();
        let (params, host) = (&self.params, &self.host);
        let asked = async {
            let mut connection = match kept {
                Some(connection) => connection,
                None => Connection::connect_to_database(params, host).await?,
            };
            let found = connection.identify_system().await?;
            Ok::<_, Error>((Position::new(found.timeline, found.flushed), connection))
        };
        let asked = Box::pin(asked).await.map(|(received, connection)| {
            self.replication = Some(connection);
            received
        });
        asked.map_err(|why| {
            OperatorMessage::new(
                Code::StandbyUnasked,
                format!(
                    "how much log the server of `{}` received is not known: {}",
                    self.standby.directory.display(),
                    with_causes(&why)
                ),
                untouched(),
                "ask it as a superuser (--user), and let it have a `max_wal_senders` above 0",
            )
        })
    }

    /// Ends the connection that is asked how much it received.
    pub async fn leave(&mut self) {
        if let Some(connection) = self.replication.take() {
            connection.close().await;
        }
    }

    /// It said something else than an answer.
    pub fn unanswered(&self, why: &Error) -> OperatorMessage {
        let directory = self.standby.directory.display();
        OperatorMessage::new(
            Code::StandbyUnasked,
            format!("the server of `{directory}` does not do or say what it was asked: {}", with_causes(why)),
            Safe::Known(format!("what was received lies in `{directory}`; the store was only read")),
            "look at its log; ask it as a superuser (--user), then give the same command again",
        )
    }
}

/// Where the directory's server answers, as its own file says; `None` where none has the directory.
fn host(directory: &Path) -> Result<Option<Host>, OperatorMessage> {
    match Postmaster::read(directory) {
        Ok(None) => Ok(None),
        Ok(Some(Postmaster { host: Some(host), .. })) => Ok(Some(host)),
        Ok(Some(Postmaster { host: None, .. })) => {
            Err(none_answers(directory, "it starts still, or is one for a single user"))
        }
        Err(why) => Err(none_answers(directory, &why.to_string())),
    }
}

fn own_name() -> Option<String> {
    User::from_uid(geteuid()).ok().flatten().map(|user| user.name)
}

fn untouched() -> Safe {
    Safe::Known("nothing was changed: neither the server's replay nor its files".to_owned())
}

/// No server answers for the directory.
fn none_answers(directory: &Path, why: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::StandbyUnasked,
        format!("the server of the standby in `{}` does not answer: {why}", directory.display()),
        untouched(),
        format!(
            "start it (`pg_ctl -D {} start`), wait until it takes connections, then give the same command again",
            directory.display()
        ),
    )
}

/// It answers, and not to this role.
fn refused(directory: &Path, user: &str, why: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::StandbyUnasked,
        format!(
            "the server of the standby in `{}` does not take the role `{user}`: {why}",
            directory.display()
        ),
        untouched(),
        format!(
            "name a superuser with --user (its password in {PASSWORD}), as the user whom the server's pg_hba.conf lets in"
        ),
    )
}

fn not_let_in(directory: &Path, user: &str, why: &Error) -> OperatorMessage {
    match (why.code(), why) {
        // Invalid authorization, a wrong password, no such database, no right to it.
        (Some("28000" | "28P01" | "3D000" | "42501"), _) | (None, Error::Authenticate { .. }) => {
            refused(directory, user, &with_causes(why))
        }
        _ => none_answers(directory, &with_causes(why)),
    }
}
