//! The service's part: claims what it may do, does it, and watches over those who do jobs.
//!
//! What always holds: at most `AT_ONCE` jobs at a time, and of a kind one for a database; databases take turns, however much waits of one; a job that names another node is left to it, and so is work
//! that this version does not know. A service that ends gives back what may be begun anew and says of the rest that it was interrupted. The
//! catalog being away stops no claim that is in hand, and nobody is called silent meanwhile. What a command did is left to whoever typed it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use farshore_catalog::Catalog;
use farshore_catalog::job::{Holder, Job, JobId, JobKind, JobState, Via};
use farshore_catalog::node::{Node, ROLES};
use farshore_journal::DatabaseName;
use farshore_shipper::progress::PipelineState;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::held::{Held, Patience, json};
use super::schedule::Answered;
use super::silence::{Seen, Silence};
use super::work::{self, Means};
use super::{KEPT, silent, this_process};
use crate::base_backups::Streams;
use crate::chronicles::damage::Shared;
use crate::config::{Config, DatabaseConfig, EngineConfig};
use crate::expire::guard;
use crate::socket::Shown;

/// Jobs at a time: two base backups read as fast as most disks do.
const AT_ONCE: usize = 2;
/// How often the queue is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Looks between two heartbeats of the node, and between two times that old jobs are forgotten.
const HEARTBEAT_LOOKS: u32 = 5;
const FORGETTING_LOOKS: u32 = 3600;
/// How often work that may be begun anew is.
const MOST_ATTEMPTS: u64 = 3;

/// What two jobs must not do at a time.
type Key = (JobKind, Option<DatabaseName>);

/// Does jobs until cancelled.
pub struct Runner {
    config: Arc<Config>,
    catalog: Catalog,
    streams: Streams,
    activity: Shared,
    shown: Shown,
    me: Holder,
    silence: Silence,
    answered: Answered,
    doing: JoinSet<()>,
    keys: HashMap<tokio::task::Id, (JobId, Key)>,
}

impl Runner {
    /// Of this process, with the streams of what it ships and how that stands.
    pub fn new(config: Arc<Config>, catalog: Catalog, streams: Streams, shown: Shown) -> Self {
        let (silence, answered, activity) = (Silence::default(), Answered::default(), Shared::default());
        let (doing, keys) = (JoinSet::new(), HashMap::new());
        let me = this_process();
        Self { config, catalog, streams, activity, shown, me, silence, answered, doing, keys }
    }

    /// Runs until cancelled; what it does then is given back or said to be interrupted before it returns.
    pub async fn run(mut self, cancel: CancellationToken) {
        farshore_shipper::crash::prepare();
        let started = Utc::now();
        let mut looks = 0;
        loop {
            // A catalog that does not answer holds up no end: a claim that was just made and is not heard of falls silent.
            tokio::select! {
                () = cancel.cancelled() => {}
                () = Box::pin(self.look(looks, started, &cancel)) => {}
            }
            looks = looks.wrapping_add(1);
            let next = tokio::time::sleep(LOOK);
            tokio::pin!(next);
            loop {
                tokio::select! {
                    () = cancel.cancelled() => {
                        while let Some(ended) = self.doing.join_next_with_id().await {
                            self.ended(ended);
                        }
                        return;
                    }
                    () = &mut next => break,
                    Some(ended) = self.doing.join_next_with_id() => self.ended(ended),
                }
            }
        }
    }

