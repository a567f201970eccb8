//! Throttles: rules that limit, and tell of, what a database's shipping takes. `docs/throttles.md` is for whoever writes them.
//!
//! What always holds: whether a rule acts is a pure function of the rule, what was known of it before, and one look; of several limits
//! the lowest holds; a rule of which the measured is not known does nothing and is not called fine; a command is what the configuration
//! file says, and nobody else can name one.
//!
//! ```text
//! every 10 s, one task: look ─▶ judge, rule by rule (pure) ─▶ limit ─▶ valve
//!                         │                              └──▶ what fires ─▶ log │ command, in a task that is joined
//!                         └─▶ catalog: how each rule stands (from there: notifications, metrics, `throttle list`), and the look
//! ```

pub mod act;
pub mod judge;
pub mod look;
pub mod replay;
pub mod rule;
pub mod task;
pub mod window;
