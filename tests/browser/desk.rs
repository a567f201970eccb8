//! One service that ships a SQLite database, may restore and drills it; and its pages.

use std::path::PathBuf;
use std::time::Duration;

use farshore_journal::format::SigningKey;
use farshore_testkit::browser::Browser;
use farshore_testkit::process::wait_for;
use farshore_testkit::user;

use crate::rig::{PASSWORD, address};
use crate::service::{Node, SOON, Service, let_pass};
use crate::sqlite::{self, application::Application};

/// Notes that there are from the start, a commit each.
pub const NOTES: u32 = 12;

pub struct Desk {
    pub node: Node,
    _service: Service,
    _application: Application,
    pub key: SigningKey,
    pub site: String,
}

impl Desk {
    pub fn new() -> Self {
        Self::with("")
    }

    /// With more in its configuration.
    pub fn with(more: &str) -> Self {
        let node = Node::configured(|folder| {
            format!(
                "[service]\nlisten = \"127.0.0.1:0\"\nrestore_roots = [\"restores\"]\n[stores.main]\nurl = \"file:{}\"\n\
                 [databases.orders]\nengine = \"sqlite\"\npath = \"app.db\"\nstores = [\"main\"]\nflush_interval = \"20ms\"\n\
                 rpo = \"30s\"\nrto = \"15m\"\n",
                folder.join("journal").display()
            )
        });
        let key = node.sign_heads();
        node.configure(|text| {
            format!(
                "{text}[databases.orders.drill]\ntables = [\"notes\"]\n\
                 assertions = [{{ name = \"there are notes\", sql = \"select count(*) > 0 from notes\" }}]\n\
                 [databases.orders.schedule]\ndrill = \"30 2 * * SUN\"\nzone = \"Europe/Berlin\"\n{more}"
            )
        });
        std::fs::create_dir_all(node.folder().join("restores")).unwrap();
        user::give(node.folder());
        let mut application = Application::open(&sqlite::database(&node));
        application.ask("pragma journal_mode = wal");
        application.ask("create table notes (what text)");
        let service = node.start(None);
        node.wait_backup(1);
        for number in 1..=NOTES {
            application.ask(&format!("insert into notes values ('note {number}')"));
            let_pass(Duration::from_millis(20));
        }
        sqlite::settle(&node);
        service.wait_log("health endpoint listens");
        let site = address(&service);
        Self { node, _service: service, _application: application, key, site }
    }

    /// Somebody with a password.
    pub fn user(&self, name: &str, role: &str) {
        let file = self.node.folder().join("password");
        std::fs::write(&file, PASSWORD).unwrap();
        user::give(self.node.folder());
        let added =
            self.node.run(&["user", "add", name, "--role", role, "--password-file", file.to_str().unwrap()]);
        assert!(added.status.success(), "{added:?}");
    }

    /// Somebody with a password, who has logged in.
    pub fn logged_in(&self, name: &str, role: &str, scripts: bool) -> Browser {
        self.user(name, role);
        let browser = Browser::start(scripts);
        browser.go(&self.url("/"));
        browser.keys("input[name=name]", name);
        browser.keys("input[name=password]", PASSWORD);
        browser.click("form.stack button");
        browser.wait_text("h1", SOON, |text| text == "Fleet");
        browser
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.site)
    }

    /// What a restored copy holds: how many notes, and whether this one is among them.
    pub fn restored(&self, directory: &std::path::Path, note: u32) -> String {
        let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let file: PathBuf = files
            .into_iter()
            .find(|path| path.extension().is_some_and(|end| end == "db"))
            .unwrap_or_else(|| panic!("no database in {}", directory.display()));
        let mut copy = Application::open(&file);
        copy.ask(&format!("select count(*), max(what = 'note {note}') from notes"))
    }

    /// The certificate that a browser put into a folder.
    pub fn downloaded(folder: &std::path::Path) -> PathBuf {
        let found = wait_for(SOON, || {
            let files = std::fs::read_dir(folder).ok()?.map(|entry| entry.unwrap().path());
            files.into_iter().find(|path| path.extension().is_some_and(|end| end == "certificate"))
        });
        found.unwrap_or_else(|| panic!("nothing was downloaded into {}", folder.display()))
    }
}
