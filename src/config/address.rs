//! URLs of the configuration, parsed at the border: databases, stores, the catalog.
//!
//! What always holds: a URL kept here can be printed; a password found in one has been taken out of it. Error
//! texts name what is wrong and never repeat the URL.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::flush::Billing;
use crate::config::secret::Secret;

/// Why a URL is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a PostgreSQL URL.
    #[error("not a PostgreSQL URL; write postgresql://USER@HOST[:PORT][,HOST...]/DATABASE")]
    Database,
    /// A PostgreSQL URL without a user.
    #[error("the URL names no user; write postgresql://farshore@HOST/DATABASE")]
    User,
    /// A PostgreSQL URL without a host, or with an empty one in its list.
    #[error(
        "the URL names no host; write postgresql://USER@HOST/DATABASE, or %2Frun%2Fpostgresql in HOST's place for a directory of sockets"
    )]
    Host,
    /// A password among the parameters.
    #[error("a password in the URL's parameters would be logged by others; use password_file")]
    ParameterPassword,
    /// Not a store.
    #[error(
        "not a store URL; write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER"
    )]
    Store,
    /// A path that could leave its place.
    #[error("the path must hold no empty, `.` or `..` part")]
    Path,
    /// Not a catalog.
    #[error("not a catalog URL; write sqlite:FILE or postgresql://USER@HOST/DATABASE")]
    Catalog,
}

/// Where a PostgreSQL server is, without a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    text: String,
    user: String,
    hosts: Vec<String>,
    database: String,
}

impl DatabaseUrl {
    /// Takes the URL apart and its password out.
    ///
    /// # Errors
    /// When it is no PostgreSQL URL, names no user or no host, or hides a password among its parameters.
    pub fn parse(text: &str) -> Result<(Self, Option<Secret>), AddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::Database)?;
        if !matches!(scheme, "postgresql" | "postgres") || rest.chars().any(char::is_control) {
            return Err(AddressError::Database);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        let (userinfo, hosts) = authority.rsplit_once('@').ok_or(AddressError::User)?;
        let (user, password) = match userinfo.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (userinfo, None),
        };
        if user.is_empty() {
            return Err(AddressError::User);
        }
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        if query.split('&').any(|pair| pair.split('=').next() == Some("password")) {
            return Err(AddressError::ParameterPassword);
        }
        // As the client reads it, so that nothing is accepted here that cannot be connected to.
        let by_parameter =
            query.split('&').any(|pair| pair.starts_with("host=") && pair.len() > "host=".len());
        if hosts.split(',').any(str::is_empty) && !(hosts.is_empty() && by_parameter) {
            return Err(AddressError::Host);
        }
        let user_decoded = decode(user).ok_or(AddressError::Database)?;
        let database = decode(path.trim_start_matches('/')).ok_or(AddressError::Database)?;
        // PostgreSQL connects to the database of the user's name when none is given.
        let database = if database.is_empty() { user_decoded.clone() } else { database };
        let password = match password {
            Some(encoded) => Some(Secret::new(decode(encoded).ok_or(AddressError::Database)?)),
            None => None,
        };
        let hosts = hosts.split(',').filter(|h| !h.is_empty()).map(str::to_owned).collect();
        let text = format!("postgresql://{user}@{}{tail}", authority.rsplit_once('@').map_or("", |p| p.1));
        Ok((Self { text, user: user_decoded, hosts, database }, password))
    }

    /// The URL, without a password.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The role farshore connects as.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The hosts in order, each with its port if one is given; none means those of the parameters.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// The database for plain SQL.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Whether every host is this machine.
    pub fn is_local(&self) -> bool {
        self.hosts.iter().all(|host| {
            let name = host
                .strip_prefix("[::1]")
                .map_or_else(|| host.split(':').next().unwrap_or(host), |_| "localhost");
            name == "localhost"
                || name.starts_with("127.")
                || name.starts_with("%2F")
                || name.starts_with("%2f")
        })
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Percent-decoding; `None` for a broken escape, a NUL or bytes that are no text.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            u8::try_from(high * 16 + low).ok()?
        } else {
            byte
        });
    }
    (!bytes.contains(&0)).then(|| String::from_utf8(bytes).ok()).flatten()
}

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// An S3 bucket, or a server that speaks its protocol.
    S3(Bucket),
    /// A Google Cloud Storage bucket.
    Gs(Bucket),
    /// An Azure Blob container.
    Az(Bucket),
    /// A directory.
    File(PathBuf),
    /// A receiver: `host:port` of each way to it, with commas.
    Receiver(String),
}

impl StoreUrl {
    /// What puts cost there.
    pub const fn billing(&self) -> Billing {
        match self {
            Self::File(_) => Billing::Free,
            Self::Receiver(_) => Billing::Near,
            Self::S3(_) | Self::Gs(_) | Self::Az(_) => Billing::PerPut,
        }
    }
}

/// A bucket or container, with a prefix that may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// The prefix, without a slash at either end.
    pub prefix: String,
}

