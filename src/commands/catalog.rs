//! `farshore catalog`: makes the catalog anew from the stores.

use std::sync::Arc;

use farshore_journal::DatabaseName;
use serde::Serialize;

use crate::chronicles::{ask, settle};
use crate::cli::CatalogCommand;
use crate::cli::zone::Zone;
use crate::commands::{self, Context};
use crate::exit::Exit;
use crate::output::Row;
use crate::rebuild::{self, Report};
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
        &["DATABASE", "STORE", "INCARNATION", "CHUNKS", "COMMITS", "BACKUPS", "GAPS", "SEALED", "UNREAD"];

    fn cells(&self, _zone: Zone) -> Vec<String> {
        let report = &self.report;
        let counts =
            [report.chunks, report.commits, report.backups, report.gaps, report.sealed, report.unread];
        let names = [self.database.to_string(), self.store.clone(), self.incarnation.clone()];
        names.into_iter().chain(counts.map(|count| count.to_string())).collect()
    }
}

/// Runs it. What the stores of a database do not say is no longer in the catalog afterwards, but for an operator's marks.
///
/// # Errors
/// When a store or the catalog does not answer, or a journal is not whole. Nothing is forgotten unless every store of the
/// database was read.
pub async fn run(context: &mut Context, args: CatalogCommand) -> anyhow::Result<Exit> {
    let CatalogCommand::Rebuild = args;
    let config = Arc::new(context.config()?);
    let catalog = wiring::catalog_made(&config).await?;
    let mut shown = Vec::new();
    for (name, settings) in commands::databases(&config, None)? {
        let held = sources::held(&config, name).await?;
        rebuild::forget_dropped_stores(&catalog, name, &settings.stores).await?;
        let reports = tokio::select! {
            () = context.cancel.cancelled() => return Ok(Exit::Interrupted),
            reports = Box::pin(rebuild::anew(&catalog, name, &held)) => reports?,
        };
        rebuild::drills::bring_back(&catalog, settings, &held).await?;
        for (held, report) in held.iter().zip(reports) {
            if report.sealed > 0 {
                tracing::warn!(database = %name, store = %held.store, chunks = report.sealed,
                    "encrypted, and no private key is at hand: commits are not in the catalog");
            }
            let incarnation = held.source.record().incarnation.to_string();
            shown.push(Shown { database: name.clone(), store: held.store.clone(), incarnation, report });
        }
    }
    let mut stores = ask::Stores::default();
    for chronicle in ask::all(&config) {
        // A catalog that is not lost was settled long ago: nothing is taken back into it.
        settle::settle(&config, &catalog, &mut stores, &chronicle, true).await?;
        let filled = settle::fill(&config, &catalog, &mut stores, &chronicle).await?;
        if filled > 0 {
            tracing::info!(%chronicle, entries = filled, "opened, and taken back");
        }
    }
    context.output.list("farshore.catalog-rebuild/1", &shown)?;
    Ok(Exit::Done)
}
