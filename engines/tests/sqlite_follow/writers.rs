//! Writers write while they are followed, and the log makes the same file.

use std::process::Child;

use farshore_engines::sqlite::follow::{Follower, Options, Taken};
use farshore_engines::sqlite::hold::Connections;
use farshore_testkit::random::{Random, seed};

use crate::replica::{NOW, Replica, Taking, assert_equal};
use crate::sqlite::Database;

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
