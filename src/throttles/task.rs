//! The task that looks at each database of this service every ten seconds, judges its rules and does what they say.
//!
//! What always holds: limits are set before anything else is done, and no catalog, command or channel that hangs keeps the next look
//! from coming; commands are this task's own, joined, and bounded in number, each rule's one at a time. A service that ends takes its
//! limits along: what is not running sends nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::throttle::sample::Sample;
use farshore_catalog::throttle::{self, RuleState, THROTTLE_HEARTBEAT, Throttles};
use farshore_journal::DatabaseName;
use farshore_shipper::progress::Progress;
use farshore_shipper::recorder::PrimaryFacts;
use farshore_shipper::spool::Spooled;
use farshore_shipper::throttle::valve::Valve;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::act::{self, Because, Ended};
use super::judge::{self, Known};
use super::look::{self, Cpu, RateOf};
use super::rule::{Action, Rule};
use crate::config::Config;
use crate::config::quantity::Rate;
use crate::wiring;

/// How long looks are kept: the last day, and what is under way of its first hour.
const KEPT: TimeDelta = TimeDelta::hours(25);
/// How long the catalog may take, of the ten seconds between two looks.
const CATALOG: Duration = Duration::from_secs(3);
/// Looks that wait for a catalog that is away: half an hour of them.
const WAITING: usize = 180;
/// Looks are written six at a time: a minute of them.
const TOGETHER: usize = 6;
/// Commands that run at once, of all rules.
const COMMANDS: usize = 16;

/// What this process has of a database that it ships.
pub struct Watched {
    /// Its name.
    pub database: DatabaseName,
    /// What all its bytes pass.
    pub valve: Arc<Valve>,
    /// How its targets stand.
    pub targets: watch::Receiver<Vec<Progress>>,
    /// What is known of its source.
    pub primary: watch::Receiver<PrimaryFacts>,
    /// Its spool, where it has one.
    pub spool: Option<WatchedSpool>,
}

/// A spool, as throttles look at it.
pub struct WatchedSpool {
    /// How it stands.
    pub told: watch::Receiver<Spooled>,
    /// Told whether its further directories are in use.
    pub extended: watch::Sender<bool>,
    /// Bytes that its own directory may hold.
    pub limit: u64,
}

impl WatchedSpool {
    /// How full it is, in thousandths of its own directory's limit.
    fn share(&self) -> Option<u64> {
        let bytes = self.told.borrow().bytes?;
        u64::try_from(u128::from(bytes) * 1000 / u128::from(self.limit.max(1))).ok()
    }
}

/// A database, with what is known of its rules.
struct Judged {
    watched: Watched,
    required: usize,
    always: Option<Rate>,
    rules: Vec<Rule>,
    known: BTreeMap<String, Known>,
    rate: RateOf,
    /// Looks that are not in the catalog yet.
    looks: VecDeque<Sample>,
}

/// Looks and acts until cancelled.
pub async fn keep(
    config: Arc<Config>,
    all: Vec<Watched>,
    catalog: Option<Catalog>,
    cancel: CancellationToken,
) {
    let mut databases: Vec<Judged> =
        all.into_iter().filter_map(|watched| Judged::new(&config, watched)).collect();
    if let Some(catalog) = &catalog {
        remember(&mut databases, catalog).await;
    }
    let (mut cpu, mut before) = (Cpu::default(), None::<Instant>);
    let mut commands = Commands::new(cancel.clone());
    let mut forgotten: Option<Instant> = None;
    let mut order = 0_usize;
    let mut every = tokio::time::interval(THROTTLE_HEARTBEAT);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            ended = commands.ended() => {
                ended.say();
                continue;
            }
            _ = every.tick() => {}
        }
        let (now, since, busy) = (Utc::now(), before.map(|before| before.elapsed()), cpu.look());
        before = Some(Instant::now());
        let mut fired = Vec::new();
        for one in &mut databases {
            let fires = one.judge(now, since, busy).into_iter();
            fired.extend(fires.map(|fires| (one.watched.database.clone(), fires)));
        }
        for (database, fires) in fired {
            fires.act(&database, &mut commands);
        }
        let Some(catalog) = &catalog else { continue };
        // Whoever is away, here or there, is tried again with the next look.
        // The one that was first is last the next time: a catalog that is slow is so for each in turn.
        order = order.wrapping_add(1);
        let first = order.checked_rem(databases.len()).unwrap_or_default();
        let written = async {
            let (behind, before) = databases.split_at_mut(first);
            for one in before.iter_mut().chain(behind) {
                // What is wrong with one database's is nothing of another's.
                if let Err(why) = one.write(catalog, now).await {
                    tracing::warn!(database = %one.watched.database, error = %why, "how its throttles stand could not be written");
                }
            }
            if forgotten.is_none_or(|then| then.elapsed() > Duration::from_secs(3600)) {
                forgotten = Some(Instant::now());
                catalog.throttle_sample_forget(now - KEPT).await?;
            }
            Ok::<_, farshore_catalog::Error>(())
        };
        match tokio::time::timeout(CATALOG, written).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::debug!(error = %why, "how throttles stand could not be written"),
            Err(_) => tracing::debug!("how throttles stand could not be written in time"),
        }
    }
    commands.join().await;
    if let Some(catalog) = &catalog {
        let written = async {
            for one in &mut databases {
                one.hand_over(catalog).await?;
            }
            Ok::<_, farshore_catalog::Error>(())
        };
        if !matches!(tokio::time::timeout(CATALOG, written).await, Ok(Ok(()))) {
            tracing::debug!("the last looks at throttles could not be written");
        }
    }
}

