//! `farshore catalog`: makes the catalog anew from the stores.

use farshore_journal::DatabaseName;
use serde::Serialize;

use crate::cli::CatalogCommand;
use crate::commands::{self, Context};
use crate::exit::Exit;
use crate::output::Row;
use crate::rebuild::{Report, bring_up};
use crate::{sources, wiring};

/// One incarnation in one store, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct Shown {
    database: DatabaseName,
    store: String,
    incarnation: String,
    #[serde(flatten)]
    report: Report,
}

impl Row for Shown {
    const HEADER: &'static [&'static str] =
        &["DATABASE", "STORE", "INCARNATION", "CHUNKS", "COMMITS", "BACKUPS", "GAPS", "SEALED"];

    fn cells(&self) -> Vec<String> {
        let report = &self.report;
        let counts = [report.chunks, report.commits, report.backups, report.gaps, report.sealed];
        let names = [self.database.to_string(), self.store.clone(), self.incarnation.clone()];
        names.into_iter().chain(counts.map(|count| count.to_string())).collect()
    }
}

/// Runs it. What the catalog has already is kept; writing a fact twice changes nothing.
///
/// # Errors
/// When a store or the catalog does not answer, or a journal is not whole.
pub async fn run(context: &mut Context, args: CatalogCommand) -> anyhow::Result<Exit> {
    let CatalogCommand::Rebuild = args;
    let config = context.config()?;
    let catalog = wiring::catalog(&config).await?;
    let mut shown = Vec::new();
    for (name, settings) in commands::databases(&config, None)? {
        for store in &settings.stores {
            for source in sources::all(&config, name, store).await? {
                let report = tokio::select! {
                    () = context.cancel.cancelled() => return Ok(Exit::Interrupted),
                    report = Box::pin(bring_up(&catalog, &source, store.as_str(), true)) => report?,
                };
                if report.sealed > 0 {
                    tracing::warn!(database = %name, store = %store, chunks = report.sealed,
                        "encrypted, and no private key is at hand: commits are not in the catalog");
                }
                let incarnation = source.record().incarnation.to_string();
                shown.push(Shown { database: name.clone(), store: store.to_string(), incarnation, report });
            }
        }
    }
    context.output.list("farshore.catalog-rebuild/1", &shown)?;
    Ok(Exit::Done)
}
