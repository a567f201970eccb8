//! A backlog is shipped: the service, PostgreSQL's own receiver and the machine's floor, in turn, over the same log.

use std::path::PathBuf;
use std::process::Command;

use farshore_testkit::pg::Major;
use farshore_testkit::user;
use sha2::Digest;

use crate::figures::{Run, Table, Watched, settle, thread_cpu};
use crate::setting::{DATABASE, Journal, Setting, copy, farshore, size};

/// As large as a frame of the journal.
const FRAME: usize = 1 << 20;

const FLOOR: &str = "floor: zstd 3 + BLAKE3";
const FLOOR_CORES: &str = "floor on all cores";
const FLOOR_SHA: &str = "floor: zstd 3 + SHA-256";

/// Ships the backlog between the two positions in every way, round by round. The stores of the last round stay, one for each
/// program, and are given back.
pub fn measure(setting: &Setting, begin: u64, end: u64) -> Vec<PathBuf> {
    let mut table = Table::default();
    let mut stores = Vec::new();
    for round in 0..setting.asked.rounds {
        for (name, binary) in &setting.asked.binaries {
            let place = setting.place(&format!("ship-{name}"));
            let _ = std::fs::remove_dir_all(&place);
            copy(&setting.place("main"), &place);
            let config = setting.configure(&format!("ship-{name}"));
            let store = place.join("store");
            settle();
            let before = size(&store);
            let mut journal = Journal::of(&store).unwrap();
            let watched = Watched::start(farshore(binary, &config, &["run"]));
            let run = watched.until(end - begin, || journal.end() >= end);
            table.add(&format!("farshore {name}"), Run { stored: size(&store) - before, ..run });
            // What they keep would be kept twice, and the next run makes its own.
            setting.server.sql(&format!(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name like 'farshore%{DATABASE}%'"
            ));
            if round + 1 == setting.asked.rounds {
                stores.push(place);
            }
        }
        for (case, compress) in [("pg_receivewal, none", "none"), ("pg_receivewal, lz4", "lz4")] {
            receive(setting, &mut table, case, compress, begin, end);
        }
        floors(setting, &mut table, begin, end);
    }
    table.print("A backlog shipped, zstd 3");
    for (name, _) in &setting.asked.binaries {
        let case = format!("farshore {name}");
        table.ratio("MB/s", &case, "pg_receivewal, none", Run::rate);
        table.ratio("MB/s", &case, "pg_receivewal, lz4", Run::rate);
        for floor in [FLOOR, FLOOR_CORES, FLOOR_SHA] {
            table.ratio("CPU", &case, floor, Run::cpu_per_gib);
        }
        table.ratio("MB/s", &case, FLOOR_CORES, Run::rate);
        for (other, _) in setting.asked.binaries.iter().filter(|(other, _)| other != name) {
            table.ratio("MB/s", &case, &format!("farshore {other}"), Run::rate);
            table.ratio("CPU", &case, &format!("farshore {other}"), Run::cpu_per_gib);
        }
    }
    stores
}

fn receive(setting: &Setting, table: &mut Table, case: &str, compress: &str, begin: u64, end: u64) {
    let server = &setting.server;
    let place = setting.place("received");
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir(&place).unwrap();
    user::give(&place);
    let slot = "received";
    server.sql(&format!("select pg_copy_physical_replication_slot('hold', '{slot}')"));
    settle();
    let mut command = Command::new(Major::V15.bin().join("pg_receivewal"));
    let pointed = server.client_command("psql");
    command.envs(pointed.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.args(["--no-loop", "-n", "-S", slot, "-Z", compress, "-D"]).arg(&place);
    command.arg(format!("--endpos={:X}/{:X}", end >> 32, end & 0xFFFF_FFFF));
    let run = Watched::start(command).whole(end - begin);
    table.add(case, Run { stored: size(&place), ..run });
    server.sql(&format!("select pg_drop_replication_slot('{slot}')"));
}

/// The least that this machine can do it with: threads that compress the same bytes and digest them, in pieces as large as a frame,
/// and do nothing else. On one thread, and on as many as there are cores: a core whose neighbours are busy does less in a second,
/// and a service that packs on all of them is to be held against the latter.
fn floors(setting: &Setting, table: &mut Table, begin: u64, end: u64) {
    if cfg!(debug_assertions) {
        // Without optimisation it would be no floor.
        return;
    }
    let segments = setting.segments(begin, end);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let blake: fn(&[u8]) = |piece| {
        std::hint::black_box(blake3::hash(piece));
    };
    let sha: fn(&[u8]) = |piece| {
        std::hint::black_box(sha2::Sha256::digest(piece));
    };
    for (case, digest, threads) in [(FLOOR, blake, 1), (FLOOR_CORES, blake, cores), (FLOOR_SHA, sha, 1)] {
        let run = std::thread::scope(|scope| {
            let shares = segments.chunks(segments.len().div_ceil(threads));
            let running: Vec<_> = shares.map(|share| scope.spawn(move || floor(share, digest))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).fold(Run::default(), |sum, run| Run {
                wall: sum.wall.max(run.wall),
                cpu: sum.cpu + run.cpu,
                bytes: sum.bytes + run.bytes,
                stored: sum.stored + run.stored,
                ..sum
            })
        });
        table.add(case, run);
    }
}

fn floor(segments: &[PathBuf], digest: fn(&[u8])) -> Run {
    let mut zstd = zstd::bulk::Compressor::new(3).unwrap();
    let mut out = Vec::with_capacity(zstd::zstd_safe::compress_bound(FRAME));
    let mut run = Run::default();
    for segment in segments {
        let content = std::fs::read(segment).unwrap();
        let (begun, used) = (std::time::Instant::now(), thread_cpu());
        for piece in content.chunks(FRAME) {
            zstd.compress_to_buffer(piece, &mut out).unwrap();
            run.stored += out.len() as u64;
            digest(piece);
        }
        run.wall += begun.elapsed().as_secs_f64();
        run.cpu += thread_cpu() - used;
        run.bytes += content.len() as u64;
    }
    run
}

impl Setting {
    /// The server's files of the log between the two positions.
    pub fn segments(&self, begin: u64, end: u64) -> Vec<PathBuf> {
        let segment = 16u64 << 20;
        let name = |number: u64| format!("00000001{:08X}{:08X}", number >> 8, number & 0xFF);
        let all = (begin / segment..end.div_ceil(segment)).map(name);
        all.map(|name| self.server.data_dir().join("pg_wal").join(name)).collect()
    }
}
