//! The write-ahead log of a live database, read beside SQLite.
//!
//! What always holds: a transaction is given out only when the checksums computed from a known place on reach its commit frame, and
//! only up to the frame that SQLite itself counts: a killed writer may leave whole frames behind it. Reading takes no lock, and this
//! file may be opened and closed at will, unlike the database and its `-shm` (see [`super::hold`]).

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::record::{self, Head, PAGE_NUMBER_BYTES};
use super::wal::{FRAME_HEAD_BYTES, HEADER_BYTES, PageBytes, Place, WalFault, WalHeader};

/// Frames are read in pieces of about this many bytes.
const READ_BYTES: usize = 1 << 20;

/// The log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WalReadError {
    /// The operating system.
    #[error("the write-ahead log cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is no log.
    #[error("the write-ahead log does not read: {0}")]
    Fault(#[from] WalFault),
    /// It was begun anew, or cut off, while a transaction of it was read.
    #[error("the write-ahead log was begun anew while it was read")]
    BegunAnew,
    /// SQLite counts a frame that does not continue the one before it.
    #[error(
        "frame {frame} of the write-ahead log does not continue the one before it, though SQLite counts {counted}"
    )]
    Broken {
        /// Which, from one.
        frame: u32,
        /// How many SQLite counts.
        counted: u32,
    },
}

/// Which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Of an open file.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self { device: meta.dev(), inode: meta.ino() })
    }

    /// Of what the path leads to now; `None` when there is nothing.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::metadata(path) {
            Ok(meta) => Ok(Some(Self { device: meta.dev(), inode: meta.ino() })),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(why),
        }
    }
}

/// An open log.
#[derive(Debug)]
pub struct WalFile {
    path: PathBuf,
    file: File,
    id: FileId,
}

impl WalFile {
    /// Opens the log at this path.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let id = FileId::of(&file)?;
        Ok(Self { path: path.to_owned(), file, id })
    }

    /// Whether its path still leads to it.
    ///
    /// # Errors
    /// When that cannot be asked.
    pub fn is_in_place(&self) -> io::Result<bool> {
        Ok(FileId::at(&self.path)? == Some(self.id))
    }

    /// Its header; `None` when nothing was ever written to it.
    ///
    /// # Errors
    /// [`WalReadError`].
    pub fn header(&self) -> Result<Option<WalHeader>, WalReadError> {
        let mut bytes = [0; HEADER_BYTES];
        match self.file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(Some(WalHeader::parse(&bytes)?)),
            Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(why) => Err(why.into()),
        }
    }

    /// Reads frames that SQLite counted a moment ago. Where they are not there any more, an application's TRUNCATE cut them off: nobody
    /// holds the log before the first hold.
    fn read_frames(&self, bytes: &mut [u8], at: u64) -> Result<(), WalReadError> {
        self.file.read_exact_at(bytes, at).map_err(|why| match why.kind() {
            io::ErrorKind::UnexpectedEof => WalReadError::BegunAnew,
            _ => why.into(),
        })
    }

    /// The transactions behind `from`, up to the frame that SQLite counts.
    pub fn transactions(&self, header: WalHeader, from: Place, counted: u32) -> Transactions<'_> {
        Transactions { wal: self, header, at: from, counted, buffer: Vec::new(), buffered: 0..0 }
    }
}

/// A whole transaction in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Its pages in ascending order, each once, with the frame (from zero) of its last image. None behind the database's end.
    pub pages: Vec<(u32, u32)>,
    /// Pages of the database after it.
    pub database_pages: u32,
    /// The place behind its commit frame.
    pub place: Place,
}

/// Transactions in order.
#[derive(Debug)]
pub struct Transactions<'a> {
    wal: &'a WalFile,
    header: WalHeader,
    at: Place,
    counted: u32,
    buffer: Vec<u8>,
    /// Frames (from zero) in the buffer.
    buffered: std::ops::Range<u32>,
}

