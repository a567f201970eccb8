//! `farshore points hold`, `holds` and `release`: points that expiry keeps, as documents in every store of the database.
//!
//! What always holds: a point counts as held in a store only when its hold is durable there and what it needs was still there behind it. The stores say what is
//! held; the record of activity says who did it, where the catalog can be written: one that is away keeps nobody from holding a point.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_applier::held::positions;
use farshore_applier::plan::AskedPosition;
use farshore_applier::retention::facts::{self, KnownBackup, KnownBackups};
use farshore_applier::source::Source;
use farshore_journal::holds::{self, Hold};
use farshore_journal::store::StoreError;
use farshore_journal::{DatabaseName, HoldId, JournalError, Position};
use serde::Serialize;

use crate::cli::restore::Incarnation;
use crate::cli::time::Moment;
use crate::cli::zone::Zone;
use crate::commands::{self, Context, token};
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
    farshore_shipper::crash::prepare();
    let (name, settings) = commands::database(config, Some(database))?;
    let until = until.map(Moment::utc);
    if until.is_some_and(|until| until <= Utc::now()) {
        return Err(refused(
            format!("{point} of {name} is not held: the time of --until has passed already"),
            "write a time to come, or leave --until out".to_owned(),
        ));
    }
    let hold_until = until.map(|until| until.to_rfc3339_opts(SecondsFormat::Secs, true));
    let mut last = None;
    let mut unheld = |why: anyhow::Error| {
        tracing::error!("{why}");
        last = Some(why);
    };
    // What is meant is settled over all stores before anything is held in one.
    let (mut meant, mut is_unasked) = (Vec::new(), false);
    for store in &settings.stores {
        match found(config, name, store, (point, which)).await {
            Ok(found) => match one(name, store, point, found) {
                Ok(Some(one)) => meant.push(one),
                Ok(None) => unheld(unknown(name, store, point)),
                Err(several) => return Err(several),
            },
            Err(why) => {
                is_unasked = true;
                unheld(why);
            }
        }
    }
    if is_unasked && !meant.is_empty() && point.parse::<Position>().is_err() {
        return Err(refused(
            format!("{point} of {name} is not held: one of its stores could not be asked what it is there"),
            "write the position that is meant with its timeline, as 1:0/5000000: the stores that answer then keep it"
                .to_owned(),
        ));
    }
    if !matches!(which, Some(Incarnation::Id(_)))
        && settings.stores.len() > 1
        && let Some(meant) = meant.iter().find(|meant| meant.was_put_back)
    {
        let number = meant.source.record().number;
        return Err(refused(
            format!("{point} of {name} is in incarnation {number} of {}, which has several of this server: it was put back once, and another store may have another history at the same position", meant.store),
            "write --incarnation with the id that `farshore status -o json` shows: the store that has it then keeps it"
                .to_owned(),
        ));
    }
    all_alike(name, point, &meant)?;
    let damaged = damaged(config, name).await?;
    let mut held = Vec::new();
    for meant in &meant {
        match in_store(name, meant, &damaged, (reason, hold_until.clone())).await {
            Ok(one) => held.push(one),
            Err(why) => unheld(why),
        }
    }
    match (held.is_empty(), last) {
        (true, Some(why)) => Err(why),
        (_, last) => {
            let stores: Vec<String> =
                held.iter().map(|one| format!("{} in {}", one.hold, one.store)).collect();
            let detail = format!("{point}, as {}: {reason}", stores.join(", "));
            record(config, name, "points hold", detail).await;
            context.output.list("farshore.holds/1", &held)?;
            Ok(if last.is_some() { Exit::Partial } else { Exit::Done })
        }
    }
}

/// A point in a store.
struct Meant {
    store: StoreName,
    source: Source,
    point: Position,
    /// Whether the store has several incarnations of its cluster.
    was_put_back: bool,
}

impl Meant {
    fn new(store: &StoreName, source: &Source, point: Position, was_put_back: bool) -> Self {
        Self { store: store.clone(), source: source.clone(), point, was_put_back }
    }
}

async fn in_store(
    name: &DatabaseName,
    Meant { store, source, point, .. }: &Meant,
    damaged: &KnownBackups,
    (reason, until): (&str, Option<String>),
) -> anyhow::Result<Shown> {
    // An hour less than the least grace: whoever deletes may have read the holds shortly before.
    let in_time = crate::expire::day() * 23 / 24;
    let number = source.record().number;
    let next = format!(
        "`farshore restore {name} --store {store} --pos {point} --incarnation {number} --to DIR --dry-run` says whether it can be restored still"
    );
    let read = |why: &dyn std::fmt::Display| {
        let what =
            format!("{point} of {name} is not held in {store}: what leads to it there is not known: {why}");
        refused(
            what,
            format!("`farshore verify {name}` names what does not read; ask again when the store answers"),
        )
    };
    let leads = facts::holdable(source, damaged, *point, in_time).await.map_err(|why| read(&why))?;
    let nothing = || {
        format!(
            "{point} of {name} is not held in {store}: no sound base backup of incarnation {number} there leads to it over whole log, or what it needs is about to be deleted or gone in part"
        )
    };
    if leads.is_none() {
        return Err(refused(nothing(), next));
    }
    let now = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
    let hold = Hold::new(*point, reason.to_owned(), spec::user(), now, until);
    let trouble = |why: &StoreError| {
        tracing::warn!(%store, error = %why, "the store does not take it; it is tried again");
    };
    holds::put(source.reader(), &hold, &trouble).await?;
    // Behind the hold: whoever deletes read the holds before it, or finds it.
    let why = match facts::holdable(source, damaged, *point, in_time).await {
        Ok(Some(_)) => return Ok(shown(name, store, source, hold)),
        Ok(None) => refused(nothing(), next),
        Err(why) => read(&why),
    };
    // One that keeps nothing would keep everything: expiry deletes nothing while it does not know what a hold needs.
    let by = (spec::user(), Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true));
    if let Err(left) = holds::release(source.reader(), hold.hold, by, &trouble).await {
        let id = hold.hold;
        tracing::error!(%store, error = %left, "a hold was written that holds nothing, and could not be taken back: `farshore points release {name} {id}`");
    }
    Err(why)
}

