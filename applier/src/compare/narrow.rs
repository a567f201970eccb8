//! From a range that differs to rows that do: pure.
//!
//! What always holds: blocks or rows that one side alone has differ; nothing that is alike is named.

use std::collections::BTreeMap;

use farshore_engines::postgres::sql::compare::{Digest, RowDigest};
use serde::{Deserialize, Serialize};

/// How a row differs, as seen from the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Both have it, and not alike.
    Changed,
    /// The standby lacks it.
    Missing,
    /// The standby alone has it.
    Extra,
}

/// A row that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// How.
    pub kind: Kind,
    /// Its place, as `(block,number)`.
    pub at: String,
}

/// The ranges that a table of so many blocks, on the side that has more, is divided into. The last has no end: what lies behind counts too.
pub fn ranges(blocks: u64, step: u64) -> Vec<(u64, Option<u64>)> {
    let step = step.max(1);
    let count = blocks.div_ceil(step).max(1);
    let end = |index: u64| (index + 1 < count).then_some((index + 1) * step);
    (0..count).map(|index| (index * step, end(index))).collect()
}

/// The blocks that differ.
pub fn blocks(primary: &[(u64, Digest)], standby: &[(u64, Digest)]) -> Vec<u64> {
    let (primary, standby): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (primary.iter().copied().collect(), standby.iter().copied().collect());
    let mut all: Vec<u64> = primary.keys().chain(standby.keys()).copied().collect();
    all.sort_unstable();
    all.dedup();
    all.retain(|block| primary.get(block) != standby.get(block));
    all
}

/// The rows that differ, in the order of their places.
pub fn rows(primary: &[RowDigest], standby: &[RowDigest]) -> Vec<Difference> {
    let map = |rows: &[RowDigest]| -> BTreeMap<(u64, u64), (String, (i64, i64))> {
        rows.iter().map(|row| (place(&row.at), (row.at.clone(), row.hashes))).collect()
    };
    let (primary, standby) = (map(primary), map(standby));
    let mut found = BTreeMap::new();
    for (place, (at, hashes)) in &primary {
        match standby.get(place) {
            Some((_, other)) if other == hashes => {}
            Some(_) => drop(found.insert(*place, Difference { kind: Kind::Changed, at: at.clone() })),
            None => drop(found.insert(*place, Difference { kind: Kind::Missing, at: at.clone() })),
        }
    }
    for (place, (at, _)) in standby.iter().filter(|(place, _)| !primary.contains_key(place)) {
        found.insert(*place, Difference { kind: Kind::Extra, at: at.clone() });
    }
    found.into_values().collect()
}

fn place(at: &str) -> (u64, u64) {
    let mut numbers = at.trim_matches(['(', ')']).split(',').map(|part| part.parse().unwrap_or(u64::MAX));
    (numbers.next().unwrap_or(u64::MAX), numbers.next().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_leave_no_block_out_and_the_last_is_open() {
        assert_eq!(ranges(0, 10), [(0, None)]);
        assert_eq!(ranges(10, 10), [(0, None)]);
        assert_eq!(ranges(11, 10), [(0, Some(10)), (10, None)]);
        assert_eq!(ranges(25, 10), [(0, Some(10)), (10, Some(20)), (20, None)]);
    }

    #[test]
    fn what_one_side_alone_has_differs_and_what_is_alike_is_not_named() {
        let digest = |first| Digest { rows: 1, first, second: 0, bytes: 9 };
        let found = blocks(
            &[(1, digest(1)), (2, digest(2)), (4, digest(4))],
            &[(1, digest(1)), (3, digest(3)), (4, digest(5))],
        );
        assert_eq!(found, [2, 3, 4]);
        let row = |at: &str, first| RowDigest { at: at.to_owned(), hashes: (first, 7) };
        let primary = [row("(0,1)", 1), row("(0,2)", 2), row("(0,10)", 3)];
        let standby = [row("(0,1)", 1), row("(0,9)", 5), row("(0,10)", 4)];
        let found: Vec<_> = rows(&primary, &standby).into_iter().map(|one| (one.kind, one.at)).collect();
        let named = |kind, at: &str| (kind, at.to_owned());
        assert_eq!(
            found,
            [named(Kind::Missing, "(0,2)"), named(Kind::Extra, "(0,9)"), named(Kind::Changed, "(0,10)")]
        );
    }
}
