//! What it means that a PostgreSQL standby is not promoted: what is safe is said from what its server received and replayed.

use farshore_engines::postgres::standby::{Known, Stands, stands};
use farshore_journal::{Position, Timeline};

use super::place::Standby;
use crate::message::{Code, OperatorMessage, Safe};

/// Its store, or its journal, could not be asked.
pub(super) fn unasked(standby: &Standby, received: Position, why: &anyhow::Error) -> OperatorMessage {
    if let Some(message) = why.downcast_ref::<OperatorMessage>()
        && message.code == Code::StandbyBehind
    {
        return message.clone();
    }
    let why = match why.downcast_ref::<OperatorMessage>() {
        Some(message) => message.happened.clone(),
        None => format!("{why:#}"),
    };
    refused(
        standby,
        &format!("it is not known whether the journal holds more: {why}"),
        Safe::Known(format!(
            "it stays a standby, and received log up to {received}; the store was only read"
        )),
        "make its store readable, by a configuration that names it, then promote again; where the store is lost too, `--as-it-is` promotes it with all that it received",
    )
}

/// Its database began anew.
pub(super) fn anew(standby: &Standby, newer: &str) -> OperatorMessage {
    refused(
        standby,
        &format!("{newer}; what was committed there is not in this copy"),
        Safe::Known("it stays a standby; the store was only read".to_owned()),
        "to have what was committed since, make a standby of the new incarnation in an empty directory; or `--as-it-is` promotes this one as of there, without it",
    )
}

/// It was given a target, and to let it go would promote it.
pub(super) fn has_target(standby: &Standby) -> OperatorMessage {
    OperatorMessage::new(
        Code::StandbyRefused,
        format!(
            "the server of the standby in `{}` was given a recovery target: where it stands at that, letting its replay go ends its recovery",
            standby.directory.display()
        ),
        Safe::Known("nothing was changed; it stays a standby".to_owned()),
        "take recovery_target* out of its settings and restart it; or, where it is to be opened as it stands there, do so with pg_wal_replay_resume() yourself",
    )
}

/// It has not all, or has not replayed it. Its replay may have been held before, and `resumed` for the promotion.
pub(super) fn behind(standby: &Standby, known: &Known, resumed: bool) -> OperatorMessage {
    let Known { received, replayed, journal, .. } = *known;
    let (what, next) = match stands(known) {
        Stands::Behind(bytes) => (
            format!("the journal holds {bytes} bytes more than it received"),
            match standby.delayed {
                true => {
                    "it is sent log only once it is old enough: take farshore.apply_delay out of its primary_conninfo, reload it, and promote again once it has all; or `--as-it-is` promotes it as of there"
                }
                false => {
                    "have the journal served (`farshore serve-journal`) until `farshore standby list` shows that it has all, then promote again; or `--as-it-is` promotes it as of there, without the rest"
                }
            },
        ),
        Stands::OlderTimeline => (
            format!(
                "the journal went on to timeline {}, and it is on {} still",
                journal.timeline, received.timeline
            ),
            "have the journal served (`farshore serve-journal`) until it follows, then promote again; or `--as-it-is` promotes it as of there, without what was committed on the later timeline",
        ),
        Stands::LaterTimeline => (
            format!(
                "it is on timeline {}, of which the journal has nothing: that ends at {journal}",
                received.timeline
            ),
            "look which history is the right one: `farshore points list`; or `--as-it-is` promotes it as of there",
        ),
        Stands::Ahead(bytes) => (
            format!(
                "it has {bytes} bytes more than its journal, which ends at {journal}: the journal's end was cut off, or it is another"
            ),
            "`farshore verify` says what became of the journal; or `--as-it-is` promotes it with all that it received",
        ),
        Stands::Replays | Stands::Done => (
            "it received all, and has not replayed it in time".to_owned(),
            "look in pg_stat_activity for queries that replay waits for, then promote again, with a longer --wait; or `--as-it-is` has the server replay what it received and open then",
        ),
    };
    let held = if resumed { "; its replay was held, and goes on now" } else { "" };
    refused(
        standby,
        &what,
        Safe::Known(format!(
            "it stays a standby, received log up to {received} and replayed it up to {replayed}{held}; the journal ends at {journal}, and the store was only read"
        )),
        next,
    )
}

/// The journal grows.
pub(super) fn grows(standby: &Standby) -> OperatorMessage {
    refused(
        standby,
        "its journal grows: something still ships transactions of the database",
        Safe::Known("it stays a standby and goes on; the store was only read".to_owned()),
        "stop what ships (the former primary takes writes still), then promote again; or `--as-it-is` promotes it as of there, without what came later",
    )
}

fn refused(standby: &Standby, what: &str, safe: Safe, next: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::StandbyBehind,
        format!("the standby in `{}` was not promoted: {what}", standby.directory.display()),
        safe,
        next,
    )
}

/// The server was told, and is a standby still.
pub(super) fn not_promoted(standby: &Standby, seconds: i32, received: Position) -> OperatorMessage {
    OperatorMessage::new(
        Code::StandbyUndone,
        format!(
            "the server of `{}` was told to promote itself, and has not within {seconds} s",
            standby.directory.display()
        ),
        Safe::Known(format!(
            "it received log up to {received}, and replays all of that before it opens; it was told so still, and does it by itself"
        )),
        "look at its log and in pg_stat_activity for queries that replay waits for; `select pg_is_in_recovery()` says when it is done. Take primary_conninfo out then (`alter system reset primary_conninfo`)",
    )
}

/// It opened, and not where it should have, or nothing says where.
pub(super) fn unproved(standby: &Standby, timeline: Timeline, why: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::StandbyUndone,
        format!(
            "the server of `{}` takes writes on timeline {timeline}, and where that left the one that it followed is not as it should be: {why}",
            standby.directory.display()
        ),
        Safe::Unknown("whether all that was received is in it; the store was only read".to_owned()),
        "hold the applications back; compare with `farshore points list`, and restore from the store where something is missing",
    )
}