impl StoreUrl {
    /// Parses a store URL. A relative `file:` path starts at `folder`.
    ///
    /// # Errors
    /// When the scheme is unknown, the bucket is missing or a part of the path is empty, `.` or `..`.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("file:") {
            let path = match path.strip_prefix("//") {
                Some(absolute) if absolute.starts_with('/') => absolute,
                Some(_) => return Err(AddressError::Store), // file://host/path: another machine's file
                None => path,
            };
            let path = decode(path).filter(|p| !p.is_empty()).ok_or(AddressError::Store)?;
            return Ok(Self::File(folder.join(path)));
        }
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::Store)?;
        if scheme == "receiver" {
            // What opens it says more of an address that it cannot use.
            let plain = |c: char| c.is_ascii_alphanumeric() || ".-,:[]".contains(c);
            let ways = rest.trim_end_matches('/');
            let named =
                ways.split(',').all(|way| way.rsplit_once(':').is_some_and(|(host, _)| !host.is_empty()));
            return match ways.chars().all(plain) && named {
                true => Ok(Self::Receiver(ways.to_owned())),
                false => Err(AddressError::Store),
            };
        }
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if name.is_empty() || !name.bytes().all(plain) || prefix.chars().any(char::is_control) {
            return Err(AddressError::Store);
        }
        if !prefix.is_empty() && prefix.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(AddressError::Path);
        }
        let bucket = Bucket { name: name.to_owned(), prefix: prefix.to_owned() };
        match scheme {
            "s3" => Ok(Self::S3(bucket)),
            "gs" => Ok(Self::Gs(bucket)),
            "az" => Ok(Self::Az(bucket)),
            _ => Err(AddressError::Store),
        }
    }

    /// Whether it is a directory: puts cost nothing there.
    pub const fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, bucket) = match self {
            Self::File(path) => return write!(f, "file://{}", path.display()),
            Self::Receiver(ways) => return write!(f, "receiver://{ways}"),
            Self::S3(bucket) => ("s3", bucket),
            Self::Gs(bucket) => ("gs", bucket),
            Self::Az(bucket) => ("az", bucket),
        };
        write!(f, "{scheme}://{}", bucket.name)?;
        if bucket.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", bucket.prefix) }
    }
}

/// Where the catalog is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogUrl {
    /// An SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgres(DatabaseUrl),
}

impl CatalogUrl {
    /// Parses a catalog URL. A relative SQLite path starts at `folder`.
    ///
    /// # Errors
    /// When it is neither `sqlite:` nor a PostgreSQL URL.
    pub fn parse(text: &str, folder: &Path) -> Result<(Self, Option<Secret>), AddressError> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.contains(['?', '\0']) || path == ":memory:" {
                return Err(AddressError::Catalog); // a catalog that ends with the process is none
            }
            return Ok((Self::Sqlite(folder.join(path)), None));
        }
        match DatabaseUrl::parse(text) {
            Ok((url, password)) => Ok((Self::Postgres(url), password)),
            Err(AddressError::Database) => Err(AddressError::Catalog),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_taken_out_of_the_url() {
        let (url, password) =
            DatabaseUrl::parse("postgresql://farshore:p%40ss:w@db1:5432,db2/app?sslmode=require").unwrap();
        assert_eq!(url.as_str(), "postgresql://farshore@db1:5432,db2/app?sslmode=require");
        assert!(password.is_some_and(|p| p.expose() == "p@ss:w"));
        assert_eq!((url.user(), url.database(), url.hosts().len()), ("farshore", "app", 2));
    }

    #[test]
    fn a_url_that_is_no_database_is_refused() {
        for text in
            ["", "db1", "mysql://a@b/c", "postgresql://db1/x", "postgresql://:p@h/d", "postgresql://u@h/%zz"]
        {
            assert!(DatabaseUrl::parse(text).is_err(), "{text}");
        }
        for text in ["postgresql://u@/d", "postgresql://u@db1,,db2/d", "postgresql://u@/d?host="] {
            assert_eq!(DatabaseUrl::parse(text).map(|_| ()), Err(AddressError::Host), "{text}");
        }
        assert!(DatabaseUrl::parse("postgresql://u@/d?host=/run/postgresql").is_ok());
        assert_eq!(
            DatabaseUrl::parse("postgresql://u@h/d?password=x").map(|_| ()),
            Err(AddressError::ParameterPassword)
        );
    }

    #[test]
    fn a_store_path_cannot_leave_its_prefix() {
        let parse = |text| StoreUrl::parse(text, Path::new("/etc/farshore"));
        for text in ["s3://b/../x", "s3://b/a//b", "gs://b/./x"] {
            assert_eq!(parse(text), Err(AddressError::Path), "{text}");
        }
        for text in ["", "s3://", "s3:///x", "ftp://b/x", "file://host/x", "file:", "s3://u:p@b/x"] {
            assert_eq!(parse(text), Err(AddressError::Store), "{text}");
        }
        assert_eq!(parse("file:journal").unwrap().to_string(), "file:///etc/farshore/journal");
        assert_eq!(parse("file:///srv/x").unwrap().to_string(), "file:///srv/x");
        assert_eq!(parse("s3://bucket/a/b/").unwrap().to_string(), "s3://bucket/a/b");
    }

    #[test]
    fn a_catalog_that_would_end_with_the_process_is_refused() {
        let parse = |text| CatalogUrl::parse(text, Path::new("/etc/farshore")).map(|(url, _)| url);
        assert_eq!(parse("sqlite:farshore.db"), Ok(CatalogUrl::Sqlite("/etc/farshore/farshore.db".into())));
        for text in ["sqlite::memory:", "sqlite:", "farshore.db"] {
            assert_eq!(parse(text), Err(AddressError::Catalog), "{text}");
        }
    }
}
