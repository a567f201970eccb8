//! The promise: no object of a store can be changed without `verify` naming it, and nothing that was changed is restored
//! without a word.
//!
//! Chronicles are no part of it: nothing is restored from them, and it is `activity verify` and `exposure verify` that name what was changed there
//! (`tests/chronicles.rs`).
//!
//! Method: a store that the service itself wrote, in the clear and encrypted, for two databases. One object is changed on disk,
//! `verify` and a restore are run on it, and the object is put back. A restore either fails before there is a control file,
//! without which PostgreSQL starts nothing, or gives, byte for byte, the files that it gave from the untouched store.
//!
//! `soak_changed_objects` does so for as long as it is given. The journals are signed to their ends by a clean stop, and the newest
//! head of each is known outside its store, as the catalog knows it: so the last chunk gone is found like any other. What cannot be
//! found is counted apart: chunks newer than the newest head gone (there are none here), and a head gone that a newer one supersedes. So
//! is what needs no finding: one of two copies gone (a chunk that also stands in a segment), or an index, which says nothing that the
//! log does not.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message
#![allow(clippy::print_stdout)] // what was counted is read in the output

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use age::secrecy::ExposeSecret;
use farshore::config::{Config, StoreName, load};
use farshore::sources;
use farshore_applier::heads::{KnownHeads, doubts};
use farshore_applier::plan::{Asked, Plan, resolve};
use farshore_applier::restore::{self, RestoreOptions};
use farshore_applier::source::Source;
use farshore_applier::verify::verify;
use farshore_journal::format::{Digest, SigningKey, VerifyKeys};
use farshore_journal::{BackupId, DatabaseName, Sequence, heads};
use farshore_testkit::pg::{Major, Server};
use farshore_testkit::random::Random;
use farshore_testkit::soak::Campaign;
use support::{Service, text};
use tempfile::TempDir;

/// What an object is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    StoreRecord,
    IncarnationRecord,
    Chunk,
    Segment,
    Head,
    Index,
    BackupOpening,
    Part,
    Sums,
    Manifest,
}

const CLASSES: [Class; 10] = [
    Class::StoreRecord,
    Class::IncarnationRecord,
    Class::Chunk,
    Class::Segment,
    Class::Head,
    Class::Index,
    Class::BackupOpening,
    Class::Part,
    Class::Sums,
    Class::Manifest,
];

impl Class {
    fn of(name: &str) -> Self {
        let last = name.rsplit('/').next().unwrap();
        match last {
            "farshore.store" => Self::StoreRecord,
            "opening" => Self::BackupOpening,
            "manifest" => Self::Manifest,
            _ if last.starts_with("part-") => Self::Part,
            _ if last == "table" || last.starts_with("sums-") => Self::Sums,
            _ if name.contains("/incarnations/") => Self::IncarnationRecord,
            _ if name.contains("/journal/") => Self::Chunk,
            _ if name.contains("/segments/") => Self::Segment,
            _ if name.contains("/heads/") => Self::Head,
            _ if name.contains("/index/") => Self::Index,
            _ => panic!("what is {name}?"),
        }
    }
}

/// How an object is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// One bit.
    Flipped,
    /// Its end is missing.
    Cut,
    /// Bytes behind its end.
    Extended,
    /// A run of its bytes is zeros.
    Blanked,
    /// Another object of its kind, of the same database, trades places with it.
    Swapped,
    /// An older object of its kind stands in its place.
    Older,
    /// The object of the same name, or kind, of another store or database stands in its place.
    Foreign,
    /// No bytes.
    Emptied,
    /// No object.
    Deleted,
}

const WAYS: [(How, &str); 9] = [
    (How::Flipped, "flipped"),
    (How::Cut, "cut"),
    (How::Extended, "extended"),
    (How::Blanked, "blanked"),
    (How::Swapped, "swapped"),
    (How::Older, "older"),
    (How::Foreign, "foreign"),
    (How::Emptied, "emptied"),
    (How::Deleted, "deleted"),
];

/// One database in one store, undamaged.
struct Journal {
    store: &'static str,
    database: &'static str,
    /// Its objects and the store's record, by name.
    objects: BTreeMap<String, Class>,
    last_chunk: String,
    newest_head: String,
    goals: Vec<Goal>,
    /// What is known outside the store: the newest head, and whose signature counts.
    known: KnownHeads,
}

