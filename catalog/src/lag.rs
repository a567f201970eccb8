//! What may be said now of what a shipper wrote earlier: pure functions, the clock passed in.
//!
//! Unknown is `None` or `unknown`, never zero and never green. A clock that disagrees by more than three heartbeats
//! is a reason not to know.

use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta};
use farshore_journal::Offset;
use serde::{Serialize, Serializer};

use crate::Time;
use crate::shipping::{Shipping, ShippingState};
use crate::target::Target;

/// How often a shipper renews the row of each of its targets.
pub const TARGET_HEARTBEAT: Duration = Duration::from_secs(1);

/// After how many heartbeats without contact a state is no longer known.
const SILENT_AFTER_HEARTBEATS: u32 = 3;

/// A state as it may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownState {
    /// Nobody has vouched for the database lately.
    Unknown,
    /// What the shipper said, recently enough.
    Known(ShippingState),
}

impl ShownState {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Known(state) => state.word(),
        }
    }
}

impl Serialize for ShownState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// Whether the last contact is too long ago, or too far in the future, to say anything of now.
pub fn is_silent(now: Time, last_contact: Option<Time>, heartbeat: Duration) -> bool {
    let Some(last_contact) = last_contact else { return true };
    let apart = (now - last_contact).abs();
    // A duration too long for the clock's type never passes.
    chrono::TimeDelta::from_std(heartbeat.saturating_mul(SILENT_AFTER_HEARTBEATS))
        .is_ok_and(|bearable| apart > bearable)
}

/// The state to show now: what claims that all is well counts as long as the source was heard, what claims nothing as long as its
/// shipper says so.
pub fn shown_state(now: Time, shipping: Option<&Shipping>) -> ShownState {
    let Some(shipping) = shipping else { return ShownState::Unknown };
    let vouched = match claims_nothing(shipping.state) {
        true => Some(shipping.updated_at),
        false => shipping.last_contact_at,
    };
    match is_silent(now, vouched, shipping.heartbeat) {
        true => ShownState::Unknown,
        false => ShownState::Known(shipping.state),
    }
}

/// Whether a state says that something is not well, and no more than that: it holds whether or not the source is heard.
fn claims_nothing(state: ShippingState) -> bool {
    matches!(state, ShippingState::Accumulating | ShippingState::Bypass)
}

/// The state of a target to show now: its word, while its shipper renews it. A target that was stopped because another failed says
/// nothing of itself any more, whatever the database's last word is; one that failed or was fenced itself has said so for good.
/// While the source is silent only what claims nothing is shown.
pub fn shown_target_state(now: Time, source_silent: bool, target: &Target) -> String {
    let state: Option<ShippingState> = target.state.parse().ok();
    let last_word = state.is_some_and(ShippingState::is_stopped);
    let claims = !state.is_some_and(claims_nothing);
    if !last_word && (is_silent(now, Some(target.updated_at), TARGET_HEARTBEAT) || (source_silent && claims))
    {
        return ShownState::Unknown.word().to_owned();
    }
    target.state.clone()
}

/// When a service last wrote of a database.
pub fn seen_at(shipping: Option<&Shipping>, targets: &[Target]) -> Option<Time> {
    let targets = targets.iter().map(|target| target.updated_at);
    targets.chain(shipping.map(|shipping| shipping.updated_at)).max()
}

/// Why a database does not stand as it should, from what was written of it: that nobody writes any more, and what last went wrong with
/// its stores. `None` when somebody writes, hears the database, and says that nothing is wrong.
pub fn why(now: Time, shipping: Option<&Shipping>, targets: &[Target]) -> Option<String> {
    let many = targets.len() > 1;
    let failures: Vec<String> = targets
        .iter()
        .filter_map(|target| {
            let failure = target.failure.as_ref()?;
            Some(if many {
                format!("store {}: {}", target.store, failure.message)
            } else {
                failure.message.clone()
            })
        })
        .collect();
    let said = (!failures.is_empty()).then(|| failures.join("; "));
    let Some(seen_at) = seen_at(shipping, targets) else {
        return Some("no service has written of it here yet: is `farshore run` alive?".to_owned());
    };
    let writes = shipping.is_some_and(|said| !is_silent(now, Some(said.updated_at), said.heartbeat))
        || targets.iter().any(|target| !is_silent(now, Some(target.updated_at), TARGET_HEARTBEAT));
    if writes {
        return said.or_else(|| unheard(now, shipping?));
    }
    let since = seen_at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let last = said.map_or_else(String::new, |said| format!(" It said last: {said}"));
    Some(format!("no service has written here since {since}: is `farshore run` alive?{last}"))
}

