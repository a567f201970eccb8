//! The API on one screen: every path, and the role that it takes.

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use farshore_catalog::access::Role;
use tokio::sync::watch;
use tower_http::limit::RequestBodyLimitLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::{
    activity, backup, channel, compare, database, drill, expire, exposure, job, lag, node, plan, points,
    protection, resolve, restore, schedule, session, standby, stream, throttle, token, verify,
};
use crate::health::{self, Health};
use crate::metrics::{self, requests};
use crate::problem::{Kind, Problem};
use crate::state::{Here, Shared, Web};
use crate::{auth, docs, guard, pages};

/// Paths that anybody may ask, below `/api/v1`.
fn open() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(session::begin))
}

/// Paths for viewers.
fn viewer() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(database::list))
        .routes(routes!(database::show))
        .routes(routes!(database::window))
        .routes(routes!(exposure::list))
        .routes(routes!(lag::series))
        .routes(routes!(protection::protection))
        .routes(routes!(throttle::throttles))
        .routes(routes!(points::list))
        .routes(routes!(resolve::resolve))
        .routes(routes!(backup::list))
        .routes(routes!(drill::list))
        .routes(routes!(drill::show))
        .routes(routes!(drill::certificate))
        .routes(routes!(compare::list))
        .routes(routes!(compare::show))
        .routes(routes!(job::list))
        .routes(routes!(job::show))
        .routes(routes!(job::result))
        .routes(routes!(schedule::list))
        .routes(routes!(stream::listen))
        .routes(routes!(node::list))
        .routes(routes!(standby::list))
        .routes(routes!(activity::list))
        .routes(routes!(session::show, session::end))
}

/// Paths for operators: work that changes no database.
fn operator() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(backup::ask))
        .routes(routes!(drill::ask))
        .routes(routes!(compare::ask))
        .routes(routes!(verify::ask))
        .routes(routes!(plan::ask))
        .routes(routes!(expire::preview))
        .routes(routes!(restore::ask))
        .routes(routes!(job::cancel))
}

/// Paths for admins.
fn admin() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(expire::ask))
        .routes(routes!(token::list))
        .routes(routes!(token::create))
        .routes(routes!(token::revoke))
        .routes(routes!(channel::list))
        .routes(routes!(channel::test))
}

/// Everything below `/api/v1`, with its description: what a role may do is said in one place and holds in both.
fn api(web: &Shared) -> OpenApiRouter<Shared> {
    let mut all = open();
    docs::describe(all.get_openapi_mut(), None);
    for (role, mut routes) in [(Role::Viewer, viewer()), (Role::Operator, operator()), (Role::Admin, admin())]
    {
        docs::describe(routes.get_openapi_mut(), Some(role));
        all = all.merge(routes.route_layer(from_fn_with_state((web.clone(), role), auth::require)));
    }
    OpenApiRouter::with_openapi(docs::begin()).nest("/api/v1", all)
}

/// The description and the page to read it.
fn documents(web: &Shared) -> Router<Shared> {
    let routes = Router::new()
        .route(docs::OPENAPI, get(docs::openapi))
        .route("/api/docs", get(docs::to_page))
        .route("/api/docs/", get(docs::page))
        .route("/api/docs/{*file}", get(docs::page_file));
    match web.loopback {
        true => routes,
        false => routes.route_layer(from_fn_with_state((web.clone(), Role::Viewer), auth::require)),
    }
}

/// All that the service answers.
pub fn router(web: Shared, health: watch::Receiver<Health>) -> Router {
    let (api, _) = api(&web).split_for_parts();
    let observed = web.metrics.clone();
    api.merge(documents(&web))
        .merge(pages::router(&web))
        .layer(from_fn_with_state(web.clone(), guard::in_turn))
        // It is written from memory and asks for its role itself: it is answered without the catalog too.
        .route(metrics::PATH, get(metrics::serve))
        .with_state(web)
        .merge(health::router(health))
        .merge(pages::files())
        .layer(from_fn_with_state(observed, requests::observe))
        .layer(RequestBodyLimitLayer::new(guard::BODY_BYTES))
        .layer(from_fn(guard::around))
}

/// The description as it is served and checked in.
///
/// # Errors
/// A fault of ours: a description that is no JSON.
pub fn document() -> Result<String, Problem> {
    let web = Web::new(None, std::collections::BTreeMap::new(), Here::default(), true, false);
    let (_, doc) = api(&web).split_for_parts();
    let text = doc.to_pretty_json();
    text.map_err(|why| Problem::new(Kind::Unexpected, "farshore could not do this").because(&why))
}
