//! The promise: a restore to any target, taken while the database works and its journal grows, holds exactly the commits that
//! the target takes in; also when the server's clock goes wrong.
//!
//! Method: `pgbench -c 4` writes a ledger whose rows name their transactions, in plain transactions, in sub-transactions and in
//! prepared ones, beside rollbacks. Restores to random targets of each kind are made and started meanwhile, and once more when
//! all is quiet. When it is over, a log that PostgreSQL's own receiver kept, read by its own `pg_waldump`, says what each copy
//! had to hold. `soak_recovery_targets` does so for as long as it is given.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message
#![allow(clippy::print_stdout)] // what was counted is read in the output

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use farshore_testkit::pg::{Length, Load, Major, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::random::Random;
use farshore_testkit::soak::Campaign;
use serde_json::Value;
use support::oracle::{Oracle, Receiver};
use support::{SOON, Service, numbers, offset, position, text};

const LEDGER: &str = "select xid from ledger";
/// A clock's time as the command takes it, to the microsecond.
const RFC3339: &str = "'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'";
/// How far a clock jumps at most, in seconds: less than what ends replication connections by itself (`wal_sender_timeout`).
const JUMP: u64 = 25;

/// What pgbench's clients do, and how often of ten.
const SCRIPTS: [(&str, u32, &str); 4] = [
    (
        "plain",
        6,
        "\\set aid random(1, 100000)\n\
         begin;\n\
         update pgbench_accounts set abalance = abalance + 1 where aid = :aid;\n\
         insert into ledger values (pg_current_xact_id()::text::bigint);\n\
         end;\n",
    ),
    (
        "nested",
        2,
        "begin;\n\
         insert into ledger values (pg_current_xact_id()::text::bigint);\n\
         savepoint one;\n\
         insert into noise values (1);\n\
         savepoint two;\n\
         insert into noise values (2);\n\
         rollback to savepoint two;\n\
         end;\n",
    ),
    (
        "prepared",
        1,
        "\\set name random(1, 1000000000)\n\
         begin;\n\
         insert into ledger values (pg_current_xact_id()::text::bigint);\n\
         prepare transaction 'p:client_id-:name';\n\
         \\sleep 20 ms\n\
         commit prepared 'p:client_id-:name';\n",
    ),
    (
        "undone",
        1,
        "begin;\n\
         insert into ledger values (pg_current_xact_id()::text::bigint);\n\
         rollback;\n",
    ),
];

/// A kind of target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Latest,
    At,
    Pos,
    Xid,
    Point,
}

const KINDS: [(Kind, &str); 5] = [
    (Kind::Latest, "latest"),
    (Kind::At, "at"),
    (Kind::Pos, "pos"),
    (Kind::Xid, "xid"),
    (Kind::Point, "point"),
];

/// A database at work, its service, and the receiver whose log decides.
struct Live {
    server: Server,
    service: Service,
    receiver: Receiver,
    /// The first transaction that no base backup can hold.
    first_xid: u64,
    base_end: u64,
    points: u64,
    /// Positions that the primary called current while it worked.
    current: Vec<String>,
    taken: Vec<Taken>,
}

/// A restore that was made, to be judged when the log is known.
struct Taken {
    kind: Kind,
    value: String,
    /// Flushed, and stored, before it was asked for.
    stored: u64,
    came: Came,
}

enum Came {
    Copy { plan: Value, ledger: BTreeSet<u64>, replayed: String },
    Refused { said: String, written: bool },
}

/// What the judgements came to.
#[derive(Debug, Default)]
struct Sums {
    exact: Vec<(Kind, u64)>,
    refused: u64,
}

impl Live {
    fn start() -> Self {
        let server = Server::builder(Major::V15)
            .shiftable_clock()
            .conf("max_prepared_transactions = 20")
            .conf("track_commit_timestamp = on")
            .start();
        server.pgbench_init(1);
        server.sql("create table ledger (xid bigint primary key); create table noise (n int)");
        let receiver = Receiver::start(&server);
        let service = Service::with_base(&server);
        let first_xid = server.sql("select pg_snapshot_xmax(pg_current_snapshot())").parse().unwrap();
        let listed = service.json(&["backup", "list", "db"]);
        let base_end = offset(listed["items"][0]["end"].as_str().unwrap());
        let (current, taken) = (Vec::new(), Vec::new());
        let mut live = Self { server, service, receiver, first_xid, base_end, points: 0, current, taken };
        live.point();
        live
    }

