//! Who may be there at once: pure.
//!
//! What always holds: nobody takes all places, so that nobody is locked out by one peer or by one user. Strangers, who have not proved who they are, have few for each peer; of
//! several users none has more than half of the sessions.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Those that have not proved who they are: each holds a connection, and no more than a message of it.
const STRANGERS: usize = 64;
/// Of these from one peer: more than come at once from a machine that has several standbys.
const STRANGERS_OF_ONE: usize = 8;
/// Standbys at once: each may hold some eight chunks that were read ahead.
const SESSIONS: usize = 64;

/// From where somebody comes: an address; of IPv6 what one network is given, its first 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer(IpAddr);

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "{address}/64"),
        }
    }
}

/// Places, each taken by somebody.
#[derive(Debug)]
pub struct Places<K> {
    most: usize,
    most_of_one: usize,
    taken: Mutex<HashMap<K, usize>>,
}

/// One that is taken; free again once it is dropped.
#[derive(Debug)]
pub struct Place<K: Eq + Hash> {
    places: Arc<Places<K>>,
    by: K,
}

/// Why there is none: so many are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// By all.
    All(usize),
    /// By him.
    Own(usize),
}

impl Places<Peer> {
    /// Those of strangers.
    pub fn of_strangers() -> Arc<Self> {
        Self::new(STRANGERS, STRANGERS_OF_ONE)
    }
}

impl Places<String> {
    /// Those of sessions, where there are so many users.
    pub fn of_sessions(users: usize) -> Arc<Self> {
        let most_of_one = if users > 1 { SESSIONS / 2 } else { SESSIONS };
        Self::new(SESSIONS, most_of_one)
    }
}

impl<K: Clone + Eq + Hash> Places<K> {
    /// So many, and so many of one.
    pub fn new(most: usize, most_of_one: usize) -> Arc<Self> {
        Arc::new(Self { most, most_of_one, taken: Mutex::default() })
    }

    /// Takes one.
    ///
    /// # Errors
    /// When he has as many as he may, or all are taken.
    pub fn take(self: &Arc<Self>, by: K) -> Result<Place<K>, Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own) = (taken.values().sum::<usize>(), taken.get(&by).copied().unwrap_or(0));
        // Whoever has all of his own is told that, so that he is not taken for somebody whom others lock out.
        if own >= self.most_of_one {
            return Err(Full::Own(own));
        }
        if all >= self.most {
            return Err(Full::All(all));
        }
        taken.insert(by.clone(), own + 1);
        Ok(Place { places: Arc::clone(self), by })
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.by) {
            Some(own) if *own > 1 => *own -= 1,
            // Nothing is kept of whoever has none.
            _ => {
                taken.remove(&self.by);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn no_peer_locks_out_another_and_a_place_that_is_left_is_free_again() {
        let places = Places::of_strangers();
        let (one, two) = (peer("192.0.2.7"), peer("192.0.2.8"));
        let mut held: Vec<_> = (0..STRANGERS_OF_ONE).map(|_| places.take(one).unwrap()).collect();
        assert_eq!(places.take(one).err(), Some(Full::Own(STRANGERS_OF_ONE)));
        drop(places.take(two).unwrap());
        held.pop();
        held.push(places.take(one).unwrap());
        for other in 0..STRANGERS - STRANGERS_OF_ONE {
            held.push(places.take(peer(&format!("198.51.100.{other}"))).unwrap());
        }
        assert_eq!(places.take(two).err(), Some(Full::All(STRANGERS)));
        drop(held);
        assert!(places.taken.lock().unwrap().is_empty(), "nothing is kept of whoever has left");
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer_and_an_address_of_ipv4_is_itself_however_it_is_written() {
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:2"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::ffff:192.0.2.7"), peer("192.0.2.7"));
        assert_ne!(peer("192.0.2.7"), peer("192.0.2.8"));
        assert_eq!(peer("2001:db8:1:2:3:4:5:6").to_string(), "2001:db8:1:2::/64");
        assert_eq!(peer("::ffff:192.0.2.7").to_string(), "192.0.2.7");
    }

    #[test]
    fn of_several_users_none_takes_all_sessions_and_one_alone_may() {
        for (users, most) in [(1, SESSIONS), (2, SESSIONS / 2), (9, SESSIONS / 2)] {
            let places = Places::of_sessions(users);
            let held: Vec<_> = (0..most).map(|_| places.take("far".to_owned()).unwrap()).collect();
            assert_eq!(places.take("far".to_owned()).err(), Some(Full::Own(most)));
            assert_eq!(places.take("oslo".to_owned()).is_ok(), users > 1);
            drop(held);
        }
    }
}
