//! `[serve]`: where standbys connect that take a journal for their primary, and who may.
//!
//! What always holds: log leaves this machine by TLS only, and nobody is let in without a password.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use farshore_journal::DatabaseName;
use toml::Spanned;

use super::diagnose::ConfigProblem;
use super::secret::SecretSource;
use super::{DatabaseConfig, EngineConfig, Judge, StoreName, TlsFiles, document};

/// Where the journals are served.
pub struct ServeConfig {
    /// Where standbys connect; on loopback unless there is TLS.
    pub listen: SocketAddr,
    /// What TLS is spoken with; `None`: it is not.
    pub tls: Option<TlsFiles>,
    /// Who may connect, by the name that he connects with.
    pub users: BTreeMap<String, ServeUser>,
}

/// Who may connect, and to what.
pub struct ServeUser {
    /// His password, or a verifier of it as PostgreSQL keeps it.
    pub password: SecretSource,
    /// The journals that he may take, at least one.
    pub databases: BTreeSet<DatabaseName>,
    /// From which of their stores; `None`: each one's first.
    pub store: Option<StoreName>,
}

impl Judge<'_> {
    pub(super) fn serve(
        &mut self,
        written: Option<Spanned<document::Serve>>,
        known: &BTreeMap<DatabaseName, DatabaseConfig>,
    ) -> Result<Option<ServeConfig>, ConfigProblem> {
        let Some(written) = written else { return Ok(None) };
        let span = written.span();
        let written = written.into_inner();
        let tls = self.tls_files(written.tls_certificate, written.tls_key)?;
        if tls.is_none() && !written.listen.get_ref().ip().is_loopback() {
            return Err(self
                .problem(written.listen.span(), "others can reach this address, and there is no TLS")
                .hint("`tls_certificate` and `tls_key`, or an address as 127.0.0.1:5440"));
        }
        if written.users.is_empty() {
            return Err(self.problem(span, "nobody may connect").hint("add a [serve.users.NAME] table"));
        }
        let mut users = BTreeMap::new();
        for (name, user) in written.users {
            users.insert(name.to_string(), self.serve_user(&name, user, known)?);
        }
        Ok(Some(ServeConfig { listen: written.listen.into_inner(), tls, users }))
    }

    fn serve_user(
        &mut self,
        name: &StoreName,
        user: Spanned<document::ServeUser>,
        known: &BTreeMap<DatabaseName, DatabaseConfig>,
    ) -> Result<ServeUser, ConfigProblem> {
        let span = user.span();
        let user = user.into_inner();
        let key = format!("serve.users.{name}.password");
        let Some(password) = self.secret(&key, span.clone(), user.password_file, None)? else {
            return Err(self
                .problem(span, format!("user `{name}` has no `password_file`"))
                .hint("name a file of one line: the password, or its verifier as pg_authid has it"));
        };
        let mut databases = BTreeSet::new();
        for database in user.databases.get_ref() {
            let settings = known.get(database.get_ref()).ok_or_else(|| {
                self.problem(database.span(), format!("there is no database `{}`", database.get_ref()))
            })?;
            if !matches!(settings.engine, EngineConfig::Postgres { .. }) {
                return Err(self
                    .problem(database.span(), "standbys of SQLite read the store, and connect to nobody")
                    .hint("`farshore standby run` keeps one"));
            }
            if let Some(store) = &user.store
                && !settings.stores.contains(store.get_ref())
            {
                let what = format!("`{}` has no store `{}`", database.get_ref(), store.get_ref());
                return Err(self.problem(store.span(), what));
            }
            databases.insert(database.get_ref().clone());
        }
        if databases.is_empty() {
            return Err(self.problem(user.databases.span(), format!("user `{name}` may take nothing")));
        }
        Ok(ServeUser { password, databases, store: user.store.map(Spanned::into_inner) })
    }
}
