//! What the room of pushed files can do when the stream cannot begin: fill what the source lacks, or bear witness to the
//! journal's end so that the stream begins behind it.
//!
//! What always holds: files are held to the proof of [`crate::push::proof`], and what they hold is appended by the journal's owner,
//! as what the stream brings is. A file that proves nothing changes nothing.

use std::time::Instant;

use farshore_journal::format::Mark;
use farshore_journal::reader::Reader;

use super::Cluster;
use super::source::Source;
use crate::batch::Batch;
use crate::error::ShipError;
use crate::pipeline::Pipeline;
use crate::push::proof::{Proof, prove};
use crate::resume::Tail;

/// What the room came to.
pub(super) enum Filled {
    /// The journal goes on: its end is another one now.
    Appended,
    /// The files hold nothing new, and are equal to the journal's end as far as they reach.
    Witness(Box<Proof>),
    /// Nothing that helps.
    Nothing,
}

impl Pipeline {
    /// Looks into the room for what the source no longer has.
    pub(super) async fn fill(
        &mut self,
        cluster: &Cluster,
        reader: &Reader,
        source: &Source,
        tail: &Tail,
    ) -> Result<Filled, ShipError> {
        let anchor = source.sql.next_transaction().await?;
        let proof = match prove(&cluster.room, source.shape, tail, Some(anchor)).await {
            Ok(Some(proof)) => proof,
            Ok(None) => return Ok(Filled::Nothing),
            Err(why) => {
                tracing::warn!(database = %self.config.database, error = %why, "pushed files do not continue the journal");
                return Ok(Filled::Nothing);
            }
        };
        if proof.fresh.is_empty() {
            return Ok(Filled::Witness(Box::new(proof)));
        }
        self.own(reader, tail.end, Some(tail.last)).await?;
        tracing::info!(database = %self.config.database, store = %self.config.store_name, from = %tail.end, to = %proof.end,
            "log that the source no longer has is taken from pushed files");
        self.unstored.clear();
        proof.events.into_iter().for_each(|event| self.unstored.note(event));
        let _told_when_it_was_stored = self.unstored.up_to(tail.end.offset);
        let mut batch = Batch::at(tail.end, self.config.writer.segment_bytes);
        for piece in proof.fresh {
            let end = batch.end().offset;
            batch.push(&piece.bytes, false, Instant::now());
            self.send(&mut batch, Vec::new(), piece.checked.unwrap_or(end), Mark::NONE)?;
            self.settle().await?;
        }
        Ok(Filled::Appended)
    }
}
