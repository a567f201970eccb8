//! Indexes: whatever is told and whatever is not, an index says of its run exactly what was seen in it, and what nobody saw is in none.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests too

use std::collections::BTreeMap;
use std::sync::Arc;

use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::format::index::{Claims, Entry, Index, Number, What, Whole};
use farshore_journal::format::object::Compression;
use farshore_journal::format::{FormatError, Header, Recipients, Unlock};
use farshore_journal::index::{self, Anew, IndexLimits, IndexName, Indexed, Indexer, Noted, Ready, Sheet};
use farshore_journal::reader::{Keyring, Reader};
use farshore_journal::registry::{Founding, Repository};
use farshore_journal::store::ObjectStore;
use farshore_journal::store::memory::MemoryStore;
use farshore_journal::writer::{Writer, WriterOptions, encode_data};
use farshore_journal::{JournalError, Offset, Position, Sequence, Timeline};
use farshore_testkit::random::Random;

const SEGMENT: u64 = 1 << 20;
const LIMITS: IndexLimits = IndexLimits { bytes: 20_000, chunks: 12, entry_bytes: 3_000, fan: 3, fewest: 2 };
/// Bytes of a record of the log that is made up here.
const RECORD: u64 = 104;

/// A journal with its writer, what it was told of each chunk, and the indexes that came of it.
struct Rig {
    store: Arc<MemoryStore>,
    repository: Repository,
    record: IncarnationRecord,
    recipients: Recipients,
    unlock: Unlock,
    writer: Writer,
    indexer: Indexer,
    /// Every chunk that the indexer was told of.
    told: BTreeMap<Sequence, (Header, Sheet)>,
    at: u64,
    rng: Random,
}

impl Rig {
    async fn new(seed: u64, sealed: bool) -> Self {
        let store = Arc::new(MemoryStore::new());
        let identity = age::x25519::Identity::generate();
        let (recipients, unlock) = match sealed {
            true => {
                use age::secrecy::ExposeSecret;
                let public = identity.to_public().to_string();
                let private = identity.to_string().expose_secret().to_owned();
                (Recipients::parse([public.as_str()]).unwrap(), Unlock::parse(&private).unwrap())
            }
            false => (Recipients::default(), Unlock::none()),
        };
        let now = "2026-11-26T00:00:00Z";
        let repository =
            Repository::open_or_found(Arc::clone(&store) as Arc<dyn ObjectStore>, now).await.unwrap();
        let database = "orders".parse().unwrap();
        let founding = Founding {
            database: &database,
            number: 0,
            engine: "postgres",
            identity: "7",
            major: 15,
            segment_bytes: SEGMENT,
            now,
            reason: "first",
        };
        let record = repository.found_incarnation(founding).await.unwrap();
        let writer = open(&repository, &record, &recipients).await;
        Self {
            store,
            repository,
            record,
            recipients,
            unlock,
            writer,
            indexer: Indexer::new(LIMITS),
            told: BTreeMap::new(),
            at: 0,
            rng: Random::new(seed),
        }
    }

    fn what(&mut self) -> Option<What> {
        let time = 1_700_000_000_000_000 + self.rng.below(1 << 30) as i64;
        let full = 700 + self.rng.below(100_000);
        let number = Number { low: full as u32, full: Some(full) };
        Some(match self.rng.below(40) {
            0..20 => What::Commit { time, number, within: Vec::new(), prepared: false },
            20 => What::Commit { time, number, within: vec![number], prepared: true },
            21 => What::Abort { time, number, within: Vec::new(), prepared: false },
            22 => What::Prepare { time, number, name: "half".to_owned() },
            23 => What::Point { time, name: "here".to_owned() },
            24 => What::Checkpoint { time, redo: Offset::new(self.at), next: full },
            25 => What::Settings { values: [full as i32; 6] },
            _ => return None,
        })
    }

    /// Appends a chunk, and tells of it with this probability in a hundred.
    async fn append(&mut self, told: u64) -> Vec<Ready> {
        let bytes = 1 + self.rng.below(3_000);
        let place = self.writer.place().clone();
        let (chunk, _) = encode_data(&place, &vec![7; bytes as usize]).unwrap();
        self.writer.append(&chunk, &|_| {}).await.unwrap();
        let mut entries = Vec::new();
        // Records end at multiples of their length.
        let (from, to) = (self.at / RECORD, (self.at + bytes) / RECORD);
        self.at += bytes;
        for end in from + 1..=to {
            if let Some(what) = self.what() {
                let (start, end) = (Offset::new((end - 1) * RECORD), Offset::new(end * RECORD));
                entries.push(Entry { start, end, what });
            }
        }
        let whole = (to > 0).then(|| Whole {
            to: Offset::new(to * RECORD),
            last_record: Offset::new((to - 1) * RECORD),
            next_transaction: Some(self.at),
        });
        // Now and then a chunk ends where decoding cannot go on.
        let whole = whole.filter(|_| self.rng.below(10) > 0);
        if self.rng.below(100) >= told {
            return Vec::new();
        }
        let sheet = Sheet { entries, whole };
        self.told.insert(chunk.header.number, (chunk.header.clone(), sheet.clone()));
        self.indexer.add(Noted::new(&place, &chunk.header, sheet))
    }

