//! The dashboard: pages for people, made here and sent whole.
//!
//! What always holds: nobody sees a page but the one to log in with, until he has; what changes anything is a form that repeats its
//! session's token and comes from this place ([`visitor`]). Every page can be read and used without script; script only fetches parts of
//! it anew, and says when it could not ([`assets`]). Nothing is fetched from elsewhere: the policy allows files of this service alone, no
//! script and no style inside of a page. What is shown is escaped by the templates; what goes around them (`words`, `picture`) is made of
//! numbers and times only.

pub mod activity;
pub mod assets;
pub mod compares;
pub mod database;
pub mod drills;
pub mod enter;
pub mod exposure;
pub mod fleet;
pub mod frame;
pub mod jobs;
pub mod look;
pub mod proof;
pub mod protection;
pub mod restore;
pub mod settings;
pub mod standbys;
pub mod standing;
pub mod timeline;
pub mod visitor;
pub mod words;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use farshore_catalog::access::Role;

use crate::pages::frame::Theme;
use crate::problem::{Kind, Problem};
use crate::state::Shared;

/// What a page may do: files of this service, forms to this service, and nothing else.
pub const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";

/// Pages, each with the least role that it takes.
pub fn router(web: &Shared) -> Router<Shared> {
    let role = |role: Role| from_fn_with_state((web.clone(), role), visitor::admit);
    let open = Router::new()
        .route("/login", get(enter::page).post(enter::begin))
        .route("/theme", post(enter::theme))
        .route_layer(axum::middleware::from_fn(visitor::from_here));
    let viewer = Router::new()
        .route("/", get(fleet::page))
        .route("/databases/{name}", get(database::page))
        .route("/databases/{name}/restore", get(restore::page))
        .route("/drills", get(drills::page))
        .route("/drills/{id}", get(drills::one::page))
        .route("/protection", get(protection::page))
        .route("/standbys", get(standbys::page))
        .route("/compares", get(compares::page))
        .route("/compares/{id}", get(compares::one))
        .route("/jobs", get(jobs::list))
        .route("/jobs/{id}", get(jobs::show))
        .route("/activity", get(activity::page))
        .route("/settings", get(settings::page))
        .route("/settings/password", get(settings::back).post(settings::own::password))
        .route("/logout", post(enter::end))
        .route_layer(role(Role::Viewer));
    let operator = Router::new()
        .route("/databases/{name}/backup", post(jobs::asking::backup))
        .route("/databases/{name}/verify", post(jobs::asking::verify))
        .route("/databases/{name}/expiry-preview", post(jobs::asking::expiry_preview))
        .route("/drills", post(drills::ask))
        .route("/compares", post(compares::ask))
        .route("/databases/{name}/restore/plan", post(restore::plan))
        .route("/databases/{name}/restore", post(restore::begin))
        .route("/jobs/{id}/cancel", post(jobs::asking::cancel))
        .route_layer(role(Role::Operator));
    let admin = Router::new()
        .route("/databases/{name}/expire", post(jobs::asking::expire))
        .route("/settings/users", get(settings::back).post(settings::users::add))
        .route("/settings/users/{name}/disable", get(settings::back).post(settings::users::disable))
        .route("/settings/users/{name}/enable", get(settings::back).post(settings::users::enable))
        .route("/settings/users/{name}/password", get(settings::back).post(settings::users::password))
        .route("/settings/tokens", get(settings::back).post(settings::tokens::make))
        .route("/settings/tokens/{id}/revoke", get(settings::back).post(settings::tokens::revoke))
        .route("/settings/channels/{name}/test", get(settings::back).post(settings::channels::test))
        .route_layer(role(Role::Admin));
    open.merge(viewer).merge(operator).merge(admin)
}

/// Files of the pages. They are the same in every installation, and say nothing of what runs here.
pub fn files() -> Router {
    Router::new().route("/assets/{name}", get(assets::file)).route("/favicon.ico", get(assets::icon))
}

/// A person who asks with a browser: how he wants a refusal shown.
#[derive(Debug, Clone, Copy)]
pub struct Person {
    theme: Theme,
}

/// Whether a person asks for a page, rather than a program for an answer.
pub fn is_for_person(request: &Request) -> Option<Person> {
    let path = request.uri().path();
    let api = path.starts_with("/api/") || matches!(path, "/api" | "/healthz" | "/readyz");
    let accepts =
        request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    (!api && accepts.contains("text/html")).then(|| Person { theme: Theme::of(request.headers()) })
}

/// A refusal as a page.
pub fn refusal(person: &Person, problem: &Problem, trace_id: &str) -> Response {
    let status = StatusCode::from_u16(problem.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = match frame::refused(person.theme, problem, trace_id) {
        Ok(page) => page,
        // The template is checked when farshore is built; without it the words are enough.
        Err(_) => problem.detail.clone().into_response(),
    };
    *answer.status_mut() = status;
    if let Some(seconds) = problem.retry_after {
        answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    answer
}

/// A page's text with the headers that every page has.
pub fn html(text: String) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    (headers, Html(text)).into_response()
}

/// A template's text.
///
/// # Errors
/// A fault of ours.
pub fn render<T: askama::Template>(template: &T) -> Result<String, Problem> {
    template
        .render()
        .map_err(|why| Problem::new(Kind::Unexpected, "farshore could not show this").because(&why))
}

/// Whether a part of a page is asked for, by the script of a page that is open.
pub fn is_part(headers: &HeaderMap) -> bool {
    headers.contains_key("hx-request")
}
