//! Keys: a data key per writer, wrapped for age recipients; a key per object, derived from it.
//!
//! A writer holds public keys only. What always holds: no two encodings share a key and salt, so no nonce is used
//! twice; a data key leaves memory only wrapped; neither keys nor their texts appear in `Debug` or in errors.
//! Source: `FORMAT.md` section 3; HKDF: RFC 5869; AES-GCM: NIST SP 800-38D; age: <https://age-encryption.org/v1>.

use std::fmt;
use std::io::Read;
use std::str::FromStr;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;

use super::FormatError;
use super::chain::Digest;
use super::header::HEADER_BOUND_BYTES;

/// Bytes that sealing adds to a frame.
pub const TAG_BYTES: usize = 16;
/// Most bytes of a wrapped data key: an age file for some dozens of recipients.
const MAX_WRAPPED_BYTES: usize = 64 * 1024;

/// The secret of one generation or backup, from which its objects' keys are derived.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey([u8; 32]);

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

/// The public keys for which data keys are wrapped.
#[derive(Clone, Default)]
pub struct Recipients(Vec<age::x25519::Recipient>);

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipients({})", self.0.len())
    }
}

impl Recipients {
    /// Reads public keys, one `age1...` text each.
    ///
    /// # Errors
    /// [`FormatError::Key`] when one is not an age public key. It is not repeated: it may be a private one.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, FormatError> {
        let parsed = texts.into_iter().map(|text| {
            age::x25519::Recipient::from_str(text.trim())
                .map_err(|_| key_error("a recipient is not an age public key (age1...)".to_owned()))
        });
        Ok(Self(parsed.collect::<Result<_, _>>()?))
    }

    /// Whether there is nobody to wrap for: nothing is encrypted then.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What tells these recipients from others, whatever their order; none where there is nobody.
    pub fn digest(&self) -> Option<Digest> {
        let mut texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        texts.sort();
        texts.dedup();
        (!texts.is_empty())
            .then(|| Digest::of(texts.iter().map(|text| format!("{text}\n")).collect::<String>().as_bytes()))
    }

    /// Bytes sealed for every recipient, as an armored age file.
    ///
    /// # Errors
    /// [`FormatError::Key`] without recipients, or when age refuses one.
    pub(super) fn seal(&self, bytes: &[u8]) -> Result<String, FormatError> {
        let to = self.0.iter().map(|r| r as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(to).map_err(|why| key_error(why.to_string()))?;
        let mut out = Vec::new();
        let wrapped = (|| {
            let armor = age::armor::ArmoredWriter::wrap_output(&mut out, age::armor::Format::AsciiArmor)?;
            let mut writer = encryptor.wrap_output(armor)?;
            std::io::Write::write_all(&mut writer, bytes)?;
            writer.finish()?.finish()?;
            Ok::<_, std::io::Error>(())
        })();
        wrapped.map_err(|why| key_error(why.to_string()))?;
        String::from_utf8(out).map_err(|_| key_error("its armor is not text".to_owned()))
    }
}

/// Private keys that open what was wrapped for them: the restore side only.
#[derive(Clone, Default)]
pub struct Unlock(Vec<age::x25519::Identity>);

impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unlock({} keys)", self.0.len())
    }
}

impl Unlock {
    /// No private key at hand: only what is not encrypted reads.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads an age identity file: `AGE-SECRET-KEY-1...` lines, `#` comments.
    ///
    /// # Errors
    /// [`FormatError::Key`] when a line is neither; the line itself is not repeated.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let lines =
            text.lines().map(str::trim).enumerate().filter(|(_, l)| !l.is_empty() && !l.starts_with('#'));
        let keys = lines.map(|(at, line)| {
            age::x25519::Identity::from_str(line).map_err(|_| {
                key_error(format!("line {} of the identity file is not an age private key", at + 1))
            })
        });
        Ok(Self(keys.collect::<Result<_, _>>()?))
    }

    /// Whether no key is at hand.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Opens a data key that was wrapped for one of these keys.
    ///
    /// # Errors
    /// [`FormatError::Key`] when none of them opens it, or it is not a data key.
    pub fn unwrap(&self, wrapped: &str) -> Result<DataKey, FormatError> {
        if wrapped.len() > MAX_WRAPPED_BYTES {
            return Err(key_error("its wrapping is longer than any that farshore writes".to_owned()));
        }
        if self.0.is_empty() {
            return Err(FormatError::KeyMissing);
        }
        let opened = self.open(wrapped, 32).map_err(|why| match why {
            FormatError::Age { why } => key_error(why),
            other => other,
        });
        let secret: [u8; 32] =
            opened?.try_into().map_err(|_| key_error("what was wrapped is not 32 bytes".to_owned()))?;
        Ok(DataKey(secret))
    }

    /// Opens what was sealed for one of these keys, at most `limit` bytes of it and one more.
    ///
    /// # Errors
    /// [`FormatError::Age`] when it is nothing that was sealed, which its head shows without any key and its body to whoever has one; of what may be sealed
    /// [`FormatError::KeyMissing`] without a key, [`FormatError::Key`] when none of them opens it.
    pub(super) fn open(&self, sealed: &str, limit: u64) -> Result<Vec<u8>, FormatError> {
        let armored = age::armor::ArmoredReader::new(sealed.as_bytes());
        let decryptor = age::Decryptor::new(armored).map_err(|why| age_error(&why))?;
        if self.0.is_empty() {
            return Err(FormatError::KeyMissing);
        }
        let opened = decryptor.decrypt(self.0.iter().map(|key| key as &dyn age::Identity));
        let reader = opened.map_err(|why| match why {
            age::DecryptError::NoMatchingKeys => key_error("no private key at hand opens it".to_owned()),
            why => age_error(&why),
        })?;
        let mut plain = Vec::new();
        reader.take(limit + 1).read_to_end(&mut plain).map_err(|why| age_error(&why))?;
        Ok(plain)
    }
}

