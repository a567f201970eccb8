//! Which standbys there are, and how far each is: held here, and told to the catalog once a second.
//!
//! What always holds: nothing waits for the catalog; what changed of a standby is said once. A standby goes by the name that it gives itself: of two that give the same name the later one counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use farshore_applier::serve::{Standing, State};
use farshore_catalog::Catalog;
use farshore_catalog::standby::{STANDBY_HEARTBEAT, Standby, StandbyState};
use farshore_journal::{DatabaseName, IncarnationId, Offset, Timeline};
use tokio_util::sync::CancellationToken;

use super::trail::Trail;

/// Who a standby is, and what it is served from.
#[derive(Debug, Clone)]
pub struct Who {
    /// Whose journal.
    pub database: DatabaseName,
    /// What it calls itself.
    pub name: String,
    /// As which user it came.
    pub login: String,
    /// From where.
    pub address: String,
    /// From which store it is served.
    pub store: String,
    /// Of which incarnation.
    pub incarnation: IncarnationId,
    /// How old log is to be when it is sent to it.
    pub delay: Option<Duration>,
}

/// What is known of one.
struct Known {
    row: Standby,
    trail: Trail,
    /// Which session it is of.
    session: u64,
    /// Whether the catalog has not heard of it since it changed.
    changed: bool,
    /// Whether its session is over: it stays until the catalog knows.
    over: bool,
}

/// All of this process.
pub struct Standbys {
    node: String,
    known: Mutex<HashMap<(DatabaseName, String), Known>>,
    sessions: Mutex<u64>,
}

/// One session of a standby; over once it is dropped.
pub struct Visit {
    all: Arc<Standbys>,
    who: Who,
    session: u64,
}

impl Standbys {
    /// None yet.
    pub fn new(node: String) -> Arc<Self> {
        Arc::new(Self { node, known: Mutex::default(), sessions: Mutex::new(0) })
    }

    /// A session begins.
    pub fn visit(self: &Arc<Self>, who: Who) -> Visit {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        *sessions += 1;
        Visit { all: Arc::clone(self), who, session: *sessions }
    }

    /// Tells the catalog until cancelled, and once more then.
    pub async fn tell(&self, catalog: Catalog, cancel: CancellationToken) {
        let mut said = false;
        loop {
            let ends = tokio::select! {
                () = cancel.cancelled() => true,
                () = tokio::time::sleep(STANDBY_HEARTBEAT) => false,
            };
            let rows = self.changed();
            if !rows.is_empty() {
                let put = tokio::time::timeout(STANDBY_HEARTBEAT * 5, catalog.standby_put(&rows)).await;
                match put
                    .map_err(|_| "it hangs".to_owned())
                    .and_then(|put| put.map_err(|why| why.to_string()))
                {
                    Ok(()) => {
                        self.told(&rows);
                        said = false;
                    }
                    Err(why) => {
                        if !std::mem::replace(&mut said, true) {
                            tracing::warn!(
                                error = why,
                                "how far standbys are is not recorded in the catalog: they count as away"
                            );
                        }
                    }
                }
            }
            if ends {
                return;
            }
        }
    }

    fn changed(&self) -> Vec<Standby> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().filter(|known| known.changed).map(|known| known.row.clone()).collect()
    }

    fn told(&self, rows: &[Standby]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            let key = (row.database.clone(), row.name.clone());
            let Some(one) = known.get_mut(&key) else { continue };
            one.changed &= one.row != *row;
            if one.over && !one.changed {
                known.remove(&key);
            }
        }
    }
}

impl Visit {
    /// Who it is.
    pub fn who(&self) -> &Who {
        &self.who
    }

    /// Takes how it is doing.
    pub fn stands(&self, standing: Standing) {
        let Standing { timeline, sent, end, status, state, problem, held: _ } = standing;
        self.put(state_of(state), problem, |row, trail, now| {
            (row.timeline, row.sent) = (timeline, sent);
            if let Some(end) = end {
                row.end = end;
                trail.saw(end, now);
            }
            if let Some(status) = status {
                (row.written, row.flushed, row.applied) = (status.written, status.flushed, status.applied);
            }
            // While the store does not answer, nobody knows what it has.
            row.behind = match (state, status) {
                (State::Streaming | State::CatchingUp | State::Held, Some(status)) => {
                    trail.behind(status.applied, now)
                }
                _ => None,
            };
        });
    }

    fn put(
        &self,
        state: StandbyState,
        problem: Option<String>,
        change: impl FnOnce(&mut Standby, &mut Trail, Instant),
    ) {
        let (now, clock) = (Instant::now(), Utc::now());
        let mut known = self.all.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (self.who.database.clone(), self.who.name.clone());
        let one = known.entry(key).or_insert_with(|| {
            self.say(state, problem.as_deref());
            let (row, trail) = (self.row(state), Trail::default());
            Known { row, trail, session: self.session, changed: true, over: false }
        });
        match one.session.cmp(&self.session) {
            std::cmp::Ordering::Greater => return,
            std::cmp::Ordering::Equal => {}
            // What it had replayed it may have to replay again; the trail goes on.
            std::cmp::Ordering::Less => {
                let (since, was) = (one.row.since, one.row.state);
                one.row = Standby { since, state: was, ..self.row(state) };
                (one.session, one.over) = (self.session, false);
            }
        }
        if one.row.state != state {
            (one.row.state, one.row.since) = (state, clock);
            self.say(state, problem.as_deref());
        }
        one.row.problem = problem;
        change(&mut one.row, &mut one.trail, now);
        (one.row.heard_at, one.changed) = (clock, true);
    }

    fn say(&self, state: StandbyState, problem: Option<&str>) {
        let Who { database, name, address, .. } = &self.who;
        match problem {
            None => {
                tracing::info!(%database, standby = name, %address, "a standby is {}", state.word());
            }
            Some(why) => {
                tracing::error!(%database, standby = name, %address, "a standby is {}: {why}", state.word());
            }
        }
    }

    fn row(&self, state: StandbyState) -> Standby {
        let (who, now, none) = (self.who.clone(), Utc::now(), Offset::new(0));
        Standby {
            database: who.database,
            name: who.name,
            node: self.all.node.clone(),
            login: who.login,
            address: who.address,
            store: who.store,
            incarnation: who.incarnation,
            timeline: Timeline::new(0),
            sent: none,
            written: none,
            flushed: none,
            applied: none,
            end: none,
            state,
            since: now,
            problem: None,
            behind: None,
            delay: who.delay,
            heard_at: now,
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut known = self.all.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (self.who.database.clone(), self.who.name.clone());
        let Some(one) = known.get_mut(&key).filter(|one| one.session == self.session) else { return };
        // Why it was sent away stays, also while it comes again by itself; one that followed is away now.
        if one.row.state.follows() && !one.row.is_sent_away() {
            (one.row.state, one.row.since, one.row.heard_at) = (StandbyState::Away, Utc::now(), Utc::now());
            self.say(StandbyState::Away, None);
        }
        (one.changed, one.over) = (true, true);
    }
}

fn state_of(state: State) -> StandbyState {
    match state {
        State::CatchingUp => StandbyState::CatchingUp,
        State::Streaming => StandbyState::Streaming,
        State::Held => StandbyState::Held,
        State::WaitsForStore => StandbyState::WaitsForStore,
        State::LogMissing => StandbyState::LogMissing,
        State::Diverged => StandbyState::Diverged,
        State::Ahead => StandbyState::Ahead,
        State::Damaged => StandbyState::Damaged,
    }
}
