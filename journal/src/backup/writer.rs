//! Writing a backup: bytes in order become frames, packed two at a time; frames become parts, put two at a time.
//!
//! What always holds: parts are numbered in the order of the stream; [`BackupWriter::finish`] puts the manifest only when
//! every part is stored; a writer that is dropped leaves an opening and parts without a manifest, which is no backup.
//! Memory: three frames in plain, and packed a part being filled and up to [`JOBS`] parts being put.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::manifest::{MAX_MANIFEST_BYTES, Manifest, Opening, Part};
use crate::error::JournalError;
use crate::format::body;
use crate::format::header::MAX_PLAIN_BYTES;
use crate::format::object::{ChainUse, Compression, Draft, Encoded, Framed, MAX_FRAME_BYTES, Piece};
use crate::format::pack::Packed;
use crate::format::{ChainValue, DataKey, Digest, FormatError, Kind, Mark, Recipients};
use crate::identity::{BackupId, Generation, IncarnationId, Sequence, StoreId, WriterId};
use crate::layout::Layout;
use crate::packing::{Packers, Packing};
use crate::position::{Offset, Timeline};
use crate::put::put;
use crate::reader::Reader;
use crate::store::{Key, ObjectStore, StoreError};

/// Plain bytes of a part: so few that some of them fit the memory beside a database, even when they do not compress; so many
/// that their puts' price does not matter (a terabyte is 65,536 of them).
pub const PART_BYTES: usize = 16 << 20;
/// Parts that are being put at a time.
const JOBS: usize = 2;

/// Is told of each failure of the store that is waited out.
pub type Trouble = Arc<dyn Fn(&StoreError) + Send + Sync>;

/// How a backup is written.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// How frames are compressed.
    pub compression: Compression,
    /// For whom the data key is wrapped; nobody: nothing is encrypted.
    pub recipients: Recipients,
    /// What the backup is called.
    pub label: String,
    /// This machine's name.
    pub host: String,
}

/// A backup being written.
pub struct BackupWriter {
    target: Arc<Target>,
    trouble: Trouble,
    /// The frame being filled, and the bytes of its part before it.
    filling: Vec<u8>,
    before: usize,
    packing: Packing,
    /// Bytes of the stream so far.
    at: u64,
    next: Sequence,
    jobs: JoinSet<Result<Part, JournalError>>,
    parts: Vec<Part>,
    stored_plain: u64,
}

/// Where parts go and how they are made.
struct Target {
    store: Arc<dyn ObjectStore>,
    store_id: StoreId,
    incarnation: IncarnationId,
    layout: Layout,
    backup: BackupId,
    key: Option<DataKey>,
    compression: Compression,
}

