//! Commands on a standby that `standby create` made: hold it, let it go, promote it, remove it.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use farshore_testkit::pg::{Length, Major, Mode, Server};
use farshore_testkit::process::{Owned, wait_for};
use farshore_testkit::user;
use serde_json::Value;

use crate::service::{Node, SOON, Service, flushed, keeping};
use crate::{Copy, PASSWORD, commits, is_listed, listed, port, rows, serving};

const CONTENT: &str = "select count(*), sum(id), md5(string_agg(id::text, ',' order by id)) from kept";

/// A primary that is shipped, and a standby of it that follows what is served.
struct Pair {
    primary: Server,
    node: Node,
    standby: Server,
    place: Copy,
    port: u16,
}

impl Pair {
    fn of(major: Major) -> (Self, Service) {
        let primary = match major {
            Major::V15 => keeping().start(),
            other => Server::start_new(other),
        };
        primary.sql("create table kept (id bigint)");
        let node = serving(&primary, "");
        let own = Major::V15.bin().display().to_string();
        node.configure(|text| text.replace(&own, &major.bin().display().to_string()));
        let service = node.start(None);
        let port = port(&service);
        node.wait_backup(1);
        commits(&primary, 1000);
        node.wait_end(1, flushed(&primary));
        let place = Copy { place: user::tempdir() };
        let standby = created(&node, &place.data(), port, major);
        // With the log around its end at hand, whoever ships it once it is promoted sees that it goes on from the journal.
        standby.conf("wal_keep_size = 1GB");
        standby.start();
        is_listed(&node, |shown| shown["state"] == "streaming");
        rows(&standby, 1000);
        (Self { primary, node, standby, place, port }, service)
    }

    /// Ships on, and serves at another place than the standby asks.
    fn ships_unserved(&self) -> Service {
        self.node.start(None)
    }

    /// Ships, and serves where the standby asks.
    fn serves_again(&self) -> Service {
        let port = self.port;
        self.node.configure(|text| {
            text.replace(
                "listen = \"127.0.0.1:0\"\n\n[serve",
                &format!("listen = \"127.0.0.1:{port}\"\n\n[serve"),
            )
        });
        self.node.start(None)
    }

    /// A verb on the standby's directory.
    fn does(&self, verb: &str, more: &[&str]) -> Output {
        on(&self.node, verb, &self.place.data(), more)
    }

    fn did(&self, verb: &str, more: &[&str]) -> Value {
        let done = self.does(verb, &[&["-o", "json"], more].concat());
        assert!(done.status.success(), "{done:?}\n{}", self.standby.log());
        serde_json::from_slice(&done.stdout).unwrap()
    }

    /// Waits until the standby has received all that the primary has.
    fn wait_received(&self) {
        let end = flushed(&self.primary);
        let received = format!("select pg_last_wal_receive_lsn() >= '{end}'");
        let has = wait_for(SOON, || (self.standby.sql(&received) == "t").then_some(()));
        assert!(has.is_some(), "{}", self.standby.log());
    }

    /// Ends the primary, and whoever serves once the standby has received all that is stored.
    fn burns(&self, service: Service) {
        self.primary.stop(Mode::Fast);
        let all = wait_for(SOON, || {
            let end = self.node.end()?.offset;
            crate::service::let_pass(Duration::from_secs(1));
            let received = self.standby.sql("select pg_last_wal_receive_lsn()");
            (self.node.end()?.offset == end && received == end.to_string()).then_some(())
        });
        assert!(all.is_some(), "{:?}\n{}", self.node.end(), self.standby.log());
        service.kill9();
    }
}

fn created(node: &Node, to: &Path, port: u16, major: Major) -> Server {
    let data = to.display().to_string();
    let server = format!("host=127.0.0.1 port={port} user=far password='{PASSWORD}' sslmode=disable");
    let made =
        node.run(&["standby", "create", "orders", "--to", &data, "--name", "oslo", "--server", &server]);
    assert!(made.status.success(), "{made:?}\n{}", node.log());
    Server::on_data_dir(major, to)
}

