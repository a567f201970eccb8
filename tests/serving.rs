//! The promise: a stock PostgreSQL follows a journal as it follows a primary, with no connection to one; whoever serves it says truly how far it is; and nobody gets log who may not.
//!
//! Method: the real binary serves, as part of `farshore run` and alone; standbys are restored copies whose `primary_conninfo` names it.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message
#![allow(clippy::print_stdout)] // what was measured is read in the output

#[path = "serving/commands.rs"]
mod commands;
#[path = "serving/delayed.rs"]
mod delayed;
#[path = "serving/load.rs"]
mod load;
#[path = "receiving/rig.rs"]
#[allow(dead_code)] // other tests use the rest
mod rig;
mod service;

use std::path::Path;

use age::secrecy::ExposeSecret as _;
use farshore_testkit::pg::{Major, Mode, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::{tls, user};
use serde_json::Value;
use service::{Node, SOON, Service, all, flushed, keeping};
use tempfile::TempDir;

const PASSWORD: &str = "no connection to the primary";

/// A node that serves what it ships; the user `far` may take it.
fn serving(primary: &Server, more: &str) -> Node {
    let node = Node::new(&[primary]);
    serve(&node, more);
    node
}

/// Has a node serve; the user `far` may take `orders`.
fn serve(node: &Node, more: &str) {
    std::fs::write(node.folder().join("far.password"), format!("{PASSWORD}\n")).unwrap();
    node.configure(|text| {
        format!(
            "{text}\n[serve]\nlisten = \"127.0.0.1:0\"\n{more}\n\
             [serve.users.far]\npassword_file = \"far.password\"\ndatabases = [\"orders\"]\n"
        )
    });
}

/// Where journals are served.
fn port(service: &Service) -> u16 {
    port_in(&|| service.log())
}

fn port_in(log: &dyn Fn() -> String) -> u16 {
    let found = wait_for(SOON, || {
        let log = log();
        let line = log.lines().find(|line| line.contains("journals are served to standbys"))?;
        line.split("address=").nth(1)?.split_whitespace().next()?.rsplit(':').next()?.parse().ok()
    });
    found.unwrap_or_else(|| panic!("served nowhere:\n{}", log()))
}

/// A copy of what is stored.
struct Copy {
    place: TempDir,
}

impl Copy {
    fn of(node: &Node) -> Self {
        let place = user::tempdir();
        let data = place.path().join("data").display().to_string();
        let output = node.run(&["restore", "orders", "--latest", "--to", &data]);
        assert!(output.status.success(), "{output:?}\n{}", node.log());
        Self { place }
    }

    fn data(&self) -> std::path::PathBuf {
        self.place.path().join("data")
    }

    /// A standby that is not started.
    fn follows(&self, conninfo: &str) -> Server {
        let data = self.data();
        let _was_one_before = std::fs::remove_file(data.join("recovery.signal"));
        std::fs::write(data.join("standby.signal"), "").unwrap();
        let settings = format!(
            "primary_conninfo = 'host=127.0.0.1 user=far application_name=oslo {conninfo}'\n\
             restore_command = ''\nrecovery_target_lsn = ''\nrecovery_target_timeline = 'latest'\nhot_standby = on\n\
             wal_retrieve_retry_interval = '500ms'\n"
        );
        std::fs::write(data.join("postgresql.auto.conf"), settings).unwrap();
        user::give(&data);
        Server::on_data_dir(Major::V15, &data)
    }
}

fn quoted(password: &str) -> String {
    format!("password=''{password}'' sslmode=disable")
}

/// Connections from an address of this machine that say nothing.
fn connections(from: &str, port: u16, count: usize) -> Vec<std::net::TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connected = async || {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        let stream = socket.connect(format!("127.0.0.1:{port}").parse().unwrap()).await.unwrap();
        stream.into_std().unwrap()
    };
    runtime.block_on(async {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(connected().await);
        }
        all
    })
}

