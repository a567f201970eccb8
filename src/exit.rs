//! Every exit code of `farshore`, in one place: scripts, schedulers and PostgreSQL itself act on them.
//!
//! What always holds: a code keeps its meaning for ever; a reader that meets an unknown one takes it as a failure.
//! `wal push` never ends above 125, or PostgreSQL restarts its archiver and counts no failure. `wal fetch` ends with
//! 0, 1 or 170 only: PostgreSQL takes 1 to 125 as "the log ends here" and opens the server with what it has, so
//! every doubt, a wrong flag and a panic included, must be above 125. 143 is not used: it is taken for a SIGTERM.
//! Source: <https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-PITR-RECOVERY>.

use std::process::ExitCode;

/// How a run of `farshore` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done as asked.
    Done,
    /// Failed.
    Failed,
    /// Wrong usage or configuration; nothing was begun. Also clap's own code.
    Usage,
    /// What was named does not exist.
    NotFound,
    /// Refused by a safety rule.
    Refused,
    /// Someone else holds it, or it exists already.
    Conflict,
    /// Network, store or database did not answer.
    Unreachable,
    /// Authenticated, but without the right.
    NotAllowed,
    /// An objective is breached, or a check failed.
    Breached,
    /// Finished, with findings.
    Findings,
    /// Done in part.
    Partial,
    /// Ended by a signal before it was done.
    Interrupted,
    /// `wal fetch` only: the store said that the file is not there. Given by the fetch itself and by nothing else.
    FetchAbsent,
    /// `wal fetch` only: it is not known whether the file exists.
    FetchDoubt,
}

impl Exit {
    /// Every one of them, for tests and documents.
    pub const ALL: [Self; 14] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::NotFound,
        Self::Refused,
        Self::Conflict,
        Self::Unreachable,
        Self::NotAllowed,
        Self::Breached,
        Self::Findings,
        Self::Partial,
        Self::Interrupted,
        Self::FetchAbsent,
        Self::FetchDoubt,
    ];

    /// The number the operating system is given.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed | Self::FetchAbsent => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Refused => 4,
            Self::Conflict => 5,
            Self::Unreachable => 6,
            Self::NotAllowed => 7,
            Self::Breached => 8,
            Self::Findings => 9,
            Self::Partial => 10,
            Self::Interrupted => 130,
            Self::FetchDoubt => 170,
        }
    }

    /// Whether a run with this code did what it was asked to, and told of something that is not as it should be.
    pub fn is_told(code: i32) -> bool {
        [Self::Breached, Self::Findings].iter().any(|exit| i32::from(exit.code()) == code)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Who reads the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contract {
    /// A person or a script: every code as it is.
    Plain,
    /// PostgreSQL's `archive_command`.
    WalPush,
    /// PostgreSQL's `restore_command`.
    WalFetch,
}

impl Contract {
    /// Told from the raw arguments, before they are parsed: a line that cannot be parsed has a reader too.
    pub fn of_arguments<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let mut previous = "";
        for argument in arguments {
            match (previous, argument) {
                ("wal", "push") => return Self::WalPush,
                ("wal", "fetch") => return Self::WalFetch,
                _ => previous = argument,
            }
        }
        Self::Plain
    }

    /// The code this reader may be given for an end that is a failure unless it is `Done`.
    ///
    /// [`Exit::FetchAbsent`] alone becomes 1 for `wal fetch`: a database that the configuration does not name
    /// ([`Exit::NotFound`]) says nothing about the store.
    pub const fn translate(self, exit: Exit) -> Exit {
        match (self, exit) {
            (_, Exit::Done) => Exit::Done,
            (Self::Plain, exit) => exit,
            (Self::WalPush, _) => Exit::Failed,
            (Self::WalFetch, Exit::FetchAbsent) => Exit::FetchAbsent,
            (Self::WalFetch, _) => Exit::FetchDoubt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_ends_share_a_code() {
        // A failure and "not there" are both 1, to readers that never meet both.
        let all = Exit::ALL.iter().filter(|exit| **exit != Exit::FetchAbsent);
        let codes: std::collections::BTreeSet<u8> = all.map(|exit| exit.code()).collect();
        assert_eq!(codes.len(), Exit::ALL.len() - 1);
    }

    #[test]
    fn wal_push_never_ends_above_125_and_is_zero_only_when_done() {
        for exit in Exit::ALL {
            let code = Contract::WalPush.translate(exit).code();
            assert!(code <= 125);
            assert_eq!(code == 0, exit == Exit::Done);
        }
    }

    #[test]
    fn wal_fetch_ends_with_0_1_or_170_and_with_1_only_when_the_store_said_so() {
        for exit in Exit::ALL {
            let code = Contract::WalFetch.translate(exit).code();
            assert!(matches!(code, 0 | 1 | 170));
            assert_eq!(code == 1, exit == Exit::FetchAbsent);
        }
    }

    #[test]
    fn the_reader_is_known_before_the_line_is_parsed() {
        let of = |line: &'static str| Contract::of_arguments(line.split(' '));
        assert_eq!(of("farshore -c x wal fetch --wrong"), Contract::WalFetch);
        assert_eq!(of("farshore wal push %p"), Contract::WalPush);
        assert_eq!(of("farshore status wal"), Contract::Plain);
    }
}
