//! A live SQLite database that other processes write to, with another SQLite than ours: every transaction is taken, none is missed,
//! and the log is begun anew under steady writes.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a panic is the failure message

mod sqlite;

use std::fs::File;
use std::io;
use std::process::Child;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use farshore_engines::sqlite::apply::Apply;
use farshore_engines::sqlite::base::copy;
use farshore_engines::sqlite::decoder::{Ended, Part, RecordDecoder};
use farshore_engines::sqlite::follow::{At, FollowError, Follower, Listener, Options, Order, Start, Taken};
use farshore_engines::sqlite::hold::Connections;
use farshore_engines::sqlite::record::Kind;
use farshore_engines::sqlite::wal_file::{Encoder, WalFile, WalReadError};
use farshore_journal::Offset;
use farshore_testkit::random::{Random, seed};

use sqlite::{App, Database, dump, integrity};

/// A database file, as the log makes it.
#[derive(Default)]
struct Replica {
    file: Vec<u8>,
    page_bytes: usize,
    transactions: u64,
    last: Option<Ended>,
}

/// Takes what a follower gives and applies it.
struct Taking<'a> {
    decoder: RecordDecoder,
    replica: Replica,
    end: &'a Receiver<()>,
    every: Duration,
    /// Where only the bytes are kept.
    log: Option<Vec<u8>>,
}

