//! Up to where a standby is sent log while somebody holds it: pure.
//!
//! What always holds: a hold takes nothing back; the ceiling of one hold only rises, and is never below what was sent. Without a wish there is none.

use farshore_journal::Offset;

/// That somebody wants a standby held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Which hold it is: another number is another hold, which begins where the standby is then.
    pub hold: u64,
    /// The end of what may be sent; `None`: no more than was sent.
    pub ceiling: Option<Offset>,
}

/// A hold, as a session keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ceiling {
    held: Option<(u64, Offset)>,
}

impl Ceiling {
    /// Takes what is wished now, of a standby that was sent log up to there.
    pub fn take(&mut self, wish: Option<Wish>, sent: Offset) {
        self.held = wish.map(|wish| {
            let former = self.held.filter(|(hold, _)| *hold == wish.hold).map(|(_, at)| at);
            let at = wish.ceiling.unwrap_or(sent).max(former.unwrap_or(sent)).max(sent);
            (wish.hold, at)
        });
    }

    /// The end of what may be sent; `None`: all there is.
    pub fn at(&self) -> Option<Offset> {
        self.held.map(|(_, at)| at)
    }

    /// Which hold it is.
    pub fn hold(&self) -> Option<u64> {
        self.held.map(|(hold, _)| hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_begins_where_a_standby_is_rises_and_takes_nothing_back() {
        let at = Offset::new;
        let mut ceiling = Ceiling::default();
        assert_eq!(ceiling.at(), None);
        let wish = |hold, ceiling: Option<u64>| Some(Wish { hold, ceiling: ceiling.map(Offset::new) });
        ceiling.take(wish(1, None), at(100));
        assert_eq!((ceiling.at(), ceiling.hold()), (Some(at(100)), Some(1)));
        ceiling.take(wish(1, Some(180)), at(100));
        assert_eq!(ceiling.at(), Some(at(180)));
        // Said again without a position, or with one that lies behind, it stays.
        ceiling.take(wish(1, None), at(150));
        ceiling.take(wish(1, Some(120)), at(150));
        assert_eq!(ceiling.at(), Some(at(180)));
        // Another hold begins anew, and what was sent was sent.
        ceiling.take(wish(2, Some(90)), at(150));
        assert_eq!(ceiling.at(), Some(at(150)));
        ceiling.take(None, at(150));
        assert_eq!((ceiling.at(), ceiling.hold()), (None, None));
    }
}
