//! `farshore status`: what is stored, how far behind it is and how far back it reaches. It reads the catalog.

mod protected;
mod spooled;

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_catalog::guard::Guard;
use farshore_catalog::lag::{self, ShownState};
use farshore_catalog::spool::Spool;
use farshore_catalog::status::{DatabaseStatus, Former};
use farshore_journal::{DatabaseName, Position};
use serde::Serialize;

use crate::cli::StatusArgs;
use crate::cli::zone::Zone;
use crate::commands::{self, Context};
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::output::Row;
use crate::wiring;
use protected::Protected;
use spooled::Spooled;

/// How often `--watch` looks anew.
const WATCH: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    status: DatabaseStatus,
    /// The objective for what may be lost.
    rpo_seconds: Option<f64>,
    /// Whether more than that is not stored; null when there is no objective, or it is not known: what was committed before the last
    /// word of the service may have been stored since.
    rpo_breached: Option<bool>,
    /// Whether commits wait until they are stored, where they are to; null elsewhere.
    guard: Option<Protected>,
    /// How its spool stands; null where it has none.
    spool: Option<Spooled>,
    #[serde(skip)]
    now: DateTime<Utc>,
}

impl Shown {
    fn new(
        status: DatabaseStatus,
        rpo: Option<Duration>,
        (guard, is_guarded): (Option<&Guard>, bool),
        spool: Option<&Spool>,
        now: DateTime<Utc>,
    ) -> Self {
        let rpo_seconds = rpo.map(|rpo| rpo.as_secs_f64());
        let rpo_breached =
            lag::breached(now, status.state, status.measured_at, status.ship_lag_seconds, rpo_seconds);
        let guard = guard.map(|guard| Protected::new(guard, is_guarded, now));
        let spool = spool.map(|spool| Spooled::new(spool, now));
        Self { status, rpo_seconds, rpo_breached, guard, spool, now }
    }

    /// What this says of a run: a breached objective, or commits that do not wait as they should, before a state that is not known, or in which nothing is shipped any more.
    fn exit(&self) -> Exit {
        let ships = match self.status.state {
            ShownState::Unknown => false,
            ShownState::Known(state) => !state.is_stopped(),
        };
        let protected = self.guard.as_ref().map(Protected::holds);
        match (self.rpo_breached, protected, ships) {
            (Some(true), ..) | (_, Some(Some(false)), _) => Exit::Breached,
            (_, _, false) | (_, Some(None), _) => Exit::Findings,
            (_, _, true) => Exit::Done,
        }
    }
}

/// How a run ends that showed these.
fn worst(shown: &[Shown]) -> Exit {
    let ends: Vec<Exit> = shown.iter().map(Shown::exit).collect();
    let has = |exit| ends.contains(&exit);
    if has(Exit::Breached) {
        Exit::Breached
    } else if has(Exit::Findings) {
        Exit::Findings
    } else {
        Exit::Done
    }
}

