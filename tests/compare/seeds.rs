//! Differences of one row each, written into a standby's own files: all are found, and named.
//!
//! Method: tables that nobody writes to any more, a checkpoint that is behind them on both sides, so that no replay mends what is changed; then the standby is stopped, one row of each table is changed on its disk, and it is started again.

use std::path::{Path, PathBuf};

use farshore_testkit::pg::{Length, Major, Mode, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::random::Random;
use farshore_testkit::soak::Campaign;
use serde_json::Value;

use crate::rig::{Rig, primary, table, tables};
use crate::service::SOON;

/// A page. Source: src/include/storage/bufpage.h.
const PAGE: usize = 8192;
const LINES: usize = 24;
/// Bits of a tuple's head. Source: src/include/access/htup_details.h.
const XMIN_COMMITTED: u16 = 0x0100;
const XMIN_INVALID: u16 = 0x0200;
/// Rows of each table: a few pages, of which the last has room.
const ROWS: usize = 300;

/// How a row is made to differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Changed,
    Missing,
    Extra,
}

impl Way {
    const ALL: [Self; 3] = [Self::Changed, Self::Missing, Self::Extra];

    const fn word(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::Extra => "extra",
        }
    }
}

/// What was made to differ: how, where, and of which key.
#[derive(Debug)]
struct Seed {
    table: String,
    has_key: bool,
    way: Way,
    at: String,
    key: Option<String>,
}

/// A heap's file, whole.
struct Heap {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// A row in it: which block and line, where its line pointer is, and where its bytes are.
struct Row {
    block: usize,
    line: usize,
    start: usize,
    length: usize,
}

impl Heap {
    fn read(path: &Path) -> Self {
        Self { path: path.to_owned(), bytes: std::fs::read(path).unwrap() }
    }

    fn u16(&self, at: usize) -> usize {
        usize::from(u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]))
    }

    fn put_u16(&mut self, at: usize, value: usize) {
        self.bytes[at..at + 2].copy_from_slice(&u16::try_from(value).unwrap().to_le_bytes());
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for block in 0..self.bytes.len() / PAGE {
            let page = block * PAGE;
            let lower = self.u16(page + 12);
            for line in 0..lower.saturating_sub(LINES) / 4 {
                let pointer = page + LINES + line * 4;
                let word = u32::from_le_bytes(self.bytes[pointer..pointer + 4].try_into().unwrap());
                // In use: 15 bits where, 2 bits how, 15 bits how long.
                if (word >> 15) & 3 == 1 {
                    let (start, length) = ((word & 0x7fff) as usize, (word >> 17) as usize);
                    rows.push(Row { block, line: line + 1, start: page + start, length });
                }
            }
        }
        rows
    }

    /// Makes one row differ, of a table of `id int, note text`; where it is, and its number.
    fn seed(&mut self, way: Way, random: &mut Random) -> (String, i32) {
        let rows = self.rows();
        let row = &rows[random.below(rows.len() as u64) as usize];
        let data = row.start + usize::from(self.bytes[row.start + 22]);
        let id = i32::from_le_bytes(self.bytes[data..data + 4].try_into().unwrap());
        match way {
            Way::Changed => {
                // A letter of its note, which is behind the number and the note's own head.
                let letters = row.start + row.length - (data + 5);
                let at = data + 5 + random.below(letters as u64) as usize;
                self.bytes[at] = if self.bytes[at] == b'x' { b'y' } else { b'x' };
                (format!("({},{})", row.block, row.line), id)
            }
            Way::Missing => {
                let mask = self.u16(row.start + 20) as u16;
                let mask = (mask | XMIN_INVALID) & !XMIN_COMMITTED;
                self.put_u16(row.start + 20, usize::from(mask));
                (format!("({},{})", row.block, row.line), id)
            }
            Way::Extra => {
                // A copy of it under another number, in the last page, which has room.
                let block = self.bytes.len() / PAGE - 1;
                let page = block * PAGE;
                let (lower, upper) = (self.u16(page + 12), self.u16(page + 14));
                let (start, length) = (row.start, row.length);
                let place = upper - length.next_multiple_of(8);
                assert!(place >= lower + 4, "the last page is full");
                let copy = self.bytes[start..start + length].to_vec();
                let id = 1_000_000 + random.below(1_000_000) as i32;
                self.bytes[page + place..page + place + length].copy_from_slice(&copy);
                let data = page + place + usize::from(copy[22]);
                self.bytes[data..data + 4].copy_from_slice(&id.to_le_bytes());
                let line = (lower - LINES) / 4 + 1;
                // Its own place: block in two halves, and line.
                self.put_u16(page + place + 12, block >> 16);
                self.put_u16(page + place + 14, block & 0xffff);
                self.put_u16(page + place + 16, line);
                let word = (place as u32) | (1 << 15) | ((length as u32) << 17);
                self.bytes[page + lower..page + lower + 4].copy_from_slice(&word.to_le_bytes());
                self.put_u16(page + 12, lower + 4);
                self.put_u16(page + 14, place);
                (format!("({block},{line})"), id)
            }
        }
    }

    fn write(self) {
        std::fs::write(&self.path, &self.bytes).unwrap();
    }
}

