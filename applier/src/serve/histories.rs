//! The history file of each timeline that a standby may ask for: pure.
//!
//! A standby fetches the file of every number from its own timeline to the newest, one after the other, and does not stream while one of them is refused
//! (`WalRcvFetchTimeLineHistoryFiles` in `walreceiver.c`). What always holds: no ancestry is made up. A number that this history does not know, of a standby that was promoted
//! elsewhere, gets a file that says so in a comment, which PostgreSQL passes over.

use farshore_engines::postgres::log::history::TimelineHistory;
use farshore_journal::Timeline;

use crate::branches::Branches;

/// The file of a timeline up to the newest; `None` for a later one, for the first, which has none, and for the newest where it is not stored yet.
pub(super) fn file(branches: &Branches, timeline: Timeline) -> Option<Vec<u8>> {
    let newest = branches.get(branches.newest())?;
    let stored = branches.get(timeline).and_then(|held| held.history.clone());
    let history = newest.history.as_ref().and_then(|text| TimelineHistory::parse(newest.timeline, text).ok());
    known(newest.timeline, stored, history.as_ref(), timeline)
}

fn known(
    newest: Timeline,
    stored: Option<Vec<u8>>,
    history: Option<&TimelineHistory>,
    timeline: Timeline,
) -> Option<Vec<u8>> {
    // A standby keeps what it gets: of the newest, nothing is better than a file that knows no parent.
    if timeline > newest || timeline <= Timeline::new(1) || (timeline == newest && stored.is_none()) {
        return None;
    }
    stored.or_else(|| {
        let ancestor = history.filter(|history| history.leaves(timeline).is_some());
        Some(match ancestor {
            Some(history) => history.ancestor_file(timeline),
            None => format!("# timeline {timeline} is not in this journal\n").into_bytes(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_up_to_the_newest_has_a_file_and_none_tells_of_an_ancestry_that_is_not_known() {
        let newest = Timeline::new(5);
        let history = TimelineHistory::parse(newest, b"1\t0/100\tx\n3\t0/200\ty\n").unwrap();
        let of = |timeline, stored: Option<&[u8]>| {
            known(newest, stored.map(<[u8]>::to_vec), Some(&history), Timeline::new(timeline))
        };
        assert_eq!(of(5, Some(b"stored")).unwrap(), b"stored");
        assert_eq!(of(3, None).unwrap(), b"1\t0/100\tas a later history says\n");
        let unknown = String::from_utf8(of(4, None).unwrap()).unwrap();
        assert!(unknown.starts_with('#') && unknown.lines().count() == 1, "{unknown}");
        assert_eq!((of(1, None), of(5, None), of(6, None)), (None, None, None));
    }
}
