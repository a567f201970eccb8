//! `/session`: a person logs in, asks who he is, and logs out.
//!
//! What always holds: a login that fails says the same and takes the same time, whether the name, the password or the user's being
//! disabled was the reason; an address with too many failures is refused before its password is looked at.

use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use chrono::{TimeDelta, Utc};
use farshore_catalog::access::{AccessName, Secret};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{self, Peer, Who};
use crate::problem::{Kind, Problem};
use crate::state::Shared;
use crate::{body, password};

/// How long a login lasts: a working day.
const LASTS: TimeDelta = TimeDelta::hours(12);

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
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let login: Login = body::json(&headers, &body, "{\"name\": ..., \"password\": ...}")?;
    if let Some(problem) = auth::too_many(&web, address, Instant::now()) {
        return Err(problem);
    }
    let catalog = web.catalog()?;
    let name: Option<AccessName> = login.name.parse().ok();
    let known = match &name {
        Some(name) => catalog.user_find(name).await?,
        None => None,
    };
    let checking = web.checking.clone().acquire_owned().await;
    let checking =
        checking.map_err(|why| Problem::new(Kind::Unexpected, "farshore could not do this").because(&why))?;
    let (kept, password) = (known.as_ref().map(|(_, kept)| kept.clone()), login.password);
    let checked = tokio::task::spawn_blocking(move || {
        let right = password::verify(&password, kept.as_ref());
        drop(checking);
        right
    });
    let right = checked
        .await
        .map_err(|why| Problem::new(Kind::Unexpected, "farshore could not do this").because(&why))?;
    let failed = || {
        web.attempts.failed(address, Instant::now());
        Problem::new(Kind::NotAuthenticated, "the name or the password is wrong, or the user is disabled")
    };
    let Some((user, kept)) = known.filter(|(user, _)| right && !user.disabled) else { return Err(failed()) };
    let secret = Secret::mint()?;
    let now = Utc::now();
    if !catalog.session_begin(&user.name, &kept, secret.digest(), now, now + LASTS).await? {
        return Err(failed());
    }
    let session = Session {
        name: user.name.to_string(),
        role: user.role.word().to_owned(),
        database: None,
        csrf_token: Some(auth::csrf(&secret).text()),
    };
    let seconds = u64::try_from(LASTS.num_seconds()).unwrap_or(0);
    let cookie = auth::set_cookie(web.secure, &secret.text(), seconds);
    Ok(([(header::SET_COOKIE, cookie)], Json(session)).into_response())
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
