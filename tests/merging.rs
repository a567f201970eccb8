//! The promise: merging and tidying change nothing that a reader, a restore or the next shipper sees.
//!
//! `soak_merges_under_restores` does it for as long as it is given.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use farshore_journal::format::Unlock;
use farshore_journal::reader::{Keyring, Reader};
use farshore_journal::registry::Repository;
use farshore_journal::segments;
use farshore_journal::tidy::{TidyOptions, tidy};
use farshore_testkit::pg::{Length, Server};
use farshore_testkit::soak::Campaign;
use farshore_testkit::user;
use service::{Node, flushed, keeping, let_pass, wait};

/// A node that merges early and often.
fn merging(server: &Server) -> Node {
    let node = Node::new(&[server]);
    node.configure(|text| text.replace("\"200ms\"", "\"10ms\"") + "merge_at = \"64KiB\"\n");
    node
}

/// The newest incarnation's journal, through a store that may delete.
async fn journal(node: &Node) -> Reader {
    let repository = Repository::open(node.deleting_store()).await.unwrap();
    let records = repository.incarnations(&"orders".parse().unwrap()).await.unwrap();
    Reader::new(&repository, records.last().unwrap()).unwrap()
}

/// Segments in the store.
fn merged(node: &Node) -> u64 {
    wait(async {
        let reader = journal(node).await;
        segments::list(&**reader.store(), reader.layout()).await.unwrap().len() as u64
    })
}

/// Tidies again and again until told to stop; how many chunks were deleted in how many runs.
fn tidying(node: &Node, stop: &AtomicBool) -> (u64, u64) {
    wait(async {
        let (mut deleted, mut runs) = (0, 0);
        while runs == 0 || !stop.load(Ordering::Relaxed) {
            let reader = journal(node).await;
            let mut keys = Keyring::new(Unlock::none());
            let done = tidy(&reader, &mut keys, TidyOptions::at_once_for_tests()).await.unwrap();
            assert_eq!(done.refused, []);
            deleted += done.chunks;
            runs += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (deleted, runs)
    })
}

/// The log of a tidied journal, taken out without farshore, is the server's own.
fn recovered_by_hand(node: &Node, server: &Server) {
    let into = user::tempdir();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/manual-recovery/cut.py");
    let mut cut = Command::new("python3");
    cut.arg(script).arg("log").arg(node.folder().join("journal")).arg("orders").arg(into.path());
    let output = cut.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let end = usize::try_from(node.end().unwrap().offset.get() % service::SEGMENT).unwrap();
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(into.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let last = files.last().cloned();
    assert!(last.is_some(), "{output:?}");
    for path in files {
        let mine = std::fs::read(&path).unwrap();
        let theirs = std::fs::read(server.data_dir().join("pg_wal").join(path.file_name().unwrap())).unwrap();
        let until = if Some(&path) == last.as_ref() && end > 0 { end } else { mine.len() };
        assert!(mine[..until] == theirs[..until], "{} differs", path.display());
    }
}

#[test]
fn soak_merges_under_restores() {
    let mut campaign = Campaign::start("merges_under_restores");
    let server = keeping().start();
    server.pgbench_init(1);
    server.sql("create table marks (n bigint)");
    let node = Arc::new(merging(&server));
    let mut service = node.start(None);
    // What is asked for lies behind a base, however long one takes.
    node.wait_backup(1);
    let mut number = 0u64;
    while campaign.next_round() {
        let load = server.pgbench(4, Length::For(Duration::from_secs(600)));
        let_pass(Duration::from_secs(3));
        drop(load);
        number += 1;
        server.sql(&format!("insert into marks values ({number})"));
        let at = flushed(&server);
        server.sql(&format!("insert into marks values (-{number})"));
        node.wait_end(1, flushed(&server));
        // The next opening lets tidy have what was merged before it.
        service.stop();
        service = node.start(None);
        service.wait_log("took the journal over");
        let stop = Arc::new(AtomicBool::new(false));
        let tidying = std::thread::spawn({
            let (node, stop) = (Arc::clone(&node), Arc::clone(&stop));
            move || tidying(&node, &stop)
        });
        let restored = node.restore(&["--pos", &at.to_string()]);
        let expected = format!("{number}|{}", 2 * number - 1);
        assert_eq!(restored.sql("select max(n), count(*) from marks"), expected, "restored to {at}");
        drop(restored);
        stop.store(true, Ordering::Relaxed);
        let (deleted, runs) = tidying.join().unwrap();
        campaign.count("restores", 1);
        campaign.count("tidies", runs);
        campaign.count("deleted_chunks", deleted);
    }
    service.stop();
    recovered_by_hand(&node, &server);
    let segments = merged(&node);
    let walked = node.prove(&[&server]);
    assert_eq!(walked.len(), 1);
    assert!(walked[0].gaps.is_empty() && segments > 0, "{walked:?}, {segments} segments");
    campaign.count("merges", segments);
    campaign.count("walked_chunks", walked[0].chunks);
    campaign.finish();
}
