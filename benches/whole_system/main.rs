//! Figures of the whole system, beside PostgreSQL's own tools and the machine's limits, in one run.
//!
//! ```text
//! cargo bench --bench whole_system                                  all parts; about eight minutes
//! cargo bench --bench whole_system -- --small                       the same with less, below two minutes
//! cargo bench --bench whole_system -- ship                          one part: backup, ship or restore
//! cargo bench --bench whole_system -- --log 1024 --scale 100 --rounds 3
//! cargo bench --bench whole_system -- ship --random                 a backlog that does not compress
//! cargo bench --bench whole_system -- --binary old=/tmp/farshore    this build beside another, in turn
//! cargo bench --bench whole_system -- --binary this=/tmp/farshore   a program that was built before
//! ```
//!
//! It builds the release program, starts Debian's PostgreSQL 15 and everything else itself, as an unprivileged user, and removes all of
//! it at the end. It needs `tests/install`, and some 12 GiB of disk. Figures are this machine's: compare ratios within one run, and
//! look at the last column, which says how much others used the machine meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a measuring program: it panics and prints
#![allow(clippy::disallowed_methods)] // it polls from a plain thread, with sleeps

mod backup;
mod figures;
mod restore;
mod setting;
mod ship;

use std::path::{Path, PathBuf};
use std::process::Command;

use setting::{Asked, Journal, Setting, backups, end, wait};

fn main() {
    let (asked, parts) = arguments();
    let wants = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    println!("commit {}, {}", git(&["rev-parse", "--short", "HEAD"]), date());
    println!(
        "backlog {} MiB {}, scale {}, {} rounds; load average {}",
        asked.log_mib,
        if asked.random { "of random bytes" } else { "of pgbench" },
        asked.scale,
        asked.rounds,
        std::fs::read_to_string("/proc/loadavg").unwrap().trim()
    );
    let setting = Setting::new(asked);
    let config = setting.configure("main");
    let store = setting.place("main").join("store");
    let first = setting.asked.binaries[0].1.clone();
    let service = setting.service(&first, &config);
    wait("the first base backup", || !backups(&store).is_empty());
    if wants("backup") {
        backup::measure(&setting);
    }
    if !wants("ship") && !wants("restore") {
        end(service);
        setting.end();
        return;
    }
    backup::keep_copy(&setting, "kept");
    let reached = setting.log_end();
    let mut journal = Journal::of(&store).unwrap();
    wait("the journal's catching up", || journal.end() >= reached);
    end(service);
    setting.server.sql("select pg_create_physical_replication_slot('hold', true)");
    let begin = journal.end();
    setting.write_backlog();
    let reached = setting.log_end();
    let places = ship::measure(&setting, begin, reached);
    if wants("restore") {
        restore::measure(&setting, &places, begin, reached);
    }
    println!("load average {}", std::fs::read_to_string("/proc/loadavg").unwrap().trim());
    setting.end();
}

fn arguments() -> (Asked, Vec<String>) {
    let mut asked = Asked { log_mib: 1024, scale: 100, rounds: 3, random: false, binaries: Vec::new() };
    let mut parts = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} wants a value"));
        match argument.as_str() {
            // Cargo says this to every benchmark.
            "--bench" => {}
            "--small" => (asked.log_mib, asked.scale, asked.rounds) = (256, 20, 1),
            "--log" => asked.log_mib = value().parse().unwrap(),
            "--scale" => asked.scale = value().parse().unwrap(),
            "--rounds" => asked.rounds = value().parse().unwrap(),
            "--random" => asked.random = true,
            "--binary" => {
                let text = value();
                let (name, path) = text.split_once('=').expect("--binary NAME=PATH");
                asked.binaries.push((name.to_owned(), farshore_testkit::farshore_bin(path)));
            }
            "backup" | "ship" | "restore" => parts.push(argument),
            _ => panic!("{argument}: the head of benches/whole_system/main.rs says what there is"),
        }
    }
    // A program that was named so is taken as it is, and nothing is built.
    if asked.binaries.iter().all(|(name, _)| name != "this") {
        asked
            .binaries
            .insert(0, ("this".to_owned(), farshore_testkit::farshore_bin(built().to_str().unwrap())));
    }
    (asked, parts)
}

/// The release program as it is shipped: what cargo built beside this benchmark has the tests' fail points in it.
fn built() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let done = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--bin", "farshore"])
        .current_dir(root)
        .status()
        .unwrap();
    assert!(done.success(), "the release build failed");
    let bench = std::env::current_exe().unwrap();
    let folder = bench.ancestors().nth(2).unwrap();
    // Copied, since the next build of a benchmark replaces it.
    let copy = folder.join("farshore-whole-system");
    std::fs::copy(folder.join("farshore"), &copy).unwrap();
    copy
}

fn git(arguments: &[&str]) -> String {
    let done = Command::new("git").args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    done.map(|done| String::from_utf8_lossy(&done.stdout).trim().to_owned()).unwrap_or_default()
}

fn date() -> String {
    let done = Command::new("date").args(["-u", "+%Y-%m-%d %H:%M"]).output().unwrap();
    String::from_utf8_lossy(&done.stdout).trim().to_owned() + " UTC"
}
