//! Finding the moment before a mistake, by what `farshore points list --around` says.

use std::time::Instant;

use farshore_journal::Position;
use serde::Deserialize;

use super::stage::Stage;
use super::{LOOK, SOON};

/// Transactions shown around the one that is looked for.
const AROUND: usize = 2;

/// One line of the list.
#[derive(Debug, Deserialize)]
struct Point {
    time: String,
    position: Position,
    xid: Option<u64>,
    changed_bytes: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    items: Vec<Point>,
}

/// A mistake among transactions.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// The transaction that was one.
    pub wrong: u64,
    /// The one before it.
    pub before: u64,
    /// What it changed in bytes, or what was written into the log from the one before it to its end.
    pub bytes: u64,
}

/// The transaction around this time that changed the most, once the journal holds what came behind it.
///
/// # Errors
/// When the journal never does, or no transaction comes before it.
pub(super) async fn find(stage: &Stage, at: &str) -> anyhow::Result<Moment> {
    let deadline = Instant::now() + SOON;
    loop {
        let listed = stage.run(&["-o", "json", "points", "list", "shop", "--around", at]).await?;
        let listed: Listed = serde_json::from_str(&listed)?;
        let behind = listed.items.iter().any(|point| point.time.as_str() > at);
        match largest(&listed.items).filter(|_| behind) {
            Some(moment) => return Ok(moment),
            None if Instant::now() > deadline => {
                anyhow::bail!("the journal does not hold what was committed at {at}")
            }
            None => tokio::time::sleep(LOOK).await,
        }
    }
}

/// The largest of a list's transactions that has another one before it.
fn largest(points: &[Point]) -> Option<Moment> {
    let commits: Vec<&Point> = points.iter().filter(|point| point.xid.is_some()).collect();
    let moments = commits.windows(2).filter_map(|pair| {
        let (before, wrong) = (pair[0], pair[1]);
        let grown = || wrong.position.offset.bytes_since(before.position.offset);
        Some(Moment { wrong: wrong.xid?, before: before.xid?, bytes: wrong.changed_bytes.or_else(grown)? })
    });
    moments.max_by_key(|moment| moment.bytes)
}

/// The lines of a list around a transaction.
pub(super) fn excerpt(list: &str, xid: u64) -> String {
    let lines: Vec<&str> = list.lines().collect();
    let is_it = |line: &&&str| line.split_whitespace().any(|word| word.parse() == Ok(xid));
    let Some(at) = lines.iter().skip(1).find(is_it).and_then(|it| lines.iter().position(|line| line == it))
    else {
        return list.to_owned();
    };
    let from = at.saturating_sub(AROUND).max(1);
    let to = (at + AROUND + 1).min(lines.len());
    [&lines[..1], &lines[from..to]].concat().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_the_head_and_the_lines_around_the_one_that_is_looked_for() {
        let list = "TIME XID\na 10\nb 11\nc 12\nd 13\ne 14\nf 15\n";
        assert_eq!(excerpt(list, 13), "TIME XID\nb 11\nc 12\nd 13\ne 14\nf 15");
        assert_eq!(excerpt(list, 10), "TIME XID\na 10\nb 11\nc 12");
        assert_eq!(excerpt(list, 99), list);
    }

    fn listed(points: &[(u64, &str, Option<u64>)]) -> Vec<Point> {
        points
            .iter()
            .map(|(xid, position, changed_bytes)| Point {
                time: String::new(),
                position: Position::new(farshore_journal::Timeline::new(1), position.parse().unwrap()),
                xid: Some(*xid),
                changed_bytes: *changed_bytes,
            })
            .collect()
    }

    #[test]
    fn the_largest_transaction_is_told_by_what_it_changed_else_by_how_far_the_log_grew() {
        let moment = |wrong, before, bytes| Some(Moment { wrong, before, bytes });
        let told = listed(&[(5, "0/10", Some(900)), (6, "0/20", Some(30)), (7, "0/900", Some(20))]);
        assert_eq!(largest(&told), moment(6, 5, 30), "the first of a list has none before it");
        let grown =
            listed(&[(5, "0/9000", None), (9, "0/9100", None), (7, "0/A900", None), (8, "0/A9FF", None)]);
        assert_eq!(largest(&grown), moment(7, 9, 0x1800));
    }
}
