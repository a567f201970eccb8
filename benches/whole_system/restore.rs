//! From a base and the backlog to the first answered query: `farshore restore`, beside the limit, a copy with `cp` whose log is in
//! `pg_wal` already when the server starts. Both end paused at the same position, with hot standby.
//!
//! What a server's own messages say splits the time: its start, the begin of replay, the pause at the target.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use farshore_testkit::pg::{Major, Mode, Server};
use farshore_testkit::user;

use crate::figures::{Run, Table, Watched, median, settle, spread};
use crate::setting::{DATABASE, Setting, farshore, size, wait};

/// Seconds of a server's life, by its own messages.
struct Life {
    starting: f64,
    redo: f64,
    paused: f64,
}

/// What the process that replays took until the pause, which tells a replay that computes from one that waits.
struct Replayer {
    user: f64,
    system: f64,
    read_mib: f64,
}

/// How long each phase took, in seconds, and what the replaying process took of that.
#[derive(Default)]
struct Phases {
    copy: Vec<f64>,
    answer: Vec<f64>,
    redo: Vec<f64>,
    total: Vec<f64>,
    user: Vec<f64>,
    system: Vec<f64>,
    read_mib: Vec<f64>,
}

impl Phases {
    fn add(&mut self, copy: f64, total: f64, life: &Life, replayer: &Replayer) {
        self.copy.push(copy);
        self.answer.push(total - copy);
        self.redo.push(life.paused - life.redo);
        self.total.push(total);
        self.user.push(replayer.user);
        self.system.push(replayer.system);
        self.read_mib.push(replayer.read_mib);
    }

    fn print(&self, case: &str, log: u64) {
        let rate: Vec<f64> = self.redo.iter().map(|redo| log as f64 / 1e6 / redo).collect();
        println!(
            "| {case} | {} | {} | {} | {} | {} | {} | {} | {} |",
            spread(&self.copy, 2),
            spread(&self.answer, 2),
            spread(&self.redo, 2),
            spread(&rate, 0),
            spread(&self.total, 2),
            spread(&self.user, 2),
            spread(&self.system, 2),
            spread(&self.read_mib, 0)
        );
    }
}

/// Restores in every way, round by round. `places` are the stores with the backlog, one for each program.
pub fn measure(setting: &Setting, places: &[std::path::PathBuf], begin: u64, end: u64) {
    let log = end - begin;
    let mut table = Table::default();
    let mut ours: Vec<Phases> = setting.asked.binaries.iter().map(|_| Phases::default()).collect();
    let mut limit = Phases::default();
    for round in 0..setting.asked.rounds as usize {
        // Who comes first in a round pays for disk and memory that the host took back: each does in turn.
        let cases = ours.len() + 1;
        for turn in 0..cases {
            let at = (turn + round) % cases;
            match (ours.get_mut(at), setting.asked.binaries.get(at), places.get(at)) {
                (Some(phases), Some(binary), Some(place)) => {
                    restored(setting, &mut table, phases, binary, place, end);
                }
                _ => beside(setting, &mut table, &mut limit, begin, end),
            }
        }
    }
    table.print("A base and the backlog restored");
    println!(
        "| case | copy, s | start to answer, s | redo, s | redo, MB/s | total, s | startup's user s | its system s | read MiB |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for ((name, _), phases) in setting.asked.binaries.iter().zip(&ours) {
        phases.print(&format!("farshore {name}"), log);
    }
    limit.print("limit: cp -a, log in pg_wal", log);
    println!();
    for ((name, _), phases) in setting.asked.binaries.iter().zip(&ours) {
        let ratio = |one: &[f64], other: &[f64]| {
            let ratios: Vec<f64> = one.iter().zip(other).map(|(one, other)| one / other).collect();
            (spread(&ratios, 2), median(&ratios))
        };
        println!("replay MB/s, farshore {name} to limit: {}", ratio(&limit.redo, &phases.redo).0);
        println!("copy s, farshore {name} to limit: {}", ratio(&phases.copy, &limit.copy).0);
        println!("total s, farshore {name} to limit: {}", ratio(&phases.total, &limit.total).0);
    }
}

/// One restore by a program, from the store that it shipped to.
fn restored(
    setting: &Setting,
    table: &mut Table,
    phases: &mut Phases,
    (name, binary): &(String, PathBuf),
    place: &Path,
    end: u64,
) {
    let to = setting.place("restored");
    let _ = std::fs::remove_dir_all(&to);
    settle();
    let to_text = to.display().to_string();
    let position = format!("{:X}/{:X}", end >> 32, end & 0xFFFF_FFFF);
    let arguments = ["restore", DATABASE, "--pos", &position, "--to", &to_text, "--start", "--port", "5999"];
    let command = farshore(binary, &place.join("farshore.toml"), &arguments);
    let run = Watched::start(command).whole(0);
    let life = life(&std::fs::read_to_string(to.join("farshore-run/postgres.log")).unwrap());
    let copy = run.wall - (life.paused - life.starting);
    phases.add(copy, run.wall, &life, &replayer(&to));
    let bytes = size(&to);
    table.add(&format!("farshore {name}, to the first answer"), Run { bytes, ..run });
    stop(&to);
    std::fs::remove_dir_all(&to).unwrap();
}