/// That a service writes, and has not heard the database for so long that nothing is known of it: so it is for up to a heartbeat behind a service
/// that was killed, and for as long as a source is silent that gave no reason.
fn unheard(now: Time, shipping: &Shipping) -> Option<String> {
    (shown_state(now, Some(shipping)) == ShownState::Unknown).then(|| match shipping.last_contact_at {
        Some(heard) => {
            let since = heard.to_rfc3339_opts(SecondsFormat::Secs, true);
            format!("the database was not heard since {since}: does it answer, and is `farshore run` alive?")
        }
        None => "the database was not heard yet".to_owned(),
    })
}

/// Bytes between the source's end of log and what is stored, as of the last contact.
pub fn lag_bytes(source: Option<Offset>, stored: Option<Offset>) -> Option<u64> {
    let (source, stored) = (source?, stored?);
    // The source may not have said anything since it sent the last bytes: then stored is ahead of what it said.
    Some(source.bytes_since(stored).unwrap_or(0))
}

/// The age of the oldest commit that is not stored, in seconds: what would be lost if the primary were lost now.
///
/// - All that the source has is stored, and it was heard lately: 0.
/// - A commit is known not to be stored: its age, growing while the source is silent.
/// - Otherwise not known: the source is silent, or has bytes whose commits we have not seen.
pub fn lag_seconds(
    now: Time,
    silent: bool,
    source: Option<Offset>,
    stored: Option<Offset>,
    oldest_unstored_commit: Option<Time>,
) -> Option<f64> {
    if let Some(oldest) = oldest_unstored_commit {
        // The source's clock may be ahead of ours; an age below zero is none.
        let milliseconds = (now - oldest).num_milliseconds().max(0);
        #[allow(clippy::cast_precision_loss)] // an age in milliseconds is far below 2^53
        return Some(milliseconds as f64 / 1000.0);
    }
    match lag_bytes(source, stored) {
        Some(0) if !silent => Some(0.0),
        _ => None,
    }
}

/// The most that would be lost if the primary were lost now, as time: always a number, so that an alarm on it cannot go silent.
///
/// - What [`lag_seconds`] knows is said as it is.
/// - What it does not know is bounded from above: since the moment up to which all is known to be stored. Of a source that is silent,
///   and had no more than is stored when it was last heard, that is the last contact. It grows as long as nobody says otherwise.
/// - Where not even that is known, everything is exposed: infinite, never 0.
pub fn exposure_seconds(now: Time, shipping: Option<&Shipping>) -> f64 {
    let Some(said) = shipping else { return f64::INFINITY };
    let silent = said.state.is_stopped() || is_silent(now, said.last_contact_at, said.heartbeat);
    if let Some(known) = lag_seconds(now, silent, said.source, said.stored, said.oldest_unstored_commit_at) {
        return known;
    }
    // All that the source had is here, and a commit that waits in it would be known.
    let all_seen = said.source.is_some() && said.received >= said.source;
    let all_stored = lag_bytes(said.source, said.stored) == Some(0);
    let since = match (silent, all_seen || all_stored) {
        (false, true) => return 0.0,
        (true, true) => said.last_contact_at,
        (_, false) => said.last_stored_commit_at,
    };
    since.map_or(f64::INFINITY, |since| (now - since).max(TimeDelta::zero()).as_seconds_f64())
}

/// Bytes of log that a source has and nobody received, from which on nobody says that an objective holds: below it is what is on its way at any moment.
pub const UNSEEN_BYTES: u64 = 64 << 20;

/// Whether the source has so much log that was not received that nobody knows what would be lost: no commit is known to wait, and what was not
/// received may hold some. `lag_seconds` is what is known of it.
pub fn is_unseen(lag_seconds: Option<f64>, source: Option<Offset>, received: Option<Offset>) -> bool {
    lag_seconds.is_none() && lag_bytes(source, received).is_some_and(|bytes| bytes >= UNSEEN_BYTES)
}

