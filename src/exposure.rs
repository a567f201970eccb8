//! How the exposure of this service's databases goes, kept in the catalog by the minute: whether a promise held is a question about the past.
//!
//! What always holds: every look counts what may be said at that moment by the rules of `status`, and a look at a database of which nobody
//! vouches is counted as unknown. While this service hangs or is away nothing is kept, and those minutes are not there. Whatever fails here stops
//! nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::exposure::Minute;
use farshore_catalog::lag;
use farshore_catalog::shipping::Shipping;
use farshore_journal::DatabaseName;
use tokio_util::sync::CancellationToken;

/// How often it is looked. What is shorter than this may go unseen.
const LOOK: Duration = Duration::from_secs(5);
/// How long a minute is kept.
const KEPT: TimeDelta = TimeDelta::days(90);

/// Looks until cancelled; what was seen of a minute is written once it is over, and at the end.
pub async fn keep(catalog: Catalog, own: BTreeSet<DatabaseName>, cancel: CancellationToken) {
    let mut seen = Seen::default();
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut forgotten: Option<DateTime<Utc>> = None;
    loop {
        let go_on = tokio::select! {
            () = cancel.cancelled() => false,
            _ = every.tick() => true,
        };
        let now = Utc::now();
        let told = if go_on { seen.over(now) } else { seen.all() };
        if !told.is_empty()
            && let Err(why) = catalog.exposure_add(&told).await
        {
            tracing::debug!(error = %why, "how the exposure went could not be kept");
        }
        if !go_on {
            return;
        }
        if forgotten.is_none_or(|then| now - then > TimeDelta::hours(1)) {
            forgotten = Some(now);
            if let Err(why) = catalog.exposure_forget(now - KEPT).await {
                tracing::debug!(error = %why, "how the exposure went could not be forgotten");
            }
        }
        match catalog.shipping_list().await {
            Ok(all) => {
                for shipping in all.iter().filter(|one| own.contains(&one.database)) {
                    seen.look(now, shipping);
                }
            }
            Err(why) => tracing::debug!(error = %why, "the exposure could not be looked at"),
        }
    }
}

/// What was seen in the minutes that are not written yet.
#[derive(Debug, Default)]
struct Seen(BTreeMap<(DatabaseName, DateTime<Utc>), (Option<u64>, bool)>);

impl Seen {
    fn look(&mut self, now: DateTime<Utc>, said: &Shipping) {
        let silent = lag::is_silent(now, said.last_contact_at, said.heartbeat);
        let lag = lag::lag_seconds(now, silent, said.source, said.stored, said.oldest_unstored_commit_at);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // not negative, an age
        let worst = lag.map(|lag| (lag * 1000.0).round() as u64);
        let at = Minute::of(now, None, true).at;
        let one = self.0.entry((said.database.clone(), at)).or_insert((None, false));
        // Bytes that are on their way and hold no commit that anybody has seen: the next look tells.
        *one = (one.0.max(worst), one.1 || silent);
    }

    /// Takes the minutes that are over.
    fn over(&mut self, now: DateTime<Utc>) -> Vec<(DatabaseName, Minute)> {
        let present = Minute::of(now, None, true).at;
        let over = std::mem::take(&mut self.0).into_iter();
        let (over, still): (Vec<_>, Vec<_>) = over.partition(|((_, at), _)| *at != present);
        self.0.extend(still);
        over.into_iter().map(told).collect()
    }

    fn all(&mut self) -> Vec<(DatabaseName, Minute)> {
        std::mem::take(&mut self.0).into_iter().map(told).collect()
    }
}

fn told(
    ((database, at), (worst, unknown)): ((DatabaseName, DateTime<Utc>), (Option<u64>, bool)),
) -> (DatabaseName, Minute) {
    (database, Minute::of(at, worst, unknown))
}

#[cfg(test)]
mod tests {
    use farshore_catalog::shipping::ShippingState;
    use farshore_journal::Offset;

    use super::*;

    fn said(heard: DateTime<Utc>, unstored: Option<DateTime<Utc>>, stored: u64) -> Shipping {
        Shipping {
            database: "orders".parse().unwrap(),
            state: ShippingState::Connected,
            timeline: None,
            received: None,
            stored: Some(Offset::new(stored)),
            reported: None,
            released: None,
            source: Some(Offset::new(100)),
            retained_bytes: None,
            seconds_to_full: None,
            heartbeat: Duration::from_secs(1),
            last_contact_at: Some(heard),
            last_stored_commit_at: None,
            oldest_unstored_commit_at: unstored,
            updated_at: heard,
            node: None,
        }
    }

    #[test]
    fn a_minute_holds_its_worst_look_and_that_somebody_did_not_know() {
        let at = |seconds| DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(seconds);
        let mut seen = Seen::default();
        seen.look(at(60), &said(at(60), None, 100));
        seen.look(at(65), &said(at(65), Some(at(62)), 50));
        // On its way, and nobody knows of a commit in it.
        seen.look(at(70), &said(at(70), None, 50));
        assert!(seen.over(at(119)).is_empty(), "the minute is not over");
        // Of the next minute nobody knows anything.
        seen.look(at(125), &said(at(70), None, 100));
        let over = seen.over(at(181));
        let of =
            |seconds, worst, unknown| ("orders".parse().unwrap(), Minute::of(at(seconds), worst, unknown));
        assert_eq!(over, [of(60, Some(3000), false), of(120, None, true)]);
        assert!(seen.all().is_empty());
    }
}
