//! What is not compared is named, and what is held is let go.

use std::time::Duration;

use farshore_testkit::pg::{Length, Major};
use farshore_testkit::process::wait_for;
use nix::sys::signal::Signal;

use crate::rig::{Rig, let_pass, primary, table, tables};
use crate::service::SOON;

#[test]
fn what_cannot_be_compared_is_named_with_its_reason_and_never_called_equal() {
    let primary = primary(Major::V15).start();
    primary.sql(
        "create table plain (id int primary key, at timestamptz, amount numeric, blob text);
         insert into plain select n, now(), n * 1.10, repeat(md5(n::text), 400) from generate_series(1, 500) n;
         alter table plain alter column blob set storage external;
         create table parted (id int, note text) partition by range (id);
         create table parted_1 partition of parted for values from (0) to (100);
         insert into parted values (1, null), (2, '');
         create materialized view seen as select id, amount from plain;
         create table nothing ();
         insert into nothing default values;
         create table \"Odd \"\"name\" (\"a \"\"b\" int primary key);
         insert into \"Odd \"\"name\" values (7);
         create unlogged table scratch (id int);
         insert into scratch values (1);
         create table secret (id int);
         create sequence counted;
         select lo_from_bytea(0, 'a large object');",
    );
    let _other = primary.sql("create database other");
    let rig = Rig::of(primary);
    let (code, came, error) = rig.compare(&[]);
    assert_eq!(code, Some(10), "{came:#}\n{error}\n{}", rig.node.log());
    assert_eq!(came["verdict"], "not_compared");
    assert!(error.contains("FS-1102"), "{error}");
    let scratch = table(&came, "public.scratch");
    assert_eq!(scratch["verdict"], "not_compared");
    assert!(scratch["reason"].as_str().unwrap().contains("unlogged"), "{scratch}");
    let others: Vec<_> =
        tables(&came).into_iter().filter(|table| table["table"] != "public.scratch").collect();
    assert!(others.iter().all(|table| table["verdict"] == "equal"), "{came:#}");
    for (name, rows) in [
        ("public.plain", 500),
        ("public.parted_1", 2),
        ("public.seen", 500),
        ("public.nothing", 1),
        ("pg_catalog.pg_largeobject", 1),
        ("public.Odd \"name", 1),
    ] {
        assert_eq!(table(&came, name)["rows"], rows, "{name}");
    }
    let databases: Vec<_> =
        came["databases"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(databases, ["other", "postgres"]);
    let named = came["databases"][1]["others"].to_string();
    assert!(named.contains("public.counted") && named.contains("sequence"), "{named}");
    assert!(came["shut"].to_string().contains("template1"), "{came:#}");
    // Left out by name, nothing is in doubt.
    let (code, came, error) = rig.compare(&["--exclude", "public.scratch"]);
    assert_eq!(code, Some(0), "{came:#}\n{error}");
    assert_eq!(came["databases"][1]["excluded"][0], "public.scratch");
    // Nor is one that is not there called equal.
    let (code, came, _) =
        rig.compare(&["--table", "public.plain", "--table", "public.gone", "--within", "postgres"]);
    assert_eq!((code, &came["verdict"]), (Some(10), &"not_compared".into()), "{came:#}");
    assert_eq!(tables(&came).len(), 2);
    // What comparisons came to is kept.
    let listed = rig.node.json(&["compare", "list"]);
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(3), "{listed:#}");
    let id = came["compare"].as_str().unwrap();
    let shown = rig.node.json(&["compare", "show", id]);
    assert_eq!(shown["databases"], came["databases"]);
}

#[test]
fn a_role_that_may_not_read_and_rows_that_are_hidden_from_it_are_never_equal() {
    let primary = primary(Major::V15).start();
    primary.sql(
        "create role reader login replication;
         grant pg_monitor to reader;
         create table open (id int); grant select on open to reader; insert into open values (1);
         create table shut (id int);
         create table veiled (id int); insert into veiled values (1), (2);
         grant select on veiled to reader;
         alter table veiled enable row level security;
         create policy first_only on veiled for select using (id = 1);",
    );
    let rig = Rig::of(primary);
    rig.node.configure(|text| text.replace("postgresql://postgres@", "postgresql://reader@"));
    let (code, came, error) = rig.compare(&[]);
    assert_eq!(code, Some(10), "{came:#}\n{error}\n{}", rig.node.log());
    assert_eq!(table(&came, "public.open")["verdict"], "equal");
    for (name, said) in [("public.shut", "may not read"), ("public.veiled", "row-level security")] {
        let found = table(&came, name);
        assert_eq!(found["verdict"], "not_compared", "{found}");
        assert!(found["reason"].as_str().unwrap().contains(said), "{found}");
    }
}