/// A target, the plans that reach it from each backup that can, newest first, and what they restore.
struct Goal {
    asked: Asked,
    plans: Vec<(Plan, Files)>,
}

struct Story {
    service: Service,
    config: Config,
    journals: Vec<Journal>,
    place: TempDir,
    _server: Server,
}

const BOTH: [(&str, &str); 3] = [("clear", "db"), ("sealed", "db"), ("clear", "other")];

impl Story {
    async fn told() -> Self {
        let server = Server::builder(Major::V15).conf("wal_keep_size = '1GB'").start();
        let identity = age::x25519::Identity::generate();
        let (signing, file) = SigningKey::mint().unwrap();
        let (url, bin) = (server.url(), Major::V15.bin().display().to_string());
        let mut service = Service::configured(Major::V15, |home| {
            std::fs::write(home.join("identity"), identity.to_string().expose_secret()).unwrap();
            std::fs::write(home.join("signing.pem"), file).unwrap();
            // A store's directory is made by hand: a missing one may be a mount that is away.
            for store in ["clear", "sealed"] {
                std::fs::create_dir(home.join(store)).unwrap();
            }
            let home = home.display();
            let database = |name: &str, stores: &str| {
                format!(
                    "[databases.{name}]\nengine = \"postgres\"\nurl = \"{url}\"\nstores = [{stores}]\n\
                     bin_dir = \"{bin}\"\nflush_interval = \"200ms\"\nmerge_at = \"1MiB\"\n\
                     signing_key = \"signing.pem\"\nverify_keys = [\"{}\"]\n",
                    signing.public()
                )
            };
            format!(
                "[catalog]\nurl = \"sqlite:{home}/catalog.db\"\n\
                 [stores.clear]\nurl = \"file://{home}/clear\"\n\
                 [stores.sealed]\nurl = \"file://{home}/sealed\"\nrecipients = [\"{}\"]\nidentity_file = \"{home}/identity\"\n\
                 {}{}[service]\nlisten = \"127.0.0.1:0\"\nsocket = \"{home}/service.sock\"\n",
                identity.to_public(),
                database("db", "\"clear\", \"sealed\""),
                database("other", "\"clear\""),
            )
        });
        server.sql("create table t (n int, text text)");
        // Twice, so that the journal has two openings and the second run older generations behind it.
        let mut wanted = Vec::new();
        for round in 1..=2 {
            service.start();
            service.wait_complete("db", round * 2);
            service.wait_complete("other", round);
            // Several flush intervals, and so several chunks.
            for _ in 0..14 {
                server.sql("insert into t select n, md5(n::text) from generate_series(1, 1200) as n");
                support::let_pass(Duration::from_millis(250));
            }
            wanted.push(server.sql("select pg_current_wal_flush_lsn()"));
            for database in ["db", "other"] {
                service.wait_stored_of(database, wanted.last().unwrap());
                if round == 1 {
                    service.json(&["backup", "run", database]);
                }
            }
            service.stop();
        }
        let config = load(&service.home().join("farshore.toml"), &farshore::config::process_environment());
        let config = config.unwrap_or_else(|_| panic!("the configuration loads"));
        let mut story =
            Self { service, config, journals: Vec::new(), place: fast_tempdir(), _server: server };
        story.tidy("clear", "db");
        for (store, database) in BOTH {
            let journal = story.look(store, database, &wanted).await;
            story.journals.push(journal);
        }
        story
    }

    fn root(&self, store: &str) -> PathBuf {
        self.service.home().join(store)
    }

    /// Deletes what `tidy` may: data chunks that stand in a segment, before the newest opening. In the other journals each chunk in a
    /// segment stands there twice.
    fn tidy(&self, store: &str, database: &str) {
        let root = self.root(store).join("db").join(database);
        let all = files(&root);
        let chunks: Vec<(Sequence, &PathBuf)> = all
            .iter()
            .filter(|path| path.to_str().unwrap().contains("/journal/"))
            .map(|path| (path.file_name().unwrap().to_str().unwrap().parse().unwrap(), path))
            .collect();
        // Source: FORMAT.md section 2, byte 10 is the kind: 1 opening, 2 data.
        let kind = |path: &Path| std::fs::read(path).unwrap()[10];
        let opened =
            chunks.iter().filter(|(_, path)| kind(path) == 1).map(|(number, _)| *number).max().unwrap();
        let mut freed = 0;
        for path in all.iter().filter(|path| path.to_str().unwrap().contains("/segments/")) {
            let (first, last) = run(path.file_name().unwrap().to_str().unwrap());
            for (number, chunk) in &chunks {
                if (first..=last).contains(number) && *number < opened && chunk.exists() && kind(chunk) == 2 {
                    std::fs::remove_file(chunk).unwrap();
                    freed += 1;
                }
            }
        }
        assert!(freed > 0, "nothing was merged: {all:?}\n{}", self.service.log());
    }

