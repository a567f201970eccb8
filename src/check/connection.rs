//! What `check` says about the connections: every host, for SQL and for replication, in the server's own words.
//!
//! What always holds: servers speak in their operators' language, so only SQLSTATEs decide what mends a refusal; the
//! server's text is shown, never judged.

use farshore_engines::postgres::wire::Error;

use crate::check::Finding;
use crate::check::facts::{CheckFacts, HostFacts};

/// Why a connection was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind, as far as it decides what to do.
    pub cause: Cause,
    /// The words of the server, the system or the protocol.
    pub said: String,
}

/// What kind of refusal it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// No connection, or no answer.
    Network,
    /// TLS: not offered, or not trusted.
    Tls,
    /// The password is wrong, missing, or proved in a way we do not use.
    Password,
    /// No line of `pg_hba.conf` lets us in, or there is no such role that may log in.
    NotLetIn,
    /// The role lacks a right.
    Right,
    /// There is no such database.
    Database,
    /// No connection is free.
    Full,
    /// It starts up, shuts down, or takes no sessions as a standby.
    NotReady,
    /// A major version we do not know; its number where one could be read.
    Version(Option<u32>),
    /// Anything else.
    Other,
}

impl Refusal {
    /// What a failed connection means.
    ///
    /// Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    pub fn of(error: &Error) -> Self {
        let cause = match error {
            Error::Connect { .. }
            | Error::NoAnswer { .. }
            | Error::Closed { .. }
            | Error::Transfer { .. }
            | Error::ServerStopped => Cause::Network,
            Error::TlsMissing { .. } | Error::TlsHandshake { .. } => Cause::Tls,
            Error::Authenticate { .. } => Cause::Password,
            Error::UnsupportedVersion { found, .. } => Cause::Version(
                found.split(|letter: char| !letter.is_ascii_digit()).next().and_then(|n| n.parse().ok()),
            ),
            _ => match error.code() {
                Some("28P01") => Cause::Password,
                Some("28000") => Cause::NotLetIn,
                Some("42501") => Cause::Right,
                Some("3D000") => Cause::Database,
                Some("53300") => Cause::Full,
                Some("57P01" | "57P02" | "57P03") => Cause::NotReady,
                _ => Cause::Other,
            },
        };
        let mut said = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            said.push_str(": ");
            said.push_str(&inner.to_string());
            source = inner.source();
        }
        Self { cause, said }
    }

    fn mend_sql(&self, host: &str, user: &str, database: &str) -> String {
        match &self.cause {
            Cause::NotLetIn => format!(
                "create the role {user} if it is missing, as `farshore init` prints it; add a line for it and database \
                 {database} to pg_hba.conf on {host}, above any that fits before; then select pg_reload_conf()"
            ),
            Cause::Right => format!("grant connect on database {database} to {user}"),
            Cause::Full => "free a connection, or raise max_connections and restart the server".to_owned(),
            _ => self.mend(host, user, database),
        }
    }

    fn mend_replication(&self, host: &str, user: &str, database: &str) -> String {
        match &self.cause {
            Cause::NotLetIn => format!(
                "add a line with the database `replication` for {user} to pg_hba.conf on {host}, above any that fits \
                 before, `all` does not cover it; then select pg_reload_conf()"
            ),
            Cause::Right => format!("alter role {user} replication"),
            Cause::Full => {
                "alter system set max_wal_senders = 10; then restart the server; or end senders that are not needed"
                    .to_owned()
            }
            _ => self.mend(host, user, database),
        }
    }

    fn mend(&self, host: &str, user: &str, database: &str) -> String {
        match &self.cause {
            Cause::Network => {
                format!(
                    "check that PostgreSQL listens on {host} (listen_addresses, port) and that no firewall is between"
                )
            }
            Cause::Tls => "set up TLS on the server, or change sslmode and sslrootcert in url".to_owned(),
            Cause::Password => {
                format!(
                    "set it with psql's \\password {user}, and put it into the file that password_file names"
                )
            }
            Cause::Database => format!("create database {database}, or name another one in url"),
            Cause::NotReady => {
                "wait until the server takes connections; on a standby set hot_standby = on".to_owned()
            }
            Cause::Version(_) => "ship from PostgreSQL 14 to 18, or look for a newer farshore".to_owned(),
            Cause::NotLetIn | Cause::Right | Cause::Full | Cause::Other => {
                format!("mend what {host} says; its own log says more")
            }
        }
    }
}

