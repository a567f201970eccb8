//! What can be restored to, for whoever asked for something that cannot.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_journal::{BackupId, Offset, Timeline};
use serde::{Deserialize, Serialize};

/// A span that can be restored to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The backup it begins with.
    pub base: BackupId,
    /// The timeline.
    pub timeline: Timeline,
    /// The first position.
    pub from: Offset,
    /// The last position: as far as the journal is stored, to the last whole record before it.
    pub to: Offset,
    /// When its backup ended, RFC 3339: no earlier than the first position.
    pub finished: String,
    /// The time of the last commit that it reaches; none where there is none behind its backup, or it was not looked for.
    #[serde(default)]
    pub to_time: Option<DateTime<Utc>>,
    /// That commit.
    #[serde(default)]
    pub to_transaction: Option<u64>,
    /// Whether gaps were looked for: if not, `to` is only how far the journal is stored.
    #[serde(default)]
    pub gaps_looked_for: bool,
}

/// Windows as a text: in times where they are known, and in positions always.
pub(super) struct Shown<'a>(pub &'a [Window]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("there is nothing that can be restored to");
        }
        f.write_str("restorable:")?;
        let mut separator = "";
        for (at, window) in self.0.iter().enumerate() {
            if self
                .0
                .iter()
                .enumerate()
                .any(|(other, wider)| other != at && is_within(window, wider, at < other))
            {
                continue;
            }
            write!(f, "{separator} {window}")?;
            separator = ";";
        }
        Ok(())
    }
}

/// Whether all of a window lies in a wider one; of two equals the first one stays.
fn is_within(window: &Window, wider: &Window, comes_first: bool) -> bool {
    let same = (window.from, window.to) == (wider.from, wider.to);
    window.timeline == wider.timeline
        && wider.from <= window.from
        && window.to <= wider.to
        && wider.gaps_looked_for == window.gaps_looked_for
        && !(same && comes_first)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { timeline, from, to, finished, to_time, to_transaction, gaps_looked_for, .. } = self;
        let unless = if *gaps_looked_for { "" } else { ", unless there is a gap before" };
        let transaction = to_transaction.map_or_else(String::new, |number| format!(", transaction {number}"));
        match (to_time, finished.parse::<DateTime<Utc>>()) {
            // A backup that ended behind the last commit bounds no times.
            (Some(time), Ok(begins)) if begins < *time => {
                let time = time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
                write!(
                    f,
                    "{finished} to {time} (timeline {timeline} from {from} to {to}{transaction}){unless}"
                )
            }
            (Some(time), _) => {
                let time = time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
                write!(
                    f,
                    "the state as of {time} (timeline {timeline} from {from} to {to}{transaction}){unless}"
                )
            }
            (None, _) => {
                write!(
                    f,
                    "timeline {timeline} from {from} (backup of {finished}) to {to}{transaction}{unless}"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from: u64, to: u64, to_time: Option<&str>) -> Window {
        Window {
            base: BackupId::from_bytes([1; 16]),
            timeline: Timeline::new(1),
            from: Offset::new(from),
            to: Offset::new(to),
            finished: "2026-03-29T18:45:16Z".to_owned(),
            to_time: to_time.map(|time| time.parse().unwrap()),
            to_transaction: to_time.map(|_| 8),
            gaps_looked_for: true,
        }
    }

    #[test]
    fn what_can_be_restored_is_said_in_times_and_transactions_with_its_positions() {
        let late = "2026-03-29T18:57:22Z";
        for (window, said) in [
            (
                window(0x204C, 0xA28C, Some(late)),
                "2026-03-29T18:45:16Z to 2026-03-29T18:57:22Z (timeline 1 from 0/204C to 0/A28C, transaction 8)",
            ),
            (
                window(0x204C, 0xA28C, Some("2026-03-29T18:45:02.5Z")),
                "the state as of 2026-03-29T18:45:02.500Z (timeline 1 from 0/204C to 0/A28C, transaction 8)",
            ),
            (
                window(0x204C, 0xA28C, None),
                "timeline 1 from 0/204C (backup of 2026-03-29T18:45:16Z) to 0/A28C",
            ),
        ] {
            assert_eq!(window.to_string(), said);
        }
    }

    #[test]
    fn a_window_that_lies_in_a_wider_one_is_not_said_again() {
        let said = |windows: &[Window]| Shown(windows).to_string();
        let (wide, narrow, other) = (window(1, 9, None), window(5, 9, None), window(1, 20, None));
        assert_eq!(said(&[narrow.clone(), wide.clone()]), said(std::slice::from_ref(&wide)));
        assert_eq!(said(&[wide.clone(), wide.clone()]), said(std::slice::from_ref(&wide)));
        let apart = [window(30, 40, None), other];
        assert_eq!(said(&apart).matches("timeline").count(), 2);
        assert_eq!(said(&[]), "there is nothing that can be restored to");
    }
}
