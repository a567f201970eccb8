//! A receiver of the tests: a node that receives into its own folder, and certificates for whoever stores there.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use farshore_journal::store::{self, ObjectStore, StoreOptions};
use farshore_journal::{Offset, Position};
use farshore_testkit::pg::Major;
use farshore_testkit::process::wait_for;
use farshore_testkit::tls::Authority;
use farshore_testkit::user;

use crate::service::{Node, SOON, Service};

/// Whoever ships `orders`.
pub const SHIPPER: &str = "shipper.example";
/// Whoever has `invoices` and not `orders`.
pub const OTHER: &str = "other.example";

/// One, with its directory, `journal` below its folder.
pub struct Receiver {
    node: Node,
    authority: Authority,
}

impl Receiver {
    pub fn new() -> Self {
        let authority = Authority::new();
        let node = Node::configured(|folder| {
            authority.write(&folder.join("ca.crt"));
            authority.issue(folder, "server", &["127.0.0.1", "localhost"]);
            for name in [SHIPPER, OTHER, "nobody.example"] {
                authority.issue(folder, name, &[name]);
            }
            format!(
                "[service]\nlisten = \"127.0.0.1:0\"\n[stores.main]\nurl = \"file:{}\"\n\
                 [databases.orders]\nengine = \"postgres\"\nurl = \"postgresql://postgres@127.0.0.1:1/postgres\"\n\
                 stores = [\"main\"]\nbin_dir = \"{}\"\n\
                 [receive]\nlisten = \"127.0.0.1:0\"\nstore = \"main\"\n\
                 tls_certificate = \"server.crt\"\ntls_key = \"server.key\"\nclient_ca = \"ca.crt\"\n\
                 [receive.clients.\"{SHIPPER}\"]\ndatabases = [\"orders\"]\ndelete = false\n\
                 [receive.clients.\"{OTHER}\"]\ndatabases = [\"invoices\"]\n",
                folder.join("journal").display(),
                Major::V15.bin().display(),
            )
        });
        Self { node, authority }
    }

    /// Whether the shipper may delete.
    pub fn allow(&self, delete: bool) {
        self.node.configure(|text| text.replace("delete = false", &format!("delete = {delete}")));
    }

    /// Whoever stands at its machine.
    pub fn node(&self) -> &Node {
        &self.node
    }

    pub fn start(&self) -> Running {
        Running(self.node.start_as("receive", None, &[]))
    }

    /// The store, as a client by this name has it.
    pub fn open(&self, ways: &[SocketAddr], client: &str) -> Arc<dyn ObjectStore> {
        let file = |name: String| self.node.folder().join(name).display().to_string();
        let options = StoreOptions::for_writing()
            .with("tls_ca", file("ca.crt".to_owned()))
            .with("tls_certificate", file(format!("{client}.crt")))
            .with("tls_key", file(format!("{client}.key")));
        store::open(&url(ways), &options).unwrap()
    }

    /// Has a node store here and nowhere else.
    pub fn equip(&self, node: &Node, client: &str, ways: &[SocketAddr]) {
        let folder: &Path = node.folder();
        self.authority.write(&folder.join("ca.crt"));
        self.authority.issue(folder, "client", &[client]);
        user::give(folder);
        let own = format!("url = \"file:{}\"", folder.join("journal").display());
        let here = format!(
            "url = \"{}\"\ntls_ca = \"ca.crt\"\ntls_certificate = \"client.crt\"\ntls_key = \"client.key\"",
            url(ways)
        );
        node.configure(|text| {
            assert!(text.contains(&own), "{text}");
            text.replace(&own, &here)
        });
    }

    /// Where the journal ends that is in the directory.
    pub fn end(&self) -> Option<Position> {
        self.node.end()
    }

    pub fn wait_end(&self, offset: Offset) {
        self.node.wait_end(1, offset);
    }

    /// Waits until a complete base backup is in the directory; the shipper's log says why there is none.
    pub fn wait_backup(&self, shipper: &Node) {
        let found = wait_for(SOON, || (self.node.backups() >= 1).then_some(()));
        assert!(found.is_some(), "{}\n{}", self.node.log(), shipper.log());
    }
}

fn url(ways: &[SocketAddr]) -> String {
    let ways: Vec<String> = ways.iter().map(ToString::to_string).collect();
    format!("receiver://{}", ways.join(","))
}

/// One that runs.
pub struct Running(Service);

impl Running {
    pub fn address(&self) -> SocketAddr {
        self.0.address_of("journals of other machines are received").parse().unwrap()
    }

    /// What it logged.
    #[allow(dead_code)] // of this rig's users one asks
    pub fn log(&self) -> String {
        self.0.log()
    }

    pub fn kill9(self) {
        self.0.kill9();
    }

    pub fn stop(self) {
        self.0.stop();
    }
}
