//! Blocks: some hundred commits that follow one another in the log, in one row.
//!
//! A row for each commit costs more than compressing the log that brought it, and its indexes many times the commit; in a block a
//! commit takes some eight bytes. What look-ups need stands beside the bytes: from where to where, times, and groups of
//! transaction ids.
//!
//! ```text
//! for each commit, each number as LEB128, signed ones zigzag:
//!   its end less the end before (the first: less zero), its end less its start, its time less the time before, its id less the id before
//! ```
//! Pure. What always holds: unpacking gives the commits that were packed, or says that the bytes are damaged.

use std::collections::BTreeSet;

use farshore_journal::{Offset, Timeline};

use super::Commit;
use crate::row::{micros, moment};
use crate::{Error, Result};

/// Most commits of a block: a block that is still being filled is written again with each chunk, and one is read to find one commit.
pub(super) const MOST: usize = 512;
/// Transaction ids of one group: a block is looked up by the groups of its ids, mostly one or two.
const GROUP_BITS: u32 = 12;

/// The group that an id belongs to.
pub(super) fn group(xid: u64) -> u64 {
    xid >> GROUP_BITS
}

/// A block, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// The first commit's end, and the last one's.
    pub first: Offset,
    pub last: Offset,
    pub commits: usize,
    /// The latest time of a commit of it, in microseconds.
    pub newest: i64,
    /// The latest time of all commits up to its end.
    pub latest: i64,
    /// The groups of its ids.
    pub groups: BTreeSet<u64>,
    pub body: Vec<u8>,
}

/// Blocks of commits of one timeline, in order of their ends. `latest` is the latest time before the first.
pub(super) fn blocks(commits: &[Commit], mut latest: i64) -> Vec<Block> {
    let block = |commits: &[Commit]| {
        let (first, last) = (commits.first()?, commits.last()?);
        let newest = commits.iter().map(|commit| micros(commit.time)).max()?;
        latest = latest.max(newest);
        Some(Block {
            first: first.end,
            last: last.end,
            commits: commits.len(),
            newest,
            latest,
            groups: commits.iter().map(|commit| group(commit.xid)).collect(),
            body: pack(commits),
        })
    };
    commits.chunks(MOST).filter_map(block).collect()
}

fn pack(commits: &[Commit]) -> Vec<u8> {
    let mut out = Vec::with_capacity(commits.len() * 10);
    let (mut end, mut time, mut xid) = (0, 0, 0);
    for commit in commits {
        unsigned(&mut out, commit.end.get().wrapping_sub(end));
        unsigned(&mut out, commit.end.get().wrapping_sub(commit.start.get()));
        signed(&mut out, micros(commit.time).wrapping_sub(time));
        signed(&mut out, commit.xid.wrapping_sub(xid) as i64);
        (end, time, xid) = (commit.end.get(), micros(commit.time), commit.xid);
    }
    out
}

/// The commits of a block.
pub(super) fn unpack(timeline: Timeline, mut body: &[u8]) -> Result<Vec<Commit>> {
    let (mut end, mut time, mut xid) = (0u64, 0i64, 0u64);
    // Each takes four bytes at least: memory is bounded by the bytes at hand.
    let mut commits = Vec::with_capacity(body.len() / 4);
    while !body.is_empty() {
        let mut next =
            || take(&mut body).ok_or_else(|| Error::corrupt("body", "a block of commits ends early"));
        end = end.wrapping_add(next()?);
        let start = end.wrapping_sub(next()?);
        time = time.wrapping_add(unzigzag(next()?));
        xid = xid.wrapping_add(unzigzag(next()?) as u64);
        commits.push(Commit {
            timeline,
            start: Offset::new(start),
            end: Offset::new(end),
            time: moment("body", time)?,
            xid,
        });
    }
    Ok(commits)
}

fn signed(out: &mut Vec<u8>, value: i64) {
    unsigned(out, ((value << 1) ^ (value >> 63)) as u64);
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take(body: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = body.split_first()?;
        *body = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Commits of one timeline, those that are known and those that come, without doubles, in order of their ends; how many are new.
pub(super) fn union(known: Vec<Commit>, come: &[Commit]) -> (Vec<Commit>, usize) {
    let before = known.len();
    let mut all = known;
    all.extend_from_slice(come);
    // Stable: of two with one end the known one stays.
    all.sort_by_key(|commit| commit.end);
    all.dedup_by_key(|commit| commit.end);
    let new = all.len() - before;
    (all, new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use proptest::prelude::*;

    fn commits() -> impl Strategy<Value = Vec<Commit>> {
        let one = (1..1u64 << 40, 1..500u64, -4_000_000_000i64..4_000_000_000, any::<u32>());
        prop::collection::vec(one, 0..40).prop_map(|all| {
            let mut end = 0;
            all.into_iter()
                .map(|(behind, length, time, xid)| {
                    end += behind + length;
                    Commit {
                        timeline: Timeline::new(3),
                        start: Offset::new(end - length),
                        end: Offset::new(end),
                        time: DateTime::from_timestamp_micros(time).unwrap(),
                        xid: u64::from(xid) << 7,
                    }
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn a_block_unpacks_to_what_was_packed(commits in commits()) {
            prop_assert_eq!(unpack(Timeline::new(3), &pack(&commits)).unwrap(), commits);
        }

        #[test]
        fn damaged_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpack(Timeline::new(1), &body);
        }

        #[test]
        fn a_union_holds_each_commit_once_and_in_order(commits in commits(), first in 0..40usize, second in 0..40usize) {
            let (first, second) = (first.min(commits.len()), second.min(commits.len()));
            let (known, come) = (commits[..first.max(second)].to_vec(), &commits[first.min(second)..]);
            let (all, new) = union(known, come);
            prop_assert_eq!(&all, &commits);
            prop_assert_eq!(new, commits.len() - first.max(second));
        }
    }
}
