//! Objects: a header, frames, a trailer.
//!
//! [`Draft::assemble`] makes one of packed frames, [`Draft::encode`] of plain ones; [`Decoded::parse`] takes one apart and checks everything that can be checked without
//! a key; [`Decoded::plain`] gives a frame's content, checked against its digest. Nothing here sets aside memory by a
//! length that the bytes only claim.

use std::ops::Range;

use bytes::Bytes;

use super::FormatError;
use super::chain::{ChainValue, Digest, Link};
use super::crypt::{Bound, DataKey, TAG_BYTES, random};
use super::header::{Cipher, Codec, HEADER_BOUND_BYTES, HEADER_BYTES, Header, Kind, MAX_FRAMES};
use super::mark::Mark;
pub use super::pack::Compression;
use super::pack::{Packed, Packer};
use crate::identity::{Generation, IncarnationId, Sequence, StoreId, WriterId};
use crate::position::{Offset, Timeline};

/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = 32;
/// Bytes of a frame's head.
pub const FRAME_HEAD_BYTES: usize = 48;
/// Most plain bytes of a frame: large enough that compression gains nothing more, small enough to read one alone.
pub const MAX_FRAME_BYTES: usize = 1 << 20;
/// What compression of incompressible bytes and sealing may add to a frame.
const MAX_FRAME_GROWTH: usize = 1 << 16;

/// The fewest and most bytes that this many frames take.
pub(super) fn frames_bytes_bounds(frames: u32) -> (u64, u64) {
    let head = FRAME_HEAD_BYTES as u64;
    let most = head + (MAX_FRAME_BYTES + MAX_FRAME_GROWTH) as u64;
    (u64::from(frames) * (head + 1), u64::from(frames) * most)
}

/// One frame to be: its plain bytes and the plain end that its head states.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// Log offset behind the last byte in a data chunk; offset in the object's plain bytes elsewhere.
    pub end: u64,
    /// At most [`MAX_FRAME_BYTES`], at least one byte.
    pub plain: &'a [u8],
}

/// A packed frame and the plain end that its head is to state, as [`Piece::end`].
#[derive(Debug, Clone)]
pub struct Framed {
    /// Its end.
    pub end: u64,
    /// Its content.
    pub packed: Packed,
}

/// Where a new object's chain values come from.
#[derive(Debug, Clone, Copy)]
pub enum ChainUse {
    /// A chunk: steps from this value.
    StepsFrom(ChainValue),
    /// Both values are stated: a segment repeats those of its chunks; others have zeros.
    Stated {
        /// Before the object.
        before: ChainValue,
        /// After it.
        after: ChainValue,
    },
}

/// An object to be made: all that its header says of it besides its frames.
#[derive(Debug, Clone)]
pub struct Draft {
    /// What it is.
    pub kind: Kind,
    /// For which store.
    pub store: StoreId,
    /// Of which incarnation.
    pub incarnation: IncarnationId,
    /// Its number.
    pub number: Sequence,
    /// Its writer's generation.
    pub generation: Generation,
    /// Its writer.
    pub writer: WriterId,
    /// The timeline of its range.
    pub timeline: Timeline,
    /// First byte of its range.
    pub start: Offset,
    /// First byte behind it.
    pub end: Offset,
    /// Microseconds since 1970 UTC; information only.
    pub written_at: i64,
    /// Its chain values.
    pub chain: ChainUse,
    /// What the engine says of the position behind a data chunk.
    pub mark: Mark,
}

/// An object ready to be put.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Its header.
    pub header: Header,
    /// The heads of its frames, in order.
    pub heads: Vec<FrameHead>,
    /// All its bytes.
    pub bytes: Bytes,
    /// The digest of all its bytes.
    pub digest: Digest,
}

