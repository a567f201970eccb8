//! The digests of a chronicle as this catalog has it, without a hole up to its newest entry: what a store's pages are held against. Pure but for the reading.
//!
//! What always holds: each digest that is given is that of an entry which the one behind it names as the one before; whether an entry says what its digest
//! states, whoever seals or verifies it asks.

use farshore_journal::format::{Chronicle, EntryDigest};
use sqlx::query;

use crate::row::{Read as _, big};
use crate::{Error, Result, Txn};

/// Rows that one query gives.
const ROWS: i64 = 5000;

/// Digests by number, dense.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Own {
    last: u64,
    /// The newest first.
    digests: Vec<EntryDigest>,
    /// What the oldest entry names as the one before it.
    before: Option<EntryDigest>,
}

impl Own {
    /// The entries up to a number, newest first, each with what it names as the one before: up to where that is not so.
    pub fn new(newest_first: impl IntoIterator<Item = (u64, Option<EntryDigest>, EntryDigest)>) -> Self {
        let mut own = Self::default();
        own.take(newest_first);
        own
    }

    /// Takes older entries; whether all of them led on.
    fn take(&mut self, older: impl IntoIterator<Item = (u64, Option<EntryDigest>, EntryDigest)>) -> bool {
        for (number, former, digest) in older {
            if self.digests.is_empty() {
                self.last = number;
            } else if number + 1 != self.oldest() || Some(digest) != self.before {
                return false;
            }
            self.digests.push(digest);
            self.before = former;
        }
        true
    }

    /// The number of the newest entry, 0 without one.
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// The lowest number from which on every entry is here; one more than the last without any.
    pub fn oldest(&self) -> u64 {
        self.last + 1 - self.digests.len() as u64
    }

    /// The digest of an entry; of the one before the oldest it is known too.
    pub fn digest(&self, number: u64) -> Option<EntryDigest> {
        if number == 0 || number > self.last || self.digests.is_empty() {
            return None;
        }
        if number + 1 == self.oldest() {
            return self.before;
        }
        self.digests.get(usize::try_from(self.last - number).ok()?).copied()
    }

    /// The same without what is behind a number.
    #[must_use]
    pub fn through(&self, last: u64) -> Self {
        let skipped = usize::try_from(self.last.saturating_sub(last)).unwrap_or(usize::MAX);
        let digests: Vec<_> = self.digests.iter().skip(skipped).copied().collect();
        let before = self.before.filter(|_| !digests.is_empty());
        Self { last: self.last.min(last), digests, before }
    }
}

/// Reads them.
///
/// # Errors
/// When the catalog is away.
pub(super) async fn own_in_txn(txn: &mut Txn, chronicle: &Chronicle) -> Result<Own> {
    let mut own = Own::default();
    let mut below = i64::MAX;
    loop {
        let bound = match chronicle {
            Chronicle::Activity => query(
                "select number, former, digest from activity where number < $1 and digest is not null order by number desc limit $2",
            )
            .bind(below)
            .bind(ROWS),
            Chronicle::Exposure(database) => query(
                "select number, former, digest from exposure_event where number < $1 and database_name = $3 order by number desc limit $2",
            )
            .bind(below)
            .bind(ROWS)
            .bind(database.to_string()),
        };
        let rows = txn.rows("chronicle_own", bound).await?;
        let mut older = Vec::with_capacity(rows.len());
        for row in &rows {
            let former = row.maybe_text("former")?.filter(|former| !former.is_empty());
            let former = former.map(|former| former.parse().map_err(|why| Error::unreadable("former", &why)));
            older.push((row.count("number")?, former.transpose()?, row.parsed("digest")?));
        }
        let next = older.last().map(|(number, ..)| *number);
        let leads = own.take(older);
        match next {
            Some(next) if leads && next > 1 && rows.len() as i64 == ROWS => {
                below = big("entry number", next)?
            }
            _ => return Ok(own),
        }
    }
}

