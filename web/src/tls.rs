//! TLS for whoever is not on this machine: a certificate and its key from PEM files, read once when the service starts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM of its kind.
    #[error("read the {what} {}: {reason}", path.display())]
    File {
        /// `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key do not belong together, or are not usable.
    #[error("use the certificate {}", certificate.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// What the library said.
        #[source]
        source: rustls::Error,
    },
}

/// Reads a certificate with its chain, and its key.
///
/// # Errors
/// When a file cannot be read, or the two do not belong together.
pub fn load(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let file = |what, path: &Path, reason: String| TlsError::File { what, path: path.to_owned(), reason };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|why| file("certificate", certificate, why.to_string()))?;
    if chain.is_empty() {
        return Err(file("certificate", certificate, "it holds no certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|why| file("key", key, why.to_string()))?;
    let pair = |source| TlsError::Pair { certificate: certificate.to_owned(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
