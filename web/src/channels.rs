//! Whom the service tells, as far as those who ask it may know: names and kinds, and whether a channel takes a test.
//!
//! What always holds: no address and no secret is here; how a channel is spoken to is the service's own matter, which it puts in as a function. One test of a
//! channel is under way at a time, and two begin five seconds from each other, and its answer is here within [`PATIENCE`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;

/// How long a channel may take with a test. Above what it is given by itself, whose message is the better one; below what a request may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How far apart two tests of a channel begin, at least.
pub const APART: Duration = Duration::from_secs(5);

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// How it is spoken to: `webhook`, `slack`, `mail`.
    pub kind: String,
}

/// Sends a test to the channel of this name: why it was not taken, in words without address and secret.
pub type Send = Arc<dyn Fn(String) -> BoxFuture<'static, Result<(), String>> + std::marker::Send + Sync>;

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// The other side took it.
    Taken,
    /// It did not, and why.
    NotTaken(String),
    /// Another test of this channel is under way, or was just now; nothing was sent.
    Busy,
}

/// The channels of the service that answers.
#[derive(Clone, Default)]
pub struct Channels {
    known: Vec<Channel>,
    send: Option<Send>,
    /// Names of those that are being tested or were just now, each with when the last test began.
    under_way: Arc<Mutex<Tests>>,
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channels").field("known", &self.known).finish_non_exhaustive()
    }
}

/// Tests that are under way, and when each channel's last one began.
#[derive(Default)]
struct Tests {
    under_way: BTreeSet<String>,
    begun: BTreeMap<String, Instant>,
}

/// The place of a test, until it is dropped: also when nobody waits for its answer any more.
pub struct Place {
    all: Arc<Mutex<Tests>>,
    name: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).under_way.remove(&self.name);
    }
}

impl Channels {
    /// These, by name, and how each is sent a test.
    pub fn new(mut known: Vec<Channel>, send: Send) -> Self {
        known.sort_by(|one, other| one.name.cmp(&other.name));
        Self { known, send: Some(send), under_way: Arc::default() }
    }

    /// All, by name.
    pub fn list(&self) -> &[Channel] {
        &self.known
    }

    /// The one of this name.
    pub fn find(&self, name: &str) -> Option<&Channel> {
        self.known.iter().find(|channel| channel.name == name)
    }

    /// The place of a channel's next test; none while one is under way, or began less than five seconds ago: alarms go the same way.
    pub fn place(&self, channel: &Channel) -> Option<Place> {
        self.place_at(channel, Instant::now())
    }

    fn place_at(&self, channel: &Channel, now: Instant) -> Option<Place> {
        let mut tests = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let name = channel.name.clone();
        let is_near = tests.begun.get(&name).is_some_and(|begun| now.duration_since(*begun) < APART);
        if is_near || !tests.under_way.insert(name.clone()) {
            return None;
        }
        tests.begun.insert(name.clone(), now);
        Some(Place { all: Arc::clone(&self.under_way), name })
    }

    /// Sends a test. Dropped meanwhile, it may have been sent.
    pub async fn test(&self, place: Place) -> Sent {
        self.test_within(place, PATIENCE).await
    }

    async fn test_within(&self, place: Place, patience: Duration) -> Sent {
        let name = place.name.as_str();
        let Some(send) = &self.send else { return Sent::NotTaken("this service sends nothing".to_owned()) };
        match tokio::time::timeout(patience, send(name.to_owned())).await {
            Ok(Ok(())) => Sent::Taken,
            Ok(Err(why)) => Sent::NotTaken(why),
            Err(_) => Sent::NotTaken(format!(
                "there was no answer within {} s; it may have been taken",
                patience.as_secs()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    fn channel(name: &str) -> Channel {
        Channel { name: name.to_owned(), kind: "webhook".to_owned() }
    }

    /// Channels whose sending waits for a permit of the semaphore.
    fn held(open: &Arc<Semaphore>) -> Channels {
        let open = Arc::clone(open);
        let send: Send = Arc::new(move |_| {
            let open = Arc::clone(&open);
            Box::pin(async move {
                open.acquire().await.map(|permit| permit.forget()).map_err(|why| why.to_string())
            })
        });
        Channels::new(vec![channel("pager"), channel("dba")], send)
    }

    #[tokio::test]
    async fn one_test_of_a_channel_is_under_way_at_a_time_and_one_that_nobody_waits_for_makes_room() {
        let open = Arc::new(Semaphore::new(0));
        let channels = held(&open);
        let (dba, pager) = (channel("dba"), channel("pager"));
        assert_eq!(channels.list(), [dba.clone(), pager.clone()]);
        let now = Instant::now();
        let place = |channel: &Channel, after: Duration| channels.place_at(channel, now + after);
        {
            let mut first = Box::pin(channels.test(place(&pager, Duration::ZERO).unwrap()));
            assert!(futures::poll!(first.as_mut()).is_pending());
            assert!(place(&pager, APART).is_none(), "it is under way still");
            // Another channel is another matter.
            let mut other = Box::pin(channels.test(place(&dba, Duration::ZERO).unwrap()));
            assert!(futures::poll!(other.as_mut()).is_pending());
        }
        open.add_permits(1);
        assert!(place(&pager, APART / 2).is_none(), "alarms go the same way");
        assert_eq!(channels.test(place(&pager, APART).unwrap()).await, Sent::Taken);
    }

    #[tokio::test]
    async fn a_channel_that_never_answers_is_not_waited_for_without_end() {
        let channels = held(&Arc::new(Semaphore::new(0)));
        let Sent::NotTaken(why) =
            channels.test_within(channels.place(&channel("pager")).unwrap(), Duration::from_millis(5)).await
        else {
            panic!("taken")
        };
        assert!(why.contains("may have been taken"), "{why}");
        assert_eq!(channels.under_way.lock().unwrap().under_way.len(), 0);
    }
}
