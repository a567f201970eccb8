//! How a database's status looks in JSON: what `farshore status -o json` shows, field for field.
//!
//! What always holds: each type is made from the catalog's own by taking it apart completely, so that a field that is added there must be
//! given a place here before this compiles. Unknown is null, never 0 and never green.

use chrono::{DateTime, Utc};
use farshore_catalog::lag;
use farshore_catalog::status::{self, DatabaseStatus};
use farshore_journal::{Offset, Position};
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::Objectives;

/// A database as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct Status {
    /// The shape's name: `farshore.status/1`.
    pub schema: &'static str,
    /// Its name.
    pub database: String,
    /// Its engine's word.
    pub engine: String,
    /// How its shipping stands: setup, accumulating, connected, degraded, bypass, refreshing, backfreshing, paused, fenced or failed;
    /// `unknown` when nobody vouches for it.
    pub state: String,
    /// When a service last wrote of it.
    pub seen_at: Option<DateTime<Utc>>,
    /// When the positions were written that follow.
    pub measured_at: Option<DateTime<Utc>>,
    /// Why it does not stand as it should; null when nothing is known to be wrong.
    pub why: Option<String>,
    /// Its current incarnation.
    pub incarnation: Option<String>,
    /// The number of that one, which `restore --incarnation` takes.
    pub incarnation_number: Option<u64>,
    /// The timeline of the four offsets.
    pub timeline: Option<u32>,
    /// Up to where the service has the log.
    pub received: Option<String>,
    /// Up to where the required stores have confirmed it.
    pub stored: Option<String>,
    /// Up to where the primary was told that it is flushed.
    pub reported: Option<String>,
    /// Up to where the primary may recycle its log.
    pub released: Option<String>,
    /// Bytes of log not stored, as of the last contact.
    pub ship_lag_bytes: Option<u64>,
    /// The exposure: age of the oldest commit not stored.
    pub ship_lag_seconds: Option<f64>,
    /// What can be restored of the current incarnation; null when nothing can, or nothing is known.
    pub window: Option<Window>,
    /// The incarnations before the current one, oldest first.
    pub former: Vec<Former>,
    /// Its base backups.
    pub backups: Backups,
    /// Its stores, by name.
    pub targets: Vec<Target>,
    /// What the primary keeps.
    pub primary: Primary,
    /// The objective for what may be lost; null when the service that answers has none for this database.
    pub rpo_seconds: Option<f64>,
    /// Whether more than that is not stored; null when that is not known.
    pub rpo_breached: Option<bool>,
    /// The objective for the time to resume service.
    pub rto_seconds: Option<f64>,
}

/// The newest unbroken run of restorable positions, in the store that has the newest.
#[derive(Debug, Serialize, ToSchema)]
pub struct Window {
    /// The store that has it.
    pub store: String,
    /// The time of the last commit at the window's start.
    pub from_time: Option<DateTime<Utc>>,
    /// The time of its last commit.
    pub to_time: Option<DateTime<Utc>>,
    /// The first restorable position.
    pub from_position: String,
    /// The last restorable position.
    pub to_position: String,
    /// What cannot be restored between the oldest restorable position and now, oldest first.
    pub gaps: Vec<Gap>,
}

/// A part of the history that cannot be restored.
#[derive(Debug, Serialize, ToSchema)]
pub struct Gap {
    /// The time of the last restorable commit before it.
    pub from_time: Option<DateTime<Utc>>,
    /// The time of the last commit at the first restorable position after it.
    pub to_time: Option<DateTime<Utc>>,
    /// The last restorable position before it.
    pub from_position: String,
    /// The first restorable position after it; null while there is none.
    pub to_position: Option<String>,
    /// Why.
    pub reason: String,
    /// The first restorable position of the older run that ends here.
    pub older_from_position: String,
    /// The time of the last commit there.
    pub older_from_time: Option<DateTime<Utc>>,
}

/// An incarnation that another one followed.
#[derive(Debug, Serialize, ToSchema)]
pub struct Former {
    /// Its id.
    pub incarnation: String,
    /// The number that `restore --incarnation` takes.
    pub number: Option<u64>,
    /// What can be restored of it; null when nothing can.
    pub window: Option<Window>,
}

