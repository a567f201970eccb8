//! `/databases/{name}/points`: commits and named points, in log order.
//!
//! What always holds: pages of one walk stay on the line of history that it began on, in the incarnation that it began in, whatever is
//! promoted meanwhile: the cursor holds both. That a point is listed does not say that it can be restored; `points/resolve` says that.

use axum::Json;
use axum::extract::{OriginalUri, Path, State};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::branch::Line;
use farshore_catalog::commit::Commit;
use farshore_catalog::mark::Mark;
use farshore_catalog::points::{Around, Cursor, PointsQuery};
use farshore_catalog::range::{JournalRange, holding};
use farshore_journal::{Offset, Position, Timeline};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::{incarnation_of, named};
use crate::auth::Who;
use crate::page::{self, Query, cursor_invalid};
use crate::problem::Problem;
use crate::state::Shared;

const LIST: &str = "points";

/// Which points.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// Those nearest to this time (RFC 3339, with its offset). Not together with `from` and `to`.
    around: Option<String>,
    /// Those from this time on, oldest first.
    from: Option<String>,
    /// Those up to this time.
    to: Option<String>,
    /// Of this incarnation, by its number or id; of the current one when not given.
    incarnation: Option<String>,
    /// The most commits, 1 to 1000; 100 when not given. Named points among them come in addition.
    limit: Option<u32>,
    /// From `next_cursor` or `previous_cursor` of another page, in place of all parameters but `limit`.
    cursor: Option<String>,
}

/// A point.
#[derive(Debug, Serialize, ToSchema)]
pub struct Point {
    /// Its time, by the primary's clock.
    pub time: DateTime<Utc>,
    /// What is restored for it: timeline and offset.
    pub position: String,
    /// `commit`, `restore_point`, `mark` or `hold`.
    pub kind: String,
    /// Its name; null for a commit.
    pub name: Option<String>,
    /// Why it was set; null for a commit.
    pub note: Option<String>,
    /// Until when it is kept from expiry; null for a commit, and for what is kept until it is released.
    pub held_until: Option<DateTime<Utc>>,
    /// The transaction's id, with its epoch; null for what is not a commit.
    pub xid: Option<u64>,
    /// The stores whose checked log holds it, by name.
    pub stores: Vec<String>,
}

/// A page of points, in log order.
#[derive(Debug, Serialize, ToSchema)]
pub struct Points {
    /// The incarnation that they are of.
    pub incarnation: String,
    /// The number of that one.
    pub incarnation_number: Option<u64>,
    /// The timeline that the line of history leads to; null when the catalog knows nothing of its log.
    pub timeline: Option<u32>,
    /// The points.
    pub items: Vec<Point>,
    /// Asks for newer ones; null when there are none.
    pub next_cursor: Option<String>,
    /// Asks for older ones; null when there are none.
    pub previous_cursor: Option<String>,
}

/// Which part of the history a walk is about. Times are microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Walk {
    Newest,
    Around(i64),
    Between(i64, i64),
}

/// Where a walk goes on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    incarnation: String,
    timeline: u32,
    walk: Walk,
    cursor: String,
}

/// A time given by a caller, to a microsecond.
///
/// # Errors
/// When it is no time of RFC 3339 with an offset.
pub fn time(parameter: &str, text: &str) -> Result<DateTime<Utc>, Problem> {
    let wrong = || {
        Problem::invalid(parameter, "is a time with its offset, as 2026-03-29T14:02:17Z")
            .hint("write + as %2B in a query; a time without an offset is refused, since a wrong guess restores to the wrong hour")
    };
    let time = DateTime::parse_from_rfc3339(text).map_err(|_| wrong())?.to_utc();
    time.duration_trunc(TimeDelta::microseconds(1)).map_err(|_| wrong())
}

fn moment(micros: i64) -> Result<DateTime<Utc>, Problem> {
    // Cursors are read from outside: no farther than what a parameter can say.
    let known = DateTime::from_timestamp_micros(micros);
    known.filter(|time| (0..10_000).contains(&chrono::Datelike::year(time))).ok_or_else(cursor_invalid)
}

