//! The promise: behind a bypass a database is refreshed by moving less than twice the bytes that changed, and what is restored from that is what the primary holds; a backup of
//! which bytes are another's is sound only as that one is.
//!
//! Method: a real server lets log go that its slots want, while its tables change. What changed is counted in its own files, block by block.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use farshore_journal::backup::{BLOCK_BYTES, PathSum, Sum};
use farshore_journal::format::object::{ChainUse, Compression, Piece};
use farshore_journal::format::{ChainValue, Decoded, Digest, Draft};
use farshore_testkit::pg::{Length, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::soak::Campaign;
use farshore_testkit::user;
use serde_json::Value;
use service::{CONTENT, Node, SOON, all, count, flushed, lost_log};

/// The digests of a server's files by path and block; not of its log, which is no part of a base backup.
fn blocks(server: &Server) -> HashMap<(PathBuf, usize), Sum> {
    server.sql("checkpoint");
    let mut found = HashMap::new();
    let mut folders = vec![server.data_dir().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if !["pg_wal", "pg_replslot", "pg_stat_tmp"].contains(&name) {
                    folders.push(path);
                }
            } else if let Ok(content) = std::fs::read(&path) {
                let sums = content.chunks(BLOCK_BYTES).map(Sum::of).enumerate();
                found.extend(sums.map(|(number, sum)| ((path.clone(), number), sum)));
            }
        }
    }
    found
}

/// Bytes of blocks that are there now and were not, or were otherwise.
fn changed(before: &HashMap<(PathBuf, usize), Sum>, after: &HashMap<(PathBuf, usize), Sum>) -> u64 {
    let new = after.iter().filter(|(block, sum)| before.get(*block) != Some(*sum)).count();
    (new * BLOCK_BYTES) as u64
}

/// Has the server let go what its slots want, with as little change as that takes.
fn bypass(server: &Server) {
    let limit = |size: &str| {
        server.sql(&format!("alter system set max_slot_wal_keep_size = '{size}'"));
        server.reload();
        let shown = || server.sql("select current_setting('max_slot_wal_keep_size')");
        assert!(wait_for(SOON, || (shown() == size).then_some(())).is_some());
    };
    limit("16MB");
    let lost = || server.sql("select count(*) from pg_replication_slots where wal_status = 'lost'");
    for _ in 0..20 {
        server.sql("select txid_current(); select pg_switch_wal(); checkpoint");
        if lost() == "2" {
            break;
        }
    }
    assert_eq!(lost(), "2", "{}", server.sql("select * from pg_replication_slots"));
    limit("-1");
}

/// The node's backups, oldest first, as `backup list` says.
fn listed(node: &Node) -> Vec<Value> {
    let answer = node.json(&["backup", "list", "orders"]);
    let mut found: Vec<Value> = all(&answer).into_iter().cloned().collect();
    found.sort_by_key(|one| one["started"].as_str().unwrap().to_owned());
    found
}

fn moved(one: &Value) -> u64 {
    one["stored_bytes"].as_u64().unwrap()
}

/// Has what is stored not be compressed, so that what moved can be held against what changed.
fn as_it_is(node: &Node) {
    node.configure(|text| {
        text.replace("[databases.orders]\n", "[databases.orders]\ncompression = \"none\"\n")
    });
}

/// Seals what the node stores from now on.
fn seal(node: &Node) {
    let identity = age::x25519::Identity::generate();
    let key = node.folder().join("identity");
    let secret = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
    std::fs::write(&key, secret + "\n").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let keys = format!("identity_file = \"identity\"\nrecipients = [\"{}\"]", identity.to_public());
    node.configure(|text| text.replace("[stores.main]\n", &format!("[stores.main]\n{keys}\n")));
    user::give(node.folder());
}

fn folder_of(node: &Node, backup: &Value) -> PathBuf {
    let incarnation = backup["incarnation"].as_str().unwrap();
    node.folder().join(format!("journal/db/orders/{incarnation}/backups/{}", backup["id"].as_str().unwrap()))
}

