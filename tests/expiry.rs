//! The promise: what a rule, a hold, a backup or a running restore needs is never deleted; what none needs goes, a grace after it was marked; and whatever went, the
//! journal reads, restores and is shipped on as before.
//!
//! Method: a day lasts some seconds, by a point of failure that the command has in tests alone. Each day a service ships a little, a base backup is taken, and the
//! service stops.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

#[path = "expiry/by_a_service.rs"]
mod by_a_service;
mod service;
mod sqlite;

use std::path::Path;
use std::process::Output;
use std::time::{Duration, SystemTime};

use farshore_journal::{BackupId, Offset};
use farshore_testkit::pg::Server;
use farshore_testkit::process::wait_for;
use farshore_testkit::random::Random;
use farshore_testkit::soak::Campaign;
use farshore_testkit::user;
use serde_json::Value;
use service::{Node, SOON, all, flushed, keeping, let_pass};
use sqlite::application::Application;

/// How long a day is.
const DAY: Duration = Duration::from_secs(6);

/// A commit that was noted: its position, and how many rows there were.
#[derive(Debug, Clone)]
struct Noted {
    day: u64,
    at: SystemTime,
    position: Offset,
    rows: u64,
}

/// A primary with a node that has a rule.
struct Story {
    server: Server,
    node: Node,
    noted: Vec<Noted>,
    day: u64,
    began: SystemTime,
    /// Whether base backups refer to those before.
    refresh: bool,
}

impl Story {
    fn begin(rule: &str) -> Self {
        let server = keeping().start();
        server.sql("create table kept (day bigint, at bigint)");
        let node = Node::new(&[&server]);
        node.configure(|text| format!("{text}\n[databases.orders.retention]\n{rule}\n"));
        Self { server, node, noted: Vec::new(), day: 0, began: SystemTime::now(), refresh: false }
    }

    /// A day's work: a base backup in its midst, and commits before and behind it.
    fn day(&mut self, with_backup: bool) {
        let service = self.node.start(None);
        self.node.wait_connected();
        self.note();
        if self.day == 0 {
            self.node.wait_backup(1);
        } else if with_backup {
            let how = if self.refresh { "--refresh" } else { "--full" };
            let output = self.node.run(&["backup", "run", "orders", how]);
            assert!(output.status.success(), "{output:?}\n{}", self.node.log());
        }
        self.note();
        self.node.wait_end(1, flushed(&self.server));
        service.stop();
        self.day += 1;
        self.rest_of_the_day();
    }

    fn rest_of_the_day(&self) {
        let ends = self.began + DAY * u32::try_from(self.day).unwrap();
        let_pass(ends.duration_since(SystemTime::now()).unwrap_or_default());
    }

    fn note(&mut self) {
        self.server.sql(&format!("insert into kept select {}, generate_series(1, 500)", self.day));
        let rows = self.server.sql("select count(*) from kept").parse().unwrap();
        let position = flushed(&self.server);
        self.noted.push(Noted { day: self.day, at: SystemTime::now(), position, rows });
        // The next commit is another day's or comes later: what is noted is the last before it.
        self.server.sql("select pg_switch_wal()");
    }

    fn expire(&self, more: &[&str]) -> Value {
        let output = self.expire_until("", &[&["-o", "json"], more].concat());
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat())
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Asks for it with days of some seconds, and perhaps with a step at which it is ended as by a kill.
    fn expire_until(&self, crash: &str, more: &[&str]) -> Output {
        let days = format!("expire-day=return({}){crash}", DAY.as_secs());
        let output = self.node.run_until(&days, &[&["--yes", "backup", "expire", "orders"], more].concat());
        age_jobs(&self.node);
        output
    }

    /// Holds a point, with days of some seconds.
    fn hold(&self, noted: &Noted, reason: &str) -> Output {
        let days = format!("expire-day=return({})", DAY.as_secs());
        let position = noted.position.to_string();
        self.node.run_until(&days, &["points", "hold", "orders", &position, "--reason", reason])
    }

