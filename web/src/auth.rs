//! Who asks: a token in `Authorization: Bearer`, or a session's cookie; and whether that is enough for what is asked.
//!
//! What always holds: every path of the API asks for a role, and nobody has one until a token or a user was made. A request by cookie
//! that may change something must repeat what only a page of ours can know. What a token may not see is not there for it. A failed
//! attempt takes a look into the catalog and a comparison in constant time, whatever was wrong.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use farshore_catalog::access::{Role, Secret};
use farshore_catalog::token::{Bearer, Token};
use farshore_catalog::user::User;
use farshore_journal::DatabaseName;

use crate::problem::{Kind, Problem};
use crate::state::{Shared, Web};

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// The header that repeats what only a page of ours can know.
pub const CSRF: &str = "x-csrf-token";

/// What [`CSRF`]'s value is derived from, beside the cookie's secret.
const CSRF_PURPOSE: &str = "farshore csrf";

/// The cookie where TLS carries it: browsers take it from this host alone, and give it to no other.
const SECURE_COOKIE: &str = "__Host-farshore";

/// The cookie on loopback without TLS.
const PLAIN_COOKIE: &str = "farshore";

/// Somebody who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// What no other token or user ever has.
    pub id: String,
    /// The token's or the user's name.
    pub name: String,
    /// What he may do.
    pub role: Role,
    /// The only database that he may see; all when `None`.
    pub database: Option<DatabaseName>,
}

impl Who {
    /// Whether a database is there for him.
    pub fn sees(&self, database: &DatabaseName) -> bool {
        self.database.as_ref().is_none_or(|only| only == database)
    }

    /// That he sees all databases: what is not of one database is not for him otherwise.
    ///
    /// # Errors
    /// [`Kind::NotAllowed`] when he sees one only.
    pub fn sees_all(&self) -> Result<(), Problem> {
        match &self.database {
            None => Ok(()),
            Some(only) => {
                Err(Problem::new(Kind::NotAllowed, format!("this token is for the database {only} alone"))
                    .hint("use a token that was made without --database"))
            }
        }
    }
}

/// What proved who asks.
#[derive(Clone)]
pub enum Proof {
    /// A token.
    Token(Bearer),
    /// A session's secret.
    Session(Secret),
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A secret is in no message.
        f.write_str(match self {
            Self::Token(_) => "a token",
            Self::Session(_) => "a session",
        })
    }
}

/// Who a proof is of now; `None` when it is not valid any more.
///
/// # Errors
/// When the catalog is away.
pub async fn still(web: &Web, proof: &Proof) -> Result<Option<Who>, Problem> {
    let (catalog, now) = (web.catalog()?, Utc::now());
    Ok(match proof {
        Proof::Token(bearer) => catalog.token_proved(bearer, now).await?.map(|token| of_token(&token)),
        Proof::Session(secret) => {
            catalog.session_proved(secret, now).await?.map(|session| of_user(&session.user))
        }
    })
}

fn of_token(token: &Token) -> Who {
    Who {
        id: format!("token {}", token.id),
        name: token.name.to_string(),
        role: token.role,
        database: token.database.clone(),
    }
}

fn of_user(user: &User) -> Who {
    Who { id: format!("user {}", user.name), name: user.name.to_string(), role: user.role, database: None }
}

impl<S: Send + Sync> FromRequestParts<S> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Behind `require` somebody is always known; a path that was put elsewhere by mistake lets nobody in.
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Problem::new(Kind::NotAuthenticated, "nobody is known"))
    }
}

/// Lets through who has at least `role`.
pub async fn require(State((web, role)): State<(Shared, Role)>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match admit(&web, role, &parts).await {
        Ok((who, proof)) => {
            parts.extensions.insert(who);
            parts.extensions.insert(proof);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(problem) => problem.into_response(),
    }
}

pub(crate) async fn admit(web: &Arc<Web>, role: Role, request: &Parts) -> Result<(Who, Proof), Problem> {
    let (who, proof) = who(web, request).await?;
    match who.role.may(role) {
        true => Ok((who, proof)),
        false => Err(Problem::new(
            Kind::NotAllowed,
            format!("this takes the role {role}, and yours is {}", who.role),
        )),
    }
}

async fn who(web: &Arc<Web>, request: &Parts) -> Result<(Who, Proof), Problem> {
    let catalog = web.catalog()?;
    let now = Utc::now();
    if let Some(value) = request.headers.get(header::AUTHORIZATION) {
        let bearer = value.to_str().ok().and_then(|text| text.split_once(' '));
        let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, text)| text);
        let bearer: Option<Bearer> = bearer.and_then(|text| text.trim().parse().ok());
        let proved = match bearer {
            Some(bearer) => catalog.token_proved(&bearer, now).await?.map(|token| (token, bearer)),
            None => None,
        };
        let Some((token, bearer)) = proved else { return Err(failed(web, request).await) };
        if let Err(why) = catalog.token_used(&token, now).await {
            // Who asks is known; that it is not written down is no reason to refuse him.
            tracing::debug!(token = %token.name, error = %why, "the last use of a token could not be recorded");
        }
        return Ok((of_token(&token), Proof::Token(bearer)));
    }
    let Some(secret) = cookie(web.secure, &request.headers) else { return Err(nobody(web).await) };
    let session = match &secret {
        Some(secret) => catalog.session_proved(secret, now).await?,
        None => None,
    };
    let (Some(session), Some(secret)) = (session, secret) else { return Err(failed(web, request).await) };
    if !matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        let said = request.headers.get(CSRF).and_then(|value| value.to_str().ok());
        let said: Option<Secret> = said.and_then(|text| text.parse().ok());
        if !said.is_some_and(|said| said.digest().is(&csrf(&secret).digest())) {
            return Err(Problem::new(
                Kind::NotAllowed,
                format!("the header {CSRF} is missing or another session's"),
            )
            .hint("GET /api/v1/session says what it must hold"));
        }
    }
    Ok((of_user(&session.user), Proof::Session(secret)))
}

