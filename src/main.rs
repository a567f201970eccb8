//! The `farshore` command: reads the line, starts the runtime, runs the verb, says how it ended.
//!
//! What always holds: standard output carries answers only, everything else goes to standard error; the exit code
//! fits whoever reads it (`exit.rs`), for a line that cannot be parsed and for a panic too. A first signal asks the
//! work to end and waits for it; a second one ends the run.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use farshore::cli::{Cli, Format};
use farshore::commands;
use farshore::commands::demo::shop;
use farshore::exit::{Contract, Exit};
use farshore::message::{Code, OperatorMessage, Safe};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{SigSet, Signal};
use tokio_util::sync::CancellationToken;

/// How long tasks that do not end by themselves are waited for once the verb has returned.
const RUNTIME_END: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    farshore::heap::share_one();
    let arguments: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    if arguments.get(1).is_some_and(|word| word == farshore::wiring::FOLLOW) {
        return follow();
    }
    if arguments.get(1).is_some_and(|word| word == shop::SAMPLE) {
        return shop::be(&arguments[2..]);
    }
    let contract = Contract::of_arguments(arguments.iter().map(String::as_str));
    // A panic ends with 101, which `wal fetch` must not give: PostgreSQL would take it for the end of the log.
    let exit = catch_unwind(AssertUnwindSafe(start)).unwrap_or(Exit::Failed);
    contract.translate(exit).into()
}

/// Follows a SQLite database for the service that started this: a process of its own, in which nobody else opens it. Not a verb: it is
/// told by lines on standard input, and speaks in messages that are no text.
fn follow() -> ExitCode {
    // A signal to all of the service's processes is the service's to answer: this one ends when its orders do. Threads inherit it.
    let mut signals = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| signals.add(signal));
    let _ = signals.thread_block();
    let served =
        output_of_messages().and_then(|output| farshore_engines::sqlite::serve::serve(io::stdin(), output));
    match served {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

/// Standard output itself: what is said there has no lines to wait for. A pipe gets more room, where the system
/// gives it.
fn output_of_messages() -> io::Result<File> {
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let _ = fcntl(&output, FcntlArg::F_SETPIPE_SZ(256 << 10));
    Ok(output)
}

fn start() -> Exit {
    let cli = match Cli::from_line(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers on standard output; whether they could be printed changes nothing.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    start_diagnostics(cli.global.quiet, cli.global.verbose);
    // The ring provider, once for all TLS; a second installation could only be the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let format = cli.global.output;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(format, &error.into()),
    };
    let exit = match runtime.block_on(run(cli)) {
        Ok(exit) => exit,
        Err(error) => report(format, &error),
    };
    runtime.shutdown_timeout(RUNTIME_END);
    exit
}

/// Runs the verb beside the signals.
async fn run(cli: Cli) -> anyhow::Result<Exit> {
    let cancel = CancellationToken::new();
    let mut work = std::pin::pin!(commands::dispatch(cli, cancel.clone()));
    let mut signals = Signals::new()?;
    tokio::select! {
        ended = &mut work => return ended,
        () = signals.next() => cancel.cancel(),
    }
    tracing::info!("asked to end; waiting for work in hand, a second signal ends at once");
    tokio::select! {
        ended = &mut work => ended,
        () = signals.next() => Err(OperatorMessage::new(
            Code::Interrupted,
            "ended by a second signal before the work in hand was done",
            Safe::Unknown("the work in hand was cut off; what was confirmed as stored before stays stored".to_owned()),
            "run `farshore status`, then the same command again",
        )
        .into()),
    }
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for either. Cancel safe: a signal that came is kept for the next call.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Diagnostics on standard error: warnings, or what `-v`, `-q` or `FARSHORE_LOG` ask for.
fn start_diagnostics(quiet: bool, verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, 2) => "debug",
        (false, _) => "trace",
    };
    let filter = EnvFilter::try_from_env("FARSHORE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let coloured =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(coloured).init();
}

/// Says on standard error why the run failed, and gives its exit code.
fn report(format: Format, error: &anyhow::Error) -> Exit {
    let message = match error.downcast_ref::<OperatorMessage>() {
        Some(message) => message.clone(),
        None => {
            let code = if error.downcast_ref::<io::Error>().is_some() {
                Code::OutputFailed
            } else {
                Code::Unexpected
            };
            OperatorMessage::new(
                code,
                format!("{error:#}"),
                Safe::Unknown(
                    "this failure has no message of its own; what is stored stays stored".to_owned(),
                ),
                "run it again with -v; if it stays, report it with that output",
            )
        }
    };
    let text = match format {
        Format::Table => message.to_string(),
        Format::Json | Format::Jsonl => {
            serde_json::to_string(&message).unwrap_or_else(|_| message.to_string())
        }
    };
    // Standard error may be closed; the exit code still tells.
    let _ = writeln!(io::stderr(), "{text}");
    message.code.exit()
}