    async fn put(&self, ready: Vec<Ready>) {
        for ready in ready {
            let object = ready.encode().unwrap();
            object.put(&*self.store, self.writer.reader().layout(), &|_| {}).await.unwrap();
        }
    }

    fn reader(&self) -> Reader {
        Reader::new(&self.repository, &self.record).unwrap()
    }

    /// All indexes, read from the store.
    async fn all(&self) -> Vec<(IndexName, Indexed)> {
        let (reader, mut keys) = (self.reader(), Keyring::new(self.unlock.clone()));
        let mut all = Vec::new();
        for name in index::names_from(&reader, Sequence::FIRST, usize::MAX).await.unwrap().names {
            all.push((name, index::read(&reader, &mut keys, &name).await.unwrap()));
        }
        all
    }

    /// What an index of this run must say, from what was told of each chunk.
    fn expected(&self, name: &IndexName, level: u8) -> Index {
        let run: Vec<_> = self.told.range(name.first..=name.last).map(|(_, told)| told).collect();
        assert_eq!(
            run.len() as u64,
            name.last.get() - name.first.get() + 1,
            "{name}: it was not told of all"
        );
        let entries: Vec<Entry> = run.iter().flat_map(|(_, sheet)| sheet.entries.clone()).collect();
        let mut claims = Claims::default();
        entries.iter().for_each(|entry| claims.note(entry));
        let whole = run.last().unwrap().1.whole.expect("it ends where decoding can go on");
        let holds = |(header, _): &&&(Header, Sheet)| header.start <= whole.to && whole.to < header.end;
        let resume = run.iter().find(holds).map_or(name.last.get() + 1, |(header, _)| header.number.get());
        let entries = if level == 0 { entries } else { Index::thin(&entries) };
        Index { level, last: name.last, resume: Sequence::new(resume), whole, claims, entries }
    }
}

async fn open(repository: &Repository, record: &IncarnationRecord, recipients: &Recipients) -> Writer {
    let options = WriterOptions {
        compression: Compression::Zstd(1),
        recipients: recipients.clone(),
        segment_bytes: SEGMENT,
        host: "here".to_owned(),
    };
    let at = Position::new(Timeline::new(1), Offset::new(0));
    let reader = Reader::new(repository, record).unwrap();
    Writer::take_over(reader, &options, at, &|_| {}).await.unwrap()
}

#[tokio::test]
async fn an_index_says_of_its_run_what_was_seen_in_it_whatever_was_not_told() {
    let mut levels = 0;
    for seed in 0..12 {
        let mut rig = Rig::new(seed, seed % 2 == 1).await;
        let told = if seed < 6 { 100 } else { 97 };
        for chunk in 0..400 {
            if chunk % 150 == 149 {
                // A restart: another generation goes on.
                let last = rig.indexer.close();
                rig.put(last).await;
                rig.writer = open(&rig.repository, &rig.record, &rig.recipients).await;
            }
            let ready = rig.append(told).await;
            rig.put(ready).await;
        }
        let last = rig.indexer.close();
        rig.put(last).await;
        let all = rig.all().await;
        assert!(all.len() > 30, "seed {seed}: {}", all.len());
        for (name, indexed) in &all {
            let (first, last) = (&rig.told[&name.first].0, &rig.told[&name.last].0);
            let header = &indexed.header;
            assert_eq!((header.start, header.end), (first.start, last.end), "{name}");
            assert_eq!((header.before, header.after), (first.before, last.after), "{name}");
            assert_eq!((header.generation, header.writer), (first.generation, last.writer), "{name}");
            assert_eq!(indexed.index, rig.expected(name, indexed.index.level), "seed {seed} {name}");
            levels = levels.max(indexed.index.level);
            // Found anew from the chunks, as verify does.
            let mut anew = Anew::of(indexed.index.level, first);
            for (header, sheet) in rig.told.range(name.first..=name.last).map(|(_, told)| told) {
                assert!(anew.continues(header));
                anew.take(header, sheet.clone());
            }
            assert_eq!(anew.index().as_ref(), Some(&indexed.index), "seed {seed} {name}");
        }
        // One level's runs follow one another, and a higher one begins and ends where lower ones do.
        for level in 0..=levels {
            let runs: Vec<_> =
                all.iter().filter(|(_, one)| one.index.level == level).map(|(name, _)| *name).collect();
            assert!(runs.windows(2).all(|two| two[0].last < two[1].first), "seed {seed}: {runs:?}");
            if level > 0 {
                let below = |at: &dyn Fn(&IndexName) -> bool| {
                    all.iter().any(|(name, one)| one.index.level + 1 == level && at(name))
                };
                assert!(runs.iter().all(|run| below(&|name| name.first == run.first)));
                assert!(runs.iter().all(|run| below(&|name| name.last == run.last)));
            }
        }
        // Without holes nothing but each writer's last chunks is left out.
        if told == 100 {
            let covered: u64 = all
                .iter()
                .filter(|(_, one)| one.index.level == 0)
                .map(|(name, _)| name.last.get() - name.first.get() + 1)
                .sum();
            assert!(covered >= 400 - 3 * 8, "seed {seed}: {covered} of 400 chunks");
        }
    }
    assert!(levels >= 2, "{levels}");
}

