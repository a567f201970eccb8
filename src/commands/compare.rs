//! `farshore compare`: holds a standby against its primary, and shows what earlier comparisons came to.

mod shown;

use farshore_catalog::compare::CompareFilter;
use farshore_catalog::job::{JobKind, NewJob};
use farshore_journal::CompareId;

use self::shown::{Listed, text};
use crate::cli::compare::{CompareCommand, CompareRun};
use crate::commands::{self, Context, job};
use crate::compare::outcome::{self, Came};
use crate::compare::{self, Means};
use crate::exit::Exit;
use crate::jobs::{record, spec};
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring;

/// Comparisons that are listed.
const LISTED: u32 = 1000;

/// Runs it.
///
/// # Errors
/// When one is not found, could not be begun, or not all is equal.
pub async fn run(context: &mut Context, command: CompareCommand) -> anyhow::Result<Exit> {
    match command {
        CompareCommand::Run(args) => Box::pin(done(context, args)).await,
        CompareCommand::List { database } => {
            let config = context.config()?;
            let catalog = wiring::catalog(&config).await?;
            let filter = CompareFilter { database, ..CompareFilter::default() };
            let found =
                catalog.compare_list(&filter, LISTED).await.map_err(|why| wiring::catalog_away(&why))?;
            let listed: Vec<Listed> = found.iter().map(Listed::of).collect();
            context.output.list("farshore.compare-list/1", &listed)?;
            Ok(Exit::Done)
        }
        CompareCommand::Show { compare } => {
            let config = context.config()?;
            let catalog = wiring::catalog(&config).await?;
            let found = catalog.compare_get(compare).await.map_err(|why| wiring::catalog_away(&why))?;
            let found = found.ok_or_else(|| unknown(compare))?;
            let came: Came = serde_json::from_str(&found.statement)?;
            context.output.one("farshore.compare/1", &came, &text(&came))?;
            Ok(Exit::Done)
        }
    }
}

/// Does it, or leaves it to a service.
async fn done(context: &mut Context, args: CompareRun) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let database = commands::database(&config, Some(&args.database))?;
    let wanted = spec::Compare {
        standby: args.standby,
        within: args.within,
        tables: args.tables,
        exclude: args.exclude,
        rate: args.rate.map(|rate| rate.get()),
    };
    if args.no_wait {
        let asked = spec::queued(JobKind::Compare, Some(database.0), &wanted);
        return job::queue(context, &config, asked).await;
    }
    // Whoever serves the standby is asked by it: without one nothing can be compared.
    let catalog = wiring::catalog(&config).await?;
    let asked = spec::asked(JobKind::Compare, Some(database.0), &wanted);
    let asked = NewJob { wanted_node: Some(wiring::node()), ..asked };
    let held = record::begin(Some(&catalog), asked, &context.cancel).await;
    let reporter = held.reporter();
    let means =
        Means { config: &config, catalog: &catalog, by_hand: true, reporter: &reporter, stop: held.stop() };
    let all = match held.to_its_end(Box::pin(compare::all(means, database, &wanted))).await {
        Ok(Some(all)) => all,
        Ok(None) => {
            held.end_stopped().await;
            return Ok(Exit::Interrupted);
        }
        Err(why) => {
            held.end_done(Err(why.clone())).await;
            return Err(why.into());
        }
    };
    for came in &all {
        context.output.one("farshore.compare/1", came, &text(came))?;
    }
    held.end_done(outcome::result(&all)).await;
    match all.iter().max_by_key(|came| came.verdict).and_then(Came::message) {
        Some(message) => Err(message.into()),
        None => Ok(Exit::Done),
    }
}

fn unknown(compare: CompareId) -> OperatorMessage {
    OperatorMessage::new(
        Code::CompareUnknown,
        format!("there is no comparison {compare}"),
        Safe::Known("nothing was changed".to_owned()),
        "`farshore compare list` shows those that the catalog knows",
    )
}
