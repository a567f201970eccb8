//! Looks at what was promised of this service's databases, and takes what it sees into their ledgers.
//!
//! What always holds: a promise is seen kept only where the exposure is known, or bounded from above, and is not more than was promised; while the catalog does not
//! answer nothing is kept, and that time is an entry afterwards. Looks gate nothing. A stop that is asked for is said at once, so that it has its reason.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::lag;
use farshore_catalog::ledger::{Event, RPO, Seen, What, Why};
use farshore_catalog::shipping::{Shipping, ShippingState};
use farshore_catalog::target::Target;
use farshore_journal::DatabaseName;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// How often it is looked: what is shorter may go unseen.
const LOOK: Duration = Duration::from_secs(5);
/// How long the last look may take.
const LAST: Duration = Duration::from_secs(3);

/// Looks until cancelled.
pub async fn keep(config: Arc<Config>, catalog: Catalog, cancel: CancellationToken) {
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            _ = every.tick() => {}
        }
        tokio::select! {
            () = cancel.cancelled() => break,
            () = look(&config, &catalog) => {}
        }
    }
    let stopped = async {
        for (name, objective) in promised(&config) {
            take(&catalog, name, objective, Seen::Not(Why::ServiceStopped, None)).await;
        }
    };
    let _ = tokio::time::timeout(LAST, stopped).await;
}

/// The databases of which something is promised, in milliseconds.
fn promised(config: &Config) -> impl Iterator<Item = (&DatabaseName, u64)> {
    config.databases.iter().filter_map(|(name, settings)| {
        let rpo = settings.rpo?.get();
        Some((name, u64::try_from(rpo.as_millis()).unwrap_or(u64::MAX)))
    })
}

async fn look(config: &Config, catalog: &Catalog) {
    let all = match catalog.shipping_list().await {
        Ok(all) => all,
        Err(why) => {
            tracing::debug!(error = %why, "the exposure could not be looked at");
            return;
        }
    };
    for (name, objective) in promised(config) {
        let Ok(targets) = catalog.target_list(name).await else { continue };
        let shipping = all.iter().find(|one| one.database == *name);
        take(catalog, name, objective, seen(Utc::now(), shipping, &targets, objective)).await;
    }
}

async fn take(catalog: &Catalog, name: &DatabaseName, objective: u64, seen: Seen) {
    match catalog.exposure_look(name, RPO, objective, seen, Utc::now()).await {
        Ok(events) => events.iter().for_each(|event| told(name, event)),
        Err(why) => {
            tracing::debug!(database = %name, error = %why, "the exposure ledger could not be written: the time until it can is an entry");
        }
    }
}

fn told(name: &DatabaseName, event: &Event) {
    let whys = &event.whys;
    match event.what {
        // What somebody asked for is no reason to be called.
        What::Opened | What::Grew
            if whys.0.iter().all(|why| matches!(why, Why::SettingUp | Why::ServiceStopped)) =>
        {
            tracing::info!(database = %name, promise = RPO, from = %event.from, %whys, "the promise is not known to hold");
        }
        What::Opened | What::Grew => {
            tracing::warn!(database = %name, promise = RPO, from = %event.from, %whys, "the promise does not hold, or is not known to");
        }
        What::Ended => {
            tracing::info!(database = %name, promise = RPO, from = %event.from, until = %event.until, %whys, "the promise holds again");
        }
        What::Kept => {}
    }
}

