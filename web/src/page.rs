//! Lists in pages: `limit`, `cursor`, `next_cursor` and the `Link` header (RFC 8288); and parameters that are refused when they are wrong.
//!
//! What always holds: a cursor is opaque to its reader and read back strictly: one of another list, one that was changed into what it
//! cannot be, and one that is too long are refused with 400. A cursor is no proof of anything: what it leads to is judged like
//! any other question.

use std::str::FromStr;

use axum::Json;
use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::problem::{Kind, Problem};

/// Items of a page unless asked otherwise, and at most.
const USUAL: u32 = 100;
const MOST: u32 = 1000;

/// The longest cursor that is read: the longest name and a position fit several times.
const CURSOR_BYTES: usize = 1024;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// What is on this page, in the list's order.
    pub items: Vec<T>,
    /// Asks for the next page; null when there is none.
    pub next_cursor: Option<String>,
}

/// How much of a list, where nothing else is asked of it.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// The most items, 1 to 1000; 100 when not given.
    limit: Option<u32>,
    /// From `next_cursor` of the page before.
    cursor: Option<String>,
}

impl Asked {
    /// How much is asked for, and behind which place of the list `of`.
    ///
    /// # Errors
    /// When either cannot be read.
    pub fn read<T: DeserializeOwned>(&self, of: &str) -> Result<(u32, Option<T>), Problem> {
        let after = self.cursor.as_deref().map(|cursor| place(of, cursor)).transpose()?;
        Ok((limit(self.limit)?, after))
    }
}

/// The page behind `after` of a whole list, sorted by its keys, which are no other's; and the cursor of the next page.
///
/// # Errors
/// A fault of ours: a key that is no JSON.
pub fn cut<T, K: Ord + Serialize>(
    mut all: Vec<T>,
    of: &str,
    (limit, after): (u32, Option<K>),
    key: impl Fn(&T) -> K,
) -> Result<(Vec<T>, Option<String>), Problem> {
    all.retain(|one| after.as_ref().is_none_or(|after| key(one) > *after));
    // The catalog may sort by other letters than we compare by.
    all.sort_by_key(&key);
    let limit = limit as usize;
    let more = all.len() > limit;
    all.truncate(limit);
    let next = all.last().filter(|_| more).map(|last| cursor(of, &key(last))).transpose()?;
    Ok((all, next))
}

/// A page as an answer, with the parameters in `keep` kept in the address of the next one.
pub fn answer<T: Serialize>(
    uri: &OriginalUri,
    keep: &[&str],
    items: Vec<T>,
    next_cursor: Option<String>,
) -> Response {
    let links = links(uri, keep, &[("next", next_cursor.as_deref())]);
    (links, Json(Page { items, next_cursor })).into_response()
}

/// How much is asked for.
///
/// # Errors
/// When it is not 1 to 1000.
pub fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    match asked {
        None => Ok(USUAL),
        Some(limit @ 1..=MOST) => Ok(limit),
        Some(_) => Err(Problem::invalid("limit", "is 1 to 1000")),
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed<T> {
    /// Which list it is of.
    of: String,
    at: T,
}

/// The cursor of a place in a list.
///
/// # Errors
/// A fault of ours: a place that is no JSON.
pub fn cursor<T: Serialize>(of: &str, at: &T) -> Result<String, Problem> {
    let sealed = Sealed { of: of.to_owned(), at };
    let text = serde_json::to_vec(&sealed)
        .map_err(|why| Problem::new(Kind::Unexpected, "farshore could not do this").because(&why))?;
    Ok(URL_SAFE_NO_PAD.encode(text))
}

/// The place that a cursor of this list leads to.
///
/// # Errors
/// [`Kind::CursorInvalid`] when it is not one.
pub fn place<T: DeserializeOwned>(of: &str, cursor: &str) -> Result<T, Problem> {
    let read = || {
        let bytes = URL_SAFE_NO_PAD.decode(cursor.get(..CURSOR_BYTES.min(cursor.len()))?).ok()?;
        let sealed: Sealed<T> = serde_json::from_slice(&bytes).ok()?;
        (sealed.of == of && cursor.len() <= CURSOR_BYTES).then_some(sealed.at)
    };
    read().ok_or_else(cursor_invalid)
}

/// The place that a cursor leads to in a list that is in the order of time: a moment, microseconds since 1970, and an id at it.
///
/// # Errors
/// As [`place`].
pub fn moment<Id: FromStr>(of: &str, cursor: &str) -> Result<(DateTime<Utc>, Id), Problem> {
    let (at, id): (i64, String) = place(of, cursor)?;
    let at = DateTime::from_timestamp_micros(at).ok_or_else(cursor_invalid)?;
    Ok((at, id.parse().map_err(|_| cursor_invalid())?))
}

/// A cursor that no answer gave.
pub fn cursor_invalid() -> Problem {
    Problem::new(Kind::CursorInvalid, "`cursor` is not one that this list gave")
        .hint("begin again without one")
}

/// The `Link` header of an answer: the same path, with the parameters in `keep` as they were asked, at another cursor.
pub fn links(uri: &OriginalUri, keep: &[&str], cursors: &[(&str, Option<&str>)]) -> HeaderMap {
    let kept = uri.0.query().unwrap_or_default().split('&');
    let kept: Vec<&str> =
        kept.filter(|pair| keep.contains(&pair.split('=').next().unwrap_or_default())).collect();
    let links: Vec<String> = cursors
        .iter()
        .filter_map(|(rel, cursor)| {
            let cursor = format!("cursor={}", (*cursor)?);
            let query = kept.iter().copied().chain([cursor.as_str()]).collect::<Vec<_>>().join("&");
            Some(format!("<{}?{query}>; rel=\"{rel}\"", uri.0.path()))
        })
        .collect();
    let mut headers = HeaderMap::new();
    if let Some(value) = Some(links.join(", ")).filter(|all| !all.is_empty())
        && let Ok(value) = HeaderValue::from_str(&value)
    {
        headers.insert(header::LINK, value);
    }
    headers
}

/// The query, as a type that refuses what it does not know.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(why) => Err(Problem::new(Kind::Invalid, why.body_text())
                .hint("/api/openapi.json lists the parameters of every path")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_reads_back_in_its_own_list_alone() {
        let sealed = cursor("tokens", &("ci".to_owned(), 7_u64)).unwrap();
        assert_eq!(place::<(String, u64)>("tokens", &sealed).unwrap(), ("ci".to_owned(), 7));
        assert!(place::<(String, u64)>("nodes", &sealed).is_err());
        assert!(place::<(u64, u64)>("tokens", &sealed).is_err());
        let long = cursor("tokens", &("a".repeat(2000), 7_u64)).unwrap();
        assert!(place::<(String, u64)>("tokens", &long).is_err());
    }

    proptest! {
        #[test]
        fn no_text_is_taken_for_a_cursor_or_breaks_anything(text in ".{0,1200}") {
            prop_assert_eq!(place::<(String, u64)>("tokens", &text).unwrap_err().kind, Kind::CursorInvalid);
        }
    }

    #[test]
    fn a_link_keeps_what_was_asked_and_moves_the_cursor() {
        let uri = OriginalUri("/api/v1/backups?limit=7&cursor=old&database=orders&x".parse().unwrap());
        let headers = links(&uri, &["limit", "database"], &[("prev", None), ("next", Some("abc"))]);
        assert_eq!(
            headers[header::LINK],
            "</api/v1/backups?limit=7&database=orders&cursor=abc>; rel=\"next\""
        );
        assert!(links(&uri, &[], &[("next", None)]).is_empty());
    }
}
