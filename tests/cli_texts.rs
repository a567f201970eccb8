//! Promises about what farshore writes for people: errors of the configuration, what `init` prints, and that every
//! message and every finding has its entry in `docs/messages.md`, and every entry its message.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use clap::Parser;
use farshore::check;
use farshore::cli::{Cli, Command};
use farshore::commands::init::{Answers, Asker, Guidance, KeyFiles, SigningFile, document};
use farshore::config::secret::{Secret, SecretSource};
use farshore::config::{Config, EngineConfig, Environment, parse};
use farshore::message::Code;

const SOUND: &str = r#"[catalog]
url = "sqlite:farshore.db"

[stores.main]
url = "s3://bucket/prod"

[databases.orders]
engine = "postgres"
url = "postgresql://farshore@db1,db2/postgres"
stores = ["main"]
rpo = "1s"
rto = "15m"
protection = "async"
on_full = "hold"
"#;

fn read(text: &str, environment: &Environment) -> Result<Config, String> {
    parse(Path::new("farshore.toml"), Path::new("/etc/farshore"), text, environment)
        .map_err(|e| e.to_string())
}

fn sound(environment: &Environment) -> Config {
    read(SOUND, environment).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_wrong_configuration_is_shown_with_line_and_caret() {
    let cases = [
        ("misspelt key", "rpo = \"1s\"", "rpp = \"1s\""),
        ("unknown key", "rpo = \"1s\"", "colour = \"red\""),
        ("misspelt table", "[databases.orders]", "[database.orders]"),
        ("no duration", "rpo = \"1s\"", "rpo = \"1 second\""),
        ("a bare number", "rpo = \"1s\"", "rpo = 1"),
        ("zero", "rto = \"15m\"", "rto = \"0s\""),
        (
            "a time that is for another mode",
            "protection = \"async\"",
            "protection = \"strict\"\nsync_timeout = \"5s\"",
        ),
        (
            "a commit that would wait too shortly",
            "protection = \"async\"",
            "protection = \"sync\"\nsync_timeout = \"5ms\"",
        ),
        ("a mode without its bound", "protection = \"async\"", "protection = \"near-sync\""),
        (
            "a bound without its mode",
            "protection = \"async\"",
            "protection = \"strict\"\nprotection_bound = \"1MiB\"",
        ),
        ("a spool of nothing", "rpo = \"1s\"", "spool = { directory = \"/spool\", limit = \"1MiB\" }"),
        (
            "a spool's directory twice",
            "rpo = \"1s\"",
            "spool = { directory = \"/spool\", limit = \"1GiB\", extensions = [{ directory = \"/spool\", limit = \"1GiB\" }] }",
        ),
        ("a mode unknown", "protection = \"async\"", "protection = \"asink\""),
        ("a store unknown", "stores = [\"main\"]", "stores = [\"mian\"]"),
        ("a store twice", "stores = [\"main\"]", "stores = [\"main\", \"main\"]"),
        ("no store", "stores = [\"main\"]", "stores = []"),
        ("too many stores", "rpo = \"1s\"", "durable = 2"),
        ("no url", "url = \"postgresql://farshore@db1,db2/postgres\"\n", ""),
        ("no user", "farshore@db1,db2", "db1"),
        ("no host", "db1,db2", ""),
        ("a password as a key", "rpo = \"1s\"", "password = \"hunter2\""),
        ("a password among parameters", "db2/postgres", "db2/postgres?password=hunter2"),
        ("a bad name", "[databases.orders]", "[databases.Orders]"),
        ("a bad store", "s3://bucket/prod", "s4://bucket/prod"),
        ("a store that leaves its prefix", "s3://bucket/prod", "s3://bucket/../prod"),
        ("no public key", "on_full = \"hold\"\n", "verify_keys = [\"hunter2\"]\n"),
        (
            "a private key",
            "url = \"s3://bucket/prod\"",
            "url = \"s3://b\"\nrecipients = [\"AGE-SECRET-KEY-1X\"]",
        ),
        ("others could reach it", "on_full = \"hold\"\n", "[service]\nlisten = \"0.0.0.0:80\"\n"),
        ("no toml", "[stores.main]", "[stores.main"),
        ("the same key twice", "rto = \"15m\"", "rpo = \"15m\""),
    ];
    let mut shown = String::new();
    for (name, from, to) in cases {
        assert!(SOUND.contains(from), "{name}");
        let error = read(&SOUND.replacen(from, to, 1), &Environment::new()).err();
        let error = error.unwrap_or_else(|| panic!("{name} was accepted"));
        assert!(!error.contains("hunter2") && !error.contains("SECRET-KEY-1X"), "{error}");
        writeln!(shown, "{name}\n{error}\n").unwrap();
    }
    insta::assert_snapshot!("config_errors", shown);
}

#[test]
fn a_wrong_throttle_is_shown_with_line_and_caret_and_what_is_not_built_is_refused() {
    let rule = "[[databases.orders.throttles]]\nname = \"it\"\n";
    let does = "actions = [{ notify = true }]";
    let run = |argv: &str| format!("{rule}test = \"cpu above 80%\"\nactions = [{argv}]");
    let many = vec!["{ log = \"x\" }"; 17].join(", ");
    let cases = [
        ("bits", "bandwidth = \"5Mbit/s\"".to_owned()),
        ("too little", "bandwidth = \"999kB/s\"".to_owned()),
        ("never active", format!("{rule}{does}")),
        ("no action", format!("{rule}test = \"cpu above 80%\"\nactions = []")),
        ("seventeen actions", format!("{rule}test = \"cpu above 80%\"\nactions = [{many}]")),
        ("two in one", run("{ notify = true, log = \"x\" }")),
        ("nothing in one", run("{}")),
        ("a spool's directory", run("{ extend_spool = \"/spool2\" }")),
        ("a spool that is not there", run("{ extend_spool = true }")),
        ("a spool released", run("{ release_spool = true }")),
        (
            "a spool extended by a crossing",
            format!("{rule}test = \"spool rises above 80%\"\nactions = [{{ extend_spool = true }}]\n"),
        ),
        ("a spool's use", format!("{rule}test = \"spool_use above 80%\"\n{does}")),
        ("a spool's bytes", format!("{rule}test = \"spool above 8GiB\"\n{does}")),
        ("not measured", format!("{rule}test = \"shiplag above 30s\"\n{does}")),
        ("no operator", format!("{rule}test = \"ship_lag > 30s\"\n{does}")),
        ("another unit", format!("{rule}test = \"ship_lag above 5MB/s\"\n{does}")),
        (
            "a limit for a crossing",
            format!("{rule}test = \"cpu rises above 80%\"\nactions = [{{ bandwidth = \"5MB/s\" }}]"),
        ),
        ("no hours", format!("{rule}when = \"8-18\"\n{does}")),
        ("no days", format!("{rule}days = \"monday\"\n{does}")),
        ("no zone", format!("{rule}when = \"08:00-18:00\"\nzone = \"Berlin\"\n{does}")),
        ("a program by its name", run("{ run = [\"page\"] }")),
        ("a program for long", run("{ run = [\"/bin/page\"], timeout = \"1h\" }")),
        ("a timeout of nothing", run("{ log = \"x\", timeout = \"1s\" }")),
        ("two of a name", format!("{rule}days = \"mon\"\n{does}\n{rule}days = \"tue\"\n{does}")),
        (
            "no name",
            format!("[[databases.orders.throttles]]\nname = \"Office hours\"\ndays = \"mon\"\n{does}"),
        ),
    ];
    let mut shown = String::new();
    for (name, written) in cases {
        let error = read(&format!("{SOUND}{written}\n"), &Environment::new()).err();
        let error = error.unwrap_or_else(|| panic!("{name} was accepted"));
        writeln!(shown, "{name}\n{error}\n").unwrap();
    }
    insta::assert_snapshot!("throttle_errors", shown);
    let most = vec!["{ run = [\"/bin/page\", \"a b\"], timeout = \"5m\" }"; 16].join(", ");
    let sound = format!(
        "{SOUND}bandwidth = \"20MB/s\"\n{rule}when = \"22:00-06:00\"\ndays = \"fri-mon\"\nactions = [{most}]\n"
    );
    let config = read(&sound, &Environment::new()).unwrap_or_else(|error| panic!("{error}"));
    let orders = config.databases.values().next().unwrap();
    assert_eq!(orders.throttles[0].actions.len(), 16);
    assert_eq!(orders.lowest_bandwidth(), orders.bandwidth);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let waits = sound.replace("protection = \"async\"", "protection = \"strict\"");
    let config = read(&waits, &Environment::new()).unwrap_or_else(|error| panic!("{error}"));
    assert!(config.warnings[0].contains("its commits wait") && config.warnings[0].contains("20MB/s"));
}

#[test]
fn a_sound_configuration_is_read_and_its_paths_start_at_its_folder() {
    let config = sound(&Environment::new());
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.service.socket, Path::new("/etc/farshore/farshore.sock"));
    let orders = config.databases.values().next().unwrap();
    assert!(matches!(&orders.engine, EngineConfig::Postgres { url, .. } if url.hosts().len() == 2));
}

