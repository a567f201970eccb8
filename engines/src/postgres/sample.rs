//! The sample shop ([`crate::sample`]) whose books are a PostgreSQL database, with PostgreSQL's own defaults, reached over a socket in a
//! folder.
//!
//! What always holds: everything here waits for the server on the thread that calls it: it is for a process of its own, or for a thread
//! that may wait.

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::Duration;

use tokio_postgres::{Client, NoTls};

use crate::sample::{BEFORE, Books, CUSTOMERS, Order, PRODUCTS, keep};

/// The role that owns the cluster.
pub const OWNER: &str = "postgres";
/// The shop's role and its database.
pub const SHOP: &str = "shop";
/// How long a server may take to let somebody in.
const SOON: Duration = Duration::from_secs(30);

const SCHEMA: &str = "
create table customers (id serial primary key, name text not null, town text not null);
create table products (id serial primary key, name text not null, cents integer not null);
create table orders (id serial primary key, customer integer not null references customers, placed timestamptz not null, cents integer not null);
create table order_lines (id serial primary key, of_order integer not null references orders on delete cascade, product integer not null references products, pieces integer not null);
create index lines_of_order on order_lines (of_order);
create index orders_of_customer on orders (customer);
";

const SUMS: &str = "update orders set cents = (select sum(products.cents * pieces) from order_lines join products on products.id = product where of_order = orders.id)";

/// Why the server did not do it.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// It said so.
    #[error("{}", said(.0))]
    Server(#[from] tokio_postgres::Error),
    /// It did not let us in in time.
    #[error("the server did not answer for {} s", SOON.as_secs())]
    Silent,
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An error of the server's says little without its cause.
fn said(why: &tokio_postgres::Error) -> String {
    std::error::Error::source(why).map_or_else(|| why.to_string(), |cause| format!("{why}: {cause}"))
}

/// Somebody at a server.
pub struct Session {
    client: Client,
    /// Drives the connection whenever it is waited for, and ends it when this goes.
    runtime: tokio::runtime::Runtime,
}

impl Session {
    /// Goes to a server whose socket is in a folder.
    ///
    /// # Errors
    /// When it lets nobody in, or not this role.
    pub fn open(sockets: &Path, port: u16, user: &str, database: &str) -> Result<Self, SampleError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut config = tokio_postgres::Config::new();
        config.host_path(sockets).port(port).user(user).dbname(database).application_name(SHOP);
        let connected = runtime.block_on(async { tokio::time::timeout(SOON, config.connect(NoTls)).await });
        let (client, connection) = connected.map_err(|_| SampleError::Silent)??;
        // What ends it is told to whoever asks something of the client.
        let _driven = runtime.spawn(connection);
        Ok(Self { client, runtime })
    }

    /// Has statements executed: one transaction, unless they say otherwise.
    ///
    /// # Errors
    /// When the server refuses one.
    pub fn execute(&mut self, statements: &str) -> Result<(), SampleError> {
        Ok(self.runtime.block_on(self.client.batch_execute(statements))?)
    }
}

/// Makes the shop's role and its database, with some orders in it, in a new cluster.
///
/// # Errors
/// When it is there already, or the server refuses something.
pub fn make(sockets: &Path, port: u16) -> Result<(), SampleError> {
    let mut owner = Session::open(sockets, port, OWNER, OWNER)?;
    owner.execute(&format!("create role {SHOP} login"))?;
    owner.execute(&format!("create database {SHOP} owner {SHOP}"))?;
    let customers: Vec<String> =
        CUSTOMERS.iter().map(|(name, town)| format!("('{name}', '{town}')")).collect();
    let products: Vec<String> = PRODUCTS.iter().map(|(name, cents)| format!("('{name}', {cents})")).collect();
    Session::open(sockets, port, SHOP, SHOP)?.execute(&format!(
        "{SCHEMA}
        insert into customers (name, town) values {customers};
        insert into products (name, cents) values {products};
        insert into orders (customer, placed, cents) select 1 + id % {buyers}, now(), 0 from generate_series(1, {BEFORE}) as id;
        insert into order_lines (of_order, product, pieces)
            select id, 1 + (id + line) % {goods}, 1 + (id + line) % 4 from orders, generate_series(0, id % 3) as line;
        {SUMS};",
        customers = customers.join(", "),
        products = products.join(", "),
        buyers = CUSTOMERS.len(),
        goods = PRODUCTS.len(),
    ))
}

impl Books for Session {
    type Error = SampleError;

    fn take(&mut self, order: &Order) -> Result<(), SampleError> {
        let lines: Vec<String> = order
            .lines
            .iter()
            .map(|(product, pieces)| format!("(currval('orders_id_seq'), {product}, {pieces})"))
            .collect();
        // Numbers of our own making only: nothing to be escaped.
        self.execute(&format!(
            "insert into orders (customer, placed, cents) values ({}, now(), 0);
            insert into order_lines (of_order, product, pieces) values {};
            {SUMS} where id = currval('orders_id_seq')",
            order.customer,
            lines.join(", ")
        ))
    }

    fn delete_all(&mut self) -> Result<(), SampleError> {
        self.execute("delete from orders")
    }

    fn count(&mut self) -> Result<u64, SampleError> {
        let row = self.runtime.block_on(self.client.query_one("select count(*) from orders", &[]))?;
        Ok(row.try_get::<_, i64>(0)?.unsigned_abs())
    }
}

/// Takes orders until its lines end.
///
/// # Errors
/// When the server does not do it, or there is nobody to answer.
pub fn run(
    sockets: &Path,
    port: u16,
    input: impl BufRead + Send + 'static,
    output: impl Write,
) -> io::Result<()> {
    let mut books =
        Session::open(sockets, port, SHOP, SHOP).map_err(|why| io::Error::other(why.to_string()))?;
    keep(&mut books, input, output)
}

/// How many orders a server holds, and when the last one was placed.
///
/// # Errors
/// When it has no database of the shop.
pub fn orders_in(sockets: &Path, port: u16) -> Result<(u64, String), SampleError> {
    let mut reader = Session::open(sockets, port, SHOP, SHOP)?;
    let last = "select coalesce(to_char(max(placed) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), '') from orders";
    let row = reader.runtime.block_on(reader.client.query_one(last, &[]))?;
    Ok((reader.count()?, row.try_get(0)?))
}