#[test]
fn transactions_that_go_on_and_tables_that_are_locked_or_rewritten_meanwhile_make_no_false_difference() {
    let primary = primary(Major::V15).start();
    primary.sql(
        "create table kept (id int primary key, note text);
         insert into kept select n, 'kept' from generate_series(1, 2000) n;
         create table locked (id int); insert into locked values (1);",
    );
    let rig = Rig::of(primary);
    // One that is prepared and undecided, and one that holds a lock which the standby's replay holds too.
    rig.primary.sql("begin; update kept set note = 'perhaps' where id = 1; delete from kept where id = 2; prepare transaction 'undecided'");
    rig.primary.sql("begin; lock table locked in access exclusive mode; insert into locked values (2); prepare transaction 'locks'");
    rig.caught_up();
    let (code, came, error) = rig.compare(&[]);
    assert_eq!(code, Some(10), "{came:#}\n{error}");
    assert_eq!(table(&came, "public.kept")["verdict"], "equal");
    assert!(table(&came, "public.locked")["reason"].as_str().unwrap().contains("locked"), "{came:#}");
    rig.primary.sql("commit prepared 'undecided'");
    rig.primary.sql("commit prepared 'locks'");
    let came = rig.is_equal();
    assert_eq!(table(&came, "public.kept")["rows"], 1999);
    assert_eq!(table(&came, "public.locked")["rows"], 2);
}

#[test]
fn a_standby_is_shown_as_held_and_follows_again_whether_its_comparison_ends_or_is_killed() {
    let primary = primary(Major::V15).start();
    primary.pgbench_init(2);
    let rig = Rig::of(primary);
    let load = rig.primary.pgbench(2, Length::For(Duration::from_secs(25)));
    // So slow that it would take a minute.
    let slow = ["compare", "run", "orders", "--standby", "oslo", "--rate", "500KiB/s"];
    let mut running = rig.node.beside_others(&slow, "slow.log");
    let held = rig.stands("held");
    assert_eq!(held["problem"], serde_json::Value::Null, "{held}");
    let stood = rig.standby.sql("select pg_last_wal_replay_lsn()");
    let_pass(Duration::from_secs(3));
    let (code, _, error) = rig.compare(&[]);
    assert_eq!(code, Some(5), "a standby is compared once at a time: {error}");
    assert!(error.contains("FS-1106"), "{error}");
    // It may have been raised to its cut since; by now it stands.
    let stands = rig.standby.sql("select pg_last_wal_replay_lsn()");
    let_pass(Duration::from_secs(1));
    assert_eq!(rig.standby.sql("select pg_last_wal_replay_lsn()"), stands, "{stood}");
    running.signal(Signal::SIGKILL);
    assert!(running.wait(SOON).is_some());
    rig.stands("streaming");
    let _report = load.wait();
    rig.caught_up();
    // What it left is no other one's hindrance for long.
    let came = wait_for(SOON, || {
        let (code, came, _) = rig.compare(&[]);
        (code == Some(0)).then_some(came)
    });
    assert!(came.is_some(), "{}", rig.node.log());
    rig.stands("streaming");
}

/// Each standby of a cluster looks like every other: only the one of that name is held.
#[test]
fn another_standby_at_the_address_is_never_compared_in_its_place() {
    let rig = Rig::of(primary(Major::V15).start());
    rig.primary.sql("create table kept as select n from generate_series(1, 100) n");
    rig.caught_up();
    rig.is_equal();
    let (_bergen, _place, url) = rig.another("bergen");
    rig.node.configure(|text| {
        let own = text.lines().find(|line| line.starts_with("oslo = ")).unwrap().to_owned();
        text.replace(&own, &format!("oslo = \"{url}\""))
    });
    let (code, came, error) = rig.compare(&[]);
    assert_eq!((code, &came["verdict"]), (Some(10), &"not_compared".into()), "{came:#}\n{error}");
    assert!(came.to_string().contains("follows as bergen"), "{came:#}");
}

#[test]
fn a_database_of_which_every_table_was_left_out_is_not_called_equal() {
    let rig = Rig::of(primary(Major::V15).start());
    rig.primary.sql("create table kept as select n from generate_series(1, 100) n");
    rig.caught_up();
    for more in [&["--exclude", "public.kept"][..], &["--exclude", "public.kept", "--table", "public.kept"]] {
        let (code, came, error) = rig.compare(more);
        assert_eq!((code, &came["verdict"]), (Some(10), &"not_compared".into()), "{came:#}\n{error}");
    }
}
