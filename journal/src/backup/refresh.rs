//! Writing a backup's files block by block: what an earlier backup holds is referred to, all else is put. `FORMAT.md` section 15.
//!
//! ```text
//! choose ─▶ opening, names what it may refer to ─▶ marks looked at ─▶ each block: same digest? ─┬─ yes ─▶ a piece of the earlier one
//!                                                                                               └─ no ──▶ its own parts
//! ─▶ sums, table ─▶ marks and manifests looked at again ─▶ manifest
//! ```
//! What always holds: a block is referred to only where its digest is that of the bytes that were given here; whatever an earlier backup's digests say, they never take
//! part in what this one's say; what cannot be compared is put. A backup that refers names those it refers to in its opening, which is durable before they are
//! looked at, so that none of them expires behind that look.
//! What it does not do: it does not know whether a base is well (its caller says which are), nor when to refresh.

use std::ops::Range;
use std::time::Duration;

use super::blocks::{
    BLOCK_BYTES, Blocks, FileBlocks, Named, PathSum, RECORDS, Record, Sum, SumsObject, Table,
    manifest_trailer,
};
use super::manifest::Manifest;
use super::pieces::{Borrowed, Held, MAX_HOLDERS, MAX_PIECES, Piece};
use super::reader::{Backup, list, standing};
use super::writer::{BackupOptions, BackupWriter, PART_BYTES, Trouble};
use crate::error::JournalError;
use crate::expiry::backup_marked;
use crate::format::header::{MAX_PLAIN_BYTES, VERSION};
use crate::format::{Digest, Kind, Unlock, body};
use crate::identity::{BackupId, Sequence};
use crate::reader::Reader;
use crate::store::{Key, Retry, StoreError};

/// How many of the newest backups are asked whether they may be referred to.
const ASKED: usize = 3;
/// How many times a database's bytes the backups that one refers to may hold: what a restore reads at most, besides its own.
const MOST_READ: u64 = 2;

/// How often the store is asked what it did not answer, and how long it is let be before. What is not known then costs a full backup, or a file that is put in full.
const ASKS: u32 = 4;
const BETWEEN_ASKS: Duration = Duration::from_millis(500);

/// Why the next one is a full one again.
const TOO_MANY: Full = "a restore would need too many backups";

/// What is done with blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sharing {
    /// No digests of them are kept, and nothing is referred to.
    None,
    /// Digests are kept, so that a later backup can refer to this one, which holds all of its bytes itself.
    Full,
    /// What an earlier one holds is referred to, if it is one of these.
    Refresh {
        /// Backups that are known to be well.
        well: Vec<BackupId>,
    },
}

/// A backup that another one may refer to.
#[derive(Debug)]
pub struct Base {
    blocks: Blocks,
    /// It, and those whose bytes it has.
    from: Vec<Named>,
    /// Which of them each `from` of its records is.
    names: Vec<Option<u32>>,
}

impl Base {
    /// Its id.
    pub fn id(&self) -> BackupId {
        self.blocks.table().backup
    }

    fn ids(&self) -> Vec<BackupId> {
        self.from.iter().map(|named| named.backup).collect()
    }
}

/// Why nothing is referred to: for people.
pub type Full = &'static str;

/// The newest complete backup that one for these recipients may refer to, as far as the store says.
///
/// # Errors
/// When the store does not answer.
pub async fn choose(
    reader: &Reader,
    options: &BackupOptions,
    well: &[BackupId],
    trouble: &Trouble,
) -> Result<Result<Base, Full>, JournalError> {
    let mut asked = 1;
    loop {
        match choose_once(reader, options, well).await {
            Err(JournalError::Store(why)) if is_asked_again(&why, asked) => {
                trouble(&why);
                tokio::time::sleep(BETWEEN_ASKS * asked).await;
                asked += 1;
            }
            chosen => return chosen,
        }
    }
}

/// Whether a store that did not answer is asked once more.
fn is_asked_again(why: &StoreError, asked: u32) -> bool {
    asked < ASKS && why.retry() != Retry::Never
}

