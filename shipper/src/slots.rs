//! The names of a database's two replication slots on its primary.
//!
//! The *live* slot is named in the stream: it makes the stream exclusive at the primary, and follows what is reported. The
//! *keep* slot is never streamed: it is moved to what is released, and holds the log for targets that are behind. Each target
//! has its own stream, so each has a live slot of its own; the keep slot is the database's.

use farshore_engines::postgres::wire::SlotName;
use farshore_journal::{DatabaseName, ParseError};

/// PostgreSQL's limit on names, in bytes.
const NAME_BYTES: usize = 63;

/// The slot that a target's stream names.
///
/// # Errors
/// Never in practice: every database and store name gives a slot name.
pub fn live(database: &DatabaseName, store: &str) -> Result<SlotName, ParseError> {
    name(database, &format!("live_{store}"))
}

/// The slot that keeps the log until it is released.
///
/// # Errors
/// Never in practice: every database name gives a slot name.
pub fn keep(database: &DatabaseName) -> Result<SlotName, ParseError> {
    name(database, "keep")
}

/// `farshore_<database>_<role>` in the letters that PostgreSQL allows, cut to its length.
fn name(database: &DatabaseName, role: &str) -> Result<SlotName, ParseError> {
    let letters = |text: &str| -> String {
        let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' };
        text.to_ascii_lowercase().chars().map(plain).collect()
    };
    let role = letters(role);
    let room = NAME_BYTES.saturating_sub("farshore__".len() + role.len().min(24));
    let mut database = letters(database.as_str());
    database.truncate(room);
    let mut full = format!("farshore_{database}_{role}");
    full.truncate(NAME_BYTES);
    full.parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_database_and_store_name_gives_a_slot_name_that_postgresql_takes() {
        let long = "a-".repeat(31);
        for database in ["orders", "orders-2", long.as_str()] {
            let database = database.parse().unwrap();
            let (live, keep) = (live(&database, "Main.Store").unwrap(), keep(&database).unwrap());
            assert_ne!(live, keep);
        }
        assert_eq!(keep(&"orders".parse().unwrap()).unwrap().as_str(), "farshore_orders_keep");
        assert_eq!(live(&"orders".parse().unwrap(), "main").unwrap().as_str(), "farshore_orders_live_main");
    }
}
