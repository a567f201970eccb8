//! A restore, step by step: point, where, review, run. Every step is an address, so that it can be gone back to, and sent to somebody else.
//!
//! What always holds: looking at a step writes nothing. What is reviewed is the commit that the catalog resolves, named by its position, so that the line to run, the plan and the
//! restore that is started here lead to that commit and no other, whatever is committed meanwhile. The plan reads the store itself, and is what counts. Whatever a person typed is one
//! word of the line, quoted. Where this service may write a restore is judged as the REST API judges it.

mod plan;
mod run;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::Utc;
use farshore_catalog::access::Role;
use farshore_journal::DatabaseName;
use serde::Deserialize;

pub use self::run::{begin, plan};

use crate::api::named;
use crate::api::resolve::{self, Resolved};
use crate::api::restore::placed;
use crate::ask::Key;
use crate::page::Query;
use crate::pages::frame::{self, Page, Part};
use crate::pages::visitor::Visitor;
use crate::pages::words::{self, Moment};
use crate::pages::{html, is_part, render};
use crate::problem::{Kind, Problem};
use crate::state::{Shared, Web};

/// What was said so far.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    pos: Option<String>,
    at: Option<String>,
    point: Option<String>,
    xid: Option<String>,
    #[serde(default)]
    to: String,
    #[serde(default)]
    store: String,
    #[serde(default)]
    then: String,
    #[serde(default)]
    port: String,
    /// The job that made the plan.
    #[serde(default)]
    plan: String,
}

/// What the restored server does.
const THEN: [(&str, &str); 3] = [
    ("pause", "stays read-only at the point, so that one can look first"),
    ("promote", "opens for writing, on a new timeline"),
    ("shutdown", "stops once it is there"),
];

struct Reviewed {
    position: String,
    time: Option<Moment>,
    xid: Option<u64>,
    next: Option<Moment>,
    is_final: bool,
    stores: String,
    restorable: Vec<String>,
    out_of_order: usize,
}

#[derive(Template)]
#[template(path = "restore.html")]
struct RestorePage<'a> {
    name: &'a str,
    step: u8,
    asked: String,
    found: Option<Reviewed>,
    problem: Option<String>,
    /// What the form of a step shows again.
    to: &'a str,
    store: String,
    port: &'a str,
    server: bool,
    choices: Vec<(&'static str, &'static str, bool)>,
    line: String,
    dry: String,
    target: String,
    rto: Option<String>,
    csrf: &'a str,
    key: String,
    operator: bool,
    node: &'a str,
    roots: Vec<String>,
    /// Why it is not started here; `None`: it can be.
    refused: Option<String>,
    /// What the plan says, or how far it is.
    plan: Option<String>,
}

