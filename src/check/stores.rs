//! What `check` says about a store and the keys of what is in it.

use std::path::Path;

use crate::check::Finding;
use crate::check::facts::{IdentityFacts, JournalFacts, KeyFacts, NewestKey, StoreFacts, StoreFound};
use crate::config::quantity::ByteCount;

/// Free bytes below which a directory takes nothing that is worth shipping.
const FULL: u64 = 1 << 20;
/// Free bytes below which a directory is soon full.
const SCARCE: u64 = 1 << 30;
/// What to do about a store that should hold something.
const AWAY: &str = "mount it, or let its url name the place that holds it; if what it held is lost for good, give the store another name";

/// What a journal must be of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin<'a> {
    /// The server's cluster, where it is known.
    Cluster(Option<u64>),
    /// A SQLite database's file, as the configuration names it.
    File(&'a Path),
}

/// One store with its keys.
pub(super) fn judge(store: &StoreFacts, origin: Origin<'_>, findings: &mut Vec<Finding>) {
    let name = &store.name;
    judge_reach(name, store, findings);
    // What does not answer has been said once; the rest of it is not known.
    if let Some(StoreFound::Absent { .. }) = &store.found {
        judge_keys(name, &store.keys, findings);
        return;
    }
    findings.push(match &store.writable {
        None => Finding::unknown(
            "store.writable",
            format!("whether these credentials may write into store {name}"),
        ),
        Some(Ok(())) => Finding::ok("store.writable", format!("store {name} can be written")),
        Some(Err(said)) => Finding::problem(
            "store.writable",
            format!("store {name} cannot be written: {said}"),
            "let these credentials, or this user, create objects there; free space if it is full",
        ),
    });
    let code = "store.creates_once";
    findings.push(match &store.creates_once {
        None => Finding::unknown(code, format!("whether store {name} lets only one writer create a name")),
        Some(Ok(())) => Finding::ok(code, format!("store {name} lets only one writer create a name")),
        Some(Err(seen)) => Finding::problem(
            code,
            format!("store {name} cannot keep a journal whole: {seen}"),
            "use a store that honours create-only puts (If-None-Match), or a directory with hard links and fsync",
        ),
    });
    if store.found != Some(StoreFound::New) {
        findings.push(match store.journal {
            Some(JournalFacts::Empty) if store.shipped_before => Finding::problem(
                "store.journal",
                format!("store {name} holds nothing of this database, which was shipped into it before: `farshore run` waits for it"),
                AWAY,
            ),
            _ => judge_journal(name, store.journal.as_ref(), origin),
        });
    }
    if store.is_directory {
        judge_directory(name, store, origin, findings);
    } else {
        judge_clock(name, store, findings);
    }
    judge_keys(name, &store.keys, findings);
}

fn judge_reach(name: &str, store: &StoreFacts, findings: &mut Vec<Finding>) {
    let code = "store.reachable";
    findings.push(match &store.found {
        None => Finding::unknown(code, format!("whether store {name} answers")),
        Some(StoreFound::Founded) => Finding::ok(code, format!("store {name} answers")),
        Some(StoreFound::New) if store.shipped_before => Finding::problem(
            code,
            format!("store {name} is empty, and this database was shipped into it before: `farshore run` waits for it"),
            AWAY,
        ),
        Some(StoreFound::New) => {
            Finding::ok(code, format!("store {name} answers; the first `farshore run` founds it"))
        }
        Some(StoreFound::Absent { parent, may_make }) => Finding::problem(
            code,
            format!("the directory of store {name} is not there; is its file system mounted?"),
            match may_make {
                true => format!("mount it; for a new store, make the directory in {parent}: `farshore run` makes none"),
                false => format!(
                    "mount it; for a new store, make the directory in {parent} and give it to the user that runs farshore"
                ),
            },
        ),
        Some(StoreFound::Refused { said }) => Finding::problem(
            code,
            format!("store {name} does not answer, or refuses: {said}"),
            "check its url, endpoint, region and credentials",
        ),
    });
}

