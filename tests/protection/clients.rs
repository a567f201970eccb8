//! Clients that insert rows one by one and write down which were acknowledged.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use farshore_testkit::pg::Server;
use tokio_postgres::NoTls;

/// No row is tried twice, whoever tries it: one whose answer was lost may be there.
static NEXT: AtomicU32 = AtomicU32::new(1);
/// How long a client waits before it connects again.
const PAUSE: Duration = Duration::from_millis(50);

/// Clients at work.
pub struct Clients {
    stop: Arc<AtomicBool>,
    rows: Arc<Mutex<Vec<(u32, u32)>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    pub fn start(server: &Server, count: u32) -> Self {
        Self::begin(server, count, &[], Duration::ZERO)
    }

    /// The same, with a pause behind each commit.
    pub fn start_slowly(server: &Server, count: u32, pause: Duration) -> Self {
        Self::begin(server, count, &[], pause)
    }

    /// The same, with what was acknowledged before.
    pub fn continue_from(server: &Server, count: u32, acknowledged: &[(u32, u32)]) -> Self {
        Self::begin(server, count, acknowledged, Duration::ZERO)
    }

    fn begin(server: &Server, count: u32, acknowledged: &[(u32, u32)], pause: Duration) -> Self {
        let (stop, rows) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(acknowledged.to_vec())));
        let threads = (0..count)
            .map(|client| {
                let (url, stop, rows) = (server.url(), Arc::clone(&stop), Arc::clone(&rows));
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(work(&url, client, (&stop, &rows), pause));
                })
            })
            .collect();
        Self { stop, rows, threads }
    }

    /// What was acknowledged so far.
    pub fn acknowledged(&self) -> Vec<(u32, u32)> {
        self.rows.lock().unwrap().clone()
    }

    /// Ends them; what was acknowledged.
    pub fn stop(mut self) -> Vec<(u32, u32)> {
        self.end();
        self.acknowledged()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.end();
    }
}

async fn work(url: &str, client: u32, (stop, rows): (&AtomicBool, &Mutex<Vec<(u32, u32)>>), pause: Duration) {
    let stopped = async || {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    while !stop.load(Ordering::Relaxed) {
        tokio::select! {
            () = stopped() => return,
            () = session(url, client, rows, pause) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Until the first error.
async fn session(url: &str, client: u32, rows: &Mutex<Vec<(u32, u32)>>, pause: Duration) {
    let Ok((asks, connection)) = tokio_postgres::connect(url, NoTls).await else { return };
    let inserts = async {
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let text = format!("insert into kept values ({client}, {n})");
            match asks.batch_execute(&text).await {
                Ok(()) => rows.lock().unwrap().push((client, n)),
                Err(_) => return,
            }
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        () = inserts => {}
        _ended = connection => {}
    }
}
