//! `/databases/{name}/points/resolve`: the commit that a time, a position, a transaction or a name leads to, as far as the catalog knows.
//!
//! What always holds: it follows log order, as a restore does, and says what it does not know: a time behind all that is stored may get
//! further commits, and a position that is not in a store's window is not said to be restorable. The catalog is a cache: a restore
//! reads the store itself, from a base backup on, and its plan is what counts.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::branch::Line;
use farshore_catalog::commit::Commit;
use farshore_catalog::points::BeforeTime;
use farshore_catalog::range::holding;
use farshore_catalog::window::Windows;
use farshore_journal::{DatabaseName, IncarnationId, Position, Timeline};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::answer;
use crate::api::{incarnation_of, named, points};
use crate::auth::Who;
use crate::page::Query;
use crate::problem::{Kind, Problem};
use crate::state::Shared;

/// What is asked for: one of `at`, `pos`, `xid` and `point`.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// A time (RFC 3339, with its offset): the state just before the first commit, in log order, that is later.
    pub at: Option<String>,
    /// A position, as `1:5F/3AA7B9A0`.
    pub pos: Option<String>,
    /// A transaction's id, with its epoch.
    pub xid: Option<u64>,
    /// A named point.
    pub point: Option<String>,
    /// In this incarnation, by its number or id; in the current one when not given.
    pub incarnation: Option<String>,
}

/// A commit.
#[derive(Debug, Serialize, ToSchema)]
pub struct CommitAt {
    /// Its time, by the primary's clock.
    pub time: DateTime<Utc>,
    /// Where it ends: a restore to here holds it.
    pub position: String,
    /// Its transaction's id, with its epoch.
    pub xid: u64,
}

/// What was asked for leads to.
#[derive(Debug, Serialize, ToSchema)]
pub struct Resolved {
    /// The incarnation that it is in.
    pub incarnation: String,
    /// The number of that one.
    pub incarnation_number: Option<u64>,
    /// What is restored: timeline and offset.
    pub position: String,
    /// The last commit that is held; null when the catalog knows none at or before the position.
    pub commit: Option<CommitAt>,
    /// The first commit that is left out; null when the catalog knows none behind it.
    pub next: Option<CommitAt>,
    /// Whether no commit that is stored later can change this. For a time: a later commit is known. Else: the checked log of a store
    /// holds the position.
    pub is_final: bool,
    /// Commits that are left out although their time is not later than the one asked for: the clock stepped back there. The first 20.
    pub out_of_order: Vec<CommitAt>,
    /// The stores whose checked log holds the position, by name.
    pub stores: Vec<String>,
    /// The stores of them that it can be restored from, as far as the catalog knows: an unbroken, checked log leads there from a base
    /// backup.
    pub restorable_in: Vec<String>,
}

/// Where it leads.
struct Found {
    position: Position,
    commit: Option<Commit>,
    next: Option<Commit>,
    /// `None`: it is once the log is there.
    is_final: Option<bool>,
    out_of_order: Vec<Commit>,
}

/// The commit that a time, a position, a transaction or a name leads to
#[utoipa::path(
    get,
    path = "/databases/{name}/points/resolve",
    tag = "points",
    params(("name" = String, Path, description = "The database", example = "orders"), Asked),
    responses(
        (status = 200, description = "Where it leads", body = Resolved),
        (status = 304, description = "As the caller has it already"),
        (status = 409, description = "Several points are meant by this", body = crate::problem::Body,
            content_type = "application/problem+json"))
)]
pub async fn resolve(
    State(web): State<Shared>,
    who: Who,
    Path(name): Path<String>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let name = named(&name, &who)?;
    answer::one(&headers, &lead(web.catalog()?, &name, asked).await?)
}

/// Where what was asked for leads to.
///
/// # Errors
/// When it leads nowhere, or to several places; when the catalog is away.
pub async fn lead(catalog: &Catalog, name: &DatabaseName, asked: Asked) -> Result<Resolved, Problem> {
    let given = [asked.at.is_some(), asked.pos.is_some(), asked.xid.is_some(), asked.point.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        return Err(Problem::new(Kind::Invalid, "give exactly one of `at`, `pos`, `xid` and `point`"));
    }
    let at = asked.at.as_deref().map(|text| points::time("at", text)).transpose()?;
    let pos: Option<Position> = match asked.pos.as_deref().map(str::parse).transpose() {
        Ok(pos) => pos,
        Err(_) => return Err(Problem::invalid("pos", "is a timeline and an offset, as 1:5F/3AA7B9A0")),
    };
    let (incarnation, ranges) = incarnation_of(catalog, name, asked.incarnation.as_deref()).await?;
    let newest = ranges.iter().max_by_key(|range| (range.timeline, range.end));
    let Some(newest) = newest else { return Err(unknown("nothing of its log is known")) };
    // What a promotion left behind is looked for on its own line.
    let along = Along { catalog, incarnation: incarnation.id, timeline: newest.timeline };
    let windows = along.windows().await?;
    let (along, found) = match (at, pos, asked.xid, asked.point) {
        (Some(at), ..) => {
            let found = along.time(at, &windows).await?;
            (along, found)
        }
        (_, Some(pos), ..) => {
            let along = along.leading_to(pos).await?;
            let found = along.position(pos).await?;
            (along, found)
        }
        (_, _, Some(xid), _) => along.to(transaction(catalog, incarnation.id, xid).await?).await?,
        (_, _, _, Some(point)) => along.to(marked(catalog, incarnation.id, &point).await?).await?,
        _ => return Err(Problem::new(Kind::Invalid, "give exactly one of `at`, `pos`, `xid` and `point`")),
    };
    let restorable = along.windows().await?.into_iter().filter(|(_, windows)| windows.holds(found.position));
    let stores = holding(&ranges, found.position);
    Ok(Resolved {
        incarnation: incarnation.id.to_string(),
        incarnation_number: incarnation.number,
        position: found.position.to_string(),
        commit: found.commit.as_ref().map(CommitAt::from),
        next: found.next.as_ref().map(CommitAt::from),
        is_final: found.is_final.unwrap_or(!stores.is_empty()),
        out_of_order: found.out_of_order.iter().map(CommitAt::from).collect(),
        restorable_in: restorable.map(|(store, _)| store).filter(|store| stores.contains(store)).collect(),
        stores,
    })
}

