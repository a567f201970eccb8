//! A request's body, as a type that refuses what it does not know.

use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;

use crate::problem::{Kind, Problem};

/// A body that is JSON.
///
/// # Errors
/// [`Kind::MediaType`] when it is said to be something else, [`Kind::Invalid`] when it is not as it should be. What was sent is not repeated: it may
/// hold a secret.
pub fn json<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8], shape: &str) -> Result<T, Problem> {
    // A form of another site cannot send this kind without being asked by the browser first.
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        let problem = Problem::new(Kind::MediaType, "the body is not said to be JSON");
        return Err(problem.hint("send content-type: application/json"));
    }
    serde_json::from_slice(body).map_err(|why| {
        Problem::new(
            Kind::Invalid,
            format!("the body is not {shape}: line {} column {}", why.line(), why.column()),
        )
        .hint("/api/openapi.json describes the body of every path")
    })
}
