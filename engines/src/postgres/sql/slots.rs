//! Replication slots over SQL: what each keeps, and moving the one that is never streamed.
//!
//! Source: <https://www.postgresql.org/docs/current/view-pg-replication-slots.html>,
//! <https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION>.

use farshore_journal::Offset;

use super::session::{Session, column, parsed};
use crate::postgres::wire::{Error, SlotName, slot_error};

/// How safe the log is that a slot keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalStatus {
    /// Within `max_wal_size`.
    Reserved,
    /// Beyond `max_wal_size`, kept for the slot.
    Extended,
    /// Beyond `max_slot_wal_keep_size`: gone at the next checkpoint unless the slot moves.
    Unreserved,
    /// Gone.
    Lost,
}

/// A slot as the server shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    /// Its name.
    pub name: SlotName,
    /// Physical, or logical.
    pub physical: bool,
    /// Whether it ends with the session that made it.
    pub temporary: bool,
    /// The server's process that streams by it.
    pub active_pid: Option<i32>,
    /// The oldest log it keeps, if it keeps any.
    pub restart: Option<Offset>,
    /// How safe that log is; `None` when it keeps none.
    pub wal_status: Option<WalStatus>,
    /// How much may still be written before it is lost; `None` is without limit, or lost.
    pub safe_wal_bytes: Option<i64>,
    /// How much log it holds back.
    pub retained_bytes: Option<u64>,
    /// Why it was invalidated, in the server's words (from major 17 on); `None` when it was not, or is not told.
    pub invalidation: Option<String>,
}

impl SlotState {
    /// Whether the log it was to keep is gone.
    pub fn is_lost(&self) -> bool {
        self.wal_status == Some(WalStatus::Lost) || self.invalidation.is_some()
    }
}

/// What came of ending the session that holds a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HolderEnd {
    /// No one holds it.
    NotHeld,
    /// The session was told to end.
    Told {
        /// Its process.
        pid: i32,
    },
    /// Someone else's session holds it, or we may not see whose: it was left alone.
    NotOurs {
        /// Its process.
        pid: i32,
    },
}