impl Draft {
    /// The object of these plain frames, compressed and, with a key, sealed under a fresh salt.
    ///
    /// # Errors
    /// [`FormatError::Field`] when the draft breaks a bound of the format; [`FormatError::Key`] without randomness.
    pub fn encode(
        &self,
        pieces: &[Piece<'_>],
        compression: Compression,
        key: Option<&DataKey>,
    ) -> Result<Encoded, FormatError> {
        let mut packer = Packer::new(compression)?;
        let frames = pieces.iter().enumerate().map(|(frame, piece)| {
            let packed = match is_open(self.kind, frame) {
                true => Packed::open(piece.plain)?,
                false => packer.pack(piece.plain)?,
            };
            Ok(Framed { end: piece.end, packed })
        });
        let frames = frames.collect::<Result<_, FormatError>>()?;
        self.assemble(frames, compression.codec(), key)
    }

    /// The object of frames that were packed for `codec`; with a key they are sealed under a fresh salt. Each frame is let go of
    /// as it is taken in.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn assemble(
        &self,
        frames: Vec<Framed>,
        codec: Codec,
        key: Option<&DataKey>,
    ) -> Result<Encoded, FormatError> {
        let count = u32::try_from(frames.len())
            .ok()
            .filter(|n| *n <= MAX_FRAMES)
            .ok_or(FormatError::Field { field: "frames" })?;
        let tag = |frame| if key.is_some() && !is_open(self.kind, frame) { TAG_BYTES } else { 0 };
        let heads: Vec<FrameHead> = frames
            .iter()
            .enumerate()
            .map(|(frame, Framed { end, packed })| FrameHead {
                plain_bytes: packed.plain_bytes,
                stored_bytes: (packed.bytes.len() + tag(frame)) as u32,
                end: *end,
                digest: packed.digest,
            })
            .collect();
        let header = self.header(codec, key.is_some(), count, &heads)?;
        let raw = header.encode();
        // Read back what was made: a draft that breaks the format's bounds must not reach a store.
        Header::decode(&raw)?;
        let object_key = key.map(|key| key.object_key(&header.salt)).transpose()?;
        let mut out = Vec::with_capacity(header.object_bytes() as usize);
        out.extend_from_slice(&raw);
        for (number, (head, framed)) in heads.iter().zip(frames).enumerate() {
            let raw_head = head.encode();
            out.extend_from_slice(&raw_head);
            let begin = out.len();
            out.extend_from_slice(&framed.packed.bytes);
            let tag = object_key
                .as_ref()
                .filter(|_| !is_open(self.kind, number))
                .map(|key| key.seal(&bound(&raw, number, heads.len(), &raw_head), &mut out[begin..]))
                .transpose()?;
            out.extend_from_slice(tag.as_ref().map_or(&[], |tag| &tag[..]));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&out);
        let trailer = hasher.finalize();
        out.extend_from_slice(trailer.as_bytes());
        hasher.update(trailer.as_bytes());
        let digest = Digest::from_bytes(*hasher.finalize().as_bytes());
        Ok(Encoded { header, heads, bytes: Bytes::from(out), digest })
    }

    fn header(
        &self,
        codec: Codec,
        sealed: bool,
        frames: u32,
        heads: &[FrameHead],
    ) -> Result<Header, FormatError> {
        let mut header = Header {
            kind: self.kind,
            codec,
            cipher: if sealed { Cipher::Aes256Gcm } else { Cipher::Clear },
            store: self.store,
            incarnation: self.incarnation,
            number: self.number,
            generation: self.generation,
            writer: self.writer,
            timeline: self.timeline,
            frames,
            start: self.start,
            end: self.end,
            plain_bytes: heads.iter().map(|head| u64::from(head.plain_bytes)).sum(),
            frames_bytes: heads
                .iter()
                .map(|head| FRAME_HEAD_BYTES as u64 + u64::from(head.stored_bytes))
                .sum(),
            written_at: self.written_at,
            before: ChainValue::from_bytes([0; 32]),
            after: ChainValue::from_bytes([0; 32]),
            salt: if sealed { random()? } else { [0; 32] },
            mark: self.mark,
        };
        (header.before, header.after) = match self.chain {
            ChainUse::StepsFrom(before) => (before, walk_chain(&header, before, heads)?),
            ChainUse::Stated { before, after } => (before, after),
        };
        Ok(header)
    }
}

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Plain bytes.
    pub plain_bytes: u32,
    /// Bytes in the object behind this head.
    pub stored_bytes: u32,
    /// The plain end.
    pub end: u64,
    /// BLAKE3 of the plain bytes.
    pub digest: Digest,
}

