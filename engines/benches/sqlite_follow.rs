//! What following a SQLite database costs, and how soon a transaction is here.
//!
//! ```text
//! cargo bench -p farshore-engines --bench sqlite_follow                 all, some three minutes
//! cargo bench -p farshore-engines --bench sqlite_follow -- lag          lag and CPU at 200 and 500 transactions a second
//! cargo bench -p farshore-engines --bench sqlite_follow -- writers      writers with and without it, in pairs
//! cargo bench -p farshore-engines --bench sqlite_follow -- copy         the first copy of 1 GiB
//! ```
//! Lag is from a commit's return, by the writer's clock, until its whole record has come out of the process that follows; storing it
//! comes on top. Writers are processes of their own with the system's SQLite.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a measuring program: it panics and prints
#![allow(clippy::disallowed_methods)] // it sleeps

use std::collections::VecDeque;
use std::io::{BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use farshore_engines::sqlite::decoder::{Part, RecordDecoder};
use farshore_engines::sqlite::follow::{LOG_FRAMES, Taken};
use farshore_engines::sqlite::serve::serve;
use farshore_engines::sqlite::talk::{Begin, Message, Tell, VERSION};
use farshore_journal::Offset;
use tempfile::TempDir;

/// Says to this very program that it is the process that follows.
const SERVE: &str = "FARSHORE_BENCH_SERVE";

fn main() {
    if std::env::var_os(SERVE).is_some() {
        // Whoever measures may be gone before it has said all.
        let _ = serve(std::io::stdin(), std::io::stdout());
        return;
    }
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let wants = |part: &str| asked.is_empty() || asked.iter().any(|wanted| wanted == part);
    if wants("lag") {
        println!(
            "| transactions a second | looks each | lag p50, p95, p99, largest, ms | cores | writers held: longest ms, in all | log begun anew |"
        );
        println!("|---|---|---|---|---|---|");
        for (rate, every) in [(200, 2), (200, 5), (200, 10), (500, 5)] {
            lag(rate, Duration::from_millis(every));
        }
    }
    if wants("writers") {
        writers("full", Duration::ZERO);
        writers("normal", Duration::ZERO);
        // As where a service stores what came each 200 ms.
        writers("normal", Duration::from_millis(250));
    }
    if wants("copy") {
        copy();
    }
}

/// A database with a table.
fn database() -> TempDir {
    let folder = TempDir::new().unwrap();
    python(
        &folder,
        "c.execute('pragma journal_mode = wal'); c.execute('create table t (id integer primary key, a, b)')",
    );
    folder
}

fn path(folder: &TempDir) -> PathBuf {
    folder.path().join("app.db")
}

fn script(folder: &TempDir, body: &str) -> Command {
    let head = "import sqlite3, sys, time, os\nc = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\nc.execute('pragma synchronous = full')\n";
    let mut command = Command::new("/usr/bin/python3");
    command.arg("-c").arg(format!("{head}{body}")).arg(path(folder));
    command
}

fn python(folder: &TempDir, body: &str) {
    assert!(script(folder, body).status().unwrap().success());
}

/// One small transaction after another, `rate` a second, or as fast as they go. Says when each was committed.
fn writer(folder: &TempDir, synchronous: &str, seconds: f64, rate: Option<u32>) -> Child {
    let pace = rate.map_or(String::new(), |rate| {
        format!("\n  d = b + n / {rate} - time.monotonic()\n  if d > 0: time.sleep(d)")
    });
    let body = format!(
        "c.execute('pragma synchronous = {synchronous}')\nb = time.monotonic(); n = 0; out = []\nwhile time.monotonic() < b + {seconds}:\n  n += 1\n  c.execute('insert into t (a, b) values (?, ?)', (n, os.urandom(150)))\n  out.append(time.time_ns()){pace}\nprint(*out)\n"
    );
    script(folder, &body).stdout(Stdio::piped()).spawn().unwrap()
}

/// When each transaction was committed, in microseconds.
fn commits(writer: Child) -> Vec<i64> {
    let done = writer.wait_with_output().unwrap();
    assert!(done.status.success());
    let text = String::from_utf8(done.stdout).unwrap();
    text.split_whitespace().map(|time| time.parse::<i64>().unwrap() / 1000).collect()
}

struct Process {
    child: Child,
    says: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn start(folder: &TempDir, every: Duration) -> Self {
        let begin = Begin {
            path: path(folder),
            number: 0,
            offset: 0,
            behind: None,
            spool: folder.path().join("spool"),
            log_frames: LOG_FRAMES,
            every,
            version: VERSION.to_owned(),
        };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(SERVE, "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let says = BufReader::with_capacity(1 << 20, child.stdout.take().unwrap());
        let mut this = Self { child, says };
        this.line(&serde_json::to_string(&begin).unwrap());
        this
    }

    fn line(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn tell(&mut self, tell: &Tell) {
        self.line(&serde_json::to_string(tell).unwrap());
    }

    fn next(&mut self) -> Option<Message> {
        Message::read(&mut self.says).ok()
    }

    /// CPU seconds so far.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }
}

fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
}

fn lag(rate: u32, every: Duration) {
    const SECONDS: f64 = 12.0;
    let folder = database();
    let mut process = Process::start(&folder, every);
    // Until it holds the log.
    while !matches!(process.next(), Some(Message::End(_))) {}
    let (cpu, begun) = (process.cpu(), Instant::now());
    let writer = writer(&folder, "full", SECONDS, Some(rate));
    let mut decoder = RecordDecoder::new(Offset::new(0));
    // The first record came before: it is our row's, as are those whose pages are the first one's.
    let (mut came, mut taken, mut pages) = (Vec::new(), Taken::default(), Vec::new());
    let mut synced = false;
    while begun.elapsed().as_secs_f64() < SECONDS + 1.0 {
        match process.next().expect("it lives") {
            Message::Log(bytes) => {
                let now = now_micros();
                if !synced {
                    let head =
                        farshore_engines::sqlite::record::Head::decode(bytes.first_chunk().unwrap()).unwrap();
                    assert!(head.number > 0);
                    synced = true;
                }
                let decoded = decoder.push(&bytes, &mut |part| match part {
                    Part::Begin(_) => pages.clear(),
                    Part::Page { image, .. } => pages.push(image[0]),
                    Part::End(ended) => came.push((ended.head.pages, now)),
                });
                decoded.unwrap();
                process.tell(&Tell::Released(decoder.next_wanted().get()));
            }
            Message::Alive(now) => taken = now,
            _ => {}
        }
    }
    let cores = (process.cpu() - cpu) / begun.elapsed().as_secs_f64();
    process.tell(&Tell::Stop);
    let committed = commits(writer);
    // Ours are more than the writer's: each of the writer's is matched with the first record that came behind it and is not taken.
    let mut lags: Vec<f64> = Vec::new();
    let mut at = 0;
    let ours = came.len().saturating_sub(committed.len());
    for commit in &committed {
        // A record may come in the instant between the commit and the writer's look at its clock.
        while at < came.len() && came[at].1 + 1000 < *commit && at - lags.len() < ours {
            at += 1;
        }
        lags.push((came.get(at).map_or(i64::MAX / 2, |came| came.1) - commit).max(0) as f64 / 1000.0);
        at += 1;
    }
    lags.sort_by(f64::total_cmp);
    let of = |share: f64| lags[((lags.len() - 1) as f64 * share) as usize];
    println!(
        "| {rate} | {every:?} | {:.1}, {:.1}, {:.1}, {:.1} | {cores:.3} | {:.1}, {:.1} ms | {} of {} |",
        of(0.5),
        of(0.95),
        of(0.99),
        of(1.0),
        taken.longest.as_secs_f64() * 1000.0,
        taken.total.as_secs_f64() * 1000.0,
        taken.begun_anew,
        taken.tried
    );
}

/// Transactions a second of a writer as fast as it goes, without and with the process that follows, in turn. What came is
/// released so much later.
fn writers(synchronous: &str, behind: Duration) {
    const SECONDS: f64 = 5.0;
    let mut ratios = Vec::new();
    for _ in 0..5 {
        let alone = {
            let folder = database();
            commits(writer(&folder, synchronous, SECONDS, None)).len()
        };
        let folder = database();
        let mut process = Process::start(&folder, Duration::from_millis(5));
        while !matches!(process.next(), Some(Message::End(_))) {}
        let writer = writer(&folder, synchronous, SECONDS, None);
        let begun = Instant::now();
        let (mut offset, mut taken, mut waiting) = (0, Taken::default(), VecDeque::new());
        while begun.elapsed().as_secs_f64() < SECONDS + 0.5 {
            match process.next().expect("it lives") {
                Message::Log(bytes) => {
                    offset += bytes.len() as u64;
                    waiting.push_back((Instant::now() + behind, offset));
                }
                Message::Alive(now) => taken = now,
                _ => {}
            }
            let due = waiting.iter().take_while(|(at, _)| *at <= Instant::now()).count();
            if let Some((_, offset)) = waiting.drain(..due).next_back() {
                process.tell(&Tell::Released(offset));
            }
        }
        let beside = commits(writer).len();
        println!("alone {alone}, followed {beside}; {taken:?}");
        ratios.push(beside as f64 / alone as f64);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "synchronous = {synchronous}, released {behind:?} behind: writer followed to writer alone: {:.3} ({:.3}-{:.3})",
        ratios[2], ratios[0], ratios[4]
    );
}

/// The first copy of a large database.
fn copy() {
    let folder = database();
    python(
        &folder,
        "c.execute('pragma synchronous = off')\nfor k in range(64):\n  c.execute('begin')\n  for n in range(1024): c.execute('insert into t (a, b) values (?, ?)', (n, os.urandom(16000)))\n  c.execute('commit')\nc.execute('pragma wal_checkpoint(truncate)')",
    );
    let bytes = std::fs::metadata(path(&folder)).unwrap().len();
    for _ in 0..3 {
        let begun = Instant::now();
        let mut process = Process::start(&folder, Duration::from_millis(5));
        process.tell(&Tell::Base);
        let mut copied = 0;
        loop {
            match process.next().expect("it lives") {
                Message::Copy(bytes) => copied += bytes.len() as u64,
                Message::Copied => break,
                _ => {}
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        assert!(copied >= bytes);
        println!(
            "copy of {} MB out of the process: {seconds:.2} s, {:.0} MB/s, CPU {:.2} s",
            bytes / 1_000_000,
            bytes as f64 / 1e6 / seconds,
            process.cpu()
        );
        process.tell(&Tell::Stop);
    }
}