fn on(node: &Node, verb: &str, directory: &Path, more: &[&str]) -> Output {
    let to = directory.display().to_string();
    let user: &[&str] = if verb == "drop" { &[] } else { &["--user", "postgres"] };
    node.run(&[&["standby", verb, "--to", &to], user, more].concat())
}

fn refused(output: &Output, exit: i32, code: &str, says: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{text}");
    assert!(text.contains(code), "{text}");
    for words in says {
        assert!(text.contains(words), "{words:?} is not said: {text}");
    }
}

/// Names, sizes and times of what lies in a directory.
fn seen(directory: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let found = entry.path().symlink_metadata().unwrap();
        all.push((entry.path(), found.len(), found.modified().unwrap()));
        if found.is_dir() {
            all.extend(seen(&entry.path()));
        }
    }
    all.sort();
    all
}

fn a_pause_holds_replay_while_log_comes_in(major: Major) {
    let (pair, service) = Pair::of(major);
    let said = pair.did("pause", &[]);
    assert_eq!((&said["paused"], &said["streams"]), (&true.into(), &true.into()), "{said}");
    commits(&pair.primary, 2000);
    pair.wait_received();
    // It is held already: that is no fault, and it stands where it stood.
    let again = pair.did("pause", &[]);
    assert_eq!(again["replayed"], said["replayed"], "{again}");
    assert_ne!(again["received"], said["received"], "{again}");
    assert_eq!(pair.standby.sql("select count(*) from kept"), "1000");
    let text = pair.does("pause", &[]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("log is received all the while"), "{text}");
    // Twice: one that replays is let go without a fault too.
    for _ in 0..2 {
        let said = pair.did("resume", &[]);
        assert_eq!(said["paused"], false, "{said}");
    }
    rows(&pair.standby, 2000);
    service.stop();
}

#[test]
fn a_pause_of_a_15_holds_replay_while_log_comes_in_and_resume_catches_up() {
    a_pause_holds_replay_while_log_comes_in(Major::V15);
}

#[test]
fn a_pause_of_a_17_holds_replay_while_log_comes_in_and_resume_catches_up() {
    a_pause_holds_replay_while_log_comes_in(Major::V17);
}

/// Whoever serves is gone before the standby has all, which is held besides; then it is there again, and the primary burns while replay is held.
fn a_standby_is_promoted_only_once_it_has_all(major: Major) {
    let (pair, service) = Pair::of(major);
    service.stop();
    let service = pair.ships_unserved();
    commits(&pair.primary, 2000);
    pair.node.wait_end(1, flushed(&pair.primary));
    pair.did("pause", &[]);
    let behind = pair.does("promote", &[]);
    refused(
        &behind,
        4,
        "FS-0510",
        &["bytes more than it received", "stays a standby", "--as-it-is", "serve-journal"],
    );
    // Held it would never connect again.
    assert!(String::from_utf8_lossy(&behind.stderr).contains("was held, and goes on now"), "{behind:?}");
    assert_eq!(
        pair.standby.sql("select pg_is_in_recovery(), pg_get_wal_replay_pause_state()"),
        "t|not paused"
    );
    service.stop();
    let service = pair.serves_again();
    rows(&pair.standby, 2000);
    pair.did("pause", &[]);
    commits(&pair.primary, 3000);
    let content = pair.primary.sql(CONTENT);
    pair.burns(service);
    assert_eq!(pair.standby.sql("select count(*) from kept"), "2000", "it is held still");
    let end = pair.node.end().unwrap();
    let said = pair.did("promote", &[]);
    assert_eq!(
        (&said["timeline"], &said["reaches_the_end"], &said["follows_nobody"]),
        (&2.into(), &true.into(), &true.into()),
        "{said}"
    );
    assert!(said["left"].as_str().unwrap().starts_with("1:"), "{said} of {end}");
    assert_eq!(pair.standby.sql(CONTENT), content);
    pair.standby.sql("insert into kept values (-1)");
    assert_eq!(pair.standby.sql("select pg_is_in_recovery(), current_setting('primary_conninfo')"), "f|");
    // It is nobody's standby any more, and no command takes it for one.
    for verb in ["promote", "pause", "resume"] {
        refused(&pair.does(verb, &[]), 5, "FS-0506", &["database of its own"]);
    }
    refused(&pair.does("drop", &["--yes", "--stop"]), 5, "FS-0506", &["database of its own"]);
    // What comes next, as the command said it.
    let hba = pair.place.data().join("pg_hba.conf");
    let text = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, format!("{text}host all,replication all 127.0.0.1/32 trust\n")).unwrap();
    pair.standby.restart();
    let Pair { node, standby, place, .. } = pair;
    let node = Node::moved(node, &[&standby]);
    let service = node.start(None);
    standby.sql("insert into kept values (-2)");
    node.wait_end(2, flushed(&standby));
    assert_eq!(node.incarnations().len(), 1, "its timeline goes on from the journal: {}", node.log());
    service.stop();
    standby.stop(Mode::Fast);
    drop(place);
}

