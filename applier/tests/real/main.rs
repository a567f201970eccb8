//! Real servers and a real store: what was committed is what a restore brings back, to the row; what was changed in the
//! store is reported and never restored.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests: a panic there is the failure message"
)]

mod changed;
mod fetched;
mod reached;
mod restored;
mod rig;
mod served;
