//! The log decoder against real servers: what it says must be what PostgreSQL's own tools and functions say.
//!
//! Oracles: `pg_waldump` of the same major for 15, 16 and 18; `pg_walinspect` for 15 to 18; for 14, which has neither
//! here, the flush position and the transactions that SQL saw. Counts are printed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a panic is the failure message

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use farshore_engines::event::{Commit, Happened, LogEvent, RecordSeen};
use farshore_engines::postgres::log::file_name::{LogFileName, SegmentName};
use farshore_engines::postgres::log::history::TimelineHistory;
use farshore_engines::postgres::log::{
    EndOfLog, FileProgress, LogDecoder, LogFileDecoder, LogShape, Major, SegmentBytes,
};
use farshore_journal::{Offset, Position, Timeline};
use farshore_testkit::pg::{Length, Major as Installed, Server};
use farshore_testkit::user;

/// Names in the order of their numbers. Source: src/include/access/rmgrlist.h, alike in 14 to 18.
const RESOURCE_MANAGERS: [&str; 22] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

/// Every kind of transaction end, records of all sizes, and what else an index tells of.
const WORKLOAD: &str = "
create table seen (xid xid8, what text);
create table t (id serial primary key, body text);
insert into seen values (pg_current_xact_id(), 'plain');
begin; insert into seen values (pg_current_xact_id(), 'subs');
  savepoint a; insert into t (body) values ('a'); savepoint b; insert into t (body) values ('b');
  release b; savepoint c; insert into t (body) values ('c'); rollback to c; commit;
begin; insert into seen values (pg_current_xact_id(), 'rolled back'); savepoint a; insert into t (body) values ('x');
  rollback;
begin; insert into seen values (pg_current_xact_id(), 'prepared'); savepoint s; insert into t (body) values ('p');
  prepare transaction 'one é';
begin; insert into seen values (pg_current_xact_id(), 'never'); prepare transaction 'two';
commit prepared 'one é'; rollback prepared 'two';
insert into t (body) select string_agg(md5(g::text || h::text), '') from generate_series(1, 60) h,
  generate_series(1, 3000) g group by h;
select length(pg_logical_emit_message(true, 'm', repeat('x', 3000000))::text);
create index on t (md5(body)); vacuum t; checkpoint;
select pg_create_restore_point('before the fall');
select pg_replication_origin_create('elsewhere');
select pg_replication_origin_session_setup('elsewhere');
begin; insert into seen values (pg_current_xact_id(), 'from elsewhere');
  select pg_replication_origin_xact_setup('0/ABCDEF', '2020-02-02 02:02:02+00'); commit;
select pg_replication_origin_session_reset();
create database other; drop database other;
create table gone as select * from t; drop table gone; truncate t;
insert into seen values (pg_current_xact_id(), 'before switch');
select pg_switch_wal();
insert into t (body) select g from generate_series(1, 20000) g;
insert into seen values (pg_current_xact_id(), 'last');
";

fn cluster(major: Installed, segment_mib: u32) -> Server {
    let server = Server::builder(major)
        .wal_segment_size(segment_mib)
        .conf("wal_level = logical")
        .conf("max_prepared_transactions = 10")
        .conf("wal_keep_size = '8GB'")
        .conf("max_wal_size = '8GB'")
        .conf("autovacuum = off")
        .conf("track_commit_timestamp = on")
        .conf("archive_mode = on")
        .conf("archive_command = '/bin/true'")
        .start();
    server.conf("full_page_writes = on");
    server
}

fn offset(server: &Server, query: &str) -> Offset {
    server.sql(query).parse().unwrap()
}

fn shape(server: &Server) -> LogShape {
    let setting = server.sql("select setting from pg_settings where name = 'wal_segment_size'");
    let system = server.sql("select system_identifier from pg_control_system()");
    LogShape {
        major: Major::new(server.major().number()).unwrap(),
        segment_bytes: SegmentBytes::new(setting.parse().unwrap()).unwrap(),
        system_identifier: system.parse().unwrap(),
    }
}

