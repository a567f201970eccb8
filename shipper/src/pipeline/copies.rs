//! Copies of a database that come in the stream of its log, for whoever makes base backups of them.
//!
//! What always holds: a copy is of the incarnation that it was asked for; its parts are given in order, and the last of them says whether it is whole; one that ends otherwise broke
//! off. Whoever asks and lets go holds up nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use farshore_engines::sqlite::stream::BasePart;
use farshore_journal::format::index::Whole;
use farshore_journal::{IncarnationId, Offset, Position, Timeline};
use tokio::sync::{Notify, mpsc};

/// Parts of a copy, of at most 1 MiB each, that wait for whoever asked.
const WAITING: usize = 8;

/// A part of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyPart {
    /// Bytes of the record of what the copy lacks.
    Beneath(Bytes),
    /// The copy begins: a restore applies the log from here on, where a record starts.
    Begin(Position),
    /// Bytes of the file.
    Copy(Bytes),
    /// It is whole: with what lies beneath and the log up to here it is the database.
    Whole(Position),
    /// It broke off, in words.
    Broken(String),
}

/// Where copies are asked for.
#[derive(Debug, Clone, Default)]
pub struct Copies {
    asked: Arc<Notify>,
    waiting: Arc<Mutex<VecDeque<Asked>>>,
}

/// A copy that was asked for: of which incarnation, and by whom.
#[derive(Debug)]
struct Asked {
    of: IncarnationId,
    by: mpsc::Sender<CopyPart>,
}

impl Copies {
    /// Asks for one of this incarnation's database. It begins once a stream runs; its parts end without a last one where the stream does,
    /// or another incarnation is shipped.
    pub fn ask(&self, of: IncarnationId) -> mpsc::Receiver<CopyPart> {
        let (by, receiver) = mpsc::channel(WAITING);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(Asked { of, by });
        self.asked.notify_one();
        receiver
    }

    /// The next that was asked for, by somebody who still wants it. Positions of one incarnation mean nothing in another's journal, so
    /// whoever asked for another one is told that it will not come.
    pub(super) async fn next(&self, of: IncarnationId) -> mpsc::Sender<CopyPart> {
        loop {
            let asked = {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.retain(|asked| asked.of == of && !asked.by.is_closed());
                waiting.pop_front()
            };
            match asked {
                Some(asked) => return asked.by,
                None => self.asked.notified().await,
            }
        }
    }
}

/// The copy that is under way.
#[derive(Debug, Default)]
pub(super) enum Copying {
    #[default]
    None,
    For(mpsc::Sender<CopyPart>),
    /// Whoever asked has let go; the source sends the rest all the same.
    Nobody,
}

impl Copying {
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether no more parts may be taken now.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::For(asked) if asked.capacity() == 0 && !asked.is_closed())
    }

    /// Resolves when [`is_full`](Self::is_full) no longer holds.
    pub(super) async fn room(&self) {
        if let Self::For(asked) = self {
            // Given back at once.
            let _ = asked.reserve().await;
        }
    }

    /// Passes a part on; `last` is the last whole record of the log before it.
    pub(super) fn take(&mut self, part: BasePart, last: Option<Whole>) {
        let at = |offset: Offset| Position::new(Timeline::new(1), offset);
        let unknown = || CopyPart::Broken("no record was seen before it".to_owned());
        let ends = matches!(part, BasePart::Whole | BasePart::Broken(_));
        let part = match part {
            BasePart::Beneath(bytes) => CopyPart::Beneath(bytes),
            BasePart::Begin => last.map_or_else(unknown, |last| CopyPart::Begin(at(last.last_record))),
            BasePart::Copy(bytes) => CopyPart::Copy(bytes),
            BasePart::Whole => last.map_or_else(unknown, |last| CopyPart::Whole(at(last.to))),
            BasePart::Broken(why) => CopyPart::Broken(why),
        };
        let given = match self {
            Self::For(asked) => asked.try_send(part).is_ok(),
            _ => true,
        };
        if ends {
            *self = Self::None;
        } else if !given {
            *self = Self::Nobody;
        }
    }
}
