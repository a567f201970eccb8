//! What files can do when the stream cannot begin: those of the spool and of the room of pushed files fill what the source lacks, or bear witness to the
//! journal's end so that the stream begins behind it.
//!
//! What always holds: files are held to the proof of [`crate::push::proof`], and what they hold is appended by the journal's owner,
//! as what the stream brings is. A file that proves nothing changes nothing.

use std::time::{Duration, Instant};

use farshore_journal::format::Mark;
use farshore_journal::reader::Reader;

use super::Cluster;
use super::source::Source;
use crate::batch::Batch;
use crate::error::ShipError;
use crate::pipeline::Pipeline;
use crate::push::proof::{LogFiles, Proof, Unproved, prove};
use crate::resume::{self, Tail};

/// How long a spool that does not say what it has is waited for, where log may be given up.
const SPOOL_AWAY: Duration = Duration::from_secs(600);

/// How long a spool's disk may take to answer.
const SPOOL_ANSWERS: Duration = Duration::from_secs(60);

/// What the files came to.
pub(super) enum Filled {
    /// The journal goes on: its end is another one now.
    Appended,
    /// The files hold nothing new, and are equal to the journal's end as far as they reach.
    Witness(Box<Proof>),
    /// The spool has another history than the journal: the source's, which let it go to there.
    Differs { how: String },
    /// Nothing that helps; with what is wrong with those of the spool, if anything is.
    Nothing { spool: Option<String> },
}

impl Filled {
    /// What is wrong with the spool's files, if anything is.
    pub(super) fn wrong(self) -> Option<String> {
        match self {
            Self::Nothing { spool } => spool,
            Self::Appended | Self::Witness(_) | Self::Differs { .. } => None,
        }
    }
}

impl Pipeline {
    /// Looks into the spool, and into the room, for what the source no longer has.
    pub(super) async fn fill(
        &mut self,
        cluster: &Cluster,
        reader: &Reader,
        source: &Source,
        tail: &Tail,
    ) -> Result<Filled, ShipError> {
        let wrong = match self.fill_from_spool(cluster, reader, source, tail).await? {
            Filled::Nothing { spool } => spool,
            filled => return Ok(filled),
        };
        match self.proved(&cluster.room, source, tail).await? {
            Ok(Some(proof)) if proof.fresh.is_empty() => Ok(Filled::Witness(proof)),
            Ok(Some(proof)) => self.fill_from("pushed files", *proof, reader, source, tail).await,
            Ok(None) | Err(_) => Ok(Filled::Nothing { spool: wrong }),
        }
    }

    /// Whether log that neither the source nor the spool has may be given up. Where the slot stands beyond it, the spool may have had it: then only a spool that
    /// is all there, and reads, says that it is gone.
    pub(super) async fn check_given_up(
        &mut self,
        cluster: &Cluster,
        source: &Source,
        tail: &Tail,
        wrong: Option<String>,
    ) -> Result<(), ShipError> {
        let (Some(spool), Some(wrong)) = (&cluster.spool, wrong) else {
            self.spool_away = None;
            return Ok(());
        };
        let slot = source.sql.slot_get(&cluster.keep).await?.and_then(|slot| slot.restart);
        let segment_bytes = source.shape.segment_bytes.get();
        let asked = tail.compare_from().offset;
        let Some(to) = slot.map(|slot| slot.segment_start(segment_bytes)).filter(|to| *to > asked) else {
            return Ok(());
        };
        let since = *self.spool_away.get_or_insert_with(Instant::now);
        match !spool.holds && since.elapsed() > SPOOL_AWAY {
            true => Ok(()),
            false => Err(ShipError::SpoolLacks { from: tail.end, to, wrong, holds: spool.holds }),
        }
    }

    /// Appends to a journal that is about to be left what the spool has of its history.
    ///
    /// # Errors
    /// As a session's; and while the spool does not answer, which is waited for as for log that is shipped.
    pub(super) async fn fill_before_leaving(
        &mut self,
        cluster: &Cluster,
        reader: &Reader,
        source: &Source,
        segment_bytes: u64,
    ) -> Result<(), ShipError> {
        if cluster.spool.is_none() {
            return Ok(());
        }
        let host = self.config.writer.host.clone();
        while let Some(tail) = resume::tail(reader, segment_bytes, &host).await? {
            match self.fill_from_spool(cluster, reader, source, &tail).await? {
                Filled::Appended => {}
                other => {
                    self.check_given_up(cluster, source, &tail, other.wrong()).await?;
                    break;
                }
            }
        }
        Ok(())
    }

