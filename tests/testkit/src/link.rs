//! A way between two programs that a test can cut, or let go silent as a machine does that lost its power.
//!
//! What always holds: bytes arrive unchanged and in order, or not at all. Everything ends with the [`Link`].

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::must::Must;
use crate::process::let_pass;

/// How often a side without bytes looks whether the way is still there.
const LOOK: Duration = Duration::from_millis(50);
/// How long reaching the other side may take.
const CONNECT: Duration = Duration::from_secs(3);

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing passes, and nobody is told.
    Silent,
    /// What is said arrives, and no answer comes back.
    Deaf,
    /// So many bytes a second pass, each way of each connection.
    Slow(u32),
    /// Each connection is closed at once.
    Cut,
    Ended,
}

#[derive(Debug)]
struct Shared {
    to: Mutex<SocketAddr>,
    /// With a number of the cut that it went through last: connections from before one do not live on behind it.
    state: Mutex<(State, u64)>,
    changed: Condvar,
    /// Connections that reached the other side.
    reached: AtomicUsize,
}

/// A way to an address.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

impl Link {
    /// One that is open.
    ///
    /// # Panics
    /// When this machine gives no port.
    #[must_use]
    pub fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).must("listen");
        let address = listener.local_addr().must("have an address");
        let shared = Arc::new(Shared {
            to: Mutex::new(to),
            state: Mutex::new((State::Open, 0)),
            changed: Condvar::new(),
            reached: AtomicUsize::new(0),
        });
        let theirs = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || accept(&listener, &theirs));
        Self { shared, address, accepting: Some(accepting) }
    }

    /// Where it begins.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads elsewhere, for connections that are made from now on.
    pub fn lead_to(&self, to: SocketAddr) {
        *self.shared.to.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }

    /// How many connections ever reached the other side.
    #[must_use]
    pub fn reached(&self) -> usize {
        self.shared.reached.load(Ordering::Relaxed)
    }

    /// Lets everything pass; what waited goes on.
    pub fn open(&self) {
        self.shared.turn(State::Open);
    }

    /// Lets nothing pass, and tells nobody.
    pub fn silence(&self) {
        self.shared.turn(State::Silent);
    }

    /// Lets what is said pass and no answer, and tells nobody.
    pub fn deafen(&self) {
        self.shared.turn(State::Deaf);
    }

    /// Lets so many bytes a second pass, at least a hundred, each way of each connection.
    pub fn slow(&self, bytes_per_second: u32) {
        self.shared.turn(State::Slow(bytes_per_second.max(100)));
    }

    /// Closes each connection, and each new one.
    pub fn cut(&self) {
        self.shared.turn(State::Cut);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.turn(State::Ended);
        let _wakes_the_listener = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _it_panicked = accepting.join();
        }
    }
}

impl Shared {
    fn turn(&self, to: State) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let cuts = state.1 + u64::from(matches!(to, State::Cut | State::Ended));
        *state = (to, cuts);
        self.changed.notify_all();
    }

    fn state(&self) -> (State, u64) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while nothing of this kind passes; whether a connection of then still lives.
    fn passes(&self, cuts: u64, is_answer: bool) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = |now: &mut (State, u64)| {
            (now.0 == State::Silent || is_answer && now.0 == State::Deaf) && now.1 == cuts
        };
        let now = self.changed.wait_while(state, silent).unwrap_or_else(PoisonError::into_inner);
        now.1 == cuts
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut pumps: Vec<JoinHandle<()>> = Vec::new();
    while let Ok((near, _)) = listener.accept() {
        let (state, cuts) = shared.state();
        match state {
            State::Ended => break,
            State::Cut => continue,
            State::Open | State::Silent | State::Deaf | State::Slow(_) => {}
        }
        pumps.retain(|pump| !pump.is_finished());
        let shared = Arc::clone(shared);
        pumps.push(std::thread::spawn(move || carry(&near, &shared, cuts)));
    }
    for pump in pumps {
        let _it_panicked = pump.join();
    }
}

fn carry(near: &TcpStream, shared: &Arc<Shared>, cuts: u64) {
    if !shared.passes(cuts, false) {
        return;
    }
    let to = *shared.to.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(far) = TcpStream::connect_timeout(&to, CONNECT) else { return };
    shared.reached.fetch_add(1, Ordering::Relaxed);
    std::thread::scope(|both| {
        both.spawn(|| pump(near, &far, shared, (cuts, false)));
        pump(&far, near, shared, (cuts, true));
    });
}

fn pump(mut from: &TcpStream, mut to: &TcpStream, shared: &Shared, (cuts, is_answer): (u64, bool)) {
    let _stays_slower = (from.set_read_timeout(Some(LOOK)), to.set_nodelay(true));
    let mut bytes = vec![0; 64 << 10];
    while shared.passes(cuts, is_answer) {
        let most = match shared.state().0 {
            // A tenth of a second's worth at a time.
            State::Slow(rate) => (rate as usize / 10).clamp(10, bytes.len()),
            _ => bytes.len(),
        };
        match from.read(&mut bytes[..most]) {
            Ok(0) => {
                let _the_other_end_is_gone = to.shutdown(Shutdown::Write);
                return;
            }
            // What was read before it fell silent goes on when it is open again.
            Ok(length) => {
                if let State::Slow(rate) = shared.state().0 {
                    let_pass(Duration::from_secs_f64(
                        u32::try_from(length).map_or(0.0, f64::from) / f64::from(rate),
                    ));
                }
                if !shared.passes(cuts, is_answer) || to.write_all(&bytes[..length]).is_err() {
                    break;
                }
            }
            Err(why)
                if matches!(why.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    let _both_ends_are_gone = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echoes() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).must("listen");
        let address = listener.local_addr().must("have an address");
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                std::thread::spawn(move || {
                    let mut one = [0];
                    while stream.read_exact(&mut one).is_ok() && stream.write_all(&one).is_ok() {}
                });
            }
        });
        address
    }

    fn says(stream: &mut TcpStream, within: Duration) -> bool {
        stream.set_read_timeout(Some(within)).must("set a timeout");
        let mut one = [0];
        stream.write_all(b"x").is_ok() && stream.read_exact(&mut one).is_ok()
    }

    #[test]
    fn a_silent_way_tells_nobody_and_a_cut_one_everybody() {
        let link = Link::to(echoes());
        let long = Duration::from_secs(10);
        let mut stream = TcpStream::connect(link.address()).must("connect");
        assert!(says(&mut stream, long));
        link.silence();
        assert!(!says(&mut stream, Duration::from_millis(300)));
        link.open();
        let mut late = [0];
        stream.set_read_timeout(Some(long)).must("set a timeout");
        stream.read_exact(&mut late).must("what waited arrives");
        assert!(says(&mut stream, long));
        link.deafen();
        assert!(!says(&mut stream, Duration::from_millis(300)));
        link.slow(100);
        stream.read_exact(&mut late).must("the answer comes late");
        let begun = std::time::Instant::now();
        for _ in 0..10 {
            assert!(says(&mut stream, long));
        }
        assert!(begun.elapsed() > Duration::from_millis(150), "{:?}", begun.elapsed());
        link.cut();
        stream.set_read_timeout(Some(long)).must("set a timeout");
        assert!(matches!(stream.read(&mut late), Ok(0) | Err(_)));
        link.open();
        assert!(!says(&mut stream, Duration::from_millis(300)), "a connection from before the cut is over");
        let mut again = TcpStream::connect(link.address()).must("connect");
        assert!(says(&mut again, long));
    }
}
