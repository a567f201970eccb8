//! The promise: what goes to a database's stores stays below its limit, all of it together, and nothing else changes: all
//! is stored in the end, the stream stays open, and a service that is stopped stops.
//!
//! Rules set a limit, run programs that are ended with all that they started, and are seen and tried out.
//! `soak_bandwidth` measures minutes of it for as long as it is given.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;
mod sqlite;

use std::path::Path;
use std::time::{Duration, Instant};

use farshore_testkit::pg::Server;
use farshore_testkit::process::wait_for;
use farshore_testkit::soak::Campaign;
use service::{Node, SOON, all, flushed, keeping, let_pass};
use sqlite::application::Application;

/// Bytes of all objects in a folder's store, and of those that are being written.
fn stored(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => stored(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Writes at least so many bytes of log that hardly compress, at once.
fn burst(server: &Server, megabytes: u64) {
    server.sql(
        "create table if not exists noise (text text); alter table noise alter text set storage external",
    );
    server.sql(&format!(
        "insert into noise select string_agg(md5(random()::text), '') from generate_series(1, {}) as n group by n % {}",
        megabytes * 32_768,
        megabytes * 256
    ));
}

/// Looks every tenth of a second at what is stored.
fn watch(folder: &Path, length: Duration) -> Vec<(Duration, u64)> {
    let (began, mut seen) = (Instant::now(), Vec::new());
    while began.elapsed() < length {
        let bytes = stored(folder);
        seen.push((began.elapsed(), bytes));
        let_pass(Duration::from_millis(100));
    }
    seen
}

/// The highest and the lowest rate of any span of so long.
fn rates(seen: &[(Duration, u64)], span: Duration) -> (f64, f64) {
    let mut rates = Vec::new();
    for (from, before) in seen {
        let Some((to, after)) = seen.iter().find(|(at, _)| *at >= *from + span) else { break };
        rates.push((after - before) as f64 / (*to - *from).as_secs_f64());
    }
    let highest = rates.iter().copied().fold(f64::MIN, f64::max);
    (highest, rates.iter().copied().fold(f64::MAX, f64::min))
}

fn limited(server: &Server, limit: &str) -> Node {
    let node = Node::new(&[server]);
    node.configure(|text| format!("{text}bandwidth = \"{limit}\"\n"));
    node
}

#[test]
fn a_limit_is_held_while_log_piles_up_and_all_of_it_is_stored_in_the_end() {
    const LIMIT: f64 = 2_000_000.0;
    let server = keeping().start();
    let node = limited(&server, "2MB/s");
    let service = node.start(None);
    node.wait_backup(1);
    node.wait_connected();
    burst(&server, 40);
    let seen = watch(&node.folder().join("journal"), Duration::from_secs(10));
    let (bytes, seconds) = (seen[seen.len() - 1].1 - seen[0].1, seen[seen.len() - 1].0.as_secs_f64());
    println!("{bytes} bytes in {seconds:.1} s: {:.3} of the limit", bytes as f64 / seconds / LIMIT);
    // A second's worth may have been saved up, and one object paid for before.
    assert!(bytes as f64 <= LIMIT * (seconds + 1.0 + 1.5), "{bytes} in {seconds}");
    assert!(bytes as f64 >= LIMIT * seconds * 0.5, "{bytes} in {seconds}\n{}", node.log());
    let status = node.status().unwrap();
    assert_eq!(status["state"], "connected", "{status}");
    node.wait_end(1, flushed(&server));

    // Stopped while it lags, it waits for no more than what is on its way.
    burst(&server, 40);
    let (end, began) = (flushed(&server), Instant::now());
    service.stop();
    let took = began.elapsed();
    assert!(node.end().unwrap().offset < end, "there was nothing to be in the way: {took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}\n{}", node.log());
    for said in ["the stream is closed", "shipping paused"] {
        assert!(!node.log().contains(said), "{said}:\n{}", node.log());
    }
    let service = node.start(None);
    node.wait_end(1, end);
    service.stop();
    let walked = node.prove(&[&server]);
    assert!(walked.len() == 1 && walked[0].gaps.is_empty(), "{walked:?}");
}

#[test]
fn a_limit_of_a_sqlite_database_is_held_and_large_transactions_are_stored_whole() {
    const LIMIT: f64 = 1_000_000.0;
    let node = sqlite::node(4096);
    node.configure(|text| format!("{text}bandwidth = \"1MB/s\"\n"));
    let service = node.start(None);
    node.wait_backup(1);
    let mut application = Application::open(&sqlite::database(&node));
    assert_eq!(application.ask("create table large (v blob)"), "[]");
    for _ in 0..3 {
        assert_eq!(application.ask("insert into large values (randomblob(3000000))"), "[]");
    }
    let seen = watch(&node.folder().join("journal"), Duration::from_secs(6));
    let (bytes, seconds) = (seen[seen.len() - 1].1 - seen[0].1, seen[seen.len() - 1].0.as_secs_f64());
    println!("{bytes} bytes in {seconds:.1} s: {:.3} of the limit", bytes as f64 / seconds / LIMIT);
    assert!(bytes as f64 <= LIMIT * (seconds + 1.0 + 1.5), "{bytes} in {seconds}");
    assert!(bytes as f64 >= LIMIT * seconds * 0.5, "{bytes} in {seconds}\n{}", node.log());
    sqlite::settle(&node);
    let copy = node.folder().join("copy");
    let restored = node.run(&["restore", "orders", "--latest", "--to", &sqlite::text(&copy)]);
    assert!(restored.status.success(), "{restored:?}\n{}", node.log());
    let mut restored = Application::open(&copy.join("app.db"));
    let all = "select count(*), total(length(v)), min(substr(hex(v), 1, 60)) from large";
    assert_eq!(restored.ask(all), application.ask(all));
    assert!(restored.ask(all).starts_with("[[3, 9000000.0"), "{}", restored.ask(all));
    service.stop();
    assert!(!node.log().contains("shipping paused"), "{}", node.log());
}

/// The process whose number stands in a file, if it lives.
fn lives(file: &Path) -> Option<bool> {
    let pid: u32 = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    Some(stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])))
}