    fn plan(&self, position: Offset) -> (Option<i32>, String) {
        let target = position.to_string();
        let output = self.node.run(&["restore", "orders", "--pos", &target, "--to", "/nowhere", "--dry-run"]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Restores for real and counts.
    fn restored_rows(&self, noted: &Noted) -> u64 {
        let restored = self.node.restore(&["--pos", &noted.position.to_string()]);
        restored.sql("select count(*) from kept").parse().unwrap()
    }

    fn is_whole(&self) {
        let output = self.node.run(&["verify", "orders"]);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(0), "{said}");
    }

    /// What `status` shows holds no point that a restore refuses, and a gap of it is what expired.
    fn tells_what_expired_as_a_gap(&self) {
        let status = self.node.json(&["status", "orders"]);
        let window = &service::first(&status)["window"];
        let gaps = window["gaps"].as_array().unwrap();
        assert!(gaps.iter().all(|gap| gap["reason"].as_str().unwrap().starts_with("expired")), "{status}");
        let offset = |text: &Value| text.as_str().unwrap().split_once(':').unwrap().1.parse().unwrap();
        let mut spans: Vec<(Offset, Offset)> =
            vec![(offset(&window["from_position"]), offset(&window["to_position"]))];
        let older = |gap: &Value| (offset(&gap["older_from_position"]), offset(&gap["from_position"]));
        spans.extend(gaps.iter().map(older));
        for noted in &self.noted {
            let shown = spans.iter().any(|(from, to)| *from <= noted.position && noted.position <= *to);
            let (code, said) = self.plan(noted.position);
            assert!(!shown || code == Some(0), "day {}: {said}\n{status}", noted.day);
        }
    }

    fn deleted(answer: &Value) -> (u64, u64) {
        let number = |item: &Value, field: &str| item[field].as_u64().unwrap();
        all(answer).iter().fold((0, 0), |(backups, objects), item| {
            (backups + number(item, "deleted_backups"), objects + number(&item["deleted"], "objects"))
        })
    }
}

#[test]
fn what_lies_before_the_window_goes_a_day_after_it_was_marked_and_all_else_restores_as_before() {
    let mut story = Story::begin("window = \"3d\"\ncount = 2");
    story.day(true);
    story.day(true);
    // A point of the second day is to stay for ever.
    let held = story.noted[3].clone();
    let position = held.position.to_string();
    story.node.json(&["points", "hold", "orders", &position, "--reason", "end of the year"]);
    let over = [
        "points",
        "hold",
        "orders",
        &position,
        "--reason",
        "a year too early",
        "--until",
        "2023-12-31T00:00:00Z",
    ];
    assert_eq!(story.node.run(&over).status.code(), Some(4), "a hold that is over holds nothing");
    // Who held what, and that it was let go, is in the record of activity; a hold that nobody has is no entry.
    let other = story.noted[1].position.to_string();
    let put = story.node.json(&["points", "hold", "orders", &other, "--reason", "for a while"]);
    let hold = service::first(&put)["hold"].as_str().unwrap().to_owned();
    assert!(story.node.run(&["points", "release", "orders", &hold]).status.success());
    let nobodys = hold.chars().rev().collect::<String>();
    assert!(!story.node.run(&["points", "release", "orders", &nobodys]).status.success());
    let listed = story.node.json(&["activity", "list"]);
    let entries = service::all(&listed);
    let said: Vec<&str> = entries.iter().filter_map(|entry| entry["what"].as_str()).collect();
    let of_holds = |what: &str| said.iter().filter(|said| **said == what).count();
    assert_eq!((of_holds("points hold"), of_holds("points release")), (2, 1), "{entries:?}");
    let let_go = entries.iter().find(|entry| entry["what"] == "points release").unwrap();
    assert!(let_go["database"] == "orders" && let_go["detail"].as_str().unwrap().contains(&hold), "{let_go}");
    for _ in 2..7 {
        story.day(true);
    }
    let planned = story.expire(&["--dry-run"]);
    assert_eq!(Story::deleted(&planned), (0, 0), "nothing was marked yet: {planned}");
    let marked = story.expire(&[]);
    let item = service::first(&marked).clone();
    assert!(item["marked_backups"].as_u64().unwrap() >= 1, "{marked}");
    assert_eq!(Story::deleted(&marked), (0, 0), "nothing goes on the day it is marked: {marked}");
    assert!(item["marked_stretches"].as_u64().unwrap() >= 1, "the log of the first day: {marked}");
    let listed = story.node.json(&["backup", "list", "orders"]);
    let mut bases = all(&listed);
    bases.sort_by_key(|base| base["started"].as_str().unwrap().to_owned());
    let kept = item["kept"].as_array().unwrap();
    let held_base = kept.iter().find(|kept| kept[1] == "hold").map(|kept| &kept[0]);
    assert_eq!(held_base, Some(&bases[1]["id"]), "the newest before the held point: {marked} {bases:?}");
    let journal = story.node.folder().join("journal");
    let objects = || walk(&journal);
    let before = objects();
    assert_eq!(Story::deleted(&story.expire(&[])), (0, 0));
    assert_eq!(objects(), before, "asking again changes nothing");
    story.day(true);
    story.day(true);
    let before = objects();
    // Killed in the midst of it, and asked again.
    for crash in [";expire-backup=return", ";expire-run=return"] {
        let output = story.expire_until(crash, &[]);
        assert!(output.status.code().is_none(), "{crash} was not reached: {output:?}");
    }
    let done = story.expire(&[]);
    let after = walk(&story.node.folder().join("journal"));
    assert!(after < before, "{done}: {after} of {before} objects");
    story.is_whole();
    let mut refused = 0;
    for noted in &story.noted {
        let (code, said) = story.plan(noted.position);
        let is_held = noted.position == held.position;
        match code {
            Some(0) => {}
            Some(4) if !is_held && SystemTime::now().duration_since(noted.at).unwrap() > DAY * 3 => {
                refused += 1;
                // The base of the held point leads to it, and the log between is gone. Marks are seconds old by the real calendar.
                let point = noted.position.to_string();
                let put = story.node.run(&["points", "hold", "orders", &point, "--reason", "too late"]);
                assert_eq!(put.status.code(), Some(4), "{put:?}");
            }
            _ => panic!("day {}: {code:?} {said}", noted.day),
        }
    }
    assert!(refused >= 1, "what expired is refused before a byte is written");
    story.tells_what_expired_as_a_gap();
    assert_eq!(story.restored_rows(&held), held.rows);
    let newest = story.noted.last().unwrap().clone();
    assert_eq!(story.restored_rows(&newest), newest.rows);
    // Shipping goes on, in the same incarnation and with the same bases; the catalog is made anew from what is left.
    let backups = story.node.backups();
    story.day(false);
    assert_eq!((story.node.backups(), story.node.incarnations().len()), (backups, 1), "{}", story.node.log());
    std::fs::remove_file(story.node.folder().join("farshore.db")).unwrap();
    let rebuilt = story.node.run(&["catalog", "rebuild"]);
    assert!(rebuilt.status.success(), "{rebuilt:?}");
    story.tells_what_expired_as_a_gap();
    assert_eq!(story.restored_rows(&held), held.rows);
    story.is_whole();
}

/// Of a base backup that refers to others only what changed is its own: they stay for as long as it does, and go behind it.
#[test]
fn a_base_backup_that_others_refer_to_stays_with_them_and_goes_with_them() {
    let mut story = Story::begin("window = \"2d\"\ncount = 1");
    story.refresh = true;
    for _ in 0..5 {
        story.day(true);
    }
    let listed = story.node.json(&["backup", "list", "orders"]);
    let bases = all(&listed);
    let first = bases.iter().find(|base| base["refers_to"].as_array().unwrap().is_empty()).unwrap();
    let first = first["id"].as_str().unwrap().to_owned();
    assert_eq!(bases.len(), 5, "{bases:?}");
    assert!(
        bases.iter().filter(|base| base["id"] != *first).all(|base| base["refers_to"]
            .as_array()
            .unwrap()
            .iter()
            .any(|id| *id == *first))
    );
    for _ in 0..3 {
        let answer = story.expire(&[]);
        let kept = service::first(&answer)["kept"].as_array().unwrap().clone();
        let why = kept.iter().find(|kept| kept[0] == *first).map(|kept| kept[1].as_str().unwrap());
        assert_eq!(why, Some("referred to"), "{answer}");
        story.day(true);
    }
    let newest = story.noted.last().unwrap().clone();
    assert_eq!(story.restored_rows(&newest), newest.rows);
    story.is_whole();
    // Full ones follow: nobody needs the others any more.
    story.refresh = false;
    let left = |story: &Story| {
        let left = story.node.json(&["backup", "list", "orders"]);
        let referring = |base: &&&Value| !base["refers_to"].as_array().unwrap().is_empty();
        let all = all(&left);
        all.iter().filter(|base| referring(base) || base["id"] == *first).count()
    };
    for _ in 0..8 {
        story.day(true);
        story.expire(&[]);
        if left(&story) == 0 {
            break;
        }
    }
    assert_eq!(left(&story), 0, "{}", story.node.json(&["backup", "list", "orders"]));
    story.is_whole();
    let newest = story.noted.last().unwrap().clone();
    assert_eq!(story.restored_rows(&newest), newest.rows);
}

/// Nobody need stop a service for its log to expire: it opens the journal anew once a day.
#[test]
fn log_expires_beside_a_service_that_never_stops() {
    let mut story = Story::begin("window = \"2d\"\ncount = 1");
    let service = story.node.start(Some(&format!("generation-lasts=return({})", DAY.as_secs())));
    story.node.wait_backup(1);
    for day in 0..7 {
        story.note();
        if day > 0 {
            let output = story.node.run(&["backup", "run", "orders"]);
            assert!(output.status.success(), "{output:?}\n{}", story.node.log());
        }
        story.note();
        story.node.wait_end(1, flushed(&story.server));
        story.day += 1;
        story.rest_of_the_day();
        if day > 3 {
            story.expire(&[]);
        }
    }
    let journal = story.node.folder().join("journal");
    let before = walk(&journal);
    let done = wait_for(SOON, || {
        let_pass(DAY / 2);
        Some(story.expire(&[])).filter(|done| Story::deleted(done).1 > 0 || walk(&journal) < before)
    });
    assert!(done.is_some(), "{}", story.node.log());
    story.tells_what_expired_as_a_gap();
    assert_eq!(story.node.log().matches("took the journal over").count(), 1, "{}", story.node.log());
    assert_eq!(story.node.log().matches("shipping paused").count(), 0, "{}", story.node.log());
    story.note();
    story.node.wait_end(1, flushed(&story.server));
    service.stop();
    story.is_whole();
    let newest = story.noted.last().unwrap().clone();
    assert_eq!(story.restored_rows(&newest), newest.rows);
    let (code, said) = story.plan(story.noted[0].position);
    assert_eq!(code, Some(4), "{said}");
}

/// The process that was killed is taken for silent only by a service, fifteen seconds later; here its job is ended by hand, as a service would a day later.
fn age_jobs(node: &Node) {
    node.change_catalog(
        "update job set state = 'failed', finished_at = 1, updated_at = 1 where kind = 'expire' and (state = 'running' or silent = 1)",
    );
}

fn walk(folder: &Path) -> usize {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() { walk(&entry.path()) } else { 1 }
        })
        .sum()
}

