//! Digests of rows, by ranges of blocks.
//!
//! What always holds: no two rows of a table have the same text here, for it begins with the table's number and the row's place: so nothing cancels in an exclusive or, and
//! what is read under the same name elsewhere is another text.

use super::super::session::{Session, column};
use super::tables::{Table, quoted};
use crate::postgres::wire::Error;

/// Characters of a key's column that are shown.
const KEY_CHARS: usize = 200;

/// What begins the two hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seeds(pub i64, pub i64);

/// What is known of the rows of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    /// How many there are.
    pub rows: u64,
    /// The exclusive or of their first hashes.
    pub first: i64,
    /// That of their second ones.
    pub second: i64,
    /// The length of their texts together.
    pub bytes: u64,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDigest {
    /// Its place, as `(block,number)`.
    pub at: String,
    /// Its two hashes.
    pub hashes: (i64, i64),
}

impl Session {
    /// The digest of the rows that lie in the blocks from `from` on and before `to`; of all from there on without it.
    ///
    /// Source: ranges of `ctid` are read as such from PostgreSQL 14 on (`TidRangeScan`); `bit_xor` and `hashtextextended` are there from 14 and 11 on.
    ///
    /// # Errors
    /// When the server does not answer, or cannot read a row.
    pub async fn compare_digest(
        &self,
        table: &Table,
        (from, to): (u64, Option<u64>),
        seeds: Seeds,
    ) -> Result<Digest, Error> {
        const WHAT: &str = "a digest";
        let rows = rows_of(table, (from, to), seeds);
        let statement = format!("select {SUMS} from {rows}");
        let row = self.row(WHAT, &statement, &[]).await?;
        digest(WHAT, &row)
    }

    /// The same of each block that has rows.
    ///
    /// # Errors
    /// As [`compare_digest`](Self::compare_digest).
    pub async fn compare_digest_blocks(
        &self,
        table: &Table,
        range: (u64, Option<u64>),
        seeds: Seeds,
    ) -> Result<Vec<(u64, Digest)>, Error> {
        const WHAT: &str = "digests of blocks";
        let rows = rows_of(table, range, seeds);
        let statement = format!("select block, {SUMS} from {rows} group by block order by block");
        let found = self.rows(WHAT, &statement, &[]).await?;
        let one = |row| {
            let block: i64 = column(WHAT, row, "block")?;
            let block = u64::try_from(block).map_err(|_| Error::protocol(WHAT, "a block below 0"))?;
            Ok((block, digest(WHAT, row)?))
        };
        found.iter().map(one).collect()
    }

    /// The same of each row of a block.
    ///
    /// # Errors
    /// As [`compare_digest`](Self::compare_digest).
    pub async fn compare_digest_rows(
        &self,
        table: &Table,
        block: u64,
        seeds: Seeds,
    ) -> Result<Vec<RowDigest>, Error> {
        const WHAT: &str = "digests of rows";
        let rows = rows_of(table, (block, Some(block.saturating_add(1))), seeds);
        let statement = format!("select place, a, b from {rows}");
        let found = self.rows(WHAT, &statement, &[]).await?;
        let one = |row| {
            let at = column::<&str>(WHAT, row, "place")?.to_owned();
            Ok(RowDigest { at, hashes: (column(WHAT, row, "a")?, column(WHAT, row, "b")?) })
        };
        found.iter().map(one).collect()
    }

    /// The key of a row, `column=value`, of a table that has one.
    ///
    /// # Errors
    /// When the server does not answer, or cannot read the row.
    pub async fn compare_key(&self, table: &Table, at: &str) -> Result<Option<String>, Error> {
        const WHAT: &str = "a key";
        if table.key.is_empty() {
            return Ok(None);
        }
        let shown = |name: &String| {
            let said = format!("{name}=").replace('\'', "''");
            format!("'{said}' || left(r.{}::text, {KEY_CHARS})", quoted(name))
        };
        let parts: Vec<String> = table.key.iter().map(shown).collect();
        let statement = format!(
            "select concat_ws(', ', {}) as key from only {} as r where r.ctid = $1::text::tid",
            parts.join(", "),
            table.quoted()
        );
        let found = self.rows(WHAT, &statement, &[&at]).await?;
        found.first().map(|row| column(WHAT, row, "key")).transpose()
    }
}

const SUMS: &str = "count(*) as rows, coalesce(bit_xor(a), 0) as a, coalesce(bit_xor(b), 0) as b,
                    coalesce(sum(octet_length(whole)), 0)::bigint as bytes";

fn rows_of(table: &Table, (from, to): (u64, Option<u64>), Seeds(first, second): Seeds) -> String {
    let columns: Vec<String> = table.columns.iter().map(|name| format!("r.{}", quoted(name))).collect();
    let end = to.map_or_else(String::new, |to| format!(" and r.ctid < '({to},0)'::tid"));
    // Both inner questions stay what they are (`offset 0`): a text is made once.
    format!(
        "(select place, block, whole, hashtextextended(whole collate \"C\", {first}) as a,
                 hashtextextended(whole collate \"C\", {second}) as b
          from (select r.ctid::text as place, split_part(ltrim(r.ctid::text, '('), ',', 1)::bigint as block,
                       r.tableoid::text || r.ctid::text || row({})::text as whole
                from only {} as r where r.ctid >= '({from},0)'::tid{end} offset 0) as texts offset 0) as hashed",
        columns.join(", "),
        table.quoted()
    )
}

fn digest(what: &'static str, row: &tokio_postgres::Row) -> Result<Digest, Error> {
    let count = |name| {
        let count: i64 = column(what, row, name)?;
        u64::try_from(count).map_err(|_| Error::protocol(what, format!("column {name} is below 0")))
    };
    let (first, second) = (column(what, row, "a")?, column(what, row, "b")?);
    Ok(Digest { rows: count("rows")?, first, second, bytes: count("bytes")? })
}