#[test]
fn rules_limit_and_run_as_they_say_and_are_seen_and_tried_out() {
    let server = keeping().start();
    let node = Node::new(&[&server]);
    let script = |name: &str, text: &str| {
        let path = node.folder().join(name);
        std::fs::write(&path, text.replace("HERE", &node.folder().display().to_string())).unwrap();
        format!("run = [\"/bin/sh\", \"{}\", \"a b\"]", path.display())
    };
    let leaves =
        script("leaves.sh", "env > HERE/env; echo \"$1\" > HERE/argument; sleep 600 & echo $! > HERE/left\n");
    let second = script("second.sh", "test -e HERE/argument && touch HERE/second\n");
    let hangs = script("hangs.sh", "echo $$ > HERE/hung; sleep 600\n");
    node.configure(|text| {
        format!(
            "{text}bandwidth = \"50MB/s\"\n\
             [[databases.orders.throttles]]\nname = \"all-day\"\nwhen = \"00:00-24:00\"\n\
             actions = [{{ bandwidth = \"3MB/s\" }}, {{ {leaves} }}, {{ {second} }}]\n\
             [[databases.orders.throttles]]\nname = \"hangs\"\ndays = \"mon-sun\"\nactions = [{{ {hangs}, timeout = \"2s\" }}]\n\
             [[databases.orders.throttles]]\nname = \"behind\"\ntest = \"ship_lag above 1h\"\nactions = [{{ notify = true }}, {{ log = \"x\" }}]\n"
        )
    });
    let service = node.start_with(
        None,
        &[("FARSHORE_DATABASES_ORDERS_PASSWORD", "hunter2"), ("AWS_SECRET_ACCESS_KEY", "hunter3")],
    );
    node.wait_connected();
    let listed = wait_for(SOON, || {
        let listed = node.json(&["throttle", "list", "orders"]);
        let of = |rule: &str| all(&listed).into_iter().find(|one| one["rule"] == rule).cloned();
        let states = ["all-day", "behind"].map(|rule| of(rule).map(|rule| rule["state"].clone()));
        (states == [Some("active".into()), Some("quiet".into())]).then_some(listed)
    });
    let listed = listed.unwrap_or_else(|| panic!("{}\n{}", node.json(&["throttle", "list"]), node.log()));
    for one in all(&listed) {
        assert_eq!(one["holds_bytes_per_second"], 3_000_000, "{one}");
        assert!(!one["why"].as_str().unwrap().is_empty(), "{one}");
    }

    // What a program started is ended with it, and one that hangs after its time; neither knows a secret.
    service.wait_log("its time was over");
    for file in ["left", "hung"] {
        let ended = wait_for(SOON, || (lives(&node.folder().join(file)) == Some(false)).then_some(()));
        assert!(ended.is_some(), "{file} lives:\n{}", node.log());
    }
    let environment = std::fs::read_to_string(node.folder().join("env")).unwrap();
    assert!(
        environment.contains("FARSHORE_DATABASE=orders") && environment.contains("FARSHORE_RULE=all-day")
    );
    assert!(!environment.contains("hunter") && !environment.contains("PASSWORD"), "{environment}");
    // One behind the other.
    let ran = wait_for(SOON, || node.folder().join("second").exists().then_some(()));
    assert!(ran.is_some(), "{}", node.log());
    assert_eq!(std::fs::read_to_string(node.folder().join("argument")).unwrap(), "a b\n");
    service.stop();

    // What was measured is there, and other rules are tried out on it.
    let before = node.json(&["throttle", "test", "orders"]);
    let happened: Vec<String> =
        all(&before).iter().map(|one| format!("{} {}", one["rule"], one["what"])).collect();
    for wanted in ["\"all-day\" \"active\"", "\"all-day\" \"run /bin/sh\"", "null \"limit 3MB/s\""] {
        assert!(happened.iter().any(|one| one == wanted), "{wanted}: {happened:?}");
    }
    node.configure(|text| text.replace("3MB/s", "4MB/s"));
    let after = node.json(&["throttle", "test", "orders"]);
    assert!(all(&after).iter().any(|one| one["what"] == "limit 4MB/s"), "{after}");
}

