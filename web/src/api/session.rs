//! `/session`: a person logs in, asks who he is, and logs out.
//!
//! How a login is checked is in `login.rs`.

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{self, Peer, Who};
use crate::body;
use crate::guard::Turn;
use crate::login;
use crate::problem::Problem;
use crate::state::Shared;

/// Who logs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The user's name.
    name: String,
    /// His password.
    password: String,
}

/// Who is logged in.
#[derive(Debug, Serialize, ToSchema)]
pub struct Session {
    /// The user's or the token's name.
    pub name: String,
    /// What he may do.
    pub role: String,
    /// The only database that may be seen; null: all.
    pub database: Option<String>,
    /// What the header `x-csrf-token` must hold in requests by cookie that are not GET; null for a token.
    pub csrf_token: Option<String>,
}

/// Log in
///
/// Answers with a cookie that is only for browsers; programs use tokens.
#[utoipa::path(post, path = "/session", tag = "session", request_body = Login,
    responses((status = 200, description = "Logged in; the cookie is in `Set-Cookie`", body = Session)))]
pub async fn begin(
    State(web): State<Shared>,
    Extension(Peer(address)): Extension<Peer>,
    Extension(turn): Extension<Turn>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let login: Login = body::json(&headers, &body, "{\"name\": ..., \"password\": ...}")?;
    let begun = login::begin(&web, &turn, address, &login.name, login.password).await?;
    let session = Session {
        name: begun.name.to_string(),
        role: begun.role.word().to_owned(),
        database: None,
        csrf_token: Some(begun.csrf),
    };
    Ok(([(header::SET_COOKIE, begun.cookie)], Json(session)).into_response())
}

/// Who asks
#[utoipa::path(get, path = "/session", tag = "session",
    responses((status = 200, description = "Who the token or the cookie is of", body = Session)))]
pub async fn show(State(web): State<Shared>, who: Who, headers: HeaderMap) -> Result<Json<Session>, Problem> {
    let by_token = headers.contains_key(header::AUTHORIZATION);
    let cookie = auth::cookie(web.secure, &headers).flatten().filter(|_| !by_token);
    Ok(Json(Session {
        name: who.name,
        role: who.role.word().to_owned(),
        database: who.database.map(|name| name.to_string()),
        csrf_token: cookie.map(|secret| auth::csrf(&secret).text()),
    }))
}

/// Log out
#[utoipa::path(delete, path = "/session", tag = "session",
    responses((status = 204, description = "Logged out; nothing happens with a token")))]
pub async fn end(State(web): State<Shared>, request: Request) -> Result<Response, Problem> {
    if let Some(secret) = auth::cookie(web.secure, request.headers()).flatten() {
        web.catalog()?.session_end(secret.digest()).await?;
    }
    let cookie = auth::set_cookie(web.secure, "", 0);
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}
