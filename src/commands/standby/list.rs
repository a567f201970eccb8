//! `farshore standby list` and `forget`: the standbys that take a journal for their primary, as their servers last heard of them.
//!
//! What always holds: what nobody says any more is shown as `away`, and a lag that is not known as that.

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_catalog::standby::{Standby, StandbyState};
use farshore_journal::{DatabaseName, Position};
use serde::Serialize;

use crate::cli::standby::{StandbyForgetArgs, StandbyListArgs};
use crate::cli::zone::Zone;
use crate::commands::Context;
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::output::Row;
use crate::wiring;

/// A standby, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct Shown {
    database: DatabaseName,
    standby: String,
    state: StandbyState,
    since: DateTime<Utc>,
    problem: Option<String>,
    incarnation: String,
    /// The end of what its queries see.
    applied: String,
    /// Log that the journal has and it has not replayed, in bytes; null where that is not known now.
    lag_bytes: Option<u64>,
    /// For how long the journal has had it; likewise.
    lag_seconds: Option<f64>,
    /// How old log is at the least when it is sent to it; null: it is sent at once.
    delay_seconds: Option<f64>,
    sent: String,
    flushed: String,
    store: String,
    served_by: String,
    user: String,
    address: String,
    heard_at: DateTime<Utc>,
}

impl Shown {
    fn new(standby: Standby, now: DateTime<Utc>) -> Self {
        let at = |offset| Position::new(standby.timeline, offset).to_string();
        Self {
            state: standby.shown(now),
            since: standby.shown_since(now),
            incarnation: standby.incarnation.to_string(),
            applied: at(standby.applied),
            lag_bytes: standby.lag_bytes(now),
            lag_seconds: standby.lag(now).map(|lag| lag.as_secs_f64()),
            delay_seconds: standby.delay.map(|delay| delay.as_secs_f64()),
            sent: at(standby.sent),
            flushed: at(standby.flushed),
            database: standby.database,
            standby: standby.name,
            problem: standby.problem,
            store: standby.store,
            served_by: standby.node,
            user: standby.login,
            address: standby.address,
            heard_at: standby.heard_at,
        }
    }
}

impl Row for Shown {
    const HEADER: &'static [&'static str] =
        &["DATABASE", "STANDBY", "STATE", "SINCE (UTC)", "APPLIED", "LAG", "BYTES", "STORE", "PROBLEM"];

    fn cells(&self, zone: Zone) -> Vec<String> {
        let known = |text: Option<String>| text.unwrap_or_else(|| "?".to_owned());
        vec![
            self.database.to_string(),
            self.standby.clone(),
            self.state.word().to_owned(),
            zone.show(self.since, SecondsFormat::Secs),
            self.applied.clone(),
            known(self.lag_seconds.map(|seconds| format!("{seconds:.1}s"))),
            known(self.lag_bytes.map(|bytes| bytes.to_string())),
            self.store.clone(),
            self.problem.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }
}

/// Lists them. Ends with 9 when one does not follow.
///
/// # Errors
/// When the catalog does not answer.
pub(super) async fn list(context: &mut Context, args: StandbyListArgs) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let catalog = wiring::catalog(&config).await?;
    let known =
        catalog.standby_list(args.database.as_ref()).await.map_err(|why| wiring::catalog_away(&why))?;
    let now = Utc::now();
    let shown: Vec<Shown> = known.into_iter().map(|standby| Shown::new(standby, now)).collect();
    context.output.list("farshore.standby-list/1", &shown)?;
    Ok(if shown.iter().all(|shown| shown.state.is_sure()) { Exit::Done } else { Exit::Findings })
}

/// Forgets one: what it was served is not remembered any more.
///
/// # Errors
/// When there is none of that name, or the catalog does not answer.
pub(super) async fn forget(context: &mut Context, args: StandbyForgetArgs) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let catalog = wiring::catalog(&config).await?;
    let StandbyForgetArgs { database, standby } = args;
    let forgotten = catalog.standby_forget(&database, &standby).await;
    match forgotten.map_err(|why| wiring::catalog_away(&why))? {
        true => Ok(Exit::Done),
        false => Err(OperatorMessage::new(
            Code::StandbyNotListed,
            format!("no standby of {database} is known as {standby}"),
            Safe::Known("nothing was forgotten".to_owned()),
            format!("`farshore standby list {database}` shows those that are known"),
        )
        .into()),
    }
}