/// The segments of a timeline that lie in `pg_wal` without a gap, and the first one's start.
fn read_log(data: &Path, shape: &LogShape, timeline: u32) -> (Position, Vec<u8>) {
    let folder = data.join("pg_wal");
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Ok(LogFileName::Segment(segment)) = LogFileName::parse(&name, shape.segment_bytes)
            && segment.timeline().get() == timeline
        {
            found.insert(segment.start(), name);
        }
    }
    let start = *found.keys().next().expect("a segment of the timeline");
    let mut bytes = Vec::new();
    for (at, name) in found {
        assert_eq!(at.get(), start.get() + bytes.len() as u64, "no gap in {folder:?}");
        bytes.extend(std::fs::read(folder.join(name)).unwrap());
    }
    (Position::new(Timeline::new(timeline), start), bytes)
}

/// Decodes all log there is, in uneven pieces, and says where and why it ends.
fn decode_files(shape: LogShape, start: Position, bytes: &[u8]) -> (Vec<LogEvent>, EndOfLog) {
    let mut events = Vec::new();
    let mut decoder = LogFileDecoder::from(LogDecoder::new(shape, start).unwrap().with_every_record());
    for piece in bytes.chunks(65_537) {
        if let FileProgress::Ended(_) = decoder.push(piece, &mut |event| events.push(event)).unwrap() {
            break;
        }
    }
    (events, decoder.finish())
}

fn records(events: &[LogEvent]) -> impl Iterator<Item = (&LogEvent, &RecordSeen)> {
    events.iter().filter_map(|event| match &event.what {
        Happened::Record(record) => Some((event, record)),
        _ => None,
    })
}

fn commits(events: &[LogEvent]) -> impl Iterator<Item = (&LogEvent, &Commit)> {
    events.iter().filter_map(|event| match &event.what {
        Happened::Commit(commit) => Some((event, commit)),
        _ => None,
    })
}

/// What `pg_waldump` prints of one record.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    manager: String,
    total: u32,
    transaction: u32,
    start: Offset,
    ending: Option<String>,
}

/// Compares every record with what the major's own `pg_waldump` prints; says how many.
fn compare_with_waldump(server: &Server, events: &[LogEvent]) -> usize {
    let tools = server.major().tools().expect("pg_waldump of this major: run tests/install");
    let first = records(events).next().unwrap().0.start;
    let mut command = Command::new(tools.join("pg_waldump"));
    command.arg("-p").arg(server.data_dir().join("pg_wal")).args(["-t", "1", "-s", &first.to_string()]);
    let mut child = user::run_as(command).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut theirs = BufReader::new(child.stdout.take().unwrap()).split(b'\n');
    let mut count = 0;
    let mut events = events.iter().peekable();
    while let Some(event) = events.next() {
        let Happened::Record(record) = &event.what else { continue };
        let ending = events.peek().filter(|e| e.start == event.start).and_then(|e| ending(&e.what));
        let ours = Line {
            manager: RESOURCE_MANAGERS[usize::from(record.resource_manager)].to_owned(),
            total: record.total_bytes,
            transaction: record.transaction,
            start: event.start,
            ending,
        };
        let line =
            theirs.next().unwrap_or_else(|| panic!("pg_waldump has no record at {}", event.start)).unwrap();
        let line = String::from_utf8_lossy(&line).into_owned();
        assert_eq!(waldump_line(&line), Some(ours), "{line}");
        count += 1;
    }
    assert!(theirs.next().is_none(), "pg_waldump has more records");
    child.wait().unwrap();
    count
}

