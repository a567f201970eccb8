//! Where a database is and how we may reach it: a connection URL, parsed once.
//!
//! `postgresql://user[:password]@host[:port][,host:port]/database?name=value&...`, as libpq reads it, with
//! these differences, each on the safe side:
//! - A parameter that is not listed here is refused, so that a misspelt `sslmode` never weakens a connection.
//! - A user and at least one host are demanded. A host that begins with `/` is a directory of sockets; write
//!   `host=/run/postgresql` as a parameter, or `%2Frun%2Fpostgresql` in the host's place.
//! - The database is `postgres` when none is named (libpq takes the user's name).
//! - `sslmode` when none is given: `verify-full` if `sslrootcert` is given, `prefer` for loopback addresses,
//!   `require` for all others (libpq: `prefer` for all). Sockets never use TLS, as in libpq.
//! - `prefer` takes TLS when the server offers it and does not fall back when the handshake then fails.
//! - `require` with an `sslrootcert` checks the certificate as `verify-ca` does, as in libpq.
//! - `verify-full` without `sslrootcert`, or with `sslrootcert=system`, trusts the public authorities built in.
//!
//! Source: <https://www.postgresql.org/docs/current/libpq-connect.html>,
//! <https://www.postgresql.org/docs/current/libpq-ssl.html>.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::error::Error;
use super::passfile;

const DEFAULT_PORT: u16 = 5432;
/// More hosts than this in one URL is a mistake.
const MAX_HOSTS: usize = 16;

/// A password. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// The password of this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}

/// A machine's name or address, or a directory of sockets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPlace {
    /// A name or an address.
    Tcp(String),
    /// A directory that holds the server's socket.
    Unix(PathBuf),
}

/// One server of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    /// Where it is.
    pub place: HostPlace,
    /// Its port; names the socket's file too.
    pub port: u16,
}

impl Host {
    fn new(name: &str, port: u16) -> Result<Self, Error> {
        if name.is_empty() {
            return Err(bad("a host is empty; name a machine or a directory of sockets"));
        }
        let place = match name.strip_prefix('/') {
            Some(_) => HostPlace::Unix(PathBuf::from(name)),
            None => HostPlace::Tcp(name.to_owned()),
        };
        Ok(Self { place, port })
    }

    /// Whether traffic to it stays on this machine.
    pub fn is_local(&self) -> bool {
        match &self.place {
            HostPlace::Unix(_) => true,
            HostPlace::Tcp(name) => {
                name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            HostPlace::Tcp(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            HostPlace::Tcp(name) => write!(f, "{name}:{}", self.port),
            HostPlace::Unix(folder) => write!(f, "{}:{}", folder.display(), self.port),
        }
    }
}

/// How much a connection is protected. The order is from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS when the server offers it; its certificate is not checked.
    Prefer,
    /// TLS or nothing; its certificate is not checked unless `sslrootcert` is given.
    Require,
    /// The certificate comes from an authority we trust; its name is not checked.
    VerifyCa,
    /// The certificate comes from an authority we trust and names the host.
    VerifyFull,
}

impl SslMode {
    /// Its name in a URL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// Whether the password's proof must be bound to the TLS connection, which defeats a relay without any
/// certificate authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// When server and certificate allow it.
    Prefer,
    /// Always, or the connection is refused.
    Require,
}

/// Which authorities vouch for a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RootCert {
    /// The public authorities built in.
    Public,
    /// A PEM file of certificates.
    File(PathBuf),
}

/// How long we wait for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first packet to a session ready for commands, for one host.
    pub connect: Duration,
    /// From a command to its whole answer.
    pub answer: Duration,
    /// Longest silence of a server that streams. At half of it we ask for a sign of life.
    pub server_silence: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            // PostgreSQL's own wal_sender_timeout is 60 s: both ends give up a dead connection alike.
            server_silence: Duration::from_secs(60),
        }
    }
}

/// A parsed connection URL.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectParams {
    hosts: Vec<Host>,
    user: String,
    database: String,
    application_name: String,
    password: Option<Password>,
    passfile: Option<Password>,
    passfile_path: Option<PathBuf>,
    ssl_mode: Option<SslMode>,
    root_cert: Option<RootCert>,
    client_cert: Option<(PathBuf, PathBuf)>,
    channel_binding: ChannelBinding,
    timeouts: Timeouts,
    settings: Vec<(&'static str, String)>,
}

