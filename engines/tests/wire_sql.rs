//! The SQL side against real servers of every major.

#![allow(clippy::unwrap_used)] // in a test a panic is the message, in its helpers too

use farshore_engines::postgres::sql::{HolderEnd, Session, WalStatus};
use farshore_engines::postgres::wire::{ConnectParams, Connection, Error, SlotName};
use farshore_journal::{Offset, Position, Timeline};
use farshore_testkit::pg::{Major, Server};

fn params(url: &str) -> ConnectParams {
    url.parse().unwrap()
}

async fn session_of(params: &ConnectParams) -> Result<Session, Error> {
    Session::connect(params, &params.hosts()[0]).await
}

async fn everything_the_checks_ask_is_answered(major: Major) {
    let server = Server::builder(major).conf("max_slot_wal_keep_size = 64MB").start();
    let params = params(&server.url());
    let session = session_of(&params).await.unwrap();
    assert_eq!(session.server_version().major, major.number());

    let settings = session.settings().await.unwrap();
    assert_eq!(
        (settings.wal_level.as_str(), settings.fsync, settings.full_page_writes),
        ("replica", true, true)
    );
    assert_eq!((settings.wal_segment_bytes, settings.block_bytes), (16 << 20, 8192));
    assert_eq!(settings.max_slot_wal_keep_bytes, Some(64 << 20));
    assert_eq!(settings.idle_replication_slot_timeout, None);
    assert_eq!(settings.wal_sender_timeout.unwrap().as_secs(), 60);
    assert_eq!(settings.data_directory.as_deref(), Some(server.data_dir()));
    assert!(settings.data_checksums);
    let rights = session.role_rights().await.unwrap();
    assert!(rights.superuser && rights.replication && rights.switch_wal);
    assert!(!session.in_recovery().await.unwrap());
    assert!(session.wal_directory_bytes().await.unwrap().unwrap() >= 16 << 20);
    session.now().await.unwrap();

    let before = session.current_position().await.unwrap();
    assert_eq!(before.timeline, Timeline::new(1));
    let beat = session.emit_heartbeat().await.unwrap();
    assert!(beat > before.offset, "a heartbeat moves the log");

    let keep: SlotName = "fs_keep".parse().unwrap();
    let restart = session.slot_create_keep(&keep).await.unwrap();
    assert!(matches!(session.slot_create_keep(&keep).await, Err(Error::SlotExists { .. })));
    let state = session.slot_get(&keep).await.unwrap().unwrap();
    assert!(state.physical && !state.temporary && !state.is_lost());
    assert_eq!((state.restart, state.active_pid), (Some(restart), None));
    assert_eq!(state.wal_status, Some(WalStatus::Reserved));
    server.sql("create table t as select g from generate_series(1, 1000) g");
    let end: Offset = server.sql("select pg_current_wal_flush_lsn()").parse().unwrap();
    assert_eq!(session.slot_advance(&keep, end).await.unwrap(), end);
    assert_eq!(session.slot_advance(&keep, restart).await.unwrap(), end, "it never moves back");
    assert!(session.retained_bytes().await.unwrap() < 1 << 20);
    assert_eq!(session.slot_terminate_holder(&keep).await.unwrap(), HolderEnd::NotHeld);

    let start = Position::new(Timeline::new(1), end.segment_start(16 << 20));
    let live = Connection::connect(&params, &params.hosts()[0]).await.unwrap();
    let pid = live.process_id();
    let mut stream = live.start_physical(Some(&keep), start).await.unwrap();
    assert!(matches!(session.slot_advance(&keep, end).await, Err(Error::SlotInUse { .. })));
    let other = session_of(&params.clone().with_application_name("someone")).await.unwrap();
    assert_eq!(other.slot_terminate_holder(&keep).await.unwrap(), HolderEnd::NotOurs { pid });
    assert_eq!(session.slot_terminate_holder(&keep).await.unwrap(), HolderEnd::Told { pid });
    while stream.next_event().await.is_ok() {}
    drop(stream);
    let missing: SlotName = "none".parse().unwrap();
    assert_eq!(session.slot_get(&missing).await.unwrap(), None);
    assert!(matches!(session.slot_advance(&missing, end).await, Err(Error::SlotMissing { .. })));
}

