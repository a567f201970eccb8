//! Which incarnation a target means, where none was named.
//!
//! What always holds: a number that several incarnations hold is never resolved in one of them by chance. Positions and a SQLite
//! database's transactions are counted anew in each; those of a PostgreSQL cluster are where one was refused and shipped anew.

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_applier::held::holds;
use farshore_applier::plan::{Asked, PlanError, Resolved, resolve};
use farshore_applier::source::Source;
use farshore_journal::{DatabaseName, IncarnationId, Position};

use crate::config::Config;
use crate::message::{Code, OperatorMessage, Safe};
use crate::{sources, wiring};

/// Refuses a position or a transaction that the newest incarnation of a store holds and an earlier one does too.
///
/// # Errors
/// With that refusal; when a journal does not read.
pub(super) async fn only_one(
    config: &Config,
    name: &DatabaseName,
    source: &Source,
    store: &str,
    asked: &Asked,
) -> anyhow::Result<()> {
    if !matches!(asked, Asked::Position(_) | Asked::Transaction(_)) {
        return Ok(());
    }
    let all = sources::all(config, name, &store.parse().map_err(anyhow::Error::msg)?).await?;
    if all.len() < 2 {
        return Ok(());
    }
    let mut held = Vec::new();
    for one in &all {
        let away = |why| super::unreachable(name, &why, None);
        let found = match holds(one, asked).await.map_err(away)? {
            Some(found) => found,
            None => catalog_has(config, one.record().incarnation, asked).await,
        };
        if found {
            held.push(one.record().number);
        }
    }
    match held.as_slice() {
        [_, _, ..] if held.contains(&source.record().number) => {
            Err(several(name, store, asked, &held).into())
        }
        _ => Ok(()),
    }
}

/// Whether the catalog, where it answers, knows a transaction of an incarnation: a cluster's numbers are looked up there, or all its log
/// would have to be read.
async fn catalog_has(config: &Config, incarnation: IncarnationId, asked: &Asked) -> bool {
    let Asked::Transaction(xid) = asked else { return false };
    let Ok(catalog) = wiring::catalog(config).await else { return false };
    catalog.commit_by_xid(incarnation, *xid).await.is_ok_and(|commits| !commits.is_empty())
}

fn several(name: &DatabaseName, store: &str, asked: &Asked, held: &[u64]) -> OperatorMessage {
    let numbers = listed(held, "and");
    let flags: Vec<String> = held.iter().map(|number| format!("--incarnation {number}")).collect();
    OperatorMessage::new(
        Code::RestoreUnreachable,
        format!(
            "{asked} is in incarnations {numbers} of {name} in the store {store}, and is something else in each"
        ),
        Safe::Known("nothing was written".to_owned()),
        format!("add {}; `farshore points list {name}` shows what each holds", flags.join(" or ")),
    )
}

/// Numbers as a person says them.
fn listed(numbers: &[u64], last: &str) -> String {
    match numbers {
        [] => String::new(),
        [only] => only.to_string(),
        [before @ .., end] => {
            let before: Vec<String> = before.iter().map(u64::to_string).collect();
            format!("{} {last} {end}", before.join(", "))
        }
    }
}

/// An earlier incarnation that can do what the newest one cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    /// It holds the target.
    Holds(u64),
    /// It is the newest that can be restored at all, up to here.
    Reaches {
        /// Its number.
        number: u64,
        /// The newest incarnation's.
        newest: u64,
        /// The time of the last commit that it reaches.
        time: Option<DateTime<Utc>>,
        /// That commit.
        transaction: Option<u64>,
        /// Its last restorable position.
        position: Position,
    },
}

impl Elsewhere {
    /// What a person is to do.
    pub(super) fn what_to_do(&self, name: &DatabaseName) -> String {
        match self {
            Self::Holds(number) => {
                format!("incarnation {number}, which came before, holds it: add --incarnation {number}")
            }
            Self::Reaches { number, newest, time, transaction, position } => {
                let time = time.map(|time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
                let to = time.unwrap_or_else(|| position.to_string());
                let last = transaction.map_or_else(String::new, |number| format!(" (transaction {number})"));
                format!(
                    "--incarnation {number} reaches to {to}{last}; or wait for the first backup of incarnation {newest}, which \
                     `farshore run` takes by itself and `farshore backup list {name}` shows"
                )
            }
        }
    }
}

/// The newest incarnation before `source`'s that can be restored to the target; or as far as it goes, where the newest has no base yet
/// and its end was asked for.
pub(super) async fn elsewhere(
    config: &Config,
    name: &DatabaseName,
    source: &Source,
    store: &str,
    asked: &Asked,
    why: &PlanError,
) -> Option<Elsewhere> {
    let is_end = matches!(asked, Asked::Latest);
    if is_end && !matches!(why, PlanError::NoBase { .. }) {
        return None;
    }
    let newest = source.record().number;
    let all = sources::all(config, name, &store.parse().ok()?).await.ok()?;
    for earlier in all.iter().rev().skip_while(|earlier| earlier.record().number >= newest) {
        // A journal that surely does not hold it need not be read.
        if holds(earlier, asked).await.ok()? == Some(false) {
            continue;
        }
        let Ok(plan) = Box::pin(resolve(earlier, asked.clone())).await else { continue };
        let number = earlier.record().number;
        let Resolved { time, xid, position, timeline, .. } = plan.resolved;
        return Some(match is_end {
            false => Elsewhere::Holds(number),
            true => Elsewhere::Reaches {
                number,
                newest,
                time,
                transaction: xid,
                position: Position::new(timeline, position),
            },
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_journal::{Offset, Timeline};

    #[test]
    fn a_number_that_several_incarnations_hold_is_refused_with_all_of_them_named() {
        let orders: DatabaseName = "orders".parse().unwrap();
        let said = several(&orders, "main", &Asked::Transaction(5), &[0, 1, 3]).to_string();
        assert!(
            said.contains("transaction 5 is in incarnations 0, 1 and 3 of orders in the store main"),
            "{said}"
        );
        assert!(said.contains("add --incarnation 0 or --incarnation 1 or --incarnation 3;"), "{said}");
    }

    #[test]
    fn how_far_an_earlier_incarnation_reaches_is_said_as_a_time_where_it_has_one() {
        let orders: DatabaseName = "orders".parse().unwrap();
        let reaches = |time: Option<&str>, transaction| Elsewhere::Reaches {
            number: 1,
            newest: 2,
            time: time.map(|time| time.parse().unwrap()),
            transaction,
            position: Position::new(Timeline::new(1), Offset::new(0xA28C)),
        };
        let said = reaches(Some("2026-03-29T19:03:30Z"), Some(4)).what_to_do(&orders);
        assert!(said.starts_with("--incarnation 1 reaches to 2026-03-29T19:03:30Z (transaction 4); or wait for the first backup of incarnation 2"), "{said}");
        assert!(reaches(None, None).what_to_do(&orders).starts_with("--incarnation 1 reaches to 1:0/A28C; "));
    }
}
