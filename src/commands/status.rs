//! `farshore status`: what is stored, how far behind it is and how far back it reaches. It reads the catalog.

use std::time::Duration;

use chrono::Utc;
use farshore_catalog::status::DatabaseStatus;
use farshore_journal::DatabaseName;
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