fn listed_all(node: &Node) -> Vec<Value> {
    let output = node.run(&["-o", "json", "standby", "list"]);
    assert!(matches!(output.status.code(), Some(0 | 9)), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    all(&answer).into_iter().cloned().collect()
}

fn listed(node: &Node) -> Option<Value> {
    listed_all(node).first().cloned()
}

/// Waits until what is listed is so.
fn is_listed(node: &Node, wanted: impl Fn(&Value) -> bool) -> Value {
    let found = wait_for(SOON, || listed(node).filter(&wanted));
    found.unwrap_or_else(|| panic!("{:?}\n{}", listed(node), node.log()))
}

fn rows(server: &Server, wanted: u64) {
    let has = wait_for(SOON, || {
        (server.try_sql("select count(*) from kept").ok()? == wanted.to_string()).then_some(())
    });
    assert!(
        has.is_some(),
        "{wanted} rows: {:?}\n{}",
        server.try_sql("select count(*) from kept"),
        server.log()
    );
}

fn primary() -> Server {
    let primary = keeping().start();
    primary.sql("create table kept (id bigint)");
    primary
}

/// Commits until there are so many rows.
fn commits(primary: &Server, until: u64) {
    primary
        .sql(&format!("insert into kept select generate_series((select count(*) + 1 from kept), {until})"));
}

#[test]
fn a_stock_standby_follows_the_service_and_is_said_to_be_as_far_as_it_is() {
    let primary = primary();
    let node = serving(&primary, "");
    let service = node.start(None);
    let port = port(&service);
    node.wait_backup(1);
    commits(&primary, 1000);
    node.wait_end(1, flushed(&primary));
    let copy = Copy { place: user::tempdir() };
    let data = copy.data().display().to_string();
    let server = format!("host=127.0.0.1 port={port} user=far password='{PASSWORD}' sslmode=disable");
    let made =
        node.run(&["standby", "create", "orders", "--to", &data, "--name", "oslo", "--server", &server]);
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(made.status.success() && said.contains("known as   oslo"), "{made:?}");
    let standby = Server::on_data_dir(Major::V15, &copy.data());
    standby.start();
    rows(&standby, 1000);
    for until in (2000..10_000).step_by(2000) {
        commits(&primary, until);
        rows(&standby, until);
    }
    let end = flushed(&primary);
    let shown = is_listed(&node, |shown| {
        shown["state"] == "streaming"
            && shown["lag_bytes"] == 0
            && shown["applied"].as_str().unwrap().ends_with(&end.to_string())
    });
    assert_eq!(
        (&shown["standby"], &shown["user"], &shown["database"]),
        (&"oslo".into(), &"far".into(), &"orders".into())
    );
    assert_eq!(shown["lag_seconds"], 0.0, "{shown}");
    // What it has not replayed makes it late, for as long as the journal has had it.
    standby.sql("select pg_wal_replay_pause()");
    commits(&primary, 12_000);
    let shown = is_listed(&node, |shown| shown["lag_seconds"].as_f64().is_some_and(|seconds| seconds > 3.0));
    assert!(shown["lag_bytes"].as_u64().unwrap() > 0 && shown["state"] == "streaming", "{shown}");
    standby.sql("select pg_wal_replay_resume()");
    is_listed(&node, |shown| shown["lag_seconds"] == 0.0);
    // Without its primary, and over a restart of whoever serves it.
    primary.stop(Mode::Fast);
    service.stop();
    let shown = is_listed(&node, |shown| shown["state"] == "away");
    assert_eq!(shown["lag_seconds"], Value::Null, "what nobody says is not known: {shown}");
    node.configure(|text| {
        text.replace(
            "listen = \"127.0.0.1:0\"\n\n[serve",
            &format!("listen = \"127.0.0.1:{port}\"\n\n[serve"),
        )
    });
    let service = node.start(None);
    is_listed(&node, |shown| shown["state"] == "streaming");
    rows(&standby, 12_000);
    standby.stop(Mode::Immediate);
    is_listed(&node, |shown| shown["state"] == "away");
    let forget = node.run(&["standby", "forget", "orders", "oslo"]);
    assert!(forget.status.success() && listed(&node).is_none(), "{forget:?}");
    let twice = node.run(&["standby", "forget", "orders", "oslo"]);
    assert_eq!(twice.status.code(), Some(3), "{twice:?}");
    service.stop();
}

#[test]
fn a_journal_is_served_alone_and_by_tls_to_whoever_proves_who_he_is_and_may_have_it() {
    let primary = primary();
    let certificates = user::tempdir();
    tls::write(certificates.path(), &certificates.path().join("ca.pem"));
    user::give(certificates.path());
    let at = |name: &str| certificates.path().join(name).display().to_string();
    let more = format!("tls_certificate = \"{}\"\ntls_key = \"{}\"", at("server.crt"), at("server.key"));
    let node = serving(&primary, &more);
    let service = node.start(None);
    node.wait_backup(1);
    commits(&primary, 1000);
    node.wait_end(1, flushed(&primary));
    service.stop();
    primary.stop(Mode::Fast);
    let copy = Copy::of(&node);
    let _serves = node.beside_others(&["-v", "serve-journal"], "serve.log");
    let log = || std::fs::read_to_string(node.folder().join("serve.log")).unwrap_or_default();
    let port = port_in(&log);
    let tls = format!("port={port} sslmode=verify-full sslrootcert={} channel_binding=require", at("ca.pem"));
    for (conninfo, says) in [
        (format!("{tls} password=wrong"), "password authentication failed"),
        (
            format!("{tls} password=''{PASSWORD}'' options=''-c farshore.database=other''"),
            "may not take the journal",
        ),
        (
            format!("port={port} sslmode=verify-full sslrootcert={} password=x", at("server.crt")),
            "certificate",
        ),
    ] {
        let standby = copy.follows(&conninfo);
        standby.start();
        standby.wait_log(says, SOON);
        standby.stop(Mode::Immediate);
    }
    assert!(listed(&node).is_none(), "who was not let in is no standby: {:?}", listed(&node));
    // Another machine's, of which none says a word.
    let strangers = connections("127.0.0.2", port, 200);
    let standby = copy.follows(&format!("{tls} password=''{PASSWORD}''"));
    standby.start();
    rows(&standby, 1000);
    is_listed(&node, |shown| shown["state"] == "streaming");
    let told = log();
    let told: Vec<_> = told.lines().filter(|line| line.contains("address=127.0.0.2")).collect();
    assert!(told.len() == 1 && told[0].contains("were turned away"), "{told:?}");
    drop(strangers);
    assert!(!log().contains(PASSWORD));
}

#[test]
fn a_known_standby_that_comes_while_the_store_is_away_waits_for_it_and_an_unknown_one_is_none() {
    let primary = primary();
    let node = serving(&primary, "");
    let service = node.start(None);
    let at = port(&service);
    node.wait_backup(1);
    let copy = Copy::of(&node);
    let standby = copy.follows(&format!("port={at} {}", quoted(PASSWORD)));
    standby.start();
    is_listed(&node, |shown| shown["state"] == "streaming");
    standby.stop(Mode::Fast);
    is_listed(&node, |shown| shown["state"] == "away");
    let (place, away) = (node.folder().join("journal"), node.folder().join("journal-on-its-disk"));
    std::fs::rename(&place, &away).unwrap();
    standby.start();
    let waits = |shown: &Value| {
        shown["state"] == "waits_for_store"
            && shown["lag_seconds"] == Value::Null
            && shown["problem"]
                .as_str()
                .is_some_and(|problem| problem.contains("the store cannot be read now"))
    };
    is_listed(&node, waits);
    let mut stranger = primary.client_command("psql");
    stranger.env("PGPASSWORD", PASSWORD).args([
        "-d",
        &format!("host=127.0.0.1 port={at} user=far application_name=rome replication=true sslmode=disable"),
    ]);
    let told = stranger.args(["-c", "IDENTIFY_SYSTEM"]).output().unwrap();
    assert!(String::from_utf8_lossy(&told.stderr).contains("the store cannot be read now"), "{told:?}");
    // It comes again by itself, and is not called away meanwhile.
    for _ in 0..16 {
        service::let_pass(std::time::Duration::from_millis(500));
        let shown = listed_all(&node);
        assert!(matches!(shown.as_slice(), [shown] if waits(shown)), "{shown:?}");
    }
    std::fs::rename(&away, &place).unwrap();
    is_listed(&node, |shown| shown["state"] == "streaming" && shown["problem"] == Value::Null);
    service.stop();
}

/// Log that nobody can open here is as sound as it was.
#[test]
fn a_sealed_journal_without_its_private_key_is_said_to_lack_that_and_is_gone_on_with_once_it_is_there() {
    let primary = primary();
    let node = serving(&primary, "");
    let (key, other) = (age::x25519::Identity::generate(), age::x25519::Identity::generate());
    let identity = node.folder().join("identity");
    let keep = |key: &age::x25519::Identity| {
        std::fs::write(&identity, key.to_string().expose_secret()).unwrap();
        user::give(&identity);
    };
    keep(&key);
    let lines =
        format!("recipients = [\"{}\"]\nidentity_file = \"identity\"\n[databases.orders]", key.to_public());
    node.configure(|text| text.replacen("[databases.orders]", &lines, 1));
    let service = node.start(None);
    let at = port(&service);
    node.wait_backup(1);
    let copy = Copy::of(&node);
    let standby = copy.follows(&format!("port={at} {}", quoted(PASSWORD)));
    standby.start();
    is_listed(&node, |shown| shown["state"] == "streaming");
    let waits = |why: &'static str| {
        move |shown: &Value| {
            shown["state"] == "waits_for_store"
                && shown["problem"].as_str().is_some_and(|problem| problem.contains(why))
        }
    };
    // The file is gone when it comes again.
    std::fs::remove_file(&identity).unwrap();
    standby.stop(Mode::Fast);
    standby.start();
    is_listed(&node, waits("a key or password of the store does not read"));
    service.stop();
    // It is another's when whoever serves it begins.
    keep(&other);
    node.configure(|text| {
        text.replace("listen = \"127.0.0.1:0\"\n\n[serve", &format!("listen = \"127.0.0.1:{at}\"\n\n[serve"))
    });
    let service = node.start(None);
    commits(&primary, 1000);
    is_listed(&node, waits("no private key that opens it is at hand"));
    standby.wait_log("no private key that opens it is at hand", SOON);
    keep(&key);
    rows(&standby, 1000);
    is_listed(&node, |shown| shown["state"] == "streaming");
    standby.stop(Mode::Immediate);
    service.stop();
}

