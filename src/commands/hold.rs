//! `farshore points hold`, `holds` and `release`: points that expiry keeps, as documents in every store of the database.
//!
//! What always holds: a point counts as held in a store only when its hold is durable there and what it needs was still there behind it. The stores say what is
//! held; the record of activity says who did it, where the catalog can be written: one that is away keeps nobody from holding a point.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_applier::held::holds;
use farshore_applier::plan::{Asked, AskedPosition};
use farshore_applier::retention::facts::{self, KnownBackup, KnownBackups};
use farshore_applier::source::Source;
use farshore_journal::holds::{self, Hold};
use farshore_journal::{DatabaseName, HoldId, JournalError, Position};
use serde::Serialize;

use crate::cli::restore::Incarnation;
use crate::cli::time::Moment;
use crate::cli::zone::Zone;
use crate::commands::{self, Context, expire, restore, token};
use crate::config::{Config, DatabaseConfig, StoreName};
use crate::exit::Exit;
use crate::jobs::{self, spec};
use crate::message::{Code, OperatorMessage, Safe};
use crate::output::Row;
use crate::sources;
use crate::wiring::{self, Purpose};

/// How long the record of activity is waited for, which a hold could do without.
const RECORDED: Duration = Duration::from_secs(5);

/// A hold, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct Shown {
    database: DatabaseName,
    store: String,
    incarnation: u64,
    hold: HoldId,
    position: Position,
    reason: String,
    by: String,
    created: String,
    until: Option<String>,
}

impl Row for Shown {
    const HEADER: &'static [&'static str] =
        &["HOLD", "STORE", "INC", "POSITION", "REASON", "BY", "CREATED", "UNTIL"];

    fn cells(&self, zone: Zone) -> Vec<String> {
        let time = |text: &str| match text.parse::<DateTime<Utc>>() {
            Ok(time) => zone.show(time, SecondsFormat::Secs),
            Err(_) => text.to_owned(),
        };
        vec![
            self.hold.to_string(),
            self.store.clone(),
            self.incarnation.to_string(),
            self.position.to_string(),
            self.reason.clone(),
            self.by.clone(),
            time(&self.created),
            self.until.as_deref().map_or_else(|| "it is released".to_owned(), time),
        ]
    }
}

fn shown(name: &DatabaseName, store: &StoreName, source: &Source, hold: Hold) -> Shown {
    Shown {
        database: name.clone(),
        store: store.to_string(),
        incarnation: source.record().number,
        position: hold.point(),
        hold: hold.hold,
        reason: hold.reason,
        by: hold.by,
        created: hold.created,
        until: hold.until,
    }
}

/// Holds a point in every store. Ends with 10 when some stores keep it and others do not.
pub(super) async fn put(
    context: &mut Context,
    config: &Config,
    database: &DatabaseName,
    (point, which): (&str, Option<Incarnation>),
    (reason, until): (&str, Option<Moment>),
) -> anyhow::Result<Exit> {
    let (name, settings) = commands::database(config, Some(database))?;
    let until = until.map(Moment::utc);
    let hold_until = until.map(|until| until.to_rfc3339_opts(SecondsFormat::Secs, true));
    let mut held = Vec::new();
    let mut refused = None;
    for store in &settings.stores {
        match in_store(config, name, store, (point, which), (reason, hold_until.clone())).await {
            Ok(one) => held.push(one),
            Err(why) => {
                tracing::error!("{why}");
                refused = Some(why);
            }
        }
    }
    match (held.is_empty(), refused) {
        (true, Some(why)) => Err(why),
        (_, refused) => {
            let stores: Vec<String> =
                held.iter().map(|one| format!("{} in {}", one.hold, one.store)).collect();
            let detail = format!("{point}, as {}: {reason}", stores.join(", "));
            record(config, name, "points hold", detail).await;
            context.output.list("farshore.holds/1", &held)?;
            Ok(if refused.is_some() { Exit::Partial } else { Exit::Done })
        }
    }
}

async fn in_store(
    config: &Config,
    name: &DatabaseName,
    store: &StoreName,
    (point, which): (&str, Option<Incarnation>),
    (reason, until): (&str, Option<String>),
) -> anyhow::Result<Shown> {
    farshore_shipper::crash::prepare();
    // An hour less than the least grace: whoever deletes may have read the holds shortly before.
    let in_time = expire::day() * 23 / 24;
    let damaged = damaged(config, name).await?;
    let sources = sources::all_for(config, name, store, Purpose::Append).await?;
    let (source, asked) = meant(config, name, store, &sources, (point, which)).await?;
    if let Some(found) = facts::holdable(source, &damaged, asked, in_time).await? {
        let now = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
        let hold = Hold::new(found.point, reason.to_owned(), spec::user(), now, until);
        holds::put(source.reader(), &hold, &|why| {
            tracing::warn!(%store, error = %why, "the store does not take the hold; it is tried again");
        })
        .await?;
        // Behind the hold: whoever deletes read the holds before it, or finds it.
        if facts::holdable(source, &damaged, asked, in_time).await?.is_some() {
            return Ok(shown(name, store, source, hold));
        }
    }
    let number = source.record().number;
    Err(refused(
        format!(
            "{point} of {name} is not held in {store}: no sound base backup of incarnation {number} there leads to it, or what it needs is about to be deleted or gone in part"
        ),
        format!(
            "`farshore restore {name} --store {store} --pos {asked} --incarnation {number} --to DIR --dry-run` says whether it can be restored still"
        ),
    ))
}

