//! A certificate authority for one test, and a server certificate of it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::must::Must;

/// Writes `server.crt` and `server.key` into the data directory, valid for 127.0.0.1 and localhost, and the
/// authority's certificate to `ca`.
pub fn write(data: &Path, ca: &Path) {
    let authority_key = KeyPair::generate().must("make a key");
    let mut authority = CertificateParams::new(Vec::<String>::new()).must("describe the authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name.push(rcgen::DnType::CommonName, "farshore test authority");
    let signed = authority.self_signed(&authority_key).must("sign the authority");
    std::fs::write(ca, signed.pem()).must(format_args!("write {}", ca.display()));
    let issuer = Issuer::new(authority, authority_key);

    let key = KeyPair::generate().must("make a key");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut server = CertificateParams::new(names).must("describe the server");
    server.distinguished_name.push(rcgen::DnType::CommonName, "localhost");
    let signed = server.signed_by(&key, &issuer).must("sign the server");
    let key_path = data.join("server.key");
    std::fs::write(data.join("server.crt"), signed.pem()).must("write server.crt");
    std::fs::write(&key_path, key.serialize_pem()).must("write server.key");
    // PostgreSQL refuses a key that others may read.
    std::fs::set_permissions(&key_path, PermissionsExt::from_mode(0o600)).must("protect server.key");
}
