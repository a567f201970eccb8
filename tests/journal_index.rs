//! The promise: the journal's index makes a restore's plan cheap and changes nothing about it. With and without it every target comes
//! to the same plan, and an index that lies cannot make a restore come to anything else than the log says, unless it is refused.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message
#![allow(clippy::print_stdout)] // what was counted is read in the output

mod service;

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use farshore_applier::heads::KnownHeads;
use farshore_applier::plan::{Asked, AskedPosition, Plan, resolve};
use farshore_applier::restore::{self, RestoreError, RestoreOptions};
use farshore_applier::source::Source;
use farshore_applier::verify::verify;
use farshore_journal::format::index::{Claims, Entry, Index, Number, What};
use farshore_journal::format::object::{ChainUse, Compression, Draft, Piece};
use farshore_journal::format::{Mark, Unlock};
use farshore_journal::index::{self, IndexName, Indexed};
use farshore_journal::reader::{Keyring, Reader};
use farshore_journal::registry::Repository;
use farshore_journal::store::{Created, HasTails, Key, KeyPrefix, Listed, ObjectStore, StoreError};
use farshore_journal::{Offset, Sequence};
use farshore_testkit::pg::{Length, Mode, Server};
use farshore_testkit::random::{Random, seed};
use farshore_testkit::user;
use service::{CONTENT, Node, count, flushed, keeping};

/// Counts what is read of a store, by folder.
#[derive(Debug)]
struct Counting {
    store: Arc<dyn ObjectStore>,
    read: Mutex<BTreeMap<&'static str, (u64, u64)>>,
}

impl Counting {
    fn over(store: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self { store, read: Mutex::default() })
    }

    fn note(&self, key: &str, bytes: u64) {
        let folders = ["/journal/", "/segments/", "/index", "/backups"];
        let folder = folders.into_iter().find(|folder| key.contains(folder)).unwrap_or("other");
        let mut read = self.read.lock().unwrap();
        let (objects, all) = read.entry(folder).or_default();
        *objects += 1;
        *all += bytes;
    }

    fn taken(&self) -> Read {
        let read = std::mem::take(&mut *self.read.lock().unwrap());
        let of = |folder: &str| read.get(folder).copied().unwrap_or_default();
        let log = [of("/journal/"), of("/segments/")];
        Read {
            log_objects: log.iter().map(|(objects, _)| objects).sum(),
            log_bytes: log.iter().map(|(_, bytes)| bytes).sum(),
            index_objects: of("/index").0,
            index_bytes: of("/index").1,
        }
    }
}

/// What a plan read of the log and its index.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code)] // shown
struct Read {
    log_objects: u64,
    log_bytes: u64,
    index_objects: u64,
    index_bytes: u64,
}

#[async_trait]
impl ObjectStore for Counting {
    async fn create(&self, key: &Key, bytes: Bytes) -> Result<Created, StoreError> {
        self.store.create(key, bytes).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        let read = self.store.get(key).await;
        self.note(key.as_ref(), read.as_ref().map_or(0, |bytes| bytes.len() as u64));
        read
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let read = self.store.get_range(key, range).await;
        self.note(key.as_ref(), read.as_ref().map_or(0, |bytes| bytes.len() as u64));
        read
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        self.note(key.as_ref(), 0);
        self.store.size(key).await
    }

    async fn list(
        &self,
        prefix: &KeyPrefix,
        after: Option<&Key>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        self.note(&format!("{prefix}"), 0);
        self.store.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.store.delete(key).await
    }

    fn tails(&self) -> HasTails<'_> {
        self.store.tails()
    }
}

/// A node whose chunks are small and many, and so are its indexes.
fn indexing(server: &Server) -> Node {
    let node = Node::new(&[server]);
    node.configure(|text| text.replace("\"200ms\"", "\"10ms\"") + "merge_at = \"64KiB\"\n");
    node
}

async fn source_on(store: Arc<dyn ObjectStore>) -> Source {
    let repository = Repository::open(store).await.unwrap();
    let record = repository.incarnations(&"orders".parse().unwrap()).await.unwrap().pop().unwrap();
    Source::new(&repository, record, Unlock::none()).unwrap()
}

