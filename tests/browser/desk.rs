//! One service that ships a SQLite database, may restore and drills it; and its pages.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use farshore_journal::format::SigningKey;
use farshore_testkit::browser::{Browser, key};
use farshore_testkit::process::{Owned, wait_for};
use farshore_testkit::user;
use nix::sys::signal::Signal;

use crate::rig::{PASSWORD, address};
use crate::service::{Node, SOON, Service, let_pass};
use crate::sqlite::{self, application::Application};

/// Writes standbys into the catalog that is named, and that they are heard, until it is ended.
const STANDBYS: &str = "import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], timeout=30)
now = lambda: int(time.time() * 1000000)
rows = [('oslo', 'streaming', None, 0, 0), ('rome-in-the-second-machine-room', 'catching_up', None, 95000000, 9000000),
        ('wien', 'log_missing', 'the log behind 0/5000000 is not in this journal: it was lost at the source, or has expired', None, 400),
        ('bergen', 'waits_for_store', None, None, 400)]
columns = 'database_name, name, node, login, address, store, incarnation, timeline, sent, written, flushed, applied, end_offset, state, since, problem, behind_us, heard_at'
for name, state, problem, behind, lacks in rows:
    has = 90000000 - lacks
    values = ('orders', name, 'db1', 'far', '10.0.0.7:41234', 'main', '07' * 16, 1, 90000000 - lacks // 2, has, has, has, 90000000, state,
              now() - 3600000000, problem, behind, now())
    db.execute(f'insert into standby ({columns}) values (' + ','.join('?' * len(values)) + ')', values)
db.commit()
while True:
    db.execute('update standby set heard_at = ?', (now(),))
    db.commit()
    time.sleep(0.3)
";

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
                 [databases.orders.retention]\nwindow = \"30d\"\n[databases.orders.schedule]\ndrill = \"30 2 * * SUN\"\nzone = \"Europe/Berlin\"\n{more}"
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

    /// Standbys of each kind in the catalog, which are heard as long as what this gives lives.
    pub fn standbys(&self) -> Owned {
        let mut python = Command::new("python3");
        python.args(["-c", STANDBYS]).arg(self.node.folder().join("farshore.db"));
        Owned::spawn(user::run_as(python), Signal::SIGKILL)
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

    /// Somebody with a password, who has logged in by the keyboard alone.
    pub fn logged_in(&self, name: &str, role: &str, scripts: bool) -> Browser {
        self.user(name, role);
        let browser = Browser::start(scripts);
        browser.go(&self.url("/"));
        for (field, text) in [("input[name=name]", name), ("input[name=password]", PASSWORD)] {
            browser.tab_to(field);
            browser.press(text);
        }
        browser.press(key::ENTER);
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