    async fn sources(&self, journal: &Journal) -> anyhow::Result<Vec<Source>> {
        let name: DatabaseName = journal.database.parse().unwrap();
        let store: StoreName = journal.store.parse().unwrap();
        sources::all(&self.config, &name, &store).await
    }

    /// What an undamaged journal holds, and what its restores give.
    async fn look(&self, store: &'static str, database: &'static str, wanted: &[String]) -> Journal {
        let root = self.root(store);
        let mut objects = BTreeMap::new();
        for path in files(&root) {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            let chronicle =
                ["activity", "exposure"].iter().any(|it| name.starts_with(&format!("db/{database}/{it}/")));
            if name == "farshore.store" || name.starts_with(&format!("db/{database}/")) && !chronicle {
                let class = Class::of(&name);
                objects.insert(name, class);
            }
        }
        let last_of = |wanted: Class| {
            let mut of_class = objects.iter().filter(|(_, class)| **class == wanted);
            of_class.next_back().map(|(name, _)| name.clone())
        };
        let (last_chunk, newest_head) = (last_of(Class::Chunk).unwrap(), last_of(Class::Head).unwrap());
        let known = KnownHeads::default();
        let mut journal =
            Journal { store, database, objects, last_chunk, newest_head, goals: Vec::new(), known };
        let source = self.sources(&journal).await.unwrap().pop().unwrap();
        let name: DatabaseName = database.parse().unwrap();
        let pinned = self.config.databases[&name].verify_keys.clone();
        let newest =
            heads::newest(source.reader(), &pinned, &VerifyKeys::default()).await.unwrap().head.unwrap();
        journal.known =
            KnownHeads { pinned, outside: vec![newest], outside_read: true, ..KnownHeads::default() };
        assert_eq!(
            number(&journal.newest_head),
            number(&journal.last_chunk),
            "{store} {database} is signed to its end"
        );
        let found = self.verify(&journal).await;
        assert!(found.is_empty(), "{store} {database} is sound: {found:?}");
        let positions = wanted.iter().map(|position| Asked::Position(position.parse().unwrap()));
        for asked in positions.chain([Asked::Latest]) {
            let mut plans: Vec<(Plan, Files)> = Vec::new();
            let mut aside = Vec::new();
            // The same target from the newest backup, and from each older one, as if the newer ones were not there.
            while let Ok(plan) = resolve(&source, asked.clone()).await {
                let restored = self.restore(&source, &plan).await.unwrap();
                let manifest = journal.object(&format!("backups/{}/manifest", plan.base.id));
                let path = root.join(&manifest);
                aside.push((path.clone(), std::fs::read(&path).unwrap()));
                std::fs::remove_file(&path).unwrap();
                plans.push((plan, restored));
            }
            for (path, bytes) in aside {
                std::fs::write(path, bytes).unwrap();
            }
            assert!(!plans.is_empty(), "{asked} cannot be reached");
            journal.goals.push(Goal { asked, plans });
        }
        let bases: Vec<usize> = journal.goals.iter().map(|goal| goal.plans.len()).collect();
        assert_eq!(bases, [1, 2, 2], "targets before and behind the second backup");
        journal
    }

    /// What `verify` finds, as texts that name objects.
    async fn verify(&self, journal: &Journal) -> Vec<String> {
        let sources = match self.sources(journal).await {
            Ok(sources) => sources,
            Err(why) => return vec![why.to_string()],
        };
        let mut said = Vec::new();
        for source in sources {
            match verify(&source, &journal.known, &|_, _| {}).await {
                Ok(found) => {
                    said.extend(found.bad.iter().map(|bad| format!("{}: {}", bad.object, bad.what)));
                    said.extend(
                        found.unfinished_backups.iter().map(|id| format!("backup {id} is unfinished")),
                    );
                }
                Err(why) => said.push(why.to_string()),
            }
        }
        said
    }

