//! What a plan must hold, whatever the source's settings were.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::control::tests::sample;
use super::*;

fn control(major: Major) -> ControlFile {
    ControlFile::parse(&sample(major)).unwrap()
}

fn request(major: Major) -> Request {
    Request {
        major,
        port: 6543,
        socket_dir: "/run/farshore/r1".into(),
        target: RecoveryTarget {
            record_start: "0/30000028".parse().unwrap(),
            timeline: Timeline::new(3),
            end: "0/30000060".parse().unwrap(),
        },
        consistent_from: "0/20000100".parse().unwrap(),
        demanded: None,
        restore_command: None,
        follow: None,
        shared_buffers_limit: 64 << 20,
        preload: Vec::new(),
    }
}

fn row(name: &str, setting: &str) -> Setting {
    let source = "configuration file".to_owned();
    Setting { name: name.to_owned(), setting: setting.to_owned(), source, context: "sighup".to_owned() }
}

fn source(rows: &[(&str, &str)]) -> SourceSettings {
    SourceSettings { settings: rows.iter().map(|(n, s)| row(n, s)).collect(), config_files: Vec::new() }
}

fn lines(plan: &SafeStart) -> BTreeMap<String, String> {
    let conf = plan.files.iter().find(|file| file.name == "postgresql.conf").unwrap();
    let text = String::from_utf8(conf.content.clone()).unwrap();
    let setting = |line: &str| line.split_once(" = ").map(|(n, v)| (n.to_owned(), v.to_owned()));
    text.lines().filter(|line| !line.starts_with('#')).map(|line| setting(line).expect(line)).collect()
}

#[test]
fn limits_are_never_below_what_the_log_demands() {
    let major = Major::ALL[1];
    let low = plan(&source(&[("max_connections", "5")]), &control(major), &request(major)).unwrap();
    assert_eq!(low.limits.max_connections, 100);
    let high = plan(&source(&[("max_connections", "500")]), &control(major), &request(major)).unwrap();
    assert_eq!(high.limits.max_connections, 500);
    assert!(lines(&high)["max_connections"].starts_with("'500'"));
}

#[test]
fn room_for_large_segments_stays_as_on_the_source() {
    for major in Major::ALL {
        let sizes = [("min_wal_size", "320"), ("max_wal_size", "4096")];
        let conf = lines(&plan(&source(&sizes), &control(major), &request(major)).unwrap());
        assert!(sizes.iter().all(|(name, size)| conf[*name].contains(size)), "{conf:?}");
    }
}

#[test]
fn nothing_that_reaches_out_of_the_copy_survives_and_each_is_listed() {
    let reaching = [
        ("archive_mode", "always"),
        ("archive_command", "touch /marker"),
        ("restore_command", "cp /x %p"),
        ("primary_conninfo", "host=db1 password=secret"),
        ("synchronous_standby_names", "ANY 1 (*)"),
        ("listen_addresses", "*"),
        ("port", "5432"),
        ("ssl", "on"),
        ("shared_preload_libraries", "pg_cron"),
        ("log_directory", "/var/log/postgresql"),
        ("external_pid_file", "/run/pg.pid"),
        ("hba_file", "/etc/postgresql/15/main/pg_hba.conf"),
        ("cron.database_name", "x"),
        ("some_future_setting", "/bin/harm"),
    ];
    for major in Major::ALL {
        let plan = plan(&source(&reaching), &control(major), &request(major)).unwrap();
        for (name, was) in reaching {
            let entry = plan.neutralised.iter().find(|entry| entry.setting == name).expect(name);
            assert!(!entry.why.is_empty());
            assert_ne!(entry.now.as_deref(), Some(was));
        }
        let conf = lines(&plan);
        assert!(conf["archive_mode"].starts_with("'off'"));
        assert!(conf["listen_addresses"].starts_with("''"));
        assert!(!conf.contains_key("some_future_setting"));
        assert!(!conf.contains_key("log_directory"));
        assert!(!format!("{plan:?}").contains("secret"), "a secret reached the plan");
    }
}

#[test]
fn settings_a_major_does_not_know_are_not_written() {
    let known = |major: Major| lines(&plan(&source(&[]), &control(major), &request(major)).unwrap());
    assert!(!known(Major::ALL[0]).contains_key("archive_library"));
    assert!(known(Major::ALL[0]).contains_key("promote_trigger_file"));
    assert!(!known(Major::ALL[2]).contains_key("promote_trigger_file"));
    assert!(!known(Major::ALL[2]).contains_key("event_triggers"));
    assert!(known(Major::ALL[3]).contains_key("event_triggers"));
}

