//! How fast a database's bytes go to its stores, where somebody set a limit.
//!
//! Always: what a store is handed was paid for first, so in any span of time of length `t` no more goes than
//! `rate · t`, a second's worth that was saved up before, and the rest of one object that was paid for before it. Nothing
//! is called stored sooner or later for it: a limited store is a slow one, and all that holds for a slow store holds for it.
//! What it does not do: limit what is read from a store, or what another process sends there.

pub mod bucket;
pub mod lanes;
pub mod metered;
pub mod valve;