async fn source(node: &Node) -> Source {
    source_on(node.deleting_store()).await
}

/// All indexes, in the order of their names.
async fn indexes(reader: &Reader) -> Vec<(IndexName, Indexed)> {
    let mut keys = Keyring::new(Unlock::none());
    let mut all = Vec::new();
    for name in index::names_from(reader, Sequence::FIRST, usize::MAX).await.unwrap().names {
        all.push((name, index::read(reader, &mut keys, &name).await.unwrap()));
    }
    all
}

/// What a plan came to, in a form that can be compared: a refusal by its words, and nothing of how it came to it.
async fn planned(source: &Source, asked: &Asked) -> Result<Plan, String> {
    resolve(source, asked.clone()).await.map(alike).map_err(|why| why.to_string())
}

fn alike(plan: Plan) -> Plan {
    Plan { rests_on_index: false, ..plan }
}

fn at(micros: i64) -> Asked {
    Asked::Time(DateTime::from_timestamp_micros(micros).unwrap())
}

fn position(offset: u64) -> Asked {
    Asked::Position(AskedPosition { timeline: None, offset: Offset::new(offset) })
}

/// Everything that an index lists happens, with commits before, between and behind.
async fn story(server: &Server) {
    let load = |transactions| server.pgbench(2, Length::Transactions(transactions)).wait();
    let _report = load(200);
    server.sql("select pg_create_restore_point('once')");
    server.sql("select pg_create_restore_point('twice')");
    server.sql("begin; create table half(a int); prepare transaction 'half'");
    server.sql("begin; create table other_half(a int); prepare transaction 'other half'");
    let _report = load(200);
    server.sql("commit prepared 'half'");
    server.sql("begin; savepoint a; create table sub as select 1 as one; release a; commit");
    server.sql("begin; create table gone(a int); rollback");
    server
        .sql("begin; savepoint a; create table gone(a int); rollback to a; create table kept(a int); commit");
    server.sql("checkpoint");
    let _report = load(200);
    server.sql("select pg_switch_wal()");
    server.sql("select pg_create_restore_point('twice')");
    // The log of what the source's settings become; and a record that was never finished.
    server.conf("max_connections = 77");
    server.stop(Mode::Immediate);
    server.start();
    let _report = load(200);
    // A session that commits long after its number was given out.
    let long = server.connect().await;
    long.batch_execute("begin; create table late(a int)").await.unwrap();
    let _report = load(300);
    long.batch_execute("commit").await.unwrap();
    let _report = load(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_target_comes_to_the_same_plan_with_and_without_the_index() {
    let server = keeping().conf("max_prepared_transactions = 10").start();
    server.pgbench_init(1);
    let (seed, mut random) = (seed(), Random::new(seed()));
    println!("seed {seed}");
    let (node, server, all, source) = tokio::task::spawn_blocking(move || {
        let node = indexing(&server);
        let service = node.start(None);
        node.wait_backup(1);
        let runtime = tokio::runtime::Handle::current();
        runtime.block_on(story(&server));
        // A second base in the middle, so that targets before it go to the first.
        node.json(&["backup", "run", "orders"]);
        node.wait_end(1, flushed(&server));
        service.stop();
        // Two runs of the service: the index has a hole between them.
        let service = node.start(None);
        let _report = server.pgbench(2, Length::Transactions(300)).wait();
        node.wait_end(1, flushed(&server));
        service.stop();
        let source = runtime.block_on(source(&node));
        let all = runtime.block_on(indexes(source.reader()));
        (node, server, all, source)
    })
    .await
    .unwrap();
    let without = source.clone().without_index();
    let levels = all.iter().map(|(_, indexed)| indexed.index.level).max().unwrap();
    let whole = || all.iter().filter(|(_, indexed)| indexed.index.level == 0);
    let entries: Vec<&Entry> = whole().flat_map(|(_, indexed)| &indexed.index.entries).collect();
    println!("{} indexes of {} levels, {} entries", all.len(), levels + 1, entries.len());
    assert!(levels >= 1 && entries.len() > 800, "{levels} {}", entries.len());
    // Runs of one level follow one another without a hole for as long as one writer wrote.
    let runs: Vec<&IndexName> = whole().map(|(name, _)| name).collect();
    let holes = runs.windows(2).filter(|two| two[0].last.next() != Some(two[1].first)).count();
    assert!(holes <= 3, "{holes} holes in {runs:?}");

    let mut targets = vec![Asked::Latest, at(0), at(i64::MAX / 1_000_000), Asked::Transaction(4_000_000_000)];
    for name in ["once", "twice", "never"] {
        targets.push(Asked::Point(name.to_owned()));
    }
    // One of every kind that happened on purpose, and as many of the load as the test is given.
    let special = |entry: &&&Entry| match &entry.what {
        What::Commit { within, prepared, .. } => !within.is_empty() || *prepared,
        What::Settings { .. } | What::Prepare { .. } => true,
        _ => false,
    };
    let mut chosen: Vec<&Entry> = entries.iter().filter(special).copied().collect();
    chosen.extend(entries.iter().filter(|entry| matches!(entry.what, What::Abort { .. })).take(2));
    for _ in 0..count("FARSHORE_INDEX_TARGETS", 8) {
        chosen.extend(random.pick(&entries).copied());
    }
    // The borders of runs are where a reader could lose or repeat something.
    for _ in 0..4 {
        let (_, indexed) = random.pick(&all).unwrap();
        let to = indexed.index.whole.to.get();
        targets.extend([to - 1, to, to + 1, indexed.header.end.get()].map(position));
        chosen.extend(indexed.index.entries.last());
    }
    for entry in chosen {
        targets.extend([position(entry.end.get()), position(entry.end.get() - 1)]);
        match &entry.what {
            What::Commit { time, number, within, .. } | What::Abort { time, number, within, .. } => {
                targets.extend([at(*time), at(*time - 1)]);
                let numbers = std::iter::once(number).chain(within).filter_map(|one| one.full);
                targets.extend(numbers.map(Asked::Transaction));
            }
            _ => {}
        }
    }
    let mut reached = 0;
    for asked in &targets {
        let (by_index, by_log) = (planned(&source, asked).await, planned(&without, asked).await);
        assert_eq!(by_index, by_log, "{asked}");
        reached += usize::from(by_log.is_ok());
    }
    println!("{} targets, {reached} of them reached", targets.len());
    assert!(reached > 40, "{reached} of {}", targets.len());
    tokio::task::spawn_blocking(move || {
        // And what is restored is what it must be.
        assert_eq!(node.restore(&["--latest"]).sql(CONTENT), server.sql(CONTENT));
        let walked = node.prove(&[&server]);
        assert_eq!(walked.len(), 1);
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_a_plan_reads_hardly_grow_with_the_log() {
    let server = keeping().start();
    server.pgbench_init(1);
    let mut figures = Vec::new();
    let (node, server) = tokio::task::spawn_blocking(move || {
        let node = indexing(&server);
        let service = node.start(None);
        node.wait_backup(1);
        service.stop();
        (Arc::new(node), Arc::new(server))
    })
    .await
    .unwrap();
    // One run of the service, since each has indexes of its own; each step has several times the log of all before it.
    let service = node.start(None);
    for transactions in [400, 2_000, 8_000] {
        let (node, server) = (Arc::clone(&node), Arc::clone(&server));
        let (node, log) = tokio::task::spawn_blocking(move || {
            let _report = server.pgbench(4, Length::Transactions(transactions)).wait();
            let log = flushed(&server);
            node.wait_end(1, log);
            (node, log)
        })
        .await
        .unwrap();
        let store = Counting::over(node.deleting_store());
        let source = source_on(Arc::clone(&store) as Arc<dyn ObjectStore>).await;
        let all = indexes(source.reader()).await;
        let commits =
            all.iter().filter(|(_, one)| one.index.level == 0).flat_map(|(_, one)| &one.index.entries);
        let commits = commits.filter_map(|entry| match entry.what {
            What::Commit { number: Number { full: Some(full), .. }, time, .. } => {
                Some((full, time, entry.end))
            }
            _ => None,
        });
        let commits: Vec<_> = commits.collect();
        // Not the very last: what the server writes meanwhile must not be part of the answer.
        let (xid, time, end) = commits[commits.len() - 100];
        for asked in [Asked::Transaction(xid), at(time), position(end.get() + 10)] {
            let _listing = store.taken();
            let by_index = planned(&source, &asked).await.unwrap();
            let with = store.taken();
            let by_log = planned(&source.clone().without_index(), &asked).await.unwrap();
            let without = store.taken();
            assert_eq!(by_index, by_log);
            println!("log to {log}, {asked}: {with:?}; without: {without:?}");
            figures.push((with, without));
        }
    }
    service.stop();
    let steps: Vec<_> = figures.chunks(3).collect();
    for (first, last) in steps[0].iter().zip(steps[2]) {
        assert!(last.1.log_objects > 4 * first.1.log_objects, "the log did not grow: {first:?} {last:?}");
        // Near base and target the log itself is read; between them a few indexes of each level, of which there are a logarithm.
        // (How much log that is hangs on how large the chunks at the base are: what counts is that it does not grow as the log does.)
        let grown = last.1.log_bytes.saturating_sub(first.1.log_bytes);
        assert!(last.0.log_bytes < first.0.log_bytes + grown / 4, "{first:?} {last:?}");
        assert!(last.0.log_objects <= first.0.log_objects + 70, "{first:?} {last:?}");
        assert!(8 * last.0.log_objects < last.1.log_objects, "{last:?}");
        assert!(last.0.index_objects <= first.0.index_objects + 40, "{first:?} {last:?}");
    }
}

/// A time that no log reaches, in microseconds.
const FAR_TIME: i64 = 32_503_680_000_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_across_a_fork_is_made_with_the_index_as_without_it() {
    let old = keeping().start();
    old.pgbench_init(1);
    let new = Server::standby_of(&old).await;
    new.conf("wal_keep_size = '1GB'");
    let (_servers, source) = tokio::task::spawn_blocking(move || {
        let node = indexing(&old);
        let service = node.start(None);
        node.wait_backup(1);
        let _report = old.pgbench(2, Length::Transactions(1_000)).wait();
        node.wait_end(1, flushed(&old));
        service.stop();
        old.stop(Mode::Fast);
        new.promote();
        let node = Node::moved(node, &[&new]);
        let service = node.start(None);
        let _report = new.pgbench(2, Length::Transactions(1_000)).wait();
        node.wait_end(2, flushed(&new));
        service.stop();
        let source = tokio::runtime::Handle::current().block_on(source(&node));
        ((node, old, new), source)
    })
    .await
    .unwrap();
    let all = indexes(source.reader()).await;
    assert!(all.iter().any(|(_, one)| one.header.timeline.get() == 2), "the new timeline has an index");
    let last =
        all.iter().filter_map(|(_, one)| one.index.entries.last()).map(|entry| entry.end).max().unwrap();
    for asked in [Asked::Latest, position(last.get())] {
        let by_index = resolve(&source, asked.clone()).await.unwrap();
        assert!(by_index.rests_on_index, "{asked}: all log was read");
        assert_eq!(Ok(alike(by_index)), planned(&source.clone().without_index(), &asked).await, "{asked}");
    }
}

/// Writes an index anew, changed, as whoever may write to the store can.
async fn forge(
    node: &Node,
    reader: &Reader,
    name: &IndexName,
    true_one: &Indexed,
    lie: impl FnOnce(&mut Index),
) {
    let mut index = true_one.index.clone();
    lie(&mut index);
    if index.level == 0 {
        index.claims = Claims::default();
        let Index { claims, entries, .. } = &mut index;
        entries.iter().for_each(|entry| claims.note(entry));
    }
    let header = &true_one.header;
    let plain = index.encode(header.number, header.start, header.end).unwrap();
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
    let bytes = draft.encode(&[piece], Compression::Zstd(1), None).unwrap().bytes;
    let (store, key) = (node.deleting_store(), reader.layout().index(name).unwrap());
    store.delete(&key).await.unwrap();
    assert_eq!(store.create(&key, bytes).await.unwrap(), Created::New);
    user::give(&node.folder().join("journal").join(key.as_ref()));
}

fn options(directory: &Path) -> RestoreOptions {
    RestoreOptions {
        directory: directory.to_owned(),
        tablespaces: BTreeMap::new(),
        resume: false,
        port: 5432,
        shared_buffers_limit: 16 << 20,
        preload: Vec::new(),
        follow: None,
        start: None,
    }
}

/// What came of a plan made with a lying index, held against the plan that the log gives.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    /// The true plan.
    True,
    /// Another one, and the restore refused it.
    Refused,
}

async fn came(source: &Source, asked: &Asked, truth: &Plan) -> Came {
    let plan = match resolve(source, asked.clone()).await {
        Ok(plan) if alike(plan.clone()) == *truth => return Came::True,
        Ok(plan) => plan,
        Err(why) => panic!("an index led to a refusal of {asked}: {why}"),
    };
    let folder = user::tempdir();
    let directory = folder.path().join("d");
    let done = restore::run(source, &plan, &options(&directory), Arc::new(|_| {})).await;
    match done {
        Err(RestoreError::OtherThanPlanned { .. }) => {}
        other => panic!("{asked}: planned {:?}, true {:?}, and {other:?}", plan.resolved, truth.resolved),
    }
    assert!(!directory.join("global/pg_control").exists());
    Came::Refused
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_lies_never_changes_what_is_restored() {
    let server = keeping().conf("max_prepared_transactions = 10").start();
    server.pgbench_init(1);
    let (node, server, source) = tokio::task::spawn_blocking(move || {
        let node = indexing(&server);
        let service = node.start(None);
        node.wait_backup(1);
        let _report = server.pgbench(2, Length::Transactions(1500)).wait();
        server.sql("begin; create table half(a int); prepare transaction 'half'");
        let _report = server.pgbench(2, Length::Transactions(300)).wait();
        node.wait_end(1, flushed(&server));
        service.stop();
        let source = tokio::runtime::Handle::current().block_on(source(&node));
        (node, server, source)
    })
    .await
    .unwrap();
    let without = source.clone().without_index();
    let reader = source.reader().clone();
    let all = indexes(&reader).await;
    let base_end = resolve(&source, Asked::Latest).await.unwrap().base.end.offset;
    // Only level 0 is asked, so that what is changed is what is used.
    for (name, _) in all.iter().filter(|(_, one)| one.index.level > 0) {
        node.deleting_store().delete(&reader.layout().index(name).unwrap()).await.unwrap();
    }
    let usable: Vec<&(IndexName, Indexed)> = all
        .iter()
        .filter(|(_, one)| one.index.level == 0 && one.header.start > base_end)
        .filter(|(_, one)| one.index.claims.commits > 20)
        .collect();
    assert!(usable.len() > 6, "{} of {}", usable.len(), all.len());
    let (name, true_one) = usable[usable.len() / 2];
    let commits: Vec<(usize, u64, i64)> = true_one
        .index
        .entries
        .iter()
        .enumerate()
        .filter_map(|(at, entry)| match &entry.what {
            What::Commit { number: Number { full: Some(full), .. }, time, .. } => Some((at, *full, *time)),
            _ => None,
        })
        .collect();
    let (at_entry, xid, time) = commits[commits.len() / 2];
    let (_, _, newest) = commits.iter().copied().max_by_key(|(_, _, time)| *time).unwrap();
    let far = usable.last().unwrap().1.header.end.get() - 100;

    type Lie = Box<dyn Fn(&mut Index)>;
    let lies: Vec<(&str, Lie)> = vec![
        ("a commit is removed", Box::new(move |index| drop(index.entries.remove(at_entry)))),
        ("all commits are removed", Box::new(|index| index.entries.clear())),
        (
            "a commit has another number",
            Box::new(move |index| {
                if let What::Commit { number, .. } = &mut index.entries[at_entry].what {
                    *number = Number { low: 77, full: Some(77) };
                }
            }),
        ),
        (
            "its commits are earlier than they were",
            Box::new(|index| {
                for entry in &mut index.entries {
                    if let What::Commit { time, .. } = &mut entry.what {
                        *time = 0;
                    }
                }
            }),
        ),
        (
            "its commits are later than they were",
            Box::new(|index| {
                for entry in &mut index.entries {
                    if let What::Commit { time, .. } = &mut entry.what {
                        *time += 3_600_000_000;
                    }
                }
            }),
        ),
        (
            "its records end elsewhere",
            Box::new(|index| {
                index.entries.truncate(3);
                let end = index.entries.last().unwrap().end;
                index.whole.to = end;
                index.whole.last_record = index.entries.last().unwrap().start;
            }),
        ),
        (
            "its records end where none does",
            Box::new(|index| {
                index.whole.to = Offset::new(index.whole.to.get() - 8);
            }),
        ),
        (
            "its numbers went round once more",
            Box::new(|index| {
                index.whole.next_transaction = index.whole.next_transaction.map(|next| next + (1 << 32));
            }),
        ),
        (
            "settings were changed in it",
            Box::new(|index| {
                let last = index.entries.last().unwrap().clone();
                let start = last.end;
                let end = Offset::new(start.get() + 8);
                if end <= index.whole.to {
                    index.entries.push(Entry {
                        start,
                        end,
                        what: What::Settings { values: [9999, 8, 10, 10, 64, 1] },
                    });
                } else {
                    index.entries.last_mut().unwrap().what =
                        What::Settings { values: [9999, 8, 10, 10, 64, 1] };
                }
            }),
        ),
        (
            "it happened in times to come",
            Box::new(|index| {
                index.entries.last_mut().unwrap().what = What::Moment { time: FAR_TIME };
            }),
        ),
        (
            "reading is sent elsewhere",
            Box::new(|index| {
                index.resume = Sequence::new(index.resume.get() - 1);
            }),
        ),
    ];
    let targets = [
        Asked::Transaction(xid),
        at(time),
        at(time - 1),
        at(newest),
        at(FAR_TIME),
        Asked::Latest,
        position(far),
        Asked::Point("never".to_owned()),
    ];
    let mut truths = Vec::new();
    for asked in &targets {
        truths.push(resolve(&without, asked.clone()).await.ok());
    }
    let mut refused = 0;
    for (what, lie) in &lies {
        forge(&node, &reader, name, true_one, lie).await;
        for (asked, truth) in targets.iter().zip(&truths) {
            match truth {
                Some(truth) => {
                    let came = came(&source, asked, truth).await;
                    println!("{what}, {asked}: {came:?}");
                    refused += usize::from(came == Came::Refused);
                }
                None => assert!(resolve(&source, asked.clone()).await.is_err(), "{what}, {asked}"),
            }
        }
        // Verify says which index it is.
        let found = verify(&source, &KnownHeads::default(), &|_, _| {}).await.unwrap();
        let key = reader.layout().index(name).unwrap().to_string();
        assert!(found.bad.iter().any(|bad| bad.object == key), "{what}: {:?}", found.bad);
    }
    assert!(refused > 0, "no lie was ever believed by a plan, so none shows that a restore finds it");

    // The command does by itself what there is to do: it begins anew without the index.
    let (_, lie) = &lies[3];
    forge(&node, &reader, name, true_one, lie).await;
    let (truth, asked) = (truths[1].clone().unwrap(), &targets[1]);
    let by_index = resolve(&source, asked.clone()).await.unwrap();
    assert_ne!(by_index.resolved, truth.resolved, "this lie is believed by a plan");
    tokio::task::spawn_blocking(move || {
        let folder = user::tempdir();
        let to = folder.path().join("d");
        assert_ne!(std::fs::metadata(folder.path()).unwrap().uid(), 0);
        let time = DateTime::from_timestamp_micros(time).unwrap().to_rfc3339();
        let output =
            node.run(&["-o", "json", "restore", "orders", "--at", &time, "--to", to.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        assert!(said.contains("planned from the log alone"), "{said}");
        let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(plan["resolved"]["position"], truth.resolved.position.to_string(), "{said}");
        drop(server);
    })
    .await
    .unwrap();
}
