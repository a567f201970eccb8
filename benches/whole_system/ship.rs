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
        table.ratio("CPU", &case, "floor: zstd 3 + BLAKE3", Run::cpu_per_gib);
        table.ratio("CPU", &case, "floor: zstd 3 + SHA-256", Run::cpu_per_gib);
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

/// The least that this machine can do it with: one thread that compresses the same bytes and digests them, in pieces as large as a
/// frame, and does nothing else.
fn floors(setting: &Setting, table: &mut Table, begin: u64, end: u64) {
    if cfg!(debug_assertions) {
        // Without optimisation it would be no floor.
        return;
    }
    let segments = setting.segments(begin, end);
    let mut zstd = zstd::bulk::Compressor::new(3).unwrap();
    let mut out = Vec::with_capacity(zstd::zstd_safe::compress_bound(FRAME));
    for blake in [true, false] {
        let (mut bytes, mut stored, mut wall, mut cpu) = (0, 0, 0.0, 0.0);
        for segment in &segments {
            let content = std::fs::read(segment).unwrap();
            let (begun, used) = (std::time::Instant::now(), thread_cpu());
            for piece in content.chunks(FRAME) {
                zstd.compress_to_buffer(piece, &mut out).unwrap();
                stored += out.len() as u64;
                match blake {
                    true => {
                        std::hint::black_box(blake3::hash(piece));
                    }
                    false => {
                        std::hint::black_box(sha2::Sha256::digest(piece));
                    }
                }
            }
            wall += begun.elapsed().as_secs_f64();
            cpu += thread_cpu() - used;
            bytes += content.len() as u64;
        }
        let case = if blake { "floor: zstd 3 + BLAKE3" } else { "floor: zstd 3 + SHA-256" };
        table.add(case, Run { wall, cpu, bytes, stored, ..Run::default() });
    }
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
