//! The process that follows a SQLite database, killed again and again while applications write: what it said makes the database, at each
//! record's end.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a panic is the failure message

mod sqlite;

use std::fs::File;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use farshore_engines::sqlite::apply::Apply;
use farshore_engines::sqlite::decoder::{Part, RecordDecoder};
use farshore_engines::sqlite::follow::Start;
use farshore_engines::sqlite::serve::serve;
use farshore_engines::sqlite::talk::{Begin, Message, Tell, VERSION};
use farshore_journal::Offset;
use farshore_testkit::process::let_pass;
use farshore_testkit::random::{Random, seed};

use sqlite::{App, Database, integrity};

/// Where the process of a test finds who speaks to it.
const SOCKET: &str = "FARSHORE_TEST_SOCKET";

/// Not a test of its own: the process that the others start, which is this very program.
#[test]
fn served_for_another_test() {
    let Some(path) = std::env::var_os(SOCKET) else { return };
    let stream = UnixStream::connect(path).unwrap();
    serve(stream.try_clone().unwrap(), stream).unwrap();
}

/// The process, and what is said to it.
struct Process {
    child: Child,
    stream: UnixStream,
}

impl Process {
    fn start(database: &Database, begin: &Begin) -> Self {
        let socket = database.folder.path().join("socket");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["served_for_another_test", "--exact"]).env(SOCKET, &socket).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let (stream, _) = listener.accept().unwrap();
        let mut process = Self { child, stream };
        process.line(&serde_json::to_string(begin).unwrap());
        process
    }

    fn line(&mut self, line: &str) {
        // A process that has ended is seen by what it says no more.
        let _ = self.stream.write_all(format!("{line}\n").as_bytes());
    }

    fn tell(&mut self, tell: &Tell) {
        self.line(&serde_json::to_string(tell).unwrap());
    }

    /// The next message; `None` when the process ended.
    fn next(&mut self) -> Option<Message> {
        Message::read(&mut self.stream).ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A base, and the records behind it.
#[derive(Default)]
struct Taken {
    file: Vec<u8>,
    beneath: Vec<u8>,
    copied: bool,
    from: u64,
    log: Vec<u8>,
    ends: Vec<Start>,
    /// Where the log stood when the copy was whole.
    whole_from: u64,
}

impl Taken {
    fn start(&self) -> Start {
        self.ends.last().copied().unwrap_or(Start { number: 0, offset: 0, behind: None })
    }

    /// Finds the ends of records in what was taken.
    fn index(&mut self) {
        self.ends.clear();
        let mut decoder = RecordDecoder::new(Offset::new(0));
        let ends = &mut self.ends;
        let decoded = decoder.push(&self.log, &mut |part| {
            if let Part::End(ended) = part {
                let behind = Some(ended.head.place.digest());
                ends.push(Start { number: ended.head.number, offset: ended.end.get(), behind });
            }
        });
        decoded.unwrap();
    }

    /// The database as it was at a record's end.
    fn restore(&self, path: &std::path::Path, end: u64) {
        std::fs::write(path, &self.file).unwrap();
        let mut apply = Apply::to(File::options().read(true).write(true).open(path).unwrap());
        RecordDecoder::new(Offset::new(0)).push(&self.beneath, &mut |part| apply.take(part)).unwrap();
        let mut decoder = RecordDecoder::new(Offset::new(self.from));
        let records = &self.log[self.from as usize..end as usize];
        decoder.push(records, &mut |part| apply.take(part)).unwrap();
        apply.end().unwrap();
    }
}

/// Follows for some time, then kills the process; whether it doubted.
fn one_life(database: &Database, taken: &mut Taken, life: Duration, random: &mut Random) -> bool {
    let start = taken.start();
    taken.log.truncate(start.offset as usize);
    let begin = Begin {
        path: database.path(),
        number: start.number,
        offset: start.offset,
        behind: start.behind,
        spool: database.folder.path().join("spool"),
        log_frames: 64,
        every: Duration::from_millis(3),
        version: VERSION.to_owned(),
    };
    let mut process = Process::start(database, &begin);
    if !taken.copied {
        process.tell(&Tell::Base);
        (taken.file, taken.beneath) = (Vec::new(), Vec::new());
    }
    let until = Instant::now() + life;
    let (mut doubted, mut released) = (false, start.offset);
    while Instant::now() < until || !taken.copied {
        match process.next() {
            Some(Message::Log(bytes)) => {
                taken.log.extend_from_slice(&bytes);
                // A target that is behind by this much.
                let stored = (taken.log.len() as u64).saturating_sub(random.below(200_000));
                released = released.max(stored);
                process.tell(&Tell::Released(released));
            }
            Some(Message::Beneath(bytes)) => taken.beneath.extend_from_slice(&bytes),
            Some(Message::Base(at)) => taken.from = at.offset,
            Some(Message::Copy(bytes)) => taken.file.extend_from_slice(&bytes),
            Some(Message::Copied) => (taken.copied, taken.whole_from) = (true, taken.log.len() as u64),
            Some(Message::NotCopied(why)) => panic!("the copy broke off: {why}"),
            Some(Message::End(_) | Message::Alive(_) | Message::Proven) => {}
            Some(Message::Failed(failed)) => {
                assert!(failed.doubt, "{failed:?}");
                doubted = true;
                break;
            }
            None => panic!("it ended by itself"),
        }
    }
    drop(process);
    if !doubted {
        // A record that was cut off is given again from its begin; so is what the target does not have.
        let mut whole = Taken { log: std::mem::take(&mut taken.log), ..Taken::default() };
        let mut decoder = RecordDecoder::new(Offset::new(0));
        let mut end = 0;
        decoder
            .push(&whole.log, &mut |part| {
                if let Part::End(ended) = part {
                    end = ended.end.get()
                }
            })
            .unwrap();
        whole.log.truncate(end as usize);
        taken.log = whole.log;
        taken.index();
        let stored = released.max(taken.whole_from);
        taken.ends.retain(|end| end.offset <= stored.max(start.offset));
    }
    doubted
}

#[test]
fn a_process_killed_at_any_moment_is_followed_by_one_that_misses_nothing() {
    let seed = seed();
    println!("FARSHORE_SEED={seed}");
    let mut random = Random::new(seed);
    let database = Database::new(4096, "select 1");
    let mut app = App::open(&database.path());
    let mut writers: Vec<Child> = vec![
        database.writer(1, 14.0, "steady", Some(200)),
        database.writer(random.below(1 << 30), 14.0, "mixed", Some(20)),
    ];
    let mut taken = Taken::default();
    let (mut lives, mut doubts) = (0, 0);
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        let life = Duration::from_millis(random.below(900));
        if one_life(&database, &mut taken, life, &mut random) {
            taken = Taken::default();
            doubts += 1;
        }
        lives += 1;
    }
    // The last one lives until the writers have ended. Where it doubts, it is begun anew as the others are.
    loop {
        let ended = writers.iter_mut().all(|writer| writer.try_wait().unwrap().is_some());
        if one_life(&database, &mut taken, Duration::from_secs(6), &mut random) {
            taken = Taken::default();
            doubts += 1;
        } else if ended {
            break;
        }
    }
    let path = database.folder.path().join("restored.db");
    let ends: Vec<u64> =
        taken.ends.iter().map(|end| end.offset).filter(|end| *end >= taken.whole_from).collect();
    for _ in 0..20 {
        let end = *random.pick(&ends).unwrap();
        taken.restore(&path, end);
        assert_eq!(integrity(&path).trim(), "[('ok',)]");
    }
    println!("{lives} lives, {doubts} doubted, {} transactions", taken.ends.len());
    assert!(lives > 3);
    let_pass(Duration::from_millis(100));
    app.sql("select 1");
    app.close();
    taken.restore(&path, taken.log.len() as u64);
    let restored = std::fs::read(&path).unwrap();
    let content = database.content();
    let differ: Vec<usize> = restored
        .chunks(4096)
        .zip(content.chunks(4096))
        .enumerate()
        .filter(|(_, (a, b))| a != b)
        .map(|(at, _)| at + 1)
        .collect();
    assert_eq!((restored.len(), differ), (content.len(), vec![]));
}
