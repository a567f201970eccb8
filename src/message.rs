//! What reaches a DBA: a stable code, what happened, what is safe, what to do.
//!
//! What always holds: *safe* is given by whoever knows the positions, or says that it is not known and why; there
//! is no stock phrase and no default. Every code stands in `docs/messages.md`, and nothing stands there that is not
//! a code (`tests/cli_texts.rs`). Secrets and row values never enter a message.

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::exit::Exit;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $exit:ident;)*) => {
        /// The stable number of a kind of message.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code there is, in order of number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its number, for ever.
            pub const fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }

            /// The exit code of a run that ends with this message.
            pub const fn exit(self) -> Exit {
                match self { $(Self::$name => Exit::$exit,)* }
            }
        }
    };
}

codes! {
    /// Something failed that has no message of its own yet.
    Unexpected = 1, Failed;
    /// The command is known, its work is not built in this version.
    NotBuilt = 2, Failed;
    /// The answer could not be written to standard output.
    OutputFailed = 3, Failed;
    /// The run was ended by a signal.
    Interrupted = 4, Interrupted;
    /// `man` was asked for a verb that does not exist.
    VerbUnknown = 5, NotFound;
    /// Programs that are not farshore's own are not on this machine.
    ProgramsMissing = 6, NotFound;
    /// What was asked for cannot be done by root.
    RootRefused = 7, NotAllowed;
    /// The demo was not played to its end.
    DemoFailed = 8, Failed;
    /// The configuration file cannot be read.
    ConfigUnreadable = 101, Usage;
    /// The configuration file is wrong at a place that is named.
    ConfigInvalid = 102, Usage;
    /// The database named is not in the configuration.
    DatabaseUnknown = 103, NotFound;
    /// A secret named by the configuration cannot be read.
    SecretUnreadable = 104, Usage;
    /// The configuration names several databases and the command needs one.
    DatabaseAmbiguous = 105, Usage;
    /// The catalog cannot be opened or read.
    CatalogAway = 106, Unreachable;
    /// A store cannot be opened or read.
    StoreUnusable = 107, Unreachable;
    /// The store named is not one of the database's.
    StoreUnknown = 108, NotFound;
    /// A database lies where it can never be followed.
    SourceRefused = 109, Refused;
    /// `init` found a file where it would write.
    InitExists = 201, Conflict;
    /// `init` lacks an answer and may not ask.
    InitAnswerMissing = 202, Usage;
    /// `init` was given an answer it cannot use.
    InitAnswerInvalid = 203, Usage;
    /// `init` could not write a file.
    InitWriteFailed = 204, Failed;
    /// `check` found problems.
    CheckFailed = 301, Breached;
    /// Another shipper took the journal over.
    Fenced = 401, Conflict;
    /// Shipping stopped for good.
    ShippingStopped = 402, Failed;
    /// The catalog does not say how a database stands.
    StatusUnknown = 403, NotFound;
    /// A base backup failed.
    BackupFailed = 404, Failed;
    /// No store has a backup of this id.
    BackupUnknown = 405, NotFound;
    /// No store holds anything of a database.
    NothingStored = 406, NotFound;
    /// Whether the journal holds a log file could not be settled.
    FetchDoubt = 407, Failed;
    /// A log file is not stored as required.
    PushRefused = 408, Failed;
    /// A recovery point could not be named.
    MarkFailed = 409, Failed;
    /// The journal does not hold what a signed head says of it.
    HeadNotHeld = 410, Refused;
    /// Nothing is deleted, because it is not known that nobody needs it.
    ExpiryRefused = 411, Refused;
    /// A point cannot be held.
    HoldRefused = 412, Refused;
    /// No store has a hold of this id.
    HoldUnknown = 413, NotFound;
    /// What a store has of the activity or of an exposure ledger is not as it was sealed.
    ChronicleFlawed = 414, Findings;
    /// A store has entries of the activity or of an exposure ledger that this catalog did not write.
    ChronicleForked = 415, Findings;
    /// The exposure ledger has no such entry.
    ExposureUnknown = 416, NotFound;
    /// A restore in place was not confirmed by the database's name.
    RestoreNotConfirmed = 501, Refused;
    /// The target of a restore cannot be reached.
    RestoreUnreachable = 502, Refused;
    /// A restore was begun and not completed.
    RestoreFailed = 503, Failed;
    /// A standby cannot be brought further: its journal has a gap, or ended for a new incarnation.
    StandbyEnded = 504, Refused;
    /// Somebody else wrote to a standby's copy.
    StandbyWritten = 505, Conflict;
    /// A directory is taken: by another process, a promoted copy, or what is no standby's.
    StandbyTaken = 506, Conflict;
    /// A directory holds no standby.
    StandbyUnknown = 507, NotFound;
    /// A standby stopped, and goes on from where it is once what stopped it is mended.
    StandbyFailed = 508, Failed;
    /// Another process holds a lock of a standby's copy.
    StandbyLocked = 509, Conflict;
    /// A standby was not promoted: its journal holds more, or that is not known.
    StandbyBehind = 510, Refused;
    /// A service may not write a restore to this place.
    RestorePlaceRefused = 511, Refused;
    /// What was asked for is not done to this standby, or was not confirmed.
    StandbyRefused = 512, Refused;
    /// A standby's server does not answer, or not to us.
    StandbyUnasked = 513, Unreachable;
    /// A standby's server was told to do something, and was not seen to have done it.
    StandbyUndone = 514, Failed;
    /// A former primary is not made a standby: it is not safe, or not possible.
    BackfreshRefused = 515, Refused;
    /// A former primary was begun to be made a standby, and is none yet.
    BackfreshFailed = 516, Failed;
    /// The catalog knows no job of this name.
    JobUnknown = 601, NotFound;
    /// A job has ended already.
    JobEnded = 602, Conflict;
    /// Nothing was heard of who did a job.
    JobSilent = 603, Failed;
    /// A job was cancelled.
    JobCancelled = 604, Interrupted;
    /// A job is another process's now.
    JobTaken = 605, Conflict;
    /// A job asks for what this version does not understand.
    JobUnreadable = 606, Usage;
    /// The service does not listen where others could reach it.
    ListenRefused = 701, Refused;
    /// The catalog knows no valid token of this name or id.
    TokenUnknown = 702, NotFound;
    /// The name of a token or a user is taken.
    AccessNameTaken = 703, Conflict;
    /// The catalog knows no user of this name.
    UserUnknown = 704, NotFound;
    /// A password was not given, or is not taken.
    PasswordRefused = 705, Usage;
    /// Nobody would be left who may say who may ask.
    LastAdmin = 706, Refused;
    /// A check of a drill failed.
    DrillFailed = 801, Breached;
    /// A drill passed, and took longer than the objective allows.
    DrillBreached = 802, Breached;
    /// A drill's copy has no place where it was to go.
    DrillScratch = 803, Refused;
    /// No drill of this id is known.
    DrillUnknown = 804, NotFound;
    /// A certificate does not hold.
    CertificateBad = 805, Breached;
    /// A drill came to a verdict, and has no certificate in the store.
    DrillUncertified = 806, Partial;
    /// A drill's copy could not be removed.
    DrillLeft = 807, Partial;
    /// How a drill's point is to be chosen is not understood.
    DrillPoint = 808, Usage;
    /// Told: nobody vouches for how a database stands.
    StateUnknown = 901, Failed;
    /// Told: more would be lost than the objective allows.
    ObjectiveBreached = 902, Breached;
    /// Told: a database is not shipped as it should be.
    ShippingDegraded = 903, Failed;
    /// Told: a database's shipping has ended for good.
    ShippingEnded = 904, Failed;
    /// Told: a database is shipped as it should be again.
    StandsWell = 905, Done;
    /// Told: the newest work of a kind failed.
    WorkFailed = 906, Failed;
    /// Told: work that was due is missing.
    WorkOverdue = 907, Failed;
    /// Told: work of a kind succeeds again.
    WorkWell = 908, Done;
    /// Told: a service cannot read its catalog.
    CatalogUnread = 909, Unreachable;
    /// Told: a service reads its catalog again.
    CatalogReadAgain = 910, Done;
    /// Told: a test.
    NotifyTest = 911, Done;
    /// The configuration names no such channel of notification.
    ChannelUnknown = 912, NotFound;
    /// Told: a throttle is active.
    ThrottleActive = 913, Failed;
    /// Told: a throttle is not active any more.
    ThrottleQuiet = 914, Done;
    /// No journal is served to standbys.
    ServeRefused = 1001, Refused;
    /// No standby is known by this name.
    StandbyNotListed = 1002, NotFound;
    /// No journal of another machine is received.
    ReceiveRefused = 1003, Refused;
    /// Nothing is guarded.
    GuardRefused = 1004, Refused;
    /// The ledger of a guard cannot be used.
    GuardLedger = 1005, Failed;
    /// A standby holds other rows than its primary.
    CompareDifferent = 1101, Findings;
    /// Not all of a standby was compared, and nothing is known to differ.
    CompareIncomplete = 1102, Partial;
    /// A comparison cannot be done like this.
    CompareRefused = 1103, Refused;
    /// No comparison of this id is known.
    CompareUnknown = 1104, NotFound;
    /// A side of a comparison, or whoever serves the standby, does not answer.
    CompareUnreached = 1105, Unreachable;
    /// Somebody else compares the standby now.
    CompareTaken = 1106, Conflict;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FS-{:04}", self.number())
    }
}