    /// Looks once at what there is to do and to watch.
    async fn look(&mut self, looks: u32, started: chrono::DateTime<Utc>, cancel: &CancellationToken) {
        if looks.is_multiple_of(HEARTBEAT_LOOKS) {
            self.heartbeat(started).await;
        }
        // Not at once: a machine's clock may be wrong until it has asked for the time, and what is forgotten does not come back.
        if looks > 0
            && looks.is_multiple_of(FORGETTING_LOOKS)
            && let Err(why) = self.catalog.job_forget(Utc::now() - KEPT).await
        {
            tracing::debug!(error = %why, "old jobs are not forgotten");
        }
        match self.catalog.job_held().await {
            Ok(held) => self.watch(&held).await,
            Err(why) => return tracing::debug!(error = %why, "the queue of jobs cannot be looked at"),
        }
        if let Err(why) = self.answered.answer(&self.config, &self.catalog).await {
            tracing::debug!(error = %why, "what is due by schedule cannot be asked for");
        }
        if self.doing.len() >= AT_ONCE {
            return;
        }
        match self.catalog.job_next(&self.me.node).await {
            Ok(next) => self.claim(&next, cancel).await,
            Err(why) => tracing::debug!(error = %why, "the queue of jobs cannot be looked at"),
        }
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(why) => {
                // Its claim falls silent, and is drawn the consequence of like any other's.
                tracing::error!(error = %why, "a job broke off: this is a fault in farshore");
                why.id()
            }
        };
        self.keys.remove(&id);
    }

    async fn heartbeat(&self, started_at: chrono::DateTime<Utc>) {
        let node = Node {
            name: self.me.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            roles: roles(&self.config),
            started_at,
            heartbeat_at: Utc::now(),
        };
        if let Err(why) = self.catalog.node_put(&node).await {
            tracing::debug!(error = %why, "the node's heartbeat is not recorded");
        }
    }

    /// Draws the consequence from silence.
    async fn watch(&mut self, jobs: &[Job]) {
        // What is being done here speaks as soon as the catalog lets it.
        let mine = |job: &&Job| !self.keys.values().any(|(id, _)| *id == job.asked.id);
        let held: Vec<&Job> = jobs.iter().filter(|job| job.state.is_held()).filter(mine).collect();
        let seen = held.iter().map(|job| (job.asked.id, job.attempt, job.beat));
        for claim in self.silence.look(Instant::now(), seen) {
            let Some(job) = jobs.iter().find(|job| job.asked.id == claim.0) else { continue };
            self.fell_silent(job, claim).await;
        }
    }

    async fn fell_silent(&self, job: &Job, claim: Seen) {
        let kind = job.asked.kind;
        if kind == JobKind::Unknown {
            // A later version knows what its silence means.
            return;
        }
        let again = is_done_again(job);
        let problem = (!again).then(|| json(&silent(kind, job.holder.as_ref())));
        match self.catalog.job_silent(claim, problem.as_deref(), Utc::now()).await {
            Ok(true) => {
                let node = job.holder.as_ref().map(|holder| holder.node.clone()).unwrap_or_default();
                tracing::warn!(job = %job.asked.id, kind = %kind, node, again, "nothing is heard of who does this job");
            }
            Ok(false) => {}
            Err(why) => tracing::debug!(job = %job.asked.id, error = %why, "its silence is not recorded"),
        }
    }

    async fn claim(&mut self, jobs: &[Job], cancel: &CancellationToken) {
        for job in jobs {
            if self.doing.len() >= AT_ONCE || cancel.is_cancelled() {
                return;
            }
            let has_rule = |database: &DatabaseName| {
                self.config.databases.get(database).map(|settings| settings.retention.is_some())
            };
            if !may_do(job, (&self.me.node, self.config.service.expire), has_rule)
                || self.keys.values().any(|(_, key)| *key == key_of(job))
                || !self.has_stream(job)
                || !self.keeps_apart(job).await
            {
                continue;
            }
            let claim = match self.catalog.job_claim(job.asked.id, &self.me, Utc::now()).await {
                Ok(Some(claim)) => claim,
                // Another was quicker.
                Ok(None) => continue,
                Err(why) => {
                    tracing::debug!(job = %job.asked.id, error = %why, "a job cannot be claimed");
                    return;
                }
            };
            let catalog = Some(self.catalog.clone());
            let held = Held::new(catalog, (claim, job.asked.kind), Patience::Service, cancel);
            let means = Means {
                config: Arc::clone(&self.config),
                catalog: self.catalog.clone(),
                streams: self.streams.clone(),
                activity: self.activity.clone(),
            };
            let task = self.doing.spawn(work::does(means, job.clone(), held));
            self.keys.insert(task.id(), (job.asked.id, key_of(job)));
        }
    }

    /// Whether an expiry and what reads what it would delete keep apart: it waits for that, where a command would be refused, and what reads waits for one that is
    /// under way here.
    async fn keeps_apart(&self, job: &Job) -> bool {
        let Some(database) = &job.asked.database else { return true };
        let doing = |kinds: &[JobKind]| {
            self.keys.values().any(|(_, (kind, of))| kinds.contains(kind) && of.as_ref() == Some(database))
        };
        match job.asked.kind {
            JobKind::Verify | JobKind::Drill => !doing(&[JobKind::Expire]),
            // Of what is done here it is known, also where another catalog was put in this one's place.
            JobKind::Expire if doing(&[JobKind::Verify, JobKind::Drill, JobKind::Restore]) => false,
            JobKind::Expire => match guard::other(&self.catalog, database, Some(job.asked.id)).await {
                Ok(None) => true,
                Ok(Some(other)) => {
                    tracing::debug!(job = %job.asked.id, database = %database, waits_for = %other.asked.id, "an expiry waits for what reads");
                    false
                }
                Err(why) => {
                    tracing::warn!(job = %job.asked.id, database = %database, "an expiry waits: {why}");
                    false
                }
            },
            _ => true,
        }
    }

    /// Whether the stream is here that a copy of the database comes in, where it comes in one.
    fn has_stream(&self, job: &Job) -> bool {
        let Some(database) = &job.asked.database else { return true };
        let comes_in_stream =
            |settings: &DatabaseConfig| matches!(settings.engine, EngineConfig::Sqlite { .. });
        if job.asked.kind != JobKind::Backup
            || !self.config.databases.get(database).is_some_and(comes_in_stream)
        {
            return true;
        }
        let shipped = self.shown.iter().find(|(name, _)| name == database);
        shipped.is_some_and(|(_, targets)| {
            targets.borrow().iter().any(|target| target.state == PipelineState::Connected)
        })
    }
}

