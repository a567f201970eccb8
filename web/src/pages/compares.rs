//! Comparisons of standbys with their primaries: what each came to, one with its tables and the rows that differ, and asking for one.
//!
//! What always holds: only what was compared and is alike is drawn as good; what was not compared says why; a statement that this version cannot read is said to be one.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use chrono::{DateTime, Utc};
use farshore_catalog::access::Role;
use farshore_catalog::compare::{Compare, CompareFilter, Verdict};
use farshore_catalog::job::{JobKind, spec};
use serde::Deserialize;
use serde_json::Value;

use crate::api::compare;
use crate::ask::{self, Key, Work};
use crate::page::Query;
use crate::pages::frame::{self, Page, Part};
use crate::pages::jobs::asking;
use crate::pages::render;
use crate::pages::standing::Level;
use crate::pages::visitor::{Posted, Visitor};
use crate::pages::words::{self, Moment};
use crate::problem::Problem;
use crate::state::Shared;

/// Comparisons that are listed.
const LISTED: u32 = 100;

/// Of which database.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    #[serde(default)]
    database: String,
}

struct Line {
    id: String,
    database: String,
    standby: String,
    level: Level,
    verdict: &'static str,
    began: Moment,
    took: String,
}

/// A table, as it is shown.
struct Table {
    name: String,
    level: Level,
    verdict: &'static str,
    rows: u64,
    /// Why it was not compared, or how much differs.
    said: String,
    /// The rows that differ: how, by which key, and where.
    named: Vec<(String, String, String)>,
}

/// One database of the cluster.
struct Within {
    name: String,
    level: Level,
    verdict: &'static str,
    position: Option<String>,
    reason: Option<String>,
    tables: Vec<Table>,
    /// What was left out, by name or by its nature, with the reason.
    others: Vec<(String, String)>,
}

#[derive(Template)]
#[template(path = "compares.html")]
struct ComparesPage<'a> {
    database: &'a str,
    lines: Vec<Line>,
    operator: bool,
    csrf: &'a str,
    key: String,
    /// The standbys that there are, with their databases.
    standbys: Vec<(String, String)>,
}

#[derive(Template)]
#[template(path = "compare.html")]
struct ComparePage {
    line: Line,
    ended: String,
    reads: bool,
    within: Vec<Within>,
}

const fn level(verdict: Verdict) -> Level {
    match verdict {
        Verdict::Equal => Level::Protected,
        Verdict::NotCompared => Level::Unknown,
        Verdict::Different => Level::Unprotected,
    }
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Equal => "equal",
        Verdict::NotCompared => "not compared",
        Verdict::Different => "different",
    }
}

fn line(now: DateTime<Utc>, compare: &Compare) -> Line {
    Line {
        id: compare.id.to_string(),
        database: compare.database.to_string(),
        standby: compare.standby.clone(),
        level: level(compare.verdict),
        verdict: word(compare.verdict),
        began: Moment::new(now, compare.began),
        took: words::took((compare.ended - compare.began).to_std().unwrap_or_default()),
    }
}

/// All of them, newest first, and the form that asks for one.
///
/// # Errors
/// When the catalog is away.
pub async fn page(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let (now, catalog, database) = (Utc::now(), web.catalog()?, asked.database.trim());
    let sees = |of: &farshore_journal::DatabaseName| {
        visitor.who.sees(of) && (database.is_empty() || of.as_str() == database)
    };
    let own = match database {
        "" => visitor.who.database.clone(),
        named => named.parse().ok(),
    };
    let found = catalog.compare_list(&CompareFilter { database: own, before: None }, LISTED).await?;
    let lines = found.iter().filter(|one| sees(&one.database)).map(|one| line(now, one)).collect();
    let standbys = catalog.standby_list(None).await?.into_iter().filter(|one| sees(&one.database));
    let body = render(&ComparesPage {
        database,
        lines,
        operator: visitor.may(Role::Operator),
        csrf: &visitor.csrf,
        key: Key::mint()?,
        standbys: standbys.map(|one| (one.database.to_string(), one.name)).collect(),
    })?;
    let trail = vec![("/standbys".to_owned(), "Standbys".to_owned())];
    let page = Page { title: "Comparisons".to_owned(), part: Part::Standbys, trail, said: None, body };
    frame::show(&page, &visitor)
}

/// One of them.
///
/// # Errors
/// When there is no such comparison for whoever asks, or the catalog is away.
pub async fn one(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let found = compare::one(&web, &visitor.who, &id).await?;
    let within = serde_json::from_str::<Value>(&found.statement).ok().and_then(|said| read(&said));
    let line = line(Utc::now(), &found);
    let title = format!("Comparison of {}", line.standby);
    let body = render(&ComparePage {
        line,
        ended: words::full(found.ended),
        reads: within.is_some(),
        within: within.unwrap_or_default(),
    })?;
    let trail = vec![
        ("/standbys".to_owned(), "Standbys".to_owned()),
        ("/compares".to_owned(), "Comparisons".to_owned()),
    ];
    frame::show(&Page { title, part: Part::Standbys, trail, said: None, body }, &visitor)
}

