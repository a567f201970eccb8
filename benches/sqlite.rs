//! What shipping a SQLite database costs and brings: lag from a commit's return to its chunk in the store, what is left of a writer's
//! own rate, the first copy, and a restore.
//!
//! `cargo bench --bench sqlite [-- lag | rate | copy]`. The writer is python's own SQLite, a process of its own, with `synchronous = normal`; the writer's rate
//! also with `full`, which is SQLite's own default. A chunk
//! is taken as stored when its name appears in the store's folder. Figures are this machine's; compare ratios within one run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a measuring program: it panics and prints
#![allow(clippy::disallowed_methods)] // it polls from plain threads, with sleeps

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use farshore_engines::sqlite::decoder::{Part, RecordDecoder};
use farshore_journal::Offset;
use farshore_journal::format::{Decoded, Kind};
use tempfile::TempDir;

/// Commits at a rate (0: as fast as it goes) for some seconds, and prints when each commit returned. Each changes two pages at least, which
/// farshore's own row does not.
const WRITER: &str = "
import sqlite3, sys, time
c = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
c.execute('pragma synchronous = ' + (sys.argv[4] if len(sys.argv) > 4 else 'normal'))
c.execute('create table if not exists a (id integer primary key, v blob)')
c.execute('create table if not exists b (id integer primary key, v blob)')
seconds, rate = float(sys.argv[2]), float(sys.argv[3])
begun = time.monotonic(); number = 0; returned = []
while time.monotonic() < begun + seconds:
    c.execute('begin immediate')
    c.execute('insert into a (v) values (randomblob(100))')
    c.execute('insert into b (v) values (randomblob(100))')
    c.execute('commit')
    returned.append(time.time_ns()); number += 1
    if rate:
        ahead = begun + number / rate - time.monotonic()
        if ahead > 0: time.sleep(ahead)
print(' '.join(map(str, returned)))
";

const LARGE: &str = "
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute('pragma journal_mode = wal')
c.execute('create table large (id integer primary key, v blob)')
while c.execute('select page_count * page_size from pragma_page_count, pragma_page_size').fetchone()[0] < int(sys.argv[2]):
    c.execute('begin')
    c.executemany('insert into large (v) values (?)', [(bytes(range(256)) * 8 + i.to_bytes(8, 'big') * 100,) for i in range(10000)])
    c.execute('commit')
c.execute('pragma wal_checkpoint(truncate)')
";

struct Place {
    folder: TempDir,
}

impl Place {
    fn new(interval: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("store")).unwrap();
        let configuration = format!(
            "[stores.main]\nurl = \"file:store\"\n[databases.app]\nengine = \"sqlite\"\npath = \"app.db\"\nstores = [\"main\"]\n\
             flush_interval = \"{interval}\"\n[service]\nlisten = \"127.0.0.1:0\"\n"
        );
        std::fs::write(folder.path().join("farshore.toml"), configuration).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn python(&self, script: &str, arguments: &[&str]) -> Child {
        let mut command = Command::new("/usr/bin/python3");
        command.arg("-c").arg(script).arg(self.path("app.db")).args(arguments).stdout(Stdio::piped());
        command.spawn().unwrap()
    }

    fn make(&self) {
        let script = "import sqlite3,sys; sqlite3.connect(sys.argv[1]).execute('pragma journal_mode = wal')";
        assert!(self.python(script, &[]).wait().unwrap().success());
    }

    fn start(&self) -> Child {
        self.command(&["-q", "run"]).stdout(Stdio::null()).spawn().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farshore"));
        command.args(arguments).current_dir(self.folder.path());
        command
    }

