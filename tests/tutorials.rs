//! The promise: every command of the tutorials, and of the page of the REST API, works as it is written.
//!
//! Method: the lines of their `sh` blocks, in order, in one shell that ends at the first failure, as the unprivileged user in a folder of
//! its own, with nothing put in between.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

use std::path::Path;
use std::process::{Command, Stdio};

use farshore_testkit::pg::Major;
use farshore_testkit::user;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The lines of a page's `sh` blocks.
fn script(page: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = vec!["set -em"];
    let mut inside = false;
    for line in text.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => lines.push(line),
            _ => {}
        }
    }
    assert!(lines.len() > 20, "{page} has {} lines of commands", lines.len());
    lines.join("\n") + "\n"
}

/// What the shell said, having run all of a page.
fn follow(page: &str) -> String {
    let folder = user::tempdir();
    let binary = farshore_testkit::farshore_bin(env!("CARGO_BIN_EXE_farshore"));
    let file = folder.path().join("script");
    std::fs::write(&file, script(page)).unwrap();
    user::give(folder.path());
    let path = [binary.parent().unwrap(), &Major::V15.bin(), Path::new("/usr/bin"), Path::new("/bin")];
    let mut command = Command::new("/bin/bash");
    command.arg(&file).current_dir(folder.path()).stdin(Stdio::null());
    command.env("PATH", std::env::join_paths(path).unwrap()).env_remove("FARSHORE_CONFIG");
    // Files, not pipes: servers that a failed page leaves running would keep a pipe open for ever.
    let (said, complained) = (folder.path().join("said"), folder.path().join("complained"));
    command.stdout(std::fs::File::create(&said).unwrap()).stderr(std::fs::File::create(&complained).unwrap());
    let ended = user::run_as(command).status().unwrap();
    end_all_in(folder.path());
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let log = read(&folder.path().join("tutorial/run.log"));
    assert!(ended.success(), "{}\n{}\n{log}", read(&said), read(&complained));
    read(&said)
}

/// Ends what works in a folder.
fn end_all_in(folder: &Path) {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    for id in all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        if std::fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|place| place.starts_with(folder)) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

/// Whether these lines follow one another in what was said.
fn said_in_a_row(said: &str, lines: &[&str]) -> bool {
    let all: Vec<&str> = said.lines().map(str::trim).collect();
    all.windows(lines.len()).any(|window| window == lines)
}

#[test]
fn the_sqlite_tutorial_works_as_it_is_written() {
    let said = follow("tutorial-sqlite.md");
    assert!(said_in_a_row(&said, &["4", "first", "second", "third", "fourth"]), "{said}");
    assert_eq!(said.lines().last(), Some("after the mistake"), "{said}");
}

#[test]
fn the_postgresql_tutorial_works_as_it_is_written() {
    let said = follow("tutorial-postgres.md");
    assert!(said_in_a_row(&said, &["first", "second", "third", "fourth"]), "{said}");
    assert!(said.contains("farshore_orders_keep"), "{said}");
}

#[test]
fn the_page_of_the_rest_api_works_as_it_is_written() {
    let said = follow("rest.md");
    assert!(said.contains("\"state\":\"connected\""), "{said}");
    assert!(said.contains("\"is_final\":false") && said.contains("\"restorable_in\":[\"main\"]"), "{said}");
    assert_eq!(said.lines().last(), Some("401"), "{said}");
    assert!(!said.contains("fsh_"), "a token is shown where it need not be");
}
