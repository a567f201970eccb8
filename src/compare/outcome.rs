//! What a comparison came to: its words, its record, and what it is for whoever asked.
//!
//! What always holds: `equal` is said of what was compared and is alike, and of all only where nothing was left out but by name; no value of a row stands here but keys.

use chrono::{DateTime, Utc};
use farshore_applier::compare::narrow::Kind;
use farshore_catalog::Catalog;
use farshore_catalog::compare::{Compare, Verdict};
use farshore_engines::postgres::sql::compare::NotRows;
use farshore_journal::{CompareId, DatabaseName};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};

/// A row that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// How.
    pub kind: Kind,
    /// Its place, as `(block,number)`.
    pub at: String,
    /// Its key, of a table that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCame {
    /// Its name, as `schema.table`.
    pub table: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Why, where it was not compared or differs as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Rows of the primary that were compared.
    pub rows: u64,
    /// The length of their texts.
    pub bytes: u64,
    /// Rows that differ, as far as they were counted.
    pub differences: u64,
    /// Whether there are more than were counted.
    pub more: bool,
    /// The first of them.
    pub named: Vec<Named>,
}

impl TableCame {
    /// One that was not compared.
    pub fn not(table: String, reason: impl Into<String>) -> Self {
        Self::of(table, Verdict::NotCompared, Some(reason.into()))
    }

    /// One of which nothing was counted.
    pub fn of(table: String, verdict: Verdict, reason: Option<String>) -> Self {
        let (rows, bytes, differences, more, named) = (0, 0, 0, false, Vec::new());
        Self { table, verdict, reason, rows, bytes, differences, more, named }
    }
}

/// One database of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithinCame {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Why none of it was compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The position at which both sides were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// Snapshots that were taken until one had a cut.
    pub snapshots: u32,
    /// For how long the primary's snapshot was open, in microseconds.
    pub open_us: u64,
    /// Its tables.
    pub tables: Vec<TableCame>,
    /// What was not compared by its nature.
    pub others: Vec<NotRows>,
    /// Tables that were left out by name.
    pub excluded: Vec<String>,
}

impl WithinCame {
    /// One of which nothing was compared.
    pub fn not(name: &str, reason: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            verdict: Verdict::NotCompared,
            reason: Some(reason.into()),
            position: None,
            snapshots: 0,
            open_us: 0,
            tables: Vec::new(),
            others: Vec::new(),
            excluded: Vec::new(),
        }
    }
}

/// A comparison, as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Came {
    /// Its id.
    pub compare: CompareId,
    /// The database.
    pub database: DatabaseName,
    /// The standby.
    pub standby: String,
    /// Who did it.
    pub node: String,
    /// With which version.
    pub version: String,
    /// When it began.
    pub began: DateTime<Utc>,
    /// When it was over.
    pub ended: DateTime<Utc>,
    /// How it ended.
    pub verdict: Verdict,
    /// The databases of the cluster.
    pub databases: Vec<WithinCame>,
    /// Databases that were not looked at, with the reason.
    pub shut: Vec<NotRows>,
}

/// What parts come to together: something that differs is known to, whatever else is not; and nothing at all is not equal.
pub fn together(parts: impl IntoIterator<Item = Verdict>) -> Verdict {
    parts.into_iter().max().unwrap_or(Verdict::NotCompared)
}

impl Came {
    /// Rows that differ, as far as they were counted, and whether there are more.
    pub fn differences(&self) -> (u64, bool) {
        let tables = || self.databases.iter().flat_map(|within| &within.tables);
        (tables().map(|table| table.differences).sum(), tables().any(|table| table.more))
    }

    /// How the run ends.
    pub fn exit(&self) -> Exit {
        match self.verdict {
            Verdict::Equal => Exit::Done,
            Verdict::Different => Exit::Findings,
            Verdict::NotCompared => Exit::Partial,
        }
    }

