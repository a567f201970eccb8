//! What a standby asks for, out of the text of its command.
//!
//! What always holds: what is not understood is refused with PostgreSQL's own code for it, and never guessed. Keywords in either case; names in double quotes, or bare and
//! then in lower case; a semicolon at the end means nothing.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-replication.html>; the shapes that standbys of majors 14 to 18 send were read in
//! `libpqwalreceiver.c`.

use farshore_journal::{Offset, Timeline};

/// Why something is not done, as the other side is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The five letters of its SQLSTATE.
    pub code: &'static str,
    /// What happened.
    pub message: String,
    /// What to do about it; empty where there is nothing to say.
    pub hint: String,
}

impl Refusal {
    /// With nothing to be done about it.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: String::new() }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }
}

/// SQLSTATE of a command that is none.
const SYNTAX: &str = "42601";
/// SQLSTATE of what is not offered.
const NOT_OFFERED: &str = "0A000";
/// The longest name of a slot.
const LONGEST_NAME: usize = 63;

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Which cluster this is.
    IdentifySystem,
    /// A setting's value.
    Show(String),
    /// The history file of a timeline.
    TimelineHistory(Timeline),
    /// A physical slot.
    CreateSlot {
        /// Its name.
        name: String,
        /// Whether it ends with the connection.
        temporary: bool,
    },
    /// What a slot keeps.
    ReadSlot(String),
    /// The end of a slot.
    DropSlot(String),
    /// Log, until one of the two ends it.
    Start {
        /// The slot that moves with it.
        slot: Option<String>,
        /// Where it begins.
        start: Offset,
        /// On which timeline; the newest where none is named.
        timeline: Option<Timeline>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    /// A keyword, a number, a position or a bare name, as it was written.
    Bare(String),
    /// A name in double quotes, or a text in single ones.
    Quoted(String),
    /// `(`, `)` or `,`.
    Sign(char),
}

impl Command {
    /// Reads one.
    ///
    /// # Errors
    /// What it is refused with.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let words = words(text).ok_or_else(|| syntax(text))?;
        let mut words = Words { rest: &words, text };
        let command = match words.keyword()?.as_str() {
            "IDENTIFY_SYSTEM" => Self::IdentifySystem,
            "SHOW" => Self::Show(words.name()?),
            "TIMELINE_HISTORY" => Self::TimelineHistory(words.timeline()?),
            "CREATE_REPLICATION_SLOT" => words.create_slot()?,
            "READ_REPLICATION_SLOT" => Self::ReadSlot(words.slot_name()?),
            "DROP_REPLICATION_SLOT" => {
                let name = words.slot_name()?;
                words.skip("WAIT");
                Self::DropSlot(name)
            }
            "START_REPLICATION" => words.start()?,
            "BASE_BACKUP" | "UPLOAD_MANIFEST" | "ALTER_REPLICATION_SLOT" => {
                return Err(Refusal::new(
                    NOT_OFFERED,
                    "this journal gives log, and no base backups and no logical slots",
                )
                .hint("farshore restore makes a copy that goes on from here"));
            }
            _ => {
                return Err(Refusal::new(
                    NOT_OFFERED,
                    "this is a journal for physical replication, and runs no SQL",
                ));
            }
        };
        match words.rest.is_empty() {
            true => Ok(command),
            false => Err(syntax(text)),
        }
    }
}

struct Words<'a> {
    rest: &'a [Word],
    text: &'a str,
}

