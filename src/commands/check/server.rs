//! Asks every host of a database's URL what `check` judges.
//!
//! What always holds: nothing is written and no slot is touched; a question that was not answered leaves `None`; every
//! wait has the deadline of the session or the connection.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use farshore_engines::postgres::restore::bin;
use farshore_engines::postgres::restore::control::Major;
use farshore_engines::postgres::sql::{Session, SlotState, WalStatus};
use farshore_engines::postgres::wire::{ConnectParams, Connection, Error, Host, SlotName};
use farshore_journal::DatabaseName;
use farshore_shipper::{guard, slots};
use tokio::time::Instant;

use crate::check::CheckFacts;
use crate::check::connection::{Cause, Refusal};
use crate::check::facts::{ClockDifference, HostFacts, KeepFound, NotAsked, RoleFacts, SlotFacts};
use crate::config::{DatabaseConfig, EngineConfig};
use crate::wiring;

/// Where the server's files are on this machine, proved to be its own.
pub(super) struct DataDirectory {
    /// `pg_wal`.
    wal: PathBuf,
    /// The file systems of the data directory and of `pg_wal`.
    pub(super) devices: [u64; 2],
}

/// Fills in what the servers tell. Gives the place of the server's files when it is this machine.
pub(super) async fn ask(
    name: &DatabaseName,
    settings: &DatabaseConfig,
    facts: &mut CheckFacts,
) -> Option<DataDirectory> {
    let params = match wiring::connect_params(name, settings) {
        Ok(params) => params,
        Err(why) => {
            facts.not_asked = Some(NotAsked { why: why.happened, mend: why.next });
            return None;
        }
    };
    facts.wanted.user = params.user().to_owned();
    facts.wanted.sql_database = params.database().to_owned();
    let mut answered: Option<(Session, &Host)> = None;
    for host in params.hosts() {
        let (found, session) = ask_host(&params, host, slots::keep(name).ok().as_ref()).await;
        // The primary, wherever it stands in the URL; without one, whoever answered first.
        let better = match &answered {
            None => true,
            Some(_) => facts.in_recovery != Some(false) && found.in_recovery == Some(false),
        };
        if let Some(session) = session
            && better
        {
            facts.in_recovery = found.in_recovery;
            facts.cluster = found.cluster;
            answered = Some((session, host));
        }
        // A server of another major answers no more than its version.
        if let Some(Err(Refusal { cause: Cause::Version(Some(major)), .. })) = &found.sql
            && answered.is_none()
        {
            facts.server_version = Some(major.saturating_mul(10_000));
        }
        facts.hosts.push(found);
    }
    let (session, host) = answered?;
    ask_primary(&session, name, settings, facts).await;
    facts.restore_programs = restore_programs(settings, session.server_version().major).await;
    let directory = facts.settings.as_ref()?.get("data_directory").map(PathBuf::from)?;
    let cluster = facts.cluster?;
    let found = tokio::task::spawn_blocking(move || data_directory(&directory, cluster)).await.ok().flatten();
    facts.wal_free_bytes = found.as_ref().and_then(|found| super::free_bytes(&found.wal));
    tracing::debug!(host = %host, here = found.is_some(), "the server's files were looked for on this machine");
    found
}

async fn ask_host(
    params: &ConnectParams,
    host: &Host,
    keep: Option<&SlotName>,
) -> (HostFacts, Option<Session>) {
    let mut facts = HostFacts { name: host.to_string(), ..HostFacts::default() };
    let session = match Session::connect(params, host).await {
        Ok(session) => {
            facts.sql = Some(Ok(()));
            facts.in_recovery = told("whether it recovers", session.in_recovery().await);
            facts.encrypted = told("whether it is encrypted", session.encrypted().await);
            if let Some(keep) = keep {
                facts.keep = told("its keep slot", session.slot_get(keep).await).map(|slot| match slot {
                    None => KeepFound::Missing,
                    Some(slot) if slot.is_lost() || slot.restart.is_none() => KeepFound::Lost,
                    Some(_) => KeepFound::Keeps,
                });
            }
            Some(session)
        }
        Err(why) => {
            facts.sql = Some(Err(Refusal::of(&why)));
            None
        }
    };
    facts.replication = Some(match Connection::connect(params, host).await {
        Ok(mut connection) => {
            facts.encrypted = Some(connection.is_tls());
            facts.cluster =
                told("its identity", connection.identify_system().await).map(|id| id.system_identifier);
            connection.close().await;
            Ok(())
        }
        Err(why) => Err(Refusal::of(&why)),
    });
    facts.encrypted = facts.encrypted.map(|encrypted| encrypted || host.is_local());
    (facts, session)
}

/// An answer, or `None`: what a server does not tell is not known, and shows as that.
fn told<T>(what: &str, answer: Result<T, Error>) -> Option<T> {
    answer.inspect_err(|why| tracing::debug!(error = %why, "the server did not tell {what}")).ok()
}

