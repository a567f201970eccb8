//! A restore to any target holds exactly the commits it must.
//!
//! What it is held against is PostgreSQL's own reading of a log that PostgreSQL's own receiver kept. A ledger row names the
//! transaction that wrote it, so the set of rows in a copy is the set of commits in it.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message
#![allow(clippy::print_stdout)] // what was counted is read in the output

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use farshore_testkit::pg::{Length, Major, Server};
use farshore_testkit::random::{Random, seed};
use support::oracle::{Oracle, Receiver};
use support::{Service, count, numbers, offset, position, text};

const SCRIPT: &str = "\
\\set aid random(1, 100000)
begin;
update pgbench_accounts set abalance = abalance + 1 where aid = :aid;
insert into ledger values (pg_current_xact_id()::text::bigint);
end;
";
const LEDGER: &str = "select xid from ledger";

/// All that the questions are about, once: a primary under load, its service, and the oracle.
struct Story {
    server: Server,
    service: Service,
    oracle: Oracle,
    ledger: BTreeSet<u64>,
    notes: Notes,
}

/// What was done on the primary on purpose.
#[derive(Default)]
struct Notes {
    quiet_time: String,
    back_to_back: [u64; 2],
    prepared: u64,
    prepared_pending_at: String,
    savepoint_top: u64,
    savepoint_sub: u64,
    aborted: u64,
    current: Vec<String>,
    last: u64,
}

fn row(server: &Server) -> u64 {
    server
        .sql("insert into ledger values (pg_current_xact_id()::text::bigint) returning xid")
        .parse()
        .unwrap()
}