    /// Where the backup's manifest is, once there is one.
    fn wait_backup(&self) {
        while find(&self.path("store"), "manifest").is_none() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn end(mut service: Child) {
    let _ = Command::new("kill").arg(service.id().to_string()).status();
    service.wait().unwrap();
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let mut entries: Vec<PathBuf> = entries.collect();
    if let Some(at) = entries.iter().position(|path| path.file_name().is_some_and(|found| found == name)) {
        return Some(entries.swap_remove(at));
    }
    entries.iter().filter(|path| path.is_dir()).find_map(|path| find(path, name))
}

fn nanos() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

/// Follows the journal, and notes when each of the writer's transactions was in the store.
fn watch(journal: &Path, stop: &AtomicBool, stored: &Mutex<Vec<u128>>) {
    let mut decoder = RecordDecoder::new(Offset::new(0));
    let mut next = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let Ok(bytes) = std::fs::read(journal.join(format!("{next:016x}"))) else {
            std::thread::sleep(Duration::from_micros(300));
            continue;
        };
        let at = nanos();
        let chunk = Decoded::parse(bytes.into()).unwrap();
        next += 1;
        if chunk.header().kind == Kind::Data {
            let mut stored = stored.lock().unwrap();
            let log = chunk.plain_all(None).unwrap();
            let taken = decoder.push(&log, &mut |part| {
                if let Part::End(ended) = part
                    && ended.head.pages > 1
                {
                    stored.push(at);
                }
            });
            taken.unwrap();
        }
    }
}

fn lag(interval: &str, rate: u32) {
    const SECONDS: &str = "20";
    let place = Place::new(interval);
    place.make();
    let service = place.start();
    place.wait_backup();
    // The tables are there, and the first transactions are over, before anything is measured.
    place.python(WRITER, &["1", "50"]).wait_with_output().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let journal = find(&place.path("store"), "journal").unwrap();
    let (stop, stored) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Vec<u128>>>::default());
    let watcher = {
        let (stop, stored) = (Arc::clone(&stop), Arc::clone(&stored));
        std::thread::spawn(move || watch(&journal, &stop, &stored))
    };
    std::thread::sleep(Duration::from_secs(2));
    let before = stored.lock().unwrap().len();
    let cpu_before = cpu_seconds(&service);
    let said = place.python(WRITER, &[SECONDS, &rate.to_string()]).wait_with_output().unwrap();
    let cpu = cpu_seconds(&service) - cpu_before;
    std::thread::sleep(Duration::from_secs(2));
    stop.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let returned: Vec<u128> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let stored = stored.lock().unwrap();
    assert_eq!(stored.len() - before, returned.len(), "each transaction is stored once");
    let mut lags: Vec<f64> = returned
        .iter()
        .zip(&stored[before..])
        .map(|(returned, stored)| stored.saturating_sub(*returned) as f64 / 1e6)
        .collect();
    lags.sort_by(f64::total_cmp);
    let at = |share: f64| lags[((lags.len() - 1) as f64 * share) as usize];
    println!(
        "{rate} transactions/s, flush_interval {interval}: {} stored; lag ms p50 {:.1} p95 {:.1} p99 {:.1} max {:.1}; {:.3} cores",
        lags.len(),
        at(0.5),
        at(0.95),
        at(0.99),
        at(1.0),
        cpu / SECONDS.parse::<f64>().unwrap(),
    );
    end(service);
}

/// CPU seconds of the service and of the process that follows for it.
fn cpu_seconds(service: &Child) -> f64 {
    let followers = Command::new("pgrep").args(["-P", &service.id().to_string()]).output().unwrap();
    let followers = String::from_utf8(followers.stdout).unwrap();
    let ids = followers.split_whitespace().map(str::to_owned).chain([service.id().to_string()]);
    ids.map(|id| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(11) + ticks(12)) / 100.0
    })
    .sum()
}

/// What a writer that goes as fast as it can commits with the service beside it, to what it commits alone; pairs in turn. What the service
/// computed meanwhile says how much of the machine it took.
fn rate(synchronous: &str) {
    const SECONDS: f64 = 6.0;
    let mut ratios = Vec::new();
    for pair in 0..5 {
        let mut cores = 0.0;
        let mut commits = |with: bool| {
            let place = Place::new("200ms");
            place.make();
            let service = with.then(|| {
                let service = place.start();
                place.wait_backup();
                service
            });
            let before = service.as_ref().map(cpu_seconds);
            let said =
                place.python(WRITER, &[&SECONDS.to_string(), "0", synchronous]).wait_with_output().unwrap();
            if let (Some(service), Some(before)) = (&service, before) {
                cores = (cpu_seconds(service) - before) / SECONDS;
            }
            service.into_iter().for_each(end);
            String::from_utf8(said.stdout).unwrap().split_whitespace().count() as f64
        };
        // Who goes first changes with each pair.
        let (with, alone) = match pair % 2 {
            0 => {
                let alone = commits(false);
                (commits(true), alone)
            }
            _ => (commits(true), commits(false)),
        };
        println!(
            "{synchronous}, pair {pair}: {with} with, {alone} alone: {:.3}; the service took {cores:.2} cores",
            with / alone
        );
        ratios.push(with / alone);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "synchronous = {synchronous}: writer's rate with the service to alone: median {:.3} ({:.3} to {:.3})",
        ratios[2], ratios[0], ratios[4]
    );
}

/// The first copy of a large database, and its restore.
fn copy() {
    let place = Place::new("200ms");
    let large = 1u64 << 30;
    place.python(LARGE, &[&large.to_string()]).wait().unwrap();
    let bytes = std::fs::metadata(place.path("app.db")).unwrap().len() as f64 / 1e6;
    let begun = Instant::now();
    let service = place.start();
    place.wait_backup();
    let copied = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let restored = place.command(&["restore", "app", "--latest", "--to", "copy"]).output().unwrap();
    assert!(restored.status.success(), "{restored:?}");
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{bytes:.0} MB: first copy {copied:.1} s from the service's start, {:.0} MB/s; restore {seconds:.1} s with its integrity check, {:.0} MB/s",
        bytes / copied,
        bytes / seconds
    );
    end(service);
}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wants = |case: &str| asked.is_empty() || asked.iter().any(|word| word == case);
    if wants("lag") {
        for (interval, rate) in [("10ms", 200), ("20ms", 200), ("200ms", 200), ("20ms", 500)] {
            lag(interval, rate);
        }
    }
    if wants("rate") {
        rate("normal");
        rate("full");
    }
    if wants("copy") {
        copy();
    }
}