/// The one incarnation of a store that has a point, and the point's position: incarnations are each store's own, and a position is something
/// else in each.
async fn meant<'a>(
    config: &Config,
    name: &DatabaseName,
    store: &StoreName,
    sources: &'a [Source],
    (point, which): (&str, Option<Incarnation>),
) -> anyhow::Result<(&'a Source, AskedPosition)> {
    let mut found = Vec::new();
    let candidates = sources.iter().filter(|source| which.is_none_or(|which| sources::is(source, which)));
    if let Ok(asked) = point.parse::<AskedPosition>() {
        for source in candidates {
            let away = |why| restore::unreachable(name, &why, None);
            if holds(source, &Asked::Position(asked)).await.map_err(away)? == Some(true) {
                found.push((source, asked));
            }
        }
    } else {
        let catalog = wiring::catalog(config).await?;
        for source in candidates {
            let marks = catalog.mark_find(source.record().incarnation, point).await;
            let mut marks = marks.map_err(|why| wiring::catalog_away(&why))?;
            // Two kinds of mark may name one position.
            marks.dedup_by_key(|mark| mark.position);
            let asked = |at: Position| AskedPosition { timeline: Some(at.timeline), offset: at.offset };
            found.extend(marks.into_iter().map(|mark| (source, asked(mark.position))));
        }
    }
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(refused(
            format!("{store} has no point of {name} that is called {point}, and no such position"),
            format!("`farshore points list {name}` shows names and positions"),
        )),
        several => {
            let all: Vec<String> = several
                .iter()
                .map(|(source, asked)| format!("{asked} in incarnation {}", source.record().number))
                .collect();
            Err(refused(
                format!(
                    "{point} of {name} is {} points in {store}, and something else each time: {}",
                    all.len(),
                    all.join(", ")
                ),
                "write the position that is meant, and its --incarnation".to_owned(),
            ))
        }
    }
}

/// What the catalog says of each backup; nothing where it is away: a sealed backup is then none that is known to be sound.
async fn damaged(config: &Config, name: &DatabaseName) -> anyhow::Result<KnownBackups> {
    let mut damaged = KnownBackups::new();
    let Ok(catalog) = wiring::catalog(config).await else { return Ok(damaged) };
    for incarnation in catalog.incarnation_list(name).await? {
        let backups = catalog.backup_list(incarnation.id).await?;
        damaged.extend(backups.iter().map(|backup| (backup.id, KnownBackup::from(backup))));
    }
    Ok(damaged)
}

fn refused(what: String, next: String) -> anyhow::Error {
    OperatorMessage::new(
        Code::HoldRefused,
        what,
        Safe::Known("other holds stay as they are".to_owned()),
        next,
    )
    .into()
}

/// Lists the holds of every store.
pub(super) async fn list(
    context: &mut Context,
    config: &Config,
    database: &DatabaseName,
) -> anyhow::Result<Exit> {
    let (name, settings) = commands::database(config, Some(database))?;
    let mut found = Vec::new();
    for store in &settings.stores {
        for source in sources::all(config, name, store).await? {
            let held = holds::list(source.reader()).await?;
            found.extend(held.into_iter().map(|hold| shown(name, store, &source, hold)));
        }
    }
    context.output.list("farshore.holds/1", &found)?;
    Ok(Exit::Done)
}

/// Ends a hold wherever it is.
pub(super) async fn release(
    context: &mut Context,
    config: &Config,
    database: &DatabaseName,
    hold: HoldId,
) -> anyhow::Result<Exit> {
    let (name, settings) = commands::database(config, Some(database))?;
    let mut released = Vec::new();
    let done = release_everywhere((config, name, settings), hold, &mut released).await;
    // Also where another store then failed: in these it is released.
    if !released.is_empty() {
        record(config, name, "points release", format!("{hold} in {}", released.join(", "))).await;
    }
    done?;
    if released.is_empty() {
        let happened = format!("no store of {name} has a hold {hold}");
        return Err(OperatorMessage::new(
            Code::HoldUnknown,
            happened,
            Safe::Known("other holds stay as they are".to_owned()),
            format!("`farshore points holds {name}` lists them"),
        )
        .into());
    }
    context.output.say(&format!("released in {} journals", released.len()))?;
    Ok(Exit::Done)
}

async fn release_everywhere(
    (config, name, settings): (&Config, &DatabaseName, &DatabaseConfig),
    hold: HoldId,
    released: &mut Vec<String>,
) -> anyhow::Result<()> {
    for store in &settings.stores {
        for source in sources::all_for(config, name, store, Purpose::Append).await? {
            let by = (spec::user(), Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true));
            let trouble = |why: &farshore_journal::store::StoreError| {
                tracing::warn!(%store, error = %why, "the store does not take it; it is tried again");
            };
            match holds::release(source.reader(), hold, by, &trouble).await {
                Ok(()) => released.push(format!("{store}, incarnation {}", source.record().number)),
                Err(JournalError::NotHeld { .. }) => {}
                Err(why) => return Err(why.into()),
            }
        }
    }
    Ok(())
}

/// Says in the record of activity what somebody did, where there is a catalog that takes it.
async fn record(config: &Config, name: &DatabaseName, what: &str, detail: String) {
    let activity = token::activity(what, detail, Some(name.clone()));
    let Some(catalog) = jobs::record::catalog(config).await else {
        return tracing::warn!(
            "`{what}` is done, and is not in the record of activity: there is no catalog that takes it"
        );
    };
    let appended = tokio::time::timeout(RECORDED, catalog.activity_append(&activity)).await;
    if !matches!(appended, Ok(Ok(_))) {
        tracing::warn!(
            "`{what}` is done, and may not be in the record of activity: the catalog did not take it"
        );
    }
}
