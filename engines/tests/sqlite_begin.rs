//! Following begins beside writers that begin the database's log anew all the time: it comes to hold the log at the first try.

#![allow(clippy::unwrap_used)] // a panic is the failure message

mod sqlite;

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use bytes::Bytes;
use farshore_engines::sqlite::follow::{At, Follower, Listener, Order, Start, Taken};
use farshore_engines::sqlite::hold::Connections;

use sqlite::Database;

/// Fills the log and empties it, as fast as it goes.
const RESTLESS: &str = "
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
c.execute('pragma wal_autocheckpoint = 0')
while True:
    c.execute('insert into ledger (content) with recursive n(i) as (select 1 union all select i + 1 from n where i < 300) select randomblob(3000) from n')
    c.execute('delete from ledger')
    c.execute('pragma busy_timeout = 0')
    try:
        c.execute('pragma wal_checkpoint(truncate)').fetchall()
    except sqlite3.OperationalError:
        pass
    c.execute('pragma busy_timeout = 60000')
";

struct Restless(Child);

impl Restless {
    fn beside(database: &Database) -> Self {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", RESTLESS]).arg(database.path()).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Restless {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Stops at once when it holds.
#[derive(Default)]
struct Holds(u64);

impl Listener for Holds {
    fn beneath(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn base(&mut self, _: At) {}

    fn log(&mut self, _: Bytes, _: Option<Instant>) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self, _: At) {}

    fn released(&mut self) -> u64 {
        0
    }

    fn listens(&self) -> bool {
        true
    }

    fn next(&mut self, _: Taken, _: bool) -> Order {
        self.0 += 1;
        Order::Stop
    }

    fn now_micros(&mut self) -> i64 {
        0
    }
}

#[test]
fn following_begins_at_once_however_often_writers_begin_the_log_anew() {
    let database = Database::new(4096, "pragma user_version = 1");
    let _restless = Restless::beside(&database);
    let start = Start { number: 0, offset: 0, behind: None };
    for turn in 0..100 {
        let connections = Connections::open(&database.path()).unwrap();
        let mut holds = Holds::default();
        let follower = Follower::prove(&connections, &mut holds, start, database.options());
        let followed = follower.and_then(Follower::run);
        assert!(followed.is_ok(), "turn {turn}: {followed:?}");
        assert_eq!(holds.0, 1);
    }
}