impl ConnectParams {
    /// Of one server whose place is known by itself, as nobody's URL names it.
    pub fn of(host: Host, user: &str, database: &str) -> Self {
        Self {
            hosts: vec![host],
            user: user.to_owned(),
            database: database.to_owned(),
            application_name: "farshore".to_owned(),
            password: None,
            passfile: None,
            passfile_path: None,
            ssl_mode: None,
            root_cert: None,
            client_cert: None,
            channel_binding: ChannelBinding::Prefer,
            timeouts: Timeouts::default(),
            settings: Vec::new(),
        }
    }

    /// Of what PostgreSQL's own programs take as a connection string, a URL or `name=value` pairs, protected as they protect it where nothing is said. What it leaves to
    /// the environment is not looked for: it names host and user.
    ///
    /// Source: <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>.
    ///
    /// # Errors
    /// When it does not read, or says something that is not known here.
    pub fn of_conninfo(text: &str) -> Result<Self, Error> {
        let is_url = text.starts_with("postgresql://") || text.starts_with("postgres://");
        let mut params: Self = match is_url {
            true => text.parse()?,
            false => {
                let mut draft = Draft::default();
                for (name, value) in pairs(text)? {
                    draft.set(&name, value)?;
                }
                draft.finish("")?
            }
        };
        if params.database.is_empty() {
            params.database.clone_from(&params.user);
        }
        // Its programs take such a name for a connection string of its own.
        if params.database.contains('=') || params.database.contains("://") {
            return Err(bad("dbname= is a connection string; write what it says beside it"));
        }
        if params.root_cert.is_none() {
            params.ssl_mode.get_or_insert(SslMode::Prefer);
        }
        Ok(params)
    }

    /// Its servers in the order given.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The role we log in as.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database that SQL connections use.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// What we call ourselves in `pg_stat_activity` and in `synchronous_standby_names`.
    pub fn application_name(&self) -> &str {
        &self.application_name
    }

    /// How long we wait.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Whether the password's proof must be bound to the connection.
    pub fn channel_binding(&self) -> ChannelBinding {
        self.channel_binding
    }

    /// The password file that the URL names with `passfile=`, for the caller to read.
    pub fn passfile_path(&self) -> Option<&Path> {
        self.passfile_path.as_deref()
    }

    /// Whether a password is stated beside where they are.
    pub fn names_password(&self) -> bool {
        self.password.is_some()
    }

    /// The same with this password in place of any other: from a password file or the environment.
    pub fn with_password(mut self, password: Password) -> Self {
        self.password = Some(password);
        self
    }

    /// The same servers' database of this name.
    #[must_use]
    pub fn with_database(mut self, database: impl Into<String>) -> Self {
        self.database = database.into();
        self
    }

    /// The same with the content of a `.pgpass` file, used where no other password is given.
    pub fn with_passfile(mut self, content: impl Into<String>) -> Self {
        self.passfile = Some(Password::new(content));
        self
    }

    /// The same with this name in `pg_stat_activity`.
    pub fn with_application_name(mut self, name: impl Into<String>) -> Self {
        self.application_name = name.into();
        self
    }

    /// The same with this setting in SQL sessions from their first moment on; its value has no space in it.
    pub fn with_setting(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.settings.push((name, value.into()));
        self
    }

    /// What SQL sessions begin with.
    pub fn settings(&self) -> &[(&'static str, String)] {
        &self.settings
    }

    /// The same with other deadlines.
    pub fn with_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// How a connection to this host is protected. Sockets never use TLS.
    pub fn ssl_mode(&self, host: &Host) -> SslMode {
        match (&host.place, self.ssl_mode, &self.root_cert) {
            (HostPlace::Unix(_), _, _) => SslMode::Disable,
            (HostPlace::Tcp(_), Some(SslMode::Require), Some(_)) => SslMode::VerifyCa,
            (HostPlace::Tcp(_), Some(mode), _) => mode,
            (HostPlace::Tcp(_), None, Some(_)) => SslMode::VerifyFull,
            (HostPlace::Tcp(_), None, None) if host.is_local() => SslMode::Prefer,
            (HostPlace::Tcp(_), None, None) => SslMode::Require,
        }
    }

    pub(crate) fn root_cert(&self) -> Option<&RootCert> {
        self.root_cert.as_ref()
    }

    pub(crate) fn client_cert(&self) -> Option<(&Path, &Path)> {
        self.client_cert.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()))
    }

    pub(crate) fn password(&self, host: &Host) -> Option<Password> {
        self.password.clone().or_else(|| {
            let content = self.passfile.as_ref()?;
            passfile::lookup(&content.0, host, "replication", &self.user)
                .or_else(|| passfile::lookup(&content.0, host, &self.database, &self.user))
                .map(Password)
        })
    }
}

