//! What `farshore status` says of a database's spool.

use chrono::{DateTime, Utc};
use farshore_catalog::spool::{Spool, SpoolState};
use serde::Serialize;

use crate::config::quantity::ByteCount;

/// A database's spool.
#[derive(Debug, Serialize)]
pub(super) struct Spooled {
    state: SpoolState,
    /// Bytes of everything in it; null while nobody says.
    bytes: Option<u64>,
    /// Bytes that it may hold.
    limit_bytes: u64,
    /// The first byte of the row of log segments that it holds, and the first behind.
    from: Option<String>,
    to: Option<String>,
    trouble: Option<String>,
}

impl Spooled {
    pub(super) fn new(spool: &Spool, now: DateTime<Utc>) -> Self {
        let state = spool.shown(now);
        let known = state != SpoolState::Unknown;
        let run = spool.run.filter(|_| known);
        Self {
            state,
            bytes: spool.bytes.filter(|_| known),
            limit_bytes: spool.limit,
            from: run.map(|(timeline, from, _)| format!("{timeline}:{from}")),
            to: run.map(|(timeline, _, to)| format!("{timeline}:{to}")),
            trouble: spool.trouble.clone().filter(|_| known),
        }
    }

    /// In a line, for people; none while it is empty and nothing is the matter.
    pub(super) fn line(&self) -> Option<String> {
        let is_quiet = self.state == SpoolState::Idle && self.from.is_none() && self.trouble.is_none();
        let held = match (&self.from, &self.to) {
            (Some(from), Some(to)) => format!("; holds {from} to {to}, which no store may have yet"),
            _ => String::new(),
        };
        let bytes = self.bytes.map_or_else(|| "?".to_owned(), |bytes| ByteCount::new(bytes).to_string());
        let trouble = self.trouble.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
        let limit = ByteCount::new(self.limit_bytes);
        (!is_quiet).then(|| format!("{}, {bytes} of {limit}{held}{trouble}", self.state.word()))
    }
}

#[cfg(test)]
mod tests {
    use farshore_journal::{Offset, Timeline};

    use super::*;

    #[test]
    fn a_spool_is_spoken_of_while_it_holds_log_or_something_is_the_matter_and_unknown_once_it_is_silent() {
        let now: DateTime<Utc> = "2026-07-01T12:00:00Z".parse().unwrap();
        let idle = Spool {
            database: "orders".parse().unwrap(),
            node: None,
            state: SpoolState::Idle,
            bytes: Some(0),
            limit: 1 << 30,
            run: None,
            trouble: None,
            told_at: now,
        };
        let line = |spool: &Spool, later| Spooled::new(spool, now + chrono::TimeDelta::seconds(later)).line();
        assert_eq!(line(&idle, 1), None);
        assert_eq!(line(&idle, 60).unwrap(), "unknown, ? of 1 GiB");
        let run = Some((Timeline::new(1), Offset::new(16 << 20), Offset::new(48 << 20)));
        let full = Spool {
            state: SpoolState::Full,
            run,
            bytes: Some(32 << 20),
            trouble: Some("it is full".to_owned()),
            ..idle
        };
        assert_eq!(
            line(&full, 1).unwrap(),
            "full, 32 MiB of 1 GiB; holds 1:0/1000000 to 1:0/3000000, which no store may have yet; it is full"
        );
    }
}
