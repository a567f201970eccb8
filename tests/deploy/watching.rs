//! Alerts and dashboard: of metrics that there are, each alert with its section in the runbook, its tests, and a command that exists.

use std::collections::BTreeSet;
use std::process::Command;

use clap::Parser as _;
use farshore::cli::Cli;
use farshore_testkit::tools;
use farshore_web::metrics::families;
use serde_json::Value;

use crate::{place, read};

const RULES: &str = "deploy/prometheus/farshore.rules.yml";
const RULE_TESTS: &str = "deploy/prometheus/farshore.rules.test.yml";

/// One rule: its name, and the values of its keys.
struct Rule<'a> {
    name: &'a str,
    text: &'a str,
}

impl Rule<'_> {
    fn value(&self, key: &str) -> &str {
        let start = format!("{key}: ");
        let line = self.text.lines().find_map(|line| line.trim_start().strip_prefix(&start));
        line.unwrap_or_else(|| panic!("{} has no {key}", self.name)).trim_matches('"')
    }
}

fn rules(text: &str) -> Vec<Rule<'_>> {
    let blocks = text.split("      - alert: ").skip(1);
    blocks.map(|text| Rule { name: text.lines().next().unwrap().trim(), text }).collect()
}

/// The metrics that an expression names.
fn named(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| word.starts_with("farshore_"));
    ours.map(|word| {
        let suffix = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| word.strip_suffix(end));
        suffix.unwrap_or(word).to_owned()
    })
    .collect()
}

fn there_are() -> BTreeSet<String> {
    families::ALL.iter().map(|family| family.name.to_owned()).collect()
}

fn promtool(arguments: &[&str]) {
    let mut command = Command::new(tools::promtool());
    let done = command.args(arguments).current_dir(place("deploy/prometheus")).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}");
}

#[test]
fn alerts_are_rules_that_prometheus_takes_and_fire_when_they_should() {
    promtool(&["check", "rules", "farshore.rules.yml"]);
    promtool(&["test", "rules", "farshore.rules.test.yml"]);
    let tests = read(RULE_TESTS);
    for rule in rules(&read(RULES)) {
        let fires = format!("alertname: {}\n        exp_alerts:\n", rule.name);
        let quiet = format!("alertname: {}\n        exp_alerts: []\n", rule.name);
        assert!(tests.contains(&fires) && tests.contains(&quiet), "{} is not tested both ways", rule.name);
    }
}

#[test]
fn every_alert_names_a_database_its_runbook_and_a_command_that_there_is() {
    let (text, runbook) = (read(RULES), read("docs/runbook.md"));
    let rules = rules(&text);
    assert!(rules.len() > 10, "{}", rules.len());
    let there_are = there_are();
    for rule in &rules {
        let expression = rule.value("expr");
        let unknown: Vec<_> = named(expression).difference(&there_are).cloned().collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", rule.name);
        let of_one = expression.contains("by (database");
        assert!(of_one || rule.value("database") == "all", "{} has no database", rule.name);
        let anchor = rule.value("runbook").split_once("docs/runbook.md#").unwrap().1;
        let heading = format!("\n## {}\n", rule.name);
        let (_, section) =
            runbook.split_once(&heading).unwrap_or_else(|| panic!("the runbook has no {}", rule.name));
        assert_eq!(anchor, rule.name.to_lowercase());
        let section = section.split("\n## ").next().unwrap();
        for part in ["\nHappened: ", "\nSafe: ", "\nDo: "] {
            assert!(section.contains(part), "{}: {part}", rule.name);
        }
        let command = rule.value("command");
        let words =
            command.replace("{{ $labels.database }}", "orders").replace("{{ $labels.channel }}", "pager");
        let parsed = Cli::try_parse_from(words.split(' '));
        assert!(parsed.is_ok(), "{}: {command}: {}", rule.name, parsed.err().unwrap());
        let verb: Vec<&str> = command.split(' ').take_while(|word| !word.starts_with("{{")).collect();
        assert!(section.contains(&verb.join(" ")), "{}: its runbook does not say {verb:?}", rule.name);
    }
    let sections = runbook.lines().filter_map(|line| line.strip_prefix("## ")).count();
    assert_eq!(sections, rules.len(), "the runbook has sections of no alert");
}

/// Every string under `key`, wherever it is.
fn strings(value: &Value, key: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == key
                    && let Some(text) = value.as_str()
                {
                    found.push(text.to_owned());
                }
                strings(value, key, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| strings(item, key, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_shows_metrics_that_there_are_and_nearly_all_of_them() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/farshore.json")).unwrap();
    let mut expressions = Vec::new();
    strings(&dashboard, "expr", &mut expressions);
    strings(&dashboard, "query", &mut expressions);
    let shown: BTreeSet<String> = expressions.iter().flat_map(|text| named(text)).collect();
    let there_are = there_are();
    assert!(shown.is_subset(&there_are), "{:?}", shown.difference(&there_are));
    assert!(shown.len() > 15, "{shown:?}");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    // Nothing is fetched from outside, and nothing is tied to one installation's data source.
    let text = dashboard.to_string();
    assert!(!text.contains("http://") && !text.contains("https://"));
    let mut sources = Vec::new();
    strings(&dashboard, "uid", &mut sources);
    assert!(sources.iter().all(|uid| uid == "farshore" || uid == "${datasource}"), "{sources:?}");
    // Each expression is one that Prometheus can read: as a rule of its own.
    let folder = tempfile::tempdir().unwrap();
    let rules =
        expressions.iter().filter(|text| !text.starts_with("label_values") && text.contains("farshore_"));
    let mut file = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (number, expression) in rules.enumerate() {
        let expression = expression.replace("$database", ".+");
        file.push_str(&format!("      - record: panel_{number}\n        expr: '{expression}'\n"));
    }
    let path = folder.path().join("panels.yml");
    std::fs::write(&path, file).unwrap();
    promtool(&["check", "rules", path.to_str().unwrap()]);
}