fn judge_journal(name: &str, journal: Option<&JournalFacts>, origin: Origin<'_>) -> Finding {
    let code = "store.journal";
    match (journal, origin) {
        (None, _) => Finding::unknown(code, format!("what store {name} holds of this database")),
        (Some(JournalFacts::Unreadable { why }), _) => Finding::problem(
            code,
            format!("the journal in store {name} does not read: {why}"),
            "run `farshore verify`, which names every object that is damaged",
        ),
        (Some(JournalFacts::Empty), _) => {
            Finding::ok(code, format!("store {name} holds nothing of this database yet"))
        }
        (Some(JournalFacts::Current { cluster: of, .. }), Origin::Cluster(None)) => Finding::unknown(
            code,
            format!("whether the journal in store {name}, of cluster {of}, is the server's"),
        ),
        (Some(JournalFacts::Current { cluster: of, .. }), Origin::File(path)) => {
            // As the shipper names it: the path is all that tells one file from another.
            let path = path.display().to_string();
            match *of == path {
                true => Finding::ok(code, format!("the journal in store {name} is of {path}")),
                false => Finding::warning(
                    code,
                    format!(
                        "the journal in store {name} is of {of}, and this is {path}: `farshore run` will begin a new incarnation"
                    ),
                    "correct path if that is not the database you mean; after it was moved it is as it should be",
                ),
            }
        }
        (Some(JournalFacts::Current { cluster: of, .. }), Origin::Cluster(Some(cluster)))
            if *of == cluster.to_string() =>
        {
            Finding::ok(code, format!("the journal in store {name} is of the server's cluster"))
        }
        (Some(JournalFacts::Current { cluster: of, major }), Origin::Cluster(Some(cluster))) => {
            Finding::warning(
                code,
                format!(
                    "the journal in store {name} is of cluster {of} (PostgreSQL {major}), and the server is cluster \
                 {cluster}: `farshore run` will begin a new incarnation"
                ),
                "correct url if that is not the server you mean; after initdb or pg_upgrade it is as it should be",
            )
        }
    }
}

fn judge_directory(name: &str, store: &StoreFacts, origin: Origin<'_>, findings: &mut Vec<Finding>) {
    findings.push(match store.free_bytes {
        None => Finding::unknown("store.space", format!("the space left in store {name}")),
        Some(bytes) if bytes < FULL => Finding::problem(
            "store.space",
            format!("store {name} is full: {} are free", ByteCount::new(bytes)),
            "free space there, or add another store",
        ),
        Some(bytes) if bytes < SCARCE => Finding::warning(
            "store.space",
            format!(
                "store {name} has {} free: what is shipped fills it, and a base backup may not fit",
                ByteCount::new(bytes)
            ),
            "free space there before it is full",
        ),
        Some(bytes) => Finding::ok("store.space", format!("store {name} has {} free", ByteCount::new(bytes))),
    });
    findings.push(match store.beside_database {
        None => Finding::unknown_until(
            "store.apart",
            format!("whether store {name} lies on the database's own disk"),
            match origin {
                Origin::Cluster(_) => {
                    "run check once as a user that may read the server's data directory, or look with df"
                }
                Origin::File(_) => "look with df",
            },
        ),
        Some(false) => Finding::ok("store.apart", format!("store {name} lies on another file system")),
        Some(true) => Finding::warning(
            "store.apart",
            format!("store {name} lies on the database's own file system: both go with one disk"),
            match origin {
                Origin::Cluster(_) => "put it on another machine, or name a second store",
                Origin::File(_) => "put it on another machine",
            },
        ),
    });
}

