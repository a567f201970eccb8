//! Expiry, by `farshore backup expire` or as a job of a service: marks base backups and log that no rule keeps, and deletes what was marked a grace ago and is kept by
//! nothing still. It takes the configuration of a credential that may delete, which the shipper's need not.
//!
//! What always holds: nothing is deleted while the catalog is away, while it and the store name different backups, while a restore or a drill of the database may run, or on the word
//! of a look that is older than `FRESH`. Cut off anywhere, the next run goes on. `journal/FORMAT.md` section 13 argues it.

pub mod guard;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use farshore_applier::retention::facts::{self, FactsError};
use farshore_applier::retention::{Base, Decision, Facts, Keep, Rule, decide, due};
use farshore_applier::source::Source;
use farshore_catalog::Catalog;
use farshore_catalog::gap::Gap;
use farshore_catalog::job::JobId;
use farshore_journal::expiry::{self, Deleted, Marking, MayGo};
use farshore_journal::moment::Moment;
use farshore_journal::{DatabaseName, Sequence};
use serde::Serialize;
use serde_json::json;

use crate::config::{Config, DatabaseConfig, Retention, StoreName};
use crate::message::OperatorMessage;
use crate::rebuild;
use crate::sources;
use crate::wiring::{self, Purpose};

/// How old a look at holds, backups and jobs may be when something is deleted on its word.
const FRESH: Duration = Duration::from_secs(600);
/// How often it is asked whether somebody reads, while log goes of which something is gone already.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// What became of one incarnation in one store, as `-o json` shows it.
#[derive(Debug, Serialize)]
pub struct Expired {
    /// Of which database.
    pub database: DatabaseName,
    /// In which store.
    pub store: String,
    /// Of which incarnation, by its number there.
    pub incarnation: u64,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Base backups that stay, each with why.
    pub kept: Vec<(String, &'static str)>,
    /// Base backups marked now, or that would be.
    pub marked_backups: usize,
    /// Their names.
    pub marking: Vec<String>,
    /// Stretches of log, likewise.
    pub marked_stretches: usize,
    /// Marked before, and not yet for the whole grace, or still needed by a backup that is.
    pub waiting: usize,
    /// Base backups deleted, or that would be.
    pub deleted_backups: usize,
    /// Their names.
    pub deleting: Vec<String>,
    /// What went with them and of the log, likewise.
    pub deleted: Deleted,
    /// Why nothing goes.
    pub refused: Option<String>,
    /// Why it takes a person's word (`--yes`), where this only says what would be done.
    pub needs_yes: Option<String>,
    /// Whether that is somebody's alarm in a former incarnation too.
    #[serde(skip)]
    pub alarms: bool,
}

/// Seconds of a day: 86,400, but for tests, which cannot wait for days.
pub(crate) fn day() -> TimeDelta {
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
pub struct Expiry<'a> {
    /// Where it stands.
    pub config: &'a Config,
    /// Of the same databases.
    pub catalog: &'a Catalog,
    /// Which one.
    pub name: &'a DatabaseName,
    /// Its settings.
    pub settings: &'a DatabaseConfig,
    /// What is kept of it.
    pub retention: &'a Retention,
    /// Another grace than its own.
    pub grace: Option<Duration>,
    /// As which job; none where it only says what it would do.
    pub own: Option<JobId>,
    /// Whether a person said that more than half of the base backups may go.
    pub yes: bool,
}

/// What came of it, as its job's result.
///
/// # Errors
/// When of something nothing may go, with what became of the rest.
pub fn result(name: &DatabaseName, shown: &[Expired]) -> Result<String, OperatorMessage> {
    match refused(shown) {
        None => Ok(json!({ "expired": shown }).to_string()),
        Some((one, why)) => {
            let (marked, deleted) = shown.iter().fold((0, 0), |(marked, deleted), one| {
                (marked + one.marked_backups + one.marked_stretches, deleted + one.deleted.objects)
            });
            let happened = format!(
                "of incarnation {} in {}: {why} ({marked} marked and {deleted} objects deleted of the others)",
                one.incarnation, one.store
            );
            Err(guard::refused(
                name,
                happened,
                "`farshore backup expire --dry-run` says it for each store; a base backup lets older ones go",
            ))
        }
    }
}

/// The newest incarnation of a store of which nothing may go, and why. Of a former one it is shown beside the others, and is nobody's alarm, since nothing comes to it any more
/// that would let older base backups go; but for a point that is held and that no base backup leads to any more.
pub fn refused(shown: &[Expired]) -> Option<(&Expired, &String)> {
    let is_newest = |one: &&Expired| {
        let alike = |other: &&Expired| (&other.database, &other.store) == (&one.database, &one.store);
        shown.iter().filter(alike).all(|other| other.incarnation <= one.incarnation)
    };
    shown.iter().filter(|one| one.alarms || is_newest(one)).find_map(|one| Some((one, one.refused.as_ref()?)))
}

impl Expiry<'_> {
    /// Marks and deletes, and says into `shown` what became of each incarnation in each store: also of those before one that failed.
    ///
    /// # Errors
    /// When the catalog or a store does not answer, the credential may not delete, or a guard keeps everything.
    pub async fn run(&self, shown: &mut Vec<Expired>) -> Result<(), OperatorMessage> {
        // Whoever only asks what would go disturbs nobody who reads.
        let purpose = match self.own {
            Some(_) => {
                guard::others(self.catalog, self.name, self.own).await?;
                Purpose::Tidy
            }
            None => Purpose::Read,
        };
        for store in &self.settings.stores {
            let sources = sources::all_for(self.config, self.name, store, purpose).await;
            let sources = sources.map_err(|why| guard::failed(self.name, store, &why))?;
            self.in_store(store, &sources, shown).await?;
        }
        Ok(())
    }

