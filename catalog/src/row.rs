//! The border between rows and domain types, both ways.
//!
//! Integers are read as `i64` and checked into what they mean; nothing is cut off or wrapped.

use std::str::FromStr;
use std::time::Duration;

use chrono::TimeZone;
use farshore_journal::{Offset, Position, Timeline};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::{Error, Result, Time};

/// A u64 as a bigint.
pub(crate) fn big(what: &'static str, value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| Error::TooLarge { what, value })
}

/// A known or unknown u64 as a bigint.
pub(crate) fn big_known(what: &'static str, value: Option<u64>) -> Result<Option<i64>> {
    value.map(|value| big(what, value)).transpose()
}

/// An offset as a bigint.
pub(crate) fn at(offset: Offset) -> Result<i64> {
    big("log offset", offset.get())
}

/// A known or unknown offset as a bigint.
pub(crate) fn at_known(offset: Option<Offset>) -> Result<Option<i64>> {
    offset.map(at).transpose()
}

/// A timeline as a bigint.
pub(crate) fn branch(timeline: Timeline) -> i64 {
    i64::from(timeline.get())
}

/// A moment as microseconds.
pub(crate) fn micros(time: Time) -> i64 {
    time.timestamp_micros()
}

/// A duration as microseconds.
pub(crate) fn duration(what: &'static str, value: Duration) -> Result<i64> {
    i64::try_from(value.as_micros()).map_err(|_| Error::TooLarge { what, value: u64::MAX })
}

/// A moment from microseconds.
pub(crate) fn moment(column: &'static str, micros: i64) -> Result<Time> {
    chrono::Utc
        .timestamp_micros(micros)
        .single()
        .ok_or_else(|| Error::corrupt(column, format!("{micros} microseconds are no time")))
}

/// What is read from a row, by column.
pub(crate) trait Read {
    fn maybe_integer(&self, column: &'static str) -> Result<Option<i64>>;
    fn maybe_str(&self, column: &'static str) -> Result<Option<&str>>;

    fn maybe_text(&self, column: &'static str) -> Result<Option<String>> {
        Ok(self.maybe_str(column)?.map(str::to_owned))
    }

    fn str(&self, column: &'static str) -> Result<&str> {
        self.maybe_str(column)?.ok_or_else(|| Error::corrupt(column, "null"))
    }

    fn integer(&self, column: &'static str) -> Result<i64> {
        self.maybe_integer(column)?.ok_or_else(|| Error::corrupt(column, "null"))
    }

    fn text(&self, column: &'static str) -> Result<String> {
        self.str(column).map(str::to_owned)
    }

    fn parsed<T: FromStr<Err = farshore_journal::ParseError>>(&self, column: &'static str) -> Result<T> {
        self.str(column)?.parse().map_err(|error| Error::unreadable(column, &error))
    }

    fn maybe_parsed<T: FromStr<Err = farshore_journal::ParseError>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>> {
        let text = self.maybe_str(column)?;
        text.map(str::parse).transpose().map_err(|error| Error::unreadable(column, &error))
    }

    fn maybe_count(&self, column: &'static str) -> Result<Option<u64>> {
        let number = self.maybe_integer(column)?;
        number
            .map(u64::try_from)
            .transpose()
            .map_err(|_| Error::corrupt(column, "a negative number where none can be"))
    }

    fn count(&self, column: &'static str) -> Result<u64> {
        self.maybe_count(column)?.ok_or_else(|| Error::corrupt(column, "null"))
    }

    fn flag(&self, column: &'static str) -> Result<bool> {
        match self.integer(column)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Error::corrupt(column, format!("{other} is neither 0 nor 1"))),
        }
    }

    fn offset(&self, column: &'static str) -> Result<Offset> {
        self.count(column).map(Offset::new)
    }

    fn maybe_offset(&self, column: &'static str) -> Result<Option<Offset>> {
        Ok(self.maybe_count(column)?.map(Offset::new))
    }

    fn maybe_timeline(&self, column: &'static str) -> Result<Option<Timeline>> {
        let number = self.maybe_integer(column)?;
        number
            .map(u32::try_from)
            .transpose()
            .map(|number| number.map(Timeline::new))
            .map_err(|_| Error::corrupt(column, "a number that is no timeline"))
    }

    fn timeline(&self, column: &'static str) -> Result<Timeline> {
        self.maybe_timeline(column)?.ok_or_else(|| Error::corrupt(column, "null"))
    }

    fn maybe_position(&self, timeline: &'static str, offset: &'static str) -> Result<Option<Position>> {
        match (self.maybe_timeline(timeline)?, self.maybe_offset(offset)?) {
            (Some(timeline), Some(offset)) => Ok(Some(Position::new(timeline, offset))),
            (None, None) => Ok(None),
            _ => Err(Error::corrupt(offset, "half a position")),
        }
    }

    fn maybe_time(&self, column: &'static str) -> Result<Option<Time>> {
        self.maybe_integer(column)?.map(|micros| moment(column, micros)).transpose()
    }

    fn time(&self, column: &'static str) -> Result<Time> {
        self.integer(column).and_then(|micros| moment(column, micros))
    }
}

impl Read for AnyRow {
    fn maybe_integer(&self, column: &'static str) -> Result<Option<i64>> {
        self.try_get(column).map_err(|error| Error::corrupt(column, error))
    }

    fn maybe_str(&self, column: &'static str) -> Result<Option<&str>> {
        self.try_get(column).map_err(|error| Error::corrupt(column, error))
    }
}

/// What a row holds as bytes.
pub(crate) fn bytes(row: &AnyRow, column: &'static str) -> Result<Vec<u8>> {
    row.try_get(column).map_err(|error| Error::corrupt(column, error))
}
