//! How 32 bits of a transaction's number become 64.
//!
//! The log carries the low half. A checkpoint carries the next number to be given out, whole. Numbers in use lie
//! less than 2^31 before the next one, or the server would have stopped to protect itself, so the whole number is
//! the one nearest to the newest whole number known: seen at a checkpoint, given by the caller, or derived from a
//! record since. Before any is known the high half stays unknown rather than guessed.
//!
//! Source: `FullTransactionIdFromAllowableAt` and `TransactionIdPrecedes`, src/backend/access/transam/transam.c
//! and src/include/access/transam.h.

use crate::event::TransactionId;

/// Numbers below are not transactions: invalid, bootstrap, frozen.
/// Source: `FirstNormalTransactionId`, src/include/access/transam.h.
const FIRST_NORMAL: u32 = 3;

/// The newest whole transaction number known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct XidClock {
    next: Option<u64>,
}

impl XidClock {
    /// Takes a checkpoint's next number. It corrects an anchor that cannot be right, and else never goes back.
    pub(super) fn anchor(&mut self, next: u64) {
        self.next = match self.next {
            Some(known) if next < known && known - next < 1 << 31 => Some(known),
            _ => Some(next),
        };
    }

    /// Notes a number that a record carries.
    pub(super) fn observe(&mut self, low: u32) {
        if low < FIRST_NORMAL {
            return;
        }
        if let (Some(next), Some(full)) = (self.next, self.widen(low).full)
            && full >= next
        {
            self.next = full.checked_add(1);
        }
    }

    /// The newest whole number known: what another clock is anchored with to go on from here.
    pub(super) fn next(&self) -> Option<u64> {
        self.next
    }

    /// The whole number, where it can be known.
    pub(super) fn widen(&self, low: u32) -> TransactionId {
        if low < FIRST_NORMAL {
            return TransactionId { low, full: Some(u64::from(low)) };
        }
        let full = self.next.and_then(|next| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
            // the ring arithmetic is meant
            let distance = low.wrapping_sub(next as u32) as i32;
            next.checked_add_signed(i64::from(distance))
        });
        TransactionId { low, full }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchored(next: u64) -> XidClock {
        let mut clock = XidClock::default();
        clock.anchor(next);
        clock
    }

    #[test]
    fn a_number_stays_unknown_until_a_whole_one_was_seen() {
        assert_eq!(XidClock::default().widen(700).full, None);
        assert_eq!(anchored(701).widen(700).full, Some(700));
    }

    #[test]
    fn a_number_is_carried_across_wraparound() {
        let mut clock = anchored((5 << 32) - 2);
        assert_eq!(clock.widen(u32::MAX - 1).full, Some((5 << 32) - 2));
        clock.observe(u32::MAX - 1);
        clock.observe(3);
        assert_eq!(clock.widen(3).full, Some((5 << 32) + 3));
        assert_eq!(clock.widen(u32::MAX).full, Some((5 << 32) - 1), "an old transaction commits late");
        // Two thousand million later, without a checkpoint between, as long as numbers were seen on the way.
        clock.observe(1 << 31);
        clock.observe(u32::MAX - 5);
        clock.observe(9);
        assert_eq!(clock.widen(9).full, Some((6 << 32) + 9));
    }

    #[test]
    fn no_number_before_the_first_is_made_up() {
        assert_eq!(anchored(10).widen(u32::MAX).full, None);
        assert_eq!(anchored(u64::MAX).widen(5).full, None);
    }

    #[test]
    fn a_checkpoint_corrects_a_wrong_anchor_but_never_turns_the_clock_back() {
        let mut clock = anchored(7 << 32);
        clock.anchor(800);
        assert_eq!(clock.widen(799).full, Some(799));
        clock.observe(900);
        clock.anchor(850);
        assert_eq!(clock.next, Some(901));
    }
}
