//! What `check` says about a SQLite database: its file, what it lies on, who else has it, and its log.
//!
//! What always holds: as in [`crate::check`]. What only an application's own connections know (`synchronous`, their busy timeout, when they
//! checkpoint) cannot be seen from outside, and nothing is said of it here.

use std::path::PathBuf;

use farshore_engines::sqlite::follow::SPOOL_BYTES;
use farshore_engines::sqlite::hold::TABLE;
use farshore_engines::sqlite::look::{Absent, HeaderFault, Locking, Looked, TableUnknown};
use farshore_engines::sqlite::mounted::{FileSystem, Kind};

use crate::check::facts::{HeadFacts, SignedFacts, StoreFacts};
use crate::check::stores::Origin;
use crate::check::{Finding, heads, stores};
use crate::config::quantity::ByteCount;

/// Log that is not copied back and is more than a quarter of the database is worth a word, within these bounds: SQLite copies back
/// each four megabytes by itself.
const WAITING: (u64, u64) = (16 << 20, 1 << 30);
/// With less space than this a store that is away is soon felt by the application.
const ROOM: u64 = 64 << 20;
const FIRST: &str = "mend what is said of the file first; it could not be looked at";

/// Everything that can be known about one SQLite database and its stores.
#[derive(Debug, Clone)]
pub struct SqliteFacts {
    /// The file, as the configuration names it.
    pub path: PathBuf,
    /// What was seen of it; `None` when nothing could be asked.
    pub looked: Option<Result<Looked, Absent>>,
    /// The user that looked, and is to follow.
    pub user: u32,
    /// Free bytes beside the file.
    pub free_bytes: Option<u64>,
    /// Where records are kept while its log is begun anew.
    pub spool: SpoolFacts,
    /// One entry for each store of the database.
    pub stores: Vec<StoreFacts>,
    /// The keys of signed heads.
    pub heads: Option<HeadFacts>,
    /// How far the journal is signed in each store, as for PostgreSQL.
    pub signed: Option<Vec<SignedFacts>>,
}

/// The folder of a database's spool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpoolFacts {
    /// The folder.
    pub folder: PathBuf,
    /// The part of it that is there.
    pub there: PathBuf,
    /// Whether this user may write there.
    pub writable: Option<bool>,
    /// Free bytes there.
    pub free_bytes: Option<u64>,
}

/// Judges everything that is known of a SQLite database.
pub fn findings(facts: &SqliteFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &facts.looked {
        Some(Ok(looked)) => judge_file(facts, looked, &mut findings),
        other => judge_absent(facts, other.as_ref().and_then(|looked| looked.as_ref().err()), &mut findings),
    }
    judge_spool(&facts.spool, &mut findings);
    if facts.stores.len() > 1 {
        findings.push(Finding::problem(
            "sqlite.stores",
            format!("it has {} stores; a SQLite database is shipped into one", facts.stores.len()),
            "name one store; several are not built yet",
        ));
    }
    if facts.stores.is_empty() {
        findings.push(Finding::unknown("store.reachable", "any store of this database"));
    }
    let origin = Origin::File(&facts.path);
    for store in &facts.stores {
        stores::judge(store, origin, &mut findings);
    }
    heads::judge(facts.heads.as_ref(), facts.signed.as_deref(), &mut findings);
    findings
}

fn judge_absent(facts: &SqliteFacts, why: Option<&Absent>, findings: &mut Vec<Finding>) {
    let (code, path) = ("sqlite.file", facts.path.display());
    findings.push(match why {
        None => Finding::unknown_until(code, format!("what stands at {path}"), "check again"),
        Some(Absent::Nothing) => Finding::problem(
            code,
            format!("there is nothing at {path}"),
            "mount its file system, or correct path; farshore makes no database",
        ),
        Some(Absent::Loop) => Finding::problem(
            code,
            format!("{path} is a symbolic link that leads back to itself"),
            "let path name the file itself",
        ),
        Some(Absent::NoFile) => Finding::problem(
            code,
            format!("{path} is no file"),
            "let path name the database's file, not its folder",
        ),
        Some(Absent::Shut { said }) => Finding::problem(
            code,
            format!("{path} cannot be come to: {said}"),
            "let the user that runs farshore pass through every folder above it",
        ),
    });
    for (code, what) in [
        ("sqlite.database", "whether it is a SQLite database"),
        ("sqlite.rights", "whether it may be read and written"),
        ("sqlite.file_system", "what it lies on"),
        ("sqlite.journal_mode", "its journal mode"),
        ("sqlite.locking", "whether somebody shuts readers out"),
        ("sqlite.wal", "its log"),
        ("sqlite.table", "whether it was followed before"),
        ("space.sqlite", "the space left beside it"),
    ] {
        findings.push(Finding::unknown_until(code, what, FIRST));
    }
}

