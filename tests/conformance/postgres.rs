//! A PostgreSQL server as a primary under test.

use std::path::{Path, PathBuf};
use std::process::Command;

use farshore_testkit::pg::{Major, Mode, Server};

use super::primary::{Primary, Rows};
use crate::service::{Node, flushed, keeping};

const ROWS: &str = "select n from numbered order by n";

/// One.
pub struct Postgres {
    server: Server,
}

impl Primary for Postgres {
    fn begin(_: &Path) -> Self {
        let server = keeping().start();
        server.sql("create table numbered (n bigint)");
        Self { server }
    }

    fn lines(&self) -> String {
        format!(
            "engine = \"postgres\"\nurl = \"postgresql://postgres@127.0.0.1:{}/postgres\"\nbin_dir = \"{}\"\n",
            self.server.port(),
            Major::V15.bin().display()
        )
    }

    fn commit(&mut self, row: u64) -> Option<u64> {
        let told = self.server.sql(&format!(
            "insert into numbered values ({row}) returning pg_current_xact_id()::text::bigint"
        ));
        Some(told.parse().unwrap())
    }

    fn rows(&mut self) -> Rows {
        rows(&self.server.sql(ROWS))
    }

    fn wait_stored(&mut self, node: &Node) {
        node.wait_end(1, flushed(&self.server));
    }

    fn crash(&mut self) {
        self.server.kill9();
    }

    fn start(&mut self) {
        self.server.start();
    }

    fn keep(&mut self, folder: &Path) {
        self.server.stop(Mode::Fast);
        copy(self.server.data_dir(), &kept(folder));
        self.server.start();
    }

    fn put_back(&mut self, folder: &Path) {
        self.server.stop(Mode::Fast);
        std::fs::remove_dir_all(self.server.data_dir()).unwrap();
        copy(&kept(folder), self.server.data_dir());
        self.server.start();
    }

    fn restored(node: &Node, target: &[&str]) -> Rows {
        rows(&node.restore_and("pause", target).sql(ROWS))
    }

    fn could_open(directory: &Path) -> bool {
        directory.join("global/pg_control").exists()
    }
}

fn rows(text: &str) -> Rows {
    text.lines().map(|line| line.parse().unwrap()).collect()
}

fn kept(folder: &Path) -> PathBuf {
    folder.join("kept")
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(done.unwrap().success(), "{} to {}", from.display(), to.display());
}