/// Tables that nobody writes to any more, in files that no replay mends.
fn quiet_tables(rig: &Rig, round: u64, count: usize) -> Vec<(String, bool, PathBuf)> {
    let mut made = Vec::new();
    let mut text = String::new();
    for index in 0..count {
        let (name, has_key) = (format!("quiet_{round}_{index}"), index % 2 == 0);
        let key = if has_key { " primary key" } else { "" };
        text.push_str(&format!(
            "create table {name} (id int{key}, note text) with (autovacuum_enabled = off);
             insert into {name} select n, 'note ' || n || repeat(' and more', 5) from generate_series(1, {ROWS}) n;
             vacuum (freeze) {name};\n"
        ));
        made.push((name, has_key));
    }
    rig.primary.sql(&text);
    rig.primary.sql("checkpoint");
    rig.caught_up();
    // The standby's own restart point, behind the tables.
    rig.standby.sql("checkpoint");
    let path = |name: &str| {
        let path = rig.standby.sql(&format!("select pg_relation_filepath('{name}')"));
        rig.standby.data_dir().join(path)
    };
    made.into_iter().map(|(name, has_key)| (format!("public.{name}"), has_key, path(&name))).collect()
}

/// One difference in each of `count` tables; what a comparison says then.
fn seeded(rig: &Rig, random: &mut Random, round: u64, count: usize) -> (Vec<Seed>, Value) {
    let made = quiet_tables(rig, round, count);
    rig.standby.stop(Mode::Fast);
    let mut seeds = Vec::new();
    for (index, (name, has_key, path)) in made.into_iter().enumerate() {
        let way = Way::ALL[(index / 2 + random.below(3) as usize) % 3];
        let mut heap = Heap::read(&path);
        let (at, id) = heap.seed(way, random);
        heap.write();
        let key = has_key.then(|| format!("id={id}"));
        seeds.push(Seed { table: name, has_key, way, at, key });
    }
    rig.standby.start();
    rig.stands("streaming");
    rig.caught_up();
    let (code, came, error) = rig.compare(&[]);
    assert_eq!(code, Some(9), "{came:#}\n{error}\n{}", rig.node.log());
    assert_eq!(came["verdict"], "different");
    (seeds, came)
}

/// Every seed is found and named, and nothing else is.
fn all_found(seeds: &[Seed], came: &Value) {
    for seed in seeds {
        let found = table(came, &seed.table);
        assert_eq!(found["verdict"], "different", "{seed:?}: {found:#}");
        assert_eq!(found["differences"], 1, "{seed:?}: {found:#}");
        let named = &found["named"][0];
        assert_eq!(named["kind"], seed.way.word(), "{seed:?}: {found:#}");
        assert_eq!(named["at"], seed.at, "{seed:?}: {found:#}");
        assert_eq!(named["key"].as_str(), seed.key.as_deref(), "{seed:?}: {found:#}");
    }
    for found in
        tables(came).into_iter().filter(|found| seeds.iter().all(|seed| found["table"] != seed.table))
    {
        assert_eq!(found["verdict"], "equal", "{found:#}");
    }
}

#[test]
fn soak_differences_of_one_row_are_found_and_named() {
    let mut campaign = Campaign::start("differences_of_one_row_are_found_and_named");
    let majors = Major::all();
    let major = if campaign.is_brief() { Major::V15 } else { majors[campaign.random.below(5) as usize] };
    let primary: Server = primary(major).start();
    primary.pgbench_init(1);
    let rig = Rig::of(primary);
    rig.is_equal();
    let (mut round, mut random) = (0, Random::new(campaign.random.number()));
    while campaign.next_round() {
        let count = if campaign.is_brief() { 6 } else { 20 };
        let load = rig.primary.pgbench(
            4,
            Length::For(std::time::Duration::from_secs(if campaign.is_brief() { 10 } else { 15 })),
        );
        let (seeds, came) = seeded(&rig, &mut random, round, count);
        all_found(&seeds, &came);
        // A key is a value of a row, and none is kept unless somebody wants that.
        let kept = rig.node.json(&["compare", "show", came["compare"].as_str().unwrap()]);
        let named: Vec<&Value> =
            tables(&kept).iter().flat_map(|table| table["named"].as_array().unwrap()).collect();
        assert_eq!(named.len(), seeds.len(), "{kept:#}");
        assert!(named.iter().all(|row| row["key"].is_null() && row["at"].is_string()), "{kept:#}");
        let _report = load.wait();
        for way in Way::ALL {
            let of = |has_key| {
                seeds.iter().filter(|seed| seed.way == way && seed.has_key == has_key).count() as u64
            };
            let (name, bare) = match way {
                Way::Changed => ("changed", "changed_without_key"),
                Way::Missing => ("missing", "missing_without_key"),
                Way::Extra => ("extra", "extra_without_key"),
            };
            campaign.count(name, of(true));
            campaign.count(bare, of(false));
        }
        campaign.count("differences", seeds.len() as u64);
        let drops: String = seeds.iter().map(|seed| format!("drop table {};\n", seed.table)).collect();
        rig.primary.sql(&drops);
        round += 1;
    }
    // With them gone it is equal again: nothing else was made to differ.
    let is_gone = wait_for(SOON, || {
        (rig.standby
            .try_sql("select count(*) from pg_class where relname like 'quiet%' and relkind = 'r'")
            .ok()?
            == "0")
            .then_some(())
    });
    assert!(is_gone.is_some());
    rig.is_equal();
    campaign.finish();
}