/// What a statement says; `None` where this version cannot read it.
fn read(said: &Value) -> Option<Vec<Within>> {
    said["databases"].as_array()?.iter().map(within).collect()
}

fn within(said: &Value) -> Option<Within> {
    let verdict: Verdict = said["verdict"].as_str()?.parse().ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let excluded = said["excluded"].as_array()?.iter();
    let excluded = excluded.filter_map(|name| Some((text(name)?, "it was left out by name".to_owned())));
    let others = said["others"].as_array()?.iter();
    let others = others.filter_map(|other| Some((text(&other["name"])?, text(&other["reason"])?)));
    Some(Within {
        name: text(&said["name"])?,
        level: level(verdict),
        verdict: word(verdict),
        position: text(&said["position"]),
        reason: text(&said["reason"]),
        tables: said["tables"].as_array()?.iter().map(table).collect::<Option<_>>()?,
        others: excluded.chain(others).collect(),
    })
}

fn table(said: &Value) -> Option<Table> {
    let verdict: Verdict = said["verdict"].as_str()?.parse().ok()?;
    let differences = said["differences"].as_u64()?;
    let more = if said["more"].as_bool()? { "more than " } else { "" };
    let text = |value: &Value, otherwise: &str| value.as_str().unwrap_or(otherwise).to_owned();
    let row =
        |row: &Value| (text(&row["kind"], "?"), text(&row["key"], "no key is shown"), text(&row["at"], "?"));
    Some(Table {
        name: said["table"].as_str()?.to_owned(),
        level: level(verdict),
        verdict: word(verdict),
        rows: said["rows"].as_u64()?,
        said: match (said["reason"].as_str(), differences) {
            (Some(reason), _) => reason.to_owned(),
            (None, 0) => String::new(),
            (None, count) => format!("{more}{count} rows differ"),
        },
        named: said["named"].as_array()?.iter().map(row).collect(),
    })
}

/// Asks for one.
///
/// # Errors
/// When there is no such database for whoever asks, what is asked for cannot be one, or the catalog is away.
pub async fn ask(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    form: Posted,
) -> Result<Response, Problem> {
    let key = Key::of_form(&form)?;
    // `DATABASE STANDBY`: neither the one nor the other begins or ends with a space, and the first holds none.
    let both = form.field("of").unwrap_or_default();
    let (database, standby) = both.split_once(' ').unwrap_or((both, ""));
    let standby = Some(standby).filter(|name| !name.is_empty()).map(str::to_owned);
    let spec = compare::wanted(spec::Compare { standby, ..spec::Compare::default() })?;
    let database = ask::database(&web, &visitor.who, database).await?;
    let work = Work { kind: JobKind::Compare, database: &database.name, spec: &spec, node: None };
    Ok(asking::to(ask::put(&web, &visitor.who, key, work, asking::WAY).await?.job))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_statement_is_shown_as_it_is_and_one_that_does_not_read_is_not_shown_as_equal() {
        let said = json!({"databases": [{"name": "app", "verdict": "different", "position": "1:0/30", "tables": [
            {"table": "public.a", "verdict": "equal", "rows": 7, "differences": 0, "more": false, "named": []},
            {"table": "public.b", "verdict": "different", "rows": 7, "differences": 1, "more": false,
             "named": [{"kind": "missing", "at": "(0,3)", "key": "id=3"}]},
            {"table": "public.c", "verdict": "not_compared", "reason": "it is unlogged", "rows": 0, "differences": 0, "more": false, "named": []}],
            "others": [{"name": "public.s", "reason": "a sequence"}], "excluded": ["public.x"]}]});
        let found = read(&said).unwrap();
        let shown: Vec<_> =
            found[0].tables.iter().map(|one| (one.verdict, one.level, one.said.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("equal", Level::Protected, ""),
                ("different", Level::Unprotected, "1 rows differ"),
                ("not compared", Level::Unknown, "it is unlogged")
            ]
        );
        assert_eq!(found[0].tables[1].named, [("missing".to_owned(), "id=3".to_owned(), "(0,3)".to_owned())]);
        assert_eq!(found[0].others.len(), 2);
        for wrong in [json!({}), json!({"databases": [{"name": "app", "verdict": "alike"}]}), json!([])] {
            assert!(read(&wrong).is_none(), "{wrong}");
        }
    }
}
