//! Comparisons: a standby held against its primary, row by row, at one cut, under load. `docs/adr/2026-11-28-compare.md` says why what is said is exact.
//!
//! What always holds: both sides are only read; a standby that was held is given back before a word is said; what was not compared is said to be that, and is never equal. A comparison that is stopped comes to no verdict.
//! A crash leaves a wish that lapses by itself.
//!
//! ```text
//! hold ─▶ of each database of the cluster: (snapshot ─▶ cut ─▶ raise ─▶ stand, until they fit) ─▶ tables ─▶ record ─▶ give back
//! ```

mod holding;
pub mod outcome;
mod sides;
mod table;
mod whom;

use chrono::Utc;
use farshore_catalog::Catalog;
use farshore_catalog::compare::Verdict;
use farshore_catalog::job::JobProgress;
use farshore_engines::postgres::sql::compare::{Seeds, Table, Tables};
use farshore_journal::{CompareId, DatabaseName, Offset};
use tokio_util::sync::CancellationToken;

use self::holding::Holding;
use self::outcome::{Came, TableCame, WithinCame, together};
use self::sides::{Not, Sides, Ways, said};
use self::table::{Throttle, Wanted};
use self::whom::{known, same_cluster, ways};
use crate::cli::History;
use crate::cli::restore::Incarnation;
use crate::config::{Config, DatabaseConfig};
use crate::jobs::held::Reporter;
use crate::jobs::spec;
use crate::message::{Code, OperatorMessage, Safe};
use crate::{sources, wiring};

/// What a comparison has for its work.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The catalog: whoever serves the standby reads there that it is to be held.
    pub catalog: &'a Catalog,
    /// Whether whoever asked for it is told by this process, and nobody else: then keys are named to him.
    pub by_hand: bool,
    /// Where it says how far it is.
    pub reporter: &'a Reporter,
    /// Cancelled when it is to end.
    pub stop: &'a CancellationToken,
}

/// Compares the standby that is named, or each whose address is known. `None` when it was stopped.
///
/// # Errors
/// When one could not be begun.
pub async fn all(
    means: Means<'_>,
    (name, settings): (&DatabaseName, &DatabaseConfig),
    wanted: &spec::Compare,
) -> Result<Option<Vec<Came>>, OperatorMessage> {
    let standbys: Vec<&str> = match &wanted.standby {
        Some(one) => vec![one],
        None => settings.compare.standbys.keys().map(String::as_str).collect(),
    };
    if standbys.is_empty() {
        return Err(refused(
            format!("no standby of {name} has an address to compare it at"),
            format!(
                "write NAME = \"postgresql://ROLE@HOST/postgres\" into [databases.{name}.compare.standbys]"
            ),
        ));
    }
    let mut all = Vec::new();
    for standby in standbys {
        match Box::pin(run(means, (name, settings), standby, wanted)).await? {
            Some(came) => all.push(came),
            None => return Ok(None),
        }
    }
    Ok(Some(all))
}

