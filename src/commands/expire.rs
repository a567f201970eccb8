//! `farshore backup expire`: marks base backups and log that no rule keeps, and deletes what was marked a grace ago and is kept by nothing still. It takes the
//! configuration of a credential that may delete, which the shipper's need not.
//!
//! What always holds: nothing is deleted while the catalog is away, while it and the store name different backups, while a restore or a drill of the database may run, or on the word
//! of a look that is older than `FRESH`. Cut off anywhere, the next run goes on. `journal/FORMAT.md` section 13 argues it.

mod guard;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use farshore_applier::retention::facts::{self, FactsError};
use farshore_applier::retention::{Decision, Facts, Rule, decide, due};
use farshore_applier::source::Source;
use farshore_catalog::Catalog;
use farshore_catalog::job::JobKind;
use farshore_journal::expiry::{self, Deleted, Marking};
use farshore_journal::moment::Moment;
use farshore_journal::{DatabaseName, Sequence};
use serde::Serialize;
use serde_json::json;

use crate::cli::ExpireArgs;
use crate::cli::zone::Zone;
use crate::commands::{self, Context};
use crate::config::quantity::ByteCount;
use crate::config::{Config, DatabaseConfig, StoreName};
use crate::exit::Exit;
use crate::jobs::{record, spec};
use crate::message::OperatorMessage;
use crate::output::Row;
use crate::rebuild;
use crate::sources;
use crate::wiring::{self, Purpose};

/// How old a look at holds, backups and jobs may be when something is deleted on its word.
const FRESH: Duration = Duration::from_secs(600);

/// One incarnation in one store, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct Shown {
    database: DatabaseName,
    store: String,
    incarnation: u64,
    dry_run: bool,
    /// Base backups that stay, each with why.
    kept: Vec<(String, &'static str)>,
    /// Marked now, or that would be: base backups, and stretches of log.
    marked_backups: usize,
    marked_stretches: usize,
    /// Marked before, and not yet for the whole grace, or still needed by a backup that is.
    waiting: usize,
    /// Deleted, or that would be.
    deleted_backups: usize,
    deleted: Deleted,
    /// Why nothing goes.
    refused: Option<String>,
}

impl Row for Shown {
    const HEADER: &'static [&'static str] = &[
        "DATABASE",
        "STORE",
        "INC",
        "KEPT",
        "MARKED",
        "WAITING",
        "DELETED",
        "OBJECTS",
        "FREED",
        "NOTHING GOES BECAUSE",
    ];

    fn cells(&self, _zone: Zone) -> Vec<String> {
        let would = if self.dry_run { " (would be)" } else { "" };
        vec![
            self.database.to_string(),
            self.store.clone(),
            self.incarnation.to_string(),
            self.kept.len().to_string(),
            format!("{} + {} of log{would}", self.marked_backups, self.marked_stretches),
            self.waiting.to_string(),
            format!("{}{would}", self.deleted_backups),
            self.deleted.objects.to_string(),
            ByteCount::new(self.deleted.bytes).to_string(),
            self.refused.clone().unwrap_or_default(),
        ]
    }
}

/// Runs it. Ends with 4 when nothing may go of a database that has a rule.
///
/// # Errors
/// When the catalog or a store does not answer, or the credential may not delete.
pub async fn run(context: &mut Context, config: &Config, args: ExpireArgs) -> anyhow::Result<Exit> {
    farshore_shipper::crash::prepare();
    let catalog = wiring::catalog(config).await?;
    let mut shown = Vec::new();
    let mut without_rule = Vec::new();
    for (name, settings) in commands::databases(config, args.database.as_ref())? {
        let Some(rule) = settings.retention.map(|rule| Rule { window: in_days(rule.window), ..rule }) else {
            without_rule.push(name.clone());
            continue;
        };
        guard::alone(&catalog, name).await?;
        let asked = spec::asked(JobKind::Expire, Some(name), &json!({}));
        let own = asked.id;
        let held = record::begin(Some(&catalog), asked, &context.cancel).await;
        guard::recorded(&catalog, name, own).await?;
        let work =
            Work { config, catalog: &catalog, name, settings, rule, args: &args, yes: context.global.yes };
        let begun = shown.len();
        let done = match held.beside(Box::pin(work.run(own, &mut shown))).await {
            Some(done) => done,
            None => {
                held.end_stopped().await;
                return Ok(Exit::Interrupted);
            }
        };
        let came = done.clone().map(|()| json!({ "expired": &shown[begun..] }).to_string());
        held.end_done(came).await;
        done?;
    }
    for name in without_rule {
        tracing::warn!(database = %name, "it has no [databases.{name}.retention]: nothing of it is ever deleted");
    }
    context.output.list("farshore.backup_expire/1", &shown)?;
    Ok(if shown.iter().any(|one| one.refused.is_some()) { Exit::Refused } else { Exit::Done })
}

