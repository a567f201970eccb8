//! How the exposure of each database went: for each minute the worst that somebody saw, and whether somebody who looked found nobody who knew.
//!
//! What always holds: what was not looked at is not there, and is never taken for 0. Minutes are only added; of one that was told twice
//! the worse counts. It cannot be proved anew from a store: a catalog that is lost takes it along.

use std::collections::BTreeMap;

use chrono::{TimeDelta, Timelike as _};
use farshore_journal::DatabaseName;
use sqlx::query;

use crate::connection::{in_local_txn, in_snapshot};
use crate::packed::{Packed, packed};
use crate::row::{Read, micros};
use crate::{Catalog, Error, Result, Time, Txn};

const MINUTE: TimeDelta = TimeDelta::minutes(1);

/// A minute of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minute {
    /// When it began.
    pub at: Time,
    /// The worst exposure that was seen in it, in milliseconds; `None`: nobody knew it at any look.
    pub worst: Option<u64>,
    /// Whether nobody knew it at some look.
    pub unknown: bool,
}

impl Minute {
    /// The minute that holds a moment, with what was seen.
    pub fn of(time: Time, worst: Option<u64>, unknown: bool) -> Self {
        let into = TimeDelta::nanoseconds(time.timestamp_subsec_nanos().into())
            + TimeDelta::seconds(i64::from(time.second()));
        Self { at: time - into, worst, unknown: unknown || worst.is_none() }
    }

    /// When its hour began.
    fn hour(&self) -> Time {
        self.at - MINUTE * i32::try_from(self.at.minute()).unwrap_or(0)
    }

    fn text(&self) -> String {
        let worst = self.worst.map(|worst| worst.to_string()).unwrap_or_default();
        format!("{}:{worst}{};", self.at.minute(), if self.unknown { "?" } else { "" })
    }

    fn with(self, other: Self) -> Self {
        Self { worst: self.worst.max(other.worst), unknown: self.unknown || other.unknown, ..self }
    }
}

/// The minutes of a row's text, oldest first.
fn minutes(hour: Time, body: &str) -> Result<Vec<Minute>> {
    let wrong = || Error::corrupt("body", "what is no minute of an hour");
    let mut all = [None::<Minute>; 60];
    for entry in body.split_terminator(';') {
        let (minute, said) = entry.split_once(':').ok_or_else(wrong)?;
        let minute: u8 = minute.parse().map_err(|_| wrong())?;
        let place = all.get_mut(usize::from(minute)).ok_or_else(wrong)?;
        let (known, unknown) = said.strip_suffix('?').map_or((said, false), |known| (known, true));
        let worst = match known {
            "" => None,
            known => Some(known.parse().map_err(|_| wrong())?),
        };
        let at = hour + MINUTE * i32::from(minute);
        let read = Minute { at, worst, unknown: unknown || worst.is_none() };
        *place = Some(place.map_or(read, |one| one.with(read)));
    }
    Ok(all.into_iter().flatten().collect())
}

impl Catalog {
    /// Adds a minute of each of these databases; those that are not known here are left out.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn exposure_add(&self, told: &[(DatabaseName, Minute)]) -> Result<()> {
        in_local_txn!(self, exposure_add_in_txn(told))
    }

    /// The minutes of a database from a moment on, oldest first.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn exposure_of(&self, database: &DatabaseName, from: Time) -> Result<Vec<Minute>> {
        in_snapshot!(self, exposure_of_in_txn(database, from))
    }

    /// The minutes of all databases from a moment on, oldest first.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn exposure_of_all(&self, from: Time) -> Result<BTreeMap<DatabaseName, Vec<Minute>>> {
        in_snapshot!(self, exposure_of_all_in_txn(from))
    }

    /// Forgets hours that began before a moment. How many.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn exposure_forget(&self, before: Time) -> Result<u64> {
        in_local_txn!(self, exposure_forget_in_txn(before))
    }
}

