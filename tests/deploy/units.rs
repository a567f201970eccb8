//! Units of systemd: taken by it, tight, and told by the service what they wait for.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use clap::Parser as _;
use farshore::cli::Cli;
use farshore_testkit::process::wait_for;

use crate::service::SOON;
use crate::{read, sqlite};

pub const UNITS: [&str; 6] = [
    "farshore.service",
    "farshore-guard.service",
    "farshore-tidy.service",
    "farshore-tidy.timer",
    "farshore-expire.service",
    "farshore-expire.timer",
];
const SERVICES: [&str; 4] =
    ["farshore.service", "farshore-guard.service", "farshore-tidy.service", "farshore-expire.service"];

/// The most that `systemd-analyze security` may find exposed, of 10: what is left is the network and the user's own files.
const EXPOSED: &str = "--threshold=20";

/// Copies of the units whose program and users are on this machine.
fn copies() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for unit in UNITS {
        let text = read(&format!("deploy/systemd/{unit}"));
        let here = text.replace("/usr/bin/farshore", env!("CARGO_BIN_EXE_farshore"));
        let here =
            here.replace("User=farshore-tidy", "User=daemon").replace("Group=farshore-tidy", "Group=daemon");
        let here = here.replace("User=farshore", "User=daemon").replace("Group=farshore", "Group=daemon");
        std::fs::write(folder.path().join(unit), here).unwrap();
    }
    folder
}

fn analyze(arguments: &[&str], folder: &std::path::Path) -> String {
    let done = Command::new("systemd-analyze").args(arguments).current_dir(folder).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{arguments:?}: {said}");
    said
}

#[test]
fn units_are_taken_by_systemd_and_leave_the_service_little() {
    let folder = copies();
    let path = |unit: &str| folder.path().join(unit).display().to_string();
    let units: Vec<String> = UNITS.iter().map(|unit| path(unit)).collect();
    let mut arguments = vec!["verify", "--man=no"];
    arguments.extend(units.iter().map(String::as_str));
    let said = analyze(&arguments, folder.path());
    assert!(said.trim().is_empty(), "{said}");
    for unit in SERVICES {
        analyze(&["security", "--offline=yes", EXPOSED, &path(unit)], folder.path());
    }
    analyze(&["calendar", "*-*-* 03:00:00 UTC"], folder.path());
}

#[test]
fn units_start_what_there_is_and_give_up_only_where_waiting_mends_nothing() {
    for unit in SERVICES {
        let text = read(&format!("deploy/systemd/{unit}"));
        let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let parsed = Cli::try_parse_from(line.split(' '));
        assert!(parsed.is_ok(), "{unit}: {}", parsed.err().unwrap());
    }
    let text = read("deploy/systemd/farshore.service");
    for (key, value) in [
        ("Type", "notify"),
        ("Restart", "always"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("StateDirectory", "farshore"),
        ("CapabilityBoundingSet", ""),
        // A drill's copy is closed into these.
        ("RestrictNamespaces", "user net"),
    ] {
        assert!(text.contains(&format!("\n{key}={value}\n")), "{key}={value}");
    }
    // Exit codes: wrong configuration, refused, another shipper, not allowed.
    assert!(text.contains("\nRestartPreventExitStatus=2 4 5 7\n"));
}

#[test]
fn a_service_tells_its_manager_that_it_runs_that_it_turns_and_that_it_ends() {
    let node = sqlite::node(4096);
    let path = node.folder().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let heard = |wanted: &str, within: Duration| {
        wait_for(within, || {
            let mut said = [0; 4096];
            let length = socket.recv(&mut said).ok()?;
            let said = String::from_utf8_lossy(&said[..length]).into_owned();
            said.lines().any(|line| line == wanted).then_some(said)
        })
    };
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "2000000")];
    let service = node.start_with(None, &environment);
    let ready = heard("READY=1", SOON).unwrap_or_else(|| panic!("{}", node.log()));
    assert!(ready.contains("STATUS=ships 1 database"), "{ready}");
    for _ in 0..3 {
        // Twice within the two seconds that the manager waits.
        assert!(heard("WATCHDOG=1", Duration::from_secs(2)).is_some(), "{}", node.log());
    }
    service.process.signal(nix::sys::signal::Signal::SIGSTOP);
    while heard("WATCHDOG=1", Duration::from_millis(300)).is_some() {}
    assert!(heard("WATCHDOG=1", Duration::from_secs(3)).is_none(), "what is frozen feeds no watchdog");
    service.process.signal(nix::sys::signal::Signal::SIGCONT);
    assert!(heard("WATCHDOG=1", SOON).is_some());
    service.process.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(heard("STOPPING=1", SOON).is_some(), "{}", node.log());
    let mut service = service;
    let ended = service.process.wait(SOON).unwrap_or_else(|| panic!("it goes on:\n{}", node.log()));
    assert!(ended.success(), "{ended:?}");
    // One that nobody manages runs as ever, and one whose watchdog is another process's feeds none.
    let other =
        [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "1")];
    let service = node.start_with(None, &other);
    assert!(heard("READY=1", SOON).is_some(), "{}", node.log());
    assert!(heard("WATCHDOG=1", Duration::from_secs(3)).is_none());
    service.stop();
}