fn said(node: &Node, arguments: &[&str]) -> (Option<i32>, String) {
    let output = node.run(arguments);
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// A database whose service was away while its server let log go, refreshed; and what changed in its files meanwhile.
fn refreshed(sealed: bool) -> (Server, Node, u64) {
    let server = lost_log::server();
    server.pgbench_init(5);
    let node = Node::new(&[&server]);
    match sealed {
        true => seal(&node),
        false => as_it_is(&node),
    }
    let service = node.start(None);
    node.wait_backup(1);
    service.stop();
    let before = blocks(&server);
    assert!(server.pgbench(2, Length::Transactions(300)).wait().transactions > 0);
    server.sql("create table added as select generate_series(1, 5000) g; delete from pgbench_accounts where aid % 1000 = 7; vacuum pgbench_accounts");
    bypass(&server);
    let after = blocks(&server);
    let service = node.start(None);
    node.wait_backup(2);
    service.wait_log("blocks that an earlier base backup holds are not put again");
    assert!(server.pgbench(1, Length::Transactions(50)).wait().transactions > 0);
    node.wait_end(1, flushed(&server));
    service.stop();
    (server, node, changed(&before, &after))
}

#[test]
fn a_database_that_lost_log_is_refreshed_by_moving_what_changed_and_restored_as_the_primary_is() {
    for sealed in [false, true] {
        let (server, node, changed) = refreshed(sealed);
        let [base, refresh] = &listed(&node)[..] else { panic!("{:?}", listed(&node)) };
        let (full, moved) = (moved(base), moved(refresh));
        assert!(moved < 2 * changed && moved < full, "{moved} moved, {changed} changed, {full} in full");
        assert_eq!(refresh["refers_to"], serde_json::json!([base["id"]]));
        assert!(refresh["database_bytes"].as_u64().unwrap() > 75 << 20, "{refresh}");
        let content = server.sql(CONTENT);
        let copy = node.restore(&["--latest"]);
        assert_eq!(copy.sql(CONTENT), content);
        assert_eq!(copy.sql("select count(*) from added"), "5000");
        let (code, found) = said(&node, &["verify", "orders"]);
        assert_eq!(code, Some(0), "{found}");
        if !sealed {
            taken_out_by_hand(&node, refresh);
        }
    }
}

/// Taken out without farshore, each file has the SHA-256 that the server gave it, whichever backup holds its blocks.
fn taken_out_by_hand(node: &Node, backup: &Value) {
    let into = user::tempdir();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/manual-recovery/cut.py");
    let mut cut = Command::new("python3");
    cut.arg(script).arg("base").arg(node.folder().join("journal")).arg("orders");
    let output = cut.arg(backup["id"].as_str().unwrap()).arg(into.path().join("data")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(into.path().join("data/global/pg_control").exists());
}

#[test]
fn a_refresh_is_what_the_backup_is_that_it_refers_to() {
    let (_server, node, _) = refreshed(false);
    let [base, refresh] = &listed(&node)[..] else { panic!("{:?}", listed(&node)) };
    let name = |one: &Value| one["id"].as_str().unwrap().to_owned();
    let folder = folder_of(&node, base);
    let restore = || {
        let place = user::tempdir();
        said(
            &node,
            &["restore", "orders", "--latest", "--to", &place.path().join("data").display().to_string()],
        )
    };
    // Digests of blocks are needed by no restore: they are named, and the backup is none the worse.
    let sums = folder.join("sums-0000000000000000");
    let kept = std::fs::read(&sums).unwrap();
    flip(&sums);
    let (code, found) = said(&node, &["verify", "orders"]);
    assert!(code != Some(0) && found.contains("digests of its blocks"), "{code:?} {found}");
    std::fs::write(&sums, &kept).unwrap();
    // A part of the other one, changed.
    let part = folder.join("part-0000000000000000");
    let kept = std::fs::read(&part).unwrap();
    flip(&part);
    let (code, found) = said(&node, &["verify", "orders"]);
    assert!(code != Some(0), "{found}");
    assert!(found.contains(&format!("backup {} refers to it", name(refresh))), "{found}");
    let (code, found) = restore();
    assert!(code != Some(0) && found.contains(&name(base)), "{code:?} {found}");
    std::fs::write(&part, &kept).unwrap();
    // All of it gone, as by hand: what is missing is named, and nothing is written.
    let manifest = folder.join("manifest");
    let away = folder.join("../../away");
    std::fs::rename(&manifest, &away).unwrap();
    let (code, found) = said(&node, &["verify", "orders"]);
    assert!(code != Some(0) && found.contains(&name(refresh)), "{code:?} {found}");
    let (code, found) = restore();
    assert!(code != Some(0) && found.contains(&name(base)), "{code:?} {found}");
    std::fs::rename(&away, &manifest).unwrap();
    assert_eq!(said(&node, &["verify", "orders"]).0, Some(0));
}

/// An object again with other plain bytes.
fn rewritten(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Digest {
    let decoded = Decoded::parse(std::fs::read(path).unwrap().into()).unwrap();
    let header = decoded.header().clone();
    let mut plain = decoded.plain_all(None).unwrap();
    change(&mut plain);
    let zero = ChainValue::from_bytes([0; 32]);
    let draft = Draft {
        kind: header.kind,
        store: header.store,
        incarnation: header.incarnation,
        number: header.number,
        generation: header.generation,
        writer: header.writer,
        timeline: header.timeline,
        start: header.start,
        end: header.end,
        written_at: header.written_at,
        chain: ChainUse::Stated { before: zero, after: zero },
        mark: header.mark,
    };
    let mut end = 0;
    let pieces = plain.chunks(1 << 20).map(|plain| {
        end += plain.len() as u64;
        Piece { end, plain }
    });
    let encoded = draft.encode(&pieces.collect::<Vec<_>>(), Compression::None, None).unwrap();
    std::fs::write(path, &encoded.bytes).unwrap();
    encoded.digest
}

/// An earlier base's digests are not sealed: by them a refresh may be led to a block for another. Its own say what the server sent.
#[test]
fn a_restore_refuses_blocks_of_an_earlier_base_that_are_not_what_the_server_sent() {
    let server = service::keeping().start();
    server.pgbench_init(1);
    let node = Node::new(&[&server]);
    seal(&node);
    let service = node.start(None);
    node.wait_backup(1);
    let folder = folder_of(&node, &listed(&node)[0]);
    let file =
        serde_json::to_value(PathSum::of(&server.sql("select pg_relation_filepath('pgbench_accounts')")))
            .unwrap();
    let table = folder.join("table");
    let decoded = Decoded::parse(std::fs::read(&table).unwrap().into()).unwrap();
    let mut said: Value = serde_json::from_slice(&decoded.plain_all(None).unwrap()).unwrap();
    let of = said["files"].as_array().unwrap().iter().find(|one| one["path"] == file).unwrap();
    let first = usize::try_from(of["first"].as_u64().unwrap()).unwrap() * 32;
    // The places of two blocks, one for the other.
    let digest = rewritten(&folder.join("sums-0000000000000000"), |plain| {
        for at in first + 24..first + 32 {
            plain.swap(at, at + 32);
        }
    });
    said["sums"][0]["digest"] = serde_json::to_value(digest).unwrap();
    rewritten(&table, |plain| *plain = serde_json::to_vec(&said).unwrap());
    let taken = node.run(&["backup", "run", "orders", "--refresh"]);
    assert!(taken.status.success(), "{taken:?}");
    let [base, refresh] = &listed(&node)[..] else { panic!("{:?}", listed(&node)) };
    assert_eq!(refresh["refers_to"], serde_json::json!([base["id"]]));
    let place = user::tempdir();
    let to = place.path().join("data").display().to_string();
    let (code, found) = self::said(&node, &["restore", "orders", "--latest", "--to", &to]);
    assert!(code != Some(0) && found.contains("as the server sent it"), "{code:?} {found}");
    service.stop();
}

#[test]
fn a_refresh_by_hand_refers_and_a_full_one_does_not_whatever_is_configured() {
    let server = service::keeping().start();
    server.pgbench_init(1);
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    let run = |more: &[&str]| {
        let output = node.run(&[&["-o", "json", "backup", "run", "orders"], more].concat());
        assert!(output.status.success(), "{output:?}\n{}", node.log());
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        !service::first(&answer)["refers_to"].as_array().unwrap().is_empty()
    };
    assert!(!run(&[]), "by hand it is a full one unless something is said");
    assert!(run(&["--refresh"]));
    assert!(!run(&["--full"]));
    node.configure(|text| text.replace("[databases.orders]\n", "[databases.orders]\nrefresh = \"always\"\n"));
    assert!(run(&[]) && !run(&["--full"]));
    let both = node.run(&["backup", "run", "orders", "--full", "--refresh"]);
    assert_eq!(both.status.code(), Some(2), "{both:?}");
    node.configure(|text| text.replace("refresh = \"always\"", "refresh = \"never\""));
    assert!(!run(&[]));
    let newest = listed(&node).pop().unwrap();
    assert!(!folder_of(&node, &newest).join("table").exists(), "no digests are kept");
    let refused = node.run(&["backup", "run", "orders", "--refresh"]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("FS-") && why.contains("never"), "{why}");
    // What the catalog knows to be bad is not referred to.
    node.configure(|text| text.replace("refresh = \"never\"", "refresh = \"always\""));
    assert!(run(&[]));
    node.change_catalog("update backup set bad_at = 1");
    assert!(!run(&[]));
    // Nor what it does not know to be well: found in the store, and opened by nobody.
    assert!(run(&[]));
    node.change_catalog("update backup set checked = 0");
    assert!(!run(&[]));
    service.stop();
}

/// The size that a user would see: `FARSHORE_SCALE` 70 is a GiB, `FARSHORE_LOAD_SECONDS` 300 the five minutes of a bypass, `FARSHORE_LOAD_RATE` its transactions a second. Nothing is
/// compressed: what moves would be less than what changes anyway.
#[test]
fn soak_refreshes_move_less_than_twice_what_changed() {
    let mut campaign = Campaign::start("refreshes_move_less_than_twice_what_changed");
    let (scale, seconds) = if campaign.is_brief() { (3, 2) } else { (70, 300) };
    let scale = u32::try_from(count("FARSHORE_SCALE", scale)).unwrap();
    let load = Duration::from_secs(count("FARSHORE_LOAD_SECONDS", seconds));
    let rate = count("FARSHORE_LOAD_RATE", if campaign.is_brief() { 300 } else { 50 }).to_string();
    let content = "select sum(hashtext(a::text)::bigint) || ' ' || count(*) from pgbench_accounts a
        union all select sum(hashtext(h::text)::bigint) || ' ' || count(*) from pgbench_history h";
    while campaign.next_round() {
        let server = lost_log::server();
        server.pgbench_init(scale);
        let node = Node::new(&[&server]);
        as_it_is(&node);
        if campaign.random.below(2) == 0 {
            seal(&node);
        }
        let service = node.start(None);
        let patient = |wanted: usize| {
            let found = wait_for(Duration::from_secs(900), || (node.backups() >= wanted).then_some(()));
            assert!(found.is_some(), "{}", node.log());
        };
        patient(1);
        service.stop();
        let before = blocks(&server);
        campaign.count(
            "transactions",
            server.pgbench_with(2, Length::For(load), &["-R", &rate]).wait().transactions,
        );
        bypass(&server);
        let changed = changed(&before, &blocks(&server));
        let service = node.start(None);
        patient(2);
        node.wait_end(1, flushed(&server));
        service.stop();
        let [base, refresh] = &listed(&node)[..] else { panic!("{:?}", listed(&node)) };
        let database = refresh["database_bytes"].as_u64().unwrap();
        assert!(moved(refresh) < 2 * changed, "{} moved, {changed} changed", moved(refresh));
        campaign.count("database_mib", database >> 20);
        campaign.count("changed_mib", changed >> 20);
        campaign.count("moved_mib", moved(refresh) >> 20);
        campaign.count("full_mib", moved(base) >> 20);
        assert_eq!(node.restore(&["--latest"]).sql(content), server.sql(content));
        campaign.count("restores", 1);
    }
    campaign.finish();
}