    /// What it is for whoever has to act; `None` where all is alike.
    pub fn message(&self) -> Option<OperatorMessage> {
        let Self { database, standby, compare, .. } = self;
        let at: Vec<&str> = self.databases.iter().filter_map(|one| one.position.as_deref()).collect();
        let at = if at.is_empty() { String::new() } else { format!(" at {}", at.join(", ")) };
        let tables = |verdict| {
            let of = |within: &WithinCame| {
                let name = within.name.clone();
                let found = within.tables.iter().filter(move |table| table.verdict == verdict);
                found.map(move |table| format!("{name}.{}", table.table)).collect::<Vec<_>>()
            };
            let all: Vec<String> = self.databases.iter().flat_map(of).collect();
            match all.len() {
                0..=5 => all.join(", "),
                more => format!("{} and {} more", all[..5].join(", "), more - 5),
            }
        };
        match self.verdict {
            Verdict::Equal => None,
            Verdict::Different => {
                let (rows, more) = self.differences();
                let rows = if more { format!("more than {rows}") } else { rows.to_string() };
                Some(OperatorMessage::new(
                    Code::CompareDifferent,
                    format!(
                        "standby {standby} of {database} differs from its primary{at}: {rows} rows in {}",
                        tables(Verdict::Different)
                    ),
                    Safe::Known("nothing was changed on either side; backups and the journal are not what was compared".to_owned()),
                    format!("do not promote it; `farshore compare show {compare}` names the rows; make the standby anew, and look for what wrote to it or lost a write"),
                ))
            }
            Verdict::NotCompared => {
                let reason = self.databases.iter().find_map(|within| within.reason.clone());
                let reason = reason.unwrap_or_else(|| match tables(Verdict::NotCompared) {
                    none if none.is_empty() => "databases could not be looked at".to_owned(),
                    tables => tables,
                });
                Some(OperatorMessage::new(
                    Code::CompareIncomplete,
                    format!("standby {standby} of {database} was not compared whole: {reason}"),
                    Safe::Unknown("what was compared is alike, and the rest may differ".to_owned()),
                    format!(
                        "`farshore compare show {compare}` gives each reason; mend it, or leave a table out by name with `compare.exclude`"
                    ),
                ))
            }
        }
    }

    /// The same without any key: what names rows by their places alone.
    fn without_keys(&self) -> Self {
        let mut bare = self.clone();
        let tables = bare.databases.iter_mut().flat_map(|within| &mut within.tables);
        for row in tables.flat_map(|table| &mut table.named) {
            row.key = None;
        }
        bare
    }

    /// Records it, with the keys of rows or without.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn record(&self, catalog: &Catalog, with_keys: bool) -> farshore_catalog::Result<()> {
        let kept = if with_keys { self.clone() } else { self.without_keys() };
        let row = Compare {
            id: self.compare,
            database: self.database.clone(),
            standby: self.standby.clone(),
            verdict: self.verdict,
            began: self.began,
            ended: self.ended,
            // Strings, numbers and lists of them: there is nothing that could not be written.
            statement: serde_json::to_string(&kept).unwrap_or_default(),
        };
        catalog.compare_put(&row).await
    }
}

/// What came of comparisons, as their job's result.
///
/// # Errors
/// The worst of what is not as it should be.
pub fn result(all: &[Came]) -> Result<String, OperatorMessage> {
    let worst = all.iter().max_by_key(|came| came.verdict);
    match worst.and_then(Came::message) {
        Some(message) => Err(message),
        None => {
            let one = |came: &Came| json!({ "compare": came.compare, "standby": came.standby, "verdict": came.verdict.word() });
            Ok(json!({ "compares": all.iter().map(one).collect::<Vec<_>>() }).to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_compared_is_not_equal_and_what_differs_outweighs_what_is_not_known() {
        use Verdict::{Different, Equal, NotCompared};
        assert_eq!(together([]), NotCompared);
        assert_eq!(together([Equal, Equal]), Equal);
        assert_eq!(together([Equal, NotCompared]), NotCompared);
        assert_eq!(together([Different, NotCompared, Equal]), Different);
    }
}