    fn load(&self, time: Duration) -> Load {
        let scripts: Vec<String> = SCRIPTS
            .iter()
            .map(|(name, often, script)| {
                let path = self.server.folder().join(name);
                std::fs::write(&path, script).unwrap();
                format!("{}@{often}", path.display())
            })
            .collect();
        let mut arguments = vec!["-R", "200"];
        arguments.extend(scripts.iter().flat_map(|script| ["-f", script]));
        self.server.pgbench_with(4, Length::For(time), &arguments)
    }

    /// A named point. The transaction has a number, so that its commit flushes the point: nobody else may do so for long.
    fn point(&mut self) {
        let mark = format!("select pg_create_restore_point('p{}'), pg_current_xact_id()", self.points);
        self.server.sql(&mark);
        self.points += 1;
    }

    /// A commit of this test's own.
    fn row(&self) -> u64 {
        let row = "insert into ledger values (pg_current_xact_id()::text::bigint) returning xid";
        self.server.sql(row).parse().unwrap()
    }

    fn clock(&self) -> String {
        self.server.sql(&format!("select to_char(clock_timestamp() at time zone 'UTC', {RFC3339})"))
    }

    /// A random target of a kind among all that the database did since its base backup.
    fn choose(&mut self, kind: Kind, random: &mut Random) -> String {
        match kind {
            Kind::Latest => String::new(),
            Kind::Xid => self.random_commit(random).0,
            Kind::Point => {
                self.point();
                format!("p{}", random.below(self.points))
            }
            Kind::At => {
                let (_, time) = self.random_commit(random);
                // The commit's own time takes it in; a microsecond less does not, unless the clock went back.
                match random.below(2) {
                    0 => time,
                    _ => self.server.sql(&format!(
                        "select to_char((timestamptz '{time}' - interval '1 microsecond') at time zone 'UTC', {RFC3339})"
                    )),
                }
            }
            Kind::Pos => {
                self.current.push(self.server.sql("select pg_current_wal_lsn()"));
                let end = offset(self.current.last().unwrap());
                match random.below(3) {
                    0 => random.pick(&self.current).unwrap().clone(),
                    1 => position(end),
                    _ => position(self.base_end + random.below(end - self.base_end)),
                }
            }
        }
    }

    fn random_commit(&self, random: &mut Random) -> (String, String) {
        let (first, skip) = (self.first_xid, random.number());
        let chosen = self.server.sql(&format!(
            "with known as (select xid, row_number() over (order by xid) - 1 as at, count(*) over () as of from ledger where xid >= {first})
             select xid, to_char(pg_xact_commit_timestamp(xid::text::xid) at time zone 'UTC', {RFC3339})
             from known where at = mod({skip}::numeric, of)"
        ));
        let (xid, time) = chosen.split_once('|').unwrap_or_else(|| panic!("no commit to choose: {chosen:?}"));
        (xid.to_owned(), time.to_owned())
    }

    /// Waits until what is flushed now is stored too: a target is chosen from what the database has, and may lie at its end.
    fn settled(&self) -> u64 {
        let flushed = self.server.sql("select pg_current_wal_flush_lsn()");
        self.service.wait_stored(&flushed);
        offset(&flushed)
    }

    /// Restores to a target, starts the copy, and notes what it holds.
    fn take(&mut self, kind: Kind, value: &str) {
        let stored = self.settled();
        let option = format!("--{}", KINDS.iter().find(|(known, _)| *known == kind).unwrap().1);
        let target: Vec<&str> = match kind {
            Kind::Latest => vec![&option],
            _ => vec![&option, value],
        };
        let came = match self.service.try_restore(&target, &[]) {
            Ok(copy) => {
                let replayed = copy.sql("select pg_last_wal_replay_lsn()");
                Came::Copy { plan: copy.plan.clone(), ledger: copy.numbers(LEDGER), replayed }
            }
            Err((done, written)) => {
                assert_eq!(done.status.code(), Some(4), "{target:?}: {}", text(&done.stderr));
                Came::Refused { said: text(&done.stderr), written }
            }
        };
        self.taken.push(Taken { kind, value: value.to_owned(), stored, came });
    }

    fn take_random(&mut self, kind: Kind, random: &mut Random) {
        let value = self.choose(kind, random);
        self.take(kind, &value);
    }