/// As [`Catalog::exposure_add`].
///
/// # Errors
/// When the catalog is away.
pub async fn exposure_add_in_txn(txn: &mut Txn, told: &[(DatabaseName, Minute)]) -> Result<()> {
    let statement = "insert into exposure_hour (database_name, hour_us, body) \
                     select name, $2, $3 from farshore_database where name = $1 \
                     on conflict (database_name, hour_us) do update set body = exposure_hour.body || excluded.body";
    for (database, minute) in told {
        let bound =
            query(statement).bind(database.to_string()).bind(micros(minute.hour())).bind(minute.text());
        txn.execute("exposure_add", bound).await?;
    }
    Ok(())
}

/// As [`Catalog::exposure_of`].
///
/// # Errors
/// When the catalog is away.
pub async fn exposure_of_in_txn(txn: &mut Txn, database: &DatabaseName, from: Time) -> Result<Vec<Minute>> {
    let statement = "select database_name, hour_us, body from exposure_hour \
                     where database_name = $1 and hour_us >= $2 order by hour_us";
    let bound = query(statement).bind(database.to_string()).bind(micros(Minute::of(from, None, true).hour()));
    let mut all = Vec::new();
    for row in &txn.rows("exposure_of", bound).await? {
        all.extend(read(row)?.1);
    }
    all.retain(|minute| minute.at >= from);
    Ok(all)
}

/// As [`Catalog::exposure_of_all`].
///
/// # Errors
/// When the catalog is away.
pub async fn exposure_of_all_in_txn(
    txn: &mut Txn,
    from: Time,
) -> Result<BTreeMap<DatabaseName, Vec<Minute>>> {
    const SINCE: Packed = packed!("exposure_hour where hour_us >= $1"; database_name, hour_us, body);
    let bound = query(SINCE.statement).bind(micros(Minute::of(from, None, true).hour()));
    let mut all: BTreeMap<DatabaseName, Vec<Minute>> = BTreeMap::new();
    for (database, minutes) in txn.packed("exposure_of_all", SINCE.columns, bound, read).await? {
        all.entry(database).or_default().extend(minutes.into_iter().filter(|minute| minute.at >= from));
    }
    for minutes in all.values_mut() {
        minutes.sort_by_key(|minute| minute.at);
    }
    Ok(all)
}

/// As [`Catalog::exposure_forget`].
///
/// # Errors
/// When the catalog is away.
pub async fn exposure_forget_in_txn(txn: &mut Txn, before: Time) -> Result<u64> {
    let statement = "delete from exposure_hour where hour_us < $1";
    txn.execute("exposure_forget", query(statement).bind(micros(before))).await
}

fn read(row: &impl Read) -> Result<(DatabaseName, Vec<Minute>)> {
    Ok((row.parsed("database_name")?, minutes(row.time("hour_us")?, row.str("body")?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_reads_back_from_its_hour_and_the_worse_of_two_counts() {
        let hour = Time::default() + TimeDelta::hours(7);
        let at = |minute: i32| hour + MINUTE * minute;
        for (minute, worst, unknown) in [(0, Some(0), false), (59, Some(123_456), true), (7, None, true)] {
            let one = Minute::of(at(minute) + TimeDelta::milliseconds(59_999), worst, unknown);
            assert_eq!((one.at, one.hour()), (at(minute), hour));
            assert_eq!(minutes(hour, &one.text()).unwrap(), [one]);
        }
        let twice = minutes(hour, "3:20;2:9;3:?;3:500;").unwrap();
        let right = [Minute::of(at(2), Some(9), false), Minute::of(at(3), Some(500), true)];
        assert_eq!(twice, right);
        // Nobody who knew is never nothing to lose.
        assert_eq!(Minute::of(at(1), None, false), Minute::of(at(1), None, true));
        for wrong in ["60:1;", "x:1;", "1;", "1:-4;", "1:a?;"] {
            assert!(minutes(hour, wrong).is_err(), "{wrong}");
        }
    }
}