#[test]
fn a_standby_of_15_is_promoted_only_once_it_has_all_that_its_journal_holds() {
    a_standby_is_promoted_only_once_it_has_all(Major::V15);
}

#[test]
fn a_standby_of_17_is_promoted_only_once_it_has_all_that_its_journal_holds() {
    a_standby_is_promoted_only_once_it_has_all(Major::V17);
}

#[test]
fn a_store_that_does_not_answer_or_a_journal_that_grows_promotes_nobody_unless_it_is_said_that_the_standby_will_do()
 {
    let (pair, service) = Pair::of(Major::V15);
    pair.primary.pgbench_init(1);
    let load = pair.primary.pgbench(2, Length::For(Duration::from_secs(15)));
    refused(&pair.does("promote", &[]), 4, "FS-0510", &["still ships transactions", "stays a standby"]);
    let _what_it_did = load.wait();
    pair.wait_received();
    service.stop();
    pair.primary.stop(Mode::Immediate);
    let (place, away) = (pair.node.folder().join("journal"), pair.node.folder().join("gone"));
    std::fs::rename(&place, &away).unwrap();
    let says = ["not known whether the journal holds more", "received log up to 1:", "--as-it-is"];
    refused(&pair.does("promote", &[]), 4, "FS-0510", &says);
    let (config, kept) = (pair.node.folder().join("farshore.toml"), pair.node.folder().join("kept.toml"));
    std::fs::rename(&config, &kept).unwrap();
    refused(&pair.does("promote", &[]), 4, "FS-0510", &says);
    assert_eq!(pair.standby.sql("select pg_is_in_recovery()"), "t");
    // Who may not, where nobody runs.
    let to = pair.place.data().display().to_string();
    let stranger = pair.node.run(&["standby", "promote", "--to", &to, "--user", "nobody-of-here"]);
    refused(&stranger, 6, "FS-0513", &["does not take the role `nobody-of-here`", "--user"]);
    pair.standby.stop(Mode::Fast);
    for verb in ["promote", "pause", "resume"] {
        refused(&pair.does(verb, &[]), 6, "FS-0513", &["does not answer", "pg_ctl"]);
    }
    pair.standby.start();
    let said = pair.did("promote", &["--as-it-is"]);
    assert_eq!((&said["reaches_the_end"], &said["timeline"]), (&Value::Null, &2.into()), "{said}");
    pair.standby.sql("insert into kept values (-1)");
    assert_eq!(pair.standby.sql("select count(*) from kept"), "1001");
}

