//! Durations and byte counts as people write them, parsed strictly.
//!
//! What always holds: one whole number and one unit, nothing else; zero and overflow are refused. `1.5s`, `1 s`
//! and a bare `30` are errors, not guesses: a wrong guess here is a wrong RPO.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

/// A time span from the configuration or a flag: `200ms`, `1s`, `15m`, `4h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(Duration);

impl Span {
    /// As a duration.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// The span of this many milliseconds; `None` for zero.
    pub fn from_millis(millis: u64) -> Option<Self> {
        (millis > 0).then(|| Self(Duration::from_millis(millis)))
    }
}

/// Why a text is not a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a time span.
    #[error("not a time span; write a whole number and ms, s, m, h or d, as in \"200ms\" or \"15m\"")]
    Span,
    /// Not a byte count.
    #[error("not a byte count; write a whole number and B, KiB, MiB, GiB or TiB, as in \"16MiB\"")]
    Bytes,
    /// Not a rate.
    #[error("not a rate; write a whole number and kB/s, MB/s, GB/s, KiB/s, MiB/s or GiB/s, as in \"5MB/s\"")]
    Rate,
    /// Zero has no meaning here.
    #[error("zero is not allowed here")]
    Zero,
    /// Larger than can be held.
    #[error("too large")]
    TooLarge,
}

/// Splits a number from its unit: digits only, at least one.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() || number.len() > 19 {
        return None;
    }
    number.parse().ok().map(|number| (number, unit))
}

impl std::str::FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = number_and_unit(text).ok_or(QuantityError::Span)?;
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(QuantityError::Span),
        };
        if number == 0 {
            return Err(QuantityError::Zero);
        }
        let millis = number.checked_mul(millis).ok_or(QuantityError::TooLarge)?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl TryFrom<String> for Span {
    type Error = QuantityError;

    fn try_from(text: String) -> Result<Self, QuantityError> {
        text.parse()
    }
}

/// In the largest unit that divides it.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        for (size, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
            if millis >= size && millis.is_multiple_of(size) {
                return write!(f, "{}{unit}", millis / size);
            }
        }
        write!(f, "{millis}ms")
    }
}

/// A count of bytes: `512B`, `64KiB`, `16MiB`, `2GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct ByteCount(u64);

const BYTE_UNITS: [(u64, &str); 5] =
    [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")];

impl ByteCount {
    /// This many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl std::str::FromStr for ByteCount {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = number_and_unit(text).ok_or(QuantityError::Bytes)?;
        let (size, _) = BYTE_UNITS.iter().find(|(_, name)| *name == unit).ok_or(QuantityError::Bytes)?;
        if number == 0 {
            return Err(QuantityError::Zero);
        }
        number.checked_mul(*size).map(Self).ok_or(QuantityError::TooLarge)
    }
}

impl TryFrom<String> for ByteCount {
    type Error = QuantityError;

    fn try_from(text: String) -> Result<Self, QuantityError> {
        text.parse()
    }
}

/// For people: one decimal in the largest unit that fits. Machine output carries the plain number instead.
impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, unit) = BYTE_UNITS.iter().find(|(size, _)| self.0 >= *size).copied().unwrap_or((1, "B"));
        let tenths = u128::from(self.0) * 10 / u128::from(size);
        if tenths % 10 == 0 {
            write!(f, "{} {unit}", tenths / 10)
        } else {
            write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
        }
    }
}

/// Bytes a second: `5MB/s`, `512KiB/s`. Lines are sold in powers of ten, so both kinds of units are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate(u64);

const RATE_UNITS: [(u64, &str); 7] = [
    (1_000_000_000, "GB/s"),
    (1 << 30, "GiB/s"),
    (1_000_000, "MB/s"),
    (1 << 20, "MiB/s"),
    (1_000, "kB/s"),
    (1 << 10, "KiB/s"),
    (1, "B/s"),
];

impl Rate {
    /// This many bytes a second.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes a second.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl std::str::FromStr for Rate {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = number_and_unit(text).ok_or(QuantityError::Rate)?;
        let (size, _) = RATE_UNITS.iter().find(|(_, name)| *name == unit).ok_or(QuantityError::Rate)?;
        if number == 0 {
            return Err(QuantityError::Zero);
        }
        number.checked_mul(*size).map(Self).ok_or(QuantityError::TooLarge)
    }
}

impl TryFrom<String> for Rate {
    type Error = QuantityError;

    fn try_from(text: String) -> Result<Self, QuantityError> {
        text.parse()
    }
}

/// In the largest unit that divides it; what none divides but a byte has one decimal in units of ten.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = RATE_UNITS.iter().find(|(size, _)| self.0 >= *size && self.0.is_multiple_of(*size));
        match whole {
            Some((size, unit)) if *size > 1 => write!(f, "{}{unit}", self.0 / size),
            _ if self.0 >= 1_000 => {
                let decimal = |unit: &&(u64, &str)| !unit.1.contains('i') && self.0 >= unit.0;
                let (size, unit) = RATE_UNITS.iter().find(decimal).copied().unwrap_or((1, "B/s"));
                let tenths = u128::from(self.0) * 10 / u128::from(size);
                write!(f, "{}.{}{unit}", tenths / 10, tenths % 10)
            }
            _ => write!(f, "{}B/s", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_one_whole_number_and_one_unit_a_second() {
        for (text, bytes) in
            [("5MB/s", 5_000_000), ("5MiB/s", 5 << 20), ("1GB/s", 1_000_000_000), ("7B/s", 7)]
        {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.get(), bytes);
            assert_eq!(rate.to_string(), text);
        }
        for text in ["5MB", "5 MB/s", "5mb/s", "5Mbit/s", "1.5MB/s", "", "MB/s"] {
            assert_eq!(text.parse::<Rate>(), Err(QuantityError::Rate), "{text}");
        }
        assert_eq!("0MB/s".parse::<Rate>(), Err(QuantityError::Zero));
        assert_eq!("99999999999999GB/s".parse::<Rate>(), Err(QuantityError::TooLarge));
        assert_eq!(Rate::new(1_234_567).to_string(), "1.2MB/s");
    }

    #[test]
    fn a_span_is_one_whole_number_and_one_unit() {
        for (text, millis) in [("200ms", 200), ("1s", 1_000), ("15m", 900_000), ("4h", 14_400_000)] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.get(), Duration::from_millis(millis));
            assert_eq!(span.to_string(), text);
        }
        for text in ["", "30", "s", "1 s", "1.5s", "-1s", "+1s", "1S", "1s ", "1m30s", "١s", "1sec"] {
            assert_eq!(text.parse::<Span>(), Err(QuantityError::Span), "{text}");
        }
        assert_eq!("0s".parse::<Span>(), Err(QuantityError::Zero));
        assert_eq!("9999999999999999999d".parse::<Span>(), Err(QuantityError::TooLarge));
    }

    #[test]
    fn a_byte_count_is_one_whole_number_and_one_binary_unit() {
        assert_eq!("16MiB".parse::<ByteCount>().unwrap().get(), 16 << 20);
        for text in ["16", "16MB", "16M", "16 MiB", "1.5GiB", "-1B"] {
            assert_eq!(text.parse::<ByteCount>(), Err(QuantityError::Bytes), "{text}");
        }
        assert_eq!("99999999TiB".parse::<ByteCount>(), Err(QuantityError::TooLarge));
        assert_eq!(ByteCount::new(1_610_612_736).to_string(), "1.5 GiB");
        assert_eq!(ByteCount::new(0).to_string(), "0 B");
    }
}
