//! What is asked over HTTP: is the process alive (`/healthz`, `/readyz`), the REST API `/api/v1`, read from the catalog, `/metrics`, and the dashboard.
//!
//! What always holds: all but health asks who asks (`auth.rs`), and the router says on one screen which role each path takes
//! (`router.rs`). Nothing here reads configuration, a store or a protected database; a state is shown as the catalog's own rules show
//! it. No answer and no log line holds a secret. The dashboard (`pages.rs`) is for people who have logged
//! in, and shows what the same catalog functions say.

pub mod answer;
pub mod api;
pub mod ask;
pub mod attempts;
pub mod auth;
pub mod body;
mod channels;
pub mod docs;
pub mod events;
pub mod grants;
pub mod guard;
mod health;
pub mod login;
pub mod metrics;
pub mod page;
pub mod pages;
pub mod password;
pub mod problem;
pub mod router;
pub mod serve;
pub mod state;
pub mod tls;

pub use channels::{Channel, Channels, Sent};
pub use health::{Health, Shipping};
pub use metrics::Metrics;
pub use router::router;
pub use serve::{ServeError, serve};
pub use state::{Here, Objectives, Shared, Waits, Web};