async fn choose_once(
    reader: &Reader,
    options: &BackupOptions,
    well: &[BackupId],
) -> Result<Result<Base, Full>, JournalError> {
    let mut complete = Vec::new();
    for id in list(reader).await? {
        match standing(reader, id).await {
            Ok(found) => complete.extend(
                found
                    .complete
                    .map(|range| ((range.end.timeline.get(), range.end.offset), (id, range.sealed))),
            ),
            // It does not read, and verify names it.
            Err(why) if why.is_damage() || is_not_there(&why) => {}
            Err(why) => return Err(why),
        }
    }
    complete.sort_unstable_by_key(|(end, _)| std::cmp::Reverse(*end));
    let mut why: Full = "no earlier base backup is complete";
    for (_, (id, is_sealed)) in complete.into_iter().take(ASKED) {
        match fit(reader, options, well, (id, is_sealed)).await? {
            Ok(base) => return Ok(Ok(base)),
            // An older one needs fewer, and with it that would never end.
            Err(TOO_MANY) => return Ok(Err(TOO_MANY)),
            Err(not) => why = not,
        }
    }
    Ok(Err(why))
}

async fn fit(
    reader: &Reader,
    options: &BackupOptions,
    well: &[BackupId],
    (id, is_sealed): (BackupId, bool),
) -> Result<Result<Base, Full>, JournalError> {
    // Digests are as good as what binds them: the manifest does, where it can be read.
    let opened = match is_sealed {
        true => Blocks::open(reader, id).await,
        false => bound(reader, id).await,
    };
    let blocks = match opened {
        Ok(Some(blocks)) => blocks,
        Ok(None) => return Ok(Err("the newest ones have no digests of blocks")),
        Err(why) if why.is_damage() || is_not_there(&why) => {
            return Ok(Err("the newest ones, or their digests, do not read"));
        }
        Err(why) => return Err(why),
    };
    let Some(manifest) = manifest_trailer(reader, id).await? else { return Ok(Err("its manifest is gone")) };
    let table = blocks.table();
    if table.recipients != options.recipients.digest() {
        return Ok(Err("the newest ones were sealed for other recipients"));
    }
    let used: u64 = table.from.iter().map(|named| named.used).sum();
    let own = Named {
        backup: id,
        manifest,
        own_bytes: table.own_bytes,
        used: table.plain_bytes.saturating_sub(used),
    };
    let (mut from, mut names) = (vec![own], vec![Some(1)]);
    for named in &table.from {
        names.push((named.used > 0).then_some(from.len() as u32 + 1));
        from.extend(Some(named.clone()).filter(|named| named.used > 0));
    }
    let held: u64 = from.iter().map(|named| named.own_bytes).fold(0, u64::saturating_add);
    if from.len() > MAX_HOLDERS || held > table.plain_bytes.saturating_mul(MOST_READ) {
        return Ok(Err(TOO_MANY));
    }
    if !from.iter().all(|named| well.contains(&named.backup)) {
        return Ok(Err("the newest ones are not known to be well"));
    }
    for named in &from {
        if !has_its_parts(reader, named).await? {
            return Ok(Err("the newest ones expire, or lack something"));
        }
    }
    let base = Base { blocks, from, names };
    Ok(match stand(reader, &base.from).await? {
        None => Ok(base),
        Some(_) => Err("the newest ones expire, or lack something"),
    })
}

/// A backup's table, if it is the one that its manifest states, which is not sealed.
async fn bound(reader: &Reader, id: BackupId) -> Result<Option<Blocks>, JournalError> {
    match Backup::open(reader, id, &Unlock::none()).await? {
        Some(backup) => backup.blocks().await,
        None => Ok(None),
    }
}

/// Whether as many parts as a backup's own bytes have are there, one behind the other. Each is full but the last; what is in them is `verify`'s to see.
async fn has_its_parts(reader: &Reader, named: &Named) -> Result<bool, JournalError> {
    let folder = reader.layout().backups()?.join(named.backup)?;
    let listed = reader.store().list(&folder, None, None).await?;
    let mut numbers: Vec<u64> = listed
        .iter()
        .filter_map(|listed| listed.key.below(&folder)?.strip_prefix("part-")?.parse::<Sequence>().ok())
        .map(Sequence::get)
        .collect();
    numbers.sort_unstable();
    let wanted = named.own_bytes.div_ceil(PART_BYTES as u64);
    Ok(numbers.into_iter().eq(0..wanted))
}

