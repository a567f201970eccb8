//! Numbers and times as people read them. What is not known is said in words, never as 0 and never as nothing.

use chrono::{DateTime, Datelike as _, SecondsFormat, TimeDelta, Timelike as _, Utc};

/// A duration: two units at most.
pub fn seconds(value: f64) -> String {
    if !value.is_finite() || value < 0.0 {
        return "not known".to_owned();
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // not negative, and finite
    let whole = value.round() as u64;
    match whole {
        _ if value == 0.0 => "0 s".to_owned(),
        _ if value < 0.1 => "< 0.1 s".to_owned(),
        _ if value < 9.95 => format!("{value:.1} s"),
        0..120 => format!("{whole} s"),
        120..7200 => with_rest(whole / 60, "min", whole % 60, "s"),
        7200..172_800 => with_rest(whole / 3600, "h", whole % 3600 / 60, "min"),
        _ => with_rest(whole / 86_400, "d", whole % 86_400 / 3600, "h"),
    }
}

/// How long something took that may be quick: below a second to a millisecond.
pub fn took(time: std::time::Duration) -> String {
    match time.as_secs() {
        0 if time.as_millis() > 0 => format!("{} ms", time.as_millis()),
        0 if !time.is_zero() => "< 1 ms".to_owned(),
        _ => seconds(time.as_secs_f64()),
    }
}

fn with_rest(value: u64, unit: &str, rest: u64, small: &str) -> String {
    if rest == 0 { format!("{value} {unit}") } else { format!("{value} {unit} {rest} {small}") }
}

/// How long ago a time is, roughly.
pub fn ago(now: DateTime<Utc>, then: DateTime<Utc>) -> String {
    let apart = now - then;
    if apart < TimeDelta::seconds(-5) {
        return "ahead of this clock".to_owned();
    }
    let seconds = apart.num_seconds().max(0);
    match seconds {
        0..5 => "just now".to_owned(),
        5..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// A rate, in the unit that it was written in, where that can be seen.
pub fn rate(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB/s"), (1_000_000, "MB/s"), (1_000, "kB/s")];
    match UNITS.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, word)) => format!("{} {word}", bytes / unit),
        None => format!("{}/s", self::bytes(bytes)),
    }
}

/// A size in IEC units.
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if value < 1024 {
        return format!("{value} B");
    }
    #[allow(clippy::cast_precision_loss)] // one decimal is shown
    let mut shown = value as f64;
    let mut unit = "B";
    for next in UNITS {
        if shown < 1023.95 {
            break;
        }
        shown /= 1024.0;
        unit = next;
    }
    if shown < 9.95 { format!("{shown:.1} {unit}") } else { format!("{shown:.0} {unit}") }
}

/// A time in full, to a millisecond, in UTC.
pub fn full(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A time to a microsecond, which resolves to the same commit again.
pub fn exact(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A time for a table: to a second, the year left out where it is this one.
pub fn short(now: DateTime<Utc>, time: DateTime<Utc>) -> String {
    // Written out: a page of hundreds of databases has thousands of times, and a form is read anew for each.
    let (month, day) = (time.month(), time.day());
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    let rest = format!("{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}");
    if now.year() == time.year() { rest } else { format!("{:04}-{rest}", time.year()) }
}

/// Text as it stands in a query.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte))
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Text as one word of a shell's line.
pub fn word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte);
    match !text.is_empty() && text.bytes().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// A time for a page: as the table has it, with the whole of it for who wants it and for machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// For the table.
    pub short: String,
    /// The whole.
    pub full: String,
    /// How long ago.
    pub ago: String,
}

impl Moment {
    /// Of a time.
    pub fn new(now: DateTime<Utc>, time: DateTime<Utc>) -> Self {
        Self { short: short(now, time), full: full(time), ago: ago(now, time) }
    }

    /// Of one that may not be known.
    pub fn maybe(now: DateTime<Utc>, time: Option<DateTime<Utc>>) -> Option<Self> {
        time.map(|time| Self::new(now, time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_shown_in_the_unit_that_it_was_written_in() {
        let shown = [5_000_000, 5 << 20, 2_000_000_000, 1_500_000, 0].map(rate);
        assert_eq!(shown, ["5 MB/s", "5.0 MiB/s", "2 GB/s", "1500 kB/s", "0 B/s"]);
    }

    #[test]
    fn a_duration_is_never_shown_shorter_by_a_unit() {
        for (value, shown) in [
            (0.0, "0 s"),
            (0.04, "< 0.1 s"),
            (0.25, "0.2 s"),
            (9.94, "9.9 s"),
            (9.96, "10 s"),
            (62.0, "62 s"),
            (250.0, "4 min 10 s"),
            (7199.9, "2 h"),
            (17_580.0, "4 h 53 min"),
            (172_800.0, "2 d"),
            (1_296_000.0, "15 d"),
            (f64::NAN, "not known"),
            (-1.0, "not known"),
        ] {
            assert_eq!(seconds(value), shown, "{value}");
        }
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1024), bytes(1 << 40), bytes((1 << 30) - 1)],
            ["0 B", "1023 B", "1.0 KiB", "1.0 TiB", "1.0 GiB"]
        );
    }

    #[test]
    fn a_time_of_another_year_says_which() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let now = at("2026-03-04T05:06:07Z");
        assert_eq!(short(now, at("2026-01-02T03:04:05.678Z")), "01-02 03:04:05");
        assert_eq!(short(now, at("2025-12-31T23:59:59Z")), "2025-12-31 23:59:59");
    }

    #[test]
    fn what_is_quick_is_told_to_a_millisecond_and_never_as_nothing() {
        let of = |micros| took(std::time::Duration::from_micros(micros));
        assert_eq!([of(0), of(400), of(63_900), of(999_999)], ["0 s", "< 1 ms", "63 ms", "999 ms"]);
        assert_eq!([of(1_000_000), of(62_000_000)], ["1.0 s", "62 s"]);
    }

    #[test]
    fn a_word_of_a_shell_stays_one_word_whatever_is_in_it() {
        for text in ["/srv/copy", "a b", "it's", "$(rm -rf /)", "`x`", "a;b", "", "x\ny", "ä", "*", "~root"]
        {
            let line = format!("printf %s {}", word(text));
            let said = std::process::Command::new("/bin/sh").args(["-c", &line]).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), text, "{line}");
        }
    }

    #[test]
    fn a_query_holds_nothing_that_ends_it() {
        assert_eq!(escaped("/a?b=1&c=ä #"), "/a%3Fb%3D1%26c%3D%C3%A4%20%23");
    }
}
