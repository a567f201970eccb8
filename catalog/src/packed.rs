//! Many rows as one text: for readings of whole tables, again and again.
//!
//! A row costs its way through the driver's thread and channel, and each of its cells several allocations, before anybody looks at it: of a
//! reading of hundreds of databases that was nearly all. So the catalog itself writes the rows into one text, which is taken apart here,
//! and each table's own `from_row` reads either.
//!
//! What always holds: nothing is read that was not written. Fields are parted by characters that no word, number or name of ours has, and that are
//! taken out of whatever else may have them; a row with another number of fields is an error, and null is never empty.

use std::cell::Cell;
use std::ops::Range;

use crate::connection::Bound;
use crate::row::Read;
use crate::{Error, Result, Txn};

/// Between the fields of a row.
const FIELD: char = '\u{1f}';
/// Between rows.
const ROW: char = '\u{1e}';
/// In place of null.
const NULL: &str = "\u{1a}";

/// A query whose answer is one text, and the columns of the rows in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packed {
    pub(crate) statement: &'static str,
    pub(crate) columns: &'static [&'static str],
}

/// `packed!(FROM; COLUMNS [; TEXTS])`: of what follows `from`, columns of ours (numbers, ids, words), and those that may hold any text. SQLite has
/// both functions since 3.44. Source: <https://sqlite.org/changes.html>, PostgreSQL's manual, sections 9.4 and 9.21.
macro_rules! packed {
    ($from:expr; $($plain:ident),+ $(; $($text:ident),+)?) => {
        $crate::packed::Packed {
            statement: concat!(
                "select string_agg(concat_ws('\u{1f}'",
                $(", coalesce(cast(", stringify!($plain), " as text), '\u{1a}')",)+
                $($(", coalesce(replace(replace(replace(", stringify!($text),
                    ", '\u{1a}', ' '), '\u{1e}', ' '), '\u{1f}', ' '), '\u{1a}')",)+)?
                "), '\u{1e}') as packed from ",
                $from
            ),
            columns: &[$(stringify!($plain)),+ $(, $(stringify!($text)),+)?],
        }
    };
}
pub(crate) use packed;

/// A row of a text.
#[derive(Debug)]
pub(crate) struct PackedRow {
    columns: &'static [&'static str],
    /// All rows.
    text: String,
    /// Where in the text each field of this row is.
    fields: Vec<Range<usize>>,
    /// Where the next column is looked for first: they are mostly asked for in turn.
    next: Cell<usize>,
}

impl PackedRow {
    fn find(&self, column: &'static str) -> Result<usize> {
        let from = self.next.get();
        let there = |at: &usize| self.columns.get(*at).is_some_and(|name| *name == column);
        let found = (from..self.columns.len()).chain(0..from).find(there);
        let at = found.ok_or_else(|| Error::corrupt(column, "it is not among what was asked for"))?;
        self.next.set(at + 1);
        Ok(at)
    }
}

impl Read for PackedRow {
    fn maybe_integer(&self, column: &'static str) -> Result<Option<i64>> {
        let text = self.maybe_str(column)?;
        text.map(|text| text.parse().map_err(|_| Error::corrupt(column, "no number"))).transpose()
    }

    fn maybe_str(&self, column: &'static str) -> Result<Option<&str>> {
        let at = self.find(column)?;
        let text = self.fields.get(at).and_then(|field| self.text.get(field.clone()));
        Ok(text.filter(|text| *text != NULL))
    }
}

