//! Stock standbys that replay from the journal alone, with no connection to the primary.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farshore_applier::plan::Asked;
use farshore_applier::serve::{Heard, JournalServer};
use farshore_engines::postgres::serve::{Secrets, Session, Verifier};
use farshore_journal::format::{Recipients, Unlock};
use farshore_testkit::pg::{Major, Server};
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
    heard: Arc<Mutex<Option<Heard>>>,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl Served {
    async fn begin(rig: &Rig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let known = BTreeMap::from([("far".to_owned(), Verifier::of(PASSWORD).unwrap())]);
        let secrets = Arc::new(Secrets::new(known).unwrap());
        let server = JournalServer::new(rig.source(Unlock::none()), Duration::from_millis(50)).unwrap();
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
                    let session = Session::accept(socket, &secrets, |_| Ok(greeting)).await;
                    if let Ok(Some(session)) = session {
                        let tell = move |heard| *tell.lock().unwrap() = Some(heard);
                        // Whoever goes without a word is no failure of ours.
                        let _ended = server.serve(session, &tell, &stop).await;
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
    rig.server.stop(farshore_testkit::pg::Mode::Immediate);
    tokio::task::block_in_place(|| {
        standby.stop(farshore_testkit::pg::Mode::Fast);
        standby.start();
        has_all(&standby, &rig);
        let replayed = wait_for(SOON, || {
            (standby.sql("select pg_last_wal_replay_lsn()") == end.to_string()).then_some(())
        });
        assert!(replayed.is_some(), "{end}: {}", standby.log());
        let heard =
            wait_for(SOON, || served.heard.lock().unwrap().filter(|heard| heard.status.applied == end));
        assert!(heard.is_some(), "{end}: {:?}", served.heard.lock().unwrap());
        standby.stop(farshore_testkit::pg::Mode::Fast);
    });
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_standby_replays_from_the_journal_alone() {
    a_standby_of(Major::V15).await;
}
