//! What decoding a server's log costs, over real log of two kinds: mostly full-page images, and small records alone.
//! `cargo bench -p farshore-engines --bench decoder` starts a PostgreSQL 15 of its own; it needs `tests/install`.
//!
//! Compare ratios within one run, not figures across machines.

#![allow(missing_docs, clippy::unwrap_used)] // a measuring program

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use farshore_engines::postgres::log::{LogDecoder, LogShape, Major, SegmentBytes};
use farshore_journal::{Offset, Position, Timeline};
use farshore_testkit::pg::{Length, Major as Installed, Server};

/// Bytes of a log segment.
const SEGMENT: u64 = 16 << 20;
/// As the server sends them.
const MESSAGE: usize = 128 << 10;

/// Log of a server: whole segments from `start` on.
struct Log {
    shape: LogShape,
    start: Offset,
    bytes: Vec<u8>,
}

/// Whole segments that hold the work of `pgbench` alone.
fn log(full_page_writes: bool) -> Log {
    let server = Server::builder(Installed::V15)
        .conf("shared_buffers = 128MB")
        .conf("max_wal_size = 4GB")
        .conf("synchronous_commit = off")
        .conf(format!("full_page_writes = {full_page_writes}"))
        .start();
    server.pgbench_init(10);
    server.sql("checkpoint");
    let place = |switched: &str| {
        let offset: u64 = server.sql(&format!("select ({switched} - '0/0')::bigint")).parse().unwrap();
        offset.div_ceil(SEGMENT) * SEGMENT
    };
    let start = place("pg_switch_wal()");
    let load = if full_page_writes { 4_000 } else { 40_000 };
    let _ = server.pgbench(2, Length::Transactions(load)).wait();
    let end = place("pg_switch_wal()");
    let identity = server.sql("select system_identifier from pg_control_system()").parse().unwrap();
    let mut bytes = Vec::new();
    for number in start / SEGMENT..end / SEGMENT {
        let name = format!("00000001{:08X}{:08X}", number >> 8, number & 0xFF);
        bytes.extend(std::fs::read(server.data_dir().join("pg_wal").join(name)).unwrap());
    }
    let shape = LogShape {
        major: Major::Pg15,
        segment_bytes: SegmentBytes::new(SEGMENT).unwrap(),
        system_identifier: identity,
    };
    Log { shape, start: Offset::new(start), bytes }
}

fn decode(log: &Log, every_record: bool) -> u64 {
    let start = Position::new(Timeline::new(1), log.start);
    let mut decoder = LogDecoder::new(log.shape, start).unwrap();
    if every_record {
        decoder = decoder.with_every_record();
    }
    let mut events = 0;
    for piece in log.bytes.chunks(MESSAGE) {
        decoder.push(piece, &mut |_| events += 1).unwrap();
    }
    assert!(events > 0);
    events
}

fn decoder(c: &mut Criterion) {
    for (name, full_page_writes) in [("full-page images", true), ("small records", false)] {
        let log = log(full_page_writes);
        let mut group = c.benchmark_group(format!("log of {name}"));
        group.throughput(Throughput::Bytes(log.bytes.len() as u64)).sample_size(20);
        group.bench_function("commits and points", |b| b.iter(|| decode(&log, false)));
        group.bench_function("every record", |b| b.iter(|| decode(&log, true)));
        group.bench_function("checksum alone", |b| b.iter(|| crc32c::crc32c(&log.bytes)));
        group.finish();
    }
}

criterion_group!(benches, decoder);
criterion_main!(benches);
