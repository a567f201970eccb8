//! The `farshore` binary as a library, so that tests can reach its parts.
