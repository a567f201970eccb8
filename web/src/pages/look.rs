//! What a page of all databases is drawn from: the reading that this service makes once a second anyway, or one made for the page alone.
//!
//! What always holds: what is drawn is judged by the clock of the moment at which it is drawn, whenever it was read, and the page says when that was. A reading that
//! is old, or behind which the catalog failed, is not drawn from: the page reads the catalog itself then, and where that fails it says that the catalog is away. So
//! a change is seen a second later at the most, as every page that is open asks again every two.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::TimeDelta;
use farshore_catalog::Time;
use farshore_catalog::exposure::Minute;
use farshore_catalog::fleet::Fleet;
use farshore_journal::DatabaseName;

use crate::pages::exposure::{Spark, spark};
use crate::problem::Problem;
use crate::state::Web;

/// How much of the past a row's line shows.
const SPARK: TimeDelta = TimeDelta::hours(2);
/// How long lines are shown before they are drawn anew: minutes are written some seconds behind their end. What is not there is drawn as not known.
const DRAWN_EVERY: TimeDelta = TimeDelta::seconds(15);

/// How the exposure of each database went, as a line; none of those of which nothing was kept.
pub type Sparks = BTreeMap<DatabaseName, Spark>;

/// The lines that were drawn last, and when.
#[derive(Debug, Default)]
pub struct Lately(Mutex<Option<(Time, Arc<Sparks>)>>);

impl Lately {
    fn kept(&self, now: Time) -> Option<Arc<Sparks>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|(drawn_at, _)| is_current(*drawn_at, now)).map(|(_, all)| Arc::clone(all))
    }

    /// The lines as of a moment ago. Two who find them old both draw them: no harm, and nobody waits for the other.
    async fn drawn(&self, web: &Web, now: Time) -> Result<Arc<Sparks>, Problem> {
        if let Some(kept) = self.kept(now) {
            return Ok(kept);
        }
        let all = Arc::new(draw(web, now).await?);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, Arc::clone(&all)));
        Ok(all)
    }
}

/// Whether lines that were drawn then are those of now: they move with each minute.
fn is_current(drawn_at: Time, now: Time) -> bool {
    let minute = |time| Minute::of(time, None, true).at;
    (now - drawn_at).abs() < DRAWN_EVERY && minute(now) == minute(drawn_at)
}

async fn draw(web: &Web, now: Time) -> Result<Sparks, Problem> {
    let from = now - SPARK;
    let kept = web.catalog()?.exposure_of_all(from).await?;
    let line = |(database, minutes): (DatabaseName, Vec<Minute>)| {
        let promised = web.objectives.get(&database).copied().unwrap_or_default();
        let drawn = spark(from, now, &minutes, promised.rpo.map(|rpo| rpo.as_secs_f64()));
        (database, drawn)
    };
    Ok(kept.into_iter().filter(|(_, minutes)| !minutes.is_empty()).map(line).collect())
}

/// What a page is drawn from.
#[derive(Debug)]
pub struct Look {
    /// All databases, as they were written when they were read.
    pub fleet: Arc<Fleet>,
    /// Whether this service reads them again and again.
    is_kept: bool,
}

impl Look {
    /// The newest there is.
    ///
    /// # Errors
    /// When nothing was read a moment ago, and the catalog is away.
    pub async fn at(web: &Web, now: Time) -> Result<Self, Problem> {
        if let Some(fleet) = web.metrics.reading().and_then(|reading| reading.shown(now)) {
            return Ok(Self { fleet, is_kept: true });
        }
        Ok(Self { fleet: Arc::new(web.catalog()?.fleet(now).await?), is_kept: false })
    }

    /// How the exposure went lately.
    ///
    /// # Errors
    /// When it was not read lately, and the catalog is away.
    pub async fn sparks(&self, web: &Web, now: Time) -> Result<Arc<Sparks>, Problem> {
        match self.is_kept {
            true => web.lately.drawn(web, now).await,
            false => Ok(Arc::new(draw(web, now).await?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_drawn_anew_every_quarter_of_a_minute_and_when_a_minute_begins() {
        let minute = Time::UNIX_EPOCH + TimeDelta::minutes(7);
        let at = |seconds: i64| minute + TimeDelta::seconds(seconds);
        for (drawn, now, current) in [
            (0, 0, true),
            (0, 14, true),
            (0, 15, false),
            (40, 54, true),
            (50, 59, true),
            (50, 60, false),
            (20, 5, false),
            (12, 5, true),
        ] {
            assert_eq!(is_current(at(drawn), at(now)), current, "drawn at {drawn}, now {now}");
        }
    }
}
