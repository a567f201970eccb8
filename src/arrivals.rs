//! Who serves a journal in this process hears at once that something was put into it, and need not wait for its next look.
//!
//! What always holds: this is a hint. Whoever hears nothing looks by the clock as ever, and whoever hears something looks: nothing is believed for having been said here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use farshore_journal::DatabaseName;
use tokio::sync::watch;

/// What came, by database.
#[derive(Debug, Clone, Default)]
pub struct Arrivals(Arc<Mutex<BTreeMap<DatabaseName, watch::Sender<u64>>>>);

impl Arrivals {
    /// Something came into a journal of this database.
    pub fn came(&self, database: &DatabaseName) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = all.get(database) {
            told.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Another number for each time that something came.
    pub fn of(&self, database: &DatabaseName) -> watch::Receiver<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(database.clone()).or_insert_with(|| watch::channel(0).0).subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hears_of_its_own_database_and_of_no_other() {
        let [orders, billing] = ["orders", "billing"].map(|name| name.parse::<DatabaseName>().unwrap());
        let arrivals = Arrivals::default();
        arrivals.came(&orders);
        let (mut hears, other) = (arrivals.of(&orders), arrivals.of(&billing));
        assert!(!hears.has_changed().unwrap());
        arrivals.came(&orders);
        assert!(hears.has_changed().unwrap() && !other.has_changed().unwrap());
        hears.mark_unchanged();
        arrivals.clone().came(&orders);
        assert!(hears.has_changed().unwrap());
    }
}
