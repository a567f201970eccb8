//! Telling people: what changed for the worse, and that it is well again. `docs/notify.md` is for them.
//!
//! What always holds: the facts are those that `/metrics` is written from, judged by the same rules; of several services of one catalog one tells
//! ([`farshore_catalog::notice`]); a channel that is slow or away holds up no other, and what it did not take is counted and told again.
//! No secret and no row value is sent; addresses and keys of channels are never printed.
//!
//! ```text
//! Reading ─▶ observe (conditions) ─▶ transition (pure) ─▶ what is to be told, in the catalog
//!         │      ─▶ delivery (pure), per channel that has its turn ─▶ claim in the catalog ─▶ one message of all that is due ─▶ channel ─▶ what it took, in the catalog
//!         └▶ heartbeat, per database, while its objective is known to hold
//! ```

pub mod channel;
pub mod delivery;
pub mod heartbeat;
pub mod mail;
pub mod observe;
pub mod task;
pub mod testing;
mod throttle;
pub mod transition;