    /// As [`Self::fill`], from the spool alone.
    pub(super) async fn fill_from_spool(
        &mut self,
        cluster: &Cluster,
        reader: &Reader,
        source: &Source,
        tail: &Tail,
    ) -> Result<Filled, ShipError> {
        let Some(spool) = &cluster.spool else { return Ok(Filled::Nothing { spool: None }) };
        // Where there is nothing to compare, nothing shows whose log it is.
        if tail.lacks_history || tail.frames.is_empty() {
            return Ok(Filled::Nothing { spool: None });
        }
        let silent = || Ok(Filled::Nothing { spool: Some("its disk does not answer".to_owned()) });
        // A disk that does not answer is asked once, and not again while it is.
        let Some(files) = spool.ask(source.system.system_identifier) else { return silent() };
        let proved = tokio::time::timeout(SPOOL_ANSWERS, self.proved(&files, source, tail));
        let Ok(proved) = proved.await else { return silent() };
        match proved?.map(|proof| proof.map(|proof| *proof)) {
            Ok(Some(proof)) if !proof.fresh.is_empty() => {
                self.fill_from("the spool", proof, reader, source, tail).await
            }
            Ok(Some(Proof { left_out: Some(why), .. })) => Ok(Filled::Nothing { spool: Some(why) }),
            // That it is not there is an answer only where all of the spool is.
            Ok(_) => {
                let looked = tokio::task::spawn_blocking(move || files.is_all_there());
                match tokio::time::timeout(SPOOL_ANSWERS, looked).await {
                    Ok(Ok(looked)) => Ok(Filled::Nothing { spool: looked.err().map(|why| why.to_string()) }),
                    Ok(Err(_)) => Err(ShipError::TaskEnded { what: "spool" }),
                    Err(_) => silent(),
                }
            }
            Err(Unproved::Differs { file, why }) => Ok(Filled::Differs {
                how: format!(
                    "the source's log, which is in the spool ({file}), differs from the journal: {why}"
                ),
            }),
            Err(why) => Ok(Filled::Nothing { spool: Some(why.to_string()) }),
        }
    }

    /// What files prove; `Err` in it says why they prove nothing.
    async fn proved(
        &self,
        files: &impl LogFiles,
        source: &Source,
        tail: &Tail,
    ) -> Result<Result<Option<Box<Proof>>, Unproved>, ShipError> {
        let anchor = source.sql.next_transaction().await?;
        let proved = prove(files, source.shape, tail, Some(anchor)).await;
        if let Err(why) = &proved {
            tracing::warn!(database = %self.config.database, error = %why, "files do not continue the journal");
        }
        Ok(proved.map(|proof| proof.map(Box::new)))
    }

    /// Appends what lies behind the journal's end.
    async fn fill_from(
        &mut self,
        whence: &str,
        proof: Proof,
        reader: &Reader,
        source: &Source,
        tail: &Tail,
    ) -> Result<Filled, ShipError> {
        self.own(reader, tail.end, Some(tail.last)).await?;
        tracing::info!(database = %self.config.database, store = %self.config.store_name, from = %tail.end, to = %proof.end,
            "log that the source no longer has is taken from {whence}");
        // The source was asked a moment ago: it is not silent while log comes from elsewhere.
        self.tell(|progress| {
            progress.source_end = Some(source.system.flushed);
            progress.last_contact = Some(chrono::Utc::now());
            progress.trouble = None;
        });
        self.unstored.clear();
        proof.events.into_iter().for_each(|event| self.unstored.note(event));
        let _told_when_it_was_stored = self.unstored.up_to(tail.end.offset);
        let mut batch = Batch::at(tail.end, self.config.writer.segment_bytes);
        // None of this was compared with the source: nothing is released on the strength of it.
        self.filling = true;
        for piece in proof.fresh {
            let end = batch.end().offset;
            batch.push(&piece.bytes, false, Instant::now());
            self.send(&mut batch, Vec::new(), piece.checked.unwrap_or(end), Mark::NONE)?;
            self.settle().await?;
        }
        self.filling = false;
        self.spool_away = None;
        Ok(Filled::Appended)
    }
}
