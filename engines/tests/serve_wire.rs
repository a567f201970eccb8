//! The promise: who knows a password is served log as a primary serves it, to the byte, over timelines; and nobody else learns anything.
//!
//! Method: our own client, which is tested against real servers, talks to our own server over loopback; a stock `pg_receivewal` does too.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use farshore_engines::postgres::serve::{
    Command, Door, FromStandby, Greeting, Guest, Refusal, Secrets, ServeError, Session, Socket, Tls, Verifier,
};
use farshore_engines::postgres::wire::{
    ConnectParams, Connection, Error, SlotName, StandbyStatus, StreamEvent, SystemIdentity,
};
use farshore_journal::{Offset, Position, Timeline};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PASSWORD: &str = "correct horse battery";
const SYSTEM: u64 = 7_123_456_789_012_345_678;
const FIRST: Timeline = Timeline::new(1);
const SECOND: Timeline = Timeline::new(2);
const FORK: Offset = Offset::new(0x300_0000);

fn secrets() -> Secrets {
    let verifier = Verifier::of(PASSWORD).unwrap();
    Secrets::new(BTreeMap::from([("far".to_owned(), verifier)]))
}

fn greeting(major: u32) -> Greeting {
    Greeting { version: format!("{major}.0 (farshore)"), major }
}

/// A place to listen at, and what reaches it.
async fn place(user: &str, password: &str) -> (TcpListener, ConnectParams) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let password = password.replace(' ', "%20");
    let params = format!("postgres://{user}:{password}@127.0.0.1:{port}/x?sslmode=prefer").parse().unwrap();
    (listener, params)
}

async fn accepted(
    listener: &TcpListener,
    major: u32,
) -> Result<Option<Session<Socket<TcpStream>>>, ServeError> {
    come(listener, &Door { tls: None, clear: true }, major).await
}

async fn come(
    listener: &TcpListener,
    door: &Door,
    major: u32,
) -> Result<Option<Session<Socket<TcpStream>>>, ServeError> {
    let (socket, _) = listener.accept().await.unwrap();
    match Guest::admit(socket, door, &secrets()).await? {
        Some(guest) => guest.welcome(&greeting(major)).await.map(Some),
        None => Ok(None),
    }
}

async fn connected(params: &ConnectParams) -> Result<Connection, Error> {
    Connection::connect(params, &params.hosts()[0]).await
}

/// Both at once, for a bounded time.
async fn both<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    let both = async { tokio::join!(one, other) };
    tokio::time::timeout(Duration::from_secs(30), both).await.expect("one waits for the other")
}

#[tokio::test]
async fn who_does_not_know_the_password_is_told_nothing_but_that() {
    for (user, password) in [("far", "wrong"), ("nobody", PASSWORD)] {
        let (listener, params) = place(user, password).await;
        let (served, client) = both(accepted(&listener, 15), connected(&params)).await;
        assert!(
            matches!(&served, Err(ServeError::NotLetIn { user: said, .. }) if said == user),
            "{served:?}"
        );
        let Err(Error::Server { message, .. }) = client else { panic!("{client:?}") };
        assert_eq!((message.severity.as_str(), message.code.as_str()), ("FATAL", "28P01"), "{message}");
    }
}

