//! The fence, as decisions: `FORMAT.md` section 5, rules R1 to R6, without any I/O.
//!
//! A writer is one of two machines: [`Opening`] takes the journal over, [`Appending`] puts one chunk after another.
//! Each says what to do next ([`Act`]) and is told what came of it ([`Seen`]). The writer in [`crate::writer`] and the
//! model test both run these very functions; neither decides anything of its own.
//!
//! What always holds: a chunk is counted as stored only after `New`, or after its own bytes were read back at its
//! number; an unknown outcome never leads to other bytes or another number.

use std::time::Duration;

use crate::identity::Sequence;

/// What a writer does next at one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// Create the object at this number with the bytes in hand.
    Put(Sequence),
    /// Read the object at this number.
    Read(Sequence),
}

/// What came of an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seen {
    /// The put made the object.
    New,
    /// The put met an object.
    Exists,
    /// The put's outcome is unknown: its answer was lost, or it may land later.
    Unknown,
    /// The act did nothing: refused before it could have an effect, or the read got no answer.
    Nothing,
    /// The read found the bytes in hand.
    Own,
    /// The read found other bytes.
    Other,
    /// The read found no object.
    Absent,
}

/// Where a put stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    /// To be sent, for the first time or again.
    Send,
    /// Sent without a clear answer: the number is to be read.
    Resolve,
}

/// What a put came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Not decided yet: go on with [`Put::act`].
    Open,
    /// The bytes in hand stand at the number.
    Stored,
    /// Other bytes stand at the number.
    Taken,
}

/// One put at one number with fixed bytes, until it is known what stands there (R4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Put {
    number: Sequence,
    phase: Phase,
}

impl Put {
    /// A put that is to be sent to `number`.
    pub fn new(number: Sequence) -> Self {
        Self { number, phase: Phase::Send }
    }

    /// The number it is for.
    pub fn number(&self) -> Sequence {
        self.number
    }

    /// What to do next.
    pub fn act(&self) -> Act {
        match self.phase {
            Phase::Send => Act::Put(self.number),
            Phase::Resolve => Act::Read(self.number),
        }
    }

    /// Takes in what was seen. An answer that does not fit the act is treated as no answer: nothing is concluded.
    pub fn seen(&mut self, seen: Seen) -> Verdict {
        match (self.phase, seen) {
            (Phase::Send, Seen::New) => return Verdict::Stored,
            // The object may be this writer's own: an earlier send may have landed.
            (Phase::Send, Seen::Exists | Seen::Unknown) => self.phase = Phase::Resolve,
            (Phase::Resolve, Seen::Own) => return Verdict::Stored,
            (Phase::Resolve, Seen::Other) => return Verdict::Taken,
            // Not there is not absent: the put may still land. The same bytes go to the same number again.
            (Phase::Resolve, Seen::Absent) => self.phase = Phase::Send,
            (Phase::Send, Seen::Nothing | Seen::Own | Seen::Other | Seen::Absent)
            | (Phase::Resolve, Seen::Nothing | Seen::New | Seen::Exists | Seen::Unknown) => {}
        }
        Verdict::Open
    }
}

/// What an opening came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opened {
    /// Go on with the put.
    Open,
    /// The journal is this writer's: its opening stands at the number.
    Owned,
    /// Another object stands at the number (R3), or this one stands there so late that its number may have been freed
    /// meanwhile (R6): read the journal's end anew, and begin again behind it.
    Behind,
}

/// Taking the journal over: one opening at the first free number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Opening {
    put: Put,
}

impl Opening {
    /// An opening for `free`, the number behind the last chunk that was read.
    pub fn at(free: Sequence) -> Self {
        Self { put: Put::new(free) }
    }

    /// What to do next.
    pub fn act(&self) -> Act {
        self.put.act()
    }

    /// Takes in what was seen. `since_read` is the time since the journal's end was begun to be read, by the larger of the
    /// monotonic and the wall clock.
    pub fn seen(&mut self, seen: Seen, since_read: Duration, tidy_grace: Duration) -> Opened {
        match self.put.seen(seen) {
            Verdict::Open => Opened::Open,
            Verdict::Stored if since_read < tidy_grace / 2 => Opened::Owned,
            Verdict::Stored | Verdict::Taken => Opened::Behind,
        }
    }
}

/// What an append came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Appended {
    /// Go on with the put.
    Open,
    /// The chunk is stored: its end may be reported and released.
    Stored,
    /// Another writer took the journal over: stop for good, and say so (R5).
    Fenced,
    /// The chunk's object was made, but so late that its number may have been freed meanwhile: nothing may be counted
    /// on it; open anew (R6).
    TooLate,
}

/// Putting one chunk of an owned journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Appending {
    put: Put,
}

impl Appending {
    /// An append at `number`.
    pub fn at(number: Sequence) -> Self {
        Self { put: Put::new(number) }
    }

    /// What to do next.
    pub fn act(&self) -> Act {
        self.put.act()
    }

    /// Takes in what was seen. `since_former_sent` is the time since this writer sent the chunk before: the larger of
    /// what the monotonic and the wall clock say.
    pub fn seen(&mut self, seen: Seen, since_former_sent: Duration, tidy_grace: Duration) -> Appended {
        match self.put.seen(seen) {
            Verdict::Open => Appended::Open,
            Verdict::Taken => Appended::Fenced,
            Verdict::Stored if since_former_sent < tidy_grace / 2 => Appended::Stored,
            Verdict::Stored => Appended::TooLate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_outcome_leads_to_a_read_and_then_to_the_same_number() {
        let mut put = Put::new(Sequence::new(4));
        assert_eq!(put.seen(Seen::Unknown), Verdict::Open);
        assert_eq!(put.act(), Act::Read(Sequence::new(4)));
        assert_eq!(put.seen(Seen::Absent), Verdict::Open);
        assert_eq!(put.act(), Act::Put(Sequence::new(4)));
    }

    #[test]
    fn nothing_but_new_or_own_bytes_counts_as_stored() {
        use Seen::*;
        for first in [New, Exists, Unknown, Nothing, Own, Other, Absent] {
            for second in [New, Exists, Unknown, Nothing, Own, Other, Absent] {
                let mut put = Put::new(Sequence::FIRST);
                let sent = put.seen(first);
                assert_eq!(sent == Verdict::Stored, first == New);
                if sent == Verdict::Open && matches!(first, Exists | Unknown) {
                    assert_eq!(put.seen(second) == Verdict::Stored, second == Own, "{first:?} {second:?}");
                }
            }
        }
    }

    #[test]
    fn a_confirmation_after_half_the_grace_counts_for_nothing() {
        let grace = Duration::from_secs(86_400);
        let at = |hours: u64| {
            Appending::at(Sequence::FIRST).seen(Seen::New, Duration::from_secs(hours * 3_600), grace)
        };
        assert_eq!(at(11), Appended::Stored);
        assert_eq!(at(12), Appended::TooLate);
    }
}
