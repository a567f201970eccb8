//! `/tokens`: who may ask, for whoever may say so. No secret is here, and none could be: the catalog keeps digests.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::auth::Who;
use crate::page::{self, Page, Query};
use crate::problem::Problem;
use crate::state::Shared;

const LIST: &str = "tokens";

/// How much of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// The most items, 1 to 1000; 100 when not given.
    limit: Option<u32>,
    /// From `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct Token {
    /// Its public id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// `viewer`, `operator`, `restorer` or `admin`.
    pub role: String,
    /// The only database that it may see; null: all.
    pub database: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// From when on it is refused; null: never.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was last let in, to a minute; null: never.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was revoked; null while it is not.
    pub revoked_at: Option<DateTime<Utc>>,
    /// Whether it lets anybody in now.
    pub valid: bool,
}

/// The tokens, by name and id
#[utoipa::path(get, path = "/tokens", tag = "tokens", params(Asked),
    responses((status = 200, description = "A page of them", body = Page<Token>)))]
pub async fn list(
    State(web): State<Shared>,
    who: Who,
    uri: OriginalUri,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    who.sees_all()?;
    let limit = page::limit(asked.limit)? as usize;
    let after: Option<(String, String)> =
        asked.cursor.map(|cursor| page::place(LIST, &cursor)).transpose()?;
    let now = Utc::now();
    let key = |token: &farshore_catalog::token::Token| (token.name.to_string(), token.id.to_string());
    let mut tokens = web.catalog()?.token_list().await?;
    tokens.retain(|token| after.as_ref().is_none_or(|after| key(token) > *after));
    tokens.sort_by_key(key);
    let more = tokens.len() > limit;
    tokens.truncate(limit);
    let next_cursor =
        tokens.last().filter(|_| more).map(|token| page::cursor(LIST, &key(token))).transpose()?;
    let items = tokens
        .into_iter()
        .map(|token| Token {
            valid: token.is_valid(now),
            id: token.id.to_string(),
            name: token.name.to_string(),
            role: token.role.word().to_owned(),
            database: token.database.map(|name| name.to_string()),
            created_at: token.created_at,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
            revoked_at: token.revoked_at,
        })
        .collect();
    let links = page::links(&uri, &["limit"], &[("next", next_cursor.as_deref())]);
    Ok((links, Json(Page { items, next_cursor })).into_response())
}