/// What is safe while this holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Safe {
    /// A statement from positions or from what was and was not written.
    Known(String),
    /// It is not known, and this is why.
    Unknown(String),
}

impl fmt::Display for Safe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(text) => f.write_str(text),
            Self::Unknown(why) => write!(f, "not known: {why}"),
        }
    }
}

/// One message to a DBA. Sentences carry no final stop; `Display` sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorMessage {
    /// Its stable code.
    pub code: Code,
    /// What happened, with names and positions.
    pub happened: String,
    /// What is safe.
    pub safe: Safe,
    /// What to do next.
    pub next: String,
}

impl OperatorMessage {
    /// A message of this code. All three parts are required: silence about safety reads as safety.
    pub fn new(code: Code, happened: impl Into<String>, safe: Safe, next: impl Into<String>) -> Self {
        Self { code, happened: happened.into(), safe, next: next.into() }
    }

    /// The message of a command whose work this version does not hold.
    pub fn not_built(command: &str) -> Self {
        Self::new(
            Code::NotBuilt,
            format!("`farshore {command}` is not built yet in this version"),
            Safe::Known("nothing was read or written".to_owned()),
            "use a version whose change log names this command".to_owned(),
        )
    }
}

/// An error with what caused it, each said once: some errors repeat their cause.
pub fn with_causes(why: &dyn std::error::Error) -> String {
    let mut text = why.to_string();
    let mut cause = why.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = next.source();
    }
    text
}

