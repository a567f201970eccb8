//! `farshore exposure`: from when to when a promise did not hold, or was not known to, from the catalog or from a store alone.
//!
//! What always holds: time in which nobody looked is an entry; what a store says is held against its chain first.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_catalog::ledger::{self, Entry, Ledger, Numbered};
use farshore_journal::DatabaseName;
use farshore_journal::format::{Chronicle, EntryDigest};
use serde::Serialize;

use crate::chronicles::ask;
use crate::chronicles::held::{self, Chain, InStore};

use crate::cli::exposure::ExposureCommand;
use crate::cli::zone::Zone;
use crate::commands::{self, Context};
use crate::config::{Config, StoreName};
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::output::Row;
use crate::wiring;

/// An entry, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct Shown {
    database: DatabaseName,
    /// The number of the event that opened it; null of one that nobody has written yet.
    number: Option<u64>,
    promise: String,
    objective_ms: u64,
    from: DateTime<Utc>,
    /// Null while it is open.
    until: Option<DateTime<Utc>>,
    open: bool,
    why: Vec<&'static str>,
    /// Null: no exposure was known.
    worst_ms: Option<u64>,
}

impl Shown {
    fn new(database: &DatabaseName, entry: Entry) -> Self {
        Self {
            database: database.clone(),
            number: entry.number,
            promise: entry.promise,
            objective_ms: entry.objective_ms,
            from: entry.from,
            until: entry.until,
            open: entry.until.is_none(),
            why: entry.whys.0.iter().map(|why| why.word()).collect(),
            worst_ms: entry.worst_ms,
        }
    }
}

impl Row for Shown {
    const HEADER: &'static [&'static str] =
        &["DATABASE", "NUMBER", "PROMISE", "FROM (UTC)", "UNTIL (UTC)", "WORST", "WHY"];

    fn cells(&self, zone: Zone) -> Vec<String> {
        vec![
            self.database.to_string(),
            self.number.map_or_else(|| "-".to_owned(), |number| number.to_string()),
            format!("{} {}", self.promise, seconds(self.objective_ms)),
            zone.show(self.from, SecondsFormat::Secs),
            self.until.map_or_else(|| "open".to_owned(), |until| zone.show(until, SecondsFormat::Secs)),
            self.worst_ms.map_or_else(|| "unknown".to_owned(), seconds),
            self.why.join(", "),
        ]
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}s", ms / 1000, ms % 1000)
}

/// An event, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct EventShown {
    number: u64,
    at: DateTime<Utc>,
    what: &'static str,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    why: Vec<&'static str>,
    worst_ms: Option<u64>,
    digest: EntryDigest,
}

/// An entry with its events.
#[derive(Debug, Serialize)]
struct Whole {
    #[serde(flatten)]
    entry: Shown,
    events: Vec<EventShown>,
}

/// A ledger in the stores.
#[derive(Debug, Serialize)]
struct Verified {
    database: DatabaseName,
    sound: bool,
    /// The catalog's own chain; null where the catalog was not asked.
    catalog: Option<Chain>,
    stores: Vec<InStore>,
}

/// Runs it. `verify` ends with 9 when it finds something, or could not look.
///
/// # Errors
/// When the catalog is away, or the store that is named.
pub async fn run(context: &mut Context, command: ExposureCommand) -> anyhow::Result<Exit> {
    let config = context.config()?;
    match command {
        ExposureCommand::List { database, store } => {
            let mut shown = Vec::new();
            for name in chosen(&config, database.as_ref(), store.as_ref())? {
                let ledger = ledger_of(&config, name, store.as_ref()).await?;
                shown.extend(
                    ledger::entries(&ledger, Utc::now()).into_iter().map(|entry| Shown::new(name, entry)),
                );
            }
            context.output.list("farshore.exposure/1", &shown)?;
            Ok(Exit::Done)
        }
        ExposureCommand::Show { database, number, store } => {
            let (name, _) = commands::database(&config, Some(&database))?;
            let ledger = ledger_of(&config, name, store.as_ref()).await?;
            let entries = ledger::entries(&ledger, Utc::now());
            let found = entries.into_iter().find(|entry| entry.number == Some(number));
            let entry = found.ok_or_else(|| unknown(name, number))?;
            let whole = whole(name, entry, &ledger.events);
            let text = text(&whole, context.output.zone());
            context.output.one("farshore.exposure-entry/1", &whole, &text)?;
            Ok(Exit::Done)
        }
        ExposureCommand::Verify { database, store } => {
            let chosen = chosen(&config, database.as_ref(), store.as_ref())?;
            let catalog = match &store {
                Some(_) => None,
                None => Some(wiring::catalog(&config).await?),
            };
            let (mut text, mut all) = (String::new(), Vec::new());
            for name in chosen {
                let chronicle = Chronicle::Exposure(name.clone());
                let mut stores = Vec::new();
                let chain = match &catalog {
                    Some(catalog) => {
                        let walked = catalog.ledger_verify(name).await;
                        Some(Chain::from(walked.map_err(|why| wiring::catalog_away(&why))?))
                    }
                    None => None,
                };
                for one in ask::stores(&config, &chronicle) {
                    if store.as_ref().is_none_or(|store| *store == one) {
                        stores.push(held::look(&config, &chronicle, &one, catalog.as_ref()).await);
                    }
                }
                let sound = stores.iter().all(|one| one.sound == Some(true))
                    && chain.as_ref().is_none_or(|chain| chain.sound);
                let own = chain.as_ref().map(Chain::text).unwrap_or_default();
                text.push_str(&format!("{name}\n{own}{}", held::lines(&stores)));
                all.push(Verified { database: name.clone(), sound, catalog: chain, stores });
            }
            let sound = all.iter().all(|one| one.sound);
            let shown = BTreeMap::from([("ledgers", all)]);
            context.output.one("farshore.exposure-verify/1", &shown, &text)?;
            Ok(if sound { Exit::Done } else { Exit::Findings })
        }
    }
}