impl Session {
    /// Every slot, ordered by name.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn slot_list(&self) -> Result<Vec<SlotState>, Error> {
        self.slots(None).await
    }

    /// One slot, if there is one of that name.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn slot_get(&self, slot: &SlotName) -> Result<Option<SlotState>, Error> {
        Ok(self.slots(Some(slot)).await?.pop())
    }

    async fn slots(&self, only: Option<&SlotName>) -> Result<Vec<SlotState>, Error> {
        const WHAT: &str = "the replication slots";
        let reason = if self.server_version().major >= 17 { "invalidation_reason" } else { "null::text" };
        let statement = format!(
            "select slot_name::text as name, slot_type, temporary, active_pid, restart_lsn::text as restart,
                    wal_status, safe_wal_size, {reason} as invalidation,
                    pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn()
                                         else pg_current_wal_lsn() end, restart_lsn)::bigint as retained
             from pg_replication_slots where $1::text is null or slot_name::text = $1 order by slot_name"
        );
        let rows = self.rows(WHAT, &statement, &[&only.map(SlotName::as_str)]).await?;
        rows.iter()
            .map(|row| {
                let retained: Option<i64> = column(WHAT, row, "retained")?;
                let wal_status = match column::<Option<&str>>(WHAT, row, "wal_status")? {
                    None => None,
                    Some("reserved") => Some(WalStatus::Reserved),
                    Some("extended") => Some(WalStatus::Extended),
                    Some("unreserved") => Some(WalStatus::Unreserved),
                    Some("lost") => Some(WalStatus::Lost),
                    Some(other) => return Err(Error::protocol(WHAT, format!("wal_status is {other}"))),
                };
                Ok(SlotState {
                    name: column::<&str>(WHAT, row, "name")?.parse()?,
                    physical: column::<&str>(WHAT, row, "slot_type")? == "physical",
                    temporary: column(WHAT, row, "temporary")?,
                    active_pid: column(WHAT, row, "active_pid")?,
                    restart: parsed(WHAT, row, "restart")?,
                    wal_status,
                    safe_wal_bytes: column(WHAT, row, "safe_wal_size")?,
                    retained_bytes: retained.map(|bytes| u64::try_from(bytes).unwrap_or(0)),
                    invalidation: column(WHAT, row, "invalidation")?,
                })
            })
            .collect()
    }

    /// The most log that any slot holds back; 0 without slots.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn retained_bytes(&self) -> Result<u64, Error> {
        let slots = self.slot_list().await?;
        Ok(slots.iter().filter_map(|slot| slot.retained_bytes).max().unwrap_or(0))
    }

    /// Makes a permanent physical slot that keeps the log from the last checkpoint's start on, and says from where.
    ///
    /// # Errors
    /// [`Error::SlotExists`] when there is one of that name.
    pub async fn slot_create_keep(&self, slot: &SlotName) -> Result<Offset, Error> {
        const WHAT: &str = "pg_create_physical_replication_slot";
        let statement =
            "select lsn::text as restart from pg_create_physical_replication_slot($1::text::name, true)";
        let row =
            self.row(WHAT, statement, &[&slot.as_str()]).await.map_err(|error| slot_error(error, slot))?;
        parsed(WHAT, &row, "restart")?.ok_or_else(|| Error::protocol(WHAT, "it keeps nothing"))
    }

    /// Moves a physical slot forward to `released` and says where it stands then. It never moves back, and not
    /// beyond what the server has flushed; a call that moves nothing still counts as use, so that
    /// `idle_replication_slot_timeout` does not take the slot.
    ///
    /// # Errors
    /// [`Error::SlotMissing`], [`Error::SlotInUse`], [`Error::SlotInvalidated`].
    pub async fn slot_advance(&self, slot: &SlotName, released: Offset) -> Result<Offset, Error> {
        const WHAT: &str = "pg_replication_slot_advance";
        let state = self.slot_get(slot).await?;
        let state = state.ok_or_else(|| Error::SlotMissing { slot: slot.clone() })?;
        // The server refuses to move back: staying is what such a call means.
        let target = state.restart.map_or(released, |restart| restart.max(released)).to_string();
        let statement = "select end_lsn::text as reached
                         from pg_replication_slot_advance($1::text::name, $2::text::pg_lsn)";
        let row = self.row(WHAT, statement, &[&slot.as_str(), &target]).await;
        let row = row.map_err(|error| match error {
            // A slot that never kept anything is refused by the same code, and is not lost.
            Error::Server { message, .. } if message.code == "55000" && state.is_lost() => {
                Error::SlotInvalidated { slot: slot.clone(), message }
            }
            other => slot_error(other, slot),
        })?;
        parsed(WHAT, &row, "reached")?.ok_or_else(|| Error::protocol(WHAT, "it reached nothing"))
    }

    /// Drops a slot that no one uses.
    ///
    /// # Errors
    /// [`Error::SlotMissing`], [`Error::SlotInUse`].
    pub async fn slot_drop(&self, slot: &SlotName) -> Result<(), Error> {
        let statement = "select pg_drop_replication_slot($1::text::name)::text";
        let dropped = self.rows("pg_drop_replication_slot", statement, &[&slot.as_str()]).await;
        dropped.map(drop).map_err(|error| slot_error(error, slot))
    }

    /// Ends the session that holds a slot, if it is one of ours: its application name begins with the first word of ours.
    ///
    /// # Errors
    /// When the server does not answer, or does not let our role end sessions.
    pub async fn slot_terminate_holder(&self, slot: &SlotName) -> Result<HolderEnd, Error> {
        const WHAT: &str = "pg_terminate_backend";
        // One statement, so that what was looked at is what is ended.
        let statement =
            "select s.active_pid as pid, coalesce(starts_with(a.application_name, $2), false) as ours,
                    case when starts_with(a.application_name, $2) then pg_terminate_backend(a.pid) end as told
             from pg_replication_slots s left join pg_stat_activity a on a.pid = s.active_pid
             where s.slot_name::text = $1 and s.active_pid is not null";
        // Behind the first word stands what it is for: a stream that began in another mode of protection has another name, and is ours too. The slot says
        // which database and store it is of.
        let own = self.application_name();
        let own = own.split_once(' ').map_or(own, |(own, _)| own);
        let rows = self.rows(WHAT, statement, &[&slot.as_str(), &own]).await?;
        let Some(row) = rows.first() else { return Ok(HolderEnd::NotHeld) };
        let pid = column(WHAT, row, "pid")?;
        Ok(if column(WHAT, row, "ours")? { HolderEnd::Told { pid } } else { HolderEnd::NotOurs { pid } })
    }
}