impl FrameHead {
    pub(super) fn encode(&self) -> [u8; FRAME_HEAD_BYTES] {
        let mut out = [0; FRAME_HEAD_BYTES];
        out[0..4].copy_from_slice(&self.plain_bytes.to_le_bytes());
        out[4..8].copy_from_slice(&self.stored_bytes.to_le_bytes());
        out[8..16].copy_from_slice(&self.end.to_le_bytes());
        out[16..48].copy_from_slice(self.digest.as_bytes());
        out
    }

    pub(super) fn decode(raw: &[u8; FRAME_HEAD_BYTES]) -> Result<Self, FormatError> {
        let word = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let mut end = [0; 8];
        end.copy_from_slice(&raw[8..16]);
        let mut digest = [0; 32];
        digest.copy_from_slice(&raw[16..48]);
        let head = Self {
            plain_bytes: word(0),
            stored_bytes: word(4),
            end: u64::from_le_bytes(end),
            digest: Digest::from_bytes(digest),
        };
        if head.plain_bytes == 0 || head.plain_bytes as usize > MAX_FRAME_BYTES {
            return Err(FormatError::Field { field: "plain length" });
        }
        if head.stored_bytes == 0 || head.stored_bytes as usize > head.plain_bytes as usize + MAX_FRAME_GROWTH
        {
            return Err(FormatError::Field { field: "stored length" });
        }
        Ok(head)
    }
}

/// An object taken apart, whole in everything that can be checked without a key.
#[derive(Debug, Clone)]
pub struct Decoded {
    header: Header,
    raw_header: [u8; HEADER_BYTES],
    heads: Vec<FrameHead>,
    /// Where each frame's bytes begin in `bytes`.
    starts: Vec<usize>,
    bytes: Bytes,
}

impl Decoded {
    /// Takes an object apart: lengths, header, trailer, frame heads, and for chunks the chain.
    ///
    /// # Errors
    /// [`FormatError`] names the first thing that does not hold.
    pub fn parse(bytes: Bytes) -> Result<Self, FormatError> {
        let header = Header::decode(&bytes)?;
        let have = bytes.len() as u64;
        let want = header.object_bytes();
        if have < want {
            return Err(FormatError::Cut { have, want });
        }
        if have > want {
            return Err(FormatError::Surplus { surplus: have - want });
        }
        let body_end = bytes.len() - TRAILER_BYTES;
        if blake3::hash(&bytes[..body_end]).as_bytes() != &bytes[body_end..] {
            return Err(FormatError::ObjectChecksum);
        }
        let mut heads = Vec::with_capacity(header.frames as usize);
        let mut starts = Vec::with_capacity(header.frames as usize);
        let mut at = HEADER_BYTES;
        for _ in 0..header.frames {
            let raw = bytes[..body_end].get(at..).and_then(|rest| rest.first_chunk());
            let head = FrameHead::decode(raw.ok_or(FormatError::Field { field: "frames" })?)?;
            at += FRAME_HEAD_BYTES;
            heads.push(head);
            starts.push(at);
            at += head.stored_bytes as usize;
        }
        if at != body_end {
            return Err(FormatError::Field { field: "bytes between header and trailer" });
        }
        if heads.iter().map(|head| u64::from(head.plain_bytes)).sum::<u64>() != header.plain_bytes {
            return Err(FormatError::Field { field: "plain bytes" });
        }
        if header.kind.is_chunk() && walk_chain(&header, header.before, &heads)? != header.after {
            return Err(FormatError::Chain);
        }
        let mut raw_header = [0; HEADER_BYTES];
        raw_header.copy_from_slice(&bytes[..HEADER_BYTES]);
        Ok(Self { header, raw_header, heads, starts, bytes })
    }