impl<'a> Taking<'a> {
    fn new(base: Vec<u8>, end: &'a Receiver<()>) -> Self {
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
    fn take(&mut self, part: Part<'_>) {
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

    fn log(&mut self, bytes: &[u8], _: bool) -> io::Result<()> {
        if let Some(log) = &mut self.log {
            log.extend_from_slice(bytes);
            return Ok(());
        }
        let replica = &mut self.replica;
        self.decoder.push(bytes, &mut |part| replica.take(part)).map_err(io::Error::other)
    }

    fn end(&mut self, _: At) {}

    fn released(&mut self) -> u64 {
        u64::MAX
    }

    fn next(&mut self, _: Taken) -> Order {
        match self.end.recv_timeout(self.every) {
            Err(RecvTimeoutError::Timeout) => Order::Look,
            _ => Order::Stop,
        }
    }

    fn now_micros(&mut self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
    }
}

const NOW: Start = Start { number: 0, offset: 0, behind: None };

/// Follows while the writers write; what came of it, and how many transactions they say they made.
fn follow(database: &Database, options: Options, writers: Vec<Child>) -> (Replica, Taken, u64) {
    let (stop, end) = std::sync::mpsc::channel();
    let base = std::fs::read(database.path()).unwrap();
    let connections = Connections::open(&database.path()).unwrap();
    let waiting = std::thread::spawn(move || {
        let mut made = 0;
        for writer in writers {
            let done = writer.wait_with_output().unwrap();
            assert!(done.status.success());
            made += String::from_utf8(done.stdout).unwrap().trim().parse::<u64>().unwrap();
        }
        stop.send(()).unwrap();
        made
    });
    let mut taking = Taking::new(base, &end);
    let follower = Follower::prove(&connections, &mut taking, NOW, options).unwrap();
    let taken = follower.run().unwrap();
    (taking.replica, taken, waiting.join().unwrap())
}

fn assert_equal(database: &Database, replica: &Replica) {
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

#[test]
fn steady_writers_are_followed_without_a_gap_and_the_log_stays_small() {
    let database = Database::new(4096, "select 1");
    let writers = (1..=2).map(|seed| database.writer(seed, 8.0, "steady", Some(250))).collect();
    let (replica, taken, made) = follow(&database, database.options(), writers);
    println!("{made} made, {} taken, {taken:?}", replica.transactions);
    assert_equal(&database, &replica);
    assert!(replica.transactions >= made);
    assert!(taken.begun_anew > 0, "{taken:?}");
}

#[test]
fn whatever_applications_do_to_it_the_log_makes_the_same_file() {
    let seed = seed();
    println!("FARSHORE_SEED={seed}");
    let mut random = Random::new(seed);
    for (page_bytes, first) in
        [(512, "pragma auto_vacuum = full"), (4096, "pragma auto_vacuum = incremental"), (65536, "select 1")]
    {
        let database = Database::new(page_bytes, first);
        let mut writers: Vec<Child> =
            (0..3).map(|_| database.writer(random.below(1 << 30), 6.0, "mixed", None)).collect();
        writers.push(database.writer(1, 6.0, "reader", None));
        let (replica, taken, made) =
            follow(&database, Options { log_frames: 250, ..database.options() }, writers);
        println!("pages of {page_bytes}: {made} made, {} taken, {taken:?}", replica.transactions);
        assert_equal(&database, &replica);
    }
}

/// What is followed over several lives of the follower.
struct Story {
    database: Database,
    replica: Replica,
    decoder: RecordDecoder,
    /// Bases taken because nothing showed that the database went on.
    doubts: u32,
}

impl Story {
    fn new() -> Self {
        let database = Database::new(4096, "select 1");
        let file = std::fs::read(database.path()).unwrap();
        let replica = Replica { file, ..Replica::default() };
        Self { database, replica, decoder: RecordDecoder::new(Offset::new(0)), doubts: 0 }
    }

    /// Follows behind what was taken before until nothing new is seen; from a new base where nothing shows that it goes on.
    fn follow_on(&mut self) {
        let (stop, end) = std::sync::mpsc::channel();
        stop.send(()).unwrap();
        let mut taking = Taking::new(Vec::new(), &end);
        std::mem::swap(&mut taking.replica, &mut self.replica);
        std::mem::swap(&mut taking.decoder, &mut self.decoder);
        let start = taking.replica.last.as_ref().map_or(NOW, |ended| Start {
            number: ended.head.number,
            offset: ended.end.get(),
            behind: Some(ended.head.place.digest()),
        });
        let connections = Connections::open(&self.database.path()).unwrap();
        let run = Follower::prove(&connections, &mut taking, start, self.database.options())
            .and_then(Follower::run);
        drop(connections);
        match run {
            Ok(_) => {
                std::mem::swap(&mut taking.replica, &mut self.replica);
                std::mem::swap(&mut taking.decoder, &mut self.decoder);
            }
            Err(FollowError::Doubt { .. }) => {
                self.doubts += 1;
                self.replica = Replica { file: self.database.content(), ..Replica::default() };
                self.decoder = RecordDecoder::new(Offset::new(0));
                self.follow_on();
            }
            Err(why) => panic!("{why}"),
        }
    }

    /// The database and what the log makes of it hold the same; looked at without copying anything back.
    fn assert_same(&self) {
        let copy = self.database.folder.path().join("replica.db");
        std::fs::write(&copy, &self.replica.file).unwrap();
        assert_eq!(integrity(&copy).trim(), "[('ok',)]");
        assert_eq!(dump(&self.database.path()), dump(&copy));
    }
}

const WRITE: &str =
    "insert into ledger (writer, number, content) values (0, abs(random() % 1000), randomblob(500))";

#[test]
fn a_follower_that_was_stopped_goes_on_behind_what_it_took() {
    let mut story = Story::new();
    let mut app = App::open(&story.database.path());
    story.follow_on();
    for round in 0..20 {
        for _ in 0..round % 4 {
            app.sql(WRITE);
        }
        if round % 5 == 0 {
            // More than the log is left with, in one transaction and spilled from the cache.
            app.sql("pragma cache_size = 10; begin; insert into ledger (content) select randomblob(2000) from ledger limit 200; update ledger set content = randomblob(900); commit");
        }
        story.follow_on();
        story.assert_same();
    }
    assert_eq!(story.doubts, 0);
    app.close();
}

/// Whatever happened while nobody followed: shown to go on, or doubted and taken anew; never wrong.
fn absences(loops: u64, random: &mut Random) {
    let mut story = Story::new();
    let path = story.database.path();
    let older = story.database.folder.path().join("older.db");
    let mut app = Some(App::open(&path));
    story.follow_on();
    std::fs::copy(&path, &older).unwrap();
    for turn in 0..loops {
        let before = story.doubts;
        let what = random.below(10);
        let mut there = app.take().unwrap_or_else(|| App::open(&path));
        for _ in 0..random.below(4) {
            there.sql(WRITE);
        }
        match what {
            0 | 1 => {}
            2 => drop(there.sql("pragma wal_checkpoint(truncate)")),
            3 => drop(there.sql(&format!("pragma wal_checkpoint(truncate); {WRITE}"))),
            4 => drop(there.sql(&format!("pragma wal_checkpoint(passive); {WRITE}; {WRITE}"))),
            5 => drop(there.sql(&format!(
                "pragma wal_checkpoint(restart); {WRITE}; pragma wal_checkpoint(restart); {WRITE}"
            ))),
            6 => drop(there.sql("vacuum")),
            7 => {
                // Another copy in its place: the files are swapped while nobody has them open.
                there.close();
                story.database.sql("pragma wal_checkpoint(truncate)");
                let now = std::fs::read(&path).unwrap();
                std::fs::copy(&older, &path).unwrap();
                std::fs::write(&older, now).unwrap();
                for end in ["-wal", "-shm"] {
                    let _ = std::fs::remove_file(format!("{}{end}", path.display()));
                }
                there = App::open(&path);
                there.sql(WRITE);
            }
            8 => {
                let copy = story.database.folder.path().join("vacuumed.db");
                let _ = std::fs::remove_file(&copy);
                there.sql(&format!("vacuum into '{}'", copy.display()));
                there.close();
                for end in ["-wal", "-shm"] {
                    let _ = std::fs::remove_file(format!("{}{end}", path.display()));
                }
                std::fs::rename(&copy, &path).unwrap();
                there = App::open(&path);
                // A read, so that it has the log open and is not thought to be gone.
                there.sql("pragma journal_mode = wal; select count(*) from ledger");
            }
            _ => {
                there.kill();
                there = App::open(&path);
            }
        }
        story.follow_on();
        story.assert_same();
        if what < 2 {
            assert_eq!(story.doubts, before, "turn {turn}: nothing gave reason to doubt");
        }
        app = Some(there);
    }
    println!("{loops} absences, {} doubted", story.doubts);
    assert!(story.doubts > 0);
}

#[test]
fn after_whatever_absence_what_goes_on_is_shown_to_or_taken_anew() {
    let seed = seed();
    println!("FARSHORE_SEED={seed}");
    absences(40, &mut Random::new(seed));
}

/// Keeps our log as it comes, and breaks off.
struct Breaking {
    log: Vec<u8>,
    decoder: RecordDecoder,
    ends: Vec<Start>,
    /// Bytes that the target is behind, and where its log ended when this life began.
    behind: u64,
    had: u64,
    /// Pieces of log until it breaks off.
    left: u64,
    /// Looks since anything came.
    idle: u32,
    /// Begins to read when the log is about to be begun anew, and the follower breaks off behind that.
    reader: Option<App>,
    looks: Receiver<()>,
}

impl Listener for Breaking {
    fn listens(&self) -> bool {
        true
    }

    fn beneath(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn base(&mut self, _: At) {}

    fn log(&mut self, bytes: &[u8], _: bool) -> io::Result<()> {
        self.idle = 0;
        self.left = self.left.checked_sub(1).ok_or_else(|| io::Error::other("broken off"))?;
        self.log.extend_from_slice(bytes);
        let ends = &mut self.ends;
        let decoded = self.decoder.push(bytes, &mut |part| {
            if let Part::End(ended) = part {
                let behind = Some(ended.head.place.digest());
                ends.push(Start { number: ended.head.number, offset: ended.end.get(), behind });
            }
        });
        decoded.map_err(io::Error::other)
    }

    fn end(&mut self, _: At) {}

    fn released(&mut self) -> u64 {
        if self.left > 0
            && let Some(reader) = &mut self.reader
        {
            reader.sql("begin; select count(*) from ledger");
            self.left = 0;
        }
        // What the target had when this life began it still has.
        (self.log.len() as u64).saturating_sub(self.behind).max(self.had)
    }

    fn next(&mut self, _: Taken) -> Order {
        let _ = self.looks.recv_timeout(Duration::from_millis(1));
        self.idle += 1;
        // The writer has ended.
        if self.idle < 500 { Order::Look } else { Order::Stop }
    }

    fn now_micros(&mut self) -> i64 {
        0
    }
}

/// While the log is begun anew all the time, a follower breaks off again and again, with a target that lacks its last records: it goes on
/// behind what the target has, and nothing is doubted.
#[test]
fn a_follower_that_breaks_off_goes_on_behind_what_its_target_has() {
    let seed = seed();
    println!("FARSHORE_SEED={seed}");
    let mut random = Random::new(seed);
    let database = Database::new(4096, "select 1");
    let mut replica = Replica { file: std::fs::read(database.path()).unwrap(), ..Replica::default() };
    let mut app = App::open(&database.path());
    // Its own SQLite would rightly begin the log anew between two lives, once a slow machine lets it become long.
    let mut writer = database.writer(7, 10.0, "uncopied", Some(400));
    let options = Options { log_frames: 16, pause: Duration::ZERO, ..database.options() };
    let (_more, looks) = std::sync::mpsc::channel();
    let mut taking = Breaking {
        log: Vec::new(),
        decoder: RecordDecoder::new(Offset::new(0)),
        ends: vec![NOW],
        behind: 0,
        had: 0,
        left: 0,
        idle: 0,
        reader: None,
        looks,
    };
    let (mut lives, mut anew) = (0, 0);
    while writer.try_wait().unwrap().is_none() {
        let start = *taking.ends.last().unwrap();
        taking.log.truncate(start.offset as usize);
        taking.decoder = RecordDecoder::new(Offset::new(start.offset));
        (taking.behind, taking.left) = (random.below(3) * random.below(60_000), random.below(200));
        (taking.idle, taking.had) = (0, start.offset);
        let connections = Connections::open(&database.path()).unwrap();
        let follower = Follower::prove(&connections, &mut taking, start, options.clone())
            .unwrap_or_else(|why| panic!("life {lives}: {why}"));
        match follower.run() {
            Err(why) if why.to_string().contains("broken off") => {}
            Ok(_) => {}
            other => panic!("{other:?}"),
        }
        lives += 1;
        // Whoever follows again begins where the target's log ends, or where it was released up to.
        let released = taking.released();
        let most = taking.log.len() as u64 - released;
        let stored = released + random.below(most + 1);
        taking.ends.retain(|end| end.offset <= stored || end.offset == 0);
        anew += u64::from(database.options().spool.exists());
    }
    assert!(anew > 0 && lives > 3, "{lives} lives, {anew} with a log begun anew");
    // One last life takes the rest.
    let start = *taking.ends.last().unwrap();
    taking.log.truncate(start.offset as usize);
    let (stop, end) = std::sync::mpsc::channel();
    stop.send(()).unwrap();
    let mut rest = Taking { log: Some(taking.log), ..Taking::new(Vec::new(), &end) };
    let connections = Connections::open(&database.path()).unwrap();
    Follower::prove(&connections, &mut rest, start, options).unwrap().run().unwrap();
    drop(connections);
    let mut decoder = RecordDecoder::new(Offset::new(0));
    decoder.push(&rest.log.unwrap(), &mut |part| replica.take(part)).unwrap();
    println!("{lives} lives, {} transactions", replica.transactions);
    app.sql("select 1");
    app.close();
    assert_equal(&database, &replica);
}

/// Keeps our log, and has copies of the file taken meanwhile.
struct Copying {
    file: Arc<File>,
    log: Vec<u8>,
    beneath: Vec<u8>,
    copies: Vec<Copy>,
    copying: Option<JoinHandle<Vec<u8>>>,
    looks: u32,
    end: Receiver<()>,
}

struct Copy {
    file: Vec<u8>,
    beneath: Vec<u8>,
    from: u64,
    to: u64,
}

impl Copying {
    fn finish(&mut self) {
        if let Some(copying) = self.copying.take() {
            let last = self.copies.last_mut().unwrap();
            last.file = copying.join().unwrap();
            last.to = self.log.len() as u64;
        }
    }
}

impl Listener for Copying {
    fn listens(&self) -> bool {
        true
    }

    fn beneath(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.beneath.extend_from_slice(bytes);
        Ok(())
    }

    fn base(&mut self, at: At) {
        let file = Arc::clone(&self.file);
        self.copying = Some(std::thread::spawn(move || {
            let mut out = Vec::new();
            copy(&file, &mut |bytes| {
                out.extend_from_slice(bytes);
                farshore_testkit::process::let_pass(Duration::from_millis(20));
                Ok(())
            })
            .unwrap();
            out
        }));
        let beneath = std::mem::take(&mut self.beneath);
        self.copies.push(Copy { file: Vec::new(), beneath, from: at.offset, to: 0 });
    }

    fn log(&mut self, bytes: &[u8], _: bool) -> io::Result<()> {
        self.log.extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self, _: At) {}

    fn released(&mut self) -> u64 {
        u64::MAX
    }

    fn next(&mut self, _: Taken) -> Order {
        self.looks += 1;
        if self.copying.as_ref().is_some_and(JoinHandle::is_finished) {
            self.finish();
        }
        match self.end.recv_timeout(Duration::from_millis(5)) {
            Err(RecvTimeoutError::Timeout) if self.copying.is_none() && self.looks.is_multiple_of(20) => {
                Order::Base
            }
            Err(RecvTimeoutError::Timeout) => Order::Look,
            _ if self.copying.is_some() => {
                self.finish();
                Order::Stop
            }
            _ => Order::Stop,
        }
    }

    fn now_micros(&mut self) -> i64 {
        1
    }
}

#[test]
fn a_copy_taken_while_writers_write_is_the_database_with_the_records_up_to_its_end() {
    let seed = seed();
    println!("FARSHORE_SEED={seed}");
    let mut random = Random::new(seed);
    let database = Database::new(4096, "select 1");
    let writers =
        (0..2).map(|_| database.writer(random.below(1 << 30), 8.0, "mixed", Some(100))).collect::<Vec<_>>();
    let (stop, end) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        for mut writer in writers {
            assert!(writer.wait().unwrap().success());
        }
        stop.send(()).unwrap();
    });
    let connections = Connections::open(&database.path()).unwrap();
    let mut copying = Copying {
        file: connections.file(),
        log: Vec::new(),
        beneath: Vec::new(),
        copies: Vec::new(),
        copying: None,
        looks: 0,
        end,
    };
    let options = Options { log_frames: 250, ..database.options() };
    let taken = Follower::prove(&connections, &mut copying, NOW, options).unwrap().run().unwrap();
    waiting.join().unwrap();
    drop(connections);
    let Copying { log, copies, file, .. } = copying;
    drop(file);
    println!("{} copies, {taken:?}", copies.len());
    assert!(!copies.is_empty());
    let path = database.folder.path().join("restored.db");
    for (at, copy) in copies.iter().enumerate() {
        // At the copy's end it is whole, and at the log's end it is the database.
        for end in [copy.to, log.len() as u64] {
            std::fs::write(&path, &copy.file).unwrap();
            let file = File::options().read(true).write(true).open(&path).unwrap();
            let mut apply = Apply::to(file);
            RecordDecoder::new(Offset::new(0)).push(&copy.beneath, &mut |part| apply.take(part)).unwrap();
            let mut decoder = RecordDecoder::new(Offset::new(copy.from));
            decoder.push(&log[copy.from as usize..end as usize], &mut |part| apply.take(part)).unwrap();
            let (file, last) = apply.end().unwrap();
            drop(file);
            assert_eq!(last.map_or(copy.from, |last| last.end.get().max(copy.from)), end);
            assert_eq!(integrity(&path).trim(), "[('ok',)]", "copy {at}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), database.content(), "copy {at}");
    }
}

/// An application reads on while our row is written, so the row does not begin the log anew; later the page that it stands in is moved by
/// another transaction, which begins it anew. That transaction is not our row.
#[test]
fn a_log_that_anothers_transaction_begins_anew_is_doubted_though_our_bytes_are_in_it() {
    let database = Database::new(4096, "pragma auto_vacuum = full");
    let mut app = App::open(&database.path());
    app.sql("create table first (a); insert into first values (1)");
    for table in 0..4 {
        app.sql(&format!("create table t{table} (a); insert into t{table} values (randomblob(3000))"));
    }
    let (_more, looks) = std::sync::mpsc::channel();
    let mut taking = Breaking {
        log: Vec::new(),
        decoder: RecordDecoder::new(Offset::new(0)),
        ends: vec![NOW],
        behind: u64::MAX,
        had: 0,
        left: u64::MAX,
        idle: 480,
        reader: None,
        looks,
    };
    let connections = Connections::open(&database.path()).unwrap();
    Follower::prove(&connections, &mut taking, NOW, database.options()).unwrap().run().unwrap();
    drop(connections);
    app.sql(WRITE);
    // What the target has: no more than this, also when the next life has given more.
    let start = *taking.ends.last().unwrap();
    (taking.idle, taking.had, taking.left) = (480, start.offset, u64::MAX);
    taking.reader = Some(App::open(&database.path()));
    let connections = Connections::open(&database.path()).unwrap();
    let options = Options { log_frames: 1, ..database.options() };
    let broken = Follower::prove(&connections, &mut taking, start, options).unwrap().run();
    assert!(broken.unwrap_err().to_string().contains("broken off"));
    drop(connections);
    let mut reader = taking.reader.take().unwrap();
    assert!(database.options().spool.exists());
    reader.sql("commit");
    for _ in 0..3 {
        app.sql(WRITE);
    }
    app.sql("pragma wal_checkpoint(passive)");
    app.sql("drop table first");
    app.sql(WRITE);
    let (stop, end) = std::sync::mpsc::channel();
    stop.send(()).unwrap();
    let mut rest = Taking { log: Some(Vec::new()), ..Taking::new(Vec::new(), &end) };
    let connections = Connections::open(&database.path()).unwrap();
    let followed =
        Follower::prove(&connections, &mut rest, start, database.options()).and_then(Follower::run);
    assert!(matches!(&followed, Err(why) if why.is_doubt()), "{followed:?}");
}

/// The log is begun anew, over frames that were checked, while a transaction is given out: its record is not finished.
#[test]
fn a_record_whose_frames_were_written_over_while_it_was_given_out_is_not_finished() {
    let database = Database::new(4096, "select 1");
    let mut app = App::open(&database.path());
    app.sql("begin; insert into ledger (content) select randomblob(3000) from (with recursive c(x) as (select 1 union all select x + 1 from c where x < 1000) select x from c); commit");
    let connections = Connections::open(&database.path()).unwrap();
    let wal = WalFile::open(&connections.wal_path()).unwrap();
    let header = wal.header().unwrap().unwrap();
    let counted = connections.counted().unwrap().frames;
    let mut all = wal.transactions(header, header.begin(), counted);
    let mut last = None;
    while let Some(transaction) = all.next().unwrap() {
        last = Some(transaction);
    }
    let last = last.unwrap();
    let (mut pieces, mut out) = (0, Vec::new());
    let encoded = Encoder { wal: &wal, header }.encode(&last, 1, 0, &mut |bytes| {
        out.extend_from_slice(bytes);
        pieces += 1;
        if pieces == 1 {
            app.sql(&format!("pragma wal_checkpoint(passive); {WRITE}"));
        }
        Ok(())
    });
    assert!(encoded.is_err() && pieces > 1);
    let mut ended = false;
    let mut decoder = RecordDecoder::new(Offset::new(0));
    let _ = decoder.push(&out, &mut |part| ended |= matches!(part, Part::End(_)));
    assert!(!ended);
}

#[test]
fn a_log_that_an_application_cuts_off_while_it_is_read_was_begun_anew_and_is_no_fault_of_the_disk() {
    let database = Database::new(4096, "select 1");
    let mut app = App::open(&database.path());
    app.sql("insert into ledger (content) values ('one')");
    let wal = WalFile::open(&database.folder.path().join("app.db-wal")).unwrap();
    let header = wal.header().unwrap().unwrap();
    let mut counted_before = wal.transactions(header, header.begin(), 1);
    app.sql("pragma wal_checkpoint(truncate)");
    let read = counted_before.next();
    assert!(matches!(read, Err(WalReadError::BegunAnew)), "{read:?}");
    assert!(FollowError::from(read.unwrap_err()).is_doubt());
    app.close();
}