/// Ends a sentence once: a text that shows a place in a file, or ends itself, is left as it is.
fn stop(text: &str) -> &'static str {
    if text.ends_with(['.', '!', '?']) { "" } else { "." }
}

impl fmt::Display for OperatorMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let safe = self.safe.to_string();
        write!(f, "{}\n  Happened: {}{}", self.code, self.happened, stop(&self.happened))?;
        write!(f, "\n  Safe:     {safe}{}", stop(&safe))?;
        write!(f, "\n  Do:       {}{}", self.next, stop(&self.next))
    }
}

impl std::error::Error for OperatorMessage {}

impl Serialize for OperatorMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("OperatorMessage", 7)?;
        object.serialize_field("schema", "farshore.message/1")?;
        object.serialize_field("code", &self.code.to_string())?;
        object.serialize_field("happened", &self.happened)?;
        object.serialize_field("safe_known", &matches!(self.safe, Safe::Known(_)))?;
        object.serialize_field(
            "safe",
            match &self.safe {
                Safe::Known(text) | Safe::Unknown(text) => text,
            },
        )?;
        object.serialize_field("do", &self.next)?;
        object.serialize_field("exit", &self.code.exit().code())?;
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_to_be_safe_is_said_not_to_be_known() {
        let message = OperatorMessage::new(
            Code::Unexpected,
            "the store stopped answering",
            Safe::Unknown("the last put was not confirmed".to_owned()),
            "run `farshore verify orders`",
        );
        assert_eq!(
            message.to_string(),
            "FS-0001\n  Happened: the store stopped answering.\n  Safe:     not known: the last put was not \
             confirmed.\n  Do:       run `farshore verify orders`."
        );
        let json = serde_json::to_value(&message).unwrap();
        assert_eq!(json["safe_known"], false);
        assert_eq!(json["code"], "FS-0001");
    }

    #[test]
    fn no_two_codes_share_a_number() {
        assert!(Code::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
    }
}
