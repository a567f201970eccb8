//! What throttles look at, kept for a day: a rule is tried out on it.
//!
//! What always holds: what was not known is not there, and is never taken for 0; of a second that was told twice the later word counts.

use std::collections::BTreeMap;

use chrono::{TimeDelta, Timelike as _};
use farshore_journal::DatabaseName;
use sqlx::query;

use crate::connection::{in_local_txn, in_snapshot};
use crate::row::{Read, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// One look at a database. `None` is "not known".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When, to the second.
    pub at: Time,
    /// Bytes a second that went to its stores since the look before.
    pub ship_rate: Option<u64>,
    /// How busy the machine's processors were since then, in thousandths.
    pub cpu: Option<u64>,
    /// The age of the oldest commit that is not stored, in milliseconds.
    pub ship_lag: Option<u64>,
    /// Bytes of the source's log that are not stored.
    pub ship_lag_bytes: Option<u64>,
    /// Bytes of log that the source keeps for us.
    pub retained_log: Option<u64>,
    /// How full the spool is, in thousandths of the limit of its own directory.
    pub spool: Option<u64>,
}

impl Sample {
    /// A look of which nothing is known.
    pub fn unknown(at: Time) -> Self {
        let at = at - TimeDelta::nanoseconds(at.timestamp_subsec_nanos().into());
        Self {
            at,
            ship_rate: None,
            cpu: None,
            ship_lag: None,
            ship_lag_bytes: None,
            retained_log: None,
            spool: None,
        }
    }

    fn hour(&self) -> Time {
        self.at - self.within_hour()
    }

    fn within_hour(&self) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.at.minute() * 60 + self.at.second()))
            + TimeDelta::nanoseconds(self.at.timestamp_subsec_nanos().into())
    }

    fn text(&self) -> String {
        let parts =
            [self.ship_rate, self.cpu, self.ship_lag, self.ship_lag_bytes, self.retained_log, self.spool];
        let parts = parts.map(|part| part.map(|part| part.to_string()).unwrap_or_default());
        format!("{}:{};", self.within_hour().num_seconds(), parts.join(","))
    }
}

/// The looks of a row's text, oldest first.
fn samples(hour: Time, body: &str) -> Result<Vec<Sample>> {
    let wrong = || Error::corrupt("body", "what is no look of an hour");
    let mut all = BTreeMap::new();
    for entry in body.split_terminator(';') {
        let (second, said) = entry.split_once(':').ok_or_else(wrong)?;
        let second: i64 =
            second.parse().ok().filter(|second| (0..3600).contains(second)).ok_or_else(wrong)?;
        let mut known = [None; 6];
        let mut parts = said.split(',');
        for (at, place) in known.iter_mut().enumerate() {
            let part = match parts.next() {
                Some(part) => part,
                // Builds of before there were spools wrote one figure less.
                None if at == 5 => "",
                None => return Err(wrong()),
            };
            *place = match part {
                "" => None,
                part => Some(part.parse::<u64>().map_err(|_| wrong())?),
            };
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        let [ship_rate, cpu, ship_lag, ship_lag_bytes, retained_log, spool] = known;
        let at = hour + TimeDelta::seconds(second);
        all.insert(second, Sample { at, ship_rate, cpu, ship_lag, ship_lag_bytes, retained_log, spool });
    }
    Ok(all.into_values().collect())
}

impl Catalog {
    /// Adds looks at a database; of one that is not known here nothing is kept.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn throttle_sample_add(&self, database: &DatabaseName, looks: &[Sample]) -> Result<()> {
        in_local_txn!(self, throttle_sample_add_in_txn(database, looks))
    }

    /// The looks at a database from a moment on, oldest first.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn throttle_samples(&self, database: &DatabaseName, from: Time) -> Result<Vec<Sample>> {
        in_snapshot!(self, throttle_samples_in_txn(database, from))
    }

    /// Forgets hours that began before a moment. How many.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn throttle_sample_forget(&self, before: Time) -> Result<u64> {
        in_local_txn!(self, throttle_sample_forget_in_txn(before))
    }
}

/// As [`Catalog::throttle_sample_add`].
///
/// # Errors
/// When the catalog is away.
pub async fn throttle_sample_add_in_txn(
    txn: &mut Txn,
    database: &DatabaseName,
    looks: &[Sample],
) -> Result<()> {
    let mut hours: BTreeMap<Time, String> = BTreeMap::new();
    for look in looks {
        hours.entry(look.hour()).or_default().push_str(&look.text());
    }
    let statement = "insert into throttle_sample (database_name, hour_us, body) \
                     select name, $2, $3 from farshore_database where name = $1 \
                     on conflict (database_name, hour_us) do update set body = throttle_sample.body || excluded.body";
    for (hour, body) in hours {
        let bound = query(statement).bind(database.to_string()).bind(micros(hour)).bind(body);
        txn.execute("throttle_sample_add", bound).await?;
    }
    Ok(())
}

/// As [`Catalog::throttle_samples`].
///
/// # Errors
/// When the catalog is away.
pub async fn throttle_samples_in_txn(
    txn: &mut Txn,
    database: &DatabaseName,
    from: Time,
) -> Result<Vec<Sample>> {
    let statement = "select hour_us, body from throttle_sample where database_name = $1 and hour_us >= $2 order by hour_us";
    let bound = query(statement).bind(database.to_string()).bind(micros(Sample::unknown(from).hour()));
    let mut all = Vec::new();
    for row in &txn.rows("throttle_samples", bound).await? {
        all.extend(samples(row.time("hour_us")?, row.str("body")?)?);
    }
    all.retain(|look| look.at >= from);
    Ok(all)
}

/// As [`Catalog::throttle_sample_forget`].
///
/// # Errors
/// When the catalog is away.
pub async fn throttle_sample_forget_in_txn(txn: &mut Txn, before: Time) -> Result<u64> {
    let statement = "delete from throttle_sample where hour_us < $1";
    txn.execute("throttle_sample_forget", query(statement).bind(micros(before))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_reads_back_from_its_hour_and_what_was_not_known_stays_so() {
        let hour = Time::default() + TimeDelta::hours(7);
        let at = |second| hour + TimeDelta::seconds(second);
        let known = Sample {
            at: at(3599),
            ship_rate: Some(5_000_000),
            cpu: Some(1000),
            ship_lag: Some(0),
            ship_lag_bytes: Some(u64::MAX),
            retained_log: Some(16 << 20),
            spool: Some(1200),
        };
        let some = Sample { retained_log: Some(7), ..Sample::unknown(at(0)) };
        let later = Sample { ship_rate: Some(1), ..known };
        let body: String = [known, some, later].iter().map(Sample::text).collect();
        assert_eq!(samples(hour, &body).unwrap(), [some, later]);
        assert_eq!(Sample::unknown(at(5) + TimeDelta::milliseconds(700)).at, at(5));
        let before_spools = samples(hour, "1:5,,,,7;").unwrap();
        assert_eq!(
            before_spools,
            [Sample { ship_rate: Some(5), retained_log: Some(7), ..Sample::unknown(at(1)) }]
        );
        for wrong in ["3600:,,,,,;", "x:,,,,,;", "1:,,,;", "1:,,,,,,;", "1:-4,,,,;", "1"] {
            assert!(samples(hour, wrong).is_err(), "{wrong}");
        }
    }
}
