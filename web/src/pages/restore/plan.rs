//! What a restore's plan says, as a job of a service read it from the store; and the form that starts the restore.
//!
//! What always holds: a plan of another database or of another point is not shown for this one; a restore can be started only behind a plan that was made; what the plan does not know is said
//! to be not known. Its job's result is JSON of another crate: what is not there is not made up.

use askama::Template;
use chrono::{DateTime, Utc};
use farshore_catalog::job::{Job, JobKind, JobState, spec};
use farshore_journal::DatabaseName;
use serde_json::Value;

use crate::api::job;
use crate::pages::jobs::{self, Shown};
use crate::pages::render;
use crate::pages::standing::Level;
use crate::pages::visitor::Visitor;
use crate::pages::words::{self, Moment};
use crate::problem::Problem;
use crate::state::Web;

/// What was reviewed.
pub(super) struct Of<'a> {
    pub(super) name: &'a DatabaseName,
    pub(super) position: &'a str,
    pub(super) to: &'a str,
    pub(super) store: &'a str,
    pub(super) then: &'a str,
    pub(super) port: &'a str,
    pub(super) refused: Option<&'a str>,
}

/// A plan's words.
#[derive(Debug, Default, PartialEq, Eq)]
struct Facts {
    from: Option<String>,
    base: Option<String>,
    bad_pages: u64,
    replay: Option<String>,
    writes: Option<String>,
    estimate: Option<String>,
    /// Where it leads, when that is not what was reviewed.
    elsewhere: Option<String>,
    changed: Vec<String>,
    prepared: Vec<String>,
    tablespaces: Vec<String>,
    rests_on_index: bool,
}

#[derive(Template)]
#[template(path = "restore_plan.html")]
struct Part<'a> {
    of: &'a Of<'a>,
    at: i64,
    again: String,
    job: Shown,
    made: Option<Moment>,
    ended: bool,
    facts: Option<Facts>,
    csrf: &'a str,
    key: &'a str,
}

/// The plan that a job makes or made, as a part of the page; `None` when it is of something else than what was reviewed.
///
/// # Errors
/// When there is no such job for whoever asks, or the catalog is away.
pub(super) async fn shown(
    web: &Web,
    visitor: &Visitor,
    of: &Of<'_>,
    id: &str,
    key: &str,
) -> Result<Option<String>, Problem> {
    let now = Utc::now();
    let job = job::one(web, &visitor.who, id).await?;
    if !is_of(&job, of) {
        return Ok(None);
    }
    let facts = job.result.as_deref().filter(|_| job.state == JobState::Succeeded);
    let facts = facts.and_then(|text| serde_json::from_str(text).ok()).map(|said| facts_of(now, &said, of));
    let pairs =
        [("pos", of.position), ("to", of.to), ("store", of.store), ("then", of.then), ("port", of.port)];
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{name}={}", words::escaped(value))).collect();
    let part = render(&Part {
        of,
        at: now.timestamp_millis(),
        again: format!("/databases/{}/restore?{}&plan={id}", of.name, pairs.join("&")),
        made: Moment::maybe(now, job.finished_at),
        ended: job.state.is_ended(),
        job: jobs::shown(now, job),
        facts,
        csrf: &visitor.csrf,
        key,
    })?;
    Ok(Some(part))
}

fn is_of(job: &Job, of: &Of<'_>) -> bool {
    let spec: Option<spec::Plan> = serde_json::from_str(&job.asked.spec).ok();
    let store = (!of.store.is_empty()).then(|| of.store.to_owned());
    job.asked.kind == JobKind::Plan
        && job.asked.database.as_ref() == Some(of.name)
        && spec.is_some_and(|spec| {
            spec.target == spec::Target::Pos(of.position.to_owned()) && spec.history.store == store
        })
}

fn facts_of(now: DateTime<Utc>, said: &Value, of: &Of<'_>) -> Facts {
    let plan = &said["plan"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let bytes = |value: &Value| value.as_u64().map(words::bytes);
    let list = |value: &Value, one: &dyn Fn(&Value) -> Option<String>| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(one).collect()
    };
    let base = &plan["base"];
    let finished = base["finished"].as_str().map(|time| {
        let read = time.parse::<DateTime<Utc>>().ok();
        read.map_or_else(
            || time.to_owned(),
            |time| format!("{}, {}", words::full(time), words::ago(now, time)),
        )
    });
    let resolved = plan["resolved"]["position"].as_str().zip(plan["resolved"]["timeline"].as_u64());
    let resolved = resolved.map(|(offset, timeline)| format!("{timeline}:{offset}"));
    Facts {
        from: text(&said["store"]).map(|store| match said["incarnation"].as_u64() {
            Some(number) => format!("{store}, incarnation {number}"),
            None => store,
        }),
        base: text(&base["id"]).map(|id| {
            let size = bytes(&base["bytes"]).map_or_else(String::new, |size| format!(", {size}"));
            let when = finished.map_or_else(String::new, |when| format!(" of {when}"));
            format!("{id}{when}{size}")
        }),
        bad_pages: base["bad_pages"].as_u64().unwrap_or_default(),
        replay: bytes(&plan["replay_bytes"]),
        writes: bytes(&plan["writes_bytes"]),
        estimate: plan["estimate_seconds"].as_f64().map(words::seconds),
        elsewhere: resolved.filter(|resolved| resolved != of.position),
        changed: list(&plan["neutralised"], &|one| {
            let setting = one["setting"].as_str()?;
            Some(match one["why"].as_str() {
                Some(why) => format!("{setting}: {why}"),
                None => setting.to_owned(),
            })
        }),
        prepared: list(&plan["prepared"], &|one| {
            Some(one["name"].as_str().unwrap_or("a transaction without a name").to_owned())
        }),
        tablespaces: list(&plan["tablespaces"], &|one| text(&one["location"])),
        rests_on_index: plan["rests_on_index"] == true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(name: &DatabaseName) -> Of<'_> {
        Of { name, position: "1:0/258", to: "/srv/r", store: "main", then: "pause", port: "", refused: None }
    }

    #[test]
    fn a_plan_says_what_it_knows_and_where_it_would_lead_elsewhere() {
        let name: DatabaseName = "orders".parse().unwrap();
        let now = DateTime::UNIX_EPOCH;
        let said = json!({"store": "main", "incarnation": 0, "plan": {
            "resolved": {"position": "0/258", "timeline": 1}, "replay_bytes": 1024, "writes_bytes": 1048576,
            "base": {"id": "b1", "finished": "1970-01-01T00:00:00Z", "bytes": 2048, "bad_pages": 3},
            "neutralised": [{"setting": "archive_mode", "why": "the copy archives nothing"}],
            "tablespaces": [{"oid": 1, "location": "/fast"}], "rests_on_index": true}});
        let facts = facts_of(now, &said, &of(&name));
        assert_eq!((facts.replay.as_deref(), facts.writes.as_deref()), (Some("1.0 KiB"), Some("1.0 MiB")));
        assert_eq!((facts.bad_pages, facts.elsewhere, facts.estimate), (3, None, None));
        assert_eq!(facts.tablespaces, ["/fast"]);
        assert_eq!(facts.changed, ["archive_mode: the copy archives nothing"]);
        let other = json!({"plan": {"resolved": {"position": "0/300", "timeline": 1}}});
        assert_eq!(facts_of(now, &other, &of(&name)).elsewhere.as_deref(), Some("1:0/300"));
        assert_eq!(facts_of(now, &json!({}), &of(&name)), Facts::default());
    }
}