/// The step that comes next.
///
/// # Errors
/// When there is no such database for whoever asks, or the catalog is away.
pub async fn page(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let name = named(&name, &visitor.who)?;
    let catalog = web.catalog()?;
    let database = catalog.database_find(&name).await?;
    let database = database.ok_or_else(|| farshore_catalog::Error::NoDatabase { name: name.clone() })?;
    let (found, asked_text, mut problem) = match question(&asked) {
        None => (None, String::new(), None),
        Some(Err(problem)) => (None, String::new(), Some(problem.detail)),
        Some(Ok((question, text))) => match resolve::lead(catalog, &name, question).await {
            Ok(found) => (Some(found), text, None),
            Err(problem)
                if matches!(problem.kind, Kind::PointUnknown | Kind::PointAmbiguous | Kind::Invalid) =>
            {
                (None, text, Some(problem.detail))
            }
            Err(problem) => return Err(problem),
        },
    };
    let now = Utc::now();
    let server = database.engine == "postgres";
    let found = found.map(|found| reviewed(now, found));
    let target = asked.to.trim();
    if problem.is_none() && found.is_some() && !target.is_empty() {
        problem = wrong(target, asked.port.trim(), server);
    }
    let step = match (&found, target.is_empty() || problem.is_some()) {
        (None, _) => 1,
        (Some(_), true) => 2,
        (Some(_), false) => 3,
    };
    let then = then(&asked.then);
    let store = found.as_ref().map_or("", |found| chosen(found, &asked.store)).to_owned();
    let position = found.as_ref().map_or("", |found| found.position.as_str()).to_owned();
    let line = line(name.as_str(), &position, target, &store, server.then_some((then, asked.port.trim())));
    let refused = refused(&web, &visitor, &name, target);
    let key = Key::mint()?;
    let plan = match (step, asked.plan.trim()) {
        (3, job) if !job.is_empty() => {
            let of = plan::Of {
                name: &name,
                position: &position,
                to: target,
                store: &store,
                then,
                port: asked.port.trim(),
                refused: refused.as_deref(),
            };
            let shown = plan::shown(&web, &visitor, &of, job, &key).await?;
            if shown.is_none() {
                problem = Some(
                    "The plan that was made is of another point, store or database: make it anew.".to_owned(),
                );
            }
            shown
        }
        _ => None,
    };
    if is_part(&headers)
        && let Some(plan) = plan
    {
        return Ok(html(plan));
    }
    let roots: Vec<String> = web.here.restore_roots.iter().map(|root| root.display().to_string()).collect();
    let suggested = suggested(&roots, &name, &position);
    let page = RestorePage {
        name: name.as_str(),
        step,
        asked: asked_text,
        problem,
        to: if target.is_empty() { &suggested } else { target },
        store,
        port: asked.port.trim(),
        server,
        choices: THEN.map(|(word, means)| (word, means, word == then)).into(),
        dry: format!("{line} --dry-run"),
        line,
        target: format!("pos={}", words::escaped(&position)),
        rto: web
            .objectives
            .get(&name)
            .and_then(|promised| promised.rto)
            .map(|rto| words::seconds(rto.as_secs_f64())),
        csrf: &visitor.csrf,
        key,
        operator: visitor.may(Role::Operator),
        node: &web.here.node,
        roots,
        refused,
        plan,
        found,
    };
    let trail = vec![("/".to_owned(), "Fleet".to_owned()), (format!("/databases/{name}"), name.to_string())];
    let body = render(&page)?;
    frame::show(&Page { title: "Restore".to_owned(), part: Part::Fleet, trail, said: None, body }, &visitor)
}

/// What a restored server does, by its word; it pauses where none is said.
fn then(word: &str) -> &'static str {
    THEN.iter().find(|(known, _)| *known == word).map_or("pause", |(known, _)| *known)
}

/// A new place of this service for a copy; empty where it restores nothing.
fn suggested(roots: &[String], name: &DatabaseName, position: &str) -> String {
    let plain = position.replace([':', '/'], "-");
    roots.first().map_or_else(String::new, |root| format!("{}/{name}-{plain}", root.trim_end_matches('/')))
}

/// Why a restore is not started by this service.
fn refused(web: &Web, visitor: &Visitor, name: &DatabaseName, to: &str) -> Option<String> {
    let roots = &web.here.restore_roots;
    if roots.is_empty() {
        return Some("This service starts no restore: `restore_roots` in [service] of its farshore.toml names the folders that it may restore into, and none is named.".to_owned());
    }
    if !web.objectives.contains_key(name) {
        return Some(format!(
            "This service does not have {name} in its configuration, and so does not restore it: open the pages of one that has it."
        ));
    }
    if !to.is_empty() && placed(to, roots).is_err() {
        let named: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
        return Some(format!(
            "This service does not restore into that directory: it is not beneath {}, which `restore_roots` in [service] names.",
            named.join(" or ")
        ));
    }
    (!visitor.may(Role::Operator)).then(|| {
        format!("To start a restore here takes the role operator, and yours is {}.", visitor.who.role.word())
    })
}

