//! Times given by people: a date, a time of day, and an offset or a zone, always.
//!
//! What always holds: a time without offset or zone, and on a line without `--tz`, is refused (a guess of the zone restores to the wrong hour); a
//! local time that a clock change made happen twice or never is refused with both readings named.

use std::str::FromStr;

use chrono::{
    DateTime, Duration, FixedOffset, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Utc,
};
use chrono_tz::Tz;

/// A moment a restore may go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(DateTime<Utc>);

impl Moment {
    /// That of a job, in UTC.
    pub const fn of(time: DateTime<Utc>) -> Self {
        Self(time)
    }

    /// As UTC.
    pub const fn utc(self) -> DateTime<Utc> {
        self.0
    }
}

/// Why a text is not a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MomentError {
    /// No offset and no zone.
    #[error("time has no offset; write {0}Z or {0}[Europe/Berlin], or name its zone with --tz")]
    NoOffset(String),
    /// A time of day alone.
    #[error("time has no date; write 2026-03-29T{0}")]
    NoDate(String),
    /// Neither.
    #[error("time has no date and no offset; write 2026-03-29T{0}Z or \"2026-03-29 {0}[Europe/Berlin]\"")]
    NoDateNoOffset(String),
    /// Not a time at all.
    #[error(
        "not a time; write 2026-03-29T14:05:00Z, 2026-03-29T16:05+02:00 or \"2026-03-29 16:05[Europe/Berlin]\""
    )]
    Shape,
    /// No such zone.
    #[error("no time zone is named {0}; write one as Europe/Berlin")]
    Zone(String),
    /// Clocks were set back: the local time happened twice.
    #[error("{local} happened twice in {zone}; write {earlier} or {later}")]
    Twice {
        /// As it was given.
        local: String,
        /// Where.
        zone: String,
        /// The first reading.
        earlier: String,
        /// The second.
        later: String,
    },
    /// Clocks were set forward: the local time never happened.
    #[error("{local} never happened in {zone}: clocks were set forward; write {earlier} or {later}")]
    Never {
        /// As it was given.
        local: String,
        /// Where.
        zone: String,
        /// As if clocks had already been set forward.
        earlier: String,
        /// As if they had not yet been.
        later: String,
    },
}

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        let (local, place) = split_place(text);
        let naive = match (parse_local(local), place) {
            (Some(naive), Some(_)) => naive,
            (Some(_), None) => return Err(MomentError::NoOffset(local.to_owned())),
            (None, place) if parse_clock(local).is_some() => {
                return Err(match place {
                    Some(_) => MomentError::NoDate(text.to_owned()),
                    None => MomentError::NoDateNoOffset(local.to_owned()),
                });
            }
            (None, _) => return Err(MomentError::Shape),
        };
        match place {
            Some(Place::Offset(offset)) => {
                let offset = parse_offset(offset).ok_or(MomentError::Shape)?;
                offset
                    .from_local_datetime(&naive)
                    .single()
                    .map(|t| Self(t.to_utc()))
                    .ok_or(MomentError::Shape)
            }
            Some(Place::Zone(zone)) => in_zone(naive, zone).map(Self),
            None => Err(MomentError::Shape),
        }
    }
}

/// Whether a text is a date and a time of day and says nothing of where.
pub fn without_a_place(text: &str) -> bool {
    matches!(split_place(text), (local, None) if parse_local(local).is_some())
}