impl fmt::Debug for ConnectParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectParams")
            .field("hosts", &self.hosts)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("application_name", &self.application_name)
            .field("ssl_mode", &self.ssl_mode)
            .field("root_cert", &self.root_cert)
            .field("channel_binding", &self.channel_binding)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}

/// What the query part and the rest of a URL say, before they are put together.
#[derive(Default)]
struct Draft {
    hosts: Option<String>,
    ports: Option<String>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    application_name: Option<String>,
    ssl_mode: Option<SslMode>,
    root_cert: Option<RootCert>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    passfile: Option<PathBuf>,
    channel_binding: Option<ChannelBinding>,
    connect_timeout: Option<Duration>,
}

impl FromStr for ConnectParams {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self, Error> {
        let rest = ["postgresql://", "postgres://"]
            .iter()
            .find_map(|scheme| url.strip_prefix(scheme))
            .ok_or_else(|| bad("it must begin with postgresql://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, places) = match authority.rsplit_once('@') {
            Some((login, places)) => (Some(login), places),
            None => (None, authority),
        };

        let mut draft = Draft::default();
        if let Some(login) = login {
            let (user, password) = match login.split_once(':') {
                Some((user, password)) => (user, Some(decode(password)?)),
                None => (login, None),
            };
            draft.user = Some(decode(user)?).filter(|user| !user.is_empty());
            draft.password = password;
        }
        draft.database = Some(decode(path)?).filter(|name| !name.is_empty());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| bad("a parameter has no value; write name=value"))?;
            draft.set(&decode(name)?, decode(value)?)?;
        }
        draft.finish(places)
    }
}

impl Draft {
    fn set(&mut self, name: &str, value: String) -> Result<(), Error> {
        match name {
            "host" => self.hosts = Some(value),
            "port" => self.ports = Some(value),
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            "dbname" => self.database = Some(value),
            "application_name" => self.application_name = Some(value),
            "sslmode" => self.ssl_mode = Some(ssl_mode(&value)?),
            "sslrootcert" if value == "system" => self.root_cert = Some(RootCert::Public),
            "sslrootcert" => self.root_cert = Some(RootCert::File(value.into())),
            "sslcert" => self.cert = Some(value.into()),
            "sslkey" => self.key = Some(value.into()),
            "passfile" => self.passfile = Some(value.into()),
            "channel_binding" => self.channel_binding = Some(channel_binding(&value)?),
            "connect_timeout" => {
                let seconds = value.parse::<u32>().ok().filter(|seconds| *seconds > 0);
                let seconds =
                    seconds.ok_or_else(|| bad("connect_timeout is not a number of seconds above 0"))?;
                self.connect_timeout = Some(Duration::from_secs(seconds.into()));
            }
            _ => {
                return Err(bad(format!(
                    "parameter `{}` is not known; known are host, port, user, password, dbname, \
                     application_name, sslmode, sslrootcert, sslcert, sslkey, passfile, channel_binding, \
                     connect_timeout",
                    name.chars().take(40).collect::<String>()
                )));
            }
        }
        Ok(())
    }

    fn finish(self, places: &str) -> Result<ConnectParams, Error> {
        let hosts = match &self.hosts {
            Some(_) if !places.is_empty() => {
                return Err(bad("hosts are named twice, before the path and as host="));
            }
            Some(list) => hosts_of_lists(list, self.ports.as_deref())?,
            None if places.is_empty() => return Err(bad("it names no host")),
            None if self.ports.is_some() => {
                return Err(bad("port= goes with host=; write host:port otherwise"));
            }
            None => places.split(',').map(host_of_authority).collect::<Result<_, _>>()?,
        };
        if hosts.len() > MAX_HOSTS {
            return Err(bad(format!("it names more than {MAX_HOSTS} hosts")));
        }
        let user = self.user.ok_or_else(|| bad("it names no user; write postgresql://USER@host/database"))?;
        let client_cert = match (self.cert, self.key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(bad("sslcert and sslkey go together")),
        };
        let public = self.root_cert.as_ref().is_none_or(|root| *root == RootCert::Public);
        if self.ssl_mode == Some(SslMode::VerifyCa) && public {
            // Anyone can buy a certificate of a public authority: without the name it proves nothing.
            return Err(bad(
                "sslmode=verify-ca needs sslrootcert=FILE; with public authorities use verify-full",
            ));
        }
        if self.root_cert == Some(RootCert::Public)
            && self.ssl_mode.is_some_and(|mode| mode != SslMode::VerifyFull)
        {
            return Err(bad("sslrootcert=system needs sslmode=verify-full"));
        }
        let mut timeouts = Timeouts::default();
        if let Some(connect) = self.connect_timeout {
            timeouts.connect = connect;
        }
        Ok(ConnectParams {
            hosts,
            user,
            database: self.database.unwrap_or_else(|| "postgres".to_owned()),
            application_name: self.application_name.unwrap_or_else(|| "farshore".to_owned()),
            password: self.password.map(Password),
            passfile: None,
            passfile_path: self.passfile,
            ssl_mode: self.ssl_mode,
            root_cert: self.root_cert,
            client_cert,
            channel_binding: self.channel_binding.unwrap_or(ChannelBinding::Prefer),
            timeouts,
            settings: Vec::new(),
        })
    }
}

