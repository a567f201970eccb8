//! A standby that a stock server keeps in a directory: what lies there, and what its promotion may do.
//!
//! What always holds: files are read and never written here, and what follows from positions is decided by pure functions. The server itself is asked by [`super::sql`].

mod conf;
mod postmaster;
mod promotion;

pub use conf::{conninfo_value, setting};
pub use postmaster::{PID_FILE, Postmaster};
pub use promotion::{Known, Stands, Step, Waited, stands, step};
