//! SCRAM-SHA-256, the server's side: a password is proved without being sent, and only a verifier of it is kept.
//!
//! What always holds: a name that nobody has is asked and refused as one with a wrong password is, and gets the same salt each time; what is compared is
//! compared in constant time; a client that says that it could bind the channel, where we offered that, is refused: somebody stands between.
//!
//! Source: RFC 5802, RFC 7677; <https://www.postgresql.org/docs/current/sasl-authentication.html>. PostgreSQL's clients leave the name empty: it stands in the
//! first packet.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac};
use subtle::ConstantTimeEq as _;

/// The mechanism without channel binding.
pub(super) const PLAIN: &str = "SCRAM-SHA-256";
/// The mechanism with it.
pub(super) const PLUS: &str = "SCRAM-SHA-256-PLUS";
/// The flag of a client that binds the channel to the server's certificate.
const BOUND: &str = "p=tls-server-end-point";
/// PostgreSQL's own defaults: rounds, and bytes of salt.
const ROUNDS: u32 = 4096;
const SALT: usize = 16;
const KEY: usize = 32;
/// Bytes of our part of the nonce.
pub(super) const NONCE: usize = 18;

/// What proves a password, and does not tell it: PostgreSQL's `rolpassword`, `SCRAM-SHA-256$rounds:salt$stored key:server key`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    rounds: u32,
    salt: Vec<u8>,
    stored_key: [u8; KEY],
    server_key: [u8; KEY],
}

/// A text that is no verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a verifier of the form SCRAM-SHA-256$ROUNDS:SALT$STORED_KEY:SERVER_KEY")]
pub struct VerifierError;

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Who has the keys can try passwords.
        f.debug_struct("Verifier").field("rounds", &self.rounds).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Of a password. It takes some milliseconds.
    ///
    /// # Errors
    /// A fault of ours.
    pub fn of(password: &str) -> Result<Self, VerifierError> {
        postgres_protocol::password::scram_sha_256(password.as_bytes()).parse()
    }
}

impl FromStr for Verifier {
    type Err = VerifierError;

    fn from_str(text: &str) -> Result<Self, VerifierError> {
        let read = || {
            let rest = text.strip_prefix(PLAIN)?.strip_prefix('$')?;
            let (head, keys) = rest.split_once('$')?;
            let (rounds, salt) = head.split_once(':')?;
            let (stored, server) = keys.split_once(':')?;
            let key = |text: &str| <[u8; KEY]>::try_from(STANDARD.decode(text).ok()?).ok();
            let rounds = rounds.parse().ok().filter(|rounds| *rounds > 0)?;
            let salt = STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?;
            Some(Self { rounds, salt, stored_key: key(stored)?, server_key: key(server)? })
        };
        read().ok_or(VerifierError)
    }
}

/// Whose passwords are known.
pub struct Secrets {
    known: BTreeMap<String, Verifier>,
    /// Makes up the salts of names that nobody has: the same for a name each time, for as long as the passwords are, and nothing that can be told from a real one.
    made_up: hmac::Key,
    /// How many rounds and bytes of salt those have: as one of the others each.
    like: Vec<(u32, usize)>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("known", &self.known.len()).finish_non_exhaustive()
    }
}

impl Secrets {
    /// Of these users.
    pub fn new(known: BTreeMap<String, Verifier>) -> Self {
        // A key that lasts over restarts: who sees a salt change knows that it was made up.
        let mut lasting =
            hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, b"farshore: names that nobody has"));
        known.values().for_each(|verifier| lasting.update(&verifier.server_key));
        let made_up = hmac::Key::new(hmac::HMAC_SHA256, lasting.sign().as_ref());
        let like = known.values().map(|one| (one.rounds, one.salt.len())).collect();
        Self { known, made_up, like }
    }

    /// What a user's proof is held against; of a name that nobody has something that no proof fits.
    fn of(&self, user: &str) -> (Verifier, bool) {
        match self.known.get(user) {
            Some(verifier) => (verifier.clone(), true),
            None => {
                let made_up = hmac::sign(&self.made_up, user.as_bytes());
                let drawn = made_up.as_ref().last().map_or(0, |byte| usize::from(*byte));
                let like = drawn.checked_rem(self.like.len()).and_then(|at| self.like.get(at));
                let (rounds, length) = like.copied().unwrap_or((ROUNDS, SALT));
                let salt = made_up.as_ref().iter().take(length).copied().collect();
                (Verifier { rounds, salt, stored_key: [0; KEY], server_key: [0; KEY] }, false)
            }
        }
    }
}

