//! A password asked for at the terminal, without showing it.
//!
//! What always holds: the terminal shows what is typed again afterwards, whether or not reading succeeded. A signal that ends the
//! process in between leaves it as `stty -echo` does.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use crate::config::secret::Secret;

/// The longest line that is read, in bytes.
const LONGEST: u64 = 4096;

/// The terminal with its echo off, until it is dropped.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        quiet.local_flags.insert(LocalFlags::ECHONL);
        tcsetattr(terminal, SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

/// Asks twice, so that a slip of a finger does not become the password.
///
/// # Errors
/// When there is no terminal, or the two differ.
pub fn twice() -> io::Result<Secret> {
    let terminal = File::options().read(true).write(true).open("/dev/tty")?;
    let quiet = Quiet::new(&terminal)?;
    let mut lines = BufReader::new(&terminal);
    let mut ask = |question: &str| {
        (&terminal).write_all(question.as_bytes())?;
        let mut line = String::new();
        lines.by_ref().take(LONGEST).read_line(&mut line)?;
        Ok::<_, io::Error>(line.trim_end_matches(['\r', '\n']).to_owned())
    };
    let (first, second) = (ask("Password: ")?, ask("Again: ")?);
    drop(quiet);
    match first == second {
        true => Ok(Secret::new(first)),
        false => Err(io::Error::other("the two are not the same")),
    }
}
