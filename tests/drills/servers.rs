//! Drills of PostgreSQL servers under load.

use std::path::PathBuf;
use std::time::Duration;

use farshore_testkit::pg::{Length, Major, Mode, Server};
use farshore_testkit::user;

use crate::rig::{configure, drill, nothing_left, place, verifies, working_in};
use crate::service::{Node, flushed};

/// A server whose pages carry checksums, with tables and log behind its base, whose drills are signed.
pub fn shipped() -> (Server, Node) {
    let server = Server::builder(Major::V15).checksums(true).conf("checkpoint_timeout = 30min").start();
    server.pgbench_init(1);
    let node = Node::new(&[&server]);
    node.sign_heads();
    let service = node.start(None);
    node.wait_backup(1);
    node.wait_connected();
    server.sql("create table behind (n int primary key)");
    server.sql("insert into behind select generate_series(1, 20000)");
    node.wait_end(1, flushed(&server));
    service.stop();
    (server, node)
}

#[test]
fn a_server_under_load_is_drilled_at_random_points_and_each_drill_is_certified() {
    let (server, node) = shipped();
    configure(
        &node,
        "rto = \"10m\"\n[databases.orders.drill]\npoint = \"random\"\ntables = [\"public.pgbench_branches\"]\nassertions = [\n\
         { name = \"one branch\", sql = \"select count(*) = 1 from pgbench_branches\" },\n\
         { name = \"balances agree\", sql = \"select (select sum(bbalance) from pgbench_branches) = (select sum(tbalance) from pgbench_tellers)\" },\n]\n",
    );
    let service = node.start(None);
    node.wait_connected();
    let load = server.pgbench(2, Length::For(Duration::from_secs(30)));
    for _ in 0..3 {
        let one = drill(&node, &[]).passed();
        let said = one.statement();
        assert_eq!(one.check("page checksums")["outcome"], "passed", "{said:#}");
        // Nobody made the extension in it: that is not called passed.
        assert_eq!(one.check("amcheck")["outcome"], "not_looked_at", "{said:#}");
        assert_eq!(one.check("assertion: balances agree")["outcome"], "passed");
        assert!(said["point"]["seed"].is_u64() && !said["point"]["spans"].as_array().unwrap().is_empty());
        assert_eq!(said["tables"][0]["rows"], 1);
        let network = said["network"].as_str().unwrap();
        assert!(network.contains("namespace"), "{network}");
        verifies(&node, &one.id());
        nothing_left(&place(&node));
    }
    drop(load);
    let latest = drill(&node, &["--point", "latest"]).passed();
    drill(&node, &["--point", "oldest"]).passed();
    service.stop();
    assert!(latest.statement()["measured"]["replay_us"].as_u64().unwrap() > 0);
    assert!(
        server.sql("select count(*) from pg_stat_replication where application_name like '%drill%'") == "0"
    );
    nothing_left(&place(&node));
}

#[test]
fn relations_are_looked_at_by_amcheck_where_its_extension_is() {
    let (server, node) = shipped();
    let service = node.start(None);
    node.wait_connected();
    server.sql("create extension amcheck");
    node.wait_end(1, flushed(&server));
    service.stop();
    let one = drill(&node, &[]).passed();
    assert_eq!(one.check("amcheck")["outcome"], "passed", "{}", one.said);
}

#[test]
fn a_rule_that_does_not_hold_fails_a_servers_drill_and_nothing_can_be_written() {
    let (_server, node) = shipped();
    configure(
        &node,
        "[databases.orders.drill]\nstatement_timeout = \"2s\"\ntables = [\"behind\", \"gone\"]\nassertions = [\n\
         { name = \"counts\", sql = \"select count(*) = 1 from behind\" },\n\
         { name = \"casts\", sql = \"select 'hunter2'::int\" },\n\
         { name = \"writes\", sql = \"delete from behind\" },\n\
         { name = \"sleeps\", sql = \"select pg_sleep(60) is null\" },\n]\n",
    );
    let failed = drill(&node, &[]).failed("FS-0801", 8, "counts: it is not true");
    for (name, why) in [
        ("assertion: counts", "not true"),
        ("assertion: casts", "SQLSTATE 22P02"),
        ("assertion: writes", "it would write"),
        ("assertion: sleeps", "took too long"),
        ("table gone is counted", "SQLSTATE 42P01"),
    ] {
        let check = failed.check(name);
        assert_eq!(check["outcome"], "failed", "{check}");
        assert!(check["detail"].as_str().unwrap().contains(why), "{check}");
    }
    assert_eq!(failed.statement()["tables"][0]["rows"], 20000);
    assert!(!format!("{} {}", failed.said, failed.stderr).contains("hunter2"));
    verifies(&node, &failed.id());
    nothing_left(&place(&node));
}

