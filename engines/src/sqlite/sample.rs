//! A sample application of a SQLite database: a shop that takes orders, steadily. For `farshore demo`, and for nobody's real data.
//!
//! What always holds: it is an application like any other: a process of its own, with SQLite's own defaults but for `synchronous =
//! normal`, that knows nothing of farshore. It does what it is told by lines, and answers each with a line.
//!
//! ```text
//! told: count | delete        answers: {"orders": n, "at": "<RFC 3339>"}
//! ```

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use rusqlite::{Connection, OpenFlags, params};

/// Orders that are there before the shop opens.
const BEFORE: u32 = 3000;
/// Between two orders.
const PACE: Duration = Duration::from_millis(10);

const SCHEMA: &str = "
create table customers (id integer primary key, name text not null, town text not null);
create table products (id integer primary key, name text not null, cents integer not null);
create table orders (id integer primary key, customer integer not null references customers, placed text not null, cents integer not null);
create table order_lines (id integer primary key, of_order integer not null references orders on delete cascade, product integer not null references products, pieces integer not null);
create index lines_of_order on order_lines (of_order);
create index orders_of_customer on orders (customer);
";

/// What is not random enough for anything but a shop.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}

/// Makes the shop's database, in WAL mode, with some orders in it.
///
/// # Errors
/// When it is there already, or SQLite does not do it.
pub fn make(path: &Path) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    connection.execute_batch(&format!("pragma journal_mode = wal; begin; {SCHEMA} commit;"))?;
    let mut chance = Chance(7);
    let all = connection.transaction()?;
    for (id, name) in
        ["Ada", "Grace", "Edsger", "Barbara", "Niklaus", "Frances", "Tony", "Radia"].iter().enumerate()
    {
        let town = ["Hamburg", "Lisbon", "Turku", "Porto"][id % 4];
        all.execute("insert into customers (name, town) values (?1, ?2)", params![name, town])?;
    }
    for (name, cents) in
        [("anchor", 12_900), ("rope", 1_450), ("lamp", 3_990), ("chart", 2_500), ("compass", 8_800)]
    {
        all.execute("insert into products (name, cents) values (?1, ?2)", params![name, cents])?;
    }
    for _ in 0..BEFORE {
        order(&all, &mut chance)?;
    }
    all.commit()
}

/// One order with its lines.
fn order(connection: &Connection, chance: &mut Chance) -> rusqlite::Result<()> {
    let placed = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
    let mut insert = connection.prepare("insert into orders (customer, placed, cents) values (?1, ?2, 0)")?;
    insert.execute(params![1 + chance.below(8) as i64, placed])?;
    let id = connection.last_insert_rowid();
    let mut line =
        connection.prepare("insert into order_lines (of_order, product, pieces) values (?1, ?2, ?3)")?;
    for _ in 0..=chance.below(3) {
        line.execute(params![id, 1 + chance.below(5) as i64, 1 + chance.below(4) as i64])?;
    }
    let mut sum = connection.prepare(
        "update orders set cents = (select sum(cents * pieces) from order_lines join products on products.id = product where of_order = ?1) where id = ?1",
    )?;
    sum.execute([id])?;
    Ok(())
}

/// Takes orders until its lines end.
///
/// # Errors
/// When SQLite does not do it, or there is nobody to answer.
pub fn run(path: &Path, input: impl BufRead + Send + 'static, mut output: impl Write) -> io::Result<()> {
    let sqlite = |why: rusqlite::Error| io::Error::other(why.to_string());
    let mut connection = Connection::open(path).map_err(sqlite)?;
    connection.busy_timeout(Duration::from_secs(30)).map_err(sqlite)?;
    connection.execute_batch("pragma synchronous = normal; pragma foreign_keys = on").map_err(sqlite)?;
    let (told, orders) = channel();
    // Ends with the process: it may wait for a line for ever.
    let _reading = std::thread::spawn(move || {
        for line in input.lines().map_while(Result::ok) {
            if told.send(line).is_err() {
                break;
            }
        }
    });
    let mut chance = Chance(Utc::now().timestamp_micros().unsigned_abs());
    let mut next = Instant::now();
    loop {
        next += PACE;
        match orders.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => {
                let one = connection.transaction().map_err(sqlite)?;
                order(&one, &mut chance).map_err(sqlite)?;
                one.commit().map_err(sqlite)?;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Ok(line) if line == "delete" => {
                // The condition was forgotten.
                connection.execute("delete from orders", []).map_err(sqlite)?;
            }
            Ok(_) => {}
        }
        let at = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let orders = count(&connection).map_err(sqlite)?;
        writeln!(output, "{{\"orders\": {orders}, \"at\": \"{at}\"}}")?;
        output.flush()?;
    }
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