/// Why nobody is let in. All of it is one answer to the other side, but for what is no SCRAM at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScramError {
    #[error("the message is no SCRAM")]
    Malformed,
    #[error("the password does not fit")]
    Wrong,
    #[error("the client could bind the channel, and was told that we cannot")]
    Downgraded,
}

/// An exchange whose proof is awaited.
pub(super) struct Exchange {
    verifier: Verifier,
    known: bool,
    first_bare: String,
    server_first: String,
    nonce: String,
    /// What the client must repeat of its header and of the channel.
    bound: Vec<u8>,
}

impl Exchange {
    /// Reads the client's first message, and gives our answer. `channel`: the digest that binding is offered with.
    ///
    /// # Errors
    /// When it is none, or not of the mechanism that it names.
    pub(super) fn begin(
        secrets: &Secrets,
        user: &str,
        (mechanism, first): (&str, &[u8]),
        channel: Option<&[u8]>,
        random: [u8; NONCE],
    ) -> Result<(Self, String), ScramError> {
        let first = std::str::from_utf8(first).map_err(|_| ScramError::Malformed)?;
        let (flag, rest) = first.split_once(',').ok_or(ScramError::Malformed)?;
        let (authorised, bare) = rest.split_once(',').ok_or(ScramError::Malformed)?;
        // Nobody acts for another here.
        if !authorised.is_empty() {
            return Err(ScramError::Malformed);
        }
        let mut bound = format!("{flag},,").into_bytes();
        match (mechanism, flag, channel) {
            (PLUS, BOUND, Some(digest)) => bound.extend(digest),
            (PLAIN, "n", _) | (PLAIN, "y", None) => {}
            (PLAIN, "y", Some(_)) => return Err(ScramError::Downgraded),
            _ => return Err(ScramError::Malformed),
        }
        let mut attributes = bare.split(',');
        let named = attributes.next().is_some_and(|name| name.starts_with("n="));
        let nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r="));
        let nonce = nonce.filter(|nonce| named && is_printable(nonce)).ok_or(ScramError::Malformed)?;
        let (verifier, known) = secrets.of(user);
        let nonce = format!("{nonce}{}", STANDARD.encode(random));
        let salt = STANDARD.encode(&verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", verifier.rounds);
        let first_bare = bare.to_owned();
        let answer = server_first.clone();
        Ok((Self { verifier, known, first_bare, server_first, nonce, bound }, answer))
    }

    /// Reads the client's proof, and gives ours.
    ///
    /// # Errors
    /// When the password is not the one that is known.
    pub(super) fn finish(self, last: &[u8]) -> Result<String, ScramError> {
        let last = std::str::from_utf8(last).map_err(|_| ScramError::Malformed)?;
        let (unproved, proof) = last.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut attributes = unproved.split(',');
        let bound =
            attributes.next().and_then(|bound| bound.strip_prefix("c=")).ok_or(ScramError::Malformed)?;
        let nonce =
            attributes.next().and_then(|nonce| nonce.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        if STANDARD.decode(bound).ok().as_ref() != Some(&self.bound) || nonce != self.nonce {
            return Err(ScramError::Malformed);
        }
        let proof = STANDARD.decode(proof).map_err(|_| ScramError::Malformed)?;
        let proof = <[u8; KEY]>::try_from(proof).map_err(|_| ScramError::Malformed)?;
        let said = format!("{},{},{unproved}", self.first_bare, self.server_first);
        let signed =
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.verifier.stored_key), said.as_bytes());
        let client_key: Vec<u8> =
            proof.iter().zip(signed.as_ref()).map(|(proof, signed)| proof ^ signed).collect();
        let stored = digest::digest(&digest::SHA256, &client_key);
        let right = bool::from(stored.as_ref().ct_eq(&self.verifier.stored_key));
        if !(right && self.known) {
            return Err(ScramError::Wrong);
        }
        let ours = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.verifier.server_key), said.as_bytes());
        Ok(format!("v={}", STANDARD.encode(ours.as_ref())))
    }
}

