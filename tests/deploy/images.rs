//! Container, compose and package files, as far as a machine without a container engine can judge them.

use std::process::Command;

use clap::Parser as _;
use farshore::cli::Cli;
use farshore::config::{self, Environment};
use farshore_testkit::tools;
use serde_json::Value;

use crate::{place, read};

/// A YAML file's documents as JSON.
fn yaml(path: &str) -> Value {
    let program = "import sys, json, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let done =
        Command::new(tools::python_with_yaml()).args(["-c", program]).arg(place(path)).output().unwrap();
    assert!(done.status.success(), "{path}: {}", String::from_utf8_lossy(&done.stderr));
    let documents: Value = serde_json::from_slice(&done.stdout).unwrap();
    documents[0].clone()
}

#[test]
fn the_image_runs_as_nobody_in_particular_and_starts_what_there_is() {
    let text = read("deploy/container/Containerfile");
    let last = text.rsplit("\nFROM ").next().unwrap();
    assert!(last.contains("\nUSER 65532:65532\n") && !last.contains("\nRUN "), "{last}");
    let words = |instruction: &str| -> Vec<String> {
        let line = last.lines().find_map(|line| line.strip_prefix(instruction)).unwrap();
        serde_json::from_str(line.trim()).unwrap()
    };
    let line = [words("ENTRYPOINT"), words("CMD")].concat();
    let parsed = Cli::try_parse_from(&line);
    assert!(parsed.is_ok(), "{line:?}: {}", parsed.err().unwrap());
    assert!(text.contains("cargo build --release --locked"));
}

#[test]
fn compose_names_only_what_it_defines_and_its_configuration_is_one() {
    let compose = yaml("deploy/container/compose.yml");
    let names = |key: &str| -> Vec<String> { compose[key].as_object().unwrap().keys().cloned().collect() };
    let (services, secrets, volumes) = (names("services"), names("secrets"), names("volumes"));
    for (name, service) in compose["services"].as_object().unwrap() {
        let list = |key: &str| -> Vec<String> {
            let items = service[key].as_array().cloned().unwrap_or_default();
            items.iter().map(|item| item.as_str().unwrap().to_owned()).collect()
        };
        for secret in list("secrets") {
            assert!(secrets.contains(&secret), "{name}: {secret}");
        }
        for volume in list("volumes") {
            let from = volume.split(':').next().unwrap();
            match from.strip_prefix("./") {
                Some(file) => assert!(place("deploy/container").join(file).is_file(), "{name}: {volume}"),
                None => assert!(volumes.contains(&from.to_owned()), "{name}: {volume}"),
            }
        }
        for other in service["depends_on"].as_object().into_iter().flat_map(|on| on.keys()) {
            assert!(services.contains(other), "{name}: {other}");
        }
        // No secret stands in it, and no image moves by itself.
        if let Some(image) = service["image"].as_str() {
            assert!(image.rsplit_once(':').is_some_and(|(_, tag)| tag != "latest"), "{image}");
        }
    }
    let ours = &compose["services"]["farshore"];
    assert_eq!((&ours["read_only"], &ours["cap_drop"][0]), (&true.into(), &"ALL".into()));
    let path = place("deploy/container/farshore.toml");
    let folder = path.parent().unwrap();
    let parsed = config::parse(&path, folder, &read("deploy/container/farshore.toml"), &Environment::new());
    let parsed = parsed.unwrap_or_else(|why| panic!("{why}"));
    assert!(parsed.warnings.is_empty(), "{:?}", parsed.warnings);
    let text = read("deploy/container/farshore.toml");
    for (secret, host) in [("catalog", "@catalog/"), ("primary", "@primary/"), ("store", "//store:")] {
        assert!(text.contains(&format!("\"/run/secrets/{secret}\"")) && text.contains(host), "{secret}");
        assert!(services.contains(&secret.to_owned()));
    }
}

#[test]
fn the_chart_is_read_and_its_configuration_and_rules_are_ours() {
    let chart = yaml("deploy/helm/farshore/Chart.yaml");
    assert_eq!((&chart["apiVersion"], &chart["name"]), (&"v2".into(), &"farshore".into()));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    let values = yaml("deploy/helm/farshore/values.yaml");
    let folder = place("deploy/helm/farshore");
    let text = values["config"].as_str().unwrap();
    let parsed = config::parse(&folder.join("values.yaml"), &folder, text, &Environment::new());
    let parsed = parsed.unwrap_or_else(|why| panic!("{why}"));
    assert!(parsed.warnings.is_empty() && parsed.service.tls.is_some(), "{:?}", parsed.warnings);
    assert_eq!(read("deploy/helm/farshore/farshore.rules.yml"), read("deploy/prometheus/farshore.rules.yml"));
    // Every value that a template names is there. What the templates give is judged by helm alone, which is not asked here.
    for template in std::fs::read_dir(folder.join("templates")).unwrap() {
        let path = template.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches("{{").count(), text.matches("}}").count(), "{}", path.display());
        for named in text.split(".Values.").skip(1) {
            let name: String = named.chars().take_while(|c| c.is_alphanumeric() || *c == '.').collect();
            let found = name.split('.').try_fold(&values, |value, key| value.get(key));
            assert!(found.is_some(), "{}: {name}", path.display());
        }
    }
}

#[test]
fn the_package_brings_program_units_and_rules_to_where_they_belong() {
    let manifest: toml_text::Table = toml_text::table(&read("Cargo.toml"));
    let assets = manifest.assets();
    assert!(assets.len() >= 6, "{assets:?}");
    for (from, to) in &assets {
        let built = from.starts_with("target/");
        assert!(built || place(from).is_file(), "{from} is not there");
        assert!(to.starts_with("usr/") || to.starts_with("etc/") || to.starts_with("lib/"), "{to}");
    }
    for unit in super::units::UNITS {
        let wanted = (format!("deploy/systemd/{unit}"), "usr/lib/systemd/system/".to_owned());
        assert!(assets.contains(&wanted), "{unit}");
    }
}

/// As much of the manifest as is asked here.
mod toml_text {
    pub struct Table(Vec<(String, String)>);

    /// The assets, line by line: `["FROM", "TO", "MODE"],`.
    pub fn table(text: &str) -> Table {
        let (_, behind) = text.split_once("\n[package.metadata.deb]\n").expect("there is a package");
        let (_, list) = behind.split_once("\nassets = [\n").expect("it has assets");
        let lines = list.lines().take_while(|line| *line != "]");
        let rows = lines.map(|line| {
            let words: Vec<String> =
                serde_json::from_str(line.trim().trim_end_matches(',')).expect("three texts");
            (words[0].clone(), words[1].clone())
        });
        Table(rows.collect())
    }

    impl Table {
        pub fn assets(&self) -> Vec<(String, String)> {
            self.0.clone()
        }
    }
}