fn judge_file(facts: &SqliteFacts, looked: &Looked, findings: &mut Vec<Finding>) {
    let (code, path) = ("sqlite.file", looked.path.display());
    findings.push(match looked.names {
        0 | 1 if looked.path == facts.path => Finding::ok(code, format!("{path} is there")),
        0 | 1 => Finding::ok(code, format!("{} leads to {path}", facts.path.display())),
        // SQLite has a log beside the name that it was opened by: two names are two logs of one file.
        names => Finding::warning(
            code,
            format!("{path} has {names} names (hard links): whoever opens it by another one has another log, and damages it"),
            "remove the other names; `find -samefile` lists them",
        ),
    });
    judge_header(looked, findings);
    judge_rights(facts.user, looked, findings);
    findings.push(judge_file_system(looked.file_system.as_ref()));
    judge_locking(&looked.locking, findings);
    judge_log(looked, findings);
    judge_table(looked, findings);
    judge_space(facts.free_bytes, looked, findings);
}

fn judge_header(looked: &Looked, findings: &mut Vec<Finding>) {
    let (database, mode, page) = ("sqlite.database", "sqlite.journal_mode", "sqlite.page_size");
    let wal = "`pragma journal_mode = wal`, once, by the application's owner and while nobody else uses it; it stays in the file";
    let header = match &looked.header {
        Ok(header) => header,
        Err(why) => {
            let mend = match why {
                HeaderFault::Unreadable { .. } => "let the user that runs farshore read it",
                HeaderFault::Empty => {
                    "let the application make its tables; then `pragma journal_mode = wal`, once"
                }
                HeaderFault::NoDatabase => {
                    "correct path; a database that is encrypted by an extension cannot be followed"
                }
                HeaderFault::PageBytes { .. } => "its first page is damaged: restore it from a copy",
                HeaderFault::Version { .. } => "look for a newer farshore",
            };
            findings.push(match why {
                HeaderFault::Unreadable { said } => Finding::unknown_until(
                    database,
                    format!("whether it is a SQLite database: it cannot be read: {said}"),
                    mend,
                ),
                _ => Finding::problem(database, format!("{}: {why}", looked.path.display()), mend),
            });
            findings.push(Finding::unknown_until(mode, "its journal mode", FIRST));
            return;
        }
    };
    findings.push(Finding::ok(database, "it is a SQLite database"));
    findings.push(match header.wal {
        true => Finding::ok(mode, "its journal mode is WAL"),
        false => {
            Finding::problem(mode, "its journal mode is not WAL: there is no log that could be followed", wal)
        }
    });
    findings.push(Finding::ok(page, format!("its pages have {} bytes", header.page_bytes.get())));
}

fn judge_rights(user: u32, looked: &Looked, findings: &mut Vec<Finding>) {
    let code = "sqlite.rights";
    let read_only = looked.file_system.as_ref().is_some_and(|lies| lies.read_only);
    // Said of the file system, and not to be mended here.
    let lacking = looked.lacking.iter().filter(|lack| !(lack.write && read_only));
    let lacking: Vec<String> = lacking
        .map(|lack| format!("{} {}", if lack.write { "write to" } else { "read" }, lack.path.display()))
        .collect();
    if !lacking.is_empty() {
        findings.push(Finding::problem(
            code,
            format!("this user may not {}", lacking.join(", nor ")),
            "run farshore as the user that owns the file, or give it that right; SQLite keeps -wal and -shm in the same folder, and a \
             follower writes to all three",
        ));
    } else if looked.owner != user && user != 0 {
        // Root gives what it makes there to the file's owner; nobody else can. Source: `robustFchown`, os_unix.c.
        findings.push(Finding::warning(
            code,
            format!(
                "the file belongs to user {}, and this is user {user}: a -wal or -shm that farshore makes first belongs to it, and can shut the application out",
                looked.owner
            ),
            "run farshore as the user that owns the file; where that cannot be, share a group that may write to the file and the folder, and set the folder's setgid bit",
        ));
    } else if read_only {
        findings.push(Finding::ok(code, "this user may read it"));
    } else {
        findings.push(Finding::ok(code, "this user may read and write it, and make files in its folder"));
    }
}

fn judge_file_system(found: Option<&FileSystem>) -> Finding {
    let code = "sqlite.file_system";
    let Some(FileSystem { name, kind, read_only }) = found else {
        return Finding::unknown_until(
            code,
            "what it lies on",
            "look with `findmnt -T`: WAL needs a disk of this machine",
        );
    };
    match kind {
        Kind::Network => Finding::problem(
            code,
            format!(
                "it lies on {name}, a file system of several machines: WAL needs memory that all processes share, and `farshore run` refuses it"
            ),
            "move it to a disk of the machine that the application runs on, and run farshore there",
        ),
        _ if *read_only => Finding::problem(
            code,
            format!("it lies on {name}, mounted read-only: nobody can hold its log"),
            "mount it for writing, or correct path",
        ),
        Kind::Unsure => Finding::warning(
            code,
            format!("it lies on {name}: whether memory is shared and locks are kept there is not known"),
            "move it to a disk of this machine",
        ),
        Kind::Local => Finding::ok(code, format!("it lies on {name}, on this machine")),
    }
}