/// Nobody serves, so a server that was started anew does not know how much of the next record it has.
#[test]
fn a_standby_that_was_started_anew_with_nobody_to_serve_it_is_promoted_with_all() {
    let (pair, service) = Pair::of(Major::V15);
    pair.burns(service);
    pair.standby.restart();
    // Whose end was cut off is not taken for all there is, nor its standby for one that lacks nothing.
    let incarnation = pair.node.incarnations().pop().unwrap().0.incarnation;
    let folder = pair.node.folder().join(format!("journal/db/orders/{incarnation}/journal"));
    let mut chunks: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    chunks.sort();
    let (last, kept) = (chunks.pop().unwrap(), pair.node.folder().join("kept"));
    std::fs::rename(&last, &kept).unwrap();
    // What its owner's tail holds still would be put in its place.
    std::fs::remove_dir_all(pair.node.folder().join("journal/.tails")).unwrap();
    refused(&pair.does("promote", &[]), 4, "FS-0510", &["bytes more than its journal", "farshore verify"]);
    std::fs::rename(&kept, &last).unwrap();
    let said = pair.did("promote", &[]);
    assert_eq!(said["reaches_the_end"], true, "{said}");
    assert_eq!(pair.standby.sql("select count(*) from kept"), "1000");
}

/// It comes back when its successor is one already, takes writes that nobody ships, and is brought in line.
/// (The other majors of the tests come without `pg_rewind`.)
#[test]
fn a_former_primary_is_backfreshed_and_follows_its_successor() {
    let major = Major::V15;
    let (pair, service) = Pair::of(major);
    let other = Copy::of(&pair.node);
    commits(&pair.primary, 2000);
    pair.wait_received();
    rows(&pair.standby, 2000);
    pair.burns(service);
    pair.did("promote", &[]);
    pair.primary.start();
    pair.primary.sql("insert into kept select generate_series(-500, -1); checkpoint");
    // What is left of a restore before would end its recovery as a standby at once.
    pair.primary.conf("recovery_target_time = '2020-01-01'");
    let diverged = flushed(&pair.primary);

    let data = pair.primary.data_dir().display().to_string();
    let from = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", pair.standby.port());
    let server = format!("host=127.0.0.1 port={} user=far password='{PASSWORD}' sslmode=disable", pair.port);
    let backfresh = |to: &str, from: &str| {
        let given = ["-o", "json", "standby", "backfresh", "orders", "--name", "lund", "--to", to];
        pair.node.run(&[&given[..], &["--from", from, "--server", &server]].concat())
    };
    refused(&backfresh(&data, &from), 4, "FS-0515", &["its server runs"]);
    pair.primary.stop(Mode::Fast);
    // Nobody ships the successor yet.
    refused(&backfresh(&data, &from), 4, "FS-0515", &["knows of no successor"]);

    let hba = pair.place.data().join("pg_hba.conf");
    let text = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, format!("{text}host all,replication all 127.0.0.1/32 trust\n")).unwrap();
    pair.standby.restart();
    let (old, new) = (pair.primary.port().to_string(), pair.standby.port().to_string());
    pair.node.configure(|text| text.replace(&format!(":{old}"), &format!(":{new}")));
    let service = pair.serves_again();
    pair.standby.sql("insert into kept values (5000)");
    pair.node.wait_end(2, flushed(&pair.standby));
    assert_eq!(pair.node.incarnations().len(), 1, "{}", pair.node.log());

    // What says nothing of its changed blocks cannot be brought in line.
    let bare = Server::builder(major).checksums(false).start();
    bare.stop(Mode::Fast);
    let bare = bare.data_dir().display().to_string();
    refused(&backfresh(&bare, &from), 4, "FS-0515", &["wal_log_hints", "standby create"]);
    // One that does not answer, and one that was promoted too, elsewhere: on the same timeline of the same cluster.
    let before = std::fs::read(pair.primary.data_dir().join("global/pg_control")).unwrap();
    let nobody = backfresh(&data, "host=127.0.0.1 port=1 user=postgres dbname=postgres");
    refused(&nobody, 4, "FS-0515", &["is not known"]);
    std::fs::write(
        other.data().join("pg_hba.conf"),
        "local all all trust\nhost all all 127.0.0.1/32 trust\n",
    )
    .unwrap();
    let promoted = other.follows("port=1");
    promoted.start();
    assert_eq!(promoted.sql("select pg_promote()"), "t");
    let elsewhere = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", promoted.port());
    refused(&backfresh(&data, &elsewhere), 4, "FS-0515", &["came to it another way"]);
    promoted.stop(Mode::Fast);
    let kept = PathBuf::from(format!("{data}.diverged-1"));
    assert!(!kept.exists());
    // One who may not read its files: what diverged is kept by then, and the same command goes on.
    pair.standby.sql("create role looks login replication");
    let looks = from.replace("user=postgres", "user=looks");
    refused(&backfresh(&data, &looks), 1, "FS-0516", &["pg_rewind did not bring", "diverged-1"]);
    assert_eq!(std::fs::read(pair.primary.data_dir().join("global/pg_control")).unwrap(), before);
    let done = backfresh(&data, &from);
    assert!(done.status.success(), "{done:?}");
    // Cut off behind the end of pg_rewind, it is not run again: this role could not.
    let record = kept.join("farshore-backfresh.json");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, text.replace("\"done\"", "\"kept\"")).unwrap();
    std::fs::remove_file(pair.primary.data_dir().join("standby.signal")).unwrap();
    let done = backfresh(&data, &looks);
    assert!(done.status.success(), "{done:?}");
    assert!(pair.primary.data_dir().join("standby.signal").exists());
    let said: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&said["timeline"], &said["follows"]), (&1.into(), &2.into()), "{said}");
    let kept = PathBuf::from(said["kept"].as_str().unwrap());
    let name = format!("00000001{:08X}{:08X}", diverged.get() >> 32, (diverged.get() & 0xffff_ffff) >> 24);
    assert!(kept.join("pg_wal").join(&name).exists(), "{name} in {said}");
    assert!(said["kept_log_bytes"].as_u64().unwrap() > 0, "{said}");

    pair.primary.start();
    let follows = |content: &str| {
        let same = wait_for(SOON, || (pair.primary.sql(CONTENT) == content).then_some(()));
        assert!(same.is_some(), "{}\n{}", pair.primary.log(), pair.node.log());
    };
    follows(&pair.standby.sql(CONTENT));
    pair.standby.sql("insert into kept select generate_series(6000, 7000)");
    follows(&pair.standby.sql(CONTENT));
    let says = "select pg_is_in_recovery(), (select count(*) from pg_replication_slots), (select count(*) from kept where id < 0)";
    assert_eq!(pair.primary.sql(says), "t|0|0");
    let is_there = || {
        crate::listed_all(&pair.node)
            .iter()
            .any(|one| one["standby"] == "lund" && one["state"] == "streaming")
    };
    assert!(wait_for(SOON, || is_there().then_some(())).is_some(), "{}", pair.node.log());
    // It is a standby as any other: it can be held, and is not rewound again.
    let held = on(&pair.node, "pause", pair.primary.data_dir(), &[]);
    assert!(held.status.success(), "{held:?}");
    pair.primary.stop(Mode::Fast);
    refused(&backfresh(&data, &from), 4, "FS-0515", &["a standby already"]);
    service.stop();
    pair.standby.stop(Mode::Fast);
}