/// Every point of a store that is asked for: incarnations are each store's own, and a position or a name is something else in each.
async fn found(
    config: &Config,
    name: &DatabaseName,
    store: &StoreName,
    (point, which): (&str, Option<Incarnation>),
) -> anyhow::Result<Vec<Meant>> {
    let mut sources = sources::all_for(config, name, store, Purpose::Append).await?;
    let clusters: Vec<String> = sources.iter().map(|source| source.record().identity.clone()).collect();
    let several =
        |source: &Source| clusters.iter().filter(|one| **one == source.record().identity).count() > 1;
    sources.retain(|source| which.is_none_or(|which| sources::is(source, which)));
    let mut found = Vec::new();
    if let Ok(asked) = point.parse::<AskedPosition>() {
        for source in sources {
            let positions = positions(&source, asked).await.map_err(|why| {
                let what = format!(
                    "{point} of {name} is not held in {store}: where its journal has it is not known: {why}"
                );
                refused(
                    what,
                    format!(
                        "`farshore verify {name}` names what does not read; ask again when the store answers"
                    ),
                )
            })?;
            found.extend(
                positions.into_iter().map(|point| Meant::new(store, &source, point, several(&source))),
            );
        }
    } else {
        let catalog = wiring::catalog(config).await?;
        for source in sources {
            let marks = catalog.mark_find(source.record().incarnation, point).await;
            let mut marks = marks.map_err(|why| wiring::catalog_away(&why))?;
            // Two kinds of mark may name one position.
            marks.dedup_by_key(|mark| mark.position);
            found.extend(
                marks.into_iter().map(|mark| Meant::new(store, &source, mark.position, several(&source))),
            );
        }
    }
    Ok(found)
}

/// The only one.
///
/// # Errors
/// When there are several.
fn one(
    name: &DatabaseName,
    store: &StoreName,
    point: &str,
    mut found: Vec<Meant>,
) -> anyhow::Result<Option<Meant>> {
    if found.len() > 1 {
        let all: Vec<String> = found
            .iter()
            .map(|one| format!("{} in incarnation {}", one.point, one.source.record().number))
            .collect();
        let count = all.len();
        let all = all.join(", ");
        return Err(refused(
            format!("{point} of {name} is {count} points in {store}, and something else each time: {all}"),
            "write the position that is meant with its timeline, as 1:0/5000000, and its --incarnation"
                .to_owned(),
        ));
    }
    Ok(found.pop())
}

/// Refuses where the stores have something else of the same name or number.
fn all_alike(name: &DatabaseName, point: &str, meant: &[Meant]) -> anyhow::Result<()> {
    let of = |meant: &Meant| (meant.source.record().identity.clone(), meant.point);
    let mut all = meant.iter();
    let Some(first) = all.next() else { return Ok(()) };
    match all.find(|other| of(other) != of(first)) {
        None => Ok(()),
        Some(other) => {
            let said = |one: &Meant| {
                let record = one.source.record();
                let (number, identity) = (record.number, &record.identity);
                format!("{} of incarnation {number} (cluster {identity}) in {}", one.point, one.store)
            };
            Err(refused(
                format!("{point} of {name} is something else in each store: {}, and {}", said(first), said(other)),
                "write the position that is meant with its timeline, and --incarnation with the id that `farshore status -o json` shows; a store that does not have it is then left out".to_owned(),
            ))
        }
    }
}

fn unknown(name: &DatabaseName, store: &StoreName, point: &str) -> anyhow::Error {
    refused(
        format!(
            "{store} has no point of {name} that is called {point}, and no such position, in what was asked for"
        ),
        format!(
            "`farshore points list {name}` shows names and positions, `farshore status {name} -o json` incarnations"
        ),
    )
}

/// What the catalog says of each backup; nothing where it is away: a sealed backup is then none that is known to be sound.
async fn damaged(config: &Config, name: &DatabaseName) -> anyhow::Result<KnownBackups> {
    let mut damaged = KnownBackups::new();
    let catalog = match wiring::catalog(config).await {
        Ok(catalog) => catalog,
        Err(why) => {
            tracing::warn!(
                "what verifications found of its base backups is not known, and counts for nothing now: {}",
                why.happened
            );
            return Ok(damaged);
        }
    };
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
            let trouble = |why: &StoreError| {
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