/// A provider refuses requests that are signed by a clock that is 15 minutes off, and nothing else of ours rests on
/// its clock: an answer is proof enough.
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html> (`RequestTimeTooSkewed`).
fn judge_clock(name: &str, store: &StoreFacts, findings: &mut Vec<Finding>) {
    findings.push(match &store.found {
        Some(StoreFound::Founded | StoreFound::New) => {
            Finding::ok("store.clock", format!("store {name} takes requests signed by this machine's clock"))
        }
        _ => Finding::unknown("store.clock", format!("the clock of store {name} against this machine's")),
    });
}

fn judge_keys(store: &str, keys: &KeyFacts, findings: &mut Vec<Finding>) {
    if let Some(wrong) = &keys.recipients_wrong {
        findings.push(Finding::problem(
            "keys.encryption",
            format!("the recipients of store {store} cannot be used: {wrong}"),
            "write the public half of an age key pair: it begins with age1",
        ));
    } else if keys.recipients == 0 {
        findings.push(Finding::warning(
            "keys.encryption",
            format!("the journal in store {store} is not encrypted"),
            "write recipients = [\"age1...\"]; `farshore init --encrypt` makes a pair",
        ));
    } else {
        let keys = keys.recipients;
        findings.push(Finding::ok(
            "keys.encryption",
            format!("store {store} is encrypted for {keys} public keys"),
        ));
    }
    let sealed = keys.recipients > 0;
    match &keys.identity {
        None if sealed => {
            findings.push(Finding::ok(
                "keys.apart",
                format!("no private key of store {store} is named on this machine"),
            ));
            // Known, and not to be mended here: a key beside the shipper would be worse.
            findings.push(Finding::warning(
                "keys.opens",
                format!("no private key was tried on store {store}: whether it could be restored is not proved here"),
                "run `farshore check` where restores run, with identity_file in its configuration",
            ));
        }
        None => {}
        Some(IdentityFacts::Unreadable { why }) => findings.push(Finding::problem(
            "keys.identity",
            format!("the private key of store {store} does not read: {why}"),
            "name a file with the age private key in identity_file",
        )),
        Some(IdentityFacts::Read { fits }) => {
            findings.push(Finding::warning(
                "keys.apart",
                format!("a private key of store {store} lies on this machine: who takes a shipper's machine reads the history"),
                "unless only restores run here, move it to where they do, and to a safe",
            ));
            if sealed {
                findings.push(judge_fit(store, *fits));
            }
            judge_newest(store, sealed, keys.newest.as_ref(), findings);
        }
    }
}

fn judge_fit(store: &str, fits: bool) -> Finding {
    let code = "keys.identity";
    if fits {
        return Finding::ok(code, format!("the private key belongs to a recipient of store {store}"));
    }
    Finding::problem(
        code,
        format!("the private key does not open what is encrypted for the recipients of store {store}"),
        "find the key that belongs to the recipients, or write the right recipients and restart farshore",
    )
}

fn judge_newest(store: &str, sealed: bool, newest: Option<&NewestKey>, findings: &mut Vec<Finding>) {
    let code = "keys.opens";
    findings.push(match newest {
        None => Finding::unknown(code, format!("whether the private key opens the newest generation in store {store}")),
        Some(NewestKey::Opens) => {
            Finding::ok(code, format!("the private key opens the newest generation in store {store}"))
        }
        Some(NewestKey::NothingStored) => Finding::ok(code, format!("nothing is stored in store {store} yet")),
        Some(NewestKey::Clear) if sealed => Finding::warning(
            code,
            format!("the newest generation in store {store} is not encrypted, though recipients are written"),
            "restart `farshore run`: a new generation takes the recipients of its start",
        ),
        Some(NewestKey::Clear) => {
            Finding::ok(code, format!("the newest generation in store {store} is not encrypted and needs no key"))
        }
        Some(NewestKey::Shut { why }) => Finding::problem(
            code,
            format!("the private key does not open the newest generation in store {store}, so it could not be restored: {why}"),
            "find the key that belongs to the recipients, or write the right recipients and restart farshore",
        ),
    });
}
