//! Writers that are faster than whoever takes the records.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farshore_engines::sqlite::follow::{At, Follower, Listener, Options, Order, Taken};
use farshore_engines::sqlite::hold::Connections;
use farshore_testkit::process::let_pass;

use crate::replica::{NOW, Taking, assert_equal};
use crate::sqlite::Database;

const TRANSACTIONS: u64 = 2000;

/// Takes half a megabyte in a second.
struct Slow<'a> {
    database: &'a Database,
    written: bool,
    /// How much was taken when a copy was asked for.
    based: Option<At>,
    /// How much was taken at the end of each look.
    ends: Vec<u64>,
}

impl Listener for Slow<'_> {
    fn listens(&self) -> bool {
        true
    }

    fn beneath(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn base(&mut self, at: At) {
        self.based = Some(at);
    }

    fn log(&mut self, bytes: Bytes, until: Option<Instant>) -> io::Result<()> {
        if until.is_none() && self.written {
            let_pass(Duration::from_micros(2 * bytes.len() as u64));
        }
        Ok(())
    }

    fn end(&mut self, at: At) {
        self.ends.push(at.number);
    }

    fn released(&mut self) -> u64 {
        0
    }

    fn next(&mut self, _: Taken, more: bool) -> Order {
        if !self.written {
            self.written = true;
            let statement = "insert into ledger (number) values (1);";
            self.database.sql(&statement.repeat(usize::try_from(TRANSACTIONS).unwrap()));
            return Order::Look;
        }
        match more {
            true if self.based.is_none() => Order::Base,
            true => Order::Look,
            false => Order::Stop,
        }
    }

    fn now_micros(&mut self) -> i64 {
        0
    }
}

#[test]
fn an_order_is_heard_before_all_is_taken_that_a_faster_writer_wrote() {
    let database = Database::new(512, "pragma user_version = 1");
    let connections = Connections::open(&database.path()).unwrap();
    let mut slow = Slow { database: &database, written: false, based: None, ends: Vec::new() };
    // Its log is never begun anew here: that holds writers and takes all.
    let options = Options { log_frames: u32::MAX, ..database.options() };
    Follower::prove(&connections, &mut slow, NOW, options).unwrap().run().unwrap();
    let (based, first) = (slow.based.expect("a copy was asked for").number, slow.ends[0]);
    assert!(based < first + TRANSACTIONS, "all was taken before the order was heard");
    // An end is said only once all is taken that was counted.
    assert!(slow.ends[1..].iter().all(|end| *end >= first + TRANSACTIONS), "{:?}", slow.ends);
}

/// Takes so many bytes a second. With writers held it owes what it had no time for.
struct Paced<'a> {
    taking: Taking<'a>,
    owes: Duration,
}

impl Paced<'_> {
    const RATE: u32 = 50 << 20;
}

impl Listener for Paced<'_> {
    fn listens(&self) -> bool {
        true
    }

    fn beneath(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn base(&mut self, _: At) {}

    fn log(&mut self, bytes: Bytes, until: Option<Instant>) -> io::Result<()> {
        self.owes += Duration::from_secs(1) * u32::try_from(bytes.len()).unwrap() / Self::RATE;
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let pays = self.owes.min(left.unwrap_or(self.owes));
        // A sleep of less lasts longer than it should.
        if pays > Duration::from_millis(5) {
            let begun = Instant::now();
            let_pass(pays);
            self.owes = self.owes.saturating_sub(begun.elapsed());
        }
        self.taking.log(bytes, until)
    }

    fn end(&mut self, at: At) {
        self.taking.end(at);
    }

    fn released(&mut self) -> u64 {
        self.taking.released()
    }

    fn next(&mut self, taken: Taken, more: bool) -> Order {
        match more {
            true => Order::Look,
            false => self.taking.next(taken, more),
        }
    }

    fn now_micros(&mut self) -> i64 {
        self.taking.now_micros()
    }
}

/// Method: a writer of twice as much as is taken. With nobody held its log would come to a GiB, since it is begun anew only where all is taken.
#[test]
fn the_log_of_a_writer_that_is_faster_than_whoever_takes_it_stays_bounded() {
    const SECONDS: f64 = 10.0;
    let database = Database::new(4096, "pragma user_version = 1");
    let base = std::fs::read(database.path()).unwrap();
    let connections = Connections::open(&database.path()).unwrap();
    let (stop, end) = std::sync::mpsc::channel();
    let writer = database.writer(1, SECONDS, "large", Some(110));
    let waiting = std::thread::spawn(move || {
        let done = writer.wait_with_output().unwrap();
        stop.send(()).unwrap();
        assert!(done.status.success());
        String::from_utf8(done.stdout).unwrap().trim().parse::<u64>().unwrap()
    });
    let mut paced = Paced { taking: Taking::new(base, &end), owes: Duration::ZERO };
    let follower = Follower::prove(&connections, &mut paced, NOW, database.options()).unwrap();
    let taken = follower.run().unwrap();
    let made = waiting.join().unwrap();
    let most = (u64::from(taken.most_frames) * 4096) >> 20;
    println!("{made} transactions of a MiB made, the log came to {most} MiB at most, {taken:?}");
    assert!(most < 500, "the log came to {most} MiB");
    assert_equal(&database, &paced.taking.replica);
    assert!(paced.taking.replica.transactions >= made);
}