    /// Restores, without starting it; the digest of all that was written. A failed one must have left nothing that starts.
    async fn restore(&self, source: &Source, plan: &Plan) -> Result<Files, String> {
        let directory = self.place.path().join("r");
        let options = RestoreOptions {
            directory: directory.clone(),
            tablespaces: BTreeMap::new(),
            resume: false,
            port: 5432,
            shared_buffers_limit: 16 << 20,
            preload: Vec::new(),
            follow: None,
            start: None,
        };
        let done = restore::run(source, plan, &options, Arc::new(|_| {})).await;
        let outcome = match done {
            Ok(_) => Ok(digests(&directory)),
            Err(why) => {
                let control = directory.join("global/pg_control");
                assert!(!control.exists(), "{why}, and the copy could be started");
                Err(why.to_string())
            }
        };
        if directory.exists() {
            std::fs::remove_dir_all(&directory).unwrap();
        }
        outcome
    }
}

/// A plan as the command makes it: the latest state is not what is left of a journal whose end is gone.
async fn planned(journal: &Journal, source: &Source, asked: &Asked) -> Result<Plan, String> {
    if *asked == Asked::Latest {
        match doubts(source, &journal.known).await {
            Ok(found) if found.is_empty() => {}
            Ok(found) => return Err(format!("{found:?}")),
            Err(why) => return Err(why.to_string()),
        }
    }
    resolve(source, asked.clone()).await.map_err(|why| why.to_string())
}

/// The number at the end of a name.
fn number(name: &str) -> Sequence {
    name.rsplit('/').next().unwrap().parse().unwrap()
}

/// The chunks that a segment's name says it holds.
fn run(name: &str) -> (Sequence, Sequence) {
    let mut fields = name.rsplit('-').map(|field| field.parse().unwrap());
    let last = fields.next().unwrap();
    (fields.next().unwrap(), last)
}

impl Journal {
    /// Whether what an object holds stands in the store a second time: without the object nothing is missing.
    fn is_twice(&self, name: &str) -> bool {
        let last_name = name.rsplit('/').next().unwrap();
        match self.objects[name] {
            Class::Chunk => {
                let number: Sequence = last_name.parse().unwrap();
                let segments = self.of_class(Class::Segment);
                segments.iter().any(|segment| {
                    let (first, last) = run(segment.rsplit('/').next().unwrap());
                    (first..=last).contains(&number)
                })
            }
            Class::Segment => {
                let (first, last) = run(last_name);
                let there = |number| {
                    self.objects.contains_key(&self.object(&format!("journal/{}", Sequence::new(number))))
                };
                (first.get()..=last.get()).all(there)
            }
            // What an index says, the log says.
            Class::Index => true,
            _ => false,
        }
    }

    /// A name below the incarnation's.
    fn object(&self, rest: &str) -> String {
        let folder = self.last_chunk.split("/journal/").next().unwrap();
        format!("{folder}/{rest}")
    }

    fn of_class(&self, class: Class) -> Vec<&String> {
        self.objects.iter().filter(|(_, is)| **is == class).map(|(name, _)| name).collect()
    }
}

/// A place for restores that are only compared: in memory where there is such a place, since each synchronises a thousand files.
fn fast_tempdir() -> TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::tempdir_in(place).unwrap()
}

/// All files below a folder but those that a store has in hand.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true if path.file_name().unwrap() == ".tmp" => {}
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// A digest of each file of a restore, by its name. Its marker is left out: it repeats the plan, which is compared by itself.
type Files = BTreeMap<PathBuf, Digest>;

fn digests(folder: &Path) -> Files {
    let digest = |path: PathBuf| {
        let digest = Digest::of(&std::fs::read(&path).unwrap());
        (path.strip_prefix(folder).unwrap().to_owned(), digest)
    };
    files(folder).into_iter().map(digest).filter(|(name, _)| name != Path::new(restore::MARKER)).collect()
}

/// The files in which two folders differ.
fn differing<'a>(one: &'a Files, other: &'a Files) -> Vec<&'a Path> {
    let names = one.keys().chain(other.keys()).filter(|name| one.get(*name) != other.get(*name));
    names.map(PathBuf::as_path).collect()
}

/// Objects as they were; put back on drop, so that a failed check leaves a store that can be looked at.
struct Changed {
    were: Vec<(PathBuf, Vec<u8>)>,
}

