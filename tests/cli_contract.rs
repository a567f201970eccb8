//! Promises of the built binary to those who run it: exit codes, streams, files.
//!
//! Method: the real binary, in a folder of its own, with an environment of its own.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const CONFIG: &str = r#"
[stores.main]
url = "file:journal"
[databases.orders]
engine = "postgres"
url = "postgresql://farshore@localhost/postgres"
stores = ["main"]
[databases.billing]
engine = "postgres"
url = "postgresql://farshore@localhost:5433/postgres"
stores = ["main"]
"#;

fn command(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farshore"));
    command.args(line.split_whitespace()).current_dir(folder).env_clear().stdin(Stdio::null());
    command
}

fn run(folder: &Path, line: &str) -> Output {
    command(folder, line).output().unwrap()
}

fn code(folder: &Path, line: &str) -> i32 {
    let output = run(folder, line);
    output.status.code().unwrap_or_else(|| panic!("{line}: {output:?}"))
}

fn configured() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("farshore.toml"), CONFIG).unwrap();
    folder
}

const INIT: &str =
    "init --no-input --url postgresql://farshore@db1/postgres --store file:journal --on-full hold";

#[test]
fn every_end_has_its_exit_code() {
    let folder = configured();
    for (line, expected) in [
        ("--help", 0),
        ("--version", 0),
        ("restore --help", 0),
        ("", 2),
        ("nonsense", 2),
        ("--tz Mars/Base status", 2),
        ("restore orders --latest", 2),
        ("restore orders --latest --at 2026-03-29T14:05Z --to x", 2),
        ("restore orders --at 2026-03-29T14:05 --to x", 2),
        // Never in that zone; and a time there, with nothing stored.
        ("--tz Europe/Berlin restore orders --at 2026-03-29T02:30 --to x", 2),
        ("restore orders --at 2026-03-29T14:05 --to x --tz Europe/Berlin", 6),
        ("-c missing.toml status", 2),
        ("status nowhere", 3),
        ("man nonsense", 3),
        ("restore orders --latest --in-place --confirm billing --yes", 4),
        (INIT, 5),
        // Nothing was ever shipped: the catalog knows nothing, and there is no store to read.
        ("status", 3),
        ("backup list", 6),
        ("verify", 6),
        ("restore orders --latest --to x", 6),
    ] {
        assert_eq!(code(folder.path(), line), expected, "farshore {line}");
    }
}

#[test]
fn wal_push_never_ends_above_125_and_never_claims_success() {
    let folder = configured();
    for line in [
        "wal push pg_wal/x",
        "wal push --db orders pg_wal/x",
        "wal push --db nowhere pg_wal/x",
        "wal push",
        "wal push --wrong x",
        "-c missing.toml wal push x",
    ] {
        assert_eq!(code(folder.path(), line), 1, "farshore {line}");
    }
}

#[test]
fn wal_fetch_ends_with_170_for_every_doubt_so_that_recovery_does_not_end_early() {
    let folder = configured();
    for line in [
        "wal fetch 000000010000000000000001 x",
        "wal fetch --db orders 000000010000000000000001 x",
        "wal fetch --db nowhere 000000010000000000000001 x",
        "wal fetch",
        "wal fetch --wrong a b",
        "-c missing.toml wal fetch a b",
    ] {
        assert_eq!(code(folder.path(), line), 170, "farshore {line}");
    }
}

#[test]
fn check_says_unknown_and_never_ok_for_what_was_not_looked_at() {
    let folder = configured();
    let output = run(folder.path(), "check orders -o json");
    assert!(matches!(output.status.code(), Some(8 | 9)), "{output:?}");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["schema"], "farshore.check/1");
    let items = answer["items"].as_array().unwrap();
    assert!(!items.is_empty());
    assert!(items.iter().filter(|item| item["code"] == "role.rights").all(|item| item["level"] != "ok"));
}

#[test]
fn a_failure_leaves_standard_output_empty_and_is_json_when_json_was_asked_for() {
    let folder = configured();
    let output = run(folder.path(), "status nowhere -o json");
    assert!(output.stdout.is_empty());
    let message: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((message["code"].as_str(), message["exit"].as_u64()), (Some("FS-0103"), Some(3)));
}

#[test]
fn init_writes_files_that_only_their_owner_reads_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &format!("{INIT} --encrypt"));
    assert!(output.status.success(), "{output:?}");
    let mut before = Vec::new();
    for name in ["farshore.toml", "farshore-identity.txt", "farshore-signing.pem"] {
        let path = folder.path().join(name);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        before.push((path.clone(), std::fs::read(path).unwrap()));
    }
    let private = String::from_utf8(before[1].1.clone()).unwrap();
    let key = private.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap();
    let shown = String::from_utf8([output.stdout, output.stderr, before[0].1.clone()].concat()).unwrap();
    assert!(!shown.contains(key), "the private key stands in its file alone");
    let signing = String::from_utf8(before[2].1.clone()).unwrap();
    assert!(!shown.contains(signing.lines().nth(1).unwrap()), "the signing key stands in its file alone");

    assert_eq!(code(folder.path(), &format!("{INIT} --encrypt")), 5);
    // The key alone is enough to refuse: a new one would make what is stored unreadable.
    std::fs::remove_file(&before[0].0).unwrap();
    assert_eq!(code(folder.path(), &format!("{INIT} --encrypt")), 5);
    assert!(!before[0].0.exists());
    assert_eq!(std::fs::read(&before[1].0).unwrap(), before[1].1);
    assert_eq!(code(folder.path(), INIT), 5, "nor is a signing key replaced");
    assert_eq!(std::fs::read(&before[2].0).unwrap(), before[2].1);
    assert_eq!(code(folder.path(), &format!("{INIT} --signing-key-out other.pem")), 0);
}

#[test]
fn init_without_anyone_to_ask_names_the_flag_that_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), "init --url postgresql://farshore@db1/postgres --store file:journal");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--on-full"));
    assert!(!folder.path().join("farshore.toml").exists());
}

#[test]
fn what_means_nothing_for_a_sqlite_database_is_a_wrong_line_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = "init --no-input --path app.db --store file:journal";
    for more in ["--url postgresql://farshore@db1/postgres", "--on-full hold", "--password-file pw"] {
        assert_eq!(code(folder.path(), &format!("{path} {more}")), 2, "{more}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_init_writes_is_a_configuration_this_version_reads() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(code(folder.path(), &format!("{INIT} --encrypt --rpo 30s")), 0);
    // Not 2: the configuration was read, the database was never shipped.
    assert_eq!(code(folder.path(), "status main"), 3);
}

#[test]
fn completions_and_manual_pages_are_not_empty() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = run(folder.path(), &format!("completions {shell}"));
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains("restore"), "{shell}");
    }
    for verb in ["man", "man restore", "man wal fetch"] {
        let page = String::from_utf8(run(folder.path(), verb).stdout).unwrap();
        assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH EXAMPLES"), "{verb}");
    }
}

#[test]
fn a_reader_that_closes_the_pipe_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let mut child =
        command(folder.path(), "man").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_password_in_the_url_is_warned_of_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let config = CONFIG.replace("farshore@localhost/", "farshore:hunter2@localhost/");
    std::fs::write(folder.path().join("farshore.toml"), config).unwrap();
    let output = run(folder.path(), "-v check orders");
    let shown = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(shown.contains("FARSHORE_DATABASES_ORDERS_PASSWORD"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
