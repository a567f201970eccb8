//! What every request meets before and after its handler: a trace id, a deadline, a bound on its body, and headers that keep browsers
//! from doing harm with an answer.
//!
//! What always holds: no answer leaves without these headers; an answer that is an error and has no body of its own becomes a problem,
//! as a page for whoever asks with a browser.
//! Paths, queries and headers of requests are not logged: a token may have been put in the wrong place.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::OwnedSemaphorePermit;

use crate::pages;
use crate::problem::{Kind, Problem};
use crate::state::Shared;

/// The longest a request may take from its head to its answer. Above the catalog's own deadline, which gives the better message, and what a
/// caller may wait for a job.
pub const DEADLINE: Duration = Duration::from_secs(45);

/// How long a body may take to come.
const BODY_DEADLINE: Duration = Duration::from_secs(5);

/// The largest body that is read: a login, or a question for work.
pub const BODY_BYTES: usize = 16 << 10;

/// Nothing may be loaded, run or framed that an answer of the API holds.
pub const API_POLICY: &str =
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");

/// Carries a request through.
pub async fn around(request: Request, next: Next) -> Response {
    let trace_id = trace_id();
    let method = request.method().clone();
    let by_person = pages::is_for_person(&request);
    let answer = tokio::time::timeout(DEADLINE, next.run(request)).await.unwrap_or_else(|_| {
        let detail = format!("there was no answer within {} s", DEADLINE.as_secs());
        Problem::new(Kind::TimedOut, detail).retry_after(5).into_response()
    });
    let mut answer = match problem_of(&answer) {
        None => answer,
        Some(problem) => {
            if problem.kind.status() >= 500 {
                tracing::warn!(%method, trace_id, code = problem.kind.code(), "a request failed: {}", problem.cause());
            }
            // What the handler set beside it stays: a cookie taken back, the methods that a path takes.
            let mut rendered = match &by_person {
                Some(person) => pages::refusal(person, &problem, &trace_id),
                None => problem.render(&trace_id),
            };
            for kept in [header::SET_COOKIE, header::ALLOW] {
                if let Some(value) = answer.headers().get(&kept) {
                    rendered.headers_mut().insert(kept, value.clone());
                }
            }
            rendered
        }
    };
    protect(answer.headers_mut());
    if let Ok(value) = HeaderValue::from_str(&trace_id) {
        answer.headers_mut().insert(TRACE_ID, value);
    }
    answer
}

/// Waits until it is a request's turn to ask the catalog: a flood of them must not keep shipping's record from it.
pub async fn in_turn(State(web): State<Shared>, request: Request, next: Next) -> Response {
    // Read before the turn is taken: whoever sends his body slowly keeps it from nobody.
    let (parts, body) = request.into_parts();
    let body = match tokio::time::timeout(BODY_DEADLINE, axum::body::to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(_) => {
            let detail = format!("the body did not come within {} s", BODY_DEADLINE.as_secs());
            return Problem::new(Kind::TimedOut, detail).retry_after(5).into_response();
        }
    };
    let mut request = Request::from_parts(parts, axum::body::Body::from(body));
    let turn = Turn::default();
    turn.take(&web).await;
    request.extensions_mut().insert(turn.clone());
    let answer = next.run(request).await;
    turn.give_back();
    answer
}

/// A request's turn, which it may give to others while it waits for something else than the catalog.
#[derive(Debug, Clone, Default)]
pub struct Turn(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Turn {
    /// Waits for it.
    pub async fn take(&self, web: &Shared) {
        // It is never closed; if it were, waiting would be for nothing.
        let turn = Arc::clone(&web.asking).acquire_owned().await.ok();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = turn;
    }

    /// Lets others have it.
    pub fn give_back(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// What a refusal says: the handler's own problem, or one for a refusal that the router made.
fn problem_of(answer: &Response) -> Option<Problem> {
    if let Some(problem) = answer.extensions().get::<Problem>() {
        return Some(problem.clone());
    }
    let status = answer.status();
    let own = answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| {
        let own: [&[u8]; 2] = [b"application/json", b"text/html"];
        own.iter().any(|own| kind.as_bytes().starts_with(own))
    });
    if own || !(status.is_client_error() || status.is_server_error()) {
        return None;
    }
    Some(match status {
        StatusCode::NOT_FOUND => Problem::new(Kind::PathUnknown, "there is nothing at this path")
            .hint("/api/openapi.json lists every path"),
        StatusCode::METHOD_NOT_ALLOWED => {
            Problem::new(Kind::MethodNotAllowed, "the path does not take this method")
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(Kind::TooLarge, format!("a body has at most {BODY_BYTES} bytes"))
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Problem::new(Kind::MediaType, "a body is JSON").hint("send content-type: application/json")
        }
        status if status.is_client_error() => {
            Problem::new(Kind::Invalid, "the path, the query or the body cannot be read")
        }
        _ => Problem::new(Kind::Unexpected, "farshore could not do this"),
    })
}

/// Headers of every answer. A page may bring a policy of its own.
fn protect(headers: &mut HeaderMap) {
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(API_POLICY));
    // A page's forms say where they come from, to ourselves alone; its files never change under their names.
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// 64 random bits, for finding a request's lines in the log. Without randomness it is not needed to tell requests apart.
fn trace_id() -> String {
    let mut bytes = [0; 8];
    let _ = getrandom::fill(&mut bytes);
    hex::encode(bytes)
}