#[test]
fn the_environment_wins_over_a_file_and_a_variable_without_a_key_is_warned_of() {
    let environment: Environment =
        ["FARSHORE_DATABASES_ORDERS_PASSWORD", "FARSHORE_DATABASES_ODRERS_PASSWORD"]
            .map(|name| (name.to_owned(), Secret::new("hunter2")))
            .into();
    let text = SOUND.replace("rpo = ", "password_file = \"pw\"\nrpo = ");
    let config = read(&text, &environment).unwrap_or_else(|error| panic!("{error}"));
    let orders = config.databases.values().next().unwrap();
    let EngineConfig::Postgres { password: Some(password), .. } = &orders.engine else {
        panic!("no password")
    };
    assert!(matches!(password, SecretSource::Environment(..)));
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].contains("ODRERS") && !config.warnings[0].contains("hunter2"));
}

#[test]
fn two_names_that_share_a_variable_are_refused() {
    let more = "[stores.a-b]\nurl = \"file:x\"\n[stores.a_b]\nurl = \"file:y\"\n";
    let error = read(&format!("{SOUND}{more}"), &Environment::new()).err().unwrap();
    assert!(error.contains("FARSHORE_STORES_A_B_SECRET_ACCESS_KEY"), "{error}");
}

fn init(line: &str, encrypted: bool) -> String {
    let words = ["farshore", "init"].into_iter().chain(line.split_whitespace());
    let Command::Init(args) = Cli::try_parse_from(words).unwrap().command else { panic!("not init") };
    let answers = Answers::gather(&args, None::<&mut Asker<std::io::Empty, std::io::Sink>>).unwrap();
    let keys = encrypted
        .then(|| KeyFiles { recipient: "age1public".into(), identity: "farshore-identity.txt".into() });
    let signing = SigningFile {
        public: "0123456789abcdef".repeat(4),
        file: "/etc/farshore/farshore-signing.pem".into(),
        named: "farshore-signing.pem".into(),
    };
    let text = document(&answers, keys.as_ref(), &signing);
    read(&text, &Environment::new()).unwrap_or_else(|error| panic!("{error}"));
    let guidance = Guidance::of(&answers, Path::new("farshore.toml"), keys.as_ref(), &signing);
    format!("{text}\n---- printed ----\n\n{guidance}")
}