/// A transaction's end in the words that `waldump_line` finds: what, of which transaction, with which others.
fn ending(what: &Happened) -> Option<String> {
    let lows = |of: &[farshore_engines::event::TransactionId]| -> String {
        of.iter().map(|t| format!(" {}", t.low)).collect()
    };
    Some(match what {
        Happened::Commit(c) => {
            let prepared = c.prepared.as_ref().map_or(0, |_| c.transaction.low);
            format!("COMMIT {prepared}{}", lows(&c.subtransactions))
        }
        Happened::Abort(a) => {
            let prepared = a.prepared.as_ref().map_or(0, |_| a.transaction.low);
            format!("ABORT {prepared}{}", lows(&a.subtransactions))
        }
        Happened::RestorePoint { name, .. } => format!("RESTORE_POINT {name}"),
        _ => return None,
    })
}

fn waldump_line(line: &str) -> Option<Line> {
    let after = |key: &str| line.split_once(key).map(|(_, rest)| rest.trim_start());
    let word = |text: &str| text.split([' ', ',', ':', ';']).next().unwrap_or_default().to_owned();
    let total = after("len (rec/tot):")?.split_once('/')?.1.trim_start();
    let desc = after("desc: ")?;
    let manager = word(after("rmgr:")?);
    let ending = match (manager.as_str(), word(desc).as_str()) {
        ("Transaction", kind @ ("COMMIT" | "ABORT" | "COMMIT_PREPARED" | "ABORT_PREPARED")) => {
            let prepared =
                if kind.ends_with("PREPARED") { word(desc.split_once(' ')?.1) } else { "0".into() };
            let others = desc.split_once("subxacts:").map_or("", |(_, rest)| rest.split(';').next().unwrap());
            Some(format!("{} {prepared}{}", kind.trim_end_matches("_PREPARED"), others.trim_end()))
        }
        ("XLOG", "RESTORE_POINT") => Some(desc.to_owned()),
        _ => None,
    };
    Some(Line {
        manager,
        total: word(total).parse().ok()?,
        transaction: word(after("tx:")?).parse().ok()?,
        start: word(after("lsn:")?).parse().ok()?,
        ending,
    })
}

/// Compares every record that starts before `until` with what the server says of its own log; says how many.
fn compare_with_walinspect(server: &Server, events: &[LogEvent], until: Offset) -> usize {
    server.try_sql("create extension if not exists pg_walinspect").unwrap();
    let first = records(events).next().unwrap().0.start;
    let theirs = server.sql(&format!(
        "select start_lsn, end_lsn, xid, resource_manager, record_length
         from pg_get_wal_records_info('{first}', '{until}') order by start_lsn"
    ));
    let mut theirs = theirs.lines();
    let mut count = 0;
    let mut events = events.iter().peekable();
    while let Some(event) = events.next() {
        let Happened::Record(record) = &event.what else { continue };
        // The server counts the rest of the segment as part of a switch.
        let end = match events.peek().map(|e| &e.what) {
            Some(Happened::Switch { next_segment }) => *next_segment,
            _ => event.end,
        };
        let manager = RESOURCE_MANAGERS[usize::from(record.resource_manager)];
        let ours = format!("{}|{end}|{}|{manager}|{}", event.start, record.transaction, record.total_bytes);
        assert_eq!(theirs.next(), Some(ours.as_str()));
        count += 1;
    }
    assert_eq!(theirs.next(), None);
    count
}

