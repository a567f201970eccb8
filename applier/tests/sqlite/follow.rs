//! The process that follows a database, and what it said.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use farshore_engines::sqlite::decoder::{Ended, Part, RecordDecoder};
use farshore_engines::sqlite::follow::{At, LOG_FRAMES};
use farshore_engines::sqlite::record::FOOT_BYTES;
use farshore_engines::sqlite::talk::{Begin, Message, Tell, VERSION};
use farshore_journal::Offset;

use crate::application::Database;

/// Where the process of a test finds who speaks to it.
pub const SOCKET: &str = "FARSHORE_TEST_SOCKET";
/// How long anything is waited for.
const DEADLINE: Duration = Duration::from_secs(60);

/// A copy of the file, and where it stands in the log.
#[derive(Debug, Default)]
pub struct Copy {
    pub file: Vec<u8>,
    pub beneath: Vec<u8>,
    /// Where the last record before it starts.
    pub start: u64,
    /// Where the last record that was given before it was whole ends.
    pub end: u64,
    /// The number of that record's transaction.
    pub number: u64,
}

/// The process, and the log that it gave.
pub struct Follow {
    child: Child,
    stream: UnixStream,
    /// Its log begins here.
    pub begin: u64,
    pub log: Vec<u8>,
    pub at: At,
}

impl Follow {
    /// Follows from the log's offset `begin` on, behind transaction `number`, with whatever the database is now.
    pub fn start(database: &Database, number: u64, begin: u64) -> Self {
        let socket = database.folder.path().join("socket");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["served_for_another_test", "--exact"]).env(SOCKET, &socket).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let at = At { number, offset: begin };
        let mut follow = Self { child, stream, begin, log: Vec::new(), at };
        let begin = Begin {
            path: database.path(),
            number,
            offset: begin,
            behind: None,
            spool: database.folder.path().join("spool"),
            log_frames: LOG_FRAMES,
            every: Duration::from_millis(2),
            version: VERSION.to_owned(),
        };
        follow.line(&serde_json::to_string(&begin).unwrap());
        follow
    }

    fn line(&mut self, line: &str) {
        self.stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    pub fn tell(&mut self, tell: &Tell) {
        self.line(&serde_json::to_string(tell).unwrap());
    }

    /// Takes one message; what it has of a copy goes into `copy`. Whether the copy is whole.
    fn take(&mut self, copy: &mut Copy) -> bool {
        match Message::read(&mut self.stream).unwrap() {
            Message::Log(bytes) => self.log.extend_from_slice(&bytes),
            Message::End(at) => {
                self.at = at;
                self.tell(&Tell::Released(at.offset));
            }
            Message::Beneath(bytes) => copy.beneath.extend_from_slice(&bytes),
            Message::Base(at) => {
                let before = self.records().into_iter().rfind(|record| record.end.get() <= at.offset);
                copy.start = before.unwrap().start.get();
            }
            Message::Copy(bytes) => copy.file.extend_from_slice(&bytes),
            Message::Copied => return true,
            Message::Alive(_) | Message::Proven => {}
            Message::NotCopied(why) => panic!("the copy broke off: {why}"),
            Message::Failed(failed) => panic!("it failed: {failed:?}"),
        }
        false
    }

    /// Until everything up to this transaction was given.
    pub fn until(&mut self, number: u64) {
        let begun = Instant::now();
        while self.at.number < number {
            assert!(begun.elapsed() < DEADLINE, "{number} never came");
            self.take(&mut Copy::default());
        }
    }

    /// Names the state that is there now, and takes everything up to that.
    pub fn name(&mut self, name: &str) -> At {
        self.tell(&Tell::Point(name.to_owned()));
        let begun = Instant::now();
        loop {
            let log = self.log.strip_suffix(&self.log[self.log.len().saturating_sub(FOOT_BYTES)..]);
            let is_named = log.is_some_and(|log| log.ends_with(name.as_bytes()));
            if is_named && self.at.offset == self.begin + self.log.len() as u64 {
                return self.at;
            }
            assert!(begun.elapsed() < DEADLINE, "it was not named");
            self.take(&mut Copy::default());
        }
    }

    /// Until more was given than there is.
    pub fn more(&mut self) -> At {
        let before = self.at;
        let begun = Instant::now();
        while self.at == before {
            assert!(begun.elapsed() < DEADLINE, "nothing came");
            self.take(&mut Copy::default());
        }
        self.at
    }

    pub fn copy(&mut self) -> Copy {
        self.tell(&Tell::Base);
        let mut copy = Copy::default();
        while !self.take(&mut copy) {}
        let last = self.records().pop().unwrap();
        (copy.end, copy.number) = (last.end.get(), last.head.number);
        copy
    }

    /// The whole records of its log.
    pub fn records(&self) -> Vec<Ended> {
        let mut records = Vec::new();
        let mut decoder = RecordDecoder::new(Offset::new(self.begin));
        let decoded = decoder.push(&self.log, &mut |part| {
            if let Part::End(ended) = part {
                records.push(ended.clone());
            }
        });
        decoded.unwrap();
        records
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
