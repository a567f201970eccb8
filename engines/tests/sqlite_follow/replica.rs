//! What the log of a follower makes: a database file, built from the records as they come.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use farshore_engines::sqlite::decoder::{Ended, Part, RecordDecoder};
use farshore_engines::sqlite::follow::{At, Listener, Order, Start, Taken};
use farshore_engines::sqlite::record::Kind;
use farshore_journal::Offset;

use crate::sqlite::{Database, integrity};

/// A database file, as the log makes it.
#[derive(Default)]
pub struct Replica {
    pub file: Vec<u8>,
    pub page_bytes: usize,
    pub transactions: u64,
    pub last: Option<Ended>,
}

/// Takes what a follower gives and applies it.
pub struct Taking<'a> {
    pub decoder: RecordDecoder,
    pub replica: Replica,
    pub end: &'a Receiver<()>,
    pub every: Duration,
    /// Where only the bytes are kept.
    pub log: Option<Vec<u8>>,
}

impl<'a> Taking<'a> {
    pub fn new(base: Vec<u8>, end: &'a Receiver<()>) -> Self {
        Self {
            decoder: RecordDecoder::new(Offset::new(0)),
            replica: Replica { file: base, ..Replica::default() },
            end,
            every: Duration::from_millis(5),
            log: None,
        }
    }
}

impl Replica {
    pub fn take(&mut self, part: Part<'_>) {
        match part {
            Part::Begin(head) => self.page_bytes = head.page_bytes.as_usize(),
            Part::Page { number, image } => {
                let at = (number as usize - 1) * self.page_bytes;
                if self.file.len() < at + image.len() {
                    self.file.resize(at + image.len(), 0);
                }
                self.file[at..at + image.len()].copy_from_slice(image);
            }
            Part::End(ended) => {
                if ended.head.kind == Kind::Transaction {
                    self.file.resize(ended.head.database_pages as usize * self.page_bytes, 0);
                    self.transactions += 1;
                }
                self.last = Some(ended.clone());
            }
        }
    }
}

impl Listener for Taking<'_> {
    fn listens(&self) -> bool {
        true
    }

    fn beneath(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn base(&mut self, _: At) {}

    fn log(&mut self, bytes: Bytes, _: Option<Instant>) -> io::Result<()> {
        if let Some(log) = &mut self.log {
            log.extend_from_slice(&bytes);
            return Ok(());
        }
        let replica = &mut self.replica;
        self.decoder.push(&bytes, &mut |part| replica.take(part)).map_err(io::Error::other)
    }

    fn end(&mut self, _: At) {}

    fn released(&mut self) -> u64 {
        u64::MAX
    }

    fn next(&mut self, _: Taken, _: bool) -> Order {
        match self.end.recv_timeout(self.every) {
            Err(RecvTimeoutError::Timeout) => Order::Look,
            _ => Order::Stop,
        }
    }

    fn now_micros(&mut self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
    }
}

pub const NOW: Start = Start { number: 0, offset: 0, behind: None };

pub fn assert_equal(database: &Database, replica: &Replica) {
    let content = database.content();
    assert_eq!(replica.file.len(), content.len());
    let pages = replica.file.chunks(replica.page_bytes).zip(content.chunks(replica.page_bytes));
    let differ: Vec<usize> =
        pages.enumerate().filter(|(_, (one, other))| one != other).map(|(at, _)| at + 1).collect();
    assert!(differ.is_empty(), "pages {differ:?} differ");
    let copy = database.folder.path().join("replica.db");
    std::fs::write(&copy, &replica.file).unwrap();
    assert_eq!(integrity(&copy).trim(), "[('ok',)]");
}

pub const WRITE: &str =
    "insert into ledger (writer, number, content) values (0, abs(random() % 1000), randomblob(500))";