    /// What is hard to hit by chance: a quiet gap, two commits that touch, a transaction half done, the very last commit.
    async fn take_corners(&mut self) {
        self.row();
        support::let_pass(Duration::from_millis(150));
        let quiet = self.clock();
        support::let_pass(Duration::from_millis(150));
        let (one, other) = (self.server.connect().await, self.server.connect().await);
        let mut touching = Vec::new();
        for session in [&one, &other] {
            session
                .batch_execute("begin; insert into ledger values (pg_current_xact_id()::text::bigint)")
                .await
                .unwrap();
            let xid = session.query_one("select pg_current_xact_id()::text", &[]).await.unwrap();
            touching.push(xid.get::<_, String>(0));
        }
        one.batch_execute("commit").await.unwrap();
        other.batch_execute("commit").await.unwrap();
        let half = self.server.sql(
            "begin; insert into ledger values (pg_current_xact_id()::text::bigint) returning xid; prepare transaction 'half'",
        );
        let pending = self.server.sql("select pg_current_wal_lsn()");
        self.row();
        self.server.sql("commit prepared 'half'");
        let last = self.row().to_string();
        let end = self.server.sql("select pg_current_wal_lsn()");
        self.take(Kind::At, &quiet);
        for xid in touching.iter().chain([&half, &last]) {
            self.take(Kind::Xid, xid);
        }
        self.take(Kind::Pos, &pending);
        self.take(Kind::Pos, &end);
        self.take(Kind::Latest, "");
    }

    /// Ends it all and holds every copy against the log that PostgreSQL's own receiver kept.
    fn judge(self) -> Sums {
        let Self { server, mut service, receiver, base_end, taken, .. } = self;
        service.stop();
        // Written after the service stopped, so that the oracle knows the last record's end.
        server.sql("select pg_switch_wal()");
        receiver.wait_has(&server, &server.sql("select pg_current_wal_flush_lsn()"));
        let ledger = numbers(&server.sql(LEDGER));
        let (oracle, _files) = receiver.read();
        let judge = Judge { oracle, ledger, base_end };
        let mut sums = Sums::default();
        for taken in &taken {
            if judge.holds(taken) {
                match sums.exact.iter_mut().find(|(kind, _)| *kind == taken.kind) {
                    Some((_, sum)) => *sum += 1,
                    None => sums.exact.push((taken.kind, 1)),
                }
            } else {
                sums.refused += 1;
            }
        }
        println!("{} restores judged: {sums:?}", taken.len());
        sums
    }
}

struct Judge {
    oracle: Oracle,
    ledger: BTreeSet<u64>,
    base_end: u64,
}

impl Judge {
    /// How many records a target takes in; none when that is decided by when it was asked.
    fn records(&self, taken: &Taken) -> Option<usize> {
        let oracle = &self.oracle;
        match taken.kind {
            Kind::Latest => None,
            Kind::Xid => Some(oracle.commit_of(taken.value.parse().unwrap()).unwrap() + 1),
            Kind::Point => Some(oracle.point(&taken.value).unwrap() + 1),
            Kind::Pos => Some(oracle.ended_by(offset(&taken.value))),
            Kind::At => {
                let mut commits = oracle.commits(oracle.records.len());
                commits.find(|(_, _, then)| *then > taken.value.as_str()).map(|(index, _, _)| index)
            }
        }
    }

