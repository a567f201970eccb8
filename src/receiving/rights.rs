//! What a client of a receiver may do, by the names that its certificate is valid for: pure.
//!
//! What always holds: of another database than its own a client reads no object and no name of one; what it may not delete it cannot. What belongs to no one database
//! (the store's record, its probe, the record of activity, which tells of all databases) each may read and create, as in any store; creating never overwrites, and of it only the probe's objects may go.

use std::collections::{BTreeMap, BTreeSet};

use farshore_journal::store::remote::wire::{Asked, TailAsked};
use farshore_journal::store::{Key, KeyPrefix};
use farshore_journal::{DatabaseName, layout};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;

use crate::config::receive::Client;

/// Folders that belong to no one database.
const COMMON: [&str; 2] = [ACTIVITY, PROBE];
const ACTIVITY: &str = "activity";
const PROBE: &str = "probe";

/// What somebody may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// The names that gave them.
    pub names: Vec<String>,
    databases: BTreeSet<DatabaseName>,
    delete: bool,
}

/// What comes of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is answered.
    Yes,
    /// It is answered with what is below these folders, which are the client's own of a wider one.
    Within(Vec<KeyPrefix>),
    /// It is not, for this reason.
    No(String),
}

impl Rights {
    /// Those of a certificate that was verified: of every name that it is valid for, together.
    pub fn of(certificate: &CertificateDer<'_>, clients: &BTreeMap<String, Client>) -> Self {
        let mut rights = Self::default();
        let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return rights };
        for (name, client) in clients {
            let Ok(server) = ServerName::try_from(name.as_str()) else { continue };
            if rustls::client::verify_server_name(&parsed, &server).is_ok() {
                rights.names.push(name.clone());
                rights.databases.extend(client.databases.iter().cloned());
                rights.delete |= client.delete;
            }
        }
        rights
    }

    /// What comes of a question.
    pub fn judge(&self, asked: &Asked) -> Verdict {
        if self.names.is_empty() {
            return Verdict::No("no client of this receiver goes by a name of the certificate".to_owned());
        }
        match asked {
            Asked::Alive => Verdict::Yes,
            Asked::Create { key, .. } | Asked::Get { key, .. } | Asked::Size { key } => self.own(key),
            Asked::Delete { key } if self.delete => match self.databases_have(key) || is_below(key, PROBE) {
                true => Verdict::Yes,
                false => Verdict::No(format!("{} may not delete {key}", self.named())),
            },
            Asked::Delete { .. } => Verdict::No(format!("{} may not delete", self.named())),
            // Tails are no objects: what may put a database's chunks may keep its tails, and make way for its next owner's.
            Asked::Tail(asked) => match self.has_tails(asked) {
                true => Verdict::Yes,
                false => Verdict::No(format!("{} may have no tails of {}", self.named(), asked.folder())),
            },
            Asked::List { prefix, .. } => {
                let own = self.folders();
                match own.iter().any(|folder| is_in(prefix, folder)) {
                    true => Verdict::Yes,
                    false => {
                        Verdict::Within(own.into_iter().filter(|folder| is_in(folder, prefix)).collect())
                    }
                }
            }
        }
    }

    /// The folders that he may list, sorted.
    fn folders(&self) -> Vec<KeyPrefix> {
        let own = self.databases.iter().filter_map(|name| layout::database(name).ok());
        let mut all: Vec<KeyPrefix> =
            COMMON.iter().filter_map(|name| KeyPrefix::new(name).ok()).chain(own).collect();
        all.sort_by(|one, other| one.folder().cmp(&other.folder()));
        all
    }

    fn own(&self, key: &Key) -> Verdict {
        match self.has(key) {
            true => Verdict::Yes,
            false => Verdict::No(format!("{} may have no {key}", self.named())),
        }
    }

    fn has(&self, key: &Key) -> bool {
        let is_common = || COMMON.iter().any(|folder| is_below(key, folder));
        layout::store_record().is_ok_and(|record| record == *key) || is_common() || self.databases_have(key)
    }

    fn databases_have(&self, key: &Key) -> bool {
        self.databases.iter().any(|name| layout::database(name).is_ok_and(|folder| key.is_below(&folder)))
    }

    fn has_tails(&self, asked: &TailAsked) -> bool {
        let owns = |folder: &KeyPrefix| {
            self.databases
                .iter()
                .filter_map(|name| layout::database(name).ok())
                .any(|own| is_in(folder, &own))
        };
        let frees_own = match asked {
            TailAsked::Append { free, .. } => self.databases_have(free),
            _ => true,
        };
        frees_own && owns(asked.folder())
    }

    fn named(&self) -> String {
        self.names.join(", ")
    }
}

fn is_below(key: &Key, folder: &str) -> bool {
    KeyPrefix::new(folder).is_ok_and(|folder| key.is_below(&folder))
}

