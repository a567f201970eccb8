//! What `farshore init` writes and prints for a SQLite database. docs/sqlite.md says the same at more length.
//!
//! Source of what is said of SQLite: <https://www.sqlite.org/wal.html>, `sqlite3WalCheckpoint` and `sqlite3WalClose` in wal.c of SQLite 3.51;
//! of what is said of farshore: `engines/src/sqlite/hold.rs` and `follow.rs`.

use std::fmt;

use farshore_engines::sqlite::hold::TABLE;

use super::guidance::{Guidance, quoted};

/// The one thing that must be set.
pub(super) const WAL: &str = "pragma journal_mode = wal;";
/// Letters of a line, beside what is put before it.
const WIDTH: usize = 92;

/// The lines of the configuration that say where it is.
pub(super) fn place(path: &str) -> String {
    format!(
        "engine = \"sqlite\"\npath = {}   # in WAL mode, on a disk of this machine; -wal and -shm stand beside it",
        quoted(path)
    )
}

/// What whoever runs the application must know.
pub(super) fn know() -> Vec<String> {
    vec![
        format!("`farshore run` adds the table {TABLE} and writes its one row whenever the log is begun anew."),
        "While it follows, an application's TRUNCATE, RESTART or FULL checkpoint waits for its busy timeout and holds all \
         writers meanwhile; without a timeout it fails at once. Automatic checkpoints go on."
            .to_owned(),
        "While it follows, the application's last close does not copy the WAL back: -wal belongs to the file, and \
         whoever copies or moves the one takes the other along."
            .to_owned(),
        "While it follows, `pragma journal_mode = delete` fails; an application in exclusive locking mode shuts \
         farshore out."
            .to_owned(),
        "While the store is away, -wal grows beside the file, and nothing bounds that yet.".to_owned(),
        "One store: several are not built yet for SQLite.".to_owned(),
        "The time of a commit is when farshore saw it; SQLite writes none.".to_owned(),
    ]
}

/// What is to be done; ends with the number of what follows.
pub(super) fn steps(guidance: &Guidance, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(
        f,
        "\n1. In {}, once, by the application's owner, while nobody else uses it:\n",
        guidance.database
    )?;
    guidance.sql.iter().try_for_each(|line| writeln!(f, "   {line}"))?;
    writeln!(f, "\n   It stays in the file.")?;
    writeln!(
        f,
        "\n2. Run farshore on the machine that the application runs on, as the user that owns the file: SQLite"
    )?;
    writeln!(f, "   makes -wal and -shm in its folder, and both must be able to write to all three.")?;
    writeln!(f, "\n3. Know (docs/sqlite.md says more):\n")?;
    for text in &guidance.know {
        let mut before = "   - ";
        for line in lines(text) {
            writeln!(f, "{before}{line}")?;
            before = "     ";
        }
    }
    write!(f, "\n4")
}

/// A text in lines of at most [`WIDTH`] letters, broken at blanks.
fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
