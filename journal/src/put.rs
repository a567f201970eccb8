//! Putting an object whose name nobody else gives: the same bytes under the same name until the store says that they are there.
//!
//! A backup's names carry its own random id, a segment's the numbers of chunks that only their writer has at hand: other
//! bytes under one of them are not ours, and never replaced. Chunks are put otherwise: `protocol` decides.

use std::time::Duration;

use bytes::Bytes;

use crate::error::JournalError;
use crate::store::{Created, Key, ObjectStore, Retry, StoreError};

const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LONGEST: Duration = Duration::from_secs(5);

/// Creates `key`, whatever it takes. On `Ok` exactly these bytes are there, durably.
///
/// # Errors
/// [`JournalError::Another`] when other bytes are there; failures that waiting cannot mend.
pub(crate) async fn put(
    store: &dyn ObjectStore,
    key: &Key,
    bytes: &Bytes,
    trouble: &(dyn Fn(&StoreError) + Send + Sync),
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