impl std::fmt::Debug for BackupWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupWriter")
            .field("backup", &self.target.backup)
            .field("at", &self.at)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl BackupWriter {
    /// Begins a backup: its opening is durable on `Ok`. `next_sequence` is the number that the journal's next chunk has now.
    ///
    /// # Errors
    /// When the store's failure cannot be waited out, or there is no randomness.
    pub async fn begin(
        reader: &Reader,
        options: &BackupOptions,
        next_sequence: Sequence,
        trouble: Trouble,
    ) -> Result<Self, JournalError> {
        Self::begin_referring(reader, options, next_sequence, Vec::new(), trouble).await
    }

    /// As [`begin`](Self::begin), of one that may refer to these backups' bytes.
    pub(super) async fn begin_referring(
        reader: &Reader,
        options: &BackupOptions,
        next_sequence: Sequence,
        refers: Vec<BackupId>,
        trouble: Trouble,
    ) -> Result<Self, JournalError> {
        let encode = |source| JournalError::Encode { what: "backup opening", source };
        let key = (!options.recipients.is_empty()).then(DataKey::mint).transpose().map_err(encode)?;
        let wrapped = key.as_ref().map(|key| key.wrap(&options.recipients)).transpose().map_err(encode)?;
        let target = Target {
            store: Arc::clone(reader.store()),
            store_id: reader.store_id(),
            incarnation: reader.incarnation(),
            layout: reader.layout().clone(),
            backup: BackupId::mint(),
            key,
            compression: options.compression,
        };
        let opening = Opening {
            label: options.label.clone(),
            host: options.host.clone(),
            started: chrono::Utc::now().to_rfc3339(),
            key: wrapped,
            next_sequence,
            refers,
        };
        let json = body::to_json("backup opening", &opening).map_err(encode)?;
        let Encoded { bytes, .. } =
            target.encode(Kind::BackupOpening, Sequence::FIRST, Range::NONE, &json)?;
        put(&*target.store, &target.layout.backup_opening(target.backup)?, &bytes, &*trouble).await?;
        Ok(Self {
            target: Arc::new(target),
            trouble,
            filling: Vec::new(),
            before: 0,
            packing: Packing::new(Packers::new(options.compression)),
            at: 0,
            next: Sequence::FIRST,
            jobs: JoinSet::new(),
            parts: Vec::new(),
            stored_plain: 0,
        })
    }

    /// Its id.
    pub fn id(&self) -> BackupId {
        self.target.backup
    }

    /// Bytes of the stream so far: where the next ones begin.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Plain bytes of the parts that are stored.
    pub fn stored_plain(&self) -> u64 {
        self.stored_plain
    }

    /// Takes the stream's next bytes. Waits while as many parts are on their way as memory allows.
    ///
    /// # Errors
    /// When a part could not be encoded or stored: the backup is void.
    ///
    /// # Cancel safety
    /// None: after a dropped call the stream may have a hole. Drop the writer too.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), JournalError> {
        while !bytes.is_empty() {
            if self.filling.capacity() == 0 {
                self.filling.reserve_exact(MAX_FRAME_BYTES);
            }
            let take = bytes.len().min(MAX_FRAME_BYTES - self.filling.len());
            let (now, later) = bytes.split_at(take);
            self.filling.extend_from_slice(now);
            self.at += take as u64;
            bytes = later;
            if self.filling.len() == MAX_FRAME_BYTES {
                self.pack().await?;
                if self.before == PART_BYTES {
                    self.cut().await?;
                }
            }
        }
        Ok(())
    }

    /// Sends the frame that is filled on its way.
    async fn pack(&mut self) -> Result<(), JournalError> {
        while self.packing.is_full() {
            self.packing.joined().await?;
        }
        self.before += self.filling.len();
        self.packing.hand(std::mem::take(&mut self.filling));
        Ok(())
    }

    /// Sends what is packed on its way as a part.
    async fn cut(&mut self) -> Result<(), JournalError> {
        while !self.packing.is_idle() {
            self.packing.joined().await?;
        }
        while self.jobs.len() >= JOBS {
            self.join_one().await?;
        }
        let number = self.next;
        self.next = number.next().ok_or(JournalError::NotHeld { what: "any number more".to_owned() })?;
        let frames = self.packing.take();
        let plain_bytes = std::mem::take(&mut self.before);
        let range = Range::stream(self.at - plain_bytes as u64, plain_bytes);
        let (target, trouble) = (Arc::clone(&self.target), Arc::clone(&self.trouble));
        self.jobs.spawn(async move {
            let (target, Encoded { bytes, digest, .. }) = tokio::task::spawn_blocking(move || {
                let encoded = target.part(number, range, frames)?;
                Ok::<_, JournalError>((target, encoded))
            })
            .await
            .map_err(|_| stopped())??;
            put(&*target.store, &target.layout.backup_part(target.backup, number)?, &bytes, &*trouble)
                .await?;
            Ok(Part { number, plain_bytes: plain_bytes as u64, bytes: bytes.len() as u64, digest })
        });
        Ok(())
    }

    async fn join_one(&mut self) -> Result<(), JournalError> {
        match self.jobs.join_next().await {
            None => Ok(()),
            Some(done) => {
                let part = done.map_err(|_| stopped())??;
                self.stored_plain += part.plain_bytes;
                self.parts.push(part);
                Ok(())
            }
        }
    }

    /// Waits for the last part; the stream has ended. Gives the parts for the manifest.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn end_stream(&mut self) -> Result<(), JournalError> {
        if !self.filling.is_empty() {
            self.pack().await?;
        }
        if self.before > 0 {
            self.cut().await?;
        }
        while !self.jobs.is_empty() {
            self.join_one().await?;
        }
        self.parts.sort_unstable_by_key(|part| part.number);
        Ok(())
    }

    /// Ends the stream and puts the manifest, whose id, bytes and parts are filled in here. On `Ok` the backup is durable.
    ///
    /// # Errors
    /// When the manifest's parts and entries do not make one stream ([`JournalError::Encode`]); otherwise as
    /// [`write`](Self::write).
    pub async fn finish(mut self, manifest: Manifest) -> Result<(Manifest, Key), JournalError> {
        self.end_stream().await?;
        let whole = self.at;
        self.finish_whole(manifest, whole).await
    }

    /// Puts an object that says something of the stream, and that nobody needs a key for; gives its digest.
    pub(super) async fn put_beside(
        &self,
        kind: Kind,
        number: Sequence,
        range: std::ops::Range<u64>,
        plain: Vec<u8>,
    ) -> Result<Digest, JournalError> {
        let target = Arc::clone(&self.target);
        let range = Range { start: Offset::new(range.start), end: Offset::new(range.end), ..Range::NONE };
        let encode = move || target.encode(kind, number, range, &plain);
        let Encoded { bytes, digest, .. } =
            tokio::task::spawn_blocking(encode).await.map_err(|_| stopped())??;
        let layout = &self.target.layout;
        let key = match kind {
            Kind::Table => layout.backup_table(self.target.backup)?,
            _ => layout.backup_sums(self.target.backup, number)?,
        };
        put(&*self.target.store, &key, &bytes, &*self.trouble).await?;
        Ok(digest)
    }

    /// As [`finish`](Self::finish), of a stream of `whole` bytes that ended here, some of which others hold.
    pub(super) async fn finish_whole(
        mut self,
        mut manifest: Manifest,
        whole: u64,
    ) -> Result<(Manifest, Key), JournalError> {
        manifest.format = manifest.format_needed();
        manifest.backup = self.target.backup;
        manifest.plain_bytes = whole;
        manifest.parts = std::mem::take(&mut self.parts);
        let target = Arc::clone(&self.target);
        let encode = move || {
            let refuse = |source| JournalError::Encode { what: "backup manifest", source };
            manifest.check().map_err(refuse)?;
            let json = body::to_json("backup manifest", &manifest).map_err(refuse)?;
            if json.len() as u64 > MAX_MANIFEST_BYTES.min(MAX_PLAIN_BYTES) {
                return Err(refuse(FormatError::Field { field: "plain bytes" }));
            }
            let range = Range {
                timeline: manifest.end.timeline,
                start: manifest.start.offset,
                end: manifest.end.offset,
            };
            let encoded = target.encode(Kind::Manifest, Sequence::FIRST, range, &json)?;
            Ok((manifest, encoded.bytes))
        };
        let (manifest, bytes) = tokio::task::spawn_blocking(encode).await.map_err(|_| stopped())??;
        let key = self.target.layout.backup_manifest(self.target.backup)?;
        put(&*self.target.store, &key, &bytes, &*self.trouble).await?;
        Ok((manifest, key))
    }
}

