//! Measures what a durable create costs in a folder: `cargo run --release --example store_latency -- /path [seconds]`.
//!
//! It leaves its objects in the folder given, so give it an empty one on the disk in question.

use std::time::{Duration, Instant};

use bytes::Bytes;
use farshore_journal::store::{FileStore, KeyPrefix, ObjectStore, StoreOptions};

#[tokio::main]
#[allow(clippy::print_stdout)] // figures are what this program is for
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let root = arguments.next().ok_or("which folder?")?;
    let budget = Duration::from_secs(arguments.next().map_or(Ok(5), |text| text.parse())?);
    let store = FileStore::open(root.as_ref(), &StoreOptions::for_writing().make_root())?;
    println!(
        "{:>10} {:>8} {:>10} {:>10} {:>10} {:>8}",
        "bytes", "creates", "p50 µs", "p99 µs", "max µs", "MB/s"
    );
    for size in [4 << 10, 64 << 10, 16 << 20] {
        let folder = KeyPrefix::new(&format!("latency/{size}"))?;
        let bytes = Bytes::from(vec![0xa5; size]);
        let (began, mut taken) = (Instant::now(), Vec::new());
        while began.elapsed() < budget {
            let key = folder.key(format!("{:016x}", taken.len()))?;
            let start = Instant::now();
            store.create(&key, bytes.clone()).await?;
            taken.push(start.elapsed().as_micros());
        }
        let total = began.elapsed().as_secs_f64();
        taken.sort_unstable();
        let at =
            |share: usize| taken.get(taken.len() * share / 100).or(taken.last()).copied().unwrap_or_default();
        let rate = (taken.len() * size) as f64 / total / 1e6;
        println!("{size:>10} {:>8} {:>10} {:>10} {:>10} {rate:>8.1}", taken.len(), at(50), at(99), at(100));
    }
    Ok(())
}
