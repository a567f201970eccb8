//! What a new cluster is to be like, and its making.

use std::path::Path;
use std::process::Command;

use super::{Major, Server};
use crate::must::Must;
use crate::user;

/// Settings every cluster gets, each for a reason; [`Builder::conf`] comes after them and wins.
const SETTINGS: &str = "
wal_level = replica
max_wal_senders = 10
max_replication_slots = 10
hot_standby = on
fsync = on                         # what a crash leaves behind is what we test
full_page_writes = on
shared_buffers = 16MB              # many clusters at once on a small machine
max_connections = 40
max_wal_size = 256MB
autovacuum_naptime = 10min         # WAL that no test asked for hides what it did ask for
log_min_messages = info
log_replication_commands = on
log_checkpoints = on
log_line_prefix = '%m [%p] %q%u@%d/%a '
timezone = 'UTC'
";

/// How a new cluster is made. Without further calls: 16 MiB segments, data checksums, trust, no TLS.
#[derive(Debug, Clone)]
pub struct Builder {
    major: Major,
    wal_segment_mib: u32,
    checksums: bool,
    conf: Vec<String>,
    tablespaces: Vec<String>,
    scram: Option<(String, String)>,
    tls: bool,
    shiftable_clock: bool,
}

impl Builder {
    pub(super) fn new(major: Major) -> Self {
        Self {
            major,
            wal_segment_mib: 16,
            checksums: true,
            conf: Vec::new(),
            tablespaces: Vec::new(),
            scram: None,
            tls: false,
            shiftable_clock: false,
        }
    }

    /// Gives the server a clock that [`Server::shift_clock`] shifts while it runs.
    ///
    /// Its timers must not fire in the midst of something else: their signal handler asks for the time, for which the shifted clock
    /// opens a file, and a server that was allocating memory right then dies of it. Under load that is the deadlock timer.
    #[must_use]
    pub fn shiftable_clock(mut self) -> Self {
        self.shiftable_clock = true;
        self.conf.push("deadlock_timeout = 1h".to_owned());
        self
    }

    /// Size of a WAL segment in MiB: a power of two from 1 to 1024.
    #[must_use]
    pub fn wal_segment_size(mut self, mib: u32) -> Self {
        self.wal_segment_mib = mib;
        self
    }

    /// A line for `postgresql.conf`.
    #[must_use]
    pub fn conf(mut self, line: impl Into<String>) -> Self {
        self.conf.push(line.into());
        self
    }

    /// Creates a tablespace of this name, in a folder of the server's own.
    #[must_use]
    pub fn tablespace(mut self, name: impl Into<String>) -> Self {
        self.tablespaces.push(name.into());
        self
    }

    /// Data checksums; on unless said otherwise.
    #[must_use]
    pub fn checksums(mut self, on: bool) -> Self {
        self.checksums = on;
        self
    }

    /// Makes the TCP side ask for a SCRAM password, and creates `role` with `password`. The role may log in and
    /// replicate; a test grants the rest. [`Server::url`] then carries it.
    #[must_use]
    pub fn scram(mut self, role: impl Into<String>, password: impl Into<String>) -> Self {
        self.scram = Some((role.into(), password.into()));
        self
    }

    /// Makes the TCP side take TLS connections only; [`Server::ca_path`] has the authority to trust.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Makes the cluster and starts it.
    ///
    /// # Panics
    /// If the server does not answer within a minute, with its log.
    #[must_use]
    pub fn start(self) -> Server {
        let server = self.start_unprepared();
        for name in &self.tablespaces {
            let place = server.folder().join("tablespaces").join(name);
            std::fs::create_dir_all(&place).must(format_args!("make {}", place.display()));
            user::give(&server.folder().join("tablespaces"));
            server.sql(&format!("create tablespace \"{name}\" location '{}'", place.display()));
        }
        if let Some((role, password)) = &self.scram {
            server.sql(&format!("create role \"{role}\" login replication password '{password}'"));
        }
        server
    }

    fn start_unprepared(&self) -> Server {
        let folder = user::tempdir();
        let data = folder.path().join("data");
        let mut initdb = Command::new(self.major.bin().join("initdb"));
        initdb
            .arg("-D")
            .arg(&data)
            .args(["-U", "postgres", "--no-locale", "-E", "UTF8", "-A", "trust", "--no-sync"])
            .arg(format!("--wal-segsize={}", self.wal_segment_mib));
        match (self.checksums, self.major) {
            (true, _) => {
                initdb.arg("--data-checksums");
            }
            // Source: release notes of PostgreSQL 18: initdb turns checksums on by default.
            (false, Major::V18) => {
                initdb.arg("--no-data-checksums");
            }
            (false, _) => {}
        }
        let made = user::run_as(initdb).output().must("run initdb");
        assert!(made.status.success(), "initdb {}: {}", self.major, String::from_utf8_lossy(&made.stderr));

        let mut conf = SETTINGS.to_owned();
        if self.tls {
            crate::tls::write(&data, &folder.path().join("ca.pem"));
            conf.push_str("ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n");
        }
        for line in &self.conf {
            conf.push_str(line);
            conf.push('\n');
        }
        append(&data.join("postgresql.conf"), &conf);
        std::fs::write(data.join("pg_hba.conf"), self.hba()).must("write pg_hba.conf");
        user::give(folder.path());

        let mut server = Server::new(self.major, folder, data, self.scram.clone(), self.tls);
        if self.shiftable_clock {
            server.make_clock_shiftable();
        }
        server.start();
        server
    }

    fn hba(&self) -> String {
        let method = if self.scram.is_some() { "scram-sha-256" } else { "trust" };
        let host = if self.tls { "hostssl" } else { "host" };
        format!(
            "local all all trust\n\
             local replication all trust\n\
             {host} all all 127.0.0.1/32 {method}\n\
             {host} replication all 127.0.0.1/32 {method}\n"
        )
    }
}

/// Adds to a text file.
pub(super) fn append(path: &Path, text: &str) {
    use std::io::Write;
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .must(format_args!("add to {}", path.display()));
}
