//! A bounds-checked reader of little-endian fields. Hostile counts cost nothing: nothing is taken that is not there.

/// The bytes not yet read.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// A C `bool`; other bytes than 0 and 1 are refused.
    pub(super) fn bool(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// `count` items of `bytes` each, where the count is a C `int`.
    pub(super) fn items(&mut self, count: i32, bytes: usize) -> Option<&'a [u8]> {
        self.take(usize::try_from(count).ok()?.checked_mul(bytes)?)
    }

    /// The bytes up to a NUL, which is taken too.
    pub(super) fn until_nul(&mut self) -> Option<&'a [u8]> {
        let length = self.0.iter().position(|b| *b == 0)?;
        let text = self.take(length)?;
        self.take(1)?;
        Some(text)
    }

    pub(super) const fn remaining(&self) -> usize {
        self.0.len()
    }
}

/// The `u32`s of a byte run of a whole number of them.
pub(super) fn u32s(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]))
}

/// Microseconds since 1970 of PostgreSQL's microseconds since 2000.
/// Source: `POSTGRES_EPOCH_JDATE`, src/include/datatype/timestamp.h.
pub(super) const fn unix_micros(postgres_micros: i64) -> i64 {
    const SECONDS_1970_TO_2000: i64 = 946_684_800;
    postgres_micros.saturating_add(SECONDS_1970_TO_2000 * 1_000_000)
}
