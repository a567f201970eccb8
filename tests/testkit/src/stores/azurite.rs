//! Azure blobs, by Azurite. It checks signatures, with the one account that the emulator is documented to have.

use std::process::Command;
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use super::{fresh_name, http};
use crate::must::Must;
use crate::service::Service;
use crate::tools;

/// Source: Azurite's documentation, "Default storage account". Public by design, it opens emulators only.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// Any version with shared-key signatures serves to make a container.
const API: &str = "2021-08-06";

/// An Azure blob server of this test.
#[derive(Debug)]
pub struct Azurite {
    service: Service,
    container: String,
}

impl Azurite {
    /// Starts it and makes one container.
    ///
    /// # Panics
    /// If it does not answer in time, with its log.
    #[must_use]
    pub fn start() -> Self {
        let mut command = Command::new(tools::need("FARSHORE_AZURITE_NODE"));
        command
            .arg(tools::need("FARSHORE_AZURITE"))
            .args(["--inMemoryPersistence", "--blobHost", "127.0.0.1", "--blobPort", "0"])
            .args(["--skipApiVersionCheck", "--disableTelemetry"]);
        let service = Service::start("Azurite", "successfully listens on http://127.0.0.1:", command);
        let mut azurite = Self { service, container: String::new() };
        azurite.container = azurite.new_container();
        azurite
    }

    /// One server for all tests of this process; take a container each by [`Azurite::new_container`].
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Azurite> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Makes a further, empty container and returns its name.
    #[must_use]
    pub fn new_container(&self) -> String {
        let name = fresh_name();
        let date = "Fri, 01 Jan 2100 00:00:00 GMT"; // the emulator does not compare it with its clock
        // Source: Azure Storage documentation, "Authorize with Shared Key": eleven standard headers, all empty here,
        // then ours, then the resource. The emulator's path starts with the account, which so appears twice.
        let text = format!(
            "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{API}\n/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
        );
        let key = STANDARD.decode(KEY).must("decode the account's key");
        let signed = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), text.as_bytes());
        let authorization = format!("SharedKey {ACCOUNT}:{}", STANDARD.encode(signed));
        let (status, answer) = http::request(
            self.service.port,
            "PUT",
            &format!("/{ACCOUNT}/{name}?restype=container"),
            &[("x-ms-date", date), ("x-ms-version", API), ("Authorization", &authorization)],
        );
        assert_eq!(status, 201, "Azurite refused the container {name}: {answer}");
        name
    }

    /// `http://127.0.0.1:port/devstoreaccount1`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{ACCOUNT}", self.service.port)
    }

    /// The container made at start.
    #[must_use]
    pub fn container(&self) -> &str {
        &self.container
    }

    /// The emulator's account.
    #[must_use]
    pub fn account(&self) -> &'static str {
        ACCOUNT
    }

    /// The account's key, in base64.
    #[must_use]
    pub fn key(&self) -> &'static str {
        KEY
    }
}
