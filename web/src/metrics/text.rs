//! Prometheus' text format, as far as we write it: version 0.0.4.
//!
//! What always holds: a family is written once, with its HELP and TYPE before its samples; a sample has exactly the labels that its family
//! declares, in their order; a label's value is escaped, so that no name can end a line or a value. A value is always a number that an
//! alarm can be compared with: infinite where nothing bounds it, never "not a number".
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What the format is called in an answer.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family's samples are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A figure of now.
    Gauge,
    /// A figure that only rises, until its process or its journal begins anew.
    Counter,
    /// A count per bucket, a sum and a count.
    Histogram,
}

impl Kind {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// A family of samples.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What its samples are.
    pub kind: Kind,
    /// The names of their labels.
    pub labels: &'static [&'static str],
    /// What it says, in one line.
    pub help: &'static str,
}

/// A page of samples under way.
#[derive(Debug, Default)]
pub struct Page(BTreeMap<&'static str, (Option<&'static Family>, String)>);

impl Page {
    /// One sample. `values` are those of the family's labels, in their order; one that is empty is a label that is not there.
    pub fn add(&mut self, family: &'static Family, values: &[&str], value: f64) {
        self.sample(family, family.name, values, None, value);
    }

    /// A histogram: of each bucket its upper bound and how many observations lie at or below it, then the sum of all and their count.
    pub fn histogram(
        &mut self,
        family: &'static Family,
        values: &[&str],
        buckets: &[(f64, u64)],
        (sum, count): (f64, u64),
    ) {
        let (bucket, summed, counted) = (
            format!("{}_bucket", family.name),
            format!("{}_sum", family.name),
            format!("{}_count", family.name),
        );
        for (bound, observed) in buckets.iter().chain(&[(f64::INFINITY, count)]) {
            self.sample(family, &bucket, values, Some(*bound), whole(*observed));
        }
        self.sample(family, &summed, values, None, sum);
        self.sample(family, &counted, values, None, whole(count));
    }

    fn sample(
        &mut self,
        family: &'static Family,
        name: &str,
        values: &[&str],
        bound: Option<f64>,
        value: f64,
    ) {
        debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
        let (known, text) = self.0.entry(family.name).or_default();
        *known = Some(family);
        text.push_str(name);
        let labels = family.labels.iter().zip(values).filter(|(_, value)| !value.is_empty());
        let mut labels: Vec<String> =
            labels.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        labels.extend(bound.map(|bound| format!("le=\"{}\"", number(bound))));
        if !labels.is_empty() {
            let _ = write!(text, "{{{}}}", labels.join(","));
        }
        let _ = writeln!(text, " {}", number(value));
    }

    /// The whole text, families by name.
    pub fn text(&self) -> String {
        let mut all = String::new();
        for (known, samples) in self.0.values() {
            let Some(family) = known else { continue };
            let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
            let _ =
                write!(all, "# HELP {0} {help}\n# TYPE {0} {1}\n{samples}", family.name, family.kind.word());
        }
        all
    }
}

/// A count as a sample's value; beyond 2^53 its last digits are lost.
#[allow(clippy::cast_precision_loss)] // said in the line above
pub const fn whole(count: u64) -> f64 {
    count as f64
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A number as the format writes it. What is none would let an alarm fall silent; it counts as "no bound is known".
fn number(value: f64) -> String {
    match value {
        value if value == f64::NEG_INFINITY => "-Inf".to_owned(),
        value if value.is_finite() => format!("{value}"),
        _ => "+Inf".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static LAG: Family =
        Family { name: "lag_bytes", kind: Kind::Gauge, labels: &["database", "target"], help: "a\\b\nc" };
    static TOOK: Family =
        Family { name: "took_seconds", kind: Kind::Histogram, labels: &["route"], help: "Time" };

    #[test]
    fn no_name_ends_a_line_or_a_value_and_no_alarm_meets_what_is_no_number() {
        let mut page = Page::default();
        page.add(&LAG, &["a\"b\\c\nd", "main"], f64::NAN);
        page.add(&LAG, &["e", ""], 1.5);
        page.histogram(&TOOK, &["/metrics"], &[(0.1, 2), (1.0, 3)], (4.25, 4));
        assert_eq!(
            page.text(),
            "# HELP lag_bytes a\\\\b\\nc\n# TYPE lag_bytes gauge\n\
             lag_bytes{database=\"a\\\"b\\\\c\\nd\",target=\"main\"} +Inf\n\
             lag_bytes{database=\"e\"} 1.5\n\
             # HELP took_seconds Time\n# TYPE took_seconds histogram\n\
             took_seconds_bucket{route=\"/metrics\",le=\"0.1\"} 2\n\
             took_seconds_bucket{route=\"/metrics\",le=\"1\"} 3\n\
             took_seconds_bucket{route=\"/metrics\",le=\"+Inf\"} 4\n\
             took_seconds_sum{route=\"/metrics\"} 4.25\n\
             took_seconds_count{route=\"/metrics\"} 4\n"
        );
    }
}
