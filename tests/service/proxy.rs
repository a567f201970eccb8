//! A bad way to a good store: an HTTP proxy that refuses, drops, delays, and forwards a request and loses its answer.
//!
//! What always holds: a request is forwarded whole or not at all; an answer is given whole, given as 503, or cut off. The
//! store behind is real. One request a connection: what matters is what becomes of each.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farshore_testkit::random::Random;

/// How many of a hundred requests meet each fault.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Answered 503 without asking the store.
    pub refuse: u64,
    /// The connection ends before the store is asked.
    pub drop: u64,
    /// The store is asked and does it; the answer is lost.
    pub lose_answer: u64,
    /// The request waits up to this many milliseconds.
    pub delay_millis: u64,
    /// The store is asked after a wait of `stall_for`, and its answer given.
    pub stall: u64,
    /// How long a stall lasts.
    pub stall_for: Duration,
}

impl Faults {
    /// Refused, lost and stalled requests, each so many of a hundred.
    pub fn weather(percent: u64) -> Self {
        let stall_for = Duration::from_secs(3);
        Self { refuse: percent, lose_answer: percent, stall: percent, stall_for, ..Self::default() }
    }
}

struct Shared {
    to: SocketAddr,
    faults: Mutex<(Faults, Random)>,
    closed: AtomicBool,
    ended: AtomicBool,
    hurt: AtomicU64,
    stalled: AtomicU64,
    forwarded: AtomicU64,
}

/// The proxy; it ends with its owner.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Proxy {
    /// Stands before `endpoint`, `http://host:port`.
    pub fn before(endpoint: &str, seed: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            to: endpoint.strip_prefix("http://").unwrap().parse().unwrap(),
            faults: Mutex::new((Faults::default(), Random::new(seed))),
            closed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            hurt: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
        });
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if theirs.ended.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&theirs);
                if let Ok(client) = client {
                    std::thread::spawn(move || serve(&shared, client));
                }
            }
        });
        Self { shared, address }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the faults.
    pub fn set(&self, faults: Faults) {
        self.shared.faults.lock().unwrap().0 = faults;
    }

    /// Nothing comes through any more, or everything again.
    pub fn close(&self, closed: bool) {
        self.shared.closed.store(closed, Ordering::Relaxed);
    }

    /// Requests that were stalled.
    pub fn stalled(&self) -> u64 {
        self.shared.stalled.load(Ordering::Relaxed)
    }

    /// Requests that met a fault, and those that reached the store.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.hurt.load(Ordering::Relaxed), self.shared.forwarded.load(Ordering::Relaxed))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let _wakes_the_listener = TcpStream::connect(self.address);
    }
}

fn serve(shared: &Shared, mut client: TcpStream) {
    let _ = client.set_read_timeout(Some(Duration::from_secs(30)));
    if shared.closed.load(Ordering::Relaxed) {
        return;
    }
    let Some(request) = message(&mut client, false) else { return };
    let (fate, delay, faults) = {
        let mut held = shared.faults.lock().unwrap();
        let (faults, random) = &mut *held;
        (random.below(100), random.below(faults.delay_millis + 1), *faults)
    };
    super::let_pass(Duration::from_millis(delay));
    let hurt = || {
        shared.hurt.fetch_add(1, Ordering::Relaxed);
    };
    if fate < faults.drop || shared.closed.load(Ordering::Relaxed) {
        hurt();
        return;
    }
    if fate < faults.drop + faults.refuse {
        hurt();
        let _ = client
            .write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let _ = client.shutdown(Shutdown::Write);
        return;
    }
    let lost = faults.drop + faults.refuse..faults.drop + faults.refuse + faults.lose_answer;
    if (lost.end..lost.end + faults.stall).contains(&fate) {
        shared.stalled.fetch_add(1, Ordering::Relaxed);
        super::let_pass(faults.stall_for);
    }
    let Ok(mut store) = TcpStream::connect(shared.to) else { return };
    if store.write_all(&request).is_err() {
        return;
    }
    shared.forwarded.fetch_add(1, Ordering::Relaxed);
    let head = request.starts_with(b"HEAD ");
    let Some(answer) = message(&mut store, head) else { return };
    if lost.contains(&fate) || shared.closed.load(Ordering::Relaxed) {
        hurt();
        return;
    }
    let _ = client.write_all(&answer);
    let _ = client.shutdown(Shutdown::Write);
}

/// One HTTP message, whole, made the connection's last; `None` when it ended before. `bodyless`: an answer to HEAD.
fn message(stream: &mut TcpStream, bodyless: bool) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut block = [0; 16384];
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut block) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&block[..read]),
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let mut lines = text.trim_end().split("\r\n");
    let first = lines.next()?;
    let mut length = 0;
    let mut chunked = false;
    let mut head = format!("{first}\r\n");
    for line in lines {
        let (name, value) = line.split_once(':')?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "transfer-encoding" => chunked = true,
            "connection" => continue,
            _ => {}
        }
        head.push_str(line);
        head.push_str("\r\n");
    }
    assert!(!chunked, "the proxy was not made for chunked bodies: {text}");
    head.push_str("connection: close\r\n\r\n");
    if bodyless || first.contains(" 304 ") || first.contains(" 204 ") {
        length = 0;
    }
    let mut body = bytes.split_off(head_end);
    while body.len() < length {
        match stream.read(&mut block) {
            Ok(0) | Err(_) => return None,
            Ok(read) => body.extend_from_slice(&block[..read]),
        }
    }
    let mut whole = head.into_bytes();
    whole.append(&mut body);
    Some(whole)
}
