//! A head: the journal's owner signs that a chunk of this number is stored, and with which chain value.
//!
//! ```text
//! what is signed: text("farshore 2026-11 signed head v1"), store id (16), incarnation id (16), text(database), number (8),
//!     chain value (32), timeline (4), end (8), generation (8), signed at (8), public key (32)
//!     a text being its length (8) and its bytes; numbers little-endian
//! ```
//! What always holds of a decoded [`Head`]: its bytes are the only ones that say this, so each of them is bound by the signature or
//! follows from what is. Whether the signature holds, and whether its key counts, [`Head::standing`] says.
//! Source: `FORMAT.md` section 10.

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::FormatError;
use super::body;
use super::chain::ChainValue;
use super::header::{Header, Kind};
use super::mark::Mark;
use super::object::{ChainUse, Compression, Decoded, Draft, Piece};
use super::signing::{Signature, SigningKey, VerifyKey, VerifyKeys};
use crate::identity::{DatabaseName, Generation, IncarnationId, Sequence, StoreId, WriterId};
use crate::position::Position;

const CONTEXT: &str = "farshore 2026-11 signed head v1";

/// What a head says: where a journal stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The store.
    pub store: StoreId,
    /// The incarnation.
    pub incarnation: IncarnationId,
    /// The database.
    pub database: DatabaseName,
    /// The chunk that was confirmed.
    pub number: Sequence,
    /// The chain value behind it.
    pub chain: ChainValue,
    /// Where the journal ended behind it.
    pub end: Position,
    /// The generation that wrote it.
    pub generation: Generation,
}

impl Statement {
    /// Whether a chunk is the one that it speaks of. The number was asked for, and the chain value binds all else.
    pub fn is_of(&self, chunk: &Header) -> bool {
        (chunk.number, chunk.after, chunk.end_position(), chunk.generation)
            == (self.number, self.chain, self.end, self.generation)
    }
}

/// A statement with its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// What it says.
    pub said: Statement,
    /// Microseconds since 1970 UTC when it was signed, by the signer's clock. For people: no order is ever taken from it.
    pub signed_at: i64,
    /// The public half of the key that signed it, as it says itself.
    pub key: VerifyKey,
    /// The signature.
    pub signature: Signature,
}

/// What a head's signature is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadStanding {
    /// A pinned key signed exactly this.
    Pinned,
    /// A key signed exactly this, and it is not pinned here: anyone can make one.
    UnknownKey,
    /// The key that it names did not sign this: it was changed.
    Broken,
}

/// The part of a head that its header has no room for.
#[derive(Debug, Serialize, Deserialize)]
struct HeadBody {
    database: DatabaseName,
    key: VerifyKey,
    signature: Signature,
}

impl Head {
    /// Signs a statement. `signed_at` is now, in microseconds since 1970 UTC.
    pub fn sign(said: Statement, signed_at: i64, key: &SigningKey) -> Self {
        let signature = key.sign(&message(&said, signed_at, &key.public()));
        Self { said, signed_at, key: key.public(), signature }
    }

    /// When it was signed, for people.
    pub fn signed_when(&self) -> String {
        DateTime::<Utc>::from_timestamp_micros(self.signed_at)
            .map_or_else(|| "an unknown time".to_owned(), |at| at.to_rfc3339_opts(SecondsFormat::Secs, true))
    }

    /// What its signature is worth where these keys are pinned.
    pub fn standing(&self, pinned: &VerifyKeys) -> HeadStanding {
        if !self.key.signed(&message(&self.said, self.signed_at, &self.key), &self.signature) {
            return HeadStanding::Broken;
        }
        if pinned.contains(&self.key) { HeadStanding::Pinned } else { HeadStanding::UnknownKey }
    }

    /// Its object's bytes: neither compressed nor sealed, and the same whenever they are made.
    ///
    /// # Errors
    /// Never in practice: every head fits the format.
    pub fn encode(&self) -> Result<Bytes, FormatError> {
        let body =
            HeadBody { database: self.said.database.clone(), key: self.key, signature: self.signature };
        let json = body::to_json("head", &body)?;
        let draft = Draft {
            kind: Kind::Head,
            store: self.said.store,
            incarnation: self.said.incarnation,
            number: self.said.number,
            generation: self.said.generation,
            writer: WriterId::from_bytes([0; 16]),
            timeline: self.said.end.timeline,
            start: self.said.end.offset,
            end: self.said.end.offset,
            written_at: self.signed_at,
            chain: ChainUse::Stated { before: ChainValue::from_bytes([0; 32]), after: self.said.chain },
            mark: Mark::NONE,
        };
        let pieces = [Piece { end: json.len() as u64, plain: &json }];
        Ok(draft.encode(&pieces, Compression::None, None)?.bytes)
    }

    /// Reads a head's object. Its signature was not looked at: [`standing`](Self::standing) does.
    ///
    /// # Errors
    /// [`FormatError`] when the bytes are none, or not exactly those that a writer makes of what they say.
    pub fn decode(bytes: Bytes) -> Result<Self, FormatError> {
        let object = Decoded::parse(bytes.clone())?;
        let header = object.header();
        if header.kind != Kind::Head {
            return Err(FormatError::Field { field: "kind" });
        }
        let body: HeadBody = body::from_json("head", &object.plain(0, None)?)?;
        let said = Statement {
            store: header.store,
            incarnation: header.incarnation,
            database: body.database,
            number: header.number,
            chain: header.after,
            end: header.end_position(),
            generation: header.generation,
        };
        let head = Self { said, signed_at: header.written_at, key: body.key, signature: body.signature };
        match head.encode()? == bytes {
            true => Ok(head),
            false => Err(FormatError::Field { field: "head" }),
        }
    }
}

