//! The decoder of segment files, whose last one may be used in part: what the tail explains is the end of the log.
//!
//! It is fed the files of one timeline in order, or the verified prefix of a `.partial` one. An end before the
//! position that was promised is the caller's to refuse: this decoder says only how far the bytes go, and why they
//! go no further. Bytes that stop and bytes that could not be read are different things; the caller says the latter
//! by never calling [`LogFileDecoder::finish`].

use farshore_journal::Position;

use super::decoder::LogDecoder;
use super::error::{EndOfLog, LogError};
use super::shape::LogShape;
use crate::event::LogEvent;

/// Decodes log from segment files.
#[derive(Debug)]
pub struct LogFileDecoder {
    decoder: LogDecoder,
    end: Option<EndOfLog>,
}

/// Whether the log goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileProgress {
    /// All bytes so far are log; the next ones are wanted.
    GoesOn,
    /// The log ended in the bytes given so far; more bytes change nothing.
    Ended(EndOfLog),
}

impl LogFileDecoder {
    /// As [`LogDecoder::new`].
    ///
    /// # Errors
    /// As [`LogDecoder::new`].
    pub fn new(shape: LogShape, start: Position) -> Result<Self, LogError> {
        LogDecoder::new(shape, start).map(Self::from)
    }

    /// As [`LogDecoder::push`], where a mismatch that an unused tail explains ends the log.
    ///
    /// # Errors
    /// For bytes that no unused tail can hold: another cluster's, another version's, a later timeline's, or a
    /// record of unknown layout.
    pub fn push(&mut self, bytes: &[u8], sink: &mut impl FnMut(LogEvent)) -> Result<FileProgress, LogError> {
        if let Some(end) = &self.end {
            return Ok(FileProgress::Ended(end.clone()));
        }
        match self.decoder.push(bytes, sink) {
            Ok(()) => Ok(FileProgress::GoesOn),
            Err(why) if why.may_be_tail() => {
                let end = EndOfLog { at: self.decoder.checked_end(), why: Some(why) };
                self.end = Some(end.clone());
                Ok(FileProgress::Ended(end))
            }
            Err(error) => Err(error),
        }
    }

    /// Says that there are no more bytes, and gives where the log ends.
    pub fn finish(self) -> EndOfLog {
        self.end.unwrap_or_else(|| EndOfLog { at: self.decoder.checked_end(), why: None })
    }

    /// The positions of what was decoded.
    pub fn decoded(&self) -> &LogDecoder {
        &self.decoder
    }
}

impl From<LogDecoder> for LogFileDecoder {
    fn from(decoder: LogDecoder) -> Self {
        Self { decoder, end: None }
    }
}
