//! Real PostgreSQL servers, one per test.
//!
//! [`Server::builder`] makes a new cluster, [`Server::standby_of`] a streaming standby of one, and
//! [`Server::on_data_dir`] starts whatever lies in a data directory, such as a restored one.
//!
//! Administration goes through the Unix socket, which always trusts; the TCP side has what the builder asked for.

mod builder;
mod clock;
mod load;
mod major;
mod server;
mod sql;
mod standby;

pub use builder::Builder;
pub use load::{Length, Load, LoadReport};
pub use major::Major;
pub use server::{Mode, Server};
pub use sql::Connection;
