//! A copy that SQLite itself writes from records is the database page by page behind each of them, whatever the database did; readers see whole
//! records only; others' writes are found.
//!
//! Method: a database is brought from state to state, its log copied back each time, and what differs between two states is the record.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

use std::io;
use std::path::{Path, PathBuf};

use farshore_engines::sqlite::decoder::RecordDecoder;
use farshore_engines::sqlite::record::{HEAD_BYTES, Head, foot};
use farshore_engines::sqlite::standby::{Copy, CopyError, Promise, Proof, Standing, proof};
use farshore_engines::sqlite::wal::{PageBytes, Place, Salts, Sum};
use farshore_journal::Offset;
use rusqlite::Connection;
use tempfile::TempDir;

/// The primary, whose file is read behind each change, and its records.
struct Primary {
    folder: TempDir,
    connection: Connection,
    file: Vec<u8>,
    page_bytes: u32,
    number: u64,
    at: u64,
}

impl Primary {
    fn new(page_bytes: u32, first: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let connection = Connection::open(folder.path().join("app.db")).unwrap();
        let script = format!(
            "pragma page_size = {page_bytes}; {first}; pragma journal_mode = wal; create table t (a integer primary key, b)"
        );
        connection.execute_batch(&script).unwrap();
        let mut primary = Self { folder, connection, file: Vec::new(), page_bytes, number: 0, at: 0 };
        primary.file = primary.read();
        primary
    }

    fn read(&self) -> Vec<u8> {
        self.connection.execute_batch("pragma wal_checkpoint(truncate)").unwrap();
        std::fs::read(self.folder.path().join("app.db")).unwrap()
    }

    /// Does something, and gives the record of what changed.
    fn does(&mut self, script: &str) -> Vec<u8> {
        self.connection.execute_batch(script).unwrap_or_else(|why| panic!("{script}: {why}"));
        let (before, size) = (std::mem::take(&mut self.file), self.page_bytes as usize);
        self.file = self.read();
        let after: Vec<&[u8]> = self.file.chunks(size).collect();
        let was: Vec<&[u8]> = before.chunks(size).collect();
        let changed = (0..after.len()).filter(|at| was.get(*at) != after.get(*at));
        let pages: Vec<(u32, &[u8])> = changed.map(|at| (at as u32 + 1, after[at])).collect();
        self.number += 1;
        let record = record(self.page_bytes, self.number, &pages, after.len() as u32);
        self.at += record.len() as u64;
        record
    }
}

fn record(page_bytes: u32, number: u64, pages: &[(u32, &[u8])], database_pages: u32) -> Vec<u8> {
    let place = Place { salts: Salts { rising: 7, random: 9 }, frames: 3, sum: Sum::from_bytes([1; 8]) };
    let page_bytes = PageBytes::new(page_bytes).unwrap();
    let mut out =
        Head::transaction(page_bytes, pages.len() as u32, number, database_pages, place).encode().to_vec();
    for (number, image) in pages {
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(image);
    }
    let sum = crc32c::crc32c(&out[HEAD_BYTES..]);
    out.extend_from_slice(&foot(sum, 5));
    out
}

/// Remembers the last promise, as a file would.
#[derive(Default)]
struct Kept {
    last: Option<(Standing, Standing)>,
    refuses: bool,
}

impl Promise for Kept {
    fn promise(&mut self, now: &Standing, next: &Standing) -> io::Result<()> {
        self.last = Some((now.clone(), next.clone()));
        if self.refuses { Err(io::Error::other("no")) } else { Ok(()) }
    }
}

struct Standby {
    folder: TempDir,
    copy: Option<Copy<Kept>>,
    decoder: RecordDecoder,
}

