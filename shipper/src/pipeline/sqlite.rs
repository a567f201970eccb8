//! Where a SQLite database's log comes from: the process that follows it.
//!
//! What always holds: the journal is taken over only after that process has shown that the database goes on from the last marked
//! chunk; what cannot be shown begins a new incarnation, never a guess, and the old one stays as it is. A crash leaves the
//! journal's end, which the next session begins at.

use std::path::PathBuf;
use std::time::Duration;

use chrono::Utc;
use farshore_engines::log::{SQLITE, Shape};
use farshore_engines::sqlite::stream::{self, Settings};
use farshore_engines::sqlite::{SEGMENT_BYTES, mark};
use farshore_engines::stream::Stream;
use farshore_journal::reader::Reader;
use farshore_journal::{Offset, Position, Timeline};
use tokio_util::sync::CancellationToken;

use super::Pipeline;
use super::incarnation::{Identity, Left};
use super::stream::Begun;
use crate::error::ShipError;
use crate::founding::Witness;
use crate::progress::Fact;
use crate::resume::{self, Comparison, Tail};

/// Where a journal begins.
const BEGIN: Position = Position::new(Timeline::new(1), Offset::new(0));

/// How long after a first doubt the proof is tried again.
const DOUBT: Duration = Duration::from_secs(1);

/// A database's file, and how it is followed for one store.
#[derive(Debug, Clone)]
pub struct File {
    /// How.
    pub follow: Settings,
}

/// What is kept beside the database's log bears witness that a store was shipped into.
struct Spool<'a>(&'a PathBuf);

impl Witness for Spool<'_> {
    async fn saw(&self) -> Result<Option<String>, ShipError> {
        let there = matches!(tokio::fs::try_exists(self.0).await, Ok(true));
        Ok(there.then(|| format!("{} is of that time", self.0.display())))
    }
}

impl Pipeline {
    /// One session: from the proof of continuity to the end of the stream.
    pub(super) async fn sqlite_session(
        &mut self,
        file: &File,
        cancel: &CancellationToken,
    ) -> Result<(), ShipError> {
        let now = Utc::now().to_rfc3339();
        let identity = Identity {
            engine: SQLITE,
            text: file.follow.path.display().to_string(),
            what: "path",
            major: 3,
            segment_bytes: SEGMENT_BYTES,
        };
        let witness = Spool(&file.follow.spool);
        let repository = self.store.repository(&witness, &now).await?;
        let mut record = self.incarnation(&repository, &identity, &witness).await?;
        self.config.writer.segment_bytes = record.segment_bytes;
        self.tell(|progress| {
            progress.segment_bytes = Some(record.segment_bytes);
            progress.releasable = None;
            // Until a look of this session says it.
            progress.source_end = None;
        });
        let mut conflict: Option<String> = None;
        let mut doubted: Option<Position> = None;
        loop {
            if let Some(reason) = conflict.take() {
                // Both histories stay restorable: the old incarnation is left as it is.
                let left = Left::of(&repository, &record).await;
                tracing::error!(database = %self.config.database, "{}", left.followed_by(&reason));
                record = self.found(&repository, &identity, record.number + 1, &reason).await?;
            }
            let reader = Reader::new(&repository, &record)?;
            if self.writer.as_ref().is_some_and(|writer| writer.reader().incarnation() != record.incarnation)
            {
                self.writer = None;
            }
            self.tell(|progress| progress.incarnation = Some(record.incarnation));
            self.fact(Fact::Incarnation(record.clone()));
            self.check_not_fenced(&reader).await?;
            let tail = resume::marked_tail(&reader).await?;
            self.check_own_end(&reader, tail.as_ref()).await?;
            let Some(tail) = tail else {
                self.own(&reader, BEGIN, None).await?;
                self.tell(|progress| progress.base_due = Some("the journal begins".to_owned()));
                continue;
            };
            let begun = begin(file, Shape::Sqlite { segment_bytes: record.segment_bytes }, &tail).await;
            let streamed = match begun {
                Ok(begun) => {
                    self.resumes_at = Some(tail.compare_from().offset);
                    Box::pin(self.stream(&reader, begun, &tail, cancel)).await
                }
                Err(why) => Err(why),
            };
            match streamed {
                Ok(_) => return Ok(()),
                // Said before anything new came, where there is something to go on from: else it is tried again, later.
                Err(ShipError::Followed(stream::Error::Doubt { why }))
                    if self.stands_at(tail.end) && tail.compare_from() != BEGIN =>
                {
                    if doubted != Some(tail.end) {
                        // Another process that followed may just be ending, and a proof that fails now hold in a moment.
                        doubted = Some(tail.end);
                        tokio::time::sleep(DOUBT).await;
                        continue;
                    }
                    conflict =
                        Some(format!("nothing shows that the database goes on from {}: {why}", tail.end));
                }
                Err(ShipError::Conflict { from, to }) => {
                    conflict = Some(format!(
                        "the database's transactions differ from the journal between {from} and {to}"
                    ));
                }
                Err(why) => return Err(why),
            }
        }
    }
}

/// Begins the stream behind the last marked chunk, once it is shown that the database goes on from there.
async fn begin(file: &File, shape: Shape, tail: &Tail) -> Result<Begun, ShipError> {
    let from = tail.compare_from();
    let stream = stream::Stream::open(&file.follow, mark::start(tail.mark, from.offset)).await?;
    Ok(Begun {
        stream: Stream::Sqlite(Box::new(stream)),
        from,
        decoder: shape.decoder(from)?,
        comparison: Comparison::over(tail),
        events: Vec::new(),
        guard: None,
    })
}