async fn ask_primary(
    session: &Session,
    name: &DatabaseName,
    settings: &DatabaseConfig,
    facts: &mut CheckFacts,
) {
    facts.settings = told("its settings", session.settings_all().await);
    if settings.protection.guarded().is_some() {
        facts.guard = told(
            "whether a guard is there",
            session.is_locked_by(&guard::session_name(name), guard::LOCK).await,
        );
    }
    facts.server_version =
        facts.settings.as_ref().and_then(|all| all.get("server_version_num")?.parse().ok());
    facts.role = told("the role's rights", session.role_rights().await).map(|rights| RoleFacts {
        name: rights.role,
        superuser: Some(rights.superuser),
        replication: Some(rights.replication),
        reads_settings: Some(rights.read_all_settings),
        reads_stats: Some(rights.monitor),
        marks_points: Some(rights.create_restore_point),
    });
    if let Some(all) = told("its slots", session.slot_list().await) {
        take_slots(&all, &slot_names(name, settings), facts);
    }
    facts.clock_difference = clock(session).await;
}

/// The keep slot, and a live slot for each store.
fn slot_names(name: &DatabaseName, settings: &DatabaseConfig) -> Vec<SlotName> {
    let live = settings.stores.iter().map(|store| slots::live(name, store.as_str()));
    std::iter::once(slots::keep(name)).chain(live).filter_map(Result::ok).collect()
}

fn take_slots(all: &[SlotState], names: &[SlotName], facts: &mut CheckFacts) {
    let ours = |name: &SlotName| all.iter().find(|slot| slot.name == *name);
    facts.slots_used = u32::try_from(all.len()).ok();
    facts.slots_missing = names.iter().filter(|name| ours(name).is_none()).map(SlotName::to_string).collect();
    let found: Vec<&SlotState> = names.iter().filter_map(ours).collect();
    facts.retained_bytes = Some(found.iter().filter_map(|slot| slot.retained_bytes).max().unwrap_or(0));
    facts.slots = Some(found.into_iter().map(slot_facts).collect());
}

fn slot_facts(slot: &SlotState) -> SlotFacts {
    let status = match slot.wal_status {
        _ if slot.is_lost() => Some("lost"),
        Some(WalStatus::Reserved) => Some("reserved"),
        Some(WalStatus::Extended) => Some("extended"),
        Some(WalStatus::Unreserved) => Some("unreserved"),
        Some(WalStatus::Lost) => Some("lost"),
        None => None,
    };
    SlotFacts {
        name: slot.name.to_string(),
        physical: slot.physical,
        temporary: slot.temporary,
        wal_status: status.map(str::to_owned),
        reserves: slot.restart.is_some(),
    }
}

/// The server's clock against ours, halfway between question and answer.
async fn clock(session: &Session) -> Option<ClockDifference> {
    let (before, began) = (Utc::now(), Instant::now());
    let server = told("its clock", session.now().await)?;
    Some(difference(before, server, began.elapsed()))
}

fn difference(before: DateTime<Utc>, server: DateTime<Utc>, round_trip: Duration) -> ClockDifference {
    let error = round_trip / 2;
    let halfway = chrono::TimeDelta::from_std(error).ok().and_then(|half| before.checked_add_signed(half));
    let apart = server.signed_duration_since(halfway.unwrap_or(before)).abs();
    ClockDifference { size: apart.to_std().unwrap_or(Duration::MAX), error }
}

async fn restore_programs(settings: &DatabaseConfig, major: u32) -> Option<bool> {
    let EngineConfig::Postgres { bin_dir, .. } = &settings.engine else { return None };
    let found = bin::find(bin_dir.as_deref(), Major::new(major)?).await;
    Some(found.inspect_err(|why| tracing::debug!(error = %why, "no programs for a restore")).is_ok())
}

/// The server's data directory, if it lies on this machine and may be read. A path of that name is no proof: a server
/// in a container has its own. The cluster's number in its control file is.
///
/// Source: `pg_control.h` of PostgreSQL: the file begins with the 64-bit system identifier, in the machine's order.
fn data_directory(path: &Path, cluster: u64) -> Option<DataDirectory> {
    use std::io::Read;
    let mut identifier = [0; 8];
    std::fs::File::open(path.join("global/pg_control")).ok()?.read_exact(&mut identifier).ok()?;
    if u64::from_ne_bytes(identifier) != cluster {
        return None;
    }
    let wal = path.join("pg_wal");
    let devices = [path.metadata().ok()?.dev(), wal.metadata().ok()?.dev()];
    Some(DataDirectory { wal, devices })
}

/// Where the log of a server lies that is proved to be on this machine.
pub(super) fn wal_directory(path: &Path, cluster: u64) -> Option<PathBuf> {
    data_directory(path, cluster).map(|found| found.wal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_compared_halfway_between_question_and_answer() {
        let before = DateTime::from_timestamp(1_000, 0).unwrap();
        let server = DateTime::from_timestamp(1_003, 0).unwrap();
        let apart = difference(before, server, Duration::from_secs(2));
        assert_eq!(apart, ClockDifference { size: Duration::from_secs(2), error: Duration::from_secs(1) });
    }

    #[test]
    fn a_data_directory_of_another_cluster_is_not_taken_for_the_servers() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("global")).unwrap();
        std::fs::create_dir(folder.path().join("pg_wal")).unwrap();
        std::fs::write(folder.path().join("global/pg_control"), 7_u64.to_ne_bytes()).unwrap();
        assert!(data_directory(folder.path(), 7).is_some());
        assert!(data_directory(folder.path(), 8).is_none());
    }
}