#[test]
fn soak_bandwidth() {
    const LIMIT: f64 = 5_000_000.0;
    let mut campaign = Campaign::start("bandwidth");
    let server = keeping().start();
    let node = limited(&server, "5MB/s");
    node.configure(|text| format!("{text}compression = \"none\"\n"));
    let service = node.start(None);
    node.wait_backup(1);
    let (length, span, more) = match campaign.is_brief() {
        true => (Duration::from_secs(8), Duration::from_secs(5), 1),
        false => (Duration::from_secs(120), Duration::from_secs(60), 15),
    };
    while campaign.next_round() {
        // More than can go: what was made once is copied again and again.
        burst(&server, 50);
        for _ in 0..more {
            server.sql("insert into noise select text from noise limit 12800");
        }
        let seen = watch(&node.folder().join("journal"), length);
        let (highest, lowest) = rates(&seen, span);
        let status = node.status().unwrap();
        println!(
            "of any {span:?}: {:.4} of the limit at most, {:.4} at least; lag {}",
            highest / LIMIT,
            lowest / LIMIT,
            status["ship_lag_bytes"]
        );
        assert_eq!(status["state"], "connected", "{status}");
        let (most, least) = if campaign.is_brief() { (1.5, 0.4) } else { (1.05, 0.95) };
        assert!(highest <= most * LIMIT, "{highest}\n{}", node.log());
        assert!(lowest >= least * LIMIT, "{lowest}\n{}", node.log());
        campaign.count("seconds", length.as_secs());
        server.sql("truncate noise");
        if campaign.is_brief() {
            break;
        }
    }
    service.stop();
    assert!(!node.log().contains("the stream is closed"), "{}", node.log());
    campaign.finish();
}