impl Words<'_> {
    fn next(&mut self) -> Result<&Word, Refusal> {
        let (word, rest) = self.rest.split_first().ok_or_else(|| syntax(self.text))?;
        self.rest = rest;
        Ok(word)
    }

    fn keyword(&mut self) -> Result<String, Refusal> {
        match self.next()? {
            Word::Bare(word) => Ok(word.to_ascii_uppercase()),
            Word::Quoted(_) | Word::Sign(_) => Err(syntax(self.text)),
        }
    }

    /// Takes a keyword if it comes next.
    fn skip(&mut self, keyword: &str) -> bool {
        let comes = matches!(self.rest.first(), Some(Word::Bare(word)) if word.eq_ignore_ascii_case(keyword));
        if comes {
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        comes
    }

    fn name(&mut self) -> Result<String, Refusal> {
        match self.next()? {
            Word::Bare(word) => Ok(word.to_ascii_lowercase()),
            Word::Quoted(word) => Ok(word.clone()),
            Word::Sign(_) => Err(syntax(self.text)),
        }
    }

    fn slot_name(&mut self) -> Result<String, Refusal> {
        let name = self.name()?;
        let letter = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        match (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(letter) {
            true => Ok(name),
            false => Err(Refusal::new("42602", "a slot's name is 1 to 63 of a-z, 0-9 and _")),
        }
    }

    fn timeline(&mut self) -> Result<Timeline, Refusal> {
        let number = match self.next()? {
            Word::Bare(word) => word.parse().ok().filter(|number: &u32| *number > 0),
            Word::Quoted(_) | Word::Sign(_) => None,
        };
        number.map(Timeline::new).ok_or_else(|| Refusal::new(SYNTAX, "not the number of a timeline"))
    }

    fn create_slot(&mut self) -> Result<Command, Refusal> {
        let name = self.slot_name()?;
        let temporary = self.skip("TEMPORARY");
        if !self.skip("PHYSICAL") {
            return Err(Refusal::new(NOT_OFFERED, "this journal has physical slots only"));
        }
        // What is reserved: all log is there until no rule keeps it. In parentheses from major 15 on.
        if !self.skip("RESERVE_WAL") && self.rest.first() == Some(&Word::Sign('(')) {
            let close = self
                .rest
                .iter()
                .position(|word| *word == Word::Sign(')'))
                .ok_or_else(|| syntax(self.text))?;
            self.rest = self.rest.get(close + 1..).unwrap_or_default();
        }
        Ok(Command::CreateSlot { name, temporary })
    }

    fn start(&mut self) -> Result<Command, Refusal> {
        let slot = match self.skip("SLOT") {
            true => Some(self.slot_name()?),
            false => None,
        };
        if self.skip("LOGICAL") {
            return Err(Refusal::new(NOT_OFFERED, "this journal streams physical log only"));
        }
        self.skip("PHYSICAL");
        let start = match self.next()? {
            Word::Bare(word) => word.parse().ok(),
            Word::Quoted(_) | Word::Sign(_) => None,
        };
        let start = start.ok_or_else(|| Refusal::new(SYNTAX, "not a position in the log"))?;
        let timeline = match self.skip("TIMELINE") {
            true => Some(self.timeline()?),
            false => None,
        };
        Ok(Command::Start { slot, start, timeline })
    }
}

fn syntax(text: &str) -> Refusal {
    let shown: String = text.chars().filter(|letter| !letter.is_control()).take(80).collect();
    Refusal::new(SYNTAX, format!("not a replication command: {shown}"))
}

/// The words of a command; `None` when a quote is not closed.
fn words(text: &str) -> Option<Vec<Word>> {
    let mut words = Vec::new();
    let mut letters = text.trim_end_matches([';', ' ', '\n', '\r', '\t', '\0']).chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            _ if letter.is_ascii_whitespace() => {}
            '(' | ')' | ',' => words.push(Word::Sign(letter)),
            quote @ ('"' | '\'') => {
                let mut name = String::new();
                loop {
                    match letters.next()? {
                        end if end == quote => match letters.next_if_eq(&quote) {
                            Some(_) => name.push(quote),
                            None => break,
                        },
                        other => name.push(other),
                    }
                }
                words.push(Word::Quoted(name));
            }
            _ => {
                let mut word = String::from(letter);
                let goes_on = |letter: &char| !letter.is_ascii_whitespace() && !"(),\"';".contains(*letter);
                while let Some(letter) = letters.next_if(goes_on) {
                    word.push(letter);
                }
                words.push(Word::Bare(word));
            }
        }
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_standbys_of_all_majors_send_is_understood() {
        let start = |slot: Option<&str>, timeline| Command::Start {
            slot: slot.map(str::to_owned),
            start: Offset::new(0x1_0000_0000),
            timeline,
        };
        let slot = |temporary| Command::CreateSlot { name: "pg_walreceiver_7".to_owned(), temporary };
        for (text, command) in [
            ("IDENTIFY_SYSTEM", Command::IdentifySystem),
            ("IDENTIFY_SYSTEM;", Command::IdentifySystem),
            ("SHOW wal_segment_size", Command::Show("wal_segment_size".to_owned())),
            ("TIMELINE_HISTORY 2", Command::TimelineHistory(Timeline::new(2))),
            ("CREATE_REPLICATION_SLOT \"pg_walreceiver_7\" TEMPORARY PHYSICAL RESERVE_WAL", slot(true)),
            ("CREATE_REPLICATION_SLOT \"pg_walreceiver_7\" TEMPORARY PHYSICAL (RESERVE_WAL)", slot(true)),
            ("CREATE_REPLICATION_SLOT pg_walreceiver_7 PHYSICAL", slot(false)),
            ("READ_REPLICATION_SLOT \"oslo\"", Command::ReadSlot("oslo".to_owned())),
            ("DROP_REPLICATION_SLOT Oslo WAIT", Command::DropSlot("oslo".to_owned())),
            ("START_REPLICATION 1/0 TIMELINE 3", start(None, Some(Timeline::new(3)))),
            ("START_REPLICATION PHYSICAL 1/0", start(None, None)),
            (
                "START_REPLICATION SLOT \"oslo\" PHYSICAL 1/00000000 TIMELINE 1\0",
                start(Some("oslo"), Some(Timeline::new(1))),
            ),
            ("start_replication 1/0", start(None, None)),
        ] {
            assert_eq!(Command::parse(text), Ok(command), "{text}");
        }
    }

    #[test]
    fn what_is_not_offered_or_no_command_is_refused_with_its_code() {
        for (text, code) in [
            ("SELECT 1", "0A000"),
            ("START_REPLICATION SLOT s LOGICAL 0/0", "0A000"),
            ("CREATE_REPLICATION_SLOT s LOGICAL pgoutput", "0A000"),
            ("BASE_BACKUP", "0A000"),
            ("", "42601"),
            ("IDENTIFY_SYSTEM now", "42601"),
            ("START_REPLICATION", "42601"),
            ("START_REPLICATION 1", "42601"),
            ("START_REPLICATION 0/0 TIMELINE 0", "42601"),
            ("START_REPLICATION 0/0 TIMELINE", "42601"),
            ("TIMELINE_HISTORY -1", "42601"),
            ("DROP_REPLICATION_SLOT \"a b\"", "42602"),
            ("DROP_REPLICATION_SLOT \"open", "42601"),
            ("CREATE_REPLICATION_SLOT s PHYSICAL (RESERVE_WAL", "42601"),
        ] {
            assert_eq!(Command::parse(text).map_err(|why| why.code), Err(code), "{text}");
        }
    }

    proptest! {
        #[test]
        fn hostile_commands_never_panic(text: String, tail in "[A-Z_ ]{0,20}[(),;\"']{0,6}") {
            let _ = Command::parse(&text);
            let _ = Command::parse(&format!("START_REPLICATION {tail}"));
            let _ = Command::parse(&format!("CREATE_REPLICATION_SLOT {tail}"));
        }
    }
}
