//! The way of facts from a pipeline to the catalog: never waited for, and bounded in number and in the commits in them.
//!
//! What is not taken here is in the store all the same; the catalog lacks it until it is brought up or rebuilt from there.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::progress::Fact;

/// Facts that may wait for the catalog: at the default flush interval about three minutes of them.
const WAITING: usize = 1024;
/// Commits in them, some 32 bytes each: a backlog's chunks have thousands each.
const COMMITS_WAITING: usize = 400_000;

struct Waiting {
    fact: Fact,
    _room: OwnedSemaphorePermit,
}

/// The pipeline's end.
#[derive(Debug, Clone)]
pub struct FactSender {
    sender: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
}

/// The recorder's end.
#[derive(Debug)]
pub struct FactReceiver(mpsc::Receiver<Waiting>);

/// Both ends.
pub fn channel() -> (FactSender, FactReceiver) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (FactSender { sender, room: Arc::new(Semaphore::new(COMMITS_WAITING)) }, FactReceiver(receiver))
}

impl FactSender {
    /// Offers a fact; whether it was taken. Never waits.
    pub fn offer(&self, fact: Fact) -> bool {
        let commits = match &fact {
            Fact::Stored { commits, .. } => commits.len().min(COMMITS_WAITING),
            _ => 0,
        };
        let room = Arc::clone(&self.room).try_acquire_many_owned(u32::try_from(commits).unwrap_or(u32::MAX));
        room.is_ok_and(|room| self.sender.try_send(Waiting { fact, _room: room }).is_ok())
    }
}

impl FactReceiver {
    /// The next fact; none when every sender is gone, or it was closed, and all was received.
    ///
    /// # Cancel safety
    /// Safe: a fact is received or stays.
    pub async fn recv(&mut self) -> Option<Fact> {
        self.0.recv().await.map(|waiting| waiting.fact)
    }

    /// Takes no more; what waits is still received.
    pub fn close(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::CommitFact;
    use farshore_journal::{IncarnationId, Offset, Sequence, Timeline};

    fn stored(commits: usize) -> Fact {
        let zero = Offset::new(0);
        Fact::Stored {
            incarnation: IncarnationId::from_bytes([1; 16]),
            timeline: Timeline::new(1),
            start: zero,
            end: zero,
            checked: zero,
            first: Sequence::new(1),
            last: Sequence::new(1),
            commits: vec![CommitFact { start: zero, end: zero, time_micros: 0, xid: 3 }; commits],
            points: Vec::new(),
        }
    }

    #[tokio::test]
    async fn what_waits_is_bounded_by_its_commits_and_makes_room_when_it_is_received() {
        let (sender, mut receiver) = channel();
        assert!(sender.offer(stored(COMMITS_WAITING - 1)));
        assert!(!sender.offer(stored(2)));
        assert!(sender.offer(stored(1)));
        assert!(receiver.recv().await.is_some());
        assert!(sender.offer(stored(2)));
    }
}
