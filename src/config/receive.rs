//! `[receive]`: where other machines put their journals, and who may.
//!
//! What always holds: nobody is heard without a certificate, and each name has databases that were written down.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use farshore_journal::DatabaseName;
use rustls_pki_types::DnsName;
use toml::Spanned;

use super::address::StoreUrl;
use super::diagnose::ConfigProblem;
use super::{Judge, StoreConfig, StoreName, TlsFiles, document};

/// Where journals are received.
pub struct ReceiveConfig {
    /// Where shippers connect.
    pub listen: SocketAddr,
    /// The store that is given to them: a directory of this machine.
    pub store: StoreName,
    /// The receiver's own certificate and key.
    pub tls: TlsFiles,
    /// Certificates of those who sign clients' ones.
    pub client_ca: PathBuf,
    /// Who may connect, by a name (DNS) that his certificate is valid for.
    pub clients: BTreeMap<String, Client>,
}

/// What a receiver is spoken to with, by whoever stores there.
pub struct ReceiverFiles {
    /// Certificates of those who sign the receiver's one.
    pub ca: PathBuf,
    /// This machine's own certificate and key.
    pub own: TlsFiles,
}

/// What a name may have.
pub struct Client {
    /// Of these databases everything.
    pub databases: BTreeSet<DatabaseName>,
    /// Whether it may delete: who tidies and expires may, and no shipper needs to.
    pub delete: bool,
}

impl Judge<'_> {
    /// What a store at a receiver is spoken to with.
    pub(super) fn receiver_files(
        &self,
        url: &StoreUrl,
        span: std::ops::Range<usize>,
        ca: Option<PathBuf>,
        (certificate, key): (Option<Spanned<PathBuf>>, Option<Spanned<PathBuf>>),
    ) -> Result<Option<ReceiverFiles>, ConfigProblem> {
        let own = self.tls_files(certificate, key)?;
        match (url, ca, own) {
            (StoreUrl::Receiver(_), Some(ca), Some(own)) => {
                Ok(Some(ReceiverFiles { ca: self.folder.join(ca), own }))
            }
            (StoreUrl::Receiver(_), _, _) => Err(self
                .problem(span, "a receiver is spoken to with certificates")
                .hint("`tls_ca`, `tls_certificate` and `tls_key`: docs/receiver.md makes them")),
            (_, None, None) => Ok(None),
            _ => {
                Err(self
                    .problem(span, "`tls_ca`, `tls_certificate` and `tls_key` are for a store at a receiver"))
            }
        }
    }

    pub(super) fn receive(
        &mut self,
        written: Option<Spanned<document::Receive>>,
        stores: &BTreeMap<StoreName, StoreConfig>,
    ) -> Result<Option<ReceiveConfig>, ConfigProblem> {
        let Some(written) = written else { return Ok(None) };
        let span = written.span();
        let written = written.into_inner();
        let Some(tls) = self.tls_files(written.tls_certificate, written.tls_key)? else {
            return Err(self
                .problem(span, "a receiver needs a certificate of its own")
                .hint("`tls_certificate` and `tls_key`"));
        };
        let store = written.store.get_ref();
        match stores.get(store) {
            None => {
                return Err(self.problem(written.store.span(), format!("there is no store `{store}`")));
            }
            Some(settings) if !settings.url.is_file() => {
                return Err(self
                    .problem(written.store.span(), "what is received goes into a directory of this machine")
                    .hint("name a store whose url begins with file:"));
            }
            Some(_) => {}
        }
        if written.clients.is_empty() {
            return Err(self
                .problem(span, "nobody may connect")
                .hint("add a [receive.clients.\"NAME\"] table, with a name of the client's certificate"));
        }
        let mut clients = BTreeMap::new();
        for (name, client) in written.clients {
            let span = client.span();
            let client = client.into_inner();
            if DnsName::try_from(name.as_str()).is_err() {
                return Err(self
                    .problem(span, format!("`{name}` is no name that a certificate can be valid for"))
                    .hint("write a DNS name, as it stands among the certificate's alternative names"));
            }
            if client.databases.is_empty() {
                return Err(self.problem(span, format!("client `{name}` may have nothing")));
            }
            let databases = client.databases.into_iter().collect();
            clients.insert(name, Client { databases, delete: client.delete });
        }
        Ok(Some(ReceiveConfig {
            listen: written.listen.into_inner(),
            store: written.store.into_inner(),
            tls,
            client_ca: self.folder.join(written.client_ca),
            clients,
        }))
    }
}
