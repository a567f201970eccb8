//! The real service over a real server and store, for tests that stop, freeze and starve it.
//!
//! What always holds: the journal is judged by what lies in the store, read through the format's own reader and compared with
//! the servers' log files, never by what the service says of itself. A service that a test started ends with it.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message
#![allow(dead_code)] // each test binary uses a part of it

pub mod lost_log;
pub mod proxy;

pub use farshore_testkit::process::let_pass;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use farshore_journal::backup::Range;
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::format::{Header, Kind, SigningKey};
use farshore_journal::reader::{Reader, follows};
use farshore_journal::registry::Repository;
use farshore_journal::store::{self, ObjectStore, StoreError, StoreOptions};
use farshore_journal::{JournalError, Offset, Position, Sequence};
use farshore_testkit::pg::{Builder, Major, Server};
use farshore_testkit::process::{Owned, wait_for};
use farshore_testkit::stores::Moto;
use farshore_testkit::user;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// Bytes of a log segment of the tests' servers.
pub const SEGMENT: u64 = 16 << 20;
/// For anything that should take seconds, on a machine that does much else.
pub const SOON: Duration = Duration::from_secs(90);

/// A test's count from the environment, or the small one of a normal run.
pub fn count(variable: &str, normally: u64) -> u64 {
    std::env::var(variable).map_or(normally, |text| text.parse().expect("a whole number"))
}

/// A server that keeps all its log, so that every shipped byte can be compared with its files.
pub fn keeping() -> Builder {
    Server::builder(Major::V15).conf("wal_keep_size = 8GB").conf("checkpoint_timeout = 30min")
}

/// Where the journal lies.
enum Store {
    /// A folder beside the configuration.
    File,
    /// An S3 server, reached at an endpoint.
    S3 { endpoint: String, bucket: String },
}

/// A configuration, its catalog and, unless it is S3, its store: what one node has.
pub struct Node {
    folder: TempDir,
    binary: PathBuf,
    store: Arc<dyn ObjectStore>,
}

impl Node {
    /// A node that ships `servers`, one database, into a folder of its own.
    pub fn new(servers: &[&Server]) -> Self {
        Self::with(servers, &Store::File, None)
    }

    /// A second node with a catalog of its own and the same store.
    pub fn beside(&self, servers: &[&Server]) -> Self {
        Self::with(servers, &Store::File, Some(self.folder.path()))
    }

    /// A node that ships into an S3 store. What is stored is read from the server itself, past the endpoint.
    pub fn on_s3(servers: &[&Server], moto: &Moto, endpoint: &str) -> Self {
        let mut node = Self::with(
            servers,
            &Store::S3 { endpoint: endpoint.to_owned(), bucket: moto.bucket().to_owned() },
            None,
        );
        let options = StoreOptions::new()
            .with("endpoint", moto.endpoint())
            .with("allow_http", "true")
            .with("region", moto.region())
            .with("access_key_id", moto.access_key())
            .with("secret_access_key", moto.secret_key());
        node.store = store::open(&format!("s3://{}/j", moto.bucket()), &options).unwrap();
        node
    }

    /// A node of this configuration, given its folder. What is read of a store here is the folder `journal`.
    pub fn configured(text: impl FnOnce(&Path) -> String) -> Self {
        let folder = user::tempdir();
        let place = folder.path().join("journal");
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(folder.path().join("farshore.toml"), text(folder.path())).unwrap();
        user::give(folder.path());
        let store = store::open(&format!("file:{}", place.display()), &StoreOptions::new()).unwrap();
        Self { folder, binary: farshore_testkit::farshore_bin(env!("CARGO_BIN_EXE_farshore")), store }
    }

    /// A second node with a catalog of its own and the same store, of the same database whatever its engine.
    pub fn twin(&self) -> Self {
        let text = std::fs::read_to_string(self.folder.path().join("farshore.toml")).unwrap();
        let twin = Self::configured(|_| text);
        Self { store: Arc::clone(&self.store), ..twin }
    }

    /// Starts a verb that runs beside others, with what it says going to a file of this name.
    pub fn beside_others(&self, arguments: &[&str], log: &str) -> Owned {
        self.beside_others_at("", arguments, log)
    }