    /// The object's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The whole object.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The heads of its frames, in order.
    pub fn heads(&self) -> &[FrameHead] {
        &self.heads
    }

    /// The plain bytes of one frame, checked against its digest.
    ///
    /// # Errors
    /// [`FormatError::KeyMissing`] when it is sealed and no key is given; [`FormatError::Sealed`],
    /// [`FormatError::Decompress`] or [`FormatError::FrameDigest`] when the bytes are not what was written;
    /// [`FormatError::Field`] for a number that the object does not have.
    pub fn plain(&self, frame: usize, key: Option<&DataKey>) -> Result<Bytes, FormatError> {
        let (Some(head), Some(start)) = (self.heads.get(frame), self.starts.get(frame)) else {
            return Err(FormatError::Field { field: "frames" });
        };
        let number = frame as u32;
        let stored = self.bytes.slice(*start..*start + head.stored_bytes as usize);
        let open = is_open(self.header.kind, frame);
        let opened = match self.header.cipher {
            Cipher::Clear => stored,
            Cipher::Aes256Gcm if open => stored,
            Cipher::Aes256Gcm => {
                let key = key.ok_or(FormatError::KeyMissing)?.object_key(&self.header.salt)?;
                let raw_head = head.encode();
                let bound = bound(&self.raw_header, frame, self.heads.len(), &raw_head);
                Bytes::from(key.open(&bound, stored.to_vec())?)
            }
        };
        let plain = match self.header.codec {
            Codec::Plain => opened,
            Codec::Zstd if open => opened,
            // The capacity is the stated length, at most a frame: a bomb fails instead of growing.
            Codec::Zstd => Bytes::from(
                zstd::bulk::decompress(&opened, head.plain_bytes as usize)
                    .map_err(|_| FormatError::Decompress { frame: number })?,
            ),
        };
        if plain.len() != head.plain_bytes as usize {
            return Err(FormatError::Decompress { frame: number });
        }
        if Digest::of(&plain) != head.digest {
            return Err(FormatError::FrameDigest { frame: number });
        }
        Ok(plain)
    }

    /// The plain bytes of all frames, one behind the other.
    ///
    /// # Errors
    /// As for [`plain`](Self::plain).
    pub fn plain_all(&self, key: Option<&DataKey>) -> Result<Vec<u8>, FormatError> {
        let mut out = Vec::new();
        for frame in 0..self.heads.len() {
            out.extend_from_slice(&self.plain(frame, key)?);
        }
        Ok(out)
    }
}

/// The chain value after a chunk's frames, and whether they cover its range without a hole.
fn walk_chain(header: &Header, before: ChainValue, heads: &[FrameHead]) -> Result<ChainValue, FormatError> {
    let link = header.link();
    match header.kind {
        Kind::Data => chain_over(link, before, header.start..header.end, heads, header.mark),
        Kind::Opening | Kind::Timeline | Kind::Gap => {
            let [body] = heads else { return Err(FormatError::Field { field: "frames" }) };
            Ok(before.step(link, header.start, header.end, &body.digest))
        }
        _ => Err(FormatError::Field { field: "kind" }),
    }
}

/// Whether a frame is neither compressed nor sealed, whatever the object's header says: a segment's table is read to compare
/// and to find, without a key.
fn is_open(kind: Kind, frame: usize) -> bool {
    kind == Kind::Segment && frame == 0
}

/// The chain value behind a data chunk's frames, which must cover the range without a hole, and its mark.
pub(super) fn chain_over(
    link: Link,
    before: ChainValue,
    range: Range<Offset>,
    heads: &[FrameHead],
    mark: Mark,
) -> Result<ChainValue, FormatError> {
    let mut chain = before;
    let mut cursor = range.start;
    for head in heads {
        let frame_end = Offset::new(head.end);
        if frame_end.bytes_since(cursor) != Some(u64::from(head.plain_bytes)) {
            return Err(FormatError::Field { field: "end" });
        }
        chain = chain.step(link, cursor, frame_end, &head.digest);
        cursor = frame_end;
    }
    if cursor != range.end {
        return Err(FormatError::Field { field: "end" });
    }
    Ok(chain.marked(mark))
}