impl Changed {
    fn put(path: &Path, bytes: Option<&[u8]>) {
        // The store itself never writes into an object; its files may be read-only or linked.
        std::fs::remove_file(path).unwrap();
        if let Some(bytes) = bytes {
            std::fs::write(path, bytes).unwrap();
        }
    }

    fn back(self) {
        for (path, bytes) in &self.were {
            if path.exists() {
                std::fs::remove_file(path).unwrap();
            }
            std::fs::write(path, bytes).unwrap();
        }
    }
}

/// Changes one object; `None` where that way makes no other bytes of this object.
fn change(story: &Story, journal: &Journal, name: &str, how: How, random: &mut Random) -> Option<Changed> {
    let root = story.root(journal.store);
    let path = root.join(name);
    let bytes = std::fs::read(&path).unwrap();
    let class = journal.objects[name];
    let length = bytes.len() as u64;
    let at = |random: &mut Random, limit: u64| usize::try_from(random.below(limit)).unwrap();
    let mut other: Option<(PathBuf, Vec<u8>)> = None;
    let now = match how {
        How::Flipped => {
            let mut now = bytes.clone();
            // Headers and trailers are a small part of an object, and half of what can go wrong.
            let place = match random.below(3) {
                0 => at(random, length.min(256)),
                1 => bytes.len() - 1 - at(random, length.min(48)),
                _ => at(random, length),
            };
            now[place] ^= 1 << random.below(8);
            Some(now)
        }
        How::Cut => Some(bytes[..at(random, length)].to_vec()),
        How::Extended => {
            let mut now = bytes.clone();
            let more = 1 + random.below(300);
            now.extend((0..more).map(|_| u8::try_from(random.below(256)).unwrap()));
            Some(now)
        }
        How::Blanked => {
            let mut now = bytes.clone();
            let from = at(random, length);
            let until = (from + 1 + at(random, 4096)).min(bytes.len());
            now[from..until].fill(0);
            Some(now)
        }
        How::Swapped => {
            let others: Vec<&String> =
                journal.of_class(class).into_iter().filter(|other| *other != name).collect();
            let path = root.join(random.pick(&others)?);
            let theirs = std::fs::read(&path).unwrap();
            other = Some((path, theirs.clone()));
            Some(theirs)
        }
        How::Older => {
            let older: Vec<&String> =
                journal.of_class(class).into_iter().take_while(|other| *other != name).collect();
            Some(std::fs::read(root.join(random.pick(&older)?)).unwrap())
        }
        How::Foreign => {
            let elsewhere: Vec<&Journal> = story
                .journals
                .iter()
                .filter(|other| (other.store, other.database) != (journal.store, journal.database))
                .filter(|other| class != Class::StoreRecord || other.store != journal.store)
                .collect();
            let there = random.pick(&elsewhere)?;
            let same_number: Vec<&String> = there
                .of_class(class)
                .into_iter()
                .filter(|theirs| theirs.rsplit('/').next() == name.rsplit('/').next())
                .collect();
            let theirs = random.pick(&same_number)?;
            Some(std::fs::read(story.root(there.store).join(theirs)).unwrap())
        }
        How::Emptied => Some(Vec::new()),
        How::Deleted => None,
    };
    if now.as_ref() == Some(&bytes) {
        return None;
    }
    let mut were = vec![(path.clone(), bytes.clone())];
    Changed::put(&path, now.as_deref());
    if let Some((other, theirs)) = other {
        Changed::put(&other, Some(&bytes));
        were.push((other, theirs));
    }
    Some(Changed { were })
}

/// Whether a finding names an object: by its name, its backup, or its number.
fn names(said: &str, name: &str, class: Class) -> bool {
    if said.contains(name) {
        return true;
    }
    match class {
        // Whose record is wrong cannot be told where two contradict each other.
        Class::StoreRecord => said.contains("/incarnations/") && said.contains("store id"),
        Class::Chunk => {
            let number: Sequence = name.rsplit('/').next().unwrap().parse().unwrap();
            said.contains(&format!("chunk {number} "))
        }
        // What a lost segment held is missing by number.
        Class::Segment => {
            let (first, last) = run(name.rsplit('/').next().unwrap());
            let folder = name.split("/segments/").next().unwrap();
            let missing = |number| {
                let number = Sequence::new(number);
                said.contains(&format!("{folder}/journal/{number}"))
                    || said.contains(&format!("chunk {number} "))
            };
            (first.get()..=last.get()).any(missing)
        }
        Class::BackupOpening | Class::Manifest => {
            let id = name.rsplit('/').nth(1).unwrap();
            id.parse::<BackupId>().is_ok() && said.contains(id)
        }
        // The newest one lost leaves no hole, only objects that nobody names.
        Class::IncarnationRecord => {
            let database = name.split('/').nth(1).unwrap();
            said.contains(&format!("no incarnation record names `db/{database}/"))
        }
        Class::Part | Class::Sums | Class::Head | Class::Index => false,
    }
}