#[derive(Clone, Copy)]
enum Place<'a> {
    Offset(&'a str),
    Zone(&'a str),
}

/// Splits what names the place from the local time: `[Zone]`, `Z`, `+hh:mm` or `-hh:mm` at the end.
fn split_place(text: &str) -> (&str, Option<Place<'_>>) {
    if let Some((local, zone)) = text.strip_suffix(']').and_then(|t| t.split_once('[')) {
        return (local.trim_end(), Some(Place::Zone(zone)));
    }
    if let Some(local) = text.strip_suffix('Z') {
        return (local, Some(Place::Offset("+00:00")));
    }
    // A date holds `-` too: an offset is the last six characters and follows a time of day.
    let at = text.len().saturating_sub(6);
    if text.contains(':') && text.is_char_boundary(at) && at > 0 {
        let (local, offset) = text.split_at(at);
        if offset.starts_with(['+', '-']) && offset.as_bytes().get(3) == Some(&b':') {
            return (local, Some(Place::Offset(offset)));
        }
    }
    (text, None)
}

fn parse_offset(text: &str) -> Option<FixedOffset> {
    let (sign, digits) = (text.get(..1)?, text.get(1..)?);
    let (hours, minutes) = digits.split_once(':')?;
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    if hours > 14 || minutes > 59 {
        return None;
    }
    let seconds = hours * 3600 + minutes * 60;
    FixedOffset::east_opt(if sign == "-" { -seconds } else { seconds })
}

fn two_digits(text: &str) -> Option<i32> {
    (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

fn parse_local(text: &str) -> Option<NaiveDateTime> {
    let (date, clock) = text.split_at_checked(10)?;
    let clock = clock.strip_prefix(['T', ' '])?;
    let plain = date
        .bytes()
        .enumerate()
        .all(|(i, b)| if matches!(i, 4 | 7) { b == b'-' } else { b.is_ascii_digit() });
    let date = plain.then(|| NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()).flatten()?;
    Some(date.and_time(parse_clock(clock)?))
}

/// `hh:mm`, `hh:mm:ss` or `hh:mm:ss.fraction` down to nanoseconds. A second 60 is refused: no log holds one.
fn parse_clock(text: &str) -> Option<NaiveTime> {
    let mut parts = text.splitn(3, ':');
    let (hours, minutes) = (two_digits(parts.next()?)?, two_digits(parts.next()?)?);
    let (seconds, nanos) = match parts.next() {
        None => (0, 0),
        Some(rest) => {
            let (seconds, fraction) = rest.split_once('.').unwrap_or((rest, "0"));
            if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            (two_digits(seconds)?, format!("{fraction:0<9}").parse().ok()?)
        }
    };
    let part = |number: i32| u32::try_from(number).ok();
    NaiveTime::from_hms_nano_opt(part(hours)?, part(minutes)?, part(seconds)?, nanos)
}

fn in_zone(naive: NaiveDateTime, name: &str) -> Result<DateTime<Utc>, MomentError> {
    let zone: Tz = name.parse().map_err(|_| MomentError::Zone(name.to_owned()))?;
    let local = naive.format("%Y-%m-%d %H:%M:%S%.f").to_string();
    let show = |time: DateTime<FixedOffset>| time.format("%Y-%m-%dT%H:%M:%S%.f%:z").to_string();
    match zone.from_local_datetime(&naive) {
        LocalResult::Single(time) => Ok(time.to_utc()),
        LocalResult::Ambiguous(earlier, later) => Err(MomentError::Twice {
            local,
            zone: name.to_owned(),
            earlier: show(earlier.fixed_offset()),
            later: show(later.fixed_offset()),
        }),
        LocalResult::None => {
            // The offsets a day before and a day after the change are those on either side of it.
            let around = |days| zone.offset_from_utc_datetime(&(naive + Duration::days(days))).fix();
            let read = |offset: FixedOffset| offset.from_local_datetime(&naive).single().map(show);
            match (read(around(1)), read(around(-1))) {
                (Some(earlier), Some(later)) => {
                    Err(MomentError::Never { local, zone: name.to_owned(), earlier, later })
                }
                _ => Err(MomentError::Shape),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> Result<String, String> {
        text.parse::<Moment>().map(|m| m.utc().to_rfc3339()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_time_with_an_offset_or_a_zone_is_one_moment() {
        for text in [
            "2026-03-29T14:05:00Z",
            "2026-03-29 14:05Z",
            "2026-03-29T16:05:00.000+02:00",
            "2026-03-29 16:05[Europe/Berlin]",
            "2026-03-29 16:05 [Europe/Berlin]",
            "2026-03-29T09:05-05:00",
        ] {
            assert_eq!(utc(text).as_deref(), Ok("2026-03-29T14:05:00+00:00"), "{text}");
        }
    }

    #[test]
    fn a_time_without_an_offset_is_refused_with_what_to_write() {
        assert_eq!(
            utc("2026-03-29 14:05").unwrap_err(),
            "time has no offset; write 2026-03-29 14:05Z or 2026-03-29 14:05[Europe/Berlin], or name its zone with --tz"
        );
        assert!(
            utc("14:05").unwrap_err().starts_with("time has no date and no offset; write 2026-03-29T14:05Z")
        );
        assert_eq!(utc("14:05Z").unwrap_err(), "time has no date; write 2026-03-29T14:05Z");
    }

    #[test]
    fn a_local_time_that_happened_twice_or_never_is_refused_with_both_readings() {
        assert_eq!(
            utc("2026-10-25 02:30[Europe/Berlin]").unwrap_err(),
            "2026-10-25 02:30:00 happened twice in Europe/Berlin; write 2026-10-25T02:30:00+02:00 or \
             2026-10-25T02:30:00+01:00"
        );
        assert_eq!(
            utc("2026-03-29 02:30[Europe/Berlin]").unwrap_err(),
            "2026-03-29 02:30:00 never happened in Europe/Berlin: clocks were set forward; write \
             2026-03-29T02:30:00+02:00 or 2026-03-29T02:30:00+01:00"
        );
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "yesterday",
            "2026-13-01T00:00Z",
            "2026-02-30T00:00Z",
            "2026-01-01T24:00Z",
            "2026-01-01T23:59:60Z",
            "2026-1-1T1:00Z",
            "2026-01-01",
            "2026-01-01Z",
            "2026-01-01T00:00+99:00",
            "2026-01-01T00:00[Mars/Base]",
            "2026-01-01T00:00:00.Z",
            "ä2026-01-01T00:00",
            "[]",
            "]",
            "2026-01-01T00:00+0200",
        ] {
            assert!(utc(text).is_err(), "{text}");
        }
    }
}
