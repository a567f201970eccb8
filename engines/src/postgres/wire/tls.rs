//! TLS to a server: which certificate is believed, and what a password's proof is bound to.
//!
//! What always holds: the ring provider is passed explicitly, so no global default is needed or changed; with
//! `verify-full` name and chain are checked, with `verify-ca` the chain, and in every mode the server proves that
//! it holds its certificate's key.
//!
//! Differences from libpq: a certificate needs the host as a subject alternative name (a bare common name is not
//! looked at), and a self-signed certificate marked as an authority is not taken as a server's own.

use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::error::Error;
use super::params::{ConnectParams, RootCert, SslMode};

/// The TLS settings for this protection.
pub(super) async fn client_config(params: &ConnectParams, mode: SslMode) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| read_problem("TLS", error))?;
    let builder = match mode {
        SslMode::VerifyFull => builder.with_root_certificates(roots(params).await?),
        SslMode::VerifyCa => {
            let roots = Arc::new(roots(params).await?);
            let chain = WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| read_problem("sslrootcert", error))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(ChainOnly(chain)))
        }
        SslMode::Disable | SslMode::Prefer | SslMode::Require => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        }
    };
    let config = match params.client_cert() {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates(cert).await?;
            let name = key.display().to_string();
            let bytes = tokio::fs::read(key).await.map_err(|error| read_problem(&name, error))?;
            let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| read_problem(&name, error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| read_problem(&name, error))?
        }
    };
    Ok(Arc::new(config))
}

async fn roots(params: &ConnectParams) -> Result<RootCertStore, Error> {
    match params.root_cert() {
        None | Some(RootCert::Public) => Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }),
        Some(RootCert::File(path)) => {
            let mut store = RootCertStore::empty();
            for certificate in certificates(path).await? {
                let name = path.display().to_string();
                store.add(certificate).map_err(|error| read_problem(&name, error))?;
            }
            Ok(store)
        }
    }
}

async fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let name = path.display().to_string();
    let bytes = tokio::fs::read(path).await.map_err(|error| read_problem(&name, error))?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| read_problem(&name, error))?;
    if found.is_empty() {
        return Err(read_problem(&name, "it holds no certificate"));
    }
    Ok(found)
}

fn read_problem(file: &str, problem: impl ToString) -> Error {
    Error::ReadFile { file: file.to_owned(), problem: problem.to_string() }
}

/// `require`: any certificate, whose key the server must hold.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `verify-ca`: the chain must hold, the name may differ. The inner verifier looks at the name last, after the
/// chain, so a complaint about the name means that the chain was good.
#[derive(Debug)]
struct ChainOnly(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The `tls-server-end-point` binding of a certificate: its digest by the hash of its own signature, SHA-256 in
/// place of MD5 and SHA-1. `None` for signatures without a hash (Ed25519) or with one we do not know.
///
/// Source: RFC 5929 section 4.1.
pub(crate) fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let oid = signature_oid(certificate)?;
    match oid {
        // 1.2.840.113549.1.1.x: RSA with MD5 (4), SHA-1 (5), SHA-256 (11), SHA-384 (12), SHA-512 (13).
        [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 4 | 5 | 11] => Some(Sha256::digest(certificate).to_vec()),
        [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 12] => Some(Sha384::digest(certificate).to_vec()),
        [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 13] => Some(Sha512::digest(certificate).to_vec()),
        // 1.2.840.10045.4: ECDSA with SHA-1 (1), SHA-256 (3.2), SHA-384 (3.3), SHA-512 (3.4).
        [0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 1] | [0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 2] => {
            Some(Sha256::digest(certificate).to_vec())
        }
        [0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 3] => Some(Sha384::digest(certificate).to_vec()),
        [0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 4] => Some(Sha512::digest(certificate).to_vec()),
        _ => None,
    }
}

/// The object identifier of a certificate's signature: `SEQUENCE { tbs SEQUENCE, SEQUENCE { OID, ... }, ... }`.
///
/// Source: RFC 5280 section 4.1.
fn signature_oid(certificate: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const OBJECT_IDENTIFIER: u8 = 0x06;
    let (outer, _) = der_value(certificate, SEQUENCE)?;
    let (_, after_tbs) = der_value(outer, SEQUENCE)?;
    let (algorithm, _) = der_value(after_tbs, SEQUENCE)?;
    der_value(algorithm, OBJECT_IDENTIFIER).map(|(oid, _)| oid)
}

/// The content of the first DER value, which must have this tag, and what follows it.
fn der_value(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, short], rest) = bytes.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match short {
        0..=0x7F => (usize::from(short), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(short - 0x80))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// The name that the server's certificate must carry.
pub(super) fn server_name(name: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, "not a host name that a certificate can carry")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hostile_certificates_never_panic(bytes: Vec<u8>) {
            let _ = server_end_point(&bytes);
        }
    }

    #[test]
    fn a_certificate_is_bound_by_the_hash_of_its_own_signature() {
        for (algorithm, size) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(32)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(48)),
            (&rcgen::PKCS_ED25519, None),
        ] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let certificate = rcgen::CertificateParams::new(vec!["h".to_owned()]).unwrap();
            let certificate = certificate.self_signed(&key).unwrap();
            assert_eq!(server_end_point(certificate.der()).map(|digest| digest.len()), size);
        }
    }
}