    /// The same, with what is done at some of its steps.
    pub fn beside_others_at(&self, steps: &str, arguments: &[&str], log: &str) -> Owned {
        let log = File::create(self.folder.path().join(log)).unwrap();
        let mut command = self.command(arguments);
        command.stdout(log.try_clone().unwrap()).stderr(log).env("NO_COLOR", "1").env("FAILPOINTS", steps);
        Owned::spawn(command, Signal::SIGKILL)
    }

    /// The log ranges of the complete backups of a database's newest incarnation.
    pub fn bases(&self, database: &str) -> Vec<Range> {
        wait(async {
            let Ok(repository) = Repository::open(Arc::clone(&self.store)).await else { return Vec::new() };
            let records = repository.incarnations(&database.parse().unwrap()).await.unwrap();
            let Some(record) = records.last() else { return Vec::new() };
            complete(&Reader::new(&repository, record).unwrap()).await
        })
    }

    /// The log ranges of the complete backups of an incarnation.
    pub fn bases_of(&self, reader: &Reader) -> Vec<Range> {
        wait(complete(reader))
    }

    /// The same node, whose database is now reached at other servers.
    pub fn moved(node: Self, servers: &[&Server]) -> Self {
        let path = node.folder.path().join("farshore.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<String> = text
            .lines()
            .map(|line| match line.starts_with("url = \"postgresql:") {
                true => format!("url = \"postgresql://postgres@{}/postgres\"", hosts(servers)),
                false => line.to_owned(),
            })
            .collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        node
    }

    /// Changes the configuration's text.
    pub fn configure(&self, change: impl FnOnce(String) -> String) {
        let path = self.folder.path().join("farshore.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, change(text)).unwrap();
    }

    /// Makes a signing key beside the configuration and pins its public half. What is added to the text stands in its last table, the
    /// database's.
    pub fn sign_heads(&self) -> SigningKey {
        let (key, file) = SigningKey::mint().unwrap();
        let path = self.folder.path().join("signing.pem");
        std::fs::write(&path, file).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        user::give(self.folder.path());
        self.configure(|text| {
            format!("{text}signing_key = \"signing.pem\"\nverify_keys = [\"{}\"]\n", key.public())
        });
        key
    }

    /// Adds a second store, `second`, whose address is this, and says how many must have a position.
    pub fn add_store(&self, address: &str, durable: &str) {
        self.configure(|text| {
            let text = text.replace(
                "stores = [\"main\"]",
                &format!("stores = [\"main\", \"second\"]\ndurable = {durable}"),
            );
            format!("[stores.second]\n{address}\n{text}")
        });
    }

    /// The journal that lies in a folder, as [`Node::end`] reads the first store's.
    pub fn end_in(&self, folder: &Path) -> Option<Position> {
        let store = store::open(&format!("file:{}", folder.display()), &StoreOptions::new()).unwrap();
        wait(async {
            let repository = Repository::open(store).await.ok()?;
            let record = repository.incarnations(&"orders".parse().unwrap()).await.ok()?.pop()?;
            let reader = Reader::new(&repository, &record).unwrap();
            // Not `last`, which would put what a frozen owner has in its tail.
            reader.chunks_end().await.ok()?.map(|chunk| chunk.header().end_position())
        })
    }

    fn with(servers: &[&Server], kind: &Store, shared: Option<&Path>) -> Self {
        let folder = user::tempdir();
        let place = shared.unwrap_or(folder.path()).join("journal");
        let address = match kind {
            Store::File => format!("url = \"file:{}\"", place.display()),
            Store::S3 { endpoint, bucket } => {
                std::fs::write(folder.path().join("secret"), "farshore-secret\n").unwrap();
                let secret = folder.path().join("secret");
                let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
                std::fs::set_permissions(&secret, private).unwrap();
                format!(
                    "url = \"s3://{bucket}/j\"\nendpoint = \"{endpoint}\"\nregion = \"us-east-1\"\n\
                     access_key_id = \"farshore\"\nsecret_access_key_file = \"{}\"",
                    secret.display()
                )
            }
        };
        let text = format!(
            "[service]\nlisten = \"127.0.0.1:0\"\n[stores.main]\n{address}\n[databases.orders]\nengine = \"postgres\"\n\
             url = \"postgresql://postgres@{}/postgres\"\nstores = [\"main\"]\nflush_interval = \"200ms\"\nbin_dir = \"{}\"\n",
            hosts(servers),
            Major::V15.bin().display(),
        );
        std::fs::write(folder.path().join("farshore.toml"), text).unwrap();
        if shared.is_none() {
            std::fs::create_dir_all(&place).unwrap();
        }
        user::give(folder.path());
        let store = store::open(&format!("file:{}", place.display()), &StoreOptions::new()).unwrap();
        Self { folder, binary: farshore_testkit::farshore_bin(env!("CARGO_BIN_EXE_farshore")), store }
    }

    /// The store, opened so that objects may be deleted.
    pub fn deleting_store(&self) -> Arc<dyn ObjectStore> {
        let place = self.folder.path().join("journal");
        store::open(&format!("file:{}", place.display()), &StoreOptions::for_writing()).unwrap()
    }

    /// The folder, which belongs to the unprivileged user.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("-c").arg(self.folder.path().join("farshore.toml")).args(arguments);
        let mut command = user::run_as(command);
        command.current_dir(self.folder.path());
        command
    }

    /// Starts `farshore run`. `crash` is a step at which it ends itself, in the words of the crate `fail`.
    pub fn start(&self, crash: Option<&str>) -> Service {
        self.start_with(crash, &[])
    }

    /// The same, with more in its environment.
    pub fn start_with(&self, crash: Option<&str>, environment: &[(&str, &str)]) -> Service {
        self.start_as("run", crash, environment)
    }

    /// The same for another verb that goes on until it is stopped.
    pub fn start_as(&self, verb: &str, crash: Option<&str>, environment: &[(&str, &str)]) -> Service {
        let path = self.folder.path().join("run.log");
        let log = File::options().create(true).append(true).open(&path).unwrap();
        let mut command = self.command(&["-v", verb]);
        command.stdout(log.try_clone().unwrap()).stderr(log).env("NO_COLOR", "1");
        command.envs(environment.iter().copied());
        if let Some(step) = crash {
            command.env("FAILPOINTS", step);
        }
        let from = std::fs::metadata(&path).unwrap().len();
        Service { process: Owned::spawn(command, Signal::SIGKILL), log: path, from }
    }

    /// Runs a verb to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The same, with more in its environment.
    pub fn run_with(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
        self.command(arguments).envs(environment.iter().copied()).output().unwrap()
    }

    /// Runs a verb that ends itself at a step, in the words of the crate `fail`.
    pub fn run_until(&self, crash: &str, arguments: &[&str]) -> Output {
        self.command(arguments).env("FAILPOINTS", crash).output().unwrap()
    }

    /// Changes the catalog behind the back of all who use it, as no command can.
    pub fn change_catalog(&self, statement: &str) {
        let script = format!(
            "import sqlite3; db = sqlite3.connect({:?}, timeout=30); db.execute({statement:?}); db.commit()",
            self.folder.path().join("farshore.db").display().to_string()
        );
        let mut python = Command::new("python3");
        python.args(["-c", &script]);
        let output = user::run_as(python).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// What a server whose log is older than the journal is to be told as `archive_command`.
    pub fn archive_command(&self) -> String {
        let toml = self.folder.path().join("farshore.toml");
        format!("{} -c {} wal push --pass-unheld %p", self.binary.display(), toml.display())
    }

    /// Runs a verb that must succeed, and takes its answer as JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["-o", "json"], arguments].concat());
        // A status that is unknown, or breaches an objective, is an answer.
        let told = arguments.contains(&"status") && matches!(output.status.code(), Some(8 | 9));
        assert!(output.status.success() || told, "{arguments:?}: {output:?}\n{}", self.log());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// `farshore status`, if the catalog knows the database.
    pub fn status(&self) -> Option<Value> {
        let output = self.run(&["-o", "json", "status", "orders"]);
        if !matches!(output.status.code(), Some(0 | 8 | 9)) {
            return None;
        }
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        Some(first(&answer).clone())
    }

    /// What the service logged, all starts of it.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.path().join("run.log")).unwrap_or_default())
            .into_owned()
    }

    /// Every incarnation in the store, oldest first; none while there is no store.
    pub fn incarnations(&self) -> Vec<(IncarnationRecord, Reader)> {
        wait(async {
            let Ok(repository) = Repository::open(Arc::clone(&self.store)).await else { return Vec::new() };
            let records = repository.incarnations(&"orders".parse().unwrap()).await.unwrap();
            records
                .into_iter()
                .map(|record| {
                    let reader = Reader::new(&repository, &record).unwrap();
                    (record, reader)
                })
                .collect()
        })
    }

    /// Where the newest incarnation's journal ends, if it has any chunk.
    pub fn end(&self) -> Option<Position> {
        self.end_of(&self.incarnations().pop()?.1)
    }

    /// Where an incarnation's journal ends, if it has any chunk.
    pub fn end_of(&self, reader: &Reader) -> Option<Position> {
        // A look into the midst of an append may be told to look again.
        let read = wait_for(SOON, || wait(reader.last()).ok());
        read.expect("the journal reads").map(|chunk| chunk.header().end_position())
    }

    /// Waits until the newest incarnation's journal reaches `offset` on `timeline`.
    pub fn wait_end(&self, timeline: u32, offset: Offset) {
        let reached = wait_for(SOON, || {
            self.end().filter(|end| end.timeline.get() == timeline && end.offset >= offset)
        });
        assert!(reached.is_some(), "journal at {:?}, wanted {timeline}:{offset}\n{}", self.end(), self.log());
    }

    /// Waits until `status` calls it connected: every promise holds, at the primary too.
    pub fn wait_connected(&self) {
        let connected = wait_for(SOON, || self.status().filter(|status| status["state"] == "connected"));
        assert!(connected.is_some(), "{:?}\n{}", self.status(), self.log());
    }

    /// Waits until a complete backup is in the newest incarnation.
    pub fn wait_backup(&self, wanted: usize) {
        let found = wait_for(SOON, || (self.backups() >= wanted).then_some(()));
        assert!(found.is_some(), "no backup {wanted}\n{}", self.log());
    }

    /// Complete backups of the newest incarnation.
    pub fn backups(&self) -> usize {
        let Some((_, reader)) = self.incarnations().pop() else { return 0 };
        wait(async {
            let mut complete = 0;
            for id in farshore_journal::backup::list(&reader).await.unwrap() {
                let standing = farshore_journal::backup::standing(&reader, id).await.unwrap();
                complete += usize::from(standing.complete.is_some());
            }
            complete
        })
    }

    /// Walks every incarnation from its first chunk: numbers dense, chain whole, ranges one behind the other, every log byte
    /// as in the servers' files. And `farshore verify` says the same.
    pub fn prove(&self, servers: &[&Server]) -> Vec<Walked> {
        let files: Vec<PathBuf> = servers.iter().map(|server| server.data_dir().join("pg_wal")).collect();
        self.walk(&|from, plain| compare(&files, from, plain))
    }

    /// As [`Node::prove`], for the journal of any engine: `look` is given every log byte, and where it stands.
    pub fn walk(&self, look: &dyn Fn(Position, &[u8])) -> Vec<Walked> {
        let walked = self.incarnations().into_iter().map(|(_, reader)| wait(walk(&reader, look))).collect();
        let verified = self.json(&["verify"]);
        for shown in all(&verified) {
            assert_eq!(shown["sound"], true, "{shown}\n{}", self.log());
        }
        walked
    }

    /// Restores and starts a copy, promoted; `target` are the words that say to where.
    pub fn restore(&self, target: &[&str]) -> Restored {
        self.restore_and("promote", target)
    }

    /// The same; `then` is what becomes of the copy at the target.
    pub fn restore_and(&self, then: &str, target: &[&str]) -> Restored {
        let to = user::tempdir();
        let directory = to.path().join("data");
        let path = directory.display().to_string();
        let port = (40_000 + std::process::id() % 20_000).to_string();
        let arguments = ["restore", "orders", "--to", &path, "--start", "--port", &port, "--then", then];
        let output = self.run(&[arguments.as_slice(), target].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let restored = Restored { directory, _folder: to, text };
        assert!(output.status.success(), "restore {target:?}: {output:?}\n{}", self.log());
        restored
    }
}

fn hosts(servers: &[&Server]) -> String {
    let hosts: Vec<String> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
    hosts.join(",")
}

/// A running `farshore run`.
pub struct Service {
    pub process: Owned,
    log: PathBuf,
    from: u64,
}

impl Service {
    /// What this start of it logged.
    pub fn log(&self) -> String {
        let all = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&all[usize::try_from(self.from).unwrap().min(all.len())..]).into_owned()
    }

    /// Waits until it logged `text`.
    pub fn wait_log(&self, text: &str) {
        let found = wait_for(SOON, || self.log().contains(text).then_some(()));
        assert!(found.is_some(), "never said {text:?}:\n{}", self.log());
    }

    /// Where it answers.
    pub fn address(&self) -> String {
        self.address_of("health endpoint listens")
    }

    /// Where something of it listens, once it said so in these words.
    pub fn address_of(&self, said: &str) -> String {
        self.wait_log(said);
        let log = self.log();
        let line = log.lines().find(|line| line.contains(said)).unwrap();
        line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap().to_owned()
    }

    /// The status of `/readyz`, and its body.
    pub fn readyz(&self) -> (u16, String) {
        let mut stream = std::net::TcpStream::connect(self.address()).unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
        (status, answer)
    }

    /// Ends it without a chance to do anything.
    pub fn kill9(mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait(SOON).expect("a killed process ends");
    }

    /// Ends it politely, once it heeds signals: a process that has not come so far as to say anything is ended by the system.
    pub fn stop(mut self) {
        let heeds = wait_for(SOON, || (!self.log().is_empty()).then_some(()));
        assert!(heeds.is_some(), "it never said anything");
        self.process.signal(Signal::SIGTERM);
        let ended = self.process.wait(SOON).unwrap_or_else(|| panic!("it did not stop:\n{}", self.log()));
        assert!(ended.success(), "{ended:?}\n{}", self.log());
    }

    /// Most memory it ever had, in bytes. Source: proc(5), `VmHWM`.
    pub fn peak_memory(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

/// Waits until one of two services that ship one database has ended because the other took the journal over, and says so; whether it was the first.
pub fn the_first_lost(first: &mut Service, second: &mut Service) -> bool {
    let ended = wait_for(SOON, || match (first.process.ended(), second.process.ended()) {
        (Some(ended), None) => Some((ended, first.log(), true)),
        (None, Some(ended)) => Some((ended, second.log(), false)),
        (Some(one), Some(two)) => panic!("both: {one:?} {two:?}\n{}\n--\n{}", first.log(), second.log()),
        (None, None) => None,
    });
    let Some((ended, log, first_lost)) = ended else {
        panic!("both live\n{}\n--\n{}", first.log(), second.log())
    };
    assert_eq!(ended.code(), Some(5), "{log}");
    assert!(log.contains("FS-0401"), "{log}");
    first_lost
}

/// A restored, started copy; stopped and removed on drop.
pub struct Restored {
    directory: PathBuf,
    _folder: TempDir,
    text: String,
}

impl Restored {
    /// One that was restored into `directory`, below `folder`; `text` is what the command said.
    pub fn at(directory: PathBuf, folder: TempDir, text: String) -> Self {
        Self { directory, _folder: folder, text }
    }

    /// Asks it.
    pub fn sql(&self, text: &str) -> String {
        let line = self.text.lines().find_map(|line| line.strip_prefix("connect")).expect("how to connect");
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut psql = Command::new(Major::clients().join("psql"));
        psql.args(&words[1..]).args(["-U", "postgres", "-d", "postgres", "-X", "-A", "-t", "-q", "-c", text]);
        let output = user::run_as(psql).output().unwrap();
        assert!(output.status.success(), "{text}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let mut stop = Command::new(Major::V15.bin().join("pg_ctl"));
        stop.arg("-D").arg(&self.directory).args(["stop", "-m", "immediate"]);
        let _was_not_started = user::run_as(stop).output();
    }
}

/// What a walk over a journal found.
#[derive(Debug, Default)]
pub struct Walked {
    pub chunks: u64,
    pub openings: u64,
    pub bytes: u64,
    pub timelines: Vec<u32>,
    pub gaps: Vec<(Position, Offset)>,
    pub end: Option<Position>,
}

async fn walk(reader: &Reader, look: &dyn Fn(Position, &[u8])) -> Walked {
    let mut walked = Walked::default();
    let mut former: Option<Header> = None;
    let listed = reader.store().list(reader.layout().journal(), None, None).await.unwrap();
    for number in 0.. {
        let chunk = match reader.chunk(Sequence::new(number)).await {
            Ok(chunk) => chunk,
            Err(JournalError::Store(StoreError::NotFound { .. })) => break,
            Err(why) => panic!("chunk {number}: {why}"),
        };
        let header = chunk.header().clone();
        match &former {
            Some(former) => assert!(follows(former, &header), "chunk {number}: {former:?} then {header:?}"),
            None => assert_eq!(header.before, reader.genesis()),
        }
        walked.chunks += 1;
        match header.kind {
            Kind::Opening => walked.openings += 1,
            Kind::Timeline => walked.timelines.push(header.timeline.get()),
            Kind::Gap => walked.gaps.push((Position::new(header.timeline, header.start), header.end)),
            Kind::Data => {
                let plain = chunk.plain_all(None).unwrap();
                assert_eq!(plain.len() as u64, header.end.bytes_since(header.start).unwrap());
                look(Position::new(header.timeline, header.start), &plain);
                walked.bytes += plain.len() as u64;
            }
            other => panic!("chunk {number} is {other:?}"),
        }
        walked.end = Some(header.end_position());
        former = Some(header);
    }
    let highest = listed.iter().filter_map(|listed| listed.key.name().parse::<Sequence>().ok()).max();
    let behind = highest.map_or(0, |highest| highest.get() + 1);
    assert_eq!(behind, walked.chunks, "something stands behind the journal's end");
    walked
}

/// Compares log bytes with the servers' own files. One server's file is enough, but it must say the same.
fn compare(files: &[PathBuf], from: Position, mut plain: &[u8]) {
    let mut at = from.offset.get();
    while !plain.is_empty() {
        let (number, within) = (at / SEGMENT, at % SEGMENT);
        let take = usize::try_from(SEGMENT - within).unwrap().min(plain.len());
        let per_log = (1u64 << 32) / SEGMENT;
        let name = format!("{:08X}{:08X}{:08X}", from.timeline.get(), number / per_log, number % per_log);
        let within = usize::try_from(within).unwrap();
        let candidates = files.iter().flat_map(|dir| [dir.join(&name), dir.join(format!("{name}.partial"))]);
        let found: Vec<bool> = candidates
            .filter_map(|path| std::fs::read(path).ok())
            .map(|bytes| bytes[within..within + take] == plain[..take])
            .collect();
        assert!(!found.is_empty(), "no server has {name} any more");
        assert!(found.contains(&true), "the journal differs from {name} at {within}..{}", within + take);
        plain = &plain[take..];
        at += take as u64;
    }
}

/// All elements of an answer that is a list, or holds one.
pub fn all(answer: &Value) -> Vec<&Value> {
    match answer {
        Value::Array(list) => list.iter().collect(),
        Value::Object(fields) => match fields.values().find_map(Value::as_array) {
            Some(list) if !fields.contains_key("sound") && !fields.contains_key("state") => {
                list.iter().collect()
            }
            _ => vec![answer],
        },
        _ => vec![answer],
    }
}

/// The first of them.
pub fn first(answer: &Value) -> &Value {
    all(answer)[0]
}

/// Runs a future to its end.
pub fn wait<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}

/// How far a primary's log is flushed.
pub fn flushed(server: &Server) -> Offset {
    server.sql("select pg_current_wal_flush_lsn()").parse().unwrap()
}

/// What the tables of `pgbench` hold, in one word.
pub const CONTENT: &str = "select md5(string_agg(h, '' order by h)) from (
    select md5(a::text) h from pgbench_accounts a union all select md5(t::text) from pgbench_tellers t
    union all select md5(b::text) from pgbench_branches b union all select md5(p::text) from pgbench_history p) all_rows";

/// The log ranges of the complete backups in a journal.
async fn complete(reader: &Reader) -> Vec<Range> {
    let mut complete = Vec::new();
    for id in farshore_journal::backup::list(reader).await.unwrap() {
        let standing = farshore_journal::backup::standing(reader, id).await.unwrap();
        complete.extend(standing.complete);
    }
    complete
}
