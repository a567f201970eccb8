//! The pages' promises, as a browser's requests and forms meet them: who sees what, what is escaped, what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests: a panic is the failure message"
)]
#![allow(dead_code, reason = "the rig serves the API's tests too")]

#[path = "pages/access.rs"]
mod access;
#[path = "pages/asking.rs"]
mod asking;
#[path = "pages/compares.rs"]
mod compares;
#[path = "pages/content.rs"]
mod content;
#[path = "pages/drills.rs"]
mod drills;
#[path = "pages/forms.rs"]
mod forms;
#[path = "pages/kept.rs"]
mod kept;
#[path = "pages/many.rs"]
mod many;
#[path = "pages/person.rs"]
mod person;
#[path = "pages/protection.rs"]
mod protection;
#[path = "api/rig.rs"]
mod rig;
#[path = "pages/settings.rs"]
mod settings;
#[path = "pages/standbys.rs"]
mod standbys;
#[path = "pages/throttles.rs"]
mod throttles;
