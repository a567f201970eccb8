//! A restore, step by step: point, where, review, run. Every step is an address, so that it can be gone back to, and sent to somebody else.
//!
//! What always holds: nothing is written here. What is reviewed is the commit that the catalog resolves, named by its position, so that the line
//! to run leads to that commit and no other, whatever is committed meanwhile. The plan that the line makes first reads the store itself, and is
//! what counts. Whatever a person typed is one word of the line, quoted.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use chrono::Utc;
use serde::Deserialize;

use crate::api::named;
use crate::api::resolve::{self, Resolved};
use crate::page::Query;
use crate::pages::frame::{self, Page, Part};
use crate::pages::render;
use crate::pages::visitor::Visitor;
use crate::pages::words::{self, Moment};
use crate::problem::{Kind, Problem};
use crate::state::Shared;

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
}

/// The step that comes next.
///
/// # Errors
/// When there is no such database for whoever asks, or the catalog is away.
pub async fn page(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
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
    let then = THEN.iter().find(|(word, _)| *word == asked.then).map_or("pause", |(word, _)| *word);
    let store = found.as_ref().map_or("", |found| chosen(found, &asked.store)).to_owned();
    let position = found.as_ref().map_or("", |found| found.position.as_str()).to_owned();
    let line = line(name.as_str(), &position, target, &store, server.then_some((then, asked.port.trim())));
    let page = RestorePage {
        name: name.as_str(),
        step,
        asked: asked_text,
        problem,
        to: target,
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
        found,
    };
    let trail = vec![("/".to_owned(), "Fleet".to_owned()), (format!("/databases/{name}"), name.to_string())];
    let body = render(&page)?;
    frame::show(&Page { title: "Restore".to_owned(), part: Part::Fleet, trail, said: None, body }, &visitor)
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
