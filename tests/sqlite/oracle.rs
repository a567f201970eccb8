//! A database whose whole content is known after each transaction (`oracle.py` says how), and what is held against that.
//!
//! What always holds: nothing that farshore says decides whether a copy is right. Content is judged by statements that are run again, the place in the log by the journal's
//! plain bytes, soundness by the system's SQLite. What was gathered is judged at the end, at once, and all of it stays for whoever looks when something is wrong.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use farshore_engines::sqlite::compare::{Ignoring, Snapshot, compare};
use farshore_journal::format::Kind;
use farshore_journal::reader::Reader;
use farshore_journal::store::StoreError;
use farshore_journal::{JournalError, Offset, Sequence};
use farshore_testkit::process::wait_for;
use farshore_testkit::random::Random;
use farshore_testkit::soak::Campaign;
use farshore_testkit::user;
use serde_json::{Value, json};

use super::standby::{copy, status};
use super::{database, done, offset, script, text, unmade};
use crate::service::{Node, SOON, wait};

/// A process of the tests that is killed with its owner.
pub struct Beside {
    process: Child,
    complaints: PathBuf,
}

impl Beside {
    fn start(node: &Node, name: &str, out: Stdio, arguments: &[&str]) -> Self {
        let complaints = node.folder().join(format!("{name}-complaints"));
        let said = File::options().create(true).append(true).open(&complaints).unwrap();
        let process = script("oracle.py", arguments).stdin(Stdio::null()).stdout(out).stderr(said).spawn();
        Self { process: process.unwrap(), complaints }
    }

