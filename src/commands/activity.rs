//! `farshore activity`: who did what, and whether the record of it is as it was written.
//!
//! What always holds: `verify` never calls a record sound that it could not read to its end.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_catalog::activity::ActivityEntry;
use farshore_catalog::chronicle::{Kept, Said};
use farshore_journal::DatabaseName;
use farshore_journal::format::Chronicle;
use serde::Serialize;

use crate::chronicles::ask;
use crate::chronicles::held::{self, Chain, InStore, Unheld};

use crate::cli::activity::ActivityCommand;
use crate::cli::zone::Zone;
use crate::commands::Context;
use crate::exit::Exit;
use crate::output::Row;
use crate::wiring;

/// Entries that are listed at once.
const LISTED: u32 = 100;

/// An entry, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct Shown {
    number: u64,
    at: DateTime<Utc>,
    who: String,
    what: String,
    database: Option<DatabaseName>,
    detail: String,
    digest: Option<String>,
}

impl From<ActivityEntry> for Shown {
    fn from(entry: ActivityEntry) -> Self {
        let ActivityEntry { number, activity, digest } = entry;
        Self {
            number,
            at: activity.at,
            who: activity.who,
            what: activity.what,
            database: activity.database,
            detail: activity.detail,
            digest,
        }
    }
}

impl Shown {
    /// As a store has it.
    fn of(kept: Kept) -> Option<Self> {
        let Said::Activity(activity) = kept.said else { return None };
        Some(ActivityEntry { number: kept.number, activity, digest: Some(kept.digest.to_string()) }.into())
    }
}

impl Row for Shown {
    const HEADER: &'static [&'static str] = &["NUMBER", "AT (UTC)", "WHO", "WHAT", "DATABASE", "DETAIL"];

    fn cells(&self, zone: Zone) -> Vec<String> {
        vec![
            self.number.to_string(),
            zone.show(self.at, SecondsFormat::Secs),
            self.who.clone(),
            self.what.clone(),
            self.database.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            self.detail.clone(),
        ]
    }
}

/// What a walk found, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct Walked {
    #[serde(flatten)]
    chain: Chain,
    /// How the stores have it.
    stores: Vec<InStore>,
}

/// Runs it. `verify` ends with 9 when it finds something.
///
/// # Errors
/// When the catalog is away.
pub async fn run(context: &mut Context, command: ActivityCommand) -> anyhow::Result<Exit> {
    let config = context.config()?;
    match command {
        ActivityCommand::List { before, store: Some(store) } => {
            let mut entries = held::entries(&config, &Chronicle::Activity, &store).await?;
            entries.retain(|entry| before.is_none_or(|before| entry.number < before));
            let newest = entries.into_iter().rev().take(LISTED as usize);
            let shown: Vec<Shown> = newest.filter_map(Shown::of).collect();
            context.output.list("farshore.activity/1", &shown)?;
            Ok(Exit::Done)
        }
        ActivityCommand::List { before, store: None } => {
            let catalog = wiring::catalog(&config).await?;
            // No number is that large: it is behind all of them.
            let before = before.filter(|before| i64::try_from(*before).is_ok());
            let entries =
                catalog.activity_list(before, LISTED).await.map_err(|why| wiring::catalog_away(&why))?;
            if let Some(first) =
                entries.last().filter(|first| first.digest.is_some()).map(|first| first.number)
            {
                let held = catalog.chronicle_entries(&Chronicle::Activity, first, LISTED).await;
                let why = match held {
                    Ok(held) if held.len() >= entries.len() => None,
                    Ok(held) => Some(format!("entry {} is gone, or in no chain", first + held.len() as u64)),
                    Err(why) => match Unheld::of(why) {
                        Unheld::Away(why) => return Err(wiring::catalog_away(&why).into()),
                        Unheld::Flawed(why) => Some(why),
                    },
                };
                if let Some(why) = why {
                    tracing::error!("{}", held::catalog_flawed(&Chronicle::Activity, &why));
                }
            }
            let shown: Vec<Shown> = entries.into_iter().map(Shown::from).collect();
            context.output.list("farshore.activity/1", &shown)?;
            Ok(Exit::Done)
        }
        ActivityCommand::Verify { store: Some(store) } => {
            ask::known(&config, None, &store)?;
            let held = vec![held::look(&config, &Chronicle::Activity, &store, None).await];
            let sound = held.iter().all(|one| one.sound == Some(true));
            let text = held::lines(&held);
            context.output.one("farshore.activity-sealed/1", &BTreeMap::from([("stores", held)]), &text)?;
            Ok(if sound { Exit::Done } else { Exit::Findings })
        }
        ActivityCommand::Verify { store: None } => {
            let catalog = wiring::catalog(&config).await?;
            let verified = catalog.activity_verify().await.map_err(|why| wiring::catalog_away(&why))?;
            let mut walked = Walked { chain: Chain::from(verified), stores: Vec::new() };
            let own = walked.chain.text();
            for store in ask::stores(&config, &Chronicle::Activity) {
                walked.stores.push(held::look(&config, &Chronicle::Activity, &store, Some(&catalog)).await);
            }
            walked.chain.sound &= walked.stores.iter().all(|one| one.sound == Some(true));
            let text = own + &held::lines(&walked.stores);
            context.output.one("farshore.activity-verify/1", &walked, &text)?;
            Ok(if walked.chain.sound { Exit::Done } else { Exit::Findings })
        }
    }
}