/// The databases that are asked for: with a store those that are shipped there.
///
/// # Errors
/// When there is none: what nobody has looked at must not read as sound.
fn chosen<'a>(
    config: &'a Config,
    database: Option<&DatabaseName>,
    store: Option<&StoreName>,
) -> anyhow::Result<Vec<&'a DatabaseName>> {
    if let Some(store) = store {
        ask::known(config, database.cloned().map(Chronicle::Exposure).as_ref(), store)?;
    }
    let all = commands::databases(config, database)?.into_iter();
    let all = all.filter(|(_, settings)| store.is_none_or(|store| settings.stores.contains(store)));
    Ok(all.map(|(name, _)| name).collect())
}

/// A ledger from the catalog, or from a store alone.
async fn ledger_of(
    config: &Config,
    name: &DatabaseName,
    store: Option<&StoreName>,
) -> anyhow::Result<Ledger> {
    let Some(store) = store else {
        let catalog = wiring::catalog(config).await?;
        let ledger = catalog.ledger_of(name).await.map_err(|why| wiring::catalog_away(&why))?;
        let walked = Chain::from(ledger::walk(name, &ledger.events, 0));
        let chronicle = Chronicle::Exposure(name.clone());
        let standing =
            catalog.chronicle_standing(&chronicle).await.map_err(|why| wiring::catalog_away(&why))?;
        match walked.lacks_before(standing.first) {
            Some(from) => {
                tracing::warn!(database = %name, "what is before event {from}, which an earlier catalog wrote, is not here: not taken back yet, or no store shows it; `farshore exposure verify` tells");
            }
            None if !walked.sound => tracing::error!("{}", walked.message(&chronicle)),
            None => {}
        }
        return Ok(ledger);
    };
    let entries = held::entries(config, &Chronicle::Exposure(name.clone()), store).await?;
    let events = entries.iter().filter_map(farshore_catalog::chronicle::Kept::event).collect();
    Ok(Ledger { events, ..Ledger::default() })
}

fn unknown(name: &DatabaseName, number: u64) -> OperatorMessage {
    OperatorMessage::new(
        Code::ExposureUnknown,
        format!("the exposure ledger of {name} has no entry that begins with event {number}"),
        Safe::Known("nothing was changed".to_owned()),
        format!("`farshore exposure list {name}` lists them"),
    )
}

fn whole(name: &DatabaseName, entry: Entry, events: &[Numbered]) -> Whole {
    let own = events.iter().filter(|one| {
        one.event.promise == entry.promise && entry.number.is_some_and(|number| one.number >= number)
    });
    let mut shown = Vec::new();
    for Numbered { number, event, digest, .. } in own {
        shown.push(EventShown {
            number: *number,
            at: event.at,
            what: event.what.word(),
            from: event.from,
            until: event.until,
            why: event.whys.0.iter().map(|why| why.word()).collect(),
            worst_ms: event.worst_ms,
            digest: *digest,
        });
        if event.what == ledger::What::Ended {
            break;
        }
    }
    Whole { entry: Shown::new(name, entry), events: shown }
}

fn text(whole: &Whole, zone: Zone) -> String {
    let Whole { entry, events } = whole;
    let show = |time| zone.show(time, SecondsFormat::Millis);
    let mut text = format!(
        "database   {}\npromise    {} {}\nfrom       {}\nuntil      {}\nworst      {}\nwhy        {}\n",
        entry.database,
        entry.promise,
        seconds(entry.objective_ms),
        show(entry.from),
        entry.until.map_or_else(|| "open: it is not known to hold yet".to_owned(), show),
        entry.worst_ms.map_or_else(|| "unknown".to_owned(), seconds),
        entry.why.join(", "),
    );
    for event in events {
        text.push_str(&format!(
            "event      {} {} {} {}\n",
            event.number,
            show(event.at),
            event.what,
            event.digest
        ));
    }
    text
}