/// The limit: the copy that was kept, and the log, by `cp`, made durable.
fn beside(setting: &Setting, table: &mut Table, limit: &mut Phases, begin: u64, end: u64) {
    let to = setting.place("beside");
    let _ = std::fs::remove_dir_all(&to);
    settle();
    let begun = Instant::now();
    let kept = setting.place("kept");
    let log_begin = log_begin(&kept).min(begin);
    let segments: Vec<String> =
        setting.segments(log_begin, end).iter().map(|path| path.display().to_string()).collect();
    // One shell, so that one process is measured; its children are what it waits for.
    let script = format!(
        "cp -a {kept} {to} && cp {log} {to}/pg_wal/ && sync -f {to}",
        kept = kept.display(),
        to = to.display(),
        log = segments.join(" ")
    );
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script]);
    let run = Watched::start(command).whole(0);
    let copied = begun.elapsed().as_secs_f64();
    let conf = format!(
        "recovery_target_lsn = '{:X}/{:X}'\nrecovery_target_action = pause\nrestore_command = 'false'\nhot_standby = on\n",
        end >> 32,
        end & 0xFFFF_FFFF
    );
    append(&to.join("postgresql.conf"), &conf);
    std::fs::write(to.join("recovery.signal"), "").unwrap();
    user::give(&to);
    let server = Server::on_data_dir(Major::V15, &to);
    let begun = Instant::now();
    server.start();
    wait("the pause", || server.log().contains("pausing at the end of recovery"));
    let answered = begun.elapsed().as_secs_f64();
    let life = life(&server.log());
    limit.add(copied, copied + answered, &life, &replayer(&to));
    table.add("limit: cp -a, log in pg_wal; the copy alone", Run { bytes: size(&to), ..run });
    server.stop(Mode::Immediate);
    drop(server);
    std::fs::remove_dir_all(&to).unwrap();
}

fn append(path: &Path, text: &str) {
    use std::io::Write;
    std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// Where a copy's replay begins, by its label.
fn log_begin(copy: &Path) -> u64 {
    let label = std::fs::read_to_string(copy.join("backup_label")).unwrap();
    let text = label.split("START WAL LOCATION: ").nth(1).unwrap().split(' ').next().unwrap();
    let (high, low) = text.split_once('/').unwrap();
    u64::from_str_radix(high, 16).unwrap() << 32 | u64::from_str_radix(low, 16).unwrap()
}

fn life(log: &str) -> Life {
    let at = |what: &str| {
        let line =
            log.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what} in:\n{log}"));
        // 2026-11-25 21:00:00.123 UTC ...
        let clock = line.split(' ').nth(1).unwrap();
        let parts: Vec<f64> = clock.split(':').map(|part| part.parse().unwrap()).collect();
        parts[0] * 3600.0 + parts[1] * 60.0 + parts[2]
    };
    Life {
        starting: at("starting PostgreSQL"),
        redo: at("redo starts at"),
        paused: at("pausing at the end of recovery"),
    }
}

/// The startup process of a server that is paused.
fn replayer(data: &Path) -> Replayer {
    let postmaster = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let postmaster = postmaster.lines().next().unwrap();
    let children = format!("/proc/{postmaster}/task/{postmaster}/children");
    let children = std::fs::read_to_string(children).unwrap();
    let names_it = |pid: &&str| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("startup")
    };
    let pid = children.split_whitespace().find(names_it).expect("a startup process");
    // Source: proc(5): user and system time are fields 14 and 15 of stat, in hundredths; read_bytes is what came from the disk.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let seconds = |at: usize| fields[at].parse::<f64>().unwrap() / 100.0;
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let read = io.lines().find_map(|line| line.strip_prefix("read_bytes: ")).unwrap();
    Replayer { user: seconds(11), system: seconds(12), read_mib: read.parse::<f64>().unwrap() / 1_048_576.0 }
}

/// Ends the server that a restore left running.
fn stop(data: &Path) {
    let file = data.join("postmaster.pid");
    let Ok(text) = std::fs::read_to_string(&file) else { return };
    let pid = text.lines().next().unwrap().to_owned();
    let _ = Command::new("kill").args(["-QUIT", &pid]).status();
    wait("the restored server's end", || !Path::new(&format!("/proc/{pid}")).exists());
}
