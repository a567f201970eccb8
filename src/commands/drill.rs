//! `farshore drill`: rehearses a recovery and says what came of it; and shows, reports and checks what earlier drills came to.
//!
//! What always holds: a drill that this command does itself needs no catalog; a certificate is checked with the public key alone; who asks for a report is told of failed drills as of passed ones.

mod report;
mod shown;
mod verify;

use farshore_catalog::Catalog;
use farshore_catalog::drill::{Drill, DrillFilter};
use farshore_catalog::job::{JobKind, NewJob};
use farshore_journal::{DatabaseName, DrillId};

use self::shown::{Listed, Shown};
use crate::cli::drill::{DrillCommand, DrillRun};
use crate::commands::{self, Context, job};
use crate::config::Config;
use crate::drill::{self, Means};
use crate::exit::Exit;
use crate::jobs::{record, spec, work};
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring;

/// Drills that are listed.
const LISTED: u32 = 1000;

/// Runs it.
///
/// # Errors
/// When a drill or a certificate is not found, or a drill could not be begun or did not pass.
pub async fn run(context: &mut Context, command: DrillCommand) -> anyhow::Result<Exit> {
    match command {
        DrillCommand::Run(args) => Box::pin(done(context, args)).await,
        DrillCommand::List { database } => {
            let config = context.config()?;
            let listed = all(&config, database.as_ref()).await?;
            let listed: Vec<Listed> = listed.iter().map(Listed::of).collect();
            context.output.list("farshore.drill-list/1", &listed)?;
            Ok(Exit::Done)
        }
        DrillCommand::Show { drill } => {
            let config = context.config()?;
            let catalog = wiring::catalog(&config).await?;
            let found = catalog.drill_get(drill).await.map_err(|why| wiring::catalog_away(&why))?;
            let found = found.ok_or_else(|| unknown(drill))?;
            let shown = Shown::of_row(&found)?;
            let text = shown.text();
            context.output.one("farshore.drill/1", &shown, &text)?;
            Ok(Exit::Done)
        }
        DrillCommand::Report { database, html } => report::run(context, database.as_ref(), html).await,
        DrillCommand::Verify { which, keys } => verify::run(context, which, keys).await,
    }
}

/// Does a drill, or leaves it to a service.
async fn done(context: &mut Context, args: DrillRun) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let database = commands::database(&config, Some(&args.database))?;
    let wanted = spec::Drill {
        point: args.point.map(|point| point.to_string()),
        scratch: args.scratch.map(std::path::absolute).transpose()?,
        seed: args.seed,
        store: args.store.map(|store| store.to_string()),
    };
    if args.no_wait {
        let asked = spec::queued(JobKind::Drill, Some(database.0), &wanted);
        return job::queue(context, &config, asked).await;
    }
    let catalog = record::catalog(&config).await;
    let asked = spec::asked(JobKind::Drill, Some(database.0), &wanted);
    // Its scratch directory is on this machine.
    let asked = NewJob { wanted_node: Some(wiring::node()), ..asked };
    let held = record::begin(catalog.as_ref(), asked, &context.cancel).await;
    let reporter = held.reporter();
    let means = Means { config: &config, catalog: catalog.as_ref(), reporter: &reporter, stop: held.stop() };
    let came = match held.to_its_end(Box::pin(drill::run(means, database, &wanted))).await {
        Ok(Some(came)) => came,
        Ok(None) => {
            held.end_stopped().await;
            return Ok(Exit::Interrupted);
        }
        Err(why) => {
            held.end_done(Err(why.clone())).await;
            return Err(why.into());
        }
    };
    let shown = Shown::of(&came);
    let text = shown.text();
    // First of all: whoever waits for it must not wait for a catalog.
    context.output.one("farshore.drill/1", &shown, &text)?;
    let (exit, message) = (came.exit(), came.message.clone());
    held.end_done(work::drill_result(came)).await;
    match message {
        Some(message) => Err(message.into()),
        None => Ok(exit),
    }
}

async fn all(config: &Config, database: Option<&DatabaseName>) -> anyhow::Result<Vec<Drill>> {
    if let Some(name) = database {
        commands::database(config, Some(name))?;
    }
    let catalog: Catalog = wiring::catalog(config).await?;
    Ok(catalog
        .drill_list(&DrillFilter::of(database), LISTED)
        .await
        .map_err(|why| wiring::catalog_away(&why))?)
}

fn unknown(drill: DrillId) -> OperatorMessage {
    OperatorMessage::new(
        Code::DrillUnknown,
        format!("there is no drill {drill}"),
        Safe::Known("nothing was changed".to_owned()),
        "`farshore drill list` shows those that the catalog knows; `farshore catalog rebuild` brings those back that are certified in a store",
    )
}