/// Who has logged in by the cookie of a request, and its secret. A cookie that proves nothing is as none: a page that is left open asks
/// again and again after its session is over, and must not keep its address from logging in.
///
/// # Errors
/// When the catalog is away.
pub async fn session(web: &Arc<Web>, headers: &HeaderMap) -> Result<Option<(Who, Secret)>, Problem> {
    let Some(Some(secret)) = cookie(web.secure, headers) else { return Ok(None) };
    let Some(session) = web.catalog()?.session_proved(&secret, Utc::now()).await? else { return Ok(None) };
    Ok(Some((of_user(&session.user), secret)))
}

/// What a page of ours repeats in [`CSRF`].
pub fn csrf(cookie: &Secret) -> Secret {
    cookie.derived(CSRF_PURPOSE)
}

/// The session's cookie: `None` without one, `Some(None)` with one that is no secret of ours.
#[allow(clippy::option_option)] // a cookie that is not there and one that is wrong are told apart
pub fn cookie(secure: bool, headers: &HeaderMap) -> Option<Option<Secret>> {
    let name = if secure { SECURE_COOKIE } else { PLAIN_COOKIE };
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut values = all.flat_map(|line| line.split(';')).filter_map(|one| one.trim().split_once('='));
    values.find(|(of, _)| *of == name).map(|(_, value)| value.parse().ok())
}

/// A cookie for `seconds`; 0 takes it back.
pub fn set_cookie(secure: bool, value: &str, seconds: u64) -> String {
    let (name, more) = if secure { (SECURE_COOKIE, "; Secure") } else { (PLAIN_COOKIE, "") };
    format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{more}")
}

/// The address that a request comes from.
fn peer(extensions: &axum::http::Extensions) -> Option<IpAddr> {
    extensions.get::<Peer>().map(|peer| peer.0)
}

/// A proof that proved nothing.
async fn failed(web: &Arc<Web>, request: &Parts) -> Problem {
    if let Some(address) = peer(&request.extensions) {
        let now = Instant::now();
        web.attempts.failed(address, now);
        if let Some(problem) = too_many(web, address, now) {
            return problem;
        }
    }
    let problem = Problem::new(
        Kind::NotAuthenticated,
        "the token or session is not valid: unknown, expired, revoked, or not as it was given",
    );
    match is_given(web).await {
        Ok(false) => nobody_can(problem),
        Ok(true) => problem.hint("`farshore token list` says which tokens are valid"),
        Err(problem) => problem,
    }
}

/// That an address is refused, when it is.
pub fn too_many(web: &Arc<Web>, address: IpAddr, now: Instant) -> Option<Problem> {
    let left = web.attempts.refused(address, now)?;
    let seconds = u32::try_from(left.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
    Some(Problem::new(Kind::TooManyAttempts, "too many attempts to be let in failed").retry_after(seconds))
}

/// Nothing was shown at all.
async fn nobody(web: &Arc<Web>) -> Problem {
    let problem = Problem::new(Kind::NotAuthenticated, "no token was shown");
    match is_given(web).await {
        Ok(false) => nobody_can(problem),
        Ok(true) => problem
            .hint("send `Authorization: Bearer TOKEN`; `farshore token create NAME --role viewer` makes one"),
        Err(problem) => problem,
    }
}

async fn is_given(web: &Arc<Web>) -> Result<bool, Problem> {
    Ok(web.catalog()?.access_is_given(Utc::now()).await?)
}

fn nobody_can(mut problem: Problem) -> Problem {
    "no token and no user was made yet, so that nobody is let in".clone_into(&mut problem.detail);
    problem.hint(
        "`farshore token create NAME --role viewer` makes a token, on a machine that reaches the catalog",
    )
}