#[test]
fn a_directory_that_is_no_standbys_is_refused_by_each_command_and_stays_as_it_is() {
    let (pair, service) = Pair::of(Major::V15);
    let restored = Copy::of(&pair.node);
    let other = Copy::of(&pair.node);
    // A standby, and none that a journal is bound to.
    let follower = other.follows("port=1");
    let empty = user::tempdir();
    let unknown: &[(&Path, i32, &str)] = &[
        (pair.primary.data_dir(), 3, "FS-0507"),
        (&restored.data(), 5, "FS-0506"),
        (&other.data(), 3, "FS-0507"),
        (empty.path(), 3, "FS-0507"),
        (&empty.path().join("missing"), 3, "FS-0507"),
    ];
    drop(follower);
    for (directory, exit, code) in unknown {
        let before = directory.exists().then(|| seen(directory));
        for (verb, more) in [
            ("pause", &[][..]),
            ("resume", &[]),
            ("promote", &["--as-it-is"]),
            ("drop", &["--yes", "--stop"]),
        ] {
            refused(&on(&pair.node, verb, directory, more), *exit, code, &["nothing in it was changed"]);
        }
        // The primary goes on with its own.
        if *directory != pair.primary.data_dir() {
            assert_eq!(directory.exists().then(|| seen(directory)), before, "{}", directory.display());
        }
    }
    commits(&pair.primary, 1200);
    rows(&pair.standby, 1200);
    service.stop();
}