fn is_printable(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use proptest::prelude::*;

    use super::*;

    fn secrets() -> Secrets {
        let verifier = Verifier::of("correct horse").unwrap();
        Secrets::new(BTreeMap::from([("far".to_owned(), verifier)]))
    }

    /// Whether a client with this password is let in, and believes us.
    fn is_let_in(
        secrets: &Secrets,
        (user, password): (&str, &str),
        (mechanism, binding): (&str, ChannelBinding),
        channel: Option<&[u8]>,
    ) -> Result<(), ScramError> {
        let mut client = ScramSha256::new(password.as_bytes(), binding);
        let first = (mechanism, client.message());
        let (exchange, answer) = Exchange::begin(secrets, user, first, channel, [7; NONCE])?;
        client.update(answer.as_bytes()).unwrap();
        let ours = exchange.finish(client.message())?;
        client.finish(ours.as_bytes()).expect("our proof is believed");
        Ok(())
    }

    #[test]
    fn who_knows_the_password_is_let_in_and_nobody_else() {
        let secrets = secrets();
        let plain = || (PLAIN, ChannelBinding::unsupported());
        assert_eq!(is_let_in(&secrets, ("far", "correct horse"), plain(), None), Ok(()));
        assert_eq!(is_let_in(&secrets, ("far", "wrong"), plain(), None), Err(ScramError::Wrong));
        assert_eq!(is_let_in(&secrets, ("nobody", "correct horse"), plain(), None), Err(ScramError::Wrong));
    }

    #[test]
    fn a_channel_is_bound_to_the_certificate_and_whoever_stands_between_is_found_out() {
        let secrets = secrets();
        let far = ("far", "correct horse");
        let bound = || (PLUS, ChannelBinding::tls_server_end_point(vec![1, 2, 3]));
        assert_eq!(is_let_in(&secrets, far, bound(), Some(&[1, 2, 3])), Ok(()));
        assert_eq!(is_let_in(&secrets, far, bound(), Some(&[9, 9, 9])), Err(ScramError::Malformed));
        assert_eq!(is_let_in(&secrets, far, bound(), None), Err(ScramError::Malformed));
        let could = || (PLAIN, ChannelBinding::unrequested());
        assert_eq!(is_let_in(&secrets, far, could(), None), Ok(()));
        assert_eq!(is_let_in(&secrets, far, could(), Some(&[1])), Err(ScramError::Downgraded));
    }

    #[test]
    fn a_name_that_nobody_has_is_asked_as_others_are_and_alike_each_time() {
        let secrets = secrets();
        let ask = |user: &str, nonce: u8| {
            let first = (PLAIN, &b"n,,n=,r=abc"[..]);
            Exchange::begin(&secrets, user, first, None, [nonce; NONCE]).map(|(_, answer)| answer).unwrap()
        };
        let tail = |answer: String| answer.split_once(",s=").unwrap().1.to_owned();
        assert_eq!(tail(ask("nobody", 1)), tail(ask("nobody", 2)));
        assert_ne!(tail(ask("nobody", 1)), tail(ask("noone", 1)));
        assert_eq!(tail(ask("nobody", 1)).len(), tail(ask("far", 1)).len());
        // Nor does a restart, or another machine with the same passwords, tell them apart.
        let first = (PLAIN, &b"n,,n=,r=abc"[..]);
        let again = Secrets::new(secrets.known.clone());
        let (_, answer) = Exchange::begin(&again, "nobody", first, None, [1; NONCE]).unwrap();
        assert_eq!(tail(answer), tail(ask("nobody", 1)));
    }

    #[test]
    fn what_is_no_scram_is_refused() {
        let secrets = secrets();
        for first in [
            "",
            "n",
            "n,,",
            "n,a=other,n=,r=abc",
            "x,,n=,r=abc",
            "n,,m=x,r=abc",
            "n,,n=,r=",
            "p=tls-unique,,n=,r=a",
        ] {
            let begun = Exchange::begin(&secrets, "far", (PLAIN, first.as_bytes()), None, [0; NONCE]);
            assert!(begun.is_err(), "{first}");
        }
        for text in [
            "",
            "SCRAM-SHA-256",
            "SCRAM-SHA-256$0:YQ==$YQ==:YQ==",
            "md5abc",
            "SCRAM-SHA-256$4096:YQ==$YQ==:YQ==",
        ] {
            assert_eq!(text.parse::<Verifier>(), Err(VerifierError), "{text}");
        }
        assert!(!format!("{:?}", Verifier::of("secret").unwrap()).contains("key"));
    }

    proptest! {
        #[test]
        fn hostile_messages_never_panic(first: Vec<u8>, last: Vec<u8>) {
            let secrets = secrets();
            let _ = Exchange::begin(&secrets, "far", (PLAIN, &first), None, [0; NONCE]);
            let begun = Exchange::begin(&secrets, "far", (PLAIN, b"n,,n=,r=abc"), None, [0; NONCE]);
            if let Ok((exchange, _)) = begun {
                prop_assert!(exchange.finish(&last).is_err());
            }
        }
    }
}
