//! The promise: what is read is what was chosen, a store that is away is never taken for one that has nothing, and a restore that
//! was cut off is gone on with or left alone, never mixed.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;

use std::path::PathBuf;

use farshore_journal::Offset;
use farshore_testkit::pg::{Mode, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::user;
use nix::fcntl::{Flock, FlockArg};
use service::{CONTENT, Node, SOON, flushed, keeping};

/// Gives the node's database a second store, `nas`, and these in this order.
fn stores(node: &Node, order: &[&str]) {
    let path = node.folder().join("farshore.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let nas = node.folder().join("nas");
    std::fs::create_dir_all(&nas).unwrap();
    user::give(node.folder());
    let names: Vec<String> = order.iter().map(|name| format!("\"{name}\"")).collect();
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| match line.starts_with("stores = ") {
            true => format!("stores = [{}]", names.join(", ")),
            false => line.to_owned(),
        })
        .collect();
    if !text.contains("[stores.nas]") {
        lines.push(format!("[stores.nas]\nurl = \"file:{}\"", nas.display()));
    }
    std::fs::write(&path, lines.join("\n")).unwrap();
}

/// The segment `back` before the one the server writes now.
fn segment(server: &Server, back: i64) -> String {
    let name = server.sql("select pg_walfile_name(pg_current_wal_lsn())");
    let number = i64::from_str_radix(&name[16..], 16).unwrap() - back;
    format!("{}{number:08X}", &name[..16])
}

fn switch(server: &Server, times: usize) {
    for _ in 0..times {
        server.sql(
            "insert into pgbench_history(tid, bid, aid, delta) values (1, 1, 1, 1); select pg_switch_wal()",
        );
    }
}

/// The exit code of a fetch, and the file if there is one.
fn fetch(node: &Node, arguments: &[&str], file: &str) -> (Option<i32>, Option<Vec<u8>>) {
    let place = user::tempdir();
    let to = place.path().join("f");
    let output = node.run(&[&["wal", "fetch"], arguments, &[file, to.to_str().unwrap()]].concat());
    eprintln!("{arguments:?} {file}: {}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), std::fs::read(to).ok())
}

/// A store's folder, away for as long as this lives.
struct Away {
    from: PathBuf,
    to: PathBuf,
}

impl Away {
    fn new(node: &Node, name: &str) -> Self {
        let (from, to) = (node.folder().join(name), node.folder().join(format!("{name} is away")));
        std::fs::rename(&from, &to).unwrap();
        Self { from, to }
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        std::fs::rename(&self.to, &self.from).unwrap();
    }
}

#[test]
fn a_segment_is_called_not_there_only_when_every_store_was_read_and_says_so() {
    let server = keeping().start();
    server.pgbench_init(1);
    let node = Node::new(&[&server]);
    stores(&node, &["main", "nas"]);
    let service = node.start(None);
    node.wait_backup(1);
    let both = wait_for(SOON, || {
        let plan = node.run(&[
            "-o",
            "json",
            "restore",
            "orders",
            "--latest",
            "--store",
            "nas",
            "--dry-run",
            "--to",
            "/nowhere",
        ]);
        plan.status.success().then_some(())
    });
    assert!(both.is_some(), "{}", node.log());
    service.stop();
    stores(&node, &["main"]);
    let service = node.start(None);
    switch(&server, 3);
    node.wait_end(1, flushed(&server));
    service.stop();
    let only_main = segment(&server, 1);
    let real = std::fs::read(server.data_dir().join("pg_wal").join(&only_main)).unwrap();
    let beyond = format!("{}000000F0", &only_main[..16]);
    for order in [["main", "nas"], ["nas", "main"]] {
        stores(&node, &order);
        assert_eq!(fetch(&node, &[], &only_main), (Some(0), Some(real.clone())), "{order:?}");
        assert_eq!(fetch(&node, &[], &beyond), (Some(1), None), "{order:?}");
        let _away = Away::new(&node, "journal");
        assert_eq!(fetch(&node, &[], &only_main), (Some(170), None), "{order:?}");
        assert_eq!(fetch(&node, &[], &beyond), (Some(170), None), "{order:?}");
        // A store that is named is the only one that is asked.
        assert_eq!(fetch(&node, &["--store", "nas"], &only_main), (Some(1), None), "{order:?}");
    }
    // A part of a segment is given only when no store has more of it.
    stores(&node, &["nas", "main"]);
    let lagging =
        node.json(&["restore", "orders", "--latest", "--store", "nas", "--dry-run", "--to", "/nowhere"]);
    let ends: Offset = lagging["resolved"]["position"].as_str().unwrap().parse().unwrap();
    let number = ends.get() / service::SEGMENT;
    let last_of_nas = format!("{}{number:08X}", &only_main[..16]);
    let real = std::fs::read(server.data_dir().join("pg_wal").join(&last_of_nas)).unwrap();
    assert_eq!(fetch(&node, &[], &last_of_nas), (Some(0), Some(real)));

    // A restore does not quietly end where another store does.
    stores(&node, &["main", "nas"]);
    let away = Away::new(&node, "journal");
    let latest = ["-o", "json", "restore", "orders", "--latest", "--dry-run", "--to", "/nowhere"];
    let refused = node.run(&latest);
    assert!(!refused.status.success(), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--store"), "{refused:?}");
    let named = node.json(&[&latest[2..], &["--store", "nas"]].concat());
    assert_eq!(named["resolved"]["position"], lagging["resolved"]["position"]);
    drop(away);
    let unknown = node.run(&[&latest[..], &["--store", "none"]].concat());
    assert_eq!(unknown.status.code(), Some(3), "{unknown:?}");
}

#[test]
fn an_older_incarnation_is_restored_and_fetched_when_it_is_named_and_never_by_chance() {
    let first = keeping().start();
    first.pgbench_init(1);
    let node = Node::new(&[&first]);
    let service = node.start(None);
    node.wait_backup(1);
    switch(&first, 2);
    node.wait_end(1, flushed(&first));
    service.stop();
    let content = first.sql(CONTENT);
    let file = segment(&first, 1);
    let real = std::fs::read(first.data_dir().join("pg_wal").join(&file)).unwrap();
    assert_eq!(fetch(&node, &[], &file), (Some(0), Some(real.clone())));
    first.stop(Mode::Fast);
    let second = keeping().start();
    second.pgbench_init(1);
    let node = Node::moved(node, &[&second]);
    let service = node.start(None);
    let founded = wait_for(SOON, || (node.incarnations().len() == 2).then_some(()));
    assert!(founded.is_some(), "{}", node.log());
    node.wait_backup(1);
    service.stop();
    let (old, _) = &node.incarnations()[0];
    assert_eq!(fetch(&node, &[], &file), (Some(170), None));
    assert_eq!(fetch(&node, &[], "00000009.history"), (Some(170), None));
    assert_eq!(fetch(&node, &["--incarnation", "0"], "00000009.history"), (Some(1), None));
    for named in ["0", &old.incarnation.to_string()] {
        assert_eq!(fetch(&node, &["--incarnation", named], &file), (Some(0), Some(real.clone())), "{named}");
        let earlier = node.restore(&["--latest", "--incarnation", named]);
        assert_eq!(earlier.sql(CONTENT), content, "{named}");
    }
    let newest = node.json(&["restore", "orders", "--latest", "--dry-run", "--to", "/nowhere"]);
    assert_ne!(newest["incarnation"], old.incarnation.to_string());
    let refused =
        node.run(&["restore", "orders", "--latest", "--incarnation", "7", "--dry-run", "--to", "/nowhere"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(3) && said.contains("0 in main, 1 in main"), "{refused:?}");
}

#[test]
fn an_interrupted_restore_is_begun_anew_when_it_is_asked_for_and_is_otherwise_left_alone() {
    let server = keeping().start();
    server.pgbench_init(1);
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    switch(&server, 1);
    node.wait_end(1, flushed(&server));
    service.stop();
    let content = server.sql(CONTENT);
    let place = user::tempdir();
    let to = place.path().join("data");
    let restore = |more: &[&str]| {
        let fixed = ["restore", "orders", "--latest", "--to", to.to_str().unwrap()];
        node.run(&[&fixed[..], more].concat())
    };
    // One of the backup's parts does not read for a while.
    let (_, reader) = node.incarnations().pop().unwrap();
    let backups = node.folder().join(format!("journal/db/orders/{}/backups", reader.incarnation()));
    let backup = std::fs::read_dir(backups).unwrap().next().unwrap().unwrap().path();
    let part = backup.join("part-0000000000000000");
    let away = backup.join("away");
    std::fs::rename(&part, &away).unwrap();
    assert_eq!(restore(&[]).status.code(), Some(1));
    assert!(to.join("farshore-restore.json").exists() && !to.join("global/pg_control").exists());
    std::fs::rename(&away, &part).unwrap();
    let refused = restore(&[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("--resume"), "{refused:?}");
    // While somebody else restores there, nobody does.
    {
        let other = std::fs::File::open(&to).unwrap();
        let _held = Flock::lock(other, FlockArg::LockExclusiveNonblock).unwrap();
        let refused = restore(&["--resume"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && said.contains("another process"), "{refused:?}");
    }
    let done = restore(&["--resume", "--start", "--port", "5432", "--then", "promote"]);
    assert!(done.status.success(), "{done:?}");
    let copy = service::Restored::at(to, place, String::from_utf8_lossy(&done.stdout).into_owned());
    assert_eq!(copy.sql(CONTENT), content);
}