    /// Holds one copy against the log; `false` where the target was rightly refused.
    fn holds(&self, taken: &Taken) -> bool {
        let Taken { kind, value, stored, came } = taken;
        let records = self.records(taken);
        let (plan, ledger, replayed) = match came {
            Came::Copy { plan, ledger, replayed } => (plan, ledger, replayed),
            Came::Refused { said, written } => {
                assert!(!written, "{kind:?} {value} was refused, and something was written: {said}");
                // Only a clock that went back makes a time of the window unreachable: no commit is later, or the first one that is
                // lies in the base itself.
                assert_eq!(*kind, Kind::At, "{value}: {said}");
                let first_later = records.map(|index| self.oracle.records[index].start);
                let beyond = first_later.is_none_or(|start| start >= *stored);
                let before = first_later.is_some_and(|start| start < self.base_end);
                assert!(beyond || before, "{value} was refused for nothing: {first_later:?} {said}");
                return false;
            }
        };
        let resolved = offset(plan["resolved"]["position"].as_str().unwrap());
        match records {
            Some(records) => {
                assert_eq!(self.oracle.ended_by(resolved), records, "{kind:?} {value}: {plan}");
                let start = offset(plan["resolved"]["record_start"].as_str().unwrap());
                assert_eq!(start, self.oracle.records[records - 1].start, "{kind:?} {value}: {plan}");
            }
            // A time that no commit of the whole log is later than, and the latest state: all that was stored when it was asked.
            None => {
                let asked = self.oracle.ended_by(*stored);
                assert!(self.oracle.ended_by(resolved) >= asked, "{kind:?} {value} is short: {plan}");
            }
        }
        let count = self.oracle.ended_by(resolved);
        let commits = self.oracle.commits(count).map(|(_, xid, _)| xid);
        let wanted: BTreeSet<u64> = commits.filter(|xid| self.ledger.contains(xid)).collect();
        assert!(
            *ledger == wanted,
            "{kind:?} {value} -> {plan}: too many {:?}, missing {:?}",
            ledger.difference(&wanted).collect::<Vec<_>>(),
            wanted.difference(ledger).collect::<Vec<_>>()
        );
        assert_eq!(*replayed, position(resolved), "{kind:?} {value}");
        true
    }
}

/// One story: restores of each kind under load, the corners, and each kind again when it is quiet.
async fn story(random: &mut Random, skewed: bool, rounds: u64, corners: bool) -> Sums {
    let mut live = Live::start();
    let mut load = live.load(Duration::from_secs(3000));
    let some = wait_for(SOON, || {
        let known = live.server.sql(&format!("select count(*) from ledger where xid >= {}", live.first_xid));
        (known.parse::<u64>().unwrap() > 100).then_some(())
    });
    assert!(some.is_some(), "pgbench commits");
    for _ in 0..rounds {
        for (kind, _) in KINDS {
            if skewed {
                let jump = i64::try_from(random.below(2 * JUMP + 1)).unwrap() - i64::try_from(JUMP).unwrap();
                live.server.shift_clock(jump);
            }
            live.take_random(kind, random);
            assert!(load.is_running(), "the load must outlast the restores");
        }
    }
    drop(load);
    // What its clients had prepared and not decided is undone: it would keep the last commit from being the last.
    let left = live.server.sql("select gid from pg_prepared_xacts");
    left.lines().for_each(|name| {
        live.server.sql(&format!("rollback prepared '{name}'"));
    });
    if corners {
        live.take_corners().await;
    }
    for (kind, _) in KINDS {
        live.take_random(kind, random);
    }
    live.judge()
}

#[tokio::test(flavor = "multi_thread")]
async fn soak_recovery_targets() {
    let mut campaign = Campaign::start("recovery_targets");
    // Longer stories when there is time: more log behind each target.
    let rounds = if std::env::var_os("FARSHORE_SOAK_SECONDS").is_some() { 3 } else { 1 };
    while campaign.next_round() {
        let skewed = campaign.random.below(2) == 0;
        let corners = campaign.random.below(2) == 0;
        let sums = Box::pin(story(&mut campaign.random, skewed, rounds, corners)).await;
        for (kind, counted) in KINDS {
            let exact = sums.exact.iter().find(|(known, _)| *known == kind).map_or(0, |(_, sum)| *sum);
            campaign.count(counted, exact);
        }
        campaign.count("times_rightly_refused", sums.refused);
        campaign.count("skewed_stories", u64::from(skewed));
    }
    campaign.finish();
}

/// A clock that goes back by hours and forward again: times are judged in the log's order, every other kind does not see it.
#[tokio::test(flavor = "multi_thread")]
async fn heavy_a_clock_that_jumps_changes_no_restore_but_by_time_and_those_follow_the_logs_order() {
    let mut live = Live::start();
    let mut random = Random::new(farshore_testkit::random::seed());
    let mut marks = Vec::new();
    for hours in [0, -2, 1, -1, 0] {
        live.server.shift_clock(hours * 3600);
        for _ in 0..3 {
            live.row();
            marks.push(live.clock());
            live.row();
        }
        live.point();
    }
    for _ in 0..4 {
        let time = random.pick(&marks).unwrap().clone();
        live.take(Kind::At, &time);
    }
    for (kind, _) in KINDS {
        live.take_random(kind, &mut random);
    }
    let sums = live.judge();
    assert!(sums.exact.len() >= 4, "{sums:?}");
}
