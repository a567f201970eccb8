//! A certificate authority for one test, and certificates of it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::must::Must;

/// Somebody who signs certificates that a test believes.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let key = KeyPair::generate().must("make a key");
        let mut authority = CertificateParams::new(Vec::<String>::new()).must("describe the authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        authority.distinguished_name.push(rcgen::DnType::CommonName, "farshore test authority");
        let signed = authority.self_signed(&key).must("sign the authority");
        Self { pem: signed.pem(), issuer: Issuer::new(authority, key) }
    }

    /// Writes its own certificate.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, ca: &Path) {
        std::fs::write(ca, &self.pem).must(format_args!("write {}", ca.display()));
    }

    /// Writes `NAME.crt` and `NAME.key` into a folder, valid for these names and addresses.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn issue(&self, folder: &Path, name: &str, valid_for: &[&str]) {
        let key = KeyPair::generate().must("make a key");
        let names: Vec<String> = valid_for.iter().map(|name| (*name).to_owned()).collect();
        let mut holder = CertificateParams::new(names).must("describe its holder");
        holder.distinguished_name.push(rcgen::DnType::CommonName, valid_for.first().copied().unwrap_or(name));
        let signed = holder.signed_by(&key, &self.issuer).must("sign its holder");
        let (certificate, private) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        std::fs::write(&certificate, signed.pem()).must(format_args!("write {}", certificate.display()));
        std::fs::write(&private, key.serialize_pem()).must(format_args!("write {}", private.display()));
        // PostgreSQL refuses a key that others may read.
        std::fs::set_permissions(&private, PermissionsExt::from_mode(0o600)).must("protect the key");
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes `server.crt` and `server.key` into the data directory, valid for 127.0.0.1 and localhost, and the
/// authority's certificate to `ca`.
pub fn write(data: &Path, ca: &Path) {
    let authority = Authority::new();
    authority.write(ca);
    authority.issue(data, "server", &["localhost", "127.0.0.1"]);
}
