//! Writing records into a database's file that nobody has open: a restore.
//!
//! What always holds: behind [`Apply::end`] the file is the database as it was at that record, once it is synchronised; in the midst of a
//! record it is none. What it does not do: read what an application may read meanwhile (a standby does).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::decoder::{Ended, Part};
use super::record::{Head, Kind};
use super::wal::PageBytes;

/// A database's file, being written.
#[derive(Debug)]
pub struct Apply {
    file: File,
    page_bytes: Option<PageBytes>,
    failed: Option<io::Error>,
    last: Option<Ended>,
}

impl Apply {
    /// Into this file.
    pub fn to(file: File) -> Self {
        Self { file, page_bytes: None, failed: None, last: None }
    }

    /// Takes what a decoder gives. What fails is said by [`end`](Self::end).
    pub fn take(&mut self, part: Part<'_>) {
        if self.failed.is_none() {
            self.failed = self.write(part).err();
        }
    }

    fn write(&mut self, part: Part<'_>) -> io::Result<()> {
        match part {
            Part::Begin(head) => self.begin(head),
            Part::Page { number, image } => {
                // Numbers begin with one, and a page is at most 64 KiB of at most 2^32.
                self.file.write_all_at(image, u64::from(number - 1) * image.len() as u64)
            }
            Part::End(ended) => {
                if ended.head.kind == Kind::Transaction {
                    self.file.set_len(length(&ended.head))?;
                }
                self.last = Some(ended.clone());
                Ok(())
            }
        }
    }

    fn begin(&mut self, head: &Head) -> io::Result<()> {
        match self.page_bytes {
            Some(before) if before != head.page_bytes => Err(io::Error::other(format!(
                "its pages change from {} to {} bytes",
                before.get(),
                head.page_bytes.get()
            ))),
            _ => {
                self.page_bytes = Some(head.page_bytes);
                Ok(())
            }
        }
    }

    /// The last record that is in the file; the file is synchronised.
    ///
    /// # Errors
    /// When anything that it was given could not be written.
    pub fn end(self) -> io::Result<(File, Option<Ended>)> {
        if let Some(why) = self.failed {
            return Err(why);
        }
        self.file.sync_all()?;
        Ok((self.file, self.last))
    }
}

/// Bytes of the database's file after a transaction.
fn length(head: &Head) -> u64 {
    u64::from(head.database_pages) * u64::from(head.page_bytes.get())
}