/// What an object's header states besides its place.
#[derive(Clone, Copy)]
struct Range {
    timeline: Timeline,
    start: Offset,
    end: Offset,
}

impl Range {
    const NONE: Self = Self { timeline: Timeline::new(0), start: Offset::new(0), end: Offset::new(0) };

    /// A part's place in the plain stream.
    fn stream(start: u64, bytes: usize) -> Self {
        Self { start: Offset::new(start), end: Offset::new(start + bytes as u64), ..Self::NONE }
    }
}

impl Target {
    fn draft(&self, kind: Kind, number: Sequence, range: Range) -> Draft {
        let zero = ChainValue::from_bytes([0; 32]);
        Draft {
            kind,
            store: self.store_id,
            incarnation: self.incarnation,
            number,
            generation: Generation::new(0),
            writer: WriterId::from_bytes(*self.backup.as_bytes()),
            timeline: range.timeline,
            start: range.start,
            end: range.end,
            written_at: chrono::Utc::now().timestamp_micros(),
            chain: ChainUse::Stated { before: zero, after: zero },
            mark: Mark::NONE,
        }
    }

    /// The part of these frames.
    fn part(&self, number: Sequence, range: Range, frames: Vec<Packed>) -> Result<Encoded, JournalError> {
        let mut end = 0;
        let framed = frames.into_iter().map(|packed| {
            end += packed.plain_bytes();
            Framed { end, packed }
        });
        let draft = self.draft(Kind::Part, number, range);
        let encoded = draft.assemble(framed.collect(), self.compression.codec(), self.key.as_ref());
        encoded.map_err(encode_error)
    }

    /// The object of these plain bytes.
    fn encode(
        &self,
        kind: Kind,
        number: Sequence,
        range: Range,
        plain: &[u8],
    ) -> Result<Encoded, JournalError> {
        let mut end = 0;
        let pieces = plain.chunks(MAX_FRAME_BYTES).map(|plain| {
            end += plain.len() as u64;
            Piece { end, plain }
        });
        let pieces: Vec<Piece<'_>> = pieces.collect();
        // The opening carries the key, so it is read without one.
        let (compression, key) = match kind {
            Kind::BackupOpening => (Compression::None, None),
            // Whoever takes the next backup reads them, and has no private key.
            Kind::Sums | Kind::Table => (self.compression, None),
            _ => (self.compression, self.key.as_ref()),
        };
        self.draft(kind, number, range).encode(&pieces, compression, key).map_err(encode_error)
    }
}

fn encode_error(source: FormatError) -> JournalError {
    JournalError::Encode { what: "backup object", source }
}

/// A task ended without a result: it panicked, or the runtime is going down. Either way the backup is void.
fn stopped() -> JournalError {
    JournalError::NotHeld { what: "the backup's part: its task ended early".to_owned() }
}