/// Runs the workload and checks what the decoder says of it against all oracles this major has.
fn decoder_agrees(major: Installed, segment_mib: u32) {
    let server = cluster(major, segment_mib);
    server.sql(WORKLOAD);
    let transactions = server.sql("select xid || ' ' || what from seen");
    let until = offset(&server, "select pg_current_wal_flush_lsn()");
    let shape = shape(&server);

    // The stream up to the flush position, cut like packets.
    let (start, bytes) = read_log(server.data_dir(), &shape, 1);
    let mut events = Vec::new();
    let mut decoder = LogDecoder::new(shape, start).unwrap().with_every_record();
    let streamed = &bytes[..until.bytes_since(start.offset).unwrap() as usize];
    for piece in streamed.chunks(8_191) {
        decoder.push(piece, &mut |event| events.push(event)).unwrap();
    }
    assert_eq!(decoder.checked_end(), Some(until), "the flush position is the end of the last record");

    let committed: BTreeMap<u64, &Commit> =
        commits(&events).filter_map(|(_, c)| Some((c.transaction.full?, c))).collect();
    let expected = transactions.lines().count();
    for line in transactions.lines() {
        let (xid, what) = line.split_once(' ').unwrap();
        let commit = committed[&xid.parse::<u64>().unwrap()];
        match what {
            "subs" => assert_eq!(commit.subtransactions.len(), 2, "{commit:?}"),
            "prepared" => {
                assert_eq!(commit.prepared.as_ref().unwrap().name.as_deref(), Some("one é"));
                assert_eq!(commit.subtransactions.len(), 1);
            }
            "from elsewhere" => {
                let origin = commit.origin.unwrap();
                assert_eq!((origin.node, origin.offset.get()), (Some(1), 0xABCDEF));
                assert_eq!(origin.time_micros, 1_580_608_922_000_000);
            }
            _ => assert!(commit.prepared.is_none() && commit.origin.is_none()),
        }
    }
    assert_eq!(expected, 6, "{transactions}");
    let told = |wanted: &dyn Fn(&Happened) -> bool| events.iter().filter(|e| wanted(&e.what)).count();
    assert_eq!(told(&|w| matches!(w, Happened::RestorePoint { name, .. } if name == "before the fall")), 1);
    assert!(told(&|w| matches!(w, Happened::Checkpoint(c) if c.online)) >= 1);
    assert!(told(&|w| matches!(w, Happened::Switch { .. })) >= 1);
    assert!(told(&|w| matches!(w, Happened::ParameterChange(p) if p.wal_level == 2)) >= 1);
    assert_eq!(
        told(&|w| matches!(w, Happened::Prepare(p) if p.name == "one é" && p.subtransactions.len() == 1)),
        1
    );
    assert_eq!(told(&|w| matches!(w, Happened::Prepare(p) if p.name == "two")), 1);
    assert_eq!(told(&|w| matches!(w, Happened::Abort(a) if a.prepared.is_some())), 1);
    let total = records(&events).count();
    let mut report = format!("{major} with {segment_mib} MiB segments: {total} records, ");
    report += &format!("{} commits, all to the flush position {until}", committed.len());
    if major != Installed::V14 {
        let compared = compare_with_walinspect(&server, &events, until);
        report += &format!("; {compared} as pg_walinspect says");
    }

    // The files after a clean stop, to their unused tail.
    server.stop(farshore_testkit::pg::Mode::Fast);
    let (start, bytes) = read_log(server.data_dir(), &shape, 1);
    let (events, end) = decode_files(shape, start, &bytes);
    assert!(end.at > Some(until), "{end:?}");
    let last = events.last().map(|e| &e.what);
    assert!(matches!(last, Some(Happened::Checkpoint(c)) if !c.online), "{last:?}");
    if major.tools().is_some() {
        let compared = compare_with_waldump(&server, &events);
        report += &format!("; {compared} as pg_waldump says");
    }
    println!("{report}");
}

#[test]
fn decoder_agrees_with_postgresql_14_in_1_mib_segments() {
    decoder_agrees(Installed::V14, 1);
}

#[test]
fn decoder_agrees_with_postgresql_15_in_1_mib_segments() {
    decoder_agrees(Installed::V15, 1);
}

#[test]
fn decoder_agrees_with_postgresql_16_in_64_mib_segments() {
    decoder_agrees(Installed::V16, 64);
}

#[test]
fn decoder_agrees_with_postgresql_17_in_16_mib_segments() {
    decoder_agrees(Installed::V17, 16);
}

