//! What other tests take for granted about the kit.

mod postgres;
mod soak;
mod stores;