#[test]
fn a_server_that_will_not_start_fails_the_drill_with_its_own_reason() {
    let (_server, node) = shipped();
    // A folder of programs that are what they say, but for the server, which ends as one without memory does.
    let bin = node.folder().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let real = Major::V15.bin();
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in --version) exec {}/postgres --version;; esac\necho 'FATAL:  could not map anonymous shared memory' >&2\nexit 1\n",
        real.display()
    );
    std::fs::write(bin.join("postgres"), script).unwrap();
    std::fs::set_permissions(bin.join("postgres"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    user::give(&bin);
    let was = format!("bin_dir = \"{}\"", real.display());
    node.configure(|text| {
        assert!(text.contains(&was));
        text.replace(&was, &format!("bin_dir = \"{}\"", bin.display()))
    });
    let failed = drill(&node, &[]).failed("FS-0503", 1, "the server ended before the target");
    assert_eq!(failed.statement()["failure"]["phase"], "replay", "{}", failed.said);
    assert!(failed.stderr.contains("could not map anonymous shared memory"), "{}", failed.stderr);
    verifies(&node, &failed.id());
    nothing_left(&place(&node));
    node.configure(|text| text.replace(&bin.display().to_string(), &real.display().to_string()));
    drill(&node, &[]).passed();
}

/// A page that the server itself has damaged is stored like that: the copy opens, and its checksum is found not to hold.
#[test]
fn a_page_that_was_damaged_at_the_source_fails_the_drill() {
    let server = Server::builder(Major::V15).checksums(true).start();
    server.pgbench_init(1);
    server.sql("checkpoint");
    let file: PathBuf = server.data_dir().join(server.sql("select pg_relation_filepath('pgbench_accounts')"));
    server.stop(Mode::Fast);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[3 * 8192 + 4000] ^= 0x55;
    std::fs::write(&file, &bytes).unwrap();
    server.start();
    let node = Node::new(&[&server]);
    node.sign_heads();
    let service = node.start(None);
    node.wait_backup(1);
    service.stop();
    let failed = drill(&node, &[]).failed("FS-0801", 8, "page checksums: 1 pages");
    assert_eq!(failed.check("page checksums")["outcome"], "failed");
    assert_eq!(failed.check("stands at exactly the planned position")["outcome"], "passed");
    verifies(&node, &failed.id());
    nothing_left(&place(&node));
}

#[test]
fn log_that_is_missing_fails_a_servers_drill_until_it_is_back() {
    let (server, node) = shipped();
    let service = node.start(None);
    node.wait_connected();
    for round in 0..4 {
        server.sql(&format!(
            "insert into behind select generate_series({0} + 1, {0} + 5000)",
            100_000 + round * 10_000
        ));
        node.wait_end(1, flushed(&server));
    }
    service.stop();
    let journal = node.folder().join("journal/db/orders");
    let incarnation = std::fs::read_dir(&journal)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.join("journal").is_dir())
        .unwrap();
    let mut chunks: Vec<PathBuf> =
        std::fs::read_dir(incarnation.join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    chunks.sort();
    let missing = &chunks[chunks.len() - 3];
    let away = node.folder().join("away");
    std::fs::rename(missing, &away).unwrap();
    let failed = drill(&node, &[]);
    assert_ne!(failed.exit, Some(0));
    assert_eq!(failed.statement()["verdict"], "failed", "{}", failed.stderr);
    assert!(failed.message["happened"].as_str().unwrap().contains("chunk 0"), "{}", failed.message);
    verifies(&node, &failed.id());
    nothing_left(&place(&node));
    std::fs::rename(&away, missing).unwrap();
    drill(&node, &[]).passed();
    nothing_left(&place(&node));
    assert!(working_in(&place(&node)).is_empty());
}