/// The complete base backups of the current incarnation.
#[derive(Debug, Serialize, ToSchema)]
pub struct Backups {
    /// How many.
    pub count: u64,
    /// How many of them have pages that were damaged at the primary already.
    pub damaged: u64,
    /// How many of them nobody has opened: whether pages of theirs are damaged is not known.
    pub unopened: u64,
    /// How many of them a verification found to be not as they were stored: no window begins with one.
    pub bad: u64,
    /// When the newest ended.
    pub last_at: Option<DateTime<Utc>>,
}

/// A store of the database.
#[derive(Debug, Serialize, ToSchema)]
pub struct Target {
    /// Its name.
    pub store: String,
    /// Up to where it has confirmed the journal.
    pub stored: Option<String>,
    /// The shipper's word for it; `unknown` when nobody vouches for it.
    pub state: String,
    /// What last went wrong there, until it is mended.
    pub why: Option<String>,
}

/// The primary's log disk.
#[derive(Debug, Serialize, ToSchema)]
pub struct Primary {
    /// Bytes of log it keeps for farshore.
    pub retained_bytes: Option<u64>,
    /// Seconds until its disk is full at the present rate.
    pub seconds_to_full: Option<u64>,
}

impl Status {
    /// A status as of `now`, held against what is promised.
    pub fn new(now: DateTime<Utc>, status: DatabaseStatus, promised: Objectives) -> Self {
        let rpo_seconds = promised.rpo.map(|rpo| rpo.as_secs_f64());
        let rpo_breached =
            lag::breached(now, status.state, status.measured_at, status.ship_lag_seconds, rpo_seconds);
        let DatabaseStatus {
            schema,
            database,
            engine,
            state,
            seen_at,
            measured_at,
            why,
            incarnation,
            incarnation_number,
            present: _,
            timeline,
            received,
            stored,
            reported,
            released,
            ship_lag_bytes,
            ship_lag_seconds,
            unseen: _,
            window,
            former,
            backups,
            targets,
            primary,
        } = status;
        let status::Backups { count, damaged, unopened, bad, last_at } = backups;
        let status::Primary { retained_bytes, seconds_to_full } = primary;
        let offset = |offset: Option<Offset>| offset.map(|offset| offset.to_string());
        Self {
            schema,
            database: database.to_string(),
            engine,
            state: state.word().to_owned(),
            seen_at,
            measured_at,
            why,
            incarnation: incarnation.map(|id| id.to_string()),
            incarnation_number,
            timeline: timeline.map(farshore_journal::Timeline::get),
            received: offset(received),
            stored: offset(stored),
            reported: offset(reported),
            released: offset(released),
            ship_lag_bytes,
            ship_lag_seconds,
            window: window.map(Window::from),
            former: former.into_iter().map(Former::from).collect(),
            backups: Backups { count, damaged, unopened, bad, last_at },
            targets: targets.into_iter().map(Target::from).collect(),
            primary: Primary { retained_bytes, seconds_to_full },
            rpo_seconds,
            rpo_breached,
            rto_seconds: promised.rto.map(|rto| rto.as_secs_f64()),
        }
    }
}

fn text(position: Position) -> String {
    position.to_string()
}

impl From<status::Window> for Window {
    fn from(window: status::Window) -> Self {
        let status::Window { store, from_time, to_time, from_position, to_position, gaps } = window;
        Self {
            store,
            from_time,
            to_time,
            from_position: text(from_position),
            to_position: text(to_position),
            gaps: gaps.into_iter().map(Gap::from).collect(),
        }
    }
}

impl From<status::WindowGap> for Gap {
    fn from(gap: status::WindowGap) -> Self {
        let status::WindowGap {
            from_time,
            to_time,
            from_position,
            to_position,
            reason,
            is_loss: _,
            older_from_position,
            older_from_time,
        } = gap;
        Self {
            from_time,
            to_time,
            from_position: text(from_position),
            to_position: to_position.map(text),
            reason,
            older_from_position: text(older_from_position),
            older_from_time,
        }
    }
}

impl From<status::Former> for Former {
    fn from(former: status::Former) -> Self {
        let status::Former { incarnation, number, window } = former;
        Self { incarnation: incarnation.to_string(), number, window: window.map(Window::from) }
    }
}

impl From<status::TargetStatus> for Target {
    fn from(target: status::TargetStatus) -> Self {
        let status::TargetStatus { store, stored, state, why } = target;
        Self { store, stored: stored.map(text), state, why }
    }
}
