//! A journal in memory, for tests of what reads one.

use std::sync::Arc;

use farshore_journal::format::object::Compression;
use farshore_journal::format::{Recipients, Unlock};
use farshore_journal::reader::Reader;
use farshore_journal::registry::{Founding, Repository};
use farshore_journal::store::memory::MemoryStore;
use farshore_journal::store::{ObjectStore, StoreError};
use farshore_journal::writer::{Writer, WriterOptions, encode_data};
use farshore_journal::{Offset, Position, Timeline};

use crate::source::Source;

/// Where its log begins, and how long a segment is.
pub(crate) const SEGMENT: u64 = 1 << 20;
/// Bytes of log in a chunk.
pub(crate) const CHUNK: u64 = 100;

pub(crate) fn quiet(_: &StoreError) {}

/// An empty one.
pub(crate) async fn founded() -> (Source, Reader) {
    founded_in(Arc::new(MemoryStore::new())).await
}

/// An empty one in this store.
pub(crate) async fn founded_in(store: Arc<dyn ObjectStore>) -> (Source, Reader) {
    let now = "2026-11-27T00:00:00Z";
    let repository = Repository::open_or_found(store, now).await.unwrap();
    let founding = Founding {
        database: &"orders".parse().unwrap(),
        number: 0,
        engine: "postgres",
        identity: "7",
        major: 15,
        segment_bytes: SEGMENT,
        now,
        reason: "first",
    };
    let record = repository.found_incarnation(founding).await.unwrap();
    let reader = Reader::new(&repository, &record).unwrap();
    (Source::new(&repository, record, Unlock::none()).unwrap(), reader)
}

/// Takes it over, and appends chunks.
pub(crate) async fn opened(reader: &Reader, chunks: usize) -> Writer {
    let mut writer = opened_for(reader, Recipients::default()).await;
    data(&mut writer, chunks).await;
    writer
}

/// Takes it over, and seals what is written for these.
pub(crate) async fn opened_for(reader: &Reader, recipients: Recipients) -> Writer {
    let options = WriterOptions {
        compression: Compression::None,
        recipients,
        segment_bytes: SEGMENT,
        host: "test".to_owned(),
    };
    let begin = Position::new(Timeline::new(1), Offset::new(SEGMENT));
    Writer::take_over(reader.clone(), &options, begin, &quiet).await.unwrap()
}

/// Appends chunks.
pub(crate) async fn data(writer: &mut Writer, chunks: usize) {
    for _ in 0..chunks {
        let (chunk, _) = encode_data(writer.place(), &[7; CHUNK as usize]).unwrap();
        writer.append(&chunk, &quiet).await.unwrap();
    }
}