/// Which of these backups is marked, gone, or another than it was; `None` when all stand.
async fn stand(reader: &Reader, from: &[Named]) -> Result<Option<BackupId>, JournalError> {
    for named in from {
        let same = manifest_trailer(reader, named.backup).await? == Some(named.manifest);
        if !same || backup_marked(reader, named.backup).await?.is_some() {
            return Ok(Some(named.backup));
        }
    }
    Ok(None)
}

fn is_not_there(why: &JournalError) -> bool {
    matches!(why, JournalError::Store(why) if why.is_not_found())
}

/// A backup of files, being written.
#[derive(Debug)]
pub struct FilesWriter {
    reader: Reader,
    writer: BackupWriter,
    trouble: Told,
    keeping: Option<Keeping>,
    base: Option<Base>,
    file: Option<Taking>,
    pieces: Vec<Piece>,
    /// Of each that is referred to, bytes that are used.
    used: Vec<u64>,
    /// Bytes of the whole stream so far.
    at: u64,
    table: Option<Digest>,
}

/// Who is told of failures that are waited out.
struct Told(Trouble);

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trouble")
    }
}

/// The digests of what was written.
#[derive(Debug, Default)]
struct Keeping {
    recipients: Option<Digest>,
    filling: Vec<u8>,
    /// Records in objects that are put.
    put: u64,
    sums: Vec<SumsObject>,
    files: Vec<FileBlocks>,
}

/// The file that is being written.
#[derive(Debug)]
struct Taking {
    /// Its records in the base.
    known: Range<u64>,
    block: Vec<u8>,
}

impl FilesWriter {
    /// Begins a backup: its opening is durable on `Ok`. `next_sequence` is the number that the journal's next chunk has now. With it comes why nothing is referred to, where that was asked for.
    ///
    /// # Errors
    /// When the store's failure cannot be waited out, or there is no randomness.
    pub async fn begin(
        reader: &Reader,
        options: &BackupOptions,
        next_sequence: Sequence,
        sharing: &Sharing,
        trouble: Trouble,
    ) -> Result<(Self, Option<Full>), JournalError> {
        let (mut base, mut full) = (None, None);
        if let Sharing::Refresh { well } = sharing {
            match choose(reader, options, well, &trouble).await? {
                Ok(chosen) => base = Some(chosen),
                Err(why) => full = Some(why),
            }
        }
        let refers = base.as_ref().map(Base::ids).unwrap_or_default();
        let mut writer =
            BackupWriter::begin_referring(reader, options, next_sequence, refers, trouble.clone()).await?;
        // Behind the opening: whoever marks one of them from now on finds it before anything is deleted.
        if let Some(chosen) = &base
            && stand(reader, &chosen.from).await?.is_some()
        {
            (base, full) = (None, Some("an earlier one was marked as expiring in this moment"));
            // Its opening names what may be gone before it is complete, and it would count as no better than that: it is left for another.
            writer = BackupWriter::begin(reader, options, next_sequence, trouble.clone()).await?;
        }
        let keeping = Keeping { recipients: options.recipients.digest(), ..Keeping::default() };
        let used = vec![0; base.as_ref().map_or(0, |base| base.from.len())];
        let begun = Self {
            reader: reader.clone(),
            writer,
            trouble: Told(trouble),
            keeping: (*sharing != Sharing::None).then_some(keeping),
            base,
            file: None,
            pieces: Vec::new(),
            used,
            at: 0,
            table: None,
        };
        Ok((begun, full))
    }

    /// Its id.
    pub fn id(&self) -> BackupId {
        self.writer.id()
    }

    /// The backup whose blocks it is compared with.
    pub fn base(&self) -> Option<BackupId> {
        self.base.as_ref().map(Base::id)
    }

    /// Bytes of the whole stream so far: where the next file's begin.
    pub fn at(&self) -> u64 {
        self.at + self.file.as_ref().map_or(0, |file| file.block.len() as u64)
    }

