//! Every judgement of `check` as a table: one fact changed, one level expected.

use std::time::Duration;

use farshore_journal::{Offset, Position, Timeline};

use super::connection::{Cause, Refusal};
use super::facts::{
    CheckFacts, ClockDifference, HeadFacts, HostFacts, IdentityFacts, JournalFacts, KeepFound, KeyFacts,
    NewestKey, Pinning, RoleFacts, SignedFacts, SlotFacts, StoreFacts, StoreFound, Wanted,
};
use super::{CODES, Finding, Level, findings, worst};
use crate::config::OnFull;

fn sound() -> CheckFacts {
    let settings = [
        ("wal_level", "replica"),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("max_replication_slots", "10"),
        ("max_wal_senders", "10"),
        ("max_slot_wal_keep_size", "-1"),
        ("idle_replication_slot_timeout", "0"),
        ("synchronous_commit", "on"),
        ("synchronous_standby_names", ""),
    ];
    let clock = Some(ClockDifference { size: Duration::from_millis(40), error: Duration::from_millis(30) });
    CheckFacts {
        wanted: Wanted {
            database: "orders".into(),
            on_full: OnFull::Hold,
            waits_for: None,
            guarded: false,
            rpo: None,
            user: "farshore".into(),
            sql_database: "postgres".into(),
        },
        not_asked: None,
        guard: None,
        hosts: ["db1:5432", "db2:5432"]
            .into_iter()
            .enumerate()
            .map(|(at, name)| host(name, at > 0))
            .collect(),
        cluster: Some(7),
        server_version: Some(180_001),
        in_recovery: Some(false),
        settings: Some(settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
        role: Some(RoleFacts {
            name: "farshore".into(),
            superuser: Some(false),
            replication: Some(true),
            reads_settings: Some(true),
            reads_stats: Some(true),
            marks_points: Some(true),
        }),
        slots: Some(vec![SlotFacts {
            name: "farshore_orders_keep".into(),
            physical: true,
            temporary: false,
            wal_status: Some("reserved".into()),
            reserves: true,
        }]),
        slots_missing: Vec::new(),
        spool: Vec::new(),
        slots_used: Some(2),
        retained_bytes: Some(1 << 20),
        wal_free_bytes: Some(1 << 34),
        clock_difference: clock,
        stores: vec![StoreFacts {
            name: "main".into(),
            found: Some(StoreFound::Founded),
            writable: Some(Ok(())),
            creates_once: Some(Ok(())),
            journal: Some(JournalFacts::Current { cluster: "7".into(), major: 18 }),
            shipped_before: true,
            free_bytes: Some(1 << 34),
            is_directory: true,
            beside_database: Some(false),
            keys: KeyFacts {
                recipients: 1,
                recipients_wrong: None,
                identity: Some(IdentityFacts::Read { fits: true }),
                newest: Some(NewestKey::Opens),
            },
        }],
        heads: Some(HeadFacts::Read { open_to_others: false, pinning: Pinning::Fits }),
        signed: Some(vec![SignedFacts {
            store: "main".into(),
            newest: Some((position(200), Duration::from_secs(3600))),
            stored: Some(position(200)),
        }]),
        restore_programs: Some(true),
    }
}

fn position(offset: u64) -> Position {
    Position::new(Timeline::new(1), Offset::new(offset))
}

/// A head that ends at an offset and is so many seconds old, and how far its store's journal reaches.
fn signed_to(newest: Option<(u64, u64)>, stored: u64) -> Option<Vec<SignedFacts>> {
    let newest = newest.map(|(end, age)| (position(end), Duration::from_secs(age)));
    Some(vec![SignedFacts { store: "main".into(), newest, stored: Some(position(stored)) }])
}

fn host(name: &str, standby: bool) -> HostFacts {
    HostFacts {
        name: name.into(),
        sql: Some(Ok(())),
        replication: Some(Ok(())),
        encrypted: Some(true),
        in_recovery: Some(standby),
        cluster: Some(7),
        keep: Some(KeepFound::Keeps),
    }
}

fn refused(cause: Cause) -> Option<Result<(), Refusal>> {
    Some(Err(Refusal { cause, said: "the server's words".into() }))
}

fn signing(open_to_others: bool, pinning: Pinning) -> Option<HeadFacts> {
    Some(HeadFacts::Read { open_to_others, pinning })
}

fn level(facts: &CheckFacts, code: &str) -> Level {
    let of_code: Vec<Finding> = findings(facts).into_iter().filter(|f| f.code == code).collect();
    assert!(!of_code.is_empty(), "no finding {code}");
    worst(&of_code)
}

#[test]
fn a_sound_database_has_only_ok_findings_beside_the_key_it_was_proved_with() {
    let bad: Vec<Finding> = findings(&sound()).into_iter().filter(|f| f.level != Level::Ok).collect();
    assert_eq!(bad.iter().map(|f| (f.code, f.level)).collect::<Vec<_>>(), [("keys.apart", Level::Warning)]);
}

#[test]
fn what_is_not_known_is_never_ok() {
    let found = findings(&CheckFacts::default());
    assert!(found.iter().all(|finding| finding.level == Level::Unknown), "{found:?}");
    let mut empty_settings = sound();
    empty_settings.settings = Some(Default::default());
    for finding in findings(&empty_settings).iter().filter(|f| f.code.starts_with("settings.")) {
        assert_eq!(finding.level, Level::Unknown, "{finding:?}");
    }
    assert_eq!(worst(&[]), Level::Unknown);
}

#[test]
fn every_setting_that_breaks_a_promise_is_found() {
    use Level::{Ok, Problem, Unknown, Warning};
    for (name, value, code, expected) in [
        ("wal_level", "minimal", "settings.wal_level", Problem),
        ("wal_level", "logical", "settings.wal_level", Ok),
        ("fsync", "off", "settings.fsync", Problem),
        ("full_page_writes", "off", "settings.full_page_writes", Problem),
        ("data_checksums", "off", "settings.data_checksums", Warning),
        ("max_replication_slots", "1", "settings.max_replication_slots", Problem),
        ("max_replication_slots", "2", "settings.slots_in_use", Warning),
        ("max_wal_senders", "2", "settings.max_wal_senders", Problem),
        ("max_wal_senders", "many", "settings.max_wal_senders", Unknown),
        ("max_slot_wal_keep_size", "1024", "settings.max_slot_wal_keep_size", Problem),
        ("idle_replication_slot_timeout", "3600", "settings.idle_replication_slot_timeout", Warning),
        ("synchronous_standby_names", "farshore", "settings.synchronous_commit", Warning),
        ("synchronous_standby_names", "*", "settings.synchronous_commit", Warning),
        ("rds.extensions", "x", "server.service", Problem),
        ("cloudsql.iam_authentication", "off", "server.service", Problem),
        ("azure.extensions", "", "server.service", Problem),
    ] {
        let mut facts = sound();
        facts.settings.as_mut().unwrap().insert(name.into(), value.into());
        assert_eq!(level(&facts, code), expected, "{name} = {value}");
    }
}

#[test]
fn remote_apply_is_a_problem_only_where_farshore_is_named() {
    let mut facts = sound();
    facts.settings.as_mut().unwrap().insert("synchronous_commit".into(), "remote_apply".into());
    assert_eq!(level(&facts, "settings.synchronous_commit"), Level::Ok);
    facts.settings.as_mut().unwrap().insert("synchronous_standby_names".into(), "any 1 (a, farshore)".into());
    assert_eq!(level(&facts, "settings.synchronous_commit"), Level::Problem);
}

#[test]
fn the_primarys_limit_must_fit_the_operators_choice() {
    for (on_full, limit, expected) in [
        (OnFull::Hold, "-1", Level::Ok),
        (OnFull::Hold, "4096", Level::Problem),
        (OnFull::Bypass, "-1", Level::Problem),
        (OnFull::Bypass, "4096", Level::Ok),
    ] {
        let mut facts = sound();
        facts.wanted.on_full = on_full;
        facts.settings.as_mut().unwrap().insert("max_slot_wal_keep_size".into(), limit.into());
        assert_eq!(level(&facts, "settings.max_slot_wal_keep_size"), expected, "{on_full} {limit}");
    }
}

#[test]
fn an_idle_timeout_is_expected_from_18_on_and_not_before() {
    let mut facts = sound();
    facts.settings.as_mut().unwrap().remove("idle_replication_slot_timeout");
    assert_eq!(level(&facts, "settings.idle_replication_slot_timeout"), Level::Unknown);
    facts.server_version = Some(170_004);
    assert!(findings(&facts).iter().all(|f| f.code != "settings.idle_replication_slot_timeout"));
}

/// A change to sound facts, the finding it should turn, and how that should then stand.
type Case = (fn(&mut CheckFacts), &'static str, Level);

#[test]
fn every_other_fact_that_breaks_a_promise_is_found() {
    use Level::{Ok, Problem, Unknown, Warning};
    fn slot(facts: &mut CheckFacts) -> &mut SlotFacts {
        &mut facts.slots.as_mut().unwrap()[0]
    }
    let cases: Vec<Case> = vec![
        (|f| f.server_version = Some(130_009), "server.version", Problem),
        (|f| f.server_version = Some(190_000), "server.version", Problem),
        (|f| f.in_recovery = Some(true), "server.primary", Problem),
        (|f| f.hosts[1].sql = refused(Cause::Network), "connection.sql", Problem),
        (|f| f.hosts[1].sql = None, "connection.sql", Unknown),
        (|f| f.hosts.clear(), "connection.sql", Unknown),
        (|f| f.hosts[0].replication = refused(Cause::NotLetIn), "connection.replication", Problem),
        (|f| f.hosts[0].encrypted = Some(false), "connection.encrypted", Warning),
        (|f| f.hosts[1].cluster = Some(8), "connection.cluster", Problem),
        (|f| f.hosts[1].cluster = None, "connection.cluster", Unknown),
        (|f| f.hosts[1].in_recovery = Some(false), "connection.cluster", Problem),
        (|f| f.role.as_mut().unwrap().replication = Some(false), "role.replication", Problem),
        (|f| f.role.as_mut().unwrap().reads_settings = Some(false), "role.settings", Problem),
        (|f| f.role.as_mut().unwrap().reads_stats = Some(false), "role.stats", Warning),
        (|f| f.role.as_mut().unwrap().marks_points = Some(false), "role.points", Warning),
        (|f| f.role.as_mut().unwrap().marks_points = None, "role.points", Unknown),
        (|f| f.role.as_mut().unwrap().superuser = Some(true), "role.superuser", Warning),
        (|f| f.slots = Some(vec![]), "slots.state", Warning),
        (|f| f.hosts[1].keep = Some(KeepFound::Missing), "slots.standby", Warning),
        (|f| f.hosts[1].keep = Some(KeepFound::Lost), "slots.standby", Warning),
        (|f| f.hosts[1].keep = None, "slots.standby", Unknown),
        (|f| slot(f).temporary = true, "slots.state", Problem),
        (|f| slot(f).reserves = false, "slots.state", Problem),
        (|f| slot(f).wal_status = Some("lost".into()), "slots.state", Problem),
        (|f| slot(f).wal_status = Some("unreserved".into()), "slots.state", Problem),
        (|f| slot(f).wal_status = Some("extended".into()), "slots.state", Ok),
        (|f| slot(f).wal_status = None, "slots.state", Unknown),
        (|f| f.retained_bytes = None, "space.pg_wal", Unknown),
        (|f| f.retained_bytes = Some(1 << 35), "space.pg_wal", Warning),
        (|f| f.retained_bytes = Some(1 << 39), "space.pg_wal", Problem),
        (|f| f.wal_free_bytes = Some(0), "space.pg_wal", Problem),
        (|f| slot(f).physical = false, "slots.state", Problem),
        (|f| f.slots_missing.push("farshore_orders_live_main".into()), "slots.state", Warning),
        (|f| f.slots_used = Some(10), "settings.slots_in_use", Warning),
        (
            |f| (f.slots_used, f.slots_missing) = (Some(9), vec!["a".into(), "b".into()]),
            "settings.slots_in_use",
            Problem,
        ),
        (|f| f.wal_free_bytes = None, "space.pg_wal", Unknown),
        (|f| f.stores[0].found = Some(StoreFound::Refused { said: "no".into() }), "store.reachable", Problem),
        (
            |f| f.stores[0].found = Some(StoreFound::Absent { parent: "/".into(), may_make: true }),
            "store.reachable",
            Problem,
        ),
        (
            |f| f.stores[0].found = Some(StoreFound::Absent { parent: "/".into(), may_make: false }),
            "store.reachable",
            Problem,
        ),
        (|f| f.stores.clear(), "store.reachable", Unknown),
        (|f| f.stores[0].writable = Some(Err("denied".into())), "store.writable", Problem),
        (|f| f.stores[0].creates_once = Some(Err("two won".into())), "store.creates_once", Problem),
        (|f| f.cluster = Some(8), "store.journal", Warning),
        (|f| f.cluster = None, "store.journal", Unknown),
        (|f| f.stores[0].journal = None, "store.journal", Unknown),
        (
            |f| f.stores[0].journal = Some(JournalFacts::Unreadable { why: "x".into() }),
            "store.journal",
            Problem,
        ),
        (|f| f.stores[0].free_bytes = Some(640 << 10), "store.space", Problem),
        (|f| f.stores[0].free_bytes = Some(2 << 20), "store.space", Warning),
        (|f| f.stores[0].found = Some(StoreFound::New), "store.reachable", Problem),
        (
            |f| (f.stores[0].found, f.stores[0].shipped_before) = (Some(StoreFound::New), false),
            "store.reachable",
            Ok,
        ),
        (|f| f.stores[0].journal = Some(JournalFacts::Empty), "store.journal", Problem),
        (
            |f| (f.stores[0].journal, f.stores[0].shipped_before) = (Some(JournalFacts::Empty), false),
            "store.journal",
            Ok,
        ),
        (|f| f.stores[0].beside_database = Some(true), "store.apart", Warning),
        (|f| f.stores[0].is_directory = false, "store.clock", Ok),
        (|f| (f.stores[0].is_directory, f.stores[0].found) = (false, None), "store.clock", Unknown),
        (|f| f.stores[0].keys.recipients = 0, "keys.encryption", Warning),
        (|f| f.stores[0].keys.recipients_wrong = Some("x".into()), "keys.encryption", Problem),
        (|f| f.stores[0].keys.identity = Some(IdentityFacts::Read { fits: false }), "keys.identity", Problem),
        (
            |f| f.stores[0].keys.identity = Some(IdentityFacts::Unreadable { why: "x".into() }),
            "keys.identity",
            Problem,
        ),
        (|f| f.stores[0].keys.identity = None, "keys.opens", Warning),
        (|f| f.stores[0].keys.newest = Some(NewestKey::Shut { why: "x".into() }), "keys.opens", Problem),
        (|f| f.stores[0].keys.newest = Some(NewestKey::Clear), "keys.opens", Warning),
        (|f| f.stores[0].keys.newest = None, "keys.opens", Unknown),
        (|f| f.heads = Some(HeadFacts::Neither), "heads.signed", Warning),
        (|f| f.heads = Some(HeadFacts::PinnedOnly), "heads.signed", Ok),
        (|f| f.heads = Some(HeadFacts::Unreadable { why: "x".into() }), "heads.signed", Problem),
        (|f| f.heads = signing(true, Pinning::Fits), "heads.signed", Warning),
        (|f| f.heads = signing(true, Pinning::Other { public: "0f".into() }), "heads.signed", Problem),
        (|f| f.heads = signing(false, Pinning::Nothing { public: "0f".into() }), "heads.signed", Warning),
        (|f| f.signed = None, "heads.newest", Unknown),
        // A minute's worth that is not signed yet, and a shipper whose heads come to nothing.
        (|f| f.signed = signed_to(Some((200, 30)), 300), "heads.newest", Ok),
        (|f| f.signed = signed_to(Some((200, 3600)), 300), "heads.newest", Warning),
        (|f| f.signed = signed_to(None, 300), "heads.newest", Warning),
        (|f| f.restore_programs = Some(false), "restore.programs", Warning),
    ];
    for (at, (change, code, expected)) in cases.into_iter().enumerate() {
        let mut facts = sound();
        change(&mut facts);
        assert_eq!(level(&facts, code), expected, "case {at}: {code}");
    }
}

#[test]
fn a_slow_network_is_not_taken_for_a_wrong_clock() {
    for (size, error, expected) in
        [(3_000, 2_900, Level::Ok), (3_000, 10, Level::Warning), (1_000_000, 10, Level::Problem)]
    {
        let mut facts = sound();
        facts.clock_difference =
            Some(ClockDifference { size: Duration::from_millis(size), error: Duration::from_millis(error) });
        assert_eq!(level(&facts, "server.clock"), expected, "{size} ± {error}");
    }
}

#[test]
fn every_finding_has_a_known_code_and_a_way_to_mend_it() {
    let mut broken = sound();
    broken.settings = Some([("wal_level".to_owned(), "minimal".to_owned())].into());
    for facts in [sound(), CheckFacts::default(), broken] {
        for finding in findings(&facts) {
            assert!(CODES.contains(&finding.code), "{}", finding.code);
            assert_eq!(finding.mend.is_none(), finding.level == Level::Ok, "{finding:?}");
        }
    }
}

#[test]
fn a_mode_in_which_commits_wait_is_held_against_what_the_primary_says() {
    let wanted = "FIRST 1 (\"farshore orders/main\")";
    let level = |names: &str, commit: &str, waits: bool| {
        let mut facts = sound();
        facts.wanted.waits_for = waits.then(|| wanted.to_owned());
        let settings = facts.settings.as_mut().unwrap();
        settings.insert("synchronous_standby_names".into(), names.into());
        settings.insert("synchronous_commit".into(), commit.into());
        let found =
            findings(&facts).into_iter().find(|found| found.code == "settings.synchronous_commit").unwrap();
        (found.level, found.mend.unwrap_or_default())
    };
    assert_eq!(level(wanted, "on", true).0, Level::Ok);
    let (is, mend) = level("", "on", true);
    assert!(is == Level::Problem && mend.contains(wanted), "{mend}");
    assert_eq!(level("*", "on", true).0, Level::Problem);
    for weak in ["off", "local", "remote_write"] {
        assert_eq!(level(wanted, weak, true).0, Level::Problem, "{weak}");
    }
    // The other way round: nobody is there whom commits wait for.
    assert_eq!(level(wanted, "on", false).0, Level::Problem);
    assert_eq!(level("*", "on", false).0, Level::Warning);
    assert_eq!(level("", "on", false).0, Level::Ok);
}

#[test]
fn in_sync_a_guard_must_be_there_and_the_setting_is_its_own_or_nobodys() {
    let wanted = "FIRST 1 (\"farshore orders/main\")";
    let levels = |guard: Option<bool>, names: &str| {
        let mut facts = sound();
        (facts.wanted.waits_for, facts.wanted.guarded, facts.guard) = (Some(wanted.to_owned()), true, guard);
        facts.settings.as_mut().unwrap().insert("synchronous_standby_names".into(), names.into());
        let of =
            |code| findings(&facts).into_iter().find(|found| found.code == code).map(|found| found.level);
        (of("protection.guard").unwrap(), of("settings.synchronous_commit").unwrap())
    };
    assert_eq!(levels(Some(true), wanted), (Level::Ok, Level::Ok));
    assert_eq!(levels(Some(true), ""), (Level::Ok, Level::Warning));
    assert_eq!(levels(Some(false), "*"), (Level::Problem, Level::Problem));
    assert_eq!(levels(None, wanted).0, Level::Unknown);
    assert!(findings(&sound()).iter().all(|found| found.code != "protection.guard"));
}

#[test]
fn a_server_that_does_not_wait_right_behind_its_start_is_named_where_commits_are_to_wait() {
    let warned = |version: u32, waits: bool| {
        let mut facts = sound();
        facts.server_version = Some(version);
        facts.wanted.waits_for = waits.then(|| "FIRST 1 (x)".to_owned());
        findings(&facts).iter().any(|found| found.what.contains("behind its start"))
    };
    for (old, mended) in [(140_017, 140_018), (150_012, 150_013), (160_008, 160_009), (170_004, 170_005)] {
        assert!(warned(old, true) && !warned(mended, true) && !warned(old, false), "{old}");
    }
    assert!(!warned(180_000, true));
}