    async fn in_store(
        &self,
        store: &StoreName,
        sources: &[Source],
        shown: &mut Vec<Expired>,
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
        let newest_decision = read.last().map(|(_, facts)| decide(facts, self.rule(), true, now));
        for (at, (source, facts)) in read.iter().enumerate() {
            let decision = match (&newest_decision, at == last) {
                (Some(decision), true) => decision.clone(),
                (Some(Err(why)), false) => Err(why.clone()),
                _ => decide(facts, self.rule(), false, now),
            };
            decided.push((*source, facts, decision));
        }
        let too_many = guard::not_too_many(self.name, store, &decided, self.yes);
        let needs_yes = match too_many {
            Err(why) if self.is_dry() => Some(why.happened),
            other => other.map(|()| None)?,
        };
        for (source, facts, decision) in decided {
            let mut one = Expired { needs_yes: needs_yes.clone(), ..self.shown(store, source) };
            match decision {
                Ok(decision) => {
                    let done = self.carry_out(source, facts, &decision, (now, begun), &mut one).await;
                    // What was done before it failed is told all the same.
                    shown.push(one);
                    done.map_err(|why| guard::failed(self.name, store, &why))?;
                }
                Err(why) => {
                    one.alarms = matches!(&why, Keep::HoldWithoutBase(hold) if facts.holds.iter().any(|held| held.id == *hold));
                    one.refused = Some(why.to_string());
                    shown.push(one);
                }
            }
        }
        Ok(())
    }

    fn is_dry(&self) -> bool {
        self.own.is_none()
    }

    /// How long a mark stands before what it marks is deleted.
    fn grace(&self) -> TimeDelta {
        let grace = self.grace.unwrap_or(self.retention.grace);
        in_days(TimeDelta::from_std(grace).unwrap_or(TimeDelta::MAX))
    }

    fn rule(&self) -> Rule {
        Rule { window: in_days(self.retention.rule.window), ..self.retention.rule }
    }

    fn shown(&self, store: &StoreName, source: &Source) -> Expired {
        Expired {
            database: self.name.clone(),
            store: store.to_string(),
            incarnation: source.record().number,
            dry_run: self.is_dry(),
            kept: Vec::new(),
            marked_backups: 0,
            marking: Vec::new(),
            marked_stretches: 0,
            waiting: 0,
            deleted_backups: 0,
            deleting: Vec::new(),
            deleted: Deleted::default(),
            refused: None,
            needs_yes: None,
            alarms: false,
        }
    }

