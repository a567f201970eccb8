//! The packets before the first message: they have no tag. Whether TLS is wanted, and who connects.
//!
//! What always holds: a packet above [`LONGEST`] bytes is refused before it is buffered. Nothing in a packet is trusted: names are bounded by it, and shown only
//! cleaned.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html> (StartupMessage, SSLRequest, GSSENCRequest, CancelRequest);
//! `MAX_STARTUP_PACKET_LENGTH` of `pqcomm.h`.

use bytes::{Buf, Bytes};

use super::super::wire::text;

/// The longest packet, its length included.
pub(super) const LONGEST: usize = 10_000;
/// What a request stands for where a version would be: 1234 in the upper half, this in the lower.
const CANCEL: u16 = 5678;
const TLS: u16 = 5679;
const GSS: u16 = 5680;
const REQUEST: u16 = 1234;
/// The only major of the protocol.
const MAJOR: u16 = 3;
/// More settings than any client sends.
const MOST_SETTINGS: usize = 100;

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// By which name it wants to be let in.
    pub user: String,
    /// What it calls itself: a standby's `application_name`, else its `cluster_name`, else `walreceiver`. Text of a stranger: bound and clean it before it is shown.
    pub application: String,
    /// Settings given with `options`, as they came.
    pub options: String,
}

/// What a first packet is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Opening {
    /// TLS, before anything else.
    Tls,
    /// Encryption by GSSAPI, before anything else.
    Gss,
    /// That a query of another connection be cancelled; it is never answered.
    Cancel,
    /// A session.
    Startup {
        hello: Hello,
        /// Whether it is for physical replication.
        physical: bool,
        /// Protocol options that nobody here knows, and whether a newer minor version was asked for: told before anything else.
        newer: bool,
        unknown: Vec<String>,
    },
}

/// Reads a packet behind its length; `None` when it is none of this protocol.
pub(super) fn opening(mut packet: Bytes) -> Option<Opening> {
    let (major, minor) = (packet.try_get_u16().ok()?, packet.try_get_u16().ok()?);
    match (major, minor) {
        (REQUEST, TLS) => return packet.is_empty().then_some(Opening::Tls),
        (REQUEST, GSS) => return packet.is_empty().then_some(Opening::Gss),
        (REQUEST, CANCEL) => return Some(Opening::Cancel),
        (MAJOR, _) => {}
        _ => return None,
    }
    let (mut user, mut application, mut options) = (None, String::new(), String::new());
    let (mut physical, mut unknown) = (false, Vec::new());
    for count in 0.. {
        let name = text(&mut packet)?;
        if name.is_empty() {
            break;
        }
        let value = text(&mut packet)?;
        if count == MOST_SETTINGS {
            return None;
        }
        match name.as_str() {
            "user" => user = Some(value).filter(|user| !user.is_empty()),
            "application_name" => application = value,
            "options" => options = value,
            // A boolean's words, as PostgreSQL reads them; `database` is logical replication.
            "replication" => {
                physical =
                    matches!(value.to_ascii_lowercase().as_str(), "true" | "on" | "yes" | "1" | "t" | "y");
            }
            _ if name.starts_with("_pq_.") => unknown.push(name),
            // Settings of a session, which mean nothing here.
            _ => {}
        }
    }
    let hello = Hello { user: user?, application, options };
    packet.is_empty().then_some(Opening::Startup { hello, physical, newer: minor > 0, unknown })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(version: [u16; 2], pairs: &[(&str, &str)]) -> Bytes {
        let mut packet: Vec<u8> = version.iter().flat_map(|half| half.to_be_bytes()).collect();
        for (name, value) in pairs {
            packet.extend([name.as_bytes(), &[0], value.as_bytes(), &[0]].concat());
        }
        if !pairs.is_empty() {
            packet.push(0);
        }
        packet.into()
    }

    #[test]
    fn a_standbys_first_packet_says_who_it_is_and_settings_of_sessions_mean_nothing() {
        let sent = packet(
            [3, 0],
            &[
                ("user", "far"),
                ("database", "replication"),
                ("replication", "true"),
                ("application_name", "oslo"),
                ("datestyle", "ISO"),
                ("options", "-c farshore.database=orders"),
            ],
        );
        let Some(Opening::Startup { hello, physical: true, newer: false, unknown }) = opening(sent) else {
            panic!("no standby")
        };
        assert_eq!((hello.user.as_str(), hello.application.as_str()), ("far", "oslo"));
        assert_eq!((hello.options.as_str(), unknown.len()), ("-c farshore.database=orders", 0));
    }

    #[test]
    fn requests_before_a_session_are_told_apart_and_what_is_neither_is_refused() {
        assert_eq!(opening(packet([1234, 5679], &[])), Some(Opening::Tls));
        assert_eq!(opening(packet([1234, 5680], &[])), Some(Opening::Gss));
        assert_eq!(opening(packet([1234, 5678], &[])), Some(Opening::Cancel));
        let newer = opening(packet([3, 2], &[("user", "far"), ("_pq_.x", "1")]));
        assert!(
            matches!(newer, Some(Opening::Startup { newer: true, unknown, .. }) if unknown == ["_pq_.x"])
        );
        for wrong in [
            packet([2, 0], &[("user", "far")]),
            packet([3, 0], &[("database", "x")]),
            packet([3, 0], &[("user", "")]),
            packet([3, 0], &[]),
            Bytes::from_static(b"GET / HTTP/1.1\r\n"),
            Bytes::new(),
        ] {
            assert_eq!(opening(wrong.clone()), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn hostile_packets_never_panic(bytes: Vec<u8>) {
            let _ = opening(Bytes::from([&[0, 3, 0, 0][..], &bytes].concat()));
            let _ = opening(Bytes::from(bytes));
        }
    }
}