/// Whether a folder is another, or lies in it.
fn is_in(folder: &KeyPrefix, other: &KeyPrefix) -> bool {
    match (folder.folder(), other.folder()) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(folder), Some(other)) => {
            folder.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(databases: &[&str], delete: bool) -> Rights {
        let databases = databases.iter().map(|name| name.parse().unwrap()).collect();
        Rights { names: vec!["db1.example".to_owned()], databases, delete }
    }

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn each(of: &str) -> [Asked; 4] {
        [
            Asked::Create { key: key(of), length: 1, digest: [0; 32] },
            Asked::Get { key: key(of), range: None },
            Asked::Size { key: key(of) },
            Asked::Delete { key: key(of) },
        ]
    }

    #[test]
    fn a_client_has_its_own_databases_and_what_is_everybodys() {
        let rights = rights(&["orders"], true);
        for own in ["db/orders/in-1/journal/1", "db/orders/incarnations/in-1", "probe/x/1"] {
            for asked in each(own) {
                assert_eq!(rights.judge(&asked), Verdict::Yes, "{asked:?}");
            }
        }
        // Of what is everybody's nobody deletes anything.
        for common in ["farshore.store", "activity/x/1"] {
            let [create, get, size, delete] = each(common);
            for asked in [create, get, size] {
                assert_eq!(rights.judge(&asked), Verdict::Yes, "{asked:?}");
            }
            assert!(matches!(rights.judge(&delete), Verdict::No(_)), "{common}");
        }
        // A folder that all use is no object of anybody's: made as one, it would be in the way of all.
        for other in [
            "db/orders-2/in-1/journal/1",
            "db/order/x",
            "db/invoices/x",
            "farshore.store.1",
            "farshore.store/x",
            "x",
            "activity",
            "probe",
            "db",
            "db/orders",
        ] {
            for asked in each(other) {
                assert!(matches!(rights.judge(&asked), Verdict::No(_)), "{asked:?}");
            }
        }
    }

    #[test]
    fn whoever_may_not_delete_deletes_nothing_of_his_own_either() {
        let asked = Asked::Delete { key: key("db/orders/in-1/journal/1") };
        assert!(matches!(rights(&["orders"], false).judge(&asked), Verdict::No(_)));
        assert_eq!(rights(&["orders"], true).judge(&asked), Verdict::Yes);
    }

    #[test]
    fn a_list_shows_names_of_his_own_databases_alone() {
        let rights = rights(&["orders"], false);
        let list = |prefix: &str| {
            let prefix = if prefix.is_empty() { KeyPrefix::ROOT } else { KeyPrefix::new(prefix).unwrap() };
            rights.judge(&Asked::List { prefix, after: None, limit: Some(2) })
        };
        for own in ["db/orders", "db/orders/in-1/journal", "activity"] {
            assert_eq!(list(own), Verdict::Yes, "{own}");
        }
        let within = |prefix: &str| match list(prefix) {
            Verdict::Within(folders) => {
                folders.iter().map(|one| one.folder().unwrap_or_default().to_owned()).collect::<Vec<_>>()
            }
            other => panic!("{prefix}: {other:?}"),
        };
        assert_eq!(within(""), ["activity", "db/orders", "probe"]);
        assert_eq!(within("db"), ["db/orders"]);
        for foreign in ["db/invoices", "db/invoices/in-1", "db/orders-2", "x"] {
            assert!(within(foreign).is_empty(), "{foreign}");
        }
    }

    #[test]
    fn tails_are_those_of_his_own_databases() {
        let rights = rights(&["orders"], false);
        let folder = |text: &str| KeyPrefix::new(text).unwrap();
        let append = |of: &str, free: &str| {
            let (folder, free) = (folder(of), key(free));
            Asked::Tail(TailAsked::Append { folder, id: "1".to_owned(), order: 0, at: 0, free, length: 1 })
        };
        let own = "db/orders/in-1/0000000000000001";
        for asked in [
            Asked::Tail(TailAsked::Begin { folder: folder(own) }),
            Asked::Tail(TailAsked::Close { folder: folder(own) }),
            append(own, "db/orders/in-1/journal/1"),
        ] {
            assert_eq!(rights.judge(&asked), Verdict::Yes, "{asked:?}");
        }
        for asked in [
            Asked::Tail(TailAsked::Begin { folder: folder("db/orders-2/in-1/1") }),
            Asked::Tail(TailAsked::Read { folder: folder("db/invoices/in-1/1") }),
            Asked::Tail(TailAsked::Folders { below: folder("db") }),
            Asked::Tail(TailAsked::Remove { folder: folder("activity") }),
            append(own, "db/invoices/in-1/journal/1"),
            append("db/invoices/in-1/1", "db/orders/in-1/journal/1"),
        ] {
            assert!(matches!(rights.judge(&asked), Verdict::No(_)), "{asked:?}");
        }
    }

    #[test]
    fn whoever_goes_by_no_known_name_may_nothing() {
        for asked in each("farshore.store").into_iter().chain([Asked::Alive]) {
            assert!(matches!(Rights::default().judge(&asked), Verdict::No(_)), "{asked:?}");
        }
    }
}