#[test]
fn a_target_the_base_cannot_reach_is_refused_before_anything_is_written() {
    let major = Major::ALL[4];
    let with = |change: &dyn Fn(&mut Request)| {
        let mut request = request(major);
        change(&mut request);
        plan(&source(&[]), &control(major), &request)
    };
    let early = with(&|r| r.consistent_from = "0/40000000".parse().unwrap());
    assert!(matches!(early, Err(PlanError::BeforeConsistency { .. })));
    let timeline = with(&|r| r.target.timeline = Timeline::new(2));
    assert!(matches!(timeline, Err(PlanError::Timeline { .. })));
    let empty = with(&|r| r.target.end = r.target.record_start);
    assert!(matches!(empty, Err(PlanError::NotARecord { .. })));
    assert!(matches!(with(&|r| r.major = Major::ALL[0]), Err(PlanError::Major { .. })));
    assert!(matches!(with(&|r| r.socket_dir = "relative".into()), Err(PlanError::SocketDir { .. })));
    assert!(matches!(with(&|r| r.socket_dir = "/a,b".into()), Err(PlanError::SocketDir { .. })));
    let long = format!("/{}", "a".repeat(100));
    assert!(matches!(with(&|r| r.socket_dir = long.clone().into()), Err(PlanError::SocketDir { .. })));
    assert!(matches!(with(&|r| r.restore_command = Some("a\nb".into())), Err(PlanError::Text { .. })));
}

#[test]
fn there_is_exactly_one_target_on_a_numbered_timeline() {
    let major = Major::ALL[3];
    let plan =
        plan(&source(&[("recovery_target_time", "2020-01-01")]), &control(major), &request(major)).unwrap();
    let conf = lines(&plan);
    let targets: Vec<_> = conf.keys().filter(|name| name.starts_with("recovery_target")).cloned().collect();
    assert_eq!(
        targets,
        ["action", "inclusive", "lsn", "timeline"].map(|end| format!("recovery_target_{end}"))
    );
    assert!(conf["recovery_target_timeline"].starts_with("'3'"));
    assert!(conf["recovery_target_action"].starts_with("'pause'"));
}

#[test]
fn a_copy_that_follows_has_no_target_and_one_place_to_follow() {
    let major = Major::ALL[1];
    let follow = "host=db password='x y' application_name=oslo";
    let request = Request { follow: Some(follow.to_owned()), ..request(major) };
    let plan = plan(&source(&[("primary_conninfo", "host=source")]), &control(major), &request).unwrap();
    let file = |name: &str| plan.files.iter().find(|file| file.name == name);
    assert!(file("standby.signal").is_some() && file("recovery.signal").is_none());
    assert!(plan.remove.contains(&"recovery.signal") && !plan.remove.contains(&"standby.signal"));
    // The last word on a setting is this file's.
    let auto = String::from_utf8(file("postgresql.auto.conf").unwrap().content.clone()).unwrap();
    let line = "primary_conninfo = 'host=db password=''x y'' application_name=oslo'\n";
    assert!(auto.contains(line), "{auto}");
    for setting in ["recovery_target_lsn = ''", "restore_command = ''", "recovery_target_timeline = 'latest'"]
    {
        assert!(auto.contains(setting), "{auto}");
    }
    let broken = Request { follow: Some("host=db\nfsync=off".to_owned()), ..request };
    let broken = super::plan(&SourceSettings::default(), &control(major), &broken);
    assert!(matches!(broken, Err(PlanError::Text { .. })));
}

#[test]
fn a_tablespace_the_log_would_create_on_top_of_a_live_one_is_found() {
    let created = [Path::new("/srv/live"), Path::new("/srv/absent")];
    let found = tablespaces_in_the_way(created, |path| path == Path::new("/srv/live"));
    assert_eq!(found, [Path::new("/srv/live")]);
}

proptest! {
    #[test]
    fn no_value_of_a_source_makes_a_line_of_its_own(
        value in "[a-z0-9'\\\\\n #=,/-]{0,24}",
        path in "[./a-z\n'\\\\]{0,24}",
        at in 0usize..18,
    ) {
        let major = Major::ALL[4];
        let mut source = source(&[(KEPT[at].0, &value)]);
        source.config_files.push(ConfigFile { path, content: b"x".to_vec() });
        let with = plan(&source, &control(major), &request(major)).unwrap();
        let without = plan(&SourceSettings::default(), &control(major), &request(major)).unwrap();
        let mut names: Vec<_> = lines(&with).into_keys().collect();
        names.retain(|name| name != KEPT[at].0);
        let mut expected: Vec<_> = lines(&without).into_keys().collect();
        expected.retain(|name| name != KEPT[at].0);
        prop_assert_eq!(names, expected);
        for file in &with.files {
            prop_assert!(super::super::beneath::RelPath::parse(&file.name).is_ok());
        }
    }
}
