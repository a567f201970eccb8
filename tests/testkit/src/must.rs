//! Panics that say what was being done. The workspace forbids `unwrap`; a test kit still has to stop loudly.

use std::fmt::Display;

/// Takes the value out, or panics with what was wanted and why it failed.
pub(crate) trait Must<T> {
    /// `what` completes the sentence "failed: ...".
    fn must(self, what: impl Display) -> T;
}

impl<T, E: Display> Must<T> for Result<T, E> {
    #[track_caller]
    fn must(self, what: impl Display) -> T {
        match self {
            Ok(value) => value,
            Err(error) => panic!("failed: {what}: {error}"),
        }
    }
}

impl<T> Must<T> for Option<T> {
    #[track_caller]
    fn must(self, what: impl Display) -> T {
        match self {
            Some(value) => value,
            None => panic!("failed: {what}: nothing there"),
        }
    }
}
