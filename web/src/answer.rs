//! One thing as an answer: its JSON, and an `ETag` that lets a caller ask only for what is new (RFC 9110, 8.8.3 and 13.1.2).

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::problem::{Kind, Problem};

/// Its JSON, or 304 when the caller has just this already.
///
/// # Errors
/// A fault of ours: what is no JSON.
pub fn one<T: Serialize>(asked: &HeaderMap, value: &T) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value)
        .map_err(|why| Problem::new(Kind::Unexpected, "farshore could not do this").because(&why))?;
    let digest = Sha256::digest(&body);
    let tag = format!("\"{}\"", hex::encode(digest.get(..16).unwrap_or_default()));
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut answer = match has(asked, &tag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([kind], body).into_response(),
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answer.headers_mut().insert(header::ETAG, tag);
    }
    Ok(answer)
}

/// Whether `If-None-Match` names this tag; weakness does not count there.
fn has(asked: &HeaderMap, tag: &str) -> bool {
    let named = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    named
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_caller_has_already_is_not_sent_again() {
        let tag = one(&HeaderMap::new(), &7).unwrap().headers()[header::ETAG].clone();
        for (asked, status) in [
            (tag.to_str().unwrap().to_owned(), 304),
            (format!("\"other\", W/{}", tag.to_str().unwrap()), 304),
            ("*".to_owned(), 304),
            ("\"other\"".to_owned(), 200),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, asked.parse().unwrap());
            let answer = one(&headers, &7).unwrap();
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()[header::ETAG]),
                (status, &tag),
                "{asked}"
            );
        }
    }
}