/// What became of one changed object.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Verify named it; the restore refused it.
    Refused,
    /// Verify named it; the restore did not need it and gave exactly what it must.
    NotNeeded,
    /// The object was deleted, and what it held stands there once more: nothing is missing.
    CopyGone,
    /// The journal's end is gone beyond its newest head: found by whoever asks for what was there, and by nobody else.
    EndCut,
    /// A head was deleted that a newer one supersedes, as `tidy` deletes them.
    HeadGone,
}

async fn try_one(
    story: &Story,
    journal: &Journal,
    name: &str,
    how: How,
    random: &mut Random,
) -> Option<Outcome> {
    let class = journal.objects[name];
    let changed = change(story, journal, name, how, random)?;
    let context = format!("{name} of {} {how:?}", journal.store);
    let found = story.verify(journal).await;
    let signed_to = number(&journal.newest_head);
    let at_end = how == How::Deleted && name == journal.last_chunk && !journal.is_twice(name);
    let end_cut = at_end && number(name) > signed_to;
    let copy_gone = how == How::Deleted && !at_end && journal.is_twice(name);
    let head_gone = how == How::Deleted && class == Class::Head && name != journal.newest_head;
    if end_cut || head_gone {
        // An index that was not cut with the end speaks of it.
        let by_index = end_cut && found.iter().all(|said| said.contains("/index/"));
        assert!(found.is_empty() || by_index, "{context}: known not to be found, yet {found:?}");
    } else if !copy_gone {
        assert!(
            found.iter().any(|said| names(said, name, class)),
            "{context}: verify names it not: {found:?}"
        );
    }
    let goal = random.pick(&journal.goals).unwrap();
    // A plan that was made before the change is run on what is there now, and a new one is made.
    let old_plan = random.below(2) == 0;
    let restored = match story.sources(journal).await.map(|mut sources| sources.pop()) {
        Ok(Some(source)) => match old_plan {
            true => {
                let (plan, wanted) = &goal.plans[0];
                story.restore(&source, plan).await.map(|got| (plan.clone(), got, vec![wanted]))
            }
            false => match planned(journal, &source, &goal.asked).await {
                Ok(plan) => {
                    // Whatever led to it: a bad index makes the log itself be asked.
                    let alike = |plan: &Plan| Plan { rests_on_index: false, ..plan.clone() };
                    let same = |(known, _): &&(Plan, Files)| alike(known) == alike(&plan);
                    let wanted = goal.plans.iter().filter(same).map(|(_, wanted)| wanted).collect();
                    story.restore(&source, &plan).await.map(|got| (plan, got, wanted))
                }
                Err(why) => Err(why),
            },
        },
        Ok(None) => Err("nothing is stored".to_owned()),
        Err(why) => Err(why.to_string()),
    };
    let outcome = match restored {
        Err(_) if end_cut => Outcome::EndCut,
        Err(why) if copy_gone || head_gone => panic!("{context}: nothing is missing, yet {why}"),
        Err(_) => Outcome::Refused,
        Ok((plan, _, _)) if end_cut && goal.asked == Asked::Latest => {
            assert!(plan.resolved.position < goal.plans[0].0.resolved.position, "{context}");
            Outcome::EndCut
        }
        Ok((plan, got, wanted)) => {
            let exact = wanted.contains(&&got);
            assert!(
                exact,
                "{context}: restored to {} as if nothing were wrong; {}; {plan:?}",
                goal.asked,
                match wanted.first() {
                    None => format!(
                        "its plan is none of {:?}",
                        goal.plans.iter().map(|(plan, _)| plan).collect::<Vec<_>>()
                    ),
                    Some(wanted) => format!("these differ: {:?}", differing(wanted, &got)),
                }
            );
            let latest = goal.asked == Asked::Latest && !old_plan;
            assert!(!at_end || end_cut || !latest, "{context}: what is left is no latest state");
            match (end_cut, copy_gone, head_gone) {
                (true, _, _) => Outcome::EndCut,
                (_, true, _) => Outcome::CopyGone,
                (_, _, true) => Outcome::HeadGone,
                _ => Outcome::NotNeeded,
            }
        }
    };
    changed.back();
    Some(outcome)
}