impl Transactions<'_> {
    /// The place behind the last transaction that was given.
    pub fn place(&self) -> Place {
        self.at
    }

    /// The next one; `None` behind the last that SQLite counts.
    ///
    /// # Errors
    /// [`WalReadError::Broken`] when the log is not what SQLite says it is.
    #[allow(clippy::should_implement_trait)] // an iterator of results would go on behind an error
    pub fn next(&mut self) -> Result<Option<Transaction>, WalReadError> {
        if self.at.frames >= self.counted {
            return Ok(None);
        }
        let mut place = self.at;
        let mut pages = Vec::new();
        while place.frames < self.counted {
            let broken = WalReadError::Broken { frame: place.frames + 1, counted: self.counted };
            let header = self.header;
            let bytes = self.frame(place.frames)?;
            let Some(frame) = header.frame_behind(place, bytes) else { return Err(broken) };
            pages.push((frame.page, place.frames));
            place = frame.behind;
            let Some(database_pages) = frame.commit else { continue };
            self.at = place;
            let pages = last_images(pages, database_pages);
            return Ok(Some(Transaction { pages, database_pages, place }));
        }
        Err(WalReadError::Broken { frame: self.counted, counted: self.counted })
    }

    /// One frame's bytes.
    fn frame(&mut self, number: u32) -> Result<&[u8], WalReadError> {
        let size = self.header.frame_bytes();
        if !self.buffered.contains(&number) {
            let many = u32::try_from(READ_BYTES / size).unwrap_or(1).max(1).min(self.counted - number);
            self.buffer.resize(many as usize * size, 0);
            self.buffered = 0..0;
            self.wal.read_frames(&mut self.buffer, self.header.frame_at(number))?;
            self.buffered = number..number + many;
        }
        let at = (number - self.buffered.start) as usize * size;
        Ok(&self.buffer[at..at + size])
    }
}

/// Of several images of a page the last one counts; what lies behind the database's end was cut off again. Pages in ascending order.
pub(super) fn last_images(mut images: Vec<(u32, u32)>, database_pages: u32) -> Vec<(u32, u32)> {
    images.sort_unstable();
    let mut last: Vec<(u32, u32)> = Vec::with_capacity(images.len());
    for (page, frame) in images {
        match last.last_mut() {
            Some(before) if before.0 == page => before.1 = frame,
            _ if page <= database_pages => last.push((page, frame)),
            _ => {}
        }
    }
    last
}

/// A transaction as a record of our log, given out in pieces.
#[derive(Debug, Clone, Copy)]
pub struct Encoder<'a> {
    /// The log that holds it.
    pub wal: &'a WalFile,
    /// Its header.
    pub header: WalHeader,
}

impl Encoder<'_> {
    /// The record's head.
    pub fn head(&self, transaction: &Transaction, number: u64) -> Head {
        // At most as many as the database has pages.
        let pages = transaction.pages.len() as u32;
        let page_bytes: PageBytes = self.header.page_bytes;
        Head::transaction(page_bytes, pages, number, transaction.database_pages, transaction.place)
    }

    /// Whether one of its pages has these bytes in it.
    ///
    /// # Errors
    /// When the log cannot be read or was begun anew.
    pub fn holds(&self, transaction: &Transaction, bytes: &[u8]) -> Result<bool, WalReadError> {
        let mut image = vec![0; self.header.page_bytes.as_usize()];
        for &(_, frame) in &transaction.pages {
            self.wal.read_frames(&mut image, self.header.frame_at(frame) + FRAME_HEAD_BYTES as u64)?;
            if image.windows(bytes.len()).any(|window| window == bytes) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives the record's bytes to `sink`, in pieces of a page and more. The frames are read again: where the log was begun anew
    /// meanwhile over them, the record is not finished.
    ///
    /// # Errors
    /// When the log cannot be read or was begun anew, or `sink` fails.
    pub fn encode(
        &self,
        transaction: &Transaction,
        number: u64,
        seen_micros: i64,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), WalReadError> {
        let mut out = self.head(transaction, number).encode().to_vec();
        let page_bytes = self.header.page_bytes.as_usize();
        let mut sum = 0;
        for &(page, frame) in &transaction.pages {
            let body = out.len();
            out.extend_from_slice(&page.to_le_bytes());
            out.resize(body + PAGE_NUMBER_BYTES + page_bytes, 0);
            let at = self.header.frame_at(frame) + FRAME_HEAD_BYTES as u64;
            self.wal.read_frames(&mut out[body + PAGE_NUMBER_BYTES..], at)?;
            sum = crc32c::crc32c_append(sum, &out[body..]);
            if out.len() >= READ_BYTES {
                sink(&out)?;
                out.clear();
            }
        }
        // A log that is begun anew gets its header before any frame, so one that still has the old header had the old pages. Source:
        // `sqlite3WalFrames`, wal.c.
        if self.wal.header()? != Some(self.header) {
            return Err(WalReadError::BegunAnew);
        }
        out.extend_from_slice(&record::foot(sum, seen_micros));
        Ok(sink(&out)?)
    }
}
