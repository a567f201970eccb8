//! The promise: who may ask is said on the command line, and no secret is shown but once.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use farshore_testkit::process::{Owned, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

const CONFIG: &str = "[stores.main]\nurl = \"file:store\"\n\
                      [databases.orders]\nengine = \"postgres\"\nurl = \"postgresql://farshore@localhost/postgres\"\nstores = [\"main\"]\n";
const PASSWORD: &str = "correct horse battery";

fn configured() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("farshore.toml"), CONFIG).unwrap();
    folder
}

fn run(folder: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farshore"));
    command.args(line.split(' ')).current_dir(folder).stdin(Stdio::null());
    // A password is asked of no terminal that a test happens to have.
    command.env_remove("FARSHORE_CONFIG").env_remove("FARSHORE_USER_PASSWORD").output().unwrap()
}

#[track_caller]
fn json(folder: &Path, line: &str) -> Value {
    let output = run(folder, &format!("{line} -o json"));
    assert!(output.status.success(), "{line}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn refused(folder: &Path, line: &str) -> (i32, String) {
    let output = run(folder, &format!("{line} -o json"));
    assert!(output.stdout.is_empty(), "{line}: {output:?}");
    let message: Value =
        serde_json::from_slice(&output.stderr).unwrap_or_else(|why| panic!("{why}: {output:?}"));
    (output.status.code().unwrap(), message["code"].as_str().unwrap().to_owned())
}

#[test]
fn a_token_is_shown_once_and_its_name_is_free_again_once_it_was_revoked() {
    let folder = configured();
    let folder = folder.path();
    let plain = run(folder, "token create grafana --role viewer");
    assert!(plain.status.success(), "{plain:?}");
    let secret = String::from_utf8(plain.stdout).unwrap();
    let secret = secret.strip_suffix('\n').unwrap();
    assert!(secret.starts_with("fsh_") && secret.len() == 85, "{secret}");
    let made = json(folder, "token create drill --role operator --expires 30d --database orders");
    assert_eq!(made["schema"], "farshore.token/1");
    let (created, expires) = (&made["created_at"], &made["expires_at"]);
    let read = |time: &Value| time.as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert_eq!((read(expires) - read(created)).num_days(), 30);

    let listed = json(folder, "token list");
    assert_eq!(listed["schema"], "farshore.tokens/1");
    let shown = listed.to_string() + &String::from_utf8(run(folder, "token list").stdout).unwrap();
    for secret in [secret, made["secret"].as_str().unwrap()] {
        assert!(!shown.contains(secret.rsplit('_').next().unwrap()), "{shown}");
        let catalog = std::fs::read(folder.join("farshore.db")).unwrap();
        let log = std::fs::read(folder.join("farshore.db-wal")).unwrap_or_default();
        let kept = [catalog, log].concat();
        let hidden = secret.rsplit('_').next().unwrap().as_bytes();
        assert!(!kept.windows(hidden.len()).any(|bytes| bytes == hidden), "the catalog holds the secret");
    }
    let of = |listed: &Value, name: &str| {
        let all = listed["items"].as_array().unwrap().clone();
        all.into_iter().filter(|one| one["name"] == name).collect::<Vec<_>>()
    };
    assert_eq!(of(&listed, "drill")[0]["database"], "orders");

    assert_eq!(refused(folder, "token create grafana --role admin"), (5, "FS-0703".to_owned()));
    assert_eq!(refused(folder, "token revoke nobody"), (3, "FS-0702".to_owned()));
    assert_eq!(refused(folder, "token create x --role viewer --database none"), (3, "FS-0103".to_owned()));
    let revoked = json(folder, "token revoke grafana");
    assert_eq!(
        (&revoked["items"][0]["valid"], revoked["items"][0]["revoked_at"].is_string()),
        (&Value::Bool(false), true)
    );
    assert_eq!(refused(folder, "token revoke grafana"), (3, "FS-0702".to_owned()));
    json(folder, "token create grafana --role admin");
    assert_eq!(of(&json(folder, "token list"), "grafana").len(), 2);
    for wrong in [
        "token create X --role viewer",
        "token create x --role root",
        "token create x",
        "token create x --role viewer --expires 20000d",
    ] {
        assert_eq!(run(folder, wrong).status.code(), Some(2), "{wrong}");
    }
}

#[test]
fn a_user_is_given_a_password_by_file_or_environment_and_it_is_shown_and_kept_nowhere() {
    let folder = configured();
    let folder = folder.path();
    std::fs::write(folder.join("password"), format!("{PASSWORD}\n")).unwrap();
    let added = json(folder, "user add ana --role admin --password-file password");
    assert_eq!((&added["schema"], &added["items"][0]["role"]), (&"farshore.users/1".into(), &"admin".into()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_farshore"));
    command.args(["user", "add", "bob", "--role", "viewer"]).current_dir(folder).stdin(Stdio::null());
    let output = command.env("FARSHORE_USER_PASSWORD", PASSWORD).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(
        refused(folder, "user add ana --role viewer --password-file password"),
        (5, "FS-0703".to_owned())
    );
    assert_eq!(refused(folder, "user add eve --role viewer --no-input"), (2, "FS-0705".to_owned()));
    assert_eq!(refused(folder, "user add eve --role viewer --password-file none"), (2, "FS-0705".to_owned()));
    std::fs::write(folder.join("short"), "hunter2\n").unwrap();
    assert_eq!(
        refused(folder, "user add eve --role viewer --password-file short"),
        (2, "FS-0705".to_owned())
    );
    for verb in ["disable", "enable", "password"] {
        let more = if verb == "password" { " --password-file password" } else { "" };
        assert_eq!(refused(folder, &format!("user {verb} eve{more}")), (3, "FS-0704".to_owned()), "{verb}");
        let changed = json(folder, &format!("user {verb} bob{more}"));
        assert_eq!(changed["items"][0]["disabled"], verb == "disable", "{verb}");
    }
    // Somebody can always say who may ask.
    assert_eq!(refused(folder, "user disable ana"), (4, "FS-0706".to_owned()));
    json(folder, "user add eve --role admin --password-file password");
    assert_eq!(json(folder, "user disable ana")["items"][0]["disabled"], true);
    let shown = run(folder, "user list -o json");
    let catalog = std::fs::read(folder.join("farshore.db")).unwrap();
    let log = std::fs::read(folder.join("farshore.db-wal")).unwrap_or_default();
    for kept in [shown.stdout, catalog, log] {
        assert!(!String::from_utf8_lossy(&kept).contains(PASSWORD));
    }
}

#[test]
fn asking_who_may_ask_makes_no_catalog() {
    let folder = configured();
    for line in ["token list", "user list", "token revoke x", "user disable x"] {
        assert_eq!(refused(folder.path(), line).1, "FS-0403", "{line}");
    }
    assert!(!folder.path().join("farshore.db").exists());
}

/// For anything that should take seconds, on a machine that does much else.
const SOON: Duration = Duration::from_secs(90);

/// `farshore run` of a database that is not there yet, on an address that others can reach.
fn service(folder: &Path) -> Owned {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    let config = "[stores.main]\nurl = \"file:store\"\n\
                  [databases.app]\nengine = \"sqlite\"\npath = \"app.db\"\nstores = [\"main\"]\nrpo = \"1s\"\n\
                  [service]\nlisten = \"0.0.0.0:0\"\ntls_certificate = \"tls.crt\"\ntls_key = \"tls.key\"\n";
    std::fs::write(folder.join("farshore.toml"), config).unwrap();
    let log = File::create(folder.join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_farshore"));
    command.args(["-v", "run"]).current_dir(folder).env_remove("FARSHORE_CONFIG").stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    Owned::spawn(command, Signal::SIGKILL)
}

#[test]
fn an_address_others_can_reach_is_opened_once_somebody_may_ask_and_with_tls_alone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut service = service(folder);
    let log = || std::fs::read_to_string(folder.join("log")).unwrap();
    let said = wait_for(SOON, || log().contains("FS-0701").then_some(()));
    assert!(said.is_some(), "{}", log());
    assert!(log().contains("farshore token create"), "{}", log());
    assert!(!log().contains("endpoint listens"), "{}", log());

    let token = String::from_utf8(run(folder, "token create ci --role viewer").stdout).unwrap();
    std::fs::write(folder.join("curlrc"), format!("header = \"Authorization: Bearer {}\"\n", token.trim()))
        .unwrap();
    let port = wait_for(SOON, || {
        let log = log();
        let line = log.lines().find(|line| line.contains("health endpoint listens"))?;
        line.split("address=0.0.0.0:").nth(1)?.split_whitespace().next()?.parse::<u16>().ok()
    });
    let port = port.unwrap_or_else(|| panic!("it does not listen:\n{}", log()));
    let curl = |scheme: &str, path: &str, more: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--cacert", "tls.crt", "--write-out", "\n%{http_code}"]).args(more);
        let output =
            command.arg(format!("{scheme}://localhost:{port}{path}")).current_dir(folder).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (body.to_owned(), status.to_owned())
    };
    assert_eq!(curl("https", "/healthz", &[]).1, "200", "{}", log());
    assert_eq!(curl("http", "/healthz", &[]).1, "000", "it answers without TLS");
    assert_eq!(curl("https", "/api/v1/databases", &[]).1, "401");
    assert_eq!(curl("https", "/api/openapi.json", &[]).1, "401");
    let (body, status) = curl("https", "/api/v1/databases", &["--config", "curlrc"]);
    assert_eq!(status, "200", "{body}\n{}", log());
    run(folder, "token revoke ci");
    assert_eq!(curl("https", "/api/v1/databases", &["--config", "curlrc"]).1, "401");
    assert!(!log().contains(token.trim().rsplit('_').next().unwrap()));
    service.signal(Signal::SIGTERM);
    let ended = service.wait(SOON).unwrap_or_else(|| panic!("it did not stop:\n{}", log()));
    assert!(ended.success(), "{}", log());
}
