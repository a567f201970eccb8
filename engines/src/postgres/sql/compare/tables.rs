//! Which tables a snapshot has, and what else there is that is not compared.

use serde::{Deserialize, Serialize};

use super::super::session::{Session, column};
use crate::postgres::wire::Error;

/// A table, or a materialized view, as the snapshot's catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its number.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its columns, in order; without those that are computed when they are read.
    pub columns: Vec<String>,
    /// The columns that name a row: its primary key's, else those of a unique index without nulls; empty where there is neither.
    pub key: Vec<String>,
    /// The number of its file.
    pub file: u32,
    /// Why it cannot be compared; `None`: it can.
    pub hindrance: Option<String>,
}

impl Table {
    /// Its name as SQL has it.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }

    /// Its name as people write it.
    pub fn shown(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// What is there and is not compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotRows {
    /// Its name.
    pub name: String,
    /// Why not.
    pub reason: String,
    /// Whether something may differ there that nobody looked at.
    #[serde(skip)]
    pub counts: bool,
}

/// What a snapshot's catalog has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// Tables that have rows of their own, by number.
    pub tables: Vec<Table>,
    /// What is not compared by its nature.
    pub others: Vec<NotRows>,
}

impl Session {
    /// What there is, outside of the system's own schemas; large objects, where there are any, as the table that they lie in.
    ///
    /// Source: <https://www.postgresql.org/docs/current/catalog-pg-largeobject.html>.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn compare_tables(&self) -> Result<Tables, Error> {
        const WHAT: &str = "the tables";
        // A name's catalog row may be newer than the snapshot's by syscache: nothing here looks there but for rights, which are none of what is gone.
        // Numbers below 16384 are the system's own (`FirstNormalObjectId`, transam.h).
        let statement = "select c.oid::bigint as oid, n.nspname::text as schema, c.relname::text as name,
                c.relkind::text as kind, c.relfilenode::bigint as file, c.relpersistence::text as persistence, c.relispopulated as populated,
                coalesce((select am.amname = 'heap' from pg_am am where am.oid = c.relam), true) as heap,
                coalesce(has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select'), false) as may,
                array(select a.attname::text from pg_attribute a
                      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated::text <> 'v'
                      order by a.attnum) as columns,
                array(select a.attname::text from pg_index i
                      cross join lateral unnest(i.indkey::int2[]) with ordinality as part (number, place)
                      join pg_attribute a on a.attrelid = c.oid and a.attnum = part.number
                      where part.place <= i.indnkeyatts and i.indexrelid = (
                          select u.indexrelid from pg_index u
                          where u.indrelid = c.oid and u.indisunique and u.indisvalid and u.indimmediate
                            and u.indpred is null and u.indexprs is null
                            and not exists (select from pg_attribute o where o.attrelid = c.oid
                                            and o.attnum = any (u.indkey::int2[]) and not o.attnotnull)
                          order by u.indisprimary desc, u.indexrelid limit 1)
                      order by part.place) as key
            from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where c.relkind in ('r', 'm', 'f', 'S')
              and (c.oid >= 16384 and n.nspname <> 'pg_toast' and n.nspname !~ '^pg_(toast_)?temp_'
                   or c.oid = 'pg_catalog.pg_largeobject'::regclass and exists (select from pg_largeobject_metadata))
            order by c.oid";
        let mut found = Tables { tables: Vec::new(), others: Vec::new() };
        for row in self.rows(WHAT, statement, &[]).await? {
            let number = |name| {
                let number: i64 = column(WHAT, &row, name)?;
                u32::try_from(number)
                    .map_err(|_| Error::protocol(WHAT, format!("column {name} makes no sense")))
            };
            let text = |name| column::<&str>(WHAT, &row, name);
            let flag = |name| column::<bool>(WHAT, &row, name);
            let (kind, persistence) = (text("kind")?, text("persistence")?);
            let table = Table {
                oid: number("oid")?,
                schema: text("schema")?.to_owned(),
                name: text("name")?.to_owned(),
                columns: column(WHAT, &row, "columns")?,
                key: column(WHAT, &row, "key")?,
                file: number("file")?,
                hindrance: match (persistence, flag("heap")?, flag("may")?) {
                    ("u", _, _) => Some(
                        "it is unlogged: a standby has no rows of it, and a failover loses them".to_owned(),
                    ),
                    (_, false, _) => Some("its access method is not heap".to_owned()),
                    (_, _, false) => Some(
                        "the role may not read it (grant pg_read_all_data), or it was dropped meanwhile"
                            .to_owned(),
                    ),
                    _ => None,
                },
            };
            let other = match kind {
                "f" => Some("a foreign table: its rows are another server's"),
                "S" => Some("a sequence: what is logged of it runs ahead of what is used"),
                "m" if !flag("populated")? => Some("a materialized view that has no rows yet"),
                _ => None,
            };
            match other {
                Some(reason) => found.others.push(NotRows {
                    name: table.shown(),
                    reason: reason.to_owned(),
                    counts: false,
                }),
                None => found.tables.push(table),
            }
        }
        Ok(found)
    }

    /// Holds a table for as long as it is read, within a savepoint; its blocks, or `None` where its file is not the one that the snapshot has: it was truncated or rewritten since.
    ///
    /// Source: <https://www.postgresql.org/docs/current/mvcc-caveats.html>: `TRUNCATE` and the forms of `ALTER TABLE` that rewrite are not bound to snapshots.
    ///
    /// # Errors
    /// When the server does not answer, or somebody has the table locked. Then [`compare_end_table`](Self::compare_end_table) is to follow all the same.
    pub async fn compare_begin_table(&self, table: &Table) -> Result<Option<u64>, Error> {
        const WHAT: &str = "holding a table";
        self.rows(WHAT, "savepoint compared", &[]).await?;
        // `lock table` takes no materialized view; reading no row takes the same lock.
        let reads = format!("select from only {} limit 0", table.quoted());
        self.rows(WHAT, &reads, &[]).await?;
        let file = self.compare_is_table(table).await?;
        let statement = "select pg_relation_size($1::bigint::oid::regclass) / current_setting('block_size')::bigint as blocks";
        let row = self.row(WHAT, statement, &[&i64::from(table.oid)]).await?;
        let blocks: Option<i64> = column(WHAT, &row, "blocks")?;
        Ok(blocks.and_then(|blocks| u64::try_from(blocks).ok()).filter(|_| file))
    }

    /// Whether the name that is read by is the table's now, with the file that the snapshot has: a name leads to another table once somebody renamed both, or their schemas, which
    /// no lock on a table keeps him from.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn compare_is_table(&self, table: &Table) -> Result<bool, Error> {
        const WHAT: &str = "which table a name leads to";
        let statement = "select coalesce(to_regclass($2)::oid::bigint = $1::bigint, false)
                                and pg_relation_filenode($1::bigint::oid::regclass)::bigint is not distinct from $3 as is_same";
        let asked: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&i64::from(table.oid), &table.quoted(), &i64::from(table.file)];
        column(WHAT, &self.row(WHAT, statement, &asked).await?, "is_same")
    }

    /// Lets a table go, whatever became of the questions.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn compare_end_table(&self) -> Result<(), Error> {
        const WHAT: &str = "letting a table go";
        self.rows(WHAT, "rollback to savepoint compared", &[]).await?;
        self.rows(WHAT, "release savepoint compared", &[]).await.map(drop)
    }
}

/// A name as SQL has it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
