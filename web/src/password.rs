//! Passwords: argon2id, at the cost that OWASP names as its first choice (19 MiB, two passes, one lane).
//!
//! What always holds: a name that nobody has costs as much as a wrong password, so that an answer's time does not tell which names
//! there are; no more than [`AT_ONCE`] are checked at once, so that logins cannot take the machine's memory from shipping.
//! Source: <https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html>

use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use farshore_catalog::user::PasswordHash;

/// How many passwords are checked at once: 38 MiB.
pub const AT_ONCE: usize = 2;

/// The fewest characters of a new password.
pub const LEAST_CHARACTERS: usize = 12;

/// The most bytes of a password: more are no safer, and cost time.
pub const MOST_BYTES: usize = 1024;

/// KiB of memory that one check takes.
const MEMORY_KIB: u32 = 19 * 1024;

/// A hash of a password that nobody knows: what a name that nobody has is checked against.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGhhcyB0aGlz$EBETFBUWFxgZGhscHR4fICEiIyQlJicoKSorLC0uLzA";

/// Why a password is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PasswordError {
    /// Too short.
    #[error("a password has at least {LEAST_CHARACTERS} characters")]
    Short,
    /// Too long.
    #[error("a password has at most {MOST_BYTES} bytes")]
    Long,
    /// It could not be hashed.
    #[error("the password could not be hashed")]
    Hash,
}

fn argon2() -> Option<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, 2, 1, None).ok()?;
    Some(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Whether a new password would be taken, as far as its length says.
///
/// # Errors
/// When it is too short or too long.
pub fn fits(password: &str) -> Result<(), PasswordError> {
    if password.chars().count() < LEAST_CHARACTERS {
        return Err(PasswordError::Short);
    }
    if password.len() > MOST_BYTES {
        return Err(PasswordError::Long);
    }
    Ok(())
}

/// What is to be kept of a new password. It takes tens of milliseconds.
///
/// # Errors
/// When it is too short or too long.
pub fn hash(password: &str) -> Result<PasswordHash, PasswordError> {
    fits(password)?;
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|_| PasswordError::Hash)?;
    let argon2 = argon2().ok_or(PasswordError::Hash)?;
    let hash = argon2.hash_password_with_salt(password.as_bytes(), &salt).map_err(|_| PasswordError::Hash)?;
    Ok(PasswordHash::new(hash.to_string()))
}

/// Whether a password is the one that was kept; false for nobody's. It takes the same time in every case.
pub fn verify(password: &str, kept: Option<&PasswordHash>) -> bool {
    let Some(argon2) = argon2().filter(|_| password.len() <= MOST_BYTES) else { return false };
    let text = kept.map_or(NOBODY, PasswordHash::expose);
    let right = argon2.verify_password(password.as_bytes(), text).is_ok();
    right && kept.is_some()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_password_is_known_again_and_no_other_is() {
        let kept = hash("correct horse battery").unwrap();
        assert!(kept.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", kept.expose());
        assert!(verify("correct horse battery", Some(&kept)));
        assert!(!verify("correct horse batterz", Some(&kept)) && !verify("", Some(&kept)));
        assert!(!verify("correct horse battery", None));
        let again = hash("correct horse battery").unwrap();
        assert_ne!(kept.expose(), again.expose(), "each has a salt of its own");
        assert_eq!(hash("short").err(), Some(PasswordError::Short));
        assert_eq!(hash(&"a".repeat(2000)).err(), Some(PasswordError::Long));
    }

    #[test]
    fn a_name_that_nobody_has_costs_what_a_wrong_password_does() {
        let kept = hash("correct horse battery").unwrap();
        let time = |kept: Option<&PasswordHash>| -> Duration {
            let runs = (0..5).map(|_| {
                let begin = Instant::now();
                assert!(!verify("a wrong password", kept));
                begin.elapsed()
            });
            runs.min().unwrap()
        };
        let (wrong, nobody) = (time(Some(&kept)), time(None));
        // Had the hash of nobody a wrong form, checking it would take microseconds.
        assert!(nobody * 3 > wrong && wrong * 3 > nobody, "{wrong:?} {nobody:?}");
    }
}
