//! The `farshore` binary as a library, so that tests can reach its parts.
//!
//! It reads configuration, wires the crates together and prints; what it decides itself is pure (`check`, `config`,
//! `cli`). Only here may errors be carried by `anyhow`, and only here is standard output written.

mod arrivals;
pub mod base_backups;
pub mod catalog_upkeep;
pub mod check;
mod chronicles;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod config;
pub mod drill;
pub mod exit;
pub mod expire;
mod exposure;
mod guarding;
pub mod heads;
pub mod heap;
pub mod jobs;
pub mod listening;
pub mod message;
pub mod notify;
pub mod output;
pub mod pushed;
pub mod rebuild;
pub mod receiving;
pub mod room_lock;
pub mod serving;
pub mod socket;
pub mod sources;
pub mod supervised;
pub mod throttles;
pub mod watching;
pub mod wiring;
