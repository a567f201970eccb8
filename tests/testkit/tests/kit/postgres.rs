//! Servers start, answer, crash, stop and leave nothing.

use std::path::Path;
use std::time::Duration;

use farshore_testkit::pg::{Length, Major, Mode, Server};
use farshore_testkit::process::wait_for;

/// Everything a test may ask of any server of a major.
fn starts_answers_and_stops(major: Major) {
    let server = Server::builder(major).conf("log_statement = all").tablespace("aside").start();
    assert!(server.is_running());
    assert!(server.sql("show server_version_num").starts_with(&major.number().to_string()));
    assert_eq!(server.sql("show data_checksums; show fsync; show wal_segment_size"), "on\non\n16MB");
    server
        .sql("create table kept(n int); insert into kept values (7); create table beside() tablespace aside");

    server.restart();
    assert_eq!(server.sql("select n from kept"), "7");

    server.sql("insert into kept values (8)");
    server.kill9();
    assert!(!server.is_running());
    server.start();
    assert_eq!(server.sql("select sum(n) from kept"), "15");
    assert!(server.log().contains("automatic recovery in progress"), "it did not crash: {}", server.log());

    for mode in [Mode::Smart, Mode::Immediate, Mode::Fast] {
        server.stop(mode);
        assert!(!server.is_running());
        server.start();
    }
    let folder = server.folder().to_owned();
    let port = server.port();
    drop(server);
    assert!(!folder.exists());
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn postgres_14_starts_answers_and_stops() {
    starts_answers_and_stops(Major::V14);
}

#[test]
fn postgres_15_starts_answers_and_stops() {
    starts_answers_and_stops(Major::V15);
}

#[test]
fn postgres_16_starts_answers_and_stops() {
    starts_answers_and_stops(Major::V16);
}

#[test]
fn postgres_17_starts_answers_and_stops() {
    starts_answers_and_stops(Major::V17);
}

#[test]
fn postgres_18_starts_answers_and_stops() {
    starts_answers_and_stops(Major::V18);
}

/// Copies a loaded primary, lets the standby catch up, promotes it, and finds the same rows.
async fn standby_follows_and_is_promoted(major: Major) {
    let primary = Server::builder(major).tablespace("aside").start();
    primary.pgbench_init(1);
    primary.sql("alter table pgbench_tellers set tablespace aside");
    let load = primary.pgbench(2, Length::Transactions(300));
    let standby = Server::standby_of(&primary).await;
    assert_eq!(load.wait().transactions, 600);

    let end = primary.sql("select pg_current_wal_flush_lsn()");
    let caught_up = wait_for(Duration::from_secs(60), || {
        (standby.sql(&format!("select pg_last_wal_replay_lsn() >= '{end}'")) == "t").then_some(())
    });
    assert!(caught_up.is_some(), "the standby did not reach {end}: {}", standby.log());
    let content = "select sum(abalance), (select sum(tbalance) from pgbench_tellers) from pgbench_accounts";
    let expected = primary.sql(content);
    assert_eq!(standby.sql("select pg_is_in_recovery()"), "t");
    primary.stop(Mode::Immediate);
    standby.promote();
    assert_eq!(standby.sql(content), expected);
    standby.sql("create table written()");
}

#[tokio::test]
async fn standby_made_by_pg_basebackup_follows_and_is_promoted() {
    standby_follows_and_is_promoted(Major::V18).await;
}

#[tokio::test]
async fn standby_made_by_copy_follows_and_is_promoted_on_14() {
    standby_follows_and_is_promoted(Major::V14).await;
}

#[tokio::test]
async fn standby_made_by_copy_follows_and_is_promoted_on_17() {
    standby_follows_and_is_promoted(Major::V17).await;
}

#[tokio::test]
async fn session_answers_in_its_own_database() {
    let server = Server::start_new(Major::V16);
    server.sql("create database other");
    let session = server.connect_to("other").await;
    let row = session.query_one("select current_database()::text, 40 + 2", &[]).await.unwrap();
    assert_eq!((row.get::<_, String>(0).as_str(), row.get::<_, i32>(1)), ("other", 42));
}

#[test]
fn scram_server_refuses_a_wrong_password_and_a_plain_connection() {
    let server = Server::builder(Major::V18).scram("shipper", "right horse").tls().start();
    let psql = |password: &str, mode: &str| {
        let mut psql = std::process::Command::new(Major::clients().join("psql"));
        psql.env("PGPASSWORD", password)
            .env("PGSSLMODE", mode)
            .env("PGSSLROOTCERT", server.ca_path().unwrap())
            .args(["-X", "-A", "-t", "-h", "127.0.0.1", "-U", "shipper", "-d", "postgres"])
            .args([
                "-p",
                &server.port().to_string(),
                "-c",
                "select ssl from pg_stat_ssl where pid = pg_backend_pid()",
            ]);
        let done = psql.output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    assert_eq!(psql("right horse", "verify-full"), (true, "t".to_owned()));
    assert!(!psql("wrong horse", "verify-full").0);
    assert!(!psql("right horse", "disable").0);
}

#[test]
fn builder_sets_segment_size_and_checksums() {
    for major in [Major::V17, Major::V18] {
        let server = Server::builder(major).wal_segment_size(1).checksums(false).start();
        assert_eq!(server.sql("show wal_segment_size; show data_checksums"), "1MB\noff");
    }
}

#[test]
fn data_directory_from_elsewhere_starts_and_stays() {
    let elsewhere = farshore_testkit::user::tempdir();
    let data = elsewhere.path().join("data");
    {
        let server = Server::start_new(Major::V15);
        server.sql("create table kept as select 5 n");
        server.stop(Mode::Fast);
        let copied = std::process::Command::new("cp").arg("-a").arg(server.data_dir()).arg(&data).status();
        assert!(copied.unwrap().success());
    }
    {
        let server = Server::on_data_dir(Major::V15, &data);
        server.start();
        assert_eq!(server.sql("select n from kept"), "5");
    }
    assert!(Path::new(&data).join("PG_VERSION").exists());
}

/// The test runs itself a second time, as a process that starts a server, says where, and is killed.
#[test]
fn killed_test_process_leaves_no_server() {
    const CHILD: &str = "FARSHORE_KIT_CHILD";
    if let Some(told) = std::env::var_os(CHILD) {
        let server = Server::start_new(Major::V16);
        std::fs::write(told, format!("{}\n", server.folder().display())).unwrap();
        std::thread::park_timeout(Duration::from_secs(300));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let told = folder.path().join("told");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "postgres::killed_test_process_leaves_no_server", "--nocapture"])
        .env(CHILD, &told)
        .spawn()
        .unwrap();
    let left = wait_for(Duration::from_secs(120), || {
        let text = std::fs::read_to_string(&told).ok()?;
        text.ends_with('\n').then(|| text.trim().to_owned())
    });
    let left = left.expect("the child starts a server");
    let lock = Path::new(&left).join("data/postmaster.pid");
    assert!(lock.exists());

    child.kill().unwrap();
    child.wait().unwrap();
    let gone = wait_for(Duration::from_secs(60), || (!lock.exists()).then_some(()));
    assert!(gone.is_some(), "the server outlived its test");
    std::fs::remove_dir_all(&left).unwrap();
}

#[test]
fn server_that_refuses_to_start_says_so_and_can_start_later() {
    let server = Server::start_new(Major::V15);
    server.stop(Mode::Fast);
    server.conf("shared_buffers = 'much'");
    let refused = server.try_start().unwrap_err();
    assert!(refused.contains("ended at start"), "{refused}");
    assert!(server.log().contains("shared_buffers"));
    server.conf("shared_buffers = 16MB");
    server.start();
}

#[test]
fn failed_statement_is_an_error_with_its_text() {
    let server = Server::start_new(Major::V15);
    let error = server.try_sql("select 1; select nothing; select 3").unwrap_err();
    assert!(error.contains("nothing"), "{error}");
}

#[test]
fn major_with_tools_has_all_of_them() {
    let with_tools: Vec<Major> = Major::all().into_iter().filter(|major| major.tools().is_some()).collect();
    assert_eq!(with_tools, [Major::V15, Major::V16, Major::V18]);
    for major in with_tools {
        for program in ["pg_waldump", "pg_receivewal", "pg_verifybackup", "pg_amcheck", "pgbench", "psql"] {
            let path = major.tools().unwrap().join(program);
            let done = std::process::Command::new(&path).arg("--version").output().unwrap();
            let text = String::from_utf8_lossy(&done.stdout).into_owned();
            assert!(text.contains(&format!(" {major}.")), "{}: {text}", path.display());
        }
    }
}

#[test]
fn clock_of_a_running_server_is_shifted_both_ways_and_commits_carry_it() {
    let server = Server::builder(Major::V15).shiftable_clock().conf("track_commit_timestamp = on").start();
    server.sql("create table t (a int)");
    let mut times = Vec::new();
    for seconds in [3600, -7200, 0] {
        server.shift_clock(seconds);
        server.sql(&format!("insert into t values ({seconds})"));
        let asked = format!(
            "select extract(epoch from pg_xact_commit_timestamp(xmin))::bigint from t where a = {seconds}"
        );
        times.push(server.sql(&asked).parse::<i64>().unwrap() - seconds);
    }
    // Without the shifts the three are moments of one machine's clock.
    assert!(times.windows(2).all(|pair| (0..60).contains(&(pair[1] - pair[0]))), "{times:?}");
}
