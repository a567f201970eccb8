//! A base backup is taken: farshore's beside `pg_basebackup`'s, plain and compressed by the server. All take a manifest with
//! SHA-256, checkpoint at once, and bring no log.

use std::process::Command;

use farshore_testkit::pg::Major;
use farshore_testkit::user;

use crate::figures::{Run, Table, Watched, settle};
use crate::setting::{DATABASE, Setting, backups, farshore, size};

/// Takes backups in every way, round by round, into the store of a service that runs.
pub fn measure(setting: &Setting) {
    let mut table = Table::default();
    let store = setting.place("main").join("store");
    let config = setting.place("main").join("farshore.toml");
    let kept = backups(&store);
    for _ in 0..setting.asked.rounds {
        let run = copy(setting, &["-Fp"]);
        let bytes = run.stored;
        table.add("pg_basebackup, plain", Run { bytes, ..run });
        for (name, binary) in &setting.asked.binaries {
            settle();
            let run = Watched::start(farshore(binary, &config, &["backup", "run", DATABASE])).whole(bytes);
            let new: Vec<_> = backups(&store).into_iter().filter(|path| !kept.contains(path)).collect();
            table.add(
                &format!("farshore {name}"),
                Run { stored: new.iter().map(|path| size(path)).sum(), ..run },
            );
            for path in new {
                std::fs::remove_dir_all(path).unwrap();
            }
        }
        for (case, workers) in
            [("pg_basebackup, server-zstd 3", 0), ("pg_basebackup, server-zstd 3, 2 workers", 2)]
        {
            let run = copy(setting, &["-Ft", &format!("--compress=server-zstd:level=3,workers={workers}")]);
            table.add(case, Run { bytes, ..run });
        }
    }
    table.print("A base backup, zstd 3");
    for (name, _) in &setting.asked.binaries {
        let case = format!("farshore {name}");
        for to in [
            "pg_basebackup, plain",
            "pg_basebackup, server-zstd 3",
            "pg_basebackup, server-zstd 3, 2 workers",
        ] {
            table.ratio("MB/s", &case, to, Run::rate);
        }
        for (other, _) in setting.asked.binaries.iter().filter(|(other, _)| other != name) {
            table.ratio("MB/s", &case, &format!("farshore {other}"), Run::rate);
            table.ratio("CPU", &case, &format!("farshore {other}"), Run::cpu_per_gib);
        }
    }
}

/// A copy by `pg_basebackup`, removed again.
fn copy(setting: &Setting, arguments: &[&str]) -> Run {
    let place = setting.place("copied");
    let _ = std::fs::remove_dir_all(&place);
    settle();
    let run = Watched::start(basebackup(setting, &place, arguments)).whole(0);
    let stored = size(&place);
    std::fs::remove_dir_all(&place).unwrap();
    Run { stored, ..run }
}

/// `pg_basebackup` into this folder.
pub fn basebackup(setting: &Setting, place: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(Major::V15.bin().join("pg_basebackup"));
    let pointed = setting.server.client_command("psql");
    command.envs(pointed.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command
        .args(["-X", "none", "-c", "fast", "--manifest-checksums=SHA256", "-D"])
        .arg(place)
        .args(arguments);
    command
}

/// A plain copy that stays.
pub fn keep_copy(setting: &Setting, name: &str) {
    let place = setting.place(name);
    let done = user::run_as(basebackup(setting, &place, &["-Fp"])).status().unwrap();
    assert!(done.success());
}