#[test]
fn decoder_agrees_with_postgresql_18_in_1_mib_segments() {
    decoder_agrees(Installed::V18, 1);
}

#[test]
fn decoder_agrees_on_a_million_records() {
    let seconds = std::env::var("FARSHORE_SOAK_SECONDS").map_or(2, |s| s.parse().unwrap());
    let server = cluster(Installed::V15, 16);
    server.pgbench_init(1);
    let load = server.pgbench(4, Length::For(Duration::from_secs(seconds)));
    server.sql("create table n (i int primary key); insert into n select generate_series(1, 490000)");
    let report = load.wait();
    let shape = shape(&server);
    server.stop(farshore_testkit::pg::Mode::Fast);
    let (start, bytes) = read_log(server.data_dir(), &shape, 1);
    let began = std::time::Instant::now();
    let (events, end) = decode_files(shape, start, &bytes);
    let took = began.elapsed();
    let compared = compare_with_waldump(&server, &events);
    assert!(compared >= 950_000, "{compared} records");
    assert!(commits(&events).count() as u64 >= report.transactions);
    println!(
        "{compared} records, {} commits, to {end:?}, {} bytes in {took:?}",
        commits(&events).count(),
        bytes.len()
    );
}

/// Kills a server under load: where the decoder says its log ends is where the server goes on.
#[test]
fn a_killed_server_goes_on_where_the_decoder_says_its_log_ends() {
    let server = cluster(Installed::V16, 1);
    server.pgbench_init(1);
    let shape = shape(&server);
    for round in 0..3 {
        let load = server.pgbench(4, Length::For(Duration::from_secs(60)));
        let from = offset(&server, "select pg_current_wal_lsn()");
        let moved = || {
            let now = offset(&server, "select pg_current_wal_lsn()");
            now.bytes_since(from).filter(|bytes| *bytes > 2 << 20)
        };
        farshore_testkit::process::wait_for(Duration::from_secs(60), moved).expect("pgbench writes log");
        server.kill9();
        load.wait_any(Duration::from_secs(60));
        let (start, bytes) = read_log(server.data_dir(), &shape, 1);
        let (before, end) = decode_files(shape, start, &bytes);
        server.start();
        let (start, bytes) = read_log(server.data_dir(), &shape, 1);
        let (after, _) = decode_files(shape, start, &bytes);
        let next = records(&after).find(|(e, _)| Some(e.start) >= end.at).unwrap().0;
        assert_eq!(after[..before.len()], before[..], "what was told of the log stays true");
        assert_eq!(after[before.len()].start, next.start);
        // Either it goes on right there, or it says that a record that began there was never finished.
        let replaced = after.iter().find_map(|e| match e.what {
            Happened::Abandoned { abandoned, .. } if e.start == next.start => Some(abandoned),
            _ => None,
        });
        let gap = replaced.unwrap_or(next.start).bytes_since(end.at.unwrap()).unwrap();
        assert!(gap <= 40, "the server goes on at {}, we ended at {end:?}", next.start);
        println!(
            "round {round}: {} records, then {:?}; unfinished: {replaced:?}",
            records(&before).count(),
            end.why
        );
    }
}