/// The connections to every host, and whether they are one cluster.
pub(super) fn judge(facts: &CheckFacts, findings: &mut Vec<Finding>) {
    if let Some(not_asked) = &facts.not_asked {
        findings.push(Finding::problem("connection.sql", &not_asked.why, &not_asked.mend));
    } else if facts.hosts.is_empty() {
        findings.push(Finding::unknown("connection.sql", "whether any host lets farshore in"));
    }
    if facts.hosts.is_empty() {
        findings
            .push(Finding::unknown("connection.replication", "whether replication connections are accepted"));
        findings.push(Finding::unknown("connection.encrypted", "whether the connection is encrypted"));
    }
    for host in &facts.hosts {
        judge_host(host, &facts.wanted.user, &facts.wanted.sql_database, findings);
    }
    if facts.hosts.len() > 1 {
        findings.push(judge_cluster(&facts.hosts));
    }
}

fn judge_host(host: &HostFacts, user: &str, database: &str, findings: &mut Vec<Finding>) {
    let name = &host.name;
    findings.push(match &host.sql {
        None => Finding::unknown("connection.sql", format!("whether {name} lets {user} in")),
        Some(Ok(())) => Finding::ok("connection.sql", format!("{name} lets {user} into database {database}")),
        Some(Err(why)) => Finding::problem(
            "connection.sql",
            format!("no session on {name}: {}", why.said),
            why.mend_sql(name, user, database),
        ),
    });
    findings.push(match &host.replication {
        None => Finding::unknown(
            "connection.replication",
            format!("whether {name} accepts replication connections"),
        ),
        Some(Ok(())) => Finding::ok(
            "connection.replication",
            format!("{name} accepts a replication connection of {user}"),
        ),
        Some(Err(why)) => Finding::problem(
            "connection.replication",
            format!("no replication connection to {name}: {}", why.said),
            why.mend_replication(name, user, database),
        ),
    });
    findings.push(match host.encrypted {
        None => {
            Finding::unknown("connection.encrypted", format!("whether the connection to {name} is encrypted"))
        }
        Some(true) => {
            Finding::ok("connection.encrypted", format!("the connection to {name} is encrypted, or local"))
        }
        Some(false) => Finding::warning(
            "connection.encrypted",
            format!("the connection to {name} is not encrypted: every row crosses the network in the clear"),
            "use hostssl lines in pg_hba.conf and sslmode=require in url",
        ),
    });
}

/// Hosts of one URL must be one cluster: after a failover the journal goes on from another of them.
fn judge_cluster(hosts: &[HostFacts]) -> Finding {
    let code = "connection.cluster";
    let known: Option<Vec<u64>> = hosts.iter().map(|host| host.cluster).collect();
    let primaries: Vec<&str> =
        hosts.iter().filter(|host| host.in_recovery == Some(false)).map(|host| host.name.as_str()).collect();
    let differ = |known: &[u64]| known.windows(2).any(|pair| pair[0] != pair[1]);
    let at_hand: Vec<u64> = hosts.iter().filter_map(|host| host.cluster).collect();
    if differ(&at_hand) {
        let list = hosts.iter().map(|host| match host.cluster {
            Some(cluster) => format!("{} is {cluster}", host.name),
            None => format!("{} is not known", host.name),
        });
        let list = list.collect::<Vec<_>>().join(", ");
        return Finding::problem(
            code,
            format!("the hosts of url are different clusters: {list}"),
            "name the hosts of one cluster in url, and each cluster as a database of its own",
        );
    }
    if primaries.len() > 1 {
        return Finding::problem(
            code,
            format!("several hosts take writes: {}; their histories have parted", primaries.join(", ")),
            "decide which one is the primary, stop the others, and take them out of url or rebuild them as standbys",
        );
    }
    match known {
        Some(_) => Finding::ok(code, "all hosts are one cluster"),
        None => Finding::unknown(code, "whether all hosts are one cluster"),
    }
}
