//! A primary, whoever ships and serves its journal, and a standby of it.

use std::process::Output;
use std::time::Duration;

use farshore_testkit::pg::{Builder, Major, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::user;
use serde_json::Value;
use tempfile::TempDir;

use crate::service::{Node, SOON, Service, all, flushed};

const PASSWORD: &str = "no connection to the primary";

/// All three.
pub struct Rig {
    pub standby: Server,
    pub node: Node,
    pub service: Option<Service>,
    pub primary: Server,
    /// Where journals are served.
    pub port: String,
    _place: TempDir,
}

/// A primary on which prepared transactions can be had, and pages be changed behind its back.
pub fn primary(major: Major) -> Builder {
    Server::builder(major)
        .checksums(false)
        .conf("max_prepared_transactions = 20")
        .conf("checkpoint_timeout = 30min")
        .conf("max_wal_size = 4GB")
}

/// A standby of this name, with its folder, and where it can be asked.
fn standby(node: &Node, (major, port): (Major, &str), name: &str) -> (Server, TempDir, String) {
    let place = user::tempdir();
    let data = place.path().join("data");
    let server = format!("host=127.0.0.1 port={port} user=far password='{PASSWORD}' sslmode=disable");
    let to = data.display().to_string();
    let made = node.run(&["standby", "create", "orders", "--to", &to, "--name", name, "--server", &server]);
    assert!(made.status.success(), "{made:?}\n{}", node.log());
    let standby = Server::on_data_dir(major, &data);
    standby.conf("wal_retrieve_retry_interval = '500ms'");
    standby.start();
    // A restored copy lets nobody in but over its socket.
    let folder = standby.socket_dir().display().to_string().replace('/', "%2F");
    let url = format!("postgresql://postgres@{folder}:{}/postgres", standby.port());
    (standby, place, url)
}

impl Rig {
    /// Another standby of the same journal; where it can be asked.
    pub fn another(&self, name: &str) -> (Server, TempDir, String) {
        standby(&self.node, (self.primary.major(), &self.port), name)
    }

    /// Of this primary.
    pub fn of(primary: Server) -> Self {
        let major = primary.major();
        let node = Node::new(&[&primary]);
        std::fs::write(node.folder().join("far.password"), format!("{PASSWORD}\n")).unwrap();
        let own = Major::V15.bin().display().to_string();
        node.configure(|text| {
            format!(
                "{}\n[serve]\nlisten = \"127.0.0.1:0\"\n[serve.users.far]\npassword_file = \"far.password\"\ndatabases = [\"orders\"]\n",
                text.replace(&own, &major.bin().display().to_string())
            )
        });
        let service = node.start(None);
        node.wait_backup(1);
        node.wait_end(1, flushed(&primary));
        let port = service.address_of("journals are served to standbys");
        let port = port.rsplit(':').next().unwrap().to_owned();
        let (standby, place, url) = standby(&node, (major, &port), "oslo");
        node.configure(|text| format!("{text}\n[databases.orders.compare.standbys]\noslo = \"{url}\"\n"));
        let rig = Self { standby, node, service: Some(service), primary, port, _place: place };
        rig.stands("streaming");
        rig
    }

    /// Runs a comparison of all; its exit code, what it says, and what was on standard error.
    pub fn compare(&self, more: &[&str]) -> (Option<i32>, Value, String) {
        let mut arguments = vec!["-o", "json", "compare", "run", "orders", "--standby", "oslo"];
        arguments.extend(more);
        let output: Output = self.node.run(&arguments);
        let came = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code(), came, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The same, of which all is to be equal.
    pub fn is_equal(&self) -> Value {
        let (code, came, error) = self.compare(&[]);
        assert_eq!(code, Some(0), "{came:#}\n{error}\n{}", self.node.log());
        assert_eq!(came["verdict"], "equal", "{came:#}");
        came
    }

    /// How the standby is listed.
    pub fn listed(&self) -> Option<Value> {
        let output = self.node.run(&["-o", "json", "standby", "list"]);
        let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
        all(&answer).first().map(|one| (*one).clone())
    }

    /// Waits until the standby is in a state.
    pub fn stands(&self, state: &str) -> Value {
        let found = wait_for(SOON, || self.listed().filter(|one| one["state"] == state));
        found.unwrap_or_else(|| panic!("{:?}\n{}\n{}", self.listed(), self.node.log(), self.standby.log()))
    }

    /// Waits until the standby has replayed all that the primary has flushed.
    pub fn caught_up(&self) {
        let end = flushed(&self.primary);
        let replayed = format!("select pg_last_wal_replay_lsn() >= '{end}'");
        let has = wait_for(SOON, || (self.standby.try_sql(&replayed).ok()? == "t").then_some(()));
        assert!(has.is_some(), "{end}\n{}\n{}", self.standby.log(), self.node.log());
    }
}

/// The tables that a comparison speaks of.
pub fn tables(came: &Value) -> Vec<&Value> {
    came["databases"].as_array().unwrap().iter().flat_map(|one| one["tables"].as_array().unwrap()).collect()
}

/// One of them.
pub fn table<'a>(came: &'a Value, name: &str) -> &'a Value {
    let found = tables(came).into_iter().find(|table| table["table"] == name);
    found.unwrap_or_else(|| panic!("{name}: {came:#}"))
}

/// A moment in which things go on.
pub fn let_pass(time: Duration) {
    crate::service::let_pass(time);
}