/// What this process does: it has jobs.
fn roles(config: &Config) -> Vec<String> {
    let service = &config.service;
    let does = [
        !config.databases.is_empty(),
        true,
        !service.restore_roots.is_empty(),
        service.expire,
        config.serve.is_some(),
    ];
    ROLES.into_iter().zip(does).filter(|(_, does)| *does).map(|(role, _)| role.to_owned()).collect()
}

/// Whether a job whose holder is silent is begun anew: not what somebody typed, who sees that it ended, and nothing that was to end.
fn is_done_again(job: &Job) -> bool {
    job.asked.kind.is_repeatable()
        && job.asked.via != Via::Command
        && job.state == JobState::Running
        && job.attempt < MOST_ATTEMPTS
}

fn key_of(job: &Job) -> Key {
    (job.asked.kind, job.asked.database.clone())
}

/// Whether a node may do a job: whether it may delete, and of a database that is in its configuration whether that has a rule of retention.
fn may_do(
    job: &Job,
    (node, expires): (&str, bool),
    has_rule: impl Fn(&DatabaseName) -> Option<bool>,
) -> bool {
    let wanted = job.asked.wanted_node.as_deref().is_none_or(|wanted| wanted == node);
    let Some(has_rule) = job.asked.database.as_ref().and_then(has_rule) else { return false };
    // What is written to a machine is asked of that machine.
    let is_placed = job.asked.kind != JobKind::Restore || job.asked.wanted_node.is_some();
    let may = match job.asked.kind {
        JobKind::Expire => expires,
        JobKind::Preview => has_rule,
        _ => true,
    };
    job.state == JobState::Queued && wanted && is_placed && may && work::is_known(job.asked.kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::jobs::spec;

    fn job(kind: JobKind, database: &str) -> Job {
        Job {
            asked: spec::asked(kind, Some(&database.parse().unwrap()), &spec::Verify {}),
            asked_at: Utc::now(),
            state: JobState::Queued,
            attempt: 0,
            holder: None,
            beat: 0,
            silent: false,
            progress: farshore_catalog::job::JobProgress::default(),
            started_at: None,
            finished_at: None,
            updated_at: Utc::now(),
            cancel: None,
            result: None,
            problem: None,
        }
    }

    #[test]
    fn a_node_does_what_it_knows_of_databases_that_it_has_and_leaves_the_rest() {
        let rules: BTreeMap<DatabaseName, bool> =
            BTreeMap::from([("orders".parse().unwrap(), true), ("billing".parse().unwrap(), false)]);
        let has_rule = |database: &DatabaseName| rules.get(database).copied();
        let may = |job: &Job| may_do(job, ("oslo-1", false), has_rule);
        let backup = job(JobKind::Backup, "orders");
        assert!(may(&backup));
        assert!(!may(&job(JobKind::Backup, "others")));
        assert!(!may(&job(JobKind::Unknown, "orders")));
        // To delete is to be allowed.
        let expire = job(JobKind::Expire, "orders");
        assert!(!may(&expire) && may_do(&expire, ("oslo-1", true), has_rule));
        // What would go is said by whoever knows the rule.
        assert!(may(&job(JobKind::Preview, "orders")) && !may(&job(JobKind::Preview, "billing")));
        let mut elsewhere = backup.clone();
        elsewhere.asked.wanted_node = Some("oslo-2".to_owned());
        assert!(!may(&elsewhere));
        elsewhere.asked.wanted_node = Some("oslo-1".to_owned());
        assert!(may(&elsewhere));
        let running = Job { state: JobState::Running, ..backup };
        assert!(!may(&running));
    }

    #[test]
    fn what_a_command_did_and_what_was_to_end_is_done_again_by_nobody() {
        let running = |via, kind| {
            let mut job = job(kind, "orders");
            job.asked.via = via;
            Job { state: JobState::Running, attempt: 1, ..job }
        };
        assert!(is_done_again(&running(Via::Api, JobKind::Backup)));
        assert!(is_done_again(&running(Via::Schedule, JobKind::Verify)));
        assert!(!is_done_again(&running(Via::Command, JobKind::Backup)));
        assert!(!is_done_again(&running(Via::Api, JobKind::Restore)));
        let cancelling = Job { state: JobState::Cancelling, ..running(Via::Api, JobKind::Backup) };
        assert!(!is_done_again(&cancelling));
        let often = Job { attempt: 3, ..running(Via::Api, JobKind::Backup) };
        assert!(!is_done_again(&often));
    }
}