#[tokio::test]
async fn names_from_a_chunk_on_are_those_of_runs_that_begin_there_or_later() {
    let mut rig = Rig::new(3, false).await;
    for _ in 0..200 {
        let ready = rig.append(100).await;
        rig.put(ready).await;
    }
    let all: Vec<IndexName> = rig.all().await.into_iter().map(|(name, _)| name).collect();
    assert!(all.is_sorted());
    let reader = rig.reader();
    for name in &all {
        let found = index::names_from(&reader, name.first, 3).await.unwrap().names;
        let wanted: Vec<_> = all.iter().filter(|one| one.first >= name.first).take(3).copied().collect();
        assert_eq!(found, wanted);
    }
}

#[tokio::test]
async fn an_index_opens_only_with_the_key_of_its_generation_and_a_clear_one_among_sealed_is_a_forgery() {
    let mut rig = Rig::new(5, true).await;
    for _ in 0..40 {
        let ready = rig.append(100).await;
        rig.put(ready).await;
    }
    let (name, indexed) = rig.all().await.remove(0);
    let reader = rig.reader();
    let keyless = index::read(&reader, &mut Keyring::new(Unlock::none()), &name).await;
    assert!(
        matches!(keyless, Err(JournalError::Object { source: FormatError::KeyMissing, .. })),
        "{keyless:?}"
    );
    // Commits' times and numbers are content.
    let bytes = rig.store.get(&reader.layout().index(&name).unwrap()).await.unwrap();
    let plain = indexed.index.encode(name.first, indexed.header.start, indexed.header.end).unwrap();
    assert!(!bytes.windows(16).any(|window| window == &plain[plain.len() - 16..]));

    let clear = Rig::new(5, false).await;
    let mut same = clear;
    for _ in 0..40 {
        let ready = same.append(100).await;
        same.put(ready).await;
    }
    // The same run in the clear, as of this store and journal.
    use farshore_journal::format::Mark;
    use farshore_journal::format::object::{ChainUse, Draft, Piece};
    let header = &indexed.header;
    let draft = Draft {
        kind: header.kind,
        store: header.store,
        incarnation: header.incarnation,
        number: header.number,
        generation: header.generation,
        writer: header.writer,
        timeline: header.timeline,
        start: header.start,
        end: header.end,
        written_at: header.written_at,
        chain: ChainUse::Stated { before: header.before, after: header.after },
        mark: Mark::NONE,
    };
    let piece = Piece { end: plain.len() as u64, plain: &plain };
    let forged = draft.encode(&[piece], Compression::None, None).unwrap().bytes;
    rig.store.replace(&reader.layout().index(&name).unwrap(), forged);
    let read = index::read(&reader, &mut Keyring::new(rig.unlock.clone()), &name).await;
    assert!(
        matches!(read, Err(JournalError::Object { source: FormatError::Field { field: "cipher" }, .. })),
        "{read:?}"
    );
    // Another journal's is misplaced here.
    let (theirs, _) = same.all().await.remove(0);
    let there = same.store.get(&same.reader().layout().index(&theirs).unwrap()).await.unwrap();
    rig.store.replace(&reader.layout().index(&theirs).unwrap(), there);
    let read = index::read(&reader, &mut Keyring::new(rig.unlock.clone()), &theirs).await;
    assert!(matches!(read, Err(JournalError::Misplaced { .. })), "{read:?}");
}
