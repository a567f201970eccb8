//! Writers that are faster than whoever takes the records.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use farshore_engines::sqlite::follow::{At, Follower, Listener, Options, Order, Taken};
use farshore_engines::sqlite::hold::Connections;
use farshore_testkit::process::let_pass;

use crate::replica::NOW;
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

    fn log(&mut self, bytes: Bytes, hurry: bool) -> io::Result<()> {
        if !hurry && self.written {
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
