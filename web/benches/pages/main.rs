//! What each page of the dashboard costs with hundreds of databases and months of their past in the catalog, on both kinds of catalog.
//!
//! `cargo bench -p farshore-web --bench pages [-- sqlite | postgres] [--databases 500] [--requests 200] [--server NAME=PATH]`. The catalog is filled once
//! (`fill.rs` says with what); the web server is a process of its own (`server.rs`), asked over loopback by one who has logged in, one request after the
//! other. `--server` measures an older build of this program beside this one, on the same catalog: it fills it and is asked first, since it may not know
//! this build's tables. CPU is the server's and, of PostgreSQL, its backends', for each request: it says more than wall time where the machine is shared.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a measuring program: it panics and prints"
)]

mod fill;
mod server;

use std::process::Command;
use std::time::{Duration, Instant};

use farshore_testkit::pg::{Major, Server};

use self::server::{Asker, Process, cpu_below, machine_busy};

/// What is asked: a name for the table, the path, and whether it is asked as an open page asks again for its part.
const PAGES: [(&str, &str, bool); 17] = [
    ("fleet", "/", false),
    ("fleet, its part each 2 s", "/", true),
    ("fleet, filtered to one", "/?q=db-123", true),
    ("database", "/databases/MIDDLE", false),
    ("database, its facts each 2 s", "/databases/MIDDLE?part=facts", true),
    ("timeline, newest", "/databases/MIDDLE?part=timeline", true),
    ("timeline, all, a point long ago", "/databases/MIDDLE?part=timeline&zoom=all&at=LONG_AGO", true),
    ("database with little log", "/databases/db-007", false),
    ("jobs", "/jobs", false),
    ("jobs of one", "/jobs?database=MIDDLE", false),
    ("jobs, unended", "/jobs?only=unended", false),
    ("drills", "/drills", false),
    ("drills, their part each 2 s", "/drills", true),
    ("drills of one", "/drills?database=MIDDLE", false),
    ("activity", "/activity", false),
    ("settings", "/settings", false),
    ("login", "/login", false),
];

/// What is aimed at, for 95 of 100 requests.
const AIM: f64 = 50.0;

#[derive(Debug, Clone)]
struct Wanted {
    sqlite: bool,
    postgres: bool,
    databases: u16,
    requests: usize,
    /// Builds by name, this one last.
    servers: Vec<(String, String)>,
}

fn wanted() -> Wanted {
    let mut wanted =
        Wanted { sqlite: true, postgres: true, databases: 500, requests: 200, servers: Vec::new() };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|text| text.parse().ok()).expect("a number");
        match word.as_str() {
            "sqlite" => wanted.postgres = false,
            "postgres" => wanted.sqlite = false,
            "--databases" => wanted.databases = u16::try_from(number()).expect("a smaller number"),
            "--requests" => wanted.requests = number(),
            "--server" => {
                let text = words.next().expect("NAME=PATH");
                let (name, path) = text.split_once('=').expect("NAME=PATH");
                wanted.servers.push((name.to_owned(), path.to_owned()));
            }
            other => panic!("what is {other}?"),
        }
    }
    assert!(wanted.databases > 123, "one of the pages shows db-123");
    let own = std::env::current_exe().unwrap().display().to_string();
    wanted.servers.push(("this build".to_owned(), own));
    wanted
}

/// What the requests for one page took, in milliseconds.
#[derive(Default)]
struct Taken {
    wall: Vec<f64>,
    cpu: f64,
    backends: f64,
    bytes: usize,
    others: f64,
}

impl Taken {
    fn line(mut self, name: &str) -> String {
        self.wall.sort_by(f64::total_cmp);
        let at = |part: usize| self.wall[(self.wall.len() * part / 100).min(self.wall.len() - 1)];
        #[allow(clippy::cast_precision_loss, reason = "some hundreds")]
        let each = |sum: f64| sum * 1000.0 / self.wall.len() as f64;
        format!(
            "| {name} | {:.1} | {:.1}{} | {:.1} | {:.2} | {:.2} | {} | {:.1} |",
            at(50),
            at(95),
            if at(95) > AIM { " (!)" } else { "" },
            at(100),
            each(self.cpu),
            each(self.backends),
            self.bytes / 1024,
            self.others
        )
    }
}

