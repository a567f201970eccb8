//! Whom the service tells, as far as those who ask it may know: names and kinds, and whether a channel takes a test.
//!
//! What always holds: no address and no secret is here; how a channel is spoken to is the service's own matter, which it puts in as a function. One test of a
//! channel is under way at a time, and its answer is here within [`PATIENCE`].

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;

/// How long a channel may take with a test. Above what it is given by itself, whose message is the better one; below what a request may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// How it is spoken to: `webhook`, `slack`.
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
    /// Another test of this channel is under way; nothing was sent.
    Busy,
}

/// The channels of the service that answers.
#[derive(Clone, Default)]
pub struct Channels {
    known: Vec<Channel>,
    send: Option<Send>,
    /// Names of those that are being tested.
    under_way: Arc<Mutex<BTreeSet<String>>>,
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channels").field("known", &self.known).finish_non_exhaustive()
    }
}

/// A test that is under way, until it is dropped: also when nobody waits for its answer any more.
struct UnderWay<'a> {
    all: &'a Mutex<BTreeSet<String>>,
    name: &'a str,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(self.name);
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

    /// Sends a test. Dropped meanwhile, it may have been sent.
    pub async fn test(&self, channel: &Channel) -> Sent {
        self.test_within(channel, PATIENCE).await
    }

    async fn test_within(&self, channel: &Channel, patience: Duration) -> Sent {
        let name = channel.name.as_str();
        if !self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned()) {
            return Sent::Busy;
        }
        let _under_way = UnderWay { all: &self.under_way, name };
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
        {
            let mut first = Box::pin(channels.test(&pager));
            assert!(futures::poll!(first.as_mut()).is_pending());
            assert_eq!(channels.test(&pager).await, Sent::Busy);
            // Another channel is another matter.
            let mut other = Box::pin(channels.test(&dba));
            assert!(futures::poll!(other.as_mut()).is_pending());
        }
        open.add_permits(1);
        assert_eq!(channels.test(&pager).await, Sent::Taken);
    }

    #[tokio::test]
    async fn a_channel_that_never_answers_is_not_waited_for_without_end() {
        let channels = held(&Arc::new(Semaphore::new(0)));
        let Sent::NotTaken(why) = channels.test_within(&channel("pager"), Duration::from_millis(5)).await
        else {
            panic!("taken")
        };
        assert!(why.contains("may have been taken"), "{why}");
        assert_eq!(channels.under_way.lock().unwrap().len(), 0);
    }
}
