//! What keeps everything: reasons for which nothing of a database is deleted, whatever its rule says.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use farshore_applier::heads::doubts;
use farshore_applier::retention::facts::{KnownBackup, KnownBackups};
use farshore_applier::retention::{Decision, Facts, Keep};
use farshore_applier::source::Source;
use farshore_catalog::Catalog;
use farshore_catalog::backup::BackupState;
use farshore_catalog::job::{Job, JobFilter, JobId, JobKind, JobState};
use farshore_journal::{BackupId, DatabaseName};

use crate::config::{Config, DatabaseConfig, StoreName};
use crate::heads;
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring;

/// How far the store's newest object may be ahead of this machine's clock.
const AHEAD: TimeDelta = TimeDelta::minutes(5);
/// How long a restore whose process fell silent may go on unseen.
const SILENT: TimeDelta = TimeDelta::days(1);
/// Jobs that are looked through for one that fell silent.
const LOOKED_THROUGH: u32 = 1000;

/// A database that has no rule.
pub fn without_rule(name: &DatabaseName) -> OperatorMessage {
    refused(
        name,
        "it has no rule of retention, so that all of it is kept for ever",
        format!("give it a [databases.{name}.retention] table"),
    )
}

pub(super) fn refused(
    name: &DatabaseName,
    why: impl std::fmt::Display,
    next: impl Into<String>,
) -> OperatorMessage {
    OperatorMessage::new(
        Code::ExpiryRefused,
        format!("nothing more of {name} is deleted: {why}"),
        Safe::Known(
            "all that is not marked, and all that is marked and was not deleted, is restorable as before"
                .to_owned(),
        ),
        next,
    )
}

pub(super) fn unknown(why: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::ExpiryRefused,
        format!("nothing is deleted: what is kept is not known: {why}"),
        Safe::Known("nothing was deleted since".to_owned()),
        "`farshore verify` names what does not read",
    )
}

pub(super) fn failed(name: &DatabaseName, store: &StoreName, why: &anyhow::Error) -> OperatorMessage {
    match why.downcast_ref::<OperatorMessage>() {
        Some(message) => message.clone(),
        None => refused(
            name,
            format!("{store} or the catalog did not do what was asked: {why:#}"),
            "run it again: it goes on where it was",
        ),
    }
}

/// Whether a job may read what would be deleted.
fn is_in_the_way(job: &Job, now: DateTime<Utc>) -> bool {
    // What a later version does may read anything.
    let reads =
        matches!(job.asked.kind, JobKind::Restore | JobKind::Drill | JobKind::Verify | JobKind::Unknown);
    // One that waits looks around itself when it begins.
    let deletes = job.asked.kind == JobKind::Expire && job.state != JobState::Queued;
    // One that nothing was heard of may be cut off from the catalog and go on.
    let may_run = job.silent && now - job.updated_at < SILENT;
    (reads || deletes) && (job.finished_at.is_none() || may_run)
}

async fn jobs(catalog: &Catalog, name: &DatabaseName) -> Result<Vec<Job>, OperatorMessage> {
    let filter = JobFilter { database: Some(name.clone()), unended: false, before: None };
    let mut jobs =
        catalog.job_list(&filter, LOOKED_THROUGH).await.map_err(|why| wiring::catalog_away(&why))?;
    jobs.extend(catalog.job_unended_of(name).await.map_err(|why| wiring::catalog_away(&why))?);
    Ok(jobs)
}

/// Refuses while another job of the database than `own` reads or deletes, and where the catalog does not know that one: another expiry would not see it, and a
/// catalog that was replaced knows nobody else's either.
pub async fn others(
    catalog: &Catalog,
    name: &DatabaseName,
    own: Option<JobId>,
) -> Result<(), OperatorMessage> {
    if let Some(own) = own {
        let known = catalog.job_get(own).await.map_err(|why| wiring::catalog_away(&why))?;
        if known.is_none_or(|job| job.finished_at.is_some()) {
            return Err(refused(name, "the catalog does not know that it is being expired", "run it again"));
        }
    }
    match other(catalog, name, own).await? {
        None => Ok(()),
        Some(job) => Err(refused(
            name,
            format!("the {} {} of it may be under way", job.asked.kind, job.asked.id),
            format!(
                "run it again when `farshore job show {}` says that it ended; one that fell silent counts for a day",
                job.asked.id
            ),
        )),
    }
}

/// Another job than `own` that reads what would be deleted, or deletes.
///
/// # Errors
/// When the catalog is away.
pub async fn other(
    catalog: &Catalog,
    name: &DatabaseName,
    own: Option<JobId>,
) -> Result<Option<Job>, OperatorMessage> {
    let mut jobs = jobs(catalog, name).await?;
    // Where this machine's clock is ahead, a job that fell silent a moment ago would count as over: the catalog's own has a say.
    let now = catalog.clock().await.map_err(|why| wiring::catalog_away(&why))?.min(Utc::now());
    let at = jobs.iter().position(|job| Some(job.asked.id) != own && is_in_the_way(job, now));
    Ok(at.map(|at| jobs.swap_remove(at)))
}