fn unknown(detail: &str) -> Problem {
    Problem::new(Kind::PointUnknown, detail).hint("the window of the database says what can be restored")
}

impl From<&Commit> for CommitAt {
    fn from(commit: &Commit) -> Self {
        Self { time: commit.time, position: commit.position().to_string(), xid: commit.xid }
    }
}

/// A line of history.
#[derive(Clone, Copy)]
struct Along<'a> {
    catalog: &'a Catalog,
    incarnation: IncarnationId,
    timeline: Timeline,
}

impl<'a> Along<'a> {
    async fn windows(&self) -> Result<Vec<(String, Windows)>, Problem> {
        Ok(self.catalog.windows(self.incarnation, self.timeline).await?)
    }

    /// This line, or the one that leads to the position's own timeline, where that was left before the position.
    async fn leading_to(self, position: Position) -> Result<Along<'a>, Problem> {
        let timeline = position.timeline;
        let branches = self.catalog.branch_list(self.incarnation).await?;
        let known = timeline == self.timeline || branches.iter().any(|branch| branch.timeline == timeline);
        let line = Line::to(self.timeline, &branches);
        let stretch = line.stretches().iter().find(|stretch| stretch.timeline == timeline);
        let on_line = stretch.is_some_and(|one| one.until.is_none_or(|until| position.offset <= until));
        match (on_line, known) {
            (true, _) => Ok(self),
            (false, true) => Ok(Self { timeline, ..self }),
            (false, false) => Err(unknown("the catalog knows no such timeline")),
        }
    }

    async fn to(self, position: Position) -> Result<(Along<'a>, Found), Problem> {
        let along = self.leading_to(position).await?;
        let found = along.position(position).await?;
        Ok((along, found))
    }

    async fn position(&self, position: Position) -> Result<Found, Problem> {
        let commit = self.catalog.commit_at(self.incarnation, self.timeline, position).await.map_err(
            |why| match why {
                farshore_catalog::Error::NotInHistory { .. } => {
                    unknown("the position is not on a line that is known")
                }
                why => why.into(),
            },
        )?;
        Ok(Found { position, commit, next: None, is_final: None, out_of_order: Vec::new() })
    }

    /// As a restore looks for a time: from the newest unbroken run of log that has a base backup, to older ones.
    async fn time(&self, at: DateTime<Utc>, windows: &[(String, Windows)]) -> Result<Found, Problem> {
        let mut bases: Vec<Position> =
            windows.iter().flat_map(|(_, windows)| windows.spans.iter().map(|span| span.from)).collect();
        bases.sort_by_key(|from| std::cmp::Reverse(from.offset));
        let bases = bases.into_iter().map(Some).chain([None]);
        for from in bases {
            let BeforeTime { commit, next, out_of_order } =
                self.catalog.commit_before_time(self.incarnation, self.timeline, from, at).await?;
            if let Some(commit) = commit {
                let is_final = Some(next.is_some());
                return Ok(Found {
                    position: commit.position(),
                    commit: Some(commit),
                    next,
                    is_final,
                    out_of_order,
                });
            }
        }
        Err(unknown("the catalog knows no commit at or before this time"))
    }
}

/// Where a transaction ends.
async fn transaction(catalog: &Catalog, incarnation: IncarnationId, xid: u64) -> Result<Position, Problem> {
    if i64::try_from(xid).is_err() {
        return Err(unknown("the catalog knows no commit of this transaction"));
    }
    let found: Vec<Position> =
        catalog.commit_by_xid(incarnation, xid).await?.iter().map(Commit::position).collect();
    only(&found, "the catalog knows no commit of this transaction")
}

/// Where a named point is.
async fn marked(catalog: &Catalog, incarnation: IncarnationId, name: &str) -> Result<Position, Problem> {
    let mut found: Vec<Position> =
        catalog.mark_find(incarnation, name).await?.iter().map(|mark| mark.position).collect();
    // A point and its hold are one place.
    found.dedup();
    only(&found, "the catalog knows no point of this name")
}

/// The one position; several are never guessed between.
fn only(found: &[Position], none: &str) -> Result<Position, Problem> {
    match found {
        [] => Err(unknown(none)),
        [only] => Ok(*only),
        several => {
            let named: Vec<String> = several.iter().take(20).map(ToString::to_string).collect();
            Err(Problem::new(
                Kind::PointAmbiguous,
                format!("this is at {} places: {}", several.len(), named.join(", ")),
            )
            .hint("name one of them with `pos`"))
        }
    }
}
