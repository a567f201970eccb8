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
    /// A record began and did not end: its pages lie among those of the one before.
    within: bool,
    last: Option<Ended>,
}

impl Apply {
    /// Into this file.
    pub fn to(file: File) -> Self {
        Self { file, page_bytes: None, failed: None, within: false, last: None }
    }

    /// Takes what a decoder gives. What fails is said by [`end`](Self::end).
    pub fn take(&mut self, part: Part<'_>) {
        if self.failed.is_none() {
            self.failed = self.write(part).err();
        }
    }

    /// Whether something could not be written: more need not be given. [`end`](Self::end) says what.
    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    fn write(&mut self, part: Part<'_>) -> io::Result<()> {
        match part {
            Part::Begin(head) => {
                self.within = true;
                self.begin(head)
            }
            Part::Page { number, image } => {
                // Numbers begin with one, and a page is at most 64 KiB of at most 2^32.
                self.file.write_all_at(image, u64::from(number - 1) * image.len() as u64)
            }
            Part::End(ended) => {
                self.within = false;
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

    /// The last record that is in the file, and the file, which whoever wants it durable synchronises.
    ///
    /// # Errors
    /// When anything that it was given could not be written, or a record began and did not end: the file is no database then.
    pub fn end(self) -> io::Result<(File, Option<Ended>)> {
        if let Some(why) = self.failed {
            return Err(why);
        }
        if self.within {
            return Err(io::Error::other("its last record was not whole"));
        }
        Ok((self.file, self.last))
    }
}

/// Bytes of the database's file after a transaction.
fn length(head: &Head) -> u64 {
    u64::from(head.database_pages) * u64::from(head.page_bytes.get())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::decoder::{RecordDecoder, tests::transaction};
    use farshore_journal::Offset;

    fn applied(log: &[u8]) -> io::Result<(File, Option<Ended>)> {
        let mut apply = Apply::to(tempfile::tempfile().unwrap());
        RecordDecoder::new(Offset::new(0)).push(log, &mut |part| apply.take(part)).unwrap();
        apply.end()
    }

    #[test]
    fn records_make_a_file_of_the_last_ones_length() {
        let log = [transaction(1, &[1, 3], 3, 1), transaction(2, &[1], 2, 1)].concat();
        let (file, last) = applied(&log).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 2 * 512);
        assert_eq!(last.unwrap().head.number, 2);
    }

    #[test]
    fn a_record_that_was_cut_off_leaves_no_database() {
        let log = [transaction(1, &[1], 2, 1), transaction(2, &[1, 2], 2, 1)].concat();
        for cut in [1, 12, 13, 600] {
            assert!(applied(&log[..log.len() - cut]).is_err(), "without the last {cut} bytes");
        }
    }
}