/// A hold whose base is found bad leans on an older one only where that one leads to its point: over log that has expired meanwhile none does.
#[test]
fn a_held_point_whose_base_went_bad_keeps_everything_where_no_other_base_leads_to_it() {
    let mut story = Story::begin("window = \"2d\"\ncount = 1");
    story.day(true);
    let early = story.noted[1].clone();
    assert!(story.hold(&early, "the beginning").status.success());
    for _ in 1..4 {
        story.day(true);
    }
    let late = story.noted[7].clone();
    assert!(story.hold(&late, "the fourth day").status.success());
    let ids = |story: &Story| {
        let listed = story.node.json(&["backup", "list", "orders"]);
        let mut bases = all(&listed).into_iter().cloned().collect::<Vec<Value>>();
        bases.sort_by_key(|base| base["started"].as_str().unwrap().to_owned());
        bases.iter().map(|base| base["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let bases = ids(&story);
    let held = bases[3].clone();
    // Until the bases and the log between the two went.
    let is_gone = |story: &Story| {
        let left = ids(story);
        let gone = |position| story.plan(position).0 == Some(4);
        !left.contains(&bases[1])
            && !left.contains(&bases[2])
            && gone(story.noted[4].position)
            && gone(story.noted[6].position)
    };
    for _ in 0..10 {
        story.day(true);
        story.expire(&["--yes"]);
        if is_gone(&story) {
            break;
        }
    }
    assert!(is_gone(&story), "the log between them went");
    assert_eq!(story.plan(late.position).0, Some(0));
    let part = find(&story.node.folder().join("journal"), &|path| {
        path.to_str().unwrap().contains(&held)
            && path.file_name().unwrap().to_str().unwrap().starts_with("part-")
    });
    let part = part.expect("a part of the base that the hold keeps");
    let mut bytes = std::fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&part, bytes).unwrap();
    assert_eq!(story.node.run(&["verify", "orders"]).status.code(), Some(9));
    for _ in 0..3 {
        let output = story.expire_until("", &[]);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.code() == Some(4) && said.contains("leads to the point of hold"), "{said}");
        story.day(true);
    }
    assert!(part.exists(), "what is left of the only base that led there");
}

/// The first file below a folder that is so.
fn find(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Option<std::path::PathBuf> {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries.into_iter().find_map(|path| match path.is_dir() {
        true => find(&path, wanted),
        false => wanted(&path).then_some(path),
    })
}

#[test]
fn a_sqlite_databases_log_expires_and_what_is_left_restores_in_the_same_incarnation() {
    let node = sqlite::node(4096);
    node.configure(|text| format!("{text}\n[databases.orders.retention]\nwindow = \"2d\"\ncount = 1\n"));
    // It keeps the database open, so that the log goes on where no service runs.
    let mut application = Application::open(&sqlite::database(&node));
    application.ask("create table kept (day integer, content text)");
    let days = format!("expire-day=return({})", DAY.as_secs());
    let (mut noted, mut deleted) = (Vec::new(), 0);
    for day in 0..9 {
        let begun = SystemTime::now();
        let service = node.start(None);
        node.wait_connected();
        application.ask(&format!("insert into kept select {day}, hex(randomblob(400))"));
        if day == 0 {
            node.wait_backup(1);
        } else {
            let output = node.run(&["backup", "run", "orders"]);
            assert!(output.status.success(), "{output:?}\n{}", node.log());
        }
        application.ask(&format!("insert into kept select {day}, hex(randomblob(400))"));
        sqlite::settle(&node);
        noted.push((SystemTime::now(), node.end().unwrap().offset, 2 * (day + 1)));
        service.stop();
        let_pass((begun + DAY).duration_since(SystemTime::now()).unwrap_or_default());
        let output = node.run_until(&days, &["-o", "json", "--yes", "backup", "expire", "orders"]);
        if output.status.success() {
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
            deleted += Story::deleted(&answer).1;
        }
    }
    assert!(deleted > 0, "nothing ever expired");
    assert_eq!(node.incarnations().len(), 1, "{}", node.log());
    let verified = node.run(&["verify", "orders"]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    for (place, (_, position, rows)) in
        noted.iter().filter(|(at, _, _)| at.elapsed().unwrap() < DAY * 2).enumerate()
    {
        let to = format!("copy-{place}");
        let output = node.run(&["restore", "orders", "--pos", &position.to_string(), "--to", &to]);
        assert!(output.status.success(), "{output:?}");
        let mut copy = Application::open(&node.folder().join(&to).join("app.db"));
        assert_eq!(copy.ask("select count(*) from kept"), format!("[[{rows}]]"));
    }
    // The catalog is made anew from what is left, and the shipper goes on.
    std::fs::remove_file(node.folder().join("farshore.db")).unwrap();
    assert!(node.run(&["catalog", "rebuild"]).status.success());
    let service = node.start(None);
    node.wait_connected();
    application.ask("insert into kept values (99, 'more')");
    sqlite::settle(&node);
    service.stop();
    assert_eq!(node.incarnations().len(), 1, "{}", node.log());
}

#[test]
fn nothing_is_deleted_while_the_catalog_is_away_disagrees_or_a_restore_may_run() {
    let mut story = Story::begin("window = \"1d\"\ncount = 1");
    for _ in 0..4 {
        story.day(true);
    }
    story.expire(&[]);
    story.day(true);
    let refused = |story: &Story, says: &str| {
        let before = walk(&story.node.folder().join("journal"));
        let days = format!("expire-day=return({})", DAY.as_secs());
        let output = story.node.run_until(&days, &["-o", "json", "--yes", "backup", "expire", "orders"]);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() && said.contains(says), "{says}: {said}");
        assert_eq!(walk(&story.node.folder().join("journal")), before, "{says}");
    };
    // With its log, which holds what was written last where a process ended without closing it.
    let files =
        ["farshore.db", "farshore.db-wal", "farshore.db-shm"].map(|name| story.node.folder().join(name));
    let aside =
        |file: &Path| file.with_file_name(format!("aside-{}", file.file_name().unwrap().to_str().unwrap()));
    for file in files.iter().filter(|file| file.exists()) {
        std::fs::rename(file, aside(file)).unwrap();
    }
    refused(&story, "there is no catalog");
    for file in &files {
        let _ = std::fs::remove_file(file);
        if aside(file).exists() {
            std::fs::rename(aside(file), file).unwrap();
        }
    }
    // A backup that the store lost.
    let (_, reader) = story.node.incarnations().pop().unwrap();
    let id = service::wait(farshore_journal::backup::list(&reader)).unwrap()[0];
    let manifest =
        story.node.folder().join("journal").join(reader.layout().backup_manifest(id).unwrap().to_string());
    let lost = story.node.folder().join("lost");
    std::fs::rename(&manifest, &lost).unwrap();
    let marked = manifest.with_file_name("expiring").exists();
    if !marked {
        refused(&story, "does not have it");
    }
    std::fs::rename(&lost, &manifest).unwrap();
    // A restore that may run.
    let insert = "insert into job (id, kind, database_name, spec, asked_by, asked_via, asked_at, state, attempt, beat, silent, started_at, updated_at) select 'jb-0000000000', 'restore', 'orders', '{}', 'x', 'command', 1, 'running', 1, 1, 0, 1, 1";
    story.node.change_catalog(insert);
    refused(&story, "may be under way");
}

/// A part that rots keeps its name and its length, which is all that expiry looks at itself.
#[test]
fn a_base_that_a_verification_found_damaged_begins_no_window_and_lets_no_other_go() {
    let mut story = Story::begin("window = \"1d\"\ncount = 1");
    for _ in 0..4 {
        story.day(true);
    }
    let (_, reader) = story.node.incarnations().pop().unwrap();
    let mut bases: Vec<(Offset, BackupId)> = service::wait(farshore_journal::backup::list(&reader))
        .unwrap()
        .into_iter()
        .map(|id| {
            let standing = service::wait(farshore_journal::backup::standing(&reader, id)).unwrap();
            (standing.complete.unwrap().end.offset, id)
        })
        .collect();
    bases.sort_unstable();
    let folder = story.node.folder().join("journal");
    let part = |id: BackupId| {
        folder.join(reader.layout().backup_part(id, farshore_journal::Sequence::FIRST).unwrap().to_string())
    };
    let rotten: Vec<(std::path::PathBuf, Vec<u8>)> =
        bases[1..].iter().map(|(_, id)| (part(*id), std::fs::read(part(*id)).unwrap())).collect();
    for (path, bytes) in &rotten {
        let mut changed = bytes.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        std::fs::write(path, changed).unwrap();
    }
    let begins = |story: &Story| {
        let status = story.node.json(&["status", "orders"]);
        let status = service::first(&status);
        let from: Offset =
            status["window"]["from_position"].as_str().unwrap().split_once(':').unwrap().1.parse().unwrap();
        (from, status["backups"]["bad"].as_u64().unwrap())
    };
    assert_eq!(story.node.run(&["verify", "orders"]).status.code(), Some(9));
    assert_eq!(begins(&story), (bases[0].0, bases.len() as u64 - 1));
    let output = story.expire_until("", &["-o", "json"]);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.code() == Some(4) && said.contains("no sound base backup was completed"), "{said}");
    assert!(!part(bases[0].1).with_file_name("expiring").exists(), "{said}");
    // The store's bytes are mended.
    for (path, bytes) in &rotten {
        std::fs::write(path, bytes).unwrap();
    }
    story.is_whole();
    assert_eq!(begins(&story), (bases[0].0, 0));
    story.expire(&[]);
    assert!(part(bases[0].1).with_file_name("expiring").exists());
}

#[test]
fn soak_random_schedules_of_backup_hold_expire_restore_and_crash_lose_nothing() {
    let mut campaign =
        Campaign::start("random_schedules_of_backup_hold_expire_restore_and_crash_lose_nothing");
    while campaign.next_round() {
        let seed = campaign.random.number();
        one_schedule(seed, &mut campaign);
        if campaign.is_brief() {
            break;
        }
    }
    campaign.finish();
}

/// A drill of the newest state, which is whole whatever expired.
fn rehearse(story: &Story, seed: u64, campaign: &mut Campaign) {
    let output = story.node.run(&["drill", "run", "orders"]);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(0), "seed {seed}: {said}");
    campaign.count("drills", 1);
}