/// A role with REPLICATION and nothing else can do what shipping needs, over a bound password and checked TLS.
async fn a_plain_replication_role_is_enough(major: Major) {
    let server = Server::builder(major).tls().scram("fs", "geheim").start();
    let good = format!("{}&channel_binding=require", server.url());
    let session = session_of(&params(&good)).await.unwrap();
    let rights = session.role_rights().await.unwrap();
    assert!(!rights.superuser && rights.replication && !rights.monitor && !rights.switch_wal);
    assert_eq!(session.settings().await.unwrap().data_directory, None);
    assert_eq!(session.wal_directory_bytes().await.unwrap(), None);
    session.emit_heartbeat().await.unwrap();
    session.current_position().await.unwrap();
    let keep: SlotName = "fs_keep".parse().unwrap();
    let restart = session.slot_create_keep(&keep).await.unwrap();
    session.slot_advance(&keep, restart).await.unwrap();
    session.slot_drop(&keep).await.unwrap();

    let wrong = session_of(&params(&good.replace(":geheim@", ":falsch@"))).await.unwrap_err();
    assert_eq!(wrong.code(), Some("28P01"), "{wrong}");
    let none = session_of(&params(&good.replace(":geheim@", "@"))).await.unwrap_err();
    assert!(matches!(none, Error::Authenticate { .. }), "{none}");
}

macro_rules! on_every_major {
    ($($test:ident),*) => { on_every_major!(@ $($test: v14 V14, v15 V15, v16 V16, v17 V17, v18 V18;)*); };
    (@ $($test:ident: $($name:ident $major:ident),*;)*) => {
        $(mod $test { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$test(farshore_testkit::pg::Major::$major).await; }
        )* })*
    };
}

on_every_major!(everything_the_checks_ask_is_answered, a_plain_replication_role_is_enough);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_says_that_it_recovers_and_how_far_it_is() {
    let primary = Server::start_new(Major::V18);
    let standby = Server::standby_of(&primary).await;
    let session = session_of(&params(&standby.url())).await.unwrap();
    assert!(session.in_recovery().await.unwrap());
    assert_eq!(session.current_position().await.unwrap().timeline, Timeline::new(1));
    assert!(session.emit_heartbeat().await.is_err());
    standby.promote();
    assert_eq!(session.current_position().await.unwrap().timeline, Timeline::new(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_in_the_clear_is_not_given_over_a_network() {
    let server = Server::start_new(Major::V15);
    server.sql("create role fs login replication password 'geheim'");
    let hba = "local all all trust\nhost all fs 127.0.0.1/32 password\n";
    std::fs::write(server.data_dir().join("pg_hba.conf"), hba).unwrap();
    server.reload();
    let url = server.url().replace("postgres@", "fs:geheim@");
    let error = session_of(&params(&url)).await.unwrap_err();
    assert!(matches!(error, Error::Authenticate { .. }), "{error:?}");
    assert!(error.to_string().contains("in the clear"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_the_server_gave_up_is_shown_as_lost() {
    for major in [Major::V14, Major::V18] {
        let server = Server::builder(major).conf("max_slot_wal_keep_size = 16MB").start();
        let session = session_of(&params(&server.url())).await.unwrap();
        let keep: SlotName = "fs_keep".parse().unwrap();
        session.slot_create_keep(&keep).await.unwrap();
        for _ in 0..5 {
            server.sql(
                "create table if not exists t (i int); insert into t values (1); select pg_switch_wal()",
            );
        }
        server.sql("checkpoint");
        let state = session.slot_get(&keep).await.unwrap().unwrap();
        assert!(state.is_lost(), "{major}: {state:?}");
        let end = session.current_position().await.unwrap().offset;
        let refused = session.slot_advance(&keep, end).await.unwrap_err();
        assert!(matches!(refused, Error::SlotInvalidated { .. }), "{major}: {refused}");
    }
}
