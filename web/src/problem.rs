//! What a caller is told when the answer is no: `application/problem+json` (RFC 9457), with a code that stays.
//!
//! What always holds: a problem names no file, address, secret or row; what the catalog said goes to the log, under the trace id that
//! the problem carries. The status follows from the kind, and a catalog that is away is 503, never an empty answer.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use farshore_catalog::Error;
use serde::Serialize;
use utoipa::ToSchema;

/// After how many seconds a full queue is worth another try: work takes minutes as a rule.
const QUEUE_FULL: u32 = 60;

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $status:literal, $code:literal, $title:literal;)*) => {
        /// The kinds of problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $name,)* }

        impl Kind {
            /// Every kind, for documents and tests.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its HTTP status.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// Its stable code.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// What it is, in words that do not change from case to case.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

kinds! {
    /// A parameter or body that cannot be read.
    Invalid = 400, "request-invalid", "The request cannot be read";
    /// A cursor that no answer gave.
    CursorInvalid = 400, "cursor-invalid", "The cursor is not one that this API gave";
    /// Work is asked for without a key.
    KeyMissing = 400, "idempotency-key-missing", "Work is asked for with an idempotency key";
    /// A key that is none.
    KeyInvalid = 400, "idempotency-key-invalid", "The idempotency key is not one";
    /// Nobody said who asks, or it was not true.
    NotAuthenticated = 401, "not-authenticated", "Who asks is not known";
    /// Whoever asks may not.
    NotAllowed = 403, "not-allowed", "This is not allowed to whoever asks";
    /// No such path.
    PathUnknown = 404, "path-unknown", "There is nothing at this path";
    /// No such database, for whoever asks.
    DatabaseUnknown = 404, "database-unknown", "No such database";
    /// No such incarnation.
    IncarnationUnknown = 404, "incarnation-unknown", "No such incarnation";
    /// No such point.
    PointUnknown = 404, "point-unknown", "The catalog knows no such point";
    /// No such drill, or no certificate of it, for whoever asks.
    DrillUnknown = 404, "drill-unknown", "No such drill, or no certificate of it";
    /// No such comparison, for whoever asks.
    CompareUnknown = 404, "compare-unknown", "No such comparison";
    /// No such job, for whoever asks.
    JobUnknown = 404, "job-unknown", "No such job";
    /// Nothing has come of it yet.
    JobNotFinished = 404, "job-not-finished", "The job has not ended";
    /// No such token.
    TokenUnknown = 404, "token-unknown", "No such token";
    /// No such user.
    UserUnknown = 404, "user-unknown", "No such user";
    /// No such channel of notification.
    ChannelUnknown = 404, "channel-unknown", "No such channel";
    /// The path is there, for other methods.
    MethodNotAllowed = 405, "method-not-allowed", "The path does not take this method";
    /// What was asked for is several things.
    PointAmbiguous = 409, "point-ambiguous", "Several points are meant by this";
    /// A job has ended already.
    JobEnded = 409, "job-ended", "The job has ended already";
    /// As much of a database waits or runs as may.
    QueueFull = 409, "queue-full", "As many jobs wait or run as may be asked for";
    /// A channel is being tested.
    ChannelBusy = 409, "channel-busy", "A test of this channel is under way";
    /// What is recorded contradicts.
    Conflict = 409, "conflict", "What is recorded contradicts this";
    /// The body is too large.
    TooLarge = 413, "body-too-large", "The body is too large";
    /// The body is of another kind.
    MediaType = 415, "media-type", "The body is of a kind that is not taken";
    /// A key stands for something else.
    KeyUsed = 422, "idempotency-key-used", "The idempotency key stands for other work";
    /// What is asked for can be read, and is refused.
    Refused = 422, "refused", "This is refused";
    /// It is known, and this version does not do it.
    NotBuilt = 422, "not-built", "This version does not do this yet";
    /// A job failed.
    JobFailed = 424, "job-failed", "The job failed";
    /// A job was cancelled.
    JobCancelled = 424, "job-cancelled", "The job was cancelled";
    /// Too many attempts failed.
    TooManyAttempts = 429, "too-many-attempts", "Too many attempts failed from this address";
    /// A fault of farshore.
    Unexpected = 500, "unexpected", "A fault of farshore";
    /// The catalog does not answer.
    CatalogAway = 503, "catalog-away", "The catalog does not answer";
    /// As many listen as are let.
    TooManyListeners = 503, "too-many-listeners", "Too many listen";
    /// It took too long.
    TimedOut = 503, "timed-out", "The answer took too long";
}

/// A refusal, before it has its trace id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its kind.
    pub kind: Kind,
    /// What is the matter in this case.
    pub detail: String,
    /// What to do.
    pub hint: Option<String>,
    /// After how many seconds another try makes sense.
    pub retry_after: Option<u32>,
    /// What a job said of itself.
    job_problem: Option<serde_json::Value>,
    /// What is to be logged and not to be told.
    cause: Option<String>,
}

/// A problem as it is sent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Body {
    /// Names the kind of problem: `urn:farshore:problem:` and the code.
    pub r#type: String,
    /// What it is, in words that do not change from case to case.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What is the matter in this case.
    pub detail: String,
    /// Its stable code.
    pub code: &'static str,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What a job that was not done said of itself: `code`, `happened`, `safe`, `do`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub job_problem: Option<serde_json::Value>,
    /// Under which the service's log has more.
    pub trace_id: String,
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), hint: None, retry_after: None, job_problem: None, cause: None }
    }

    /// The same, with what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, with when to try again, in seconds.
    #[must_use]
    pub const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The same, with what a job said of itself.
    #[must_use]
    pub fn of_job(mut self, said: Option<serde_json::Value>) -> Self {
        self.job_problem = said;
        self
    }

    /// The same, with what is logged of it.
    #[must_use]
    pub fn because(mut self, cause: &dyn std::error::Error) -> Self {
        let mut text = cause.to_string();
        let mut next = cause.source();
        while let Some(why) = next {
            text = format!("{text}: {why}");
            next = why.source();
        }
        self.cause = Some(text);
        self
    }

    /// What is logged of it.
    pub fn cause(&self) -> &str {
        self.cause.as_deref().unwrap_or(&self.detail)
    }

    /// A parameter that cannot be read.
    pub fn invalid(parameter: &str, expected: &str) -> Self {
        Self::new(Kind::Invalid, format!("`{parameter}` {expected}"))
    }

    /// The catalog does not answer.
    pub fn away() -> Self {
        Self::new(Kind::CatalogAway, "the catalog does not answer; what it knows is not known now")
            .hint(
                "shipping and restores go on without it; ask again, and see the service's log for the reason",
            )
            .retry_after(5)
    }

    /// The answer, once it has its trace id.
    pub fn render(&self, trace_id: &str) -> Response {
        let status = StatusCode::from_u16(self.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = Body {
            r#type: format!("urn:farshore:problem:{}", self.kind.code()),
            title: self.kind.title(),
            status: self.kind.status(),
            detail: self.detail.clone(),
            code: self.kind.code(),
            hint: self.hint.clone(),
            job_problem: self.job_problem.clone(),
            trace_id: trace_id.to_owned(),
        };
        let mut answer = (status, Json(body)).into_response();
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.kind == Kind::NotAuthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"farshore\""));
        }
        answer
    }
}