#[test]
fn init_says_what_to_apply_for_a_remote_primary_that_holds() {
    let line =
        "--name orders --url postgresql://farshore@db1,db2/postgres --store s3://bucket/prod --on-full hold";
    insta::assert_snapshot!("init_remote_hold", init(line, false));
}

#[test]
fn init_says_what_to_apply_for_a_local_primary_that_is_saved() {
    let line = "--url postgresql://far-shore@localhost:5433/app --password-file pw --store file:///srv/x --on-full bypass";
    insta::assert_snapshot!("init_local_bypass", init(line, true));
}

#[test]
fn init_says_what_to_set_and_to_know_for_a_sqlite_database() {
    let line = "--name app --path /var/lib/app/app.db --store file:///srv/farshore";
    insta::assert_snapshot!("init_sqlite", init(line, false));
}

#[test]
fn init_says_that_an_rpo_will_not_hold() {
    let line = "--url postgresql://farshore@db1/postgres --store gs://bucket --on-full hold --rpo 100ms";
    assert!(init(line, false).contains("it will not hold in this store"));
}

fn documented() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/messages.md")).unwrap()
}

#[test]
fn every_message_is_documented_with_its_exit_code_and_every_entry_has_its_message() {
    let in_code: BTreeSet<(String, String)> =
        Code::ALL.iter().map(|code| (code.to_string(), format!("({})", code.exit().code()))).collect();
    let documented = documented();
    let in_document: BTreeSet<(String, String)> = documented
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .filter_map(|title| {
            Some((title.split(' ').next()?.to_owned(), title.split(' ').next_back()?.to_owned()))
        })
        .collect();
    assert_eq!(in_code, in_document);
}

#[test]
fn every_finding_is_documented_and_every_entry_has_its_finding() {
    let in_code: BTreeSet<&str> = check::CODES.iter().copied().collect();
    let documented = documented();
    let in_document: BTreeSet<&str> = documented
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split('`').next())
        .collect();
    assert_eq!(in_code, in_document);
}
