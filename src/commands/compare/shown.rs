//! A comparison as it is shown.

use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_applier::compare::narrow::Kind;
use farshore_catalog::compare::{Compare, Verdict};
use farshore_journal::{CompareId, DatabaseName};
use serde::Serialize;

use crate::cli::zone::Zone;
use crate::compare::outcome::Came;
use crate::output::Row;

/// All of it, for people.
pub(super) fn text(came: &Came) -> String {
    let mut text = String::new();
    let mut line = |what: &str, value: &str| {
        // A key or a name may hold what a terminal obeys, or looks like another line.
        let value: String = value.chars().flat_map(shown_char).collect();
        let _to_a_string = writeln!(text, "{what:<12} {value}");
    };
    line("compare", &format!("{} of standby {} of {}", came.compare, came.standby, came.database));
    line("verdict", verdict(came.verdict));
    line("by", &format!("{}, farshore {}", came.node, came.version));
    line("began", &came.began.to_rfc3339_opts(SecondsFormat::Millis, true));
    for within in &came.databases {
        let at = within.position.as_deref().map_or_else(String::new, |at| format!(" at {at}"));
        let reason = within.reason.as_deref().map_or_else(String::new, |why| format!(": {why}"));
        line("database", &format!("{}{at} {}{reason}", within.name, verdict(within.verdict)));
        for table in &within.tables {
            let reason = table.reason.as_deref().map_or_else(String::new, |why| format!(": {why}"));
            line(
                "  table",
                &format!("{} {} ({} rows){reason}", table.table, verdict(table.verdict), table.rows),
            );
            for row in &table.named {
                let key = row.key.as_deref().unwrap_or("no key is shown");
                line(kind(row.kind), &format!("{key}, at {}", row.at));
            }
            let unnamed = table.differences.saturating_sub(table.named.len() as u64);
            if table.more || unnamed > 0 {
                line(
                    "    more",
                    &format!(
                        "{unnamed} counted that are not named{}",
                        if table.more { ", and there may be others" } else { "" }
                    ),
                );
            }
        }
        for table in &within.excluded {
            line("  left out", table);
        }
        for other in &within.others {
            line("  not rows", &format!("{}: {}", other.name, other.reason));
        }
    }
    for shut in &came.shut {
        line("database", &format!("{}: not looked at: {}", shut.name, shut.reason));
    }
    text
}

/// A character as it is, or as Rust writes it where it is none to be seen.
fn shown_char(character: char) -> impl Iterator<Item = char> {
    let (plain, escaped) = match character.is_control() {
        true => (None, Some(character.escape_default())),
        false => (Some(character), None),
    };
    plain.into_iter().chain(escaped.into_iter().flatten())
}

const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Equal => "equal",
        Verdict::Different => "DIFFERENT",
        Verdict::NotCompared => "NOT COMPARED",
    }
}

const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Changed => "    changed",
        Kind::Missing => "    missing",
        Kind::Extra => "    extra",
    }
}

/// One in a list.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    compare: CompareId,
    database: DatabaseName,
    standby: String,
    verdict: Verdict,
    began: DateTime<Utc>,
    ended: DateTime<Utc>,
}

impl Listed {
    pub(super) fn of(compare: &Compare) -> Self {
        Self {
            compare: compare.id,
            database: compare.database.clone(),
            standby: compare.standby.clone(),
            verdict: compare.verdict,
            began: compare.began,
            ended: compare.ended,
        }
    }
}

impl Row for Listed {
    const HEADER: &'static [&'static str] =
        &["COMPARE", "DATABASE", "STANDBY", "BEGAN (UTC)", "TOOK", "VERDICT"];

    fn cells(&self, zone: Zone) -> Vec<String> {
        let took = (self.ended - self.began).num_milliseconds();
        vec![
            self.compare.to_string(),
            self.database.to_string(),
            self.standby.clone(),
            zone.show(self.began, SecondsFormat::Secs),
            format!("{}.{} s", took / 1000, took % 1000 / 100),
            verdict(self.verdict).to_owned(),
        ]
    }
}
