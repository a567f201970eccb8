//! Whoever is told: a receiver of webhooks that believes what is signed, and keeps it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use farshore::notify::channel::signature;
use serde_json::Value;

/// The key that both have.
pub const KEY: &str = "a key of the tests";

/// What was received, and when.
pub type Received = Arc<Mutex<Vec<(Instant, Value)>>>;

/// A receiver on this machine.
pub struct Receiver {
    pub port: u16,
    pub received: Received,
    /// What it answers.
    pub status: Arc<Mutex<u16>>,
    /// And how late.
    pub pause: Arc<Mutex<Duration>>,
    _thread: JoinHandle<()>,
}

impl Receiver {
    /// Begins to listen; it ends with the process.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (received, status) = (Received::default(), Arc::new(Mutex::new(200_u16)));
        let pause = Arc::<Mutex<Duration>>::default();
        let (kept, answered, late) = (Arc::clone(&received), Arc::clone(&status), Arc::clone(&pause));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let (mut head, mut line) = (Vec::new(), String::new());
                while stream.read_line(&mut line).unwrap_or(0) > 2 {
                    head.push(std::mem::take(&mut line).trim().to_lowercase());
                }
                let header = |name: &str| {
                    let line = head.iter().find_map(|line| line.strip_prefix(&format!("{name}: ")));
                    line.unwrap_or("").to_owned()
                };
                let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
                stream.read_exact(&mut body).unwrap();
                let body = String::from_utf8(body).unwrap();
                let status = *answered.lock().unwrap();
                let pause = *late.lock().unwrap();
                if !pause.is_zero() {
                    farshore_testkit::process::let_pass(pause);
                }
                if status == 200 && !body.is_empty() {
                    let at: i64 = header("farshore-timestamp").parse().expect("a timestamp");
                    assert_eq!(
                        header("farshore-signature"),
                        signature(KEY.as_bytes(), at, &body),
                        "{head:?}"
                    );
                    let (now, told): (_, Value) = (Instant::now(), serde_json::from_str(&body).unwrap());
                    // As the documentation has a receiver take several that come at once.
                    let all = told["notices"].as_array().cloned().unwrap_or_else(|| vec![told]);
                    kept.lock().unwrap().extend(all.into_iter().map(|told| (now, told)));
                } else if status == 200 {
                    kept.lock().unwrap().push((Instant::now(), Value::String(head[0].clone())));
                }
                let _ = write!(
                    stream.get_mut(),
                    "HTTP/1.1 {status} told\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                );
            }
        });
        Self { port, received, status, pause, _thread: thread }
    }

    /// What was told of a database and a topic, oldest first: words, and when.
    pub fn told(&self, database: &str, topic: &str) -> Vec<(Instant, String)> {
        let received = self.received.lock().unwrap();
        let of = received.iter().filter(|(_, told)| told["database"] == database && told["topic"] == topic);
        of.map(|(at, told)| (*at, told["word"].as_str().unwrap().to_owned())).collect()
    }

    /// The configuration of a channel to it; the key stands in the file `key`.
    pub fn channel(&self, name: &str) -> String {
        format!(
            "[notify.{name}]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{}/hook\"\nsecret_file = \"key\"\n",
            self.port
        )
    }
}
