//! Who may do what: roles in their order, names, and secrets of 256 random bits.
//!
//! What always holds: a role may do all that a lesser one may; of a secret the catalog keeps its SHA-256 only, and it is compared in
//! time that does not depend on where two digests differ. A secret does not print: it leaves by [`Secret::text`] alone.

use std::fmt;
use std::str::FromStr;

use farshore_journal::ParseError;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{Error, Result};

/// The most bytes of a name of a token or a user.
const NAME_BYTES: usize = 63;

/// What somebody may do. Each may do all that those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Look.
    Viewer,
    /// Ask for what changes no database: backups, drills, restores into a new place.
    Operator,
    /// Ask for what changes one: restores in place, healing, failover.
    Restorer,
    /// Say who may do what.
    Admin,
}

impl Role {
    /// Every role, least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Restorer, Self::Admin];

    /// Its word, in the catalog and on screens.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Restorer => "restorer",
            Self::Admin => "admin",
        }
    }

    /// Whether it may do what `needed` may.
    pub fn may(self, needed: Self) -> bool {
        self >= needed
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Role {
    type Err = ParseError;

    fn from_str(text: &str) -> std::result::Result<Self, ParseError> {
        let role = Self::ALL.into_iter().find(|role| role.word() == text);
        role.ok_or_else(|| not_a(text, "role (viewer, operator, restorer or admin)"))
    }
}

/// A name of a token or a user: 1 to 63 of `a-z 0-9 . _ -`, a letter or digit first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccessName(String);

impl AccessName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccessName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AccessName {
    type Err = ParseError;

    fn from_str(text: &str) -> std::result::Result<Self, ParseError> {
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let sound = text.starts_with(letter)
            && text.len() <= NAME_BYTES
            && text.chars().all(|c| letter(c) || matches!(c, '.' | '_' | '-'));
        match sound {
            true => Ok(Self(text.to_owned())),
            false => Err(not_a(text, "name (1 to 63 of a-z, 0-9, ., _ and -, a letter or digit first)")),
        }
    }
}

pub(crate) fn not_a(text: &str, what: &'static str) -> ParseError {
    ParseError { text: text.chars().take(80).collect(), what }
}

/// 256 random bits that prove who somebody is.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// A new one from the operating system's random source.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn mint() -> Result<Self> {
        let mut bytes = [0; 32];
        fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The secret as 64 hexadecimal digits, for whoever is to keep it.
    pub fn text(&self) -> String {
        hex::encode(self.0)
    }

    /// What the catalog keeps of it. 256 random bits cannot be guessed, so that one round of a fast digest is enough.
    pub fn digest(&self) -> SecretDigest {
        SecretDigest(Sha256::digest(self.0).into())
    }

    /// Another secret that follows from this one and a purpose, and tells nothing of it.
    #[must_use]
    pub fn derived(&self, purpose: &str) -> Self {
        let mut digest = Sha256::new();
        digest.update(purpose.as_bytes());
        digest.update([0]);
        digest.update(self.0);
        Self(digest.finalize().into())
    }
}

impl FromStr for Secret {
    type Err = ParseError;

    fn from_str(text: &str) -> std::result::Result<Self, ParseError> {
        let mut bytes = [0; 32];
        // What stands there may be a secret with a letter missing: it is not repeated.
        let refused = || not_a("...", "secret (64 lower-case hexadecimal digits)");
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(refused());
        }
        hex::decode_to_slice(text, &mut bytes).map_err(|_| refused())?;
        Ok(Self(bytes))
    }
}

pub(crate) fn fill(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes)
        .map_err(|_| Error::Invalid { what: "secret", reason: "the operating system gives no randomness" })
}

/// What is kept of a secret.
#[derive(Clone, Copy)]
pub struct SecretDigest([u8; 32]);

impl SecretDigest {
    /// What no secret has: for comparing where there is nobody to compare with, in the same time.
    pub const NOBODY: Self = Self([0; 32]);

    /// Whether both are of the same secret, in time that does not depend on where they differ.
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    pub(crate) fn text(self) -> String {
        hex::encode(self.0)
    }

    pub(crate) fn from_column(column: &'static str, text: &str) -> Result<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| Error::corrupt(column, "no digest"))?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_may_do_what_lesser_ones_may_and_nothing_more() {
        for (at, role) in Role::ALL.into_iter().enumerate() {
            assert_eq!(role.word().parse::<Role>().unwrap(), role);
            for (of, needed) in Role::ALL.into_iter().enumerate() {
                assert_eq!(role.may(needed), at >= of, "{role} {needed}");
            }
        }
        assert!("Admin".parse::<Role>().is_err() && "".parse::<Role>().is_err());
    }

    #[test]
    fn a_name_can_stand_in_a_line_a_log_and_a_path() {
        for good in ["a", "grafana", "ana.m-1_2", "7"] {
            assert_eq!(good.parse::<AccessName>().unwrap().as_str(), good);
        }
        for bad in ["", "Ana", ".a", "-a", "a b", "a/b", "a\n", "ä", &"a".repeat(64)] {
            assert!(bad.parse::<AccessName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_secret_reads_back_and_is_its_own_alone() {
        let (one, other) = (Secret::mint().unwrap(), Secret::mint().unwrap());
        let again: Secret = one.text().parse().unwrap();
        assert!(one.digest().is(&again.digest()));
        assert!(!one.digest().is(&other.digest()) && !one.digest().is(&SecretDigest::NOBODY));
        let derived = one.derived("csrf");
        assert!(derived.digest().is(&again.derived("csrf").digest()));
        assert!(!derived.digest().is(&one.digest()) && !derived.digest().is(&one.derived("other").digest()));
        for bad in [String::new(), one.text().to_uppercase(), one.text()[1..].to_owned(), "g".repeat(64)] {
            let refused = bad.parse::<Secret>().err().unwrap().to_string();
            assert!(bad.is_empty() || !refused.contains(&bad), "{refused}");
        }
    }
}
