//! One's own session, schedules, nodes; and for admins who else may ask. Nothing is changed here: the command line says who may.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use chrono::{TimeDelta, Utc};
use farshore_catalog::access::Role;

use crate::pages::frame::{self, Page, Part};
use crate::pages::render;
use crate::pages::visitor::Visitor;
use crate::pages::words::Moment;
use crate::problem::Problem;
use crate::state::Shared;

/// How often a node says that it lives, thrice over: after that it is not known whether it does.
const NODE_SILENT: TimeDelta = TimeDelta::seconds(90);

struct TokenLine {
    name: String,
    id: String,
    role: &'static str,
    database: Option<String>,
    expires: Option<Moment>,
    used: Option<Moment>,
    revoked: Option<Moment>,
    valid: bool,
}

struct UserLine {
    name: String,
    role: &'static str,
    disabled: bool,
    created: Moment,
}

struct ScheduleLine {
    database: String,
    kind: &'static str,
    cron: String,
    zone: String,
    due: Moment,
    job: Option<String>,
}

struct NodeLine {
    name: String,
    version: String,
    started: Moment,
    heard: Moment,
    silent: bool,
}

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage<'a> {
    name: &'a str,
    role: &'static str,
    csrf: &'a str,
    admin: bool,
    tokens: Vec<TokenLine>,
    users: Vec<UserLine>,
    schedules: Vec<ScheduleLine>,
    nodes: Vec<NodeLine>,
}

/// The page.
///
/// # Errors
/// When the catalog is away.
pub async fn page(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
) -> Result<Response, Problem> {
    let (catalog, now) = (web.catalog()?, Utc::now());
    let admin = visitor.may(Role::Admin);
    let mut tokens = if admin { catalog.token_list().await? } else { Vec::new() };
    tokens.sort_by_key(|token| (!token.is_valid(now), token.name.to_string()));
    let users = if admin { catalog.user_list().await? } else { Vec::new() };
    let schedules = catalog.schedule_list().await?;
    let nodes = catalog.node_list().await?;
    let moment = |time| Moment::maybe(now, time);
    let body = render(&SettingsPage {
        name: &visitor.who.name,
        role: visitor.who.role.word(),
        csrf: &visitor.csrf,
        admin,
        tokens: tokens
            .into_iter()
            .map(|token| TokenLine {
                valid: token.is_valid(now),
                name: token.name.to_string(),
                id: token.id.to_string(),
                role: token.role.word(),
                database: token.database.map(|name| name.to_string()),
                expires: moment(token.expires_at),
                used: moment(token.last_used_at),
                revoked: moment(token.revoked_at),
            })
            .collect(),
        users: users
            .into_iter()
            .map(|user| UserLine {
                name: user.name.to_string(),
                role: user.role.word(),
                disabled: user.disabled,
                created: Moment::new(now, user.created_at),
            })
            .collect(),
        schedules: schedules
            .into_iter()
            .filter(|schedule| visitor.who.sees(&schedule.database))
            .map(|schedule| ScheduleLine {
                database: schedule.database.to_string(),
                kind: schedule.kind.word(),
                cron: schedule.cron,
                zone: schedule.zone,
                due: Moment::new(now, schedule.due),
                job: schedule.job.map(|job| job.to_string()),
            })
            .collect(),
        nodes: nodes
            .into_iter()
            .map(|node| NodeLine {
                silent: (now - node.heartbeat_at).abs() > NODE_SILENT,
                name: node.name,
                version: node.version,
                started: Moment::new(now, node.started_at),
                heard: Moment::new(now, node.heartbeat_at),
            })
            .collect(),
    })?;
    let page =
        Page { title: "Settings".to_owned(), part: Part::Settings, trail: Vec::new(), said: None, body };
    frame::show(&page, &visitor)
}
