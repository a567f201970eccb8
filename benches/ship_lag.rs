//! How long after a commit returned its log is in the store: a probe commits every 20 ms under `pgbench -R 200`, and the
//! store's folder is watched for the chunk that covers it.
//!
//! `cargo bench --bench ship_lag` prints p50, p95, p99 and the largest for each flush interval, and the service's CPU and
//! memory. Figures are this machine's; compare ratios within one run. A chunk is taken as stored when its name appears: its
//! bytes are durable then, its folder's entry within a fraction of a millisecond.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a measuring program: it panics and prints
#![allow(clippy::disallowed_methods)] // it polls from plain threads, with sleeps

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use farshore_journal::format::Header;
use farshore_testkit::pg::{Length, Major, Server};

const FOR: Duration = Duration::from_secs(20);

fn main() {
    let server = Server::start_new(Major::V15);
    server.pgbench_init(10);
    server.sql("create table probe (i bigint)");
    for interval in ["200ms", "50ms", "10ms"] {
        measure(&server, interval);
    }
}

fn measure(server: &Server, interval: &str) {
    let folder = tempfile::tempdir().unwrap();
    let port = server.port();
    let config = format!(
        "[catalog]\nurl = \"sqlite:catalog.db\"\n[stores.main]\nurl = \"file:{store}\"\n[databases.lag]\nengine = \"postgres\"\n\
         url = \"postgresql://postgres@127.0.0.1:{port}/postgres\"\nstores = [\"main\"]\nprotection = \"async\"\non_full = \"hold\"\n\
         flush_interval = \"{interval}\"\n[service]\nlisten = \"127.0.0.1:0\"\n",
        store = folder.path().join("store").display(),
    );
    std::fs::create_dir(folder.path().join("store")).unwrap();
    std::fs::write(folder.path().join("farshore.toml"), config).unwrap();
    let mut service = Command::new(env!("CARGO_BIN_EXE_farshore"))
        .args(["-c", "farshore.toml", "-q", "run"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let journal = wait_for_journal(&folder.path().join("store"));
    let stop = Arc::new(AtomicBool::new(false));
    let seen: Arc<Mutex<Vec<(u64, Instant)>>> = Arc::default();
    let watcher = {
        let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
        std::thread::spawn(move || watch(&journal, &stop, &seen))
    };
    std::thread::sleep(Duration::from_secs(3));
    let cpu_before = cpu_seconds(&service);
    let load = server.pgbench_with(2, Length::For(FOR), &["-R", "200"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let commits = runtime.block_on(probe(server));
    let report = load.wait();
    std::thread::sleep(Duration::from_secs(2));
    let cpu = cpu_seconds(&service) - cpu_before;
    stop.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    let seen = seen.lock().unwrap();
    let mut lags: Vec<f64> = commits
        .iter()
        .filter_map(|(end, at)| {
            let stored = seen.iter().find(|(stored, _)| stored >= end)?.1;
            Some(stored.saturating_duration_since(*at).as_secs_f64() * 1e3)
        })
        .collect();
    lags.sort_by(f64::total_cmp);
    let at = |share: f64| lags[((lags.len() - 1) as f64 * share) as usize];
    println!(
        "flush_interval {interval} beside {} transactions: {} of {} probes stored; lag ms p50 {:.1} p95 {:.1} p99 {:.1} max {:.1}; {:.3} cores, {} KiB resident, {} chunks",
        report.transactions,
        lags.len(),
        commits.len(),
        at(0.5),
        at(0.95),
        at(0.99),
        lags[lags.len() - 1],
        cpu / (FOR.as_secs_f64() + 2.0),
        resident_kib(&service),
        seen.len(),
    );
    let _ = Command::new("kill").arg(service.id().to_string()).status();
    service.wait().unwrap();
    server.sql("select pg_drop_replication_slot(slot_name) from pg_replication_slots");
}

/// Commits every 20 ms; the end of each commit's log, and when it returned.
async fn probe(server: &Server) -> Vec<(u64, Instant)> {
    let client = server.connect().await;
    let mut commits = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < FOR {
        client.execute("insert into probe values (1)", &[]).await.unwrap();
        let returned = Instant::now();
        let row = client.query_one("select (pg_current_wal_flush_lsn() - '0/0')::bigint", &[]).await.unwrap();
        commits.push((u64::try_from(row.get::<_, i64>(0)).unwrap(), returned));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    commits
}

fn wait_for_journal(store: &Path) -> PathBuf {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < deadline, "no journal appeared");
        if let Some(journal) = find(store, "journal") {
            return journal;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> =
        std::fs::read_dir(folder).ok()?.filter_map(|e| Some(e.ok()?.path())).collect();
    let here =
        entries.iter().find(|path| path.file_name().is_some_and(|found| found == name) && path.is_dir());
    here.cloned().or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|path| find(path, name)))
}

/// Follows the journal's numbers, and notes when each chunk appeared and where it ends.
fn watch(journal: &Path, stop: &AtomicBool, seen: &Mutex<Vec<(u64, Instant)>>) {
    let mut next = 0u64;
    while !stop.load(Ordering::Relaxed) {
        match std::fs::read(journal.join(format!("{next:016x}"))) {
            Ok(bytes) => {
                let at = Instant::now();
                seen.lock().unwrap().push((Header::decode(&bytes).unwrap().end.get(), at));
                next += 1;
            }
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn cpu_seconds(child: &Child) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

fn resident_kib(child: &Child) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).unwrap_or("?").to_owned()
}