#[tokio::test]
async fn a_standby_learns_who_this_is_and_its_histories_on_each_major() {
    for major in 14..=18 {
        let (listener, params) = place("far", PASSWORD).await;
        let serves = async {
            let mut session = accepted(&listener, major).await.unwrap().unwrap();
            assert_eq!(session.hello().user, "far");
            let identity = SystemIdentity {
                system_identifier: SYSTEM,
                timeline: SECOND,
                flushed: Offset::new(0x345_6789),
            };
            let mut asked = Vec::new();
            while let Some(command) = session.command().await.unwrap() {
                match &command {
                    Command::IdentifySystem => session.identify(identity).await.unwrap(),
                    Command::Show(name) => session.show(name, "16MB").await.unwrap(),
                    Command::TimelineHistory(timeline) => {
                        session
                            .history(*timeline, b"1\t0/3000000\tno recovery target specified\n")
                            .await
                            .unwrap();
                    }
                    Command::CreateSlot { name, .. } => session.slot_made(name).await.unwrap(),
                    Command::ReadSlot(name) if name == "there" => {
                        session.slot(Some(Position::new(FIRST, FORK))).await.unwrap();
                    }
                    Command::ReadSlot(_) => session.slot(None).await.unwrap(),
                    Command::DropSlot(name) => {
                        let why = format!("replication slot \"{name}\" does not exist");
                        session.refuse(&Refusal::new("42704", why)).await.unwrap();
                    }
                    Command::Start { .. } => panic!("{command:?}"),
                }
                asked.push(command);
            }
            asked.len()
        };
        let asks = async {
            let mut client = connected(&params).await.unwrap();
            assert_eq!(client.server_version().major, major);
            let identity = client.identify_system().await.unwrap();
            assert_eq!((identity.system_identifier, identity.timeline), (SYSTEM, SECOND));
            assert_eq!(identity.flushed, Offset::new(0x345_6789));
            assert_eq!(client.show("wal_segment_size").await.unwrap(), "16MB");
            let history = client.timeline_history(SECOND).await.unwrap().unwrap();
            assert!(history.content.starts_with(b"1\t0/3000000"));
            let slot: SlotName = "there".parse().unwrap();
            client.create_physical_slot(&slot, true).await.unwrap();
            if major >= 15 {
                let kept = client.read_slot(&slot).await.unwrap().unwrap();
                assert_eq!(kept.restart, Some(Position::new(FIRST, FORK)));
                assert_eq!(client.read_slot(&"none".parse().unwrap()).await.unwrap(), None);
            }
            let gone = client.drop_slot(&slot).await;
            assert!(matches!(gone, Err(Error::SlotMissing { .. })), "{gone:?}");
            client.close().await;
        };
        let (asked, ()) = both(serves, asks).await;
        assert_eq!(asked, if major >= 15 { 7 } else { 5 });
    }
}

/// Log that can be told apart at every place.
fn log(start: Offset, bytes: usize) -> Bytes {
    (0..bytes as u64).map(|at| ((start.get() + at) % 251) as u8).collect()
}

#[tokio::test]
async fn log_comes_whole_over_the_end_of_a_timeline_and_positions_go_back() {
    let (listener, params) = place("far", PASSWORD).await;
    let start = Offset::new(0x2ff_f000);
    let serves = async {
        let mut session = accepted(&listener, 17).await.unwrap().unwrap();
        let asked = session.command().await.unwrap();
        assert_eq!(asked, Some(Command::Start { slot: None, start, timeline: Some(FIRST) }));
        let mut stream = session.stream().await.unwrap();
        stream.put_log(start, &log(start, 0x1000), FORK, Utc::now());
        stream.put_keepalive(FORK, Utc::now(), true);
        stream.send().await.unwrap();
        let said = stream.next().await.unwrap();
        let FromStandby::Status { status, .. } = said else { panic!("{said:?}") };
        assert_eq!((status.written, status.applied), (FORK, start));
        let mut session = stream.end(Some((SECOND, FORK))).await.unwrap().expect("it stays");
        // Where the timeline was left already there is nothing to stream of it.
        let asked = session.command().await.unwrap();
        assert_eq!(asked, Some(Command::Start { slot: None, start: FORK, timeline: Some(FIRST) }));
        session.left_already(SECOND, FORK).await.unwrap();
        let asked = session.command().await.unwrap();
        assert_eq!(asked, Some(Command::Start { slot: None, start: FORK, timeline: Some(SECOND) }));
        let mut stream = session.stream().await.unwrap();
        stream.put_log(FORK, &log(FORK, 300), FORK.checked_add(300).unwrap(), Utc::now());
        stream.send().await.unwrap();
        // It ends by itself.
        loop {
            match stream.next().await.unwrap() {
                FromStandby::Done => break,
                FromStandby::Status { .. } | FromStandby::Feedback { .. } | FromStandby::Sent => {}
                FromStandby::Gone => panic!("gone"),
            }
        }
        let mut session = stream.end(None).await.unwrap().expect("it stays");
        assert_eq!(session.command().await.unwrap(), None);
    };
    let takes = async {
        let client = connected(&params).await.unwrap();
        let mut stream = client.start_physical(None, Position::new(FIRST, start)).await.unwrap();
        let StreamEvent::Data { bytes, server_end, .. } = stream.next_event().await.unwrap() else {
            panic!()
        };
        assert!(bytes == log(start, 0x1000) && server_end == FORK);
        let StreamEvent::KeepAlive { reply_requested: true, .. } = stream.next_event().await.unwrap() else {
            panic!()
        };
        let status = StandbyStatus { written: FORK, flushed: FORK, applied: start };
        stream.send_status(status, false).await.unwrap();
        let ended = stream.next_event().await.unwrap();
        assert_eq!(ended, StreamEvent::TimelineEnd { next: SECOND, switch_point: FORK });
        let client = stream.stop().await.unwrap();
        let mut stream = client.start_physical(None, Position::new(FIRST, FORK)).await.unwrap();
        let ended = stream.next_event().await.unwrap();
        assert_eq!(ended, StreamEvent::TimelineEnd { next: SECOND, switch_point: FORK });
        let client = stream.stop().await.unwrap();
        let mut stream = client.start_physical(None, Position::new(SECOND, FORK)).await.unwrap();
        let StreamEvent::Data { bytes, .. } = stream.next_event().await.unwrap() else { panic!() };
        assert!(bytes == log(FORK, 300));
        stream.stop().await.unwrap().close().await;
    };
    Box::pin(both(serves, takes)).await;
}

