//! The replication client against real servers of every major.

#![allow(clippy::unwrap_used)] // in a test a panic is the message, in its helpers too

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use farshore_engines::postgres::wire::{
    ConnectParams, Connection, Error, ReplicationStream, SlotName, StandbyStatus, StreamEvent, Timeouts,
};
use farshore_journal::{Offset, Position, Timeline};
use farshore_testkit::pg::{Length, Major, Mode, Server};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const SEGMENT: u64 = 16 << 20;

fn params(url: &str) -> ConnectParams {
    url.parse().unwrap()
}

async fn connect(params: &ConnectParams) -> Result<Connection, Error> {
    Connection::connect(params, &params.hosts()[0]).await
}

fn socket_url(server: &Server) -> String {
    format!("postgresql://postgres@/postgres?host={}&port={}", server.socket_dir().display(), server.port())
}

fn flushed(server: &Server) -> Offset {
    server.sql("select pg_current_wal_flush_lsn()").parse().unwrap()
}

/// Reads until the stream has reached `end`; gives the bytes.
async fn read_to(stream: &mut ReplicationStream, end: Offset) -> Vec<u8> {
    let mut bytes = Vec::new();
    while stream.received().offset < end {
        match stream.next_event().await.unwrap() {
            StreamEvent::Data { start, bytes: part, server_end, .. } => {
                assert!(start.get() + part.len() as u64 <= server_end.get());
                bytes.extend_from_slice(&part);
            }
            StreamEvent::KeepAlive { reply_requested, .. } => {
                if reply_requested {
                    let status = StandbyStatus { written: stream.received().offset, ..Default::default() };
                    stream.send_status(status, false).await.unwrap();
                }
            }
            StreamEvent::TimelineEnd { .. } => panic!("the timeline ended"),
        }
    }
    bytes
}

/// The bytes of `pg_wal` from a segment's start on.
fn log_of(server: &Server, start: Position, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut segment = start.offset.get() / SEGMENT;
    while bytes.len() < length {
        let (high, low) = (segment >> 8, segment & 0xFF);
        let name = format!("{:08X}{high:08X}{low:08X}", start.timeline.get());
        bytes.extend(fs::read(server.data_dir().join("pg_wal").join(name)).unwrap());
        segment += 1;
    }
    bytes.truncate(length);
    bytes
}

async fn streams_the_log_byte_for_byte(major: Major) {
    let server = Server::builder(major).conf("wal_keep_size = 1GB").start();
    let by_tcp = connect(&params(&server.url())).await.unwrap();
    assert_eq!(by_tcp.server_version().major, major.number());
    let mut by_socket = connect(&params(&socket_url(&server))).await.unwrap();
    let identity = by_socket.identify_system().await.unwrap();
    let told = server.sql("select system_identifier from pg_control_system()");
    assert_eq!(identity.system_identifier.to_string(), told);
    assert_eq!(identity.timeline, Timeline::new(1));
    assert_eq!(by_socket.show("wal_segment_size").await.unwrap(), "16MB");
    assert_eq!(by_socket.timeline_history(Timeline::new(1)).await.unwrap(), None);

    let slot: SlotName = "fs_live".parse().unwrap();
    by_socket.create_physical_slot(&slot, true).await.unwrap();
    let again = by_socket.create_physical_slot(&slot, true).await.unwrap_err();
    assert!(matches!(again, Error::SlotExists { .. }), "{again}");
    match by_socket.read_slot(&slot).await {
        Ok(found) => assert_eq!(found.unwrap().restart.unwrap().timeline, Timeline::new(1)),
        Err(Error::NotInVersion { .. }) if major == Major::V14 => {}
        Err(error) => panic!("{error}"),
    }

    let start = Position::new(identity.timeline, identity.flushed.segment_start(SEGMENT));
    let mut stream = by_tcp.start_physical(Some(&slot), start).await.unwrap();
    server.pgbench_init(2);
    let load = server.pgbench(2, Length::Transactions(500));
    let mut bytes = read_to(&mut stream, Offset::new(start.offset.get() + (20 << 20))).await;
    assert!(load.wait().transactions > 0);
    bytes.extend(read_to(&mut stream, flushed(&server)).await);
    assert!(bytes.len() > 20 << 20, "{}", bytes.len());
    assert!(bytes == log_of(&server, start, bytes.len()), "the stream differs from pg_wal");

    let in_use = by_socket.drop_slot(&slot).await.unwrap_err();
    assert!(matches!(in_use, Error::SlotInUse { .. }), "{in_use}");
    let received = stream.received().offset;
    let status = StandbyStatus { written: received, flushed: received, applied: Offset::default() };
    stream.send_status(status, true).await.unwrap();
    loop {
        if let StreamEvent::KeepAlive { .. } = stream.next_event().await.unwrap() {
            break;
        }
    }
    let slot_at = server.sql("select restart_lsn from pg_replication_slots where slot_name = 'fs_live'");
    assert_eq!(slot_at.parse::<Offset>().unwrap(), received);

    let mut connection = stream.stop().await.unwrap();
    assert_eq!(connection.identify_system().await.unwrap().timeline, Timeline::new(1));
    connection.drop_slot(&slot).await.unwrap();
    let missing = connection.start_physical(Some(&slot), start).await.unwrap_err();
    assert!(matches!(missing, Error::SlotMissing { .. }), "{missing}");
    by_socket.close().await;
}

