//! `farshore guard`: watches over the databases whose commits may not wait for ever, in a process of its own.
//!
//! What always holds: it needs the primary and its ledger, and nothing else: a catalog that is away keeps it from telling, not from acting.

use std::sync::Arc;
use std::time::Duration;

use farshore_shipper::guard::{self, GuardConfig, Standing};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::DatabaseChoice;
use crate::commands::{self, Context};
use crate::config::protection;
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::supervised::{self, Pulse};
use crate::{guarding, wiring};

/// How often it is said of a guard that has ended that it does not hang.
const ENDED: Duration = Duration::from_secs(5);

/// Runs it.
///
/// # Errors
/// When the configuration has nothing to guard, or a guard's ledger cannot be read.
pub async fn run(context: &mut Context, args: DatabaseChoice) -> anyhow::Result<Exit> {
    farshore_shipper::crash::prepare();
    let config = Arc::new(context.config()?);
    let mut guards = Vec::new();
    for (name, settings) in commands::databases(&config, args.database.as_ref())? {
        let Some(timeout) = settings.protection.guarded() else { continue };
        guards.push(GuardConfig {
            database: name.clone(),
            params: wiring::connect_params(name, settings)?,
            armed: protection::synchronous_names(name, settings),
            streams: settings
                .stores
                .iter()
                .map(|store| protection::standby_name(settings.protection, name, store))
                .collect(),
            durable: settings.durable.of(settings.stores.len()),
            timeout,
            folder: config.service.guard(),
        });
    }
    if guards.is_empty() {
        let whose = match &args.database {
            Some(name) => format!("protection of {name} is not \"sync\""),
            None => format!("{} has no database with protection = \"sync\"", config.path.display()),
        };
        return Err(OperatorMessage::new(
            Code::GuardRefused,
            format!("there is nothing to guard: {whose}"),
            Safe::Known("nothing was changed".to_owned()),
            "write protection = \"sync\" for the database here and where it is shipped: docs/protection.md says what it promises",
        )
        .into());
    }
    let cancel = context.cancel.child_token();
    let (mut acting, mut beside) = (JoinSet::new(), JoinSet::new());
    let (mut shown, mut pulses) = (Vec::new(), Vec::new());
    for guard in guards {
        let (told, standing) = watch::channel(Standing::BEGUN);
        let (name, folder) = (guard.database.clone(), guard.folder.clone());
        shown.push((name.clone(), standing.clone()));
        let pulse = Pulse::default();
        pulses.push(pulse.clone());
        beside.spawn(turns(standing, pulse, cancel.clone()));
        let stop = cancel.clone();
        acting.spawn(async move {
            guard::run(guard, told, stop).await.map_err(|why| {
                OperatorMessage::new(
                    Code::GuardLedger,
                    format!("the ledger of the guard of {name} in {} cannot be used: {why}", folder.display()),
                    Safe::Known("nothing was changed at the primary: commits wait or do not wait as before".to_owned()),
                    "mend the folder, or move a file that is none of a guard's ledger out of it, and start the guard again",
                )
            })
        });
    }
    let what = format!("guards {} databases", shown.len());
    beside.spawn(supervised::tell(what, Vec::new(), pulses, cancel.clone()));
    beside.spawn(guarding::tell(Arc::clone(&config), shown, cancel.clone()));
    let mut ended = Ok(());
    while let Some(guard) = acting.join_next().await {
        // The others go on: a database is not let down by another one's ledger.
        if let Err(why) = guard? {
            tracing::error!("{why}");
            ended = Err(why);
        }
    }
    cancel.cancel();
    while beside.join_next().await.is_some() {}
    ended?;
    Ok(Exit::Done)
}

/// Every look is a turn of its loop; one that has ended hangs nowhere.
async fn turns(mut standing: watch::Receiver<Standing>, pulse: Pulse, cancel: CancellationToken) {
    while standing.changed().await.is_ok() {
        pulse.beat();
    }
    while cancel.run_until_cancelled(tokio::time::sleep(ENDED)).await.is_some() {
        pulse.beat();
    }
}
