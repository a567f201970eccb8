//! What systemd is told of the service: that it runs, that its loops turn, that it ends. The datagrams of `sd_notify(3)`, without a library: a socket's name from
//! `NOTIFY_SOCKET`, one line a datagram.
//!
//! What always holds: `READY=1` says that the service's tasks run, not that every database is shipped: a primary that is away must not make systemd start the
//! service again and again (`/readyz` says how shipping stands). `WATCHDOG=1` is sent only while every loop that must turn did so since the last time: a
//! service that hangs is ended and begun anew by systemd, which loses nothing that was stored. Without `NOTIFY_SOCKET` nothing is done.
//!
//! Source: `sd_notify(3)`, `sd_watchdog_enabled(3)`.

use std::collections::HashMap;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use farshore_journal::DatabaseName;
use farshore_shipper::progress::{PipelineState, Progress};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a loop may take for one turn, and a pipeline that calls itself connected may not hear its source. A source that falls silent is noticed by its
/// pipeline within seconds, which then calls itself something else.
const TURN: Duration = Duration::from_secs(45);
/// How often the loops are looked at, at most: often enough for any watchdog of seconds.
const LOOK: Duration = Duration::from_secs(5);

/// A loop's count of its turns.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// The loop turned.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where systemd listens.
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Manager {
    /// `None` where nobody listens.
    fn find() -> io::Result<Option<Self>> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(None) };
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(&name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Some(Self { socket, address }))
    }

    fn say(&self, what: &str) {
        if let Err(why) = self.socket.send_to_addr(what.as_bytes(), &self.address) {
            tracing::debug!(error = %why, "the service manager is not told");
        }
    }
}

/// How long systemd waits for a word, when it waits for this process.
fn watchdog(microseconds: Option<&str>, process: Option<&str>, me: u32) -> Option<Duration> {
    if process.is_some_and(|process| process.parse() != Ok(me)) {
        return None;
    }
    let microseconds: u64 = microseconds?.parse().ok().filter(|microseconds| *microseconds > 0)?;
    Some(Duration::from_micros(microseconds))
}

/// A pipeline: the number of its database, and of its target there.
type Place = (usize, usize);

/// What was seen to move, and when it last did. Pure: times are passed in.
#[derive(Debug, Default)]
struct Turning {
    loops: Vec<(u64, Instant)>,
    heard: HashMap<Place, (Option<DateTime<Utc>>, Instant)>,
}

impl Turning {
    /// Whether everything that must move did so within [`TURN`]. `pipelines` are those that call themselves connected, with when each last
    /// heard its source by its own account.
    fn look(
        &mut self,
        now: Instant,
        loops: &[u64],
        pipelines: impl Iterator<Item = (Place, Option<DateTime<Utc>>)>,
    ) -> bool {
        self.loops.resize(loops.len(), (0, now));
        for (known, count) in self.loops.iter_mut().zip(loops) {
            if known.0 != *count {
                *known = (*count, now);
            }
        }
        let before = std::mem::take(&mut self.heard);
        for (key, heard) in pipelines {
            let since = match before.get(&key) {
                Some((was, since)) if *was == heard => *since,
                _ => now,
            };
            self.heard.insert(key, (heard, since));
        }
        let moved = |since: Instant| now.saturating_duration_since(since) <= TURN;
        self.loops.iter().all(|(_, since)| moved(*since))
            && self.heard.values().all(|(_, since)| moved(*since))
    }
}

/// Tells it until cancelled, and then that the service ends; `what` says what it does.
pub async fn tell(
    what: String,
    shown: Vec<(DatabaseName, watch::Receiver<Vec<Progress>>)>,
    pulses: Vec<Pulse>,
    cancel: CancellationToken,
) {
    let manager = match Manager::find() {
        Ok(Some(manager)) => manager,
        Ok(None) => return,
        Err(why) => return tracing::warn!(error = %why, "the service manager cannot be told anything"),
    };
    let variable = |name| std::env::var(name).ok();
    let (microseconds, process) = (variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"));
    let every = watchdog(microseconds.as_deref(), process.as_deref(), std::process::id());
    manager.say(&format!("READY=1\nSTATUS={what}; `farshore status` says how each stands"));
    let mut turning = Turning::default();
    let mut said_to_hang = false;
    loop {
        // Twice as often as systemd expects, as its manual says.
        let pause = every.map_or(LOOK, |every| (every / 2).min(LOOK));
        tokio::select! {
            () = cancel.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
        let counts: Vec<u64> = pulses.iter().map(Pulse::count).collect();
        let connected: Vec<_> = shown
            .iter()
            .enumerate()
            .flat_map(|(database, (_, targets))| {
                let targets = targets.borrow();
                let connected =
                    targets.iter().enumerate().filter(|(_, one)| one.state == PipelineState::Connected);
                connected.map(|(target, one)| ((database, target), one.last_contact)).collect::<Vec<_>>()
            })
            .collect();
        let turns = turning.look(Instant::now(), &counts, connected.into_iter());
        if turns && every.is_some() {
            manager.say("WATCHDOG=1");
        }
        if !turns && !said_to_hang {
            tracing::error!(
                "a loop of this service hangs: the service manager's watchdog is told nothing more until it turns"
            );
        }
        said_to_hang = !turns;
    }
    manager.say("STOPPING=1");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_for_this_process_or_for_nobody() {
        for (microseconds, process, expected) in [
            (Some("30000000"), Some("7"), Some(30)),
            (Some("30000000"), None, Some(30)),
            (Some("30000000"), Some("8"), None),
            (Some("0"), Some("7"), None),
            (Some("soon"), Some("7"), None),
            (None, Some("7"), None),
        ] {
            assert_eq!(
                watchdog(microseconds, process, 7),
                expected.map(Duration::from_secs),
                "{microseconds:?} {process:?}"
            );
        }
    }

    #[test]
    fn a_loop_that_stands_still_and_a_pipeline_that_hears_nothing_and_calls_itself_connected_are_noticed() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let heard = |seconds: i64| DateTime::from_timestamp(seconds, 0);
        let mut turning = Turning::default();
        let none = || std::iter::empty();
        assert!(turning.look(at(0), &[1, 1], none()));
        assert!(turning.look(at(40), &[9, 1], none()));
        assert!(!turning.look(at(50), &[12, 1], none()), "the second loop stands still");
        assert!(turning.look(at(55), &[13, 2], none()), "it turns again");
        let mut turning = Turning::default();
        let one = |seconds| std::iter::once(((0, 0), heard(seconds)));
        assert!(turning.look(at(0), &[], one(5)));
        assert!(turning.look(at(40), &[], one(45)));
        assert!(turning.look(at(80), &[], one(45)));
        assert!(!turning.look(at(90), &[], one(45)), "it hears nothing");
        assert!(turning.look(at(91), &[], none()), "it calls itself something else: its loop turns");
        assert!(turning.look(at(95), &[], one(45)), "it is connected anew");
    }
}
