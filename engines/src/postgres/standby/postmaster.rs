//! `postmaster.pid`, by which a directory says which server has it.
//!
//! What always holds: the file alone proves nothing. One that was left by a crash names a process that may be another's by now, so whoever acts on it asks that process, and the server at
//! that address, whose they are.
//!
//! | line | what | |
//! |---|---|---|
//! | 1 | process id | negative: a server for one user, without a socket |
//! | 2 | data directory | |
//! | 3 | when it started | |
//! | 4 | port | |
//! | 5 | first directory of sockets | may be empty; relative to the data directory |
//! | 6 | first address that it listens at | may be empty; `*`: all |
//! | 7, 8 | shared memory, state | |
//!
//! Lines behind the third come as the server starts. Source: `LOCK_FILE_LINE_*` in `src/include/utils/pidfile.h` (`miscadmin.h` before 10).

use std::path::{Path, PathBuf};

use crate::postgres::wire::{Host, HostPlace};

/// Its name in the data directory.
pub const PID_FILE: &str = "postmaster.pid";

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postmaster {
    /// The process.
    pub pid: i32,
    /// Its directory, as it was given.
    pub data: PathBuf,
    /// Where it answers; `None` while it starts, and where it answers nowhere.
    pub host: Option<Host>,
}

impl Postmaster {
    /// Reads the file's text; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        // Of a server for one user the number is negative.
        let pid = lines.next()?.trim().parse::<i32>().ok()?.checked_abs().filter(|pid| *pid > 0)?;
        let data = PathBuf::from(lines.next()?);
        let port = lines.nth(1).and_then(|port| port.trim().parse().ok());
        let (sockets, address) = (lines.next().unwrap_or(""), lines.next().unwrap_or("").trim());
        let host = port.filter(|port| *port > 0).and_then(|port| place(&data, sockets, address, port));
        Some(Self { pid, data, host })
    }

    /// What the directory says; `None` where no server has it, as far as the file says.
    ///
    /// # Errors
    /// When the file is there and does not read.
    pub fn read(directory: &Path) -> std::io::Result<Option<Self>> {
        match std::fs::read_to_string(directory.join(PID_FILE)) {
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(why),
            Ok(text) => match Self::parse(&text) {
                Some(found) => Ok(Some(found)),
                None => Err(std::io::Error::other(format!("{PID_FILE} is none that a server writes"))),
            },
        }
    }
}

/// A socket before an address: it needs no network and no TLS. Addresses that mean all are reached on this machine, as `pg_ctl` reaches them.
fn place(data: &Path, sockets: &str, address: &str, port: u16) -> Option<Host> {
    let place = match (sockets, address) {
        ("", "") => return None,
        ("", "*" | "0.0.0.0") => HostPlace::Tcp("127.0.0.1".to_owned()),
        ("", "::") => HostPlace::Tcp("::1".to_owned()),
        ("", address) => HostPlace::Tcp(address.to_owned()),
        (sockets, _) => HostPlace::Unix(data.join(sockets)),
    };
    Some(Host { place, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Option<String> {
        Postmaster::parse(text).unwrap().host.map(|host| host.to_string())
    }

    #[test]
    fn a_server_is_found_at_its_socket_or_else_at_its_address() {
        let file = |rest: &str| format!("4711\n/srv/oslo\n1700000000\n{rest}");
        let whole = file("5433\n/srv/oslo/farshore-run\nlocalhost\n  5432001   131072\nstandby \n");
        let found = Postmaster::parse(&whole).unwrap();
        assert_eq!((found.pid, found.data.to_str()), (4711, Some("/srv/oslo")));
        assert_eq!(host(&whole).as_deref(), Some("/srv/oslo/farshore-run:5433"));
        assert_eq!(host(&file("5433\nrun\n\n")).as_deref(), Some("/srv/oslo/run:5433"));
        assert_eq!(host(&file("5433\n\n*\n")).as_deref(), Some("127.0.0.1:5433"));
        assert_eq!(host(&file("5433\n\n::\n")).as_deref(), Some("[::1]:5433"));
        assert_eq!(host(&file("5433\n\ndb.example\n")).as_deref(), Some("db.example:5433"));
        for starting in ["", "5433\n", "5433\n\n\n", "none\n/run\n\n"] {
            assert_eq!(host(&file(starting)), None, "{starting}");
        }
    }

    #[test]
    fn what_no_server_writes_is_not_taken_for_one() {
        assert_eq!(Postmaster::parse("-4711\n/srv/oslo\n").unwrap().pid, 4711);
        for text in ["", "0\n/srv\n", "x\n/srv\n", "4711", "99999999999\n/srv\n", "-2147483648\n/srv\n"] {
            assert_eq!(Postmaster::parse(text), None, "{text}");
        }
    }
}
