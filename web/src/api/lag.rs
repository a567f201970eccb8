//! `/databases/{name}/lag`: how its exposure went, step by step.
//!
//! What always holds: a step in which nobody looked, or in which somebody who looked found nobody who knew, says so; what was not seen is never 0.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use farshore_catalog::exposure::Minute;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::answer;
use crate::api::named;
use crate::auth::Who;
use crate::page::Query;
use crate::problem::Problem;
use crate::state::Shared;

/// How far back, where nothing else is asked for.
const USUAL: TimeDelta = TimeDelta::hours(2);
/// The most steps of an answer: a day of minutes, or ninety days of hours and a half.
const MOST: i64 = 1440;
/// The longest: as long as minutes are kept.
const LONGEST: i64 = 90 * 86_400;
/// The shortest step, in seconds, of which each is whole minutes: that is what is kept.
const MINUTE: i64 = 60;

/// Which part of it.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// From this time on (RFC 3339); from two hours before `to` when not given.
    pub from: Option<DateTime<Utc>>,
    /// Up to this time; now when not given.
    pub to: Option<DateTime<Utc>>,
    /// Seconds of a step, whole minutes; the shortest that makes at most 1440 steps when not given.
    pub step: Option<u64>,
}

/// A step.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Step {
    /// When it began.
    pub at: DateTime<Utc>,
    /// The worst exposure that was seen in it, in milliseconds: the age of the oldest commit that was not stored. Null: none was known.
    pub worst_ms: Option<u64>,
    /// Whether some of it is not known: nobody looked, or nobody knew.
    pub unknown: bool,
}

/// How the exposure went.
#[derive(Debug, Serialize, ToSchema)]
pub struct Series {
    /// The database.
    pub database: String,
    /// What is promised of it in this service's configuration, in milliseconds.
    pub objective_ms: Option<u64>,
    /// Seconds of a step.
    pub step: u64,
    /// Each step, oldest first.
    pub steps: Vec<Step>,
}

/// What was asked for, as it is answered: begin, end and step, whole minutes each.
fn judged(asked: &Asked, now: DateTime<Utc>) -> Result<(DateTime<Utc>, DateTime<Utc>, TimeDelta), Problem> {
    let to = asked.to.unwrap_or(now).min(now);
    let from = asked.from.or_else(|| to.checked_sub_signed(USUAL)).unwrap_or(to);
    let span = (to - from).num_seconds();
    if span <= 0 {
        return Err(Problem::invalid("from", "is before `to`, and before now"));
    }
    let fewest = (span / MOST / MINUTE + 1).saturating_mul(MINUTE);
    let step = match asked.step.map(i64::try_from) {
        None if span <= MOST * MINUTE => MINUTE,
        None => fewest,
        Some(Ok(step)) if (1..=LONGEST).contains(&step) && step % MINUTE == 0 && span / step <= MOST => step,
        Some(_) => {
            let says = format!(
                "is whole minutes in seconds, at least {fewest} for so long a time, and 90 days at most"
            );
            return Err(Problem::invalid("step", &says));
        }
    };
    let wide = TimeDelta::try_seconds(step).unwrap_or(TimeDelta::MAX);
    let start = DateTime::from_timestamp(from.timestamp().div_euclid(step).saturating_mul(step), 0);
    Ok((start.unwrap_or(from), to, wide))
}

/// Each step from `from` until `to`, of the minutes that were kept.
fn steps(from: DateTime<Utc>, to: DateTime<Utc>, step: TimeDelta, kept: &[Minute]) -> Vec<Step> {
    let mut steps = Vec::new();
    let (mut at, mut minutes) = (from, kept.iter().filter(|minute| minute.at >= from).peekable());
    while at < to {
        let next = at.checked_add_signed(step).unwrap_or(to);
        let end = next.min(to);
        let (mut seen, mut worst, mut unknown) = (0, None, false);
        while let Some(minute) = minutes.next_if(|minute| minute.at < end) {
            seen += 1;
            worst = worst.max(minute.worst);
            unknown |= minute.unknown;
        }
        // The minute that runs is written when it is over.
        let whole = (end - at).num_minutes();
        steps.push(Step { at, worst_ms: worst, unknown: unknown || seen == 0 || seen < whole });
        at = next;
    }
    steps
}