/// What point is asked for, also in words; `None` when none is yet.
fn question(asked: &Asked) -> Option<Result<(resolve::Asked, String), Problem>> {
    let given = |text: &Option<String>| {
        text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let (pos, at, point, xid) = (given(&asked.pos), given(&asked.at), given(&asked.point), given(&asked.xid));
    let all: Vec<String> =
        [("position", &pos), ("time", &at), ("named point", &point), ("transaction", &xid)]
            .into_iter()
            .filter_map(|(what, text)| text.as_ref().map(|text| format!("{what} {text}")))
            .collect();
    let text = match all.as_slice() {
        [] => return None,
        [one] => one.clone(),
        _ => {
            return Some(Err(Problem::new(
                Kind::Invalid,
                "give one of time, position, transaction and named point",
            )));
        }
    };
    let xid = match xid.map(|xid| xid.parse::<u64>()).transpose() {
        Ok(xid) => xid,
        Err(_) => return Some(Err(Problem::new(Kind::Invalid, "a transaction is a number"))),
    };
    Some(Ok((resolve::Asked { at, pos, xid, point, incarnation: None }, text)))
}

fn reviewed(now: chrono::DateTime<Utc>, found: Resolved) -> Reviewed {
    Reviewed {
        position: found.position,
        time: Moment::maybe(now, found.commit.as_ref().map(|commit| commit.time)),
        xid: found.commit.as_ref().map(|commit| commit.xid),
        next: Moment::maybe(now, found.next.as_ref().map(|commit| commit.time)),
        is_final: found.is_final,
        stores: found.stores.join(", "),
        restorable: found.restorable_in,
        out_of_order: found.out_of_order.len(),
    }
}

/// The store that is read: the one asked for where it can be, else the first that can.
fn chosen<'a>(found: &'a Reviewed, asked: &str) -> &'a str {
    let can = || found.restorable.iter();
    can().find(|store| *store == asked).or_else(|| can().next()).map_or("", String::as_str)
}

/// What is wrong with where it is to go.
fn wrong(to: &str, port: &str, server: bool) -> Option<String> {
    if !to.starts_with('/') || to.chars().any(char::is_control) {
        return Some("the directory is an absolute path, as /srv/restore/orders".to_owned());
    }
    let sound = port.is_empty() || port.parse::<u16>().is_ok_and(|port| port > 0);
    (server && !sound).then(|| "the port is a number from 1 to 65535, or empty to start no server".to_owned())
}

/// The line to run.
fn line(name: &str, position: &str, to: &str, store: &str, server: Option<(&str, &str)>) -> String {
    let mut words_of = vec!["farshore", "restore", name, "--pos", position, "--to", to];
    if !store.is_empty() {
        words_of.extend(["--store", store]);
    }
    if let Some((then, port)) = server {
        words_of.extend(["--then", then]);
        if !port.is_empty() {
            words_of.extend(["--start", "--port", port]);
        }
    }
    words_of.into_iter().map(words::word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_holds_what_was_typed_as_one_word() {
        let plain = line("orders", "1:5F/3AA7B9A0", "/srv/copy", "main", Some(("pause", "")));
        assert_eq!(
            plain,
            "farshore restore orders --pos 1:5F/3AA7B9A0 --to /srv/copy --store main --then pause"
        );
        let hostile = line("orders", "1:0/30", "/srv/$(reboot); a'b", "", None);
        assert_eq!(hostile, "farshore restore orders --pos 1:0/30 --to '/srv/$(reboot); a'\\''b'");
        let started = line("orders", "1:0/30", "/srv/c", "", Some(("promote", "5433")));
        assert!(started.ends_with("--then promote --start --port 5433"), "{started}");
    }

    #[test]
    fn a_place_is_suggested_beneath_the_first_folder_and_is_one_that_may_be_used() {
        let name: DatabaseName = "orders".parse().unwrap();
        let roots = ["/srv/restores/".to_owned(), "/other".to_owned()];
        let place = suggested(&roots, &name, "1:5F/3AA7B9A0");
        assert_eq!(place, "/srv/restores/orders-1-5F-3AA7B9A0");
        assert!(placed(&place, &["/srv/restores".into()]).is_ok());
        assert_eq!(suggested(&[], &name, "1:0/30"), "");
    }

    #[test]
    fn a_place_is_absolute_and_a_port_is_one() {
        assert_eq!(wrong("/srv/copy", "", true), None);
        assert_eq!(wrong("/srv/copy", "5433", true), None);
        for (to, port) in [
            ("copy", ""),
            ("~/copy", ""),
            ("/srv/\ncopy", ""),
            ("/srv/copy", "0"),
            ("/srv/copy", "70000"),
            ("/srv/copy", "5433; x"),
        ] {
            assert!(wrong(to, port, true).is_some(), "{to} {port}");
        }
    }

    #[test]
    fn two_points_at_once_are_refused_and_empty_fields_are_none() {
        let asked = |pos: &str, at: &str| Asked {
            pos: Some(pos.to_owned()),
            at: Some(at.to_owned()),
            ..Asked::default()
        };
        assert!(question(&asked("", " ")).is_none());
        assert!(question(&asked("1:0/30", "")).unwrap().is_ok());
        assert!(question(&asked("1:0/30", "2026-03-29T14:02:17Z")).unwrap().is_err());
    }
}
