//! What is printed on standard output: answers, as a table, as JSON or as JSON lines, and nothing else.
//!
//! What always holds: every JSON answer carries a versioned schema; numbers in it are in base units. A reader that
//! closes the pipe ends the printing quietly: `farshore ... | head` is no error. Progress goes to standard error,
//! and only to a terminal (`output/progress.rs`).

pub mod progress;

use std::io::{self, ErrorKind, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::cli::Format;
use crate::cli::zone::Zone;

/// A kind of thing that is listed: how it looks as a table row.
pub trait Row: Serialize {
    /// The columns' names, in capitals. `(UTC)` in one stands for the zone that its times are shown in.
    const HEADER: &'static [&'static str];

    /// Its cells, as many as there are columns.
    fn cells(&self, zone: Zone) -> Vec<String>;

    /// Lines for people that stand below the table: what has no room in a row.
    fn below(&self, _zone: Zone) -> Vec<String> {
        Vec::new()
    }
}

/// Standard output, or a test's buffer.
pub struct Output<W: Write = io::Stdout> {
    sink: W,
    format: Format,
    zone: Zone,
    closed: bool,
}

#[derive(Serialize)]
struct Items<'a, T> {
    schema: &'a str,
    items: &'a [T],
}

#[derive(Serialize)]
struct One<'a, T> {
    schema: &'a str,
    #[serde(flatten)]
    value: &'a T,
}

impl Output<io::Stdout> {
    /// To standard output.
    pub fn stdout(format: Format) -> Self {
        Self::new(io::stdout(), format)
    }
}

impl<W: Write> Output<W> {
    /// To any sink.
    pub const fn new(sink: W, format: Format) -> Self {
        Self { sink, format, zone: Zone::UTC, closed: false }
    }

    /// The same, with times shown in this zone.
    #[must_use]
    pub fn in_zone(self, zone: Zone) -> Self {
        Self { zone, ..self }
    }

    /// The zone that people are shown times in.
    pub const fn zone(&self) -> Zone {
        self.zone
    }

    /// The format asked for.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Whether the reader has gone: a loop that only prints may end.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Prints a list. As a table an empty one is its header alone; as JSON lines it is nothing.
    ///
    /// # Errors
    /// When writing fails for another reason than a closed pipe.
    pub fn list<T: Row>(&mut self, schema: &str, items: &[T]) -> io::Result<()> {
        match self.format {
            Format::Table => {
                let mut text = table(self.zone, T::HEADER, items.iter().map(|item| item.cells(self.zone)));
                for line in items.iter().flat_map(|item| item.below(self.zone)) {
                    text.push('\n');
                    text.push_str(&line);
                }
                self.text(&text)
            }
            Format::Json => self.json(&Items { schema, items }, true),
            Format::Jsonl => items.iter().try_for_each(|item| self.json(item, false)),
        }
    }

    /// Prints one thing: as `text` for people, else as an object with its schema.
    ///
    /// # Errors
    /// When writing fails for another reason than a closed pipe.
    pub fn one<T: Serialize>(&mut self, schema: &str, value: &T, text: &str) -> io::Result<()> {
        match self.format {
            Format::Table => self.text(text),
            Format::Json => self.json(&One { schema, value }, true),
            Format::Jsonl => self.json(&One { schema, value }, false),
        }
    }

    /// Prints text as it is, with a line end if it has none.
    ///
    /// # Errors
    /// When writing fails for another reason than a closed pipe.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        let end: &[u8] = if text.ends_with('\n') { b"" } else { b"\n" };
        self.bytes(&[text.as_bytes(), end].concat())
    }

    /// Prints a part of a story for people; nothing where the answer is one for programs.
    ///
    /// # Errors
    /// When writing fails for another reason than a closed pipe.
    pub fn say(&mut self, text: &str) -> io::Result<()> {
        match self.format {
            Format::Table => self.text(text),
            Format::Json | Format::Jsonl => Ok(()),
        }
    }

    fn json<T: Serialize>(&mut self, value: &T, pretty: bool) -> io::Result<()> {
        let mut bytes = if pretty { serde_json::to_vec_pretty(value)? } else { serde_json::to_vec(value)? };
        bytes.push(b'\n');
        self.bytes(&bytes)
    }

    /// Prints bytes as they are.
    ///
    /// # Errors
    /// When writing fails for another reason than a closed pipe.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        match self.sink.write_all(bytes).and_then(|()| self.sink.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            result => result,
        }
    }
}

/// A plain table: no lines, two spaces between columns, so that `awk` can read it too.
fn table(zone: Zone, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|title| title.replace("(UTC)", &format!("({zone})"))));
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Sample {
        name: &'static str,
        lag_bytes: u64,
    }

    impl Row for Sample {
        const HEADER: &'static [&'static str] = &["NAME", "LAG"];

        fn cells(&self, _zone: Zone) -> Vec<String> {
            vec![self.name.to_owned(), format!("{} B", self.lag_bytes)]
        }
    }

    const SAMPLES: [Sample; 2] =
        [Sample { name: "orders", lag_bytes: 12 }, Sample { name: "b", lag_bytes: 0 }];

    fn printed(format: Format) -> String {
        let mut buffer = Vec::new();
        Output::new(&mut buffer, format).list("farshore.sample/1", &SAMPLES).unwrap();
        String::from_utf8(buffer).unwrap()
    }

    #[test]
    fn a_list_looks_the_same_in_three_formats() {
        assert_eq!(printed(Format::Table), "NAME    LAG\norders  12 B\nb       0 B\n");
        assert_eq!(printed(Format::Jsonl).lines().next(), Some("{\"name\":\"orders\",\"lag_bytes\":12}"));
        let json: serde_json::Value = serde_json::from_str(&printed(Format::Json)).unwrap();
        assert_eq!(json["schema"], "farshore.sample/1");
        assert_eq!(json["items"][0]["lag_bytes"], 12);
    }

    #[test]
    fn a_reader_that_goes_away_is_no_error_and_a_full_disk_is() {
        struct Fails(ErrorKind);
        impl Write for Fails {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut gone = Output::new(Fails(ErrorKind::BrokenPipe), Format::Table);
        assert!(gone.text("x").is_ok() && gone.is_closed() && gone.text("y").is_ok());
        assert!(Output::new(Fails(ErrorKind::StorageFull), Format::Table).text("x").is_err());
    }
}