impl Standby {
    fn of(primary: &Primary) -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("copy.db"), &primary.file).unwrap();
        let standing = Standing {
            proof: Proof::of(&primary.file[..primary.page_bytes as usize]).unwrap(),
            end: Offset::new(primary.at),
            transaction: Some(primary.number),
            seen_micros: None,
            pages: (primary.file.len() / primary.page_bytes as usize) as u32,
        };
        let copy = Copy::open(&folder.path().join("copy.db"), &[&standing], Kept::default()).unwrap();
        Self { folder, copy: Some(copy), decoder: RecordDecoder::new(Offset::new(primary.at)) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("copy.db")
    }

    fn copy(&mut self) -> &mut Copy<Kept> {
        self.copy.as_mut().unwrap()
    }

    fn takes(&mut self, bytes: &[u8]) -> Result<(), CopyError> {
        let (decoder, copy) = (&mut self.decoder, self.copy.as_mut().unwrap());
        for piece in bytes.chunks(100_000) {
            decoder.push(piece, &mut |part| copy.take(part)).unwrap();
            copy.result()?;
        }
        Ok(())
    }

    /// As a reader sees it: all pages, in one transaction of its own.
    fn pages(&self) -> Vec<u8> {
        let connection = Connection::open(self.path()).unwrap();
        let mut all = connection.prepare("select data from sqlite_dbpage order by pgno").unwrap();
        let pages = all.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
        pages.map(Result::unwrap).collect::<Vec<_>>().concat()
    }

    #[track_caller]
    fn is(&self, primary: &Primary) {
        let mut pages = self.pages();
        assert_eq!(pages.len(), primary.file.len());
        // SQLite's own word of its last writer.
        for range in [24..28, 92..100] {
            pages[range.clone()].copy_from_slice(&primary.file[range]);
        }
        let size = primary.page_bytes as usize;
        let other = pages.chunks(size).zip(primary.file.chunks(size)).position(|(one, other)| one != other);
        assert_eq!(other.map(|at| at + 1), None, "a page differs");
        let reader = Connection::open(self.path()).unwrap();
        let sound: String = reader.query_row("pragma integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
    }
}

const MANY: &str = "with recursive n (v) as (select 1 union all select v + 1 from n where v < 400) insert into t (b) select randomblob(v * 7) from n";

/// What databases do, each of which is one record.
fn life() -> Vec<String> {
    let mut life: Vec<String> = vec![
        MANY.to_owned(),
        "create table u (a, b); create index u_by_a on u (a)".to_owned(),
        "insert into t (b) values (randomblob(300000))".to_owned(),
        "update t set b = randomblob(20) where a % 3 = 0".to_owned(),
        "delete from t where a % 2 = 0".to_owned(),
        "vacuum".to_owned(),
        "drop table u".to_owned(),
        "create table v (a primary key) without rowid; insert into v values (1)".to_owned(),
        MANY.to_owned(),
        "delete from t".to_owned(),
        "vacuum".to_owned(),
        "insert into t (b) values (zeroblob(6000000))".to_owned(),
        "pragma user_version = 7".to_owned(),
        "delete from t; vacuum".to_owned(),
    ];
    life.extend((0..40).map(|at| format!("create table w{at} (a); insert into w{at} values ({at})")));
    life.extend((0..40).map(|at| format!("insert into w{at} values (randomblob({}))", at * 500)));
    life.extend((0..20).map(|at| format!("drop table w{at}")));
    life
}

#[test]
fn a_copy_is_the_database_page_by_page_behind_each_record() {
    let vacuums = ["select 1", "pragma auto_vacuum = full", "pragma auto_vacuum = incremental"];
    for (page_bytes, first) in
        [(512, vacuums[0]), (4096, vacuums[0]), (65536, vacuums[0]), (1024, vacuums[1]), (4096, vacuums[2])]
    {
        let mut primary = Primary::new(page_bytes, first);
        let mut standby = Standby::of(&primary);
        for script in life() {
            let record = primary.does(&script);
            standby.takes(&record).unwrap();
            standby.copy().flush().unwrap();
            standby.is(&primary);
        }
    }
}

#[test]
fn records_that_wait_become_one_transaction_and_the_copy_is_the_same() {
    for (page_bytes, first) in [(512, "select 1"), (4096, "select 1"), (1024, "pragma auto_vacuum = full")] {
        let mut primary = Primary::new(page_bytes, first);
        let mut standby = Standby::of(&primary);
        let begun = standby.copy().standing().proof.counter;
        let records: Vec<Vec<u8>> = life().iter().map(|script| primary.does(script)).collect();
        standby.takes(&records.concat()).unwrap();
        standby.copy().flush().unwrap();
        standby.is(&primary);
        let transactions = standby.copy().standing().proof.counter - begun;
        assert!(transactions < records.len() as u32 / 2, "{transactions}");
    }
}

#[test]
fn free_pages_of_a_database_that_vacuums_by_itself_stay_where_they_are() {
    let mut primary = Primary::new(1024, "pragma auto_vacuum = full");
    let mut standby = Standby::of(&primary);
    standby.takes(&primary.does(MANY)).unwrap();
    standby.copy().flush().unwrap();
    // From full to incremental, and pages freed under it, in what the copy takes as one transaction.
    let records = [
        primary.does("pragma auto_vacuum = incremental"),
        primary.does("delete from t where a % 5 > 0"),
        primary.does("pragma auto_vacuum = full"),
        primary.does("insert into t (b) values (1)"),
    ];
    standby.takes(&records[..2].concat()).unwrap();
    standby.copy().flush().unwrap();
    standby.takes(&records[2..].concat()).unwrap();
    standby.copy().flush().unwrap();
    standby.is(&primary);
}

