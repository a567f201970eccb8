//! Turns a place in `farshore.toml` into a message that shows it: file, line, column, the line itself and a caret.
//!
//! What always holds: a line that may hold a secret is not shown, and a caret never points past its line.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What is wrong in a configuration file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The file.
    pub path: PathBuf,
    /// Line and column, both from 1, and what stands there; `None` when the whole file is meant.
    pub place: Option<Place>,
    /// What is wrong.
    pub what: String,
    /// What may be meant, or what to write instead.
    pub hint: Option<String>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// How many characters are meant, at least 1.
    pub width: usize,
    /// The line; `None` when it may hold a secret.
    pub text: Option<String>,
}

impl Place {
    /// The place of a span of bytes in a text.
    pub fn of(text: &str, span: Range<usize>) -> Self {
        let start = floor_boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = floor_boundary(text, span.end).clamp(start, line_end);
        let line = text[line_start..line_end].trim_end_matches('\r');
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            width: text[start..end].chars().count().max(1),
            text: (!may_hold_secret(line)).then(|| line.replace('\t', " ")),
        }
    }
}

/// The last character boundary at or before `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A key that sounds like a secret but names no file, or a URL with something before its `@` that holds a colon.
fn may_hold_secret(line: &str) -> bool {
    let key = line.split('=').next().unwrap_or("").trim().to_ascii_lowercase();
    let sounds =
        ["password", "secret", "token", "access_key", "credential", "sas"].iter().any(|s| key.contains(s));
    let url = line.split_once("://").is_some_and(|(_, rest)| {
        rest.rsplit_once('@').is_some_and(|(userinfo, _)| userinfo.contains(':'))
            || rest.contains("password=")
    });
    (sounds && !key.ends_with("_file")) || url || line.contains("AGE-SECRET-KEY-")
}

impl ConfigProblem {
    /// A problem at a span of the text.
    pub fn at(path: &Path, text: &str, span: Range<usize>, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), place: Some(Place::of(text, span)), what: what.into(), hint: None }
    }

    /// With a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What the TOML reader found, in our words where it can be told apart.
    pub fn of_toml(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let message = error.message();
        let place = error.span().map(|span| Place::of(text, span));
        let (what, hint) = match unknown_name(message) {
            Some((kind, name, known)) => {
                let what = format!("unknown {kind} `{name}`");
                (what, Some(hint_for(name, &known)))
            }
            None => (message.replace('\n', "; "), None),
        };
        Self { path: path.to_owned(), place, what, hint }
    }
}

/// Takes serde's sentence "unknown field `x`, expected one of `a`, `b`" apart.
fn unknown_name(message: &str) -> Option<(&'static str, &str, Vec<&str>)> {
    let (kind, rest) = [("key", "unknown field `"), ("value", "unknown variant `")]
        .iter()
        .find_map(|(kind, start)| message.strip_prefix(start).map(|rest| (*kind, rest)))?;
    let (name, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).collect();
    Some((kind, name, known))
}

fn hint_for(name: &str, known: &[&str]) -> String {
    if matches!(name, "password" | "secret" | "secret_access_key" | "token") {
        return "a secret does not belong in this file; name a file that holds it in a key that ends in `_file`, or \
                set the environment variable of that name"
            .to_owned();
    }
    match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "nothing is expected here".to_owned(),
        None => format!("expected one of `{}`", known.join("`, `")),
    }
}

/// The known name that differs least, if it differs little: at most one edit for every three letters.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (edits(name, candidate), *candidate))
        .filter(|(edits, candidate)| *edits * 3 <= name.len().max(candidate.len()))
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters must be added, taken away or changed (Levenshtein). Names are short, so a row is enough.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        let Some(place) = &self.place else {
            write!(f, ": {}", self.what)?;
            return self.hint.iter().try_for_each(|hint| write!(f, "; {hint}"));
        };
        write!(f, ":{}:{}: {}", place.line, place.column, self.what)?;
        let number = place.line.to_string();
        let gutter = " ".repeat(number.len());
        let hint = self.hint.as_deref().unwrap_or("");
        match &place.text {
            Some(text) => {
                let indent = " ".repeat(place.column - 1);
                let caret = "^".repeat(place.width);
                write!(f, "\n {gutter} |\n {number} | {text}\n {gutter} | {indent}{caret}")?;
                if hint.is_empty() { Ok(()) } else { write!(f, " {hint}") }
            }
            None => {
                write!(f, "\n {gutter} |\n {number} | (not shown: it may hold a secret)\n {gutter} |")?;
                if hint.is_empty() { Ok(()) } else { write!(f, " {hint}") }
            }
        }
    }
}

impl std::error::Error for ConfigProblem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_may_hold_a_secret_is_not_shown() {
        for line in [
            "password = \"hunter2\"",
            "url = \"postgresql://u:hunter2@h/d\"",
            "secret_access_key = \"hunter2\"",
            "url = \"postgresql://u@h/d?password=hunter2\"",
        ] {
            let problem = ConfigProblem::at(Path::new("f"), line, 0..3, "wrong");
            assert!(!problem.to_string().contains("hunter2"), "{problem}");
        }
        assert!(!may_hold_secret("password_file = \"x\""));
        assert!(!may_hold_secret("url = \"postgresql://u@h:5432,i:5433/d\""));
    }

    #[test]
    fn the_caret_stays_within_its_line() {
        let text = "a = 1\nö = \"x\"\nc = 3";
        let place = Place::of(text, 6..text.len());
        assert_eq!((place.line, place.column, place.width), (2, 1, 7));
        let past = Place::of(text, 900..1000);
        assert_eq!((past.line, past.width), (3, 1));
        assert_eq!(Place::of("", 0..0).line, 1);
    }

    #[test]
    fn a_guess_is_made_only_when_the_names_are_close() {
        let known = ["flush_interval", "rpo", "rto", "stores"];
        assert_eq!(nearest("flush_intervall", &known), Some("flush_interval"));
        assert_eq!(nearest("store", &known), Some("stores"));
        assert_eq!(nearest("zzz", &known), None);
    }
}
