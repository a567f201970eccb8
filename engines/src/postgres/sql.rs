//! Plain SQL to a protected server: what the checks, the slots and the watch over its disk need.
//!
//! What always holds: the same parameters, sockets, TLS and refusal of passwords in the clear as in
//! [`super::wire`]; every statement has a deadline here and in the server; names are looked up in `pg_catalog`
//! only, so that no one's function of the same name is run with our rights.
//!
//! What it does not do: stream or copy (see [`super::wire`], [`super::backup`]), or decide anything.

pub mod compare;
mod recovery;
mod server;
mod session;
mod settings;
mod slots;
mod synchronous;

pub use recovery::{Pause, Recovery};
pub use server::RoleRights;
pub use session::Session;
pub use settings::{SettingRow, Settings};
pub use slots::{HolderEnd, SlotState, WalStatus};
pub use synchronous::{StreamSeen, Waits, WaitsGlance};