#[test]
fn a_standby_is_removed_with_its_server_only_where_that_is_said_and_is_forgotten() {
    let (pair, service) = Pair::of(Major::V17);
    let data = pair.place.data();
    refused(
        &pair.does("drop", &["--yes"]),
        5,
        "FS-0506",
        &["its server runs", "--stop", "nothing in it was changed"],
    );
    refused(&pair.does("drop", &["--stop"]), 4, "FS-0512", &["--yes"]);
    assert!(pair.standby.is_running() && data.join("global/pg_control").exists());
    // What lies elsewhere, and is led to by links, is not the standby's to remove.
    let beside = user::tempdir();
    std::fs::write(beside.path().join("theirs"), "theirs").unwrap();
    std::os::unix::fs::symlink(beside.path(), data.join("pg_tblspc/99999")).unwrap();
    std::os::unix::fs::symlink(beside.path().join("theirs"), data.join("base/theirs")).unwrap();
    let said = pair.did("drop", &["--yes", "--stop"]);
    assert_eq!((&said["stopped"], &said["forgotten"]), (&true.into(), &true.into()), "{said}");
    assert_eq!(said["left"], serde_json::json!([beside.path()]), "{said}");
    assert!(!data.exists() && listed(&pair.node).is_none(), "{:?}", listed(&pair.node));
    assert_eq!(std::fs::read_to_string(beside.path().join("theirs")).unwrap(), "theirs");
    pair.standby.wait_end(SOON);
    assert!(pair.standby.log().contains("received fast shutdown request"), "{}", pair.standby.log());
    // One that does not run.
    let place = Copy { place: user::tempdir() };
    let standby = created(&pair.node, &place.data(), pair.port, Major::V17);
    drop(standby);
    let held: Owned = sleeps_in(&place.data());
    refused(
        &on(&pair.node, "drop", &place.data(), &["--yes", "--stop"]),
        5,
        "FS-0506",
        &["processes work in it"],
    );
    drop(held);
    let done = on(&pair.node, "drop", &place.data(), &["--yes"]);
    assert!(done.status.success() && !place.data().exists(), "{done:?}");
    refused(&on(&pair.node, "drop", &place.data(), &["--yes"]), 3, "FS-0507", &[]);
    // One whose removal was cut off.
    drop(created(&pair.node, &place.data(), pair.port, Major::V17));
    let marker = place.data().join("farshore-restore.json");
    std::fs::rename(marker, place.data().join("farshore-standby.dropped.json")).unwrap();
    std::fs::remove_file(place.data().join("global/pg_control")).unwrap();
    refused(&on(&pair.node, "promote", &place.data(), &[]), 3, "FS-0507", &["standby drop"]);
    let done = on(&pair.node, "drop", &place.data(), &["--yes"]);
    assert!(done.status.success() && !place.data().exists(), "{done:?}");
    service.stop();
}

/// A process that works there and is no server.
fn sleeps_in(directory: &Path) -> Owned {
    let mut command = std::process::Command::new("/bin/sleep");
    command.arg("100").current_dir(directory);
    Owned::spawn(user::run_as(command), nix::sys::signal::Signal::SIGKILL)
}