/// CPU of the server while nobody asks for a page, in milliseconds a second.
async fn idle(asker: &Asker) -> f64 {
    let (before, begun) = (asker.server_cpu(), Instant::now());
    // Shorter than the server keeps a connection on which nobody asks.
    tokio::time::sleep(Duration::from_secs(5)).await;
    (asker.server_cpu() - before) * 1000.0 / begun.elapsed().as_secs_f64()
}

/// Asks one page a number of times, behind some that are not counted.
async fn ask(asker: &Asker, path: &str, part: bool, count: usize, postmaster: Option<u32>) -> Taken {
    let mut taken = Taken::default();
    for _ in 0..5 {
        asker.get(path, part).await;
    }
    let cpu = || (asker.server_cpu(), postmaster.map_or(0.0, cpu_below));
    let (before, busy, begun) = (cpu(), machine_busy(), Instant::now());
    for _ in 0..count {
        let began = Instant::now();
        taken.bytes = asker.get(path, part).await;
        taken.wall.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    let after = cpu();
    taken.cpu = after.0 - before.0;
    taken.backends = after.1 - before.1;
    // This program's own share is in it, and small: it reads and throws away.
    taken.others = (machine_busy() - busy - taken.cpu - taken.backends) / begun.elapsed().as_secs_f64();
    taken
}

async fn measure(wanted: &Wanted, kind: &str, url: &str, postmaster: Option<u32>) {
    let middle = format!("db-{:03}", wanted.databases / 2);
    let long_ago = fill::time_of_a_commit(chrono::Utc::now() - chrono::TimeDelta::days(60));
    for (name, program) in &wanted.servers {
        let process = Process::start(program, url);
        let reading = process.reading.clone();
        let asker = Asker::log_in(process).await;
        println!("\n## {kind}, {} databases, {name}\n", wanted.databases);
        let idle = idle(&asker).await;
        println!(
            "While nobody asks: {idle:.0} ms of the server's CPU each second, which is in what is said of each page.\n"
        );
        println!(
            "| page | p50 ms | p95 ms | largest ms | server's CPU ms | backends' CPU ms | KiB | others, cores |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        for (page, path, part) in PAGES {
            let path = path.replace("MIDDLE", &middle).replace("LONG_AGO", &long_ago);
            let taken = ask(&asker, &path, part, wanted.requests, postmaster).await;
            println!("{}", taken.line(page));
        }
        println!("\nWhat a service reads once a second for its metrics: {reading}");
    }
}

/// Has the oldest build fill a catalog.
fn fill(wanted: &Wanted, url: &str) {
    let (_, program) = &wanted.servers[0];
    let done = Command::new(program).args(["fill", url, &wanted.databases.to_string()]).status().unwrap();
    assert!(done.success(), "{program} filled nothing");
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", url] => return runtime.block_on(server::serve(url)),
        ["fill", url, databases] => return runtime.block_on(fill::fill(url, databases.parse().unwrap())),
        _ => {}
    }
    let wanted = wanted();
    let filled = |took: Duration| eprintln!("filled in {:.0} s", took.as_secs_f64());
    if wanted.sqlite {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        let url = format!("sqlite:{}", path.display());
        let begun = Instant::now();
        fill(&wanted, &url);
        fill::exposure(wanted.databases, |text| fill::into_sqlite(&path, text));
        filled(begun.elapsed());
        runtime.block_on(measure(&wanted, "SQLite", &url, None));
    }
    if wanted.postgres {
        // As a server is: its durability is its own, and it has more than the test servers' few buffers.
        let server = Server::builder(Major::V15).conf("shared_buffers = '256MB'").start();
        let begun = Instant::now();
        fill(&wanted, &server.url());
        fill::exposure(wanted.databases, |text| drop(server.sql(text)));
        server.sql("vacuum analyze");
        filled(begun.elapsed());
        let postmaster = std::fs::read_to_string(server.data_dir().join("postmaster.pid")).unwrap();
        let postmaster = postmaster.lines().next().and_then(|line| line.trim().parse().ok());
        runtime.block_on(measure(&wanted, "PostgreSQL", &server.url(), postmaster));
    }
}