async fn follows_a_promotion_to_the_next_timeline(major: Major) {
    let primary = Server::builder(major).start();
    let standby = Server::standby_of(&primary).await;
    let connection = connect(&params(&standby.url())).await.unwrap();
    let start = Position::new(Timeline::new(1), flushed(&primary).segment_start(SEGMENT));
    let mut stream = connection.start_physical(None, start).await.unwrap();
    standby.promote();
    let (next, switch_point) = loop {
        match stream.next_event().await.unwrap() {
            StreamEvent::TimelineEnd { next, switch_point } => break (next, switch_point),
            StreamEvent::Data { .. } | StreamEvent::KeepAlive { .. } => {}
        }
    };
    assert_eq!((next, switch_point), (Timeline::new(2), stream.received().offset));

    let mut connection = stream.stop().await.unwrap();
    let history = connection.timeline_history(next).await.unwrap().unwrap();
    assert_eq!(history.name, "00000002.history");
    assert!(String::from_utf8_lossy(&history.content).starts_with(&format!("1\t{switch_point}\t")));

    // Nothing of timeline 1 is left from the switch on: the server says so without a stream.
    let over = Position::new(Timeline::new(1), switch_point);
    let mut stream = connection.start_physical(None, over).await.unwrap();
    assert_eq!(stream.next_event().await.unwrap(), StreamEvent::TimelineEnd { next, switch_point });
    let connection = stream.stop().await.unwrap();

    let start = Position::new(next, switch_point.segment_start(SEGMENT));
    let mut stream = connection.start_physical(None, start).await.unwrap();
    standby.sql("create table t as select g from generate_series(1, 1000) g");
    let bytes = read_to(&mut stream, flushed(&standby)).await;
    assert!(bytes == log_of(&standby, start, bytes.len()), "the stream differs from pg_wal");
}

async fn logs_in_with_a_bound_password_over_checked_tls(major: Major) {
    let server = Server::builder(major).tls().scram("fs", "geheim").start();
    let good = format!("{}&channel_binding=require", server.url());
    assert!(connect(&params(&good)).await.unwrap().is_tls());

    let wrong_password = good.replace(":geheim@", ":falsch@");
    let refused = connect(&params(&wrong_password)).await.unwrap_err();
    assert_eq!(refused.code(), Some("28P01"), "{refused}");
    let no_password = connect(&params(&good.replace(":geheim@", "@"))).await.unwrap_err();
    assert!(matches!(no_password, Error::Authenticate { .. }), "{no_password}");

    let key = rcgen::KeyPair::generate().unwrap();
    let mut other = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    other.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let other_ca = server.folder().join("other.pem");
    fs::write(&other_ca, other.self_signed(&key).unwrap().pem()).unwrap();
    let ca = server.ca_path().unwrap();
    let wrong_ca = good.replace(ca.to_str().unwrap(), other_ca.to_str().unwrap());
    let refused = connect(&params(&wrong_ca)).await.unwrap_err();
    assert!(matches!(refused, Error::TlsHandshake { .. }), "{refused}");

    // The same server under an address that its certificate does not name.
    let (_proxy, port) = proxy(server.port()).await;
    let renamed = good.replace(&format!("127.0.0.1:{}", server.port()), &format!("127.0.0.2:{port}"));
    let refused = connect(&params(&renamed)).await.unwrap_err();
    assert!(matches!(refused, Error::TlsHandshake { .. }), "{refused}");
    let chain_only = renamed.replace("verify-full", "verify-ca");
    assert!(connect(&params(&chain_only)).await.unwrap().is_tls());
    let wrong_chain = chain_only.replace(ca.to_str().unwrap(), other_ca.to_str().unwrap());
    let refused = connect(&params(&wrong_chain)).await.unwrap_err();
    assert!(matches!(refused, Error::TlsHandshake { .. }), "{refused}");
}

