//! Stock standbys that replay from the journal alone, with no connection to the primary.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farshore_applier::plan::Asked;
use farshore_applier::serve::{JournalServer, Standing};
use farshore_engines::postgres::serve::{Door, Guest, Secrets, Verifier};
use farshore_journal::Offset;
use farshore_journal::format::{Recipients, Unlock};
use farshore_testkit::pg::{Major, Mode, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::user;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::rig::{Rig, restore};

const SOON: Duration = Duration::from_secs(90);
const PASSWORD: &str = "no connection to the primary";

/// The journal of a rig, served until it is dropped.
struct Served {
    port: u16,
    heard: Arc<Mutex<Option<Standing>>>,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl Served {
    async fn begin(rig: &Rig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let known = BTreeMap::from([("far".to_owned(), Verifier::of(PASSWORD).unwrap())]);
        let secrets = Arc::new(Secrets::new(known));
        let server = JournalServer::new(
            rig.source(Unlock::none()),
            Duration::from_millis(50),
            tokio::sync::watch::channel(0).1,
        )
        .unwrap();
        let (cancel, heard) = (CancellationToken::new(), Arc::new(Mutex::new(None)));
        let mut tasks = JoinSet::new();
        let (stop, tell) = (cancel.clone(), Arc::clone(&heard));
        tasks.spawn(async move {
            let mut sessions = JoinSet::new();
            loop {
                let (socket, _) = tokio::select! {
                    () = stop.cancelled() => break,
                    accepted = listener.accept() => accepted.unwrap(),
                };
                let (server, secrets, stop, tell) =
                    (server.clone(), Arc::clone(&secrets), stop.clone(), Arc::clone(&tell));
                sessions.spawn(async move {
                    let greeting = server.greeting();
                    let door = Door { tls: None, clear: true };
                    if let Ok(Some(guest)) = Guest::admit(socket, &door, &secrets).await
                        && let Ok(session) = guest.welcome(&greeting).await
                    {
                        let tell = move |heard| *tell.lock().unwrap() = Some(heard);
                        // Whoever goes without a word is no failure of ours.
                        let _ended = server
                            .serve(session, None, tokio::sync::watch::channel(None).1, &tell, &stop)
                            .await;
                    }
                });
            }
            while sessions.join_next().await.is_some() {}
        });
        Self { port, heard, cancel, tasks }
    }

    async fn end(mut self) {
        self.cancel.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

/// A copy of what a rig's journal holds now, set up as a standby of what listens at a port; not started.
async fn standby(rig: &Rig, major: Major, port: u16) -> (TempDir, Server) {
    let plan = rig.plan(Asked::Latest).await.unwrap();
    let place = user::tempdir();
    let data = place.path().join("data");
    restore(&rig.source(Unlock::none()), &plan, &data, None).await.unwrap();
    follows(&data, port);
    let server = Server::on_data_dir(major, &data);
    (place, server)
}

/// Turns a restored copy into a standby: the last word on each setting counts.
fn follows(data: &Path, port: u16) {
    std::fs::remove_file(data.join("recovery.signal")).unwrap();
    std::fs::write(data.join("standby.signal"), "").unwrap();
    let settings = format!(
        "primary_conninfo = 'host=127.0.0.1 port={port} user=far password=''{PASSWORD}'' sslmode=disable application_name=oslo'\n\
         restore_command = ''\nrecovery_target_lsn = ''\nrecovery_target_timeline = 'latest'\nhot_standby = on\n\
         wal_retrieve_retry_interval = '500ms'\n"
    );
    std::fs::write(data.join("postgresql.auto.conf"), settings).unwrap();
}

/// Waits until a standby has all rows of the ledger.
fn has_all(standby: &Server, rig: &Rig) {
    let rows = rig.ledger.len().to_string();
    let all = wait_for(SOON, || (standby.sql("select count(*) from ledger") == rows).then_some(()));
    assert!(
        all.is_some(),
        "{rows} rows, and {}:\n{}",
        standby.sql("select count(*) from ledger"),
        standby.log()
    );
}

/// Content, row by row.
fn content(server: &Server) -> String {
    server.sql("select md5(string_agg(id || note, ',' order by id)) from ledger")
}

async fn a_standby_of(major: Major) {
    let mut rig = Rig::new(major, Recipients::default()).await;
    rig.base().await;
    rig.commits(20).await;
    rig.ship().await;
    let served = Served::begin(&rig).await;
    let (_place, standby) = standby(&rig, major, served.port).await;
    // Behind what was restored, and in the midst of a segment.
    rig.commits(20).await;
    rig.ship().await;
    tokio::task::block_in_place(|| {
        standby.start();
        has_all(&standby, &rig);
    });
    // It goes on as the journal does.
    for _ in 0..5 {
        rig.commits(10).await;
        rig.server.sql("select pg_switch_wal()");
        rig.ship().await;
        tokio::task::block_in_place(|| has_all(&standby, &rig));
    }
    assert_eq!(content(&standby), content(&rig.server));
    // Without its primary, and begun anew from a segment that it has in part.
    let end = rig.writer.stored().offset;
    rig.server.stop(Mode::Immediate);
    tokio::task::block_in_place(|| {
        standby.stop(Mode::Fast);
        standby.start();
        has_all(&standby, &rig);
        let replayed = wait_for(SOON, || {
            (standby.sql("select pg_last_wal_replay_lsn()") == end.to_string()).then_some(())
        });
        assert!(replayed.is_some(), "{end}: {}", standby.log());
        let heard = wait_for(SOON, || {
            served
                .heard
                .lock()
                .unwrap()
                .clone()
                .filter(|heard| heard.status.is_some_and(|status| status.applied == end))
        });
        assert!(heard.is_some(), "{end}: {:?}", served.heard.lock().unwrap());
        standby.stop(Mode::Fast);
    });
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_standby_replays_from_the_journal_alone() {
    a_standby_of(Major::V15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_standby_of_major_14_replays_from_the_journal_alone() {
    a_standby_of(Major::V14).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_of_the_journal_follows_a_promotion_and_one_that_went_beyond_it_finds_out() {
    let mut rig = Rig::new(Major::V15, Recipients::default()).await;
    rig.base().await;
    rig.commits(10).await;
    rig.ship().await;
    let served = Served::begin(&rig).await;
    let (_place, standby) = standby(&rig, Major::V15, served.port).await;
    std::fs::OpenOptions::new()
        .append(true)
        .open(standby.data_dir().join("postgresql.auto.conf"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"wal_receiver_create_temp_slot = on\n"))
        .unwrap();
    let other = Server::standby_of(&rig.server).await;
    tokio::task::block_in_place(|| {
        standby.start();
        has_all(&standby, &rig);
        has_all(&other, &rig);
    });
    // Its last words reach both.
    rig.server.sql("checkpoint");
    rig.ship().await;
    let end: Offset = rig.server.sql("select pg_current_wal_flush_lsn()").parse().unwrap();
    rig.server.stop(Mode::Immediate);
    let has = |server: &Server| {
        server.sql("select coalesce(pg_last_wal_replay_lsn(), '0/0')").parse::<Offset>().unwrap()
    };
    let caught_up = tokio::task::block_in_place(|| wait_for(SOON, || (has(&other) >= end).then_some(())));
    assert!(caught_up.is_some());
    other.promote();
    rig.branch_to(other).await;
    rig.commits(10).await;
    rig.ship().await;
    tokio::task::block_in_place(|| has_all(&standby, &rig));
    assert_eq!(standby.sql("select received_tli from pg_stat_wal_receiver"), "2");
    assert_eq!(content(&standby), content(&rig.server));
    // The next promotion leaves log behind that this standby has replayed.
    let lost = crate::reached::failed_over(&mut rig).await;
    let told = tokio::task::block_in_place(|| {
        wait_for(SOON, || standby.log().contains("before current recovery point").then_some(()))
    });
    assert!(told.is_some(), "{lost:?}\n{}", standby.log());
    tokio::task::block_in_place(|| standby.stop(Mode::Fast));
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_is_the_servers_log_to_the_byte() {
    let mut rig = Rig::new(Major::V15, Recipients::default()).await;
    rig.base().await;
    rig.server.pgbench_init(1);
    rig.commits(20).await;
    rig.server.sql("select pg_switch_wal()");
    rig.commits(1).await;
    rig.ship().await;
    let served = Served::begin(&rig).await;
    let place = tempfile::tempdir().unwrap();
    // It stops at what lies behind the end that it is given.
    let end = Offset::new(rig.writer.stored().offset.get() - 8);
    let mut tool = rig.server.client_command("pg_receivewal");
    let conninfo =
        format!("host=127.0.0.1 port={} user=far password='{PASSWORD}' sslmode=disable", served.port);
    // With a slot it begins where that keeps log from, and without one at the end.
    tool.args(["--no-loop", "-S", "any", "-D"]).arg(place.path()).args([
        "-E",
        &end.to_string(),
        "-d",
        &conninfo,
    ]);
    let done = tokio::task::spawn_blocking(move || tool.output().unwrap()).await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut compared = 0;
    for entry in std::fs::read_dir(place.path()).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.extension().is_some() {
            continue;
        }
        let here = std::fs::read(&path).unwrap();
        let there = std::fs::read(rig.server.data_dir().join("pg_wal").join(&name)).unwrap();
        assert!(here == there, "{name:?} differs");
        compared += 1;
    }
    assert!(compared >= 2, "{compared} segments");
    served.end().await;
}