/// Whether more than `rpo_seconds` is not stored; `None` when there is no objective, or it is not known: what was committed before the
/// last word of the service may have been stored since.
pub fn breached(
    now: Time,
    state: ShownState,
    measured_at: Option<Time>,
    lag_seconds: Option<f64>,
    rpo_seconds: Option<f64>,
) -> Option<bool> {
    let (rpo, lag) = rpo_seconds.zip(lag_seconds)?;
    // Of a service that speaks once a second the lag of a second ago is known. One that is silent stored nothing that anybody
    // knows of.
    let speaks = matches!(state, ShownState::Known(_));
    let since = measured_at.filter(|_| speaks).map(|at| (now - at).max(TimeDelta::zero()));
    let then = since.map_or(lag, |since| lag - since.as_seconds_f64());
    match (then > rpo, lag > rpo) {
        (true, _) => Some(true),
        (false, true) => None,
        (false, false) => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time::default() + TimeDelta::seconds(seconds)
    }

    #[test]
    fn much_log_that_nobody_received_leaves_open_what_would_be_lost() {
        let (far, near) = (Some(Offset::new(UNSEEN_BYTES)), Some(Offset::new(1)));
        for (case, lag, source, received, unseen) in [
            ("a bulk load over a slow line", None, far, Some(Offset::new(0)), true),
            ("what is on its way at any moment", None, far, near, false),
            ("a commit waits, and its age is known", Some(2.0), far, Some(Offset::new(0)), false),
            ("received, and none of it is a commit", None, far, far, false),
            ("no word of the source", None, None, near, false),
        ] {
            assert_eq!(is_unseen(lag, source, received), unseen, "{case}");
        }
    }

    #[test]
    fn a_state_is_unknown_once_three_heartbeats_passed_in_silence() {
        let beat = Duration::from_secs(10);
        for (case, now, contact, silent) in [
            ("never heard", 100, None, true),
            ("just heard", 100, Some(100), false),
            ("three heartbeats", 130, Some(100), false),
            ("a little more", 131, Some(100), true),
            ("from a clock a little ahead", 100, Some(120), false),
            ("from a clock far ahead", 100, Some(131), true),
        ] {
            assert_eq!(is_silent(at(now), contact.map(at), beat), silent, "{case}");
        }
        assert!(!is_silent(at(100), Some(at(0)), Duration::MAX));
        assert_eq!(shown_state(at(0), None).word(), "unknown");
    }

    fn shipping(state: ShippingState, heard: Option<i64>, updated: i64, heartbeat: Duration) -> Shipping {
        Shipping {
            database: "orders".parse().unwrap(),
            state,
            timeline: None,
            received: None,
            stored: None,
            reported: None,
            released: None,
            source: None,
            retained_bytes: None,
            seconds_to_full: None,
            heartbeat,
            last_contact_at: heard.map(at),
            last_stored_commit_at: None,
            oldest_unstored_commit_at: None,
            updated_at: at(updated),
            node: None,
        }
    }

    #[test]
    fn a_state_that_claims_nothing_is_shown_while_its_shipper_lives_though_the_source_is_not_heard() {
        let beat = Duration::from_secs(10);
        for (state, heard, updated, shown) in [
            (ShippingState::Connected, Some(40), 100, "unknown"),
            (ShippingState::Connected, Some(100), 100, "connected"),
            (ShippingState::Accumulating, Some(40), 100, "accumulating"),
            (ShippingState::Bypass, None, 100, "bypass"),
            (ShippingState::Accumulating, Some(40), 60, "unknown"),
            (ShippingState::Degraded, Some(40), 100, "unknown"),
        ] {
            let shipping = shipping(state, heard, updated, beat);
            assert_eq!(shown_state(at(100), Some(&shipping)).word(), shown, "{state:?}");
        }
    }

    #[test]
    fn lag_in_seconds_is_zero_only_when_all_is_known_to_be_stored() {
        let offset = |bytes: Option<u64>| bytes.map(Offset::new);
        for (case, silent, source, stored, oldest, expected) in [
            ("all stored", false, Some(50), Some(50), None, Some(0.0)),
            ("stored more than the source last said", false, Some(50), Some(60), None, Some(0.0)),
            ("all stored, then silence", true, Some(50), Some(50), None, None),
            ("a commit waits", false, Some(50), Some(40), Some(93), Some(7.0)),
            ("a commit waits and the source is silent", true, Some(50), Some(40), Some(40), Some(60.0)),
            ("a commit from a clock ahead", false, Some(50), Some(40), Some(101), Some(0.0)),
            ("bytes not seen yet", false, Some(50), Some(40), None, None),
            ("nothing stored yet", false, Some(50), None, None, None),
            ("source never heard", false, None, Some(40), None, None),
        ] {
            let found = lag_seconds(at(100), silent, offset(source), offset(stored), oldest.map(at));
            assert_eq!(found, expected, "{case}");
        }
    }

    #[test]
    fn an_exposure_is_always_a_number_and_zero_only_where_nothing_can_be_lost() {
        let beat = Duration::from_secs(1);
        let offset = |bytes: Option<u64>| bytes.map(Offset::new);
        let exposed = |state, heard, [source, received, stored]: [Option<u64>; 3], oldest, newest| {
            let said = Shipping {
                source: offset(source),
                received: offset(received),
                stored: offset(stored),
                oldest_unstored_commit_at: Option::map(oldest, at),
                last_stored_commit_at: Option::map(newest, at),
                ..shipping(state, heard, 100, beat)
            };
            exposure_seconds(at(100), Some(&said))
        };
        let (connected, failed) = (ShippingState::Connected, ShippingState::Failed);
        let same = [Some(50); 3];
        let infinite = f64::INFINITY;
        for (case, found, expected) in [
            ("all stored", exposed(connected, Some(100), same, None, Some(20)), 0.0),
            (
                "a commit waits",
                exposed(connected, Some(100), [Some(50), Some(50), Some(40)], Some(93), Some(20)),
                7.0,
            ),
            (
                "what waits holds no commit",
                exposed(connected, Some(100), [Some(50), Some(50), Some(40)], None, Some(20)),
                0.0,
            ),
            (
                "what waits was not seen",
                exposed(connected, Some(100), [Some(50), Some(45), Some(40)], None, Some(20)),
                80.0,
            ),
            (
                "nothing was stored yet",
                exposed(connected, Some(100), [Some(50), None, None], None, None),
                infinite,
            ),
            ("all stored, then silence", exposed(connected, Some(70), same, None, Some(20)), 30.0),
            (
                "a commit waits, then silence",
                exposed(connected, Some(70), [Some(50), Some(50), Some(40)], Some(65), Some(20)),
                35.0,
            ),
            (
                "unseen bytes, then silence",
                exposed(connected, Some(70), [Some(50), Some(45), Some(40)], None, Some(20)),
                80.0,
            ),
            (
                "stopped, with its last word",
                exposed(failed, Some(100), [None, Some(50), Some(50)], None, Some(20)),
                80.0,
            ),
            ("never heard", exposed(connected, None, [None; 3], None, None), infinite),
        ] {
            assert!((found - expected).abs() < 1e-9 || found == expected, "{case}: {found}");
        }
        assert!(exposure_seconds(at(100), None).is_infinite());
    }

    #[test]
    fn lag_in_bytes_is_unknown_without_both_ends() {
        let offset = |bytes: Option<u64>| bytes.map(Offset::new);
        for (source, stored, expected) in [
            (Some(50), Some(40), Some(10)),
            (Some(40), Some(50), Some(0)),
            (None, Some(50), None),
            (Some(50), None, None),
        ] {
            assert_eq!(lag_bytes(offset(source), offset(stored)), expected);
        }
    }

    #[test]
    fn why_says_that_nobody_writes_and_what_last_went_wrong_and_nothing_where_nothing_is() {
        let target = |store: &str, updated, failure: Option<&str>| Target {
            database: "orders".parse().unwrap(),
            store: store.to_owned(),
            url: String::new(),
            state: "degraded".to_owned(),
            stored: None,
            updated_at: at(updated),
            failure: failure.map(|message| crate::target::Failure {
                code: "FS-0001".to_owned(),
                message: message.to_owned(),
                at: at(updated),
            }),
        };
        let said = |now, targets: &[Target]| why(at(now), None, targets);
        // A state that is unknown has its reason, also in the moment between the last contact's end and the last word's.
        let beat = Duration::from_secs(1);
        let word = |now, heard| {
            let shipping = shipping(ShippingState::Connected, heard, 100, beat);
            let is_unknown = shown_state(at(now), Some(&shipping)) == ShownState::Unknown;
            let why = why(at(now), Some(&shipping), &[target("main", 100, None)]);
            assert_eq!(is_unknown, why.is_some(), "{now} {heard:?}: {why:?}");
            why.unwrap_or_default()
        };
        assert_eq!(word(102, Some(100)), "");
        assert_eq!(
            word(103, Some(99)),
            "the database was not heard since 1970-01-01T00:01:39Z: does it answer, and is `farshore run` alive?"
        );
        assert_eq!(word(101, None), "the database was not heard yet");
        assert!(word(104, Some(100)).starts_with("no service has written here since"));
        assert_eq!(said(101, &[target("main", 100, None)]), None);
        assert_eq!(
            said(101, &[target("main", 100, Some("it is not there"))]).as_deref(),
            Some("it is not there")
        );
        assert_eq!(
            said(101, &[target("main", 100, None), target("nas", 100, Some("it is full"))]).as_deref(),
            Some("store nas: it is full")
        );
        assert_eq!(
            said(200, &[target("main", 100, Some("it is not there"))]).as_deref(),
            Some(
                "no service has written here since 1970-01-01T00:01:40Z: is `farshore run` alive? It said last: it is not there"
            )
        );
        assert_eq!(
            said(200, &[target("main", 100, None)]).as_deref(),
            Some("no service has written here since 1970-01-01T00:01:40Z: is `farshore run` alive?")
        );
        assert!(said(200, &[]).unwrap().contains("written of it here yet"));
        assert_eq!(seen_at(None, &[target("main", 100, None), target("nas", 90, None)]), Some(at(100)));
    }
}
