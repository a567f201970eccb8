//! Copies that are taken while writers write: each is the database with the records up to its end.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farshore_engines::sqlite::apply::Apply;
use farshore_engines::sqlite::base::copy;
use farshore_engines::sqlite::decoder::RecordDecoder;
use farshore_engines::sqlite::follow::{At, Follower, Listener, Options, Order, Taken};
use farshore_engines::sqlite::hold::Connections;
use farshore_journal::Offset;
use farshore_testkit::random::{Random, seed};

use crate::replica::NOW;
use crate::sqlite::{Database, integrity};

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
                out.extend_from_slice(&bytes);
                farshore_testkit::process::let_pass(Duration::from_millis(20));
                Ok(())
            })
            .unwrap();
            out
        }));
        let beneath = std::mem::take(&mut self.beneath);
        self.copies.push(Copy { file: Vec::new(), beneath, from: at.offset, to: 0 });
    }

    fn log(&mut self, bytes: Bytes, _: Option<Instant>) -> io::Result<()> {
        self.log.extend_from_slice(&bytes);
        Ok(())
    }

    fn end(&mut self, _: At) {}

    fn released(&mut self) -> u64 {
        u64::MAX
    }

    fn next(&mut self, _: Taken, _: bool) -> Order {
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