fn judge_locking(locking: &Locking, findings: &mut Vec<Finding>) {
    let code = "sqlite.locking";
    findings.push(match locking {
        Locking::Free => Finding::ok(code, "a read may begin: nobody has it in exclusive locking mode"),
        Locking::Held { process } => Finding::problem(
            code,
            match process {
                Some(process) => format!("process {process} shuts readers out: exclusive locking mode, or a very long commit"),
                None => "somebody shuts readers out: exclusive locking mode, or a very long commit".to_owned(),
            },
            "have the application set `pragma locking_mode = normal` and use the database once more, or open it anew; farshore cannot follow beside it",
        ),
        Locking::Unknown { said } => Finding::unknown_until(
            code,
            format!("whether somebody shuts readers out: {said}"),
            FIRST,
        ),
    });
}

/// What of the log is not copied back, at most.
fn waiting(looked: &Looked) -> u64 {
    let log = looked.log.as_ref().ok().and_then(Option::as_ref);
    log.map_or(0, |log| log.waiting.unwrap_or(log.bytes))
}

fn judge_log(looked: &Looked, findings: &mut Vec<Finding>) {
    let code = "sqlite.wal";
    let bytes = ByteCount::new;
    let waits = waiting(looked);
    findings.push(match &looked.log {
        Err(said) => Finding::unknown_until(code, format!("its log: {said}"), FIRST),
        Ok(None) => Finding::ok(code, "no -wal stands beside it: all of it is in the file"),
        Ok(Some(log)) if waits > (looked.bytes / 4).clamp(WAITING.0, WAITING.1) => Finding::warning(
            code,
            format!(
                "of its -wal of {} {} are not copied back into the database of {}",
                bytes(log.bytes),
                bytes(waits),
                bytes(looked.bytes)
            ),
            "see whether a store is away (`farshore status`), or a reader of the application never ends; what waits goes with a lost -wal",
        ),
        Ok(Some(log)) => Finding::ok(
            code,
            format!("its -wal has {}, the database {}; it belongs to the file, also when that is copied", bytes(log.bytes), bytes(looked.bytes)),
        ),
    });
}

fn judge_table(looked: &Looked, findings: &mut Vec<Finding>) {
    let code = "sqlite.table";
    findings.push(match &looked.table {
        Ok(true) => Finding::ok(
            code,
            format!("the table {TABLE} is there: it was followed before, or is a copy of one that was"),
        ),
        Ok(false) => Finding::ok(
            code,
            format!("it was not followed before: `farshore run` adds the table {TABLE}, with one row"),
        ),
        Err(TableUnknown::NotRead) => {
            Finding::unknown_until(code, format!("whether the table {TABLE} is there"), FIRST)
        }
        Err(TableUnknown::NoIndex) => Finding::unknown_until(
            code,
            format!("whether the table {TABLE} is there: a -wal stands beside it without a -shm, and reading it would make one"),
            "open it once with its application, or start `farshore run`; then check again",
        ),
        Err(TableUnknown::Busy) => Finding::unknown_until(
            code,
            format!("whether the table {TABLE} is there: somebody kept it locked"),
            "check again",
        ),
        Err(TableUnknown::Sqlite { said }) => Finding::unknown_until(
            code,
            format!("whether the table {TABLE} is there: {said}"),
            "check again; if it stays, ask the application's owner for `pragma integrity_check`",
        ),
    });
}

/// While a store is away the log grows where the file is, and nothing bounds that yet.
fn judge_space(free: Option<u64>, looked: &Looked, findings: &mut Vec<Finding>) {
    let code = "space.sqlite";
    let Some(free) = free else {
        findings.push(Finding::unknown_until(code, "the space left beside it", "look with df"));
        return;
    };
    let waits = waiting(looked);
    let what = format!("{} are free beside it", ByteCount::new(free));
    let why = "its -wal grows there while a store is away, and a full disk stops the application";
    findings.push(if free == 0 || free < waits / 10 {
        Finding::problem(code, format!("{what}; {why}"), "give it more space now")
    } else if free < waits.max(ROOM) {
        Finding::warning(code, format!("{what}; {why}"), "give it more space")
    } else {
        Finding::ok(code, what)
    });
}

fn judge_spool(spool: &SpoolFacts, findings: &mut Vec<Finding>) {
    let code = "space.spool";
    let (folder, there) = (spool.folder.display(), spool.there.display());
    // Beside those of before new ones are written.
    let needed = 2 * SPOOL_BYTES;
    findings.push(match (spool.writable, spool.free_bytes) {
        (None, _) | (_, None) => Finding::unknown_until(
            code,
            format!("whether records can be kept in {folder}"),
            "let this user come to the folder of [service] socket",
        ),
        (Some(false), _) => Finding::problem(
            code,
            format!("records are kept in {folder} while the database's log is begun anew, and this user may not write to {there}"),
            "name a [service] socket in a folder that belongs to the user that runs farshore",
        ),
        (Some(true), Some(free)) if free < needed => Finding::problem(
            code,
            format!("{} are free in {there}, where records are kept while the database's log is begun anew", ByteCount::new(free)),
            format!("free space there: {} are needed", ByteCount::new(needed)),
        ),
        (Some(true), Some(_)) => Finding::ok(code, format!("records can be kept in {folder} while its log is begun anew")),
    });
}

#[cfg(test)]
mod tests;
