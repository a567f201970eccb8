//! A catalog of many databases with ninety days behind it.
//!
//! Of each database: its exposure, a minute each for two days and one an hour before; a base backup a day, of which thirty are kept, a drill a week, a job and an
//! entry in the record of activity for each of them. One in five ships into two stores; one in twenty is late, one in fifty is not heard any more. The log of the
//! one in the middle has a commit a minute for all ninety days, that of the others for their newest hundred minutes.
//!
//! Facts go in by the catalog's own functions, a day or a database in one transaction; the million rows of exposure by SQL, as the catalog writes them.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use farshore_catalog::access::Role;
use farshore_catalog::activity::{Activity, activity_append_in_txn};
use farshore_catalog::backup::{Backup, BackupState, backup_insert_in_txn};
use farshore_catalog::branch::{Branch, branch_put_in_txn};
use farshore_catalog::commit::Commit;
use farshore_catalog::database::{Database, database_put_in_txn};
use farshore_catalog::drill::{Drill, drill_put_in_txn};
use farshore_catalog::incarnation::{Incarnation, incarnation_put_in_txn};
use farshore_catalog::job::{
    Claim, Holder, JobEnd, JobId, JobKind, NewJob, Via, job_end_in_txn, job_put_in_txn,
};
use farshore_catalog::mark::{Mark, MarkKind};
use farshore_catalog::node::Node;
use farshore_catalog::range::{JournalRange, range_extend_in_txn};
use farshore_catalog::schedule::{Schedule, schedule_put_in_txn};
use farshore_catalog::shipping::{Shipping, ShippingState, shipping_put_in_txn};
use farshore_catalog::target::{Target, target_put_in_txn};
use farshore_catalog::user::User;
use farshore_catalog::{Catalog, Durability, Options, Txn};
use farshore_journal::format::certificate::{
    CheckOutcome, ChosenPoint, CountedTable, DrillCheck, DrillStatement, DrillTarget, DrillVerdict, Measured,
    SCHEMA, statement_text,
};
use farshore_journal::{
    BackupId, DatabaseName, DrillId, IncarnationId, Offset, Position, Sequence, StoreId, Timeline,
};

/// Who looks.
pub const USER: &str = "ana";
/// His password.
pub const PASSWORD: &str = "correct horse battery";

const DAYS: i64 = 90;
/// Hours of which each minute is there.
const MINUTES_FOR: i64 = 48;
/// Base backups that are kept.
const BACKUPS: i64 = 30;
/// Bytes of log a minute.
const RATE: u64 = 1000;
const STORES: [&str; 2] = ["main", "second"];

type Time = DateTime<Utc>;

fn name(number: u16) -> DatabaseName {
    format!("db-{number:03}").parse().unwrap()
}