fn bad(problem: impl Into<String>) -> Error {
    Error::ReadUrl { problem: problem.into() }
}

fn ssl_mode(text: &str) -> Result<SslMode, Error> {
    [SslMode::Disable, SslMode::Prefer, SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull]
        .into_iter()
        .find(|mode| mode.name() == text)
        .ok_or_else(|| bad("sslmode is one of disable, prefer, require, verify-ca, verify-full"))
}

fn channel_binding(text: &str) -> Result<ChannelBinding, Error> {
    match text {
        "disable" => Ok(ChannelBinding::Disable),
        "prefer" => Ok(ChannelBinding::Prefer),
        "require" => Ok(ChannelBinding::Require),
        _ => Err(bad("channel_binding is one of disable, prefer, require")),
    }
}

fn port(text: &str) -> Result<u16, Error> {
    if text.is_empty() {
        return Ok(DEFAULT_PORT);
    }
    text.parse::<u16>()
        .ok()
        .filter(|port| *port > 0 && text.bytes().all(|b| b.is_ascii_digit()))
        .ok_or_else(|| bad("a port is not a number from 1 to 65535"))
}

fn host_of_authority(text: &str) -> Result<Host, Error> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or_else(|| bad("a `[` has no `]`"))?;
        let number = match rest.strip_prefix(':') {
            Some(number) => number,
            None if rest.is_empty() => "",
            None => return Err(bad("something stands between `]` and the port")),
        };
        return Host::new(address, port(number)?);
    }
    let (name, number) = text.split_once(':').unwrap_or((text, ""));
    Host::new(&decode(name)?, port(number)?)
}

fn hosts_of_lists(hosts: &str, ports: Option<&str>) -> Result<Vec<Host>, Error> {
    let hosts: Vec<&str> = hosts.split(',').collect();
    let ports: Vec<&str> = ports.unwrap_or("").split(',').collect();
    if ports.len() != 1 && ports.len() != hosts.len() {
        return Err(bad("port= has neither one port nor one for each host"));
    }
    let one = |(at, name): (usize, &&str)| Host::new(name, port(ports.get(at).unwrap_or(&ports[0]))?);
    hosts.iter().enumerate().map(one).collect()
}

/// The pairs of a connection string that is no URL. Source: `conninfo_parse` in `fe-connect.c`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, Error> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, behind) =
            rest.split_once('=').ok_or_else(|| bad("a parameter has no value; write name=value"))?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(bad("a parameter has no value; write name=value"));
        }
        let behind = behind.trim_start();
        let (is_quoted, behind) = match behind.strip_prefix('\'') {
            Some(behind) => (true, behind),
            None => (false, behind),
        };
        let (mut value, mut letters, mut is_closed) = (String::new(), behind.char_indices(), !is_quoted);
        rest = "";
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
                '\'' if is_quoted => {
                    (rest, is_closed) = (&behind[at + 1..], true);
                    break;
                }
                _ if !is_quoted && letter.is_whitespace() => {
                    rest = &behind[at..];
                    break;
                }
                _ => value.push(letter),
            }
        }
        if !is_closed {
            return Err(bad("a quoted value has no end"));
        }
        rest = rest.trim_start();
        found.push((name.to_owned(), value));
    }
    Ok(found)
}

