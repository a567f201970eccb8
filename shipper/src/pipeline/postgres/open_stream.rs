//! Opening the stream by the live slot.
//!
//! What always holds: one stream of ours at most is fed by the slot, since the server gives it to one at a time and an older
//! one is ended first. A crash here leaves a slot that the next session uses.

use std::time::{Duration, Instant};

use farshore_engines::postgres::sql::HolderEnd;
use farshore_engines::postgres::wire::{self, ConnectParams, Connection, ReplicationStream, SlotName};
use farshore_journal::Position;

use super::source::Source;
use crate::error::ShipError;

/// How often, and after how long, a slot that is in use is asked for again before its holder is ended.
const MOMENTS: u32 = 2;
const MOMENT: Duration = Duration::from_millis(50);

impl Source {
    /// Names the live slot in a stream from `from`; makes the slot when it is missing, and ends an older stream of ours.
    pub(super) async fn open_stream(
        self,
        params: &ConnectParams,
        slot: &SlotName,
        from: Position,
    ) -> Result<ReplicationStream, ShipError> {
        let Self { host, mut connection, sql, .. } = self;
        let found = sql.slot_get(slot).await?;
        let lost = found.as_ref().is_some_and(|slot| slot.is_lost() && slot.active_pid.is_none());
        if lost {
            // It keeps nothing and cannot be streamed by. Whether the log itself is gone, the stream will say.
            tracing::warn!(slot = %slot, "the primary gave up the log that this slot kept; it is made anew");
            sql.slot_drop(slot).await?;
        }
        if found.is_none() || lost {
            match connection.create_physical_slot(slot, true).await {
                Ok(()) | Err(wire::Error::SlotExists { .. }) => {}
                Err(why) => return Err(why.into()),
            }
        }
        let mut begun = connection.start_physical(Some(slot), from).await;
        // The keeper holds a slot for a moment when it moves it.
        for _ in 0..MOMENTS {
            if !matches!(begun, Err(wire::Error::SlotInUse { .. })) {
                break;
            }
            tokio::time::sleep(MOMENT).await;
            begun = Connection::connect(params, &host).await?.start_physical(Some(slot), from).await;
        }
        match begun {
            Err(why @ wire::Error::SlotInUse { .. }) => {
                // An older stream, ours or a frozen shipper's: end it, so that only one is fed.
                match sql.slot_terminate_holder(slot).await? {
                    HolderEnd::Told { .. } | HolderEnd::NotHeld => {}
                    HolderEnd::NotOurs { .. } => return Err(why.into()),
                }
                let deadline = Instant::now() + Duration::from_secs(5);
                loop {
                    let connection = Connection::connect(params, &host).await?;
                    match connection.start_physical(Some(slot), from).await {
                        Err(wire::Error::SlotInUse { .. }) if Instant::now() < deadline => {
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                        other => return Ok(other?),
                    }
                }
            }
            other => Ok(other?),
        }
    }
}