#[tokio::test]
async fn who_does_not_speak_the_protocol_is_answered_nothing() {
    for said in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0, 0, 0, 8, 4, 210, 22, 46, 0, 0, 0, 0],
        &[0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0],
        &[0, 0, 0, 4],
    ] {
        let (listener, _) = place("far", PASSWORD).await;
        let address = listener.local_addr().unwrap();
        let asks = async {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(said).await.unwrap();
            socket.shutdown().await.unwrap();
            let mut answer = Vec::new();
            // It may be cut off in the midst of what it says.
            let _ = socket.read_to_end(&mut answer).await;
            answer
        };
        let (served, answer) = both(accepted(&listener, 15), asks).await;
        assert!(!matches!(served, Ok(Some(_))), "{said:?}");
        assert!(answer.is_empty(), "{said:?}: {answer:?}");
    }
}

/// A door that takes TLS, and the certificate that its own is to be believed by.
fn tls() -> (Door, tempfile::NamedTempFile) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let signed = authority.self_signed(&authority_key).unwrap();
    let trusted = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(trusted.path(), signed.pem()).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let chain = vec![own.signed_by(&key, &issuer).unwrap().der().clone()];
    let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    (Door { tls: Some(Tls::new(chain, key).unwrap()), clear: false }, trusted)
}

#[tokio::test]
async fn over_tls_a_password_is_bound_to_the_certificate_and_in_the_clear_it_is_not_even_asked_for() {
    let (door, trusted) = tls();
    let trusted = trusted.path().display().to_string();
    let with = |params: &ConnectParams, more: &str| -> ConnectParams {
        let host = &params.hosts()[0];
        let password = PASSWORD.replace(' ', "%20");
        format!("postgres://far:{password}@127.0.0.1:{}/x?{more}", host.port).parse().unwrap()
    };
    let (listener, params) = place("far", PASSWORD).await;
    let bound = with(&params, &format!("sslmode=verify-full&sslrootcert={trusted}&channel_binding=require"));
    let (served, client) = both(come(&listener, &door, 15), connected(&bound)).await;
    assert!(matches!(served, Ok(Some(_))) && client.is_ok(), "{served:?} {client:?}");
    // One that does not bind is let in: libpq can be told not to.
    let unbound = with(&params, "sslmode=require&channel_binding=disable");
    let (served, client) = both(come(&listener, &door, 15), connected(&unbound)).await;
    assert!(matches!(served, Ok(Some(_))) && client.is_ok(), "{served:?} {client:?}");
    let clear = with(&params, "sslmode=disable");
    let (served, client) = both(come(&listener, &door, 15), connected(&clear)).await;
    assert!(matches!(&served, Err(ServeError::NotLetIn { why, .. }) if why.contains("TLS")), "{served:?}");
    let Err(Error::Server { message, .. }) = client else { panic!("{client:?}") };
    assert_eq!((message.severity.as_str(), message.code.as_str()), ("FATAL", "28000"), "{message}");
}

/// Whoever stands between could have the server take his words for the client's (CVE-2021-23214 of PostgreSQL).
#[tokio::test]
async fn what_is_sent_ahead_in_the_clear_is_never_taken_for_what_comes_by_tls() {
    let (door, _trusted) = tls();
    let (listener, _) = place("far", PASSWORD).await;
    let address = listener.local_addr().unwrap();
    let asks = async {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let tls = [0, 0, 0, 8, 4, 210, 22, 47];
        let startup = [&[0, 3, 0, 0][..], b"user\0far\0replication\0true\0\0"].concat();
        let length = u32::try_from(startup.len() + 4).unwrap().to_be_bytes();
        socket.write_all(&[&tls[..], &length, &startup].concat()).await.unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        answer
    };
    let (served, answer) = both(come(&listener, &door, 15), asks).await;
    assert!(matches!(served, Err(ServeError::Transfer(_))), "{served:?}");
    assert_eq!(answer.first(), Some(&b'S'));
    // A record of its alert (21) and nothing else: no password was asked for.
    assert_eq!(answer.get(1), Some(&21), "{answer:?}");
}