impl Story {
    async fn told() -> Self {
        let server = Server::builder(Major::V15).conf("max_prepared_transactions = 10").start();
        server.pgbench_init(1);
        server.sql("create table ledger (xid bigint primary key)");
        let receiver = Receiver::start(&server);
        let mut service = Service::with_base(&server);
        let script = server.folder().join("ledger.sql");
        std::fs::write(&script, SCRIPT).unwrap();
        let script = script.to_str().unwrap();
        let mut notes = Notes::default();

        let load = server.pgbench_with(4, Length::For(Duration::from_secs(4)), &["-f", script, "-R", "150"]);
        for n in 0..5 {
            notes.current.push(server.sql("select pg_current_wal_lsn()"));
            server.sql(&format!("select pg_create_restore_point('p{n}')"));
            server.sql("select pg_sleep(0.5)");
        }
        let _loaded = load.wait();

        // A quiet gap: its middle lies between two commits and in none.
        row(&server);
        server.sql("select pg_sleep(0.2)");
        notes.quiet_time = server
            .sql("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
        server.sql("select pg_sleep(0.2)");
        row(&server);

        // Two commits back to back: both have written before either commits.
        let (one, other) = (server.connect().await, server.connect().await);
        for session in [&one, &other] {
            session
                .batch_execute("begin; insert into ledger values (pg_current_xact_id()::text::bigint)")
                .await
                .unwrap();
        }
        for (at, session) in [&one, &other].iter().enumerate() {
            let xid = session.query_one("select pg_current_xact_id()::text", &[]).await.unwrap();
            notes.back_to_back[at] = xid.get::<_, String>(0).parse().unwrap();
        }
        one.batch_execute("commit").await.unwrap();
        other.batch_execute("commit").await.unwrap();

        // A prepared transaction across a target.
        notes.prepared = server
            .sql("begin; insert into ledger values (pg_current_xact_id()::text::bigint) returning xid; prepare transaction 'half'")
            .parse()
            .unwrap();
        row(&server);
        notes.prepared_pending_at = server.sql("select pg_current_wal_lsn()");
        row(&server);
        server.sql("commit prepared 'half'");

        // A sub-transaction that commits with its parent; the ledger's row names the parent.
        let both = server.sql(
            "begin; insert into ledger values (pg_current_xact_id()::text::bigint) returning xid; savepoint s; \
             create table sub(a int); select xmin from pg_class where relname = 'sub'; commit",
        );
        let both: Vec<u64> = both.lines().map(|line| line.parse().unwrap()).collect();
        (notes.savepoint_top, notes.savepoint_sub) = (both[0], both[1]);
        notes.aborted = server
            .sql("begin; insert into ledger values (pg_current_xact_id()::text::bigint) returning xid; rollback")
            .parse()
            .unwrap();

        let load = server.pgbench_with(4, Length::For(Duration::from_secs(2)), &["-f", script, "-R", "150"]);
        let _loaded = load.wait();
        // The very last commit; nothing but what the server itself writes comes behind it.
        notes.last = row(&server);
        let end = server.sql("select pg_current_wal_flush_lsn()");
        service.wait_stored(&end);
        receiver.wait_has(&server, &end);
        let ledger = numbers(&server.sql(LEDGER));
        service.stop();
        // Written after the service stopped, so that the oracle knows the last record's end.
        server.sql("select pg_switch_wal()");
        receiver.wait_has(&server, &server.sql("select pg_current_wal_flush_lsn()"));
        let (oracle, _files) = receiver.read();
        Self { server, service, oracle, ledger, notes }
    }

    /// The ledger of everything that ended at or before a position.
    fn ledger_by(&self, position: u64) -> BTreeSet<u64> {
        let count = self.oracle.ended_by(position);
        self.oracle.commits(count).map(|(_, xid, _)| xid).filter(|xid| self.ledger.contains(xid)).collect()
    }

    /// Restores, starts, and holds the copy against the oracle. `records` is how many records the target takes in.
    #[track_caller]
    fn holds(&self, target: &[&str], records: usize) {
        let began = std::time::Instant::now();
        let copy = self.service.restore(target, &[]);
        println!("{target:?} -> {} in {:?}", copy.plan["resolved"], began.elapsed());
        let resolved = offset(copy.plan["resolved"]["position"].as_str().unwrap());
        assert_eq!(self.oracle.ended_by(resolved), records, "{target:?} resolved to {}", position(resolved));
        let start = copy.plan["resolved"]["record_start"].as_str().unwrap();
        assert_eq!(offset(start), self.oracle.records[records - 1].start, "{target:?}");
        let (found, wanted) = (copy.numbers(LEDGER), self.ledger_by(resolved));
        assert!(
            found == wanted,
            "{target:?}: too many {:?}, missing {:?}",
            found.difference(&wanted).collect::<Vec<_>>(),
            wanted.difference(&found).collect::<Vec<_>>()
        );
        assert_eq!(copy.sql("select pg_last_wal_replay_lsn()"), position(resolved));
    }

    #[track_caller]
    fn refuses(&self, target: &[&str], code: i32) -> String {
        let folder = farshore_testkit::user::tempdir();
        let to = folder.path().join("d");
        let done = self.service.ask(&[&["restore", "db", "--to", to.to_str().unwrap()], target].concat());
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{target:?}: {said}");
        assert!(!to.exists(), "{target:?} was refused, and something was written");
        said
    }

    /// Records up to and with the last before the first commit in log order whose time is later.
    fn records_at(&self, time: &str) -> usize {
        let all = self.oracle.records.len();
        self.oracle.commits(all).find(|(_, _, then)| *then > time).map_or(all, |(index, _, _)| index)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_restores_hold_exactly_the_commits_that_their_target_takes_in() {
    let story = Story::told().await;
    let seed = seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let Story { service, oracle, notes, .. } = &story;
    let listed = service.json(&["backup", "list", "db"]);
    let base_end = offset(listed["items"][0]["end"].as_str().unwrap_or_else(|| panic!("{listed}")));
    let end_record = oracle.commit_of(notes.last).unwrap() + 1;
    let reachable: Vec<(usize, u64, String)> = oracle
        .commits(end_record)
        .filter(|(index, xid, _)| oracle.records[*index].start >= base_end && story.ledger.contains(xid))
        .map(|(index, xid, time)| (index, xid, time.to_owned()))
        .collect();
    assert!(reachable.len() > 300, "{} commits to choose from", reachable.len());

    // By a transaction; each includes its commit and nothing behind it.
    for _ in 0..count(3) {
        let (index, xid, _) = random.pick(&reachable).unwrap();
        story.holds(&["--xid", &xid.to_string()], index + 1);
    }
    // By a time: a commit's own time takes it in, one microsecond less does not, unless log and clock disagree.
    for _ in 0..count(2) {
        let (_, _, time) = random.pick(&reachable[..reachable.len() - 1]).unwrap();
        story.holds(&["--at", time], story.records_at(time));
    }
    // By a position: any byte, and what the primary called current under load.
    for _ in 0..count(2) {
        // Near a record picked at random: any byte at all would mostly be one of a base backup's unused segment's.
        let (index, ..) = random.pick(&reachable).unwrap();
        let any = oracle.records[*index].start + random.below(200);
        story.holds(&["--pos", &position(any)], oracle.ended_by(any));
    }
    let current = random.pick(&notes.current).unwrap();
    story.holds(&["--pos", current], oracle.ended_by(offset(current)));
    // By a named point.
    let point = format!("p{}", random.below(5));
    story.holds(&["--point", &point], oracle.point(&point).unwrap() + 1);

    // The quiet gap, and the two commits back to back by every kind.
    story.holds(&["--at", &notes.quiet_time], story.records_at(&notes.quiet_time));
    let [one, other] = notes.back_to_back.map(|xid| oracle.commit_of(xid).unwrap());
    assert_eq!(one + 1, other, "nothing lies between the two commits");
    story.holds(&["--xid", &notes.back_to_back[0].to_string()], one + 1);
    let between = position(oracle.records[other].start);
    story.holds(&["--pos", &between], one + 1);
    let (_, _, time) = oracle.commits(other).last().unwrap();
    story.holds(&["--at", time], story.records_at(time));
    story.holds(&["--xid", &notes.back_to_back[1].to_string()], other + 1);

    // A prepared transaction is undecided before its commit, and its number means its commit. PostgreSQL shows it once the
    // copy is open for writes.
    let pending = service.restore(&["--pos", &notes.prepared_pending_at], &["--then", "promote"]);
    assert_eq!(pending.plan["prepared"][0]["name"], "half", "{}", pending.plan);
    assert_eq!(pending.sql("select gid from pg_prepared_xacts"), "half");
    let before = pending.numbers(LEDGER);
    assert!(!before.contains(&notes.prepared));
    assert!(before == story.ledger_by(offset(pending.plan["resolved"]["position"].as_str().unwrap())));
    pending.sql("commit prepared 'half'");
    assert!(pending.numbers(LEDGER).contains(&notes.prepared));
    drop(pending);
    story.holds(&["--xid", &notes.prepared.to_string()], oracle.commit_of(notes.prepared).unwrap() + 1);

    // A sub-transaction's number means the commit it is part of.
    assert_eq!(oracle.commit_of(notes.savepoint_sub), oracle.commit_of(notes.savepoint_top));
    assert_ne!(notes.savepoint_sub, notes.savepoint_top);
    let top = oracle.commit_of(notes.savepoint_top).unwrap();
    story.holds(&["--xid", &notes.savepoint_sub.to_string()], top + 1);

    // The very last commit, and all there is.
    story.holds(&["--xid", &notes.last.to_string()], end_record);
    let latest = service.restore(&["--latest"], &[]);
    assert!(latest.numbers(LEDGER) == story.ledger);
    let latest = offset(latest.plan["resolved"]["position"].as_str().unwrap());
    assert!(oracle.ended_by(latest) >= end_record, "{} is not all", position(latest));

    // Refusals: nothing is written, and the code says that a rule refused.
    let said = story.refuses(&["--xid", &notes.aborted.to_string()], 4);
    assert!(said.contains("rolled back"), "{said}");
    story.refuses(&["--xid", "4000000000"], 4);
    story.refuses(&["--point", "never-set"], 4);
    story.refuses(&["--at", "2000-01-01T00:00:00Z"], 4);
    // A time shortly before the base is no refusal: the log before it shows that no commit lies between the two.
    story.refuses(&["--at", "2199-01-01T00:00:00Z"], 4);
    story.refuses(&["--pos", "0/1000000"], 4);
    story.refuses(&["--pos", "FF/0"], 4);

    // A directory with something in it stays as it is.
    let folder = farshore_testkit::user::tempdir();
    std::fs::write(folder.path().join("mine"), "kept").unwrap();
    farshore_testkit::user::give(folder.path());
    let done = service.ask(&["restore", "db", "--latest", "--to", folder.path().to_str().unwrap()]);
    assert!(!done.status.success());
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["mine"], "{}", text(&done.stderr));
    drop(story.server);
}

/// A backup that no commit came into must not answer for a time before it.
#[test]
fn time_between_two_quiet_backups_is_reached_from_the_older_one() {
    let server = Server::start_new(Major::V15);
    server.sql("create table ledger (xid bigint primary key)");
    row(&server);
    let mut service = Service::with_base(&server);
    row(&server);
    let then = numbers(&server.sql(LEDGER));
    server.sql("select pg_sleep(0.1)");
    let time = server
        .sql("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    server.sql("select pg_sleep(0.1)");
    row(&server);
    service.json(&["backup", "run", "db"]);
    let behind = server
        .sql("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    server.sql("select pg_sleep(0.1)");
    let before_last = numbers(&server.sql(LEDGER));
    row(&server);
    service.wait_stored(&server.sql("select pg_current_wal_flush_lsn()"));
    service.stop();

    let backups = service.json(&["backup", "list", "db"]);
    let id = |index: usize| backups["items"][index]["id"].clone();
    let copy = service.restore(&["--at", &time], &[]);
    assert!(copy.numbers(LEDGER) == then, "{}", copy.plan);
    assert_eq!(copy.plan["base"]["id"], id(0));
    drop(copy);
    let copy = service.restore(&["--at", &behind], &[]);
    assert!(copy.numbers(LEDGER) == before_last, "{}", copy.plan);
    assert_eq!(copy.plan["base"]["id"], id(1));
}
