//! Who was turned away, told once in a while: pure, clock passed in.
//!
//! What always holds: the first one is told at once, and everybody is counted; however many come, and whatever they say, what is kept and what is told is bounded: so much for a peer, so
//! many peers, once a minute.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::places::Peer;

/// How often the same is told of the same peer.
const EVERY: Duration = Duration::from_secs(60);
/// So many reasons are told of one peer: what a stranger calls himself is in them.
const REASONS: usize = 8;
/// So much is kept of all peers.
const MOST: usize = 1024;
/// What stands for all reasons beyond those.
const OTHERS: &str = "for other reasons";

/// Those that were turned away.
#[derive(Debug, Default)]
pub struct Turned {
    told: HashMap<(Peer, String), Told>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    /// Who came since.
    more: u64,
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tell {
    /// Of whom.
    pub peer: Peer,
    /// How many connections of his were turned away, that nobody was told of.
    pub count: u64,
    /// Why.
    pub why: String,
}

impl Turned {
    /// Somebody is turned away; what is told of it now.
    pub fn away(&mut self, peer: Peer, why: &str, now: Instant) -> Option<Tell> {
        let (peer, why) = self.known_as(peer, why);
        if let Some(told) = self.told.get_mut(&(peer, why.clone())) {
            told.more += 1;
            return None;
        }
        self.told.insert((peer, why.clone()), Told { at: now, more: 0 });
        Some(Tell { peer, count: 1, why })
    }

    /// As what he is counted: as one of others, where too much is kept already.
    fn known_as(&self, peer: Peer, why: &str) -> (Peer, String) {
        let known = (peer, why.to_owned());
        let of_peer = self.told.keys().filter(|(other, _)| *other == peer).count();
        match self.told.contains_key(&known) || (of_peer < REASONS && self.told.len() < MOST) {
            true => known,
            false if of_peer > 0 => (peer, OTHERS.to_owned()),
            // Of more peers than are told apart.
            false => (Peer::from(IpAddr::from(Ipv4Addr::UNSPECIFIED)), OTHERS.to_owned()),
        }
    }

    /// What is told of those that came since the same was told last, once that is long ago.
    pub fn due(&mut self, now: Instant) -> Vec<Tell> {
        let mut due = Vec::new();
        self.told.retain(|(peer, why), told| {
            if now.saturating_duration_since(told.at) < EVERY {
                return true;
            }
            let count = std::mem::take(&mut told.more);
            told.at = now;
            if count > 0 {
                due.push(Tell { peer: *peer, count, why: why.clone() });
            }
            count > 0
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> Peer {
        Peer::from(IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + number)))
    }

    #[test]
    fn whoever_is_turned_away_is_counted_and_told_at_once_and_then_once_a_minute() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut turned = Turned::default();
        let tell = |count| Tell { peer: peer(1), count, why: "full".to_owned() };
        assert_eq!(turned.away(peer(1), "full", at(0)), Some(tell(1)));
        for _ in 0..500 {
            assert_eq!(turned.away(peer(1), "full", at(1)), None);
        }
        assert_eq!(turned.away(peer(1), "a password", at(2)).unwrap().count, 1, "another reason");
        assert_eq!(turned.away(peer(2), "full", at(2)).unwrap().count, 1, "another peer");
        assert_eq!(turned.due(at(59)), []);
        assert_eq!(turned.due(at(60)), [tell(500)]);
        assert_eq!(turned.away(peer(1), "full", at(70)), None);
        assert_eq!(turned.due(at(120)), [tell(1)]);
        assert_eq!(turned.due(at(180)), []);
        assert!(turned.told.is_empty(), "nothing is kept of whoever stays away");
        assert_eq!(turned.away(peer(1), "full", at(200)), Some(tell(1)));
    }

    #[test]
    fn what_strangers_call_themselves_and_from_where_they_come_fills_neither_memory_nor_log() {
        let now = Instant::now();
        let mut turned = Turned::default();
        let mut told = 0;
        for name in 0..5000 {
            told += usize::from(turned.away(peer(1), &format!("nobody {name}"), now).is_some());
        }
        assert_eq!(told, REASONS + 1);
        for number in 0..5000 {
            told += usize::from(turned.away(peer(number + 2), "full", now).is_some());
        }
        assert!(told <= MOST + 2 && turned.told.len() <= MOST + 2, "{told}, {}", turned.told.len());
        let due = turned.due(now + EVERY);
        let counted: u64 = due.iter().map(|tell| tell.count).sum();
        assert_eq!(counted + told as u64, 10_000, "each is counted");
    }
}