/// Loses the segments in which a record goes on, as a crash before they were flushed does.
#[test]
fn an_unfinished_record_is_told_when_the_server_gives_it_up() {
    for major in Installed::all() {
        let server = cluster(major, 1);
        server.sql("checkpoint; create table t (i int)");
        let before = offset(&server, "select pg_current_wal_flush_lsn()");
        server.sql("select length(pg_logical_emit_message(true, 'm', repeat('x', 3000000))::text)");
        let shape = shape(&server);
        server.kill9();
        let (start, bytes) = read_log(server.data_dir(), &shape, 1);
        let (events, _) = decode_files(shape, start, &bytes);
        let (long, _) = records(&events)
            .find(|(e, _)| e.start >= before && e.end.get() > e.start.get() + 3_000_000)
            .unwrap();
        let cut = SegmentName::holding(start.timeline, long.start, shape.segment_bytes).end().unwrap();
        for entry in std::fs::read_dir(server.data_dir().join("pg_wal")).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if let Ok(LogFileName::Segment(segment)) = LogFileName::parse(&name, shape.segment_bytes)
                && segment.start() >= cut
            {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        server.start();
        let (start, bytes) = read_log(server.data_dir(), &shape, 1);
        let (events, end) = decode_files(shape, start, &bytes);
        let told: Vec<_> = events.iter().filter(|e| matches!(e.what, Happened::Abandoned { .. })).collect();
        let [LogEvent { what: Happened::Abandoned { abandoned, .. }, start, .. }] = told[..] else {
            panic!("{told:?}")
        };
        assert_eq!((*abandoned, start.segment_start(1 << 20)), (long.start, cut));
        assert!(end.at > Some(*start), "the log goes on behind it");
        println!("{major}: the record at {abandoned} is given up at {start}");
    }
}

/// Promotes a standby of every major in the middle of a segment.
async fn promotion_is_followed(major: Installed) {
    let primary = cluster(major, 1);
    let standby = Server::standby_of(&primary).await;
    primary.sql("create table t (i int); insert into t select generate_series(1, 3000)");
    let sent = offset(&primary, "select pg_current_wal_flush_lsn()");
    let replayed = || {
        let at = standby.sql("select pg_last_wal_replay_lsn()").parse::<Offset>().ok()?;
        (at >= sent).then_some(())
    };
    farshore_testkit::process::wait_for(Duration::from_secs(60), replayed).expect("the standby catches up");
    let shape = shape(&primary);
    primary.stop(farshore_testkit::pg::Mode::Fast);
    standby.promote();
    standby.sql("insert into t values (0)");
    let until = offset(&standby, "select pg_current_wal_flush_lsn()");

    let folder = standby.data_dir().join("pg_wal");
    let text = std::fs::read(folder.join(LogFileName::History(Timeline::new(2)).to_string())).unwrap();
    let history = TimelineHistory::parse(Timeline::new(2), &text).unwrap();
    let fork = history.leaves(Timeline::new(1)).unwrap();

    let (start, bytes) = read_log(standby.data_dir(), &shape, 2);
    assert_eq!(start.offset, fork.segment_start(shape.segment_bytes.get()));
    let mut events = Vec::new();
    let mut decoder = LogDecoder::new(shape, start).unwrap();
    let streamed = &bytes[..until.bytes_since(start.offset).unwrap() as usize];
    decoder.push(streamed, &mut |event| events.push(event)).unwrap();
    assert_eq!(decoder.checked_end(), Some(until));
    let end =
        events.iter().find(|e| matches!(e.what, Happened::EndOfRecovery { .. })).expect("it was promoted");
    let Happened::EndOfRecovery { timeline, previous_timeline, .. } = end.what else { unreachable!() };
    assert_eq!((timeline.get(), previous_timeline.get()), (2, 1));
    assert!(end.start.bytes_since(fork).unwrap() <= 40, "the new timeline begins at its fork");
    // What was left of the old timeline's last segment holds that timeline's log up to the fork, and is not whole.
    let left = SegmentName::holding(Timeline::new(1), fork, shape.segment_bytes);
    let partial = std::fs::read(folder.join(LogFileName::Partial(left).to_string())).unwrap();
    let (_, end) = decode_files(shape, Position::new(Timeline::new(1), start.offset), &partial);
    assert_eq!(end.at, Some(fork), "{end:?}");
    println!("{major}: forked at {fork}, followed to {until}; the partial segment ends by {:?}", end.why);
}

#[tokio::test]
async fn promotions_are_followed_on_every_major() {
    for major in Installed::all() {
        promotion_is_followed(major).await;
    }
}