fn decode(text: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        match (digit(), digit()) {
            // Two hexadecimal digits fit a byte.
            (Some(high), Some(low)) if high + low > 0 => bytes.push((high * 16 + low) as u8),
            _ => return Err(bad("a `%` is not followed by two hexadecimal digits other than 00")),
        }
    }
    if bytes.contains(&0) {
        return Err(bad("it holds a NUL"));
    }
    String::from_utf8(bytes).map_err(|_| bad("it is not UTF-8 once decoded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_reads_as_postgresqls_own_programs_read_it() {
        let text = r"host = new port=5433 user='o\'neil  x' password=a\ b dbname=''";
        let params = ConnectParams::of_conninfo(text).unwrap();
        assert_eq!((params.user(), params.hosts().len()), ("o'neil  x", 1));
        assert_eq!(params.hosts()[0].to_string(), Host::new("new", 5433).unwrap().to_string());
        assert_eq!(params.password(&params.hosts()[0]).unwrap().0, "a b");
        assert_eq!(params.ssl_mode(&params.hosts()[0]), SslMode::Prefer);
        let url = ConnectParams::of_conninfo("postgres://u@h/d?sslmode=require").unwrap();
        assert_eq!((url.ssl_mode(&url.hosts()[0]), url.database()), (SslMode::Require, "d"));
        for wrong in [
            "host=h user='u",
            "host=h user",
            "user=u",
            "host=h",
            "host=h user=u hostaddr=127.0.0.1",
            "host=h user=u dbname='host=other'",
            "=h user=u",
        ] {
            assert!(ConnectParams::of_conninfo(wrong).is_err(), "{wrong}");
        }
    }

    fn parse(url: &str) -> Result<ConnectParams, Error> {
        url.parse()
    }

    #[test]
    fn every_part_of_a_url_is_read() {
        let params = parse(
            "postgresql://fs%40x:p%3Aw@db1:5433,db2,[::1]:6/orders?sslmode=verify-full&sslrootcert=/ca.pem\
             &application_name=fs&connect_timeout=3&channel_binding=require",
        )
        .unwrap();
        let shown: Vec<String> = params.hosts().iter().map(Host::to_string).collect();
        assert_eq!(shown, ["db1:5433", "db2:5432", "[::1]:6"]);
        assert_eq!((params.user(), params.database(), params.application_name()), ("fs@x", "orders", "fs"));
        assert_eq!(params.password(&params.hosts()[0]), Some(Password::new("p:w")));
        assert_eq!(params.timeouts().connect, Duration::from_secs(3));
        assert_eq!(params.ssl_mode(&params.hosts()[0]), SslMode::VerifyFull);
    }

    #[test]
    fn a_socket_directory_is_read_in_both_places() {
        for url in ["postgresql://u@%2Frun%2Fpg:7/d", "postgresql://u@/d?host=/run/pg&port=7"] {
            let params = parse(url).unwrap();
            assert_eq!(params.hosts(), [Host { place: HostPlace::Unix("/run/pg".into()), port: 7 }]);
            assert_eq!(params.ssl_mode(&params.hosts()[0]), SslMode::Disable);
        }
    }

    #[test]
    fn protection_is_never_weaker_than_asked_for() {
        let mode = |url: &str| {
            let params = parse(url).unwrap();
            params.ssl_mode(&params.hosts()[0])
        };
        assert_eq!(mode("postgresql://u@127.0.0.1/d"), SslMode::Prefer);
        assert_eq!(mode("postgresql://u@localhost/d"), SslMode::Prefer);
        assert_eq!(mode("postgresql://u@db1/d"), SslMode::Require);
        assert_eq!(mode("postgresql://u@db1/d?sslrootcert=/ca"), SslMode::VerifyFull);
        assert_eq!(mode("postgresql://u@db1/d?sslrootcert=/ca&sslmode=require"), SslMode::VerifyCa);
        assert_eq!(mode("postgresql://u@db1/d?sslmode=disable"), SslMode::Disable);
    }

    #[test]
    fn a_url_that_could_be_misread_is_refused() {
        for url in [
            "http://u@h/d",
            "postgresql://h/d",
            "postgresql://u@/d",
            "postgresql://u@h/d?sslmod=require",
            "postgresql://u@h/d?sslmode=allow",
            "postgresql://u@h/d?sslmode=verify-ca",
            "postgresql://u@h/d?sslmode=require&sslrootcert=system",
            "postgresql://u@h/d?sslcert=/c",
            "postgresql://u@h:0/d",
            "postgresql://u@h:+5/d",
            "postgresql://u@h:99999/d",
            "postgresql://u@h/d?host=h2",
            "postgresql://u@h/d?sslmode",
            "postgresql://u@[::1/d",
            "postgresql://u@h%0/d",
            "postgresql://u@h%00/d",
            "postgresql://u@h,/d",
            "postgresql://u@/d?host=a,b,c&port=1,2",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let params = parse("postgresql://u:geheim@h/d").unwrap().with_passfile("h:*:*:u:geheim");
        assert!(!format!("{params:?}").contains("geheim"));
        let refused = parse("postgresql://u:geheim@h/d?x=1").unwrap_err();
        assert!(!format!("{refused} {refused:?}").contains("geheim"));
    }
}
