//! The API's own description: OpenAPI 3.1 at `/api/openapi.json`, and a page to read it at `/api/docs/`.
//!
//! What always holds: both are made from the code that answers, and nothing is fetched from outside, neither when it is built nor when it
//! is read. They are open where only this machine can ask, and for viewers elsewhere: they hold no secret, but tell a stranger
//! what runs here.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use farshore_catalog::access::Role;
use utoipa::OpenApi;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa_swagger_ui::Config;

use crate::problem::{self, Kind, Problem};
use crate::state::Shared;

/// Where the description is.
pub const OPENAPI: &str = "/api/openapi.json";

/// The page's scripts and styles are files of its own; Swagger UI sets styles in elements and draws images from data.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                           img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The extension that says which role an operation takes.
pub const ROLE: &str = "x-farshore-role";

/// What is said of the API as a whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "farshore",
        version = "1",
        description = "What is protected, how it stands, and where it can be taken back to. Times are RFC 3339 in UTC; `_seconds` and \
                       `_bytes` say the unit; a position is an opaque text. Unknown is null or `unknown`, never 0 and never a good state.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(problem::Body)),
    tags(
        (name = "databases", description = "What is protected, how it stands, and what can be restored"),
        (name = "exposure", description = "From when to when a promise did not hold"),
        (name = "points", description = "Commits and named points"),
        (name = "backups", description = "Base backups"),
        (name = "verifies", description = "What the stores hold, held against its checksums and its chain"),
        (name = "expiries", description = "What no rule keeps: marked, and a grace later deleted"),
        (name = "drills", description = "Rehearsed recoveries: what each came to, and its certificate"),
        (name = "compares", description = "Standbys held against their primaries, row by row, at one position"),
        (name = "plans", description = "What a restore would do"),
        (name = "restores", description = "A database taken to a commit, in a new place"),
        (name = "jobs", description = "Long work: how far it is, what came of it, and how it is ended"),
        (name = "schedules", description = "What falls due by a clock"),
        (name = "events", description = "What changes, as it changes"),
        (name = "nodes", description = "The processes that share the catalog"),
        (name = "standbys", description = "PostgreSQL standbys that follow a journal"),
        (name = "activity", description = "Who did what"),
        (name = "tokens", description = "Who may ask"),
        (name = "channels", description = "Whom the service tells"),
        (name = "session", description = "Logging in, for people"),
    )
)]
pub struct Doc;

/// The description before any path is in it.
pub fn begin() -> utoipa::openapi::OpenApi {
    let mut doc = Doc::openapi();
    let components = doc.components.get_or_insert_default();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("fsh_ID_SECRET").build();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    let cookie = ApiKey::Cookie(ApiKeyValue::new("__Host-farshore"));
    components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    doc
}

/// Says of every operation which role it takes and how it refuses. `None`: open to everybody.
pub fn describe(doc: &mut utoipa::openapi::OpenApi, role: Option<Role>) {
    for item in doc.paths.paths.values_mut() {
        let all = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in all.into_iter().flatten() {
            describe_one(operation, role);
        }
    }
}

fn describe_one(operation: &mut Operation, role: Option<Role>) {
    // Handlers of several resources share their names.
    let of = operation.tags.iter().flatten().next().cloned().unwrap_or_default();
    operation.operation_id = operation.operation_id.take().map(|name| format!("{of}_{name}"));
    let mut refusals = vec![Kind::Invalid, Kind::NotAuthenticated, Kind::TooManyAttempts, Kind::CatalogAway];
    match role {
        Some(role) => {
            let none = Vec::<String>::new;
            operation.security = Some(vec![
                SecurityRequirement::new("token", none()),
                SecurityRequirement::new("session", none()),
            ]);
            let extension = ExtensionsBuilder::new().add(ROLE, role.word()).build();
            operation.extensions.get_or_insert_default().merge(extension);
            refusals.push(Kind::NotAllowed);
        }
        None => operation.security = Some(Vec::new()),
    }
    for named in operation.parameters.iter().flatten() {
        match named {
            RefOr::T(one) if one.parameter_in == ParameterIn::Path && of == "channels" => {
                refusals.push(Kind::ChannelUnknown)
            }
            RefOr::T(one) if one.name == "name" || one.name == "database" => {
                refusals.push(Kind::DatabaseUnknown)
            }
            RefOr::T(one) if one.parameter_in == ParameterIn::Path => {
                refusals.push(match of.as_str() {
                    "tokens" => Kind::TokenUnknown,
                    "drills" => Kind::DrillUnknown,
                    "compares" => Kind::CompareUnknown,
                    _ => Kind::JobUnknown,
                });
            }
            RefOr::T(one) if one.parameter_in == ParameterIn::Header => {
                refusals.extend([Kind::DatabaseUnknown, Kind::KeyUsed, Kind::QueueFull]);
            }
            _ => {}
        }
    }
    if operation.request_body.is_some() {
        refusals.extend([Kind::TooLarge, Kind::MediaType]);
    }
    for kind in refusals {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let answer =
            ResponseBuilder::new().description(kind.title()).content(problem::MEDIA_TYPE, content).build();
        operation.responses.responses.insert(kind.status().to_string(), answer.into());
    }
}

/// The description's route.
pub async fn openapi(State(_): State<Shared>) -> Response {
    match crate::router::document() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// The page stands in a folder, so that its files are found beside it.
pub async fn to_page() -> Redirect {
    Redirect::permanent("/api/docs/")
}

/// The page itself.
pub async fn page() -> Response {
    file("index.html")
}

/// A file of the page.
pub async fn page_file(Path(path): Path<String>) -> Response {
    file(&path)
}

fn file(path: &str) -> Response {
    let config = Arc::new(Config::from(OPENAPI));
    match utoipa_swagger_ui::serve(path, config) {
        Ok(Some(file)) => {
            let Ok(kind) = HeaderValue::from_str(&file.content_type) else { return missing() };
            let policy = HeaderValue::from_static(PAGE_POLICY);
            let headers = [(header::CONTENT_TYPE, kind), (header::CONTENT_SECURITY_POLICY, policy)];
            (headers, file.bytes.into_owned()).into_response()
        }
        Ok(None) => missing(),
        Err(why) => {
            Problem::new(Kind::Unexpected, "the page could not be made").because(why.as_ref()).into_response()
        }
    }
}

fn missing() -> Response {
    Problem::new(Kind::PathUnknown, "the page has no such file").into_response()
}
