//! A SQLite database as a primary under test: a file, and an application that has it open.

use std::path::{Path, PathBuf};

use farshore_testkit::user;

use super::primary::{Primary, Rows};
use crate::service::Node;
use crate::sqlite_database::application::Application;
use crate::sqlite_database::settle;

/// The files that are the database, the log among them: it belongs to the database for as long as it is not copied back.
const FILES: [&str; 3] = ["app.db", "app.db-wal", "app.db-shm"];

/// One.
pub struct Sqlite {
    folder: PathBuf,
    /// None behind a crash.
    application: Option<Application>,
}

impl Sqlite {
    fn ask(&mut self, statement: &str) -> String {
        self.application.as_mut().expect("it runs").ask(statement)
    }
}

impl Primary for Sqlite {
    fn begin(folder: &Path) -> Self {
        // The application is the unprivileged user's, and makes the file.
        user::give(folder);
        let mut sqlite = Self { folder: folder.to_owned(), application: None };
        sqlite.start();
        assert_eq!(sqlite.ask("pragma journal_mode = wal"), "[[\"wal\"]]");
        assert_eq!(sqlite.ask("create table numbered (n integer)"), "[]");
        sqlite
    }

    fn lines(&self) -> String {
        format!("engine = \"sqlite\"\npath = \"{}\"\n", self.folder.join("app.db").display())
    }

    fn commit(&mut self, row: u64) -> Option<u64> {
        assert_eq!(self.ask(&format!("insert into numbered values ({row})")), "[]");
        // SQLite numbers no transactions: farshore does.
        None
    }

    fn rows(&mut self) -> Rows {
        rows(self.application.as_mut().expect("it runs"))
    }

    fn wait_stored(&mut self, node: &Node) {
        settle(node);
    }

    fn crash(&mut self) {
        self.application = None;
    }

    fn start(&mut self) {
        let mut application = Application::open(&self.folder.join("app.db"));
        assert_eq!(application.ask("pragma busy_timeout = 60000"), "[[60000]]");
        // A database that nobody read yet is not open.
        application.ask("select count(*) from sqlite_schema");
        self.application = Some(application);
    }

    fn keep(&mut self, folder: &Path) {
        // Nobody has it open while it is copied. A last close would copy its log back, so it is not closed.
        self.crash();
        copy(&self.folder, folder);
        self.start();
    }

    fn put_back(&mut self, folder: &Path) {
        self.crash();
        for name in FILES {
            let _was_not_there = std::fs::remove_file(self.folder.join(name));
        }
        copy(folder, &self.folder);
        user::give(&self.folder);
        self.start();
    }

    fn restored(node: &Node, target: &[&str]) -> Rows {
        let place = user::tempdir();
        let to = place.path().join("copy");
        let fixed = ["restore", "orders", "--to", to.to_str().unwrap()];
        let done = node.run(&[&fixed[..], target].concat());
        assert!(done.status.success(), "restore {target:?}: {done:?}\n{}", node.log());
        let mut application = Application::open(&to.join("app.db"));
        assert_eq!(application.ask("pragma integrity_check"), "[[\"ok\"]]", "{target:?}");
        rows(&mut application)
    }

    fn could_open(directory: &Path) -> bool {
        directory.join("app.db").exists()
    }
}

fn rows(application: &mut Application) -> Rows {
    let answer = application.ask("select n from numbered order by n");
    let rows: Vec<[u64; 1]> = serde_json::from_str(&answer).unwrap_or_else(|why| panic!("{why}: {answer}"));
    rows.into_iter().flatten().collect()
}

fn copy(from: &Path, to: &Path) {
    for name in FILES {
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}
