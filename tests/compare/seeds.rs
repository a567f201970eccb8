//! Differences of one row each, written into a standby's own files: all are found, and named.
