//! A follower that was stopped: what happened meanwhile is shown to go on, or doubted.

use farshore_engines::sqlite::decoder::RecordDecoder;
use farshore_engines::sqlite::follow::{FollowError, Follower, Start};
use farshore_engines::sqlite::hold::Connections;
use farshore_journal::Offset;
use farshore_testkit::random::{Random, seed};

use crate::replica::{NOW, Replica, Taking, WRITE};
use crate::sqlite::{App, Database, dump, integrity};

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
