//! What drills say of a database without the words of their statements: when it was last proved, and how that went over time.
//!
//! What always holds: only a drill of the database's current incarnation proves it; a drill that failed proves nothing, and one that came later than a proof is told of
//! beside it. How many databases and drills there are makes no difference to the number of queries.

use std::time::Duration;

use farshore_journal::format::certificate::DrillVerdict;
use farshore_journal::{DatabaseName, DrillId, IncarnationId};
use sqlx::query;

use crate::connection::in_snapshot;
use crate::packed::PackedRow;
use crate::row::{Read, micros, moment};
use crate::{Catalog, Error, Result, Time, Txn};

/// The most drills that one call gives.
const PAGE: u32 = 1000;

/// A drill without its statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Its id.
    pub id: DrillId,
    /// The database.
    pub database: DatabaseName,
    /// The incarnation.
    pub incarnation: IncarnationId,
    /// How it ended.
    pub verdict: DrillVerdict,
    /// When it began.
    pub began: Time,
    /// When it was over.
    pub ended: Time,
    /// How long the recovery took; none when it was not come to its end.
    pub recovery: Option<Duration>,
    /// How long it might take then; none where nothing was stated.
    pub objective: Option<Duration>,
    /// Whether somebody signed it.
    pub certified: bool,
}

/// What drills say of a database's current incarnation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    /// The newest drill, however it ended.
    pub last: Option<Outline>,
    /// The newest one whose restore came to its end and whose checks passed, in time or not.
    pub proved: Option<Outline>,
    /// When a former incarnation was last proved, which says nothing of this one.
    pub former: Option<Time>,
}

impl Proof {
    /// Of what there is of a database; `present`: its incarnations of now, in each store its own.
    pub fn of(present: &[IncarnationId], outlines: &[Outline]) -> Self {
        let proves = |one: &&Outline| match one.verdict {
            DrillVerdict::Passed | DrillVerdict::Breached => true,
            DrillVerdict::Failed => false,
        };
        let own = || outlines.iter().filter(|one| present.contains(&one.incarnation));
        let newest = |one: &&Outline| (one.began, one.id.to_string());
        Self {
            last: own().max_by_key(newest).cloned(),
            proved: own().filter(proves).max_by_key(newest).cloned(),
            former: outlines
                .iter()
                .filter(|one| !present.contains(&one.incarnation))
                .filter(proves)
                .map(|one| one.ended)
                .max(),
        }
    }
}

impl Catalog {
    /// Of each database, incarnation and verdict the newest drill: what [`Proof::of`] takes.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn drill_newest(&self, database: Option<&DatabaseName>) -> Result<Vec<Outline>> {
        in_snapshot!(self, drill_newest_in_txn(database))
    }

    /// How the drills of each day ended that began in this time, by day and verdict.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn drill_days(
        &self,
        database: Option<&DatabaseName>,
        (from, until): (Time, Time),
    ) -> Result<Vec<DayCount>> {
        in_snapshot!(self, drill_days_in_txn(database, (from, until)))
    }

    /// The databases of which a drill began at this time or later, by name.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn drill_drilled(&self, from: Time) -> Result<Vec<DatabaseName>> {
        in_snapshot!(self, drill_drilled_in_txn(from))
    }

    /// Drills that began in this time, newest first, at most 1000.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn drill_history(
        &self,
        database: Option<&DatabaseName>,
        (from, until): (Time, Time),
    ) -> Result<Vec<Outline>> {
        in_snapshot!(self, drill_history_in_txn(database, (from, until)))
    }
}

/// How many drills of a day ended so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayCount {
    /// When the day began.
    pub day: Time,
    /// How they ended.
    pub verdict: DrillVerdict,
    /// How many.
    pub count: u64,
}

/// As [`Catalog::drill_newest`].
///
/// # Errors
/// When the catalog is away.
pub async fn drill_newest_in_txn(txn: &mut Txn, database: Option<&DatabaseName>) -> Result<Vec<Outline>> {
    let (text, database) = match database {
        None => (text::NEWEST, None),
        Some(database) => (text::NEWEST_OF, Some(database.to_string())),
    };
    let mut bound = query(text.statement);
    if let Some(database) = database {
        bound = bound.bind(database);
    }
    let mut all = txn.packed("drill_newest", text.columns, bound, outline).await?;
    all.sort_by(|a: &Outline, b| (&a.database, b.began, b.id).cmp(&(&b.database, a.began, a.id)));
    Ok(all)
}

/// As [`Catalog::drill_days`].
///
/// # Errors
/// When the catalog is away.
pub async fn drill_days_in_txn(
    txn: &mut Txn,
    database: Option<&DatabaseName>,
    (from, until): (Time, Time),
) -> Result<Vec<DayCount>> {
    let text = if database.is_some() { text::DAYS_OF } else { text::DAYS };
    let mut bound = query(text.statement).bind(micros(from)).bind(micros(until));
    if let Some(database) = database {
        bound = bound.bind(database.to_string());
    }
    let counted = |row: &PackedRow| {
        let day =
            row.integer("day")?.checked_mul(text::DAY).ok_or_else(|| Error::corrupt("day", "no day"))?;
        let (day, verdict) = (moment("day", day)?, verdict(row.str("verdict")?)?);
        Ok(DayCount { day, verdict, count: row.count("drills")? })
    };
    let mut all = txn.packed("drill_days", text.columns, bound, counted).await?;
    all.sort_by_key(|one: &DayCount| (one.day, one.verdict.word()));
    Ok(all)
}

