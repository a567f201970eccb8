//! A sample application: a shop that takes orders, steadily, whatever database keeps its books. For `farshore demo`, and for nobody's
//! real data.
//!
//! What always holds: it is an application like any other, a process of its own that knows nothing of farshore. It does what it is told
//! by lines, and answers each with a line.
//!
//! ```text
//! told: count | delete        answers: {"orders": n, "at": "<RFC 3339>"}
//! ```

use std::fmt::Display;
use std::io::{self, BufRead, Write};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};

/// Orders that are there before the shop opens.
pub const BEFORE: u32 = 3000;
/// Between two orders.
const PACE: Duration = Duration::from_millis(10);

/// Who buys, and where.
pub(crate) const CUSTOMERS: [(&str, &str); 8] = [
    ("Ada", "Hamburg"),
    ("Grace", "Lisbon"),
    ("Edsger", "Turku"),
    ("Barbara", "Porto"),
    ("Niklaus", "Hamburg"),
    ("Frances", "Lisbon"),
    ("Tony", "Turku"),
    ("Radia", "Porto"),
];

/// What is sold, and for how many cents.
pub(crate) const PRODUCTS: [(&str, u32); 5] =
    [("anchor", 12_900), ("rope", 1_450), ("lamp", 3_990), ("chart", 2_500), ("compass", 8_800)];

/// What is not random enough for anything but a shop.
pub struct Chance(u64);

impl Chance {
    /// Begins somewhere.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}

/// An order that somebody places.
pub struct Order {
    /// The customer's number, from 1.
    pub customer: u64,
    /// Numbers of products, from 1, and how many pieces of each.
    pub lines: Vec<(u64, u64)>,
}

impl Order {
    /// Any one.
    pub(crate) fn any(chance: &mut Chance) -> Self {
        let customer = 1 + chance.below(CUSTOMERS.len() as u64);
        let lines = (0..=chance.below(3))
            .map(|_| (1 + chance.below(PRODUCTS.len() as u64), 1 + chance.below(4)))
            .collect();
        Self { customer, lines }
    }
}

/// The shop's books, in a database of some engine.
pub trait Books {
    /// What the database says when it does not do it.
    type Error: Display;

    /// Takes an order: one transaction.
    ///
    /// # Errors
    /// When the database does not do it.
    fn take(&mut self, order: &Order) -> Result<(), Self::Error>;

    /// Deletes every order: the condition was forgotten.
    ///
    /// # Errors
    /// When the database does not do it.
    fn delete_all(&mut self) -> Result<(), Self::Error>;

    /// How many orders there are.
    ///
    /// # Errors
    /// When the database does not do it.
    fn count(&mut self) -> Result<u64, Self::Error>;
}

/// Takes orders until its lines end.
///
/// # Errors
/// When the database does not do it, or there is nobody to answer.
pub fn keep<B: Books>(
    books: &mut B,
    input: impl BufRead + Send + 'static,
    mut output: impl Write,
) -> io::Result<()> {
    let failed = |why: B::Error| io::Error::other(why.to_string());
    let (told, orders) = channel();
    // Ends with the process: it may wait for a line for ever.
    let _reading = std::thread::spawn(move || {
        for line in input.lines().map_while(Result::ok) {
            if told.send(line).is_err() {
                break;
            }
        }
    });
    let mut chance = Chance::new(Utc::now().timestamp_micros().unsigned_abs());
    let mut next = Instant::now();
    loop {
        next += PACE;
        match orders.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => {
                books.take(&Order::any(&mut chance)).map_err(failed)?;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Ok(line) if line == "delete" => books.delete_all().map_err(failed)?,
            Ok(_) => {}
        }
        let at = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let orders = books.count().map_err(failed)?;
        writeln!(output, "{{\"orders\": {orders}, \"at\": \"{at}\"}}")?;
        output.flush()?;
    }
}