#[test]
fn a_reader_that_stays_sees_its_moment_and_holds_nobody_up() {
    let mut primary = Primary::new(4096, "select 1");
    let mut standby = Standby::of(&primary);
    standby.takes(&primary.does(MANY)).unwrap();
    standby.copy().flush().unwrap();
    let reader = Connection::open(standby.path()).unwrap();
    reader.execute_batch("begin").unwrap();
    let held = |reader: &Connection| -> (i64, i64) {
        let text = "select count(*), sum(length(b)) from t";
        reader.query_row(text, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    let before = held(&reader);
    for _ in 0..20 {
        standby.takes(&primary.does("delete from t where a % 2 = 0; vacuum")).unwrap();
        standby.copy().flush().unwrap();
        standby.takes(&primary.does(MANY)).unwrap();
        standby.copy().flush().unwrap();
        assert_eq!(held(&reader), before);
    }
    reader.execute_batch("commit").unwrap();
    assert_ne!(held(&reader), before);
    standby.is(&primary);
}

#[test]
fn a_copy_that_was_left_at_any_commit_is_found_to_stand_there() {
    let mut primary = Primary::new(4096, "select 1");
    let mut standby = Standby::of(&primary);
    for script in &life()[..12] {
        let record = primary.does(script);
        standby.takes(&record).unwrap();
        standby.copy().flush().unwrap();
        let expected = standby.copy().standing().clone();
        let (_, kept, closed) = standby.copy.take().unwrap().close();
        closed.unwrap();
        let (now, next) = kept.last.unwrap();
        assert_eq!(next, expected);
        let copy = Copy::open(&standby.path(), &[&now, &next], Kept::default()).unwrap();
        assert_eq!(copy.standing(), &expected);
        standby.copy = Some(copy);
    }
}

#[test]
fn a_transaction_whose_promise_is_not_kept_is_not_in_the_copy() {
    let mut primary = Primary::new(4096, "select 1");
    let mut standby = Standby::of(&primary);
    let before = primary.file.clone();
    let (_, mut kept, closed) = standby.copy.take().unwrap().close();
    closed.unwrap();
    kept.refuses = true;
    let standing = Standing {
        proof: Proof::of(&before[..4096]).unwrap(),
        end: Offset::new(0),
        transaction: Some(0),
        seen_micros: None,
        pages: (before.len() / 4096) as u32,
    };
    standby.copy = Some(Copy::open(&standby.path(), &[&standing], kept).unwrap());
    let records = [primary.does(MANY), primary.does("insert into t (b) values (zeroblob(9000000))")];
    standby.takes(&records[0]).unwrap();
    assert!(matches!(standby.copy().flush(), Err(CopyError::Promise(_))));
    assert_eq!(standby.pages(), before);
    assert!(standby.copy().flush().is_err(), "nothing is taken after a failure");
}

#[test]
fn a_record_that_was_cut_off_or_damaged_is_rolled_back() {
    let mut primary = Primary::new(4096, "select 1");
    let small = primary.does(MANY);
    let mut at_small = primary.file.clone();
    let large = primary.does("insert into t (b) values (randomblob(20000000))");
    let mut first = Primary::new(4096, "select 1");
    first.file = at_small.clone();
    (first.number, first.at) = (1, small.len() as u64);
    for damaged in [false, true] {
        let mut standby = Standby::of(&first);
        let mut bytes = large[..large.len() - 1].to_vec();
        if damaged {
            bytes = large.clone();
            let at = bytes.len() - 3;
            bytes[at] ^= 1;
        }
        let (decoder, copy) = (&mut standby.decoder, standby.copy.as_mut().unwrap());
        assert_eq!(decoder.push(&bytes, &mut |part| copy.take(part)).is_err(), damaged);
        copy.result().unwrap();
        let (standing, _, closed) = standby.copy.take().unwrap().close();
        closed.unwrap();
        assert_eq!(standing.transaction, Some(1));
        let pages = standby.pages();
        at_small.resize(pages.len(), 0);
        assert_eq!(pages, at_small, "nothing of it is there");
    }
}

#[test]
fn a_write_of_somebody_else_is_found_at_the_next_transaction() {
    for (script, open) in [
        ("insert into t (b) values (1)", true),
        ("pragma user_version = 3", true),
        ("create table x (a)", true),
        ("create table x (a)", false),
        ("pragma user_version = 3", false),
    ] {
        let mut primary = Primary::new(4096, "select 1");
        let mut standby = Standby::of(&primary);
        standby.takes(&primary.does(MANY)).unwrap();
        standby.copy().flush().unwrap();
        let next = primary.does("insert into t (b) values (2)");
        let written = |path: &Path| Connection::open(path).unwrap().execute_batch(script).unwrap();
        if open {
            written(&standby.path());
            standby.takes(&next).unwrap();
            assert!(matches!(standby.copy().flush(), Err(CopyError::Written { .. })), "{script}");
        } else {
            let (standing, ..) = standby.copy.take().unwrap().close();
            written(&standby.path());
            let opened = Copy::open(&standby.path(), &[&standing], Kept::default());
            assert!(matches!(opened.map(drop), Err(CopyError::Written { .. })), "{script}");
        }
    }
}

/// Ten seconds: as long as another's lock is waited for.
#[test]
fn a_writers_lock_that_another_holds_is_said_to_be_that_and_nothing_was_written() {
    let mut primary = Primary::new(4096, "select 1");
    let mut standby = Standby::of(&primary);
    let other = Connection::open(standby.path()).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let before = standby.copy().standing().clone();
    let record = primary.does("insert into t values (1, 'one')");
    standby.takes(&record).unwrap();
    let flushed = standby.copy().flush();
    assert!(matches!(flushed, Err(CopyError::Locked { .. })), "{flushed:?}");
    other.execute_batch("rollback").unwrap();
    let (now, kept, _) = standby.copy.take().unwrap().close();
    assert_eq!(now, before);
    let reopened = Copy::open(&standby.path(), &[&now], kept).unwrap();
    assert_eq!(reopened.standing(), &before);
}

/// A look at a copy that was left with a log leaves the log and the file as they are, and one without a log makes none.
#[test]
fn a_look_at_a_copy_copies_no_log_back_and_makes_none() {
    let mut primary = Primary::new(4096, "select 1");
    let mut standby = Standby::of(&primary);
    let record = primary.does("insert into t values (1, 'one')");
    standby.takes(&record).unwrap();
    standby.copy().flush().unwrap();
    let standing = standby.copy().standing().clone();
    // As a kill leaves it.
    let left = TempDir::new().unwrap();
    for name in ["copy.db", "copy.db-wal"] {
        std::fs::copy(standby.folder.path().join(name), left.path().join(name)).unwrap();
    }
    let read = |name: &str| std::fs::read(left.path().join(name)).unwrap();
    let (file, log) = (read("copy.db"), read("copy.db-wal"));
    assert!(!log.is_empty());
    assert_eq!(proof(&left.path().join("copy.db")).unwrap(), Some(standing.proof));
    assert!(read("copy.db") == file && read("copy.db-wal") == log);
    drop(standby.copy.take());
    assert_eq!(std::fs::read_dir(standby.folder.path()).unwrap().count(), 1, "closed, it has no log");
    assert_eq!(proof(&standby.path()).unwrap(), Some(standing.proof));
    assert_eq!(std::fs::read_dir(standby.folder.path()).unwrap().count(), 1, "a look made one");
}

#[test]
fn the_page_that_locks_lie_on_is_left_out_where_a_database_grows_over_it() {
    let mut primary = Primary::new(65536, "select 1");
    let mut standby = Standby::of(&primary);
    // A state that has only its edges: the file is sparse.
    let lock = (1u32 << 30) / 65536 + 1;
    let page = vec![9u8; 65536];
    let mut first = primary.file[..65536].to_vec();
    first[28..32].copy_from_slice(&(lock - 3).to_be_bytes());
    let had = (primary.file.len() / 65536) as u32;
    let mut number = 0;
    let mut from = had;
    for to in (had..lock - 3).step_by(4000).skip(1).chain([lock - 3]) {
        first[28..32].copy_from_slice(&to.to_be_bytes());
        number += 1;
        let record = record(65536, number, &[(1, &first), (to, &page)], to);
        assert!(to - from <= 4096);
        standby.takes(&record).unwrap();
        standby.copy().flush().unwrap();
        from = to;
    }
    first[28..32].copy_from_slice(&(lock + 2).to_be_bytes());
    let around: Vec<(u32, &[u8])> =
        [lock - 2, lock - 1, lock + 1, lock + 2].iter().map(|at| (*at, &page[..])).collect();
    let pages = [&[(1, &first[..])], &around[..]].concat();
    standby.takes(&record(65536, number + 1, &pages, lock + 2)).unwrap();
    standby.copy().flush().unwrap();
    assert_eq!(standby.copy().standing().pages, lock + 2);
    let (_, _, closed) = standby.copy.take().unwrap().close();
    closed.unwrap();
    let length = std::fs::metadata(standby.path()).unwrap().len();
    assert_eq!(length, u64::from(lock + 2) * 65536);
    primary.number = number;
}
