//! Where `tests/install` put the programs: it writes `tools.env`, this file reads it.
//!
//! A variable of the same name in the environment wins, so that one test run can be pointed at another build of a
//! server. Nothing here falls back to `PATH`: a test that ran against some other version would prove something else.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The program or folder that `key` names; `None` if the installer provides none.
pub(crate) fn find(key: &str) -> Option<PathBuf> {
    static INSTALLED: OnceLock<HashMap<String, PathBuf>> = OnceLock::new();
    if let Some(path) = std::env::var_os(key) {
        return Some(PathBuf::from(path));
    }
    INSTALLED.get_or_init(read).get(key).cloned()
}

/// As [`find`], for what must be there.
///
/// # Panics
/// If it is not, with the way to get it.
#[track_caller]
pub(crate) fn need(key: &str) -> PathBuf {
    match find(key) {
        Some(path) if path.exists() => path,
        Some(path) => panic!("{key} is {}, which is not there: run tests/install", path.display()),
        None => panic!("{key} is not installed: run tests/install"),
    }
}

/// The program that judges metrics, rules and their tests.
///
/// # Panics
/// If it is not installed, with the way to get it.
pub fn promtool() -> PathBuf {
    need("FARSHORE_PROMTOOL")
}

/// An interpreter of python that reads YAML: the one that the S3 server runs in.
///
/// # Panics
/// If it is not installed, with the way to get it.
pub fn python_with_yaml() -> PathBuf {
    need("FARSHORE_MOTO").with_file_name("python")
}

fn read() -> HashMap<String, PathBuf> {
    let candidates = folders();
    for folder in &candidates {
        if let Ok(text) = std::fs::read_to_string(folder.join("tools.env")) {
            return parse(&text);
        }
    }
    panic!("no tools.env in {candidates:?}: run tests/install");
}

/// The same choice of folder as in `tests/install`, and root's folder last: what root installed, all may use.
fn folders() -> Vec<PathBuf> {
    if let Some(folder) = std::env::var_os("FARSHORE_TEST_TOOLS") {
        return vec![PathBuf::from(folder)];
    }
    let shared = PathBuf::from("/var/tmp/farshore-test-tools");
    match std::env::var_os("HOME") {
        Some(home) if !nix::unistd::geteuid().is_root() => {
            vec![PathBuf::from(home).join(".cache/farshore-test-tools"), shared]
        }
        _ => vec![shared],
    }
}

fn parse(text: &str) -> HashMap<String, PathBuf> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, path)| (key.to_owned(), PathBuf::from(path)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_env_keeps_everything_behind_the_first_equals_sign() {
        let read = parse("A=/x/y\n\nB=/z=1\n");
        assert_eq!(read.get("A"), Some(&PathBuf::from("/x/y")));
        assert_eq!(read.get("B"), Some(&PathBuf::from("/z=1")));
        assert_eq!(read.len(), 2);
    }
}