fn id(kind: u8, of: u16, number: i64) -> [u8; 16] {
    let ([a, b], [c, d]) = (of.to_be_bytes(), u16::try_from(number).unwrap().to_be_bytes());
    [kind, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Where the log is at a time.
fn offset(now: Time, time: Time) -> Offset {
    let minutes = (time - (now - TimeDelta::days(DAYS))).num_minutes().max(0);
    Offset::new(u64::try_from(minutes).unwrap() * RATE)
}

/// A time as a page takes it.
pub fn time_of_a_commit(time: Time) -> String {
    time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Fills a catalog that is empty.
pub async fn fill(url: &str, databases: u16) {
    let options =
        Options { deadline: Duration::from_secs(600), durability: Durability::Normal, ..Options::default() };
    let catalog = Catalog::open(url, options).await.unwrap();
    let now = Utc::now();
    let user = User { name: USER.parse().unwrap(), role: Role::Admin, disabled: false, created_at: now };
    catalog.user_insert(&user, &farshore_web::password::hash(PASSWORD).unwrap()).await.unwrap();
    for number in 0..8 {
        let node = Node {
            name: format!("node-{number}"),
            version: "0.1.0".to_owned(),
            roles: vec!["ships".to_owned(), "jobs".to_owned()],
            started_at: now - TimeDelta::days(9),
            heartbeat_at: now,
        };
        catalog.node_put(&node).await.unwrap();
    }
    for number in 0..databases {
        let mut txn = catalog.begin().await.unwrap();
        database(&mut txn, now, number).await;
        txn.commit().await.unwrap();
        let minutes = if number == databases / 2 { DAYS * 1440 } else { 100 };
        log(&catalog, now, number, minutes).await;
    }
    for day in (0..DAYS).rev() {
        let mut txn = catalog.begin_local().await.unwrap();
        for number in 0..databases {
            work(&mut txn, now - TimeDelta::days(day) - TimeDelta::hours(2), number, day).await;
        }
        txn.commit().await.unwrap();
    }
    catalog.close().await;
}

/// What is so of a database now.
async fn database(txn: &mut Txn, now: Time, number: u16) {
    let (database, begun) = (name(number), now - TimeDelta::days(DAYS));
    let engine = if number.is_multiple_of(3) { "sqlite" } else { "postgres" };
    let record = Database { name: database.clone(), engine: engine.to_owned(), added_at: begun };
    database_put_in_txn(txn, &record).await.unwrap();
    let incarnation = IncarnationId::from_bytes(id(1, number, 0));
    let record = Incarnation {
        id: incarnation,
        database: database.clone(),
        engine_identity: format!("73012345678901{number:05}"),
        number: Some(0),
        created_at: begun,
        parent: None,
        reason: "first contact".to_owned(),
        segment_bytes: 16 << 20,
        major_version: Some(15),
    };
    incarnation_put_in_txn(txn, &record).await.unwrap();
    let (timeline, end) = (Timeline::new(1), offset(now, now));
    let branch = Branch { incarnation, timeline, fork: None, first_seen_at: begun };
    branch_put_in_txn(txn, &branch).await.unwrap();
    for store in &STORES[..1 + usize::from(number.is_multiple_of(5))] {
        let range = JournalRange {
            incarnation,
            store: (*store).to_owned(),
            timeline,
            start: offset(now, now - TimeDelta::days(BACKUPS + 1)),
            end,
            checked_end: end,
            first_sequence: Sequence::new(7),
            last_sequence: Sequence::new(90_000),
        };
        range_extend_in_txn(txn, &range).await.unwrap();
        let target = Target {
            database: database.clone(),
            store: (*store).to_owned(),
            url: format!("s3://backups-{store}/farshore"),
            state: "connected".to_owned(),
            stored: Some(Position::new(timeline, end)),
            updated_at: now,
            failure: None,
        };
        target_put_in_txn(txn, &target).await.unwrap();
    }
    let late = number % 20 == 7;
    let heard = if number % 50 == 9 { now - TimeDelta::days(2) } else { now };
    let shipping = Shipping {
        database: database.clone(),
        state: ShippingState::Connected,
        timeline: Some(timeline),
        received: Some(end),
        stored: Some(end),
        reported: Some(end),
        released: Some(end),
        source: Some(end),
        retained_bytes: Some(5 << 20),
        seconds_to_full: Some(72_000),
        heartbeat: Duration::from_secs(1200),
        last_contact_at: Some(heard),
        last_stored_commit_at: Some(now - TimeDelta::seconds(3)),
        oldest_unstored_commit_at: late.then(|| now - TimeDelta::seconds(200)),
        updated_at: heard,
        node: Some(format!("node-{}", number % 8)),
    };
    shipping_put_in_txn(txn, &shipping).await.unwrap();
    for (kind, cron) in [(JobKind::Backup, "0 2 * * *"), (JobKind::Drill, "0 4 * * 0")] {
        let (cron, zone, due) = (cron.to_owned(), "Europe/Oslo".to_owned(), now - TimeDelta::hours(2));
        let schedule = Schedule { database: database.clone(), kind, cron, zone, due, job: None };
        schedule_put_in_txn(txn, &schedule, now).await.unwrap();
    }
}

/// A commit a minute, and a named point each day.
async fn log(catalog: &Catalog, now: Time, number: u16, minutes: i64) {
    let (incarnation, timeline) = (IncarnationId::from_bytes(id(1, number, 0)), Timeline::new(1));
    let all: Vec<Commit> = (0..minutes)
        .rev()
        .filter_map(|minute| {
            let time = now - TimeDelta::minutes(minute);
            let end = offset(now, time).get();
            let start = Offset::new(end.checked_sub(100)?);
            Some(Commit { timeline, start, end: Offset::new(end), time, xid: 1000 + end / RATE })
        })
        .collect();
    for some in all.chunks(10_000) {
        catalog.commit_insert(incarnation, some).await.unwrap();
    }
    for day in 1..=minutes / 1440 {
        let time = now - TimeDelta::days(day);
        let mark = Mark {
            incarnation,
            kind: MarkKind::RestorePoint,
            name: format!("before-release-{day}"),
            position: Position::new(timeline, offset(now, time)),
            time,
            note: String::new(),
            held_until: None,
        };
        catalog.mark_put(&mark).await.unwrap();
    }
}

/// What was done for a database on a day.
async fn work(txn: &mut Txn, at: Time, number: u16, day: i64) {
    let at = at + TimeDelta::seconds(i64::from(number));
    job(txn, at, number, JobKind::Backup, "{\"backup\":\"taken\",\"stored_bytes\":1073741824}").await;
    let incarnation = IncarnationId::from_bytes(id(1, number, 0));
    if day < BACKUPS {
        for (of, store) in STORES[..1 + usize::from(number.is_multiple_of(5))].iter().enumerate() {
            let now = at + TimeDelta::days(day) + TimeDelta::hours(2);
            let backup = Backup {
                id: BackupId::from_bytes(id(2 + u8::try_from(of).unwrap(), number, day)),
                incarnation,
                store: (*store).to_owned(),
                timeline: Timeline::new(1),
                start: offset(now, at),
                end: Some(Offset::new(offset(now, at).get() + 500)),
                started_at: at,
                finished_at: Some(at + TimeDelta::seconds(100)),
                bytes: Some(1 << 32),
                stored_bytes: Some(1 << 30),
                state: BackupState::Complete,
                checked: true,
                label: "nightly".to_owned(),
                bad_pages: Some(0),
                bad_at: None,
            };
            backup_insert_in_txn(txn, &backup).await.unwrap();
        }
    }
    if day % 7 == 0 {
        job(txn, at, number, JobKind::Drill, "{\"verdict\":\"passed\"}").await;
        drill_put_in_txn(txn, &drill(at, number, day)).await.unwrap();
    }
}

async fn job(txn: &mut Txn, at: Time, number: u16, kind: JobKind, result: &str) {
    let job = NewJob {
        id: JobId::mint(),
        kind,
        database: Some(name(number)),
        spec: "{}".to_owned(),
        asked_by: "schedule".to_owned(),
        via: Via::Schedule,
        wanted_node: None,
    };
    let holder = Holder { node: format!("node-{}", number % 8), process: "4f1c2a9e".to_owned() };
    let claim = Claim { id: job.id, attempt: 1, process: holder.process.clone() };
    job_put_in_txn(txn, &job, Some(&holder), at).await.unwrap();
    let end = JobEnd::Succeeded(result.to_owned());
    job_end_in_txn(txn, &claim, &end, at + TimeDelta::seconds(110)).await.unwrap();
    let activity = Activity {
        at,
        who: "schedule".to_owned(),
        what: format!("{} run", kind.word()),
        database: Some(name(number)),
        detail: format!("job {}", job.id),
    };
    activity_append_in_txn(txn, &activity).await.unwrap();
}

/// One of thirty failed, one of ten took too long.
fn drill(began: Time, number: u16, day: i64) -> Drill {
    let (ended, at) = (began + TimeDelta::seconds(90), Position::new(Timeline::new(1), Offset::new(600)));
    let (verdict, took) = match i64::from(number) + day {
        sum if sum % 30 == 1 => (DrillVerdict::Failed, None),
        sum if sum % 10 == 2 => (DrillVerdict::Breached, Some(1_000_000_000)),
        sum => (DrillVerdict::Passed, Some(60_000_000 + u64::try_from(sum).unwrap() * 10_000)),
    };
    let checks = ["answers reads", "pg_amcheck", "public.orders has rows", "the newest order is recent"];
    let checks = checks.map(|name| DrillCheck {
        name: name.to_owned(),
        outcome: CheckOutcome::Passed,
        required: true,
        detail: "as it should be, as far as this looks".to_owned(),
    });
    let tables =
        (0..8).map(|of| CountedTable { table: format!("public.orders_{of}"), rows: Some(4_200_000) });
    let said = DrillStatement {
        certificate: SCHEMA.to_owned(),
        drill: DrillId::from_bytes(id(4, number, day)),
        database: name(number),
        engine: "postgres".to_owned(),
        store: StoreId::from_bytes([3; 16]),
        incarnation: IncarnationId::from_bytes(id(1, number, 0)),
        incarnation_number: 0,
        node: format!("node-{}", number % 8),
        version: "0.1.0".to_owned(),
        machine: "Linux 6.1.0 x86_64, 8 processors".to_owned(),
        began: began.to_rfc3339(),
        ended: ended.to_rfc3339(),
        verdict,
        point: ChosenPoint { asked: "random".to_owned(), seed: Some(7), spans: Vec::new() },
        journal: None,
        target: took.map(|_| DrillTarget {
            position: at,
            time: Some(began.to_rfc3339()),
            transaction: Some(720),
            base: BackupId::from_bytes(id(2, number, 0)),
            base_end: at,
            replay_bytes: 1 << 24,
            planned_bytes: 1 << 32,
        }),
        failure: None,
        checks: checks.into(),
        tables: tables.collect(),
        measured: Measured { plan_us: Some(400_000), replay_us: took, ..Measured::default() },
        recovery_us: took,
        objective_us: Some(900_000_000),
        network: "a network of its own".to_owned(),
        removed: true,
    };
    Drill {
        id: said.drill,
        database: said.database.clone(),
        store: "main".to_owned(),
        incarnation: said.incarnation,
        verdict,
        began,
        ended,
        recovery: took.map(Duration::from_micros),
        objective: Some(Duration::from_secs(900)),
        replayed: took.map(|took| (Duration::from_micros(took), 1 << 24)),
        statement: statement_text(&said).unwrap(),
        signed: None,
        uncertified: Some("no signing_key is configured".to_owned()),
    }
}

/// A row for each database and hour, whose minutes differ from hour to hour, as they do of databases that are written to.
pub fn exposure(databases: u16, run: impl Fn(&str)) {
    const VARIANTS: u64 = 97;
    let now = Utc::now().duration_trunc(TimeDelta::hours(1)).unwrap().timestamp_micros();
    let mut text = "begin;\ncreate temporary table variant (n bigint, whole bigint, body text);\n".to_owned();
    for variant in 0..VARIANTS {
        let mut body = String::new();
        for minute in 0..60 {
            let worst = (variant * 7919 + minute * 104_729) % 997;
            let _ = write!(body, "{minute}:{worst};");
        }
        let _ = writeln!(text, "insert into variant values ({variant}, 1, '{body}');");
        let _ =
            writeln!(text, "insert into variant values ({variant}, 0, '{}:{};');", variant % 60, variant * 9);
    }
    let _ = writeln!(
        text,
        "insert into exposure_hour (database_name, hour_us, body) \
         with recursive hour (n, us) as (select cast(0 as bigint), cast({now} as bigint) \
         union all select n + 1, us - 3600000000 from hour where n < {last}), \
         numbered (n, name) as (select row_number() over (order by name), name from farshore_database) \
         select numbered.name, hour.us, variant.body from hour cross join numbered \
         join variant on variant.n = (numbered.n * 31 + hour.n * 17) % {VARIANTS} \
         and variant.whole = case when hour.n < {MINUTES_FOR} then 1 else 0 end \
         order by hour.us, numbered.name;\ncommit;",
        last = DAYS * 24 - 1
    );
    eprintln!("{} rows of exposure", i64::from(databases) * DAYS * 24);
    run(&text);
}

/// Runs SQL on a catalog in SQLite. Python brings SQLite along.
pub fn into_sqlite(path: &Path, text: &str) {
    let script = "import sqlite3, sys; sqlite3.connect(sys.argv[1], isolation_level=None).executescript(open(sys.argv[2]).read())";
    let file = path.with_extension("sql");
    std::fs::write(&file, text).unwrap();
    let done = Command::new("/usr/bin/python3").arg("-c").arg(script).arg(path).arg(&file).status().unwrap();
    assert!(done.success());
}
