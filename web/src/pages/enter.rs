//! Logging in and out, and the page of a service where nobody can yet.

use askama::Template;
use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use crate::auth::{self, Peer};
use crate::guard::Turn;
use crate::login;
use crate::page::Query;
use crate::pages::frame::{self, THEME_COOKIE, Theme};
use crate::pages::render;
use crate::pages::visitor::{Posted, fields, local};
use crate::problem::{Kind, Problem};
use crate::state::Shared;

/// How long light or dark is remembered, in seconds: a year.
const THEME_SECONDS: u64 = 31_536_000;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'a> {
    /// Whether anybody can log in at all: a user was made.
    users: bool,
    name: &'a str,
    to: &'a str,
    problem: Option<&'a str>,
}

/// Where one wanted to go.
#[derive(Debug, Deserialize)]
pub struct Asked {
    #[serde(default)]
    to: String,
}

/// The page to log in with; before there is a user, how to make one.
///
/// # Errors
/// When the catalog is away.
pub async fn page(
    State(web): State<Shared>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let to = local(&asked.to).unwrap_or("/");
    if auth::session(&web, &headers).await?.is_some() {
        return Ok(Redirect::to(to).into_response());
    }
    form(&web, &headers, "", to, None).await
}

async fn form(
    web: &Shared,
    headers: &HeaderMap,
    name: &str,
    to: &str,
    problem: Option<&str>,
) -> Result<Response, Problem> {
    let users = web.catalog()?.user_list().await?.iter().any(|user| !user.disabled);
    let body = render(&LoginPage { users, name, to, problem })?;
    frame::show_open("Log in", body, Theme::of(headers))
}

/// Logs in.
///
/// # Errors
/// When the form cannot be read, or the catalog is away. A login that fails is answered with the form, and says why.
pub async fn begin(
    State(web): State<Shared>,
    Extension(Peer(address)): Extension<Peer>,
    Extension(turn): Extension<Turn>,
    request: Request,
) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    let fields = fields(request, &()).await?;
    let field = |name: &str| fields.iter().find(|(of, _)| of == name).map_or("", |(_, value)| value.as_str());
    let to = local(field("to")).unwrap_or("/");
    let name = field("name").trim();
    match login::begin(&web, &turn, address, name, field("password").to_owned()).await {
        Ok(begun) => {
            let mut answer = Redirect::to(to).into_response();
            if let Ok(value) = HeaderValue::from_str(&begun.cookie) {
                answer.headers_mut().insert(header::SET_COOKIE, value);
            }
            Ok(answer)
        }
        Err(problem) if matches!(problem.kind, Kind::NotAuthenticated | Kind::TooManyAttempts) => {
            let said = match problem.retry_after {
                Some(seconds) => format!("{}: try again in {seconds} s", problem.detail),
                None => problem.detail.clone(),
            };
            let mut answer = form(&web, &headers, name, to, Some(&said)).await?;
            // A 401 would have browsers ask for a password of their own kind; 403 says the same without that.
            *answer.status_mut() = match problem.kind {
                Kind::TooManyAttempts => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::FORBIDDEN,
            };
            Ok(answer)
        }
        Err(problem) => Err(problem),
    }
}

/// Logs out.
///
/// # Errors
/// When the form is not of this session, or the catalog is away: then the session may still be valid, and that is said.
pub async fn end(State(web): State<Shared>, headers: HeaderMap, _form: Posted) -> Result<Response, Problem> {
    if let Some(secret) = auth::cookie(web.secure, &headers).flatten() {
        web.catalog()?.session_end(secret.digest()).await?;
    }
    let cookie = auth::set_cookie(web.secure, "", 0);
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}

/// Remembers light or dark in the browser.
///
/// # Errors
/// When the form cannot be read.
pub async fn theme(request: Request) -> Result<Response, Problem> {
    let fields = fields(request, &()).await?;
    let field = |name: &str| fields.iter().find(|(of, _)| of == name).map_or("", |(_, value)| value.as_str());
    let word = Theme::from_word(field("theme")).word();
    let cookie = format!("{THEME_COOKIE}={word}; Path=/; Max-Age={THEME_SECONDS}; SameSite=Lax");
    let to = local(field("to")).unwrap_or("/");
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(to)).into_response())
}
