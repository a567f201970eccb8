//! S3, by moto. It checks no signature: what it proves is behaviour, not credentials.

use std::process::Command;
use std::sync::OnceLock;

use super::{fresh_name, http};
use crate::service::Service;
use crate::tools;

/// An S3 server of this test.
#[derive(Debug)]
pub struct Moto {
    service: Service,
    bucket: String,
}

impl Moto {
    /// Starts it and makes one bucket.
    ///
    /// # Panics
    /// If it does not answer in time, with its log.
    #[must_use]
    pub fn start() -> Self {
        // The program's own Python knows moto; the script has the kernel choose the port, so no two tests can meet.
        let mut command = Command::new(tools::need("FARSHORE_MOTO").with_file_name("python"));
        command.args(["-c", include_str!("moto_one_at_a_time.py")]).env("PYTHONUNBUFFERED", "1");
        let service = Service::start("moto", "Running on http://127.0.0.1:", command);
        let mut moto = Self { service, bucket: String::new() };
        moto.bucket = moto.new_bucket();
        moto
    }

    /// One server for all tests of this process; take a bucket each by [`Moto::new_bucket`].
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Moto> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Makes a further, empty bucket and returns its name.
    #[must_use]
    pub fn new_bucket(&self) -> String {
        let name = fresh_name();
        let (status, answer) = http::request(self.service.port, "PUT", &format!("/{name}"), &[]);
        assert_eq!(status, 200, "moto refused the bucket {name}: {answer}");
        name
    }

    /// `http://127.0.0.1:port`, for path-style requests.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.service.port)
    }

    /// The bucket made at start.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Any would do.
    #[must_use]
    pub fn access_key(&self) -> &'static str {
        "farshore"
    }

    /// Any would do.
    #[must_use]
    pub fn secret_key(&self) -> &'static str {
        "farshore-secret"
    }

    /// The region in which buckets need no location constraint.
    #[must_use]
    pub fn region(&self) -> &'static str {
        "us-east-1"
    }
}
