//! The API's promises: a real server on loopback over a real catalog, asked as any caller would.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests: a panic is the failure message"
)]

#[path = "api/access.rs"]
mod access;
#[path = "api/answers.rs"]
mod answers;
#[path = "api/asking.rs"]
mod asking;
#[path = "api/channels.rs"]
mod channels;
#[path = "api/description.rs"]
mod description;
#[path = "api/listening.rs"]
mod listening;
#[path = "api/made_up.rs"]
mod made_up;
#[path = "api/metrics.rs"]
mod metrics;
#[path = "api/odd.rs"]
mod odd;
#[path = "api/protection.rs"]
mod protection;
#[path = "api/rig.rs"]
mod rig;
#[path = "api/session.rs"]
mod session;
#[path = "api/standbys.rs"]
mod standbys;
#[path = "api/surroundings.rs"]
mod surroundings;