/// Two incarnations may have one system identifier and the same positions, with other bytes behind them.
#[test]
fn a_standby_of_a_journal_that_ended_is_refused_and_called_diverged() {
    let first = primary();
    let node = serving(&first, "");
    let service = node.start(None);
    let port = port(&service);
    node.wait_backup(1);
    let copy = Copy::of(&node);
    let standby = copy.follows(&format!("port={port} {}", quoted(PASSWORD)));
    standby.start();
    is_listed(&node, |shown| shown["state"] == "streaming");
    let incarnation = listed(&node).unwrap()["incarnation"].clone();
    service.stop();
    let other = primary();
    let node = Node::moved(node, &[&other]);
    node.configure(|text| {
        text.replace(
            "listen = \"127.0.0.1:0\"\n\n[serve",
            &format!("listen = \"127.0.0.1:{port}\"\n\n[serve"),
        )
    });
    let service = node.start(None);
    node.wait_backup(1);
    let shown = is_listed(&node, |shown| shown["state"] == "diverged");
    assert_eq!(shown["incarnation"], incarnation, "{shown}");
    assert!(shown["problem"].as_str().unwrap().contains("what is served of it"), "{shown}");
    standby.wait_log("what is served of it", SOON);
    service.stop();
}

#[test]
fn what_cannot_be_served_is_said_and_stops_no_shipping() {
    let primary = primary();
    let node = serving(&primary, "tls_certificate = \"none.crt\"\ntls_key = \"none.key\"");
    let service = node.start(None);
    service.wait_log("FS-1001");
    node.wait_backup(1);
    service.stop();
    let alone = node.run(&["serve-journal"]);
    let said = String::from_utf8_lossy(&alone.stderr).into_owned();
    assert!(alone.status.code() == Some(4) && said.contains("none.crt"), "{said}");
    for (change, why) in [
        (
            ("127.0.0.1:0\"\ntls_certificate = \"none.crt\"\ntls_key = \"none.key\"", "0.0.0.0:5440\""),
            "there is no TLS",
        ),
        (("databases = [\"orders\"]\n", "databases = [\"other\"]\n"), "there is no database"),
        (("password_file = \"far.password\"\n", ""), "no `password_file`"),
        (("databases = [\"orders\"]\n", "databases = []\n"), "may take nothing"),
        (("databases = [\"orders\"]\n", "databases = [\"orders\"]\nstore = \"nas\"\n"), "has no store"),
    ] {
        let path: &Path = &node.folder().join("farshore.toml");
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(change.0), "{change:?}: {text}");
        node.configure(|text| text.replace(change.0, change.1));
        let refused = node.run(&["serve-journal"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && said.contains(why), "{change:?}: {said}");
        std::fs::write(path, text).unwrap();
    }
}
