//! The chain of the record of activity, and what speaks against it: pure.
//!
//! ```text
//! digest(n) = SHA-256("farshore.activity/1", digest(n-1), n, at, who, what, database or none, detail), each text behind its length
//! ```
//! What always holds: an entry that was changed, removed or put elsewhere is found, and so is a record whose newest entries are gone, as long as whoever did it did
//! not also write all that follows anew, and the head. Against whoever can write the whole catalog a copy of the head elsewhere is needed: it is one number and one
//! digest, so that it can be sealed into a store.

use std::fmt;

use farshore_journal::DatabaseName;
use sha2::{Digest as _, Sha256};

use super::Activity;

/// What an entry says that stands where the head was lost.
pub(super) const HEAD_LOST: &str = "activity head lost";

/// Where the chain begins.
pub(super) const BEGIN: &str = "";

/// The digest of an entry, given that of the one before.
pub(super) fn digest(former: &str, number: u64, activity: &Activity) -> String {
    let mut digest = Sha256::new();
    let mut text = |text: &str| {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text.as_bytes());
    };
    text("farshore.activity/1");
    text(former);
    text(&number.to_string());
    text(&activity.at.timestamp_micros().to_string());
    text(&activity.who);
    text(&activity.what);
    let database = activity.database.as_ref().map(DatabaseName::as_str);
    text(if database.is_some() { "of" } else { "none" });
    text(database.unwrap_or_default());
    text(&activity.detail);
    hex::encode(digest.finalize())
}

/// What speaks against the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It is not as it was written: changed, or put in another's place.
    Changed,
    /// It does not follow the entry before it as it did when it was written.
    Unchained,
    /// Entries from this one on up to another are gone.
    Missing {
        /// The last of them.
        through: u64,
    },
    /// It stands behind the record's end: it was not appended.
    Behind,
    /// The record's end was lost before it: newer entries may be missing before it.
    HeadLost,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed => {
                f.write_str("it is not as it was written: it was changed, or put in another's place")
            }
            Self::Unchained => {
                f.write_str("it does not follow the entry before it: one of the two was written anew")
            }
            Self::Missing { through } => write!(f, "entries are missing up to {through}"),
            Self::Behind => f.write_str("it stands behind the record's end: it was never appended"),
            Self::HeadLost => f.write_str("the record's end was lost here: entries may be missing before it"),
        }
    }
}

/// An entry as the catalog keeps it.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) number: u64,
    pub(super) activity: Activity,
    pub(super) former: Option<String>,
    pub(super) digest: Option<String>,
}

/// Walks the record from its first entry on.
#[derive(Debug)]
pub(super) struct Walk {
    next: u64,
    former: String,
    findings: Vec<(u64, Finding)>,
    entries: u64,
}

impl Walk {
    pub(super) fn begin() -> Self {
        Self { next: 1, former: BEGIN.to_owned(), findings: Vec::new(), entries: 0 }
    }

    /// The next number that is to be read.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Takes the next entry. `is_chained` is false of a record that no entry was appended to since it has a chain.
    pub(super) fn take(&mut self, link: &Link, is_chained: bool) {
        self.entries += 1;
        if link.number > self.next {
            self.findings.push((self.next, Finding::Missing { through: link.number - 1 }));
        }
        self.next = link.number.saturating_add(1);
        if !is_chained {
            return;
        }
        let (former, kept) =
            (link.former.clone().unwrap_or_default(), link.digest.clone().unwrap_or_default());
        if digest(&former, link.number, &link.activity) != kept {
            self.findings.push((link.number, Finding::Changed));
        } else if former != self.former {
            self.findings.push((link.number, Finding::Unchained));
        } else if link.activity.what == HEAD_LOST {
            self.findings.push((link.number, Finding::HeadLost));
        }
        self.former = kept;
    }

    /// Goes on behind a number.
    pub(super) fn pass(&mut self, number: u64) {
        self.next = self.next.max(number.saturating_add(1));
    }

    /// Holds the end against the head.
    pub(super) fn end(mut self, (number, digest): (u64, &str)) -> (u64, Vec<(u64, Finding)>) {
        let is_behind = self.findings.iter().any(|(_, finding)| *finding == Finding::Behind);
        if self.next <= number {
            self.findings.push((self.next, Finding::Missing { through: number }));
        } else if number > 0 && !is_behind && self.former != digest {
            self.findings.push((number, Finding::Unchained));
        }
        (self.entries, self.findings)
    }

    /// An entry that stands behind the head.
    pub(super) fn behind(&mut self, number: u64) {
        self.findings.push((number, Finding::Behind));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{TimeZone as _, Utc};

    fn activity(detail: &str) -> Activity {
        Activity {
            at: Utc.timestamp_opt(1_774_000_000, 0).unwrap(),
            who: "ana".to_owned(),
            what: "backup".to_owned(),
            database: None,
            detail: detail.to_owned(),
        }
    }

    fn record(count: u64) -> Vec<Link> {
        let mut former = BEGIN.to_owned();
        (1..=count)
            .map(|number| {
                let activity = activity(&format!("entry {number}"));
                let own = digest(&former, number, &activity);
                let link = Link { number, activity, former: Some(former.clone()), digest: Some(own.clone()) };
                former = own;
                link
            })
            .collect()
    }

    fn found(record: &[Link], head: (u64, &str)) -> Vec<(u64, Finding)> {
        let mut walk = Walk::begin();
        record.iter().for_each(|link| walk.take(link, true));
        walk.end(head).1
    }

    #[test]
    fn what_was_changed_removed_or_put_elsewhere_is_found_and_nothing_else_is() {
        let whole = record(9);
        let head = whole[8].digest.clone().unwrap();
        let head = (9, head.as_str());
        assert!(found(&whole, head).is_empty());
        for at in 0..9 {
            let number = whole[at].number;
            let mut changed = whole.clone();
            changed[at].activity.detail.push('!');
            assert_eq!(found(&changed, head), [(number, Finding::Changed)]);
            // Written anew with a digest that fits it: what follows it does not.
            let mut anew = changed.clone();
            anew[at].digest = Some(digest(anew[at].former.as_deref().unwrap(), number, &anew[at].activity));
            assert_eq!(found(&anew, head), [((number + 1).min(9), Finding::Unchained)]);
            let mut removed = whole.clone();
            removed.remove(at);
            assert_eq!(found(&removed, head)[0], (number, Finding::Missing { through: number }));
        }
        for (one, other) in [(0, 1), (3, 7), (7, 8)] {
            let mut swapped = whole.clone();
            swapped.swap(one, other);
            let (a, b) = (swapped[other].number, swapped[one].number);
            swapped[one].number = a;
            swapped[other].number = b;
            let found = found(&swapped, head);
            assert!(
                found.len() >= 2 && found.iter().any(|(at, what)| (*at, *what) == (a, Finding::Changed)),
                "{found:?}"
            );
        }
    }

    #[test]
    fn what_stands_in_one_field_cannot_be_moved_into_another() {
        let one = Activity { who: "ab".to_owned(), what: "c".to_owned(), ..activity("") };
        let other = Activity { who: "a".to_owned(), what: "bc".to_owned(), ..activity("") };
        assert_ne!(digest(BEGIN, 1, &one), digest(BEGIN, 1, &other));
        let of = Activity { database: Some("orders".parse().unwrap()), ..activity("") };
        assert_ne!(digest(BEGIN, 1, &of), digest(BEGIN, 1, &activity("")));
    }
}