impl From<Error> for Problem {
    fn from(why: Error) -> Self {
        let problem = match &why {
            why if why.is_away() => Self::away(),
            Error::NoDatabase { .. } => Self::new(Kind::DatabaseUnknown, why.to_string()),
            Error::NoIncarnation { .. } => Self::new(Kind::IncarnationUnknown, why.to_string()),
            Error::NoToken { .. } => Self::new(Kind::TokenUnknown, why.to_string()),
            Error::NoUser { .. } => Self::new(Kind::UserUnknown, why.to_string()),
            Error::LastAdmin { .. } => Self::new(Kind::Refused, why.to_string()),
            Error::NotInHistory { .. } => Self::new(Kind::PointUnknown, why.to_string()),
            Error::QueueFull { .. } => Self::new(Kind::QueueFull, format!("{why}; nothing was queued"))
                .hint("wait until some have ended, or end those that nobody needs: GET /api/v1/jobs?unended=true lists them, POST /api/v1/jobs/{id}/cancel ends one; then ask again with the same key")
                .retry_after(QUEUE_FULL),
            Error::Conflict { .. } => Self::new(Kind::Conflict, why.to_string()),
            Error::Invalid { .. } | Error::TooLarge { .. } => Self::new(Kind::Invalid, why.to_string()),
            _ => Self::new(Kind::Unexpected, "farshore could not do this"),
        };
        problem.because(&why)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // The guard around all requests knows the trace id and makes the body (`guard.rs`).
        let status = StatusCode::from_u16(self.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = status.into_response();
        answer.extensions_mut().insert(self);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_kinds_share_a_code_and_each_is_an_error() {
        let codes: std::collections::BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes.len(), Kind::ALL.len());
        assert!(Kind::ALL.iter().all(|kind| (400..600).contains(&kind.status())));
    }

    #[test]
    fn what_the_catalog_says_of_its_place_is_logged_and_never_told() {
        let why = Error::Gone { path: "/srv/secret/place.db".into() };
        let problem = Problem::from(why);
        assert_eq!(problem.kind, Kind::CatalogAway);
        assert!(!problem.detail.contains("place") && problem.cause().contains("place"));
    }
}
