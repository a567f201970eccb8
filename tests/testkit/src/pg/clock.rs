//! A server's clock, shifted while it runs: what a wrong NTP server, a resumed machine or an operator's hand does.
//!
//! Debian's libfaketime answers the server's questions for the time of day; it reads the shift from a file at each of them.
//! The monotonic clock is left alone: sleeps and timeouts that use it stay what they are.
//! Source: faketime(1), "Advanced time specification options".

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::must::Must;
use crate::{tools, user};

/// The file that says by how much.
#[derive(Debug)]
pub(super) struct Clock {
    file: PathBuf,
}

impl Clock {
    pub(super) fn new(folder: &Path) -> Self {
        let clock = Self { file: folder.join("clock") };
        clock.shift(0);
        clock
    }

    /// Replaced as a whole: a process that read half a number would live in another century.
    pub(super) fn shift(&self, seconds: i64) {
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{seconds:+}\n")).must("write the clock's shift");
        user::give(&next);
        std::fs::rename(&next, &self.file).must("replace the clock's shift");
    }

    /// Makes a command live by this clock.
    pub(super) fn wind(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", tools::need("FARSHORE_FAKETIME"))
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}
