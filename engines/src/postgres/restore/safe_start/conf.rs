//! Writes `postgresql.conf` lines that the server reads back as they were meant.
//!
//! Source: <https://www.postgresql.org/docs/current/config-setting.html#CONFIG-SETTING-CONFIGURATION-FILE>; in a quoted
//! value a quote is doubled and a backslash begins an escape.

use std::fmt::Write;

/// `value` as the quoted text of a configuration file.
pub(super) fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('\'');
    for c in value.chars() {
        match c {
            '\'' => text.push_str("''"),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            c => text.push(c),
        }
    }
    text.push('\'');
    text
}

/// A configuration under construction: one line a setting, none twice.
#[derive(Debug, Default)]
pub(super) struct Conf {
    text: String,
    names: Vec<String>,
}

impl Conf {
    /// Begins with a comment.
    pub(super) fn comment(&mut self, lines: &[&str]) {
        for line in lines {
            self.text.push_str("# ");
            self.text.push_str(line);
            self.text.push('\n');
        }
    }

    /// Sets `name` to `value`, with why as a comment. A second value for one name is dropped: the first rule wins.
    pub(super) fn set(&mut self, name: &str, value: &str, why: &str) {
        if self.names.iter().any(|known| known == name) {
            return;
        }
        self.names.push(name.to_owned());
        // Writing to a string does not fail.
        let _ = if why.is_empty() {
            writeln!(self.text, "{name} = {}", quoted(value))
        } else {
            writeln!(self.text, "{name} = {}    # {why}", quoted(value))
        };
    }

    /// The file's text.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_quoted_value_stays_on_its_line_and_cannot_end_early(value in "[a'\\\\\n\r #=]{0,16}") {
            let text = quoted(&value);
            prop_assert!(!text.contains('\n') && !text.contains('\r'));
            let mut inside = text[1..text.len() - 1].chars();
            let mut back = String::new();
            while let Some(c) = inside.next() {
                match c {
                    '\'' => prop_assert_eq!(inside.next(), Some('\'')),
                    '\\' => match inside.next() {
                        Some('n') => { back.push('\n'); continue }
                        Some('r') => { back.push('\r'); continue }
                        Some('\\') => {}
                        other => prop_assert!(false, "{:?}", other),
                    },
                    _ => {}
                }
                back.push(c);
            }
            prop_assert_eq!(back, value);
        }
    }
}
