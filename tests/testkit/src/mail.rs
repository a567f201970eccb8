//! A relay of mails, by aiosmtpd: it checks whom it knows and keeps what it takes.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::must::Must;
use crate::service::Service;
use crate::{tls, tools};

/// How the way to a relay is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In the clear.
    Clear,
    /// In the clear until the other side asks for TLS, which it must.
    StartTls,
    /// TLS from the first byte.
    Wrapped,
}

/// A relay of this test. It refuses whoever is named `gone`, and wants to be asked again for `later`.
#[derive(Debug)]
pub struct Relay {
    service: Service,
    folder: TempDir,
}

impl Relay {
    /// Starts it. `user`: whom it knows, and by which password; nobody need say who he is where there is none.
    ///
    /// # Panics
    /// If it does not listen in time, with its log.
    #[must_use]
    pub fn start(way: Way, user: Option<(&str, &str)>) -> Self {
        let folder = tempfile::tempdir().must("make a folder for certificates");
        tls::write(folder.path(), &folder.path().join("ca.pem"));
        let way = match way {
            Way::Clear => "local",
            Way::StartTls => "starttls",
            Way::Wrapped => "wrapped",
        };
        let (user, password) = user.unwrap_or(("-", "-"));
        let mut command = Command::new(tools::need("FARSHORE_AIOSMTPD_PYTHON"));
        command.args(["-c", include_str!("mail_relay.py"), way]);
        command.args(["server.crt", "server.key"].map(|name| folder.path().join(name)));
        command.args([user, password]);
        Self { service: Service::start("the relay of mails", "LISTENING ", command), folder }
    }

    /// Its port on `localhost`.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.service.port
    }

    /// The certificate of the authority that signed its own.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What it took, oldest first: `from`, `to`, `text`, whether it came `encrypted`, and from which `user`.
    ///
    /// # Panics
    /// If a line is not what the relay writes.
    #[must_use]
    pub fn taken(&self) -> Vec<Value> {
        let log = self.service.log();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let mails = whole.lines().filter_map(|line| line.strip_prefix("MAIL "));
        mails.map(|mail| serde_json::from_str(mail).must("read a mail")).collect()
    }
}
