//! What a service's metrics say, asked as a collector on its machine does.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message
#![allow(dead_code)] // each test binary uses a part of it

pub mod receiver;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::service::Service;

/// The page, as text; `None` while nobody answers in time, as a collector sees it.
pub fn scrape(service: &Service) -> Option<String> {
    scrape_at(&address(service))
}

/// Where a service offers metrics without a token.
pub fn address(service: &Service) -> String {
    service.address_of("metrics without a token listens")
}

/// The page at an address.
pub fn scrape_at(address: &str) -> Option<String> {
    let (status, answer) = get(address, "/metrics")?;
    (status == 200).then(|| answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// The status at a path, and the whole answer.
pub fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some((answer.split_whitespace().nth(1)?.parse().ok()?, answer))
}

/// One sample's value, by its whole name with labels.
pub fn value(page: &str, sample: &str) -> Option<f64> {
    let line =
        page.lines().find(|line| line.strip_prefix(sample).is_some_and(|rest| rest.starts_with(' ')))?;
    Some(match line.rsplit_once(' ').unwrap().1 {
        "+Inf" => f64::INFINITY,
        number => number.parse().unwrap(),
    })
}

/// The state that is shown of a database.
pub fn state(page: &str, database: &str) -> Option<String> {
    let start = format!("farshore_database_state{{database=\"{database}\",state=\"");
    let shown: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix(&start)?.strip_suffix("\"} 1")).collect();
    assert!(shown.len() <= 1, "one-hot: {shown:?}");
    shown.first().map(|state| (*state).to_owned())
}

/// What would be lost of a database.
pub fn exposure(page: &str, database: &str) -> Option<f64> {
    value(page, &format!("farshore_rpo_exposure_seconds{{database=\"{database}\"}}"))
}
