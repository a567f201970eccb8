//! Chunks in order, fetched ahead of whoever takes them, and their plain bytes frame by frame.
//!
//! What always holds: each chunk is checked to continue the one before it; a frame is decoded when it is near to be taken, so what is
//! held is the objects fetched ahead, at most [`AHEAD_BYTES`] of them by the size of the last one, and two frames.

use std::collections::VecDeque;

use bytes::Bytes;
use farshore_journal::chunk::Chunk;
use farshore_journal::format::{DataKey, FormatError, Header};
use farshore_journal::{JournalError, Offset, Sequence};
use tokio_util::task::AbortOnDropHandle;

use crate::source::{AHEAD, Source, cut_off, in_a_task};

/// Bytes of objects that may be fetched ahead: one large chunk, or as many small ones as hide a distant store's answer time.
const AHEAD_BYTES: u64 = 8 << 20;

/// A chunk that was fetched, with the key that opens it.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub header: Header,
    pub chunk: Chunk,
    pub key: Option<DataKey>,
}

/// Chunks of these numbers in order.
pub(crate) struct Ahead {
    source: Source,
    next: u64,
    last: u64,
    waiting: VecDeque<AbortOnDropHandle<Result<Fetched, JournalError>>>,
    before: Option<Header>,
    allowed: usize,
}

impl Ahead {
    pub fn new(source: &Source, first: Sequence, last: Sequence) -> Self {
        let (next, last) = (first.get(), last.get());
        // Nothing is known of their sizes yet.
        Self { source: source.clone(), next, last, waiting: VecDeque::new(), before: None, allowed: 1 }
    }

    /// Those behind a chunk that was read before, the first of which is to continue it.
    pub fn behind(source: &Source, former: Header, last: Sequence) -> Self {
        let first = former.number.next().unwrap_or(former.number);
        Self { before: Some(former), ..Self::new(source, first, last) }
    }

    /// The next chunk; `None` behind the last.
    pub async fn next(&mut self) -> Result<Option<Fetched>, JournalError> {
        if self.waiting.is_empty() {
            self.fetch_up_to(1);
        }
        let Some(waiting) = self.waiting.front_mut() else { return Ok(None) };
        let fetched = waiting.await;
        self.waiting.pop_front();
        let fetched = fetched.map_err(|_| cut_off())??;
        if let Some(former) = &self.before
            && former.after != fetched.header.before
        {
            return Err(JournalError::Broken { before: former.number, at: fetched.header.number });
        }
        self.before = Some(fetched.header.clone());
        // A merged chunk is a part of an object that is held anyway.
        let bytes = match fetched.chunk.is_merged() {
            true => fetched.header.plain_bytes,
            false => fetched.header.object_bytes(),
        };
        let fits = AHEAD_BYTES.checked_div(bytes).unwrap_or(u64::MAX);
        self.allowed = usize::try_from(fits).unwrap_or(AHEAD).clamp(1, AHEAD);
        self.fetch_up_to(self.allowed);
        Ok(Some(fetched))
    }

    fn fetch_up_to(&mut self, waiting: usize) {
        while self.waiting.len() < waiting && self.next <= self.last {
            let (source, number) = (self.source.clone(), Sequence::new(self.next));
            // Tasks of their own: whoever takes the chunks may ask for a segment, or a key, that one of these is reading.
            self.waiting.push_back(in_a_task(async move { source.fetched(number).await }));
            let Some(next) = self.next.checked_add(1) else { return };
            self.next = next;
        }
    }
}

/// A data chunk's frames, from one on, each decoded while the one before it is used.
pub(crate) struct Frames {
    source: Source,
    header: Header,
    chunk: Chunk,
    key: Option<DataKey>,
    next: usize,
    coming: Option<AbortOnDropHandle<Result<Bytes, FormatError>>>,
}

impl Frames {
    /// Those that end behind `from`.
    pub fn behind(source: &Source, fetched: Fetched, from: Offset) -> Self {
        let Fetched { header, chunk, key } = fetched;
        let next = chunk.heads().iter().take_while(|head| head.end <= from.get()).count();
        Self { source: source.clone(), header, chunk, key, next, coming: None }
    }

    /// The next frame's first byte and its plain bytes; `None` behind the last.
    pub async fn next(&mut self) -> Result<Option<(Offset, Bytes)>, JournalError> {
        let Some(head) = self.chunk.heads().get(self.next).copied() else { return Ok(None) };
        let start = Offset::new(head.end.saturating_sub(u64::from(head.plain_bytes)));
        let coming = self.coming.take().unwrap_or_else(|| self.decode(self.next));
        let plain = match coming.await.map_err(|_| cut_off())? {
            Ok(plain) => plain,
            Err(source) => self.by_its_own_object(source).await?,
        };
        self.next += 1;
        if self.next < self.chunk.heads().len() {
            self.coming = Some(self.decode(self.next));
        }
        Ok(Some((start, plain)))
    }

    fn decode(&self, frame: usize) -> AbortOnDropHandle<Result<Bytes, FormatError>> {
        let (chunk, key) = (self.chunk.clone(), self.key.clone());
        AbortOnDropHandle::new(tokio::task::spawn_blocking(move || chunk.plain(frame, key.as_ref())))
    }

    /// A segment that does not open, while the chunk that it was merged from still stands.
    async fn by_its_own_object(&mut self, source: FormatError) -> Result<Bytes, JournalError> {
        let key = self.source.reader().layout().chunk(self.header.number)?;
        if !self.chunk.is_merged() {
            return Err(JournalError::Object { key, source });
        }
        let Ok(own) = self.source.reader().own_object(&self.header).await else {
            return Err(JournalError::Object { key, source });
        };
        self.chunk = own;
        let plain = self.decode(self.next).await.map_err(|_| cut_off())?;
        plain.map_err(|source| JournalError::Object { key, source })
    }
}
