//! `farshore throttle`: how throttles stand, and what rules would have done.
//!
//! What always holds: a rule of which no service spoke lately is unknown; a dry run does nothing, and says for how long nobody looked.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::throttle::{RuleState, Throttles};
use farshore_journal::DatabaseName;
use serde::Serialize;

use crate::cli::ThrottleCommand;
use crate::cli::zone::Zone;
use crate::commands::{self, Context};
use crate::config::DatabaseConfig;
use crate::config::quantity::Rate;
use crate::exit::Exit;
use crate::output::Row;
use crate::throttles::replay::{self, Event};
use crate::throttles::rule::{Action, Rule};
use crate::wiring;

/// A rule or, with no rule named, what always holds for the database.
#[derive(Debug, Serialize)]
struct Shown {
    database: DatabaseName,
    /// Null: the database's own `bandwidth`.
    rule: Option<String>,
    when: String,
    test: Option<String>,
    actions: Vec<String>,
    state: &'static str,
    since: Option<DateTime<Utc>>,
    why: String,
    fired_at: Option<DateTime<Utc>>,
    /// The limit that it sets, in bytes a second; null: it sets none.
    bandwidth_bytes_per_second: Option<u64>,
    /// The limit that holds for the database now, whoever sets it; null: none, or not known.
    holds_bytes_per_second: Option<u64>,
}

impl Row for Shown {
    const HEADER: &'static [&'static str] =
        &["DATABASE", "RULE", "STATE", "SINCE (UTC)", "DOES", "WHEN", "HOLDS NOW", "WHY"];

    fn cells(&self, zone: Zone) -> Vec<String> {
        vec![
            self.database.to_string(),
            self.rule.clone().unwrap_or_else(|| "-".to_owned()),
            self.state.to_owned(),
            self.since.map_or_else(|| "-".to_owned(), |since| zone.show(since, SecondsFormat::Secs)),
            self.actions.join(", "),
            self.test.as_ref().map_or_else(|| self.when.clone(), |test| format!("{}; {test}", self.when)),
            self.holds_bytes_per_second.map_or_else(|| "-".to_owned(), |rate| Rate::new(rate).to_string()),
            self.why.clone(),
        ]
    }
}

/// What would have happened at a moment, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct Happened {
    database: DatabaseName,
    at: DateTime<Utc>,
    /// Null: the limit of the database, whoever sets it.
    rule: Option<String>,
    what: String,
    why: String,
}

impl Row for Happened {
    const HEADER: &'static [&'static str] = &["DATABASE", "AT (UTC)", "RULE", "WOULD", "WHY"];

    fn cells(&self, zone: Zone) -> Vec<String> {
        vec![
            self.database.to_string(),
            zone.show(self.at, SecondsFormat::Secs),
            self.rule.clone().unwrap_or_else(|| "-".to_owned()),
            self.what.clone(),
            self.why.clone(),
        ]
    }
}

/// Runs it.
///
/// # Errors
/// When the database is not in the configuration, or the catalog is away.
pub async fn run(context: &mut Context, command: ThrottleCommand) -> anyhow::Result<Exit> {
    let config = context.config()?;
    match command {
        ThrottleCommand::List { database } => {
            let chosen = commands::databases(&config, database.as_ref())?;
            let catalog = wiring::catalog(&config).await?;
            let all = catalog.throttle_list().await.map_err(|why| wiring::catalog_away(&why))?;
            let now = Utc::now();
            let shown = chosen.into_iter().flat_map(|(name, settings)| {
                let known = all.iter().find(|one| one.database == *name);
                list(name, settings, known, now)
            });
            context.output.list("farshore.throttles/1", &shown.collect::<Vec<_>>())?;
        }
        ThrottleCommand::Test { database, since } => {
            let chosen = commands::databases(&config, database.as_ref())?;
            let catalog = wiring::catalog(&config).await?;
            let from = Utc::now() - TimeDelta::from_std(since.get()).unwrap_or(TimeDelta::days(36_500));
            let mut happened = Vec::new();
            for (name, settings) in chosen {
                let events = test(&catalog, name, settings, from).await?;
                happened.extend(events.into_iter().map(|event| Happened {
                    database: name.clone(),
                    at: event.at,
                    rule: event.rule,
                    what: event.what.show(),
                    why: event.why,
                }));
            }
            context.output.list("farshore.throttle-test/1", &happened)?;
        }
    }
    Ok(Exit::Done)
}

fn list(
    name: &DatabaseName,
    settings: &DatabaseConfig,
    known: Option<&Throttles>,
    now: DateTime<Utc>,
) -> Vec<Shown> {
    let said = known.filter(|known| !known.is_silent(now));
    let holds = said.and_then(|known| known.bandwidth);
    let always = settings.bandwidth.map(|rate| Shown {
        database: name.clone(),
        rule: None,
        when: "always".to_owned(),
        test: None,
        actions: vec![Action::Bandwidth(rate).show()],
        state: if said.is_some() { RuleState::Active } else { RuleState::Unknown }.word(),
        since: None,
        why: said.map_or_else(nobody, |_| "`bandwidth` of the database".to_owned()),
        fired_at: None,
        bandwidth_bytes_per_second: Some(rate.get()),
        holds_bytes_per_second: holds,
    });
    let rule = |rule: &Rule| {
        let known = said.and_then(|known| known.rules.iter().find(|one| one.name == rule.name));
        Shown {
            database: name.clone(),
            rule: Some(rule.name.clone()),
            when: rule.window.to_string(),
            test: rule.test.map(|test| test.to_string()),
            actions: rule.actions.iter().map(Action::show).collect(),
            state: known.map_or(RuleState::Unknown, |known| known.state).word(),
            since: known.map(|known| known.since),
            why: known.map_or_else(nobody, |known| known.why.clone()),
            fired_at: known.and_then(|known| known.fired_at),
            bandwidth_bytes_per_second: rule.bandwidth().map(Rate::get),
            holds_bytes_per_second: holds,
        }
    };
    always.into_iter().chain(settings.throttles.iter().map(rule)).collect()
}

fn nobody() -> String {
    "no service has spoken of it lately: is `farshore run` alive, with this configuration?".to_owned()
}

async fn test(
    catalog: &Catalog,
    name: &DatabaseName,
    settings: &DatabaseConfig,
    from: DateTime<Utc>,
) -> anyhow::Result<Vec<Event>> {
    let looks = catalog.throttle_samples(name, from).await.map_err(|why| wiring::catalog_away(&why))?;
    match (looks.first(), looks.last()) {
        (Some(first), Some(last)) => {
            let replay = replay::replay(settings.bandwidth, &settings.throttles, &looks);
            tracing::info!(database = %name, from = %first.at, to = %last.at, looks = replay.looks, "replayed");
            if !replay.unseen.is_zero() {
                tracing::warn!(database = %name, seconds = replay.unseen.num_seconds(), "for so long of that time nobody looked: nothing is known of it");
            }
            Ok(replay.events)
        }
        _ => {
            tracing::warn!(database = %name, "nothing was measured since then: a service that ships it measures every ten seconds");
            Ok(Vec::new())
        }
    }
}