/// As [`Catalog::drill_drilled`].
///
/// # Errors
/// When the catalog is away.
pub async fn drill_drilled_in_txn(txn: &mut Txn, from: Time) -> Result<Vec<DatabaseName>> {
    let bound = query(text::DRILLED.statement).bind(micros(from));
    let mut all = txn.packed("drill_drilled", text::DRILLED.columns, bound, |row| row.parsed("name")).await?;
    all.sort();
    Ok(all)
}

/// As [`Catalog::drill_history`].
///
/// # Errors
/// When the catalog is away.
pub async fn drill_history_in_txn(
    txn: &mut Txn,
    database: Option<&DatabaseName>,
    (from, until): (Time, Time),
) -> Result<Vec<Outline>> {
    let mut bound = query(if database.is_some() { text::HISTORY_OF } else { text::HISTORY })
        .bind(micros(from))
        .bind(micros(until))
        .bind(i64::from(PAGE));
    if let Some(database) = database {
        bound = bound.bind(database.to_string());
    }
    txn.rows("drill_history", bound).await?.iter().map(outline).collect()
}

/// The queries, so that the plan test sees the very texts that run.
pub(crate) mod text {
    use crate::packed::{Packed, packed};

    macro_rules! newest {
        ($which:literal) => {
            packed!(
                concat!(
                    "(select drill.id, drill.database_name, drill.incarnation, drill.verdict, drill.began_at, drill.ended_at, \
                     drill.recovery_us, drill.objective_us, drill.signing_key \
                     from (select database_name, incarnation, verdict, max(began_at) as began_at from drill ",
                    $which,
                    " group by database_name, incarnation, verdict) newest \
                     join drill on drill.database_name = newest.database_name and drill.incarnation = newest.incarnation \
                     and drill.verdict = newest.verdict and drill.began_at = newest.began_at) one"
                );
                id, database_name, incarnation, verdict, began_at, ended_at, recovery_us, objective_us, signing_key
            )
        };
    }
    macro_rules! history {
        ($which:literal) => {
            concat!(
                "select id, database_name, incarnation, verdict, began_at, ended_at, recovery_us, objective_us, signing_key \
                 from drill where ",
                $which,
                "began_at >= $1 and began_at < $2 order by began_at desc, id desc limit $3"
            )
        };
    }

    /// Microseconds of a day. Days begin at midnight, UTC, and none that is asked for is before 1970.
    pub(crate) const DAY: i64 = 86_400_000_000;
    macro_rules! days {
        ($which:literal) => {
            packed!(
                concat!(
                    "(select began_at / 86400000000 as day, verdict, count(*) as drills from drill where ",
                    $which,
                    "began_at >= $1 and began_at < $2 group by began_at / 86400000000, verdict) one"
                );
                day, verdict, drills
            )
        };
    }
    pub(crate) const DAYS: Packed = days!("");
    pub(crate) const DAYS_OF: Packed = days!("database_name = $3 and ");
    pub(crate) const DRILLED: Packed = packed!(
        "(select name from farshore_database where exists (select 1 from drill where drill.database_name = farshore_database.name \
         and drill.began_at >= $1)) one";
        name
    );

    // The inner part reads an index alone: statements are long.
    pub(crate) const NEWEST: Packed = newest!("");
    pub(crate) const NEWEST_OF: Packed = newest!("where database_name = $1");
    pub(crate) const HISTORY: &str = history!("");
    pub(crate) const HISTORY_OF: &str = history!("database_name = $4 and ");
}

fn outline(row: &impl Read) -> Result<Outline> {
    let time = |micros: Option<u64>| micros.map(Duration::from_micros);
    Ok(Outline {
        id: row.parsed("id")?,
        database: row.parsed("database_name")?,
        incarnation: row.parsed("incarnation")?,
        verdict: verdict(row.str("verdict")?)?,
        began: row.time("began_at")?,
        ended: row.time("ended_at")?,
        recovery: time(row.maybe_count("recovery_us")?),
        objective: time(row.maybe_count("objective_us")?),
        certified: row.maybe_str("signing_key")?.is_some(),
    })
}

/// A verdict from its word.
///
/// # Errors
/// When it is another version's.
pub(crate) fn verdict(word: &str) -> Result<DrillVerdict> {
    let verdict = DrillVerdict::ALL.into_iter().find(|verdict| verdict.word() == word);
    verdict.ok_or_else(|| Error::corrupt("verdict", "a word that this version does not know"))
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};

    use super::*;

    fn outline(number: u8, incarnation: u8, verdict: DrillVerdict) -> Outline {
        let began = DateTime::UNIX_EPOCH + TimeDelta::hours(i64::from(number));
        Outline {
            id: DrillId::from_bytes([number; 16]),
            database: "orders".parse().unwrap(),
            incarnation: IncarnationId::from_bytes([incarnation; 16]),
            verdict,
            began,
            ended: began + TimeDelta::minutes(1),
            recovery: None,
            objective: None,
            certified: true,
        }
    }

    #[test]
    fn a_failed_drill_proves_nothing_and_another_incarnations_drill_proves_nothing_of_this_one() {
        use DrillVerdict::{Breached, Failed, Passed};
        let id = &[IncarnationId::from_bytes([2; 16])];
        let all =
            [outline(1, 2, Passed), outline(2, 2, Failed), outline(3, 1, Passed), outline(4, 1, Failed)];
        let proof = Proof::of(id, &all);
        assert_eq!(proof.last.as_ref(), Some(&all[1]));
        assert_eq!(proof.proved.as_ref(), Some(&all[0]));
        assert_eq!(proof.former, Some(all[2].ended));
        assert_eq!(Proof::of(id, &all[1..2]).proved, None);
        let slow = [outline(5, 2, Breached)];
        assert_eq!(Proof::of(id, &slow).proved.as_ref(), Some(&slow[0]));
        assert_eq!(Proof::of(&[], &all).last, None, "of an incarnation that is not known nothing is proved");
    }
}