/// The rows of a text, as `from_row` reads them, in no order.
fn unpack<T>(
    text: String,
    columns: &'static [&'static str],
    from_row: impl Fn(&PackedRow) -> Result<T>,
) -> Result<Vec<T>> {
    let fields = Vec::with_capacity(columns.len());
    let mut row = PackedRow { columns, text, fields, next: Cell::new(0) };
    let (mut all, mut begun) = (Vec::new(), 0);
    loop {
        let rest = row.text.get(begun..).unwrap_or_default();
        let ended = rest.find(ROW).map_or(row.text.len(), |length| begun + length);
        row.fields.clear();
        for field in row.text.get(begun..ended).unwrap_or_default().split(FIELD) {
            row.fields.push(begun..begun + field.len());
            begun += field.len() + FIELD.len_utf8();
        }
        if row.fields.len() != columns.len() {
            let column = columns.first().copied().unwrap_or_default();
            return Err(Error::corrupt(column, "a row with another number of fields"));
        }
        row.next.set(0);
        all.push(from_row(&row)?);
        if ended == row.text.len() {
            return Ok(all);
        }
        begun = ended + ROW.len_utf8();
    }
}

impl Txn {
    /// All rows of a query, as `from_row` reads them, in no order.
    pub(crate) async fn packed<T>(
        &mut self,
        query: &'static str,
        columns: &'static [&'static str],
        bound: Bound,
        from_row: impl Fn(&PackedRow) -> Result<T>,
    ) -> Result<Vec<T>> {
        let row = self.row(query, bound).await?;
        // Of no rows there is no text.
        match row.as_ref().map(|row| row.maybe_text("packed")).transpose()?.flatten() {
            Some(text) => unpack(text, columns, from_row),
            None => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Catalog, Options};

    const COLUMNS: [&str; 3] = ["name", "count", "text"];

    type Read3 = (String, Option<i64>, Option<String>);

    fn read(text: &str) -> Result<Vec<Read3>> {
        unpack(text.to_owned(), &COLUMNS, |row| {
            Ok((row.text("name")?, row.maybe_integer("count")?, row.maybe_text("text")?))
        })
    }

    #[test]
    fn what_is_not_a_row_of_these_columns_is_an_error_and_null_is_not_empty() {
        let two = read("a\u{1f}-7\u{1f}\u{1e}b\u{1f}\u{1a}\u{1f}\u{1a}").unwrap();
        assert_eq!(two, [("a".to_owned(), Some(-7), Some(String::new())), ("b".to_owned(), None, None)]);
        for wrong in [
            "",
            "a",
            "a\u{1f}1",
            "a\u{1f}1\u{1f}x\u{1f}y",
            "a\u{1f}x\u{1f}",
            "\u{1a}\u{1f}1\u{1f}",
            "a\u{1f}1\u{1f}x\u{1e}",
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert!(unpack("a".to_owned(), &["name"], |row| row.text("other")).is_err());
        // In any order, and one of them twice.
        let odd = unpack("a\u{1f}7".to_owned(), &["name", "count"], |row| {
            Ok((row.count("count")?, row.text("name")?, row.text("name")?))
        });
        assert_eq!(odd.unwrap(), [(7, "a".to_owned(), "a".to_owned())]);
    }

    #[tokio::test]
    async fn a_text_that_holds_what_parts_fields_is_read_as_one_field() {
        const ALL: Packed = packed!("(select name, cast(null as bigint) as count, engine as text from farshore_database) one"; name, count; text);
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/packed.db", folder.path().display());
        let catalog = Catalog::open(&url, Options::default()).await.unwrap();
        let mut txn = catalog.begin().await.unwrap();
        let none = txn.packed("none", ALL.columns, sqlx::query(ALL.statement), |row| row.text("name")).await;
        assert!(none.unwrap().is_empty());
        for (name, engine) in [("a", "one\u{1f}two\u{1e}three\u{1a}"), ("b", "")] {
            let statement = "insert into farshore_database (name, engine, added_at) values ($1, $2, 0)";
            txn.execute("insert", sqlx::query(statement).bind(name).bind(engine)).await.unwrap();
        }
        let mut all = txn
            .packed("all", ALL.columns, sqlx::query(ALL.statement), |row| {
                Ok((row.text("name")?, row.maybe_integer("count")?, row.text("text")?))
            })
            .await
            .unwrap();
        all.sort();
        let right =
            [("a", "one two three "), ("b", "")].map(|(name, text)| (name.to_owned(), None, text.to_owned()));
        assert_eq!(all, right);
    }
}
