//! What a ledger says, and its chain: pure.
//!
//! ```text
//! digest(n) = SHA-256("farshore.exposure/1", digest(n-1) or "", n, database, at, promise, what, from, until, whys, worst or "", objective), each text behind its length
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use farshore_journal::DatabaseName;
use farshore_journal::format::EntryDigest;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

use crate::Time;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$of])* $variant,)* }

        impl $name {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its word.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|one| one.word() == text).ok_or_else(|| format!("`{text}` is no word of a ledger"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

words! {
    /// What happened to a promise.
    What {
        /// It does not hold, or is not known to, from a moment on.
        Opened = "opened",
        /// An entry that is open is wider, or has one more reason.
        Grew = "grew",
        /// It holds again.
        Ended = "ended",
        /// It held from one look to another: so much is known though the catalog be lost.
        Kept = "kept",
    }
}

words! {
    /// Why a promise did not hold, or was not known to.
    Why {
        /// More than the objective was not stored.
        Behind = "behind",
        /// A store did not take what was shipped.
        TargetFailing = "target_failing",
        /// The database was not heard.
        SourceSilent = "source_silent",
        /// Nobody wrote of the database: its service hung, was cut off, or does not run.
        ServiceSilent = "service_silent",
        /// The service was stopped.
        ServiceStopped = "service_stopped",
        /// Shipping ended: fenced, or failed.
        ShippingStopped = "shipping_stopped",
        /// Shipping had not begun.
        SettingUp = "setting_up",
        /// How much was not stored could not be told.
        Unknown = "unknown",
        /// Commits were let go, since no store took them in time.
        LetGo = "let_go",
        /// Farshore was taken out of whom commits wait for, or never was in it.
        Disarmed = "disarmed",
        /// Nobody looked: no service ran, it was frozen, or the catalog was away.
        NotLooked = "not_looked",
        /// The clock went back: moments with these names came twice.
        Clock = "clock",
    }
}

/// Reasons, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whys(pub BTreeSet<Why>);

impl Whys {
    /// Adds one; whether it is new.
    pub fn add(&mut self, why: Why) -> bool {
        self.0.insert(why)
    }
}

impl From<Why> for Whys {
    fn from(why: Why) -> Self {
        Self(BTreeSet::from([why]))
    }
}

impl fmt::Display for Whys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(|why| why.word()).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Whys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_terminator(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// An event of a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it was decided.
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub at: Time,
    /// Which promise.
    pub promise: String,
    /// What happened to it.
    pub what: What,
    /// From when on, of the whole entry; of what was kept, too.
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub from: Time,
    /// Up to when, as far as it is decided.
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub until: Time,
    /// Why, all of it so far.
    pub whys: Whys,
    /// The worst exposure that was seen, in milliseconds; `None`: none was known.
    pub worst_ms: Option<u64>,
    /// What was promised, in milliseconds.
    pub objective_ms: u64,
}

impl Event {
    /// As it is kept: finer parts than microseconds are cut off.
    pub(crate) fn rounded(mut self) -> Self {
        for time in [&mut self.at, &mut self.from, &mut self.until] {
            *time = Time::from_timestamp_micros(time.timestamp_micros()).unwrap_or(*time);
        }
        self
    }

    /// Its digest, given that of the event before.
    pub fn digest(&self, former: Option<EntryDigest>, number: u64, database: &DatabaseName) -> EntryDigest {
        let mut digest = Sha256::new();
        let mut text = |text: &str| {
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(text.as_bytes());
        };
        text("farshore.exposure/1");
        text(&former.map(|former| former.to_string()).unwrap_or_default());
        text(&number.to_string());
        text(database.as_str());
        text(&self.at.timestamp_micros().to_string());
        text(&self.promise);
        text(self.what.word());
        text(&self.from.timestamp_micros().to_string());
        text(&self.until.timestamp_micros().to_string());
        text(&self.whys.to_string());
        text(&self.worst_ms.map(|worst| worst.to_string()).unwrap_or_default());
        text(&self.objective_ms.to_string());
        EntryDigest::from_bytes(digest.finalize().into())
    }
}
