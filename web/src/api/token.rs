//! `/tokens`: who may ask, for whoever may say so. No secret is here, and none could be: the catalog keeps digests.

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Who;
use crate::page::{self, Asked, Page, Query};
use crate::problem::Problem;
use crate::state::Shared;

const LIST: &str = "tokens";

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
    let page = asked.read(LIST)?;
    let now = Utc::now();
    let tokens = web.catalog()?.token_list().await?;
    let key = |token: &farshore_catalog::token::Token| (token.name.to_string(), token.id.to_string());
    let (tokens, next_cursor) = page::cut(tokens, LIST, page, key)?;
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
    Ok(page::answer(&uri, &["limit"], items, next_cursor))
}