/// Seconds of a day: 86,400, but for tests, which cannot wait for days.
pub(super) fn day() -> TimeDelta {
    fn seconds() -> i64 {
        use farshore_shipper::crash::fail;
        fail::fail_point!("expire-day", |seconds| seconds
            .and_then(|seconds| seconds.parse().ok())
            .unwrap_or(86_400));
        86_400
    }
    TimeDelta::seconds(seconds())
}

/// As many days as `span` has days of 86,400 seconds.
fn in_days(span: TimeDelta) -> TimeDelta {
    match day() == TimeDelta::days(1) {
        true => span,
        false => TimeDelta::seconds(span.num_seconds() * day().num_seconds() / 86_400),
    }
}

/// One database's expiry.
struct Work<'a> {
    config: &'a Config,
    catalog: &'a Catalog,
    name: &'a DatabaseName,
    settings: &'a DatabaseConfig,
    rule: Rule,
    args: &'a ExpireArgs,
    yes: bool,
}

impl Work<'_> {
    async fn run(
        &self,
        own: farshore_catalog::job::JobId,
        shown: &mut Vec<Shown>,
    ) -> Result<(), OperatorMessage> {
        for store in &self.settings.stores {
            let sources = sources::all_for(self.config, self.name, store, Purpose::Tidy).await;
            let sources = sources.map_err(|why| guard::failed(self.name, store, &why))?;
            self.in_store(own, store, &sources, shown).await?;
        }
        Ok(())
    }

    async fn in_store(
        &self,
        own: farshore_catalog::job::JobId,
        store: &StoreName,
        sources: &[Source],
        shown: &mut Vec<Shown>,
    ) -> Result<(), OperatorMessage> {
        guard::heads_hold(self.config, self.name, self.settings, store, sources).await?;
        let mut read = Vec::new();
        // By both clocks: a machine that was suspended is not to delete on the word of a look from before.
        let begun = Moment::now();
        let mut now: Option<DateTime<Utc>> = None;
        for source in sources {
            let known = guard::backups_known(self.catalog, source, store).await?;
            let facts = facts::read(source, &known.backups, Utc::now(), self.grace()).await;
            let facts = facts.map_err(|why| guard::failed(self.name, store, &why.into()))?;
            let Some(facts) = facts else { continue };
            known.agrees(self.name, store, &facts)?;
            let newest = facts.bases.iter().map(|base| base.stored_at).chain([facts.newest_chunk]).max();
            now = now.max(newest);
            read.push((source, facts));
        }
        let Some(now) = now else { return Ok(()) };
        let now = guard::clock(self.name, store, now, Utc::now())?;
        let last = read.len().saturating_sub(1);
        let mut decided = Vec::new();
        // When the newest incarnation has nothing to restore from, older ones are all there is.
        let newest_decision = read.last().map(|(_, facts)| decide(facts, self.rule, true, now));
        for (at, (source, facts)) in read.iter().enumerate() {
            let decision = match (&newest_decision, at == last) {
                (Some(decision), true) => decision.clone(),
                (Some(Err(why)), false) => Err(why.clone()),
                _ => decide(facts, self.rule, false, now),
            };
            decided.push((*source, facts, decision));
        }
        guard::not_too_many(self.name, store, &decided, self.yes || self.args.dry_run)?;
        for (source, facts, decision) in decided {
            let mut one = self.shown(store, source);
            match decision {
                Ok(decision) => {
                    let done = self.carry_out(own, source, facts, &decision, (now, begun), &mut one).await;
                    done.map_err(|why| guard::failed(self.name, store, &why))?;
                }
                Err(why) => one.refused = Some(why.to_string()),
            }
            shown.push(one);
        }
        Ok(())
    }

    /// How long a mark stands before what it marks is deleted.
    fn grace(&self) -> TimeDelta {
        in_days(TimeDelta::from_std(self.args.grace.get()).unwrap_or(TimeDelta::MAX))
    }

    fn shown(&self, store: &StoreName, source: &Source) -> Shown {
        Shown {
            database: self.name.clone(),
            store: store.to_string(),
            incarnation: source.record().number,
            dry_run: self.args.dry_run,
            kept: Vec::new(),
            marked_backups: 0,
            marked_stretches: 0,
            waiting: 0,
            deleted_backups: 0,
            deleted: Deleted::default(),
            refused: None,
        }
    }

    /// Marks, then deletes what is due.
    async fn carry_out(
        &self,
        own: farshore_catalog::job::JobId,
        source: &Source,
        facts: &Facts,
        decision: &Decision,
        (now, begun): (DateTime<Utc>, Moment),
        one: &mut Shown,
    ) -> anyhow::Result<()> {
        let reader = source.reader();
        let marking = Marking {
            host: wiring::node(),
            at: Utc::now(),
            reason: format!(
                "window of {} hours, {} base backups",
                self.rule.window.num_hours(),
                self.rule.count
            ),
        };
        one.kept = decision.kept.iter().map(|(id, why)| (id.to_string(), *why)).collect();
        let due = due(facts, decision, self.grace(), now);
        for id in &decision.backups {
            let is_marked = facts.bases.iter().any(|base| base.id == *id && base.marked.is_some())
                || facts.unfinished.iter().any(|backup| backup.id == *id && backup.marked.is_some());
            if is_marked {
                one.waiting += usize::from(!due.backups.contains(id));
                continue;
            }
            one.marked_backups += 1;
            if !self.args.dry_run {
                expiry::mark_backup(reader, *id, &marking).await?;
            }
        }
        let kept_again =
            facts.bases.iter().filter(|base| base.marked.is_some() && !decision.backups.contains(&base.id));
        for base in kept_again.filter(|_| !self.args.dry_run) {
            guard::others(self.catalog, self.name, own).await?;
            expiry::unmark_backup(reader, base.id).await?;
        }
        for stretch in &decision.stretches {
            let is_marked =
                facts.stretches.iter().any(|known| known.first == stretch.0 && known.marked.is_some());
            if is_marked {
                one.waiting += usize::from(!due.stretches.contains(stretch));
                continue;
            }
            one.marked_stretches += 1;
            if !self.args.dry_run {
                expiry::mark_run(reader, *stretch, &marking).await?;
            }
        }
        self.delete(own, source, &due, begun, one).await
    }

    async fn delete(
        &self,
        own: farshore_catalog::job::JobId,
        source: &Source,
        due: &Decision,
        begun: Moment,
        one: &mut Shown,
    ) -> anyhow::Result<()> {
        let reader = source.reader();
        let is_fresh = || begun.elapsed() < FRESH;
        for id in &due.backups {
            if !is_fresh() {
                tracing::info!(database = %self.name, "the look at what is kept is too old by now: the next run goes on");
                return Ok(());
            }
            one.deleted_backups += 1;
            if self.args.dry_run {
                one.deleted.bytes += farshore_journal::backup::stored_bytes(reader, *id).await?;
                continue;
            }
            guard::others(self.catalog, self.name, own).await?;
            // Behind a crash right here the store has a marked backup that the catalog does not know: that is no disagreement.
            self.catalog.backup_delete(*id).await?;
            tracing::info!(database = %self.name, backup = %id, "deleting a base backup that no rule keeps");
            farshore_shipper::crash_point!("expire-backup");
            one.deleted.add(expiry::delete_backup(reader, *id).await?);
        }
        let runs = expiry::marked_runs(reader).await?;
        for stretch in &due.stretches {
            let Some((run, _)) = runs.iter().find(|(run, _)| is(run, *stretch)) else { continue };
            if self.args.dry_run {
                one.deleted.add(expiry::left_of(reader, run).await?);
                continue;
            }
            if !is_fresh() {
                break;
            }
            guard::others(self.catalog, self.name, own).await?;
            // Asking took its time, and what is called gone is to go.
            if !is_fresh() {
                break;
            }
            // Before anything of it goes: a window that is shown never leads across what is gone.
            rebuild::put_expired(self.catalog, source.record(), &one.store, run).await?;
            farshore_shipper::crash_point!("expire-run");
            let deleted = expiry::delete_run(reader, run, &is_fresh).await?;
            if deleted.foreign > 0 {
                tracing::warn!(database = %self.name, run = %run.name, objects = deleted.foreign, "objects at its names are not what stood there: they stay, `farshore verify` names them");
            }
            one.deleted.add(deleted);
        }
        Ok(())
    }
}

fn is(run: &farshore_journal::expired::ExpiredRun, (first, last): (Sequence, Sequence)) -> bool {
    (run.name.first, run.name.last) == (first, last)
}

impl From<FactsError> for OperatorMessage {
    fn from(why: FactsError) -> Self {
        guard::unknown(&why.to_string())
    }
}