/// A class first, so that the few records are tried as often as the many chunks.
fn one_object<'a>(journal: &'a Journal, random: &mut Random) -> &'a str {
    let there: Vec<Vec<&String>> =
        CLASSES.iter().map(|class| journal.of_class(*class)).filter(|names| !names.is_empty()).collect();
    let names = random.pick(&there).unwrap();
    random.pick(names).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn soak_changed_objects() {
    let mut campaign = Campaign::start("changed_objects");
    let story = Story::told().await;
    // A brief run too has to have tried each way on each journal more than once.
    let mut tried = 0;
    while campaign.next_round() || tried < 60 {
        // The end itself each time: chance picks it seldom.
        for journal in story.journals.iter().filter(|journal| !journal.is_twice(&journal.last_chunk)) {
            let random = &mut campaign.random;
            let outcome = try_one(&story, journal, &journal.last_chunk, How::Deleted, random).await;
            let seen = matches!(outcome, Some(Outcome::Refused | Outcome::NotNeeded));
            assert!(
                seen,
                "{}: the last chunk is signed, and its loss not seen: {outcome:?}",
                journal.last_chunk
            );
            campaign.count("ends_cut", 1);
        }
        // One of each way in every round, so that a brief run has tried them all.
        for (how, counted) in WAYS {
            for journal in &story.journals {
                let random = &mut campaign.random;
                let name = one_object(journal, random);
                let Some(outcome) = try_one(&story, journal, name, how, random).await else { continue };
                match outcome {
                    Outcome::EndCut => campaign.count("ends_cut_not_seen", 1),
                    Outcome::CopyGone => campaign.count("second_copies_deleted", 1),
                    Outcome::HeadGone => campaign.count("heads_missed", 1),
                    Outcome::Refused => campaign.count("restores_refused", 1),
                    Outcome::NotNeeded => campaign.count("restores_exact", 1),
                }
                tried += 1;
                if !matches!(outcome, Outcome::EndCut | Outcome::CopyGone | Outcome::HeadGone) {
                    if how == How::Deleted && name == journal.last_chunk {
                        campaign.count("ends_cut", 1);
                    }
                    campaign.count("changed", 1);
                    campaign.count(counted, 1);
                }
            }
        }
    }
    campaign.finish();
}

/// Each kind of object once, by the command itself: what it prints and how it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_object_of_any_kind_is_named_by_the_commands_and_ends_them_with_a_failure() {
    let story = Story::told().await;
    let mut random = Random::new(1);
    let journal = &story.journals[0];
    for class in CLASSES {
        for how in [How::Flipped, How::Deleted] {
            let names_of = journal.of_class(class);
            // The newest one that later ones depend on, and that stands there once.
            let alone = |name: &&&String| class == Class::Index || !journal.is_twice(name);
            let once: Vec<&&String> = names_of.iter().filter(alone).collect();
            // Nothing rests on an index: one that is missing is no finding.
            if class == Class::Index && how == How::Deleted {
                continue;
            }
            let name = match class {
                // The one that the catalog knows.
                Class::Head => *once.last().unwrap(),
                _ => once[once.len().saturating_sub(2)],
            };
            let changed = change(&story, journal, name, how, &mut random).unwrap();
            let done = story.service.ask(&["verify", "db", "-o", "json"]);
            let said = text(&done.stdout) + &text(&done.stderr);
            println!("{class:?} {how:?}: {:?} {}", done.status.code(), text(&done.stderr));
            // A backup without its manifest may be one that was cut off: it is named, and no failure.
            let cut_off = class == Class::Manifest && how == How::Deleted;
            assert!(cut_off || !done.status.success(), "{class:?} {how:?}: verify ended well: {said}");
            assert!(
                said.lines().any(|line| names(line, name, class)),
                "{class:?} {how:?} is not named: {said}"
            );
            let to = story.place.path().join("by-command");
            let done = story.service.ask(&["restore", "db", "--latest", "--to", to.to_str().unwrap()]);
            assert!(done.status.success() || !to.join("global/pg_control").exists(), "{done:?}");
            changed.back();
        }
    }
}
