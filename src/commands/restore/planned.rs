//! A restore from its target to a copy that stands there: the same whether a command or a service does it.
//!
//! What always holds: the history is held against signed heads before it is planned, and planned before a byte is written; a plan that the journal's
//! index misled is made anew from the log alone, once. What was stopped midway is marked as interrupted.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use farshore_applier::plan::{Asked, Plan, resolve};
use farshore_applier::restore::{self, Phase, Progress, RestoreError, RestoreOptions, Restored, Watcher};
use farshore_applier::source::Source;
use farshore_catalog::Catalog;
use farshore_catalog::job::JobProgress;
use farshore_journal::{DatabaseName, IncarnationId, Position, Timeline};
use farshore_shipper::crash_point;
use tokio::sync::watch;

use super::incarnations::{elsewhere, only_one};
use super::{hold_against_heads, may_be_misled, unreachable};
use crate::cli::History;
use crate::cli::restore::Target;
use crate::config::{Config, DatabaseConfig};
use crate::jobs::BEAT;
use crate::jobs::held::Reporter;
use crate::sources;

/// The history that a restore reads.
pub(crate) struct Chosen {
    /// The journal.
    pub(crate) source: Source,
    /// The store that it is in.
    pub(crate) store: String,
    /// What is to be said of the other stores.
    remarks: Vec<String>,
    asked: Asked,
    /// Whether its incarnation was named.
    named: bool,
}

impl Chosen {
    /// The one that is asked for, held against signed heads.
    ///
    /// # Errors
    /// When no store has it, or what was signed speaks against it.
    pub(crate) async fn open(
        config: &Config,
        (name, settings): (&DatabaseName, &DatabaseConfig),
        target: &Target,
        history: &History,
    ) -> anyhow::Result<Self> {
        let (held, remarks) = match target {
            Target::Latest => Box::pin(sources::for_latest(config, name, history)).await?,
            _ => (sources::chosen(config, name, history).await?, Vec::new()),
        };
        let (source, store) = (held.source, held.store);
        let named = history.incarnation.is_some();
        hold_against_heads(config, name, settings, &source, &store, target, named).await?;
        Ok(Self { source, store, remarks, asked: super::asked(target), named })
    }

    /// Its plan.
    ///
    /// # Errors
    /// When the target cannot be reached, or several incarnations hold it.
    pub(crate) async fn planned(self, config: &Config, name: &DatabaseName) -> anyhow::Result<Planned> {
        let Self { source, store, remarks, asked, named } = self;
        if !named {
            only_one(config, name, &source, &store, &asked).await?;
        }
        let plan = match Box::pin(resolve(&source, asked.clone())).await {
            Ok(plan) => plan,
            Err(why) if !named => {
                let elsewhere = Box::pin(elsewhere(config, name, &source, &store, &asked, &why)).await;
                return Err(unreachable(name, &why, elsewhere).into());
            }
            Err(why) => return Err(unreachable(name, &why, None).into()),
        };
        Ok(Planned { source, store, remarks, asked, plan })
    }
}

/// A restore that can be done.
pub(crate) struct Planned {
    /// The journal.
    pub(crate) source: Source,
    /// The store that it is in.
    pub(crate) store: String,
    /// What is to be said of the other stores.
    pub(crate) remarks: Vec<String>,
    asked: Asked,
    /// What is done.
    pub(crate) plan: Plan,
}

impl Planned {
    /// Does it, and says how far it is: in the log's own time where the catalog, if it answers, knows the commits.
    ///
    /// # Errors
    /// [`RestoreError`]: what was written is marked as interrupted.
    pub(crate) async fn followed(
        &mut self,
        options: &mut RestoreOptions,
        catalog: Option<&Catalog>,
        reporter: &Reporter,
    ) -> Result<Restored, RestoreError> {
        let (tell, told) = watch::channel(None);
        let watcher: Watcher = Arc::new(move |progress: Progress| {
            match progress.phase {
                Phase::Copying => crash_point!("restore-copying"),
                Phase::Synchronising => crash_point!("restore-synchronising"),
                Phase::Replaying => crash_point!("restore-replaying"),
                Phase::Opening => crash_point!("restore-opening"),
            }
            tracing::debug!(phase = ?progress.phase, done_bytes = progress.done_bytes, total_bytes = progress.total_bytes,
                eta_seconds = progress.eta_seconds, log = progress.log.map(|log| log.to_string()), "restoring");
            tell.send_replace(Some(progress));
        });
        let line = (self.plan.incarnation, self.plan.resolved.timeline);
        tokio::select! {
            done = self.run(options, &watcher) => done,
            never = Box::pin(reports(told, line, catalog, reporter)) => match never {},
        }
    }

    /// Does it. The plan is afterwards the one that was done.
    ///
    /// # Errors
    /// [`RestoreError`]: what was written is marked as interrupted.
    async fn run(
        &mut self,
        options: &mut RestoreOptions,
        watcher: &Watcher,
    ) -> Result<Restored, RestoreError> {
        loop {
            let done = Box::pin(restore::run(&self.source, &self.plan, options, watcher.clone())).await;
            match done {
                // The journal's index led to a plan that its log does not bear out: what was written goes, and the log alone is asked.
                Err(why) if self.source.asks_index() && may_be_misled(&why, &self.plan) => {
                    tracing::warn!(
                        error = %why,
                        "the journal's index may have led to another plan than its log does: the restore begins anew, planned from the log alone; `farshore verify` names what is bad"
                    );
                    self.source = self.source.clone().without_index();
                    // What was written so far is there still: the next try, or whoever reads the refusal, is told.
                    self.plan = Box::pin(resolve(&self.source, self.asked.clone())).await?;
                    options.resume = true;
                }
                done => return done,
            }
        }
    }
}

/// Says how far it is, once a second.
async fn reports(
    mut told: watch::Receiver<Option<Progress>>,
    (incarnation, timeline): (IncarnationId, Timeline),
    catalog: Option<&Catalog>,
    reporter: &Reporter,
) -> Infallible {
    loop {
        if told.changed().await.is_err() {
            return std::future::pending().await;
        }
        let Some(progress) = *told.borrow_and_update() else { continue };
        let at = progress.log.map(|log| Position::new(timeline, log));
        let log_time = match (catalog, at) {
            // Unknown rather than guessed, whatever keeps it from being known.
            (Some(catalog), Some(at)) => {
                catalog.commit_at(incarnation, timeline, at).await.ok().flatten().map(|commit| commit.time)
            }
            _ => None,
        };
        reporter.say(progress_of(&progress, log_time));
        tokio::time::sleep(BEAT).await;
    }
}

/// How far a restore is.
pub(crate) fn progress_of(progress: &Progress, log_time: Option<DateTime<Utc>>) -> JobProgress {
    let phase = match progress.phase {
        Phase::Copying => "bringing files and log into place",
        Phase::Synchronising => "making them durable",
        Phase::Replaying => "replaying the log",
        Phase::Opening => "opening",
    };
    JobProgress {
        phase: Some(phase.to_owned()),
        done_bytes: Some(progress.done_bytes),
        total_bytes: Some(progress.total_bytes),
        log_time,
        eta: progress.eta_seconds.and_then(|eta| Duration::try_from_secs_f64(eta).ok()),
    }
}
