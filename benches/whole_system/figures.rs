//! What a process took: wall time, its own CPU seconds, its peak of resident memory; and what everybody else took meanwhile.
//!
//! CPU seconds come from `/proc/<pid>/stat` (in hundredths), read while the process lives or is a zombie of ours, so its threads
//! are in it and its children are not. A run that shared the machine with others shows it in `others`.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use farshore_testkit::user;

/// How often a running process is looked at.
const GLANCE: Duration = Duration::from_millis(5);

/// Bytes of a GiB and a MB, as the tables mean them.
pub const GIB: f64 = (1u64 << 30) as f64;
const MB: f64 = 1e6;

/// What one run took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Run {
    /// Seconds of wall time.
    pub wall: f64,
    /// CPU seconds of the process itself.
    pub cpu: f64,
    /// CPU seconds of the database servers meanwhile.
    pub server_cpu: f64,
    /// Cores that processes outside of this program used meanwhile.
    pub others: f64,
    /// Peak of resident memory in KiB.
    pub peak_kib: u64,
    /// Plain bytes that it dealt with.
    pub bytes: u64,
    /// Bytes that it left on the disk, where that is of interest.
    pub stored: u64,
}

impl Run {
    /// MB of plain bytes in a second of wall time.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / MB / self.wall
    }

    /// CPU seconds for each GiB of plain bytes.
    pub fn cpu_per_gib(&self) -> f64 {
        self.cpu / (self.bytes as f64 / GIB)
    }

    /// The same of the database servers.
    pub fn server_cpu_per_gib(&self) -> f64 {
        self.server_cpu / (self.bytes as f64 / GIB)
    }
}

/// A process being measured.
pub struct Watched {
    child: Child,
    begun: Instant,
    whole: Ticks,
    ours: f64,
    peak_kib: u64,
}

/// The machine's busy time.
#[derive(Clone, Copy)]
struct Ticks {
    busy: f64,
}

impl Watched {
    /// Starts `command` as the unprivileged user, without input and output.
    pub fn start(command: Command) -> Self {
        let mut command = user::run_as(command);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let (whole, ours) = (machine(), tree());
        let begun = Instant::now();
        let child = command.spawn().unwrap_or_else(|why| panic!("{command:?}: {why}"));
        Self { child, begun, whole, ours, peak_kib: 0 }
    }

    /// Runs it to its end, which must be a success.
    pub fn whole(mut self, bytes: u64) -> Run {
        while !self.look() {
            std::thread::sleep(GLANCE);
        }
        let run = self.taken(bytes);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "it ended with {status}");
        run
    }

    /// Runs it until `done`, then asks it to end.
    pub fn until(mut self, bytes: u64, mut done: impl FnMut() -> bool) -> Run {
        while !done() {
            assert!(!self.look(), "it ended early");
            std::thread::sleep(GLANCE);
        }
        let run = self.taken(bytes);
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        assert!(self.child.wait().unwrap().success(), "it did not end well");
        run
    }

    /// Notes the peak; whether it has ended.
    fn look(&mut self) -> bool {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap_or_default();
        let peak = status.lines().find(|line| line.starts_with("VmHWM"));
        let peak = peak.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        self.peak_kib = self.peak_kib.max(peak.unwrap_or(0));
        status.lines().any(|line| line.starts_with("State:\tZ"))
    }

    fn taken(&mut self, bytes: u64) -> Run {
        let wall = self.begun.elapsed().as_secs_f64();
        self.look();
        let cpu = stat(self.child.id()).map_or(0.0, |stat| stat.own);
        let ours = tree() - self.ours;
        let busy = machine().busy - self.whole.busy;
        Run {
            wall,
            cpu,
            server_cpu: (ours - cpu).max(0.0),
            others: ((busy - ours) / wall).max(0.0),
            peak_kib: self.peak_kib,
            bytes,
            stored: 0,
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Only after a panic it still runs.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

struct Stat {
    pid: u32,
    parent: u32,
    own: f64,
    reaped: f64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok().map(|ticks| ticks / 100.0);
    Some(Stat {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        own: ticks(11)? + ticks(12)?,
        reaped: ticks(13)? + ticks(14)?,
    })
}

/// CPU seconds of this program and all that descends from it, the ended included. This thread's own looking is in it, which is
/// below a hundredth of a core.
fn tree() -> f64 {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let all: Vec<Stat> = pids.filter_map(|entry| stat(entry.file_name().to_str()?.parse().ok()?)).collect();
    let mut within = vec![std::process::id()];
    let mut sum = 0.0;
    let mut at = 0;
    while let Some(&pid) = within.get(at) {
        sum += all.iter().filter(|stat| stat.pid == pid).map(|stat| stat.own + stat.reaped).sum::<f64>();
        within.extend(all.iter().filter(|stat| stat.parent == pid).map(|stat| stat.pid));
        at += 1;
    }
    sum
}

/// Source: proc(5), `/proc/stat`: user nice system idle iowait irq softirq steal, in hundredths.
fn machine() -> Ticks {
    let text = std::fs::read_to_string("/proc/stat").unwrap();
    let fields: Vec<f64> =
        text.lines().next().unwrap().split_whitespace().skip(1).map(|f| f.parse().unwrap()).collect();
    Ticks { busy: (fields[0] + fields[1] + fields[2] + fields[5] + fields[6]) / 100.0 }
}

/// CPU seconds of this thread.
pub fn thread_cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// The middle one, and the range.
pub fn spread(values: &[f64], digits: usize) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.digits$} ({least:.digits$}-{most:.digits$})", median(values))
}