/// Commits and named points of a database
///
/// The newest ones, those nearest to a time, or those between two times; in log order, since clocks step back.
#[utoipa::path(
    get,
    path = "/databases/{name}/points",
    tag = "points",
    params(("name" = String, Path, description = "The database", example = "orders"), Asked),
    responses(
        (status = 200, description = "A page of them", body = Points))
)]
pub async fn list(
    State(web): State<Shared>,
    who: Who,
    Path(name): Path<String>,
    uri: OriginalUri,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let name = named(&name, &who)?;
    let limit = page::limit(asked.limit)?;
    let catalog = web.catalog()?;
    let place: Option<Place> = match &asked.cursor {
        None => None,
        Some(_)
            if [&asked.around, &asked.from, &asked.to, &asked.incarnation]
                .iter()
                .any(|one| one.is_some()) =>
        {
            return Err(Problem::invalid(
                "cursor",
                "stands for the whole question: give `limit` beside it and nothing else",
            ));
        }
        Some(cursor) => Some(page::place(LIST, cursor)?),
    };
    let of = place.as_ref().map(|place| place.incarnation.as_str()).or(asked.incarnation.as_deref());
    let (incarnation, ranges) = incarnation_of(catalog, &name, of).await?;
    let walk = match &place {
        Some(place) => place.walk,
        None => walk(&asked)?,
    };
    let newest = ranges.iter().max_by_key(|range| (range.timeline, range.end));
    let mut answer = Points {
        incarnation: incarnation.id.to_string(),
        incarnation_number: incarnation.number,
        timeline: None,
        items: Vec::new(),
        next_cursor: None,
        previous_cursor: None,
    };
    let Some(newest) = newest else { return Ok(Json(answer).into_response()) };
    let timeline = place.as_ref().map_or(newest.timeline, |place| Timeline::new(place.timeline));
    answer.timeline = Some(timeline.get());
    let query = query(catalog, newest, timeline, walk, place.as_ref(), limit).await?;
    let page = catalog.points_around(&query).await.map_err(|why| match (&why, &place) {
        // A line or a position that the history does not have: only a changed cursor says so.
        (
            farshore_catalog::Error::NotInHistory { .. } | farshore_catalog::Error::TooLarge { .. },
            Some(_),
        ) => cursor_invalid(),
        _ => Problem::from(why),
    })?;
    let commits = page.commits.iter().map(|commit| (commit.position(), of_commit(commit, &ranges)));
    let marks = page.marks.iter().map(|mark| (mark.position, of_mark(mark, &ranges)));
    let mut points: Vec<(Position, Point)> = commits.chain(marks).collect();
    points.sort_by_key(|(position, _)| (position.timeline, position.offset));
    answer.items = points.into_iter().map(|(_, point)| point).collect();
    let seal = |cursor: Option<Cursor>| {
        let place = |cursor: Cursor| Place {
            incarnation: incarnation.id.to_string(),
            timeline: timeline.get(),
            walk,
            cursor: cursor.to_string(),
        };
        cursor.map(|cursor| page::cursor(LIST, &place(cursor))).transpose()
    };
    answer.next_cursor = seal(page.later)?;
    answer.previous_cursor = seal(page.earlier)?;
    let links = page::links(
        &uri,
        &["limit"],
        &[("prev", answer.previous_cursor.as_deref()), ("next", answer.next_cursor.as_deref())],
    );
    Ok((links, Json(answer)).into_response())
}

fn walk(asked: &Asked) -> Result<Walk, Problem> {
    let read = |parameter, text: &Option<String>| {
        text.as_ref().map(|text| time(parameter, text).map(|time| time.timestamp_micros())).transpose()
    };
    let (around, from, to) =
        (read("around", &asked.around)?, read("from", &asked.from)?, read("to", &asked.to)?);
    match (around, from, to) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            Err(Problem::invalid("around", "does not go with `from` and `to`"))
        }
        (Some(around), None, None) => Ok(Walk::Around(around)),
        (None, None, None) => Ok(Walk::Newest),
        (None, from, to) => {
            let from = from.unwrap_or(0);
            // Clocks may be ahead: what is behind now is asked for too.
            let to =
                to.unwrap_or_else(|| Utc::now().timestamp_micros().saturating_add(36_525 * 86_400_000_000));
            match from <= to {
                true => Ok(Walk::Between(from, to)),
                false => Err(Problem::invalid("from", "is not after `to`")),
            }
        }
    }
}

async fn query(
    catalog: &Catalog,
    newest: &JournalRange,
    timeline: Timeline,
    walk: Walk,
    place: Option<&Place>,
    limit: u32,
) -> Result<PointsQuery, Problem> {
    let begun = place.map(|place| place.cursor.parse().map_err(|_| cursor_invalid())).transpose()?;
    let incarnation = newest.incarnation;
    let (around, span, cursor) = match walk {
        Walk::Newest => (Around::Position(Position::new(newest.timeline, newest.checked_end)), None, begun),
        Walk::Around(time) => (Around::Time(moment(time)?), None, begun),
        Walk::Between(from, to) => {
            let (from, to) = (moment(from)?, moment(to)?);
            if to < from {
                return Err(cursor_invalid());
            }
            // Half of whole microseconds is whole nanoseconds: both ends are met exactly.
            let half = (to - from) / 2;
            let first = match begun {
                Some(cursor) => cursor,
                None => {
                    let line = Line::to(timeline, &catalog.branch_list(incarnation).await?);
                    let first = line.stretches().first().map_or(timeline, |stretch| stretch.timeline);
                    Cursor::After(Position::new(first, Offset::new(0)))
                }
            };
            (Around::Time(from + half), half.to_std().ok(), Some(first))
        }
    };
    // A walk that began on a timeline that a promotion left goes on there, from its own end.
    let around = match around {
        Around::Position(_) if newest.timeline != timeline => match cursor {
            Some(Cursor::Before(at) | Cursor::After(at)) => Around::Position(at),
            None => around,
        },
        around => around,
    };
    Ok(PointsQuery { incarnation, timeline, around, span, limit: limit as usize, cursor })
}

fn of_commit(commit: &Commit, ranges: &[JournalRange]) -> Point {
    Point {
        time: commit.time,
        position: commit.position().to_string(),
        kind: "commit".to_owned(),
        name: None,
        note: None,
        held_until: None,
        xid: Some(commit.xid),
        stores: holding(ranges, commit.position()),
    }
}

fn of_mark(mark: &Mark, ranges: &[JournalRange]) -> Point {
    Point {
        time: mark.time,
        position: mark.position.to_string(),
        kind: mark.kind.word().to_owned(),
        name: Some(mark.name.clone()),
        note: Some(mark.note.clone()),
        held_until: mark.held_until,
        xid: None,
        stores: holding(ranges, mark.position),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_an_offset_is_refused_and_others_are_read_to_a_microsecond() {
        for wrong in ["2026-03-29T14:02:17", "14:02", "", "2026-03-29T14:02:17 02:00", "yesterday"] {
            assert!(time("at", wrong).is_err(), "{wrong}");
        }
        let read = time("at", "2026-03-29T16:02:17.123456789+02:00").unwrap();
        assert_eq!(read.to_rfc3339(), "2026-03-29T14:02:17.123456+00:00");
    }
}