/// The bytes that are signed: each field has one length, or says its own, so that no two statements share them.
fn message(said: &Statement, signed_at: i64, key: &VerifyKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(320);
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend_from_slice(&(text.len() as u64).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    };
    text(&mut out, CONTEXT);
    out.extend_from_slice(said.store.as_bytes());
    out.extend_from_slice(said.incarnation.as_bytes());
    text(&mut out, said.database.as_str());
    out.extend_from_slice(&said.number.get().to_le_bytes());
    out.extend_from_slice(said.chain.as_bytes());
    out.extend_from_slice(&said.end.timeline.get().to_le_bytes());
    out.extend_from_slice(&said.end.offset.get().to_le_bytes());
    out.extend_from_slice(&said.generation.get().to_le_bytes());
    out.extend_from_slice(&signed_at.to_le_bytes());
    out.extend_from_slice(key.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Offset, Timeline};
    use proptest::prelude::*;

    fn said() -> Statement {
        Statement {
            store: StoreId::from_bytes([1; 16]),
            incarnation: IncarnationId::from_bytes([2; 16]),
            database: "orders".parse().unwrap(),
            number: Sequence::new(7),
            chain: ChainValue::from_bytes([3; 32]),
            end: Position::new(Timeline::new(4), Offset::new(5)),
            generation: Generation::new(6),
        }
    }

    fn signed() -> (Head, VerifyKeys) {
        let (key, _) = SigningKey::mint().unwrap();
        (Head::sign(said(), 8, &key), VerifyKeys::new(vec![key.public()]))
    }

    #[test]
    fn a_head_reads_back_and_counts_only_where_its_key_is_pinned() {
        let (head, pinned) = signed();
        let bytes = head.encode().unwrap();
        let read = Head::decode(bytes).unwrap();
        assert_eq!(read, head);
        assert_eq!(read.standing(&pinned), HeadStanding::Pinned);
        assert_eq!(read.standing(&VerifyKeys::default()), HeadStanding::UnknownKey);
        let (other, _) = SigningKey::mint().unwrap();
        assert_eq!(Head::sign(said(), 8, &other).standing(&pinned), HeadStanding::UnknownKey);
    }

    /// Whoever can recompute every checksum still cannot make a pinned key say another thing.
    #[test]
    fn whatever_field_of_a_head_is_changed_its_signature_breaks() {
        let (head, pinned) = signed();
        let (other, _) = SigningKey::mint().unwrap();
        type Change = fn(&mut Statement);
        let changes: [Change; 8] = [
            |s| s.store = StoreId::from_bytes([9; 16]),
            |s| s.incarnation = IncarnationId::from_bytes([9; 16]),
            |s| s.database = "order".parse().unwrap(),
            |s| s.number = Sequence::new(8),
            |s| s.chain = ChainValue::from_bytes([9; 32]),
            |s| s.end.timeline = Timeline::new(5),
            |s| s.end.offset = Offset::new(4),
            |s| s.generation = Generation::new(7),
        ];
        for (which, change) in changes.into_iter().enumerate() {
            let mut changed = head.clone();
            change(&mut changed.said);
            let read = Head::decode(changed.encode().unwrap()).unwrap();
            assert_eq!(read.standing(&pinned), HeadStanding::Broken, "change {which}");
        }
        let later = Head { signed_at: 9, ..head.clone() };
        assert_eq!(later.standing(&pinned), HeadStanding::Broken);
        let renamed = Head { key: other.public(), ..head };
        assert_eq!(renamed.standing(&VerifyKeys::new(vec![other.public()])), HeadStanding::Broken);
    }

    #[test]
    fn no_two_ways_of_writing_one_head_are_read() {
        let (head, _) = signed();
        let bytes = head.encode().unwrap();
        let body = |json: &[u8], writer: u8| {
            let draft = Draft {
                kind: Kind::Head,
                store: head.said.store,
                incarnation: head.said.incarnation,
                number: head.said.number,
                generation: head.said.generation,
                writer: WriterId::from_bytes([writer; 16]),
                timeline: head.said.end.timeline,
                start: head.said.end.offset,
                end: head.said.end.offset,
                written_at: head.signed_at,
                chain: ChainUse::Stated { before: ChainValue::from_bytes([0; 32]), after: head.said.chain },
                mark: Mark::NONE,
            };
            let pieces = [Piece { end: json.len() as u64, plain: json }];
            draft.encode(&pieces, Compression::None, None).unwrap().bytes
        };
        let json = Decoded::parse(bytes.clone()).unwrap().plain(0, None).unwrap();
        assert_eq!(body(&json, 0), bytes);
        let spaced = [&json[..], b" "].concat();
        for other in [body(&json, 1), body(&spaced, 0)] {
            assert_eq!(Head::decode(other), Err(FormatError::Field { field: "head" }));
        }
    }

    proptest! {
        #[test]
        fn every_changed_byte_of_a_head_is_found(at: prop::sample::Index, flip in 1..=255u8) {
            let mut bytes = signed().0.encode().unwrap().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(Head::decode(Bytes::from(bytes)).is_err(), "byte {} changed unseen", at);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..900)) {
            let _ = Head::decode(Bytes::from(bytes));
        }
    }
}
