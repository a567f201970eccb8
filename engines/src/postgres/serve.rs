//! The primary's side of PostgreSQL's physical replication protocol: who may connect, what is asked, and log in the form in which standbys take it.
//!
//! What always holds: nothing is said to anybody who has not proved his password; what comes from the other side is bounded before it is buffered and decoded
//! without a panic; each wait for the other side has a deadline of whoever waits; a password is kept as a verifier, from which it cannot be told.
//!
//! What it does not do: decide what is sent and to whom. It knows of no journal and no database; whoever serves one answers commands and hands log in.
//!
//! ```text
//! socket ──▶ secure (TLS) ──▶ startup (who are you) ──▶ scram (prove it) ──▶ Guest ──▶ greeting ──▶ Session: command? answer ─┬─▶ next command
//!                                                                                                  └─▶ START_REPLICATION: Stream, log out, positions in
//! ```
//!
//! Source: <https://www.postgresql.org/docs/current/protocol.html>, <https://www.postgresql.org/docs/current/protocol-replication.html>; what standbys of
//! majors 14 to 18 send and look at was read in their `walreceiver.c` and `libpqwalreceiver.c`.

mod admit;
mod command;
mod message;
mod scram;
mod secure;
mod session;
mod startup;
mod stream;

pub use admit::{Guest, shown};
pub use command::{Command, Refusal};
pub use scram::{Secrets, Verifier, VerifierError};
pub use secure::{Door, Socket, Tls};
pub use session::{Greeting, ServeError, Session};
pub use startup::Hello;
pub use stream::{FromStandby, MAX_DATA, Stream};
