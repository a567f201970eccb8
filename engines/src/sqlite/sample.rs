//! The sample shop ([`crate::sample`]) whose books are a SQLite database, with SQLite's own defaults but for `synchronous = normal`.

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use rusqlite::{Connection, OpenFlags, params};

use crate::sample::{BEFORE, Books, CUSTOMERS, Chance, Order, PRODUCTS, keep};

const SCHEMA: &str = "
create table customers (id integer primary key, name text not null, town text not null);
create table products (id integer primary key, name text not null, cents integer not null);
create table orders (id integer primary key, customer integer not null references customers, placed text not null, cents integer not null);
create table order_lines (id integer primary key, of_order integer not null references orders on delete cascade, product integer not null references products, pieces integer not null);
create index lines_of_order on order_lines (of_order);
create index orders_of_customer on orders (customer);
";

/// Makes the shop's database, in WAL mode, with some orders in it.
///
/// # Errors
/// When it is there already, or SQLite does not do it.
pub fn make(path: &Path) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    connection.execute_batch(&format!("pragma journal_mode = wal; begin; {SCHEMA} commit;"))?;
    let mut chance = Chance::new(7);
    let all = connection.transaction()?;
    for (name, town) in CUSTOMERS {
        all.execute("insert into customers (name, town) values (?1, ?2)", params![name, town])?;
    }
    for (name, cents) in PRODUCTS {
        all.execute("insert into products (name, cents) values (?1, ?2)", params![name, cents])?;
    }
    for _ in 0..BEFORE {
        place(&all, &Order::any(&mut chance))?;
    }
    all.commit()
}

/// One order with its lines.
fn place(connection: &Connection, order: &Order) -> rusqlite::Result<()> {
    let placed = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
    let mut insert = connection.prepare("insert into orders (customer, placed, cents) values (?1, ?2, 0)")?;
    insert.execute(params![order.customer.cast_signed(), placed])?;
    let id = connection.last_insert_rowid();
    let mut line =
        connection.prepare("insert into order_lines (of_order, product, pieces) values (?1, ?2, ?3)")?;
    for (product, pieces) in &order.lines {
        line.execute(params![id, product.cast_signed(), pieces.cast_signed()])?;
    }
    let mut sum = connection.prepare(
        "update orders set cents = (select sum(cents * pieces) from order_lines join products on products.id = product where of_order = ?1) where id = ?1",
    )?;
    sum.execute([id])?;
    Ok(())
}

impl Books for Connection {
    type Error = rusqlite::Error;

    fn take(&mut self, order: &Order) -> rusqlite::Result<()> {
        let one = self.transaction()?;
        place(&one, order)?;
        one.commit()
    }

    fn delete_all(&mut self) -> rusqlite::Result<()> {
        self.execute("delete from orders", []).map(drop)
    }

    fn count(&mut self) -> rusqlite::Result<u64> {
        count(self)
    }
}

/// Takes orders until its lines end.
///
/// # Errors
/// When SQLite does not do it, or there is nobody to answer.
pub fn run(path: &Path, input: impl BufRead + Send + 'static, output: impl Write) -> io::Result<()> {
    let open = || {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(30))?;
        connection.execute_batch("pragma synchronous = normal; pragma foreign_keys = on")?;
        Ok(connection)
    };
    let mut books = open().map_err(|why: rusqlite::Error| io::Error::other(why.to_string()))?;
    keep(&mut books, input, output)
}

fn count(connection: &Connection) -> rusqlite::Result<u64> {
    let count: i64 = connection.query_row("select count(*) from orders", [], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// How many orders a copy holds, and when the last one was placed. Of one that nobody writes nothing is changed, and nothing left
/// beside it.
///
/// # Errors
/// When it is no database of the shop.
pub fn orders_in(copy: &Path, is_written: bool) -> rusqlite::Result<(u64, String)> {
    let how = if is_written { "mode=ro" } else { "immutable=1" };
    let uri = format!("file:{}?{how}", copy.display());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri, flags)?;
    let last = connection.query_row("select coalesce(max(placed), '') from orders", [], |row| row.get(0))?;
    Ok((count(&connection)?, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shop_takes_orders_counts_them_and_loses_all_of_them_when_told_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.db");
        make(&path).unwrap();
        assert_eq!(orders_in(&path, false).unwrap().0, u64::from(BEFORE));
        let mut said = Vec::new();
        run(&path, io::Cursor::new("count\ndelete\ncount\n"), &mut said).unwrap();
        let said = String::from_utf8(said).unwrap();
        let counts: Vec<u64> = said
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["orders"].as_u64().unwrap())
            .collect();
        assert!(counts[0] >= u64::from(BEFORE) && counts[1] == 0, "{counts:?}");
    }
}
