//! `[service]`: what `farshore run` offers on its machine.
//!
//! What always holds: an address that others can reach is spoken to by TLS, and restores go beneath folders that the operator named.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use farshore_journal::DatabaseName;
use toml::Spanned;

use super::diagnose::ConfigProblem;
use super::{Judge, document};

/// Where health and the REST API listen unless told otherwise.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7432);
const DEFAULT_SOCKET: &str = "farshore.sock";

/// The files that TLS is spoken with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate with its chain, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
}

/// What `farshore run` offers on its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Where health and the REST API are; on loopback unless there is TLS.
    pub listen: SocketAddr,
    /// What TLS is spoken with; `None`: it is not.
    pub tls: Option<TlsFiles>,
    /// The socket `wal push` hands its files to.
    pub socket: PathBuf,
    /// The folders beneath which it may restore; none: it does no restores.
    pub restore_roots: Vec<PathBuf>,
    /// Where metrics are, on loopback, for whoever asks from this machine; `None`: they take a token only.
    pub metrics_listen: Option<SocketAddr>,
    /// Whether it deletes what no rule keeps, when that is asked for or due: its credential can.
    pub expire: bool,
}

impl ServiceConfig {
    /// The folder, beside the socket, of drills' copies, unless a configuration or a command names another.
    pub fn scratch(&self) -> PathBuf {
        let mut name = self.socket.file_stem().unwrap_or_default().to_owned();
        name.push("-drills");
        self.socket.with_file_name(name)
    }

    /// The folder of the ledgers of guards: in the folder that systemd keeps for a service, where there is one, else beside the socket.
    pub fn guard(&self) -> PathBuf {
        if let Some(state) = std::env::var_os("STATE_DIRECTORY").filter(|state| !state.is_empty()) {
            return PathBuf::from(state).join("guard");
        }
        let mut name = self.socket.file_stem().unwrap_or_default().to_owned();
        name.push("-guard");
        self.socket.with_file_name(name)
    }

    /// The folder, beside the socket, of a database's pushed files and of the lock of whoever appends to its journal here.
    pub fn room(&self, database: &DatabaseName) -> PathBuf {
        let mut name = self.socket.file_stem().unwrap_or_default().to_owned();
        name.push("-push");
        self.socket.with_file_name(name).join(database.as_str())
    }
}

impl Judge<'_> {
    pub(super) fn service(&self, service: document::Service) -> Result<ServiceConfig, ConfigProblem> {
        let tls = self.tls_files(service.tls_certificate, service.tls_key)?;
        let listen = match service.listen {
            Some(listen) if tls.is_none() && !listen.get_ref().ip().is_loopback() => {
                return Err(self
                    .problem(listen.span(), "others could reach this address, and there is no TLS")
                    .hint("write 127.0.0.1:PORT or [::1]:PORT, or give tls_certificate and tls_key"));
            }
            Some(listen) => listen.into_inner(),
            None => DEFAULT_LISTEN,
        };
        let socket = service.socket.unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
        let mut restore_roots = Vec::with_capacity(service.restore_roots.len());
        for root in service.restore_roots {
            let place = self.folder.join(root.get_ref());
            if place.parent().is_none() {
                return Err(self
                    .problem(root.span(), "restores may not go anywhere on the machine")
                    .hint("name a folder that is for restores alone"));
            }
            restore_roots.push(place);
        }
        let metrics_listen = match service.metrics_listen {
            Some(listen) if !listen.get_ref().ip().is_loopback() => {
                return Err(self
                    .problem(
                        listen.span(),
                        "others could reach this address, and metrics ask for no token here",
                    )
                    .hint("write 127.0.0.1:PORT; from elsewhere, ask /metrics at `listen` with a token"));
            }
            listen => listen.map(Spanned::into_inner),
        };
        Ok(ServiceConfig {
            listen,
            tls,
            socket: self.folder.join(socket),
            restore_roots,
            metrics_listen,
            expire: service.expire,
        })
    }

    /// The two go together.
    pub(super) fn tls_files(
        &self,
        certificate: Option<Spanned<PathBuf>>,
        key: Option<Spanned<PathBuf>>,
    ) -> Result<Option<TlsFiles>, ConfigProblem> {
        match (certificate, key) {
            (Some(certificate), Some(key)) => Ok(Some(TlsFiles {
                certificate: self.folder.join(certificate.into_inner()),
                key: self.folder.join(key.into_inner()),
            })),
            (Some(alone), None) | (None, Some(alone)) => {
                Err(self.problem(alone.span(), "`tls_certificate` and `tls_key` go together"))
            }
            (None, None) => Ok(None),
        }
    }
}
