//! How a store is named and reached.
//!
//! Always: option values never appear in `Debug`, errors or logs, because some are credentials; an option that nobody
//! knows is an error, because a misspelt one would silently do nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::{KeyPrefix, StoreError};

/// Most bytes `get` takes into memory, whatever the store offers. Larger objects are read by ranges.
pub const MAX_GET: u64 = 1 << 30;
/// Longest wait for a request without a body, unless options say otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Slowest useful transfer: a request with a body gets the timeout and this much time more.
const SLOWEST_BYTES_PER_SECOND: u64 = 256 * 1024;

/// The deadline of a request that moves this many bytes.
pub(super) fn deadline(timeout: Duration, bytes: u64) -> Duration {
    timeout.saturating_add(Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND))
}

/// What the caller will do with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Read and list.
    #[default]
    Read,
    /// Also create and delete. A file store is tried out and swept when opened so.
    Write,
}

/// How to reach a store: credentials and endpoint, and how long to wait.
#[derive(Clone)]
pub struct StoreOptions {
    pub(super) values: BTreeMap<String, String>,
    pub(super) access: Access,
    pub(super) make_root: bool,
    pub(super) from_environment: bool,
    pub(super) timeout: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            values: BTreeMap::new(),
            access: Access::Read,
            make_root: false,
            from_environment: true,
            timeout: TIMEOUT,
        }
    }
}

impl StoreOptions {
    /// For reading, with credentials from the environment (`AWS_*`, `AZURE_*`, `GOOGLE_*`).
    pub fn new() -> Self {
        Self::default()
    }

    /// For writing, likewise.
    pub fn for_writing() -> Self {
        Self { access: Access::Write, ..Self::default() }
    }

    /// Sets an option; it beats the environment. `endpoint`, `region`, `allow_http` and credentials such as
    /// `access_key_id` and `secret_access_key` (S3), `account_name` and `account_key` (Azure), `service_account`
    /// (Google) go by these names.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.values.insert(name.into().to_ascii_lowercase(), value.into());
        self
    }

    /// Lets opening make a missing root folder. Only for creating a store: a mount that is away must not become an
    /// empty store on another disk.
    #[must_use]
    pub fn make_root(mut self) -> Self {
        self.make_root = true;
        self
    }

    /// Takes nothing from the environment.
    #[must_use]
    pub fn without_environment(mut self) -> Self {
        self.from_environment = false;
        self
    }

    /// Sets the longest wait for a request; one that moves bytes gets more by their number.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("names", &self.values.keys().collect::<Vec<_>>())
            .field("access", &self.access)
            .field("make_root", &self.make_root)
            .field("from_environment", &self.from_environment)
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    File(PathBuf),
    S3 {
        bucket: String,
        prefix: KeyPrefix,
    },
    Azure {
        account: Option<String>,
        container: String,
        prefix: KeyPrefix,
    },
    Google {
        bucket: String,
        prefix: KeyPrefix,
    },
    /// `host:port` of each way to it.
    Receiver(Vec<String>),
}

