//! Holds: wishes that a point stays restorable, whatever the rules of retention say. `FORMAT.md` section 13.
//!
//! What always holds: a hold and its release are documents of their own, created and never changed; a hold that does not read is an
//! error to whoever asks what is kept, never a hold less.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::JournalError;
use crate::format::body;
use crate::format::header::VERSION;
use crate::identity::HoldId;
use crate::position::{Offset, Position, Timeline};
use crate::put;
use crate::reader::Reader;
use crate::store::StoreError;

/// Behind a hold's name: it is over.
const RELEASED: &str = "-released";

/// A wish that a point stays restorable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The format version.
    pub format: u16,
    /// Its id.
    pub hold: HoldId,
    /// The point's timeline.
    pub timeline: Timeline,
    /// The point's offset.
    pub at: Offset,
    /// Why.
    pub reason: String,
    /// Who.
    pub by: String,
    /// When, RFC 3339.
    pub created: String,
    /// From when on it counts no more, RFC 3339; never when null.
    pub until: Option<String>,
}

impl Hold {
    /// A new one.
    pub fn new(point: Position, reason: String, by: String, created: String, until: Option<String>) -> Self {
        let hold = HoldId::mint();
        Self { format: VERSION, hold, timeline: point.timeline, at: point.offset, reason, by, created, until }
    }

    /// The point.
    pub fn point(&self) -> Position {
        Position::new(self.timeline, self.at)
    }
}

/// A hold's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Released {
    format: u16,
    hold: HoldId,
    by: String,
    released: String,
}

/// Puts a hold. On `Ok` it is durable.
///
/// # Errors
/// Failures of the store that waiting does not mend; others are waited out, `trouble` being told.
pub async fn put(
    reader: &Reader,
    hold: &Hold,
    trouble: &(dyn Fn(&StoreError) + Send + Sync),
) -> Result<(), JournalError> {
    let bytes =
        body::to_document("hold", hold).map_err(|source| JournalError::Encode { what: "hold", source })?;
    put::put(&**reader.store(), &reader.layout().hold(hold.hold)?, &Bytes::from(bytes), trouble).await
}

/// Ends a hold; one that is over stays over.
///
/// # Errors
/// [`JournalError::NotHeld`] when there is none of this id; failures of the store that waiting does not mend.
pub async fn release(
    reader: &Reader,
    id: HoldId,
    (by, released): (String, String),
    trouble: &(dyn Fn(&StoreError) + Send + Sync),
) -> Result<(), JournalError> {
    match reader.store().size(&reader.layout().hold(id)?).await {
        Ok(_) => {}
        Err(StoreError::NotFound { .. }) => {
            return Err(JournalError::NotHeld { what: format!("a hold {id}") });
        }
        Err(why) => return Err(why.into()),
    }
    let key = reader.layout().hold_released(id)?;
    if reader.store().size(&key).await.is_ok() {
        return Ok(());
    }
    let document = Released { format: VERSION, hold: id, by, released };
    let bytes = body::to_document("hold's end", &document)
        .map_err(|source| JournalError::Encode { what: "hold's end", source })?;
    match put::put(&**reader.store(), &key, &Bytes::from(bytes), trouble).await {
        // Somebody else ended it meanwhile.
        Err(JournalError::Another { .. }) => Ok(()),
        other => other,
    }
}

/// The holds that were put and not released, oldest first; whether one's time is over is its reader's to say.
///
/// # Errors
/// When the store does not answer, or a hold or its end does not read: what is kept is then not known.
pub async fn list(reader: &Reader) -> Result<Vec<Hold>, JournalError> {
    let prefix = reader.layout().holds()?;
    let (mut held, mut over) = (BTreeMap::new(), BTreeSet::new());
    for listed in reader.store().list(&prefix, None, None).await? {
        let bad = |source| JournalError::Object { key: listed.key.clone(), source };
        let name = listed.key.name();
        let bytes = reader.store().get(&listed.key).await?;
        if let Some(Ok(id)) = name.strip_suffix(RELEASED).map(str::parse::<HoldId>) {
            let end: Released = body::from_document("hold's end", &bytes).map_err(bad)?;
            if end.hold != id {
                return Err(JournalError::Misplaced { key: listed.key, field: "hold id" });
            }
            over.insert(id);
        } else if let Ok(id) = name.parse::<HoldId>() {
            let hold: Hold = body::from_document("hold", &bytes).map_err(bad)?;
            if hold.hold != id {
                return Err(JournalError::Misplaced { key: listed.key, field: "hold id" });
            }
            held.insert(id, hold);
        }
    }
    let mut left: Vec<Hold> = held.into_values().filter(|hold| !over.contains(&hold.hold)).collect();
    left.sort_by(|one, other| one.created.cmp(&other.created));
    Ok(left)
}

/// When the newest hold was released, by the store's clock.
///
/// # Errors
/// When the store does not answer.
pub async fn newest_release(reader: &Reader) -> Result<Option<DateTime<Utc>>, JournalError> {
    let listed = reader.store().list(&reader.layout().holds()?, None, None).await?;
    Ok(listed
        .iter()
        .filter(|listed| listed.key.name().ends_with(RELEASED))
        .map(|listed| listed.modified)
        .max())
}
