//! Everything between a commit and its place in a receiver's directory: a primary, a shipper, a link that can be cut, a receiver.

use farshore_testkit::link::Link;
use farshore_testkit::pg::{Major, Server};
use farshore_testkit::process::wait_for;
use serde_json::Value;

use crate::rig::{Receiver, Running, SHIPPER};
use crate::service::{Node, SOON, Service};

/// Everything between a commit and its place in the receiver's directory.
pub struct Chain {
    pub server: Server,
    pub node: Node,
    pub receiver: Receiver,
    pub link: Link,
    pub running: Option<Running>,
    pub shipper: Option<Service>,
}

impl Chain {
    /// Commits wait as protection says.
    pub fn new(protection: &str) -> Self {
        let chain = Self::unarmed(protection);
        chain.arm();
        chain
    }

    /// No commit waits yet.
    pub fn unarmed(protection: &str) -> Self {
        let server = Server::start_new(Major::V15);
        server.sql("create table kept (client int, n int, primary key (client, n))");
        let receiver = Receiver::new();
        let running = receiver.start();
        let link = Link::to(running.address());
        let node = Node::new(&[&server]);
        receiver.equip(&node, SHIPPER, &[link.address()]);
        node.configure(|text| text.replace("flush_interval = \"200ms\"\n", &format!("{protection}\n")));
        let shipper = node.start(None);
        receiver.wait_backup(&node);
        Self { server, node, receiver, link, running: Some(running), shipper: Some(shipper) }
    }

    /// Does at the primary what `check` says.
    pub fn arm(&self) {
        let checked = self.node.run(&["-o", "json", "check", "orders"]);
        let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
        let text = checked.to_string().replace("\\\"", "\"");
        let wanted = ["farshore orders/main", "farshore near orders/main"]
            .map(|name| format!("alter system set synchronous_standby_names = 'FIRST 1 (\"{name}\")'"));
        let wanted = wanted.iter().find(|wanted| text.contains(*wanted)).unwrap_or_else(|| panic!("{text}"));
        self.server.sql(wanted);
        self.server.sql("select pg_reload_conf()");
        let waits = wait_for(SOON, || {
            let state = self.server.sql(
                "select sync_state from pg_stat_replication where application_name ~ '^farshore (near )?orders/main$'",
            );
            (state == "sync").then_some(())
        });
        assert!(
            waits.is_some(),
            "{}\n{}",
            self.server.sql("select * from pg_stat_replication"),
            self.node.log()
        );
    }

    pub fn kill_shipper(&mut self) {
        self.shipper.take().unwrap().kill9();
    }

    pub fn start_shipper(&mut self) {
        self.shipper = Some(self.node.start(None));
    }

    pub fn kill_receiver(&mut self) {
        self.running.take().unwrap().kill9();
    }

    pub fn start_receiver(&mut self) {
        let running = self.receiver.start();
        self.link.lead_to(running.address());
        self.running = Some(running);
    }

    /// The rows of each client in a restore from the receiver's directory alone.
    pub fn restored(&self) -> Vec<(u32, u32)> {
        let restored = self.receiver.node().restore(&["--latest"]);
        let text = restored.sql("select client, n from kept order by 1, 2");
        let row = |line: &str| {
            let (client, n) = line.split_once('|').unwrap();
            (client.parse().unwrap(), n.parse().unwrap())
        };
        text.lines().map(row).collect()
    }
}
