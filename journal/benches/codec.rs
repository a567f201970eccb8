//! What encoding, decoding and chaining a chunk costs: `cargo bench -p farshore-journal --bench codec`.
//!
//! The input is text-like and compresses about fivefold; compare ratios within one run, not figures across machines.

#![allow(missing_docs, clippy::unwrap_used)] // a measuring program

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use farshore_journal::format::chain::Link;
use farshore_journal::format::object::{ChainUse, Compression, Draft, Encoded, MAX_FRAME_BYTES, Piece};
use farshore_journal::format::{ChainValue, DataKey, Decoded, Digest, Kind, Mark};
use farshore_journal::{Generation, IncarnationId, Offset, Sequence, StoreId, Timeline, WriterId};

const BYTES: usize = 8 << 20;

fn log() -> Vec<u8> {
    let mut state = 7u64;
    let words: Vec<String> =
        (0..4096u64).map(|word| format!("{:x}", word.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
    let mut out = Vec::with_capacity(BYTES + 16);
    while out.len() < BYTES {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        out.extend_from_slice(words[(state >> 52) as usize].as_bytes());
    }
    out.truncate(BYTES);
    out
}

fn encode(log: &[u8], compression: Compression, key: Option<&DataKey>) -> Encoded {
    let mut end = 0;
    let pieces = log.chunks(MAX_FRAME_BYTES).map(|plain| {
        end += plain.len() as u64;
        Piece { end, plain }
    });
    let pieces: Vec<Piece<'_>> = pieces.collect();
    let draft = Draft {
        kind: Kind::Data,
        store: StoreId::from_bytes([1; 16]),
        incarnation: IncarnationId::from_bytes([2; 16]),
        number: Sequence::new(7),
        generation: Generation::FIRST,
        writer: WriterId::from_bytes([3; 16]),
        timeline: Timeline::new(1),
        start: Offset::new(0),
        end: Offset::new(log.len() as u64),
        written_at: 0,
        chain: ChainUse::StepsFrom(ChainValue::from_bytes([9; 32])),
        mark: Mark::NONE,
    };
    draft.encode(&pieces, compression, key).unwrap()
}

fn codec(c: &mut Criterion) {
    let log = log();
    let key = DataKey::mint().unwrap();
    let mut group = c.benchmark_group("chunk of 8 MiB");
    group.throughput(Throughput::Bytes(BYTES as u64)).sample_size(20);
    let ways = [
        ("plain", Compression::None, None),
        ("zstd 1", Compression::Zstd(1), None),
        ("zstd 3", Compression::Zstd(3), None),
        ("zstd 1, sealed", Compression::Zstd(1), Some(&key)),
    ];
    for (name, compression, key) in ways {
        group.bench_function(format!("encode {name}"), |b| b.iter(|| encode(&log, compression, key)));
        let bytes = encode(&log, compression, key).bytes;
        group.bench_function(format!("check {name}"), |b| b.iter(|| Decoded::parse(bytes.clone()).unwrap()));
        group.bench_function(format!("open {name}"), |b| {
            b.iter(|| Decoded::parse(bytes.clone()).unwrap().plain_all(key).unwrap())
        });
    }
    group.bench_function("digest", |b| b.iter(|| Digest::of(&log)));
    group.finish();
}

/// The chain as a reader walks it: a chunk's steps, and those of a journal of small chunks.
fn chain(c: &mut Criterion) {
    let link = Link {
        kind: Kind::Data,
        generation: Generation::FIRST,
        writer: WriterId::from_bytes([3; 16]),
        timeline: Timeline::new(1),
    };
    let digest = Digest::of(b"a frame");
    let mut group = c.benchmark_group("chain");
    for steps in [8u64, 10_000] {
        group.throughput(Throughput::Elements(steps));
        group.bench_function(format!("{steps} steps"), |b| {
            b.iter(|| {
                let first = ChainValue::from_bytes([9; 32]);
                (0..steps)
                    .fold(first, |chain, at| chain.step(link, Offset::new(at), Offset::new(at + 1), &digest))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, codec, chain);
criterion_main!(benches);