/// Refuses where signed heads speak against a journal.
pub(super) async fn heads_hold(
    config: &Config,
    name: &DatabaseName,
    settings: &DatabaseConfig,
    store: &StoreName,
    sources: &[Source],
) -> Result<(), OperatorMessage> {
    let known = heads::known(config, name, settings, store).await;
    for source in sources {
        let found = doubts(source, &known).await.map_err(|why| failed(name, store, &why.into()))?;
        if !found.is_empty() {
            return Err(refused(
                name,
                format!("its journal in {store} is not what was signed, or that is not known"),
                "`farshore verify` says more",
            ));
        }
    }
    Ok(())
}

/// What the catalog knows of an incarnation's complete backups in a store.
pub(super) struct Known {
    pub(super) backups: KnownBackups,
}

pub(super) async fn backups_known(
    catalog: &Catalog,
    source: &Source,
    store: &StoreName,
) -> Result<Known, OperatorMessage> {
    let backups = catalog.backup_list(source.record().incarnation).await;
    let backups = backups.map_err(|why| wiring::catalog_away(&why))?;
    let of_store = backups
        .into_iter()
        .filter(|backup| backup.store == store.as_str() && backup.state == BackupState::Complete);
    Ok(Known { backups: of_store.map(|backup| (backup.id, KnownBackup::from(&backup))).collect() })
}

impl Known {
    /// Refuses where the catalog and the store name different backups: one of them was read short, or the catalog is of another store.
    pub(super) fn agrees(
        &self,
        name: &DatabaseName,
        store: &StoreName,
        facts: &Facts,
    ) -> Result<(), OperatorMessage> {
        let stored: HashSet<BackupId> = facts.bases.iter().map(|base| base.id).collect();
        // One that does not read is in no catalog that was brought up: it counts for nothing anyway.
        let reads = |id: &BackupId| facts.bases.iter().any(|base| base.id == *id && base.needs.is_some());
        let marked = |id: &BackupId| {
            facts.bases.iter().any(|base| base.id == *id && base.marked.is_some())
                || facts.unfinished.iter().any(|backup| backup.id == *id && backup.marked.is_some())
        };
        let next = "start `farshore run`, which brings the catalog up to the store, or `farshore catalog rebuild`; `farshore verify` says whether the store lost any";
        if let Some(id) = self.backups.keys().find(|id| !stored.contains(id) && !marked(id)) {
            return Err(refused(
                name,
                format!("the catalog knows base backup {id}, and {store} does not have it"),
                next,
            ));
        }
        if let Some(id) = stored.iter().find(|id| !self.backups.contains_key(id) && !marked(id) && reads(id))
        {
            return Err(refused(
                name,
                format!("{store} has base backup {id}, and the catalog does not know it"),
                next,
            ));
        }
        Ok(())
    }
}

/// Refuses where a verification ended since a look began, or may have: it may have found a base bad that the look counts on. `ago`: how long ago it began.
pub(super) async fn verified_since(
    catalog: &Catalog,
    name: &DatabaseName,
    ago: Duration,
) -> Result<(), OperatorMessage> {
    let since = Utc::now() - TimeDelta::from_std(ago).unwrap_or(TimeDelta::MAX);
    let ended =
        |job: &Job| job.asked.kind == JobKind::Verify && job.finished_at.is_some_and(|ended| ended >= since);
    match jobs(catalog, name).await?.iter().find(|job| ended(job)) {
        None => Ok(()),
        Some(job) => Err(refused(
            name,
            format!("verification {} ended while it was looked at what is kept", job.asked.id),
            "run it again",
        )),
    }
}

/// The time by which everything is judged: the store's newest object, and never later than this machine's clock.
pub(super) fn clock(
    name: &DatabaseName,
    store: &StoreName,
    newest: DateTime<Utc>,
    here: DateTime<Utc>,
) -> Result<DateTime<Utc>, OperatorMessage> {
    match newest - here > AHEAD {
        true => Err(refused(
            name,
            format!("{store} has an object of {newest}, and this machine's clock says {here}"),
            "set the clock that is wrong",
        )),
        false => Ok(newest.min(here)),
    }
}

/// Refuses to mark more than half of the base backups at once without a person's word: a rule that was mistyped, or a clock that jumped, looks like that.
pub(super) fn not_too_many(
    name: &DatabaseName,
    store: &StoreName,
    decided: &[(&Source, &Facts, Result<Decision, Keep>)],
    yes: bool,
) -> Result<(), OperatorMessage> {
    let (mut all, mut new) = (0, 0);
    for (_, facts, decision) in decided {
        all += facts.bases.len();
        let Ok(decision) = decision else { continue };
        let unmarked =
            |id: &&BackupId| facts.bases.iter().any(|base| base.id == **id && base.marked.is_none());
        new += decision.backups.iter().filter(unmarked).count();
    }
    match yes || new * 2 <= all {
        true => Ok(()),
        false => Err(refused(
            name,
            format!("{new} of its {all} base backups in {store} would be marked at once, more than half"),
            "look at `farshore backup expire --dry-run`; with `--yes` they are marked",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_whose_clock_is_ahead_of_this_machines_deletes_nothing_and_one_behind_decides() {
        let (name, store) = ("orders".parse().unwrap(), "main".parse().unwrap());
        let here = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        assert!(clock(&name, &store, here + TimeDelta::minutes(6), here).is_err());
        assert_eq!(clock(&name, &store, here + TimeDelta::minutes(4), here).unwrap(), here);
        let idle = here - TimeDelta::days(40);
        assert_eq!(clock(&name, &store, idle, here).unwrap(), idle);
    }
}
