//! Object stores for tests, in memory: nothing of them outlives the test.
//!
//! Both were chosen for keeping the one promise that farshore builds on: of many racing creators of one name, exactly
//! one wins. Each chooses its port itself and says which; we read it from its log.

mod azurite;
mod http;
mod moto;

pub use azurite::Azurite;
pub use moto::Moto;

use std::sync::atomic::{AtomicU32, Ordering};

/// A name that no other test of this process has taken.
fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("farshore-test-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}