/// How long ago something was, for people.
fn ago(now: DateTime<Utc>, then: DateTime<Utc>) -> String {
    let seconds = (now - then).num_seconds();
    match seconds {
        ..0 => "in the future".to_owned(),
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

impl Row for Shown {
    const HEADER: &'static [&'static str] =
        &["DATABASE", "ENGINE", "STATE", "SEEN", "TL", "STORED", "LAG", "WINDOW (UTC)", "GAPS", "BACKUPS"];

    fn cells(&self, zone: Zone) -> Vec<String> {
        let json = serde_json::to_value(&self.status).unwrap_or_default();
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::Null => "?".to_owned(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let lag = match (&json["ship_lag_bytes"], &json["ship_lag_seconds"]) {
            (serde_json::Value::Null, _) => "unknown".to_owned(),
            (bytes, seconds) => format!("{} B, {} s", text(bytes), text(seconds)),
        };
        let span = self.status.window.as_ref().map_or_else(
            || "none".to_owned(),
            |window| {
                let from = edge(zone, window.from_time, window.from_position);
                format!("{from} → {} in {}", edge(zone, window.to_time, window.to_position), window.store)
            },
        );
        let gaps =
            self.status.window.iter().flat_map(|window| &window.gaps).filter(|gap| gap.is_loss).count();
        let backups = &json["backups"];
        vec![
            text(&json["database"]),
            text(&json["engine"]),
            text(&json["state"]),
            self.status.seen_at.map_or_else(|| "never".to_owned(), |seen| ago(self.now, seen)),
            text(&json["timeline"]),
            text(&json["stored"]),
            lag,
            span,
            gaps.to_string(),
            text(&backups["count"]),
        ]
    }

    fn below(&self, zone: Zone) -> Vec<String> {
        let Self { status, rpo_seconds, rpo_breached, guard, spool, .. } = self;
        let name = &status.database;
        let mut lines: Vec<String> = status.why.iter().map(|why| format!("{name} why: {why}")).collect();
        if let (Some(true), Some(rpo), Some(lag)) = (rpo_breached, rpo_seconds, status.ship_lag_seconds) {
            lines.push(format!(
                "{name} rpo: commits of the last {lag} s are not stored; the objective is {rpo} s"
            ));
        }
        lines.extend(guard.iter().map(|guard| format!("{name} protection: {}", guard.line(zone))));
        lines.extend(spool.iter().filter_map(Spooled::line).map(|line| format!("{name} spool: {line}")));
        lines.extend(before(zone, name, &status.former));
        lines
    }
}

/// Former incarnations that are named in the table; the others are counted.
const FORMER_NAMED: usize = 5;

/// What the incarnations before the current one reach, newest first.
fn before(zone: Zone, database: &DatabaseName, former: &[Former]) -> Vec<String> {
    let restorable = former.iter().rev().filter_map(|former| Some((former, former.window.as_ref()?)));
    let mut lines: Vec<String> = restorable
        .map(|(former, window)| {
            let from = edge(zone, window.from_time, window.from_position);
            let to = edge(zone, window.to_time, window.to_position);
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

/// One end of a window: its time where it is known, else its position.
fn edge(zone: Zone, time: Option<DateTime<Utc>>, position: Position) -> String {
    time.map_or_else(|| position.to_string(), |time| zone.show(time, SecondsFormat::AutoSi))
}

/// Runs it. Ends with 8 when an objective is breached, with 9 when it is not known how a database stands or nothing is shipped any more.
///
/// # Errors
/// When the catalog is away, or a database was never shipped.
pub async fn run(context: &mut Context, args: StatusArgs) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let asked = commands::databases(&config, args.database.as_ref())?;
    let asked: Vec<(DatabaseName, Option<Duration>, bool)> = asked
        .into_iter()
        .map(|(name, settings)| {
            (name.clone(), settings.rpo.map(|rpo| rpo.get()), settings.protection.guarded().is_some())
        })
        .collect();
    let catalog = wiring::catalog(&config).await?;
    loop {
        let mut shown = Vec::with_capacity(asked.len());
        let guards = catalog.guard_list().await.map_err(|why| wiring::catalog_away(&why))?;
        let spools = catalog.spool_list().await.map_err(|why| wiring::catalog_away(&why))?;
        for (name, rpo, is_guarded) in &asked {
            let now = Utc::now();
            let status = catalog.status(name, now).await.map_err(|why| unknown(name, &why))?;
            let guard = guards.iter().find(|guard| guard.database == *name);
            let spool = spools.iter().find(|spool| spool.database == *name);
            shown.push(Shown::new(status, *rpo, (guard, *is_guarded), spool, now));
        }
        context.output.list("farshore.status/1", &shown)?;
        if !args.watch {
            return Ok(worst(&shown));
        }
        if context.output.is_closed() {
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
    use farshore_catalog::shipping::ShippingState;
    use farshore_catalog::status::{Backups, Primary, SCHEMA, Window};
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
        let said = before(
            Zone::UTC,
            &orders,
            &[former(0, true, true), former(1, true, false), former(2, false, true)],
        );
        assert_eq!(
            said,
            [
                "orders before: incarnation 2, 1:0/20 to 1:0/900 in main (restore with --incarnation 2)",
                "orders before: incarnation 0, 2026-03-29T18:45:16Z to 2026-03-29T18:57:22Z in main (restore with --incarnation 0)",
            ]
        );
        let many: Vec<Former> = (0..9).map(|number| former(number, true, true)).collect();
        let said = before(Zone::UTC, &orders, &many);
        assert_eq!(said.len(), FORMER_NAMED + 1);
        assert!(said[0].contains("incarnation 8") && said[FORMER_NAMED].contains("4 more"), "{said:?}");
    }

    fn status(state: ShownState, lag: Option<f64>, why: Option<&str>) -> DatabaseStatus {
        DatabaseStatus {
            schema: SCHEMA,
            database: "orders".parse().unwrap(),
            engine: "sqlite".to_owned(),
            state,
            seen_at: Some(at(100)),
            measured_at: Some(at(111)),
            why: why.map(str::to_owned),
            incarnation: None,
            incarnation_number: None,
            present: Vec::new(),
            timeline: None,
            received: None,
            stored: None,
            reported: None,
            released: None,
            ship_lag_bytes: None,
            ship_lag_seconds: lag,
            unseen: false,
            window: None,
            former: Vec::new(),
            backups: Backups::default(),
            targets: Vec::new(),
            primary: Primary { retained_bytes: None, seconds_to_full: None },
        }
    }

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    #[test]
    fn a_breached_objective_ends_with_8_and_what_is_not_known_or_not_shipped_with_9() {
        let known = ShownState::Known;
        let second = Some(Duration::from_secs(1));
        for (state, lag, rpo, code) in [
            (known(ShippingState::Connected), Some(0.0), second, 0),
            (known(ShippingState::Connected), Some(2.5), second, 8),
            (known(ShippingState::Connected), Some(2.5), None, 0),
            // It was half a second when the service spoke last, a second ago.
            (known(ShippingState::Connected), Some(1.5), second, 0),
            (known(ShippingState::Connected), None, second, 0),
            (known(ShippingState::Failed), None, second, 9),
            (known(ShippingState::Fenced), None, None, 9),
            (ShownState::Unknown, None, second, 9),
            // What is not stored grows old, whoever is silent.
            (ShownState::Unknown, Some(42.5), second, 8),
        ] {
            let shown = Shown::new(status(state, lag, None), rpo, (None, false), None, at(112));
            assert_eq!(shown.exit().code(), code, "{} {lag:?} {rpo:?}", state.word());
        }
        let breached = |lag| {
            Shown::new(
                status(known(ShippingState::Connected), Some(lag), None),
                second,
                (None, false),
                None,
                at(112),
            )
            .rpo_breached
        };
        assert_eq!([breached(0.9), breached(1.5), breached(2.5)], [Some(false), None, Some(true)]);
        let all = |states: &[ShownState]| {
            let shown: Vec<Shown> = states
                .iter()
                .map(|state| Shown::new(status(*state, None, None), None, (None, false), None, at(112)))
                .collect();
            worst(&shown).code()
        };
        assert_eq!(all(&[known(ShippingState::Connected), ShownState::Unknown]), 9);
        assert_eq!(all(&[]), 0);
    }

    #[test]
    fn a_person_is_told_when_a_service_last_wrote_and_why_nothing_is_known() {
        let shown = Shown::new(
            status(ShownState::Unknown, Some(42.5), Some("it is away")),
            Some(Duration::from_secs(10)),
            (None, false),
            None,
            at(112),
        );
        assert_eq!(shown.cells(Zone::UTC)[3], "12 s ago");
        assert_eq!(
            shown.below(Zone::UTC),
            [
                "orders why: it is away",
                "orders rpo: commits of the last 42.5 s are not stored; the objective is 10 s"
            ]
        );
        for (then, said) in [
            (101, "in the future"),
            (0, "100 s ago"),
            (-3600, "61 min ago"),
            (-9000, "2 h ago"),
            (-200_000, "2 d ago"),
        ] {
            assert_eq!(ago(at(100), at(then)), said);
        }
    }
}
