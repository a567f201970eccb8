//! One's own session and password, schedules, nodes; and for admins who else may ask, and whom the service tells.
//!
//! What always holds: the page of a form's answer is this page, with what was done, or with what is wrong beside its field; only an admin's page says who else there is.

pub mod channels;
mod form;
pub mod own;
pub mod tokens;
pub mod users;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Redirect, Response};
use chrono::{TimeDelta, Utc};
use farshore_catalog::access::Role;

use crate::channels::Channel;
use crate::grants::By;
use crate::pages::frame::{self, Page, Part};
use crate::pages::jobs::asking::WAY;
use crate::pages::render;
use crate::pages::visitor::Visitor;
use crate::pages::words::Moment;
use crate::problem::Problem;
use crate::state::Shared;

use self::form::Refused;

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
    /// Whoever looks.
    is_self: bool,
    role: &'static str,
    disabled: bool,
    created: Moment,
}

struct ScheduleLine {
    database: String,
    kind: &'static str,
    cron: String,
    zone: String,
    /// When it falls due next, as the service that answers reads it.
    next: Option<Moment>,
    due: Moment,
    job: Option<String>,
}

struct NodeLine {
    name: String,
    version: String,
    roles: String,
    started: Moment,
    heard: Moment,
    silent: bool,
}

/// A token that was made just now.
pub(super) struct Made {
    name: String,
    secret: String,
}

/// A channel that was sent a test just now.
struct Told {
    channel: String,
    /// Why it was not taken; `None` where it was.
    problem: Option<String>,
}

/// What a form came to; nothing where the page was only looked at.
#[derive(Default)]
struct After {
    said: Option<String>,
    made: Option<Made>,
    told: Option<Told>,
    refused: Refused,
    status: StatusCode,
}

impl After {
    fn said(said: String) -> Self {
        Self { said: Some(said), ..Self::default() }
    }

    fn refused(refused: Refused) -> Self {
        Self { refused, status: StatusCode::UNPROCESSABLE_ENTITY, ..Self::default() }
    }
}

/// Each role's word, and what it may do beside all that those before it may.
const ROLES: [(&str, &str); 4] = [
    ("viewer", "looks"),
    ("operator", "asks for what changes no database"),
    ("restorer", "asks for what changes one"),
    ("admin", "says who may ask"),
];

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage<'a> {
    name: &'a str,
    role: &'static str,
    csrf: &'a str,
    admin: bool,
    refused: &'a Refused,
    made: Option<&'a Made>,
    told: Option<&'a Told>,
    tokens: Vec<TokenLine>,
    /// Revoked or expired ones.
    former: Vec<TokenLine>,
    users: Vec<UserLine>,
    databases: Vec<String>,
    channels: &'a [Channel],
    node: &'a str,
    schedules: Vec<ScheduleLine>,
    nodes: Vec<NodeLine>,
}

impl SettingsPage<'_> {
    const ROLES: [(&'static str, &'static str); 4] = ROLES;
    /// What a name is, beside its field.
    const NAME: &'static str = form::NAME;

    /// What came of the test of a channel just now.
    fn told(&self, channel: &str) -> Option<&Told> {
        self.told.filter(|told| told.channel == channel)
    }
}

/// Whoever looks, as the record of activity names him.
fn by(visitor: &Visitor) -> By<'_> {
    By { who: &visitor.who, way: WAY }
}

/// Where the answer of a form is, for whoever loads it again: the page.
pub async fn back() -> Redirect {
    Redirect::to("/settings")
}

/// The page.
///
/// # Errors
/// When the catalog is away.
pub async fn page(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
) -> Result<Response, Problem> {
    show(&web, &visitor, After::default()).await
}

/// The page, as it is after a form.
async fn show(web: &Shared, visitor: &Visitor, after: After) -> Result<Response, Problem> {
    let (catalog, now) = (web.catalog()?, Utc::now());
    let admin = visitor.may(Role::Admin);
    let mut tokens = if admin { catalog.token_list().await? } else { Vec::new() };
    tokens.sort_by_key(|token| (token.revoked_at.is_some(), token.name.to_string()));
    let users = if admin { catalog.user_list().await? } else { Vec::new() };
    let databases = if admin { catalog.database_list().await? } else { Vec::new() };
    let schedules = catalog.schedule_list().await?;
    let nodes = catalog.node_list().await?;
    let moment = |time| Moment::maybe(now, time);
    // One that has expired still keeps its name, and can be revoked to free it.
    let (former, tokens) = tokens
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
        .partition(|token| token.revoked.is_some());
    let body = render(&SettingsPage {
        name: &visitor.who.name,
        role: visitor.who.role.word(),
        csrf: &visitor.csrf,
        admin,
        refused: &after.refused,
        made: after.made.as_ref(),
        told: after.told.as_ref(),
        tokens,
        former,
        users: users
            .into_iter()
            .map(|user| UserLine {
                is_self: user.name.as_str() == visitor.who.name,
                name: user.name.to_string(),
                role: user.role.word(),
                disabled: user.disabled,
                created: Moment::new(now, user.created_at),
            })
            .collect(),
        databases: databases.into_iter().map(|database| database.name.to_string()).collect(),
        channels: if admin { web.here.channels.list() } else { &[] },
        node: &web.here.node,
        schedules: schedules
            .into_iter()
            .filter(|schedule| visitor.who.sees(&schedule.database))
            .map(|schedule| ScheduleLine {
                next: Moment::maybe(now, web.here.due(&schedule, now).first().copied()),
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
                roles: node.roles.join(", "),
                started: Moment::new(now, node.started_at),
                heard: Moment::new(now, node.heartbeat_at),
            })
            .collect(),
    })?;
    let page = Page {
        title: "Settings".to_owned(),
        part: Part::Settings,
        trail: Vec::new(),
        said: after.said,
        body,
    };
    // Light or dark leads back to the page, not to a form's answer.
    let visitor = Visitor { path: "/settings".to_owned(), ..visitor.clone() };
    let mut answer = frame::show(&page, &visitor)?;
    *answer.status_mut() = after.status;
    Ok(answer)
}
