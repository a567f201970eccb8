//! Putting a backup's objects: the same bytes under the same name until the store says that they are there.
//!
//! A backup's names carry its own random id, so nobody else writes them: other bytes under one of them are somebody's
//! tampering, never a race.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::writer::Trouble;
use crate::error::JournalError;
use crate::store::{Created, Key, ObjectStore, Retry, StoreError};

const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LONGEST: Duration = Duration::from_secs(5);

/// Creates `key`, whatever it takes. On `Ok` exactly these bytes are there, durably.
///
/// # Errors
/// [`JournalError::Another`] when other bytes are there; failures that waiting cannot mend.
pub(super) async fn put(
    store: &Arc<dyn ObjectStore>,
    key: &Key,
    bytes: &Bytes,
    trouble: &Trouble,
) -> Result<(), JournalError> {
    let mut pause = PAUSE_FIRST;
    loop {
        let failed = match store.create(key, bytes.clone()).await {
            Ok(Created::New) => return Ok(()),
            // A request of ours whose answer was lost ends here too: only reading back tells.
            Ok(Created::Exists) => match store.get(key).await {
                Ok(there) if there == *bytes => return Ok(()),
                Ok(_) => {
                    let found = format!("other bytes at {key}");
                    return Err(JournalError::Another {
                        found,
                        expected: "those that were just put".to_owned(),
                    });
                }
                // Read after write may lag on a listing, never here; it is asked again all the same.
                Err(StoreError::NotFound { .. }) => None,
                Err(why) => Some(why),
            },
            Err(why) => Some(why),
        };
        if let Some(why) = failed {
            if why.retry() == Retry::Never {
                return Err(why.into());
            }
            trouble(&why);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_LONGEST);
    }
}