/// A restore that has begun finishes: expiry keeps off.
fn expire_beside_a_restore(story: &Story, seed: u64, campaign: &mut Campaign) {
    let folder = user::tempdir();
    let to = folder.path().join("data").display().to_string();
    let line = ["restore", "orders", "--latest", "--to", &to];
    let mut restore = story.node.beside_others_at("restore-copying=sleep(20)", &line, "restore.log");
    let begun = wait_for(SOON, || {
        let jobs = story.node.json(&["job", "list"]);
        let is_seen = all(&jobs).iter().any(|job| job["kind"] == "restore" && job["state"] == "running");
        (is_seen || restore.ended().is_some()).then_some(())
    });
    assert!(begun.is_some(), "seed {seed}: no restore begins");
    let days = format!("expire-day=return({})", DAY.as_secs());
    let output = story.node.run_until(&days, &["--yes", "backup", "expire", "orders"]);
    let is_over = restore.ended().is_some();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    // One that was quicker than the expiry may find the job over.
    assert!(is_over || output.status.code() == Some(4), "seed {seed}: {said}");
    let ended = restore.wait(SOON);
    let log = std::fs::read_to_string(story.node.folder().join("restore.log")).unwrap_or_default();
    assert!(ended.is_some_and(|status| status.success()), "seed {seed}: {log}");
    campaign.count("beside_restores", 1);
}

