//! `farshore status`: what is stored, how far behind it is and how far back it reaches. It reads the catalog.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_catalog::status::{DatabaseStatus, Former};
use farshore_journal::{DatabaseName, Position};
use serde::Serialize;

use crate::cli::StatusArgs;
use crate::commands::{self, Context};
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::output::Row;
use crate::wiring;

/// How often `--watch` looks anew.
const WATCH: Duration = Duration::from_secs(1);

#[derive(Serialize)]
#[serde(transparent)]
struct Shown(DatabaseStatus);

impl Row for Shown {
    const HEADER: &'static [&'static str] =
        &["DATABASE", "ENGINE", "STATE", "TL", "STORED", "LAG", "WINDOW (UTC)", "GAPS", "BACKUPS"];

    fn cells(&self) -> Vec<String> {
        let json = serde_json::to_value(&self.0).unwrap_or_default();
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::Null => "?".to_owned(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let lag = match (&json["ship_lag_bytes"], &json["ship_lag_seconds"]) {
            (serde_json::Value::Null, _) => "unknown".to_owned(),
            (bytes, seconds) => format!("{} B, {} s", text(bytes), text(seconds)),
        };
        let window = &json["window"];
        let span = match window["from_time"].is_null() && window["from_position"].is_null() {
            true => "none".to_owned(),
            false => {
                format!("{} → {} in {}", edge(window, "from"), edge(window, "to"), text(&window["store"]))
            }
        };
        let gaps = window["gaps"].as_array().map_or(0, Vec::len);
        let backups = &json["backups"];
        vec![
            text(&json["database"]),
            text(&json["engine"]),
            text(&json["state"]),
            text(&json["timeline"]),
            text(&json["stored"]),
            lag,
            span,
            gaps.to_string(),
            text(&backups["count"]),
        ]
    }

    fn below(&self) -> Vec<String> {
        before(&self.0.database, &self.0.former)
    }
}

/// Former incarnations that are named in the table; the others are counted.
const FORMER_NAMED: usize = 5;

/// What the incarnations before the current one reach, newest first.
fn before(database: &DatabaseName, former: &[Former]) -> Vec<String> {
    let restorable = former.iter().rev().filter_map(|former| Some((former, former.window.as_ref()?)));
    let mut lines: Vec<String> = restorable
        .map(|(former, window)| {
            let edge = |time: Option<DateTime<Utc>>, position: Position| match time {
                Some(time) => time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
                None => position.to_string(),
            };
            let from = edge(window.from_time, window.from_position);
            let to = edge(window.to_time, window.to_position);
            let named = former.number.map_or_else(|| former.incarnation.to_string(), |number| number.to_string());
            format!(
                "{database} before: incarnation {named}, {from} to {to} in {} (restore with --incarnation {named})",
                window.store
            )
        })
        .collect();
    let more = lines.len().saturating_sub(FORMER_NAMED);
    if more > 0 {
        lines.truncate(FORMER_NAMED);
        lines.push(format!(
            "{database} before: {more} more incarnations that can be restored; -o json lists them"
        ));
    }
    lines
}

/// One end of the window: its time where it is known, else its position.
fn edge(window: &serde_json::Value, end: &str) -> String {
    let time = window[format!("{end}_time")].as_str();
    let position = window[format!("{end}_position")].as_str();
    time.or(position).unwrap_or("?").to_owned()
}

/// Runs it.
///
/// # Errors
/// When the catalog is away, or a database was never shipped.
pub async fn run(context: &mut Context, args: StatusArgs) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let asked = commands::databases(&config, args.database.as_ref())?;
    let names: Vec<DatabaseName> = asked.into_iter().map(|(name, _)| name.clone()).collect();
    let catalog = wiring::catalog(&config).await?;
    loop {
        let mut shown = Vec::with_capacity(names.len());
        for name in &names {
            let status = catalog.status(name, Utc::now()).await.map_err(|why| unknown(name, &why))?;
            shown.push(Shown(status));
        }
        context.output.list("farshore.status/1", &shown)?;
        if !args.watch || context.output.is_closed() {
            return Ok(Exit::Done);
        }
        tokio::select! {
            () = context.cancel.cancelled() => return Ok(Exit::Done),
            () = tokio::time::sleep(WATCH) => {}
        }
    }
}

fn unknown(name: &DatabaseName, why: &farshore_catalog::Error) -> OperatorMessage {
    OperatorMessage::new(
        Code::StatusUnknown,
        format!("the catalog cannot say how {name} stands: {why}"),
        Safe::Unknown("the stores were not looked at".to_owned()),
        format!("start `farshore run`, or `farshore catalog rebuild`, then `farshore status {name}`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_catalog::status::Window;
    use farshore_journal::{IncarnationId, Offset, Timeline};

    fn former(number: u8, times: bool, restorable: bool) -> Former {
        let at = |offset| Position::new(Timeline::new(1), Offset::new(offset));
        let time = |text: &str| times.then(|| text.parse().unwrap());
        let window = Window {
            store: "main".to_owned(),
            from_time: time("2026-03-29T18:45:16Z"),
            to_time: time("2026-03-29T18:57:22Z"),
            from_position: at(0x20),
            to_position: at(0x900),
            gaps: Vec::new(),
        };
        let incarnation = IncarnationId::from_bytes([number; 16]);
        Former { incarnation, number: Some(number.into()), window: restorable.then_some(window) }
    }

    #[test]
    fn what_former_incarnations_reach_is_said_newest_first_and_never_of_one_that_reaches_nothing() {
        let orders: DatabaseName = "orders".parse().unwrap();
        let said = before(&orders, &[former(0, true, true), former(1, true, false), former(2, false, true)]);
        assert_eq!(
            said,
            [
                "orders before: incarnation 2, 1:0/20 to 1:0/900 in main (restore with --incarnation 2)",
                "orders before: incarnation 0, 2026-03-29T18:45:16Z to 2026-03-29T18:57:22Z in main (restore with --incarnation 0)",
            ]
        );
        let many: Vec<Former> = (0..9).map(|number| former(number, true, true)).collect();
        let said = before(&orders, &many);
        assert_eq!(said.len(), FORMER_NAMED + 1);
        assert!(said[0].contains("incarnation 8") && said[FORMER_NAMED].contains("4 more"), "{said:?}");
    }
}