/// The digest of one entry, or what the one behind it names as that.
///
/// # Errors
/// When the catalog is away.
pub(super) async fn digest_in_txn(
    txn: &mut Txn,
    chronicle: &Chronicle,
    number: u64,
) -> Result<Option<EntryDigest>> {
    let number = big("entry number", number)?;
    let bound = match chronicle {
        Chronicle::Activity => query(
            "select number, former, digest from activity where number in ($1, $2) and digest is not null order by number limit 1",
        ),
        Chronicle::Exposure(_) => query(
            "select number, former, digest from exposure_event where number in ($1, $2) and database_name = $3 order by number limit 1",
        ),
    };
    let bound = bound.bind(number).bind(number.saturating_add(1));
    let bound = match chronicle {
        Chronicle::Activity => bound,
        Chronicle::Exposure(database) => bound.bind(database.to_string()),
    };
    let Some(row) = txn.row("chronicle_digest", bound).await? else { return Ok(None) };
    if row.count("number")? == number.unsigned_abs() {
        return row.parsed("digest").map(Some);
    }
    let former = row.maybe_text("former")?.filter(|former| !former.is_empty());
    former.map(|former| former.parse().map_err(|why| Error::unreadable("former", &why))).transpose()
}

/// How many entries of a chronicle no store holds, given what each does: from which entry on without a hole, and up to which; 0 where none.
pub fn unsealed_anywhere(last: u64, held: &[(u64, u64)]) -> u64 {
    let mut held: Vec<(u64, u64)> = held.iter().copied().filter(|(_, last)| *last > 0).collect();
    held.sort_unstable();
    let (mut covered, mut through) = (0, 0);
    for (first, end) in held {
        let (first, end) = (first.max(through + 1), end.min(last));
        if first <= end {
            covered += end + 1 - first;
            through = end;
        }
    }
    last - covered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u64) -> EntryDigest {
        EntryDigest::from_bytes([u8::try_from(number).unwrap(); 32])
    }

    fn rows(from: u64, through: u64) -> Vec<(u64, Option<EntryDigest>, EntryDigest)> {
        (from..=through).rev().map(|n| (n, (n > 1).then(|| digest(n - 1)), digest(n))).collect()
    }

    #[test]
    fn what_is_here_ends_where_an_entry_is_gone_or_does_not_lead_to_the_next() {
        let own = Own::new(rows(1, 9));
        assert_eq!((own.oldest(), own.last(), own.digest(1), own.digest(10)), (1, 9, Some(digest(1)), None));
        assert_eq!(own.digest(0), None);
        let mut gone = rows(1, 9);
        gone.retain(|(number, ..)| *number != 4);
        let own = Own::new(gone);
        assert_eq!((own.oldest(), own.digest(4), own.digest(3)), (5, Some(digest(4)), None));
        let mut changed = rows(1, 9);
        changed[5].2 = digest(99);
        assert_eq!(Own::new(changed).oldest(), 5);
        let cut = Own::new(rows(3, 9)).through(6);
        assert_eq!((cut.oldest(), cut.last(), cut.digest(2), cut.digest(7)), (3, 6, Some(digest(2)), None));
        let none = Own::new(rows(3, 9)).through(2);
        assert_eq!((none.oldest(), none.last(), none.digest(2)), (3, 2, None));
        assert_eq!((Own::default().oldest(), Own::default().last()), (1, 0));
    }

    #[test]
    fn an_entry_that_is_in_no_store_is_counted_however_the_stores_overlap() {
        assert_eq!(unsealed_anywhere(9, &[]), 9);
        assert_eq!(unsealed_anywhere(9, &[(1, 9)]), 0);
        assert_eq!(unsealed_anywhere(9, &[(4, 9), (1, 2)]), 1);
        assert_eq!(unsealed_anywhere(9, &[(4, 7), (5, 6), (1, 5)]), 2);
        assert_eq!(unsealed_anywhere(9, &[(1, 0), (8, 12)]), 7);
    }
}
