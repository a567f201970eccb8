//! One HTTP request, for making buckets and for asking whether a store answers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use crate::must::Must;

/// For the whole answer of a store on this machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Sends an empty request and returns the status code and the answer's text.
pub(super) fn request(port: u16, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).must("connect to the store");
    stream.set_read_timeout(Some(DEADLINE)).must("set a deadline");
    stream.set_write_timeout(Some(DEADLINE)).must("set a deadline");
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).must("send the request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).must("read the answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).must("read the status");
    (status, answer)
}