    /// Marks, then deletes what is due.
    async fn carry_out(
        &self,
        source: &Source,
        facts: &Facts,
        decision: &Decision,
        (now, begun): (DateTime<Utc>, Moment),
        one: &mut Expired,
    ) -> anyhow::Result<()> {
        let reader = source.reader();
        let marking = Marking {
            host: wiring::node(),
            at: Utc::now(),
            reason: format!(
                "window of {} hours, {} base backups",
                self.rule().window.num_hours(),
                self.rule().count
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
            one.marking.push(id.to_string());
            if !self.is_dry() {
                expiry::mark_backup(reader, *id, &marking).await?;
            }
        }
        // The mark of one whose deletion was begun is all that says so.
        let is_begun = |base: &&Base| base.unsound.as_deref() == Some(facts::BEGUN);
        let kept_again = facts
            .bases
            .iter()
            .filter(|base| base.marked.is_some() && !decision.backups.contains(&base.id) && !is_begun(base));
        for base in kept_again.filter(|_| !self.is_dry()) {
            guard::others(self.catalog, self.name, self.own).await?;
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
            if !self.is_dry() {
                expiry::mark_run(reader, *stretch, &marking).await?;
            }
        }
        self.delete((source, facts), &due, begun, one).await
    }

    async fn delete(
        &self,
        (source, facts): (&Source, &Facts),
        due: &Decision,
        begun: Moment,
        one: &mut Expired,
    ) -> anyhow::Result<()> {
        let reader = source.reader();
        let still = Still { expiry: self, begun, asked: Mutex::new(None) };
        for id in &due.backups {
            if self.is_dry() {
                one.deleted_backups += 1;
                one.deleting.push(id.to_string());
                one.deleted.bytes += farshore_journal::backup::stored_bytes(reader, *id).await?;
                continue;
            }
            still.ask().await?;
            // Behind a crash right here the store has a marked backup that the catalog does not know: that is no disagreement.
            self.catalog.backup_delete(*id).await?;
            tracing::info!(database = %self.name, backup = %id, "deleting a base backup that no rule keeps");
            farshore_shipper::crash_point!("expire-backup");
            let complete = facts.bases.iter().any(|base| base.id == *id);
            let Some(deleted) = expiry::delete_backup(reader, *id, complete, &still).await? else {
                // Its log is needed for as long as it is there: nothing more of this is due.
                still.ask().await?;
                return Err(anyhow!(
                    "base backup {id} was not deleted: what speaks against it is over by now"
                ));
            };
            one.deleted_backups += 1;
            one.deleting.push(id.to_string());
            one.deleted.add(deleted);
        }
        let runs = expiry::marked_runs(reader).await?;
        let ends = due.stretches.iter().fold(None, |ends: Option<(Sequence, Sequence)>, (first, last)| {
            Some(ends.map_or((*first, *last), |ends| (ends.0.min(*first), ends.1.max(*last))))
        });
        let Some(ends) = ends else { return Ok(()) };
        let leftovers = expiry::Leftovers::list(reader, ends).await?;
        let known = self.catalog.gap_list(source.record().incarnation).await?;
        for stretch in &due.stretches {
            let Some((run, _)) = runs.iter().find(|(run, _)| is(run, *stretch)) else { continue };
            let left = expiry::left_of(run, &leftovers);
            if self.is_dry() {
                one.deleted.add(left);
                continue;
            }
            // Runs stay for ever, and most of them are long gone: there is nothing to be asked for. What a catalog lost of them it is told anew.
            if left.objects == 0 {
                let is_known = |gap: &Gap| {
                    (gap.timeline, gap.start, gap.end)
                        == (run.header.timeline, run.header.start, run.header.end)
                        && gap.store == one.store
                };
                if !known.iter().any(is_known) {
                    rebuild::put_expired(self.catalog, source.record(), &one.store, run).await?;
                }
                continue;
            }
            still.ask().await?;
            // Before anything of it goes: a window that is shown never leads across what is gone.
            rebuild::put_expired(self.catalog, source.record(), &one.store, run).await?;
            farshore_shipper::crash_point!("expire-run");
            let deleted = expiry::delete_run(reader, run, &leftovers, &still).await?;
            if deleted.foreign > 0 {
                tracing::warn!(database = %self.name, run = %run.name, objects = deleted.foreign, "objects at its names are not what stood there: they stay, `farshore verify` names them");
            }
            one.deleted.add(deleted);
            still.ask().await?;
        }
        Ok(())
    }
}

/// Whether something still may go: the look is fresh, and nobody reads.
struct Still<'a> {
    expiry: &'a Expiry<'a>,
    begun: Moment,
    /// When it was last asked whether somebody reads.
    asked: Mutex<Option<Moment>>,
}

impl Still<'_> {
    /// Nobody reads, no verification has found anything since the look began, and the look is fresh.
    async fn ask(&self) -> Result<(), OperatorMessage> {
        let Expiry { catalog, name, own, .. } = *self.expiry;
        guard::others(catalog, name, own).await?;
        guard::verified_since(catalog, name, self.begun.elapsed()).await?;
        // By both clocks, and last of all: a machine may have been suspended while it asked.
        match self.begun.elapsed() < FRESH {
            true => Ok(()),
            false => Err(guard::refused(
                name,
                format!(
                    "looking at what is kept, and deleting, took more than {} minutes",
                    FRESH.as_secs() / 60
                ),
                "run it again: it goes on where it was; a store that answers that slowly may need another time of day",
            )),
        }
    }
}

#[async_trait]
impl MayGo for Still<'_> {
    async fn may_go(&self, first: bool) -> bool {
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if !first && asked.is_some_and(|asked: Moment| asked.elapsed() < ASK_AGAIN) {
            return self.begun.elapsed() < FRESH;
        }
        match self.ask().await {
            Ok(()) => {
                *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Moment::now());
                true
            }
            Err(why) => {
                tracing::warn!("{why}");
                false
            }
        }
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