/// Listens on 127.0.0.2 and passes everything on to a port of 127.0.0.1.
async fn proxy(to: u16) -> (JoinSet<()>, u16) {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut passed = JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            passed.spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    (tasks, port)
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

on_every_major!(
    streams_the_log_byte_for_byte,
    follows_a_promotion_to_the_next_timeline,
    logs_in_with_a_bound_password_over_checked_tls
);

async fn stream_of(server: &Server, silence: Duration) -> ReplicationStream {
    let timeouts = Timeouts { server_silence: silence, ..Timeouts::default() };
    let params = params(&server.url()).with_timeouts(timeouts);
    let start = Position::new(Timeline::new(1), flushed(server).segment_start(SEGMENT));
    let mut stream = connect(&params).await.unwrap().start_physical(None, start).await.unwrap();
    read_to(&mut stream, flushed(server)).await;
    stream
}

/// The error that ends the stream.
async fn end_of(stream: &mut ReplicationStream) -> Error {
    loop {
        match stream.next_event().await {
            Ok(StreamEvent::Data { start, bytes, .. }) => {
                let end = Offset::new(start.get() + bytes.len() as u64);
                let status = StandbyStatus { written: end, flushed: end, applied: end };
                // A server that is gone cannot take it: the next event says why.
                let _ = stream.send_status(status, false).await;
            }
            Ok(_) => {
                let end = stream.received().offset;
                let _ = stream
                    .send_status(StandbyStatus { written: end, flushed: end, applied: end }, false)
                    .await;
            }
            Err(error) => return error,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_killed_ends_the_stream_with_an_error() {
    let server = Server::start_new(Major::V18);
    let mut stream = stream_of(&server, Duration::from_secs(60)).await;
    server.kill9();
    let error = end_of(&mut stream).await;
    assert!(matches!(error, Error::Closed { .. } | Error::Transfer { .. }), "{error}");
    assert!(stream.next_event().await.is_err(), "the stream stays over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_shuts_down_has_sent_everything_and_says_so() {
    let server = Server::start_new(Major::V15);
    let mut stream = stream_of(&server, Duration::from_secs(60)).await;
    server.sql("create table t as select g from generate_series(1, 1000) g");
    let server = Arc::new(server);
    let stopped = Arc::clone(&server);
    let stopping = tokio::task::spawn_blocking(move || stopped.stop(Mode::Fast));
    let error = end_of(&mut stream).await;
    stopping.await.unwrap();
    assert!(matches!(error, Error::ServerStopped), "{error}");
    let start = Position::new(Timeline::new(1), stream.received().offset.segment_start(SEGMENT));
    let held = (stream.received().offset.get() - start.offset.get()) as usize;
    let rest = &log_of(&server, start, SEGMENT as usize)[held..];
    assert!(rest[..8].iter().all(|byte| *byte == 0), "log after the last byte that was streamed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_noticed_by_the_deadline() {
    let server = Server::start_new(Major::V17);
    let mut stream = stream_of(&server, Duration::from_secs(2)).await;
    let sender = Pid::from_raw(stream.connection().process_id());
    kill(sender, Signal::SIGSTOP).unwrap();
    let error = end_of(&mut stream).await;
    kill(sender, Signal::SIGCONT).unwrap();
    assert!(matches!(error, Error::NoAnswer { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_server_is_not_taken_for_a_frozen_one() {
    let server = Server::start_new(Major::V16);
    let mut stream = stream_of(&server, Duration::from_millis(600)).await;
    let mut signs = 0;
    while signs < 5 {
        if let StreamEvent::KeepAlive { .. } = stream.next_event().await.unwrap() {
            signs += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_asked_for_in_a_race_loses_nothing_when_dropped() {
    let server = Server::builder(Major::V15).conf("wal_keep_size = 1GB").start();
    let start = Position::new(Timeline::new(1), flushed(&server).segment_start(SEGMENT));
    let params = params(&server.url());
    let mut stream = connect(&params).await.unwrap().start_physical(None, start).await.unwrap();
    server.pgbench_init(1);
    let end = flushed(&server);
    let mut bytes = Vec::new();
    while stream.received().offset < end {
        tokio::select! {
            biased;
            () = tokio::task::yield_now() => {}
            event = stream.next_event() => {
                if let StreamEvent::Data { bytes: part, .. } = event.unwrap() {
                    bytes.extend_from_slice(&part);
                }
            }
        }
    }
    assert!(bytes == log_of(&server, start, bytes.len()), "the stream differs from pg_wal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_that_the_server_removed_is_told_from_other_failures() {
    let server = Server::start_new(Major::V18);
    let start = Position::new(Timeline::new(1), flushed(&server).segment_start(SEGMENT));
    for _ in 0..4 {
        server.sql("create table if not exists t (i int); insert into t values (1); select pg_switch_wal()");
    }
    server.sql("checkpoint");
    let params = params(&server.url());
    let gone = match connect(&params).await.unwrap().start_physical(None, start).await {
        Ok(mut stream) => end_of(&mut stream).await,
        Err(error) => error,
    };
    assert!(matches!(gone, Error::LogMissing { .. }), "{gone}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_the_server_gave_up_is_told_from_other_failures() {
    for major in [Major::V14, Major::V18] {
        let server = Server::builder(major).conf("max_slot_wal_keep_size = 16MB").start();
        let start = Position::new(Timeline::new(1), flushed(&server).segment_start(SEGMENT));
        let slot: SlotName = "lost".parse().unwrap();
        let params = params(&server.url());
        let mut connection = connect(&params).await.unwrap();
        connection.create_physical_slot(&slot, true).await.unwrap();
        for _ in 0..5 {
            server.sql(
                "create table if not exists t (i int); insert into t values (1); select pg_switch_wal()",
            );
        }
        server.sql("checkpoint");
        let gone = match connection.start_physical(Some(&slot), start).await {
            Ok(mut stream) => end_of(&mut stream).await,
            Err(error) => error,
        };
        assert!(matches!(gone, Error::SlotInvalidated { .. } | Error::LogMissing { .. }), "{major}: {gone}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_does_not_answer_costs_no_more_than_the_deadline() {
    // It accepts and never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let timeouts = Timeouts { connect: Duration::from_millis(200), ..Timeouts::default() };
    let params = params(&format!("postgresql://u@127.0.0.1:{port}/d")).with_timeouts(timeouts);
    let error = connect(&params).await.unwrap_err();
    assert!(matches!(error, Error::NoAnswer { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_tls_is_refused_where_tls_is_demanded() {
    let server = Server::start_new(Major::V14);
    let url = format!("{}?sslmode=require", server.url());
    let error = connect(&params(&url)).await.unwrap_err();
    assert!(matches!(error, Error::TlsMissing { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_in_the_clear_is_not_given_over_a_network() {
    let server = Server::start_new(Major::V15);
    server.sql("create role fs login replication password 'geheim'");
    let hba = "local all all trust\nhost replication fs 127.0.0.1/32 password\n";
    fs::write(server.data_dir().join("pg_hba.conf"), hba).unwrap();
    server.reload();
    let url = server.url().replace("postgres@", "fs:geheim@");
    let error = connect(&params(&url)).await.unwrap_err();
    assert!(matches!(error, Error::Authenticate { .. }), "{error}");
}