/// What may be said of a promise now.
fn seen(now: DateTime<Utc>, shipping: Option<&Shipping>, targets: &[Target], objective: u64) -> Seen {
    let exposed = lag::exposure_seconds(now, shipping);
    let known = exposed.is_finite();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // not negative, an age
    let exposed = known.then(|| (exposed * 1000.0).round() as u64);
    let Some(said) = shipping else { return Seen::Not(Why::SettingUp, None) };
    let kept = exposed.filter(|exposed| *exposed <= objective);
    let silent = lag::is_silent(now, said.last_contact_at, said.heartbeat);
    let writes = !lag::is_silent(now, Some(said.updated_at), said.heartbeat);
    // How much there was when it was last heard says nothing of now, however little that is.
    if let (Some(kept), true, true) = (kept, !silent, writes) {
        return Seen::Kept(kept);
    }
    let why = if said.state.is_stopped() {
        Why::ShippingStopped
    } else if !writes {
        Why::ServiceSilent
    } else if targets.iter().any(|target| target.failure.is_some()) {
        Why::TargetFailing
    } else if said.state == ShippingState::Setup {
        Why::SettingUp
    } else if silent {
        Why::SourceSilent
    } else if lag::lag_seconds(now, silent, said.source, said.stored, said.oldest_unstored_commit_at)
        .is_some()
    {
        Why::Behind
    } else {
        // Bytes are on their way and hold no commit that anybody has seen.
        return Seen::InDoubt;
    };
    Seen::Not(why, exposed)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use farshore_catalog::target::Failure;
    use farshore_journal::Offset;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + TimeDelta::days(20_000)
    }

    fn said(change: impl FnOnce(&mut Shipping)) -> Shipping {
        let mut said = Shipping {
            database: "orders".parse().unwrap(),
            state: ShippingState::Connected,
            timeline: None,
            received: Some(Offset::new(100)),
            stored: Some(Offset::new(100)),
            reported: None,
            released: None,
            source: Some(Offset::new(100)),
            retained_bytes: None,
            seconds_to_full: None,
            heartbeat: Duration::from_secs(1),
            last_contact_at: Some(now()),
            last_stored_commit_at: Some(now() - TimeDelta::hours(1)),
            oldest_unstored_commit_at: None,
            updated_at: now(),
            node: None,
        };
        change(&mut said);
        said
    }

    fn target(failure: bool) -> Target {
        let failure =
            failure.then(|| Failure { code: "FS-0402".to_owned(), message: "full".to_owned(), at: now() });
        Target {
            database: "orders".parse().unwrap(),
            store: "main".to_owned(),
            url: String::new(),
            state: "connected".to_owned(),
            stored: None,
            updated_at: now(),
            failure,
        }
    }

    #[test]
    fn a_promise_is_kept_only_where_that_is_known_and_otherwise_there_is_a_reason() {
        let long_ago = now() - TimeDelta::seconds(30);
        let of = |said: &Shipping, failing: bool| seen(now(), Some(said), &[target(failing)], 2000);
        assert_eq!(of(&said(|_| {}), false), Seen::Kept(0));
        // A store that failed and has all is no breach.
        assert_eq!(of(&said(|_| {}), true), Seen::Kept(0));
        let late = |said: &mut Shipping| said.oldest_unstored_commit_at = Some(now() - TimeDelta::seconds(9));
        assert_eq!(of(&said(late), false), Seen::Not(Why::Behind, Some(9000)));
        assert_eq!(of(&said(late), true), Seen::Not(Why::TargetFailing, Some(9000)));
        assert_eq!(
            of(&said(|said| said.last_contact_at = Some(long_ago)), false),
            Seen::Not(Why::SourceSilent, Some(30_000))
        );
        let gone = said(|said| (said.last_contact_at, said.updated_at) = (Some(long_ago), long_ago));
        assert_eq!(of(&gone, false), Seen::Not(Why::ServiceSilent, Some(30_000)));
        let failed =
            said(|said| (said.state, said.last_contact_at) = (ShippingState::Failed, Some(long_ago)));
        assert_eq!(of(&failed, false), Seen::Not(Why::ShippingStopped, Some(30_000)));
        let under_way =
            said(|said| (said.source, said.received) = (Some(Offset::new(200)), Some(Offset::new(100))));
        assert_eq!(of(&under_way, false), Seen::InDoubt);
        assert_eq!(seen(now(), None, &[], 2000), Seen::Not(Why::SettingUp, None));
        // A promise that is longer than the silence does not make the silence known.
        assert!(matches!(seen(now(), Some(&gone), &[], 60_000), Seen::Not(Why::ServiceSilent, _)));
    }
}