/// Takes up what was known of the rules when a service last looked.
async fn remember(databases: &mut [Judged], catalog: &Catalog) {
    let Ok(Ok(all)) = tokio::time::timeout(CATALOG, catalog.throttle_list()).await else { return };
    for one in databases {
        let Some(before) = all.iter().find(|before| before.database == one.watched.database) else {
            continue;
        };
        for rule in &before.rules {
            let known = Known {
                state: rule.state,
                since: rule.since,
                why: rule.why.clone(),
                past: rule.past,
                fired_at: rule.fired_at,
            };
            if let Some(known) = judge::remembered(known, before.heard_at, Utc::now()) {
                one.known.insert(rule.name.clone(), known);
            }
        }
    }
}

/// A rule that does now what it does once.
struct Fires {
    rule: Rule,
    why: String,
}

impl Fires {
    fn act(self, database: &DatabaseName, commands: &mut Commands) {
        let (rule, why) = (&self.rule.name, &self.why);
        let mut runs = Vec::new();
        for action in &self.rule.actions {
            match action {
                // Set, and told of, by what the rule is.
                Action::Bandwidth(_) | Action::ExtendSpool | Action::Notify => {}
                Action::Log(words) => tracing::warn!(database = %database, rule, why, "throttle: {words}"),
                Action::Run { program, arguments, timeout } => {
                    runs.push((program.clone(), arguments.clone(), *timeout));
                }
            }
        }
        if !runs.is_empty() {
            commands.begin((database.clone(), rule.clone()), why, runs);
        }
    }
}

impl Judged {
    fn new(config: &Config, watched: Watched) -> Option<Self> {
        let settings = config.databases.get(&watched.database)?;
        Some(Self {
            watched,
            required: settings.required(),
            always: settings.bandwidth,
            rules: settings.throttles.clone(),
            known: BTreeMap::new(),
            rate: RateOf::default(),
            looks: VecDeque::new(),
        })
    }

    /// Looks, judges, and sets the limit; what fires.
    fn judge(&mut self, now: DateTime<Utc>, since: Option<Duration>, cpu: Option<u64>) -> Vec<Fires> {
        let rate = self.rate.look(self.watched.valve.sent(), since);
        let targets = self.watched.targets.borrow().clone();
        let primary = self.watched.primary.borrow().clone();
        let mut look = look::look(now, (&targets, self.required), &primary, (rate, cpu));
        look.spool = self.watched.spool.as_ref().and_then(WatchedSpool::share);
        let mut fired = Vec::new();
        for rule in &self.rules {
            let (known, fires) = judge::judge(rule, self.known.get(&rule.name), &look);
            if fires {
                fired.push(Fires { rule: rule.clone(), why: known.why.clone() });
            }
            self.known.insert(rule.name.clone(), known);
        }
        let states = self.rules.iter().map(|rule| (rule, self.state(rule)));
        let (limit, whose) = judge::limit(self.always, states).unzip();
        let rate = limit.map(Rate::get);
        if self.watched.valve.rate() != rate {
            self.watched.valve.set(rate);
            let limit = limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
            tracing::info!(database = %self.watched.database, limit, rule = whose.flatten(), "another limit holds");
        }
        if let Some(spool) = &self.watched.spool {
            let extends = |rule: &Rule| {
                self.state(rule) == RuleState::Active && rule.actions.contains(&Action::ExtendSpool)
            };
            let extended = self.rules.iter().any(extends);
            if spool.extended.send_replace(extended) != extended {
                tracing::warn!(database = %self.watched.database, extended, "the spool's further directories are in use, or no longer");
            }
        }
        if self.looks.len() == WAITING {
            self.looks.pop_front();
        }
        self.looks.push_back(look);
        fired
    }

