//! The oracle: what PostgreSQL's own `pg_receivewal` kept and its own `pg_waldump` reads, beside farshore and never through it.
//!
//! `pg_waldump` prints where records start, not where they end. A record's end is known by the next one's start, but for the
//! page head that may lie between: [`Oracle::first_start_from`] takes a position to the first place a record can start.

use std::path::PathBuf;
use std::process::Command;

use farshore_testkit::pg::Server;
use farshore_testkit::process::{Owned, wait_for};
use farshore_testkit::user;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{SOON, offset, text};

/// The heads of a page and of a segment's first page. Source: `SizeOfXLogShortPHD`, `SizeOfXLogLongPHD`, xlog_internal.h.
const PAGE_BYTES: u64 = 8192;
const PAGE_HEAD_BYTES: u64 = 24;
const SEGMENT_HEAD_BYTES: u64 = 40;

/// A `pg_receivewal` of a slot of its own.
pub struct Receiver {
    process: Owned,
    folder: TempDir,
    tools: PathBuf,
    segment_bytes: u64,
}

impl Receiver {
    /// Starts it; on return it streams.
    pub fn start(server: &Server) -> Self {
        let folder = user::tempdir();
        let tools = server.major().tools().expect("a major with client programs");
        server.sql("select pg_create_physical_replication_slot('oracle', true)");
        let mut command = Command::new(tools.join("pg_receivewal"));
        command.arg("-D").arg(folder.path()).args(["--slot", "oracle", "--synchronous", "-d"]);
        command.arg(server.url()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let process = Owned::spawn(user::run_as(command), Signal::SIGTERM);
        let segment_bytes = server.sql("select setting from pg_settings where name = 'wal_segment_size'");
        let receiver = Self { process, folder, tools, segment_bytes: segment_bytes.parse().unwrap() };
        receiver.wait_has(server, &server.sql("select pg_current_wal_flush_lsn()"));
        receiver
    }

    /// Waits until it has flushed up to a position.
    #[track_caller]
    pub fn wait_has(&self, server: &Server, position: &str) {
        let asked = format!(
            "select count(*) from pg_stat_replication where application_name = 'pg_receivewal' and flush_lsn >= '{position}'"
        );
        let there = wait_for(SOON, || (server.sql(&asked) == "1").then_some(()));
        assert!(there.is_some(), "pg_receivewal did not come to {position}");
    }

    /// Where its files are.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Ends it and reads what it has of timeline 1, from its first whole segment on.
    pub fn read(mut self) -> (Oracle, TempDir) {
        self.process.signal(Signal::SIGINT);
        self.process.wait(SOON).expect("pg_receivewal ends");
        let mut names: Vec<String> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        // pg_waldump knows no `.partial`.
        if let Some(partial) = names.iter().find(|name| name.ends_with(".partial")) {
            let from = self.folder.path().join(partial);
            std::fs::rename(&from, from.with_extension("")).unwrap();
        }
        let first = names.first().expect("pg_receivewal kept something")[..24].to_owned();
        let mut command = Command::new(self.tools.join("pg_waldump"));
        command.arg("-p").arg(self.folder.path()).arg(first);
        command.arg(names.last().map(|name| name[..24].to_owned()).unwrap());
        let done = user::run_as(command).output().unwrap();
        // It ends with an error where the log ends, which is no error here.
        let records: Vec<Record> = text(&done.stdout).lines().filter_map(Record::parse).collect();
        assert!(!records.is_empty(), "pg_waldump: {}", text(&done.stderr));
        (Oracle { records, segment_bytes: self.segment_bytes }, self.folder)
    }
}

/// A log record, as `pg_waldump` prints it.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its first byte.
    pub start: u64,
    /// What it says.
    pub what: What,
}

/// What a record says, as far as stories ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A commit: the transaction, its sub-transactions, the clock in microseconds since 1970.
    Commit {
        /// Low half of the number.
        xid: u64,
        /// Of sub-transactions.
        sub: Vec<u64>,
        /// As RFC 3339 wants it.
        time: String,
    },
    /// An abort.
    Abort {
        /// Low half of the number.
        xid: u64,
    },
    /// A restore point.
    Point {
        /// Its name.
        name: String,
    },
    /// Anything else.
    Other,
}

impl Record {
    fn parse(line: &str) -> Option<Self> {
        let field = |name: &str, until: char| {
            let rest = line.split_once(name)?.1.trim_start();
            Some(rest.split(until).next()?.trim().to_owned())
        };
        let start = offset(&field("lsn: ", ',')?);
        let desc = line.split_once("desc: ")?.1;
        let (kind, rest) = desc.split_once(' ').unwrap_or((desc, ""));
        let own = || field("tx:", ',').and_then(|xid| xid.parse::<u64>().ok());
        // "COMMIT 2026-03-01 10:00:00.123456 UTC; subxacts: 741 742; ..." and "COMMIT_PREPARED 740: 2026-...".
        let what = match kind {
            "COMMIT" | "COMMIT_PREPARED" | "ABORT" | "ABORT_PREPARED" => {
                let (xid, rest) = match kind.ends_with("PREPARED") {
                    true => rest.split_once(": ").map(|(xid, rest)| (xid.parse().ok(), rest))?,
                    false => (own(), rest),
                };
                let xid = xid?;
                if kind.starts_with("ABORT") {
                    What::Abort { xid }
                } else {
                    let time = rest.split(';').next()?.trim();
                    let time = time.strip_suffix(" UTC")?.replace(' ', "T") + "Z";
                    let sub = rest
                        .split_once("subxacts: ")
                        .map_or("", |(_, sub)| sub.split(';').next().unwrap_or(""));
                    let sub = sub.split_whitespace().filter_map(|xid| xid.parse().ok()).collect();
                    What::Commit { xid, sub, time }
                }
            }
            "RESTORE_POINT" => What::Point { name: rest.trim().to_owned() },
            _ => What::Other,
        };
        Some(Self { start, what })
    }
}

/// The log in order.
pub struct Oracle {
    /// Its records.
    pub records: Vec<Record>,
    segment_bytes: u64,
}

impl Oracle {
    /// The first place at or behind `position` where a record can start.
    pub fn first_start_from(&self, position: u64) -> u64 {
        match position {
            at if at.is_multiple_of(self.segment_bytes) => at + SEGMENT_HEAD_BYTES,
            at if at.is_multiple_of(PAGE_BYTES) => at + PAGE_HEAD_BYTES,
            at => at,
        }
    }

    /// How many records end at or before a position: each but the last ends where the next can start.
    pub fn ended_by(&self, position: u64) -> usize {
        let next = self.first_start_from(position);
        self.records.iter().skip(1).take_while(|record| record.start <= next).count()
    }

    /// Commits among the first `count` records, in order: their index, number and time.
    pub fn commits(&self, count: usize) -> impl Iterator<Item = (usize, u64, &str)> {
        self.records.iter().take(count).enumerate().filter_map(|(index, record)| match &record.what {
            What::Commit { xid, time, .. } => Some((index, *xid, time.as_str())),
            _ => None,
        })
    }

    /// The commit of a transaction or sub-transaction.
    pub fn commit_of(&self, wanted: u64) -> Option<usize> {
        self.records.iter().position(|record| {
            matches!(&record.what, What::Commit { xid, sub, .. } if *xid == wanted || sub.contains(&wanted))
        })
    }

    /// The restore point of a name.
    pub fn point(&self, wanted: &str) -> Option<usize> {
        self.records.iter().position(|record| matches!(&record.what, What::Point { name } if name == wanted))
    }
}
