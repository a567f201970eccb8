//! `/channels`: whom the service that answers tells, and whether a channel takes a test. Which there are says its configuration; others that share the catalog may
//! have others.

use axum::extract::{OriginalUri, Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use chrono::Utc;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::database::NoParameters;
use crate::auth::Who;
use crate::channels::Sent;
use crate::grants::By;
use crate::guard::Turn;
use crate::page::{self, Asked, Page, Query};
use crate::problem::{Kind, Problem};
use crate::state::{Shared, Web};

const LIST: &str = "channels";

/// How the record of activity says that the API asked.
const WAY: &str = "the API";

/// A channel, without its address.
#[derive(Debug, Serialize, ToSchema)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// How it is spoken to, as its `kind` in the configuration.
    pub kind: String,
}

/// What a channel said to a test.
#[derive(Debug, Serialize, ToSchema)]
pub struct Tested {
    /// Its name.
    pub channel: String,
    /// Whether it was taken.
    pub taken: bool,
    /// Why it was not; null where it was.
    pub problem: Option<String>,
}

/// The channels of the service that answers, by name
#[utoipa::path(get, path = "/channels", tag = "channels", params(Asked),
    responses((status = 200, description = "A page of them", body = Page<Channel>)))]
pub async fn list(
    State(web): State<Shared>,
    who: Who,
    uri: OriginalUri,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    who.sees_all()?;
    let page = asked.read(LIST)?;
    let known = web.here.channels.list().to_vec();
    let (known, next_cursor) = page::cut(known, LIST, page, |channel| channel.name.clone())?;
    let items = known.into_iter().map(|channel| Channel { name: channel.name, kind: channel.kind }).collect();
    Ok(page::answer(&uri, &["limit"], items, next_cursor))
}

/// Send a test to a channel
///
/// It is answered once the other side has answered, after 30 s at the latest. One test of a channel is under way at a time.
#[utoipa::path(
    post,
    path = "/channels/{name}/test",
    tag = "channels",
    params(("name" = String, Path, description = "The channel's name")),
    responses(
        (status = 200, description = "Whether it was taken", body = Tested),
        (status = 409, description = "Another test of it is under way, or was less than 5 s ago", body = crate::problem::Body, content_type = "application/problem+json"))
)]
pub async fn test(
    State(web): State<Shared>,
    who: Who,
    Extension(turn): Extension<Turn>,
    Path(name): Path<String>,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Response, Problem> {
    let problem = match tested(&web, By { who: &who, way: WAY }, &turn, &name).await? {
        Sent::Taken => None,
        Sent::NotTaken(why) => Some(why),
        Sent::Busy => return Err(busy()),
    };
    Ok(Json(Tested { channel: name, taken: problem.is_none(), problem }).into_response())
}

/// That another test is under way.
pub fn busy() -> Problem {
    Problem::new(
        Kind::ChannelBusy,
        "another test of this channel is under way, or was just now; nothing was sent",
    )
    .hint("wait for its answer, half a minute at most")
    .retry_after(5)
}

/// Sends a test, for the API and for a page. That somebody asked for it stands in the record of activity before anything is sent; the turn at the catalog is others'
/// while the channel is waited for.
///
/// # Errors
/// [`Kind::ChannelUnknown`], and when the catalog is away: then nothing was sent.
pub async fn tested(web: &Web, by: By<'_>, turn: &Turn, name: &str) -> Result<Sent, Problem> {
    by.who.sees_all()?;
    let channel = web.here.channels.find(name).ok_or_else(|| {
        Problem::new(Kind::ChannelUnknown, "this service's configuration has no channel of this name")
            .hint("GET /api/v1/channels lists them")
    })?;
    // Before it is recorded: what is not sent is no entry.
    let Some(place) = web.here.channels.place(channel) else { return Ok(Sent::Busy) };
    let entry = by.did("notify test", None, name, Utc::now());
    web.catalog()?.activity_append(&entry).await?;
    turn.give_back();
    Ok(web.here.channels.test(place).await)
}