    fn state(&self, rule: &Rule) -> RuleState {
        self.known.get(&rule.name).map_or(RuleState::Unknown, |known| known.state)
    }

    async fn write(&mut self, catalog: &Catalog, now: DateTime<Utc>) -> farshore_catalog::Result<()> {
        let rules = self.rules.iter().filter_map(|rule| {
            let known = self.known.get(&rule.name)?;
            Some(throttle::Rule {
                name: rule.name.clone(),
                state: known.state,
                since: known.since,
                why: known.why.clone(),
                bandwidth: rule.bandwidth().map(Rate::get),
                notifies: rule.notifies(),
                past: known.past,
                fired_at: known.fired_at,
            })
        });
        let throttles = Throttles {
            database: self.watched.database.clone(),
            bandwidth: self.watched.valve.rate(),
            sent: self.watched.valve.sent(),
            waited: self.watched.valve.waited(),
            node: wiring::node(),
            heard_at: now,
            rules: rules.collect(),
        };
        catalog.throttle_put(&throttles).await?;
        if self.looks.len() >= TOGETHER {
            self.hand_over(catalog).await?;
        }
        Ok(())
    }

    async fn hand_over(&mut self, catalog: &Catalog) -> farshore_catalog::Result<()> {
        catalog.throttle_sample_add(&self.watched.database, self.looks.make_contiguous()).await?;
        self.looks.clear();
        Ok(())
    }
}

/// Whose command it is: a database's, by a rule.
type Whose = (DatabaseName, String);

/// A program, what it is given, and how long it may take.
type Command = (PathBuf, Vec<String>, Duration);

/// A rule's commands, which have ended.
struct CommandsEnded {
    whose: Whose,
    ended: Vec<Ended>,
}

impl CommandsEnded {
    fn say(&self) {
        for ended in &self.ended {
            self.say_of(ended);
        }
    }

    fn say_of(&self, ended: &Ended) {
        let (database, rule) = &self.whose;
        match ended {
            Ended::Well => tracing::info!(database = %database, rule, "the throttle's command ended"),
            Ended::Badly(why) => {
                tracing::error!(database = %database, rule, why, "the throttle's command failed")
            }
            Ended::Late => {
                tracing::error!(database = %database, rule, "the throttle's command was ended: its time was over")
            }
            Ended::Stopped => {
                tracing::warn!(database = %database, rule, "the throttle's command was ended: the service stops")
            }
        }
    }
}

/// The commands that run.
struct Commands {
    tasks: JoinSet<CommandsEnded>,
    running: BTreeSet<Whose>,
    cancel: CancellationToken,
}

impl Commands {
    fn new(cancel: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), running: BTreeSet::new(), cancel }
    }

    /// Begins a rule's commands, one behind the other.
    fn begin(&mut self, whose: Whose, why: &str, runs: Vec<Command>) {
        let (database, rule) = &whose;
        if self.running.contains(&whose) || self.running.len() >= COMMANDS {
            tracing::error!(database = %database, rule, running = self.running.len(), "the throttle's command is not run: its former one has not ended, or too many run");
            return;
        }
        for (program, ..) in &runs {
            tracing::warn!(database = %database, rule, why, program = %program.display(), "the throttle runs its command");
        }
        self.running.insert(whose.clone());
        let (cancel, why) = (self.cancel.clone(), why.to_owned());
        self.tasks.spawn(async move {
            let because = Because { database: &whose.0, rule: &whose.1, why: &why };
            let mut ended = Vec::with_capacity(runs.len());
            for (program, arguments, timeout) in &runs {
                ended.push(act::run((program, arguments), because, *timeout, &cancel).await);
            }
            CommandsEnded { whose, ended }
        });
    }

    /// The next that ends; for ever none while none runs. Cancel-safe.
    async fn ended(&mut self) -> CommandsEnded {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(ended)) => {
                    self.running.remove(&ended.whose);
                    return ended;
                }
                Some(Err(why)) => {
                    tracing::error!(error = %why, "a throttle's command broke off: this is a fault in farshore");
                    // Whose it was is not known any more: none may be kept from running for ever.
                    if self.tasks.is_empty() {
                        self.running.clear();
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    async fn join(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Ok(ended) = ended {
                ended.say();
            }
        }
    }
}
