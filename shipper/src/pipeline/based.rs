//! Whether the journal has a base backup from which its end can be reached: looked for in the store, beside the stream that ships into it.
//!
//! What always holds: the owner's loop never waits for it, and one look is under way at most.

use std::pin::Pin;

use farshore_journal::reader::Reader;

use crate::base_due::Due;
use crate::error::ShipError;
use crate::line;

type Look = Pin<Box<dyn Future<Output = Result<Option<Due>, ShipError>> + Send>>;

/// A look that may be under way.
#[derive(Default)]
pub(super) struct LookForBase(Option<Look>);

impl LookForBase {
    /// Begins one, unless one is under way.
    pub(super) fn look(&mut self, reader: &Reader, segment_bytes: u64) {
        if self.0.is_none() {
            let reader = reader.clone();
            self.0 = Some(Box::pin(async move { line::due(&reader, segment_bytes).await }));
        }
    }

    /// Whether there is one, once the look that is under way is over. May be dropped and asked again.
    pub(super) async fn found(&mut self) -> bool {
        let Some(look) = self.0.as_mut() else { return std::future::pending().await };
        let due = look.await;
        self.0 = None;
        match due {
            Ok(due) => due.is_none(),
            Err(why) => {
                tracing::debug!(error = %why, "it is not known whether there is a base backup for what is stored");
                false
            }
        }
    }
}
