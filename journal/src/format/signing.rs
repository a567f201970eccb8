//! Ed25519 keys: the one that signs heads, and the public ones that are pinned where heads are checked.
//!
//! What always holds: a [`SigningKey`] has no text of itself but the file that [`SigningKey::mint`] gives once; neither it nor its
//! file appear in `Debug` or in errors. The file is PKCS#8 in PEM, as `openssl genpkey -algorithm ed25519` writes it, so that a key
//! can be made, kept and looked at with other tools.
//! Source: Ed25519: RFC 8032; PKCS#8: RFC 5958 and RFC 8410; PEM: RFC 7468.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::FormatError;
use super::crypt::random;
use crate::hex_bytes::hex_bytes;

/// What PKCS#8 puts before the 32 bytes of an Ed25519 seed: version 0, the algorithm, two octet strings. Source: RFC 8410, section 7.
const PKCS8_BEFORE_SEED: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

hex_bytes!(
    /// A public key: whoever has it can check what its private half signed.
    VerifyKey,
    32,
    "public Ed25519 key (64 lower-case hexadecimal digits)"
);
hex_bytes!(
    /// A signature.
    Signature,
    64,
    "Ed25519 signature (128 lower-case hexadecimal digits)"
);

impl VerifyKey {
    /// Whether its private half made this signature over exactly these bytes.
    pub(super) fn signed(&self, message: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, &signature.0).is_ok()
    }
}

/// The keys that are pinned for a database: what one of them signed counts, what any other signed does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyKeys(Vec<VerifyKey>);

impl VerifyKeys {
    /// These keys.
    pub fn new(keys: Vec<VerifyKey>) -> Self {
        Self(keys)
    }

    /// Which they are.
    pub fn keys(&self) -> &[VerifyKey] {
        &self.0
    }

    /// Whether no key is pinned: no signature counts for anything then.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this key is pinned.
    pub fn contains(&self, key: &VerifyKey) -> bool {
        self.0.contains(key)
    }
}

/// The private half: it signs, where the journal is written.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: VerifyKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(.., public {})", self.public)
    }
}

impl SigningKey {
    /// A new key, and the text of its file.
    ///
    /// # Errors
    /// [`FormatError::Key`] without randomness.
    pub fn mint() -> Result<(Self, String), FormatError> {
        let seed: [u8; 32] = random()?;
        let file = STANDARD.encode([&PKCS8_BEFORE_SEED[..], &seed].concat());
        let text = format!("{PEM_BEGIN}\n{file}\n{PEM_END}\n");
        Ok((Self::parse(&text)?, text))
    }

    /// Reads a key's file: PKCS#8 in PEM. Lines before and behind it are passed over.
    ///
    /// # Errors
    /// [`FormatError::Key`] when it is none; its content is not repeated.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let wrong = |why: &str| FormatError::Key { why: why.to_owned() };
        let inner = text.split_once(PEM_BEGIN).and_then(|(_, rest)| rest.split_once(PEM_END));
        let (inner, _) = inner.ok_or_else(|| wrong("it holds no PRIVATE KEY in PEM"))?;
        let inner: String = inner.split_ascii_whitespace().collect();
        let bytes = STANDARD.decode(inner).map_err(|_| wrong("its PEM does not decode"))?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&bytes)
            .map_err(|_| wrong("it is not an Ed25519 private key"))?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| wrong("its public half is none"))?;
        Ok(Self { pair, public: VerifyKey(public) })
    }

    /// Its public half.
    pub fn public(&self) -> VerifyKey {
        self.public
    }

    pub(super) fn sign(&self, message: &[u8]) -> Signature {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(self.pair.sign(message).as_ref());
        Signature(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 2: the format is the one that others write and check.
    #[test]
    fn a_published_signature_is_made_and_found_right() {
        let seed = hex::decode("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
        let file = STANDARD.encode([&PKCS8_BEFORE_SEED[..], &seed].concat());
        let key = SigningKey::parse(&format!("a note\n{PEM_BEGIN}\n{file}\n{PEM_END}\n")).unwrap();
        let public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        assert_eq!(key.public().to_string(), public);
        let signature: Signature = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
            .parse()
            .unwrap();
        assert_eq!(key.sign(&[0x72]), signature);
        assert!(key.public().signed(&[0x72], &signature));
        assert!(!key.public().signed(&[0x73], &signature));
    }

    #[test]
    fn a_minted_key_reads_back_from_its_file_and_shows_nothing_private() {
        let (key, text) = SigningKey::mint().unwrap();
        let again = SigningKey::parse(&text).unwrap();
        assert_eq!(again.public(), key.public());
        assert!(key.public().signed(b"said", &again.sign(b"said")));
        let inner = text.lines().nth(1).unwrap();
        assert!(!format!("{key:?}").contains(inner));
        for wrong in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", inner] {
            let said = SigningKey::parse(wrong).unwrap_err().to_string();
            assert!(!said.contains(inner), "{said}");
        }
        assert!("AB".repeat(32).parse::<VerifyKey>().is_err());
        assert_eq!(key.public().to_string().parse::<VerifyKey>().unwrap(), key.public());
    }
}
