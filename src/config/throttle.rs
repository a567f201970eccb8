//! How fast a database's bytes may go to its stores: `bandwidth`.
//!
//! What always holds: a limit that is accepted is one that a chunk of log passes within a second.

use farshore_shipper::throttle::valve::LEAST_RATE;
use toml::Spanned;

use super::diagnose::ConfigProblem;
use super::quantity::Rate;
use super::{DatabaseConfig, Judge};

impl DatabaseConfig {
    /// The lowest limit that may ever hold; `None`: there is none.
    pub fn lowest_bandwidth(&self) -> Option<Rate> {
        self.bandwidth
    }
}

impl Judge<'_> {
    pub(super) fn bandwidth(&self, written: Option<&Spanned<Rate>>) -> Result<Option<Rate>, ConfigProblem> {
        match written {
            Some(rate) if rate.get_ref().get() < LEAST_RATE => Err(self
                .problem(rate.span(), format!("a database is given {} at least", Rate::new(LEAST_RATE)))
                .hint("with less a flush is on its way for seconds; to stop shipping for a while, stop the service")),
            written => Ok(written.map(|rate| *rate.get_ref())),
        }
    }
}
