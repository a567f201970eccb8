//! Ships a database's log to its stores.
//!
//! One owner task per database and target tails the source, cuts its log into chunks, and appends them to the target's
//! journal; only what the journal confirmed is called stored, and only the least of what every target has stored is
//! released. What always holds: `discarded <= released <= stored <= received` and `reported <= received`.

pub mod base_backup;
pub mod base_due;
pub mod batch;
pub mod continuity;
pub mod crash;
pub mod error;
pub mod facts;
pub mod file_log;
pub mod fill_rate;
pub mod founding;
pub mod guard;
pub mod keep;
pub mod line;
pub mod pipeline;
pub mod primary;
pub mod progress;
pub mod push;
pub mod recorder;
pub mod refreshing;
pub mod reported;
pub mod resume;
pub mod retention;
pub mod slots;
pub mod spool;
pub mod standing;
pub mod supervisor;
pub mod throttle;
pub mod waits;

pub use error::ShipError;
