//! Every judgement of a SQLite database as a table: one fact changed, one level expected.

use farshore_engines::sqlite::look::{Absent, Header, HeaderFault, Lack, Locking, Log, Looked, TableUnknown};
use farshore_engines::sqlite::mounted::{FileSystem, Kind};
use farshore_engines::sqlite::wal::PageBytes;

use super::{SpoolFacts, SqliteFacts, findings};
use crate::check::facts::{
    HeadFacts, IdentityFacts, JournalFacts, KeyFacts, NewestKey, Pinning, StoreFacts, StoreFound,
};
use crate::check::{CODES, Level};

const GIB: u64 = 1 << 30;

fn looked() -> Looked {
    Looked {
        path: "/var/lib/app/app.db".into(),
        device: 1,
        names: 1,
        owner: 1000,
        bytes: GIB,
        header: Ok(Header { page_bytes: PageBytes::new(4096).unwrap(), wal: true }),
        lacking: Vec::new(),
        file_system: Some(FileSystem { name: "ext4".into(), kind: Kind::Local, read_only: false }),
        locking: Locking::Free,
        log: Ok(Some(Log { bytes: 4 << 20, waiting: Some(0) })),
        table: Ok(true),
    }
}

fn store(name: &str) -> StoreFacts {
    StoreFacts {
        name: name.into(),
        found: Some(StoreFound::Founded),
        writable: Some(Ok(())),
        creates_once: Some(Ok(())),
        journal: Some(JournalFacts::Current { cluster: "/var/lib/app/app.db".into(), major: 3 }),
        shipped_before: true,
        free_bytes: Some(GIB),
        is_directory: true,
        beside_database: Some(false),
        keys: KeyFacts {
            recipients: 1,
            recipients_wrong: None,
            identity: Some(IdentityFacts::Read { fits: true }),
            newest: Some(NewestKey::Opens),
        },
    }
}

fn sound() -> SqliteFacts {
    SqliteFacts {
        path: "/var/lib/app/app.db".into(),
        looked: Some(Ok(looked())),
        user: 1000,
        free_bytes: Some(GIB),
        spool: SpoolFacts {
            folder: "/run/farshore/farshore-push/app".into(),
            there: "/run/farshore".into(),
            writable: Some(true),
            free_bytes: Some(GIB),
        },
        stores: vec![store("main")],
        heads: Some(HeadFacts::Read { open_to_others: false, pinning: Pinning::Fits }),
        signed: Some(Vec::new()),
    }
}

/// The worst level of a code's findings.
fn level(facts: &SqliteFacts, code: &str) -> Option<Level> {
    findings(facts).iter().filter(|finding| finding.code == code).map(|finding| finding.level).max()
}

fn file(facts: &mut SqliteFacts) -> &mut Looked {
    facts.looked.as_mut().unwrap().as_mut().unwrap()
}

#[test]
fn sound_facts_leave_only_what_a_private_key_beside_the_shipper_is_worth() {
    let wrong = findings(&sound()).into_iter().filter(|finding| finding.level != Level::Ok);
    assert_eq!(wrong.map(|finding| finding.code).collect::<Vec<_>>(), ["keys.apart"]);
}