fn one_schedule(seed: u64, campaign: &mut Campaign) {
    let mut random = Random::new(seed);
    let (window, count) = (1 + random.below(3), 1 + random.below(2));
    let mut story = Story::begin(&format!("window = \"{window}d\"\ncount = {count}"));
    let mut held: Vec<Noted> = Vec::new();
    for _ in 0..6 + random.below(4) {
        story.refresh = random.below(2) == 0;
        story.day(random.below(4) > 0);
        campaign.count("refreshes", u64::from(story.refresh));
        if random.below(3) == 0 {
            let noted = story.noted[random.below(story.noted.len() as u64) as usize].clone();
            let output = story.hold(&noted, "by chance");
            if output.status.success() {
                held.push(noted);
                campaign.count("holds", 1);
            }
        }
        for _ in 0..random.below(3) {
            let crash = [";expire-backup=return", ";expire-run=return", "", ""][random.below(4) as usize];
            let output = story.expire_until(crash, &[]);
            campaign.count(if output.status.code().is_none() { "crashes" } else { "expiries" }, 1);
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(!said.contains("panicked"), "seed {seed}: {said}");
        }
        match random.below(4) {
            0 => rehearse(&story, seed, campaign),
            1 => expire_beside_a_restore(&story, seed, campaign),
            _ => {}
        }
        // Each noted commit behind the window's first base, and each held one.
        for noted in story.noted.iter().filter(|noted| {
            SystemTime::now().duration_since(noted.at).unwrap_or_default()
                < DAY * u32::try_from(window).unwrap()
                || held.iter().any(|held| held.position == noted.position)
        }) {
            let (code, said) = story.plan(noted.position);
            let first_base_is_later = noted.day == 0;
            assert!(
                code == Some(0) || first_base_is_later,
                "seed {seed}: day {} of {}: {code:?} {said}",
                noted.day,
                story.day
            );
            campaign.count("plans", 1);
        }
    }
    story.is_whole();
    for noted in held.iter().chain(story.noted.last()).take(2) {
        assert_eq!(story.restored_rows(noted), noted.rows, "seed {seed}");
        campaign.count("restores", 1);
    }
    campaign.count("schedules", 1);
}
