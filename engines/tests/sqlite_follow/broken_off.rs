//! A follower that breaks off, with a target that lacks its last records, while the log is begun anew.

use std::io;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farshore_engines::sqlite::decoder::{Part, RecordDecoder};
use farshore_engines::sqlite::follow::{At, Follower, Listener, Options, Order, Start, Taken};
use farshore_engines::sqlite::hold::Connections;
use farshore_journal::Offset;
use farshore_testkit::random::{Random, seed};

use crate::replica::{NOW, Replica, Taking, WRITE, assert_equal};
use crate::sqlite::{App, Database};

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

    fn log(&mut self, bytes: Bytes, _: Option<Instant>) -> io::Result<()> {
        self.idle = 0;
        self.left = self.left.checked_sub(1).ok_or_else(|| io::Error::other("broken off"))?;
        self.log.extend_from_slice(&bytes);
        let ends = &mut self.ends;
        let decoded = self.decoder.push(&bytes, &mut |part| {
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

    fn next(&mut self, _: Taken, _: bool) -> Order {
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