    /// Kills it. One that ended by itself has found something.
    pub fn kill(mut self) {
        let ended = self.process.try_wait().unwrap();
        let complaints = || std::fs::read_to_string(&self.complaints).unwrap_or_default();
        assert!(ended.is_none(), "it ended by itself: {ended:?}\n{}", complaints());
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A restored copy.
pub struct Restored {
    /// Its file.
    pub file: PathBuf,
    /// What the restore said of its target.
    pub resolved: Value,
}

/// What was found.
pub struct Verdict(Value);

impl Verdict {
    /// A count.
    pub fn count(&self, what: &str) -> u64 {
        self.0[what].as_u64().unwrap_or_else(|| panic!("{what}: {}", self.0))
    }

    /// Adds its counts to a campaign's: transactions that were committed and that were not, reads of a standby, and different states that were held against the oracle.
    pub fn add_to(&self, campaign: &mut Campaign) {
        for what in ["transactions", "uncommitted", "reads", "states"] {
            campaign.count(what, self.count(what));
        }
    }

    /// The transaction that what has this label holds.
    pub fn number(&self, label: &str) -> u64 {
        self.0["numbers"][label].as_u64().unwrap_or_else(|| panic!("{label}: {}", self.0))
    }
}

/// A node, its applications, and what was seen of them.
pub struct Story {
    pub node: Node,
    copies: Vec<Value>,
    looks: Vec<Value>,
    writers: Vec<u64>,
    restores: u64,
}

impl Story {
    /// Of a new database.
    pub fn begin(page_bytes: u32, auto_vacuum: u32) -> Self {
        let node = unmade();
        let (database, oracle) = (text(&database(&node)), text(&node.folder().join("oracle")));
        let numbers = (page_bytes.to_string(), auto_vacuum.to_string());
        let arguments = ["make", &database, &oracle, &numbers.0, &numbers.1];
        done(script("oracle.py", &arguments), &arguments);
        let (copies, looks, writers) = (Vec::new(), Vec::new(), Vec::new());
        Self { node, copies, looks, writers, restores: 0 }
    }

    /// A new database of a campaign's, whose pages and way of shrinking are by chance, and three writers; pages that are large are written more seldom.
    pub fn by_chance(random: &mut Random) -> (Self, [Beside; 3]) {
        let page_bytes = *random.pick(&[512u32, 4096, 4096, 65536]).unwrap();
        let auto_vacuum = *random.pick(&[0u32, 0, 1, 2]).unwrap();
        let mut story = Self::begin(page_bytes, auto_vacuum);
        let slower = if page_bytes == 65536 { 4 } else { 1 };
        let writers = [
            story.write(1, random, 60 / slower, "steady"),
            story.write(2, random, 30 / slower, "mixed"),
            story.write(3, random, 30 / slower, "mixed"),
        ];
        (story, writers)
    }

    /// Starts a writer.
    pub fn write(&mut self, number: u64, random: &mut Random, per_second: u64, kind: &str) -> Beside {
        if !self.writers.contains(&number) {
            self.writers.push(number);
        }
        let folder = self.node.folder();
        let says = File::options().create(true).append(true).open(self.acknowledged(number)).unwrap();
        let (database, oracle) = (text(&database(&self.node)), text(&folder.join("oracle")));
        let numbers = [number, random.below(1 << 40), 3600, per_second].map(|number| number.to_string());
        let [number, seed, seconds, rate] = &numbers;
        let arguments = ["write", &database, &oracle, number, seed, seconds, rate, kind];
        Beside::start(&self.node, &format!("writer-{number}"), says.into(), &arguments)
    }

    fn acknowledged(&self, writer: u64) -> PathBuf {
        self.node.folder().join(format!("writer-{writer}"))
    }

    /// Starts a reader of the standby's copy, which reads without an end.
    pub fn read(&self) -> Beside {
        let reads = self.node.folder().join("reads");
        Beside::start(
            &self.node,
            "reader",
            Stdio::null(),
            &["watch", &text(&copy(&self.node)), &text(&reads)],
        )
    }

    /// Restores an incarnation to a target. `asked` is what the copy must at least reach, as an offset; `at` the time that it must not be behind, in microseconds since 1970.
    pub fn restore(
        &mut self,
        incarnation: u64,
        target: &[&str],
        asked: Option<u64>,
        at: Option<i64>,
    ) -> Restored {
        self.restores += 1;
        let to = self.node.folder().join(format!("copy-{}", self.restores));
        let (number, place) = (incarnation.to_string(), text(&to));
        let fixed = ["restore", "orders", "--incarnation", &number, "--to", &place];
        let said = self.node.json(&[&fixed[..], target].concat());
        let resolved = said["resolved"].clone();
        let file = to.join("app.db");
        self.copies.push(json!({
            "label": self.label(),
            "file": text(&file),
            "incarnation": incarnation,
            "position": offset(&resolved["position"]),
            "asked": asked,
            "at": at,
            "target": target,
        }));
        Restored { file, resolved }
    }

    /// How the last restore is called.
    pub fn label(&self) -> String {
        format!("restore {}", self.restores)
    }

    /// Looks at the standby's copy while nobody keeps it up to date: at all that it holds, and page by page at what is restored to the same position.
    pub fn look_at_standby(&mut self) {
        let standing = status(&self.node).expect("there is one");
        assert_eq!(standing["running"], false);
        let incarnation = self.number_of(standing["incarnation"].as_str().unwrap());
        let position = offset(&standing["position"]);
        let arguments = ["look", &text(&copy(&self.node))];
        let said = done(script("oracle.py", &arguments), &arguments);
        self.looks.push(json!({
            "label": format!("look {} at the standby", self.looks.len() + 1),
            "said": said,
            "incarnation": incarnation,
            "position": position,
        }));
        let at = Offset::new(position).to_string();
        let restored = self.restore(incarnation, &["--pos", &at], Some(position), None);
        assert_eq!(offset(&restored.resolved["position"]), position);
        assert_same_pages(&restored.file, &copy(&self.node), Ignoring::LastWriter);
    }

    fn number_of(&self, incarnation: &str) -> u64 {
        let all = self.node.incarnations();
        let found = all.iter().find(|(record, _)| record.incarnation.to_string() == incarnation);
        found.unwrap_or_else(|| panic!("{incarnation} is none of {all:?}", all = all.len())).0.number
    }

    /// Whether the newest state that the store holds is the primary, every byte of it, and the standby's copy is, but for what SQLite says of its last writer.
    ///
    /// # Errors
    /// What is not the same (yet).
    pub fn newest_is_the_primary(&mut self) -> Result<(), String> {
        let (newest, reader) = self.node.incarnations().pop().unwrap();
        if self.node.bases_of(&reader).is_empty() || !copy(&self.node).exists() {
            return Err("there is no base yet, or no standby".to_owned());
        }
        let restored = self.restore(newest.number, &["--latest"], None, None);
        let primary = Snapshot::take(&database(&self.node)).unwrap();
        let against =
            |file: &Path, ignoring| compare(&primary, &Snapshot::take(file).unwrap(), ignoring).unwrap();
        let restored = against(&restored.file, Ignoring::Nothing);
        let kept = against(&copy(&self.node), Ignoring::LastWriter);
        match restored.is_same() && kept.is_same() {
            true => Ok(()),
            false => Err(format!("the newest copy: {restored}; the standby: {kept}")),
        }
    }

    /// Waits until it is; nobody writes any more. What the service says of its lag is not asked: after it was killed that is an old answer for a while. `meanwhile`
    /// is done before each look.
    pub fn wait_newest_is_the_primary(&mut self, mut meanwhile: impl FnMut(&mut Self)) {
        let mut last = String::new();
        let same = wait_for(SOON, || {
            meanwhile(self);
            self.newest_is_the_primary().map_err(|differs| last = differs).ok()
        });
        assert!(same.is_some(), "it does not become the primary: {last}\n{}", self.node.log());
    }

    /// Restores every incarnation at its begin, its end and at random positions, transactions and times, so many in all.
    pub fn restore_all(&mut self, random: &mut Random, in_all: u64) {
        let incarnations: Vec<(u64, u64, u64)> = self
            .node
            .incarnations()
            .into_iter()
            .filter_map(|(record, reader)| {
                // One that was left before its first base was taken holds nothing that can be restored to.
                let from = self.node.bases_of(&reader).iter().map(|base| base.end.offset.get()).min()?;
                Some((record.number, from, self.node.end_of(&reader).unwrap().offset.get()))
            })
            .collect();
        let of_each = in_all.div_ceil(incarnations.len() as u64);
        for (number, from, end) in incarnations {
            let position = |at: u64| Offset::new(at).to_string();
            let first = self.restore(number, &["--pos", &position(from)], Some(from), None).resolved;
            let last = self.restore(number, &["--pos", &position(end)], Some(end), None).resolved;
            let transactions = first["xid"].as_u64().zip(last["xid"].as_u64());
            let times = micros(&first["time"]).zip(micros(&last["time"]));
            // Nothing but its base, as where nobody writes any more.
            let of_each = if from == end { 2 } else { of_each };
            for _ in 2..of_each {
                match (random.below(4), transactions, times) {
                    (0, Some((begin, end)), _) if begin < end => {
                        let xid = (begin + 1 + random.below(end - begin)).to_string();
                        let resolved = self.restore(number, &["--xid", &xid], None, None).resolved;
                        assert_eq!(resolved["xid"].to_string(), xid);
                    }
                    (1, _, Some((begin, end))) if begin < end => {
                        let at = begin + random.below(end.abs_diff(begin)) as i64;
                        let time = chrono::DateTime::from_timestamp_micros(at).unwrap();
                        let time = time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
                        self.restore(number, &["--at", &time], None, Some(at));
                    }
                    _ => {
                        let at = from + random.below(end - from + 1);
                        self.restore(number, &["--pos", &position(at)], Some(at), None);
                    }
                }
            }
        }
    }

    /// Adds a copy that was made elsewhere, as the specification of `oracle.py` has it.
    pub fn add_copy(&mut self, copy: Value) {
        self.copies.push(copy);
    }

    /// Takes the last copy out again.
    pub fn forget_copy(&mut self) {
        self.copies.pop();
    }

    /// Judges all that was seen.
    pub fn judge(self) -> Verdict {
        let mut logs = serde_json::Map::new();
        for (record, reader) in self.node.incarnations() {
            let file = self.node.folder().join(format!("log-{}", record.number));
            let start = wait(write_log(&reader, &file));
            logs.insert(record.number.to_string(), json!({ "file": text(&file), "start": start }));
        }
        let found = self.found(logs.into());
        if found["wrong"] != json!([]) {
            let (folder, log) = (self.node.folder().to_owned(), self.node.log());
            // What it was judged by is needed to find out why.
            std::mem::forget(self);
            panic!("in {}: {:#}\n{log}", folder.display(), found["wrong"]);
        }
        Verdict(found)
    }

    /// What `oracle.py` finds, given the plain bytes of the journals.
    pub fn found(&self, logs: Value) -> Value {
        let folder = self.node.folder();
        let acknowledged: Vec<String> =
            self.writers.iter().map(|number| text(&self.acknowledged(*number))).collect();
        let specification = json!({
            "oracle": text(&folder.join("oracle")),
            "primary": text(&database(&self.node)),
            "acknowledged": acknowledged,
            "copies": self.copies,
            "looks": self.looks,
            "reads": [text(&folder.join("reads"))],
            "logs": logs,
        });
        let path = folder.join("specification");
        std::fs::write(&path, specification.to_string()).unwrap();
        user::give(folder);
        let arguments = ["judge", &text(&path)];
        done(script("oracle.py", &arguments), &arguments)
    }

    /// How many copies were restored.
    pub fn restores(&self) -> u64 {
        self.restores
    }

    /// How often the standby's copy was looked at while it stood.
    pub fn looks(&self) -> u64 {
        self.looks.len() as u64
    }
}

/// Page by page.
pub fn assert_same_pages(one: &Path, other: &Path, ignoring: Ignoring) {
    let found = compare(&Snapshot::take(one).unwrap(), &Snapshot::take(other).unwrap(), ignoring).unwrap();
    assert!(found.is_same(), "{} and {}: {found}", one.display(), other.display());
}

fn micros(time: &Value) -> Option<i64> {
    let time = chrono::DateTime::parse_from_rfc3339(time.as_str()?).unwrap();
    Some(time.timestamp_micros())
}

/// Writes a journal's plain bytes to a file, which begins with the log's byte that is given back.
async fn write_log(reader: &Reader, path: &Path) -> u64 {
    let (file, mut start) = (File::create(path).unwrap(), None);
    for number in 0.. {
        let chunk = match reader.chunk(Sequence::new(number)).await {
            Ok(chunk) => chunk,
            Err(JournalError::Store(StoreError::NotFound { .. })) => break,
            Err(why) => panic!("chunk {number}: {why}"),
        };
        let header = chunk.header();
        if header.kind == Kind::Data {
            let start = *start.get_or_insert(header.start.get());
            file.write_all_at(&chunk.plain_all(None).unwrap(), header.start.get() - start).unwrap();
        }
    }
    start.unwrap_or(0)
}
