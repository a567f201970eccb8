//! `/events/stream`: what changes, as it changes (server-sent events, HTML Living Standard section 9.2).
//!
//! What always holds: a listener hears only of databases that are there for him; one whose token or session is not valid any more, or has another role, is ended
//! within `CHECK`, and hears nothing while it is not known whether it is, but that the catalog is away. A stream ends by itself after some minutes: whoever goes on comes back with the id that he
//! heard last, and misses nothing or is told `reset`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use farshore_journal::DatabaseName;
use futures::stream;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use utoipa::IntoParams;

use crate::api::named;
use crate::auth::{self, Proof, Who};
use crate::events::{Event, Kind};
use crate::guard::Turn;
use crate::page::Query;
use crate::problem::{self, Problem};
use crate::state::Shared;

/// Between two comments that keep a silent stream open.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often it is looked whether a listener is still let in.
const CHECK: Duration = Duration::from_secs(5);
/// How long a stream lasts: less than its connection may live.
const LASTS: Duration = Duration::from_secs(540);
/// How long a listener waits for the first look at the catalog.
const FIRST_LOOK: Duration = Duration::from_secs(15);

/// What to listen to.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// Of this database; of all that may be seen when not given.
    database: Option<String>,
    /// Of these types, with commas between them: `job`, `status`; of all when not given.
    types: Option<String>,
}

/// What changes, as it changes
///
/// Types: `job` (its data is a job), `status` (a database's status), `reset` (events were missed: read what is now anew), `catalog` (`{"reachable": false}`: nothing is known
/// from now on, and what was said before may not be so any more; `true`: it is read again, and what changed meanwhile follows). The last two come whatever `types` says. `Last-Event-ID` goes on behind that event. A
/// stream lasts nine minutes; clients come back by themselves.
#[utoipa::path(
    get,
    path = "/events/stream",
    tag = "events",
    params(Asked),
    responses((status = 200, description = "Events, until either side ends it", body = String, content_type = "text/event-stream"))
)]
pub async fn listen(
    State(web): State<Shared>,
    who: Who,
    Extension(proof): Extension<Proof>,
    Extension(turn): Extension<Turn>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let database = match &asked.database {
        Some(text) => Some(named(text, &who)?),
        None => who.database.clone(),
    };
    let types = types(asked.types.as_deref())?;
    web.catalog()?;
    let place = Arc::clone(&web.events.places).try_acquire_owned().map_err(|_| {
        Problem::new(problem::Kind::TooManyListeners, "as many listen as this service takes").retry_after(10)
    })?;
    let said = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let (next, is_new) = match said.map(|id| web.events.behind(id)) {
        None => (web.events.next(), true),
        Some(Some(next)) => (next, true),
        Some(None) => (web.events.next(), false),
    };
    let waking = web.events.waking();
    let away = web.events.away();
    turn.give_back();
    // What is read behind this answer's head is not older than the events in it.
    tokio::time::timeout(FIRST_LOOK, web.events.looked()).await.map_err(|_| Problem::away())?;
    let now = Instant::now();
    let mut queue = VecDeque::new();
    if !is_new {
        queue.push_back(reset(&web.events.id(next.saturating_sub(1)), next > 0));
    }
    let listener = Listener {
        web,
        who,
        proof,
        database,
        types,
        next,
        queue,
        waking,
        away,
        told_away: false,
        checked: now,
        ends: now + LASTS,
        _place: place,
    };
    let events = stream::unfold(listener, |mut listener| async move {
        let event = Box::pin(listener.event()).await?;
        Some((Ok::<_, Infallible>(event), listener))
    });
    let alive = KeepAlive::new().interval(HEARTBEAT).text("still here");
    Ok(Sse::new(events).keep_alive(alive).into_response())
}

fn types(asked: Option<&str>) -> Result<Vec<Kind>, Problem> {
    let Some(asked) = asked else { return Ok(Kind::ALL.to_vec()) };
    let known = |word: &str| Kind::ALL.into_iter().find(|kind| kind.word() == word);
    let all: Option<Vec<Kind>> = asked.split(',').map(|word| known(word.trim())).collect();
    all.ok_or_else(|| Problem::invalid("types", "is of `job` and `status`, with commas between them"))
}

fn reset(id: &str, is_known: bool) -> Sent {
    let event = Sent::default().event("reset").data("{}");
    if is_known { event.id(id) } else { event }
}

/// Whether the catalog is read. Without an id: it is of no number, and who comes back goes on behind what he heard.
fn catalog(reachable: bool) -> Sent {
    Sent::default().event("catalog").data(format!("{{\"reachable\":{reachable}}}"))
}

struct Listener {
    web: Shared,
    who: Who,
    proof: Proof,
    database: Option<DatabaseName>,
    types: Vec<Kind>,
    /// The number of the next event that it has not been given.
    next: u64,
    queue: VecDeque<Sent>,
    waking: watch::Receiver<u64>,
    away: watch::Receiver<bool>,
    told_away: bool,
    checked: Instant,
    ends: Instant,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// The next event; `None` when the stream ends.
    async fn event(&mut self) -> Option<Sent> {
        loop {
            let away = *self.away.borrow_and_update();
            if away != self.told_away {
                self.told_away = away;
                return Some(catalog(!away));
            }
            let is_known = match self.checked.elapsed() < CHECK {
                true => true,
                false => self.is_let_in().await?,
            };
            if is_known {
                if let Some(event) = self.queue.pop_front() {
                    return Some(event);
                }
                self.take();
                if !self.queue.is_empty() {
                    continue;
                }
            }
            let check = if is_known { self.checked + CHECK } else { Instant::now() + CHECK };
            tokio::select! {
                changed = self.waking.changed(), if is_known => changed.ok()?,
                changed = self.away.changed() => changed.ok()?,
                () = tokio::time::sleep_until(check) => {}
                () = tokio::time::sleep_until(self.ends) => return None,
                () = self.web.here.stop.cancelled() => return None,
            }
        }
    }

    /// Whether he is let in as he was; `None` when he is not, `Some(false)` when the catalog does not say.
    async fn is_let_in(&mut self) -> Option<bool> {
        let still = {
            let _turn = self.web.asking.acquire().await;
            auth::still(&self.web, &self.proof).await
        };
        match still {
            Ok(Some(who)) if who == self.who => {
                self.checked = Instant::now();
                Some(true)
            }
            Ok(_) => None,
            Err(_) => Some(false),
        }
    }

    /// Takes what there is since the last time.
    fn take(&mut self) {
        let events = Arc::clone(&self.web);
        let events = &events.events;
        match events.since(self.next) {
            Some(all) => {
                self.next = all.last().map_or(self.next, |last| last.number + 1);
                for event in all.iter().filter(|event| wants((&self.database, &self.types), event)) {
                    let sent = Sent::default().id(events.id(event.number)).event(event.kind.word());
                    self.queue.push_back(sent.data(&event.data));
                }
            }
            None => {
                self.next = events.next();
                self.queue.push_back(reset(&events.id(self.next.saturating_sub(1)), self.next > 0));
            }
        }
    }
}

/// Whether an event is for whoever listens to these.
fn wants((database, types): (&Option<DatabaseName>, &[Kind]), event: &Event) -> bool {
    let is_seen = match (database, &event.database) {
        (None, _) => true,
        (Some(only), Some(of)) => only == of,
        (Some(_), None) => false,
    };
    is_seen && types.contains(&event.kind)
}