/// How a database's exposure went, step by step
///
/// Of each step the worst that was seen: the age of the oldest commit that was not stored. Minutes are kept for ninety days.
#[utoipa::path(
    get,
    path = "/databases/{name}/lag",
    tag = "exposure",
    params(("name" = String, Path, description = "The database", example = "orders"), Asked),
    responses((status = 200, description = "All steps", body = Series)))]
pub async fn series(
    State(web): State<Shared>,
    who: Who,
    Path(name): Path<String>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let name = named(&name, &who)?;
    let (from, to, step) = judged(&asked, Utc::now())?;
    let catalog = web.catalog()?;
    if catalog.database_find(&name).await?.is_none() {
        return Err(farshore_catalog::Error::NoDatabase { name }.into());
    }
    let kept = catalog.exposure_of(&name, from).await?;
    let rpo = web.objectives.get(&name).and_then(|promised| promised.rpo);
    let series = Series {
        database: name.to_string(),
        objective_ms: rpo.map(|rpo| u64::try_from(rpo.as_millis()).unwrap_or(u64::MAX)),
        step: step.num_seconds().unsigned_abs(),
        steps: steps(from, to, step, &kept),
    };
    answer::one(&headers, &series)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_774_792_800 + seconds, 0).unwrap()
    }

    #[test]
    fn a_step_has_the_worst_that_was_seen_and_one_that_nobody_saw_in_whole_is_not_known() {
        let minute = |number: i64, worst, unknown| Minute::of(at(number * 60), worst, unknown);
        let kept = [
            minute(0, Some(10), false),
            minute(1, Some(900), false),
            minute(2, Some(5), false),
            minute(4, None, true),
            minute(5, Some(7), true),
        ];
        let found = steps(at(0), at(8 * 60 + 30), TimeDelta::minutes(2), &kept);
        let found: Vec<_> = found.iter().map(|step| (step.worst_ms, step.unknown)).collect();
        let expected = [(Some(900), false), (Some(5), true), (Some(7), true), (None, true), (None, true)];
        assert_eq!(found, expected);
        // What lies behind the end is none of it.
        let cut = steps(at(0), at(60 + 30), TimeDelta::minutes(9), &kept);
        assert_eq!((cut.len(), cut[0].worst_ms, cut[0].unknown), (1, Some(900), false));
        let gap = steps(at(180), at(180 + 90), TimeDelta::minutes(9), &kept);
        assert_eq!((gap[0].worst_ms, gap[0].unknown), (None, true));
        // The minute that runs is not missed.
        let now = steps(at(0), at(3 * 60 + 20), TimeDelta::minutes(2), &kept);
        assert_eq!((now[1].worst_ms, now[1].unknown), (Some(5), false));
    }

    #[test]
    fn what_is_asked_for_is_answered_in_whole_minutes_and_never_in_more_steps_than_a_day_has() {
        let now = at(0);
        let judge = |from: Option<i64>, to: Option<i64>, step| {
            judged(&Asked { from: from.map(at), to: to.map(at), step }, now)
                .map(|(from, to, step)| {
                    ((from - now).num_seconds(), (to - now).num_seconds(), step.num_seconds())
                })
                .map_err(|why| why.kind)
        };
        assert_eq!(judge(None, None, None), Ok((-7200, 0, 60)));
        assert_eq!(judge(Some(-86_400), Some(99), Some(3600)), Ok((-86_400, 0, 3600)));
        for days in [1, 2, 7, 90, 36_500] {
            let (from, to, step) = judge(Some(-86_400 * days), None, None).unwrap();
            assert!((to - from) / step <= MOST + 1 && step % 60 == 0, "{days} {step}");
        }
        for (from, to, step) in [
            (Some(0), None, None),
            (Some(10), Some(5), None),
            (None, None, Some(61)),
            (None, None, Some(0)),
            (None, None, Some(9_000_000_000_000_000_000)),
            (Some(-8_640_000), None, Some(60)),
        ] {
            assert_eq!(judge(from, to, step), Err(crate::problem::Kind::Invalid), "{from:?} {to:?} {step:?}");
        }
    }
}