/// Cases in the order in which they first came, each with its runs.
#[derive(Default)]
pub struct Table {
    cases: Vec<(String, Vec<Run>)>,
}

impl Table {
    /// Adds a run to a case, and says so on standard error.
    pub fn add(&mut self, case: &str, run: Run) {
        eprintln!(
            "  {case}: {:.2} s, {:.0} MB/s, CPU {:.2} s/GiB, {} KiB, others {:.2} cores",
            run.wall,
            run.rate(),
            run.cpu_per_gib(),
            run.peak_kib,
            run.others
        );
        match self.cases.iter_mut().find(|(name, _)| name == case) {
            Some((_, runs)) => runs.push(run),
            None => self.cases.push((case.to_owned(), vec![run])),
        }
    }

    fn of(&self, case: &str, what: impl Fn(&Run) -> f64) -> Vec<f64> {
        let runs = self.cases.iter().find(|(name, _)| name == case).map(|(_, runs)| runs.as_slice());
        runs.unwrap_or_default().iter().map(what).collect()
    }

    /// Prints medians and ranges.
    pub fn print(&self, title: &str) {
        println!("\n## {title}\n");
        println!(
            "| case | s | MB/s | CPU s/GiB | server's CPU s/GiB | peak MiB | stored MiB | others, cores |"
        );
        println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
        for (name, _) in &self.cases {
            let of = |what: fn(&Run) -> f64, digits| spread(&self.of(name, what), digits);
            let median = |what: fn(&Run) -> f64| median(&self.of(name, what));
            println!(
                "| {name} | {} | {} | {} | {:.2} | {:.1} | {:.0} | {:.2} |",
                of(|run| run.wall, 2),
                of(Run::rate, 0),
                of(Run::cpu_per_gib, 2),
                median(Run::server_cpu_per_gib),
                median(|run| run.peak_kib as f64 / 1024.0),
                median(|run| run.stored as f64 / 1_048_576.0),
                median(|run| run.others),
            );
        }
        println!();
    }

    /// Prints how one case stands to another, round by round.
    pub fn ratio(&self, label: &str, case: &str, to: &str, what: impl Fn(&Run) -> f64) {
        let ratios: Vec<f64> =
            self.of(case, &what).iter().zip(self.of(to, &what)).map(|(one, other)| one / other).collect();
        if !ratios.is_empty() {
            println!("{label}, {case} to {to}: {}", spread(&ratios, 2));
        }
    }
}

/// Makes memory resident once, so that the run that follows does not pay for what the host took back; and lets what was written
/// before go to the disk.
pub fn settle() {
    nix::unistd::sync();
    let mut memory = vec![0u8; 2 << 30];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
}