/// Compares one standby, and records what came of it.
async fn run(
    means: Means<'_>,
    (name, settings): (&DatabaseName, &DatabaseConfig),
    standby: &str,
    wanted: &spec::Compare,
) -> Result<Option<Came>, OperatorMessage> {
    let began = Utc::now();
    let id = CompareId::mint();
    let (primary, follows) = ways(name, settings, standby)?;
    let known = known(means.catalog, name, standby).await?;
    let history =
        History { store: known.store.parse().ok(), incarnation: Some(Incarnation::Id(known.incarnation)) };
    let held = sources::chosen(means.config, name, &history).await.map_err(|why| message(name, why))?;
    let timeline =
        same_cluster(name, standby, (&primary, &follows), held.source.record().identity.as_str()).await?;
    let ways = Ways { primary: &primary, standby: &follows, called: standby, source: &held.source, timeline };
    say(means, "holding the standby");
    let (mut holding, answer) = Holding::take(means.catalog, (name, standby), id).await?;
    let work = Box::pin(databases(means, &ways, settings, wanted, (&mut holding, answer.sent)));
    let done = tokio::select! {
        biased;
        done = work => done,
        () = means.stop.cancelled() => Ok(None),
    };
    holding.release().await;
    let Some((databases, shut)) = done? else { return Ok(None) };
    let others = shut.iter().filter(|one| one.counts).map(|_| Verdict::NotCompared);
    let verdict = together(databases.iter().map(|one| one.verdict).chain(others));
    let came = Came {
        compare: id,
        database: name.clone(),
        standby: standby.to_owned(),
        node: wiring::node(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        began,
        ended: Utc::now(),
        verdict,
        databases,
        shut,
    };
    if let Err(why) = came.record(means.catalog, settings.compare.keys).await {
        tracing::warn!(error = %why, compare = %id, "what a comparison came to is not recorded");
    }
    Ok(Some(came))
}

type Found = Option<(Vec<WithinCame>, Vec<farshore_engines::postgres::sql::compare::NotRows>)>;

/// Each database of the cluster, one after the other: each has a cut of its own, for a snapshot is of one database.
async fn databases(
    means: Means<'_>,
    ways: &Ways<'_>,
    settings: &DatabaseConfig,
    wanted: &spec::Compare,
    (holding, sent): (&mut Holding, Offset),
) -> Result<Found, OperatorMessage> {
    let listed = async {
        let session = sides::connect(ways.primary, ways.primary.database(), false).await?;
        session.databases().await.map_err(|why| said(&why))
    };
    let (open, shut) = listed.await.map_err(|why| unreached(&format!("the primary: {why}")))?;
    let (open, shut) = match &wanted.within {
        None => (open, shut),
        Some(only) if open.contains(only) => (vec![only.clone()], Vec::new()),
        Some(only) => {
            return Err(refused(
                format!("the cluster has no database {only} that could be compared"),
                "name one that takes connections".to_owned(),
            ));
        }
    };
    let mut came = Vec::new();
    let mut throttle = Throttle::new(wanted.rate.or_else(|| settings.compare.rate.map(|rate| rate.get())));
    for database in &open {
        say(means, &format!("bringing both sides of {database} to one cut"));
        let within = match sides::open(ways, database, holding, sent).await {
            Ok(sides) => tables(means, &sides, database, settings, wanted, &mut throttle).await,
            Err(Not::Compared(reason)) => Some(WithinCame::not(database, reason)),
            Err(Not::Held(why)) => return Err(why),
        };
        match within {
            Some(within) => came.push(within),
            None => return Ok(None),
        }
    }
    name_absent(&mut came, &wanted.tables);
    Ok(Some((came, shut)))
}

/// Tables that were asked for and are nowhere: they were not compared.
fn name_absent(came: &mut [WithinCame], wanted: &[String]) {
    let is_there =
        |named: &String| came.iter().any(|within| within.tables.iter().any(|table| table.table == *named));
    let absent: Vec<String> = wanted.iter().filter(|named| !is_there(named)).cloned().collect();
    let is_excluded = |named: &String| came.iter().any(|within| within.excluded.contains(named));
    let (excluded, absent): (Vec<String>, Vec<String>) = absent.into_iter().partition(is_excluded);
    if let (Some(first), false) = (came.first_mut(), absent.is_empty() && excluded.is_empty()) {
        let absent = absent.into_iter().map(|named| TableCame::not(named, "there is no such table"));
        let excluded = excluded
            .into_iter()
            .map(|named| TableCame::not(named, "it is left out by name, and was asked for"));
        first.tables.extend(absent.chain(excluded));
        first.verdict = first.verdict.max(Verdict::NotCompared);
    }
}

/// All tables of one database; `None` when it was stopped.
async fn tables(
    means: Means<'_>,
    sides: &Sides,
    database: &str,
    settings: &DatabaseConfig,
    wanted: &spec::Compare,
    throttle: &mut Throttle,
) -> Option<WithinCame> {
    let mut within = WithinCame::not(database, "");
    (within.reason, within.position, within.snapshots) = (None, Some(sides.at.to_string()), sides.snapshots);
    let (primary, standby) = tokio::join!(sides.primary.compare_tables(), sides.standby.compare_tables());
    let (primary, standby) = match (primary, standby) {
        (Ok(primary), Ok(standby)) => (primary, standby),
        (Err(why), _) => return Some(WithinCame::not(database, format!("the primary: {}", said(&why)))),
        (_, Err(why)) => return Some(WithinCame::not(database, format!("the standby: {}", said(&why)))),
    };
    let of = Wanted { seeds: seeds(), keys: means.by_hand || settings.compare.keys, stop: means.stop };
    for table in &primary.tables {
        let shown = table.shown();
        if !wanted.tables.is_empty() && !wanted.tables.contains(&shown) {
            continue;
        }
        if settings.compare.exclude.contains(&shown) || wanted.exclude.contains(&shown) {
            within.excluded.push(shown);
            continue;
        }
        say(means, &format!("comparing {database}.{shown}"));
        let came = match differs_as_a_whole(table, &standby) {
            Some(reason) => Some(TableCame::of(shown, Verdict::Different, Some(reason.to_owned()))),
            None => match table::compared(sides, table, &of, throttle).await {
                Ok(came) => came,
                Err(why) => {
                    // A side that is gone answers for no table; and the standby is let go at once.
                    within.tables.push(TableCame::not(shown, said(&why)));
                    within.reason = Some(format!("it was given up: {}", said(&why)));
                    break;
                }
            },
        };
        within.tables.push(came?);
    }
    let unknown =
        standby.tables.iter().filter(|table| primary.tables.iter().all(|known| known.oid != table.oid));
    for table in unknown {
        within.tables.push(TableCame::of(
            table.shown(),
            Verdict::Different,
            Some("the standby alone has it".to_owned()),
        ));
    }
    within.others = primary.others;
    // A database without tables of its own has none that differ, nor has one of which none was asked for; one of which all were left out was not looked at.
    let none = match primary.tables.is_empty() || !wanted.tables.is_empty() {
        true => Verdict::Equal,
        false => Verdict::NotCompared,
    };
    within.verdict = within.tables.iter().map(|table| table.verdict).max().unwrap_or(none);
    if within.tables.is_empty() && none == Verdict::NotCompared {
        within.reason = Some("none of its tables was to be compared".to_owned());
    }
    within.open_us = u64::try_from(sides.open.elapsed().as_micros()).unwrap_or(u64::MAX);
    let (primary, standby) = tokio::join!(sides.primary.compare_close(), sides.standby.compare_close());
    if primary.and(standby).is_err() {
        tracing::debug!(database, "a side of a comparison went away when it was over");
    }
    Some(within)
}

/// Whether a table is another one on the standby, by what the catalogs of both say.
fn differs_as_a_whole(table: &Table, standby: &Tables) -> Option<&'static str> {
    match standby.tables.iter().find(|known| known.oid == table.oid) {
        None => Some("the standby's catalog does not have it"),
        Some(known) if (&known.schema, &known.name) != (&table.schema, &table.name) => {
            Some("it has another name on the standby")
        }
        Some(known) if known.columns != table.columns => Some("it has other columns on the standby"),
        Some(known) if known.file != table.file => Some("it has another file on the standby"),
        Some(_) => None,
    }
}

/// Two numbers that nobody knew before.
fn seeds() -> Seeds {
    let bytes = CompareId::mint();
    let number = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes.as_bytes()[at..at + 8]);
        i64::from_le_bytes(word)
    };
    Seeds(number(0), number(8))
}

fn say(means: Means<'_>, phase: &str) {
    means.reporter.say(JobProgress { phase: Some(phase.to_owned()), ..JobProgress::default() });
}

fn refused(happened: String, next: String) -> OperatorMessage {
    OperatorMessage::new(
        Code::CompareRefused,
        happened,
        Safe::Known("nothing was compared, and nothing was changed on either side".to_owned()),
        next,
    )
}

fn unreached(happened: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::CompareUnreached,
        happened.to_owned(),
        Safe::Known("nothing was compared, and nothing was changed on either side".to_owned()),
        "mend what it says, and ask again",
    )
}

fn message(name: &DatabaseName, why: anyhow::Error) -> OperatorMessage {
    match why.downcast::<OperatorMessage>() {
        Ok(message) => message,
        Err(why) => unreached(&format!("the journal of {name}: {why:#}")),
    }
}
