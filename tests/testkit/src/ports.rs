//! Ports for servers that cannot be asked to choose one and tell us, or that must keep theirs over a restart.
//!
//! A port is reserved by a locked file for as long as its [`Port`] lives, across all test processes of the machine.
//! They lie below the range from which the kernel takes ports for outgoing connections: while a server is down
//! between stop and start, nobody else's connection can land on its number.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use nix::fcntl::{Flock, FlockArg};

use crate::must::Must;

/// Below 32768, where Linux starts with outgoing ports (`net.ipv4.ip_local_port_range`).
const RANGE: std::ops::Range<u16> = 21_000..32_000;

/// A port of ours until dropped.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _lock: Flock<std::fs::File>,
}

impl Port {
    pub(crate) fn reserve() -> Self {
        let folder = folder();
        let count = RANGE.end - RANGE.start;
        // Processes start their search at different places, so that they rarely meet.
        let first = u16::try_from(std::process::id().wrapping_mul(7919) % u32::from(count)).unwrap_or(0);
        for step in 0..count {
            let number = RANGE.start + (first + step) % count;
            let path = folder.join(number.to_string());
            let Ok(file) = OpenOptions::new().create(true).append(true).open(&path) else { continue };
            let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
            // A foreign program may sit on it, at any address.
            if TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port in {RANGE:?}");
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

/// One folder per user: a lock file of root's could not be opened by others.
fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("farshore-test-ports-{}", nix::unistd::geteuid()));
    std::fs::create_dir_all(&folder).must(format_args!("make {}", folder.display()));
    folder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_reserved_together_differ() {
        let ports: Vec<Port> = (0..5).map(|_| Port::reserve()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.dedup();
        assert_eq!(numbers.len(), 5);
    }
}
