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
pub(super) struct LookForBase {
    look: Option<Look>,
    /// What was said last.
    said: Option<String>,
}

impl LookForBase {
    /// Begins one, unless one is under way.
    pub(super) fn look(&mut self, reader: &Reader, segment_bytes: u64) {
        if self.look.is_none() {
            let reader = reader.clone();
            self.look = Some(Box::pin(async move { line::due(&reader, segment_bytes).await }));
        }
    }

    /// Commits wait for it: whoever looks why must find it, once.
    fn say(&mut self, why: String) {
        if self.said.as_ref() != Some(&why) {
            tracing::warn!("commits wait: {why}");
            self.said = Some(why);
        }
    }

    /// Whether there is one, once the look that is under way is over. May be dropped and asked again.
    pub(super) async fn found(&mut self) -> bool {
        let Some(look) = self.look.as_mut() else { return std::future::pending().await };
        let due = look.await;
        self.look = None;
        match due {
            Ok(due) => {
                if let Some(due) = &due {
                    self.say(format!("no base backup leads to the journal's end: {due}"));
                }
                due.is_none()
            }
            Err(why) => {
                self.say(format!("it is not known whether a base backup leads to the journal's end: {why}"));
                false
            }
        }
    }
}
