//! Two services over one catalog: one ships `orders`, the other ships `billing` and is the one whose pages are looked at; and a browser.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use farshore_testkit::browser::Browser;
use farshore_testkit::process::wait_for;
use farshore_testkit::user;

use crate::service::{Node, SOON, Service, let_pass};
use crate::sqlite::{self, application::Application};

pub const PASSWORD: &str = "correct horse battery";
/// A page asks every two seconds, and counts as old after six.
pub const STALE: Duration = Duration::from_secs(30);

pub struct Rig {
    pub orders: Node,
    pub billing: Node,
    pub ships: Service,
    pub shows: Service,
    pub application: Application,
    pub site: String,
}

fn settings(name: &str, more: &str, folder: &std::path::Path) -> String {
    format!(
        "[service]\nlisten = \"127.0.0.1:0\"\n{more}[stores.main]\nurl = \"file:{}\"\n[databases.{name}]\nengine = \"sqlite\"\n\
         path = \"app.db\"\nstores = [\"main\"]\nflush_interval = \"20ms\"\nrpo = \"30s\"\nrto = \"15m\"\n",
        folder.join("journal").display()
    )
}

impl Rig {
    pub fn new() -> Self {
        let orders = Node::configured(|folder| settings("orders", "", folder));
        let catalog = orders.folder().join("farshore.db");
        let billing = Node::configured(|folder| {
            settings("billing", &format!("[catalog]\nurl = \"sqlite:{}\"\n", catalog.display()), folder)
        });
        let mut application = Application::open(&sqlite::database(&orders));
        let mut other = Application::open(&sqlite::database(&billing));
        for one in [&mut application, &mut other] {
            one.ask("pragma journal_mode = wal");
            one.ask("create table notes (what text)");
        }
        drop(other);
        let ships = orders.start(None);
        orders.wait_backup(1);
        for number in 1..=20 {
            application.ask(&format!("insert into notes values ('note {number}')"));
            let_pass(Duration::from_millis(20));
        }
        sqlite::settle(&orders);
        let shows = billing.start(None);
        shows.wait_log("health endpoint listens");
        let site = address(&shows);
        let billed = wait_for(SOON, || {
            let output = billing.run(&["-o", "json", "status", "billing"]);
            String::from_utf8_lossy(&output.stdout).contains("\"connected\"").then_some(())
        });
        assert!(billed.is_some(), "{}", billing.log());
        Self { orders, billing, ships, shows, application, site }
    }

    /// A person with [`PASSWORD`].
    pub fn user(&self, name: &str, role: &str) {
        let file = self.billing.folder().join("password");
        std::fs::write(&file, PASSWORD).unwrap();
        user::give(self.billing.folder());
        let added = self.billing.run(&[
            "user",
            "add",
            name,
            "--role",
            role,
            "--password-file",
            file.to_str().unwrap(),
        ]);
        assert!(added.status.success(), "{added:?}");
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.site)
    }

    /// Logs in by the form, as anybody would.
    pub fn log_in(&self, browser: &Browser, name: &str, to: &str) {
        browser.go(&self.url(to));
        browser.keys("input[name=name]", name);
        browser.keys("input[name=password]", PASSWORD);
        browser.click("form.stack button");
        assert!(
            wait_for(SOON, || (browser.url() == self.url(to)).then_some(())).is_some(),
            "{}",
            browser.url()
        );
    }

    /// Runs a line of a shell as the node's user, with this farshore before others.
    pub fn shell(&self, line: &str) -> std::process::Output {
        let binary = farshore_testkit::farshore_bin(env!("CARGO_BIN_EXE_farshore"));
        let folder = binary.parent().unwrap().to_owned();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]).current_dir(self.orders.folder());
        let mut command = user::run_as(command);
        command.env("PATH", format!("{}:/usr/bin:/bin", folder.display())).output().unwrap()
    }
}

/// Where a service's pages are.
pub fn address(service: &Service) -> String {
    let log = service.log();
    let line = log.lines().find(|line| line.contains("health endpoint listens")).unwrap();
    let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    format!("http://{address}")
}

/// Where pictures of pages are kept.
pub fn pictures() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    target.join("screenshots")
}
