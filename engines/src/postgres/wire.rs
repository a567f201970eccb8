//! The replication side of PostgreSQL's protocol: connect, ask who the server is, stream its log.
//!
//! What always holds: every wait has a deadline; a message from the server is bounded before it is buffered and
//! decoded without a panic; streamed bytes are contiguous from the start that was asked for; a password is never
//! printed, and never sent in the clear over a network.
//!
//! What it does not do: decide which position is reported or released (the shipper does), retry, or run SQL (see
//! [`super::sql`], which shares parameters, sockets and TLS with this module).
//!
//! Source: <https://www.postgresql.org/docs/current/protocol.html>,
//! <https://www.postgresql.org/docs/current/protocol-replication.html>.

mod connection;
mod error;
mod message;
mod params;
mod passfile;
mod pipe;
mod socket;
mod startup;
mod stream;
mod tls;

pub use connection::{Connection, HistoryFile, ServerVersion, SlotName, SlotPosition, SystemIdentity};
pub use error::{Error, Retry, ServerMessage};
pub use params::{ChannelBinding, ConnectParams, Host, HostPlace, Password, SslMode, Timeouts};
pub use stream::{ReplicationStream, StandbyStatus, StreamEvent};

pub(crate) use connection::{field, optional, parse_row, slot_error};
pub(crate) use message::{PG_EPOCH_MICROS, server_message, text};
#[cfg(test)]
pub(crate) use message::{put_status, row};
pub(crate) use pipe::{Frame, Pipe};
pub(crate) use socket::{Transport, dial};
pub(crate) use tls::server_end_point;
