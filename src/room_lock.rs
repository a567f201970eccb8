//! The lock of whoever appends to a database's journal on this machine: the service, or a `wal push` without one.
//!
//! What always holds: it is the operating system's, so a process that dies gives it up, and one that is frozen does not. It keeps
//! two of one machine and configuration apart; between machines the put is the fence.

use std::fs::File;
use std::io;

use farshore_shipper::push::room::Room;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The lock, until it is dropped.
#[derive(Debug)]
pub struct RoomLock(#[allow(dead_code, reason = "held, not read")] Flock<File>);

/// Takes the lock of a room; `None` when another process holds it.
///
/// # Errors
/// When the folder or the file cannot be made.
pub fn try_lock(room: &Room) -> io::Result<Option<RoomLock>> {
    let file = File::options().create(true).append(true).open(room.lock_path()?)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(RoomLock(lock))),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, why)) => Err(why.into()),
    }
}