/// A change to sound facts, the finding it should turn, and how that should then stand.
type Case = (fn(&mut SqliteFacts), &'static str, Level);

#[test]
fn every_fact_that_breaks_a_promise_is_found() {
    use Level::{Ok, Problem, Unknown, Warning};
    let cases: Vec<Case> = vec![
        (|f| f.looked = None, "sqlite.file", Unknown),
        (|f| f.looked = Some(Err(Absent::Nothing)), "sqlite.file", Problem),
        (|f| f.looked = Some(Err(Absent::Nothing)), "sqlite.journal_mode", Unknown),
        (|f| f.looked = Some(Err(Absent::Nothing)), "sqlite.file_system", Unknown),
        (|f| f.looked = Some(Err(Absent::Loop)), "sqlite.file", Problem),
        (|f| f.looked = Some(Err(Absent::NoFile)), "sqlite.file", Problem),
        (|f| f.looked = Some(Err(Absent::Shut { said: "no".into() })), "sqlite.file", Problem),
        (|f| file(f).names = 2, "sqlite.file", Warning),
        (|f| f.path = "/srv/link.db".into(), "sqlite.file", Ok),
        (|f| file(f).header = Err(HeaderFault::Empty), "sqlite.database", Problem),
        (|f| file(f).header = Err(HeaderFault::NoDatabase), "sqlite.database", Problem),
        (|f| file(f).header = Err(HeaderFault::NoDatabase), "sqlite.journal_mode", Unknown),
        (|f| file(f).header = Err(HeaderFault::PageBytes { found: 3 }), "sqlite.database", Problem),
        (|f| file(f).header = Err(HeaderFault::Version { found: 3 }), "sqlite.database", Problem),
        (|f| file(f).header = Err(HeaderFault::Unreadable { said: "no".into() }), "sqlite.database", Unknown),
        (|f| file(f).header.as_mut().unwrap().wal = false, "sqlite.journal_mode", Problem),
        (
            |f| file(f).lacking = vec![Lack { path: "/var/lib/app".into(), write: true }],
            "sqlite.rights",
            Problem,
        ),
        (|f| f.user = 1001, "sqlite.rights", Warning),
        (|f| f.user = 0, "sqlite.rights", Ok),
        (|f| file(f).file_system = None, "sqlite.file_system", Unknown),
        (|f| lies(f).kind = Kind::Network, "sqlite.file_system", Problem),
        (|f| lies(f).kind = Kind::Unsure, "sqlite.file_system", Warning),
        (|f| lies(f).read_only = true, "sqlite.file_system", Problem),
        (|f| file(f).locking = Locking::Held { process: Some(7) }, "sqlite.locking", Problem),
        (|f| file(f).locking = Locking::Held { process: None }, "sqlite.locking", Problem),
        (|f| file(f).locking = Locking::Unknown { said: "no".into() }, "sqlite.locking", Unknown),
        (|f| file(f).log = Result::Ok(None), "sqlite.wal", Ok),
        (|f| file(f).log = Err("no".into()), "sqlite.wal", Unknown),
        // A quarter of the database, and not less than sixteen megabytes.
        (|f| waits(f, 300 << 20, Some(250 << 20)), "sqlite.wal", Ok),
        (|f| waits(f, 300 << 20, Some(257 << 20)), "sqlite.wal", Warning),
        (|f| waits(f, 300 << 20, None), "sqlite.wal", Warning),
        (
            |f| {
                file(f).bytes = 8192;
                waits(f, 4 << 20, Some(4 << 20));
            },
            "sqlite.wal",
            Ok,
        ),
        (|f| file(f).table = Result::Ok(false), "sqlite.table", Ok),
        (|f| file(f).table = Err(TableUnknown::NotRead), "sqlite.table", Unknown),
        (|f| file(f).table = Err(TableUnknown::NoIndex), "sqlite.table", Unknown),
        (|f| file(f).table = Err(TableUnknown::Busy), "sqlite.table", Unknown),
        (|f| file(f).table = Err(TableUnknown::Sqlite { said: "no".into() }), "sqlite.table", Unknown),
        (|f| f.free_bytes = None, "space.sqlite", Unknown),
        (|f| f.free_bytes = Some(0), "space.sqlite", Problem),
        (|f| f.free_bytes = Some(1 << 20), "space.sqlite", Warning),
        (
            |f| {
                f.free_bytes = Some(200 << 20);
                waits(f, 300 << 20, None);
            },
            "space.sqlite",
            Warning,
        ),
        (
            |f| {
                f.free_bytes = Some(1 << 20);
                waits(f, 300 << 20, None);
            },
            "space.sqlite",
            Problem,
        ),
        (|f| f.spool.writable = Some(false), "space.spool", Problem),
        (|f| f.spool.writable = None, "space.spool", Unknown),
        (|f| f.spool.free_bytes = Some(1 << 20), "space.spool", Problem),
        (|f| f.stores.push(store("second")), "sqlite.stores", Problem),
        (|f| f.stores.clear(), "store.reachable", Unknown),
        (|f| f.stores[0].beside_database = Some(true), "store.apart", Warning),
        (|f| f.stores[0].journal = Some(JournalFacts::Empty), "store.journal", Problem),
        (|f| f.path = "/srv/moved.db".into(), "store.journal", Warning),
        (|f| f.heads = Some(HeadFacts::Neither), "heads.signed", Warning),
    ];
    for (at, (change, code, expected)) in cases.into_iter().enumerate() {
        let mut facts = sound();
        change(&mut facts);
        assert_eq!(level(&facts, code), Some(expected), "case {at}: {code}");
    }
}

fn lies(facts: &mut SqliteFacts) -> &mut FileSystem {
    file(facts).file_system.as_mut().unwrap()
}

fn waits(facts: &mut SqliteFacts, bytes: u64, waiting: Option<u64>) {
    file(facts).log = Ok(Some(Log { bytes, waiting }));
}

#[test]
fn what_cannot_be_written_because_of_the_mount_is_said_of_the_mount_alone() {
    let mut facts = sound();
    lies(&mut facts).read_only = true;
    file(&mut facts).lacking = vec![Lack { path: "/var/lib/app/app.db".into(), write: true }];
    assert_eq!(level(&facts, "sqlite.rights"), Some(Level::Ok));
    assert_eq!(level(&facts, "sqlite.file_system"), Some(Level::Problem));
}

#[test]
fn one_store_is_as_many_as_there_may_be_and_nothing_is_said_of_it() {
    assert_eq!(level(&sound(), "sqlite.stores"), None);
}

#[test]
fn every_finding_has_a_known_code_and_a_way_to_mend_it() {
    let mut absent = sound();
    absent.looked = Some(Err(Absent::Nothing));
    let mut unread = sound();
    *file(&mut unread) = Looked { header: Err(HeaderFault::NoDatabase), ..looked() };
    for facts in [sound(), absent, unread] {
        for finding in findings(&facts) {
            assert!(CODES.contains(&finding.code), "{}", finding.code);
            assert_eq!(finding.mend.is_none(), finding.level == Level::Ok, "{finding:?}");
        }
    }
}