impl DataKey {
    /// A fresh one from the operating system's random source.
    ///
    /// # Errors
    /// [`FormatError::Key`] without randomness.
    pub fn mint() -> Result<Self, FormatError> {
        Ok(Self(random()?))
    }

    /// The key wrapped for every recipient, as an armored age file.
    ///
    /// # Errors
    /// [`FormatError::Key`] without recipients, or when age refuses one.
    pub fn wrap(&self, recipients: &Recipients) -> Result<String, FormatError> {
        let out = recipients.seal(&self.0)?;
        if out.len() > MAX_WRAPPED_BYTES {
            return Err(key_error("there are more recipients than a data key can be wrapped for".to_owned()));
        }
        Ok(out)
    }

    /// The key of the object with this salt.
    pub(crate) fn object_key(&self, salt: &[u8; 32]) -> Result<ObjectKey, FormatError> {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&self.0);
        let okm = secret.expand(&[b"farshore v1 object"], &AES_256_GCM).map_err(|_| derive_error())?;
        Ok(ObjectKey(LessSafeKey::new(UnboundKey::from(okm))))
    }
}

/// The key of one object. Nonces are frame numbers: sound because every encoding has a salt of its own.
pub(crate) struct ObjectKey(LessSafeKey);

/// What is authenticated with a frame besides its bytes.
pub(crate) struct Bound<'a> {
    /// The header's first 240 bytes.
    pub header: &'a [u8],
    /// The frame's number.
    pub frame: u32,
    /// Whether no frame follows.
    pub last: bool,
    /// The frame's head.
    pub head: &'a [u8],
}

impl Bound<'_> {
    fn aad(&self) -> Vec<u8> {
        let mut aad = Vec::with_capacity(HEADER_BOUND_BYTES + 5 + self.head.len());
        aad.extend_from_slice(self.header);
        aad.extend_from_slice(&self.frame.to_le_bytes());
        aad.push(u8::from(self.last));
        aad.extend_from_slice(self.head);
        aad
    }

    fn nonce(&self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[8..].copy_from_slice(&self.frame.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }
}

impl ObjectKey {
    pub(crate) fn seal(&self, bound: &Bound<'_>, bytes: &mut [u8]) -> Result<[u8; TAG_BYTES], FormatError> {
        let tag = self
            .0
            .seal_in_place_separate_tag(bound.nonce(), Aad::from(bound.aad()), bytes)
            .map_err(|_| derive_error())?;
        let mut out = [0; TAG_BYTES];
        out.copy_from_slice(tag.as_ref());
        Ok(out)
    }

    pub(crate) fn open(&self, bound: &Bound<'_>, mut sealed: Vec<u8>) -> Result<Vec<u8>, FormatError> {
        let plain = self
            .0
            .open_in_place(bound.nonce(), Aad::from(bound.aad()), &mut sealed)
            .map_err(|_| FormatError::Sealed { frame: bound.frame })?
            .len();
        sealed.truncate(plain);
        Ok(sealed)
    }
}

/// Fresh random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], FormatError> {
    let mut out = [0; N];
    getrandom::fill(&mut out).map_err(|why| key_error(format!("no randomness: {why}")))?;
    Ok(out)
}

fn age_error(why: &dyn fmt::Display) -> FormatError {
    FormatError::Age { why: why.to_string() }
}

fn key_error(why: String) -> FormatError {
    FormatError::Key { why }
}

fn derive_error() -> FormatError {
    key_error("the object's key could not be used".to_owned())
}