fn bound<'a>(raw_header: &'a [u8; HEADER_BYTES], frame: usize, frames: usize, head: &'a [u8]) -> Bound<'a> {
    Bound { header: &raw_header[..HEADER_BOUND_BYTES], frame: frame as u32, last: frame + 1 == frames, head }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Recipients, Unlock};
    use proptest::prelude::*;

    fn encode(
        start: u64,
        pieces: &[Piece<'_>],
        compression: Compression,
        key: Option<&DataKey>,
    ) -> Result<Encoded, FormatError> {
        let draft = Draft {
            kind: Kind::Data,
            store: StoreId::from_bytes([1; 16]),
            incarnation: IncarnationId::from_bytes([2; 16]),
            number: Sequence::new(7),
            generation: Generation::FIRST,
            writer: WriterId::from_bytes([3; 16]),
            timeline: Timeline::new(1),
            start: Offset::new(start),
            end: Offset::new(pieces.last().map_or(start, |piece| piece.end)),
            written_at: 0,
            chain: ChainUse::StepsFrom(ChainValue::from_bytes([9; 32])),
            mark: Mark::NONE,
        };
        draft.encode(pieces, compression, key)
    }

    fn pieces(start: u64, content: &[Vec<u8>]) -> Vec<Piece<'_>> {
        let mut end = start;
        content
            .iter()
            .map(|plain| {
                end += plain.len() as u64;
                Piece { end, plain }
            })
            .collect()
    }

    fn content() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..5)
    }

    proptest! {
        #[test]
        fn an_object_reads_back_as_it_was_written(content in content(), sealed: bool, zstd: bool) {
            let key = DataKey::mint().unwrap();
            let key = sealed.then_some(&key);
            let compression = if zstd { Compression::Zstd(1) } else { Compression::None };
            let encoded = encode(4096, &pieces(4096, &content), compression, key).unwrap();
            let (bytes, digest) = (encoded.bytes.clone(), encoded.digest);
            let decoded = Decoded::parse(encoded.bytes).unwrap();
            prop_assert_eq!(decoded.header(), &encoded.header);
            prop_assert_eq!(digest, Digest::of(&bytes));
            prop_assert_eq!(decoded.plain_all(key).unwrap(), content.concat());
        }

        #[test]
        fn every_changed_byte_is_detected_without_a_key(
            content in content(), sealed: bool, at: prop::sample::Index, flip in 1..=255u8,
        ) {
            let key = DataKey::mint().unwrap();
            let encoded = encode(0, &pieces(0, &content), Compression::Zstd(1), sealed.then_some(&key)).unwrap();
            let mut bytes = encoded.bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(Decoded::parse(Bytes::from(bytes)).is_err(), "byte {} changed unseen", at);
        }

        #[test]
        fn every_cut_and_every_surplus_is_detected(content in content(), cut: prop::sample::Index) {
            let bytes = encode(0, &pieces(0, &content), Compression::Zstd(1), None).unwrap().bytes;
            prop_assert!(Decoded::parse(bytes.slice(..cut.index(bytes.len()))).is_err());
            let longer = [&bytes[..], b"x"].concat();
            prop_assert!(Decoded::parse(Bytes::from(longer)).is_err());
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Decoded::parse(Bytes::from(bytes));
        }

        /// An attacker who can recompute every unkeyed checksum still cannot move a sealed frame.
        #[test]
        fn a_sealed_object_does_not_open_under_another_number(number in 0..1_000u64) {
            let key = DataKey::mint().unwrap();
            let plain = vec![5; 100];
            let encoded = encode(0, &[Piece { end: 100, plain: &plain }], Compression::None, Some(&key)).unwrap();
            let mut header = encoded.header.clone();
            header.number = Sequence::new(number);
            let mut forged = encoded.bytes[..encoded.bytes.len() - TRAILER_BYTES].to_vec();
            forged[..HEADER_BYTES].copy_from_slice(&header.encode());
            let trailer = blake3::hash(&forged);
            forged.extend_from_slice(trailer.as_bytes());
            let decoded = Decoded::parse(Bytes::from(forged)).unwrap();
            let opened = decoded.plain(0, Some(&key));
            prop_assert_eq!(opened.is_ok(), number == 7, "{:?}", opened);
        }
    }

    #[test]
    fn a_frame_that_decompresses_to_more_than_it_states_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
        let plain = vec![0; 100];
        let encoded = encode(0, &[Piece { end: 100, plain: &plain }], Compression::Zstd(1), None).unwrap();
        let mut header = encoded.header;
        header.frames_bytes = (FRAME_HEAD_BYTES + bomb.len()) as u64;
        let mut head = Decoded::parse(encoded.bytes).unwrap().heads()[0];
        head.stored_bytes = bomb.len() as u32;
        let mut forged = header.encode().to_vec();
        forged.extend_from_slice(&head.encode());
        forged.extend_from_slice(&bomb);
        let trailer = blake3::hash(&forged);
        forged.extend_from_slice(trailer.as_bytes());
        let decoded = Decoded::parse(Bytes::from(forged)).unwrap();
        assert_eq!(decoded.plain(0, None), Err(FormatError::Decompress { frame: 0 }));
    }

    #[test]
    fn a_mark_that_is_put_on_or_taken_off_does_not_lead_to_the_chain_value() {
        let plain = vec![1; 10];
        let pieces = [Piece { end: 10, plain: &plain }];
        let plain = encode(0, &pieces, Compression::None, None).unwrap();
        let mark = Mark::from_bytes([7; 16]);
        let forged = |kind: Kind, mark: Mark| {
            let header = Header { kind, mark, ..plain.header.clone() };
            let mut bytes = plain.bytes[..plain.bytes.len() - TRAILER_BYTES].to_vec();
            bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
            let trailer = blake3::hash(&bytes);
            bytes.extend_from_slice(trailer.as_bytes());
            Decoded::parse(Bytes::from(bytes)).map(|decoded| decoded.header().mark)
        };
        assert_eq!(forged(Kind::Data, Mark::NONE), Ok(Mark::NONE));
        assert_eq!(forged(Kind::Data, mark), Err(FormatError::Chain));
        assert_eq!(forged(Kind::Part, mark), Err(FormatError::Field { field: "mark" }));
        let after = plain.header.after;
        assert_ne!(after.marked(mark), after.marked(Mark::from_bytes([8; 16])));
    }

    #[test]
    fn a_data_key_opens_only_for_its_recipient() {
        let identity = || age::x25519::Identity::generate();
        let (mine, other) = (identity(), identity());
        let text = |key: &age::x25519::Identity| {
            use age::secrecy::ExposeSecret;
            key.to_string().expose_secret().to_owned()
        };
        let recipients = Recipients::parse([mine.to_public().to_string().as_str()]).unwrap();
        let key = DataKey::mint().unwrap();
        let wrapped = key.wrap(&recipients).unwrap();
        assert_eq!(Unlock::parse(&text(&mine)).unwrap().unwrap(&wrapped).unwrap(), key);
        assert!(Unlock::parse(&text(&other)).unwrap().unwrap(&wrapped).is_err());
        assert_eq!(Unlock::none().unwrap(&wrapped), Err(FormatError::KeyMissing));
    }

    #[test]
    fn two_encodings_of_one_content_share_no_salt() {
        let key = DataKey::mint().unwrap();
        let plain = vec![1; 10];
        let pieces = [Piece { end: 10, plain: &plain }];
        let salt = || encode(0, &pieces, Compression::None, Some(&key)).unwrap().header.salt;
        assert_ne!(salt(), salt());
    }
}
