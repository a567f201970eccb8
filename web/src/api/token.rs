//! `/tokens`: who may ask, for whoever may say so. A secret is in one answer alone, that of its making; the catalog keeps digests.
//!
//! What always holds: a token is made or revoked in one transaction with its entry in the record of activity (`grants.rs`). Making one needs no key to be asked twice: its
//! name is free once, and whoever did not hear the answer revokes it and makes another.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use farshore_catalog::access::{AccessName, Role};
use farshore_catalog::token::{self as known, TokenId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::database::NoParameters;
use crate::auth::Who;
use crate::grants::{self, By, LONGEST, TokenWanted};
use crate::page::{self, Asked, Page, Query};
use crate::problem::{Kind, Problem};
use crate::state::Shared;
use crate::{ask, body};

const LIST: &str = "tokens";

/// How the record of activity says that the API asked.
const WAY: &str = "the API";

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

impl Token {
    fn new(token: known::Token, now: DateTime<Utc>) -> Self {
        Self {
            valid: token.is_valid(now),
            id: token.id.to_string(),
            name: token.name.to_string(),
            role: token.role.word().to_owned(),
            database: token.database.map(|name| name.to_string()),
            created_at: token.created_at,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
            revoked_at: token.revoked_at,
        }
    }
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
    let key = |token: &known::Token| (token.name.to_string(), token.id.to_string());
    let (tokens, next_cursor) = page::cut(tokens, LIST, page, key)?;
    let items = tokens.into_iter().map(|token| Token::new(token, now)).collect();
    Ok(page::answer(&uri, &["limit"], items, next_cursor))
}

/// What a token may do.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RoleAsked {
    /// Look.
    Viewer,
    /// Ask for what changes no database.
    Operator,
    /// Ask for what changes one.
    Restorer,
    /// Say who may do what.
    Admin,
}

/// A token that is to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenAsked {
    /// What it is to be called: 1 to 63 of a-z, 0-9, `.`, `_` and `-`.
    name: String,
    /// What it may do.
    role: RoleAsked,
    /// The only database that it may see; all when not given.
    database: Option<String>,
    /// For how many seconds it lets anybody in, at most ten years; for ever when not given.
    #[schema(minimum = 1, maximum = 315_360_000)]
    expires_in_seconds: Option<u32>,
}

/// A token that was made.
#[derive(Debug, Serialize, ToSchema)]
pub struct Made {
    /// The token.
    pub token: Token,
    /// Its whole text, which is shown here and never again.
    pub secret: String,
}

/// Make a token
///
/// Its secret is in this answer and in no other.
#[utoipa::path(
    post,
    path = "/tokens",
    tag = "tokens",
    request_body = TokenAsked,
    responses(
        (status = 201, description = "It is made; its secret is shown here alone", body = Made),
        (status = 404, description = "No such database", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 409, description = "A valid token has this name", body = crate::problem::Body, content_type = "application/problem+json"))
)]
pub async fn create(
    State(web): State<Shared>,
    who: Who,
    headers: HeaderMap,
    Query(NoParameters {}): Query<NoParameters>,
    body: Bytes,
) -> Result<Response, Problem> {
    who.sees_all()?;
    let asked: TokenAsked = body::json(&headers, &body, "{\"name\": ..., \"role\": ...}")?;
    let name: AccessName = asked.name.parse().map_err(|_| {
        Problem::invalid("name", "is 1 to 63 of a-z, 0-9, ., _ and -, a letter or digit first")
    })?;
    let lasts = asked.expires_in_seconds.map(|seconds| TimeDelta::seconds(seconds.into()));
    if lasts.is_some_and(|lasts| lasts.is_zero() || lasts > LONGEST) {
        return Err(Problem::invalid("expires_in_seconds", "is 1 to 315360000"));
    }
    let database = match &asked.database {
        None => None,
        Some(text) => Some(ask::database(&web, &who, text).await?.name),
    };
    let role = match asked.role {
        RoleAsked::Viewer => Role::Viewer,
        RoleAsked::Operator => Role::Operator,
        RoleAsked::Restorer => Role::Restorer,
        RoleAsked::Admin => Role::Admin,
    };
    let wanted = TokenWanted { name, role, database, lasts };
    let (token, bearer) = grants::token_make(web.catalog()?, By { who: &who, way: WAY }, wanted).await?;
    let place = format!("/api/v1/tokens/{}", token.id);
    let made = Made { token: Token::new(token, Utc::now()), secret: bearer.text() };
    Ok((StatusCode::CREATED, [(header::LOCATION, place)], Json(made)).into_response())
}

/// Revoke a token
///
/// It lets nobody in from then on; that it was there stays in the list.
#[utoipa::path(
    delete,
    path = "/tokens/{id}",
    tag = "tokens",
    params(("id" = String, Path, description = "The token's public id")),
    responses((status = 200, description = "As it is now", body = Token))
)]
pub async fn revoke(
    State(web): State<Shared>,
    who: Who,
    Path(id): Path<String>,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Response, Problem> {
    who.sees_all()?;
    let id: TokenId = id
        .parse()
        .map_err(|_| Problem::new(Kind::TokenUnknown, "the catalog knows no valid token of this id"))?;
    let token = grants::token_revoke(web.catalog()?, By { who: &who, way: WAY }, id).await?;
    Ok(Json(Token::new(token, Utc::now())).into_response())
}
