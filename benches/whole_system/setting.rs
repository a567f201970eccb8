//! What is measured against: a server with a pgbench database, a journal of it, and the programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use farshore_journal::format::Header;
use farshore_journal::format::header::HEADER_BYTES;
use farshore_testkit::pg::{Major, Mode, Server};
use farshore_testkit::process::Owned;
use farshore_testkit::user;
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// For whatever takes seconds.
pub const SOON: Duration = Duration::from_secs(120);
/// The configured name of the database.
pub const DATABASE: &str = "load";

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// MiB of log in the backlog.
    pub log_mib: u64,
    /// pgbench's scale.
    pub scale: u32,
    /// Rounds of each part.
    pub rounds: u32,
    /// Whether the backlog is of random bytes in place of pgbench's transactions.
    pub random: bool,
    /// The programs that are compared, by name.
    pub binaries: Vec<(String, PathBuf)>,
}

/// The server and its journal.
pub struct Setting {
    pub asked: Asked,
    pub server: Server,
    pub folder: TempDir,
}

impl Setting {
    /// A server with its database, and a journal with one base backup. The service is stopped.
    pub fn new(asked: Asked) -> Self {
        let server = Server::builder(Major::V15)
            .conf("shared_buffers = 1GB")
            .conf("max_wal_size = 16GB")
            .conf("checkpoint_timeout = 1h")
            .conf("autovacuum = off")
            .start();
        server.pgbench_init(asked.scale);
        server.sql("checkpoint");
        let folder = user::tempdir();
        Self { asked, server, folder }
    }

    /// A folder below the setting's own.
    pub fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A configuration beside a store of this name; its path.
    pub fn configure(&self, name: &str) -> PathBuf {
        let place = self.place(name);
        // The service founds a store in a directory that is there, and makes none.
        std::fs::create_dir_all(place.join("store")).unwrap();
        let text = format!(
            "[catalog]\nurl = \"sqlite:{catalog}\"\n[service]\nlisten = \"127.0.0.1:0\"\n[stores.main]\nurl = \"file:{store}\"\n\
             [databases.{DATABASE}]\nengine = \"postgres\"\nurl = \"postgresql://postgres@127.0.0.1:{port}/postgres\"\n\
             stores = [\"main\"]\ncompression = \"zstd:3\"\nflush_interval = \"200ms\"\nbin_dir = \"{bin}\"\n",
            catalog = place.join("catalog.db").display(),
            store = place.join("store").display(),
            port = self.server.port(),
            bin = Major::V15.bin().display(),
        );
        let path = place.join("farshore.toml");
        std::fs::write(&path, text).unwrap();
        user::give(&place);
        user::give(&place.join("store"));
        path
    }

    /// Starts the service, to be ended by [`end`].
    pub fn service(&self, binary: &Path, config: &Path) -> Owned {
        let mut command = farshore(binary, config, &["run"]);
        command.stdout(Stdio::null());
        Owned::spawn(user::run_as(command), Signal::SIGTERM)
    }

    /// Where the server's log ends.
    pub fn log_end(&self) -> u64 {
        self.server.sql("select (pg_current_wal_flush_lsn() - '0/0')::bigint").parse().unwrap()
    }

    /// Writes log, until there is as much more as was asked for; how much it is.
    pub fn write_backlog(&self) -> u64 {
        let begin = self.log_end();
        let wanted = self.asked.log_mib << 20;
        if self.asked.random {
            self.server.sql("create table noise (i bigint, content bytea)");
        }
        let mut checkpoint = begin;
        while self.log_end() - begin < wanted {
            if self.asked.random {
                // 1 MiB a transaction, kept out of line and uncompressed.
                self.server.sql(
                    "alter table noise alter content set storage external;
                     insert into noise select i, (select string_agg(decode(md5(random()::text || j || i), 'hex'), '')
                         from generate_series(1, 65536) j) from generate_series(1, 8) i",
                );
            } else {
                let mut pgbench = self.server.client_command("pgbench");
                pgbench.args(["-n", "-c", "4", "-j", "1", "-t", "1500", "postgres"]);
                pgbench.env("PGOPTIONS", "-c synchronous_commit=off");
                let done = pgbench.output().unwrap();
                assert!(done.status.success(), "pgbench: {}", String::from_utf8_lossy(&done.stderr));
            }
            // Full-page images again and again, as with a server's usual settings.
            if self.log_end() - checkpoint > 512 << 20 {
                self.server.sql("checkpoint");
                checkpoint = self.log_end();
            }
        }
        self.server.sql("select pg_switch_wal()");
        self.server.sql("checkpoint");
        self.log_end() - begin
    }

    /// Stops the server, at the end.
    pub fn end(self) {
        self.server.stop(Mode::Fast);
    }
}

/// A command of farshore's.
pub fn farshore(binary: &Path, config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.arg("-c").arg(config).arg("-q").args(arguments);
    command.current_dir(config.parent().unwrap());
    command
}

/// Ends a service politely.
pub fn end(mut service: Owned) {
    service.signal(Signal::SIGTERM);
    let status = service.wait(SOON).expect("the service ends");
    assert!(status.success(), "the service ended with {status}");
}

/// Waits until `done`.
pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < SOON, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Follows a journal's numbers in a file store.
pub struct Journal {
    folder: PathBuf,
    next: u64,
    end: u64,
}

impl Journal {
    /// The journal in this store, once there is one.
    pub fn of(store: &Path) -> Option<Self> {
        Some(Self { folder: find(store, "journal")?, next: 0, end: 0 })
    }

    /// How far it reaches.
    pub fn end(&mut self) -> u64 {
        while let Some(header) = head(&self.folder.join(format!("{:016x}", self.next))) {
            self.end = header.end.get();
            self.next += 1;
        }
        self.end
    }
}

fn head(path: &Path) -> Option<Header> {
    use std::io::Read;
    let mut bytes = vec![0; HEADER_BYTES];
    std::fs::File::open(path).ok()?.read_exact(&mut bytes).ok()?;
    Some(Header::decode(&bytes).unwrap())
}

/// The folder of this name somewhere below.
pub fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> =
        std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let here = entries.iter().find(|path| path.file_name().is_some_and(|found| found == name));
    here.cloned().or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|path| find(path, name)))
}

/// Complete backups in a store: folders with a manifest.
pub fn backups(store: &Path) -> Vec<PathBuf> {
    let Some(folder) = find(store, "backups") else { return Vec::new() };
    let all = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.join("manifest").exists()).collect()
}

/// Bytes of all files below.
pub fn size(path: &Path) -> u64 {
    let Ok(found) = std::fs::symlink_metadata(path) else { return 0 };
    if !found.is_dir() {
        return found.len();
    }
    let entries = std::fs::read_dir(path).unwrap();
    entries.map(|entry| size(&entry.unwrap().path())).sum()
}

/// Copies a tree as it is.
pub fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success(), "cp -a {} {}", from.display(), to.display());
}