    /// A file's bytes follow; those of the one before have all been given.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn begin_file(&mut self, path: &str, size: u64) -> Result<(), JournalError> {
        self.end_file().await?;
        let path = PathSum::of(path);
        if let Some(keeping) = self.keeping.as_mut().filter(|_| size > 0) {
            let first = keeping.put + keeping.filling.len() as u64 / super::RECORD_BYTES;
            keeping.files.push(FileBlocks { path, size, first });
        }
        let known = self.base.as_ref().and_then(|base| base.blocks.file(path)).unwrap_or(0..0);
        self.file = Some(Taking { known, block: Vec::new() });
        Ok(())
    }

    /// Takes the file's next bytes. Waits while as many parts are on their way as memory allows.
    ///
    /// # Errors
    /// When something could not be encoded or stored: the backup is void.
    ///
    /// # Cancel safety
    /// None: after a dropped call the stream may have a hole. Drop the writer too.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), JournalError> {
        if self.keeping.is_none() {
            self.at += bytes.len() as u64;
            return self.writer.write(bytes).await;
        }
        while !bytes.is_empty() {
            let Some(file) = &mut self.file else {
                return Err(JournalError::NotHeld { what: "a file that these bytes are of".to_owned() });
            };
            if file.block.is_empty() && bytes.len() >= BLOCK_BYTES {
                let (block, later) = bytes.split_at(BLOCK_BYTES);
                self.block(block).await?;
                bytes = later;
                continue;
            }
            let take = bytes.len().min(BLOCK_BYTES - file.block.len());
            let (now, later) = bytes.split_at(take);
            file.block.extend_from_slice(now);
            bytes = later;
            if file.block.len() == BLOCK_BYTES {
                self.filled().await?;
            }
        }
        Ok(())
    }

    async fn filled(&mut self) -> Result<(), JournalError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut block = std::mem::take(&mut file.block);
        self.block(&block).await?;
        if let Some(file) = &mut self.file {
            block.clear();
            file.block = block;
        }
        Ok(())
    }

    async fn end_file(&mut self) -> Result<(), JournalError> {
        if self.file.as_ref().is_some_and(|file| !file.block.is_empty()) {
            self.filled().await?;
        }
        self.file = None;
        Ok(())
    }

    /// Takes a whole block, or a file's last one.
    async fn block(&mut self, block: &[u8]) -> Result<(), JournalError> {
        let sum = Sum::of(block);
        let bytes = block.len() as u64;
        let piece = match self.held(sum, bytes).await {
            Some(piece) => piece,
            None => {
                let at = self.writer.at();
                self.writer.write(block).await?;
                Piece { bytes, from: 0, at }
            }
        };
        self.at += bytes;
        if let Some(used) = (piece.from as usize).checked_sub(1).and_then(|at| self.used.get_mut(at)) {
            *used += bytes;
        }
        match self.pieces.last_mut() {
            Some(last) if last.from == piece.from && last.at + last.bytes == piece.at => last.bytes += bytes,
            _ => self.pieces.push(piece),
        }
        self.keep(Record { sum, from: piece.from, at: piece.at }).await
    }

    /// Where the file's next block stands already. What cannot be compared is not held.
    async fn held(&mut self, sum: Sum, bytes: u64) -> Option<Piece> {
        let known = &mut self.file.as_mut()?.known;
        let number = known.next()?;
        // Each one that is referred to may be followed by one that is not.
        if self.pieces.len() + 2 > MAX_PIECES {
            return None;
        }
        let base = self.base.as_mut()?;
        let mut asked = 1;
        let record = loop {
            match base.blocks.record(number).await {
                Ok(record) => break record,
                Err(JournalError::Store(why)) if is_asked_again(&why, asked) => {
                    (self.trouble.0)(&why);
                    tokio::time::sleep(BETWEEN_ASKS * asked).await;
                    asked += 1;
                }
                Err(_) => {
                    *known = 0..0;
                    return None;
                }
            }
        };
        let from = base.names.get(record.from as usize).copied().flatten()?;
        let named = base.from.get(from as usize - 1)?;
        let within = record.at.checked_add(bytes).is_some_and(|end| end <= named.own_bytes);
        (record.sum == sum && within).then_some(Piece { bytes, from, at: record.at })
    }

    async fn keep(&mut self, record: Record) -> Result<(), JournalError> {
        let Some(keeping) = &mut self.keeping else { return Ok(()) };
        let raw =
            record.encode().ok_or_else(|| JournalError::NotHeld { what: "a place that far".to_owned() })?;
        keeping.filling.extend_from_slice(&raw);
        match keeping.filling.len() as u64 == RECORDS * super::RECORD_BYTES {
            true => self.put_sums().await,
            false => Ok(()),
        }
    }

    async fn put_sums(&mut self) -> Result<(), JournalError> {
        let Some(keeping) = &mut self.keeping else { return Ok(()) };
        let records = keeping.filling.len() as u64 / super::RECORD_BYTES;
        if records == 0 {
            return Ok(());
        }
        let number = Sequence::new(keeping.sums.len() as u64);
        let range = keeping.put..keeping.put + records;
        let digest =
            self.writer.put_beside(Kind::Sums, number, range, std::mem::take(&mut keeping.filling)).await?;
        keeping.put += records;
        keeping.sums.push(SumsObject { number, records, digest });
        Ok(())
    }

    /// Ends the stream: waits for the last part, and puts what says which blocks are whose.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn end_stream(&mut self) -> Result<(), JournalError> {
        self.end_file().await?;
        self.put_sums().await?;
        self.writer.end_stream().await?;
        let Some(keeping) = self.keeping.take() else { return Ok(()) };
        let from = self.base.as_ref().map(|base| base.from.clone()).unwrap_or_default();
        let from = from.into_iter().zip(&self.used).map(|(named, used)| Named { used: *used, ..named });
        let table = Table {
            format: VERSION,
            backup: self.id(),
            recipients: keeping.recipients,
            plain_bytes: self.at,
            own_bytes: self.writer.at(),
            from: from.collect(),
            sums: keeping.sums,
            files: keeping.files,
        };
        let refuse = |source| JournalError::Encode { what: "backup table", source };
        let json = tokio::task::spawn_blocking(move || body::to_json("backup table", &table)).await;
        let json = json
            .map_err(|_| JournalError::NotHeld { what: "the table: making it was cut off".to_owned() })?
            .map_err(refuse)?;
        // Of some millions of files: the next one is a full one.
        if json.len() as u64 <= MAX_PLAIN_BYTES {
            self.table = Some(self.writer.put_beside(Kind::Table, Sequence::FIRST, 0..self.at, json).await?);
        }
        Ok(())
    }

    /// Ends the stream and puts the manifest, whose id, bytes, parts and references are filled in here. On `Ok` the backup is durable.
    ///
    /// # Errors
    /// [`JournalError::NotHeld`] when a backup that it refers to expires: there is no backup then. Otherwise as [`write`](Self::write).
    pub async fn finish(mut self, mut manifest: Manifest) -> Result<(Manifest, Key), JournalError> {
        self.end_stream().await?;
        manifest.table = self.table;
        manifest.borrowed = self.borrowed();
        if let (Some(base), Some(_)) = (&self.base, &manifest.borrowed)
            && let Some(gone) = stand(&self.reader, &base.from).await?
        {
            return Err(JournalError::NotHeld {
                what: format!("backup {gone} as it was: it expires, and this one refers to it"),
            });
        }
        self.writer.finish_whole(manifest, self.at).await
    }

    /// What it has of others, of those that it really has something of.
    fn borrowed(&mut self) -> Option<Borrowed> {
        let base = self.base.as_ref()?;
        let mut numbers = vec![0u32];
        let mut from = Vec::new();
        for (named, used) in base.from.iter().zip(&self.used) {
            if *used > 0 {
                from.push(Held { backup: named.backup, manifest: named.manifest });
            }
            numbers.push(from.len() as u32);
        }
        let mut pieces = std::mem::take(&mut self.pieces);
        for piece in &mut pieces {
            piece.from = numbers.get(piece.from as usize).copied().unwrap_or(u32::MAX);
        }
        (!from.is_empty()).then_some(Borrowed { from, pieces })
    }
}