impl Place {
    /// Reads an address.
    pub(super) fn parse(address: &str) -> Result<Self, StoreError> {
        // The address is not repeated: a secret may have been put where it does not belong.
        let refuse = |what: &str| StoreError::Settings { what: what.to_owned() };
        if let Some(addresses) = address.strip_prefix(RECEIVER) {
            return receivers(addresses).map(Self::Receiver);
        }
        let url = Url::parse(address).map_err(|e| refuse(&format!("the address is no URL: {e}")))?;
        if url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some()
            || url.port().is_some()
        {
            return Err(refuse("an address has no password, port, query or fragment; those are options"));
        }
        if url.scheme() == "file" {
            let path = url.to_file_path().ok().filter(|path| path.is_absolute());
            return path
                .map(Self::File)
                .ok_or_else(|| refuse("a file address is file:/// and an absolute path on this host"));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        if host.is_empty() {
            return Err(refuse("the address names no bucket"));
        }
        let prefix = KeyPrefix::new(url.path().trim_start_matches('/'))?;
        let azure = matches!(url.scheme(), "az" | "azure" | "abfs" | "abfss");
        if !url.username().is_empty() {
            // container@account.dfs.core.windows.net
            let account = host.split('.').next().filter(|_| azure && host.contains('.'));
            let account =
                account.ok_or_else(|| refuse("an address has no user name; credentials are options"))?;
            let (account, container) = (Some(account.to_owned()), url.username().to_owned());
            return Ok(Self::Azure { account, container, prefix });
        }
        match url.scheme() {
            "s3" | "s3a" => Ok(Self::S3 { bucket: host, prefix }),
            "gs" => Ok(Self::Google { bucket: host, prefix }),
            _ if azure => Ok(Self::Azure { account: None, container: host, prefix }),
            other => Err(refuse(&format!("no store goes by {other:?}; use file, s3, az, gs or receiver"))),
        }
    }
}

/// The scheme of receivers.
const RECEIVER: &str = "receiver://";
/// Ways to one receiver.
const MOST_WAYS: usize = 8;

/// `host:port`, or several of them with commas; an IPv6 address stands in brackets.
fn receivers(text: &str) -> Result<Vec<String>, StoreError> {
    let wrong = || StoreError::Settings {
        what: "a receiver is receiver://host:port, with more of host:port behind commas".to_owned(),
    };
    let one = |address: &str| -> Result<String, StoreError> {
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(plain),
        };
        (is_host && port != 0).then(|| address.to_owned()).ok_or_else(wrong)
    };
    let all: Vec<String> = text.trim_end_matches('/').split(',').map(one).collect::<Result<_, _>>()?;
    if all.len() > MOST_WAYS { Err(wrong()) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_is_named_by_each_way_to_it() {
        let ways = |text: &str| match Place::parse(text) {
            Ok(Place::Receiver(ways)) => Some(ways.join(" ")),
            Ok(other) => panic!("{other:?}"),
            Err(_) => None,
        };
        for (text, read) in [
            ("receiver://oslo.example:5450", Some("oslo.example:5450")),
            ("receiver://10.0.0.2:5450,[fd00::2]:5450/", Some("10.0.0.2:5450 [fd00::2]:5450")),
            ("receiver://oslo.example", None),
            ("receiver://oslo.example:0", None),
            ("receiver://:5450", None),
            ("receiver://a:1,,b:2", None),
            ("receiver://user@a:1", None),
            ("receiver://a:1/folder", None),
            ("receiver://fd00::2:5450", None),
        ] {
            assert_eq!(ways(text).as_deref(), read, "{text}");
        }
    }

    #[test]
    fn each_scheme_names_its_store() {
        let prefix = |text| KeyPrefix::new(text).unwrap();
        for (address, place) in [
            ("file:///var/lib/far%20shore", Place::File("/var/lib/far shore".into())),
            ("s3://b.ucket/a/b/", Place::S3 { bucket: "b.ucket".into(), prefix: prefix("a/b") }),
            ("s3://bucket", Place::S3 { bucket: "bucket".into(), prefix: KeyPrefix::ROOT }),
            ("gs://bucket/x", Place::Google { bucket: "bucket".into(), prefix: prefix("x") }),
            ("az://cont/x", Place::Azure { account: None, container: "cont".into(), prefix: prefix("x") }),
            ("abfs://cont/x", Place::Azure { account: None, container: "cont".into(), prefix: prefix("x") }),
            (
                "abfss://cont@acc.dfs.core.windows.net/x",
                Place::Azure { account: Some("acc".into()), container: "cont".into(), prefix: prefix("x") },
            ),
        ] {
            assert_eq!(Place::parse(address).unwrap(), place, "{address}");
        }
    }

    #[test]
    fn an_address_with_a_secret_or_a_climb_is_refused_and_not_repeated() {
        for address in [
            "s3://key:hunter2@bucket/",
            "s3://hunter2@bucket/",
            "az://cont/x?sig=hunter2",
            "s3://bucket/hunter2%2f..",
            "ftp://hunter2/",
            "file://hunter2/x",
            "s3://",
            "hunter2",
        ] {
            let error = Place::parse(address).unwrap_err();
            if !address.contains("%2f") {
                assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
            }
        }
    }

    #[test]
    fn options_do_not_show_their_values() {
        let options = StoreOptions::new().with("SECRET_ACCESS_KEY", "hunter2");
        let shown = format!("{options:?}");
        assert!(shown.contains("secret_access_key") && !shown.contains("hunter2"), "{shown}");
    }
}
