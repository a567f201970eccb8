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

/// Commits that are told to the catalog at once, in one transaction of its own.
const JOINED_COMMITS: usize = 20_000;

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
pub struct FactReceiver {
    waiting: mpsc::Receiver<Waiting>,
    /// Received, and said by the next call.
    ahead: Option<Fact>,
}

/// Both ends.
pub fn channel() -> (FactSender, FactReceiver) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let receiver = FactReceiver { waiting: receiver, ahead: None };
    (FactSender { sender, room: Arc::new(Semaphore::new(COMMITS_WAITING)) }, receiver)
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
    /// The next fact, with those that wait behind it and go on from it joined to it: the catalog's work is for each fact, hardly for
    /// what is in it. None when every sender is gone, or it was closed, and all was received.
    ///
    /// # Cancel safety
    /// Safe: a fact is received or stays.
    pub async fn recv(&mut self) -> Option<Fact> {
        let mut fact = match self.ahead.take() {
            Some(ahead) => ahead,
            None => self.waiting.recv().await?.fact,
        };
        while let Ok(next) = self.waiting.try_recv() {
            if let Some(other) = join(&mut fact, next.fact) {
                self.ahead = Some(other);
                break;
            }
        }
        Some(fact)
    }

    /// Takes no more; what waits is still received.
    pub fn close(&mut self) {
        self.waiting.close();
    }
}

/// Adds to `fact` what `next` says, or gives it back: only what was stored right behind is said in one, and not more than the catalog
/// takes in at once.
fn join(fact: &mut Fact, next: Fact) -> Option<Fact> {
    let Fact::Stored { incarnation, timeline, end, checked, last, commits, points, .. } = fact else {
        return Some(next);
    };
    match next {
        Fact::Stored {
            incarnation: same,
            timeline: line,
            start,
            end: later,
            checked: further,
            first,
            last: newest,
            commits: more,
            points: named,
        } if (same, line, start) == (*incarnation, *timeline, *end)
            && last.get() + 1 == first.get()
            && commits.len() + more.len() <= JOINED_COMMITS =>
        {
            (*end, *checked, *last) = (later, further.max(*checked), newest);
            commits.extend(more);
            points.extend(named);
            None
        }
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::CommitFact;
    use farshore_journal::{BackupId, IncarnationId, Offset, Sequence, Timeline};

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

    fn stored_at(number: u64, commits: usize) -> Fact {
        let mut fact = stored(commits);
        if let Fact::Stored { start, end, checked, first, last, commits, .. } = &mut fact {
            (*start, *end, *checked) =
                (Offset::new(number * 10), Offset::new(number * 10 + 10), Offset::new(number * 10 + 5));
            (*first, *last) = (Sequence::new(number), Sequence::new(number));
            commits.iter_mut().for_each(|commit| commit.end = Offset::new(number * 10 + 5));
        }
        fact
    }

    #[tokio::test]
    async fn chunks_that_follow_each_other_are_one_fact_and_keep_every_commit() {
        let (sender, mut receiver) = channel();
        (1..=3).for_each(|number| assert!(sender.offer(stored_at(number, 2))));
        let Some(Fact::Stored { start, end, checked, first, last, commits, .. }) = receiver.recv().await
        else {
            panic!("a fact was offered");
        };
        assert_eq!((start.get(), end.get(), checked.get()), (10, 40, 35));
        assert_eq!((first.get(), last.get()), (1, 3));
        assert_eq!(
            commits.iter().map(|commit| commit.end.get()).collect::<Vec<_>>(),
            [15, 15, 25, 25, 35, 35]
        );
    }

    #[tokio::test]
    async fn what_does_not_go_on_from_the_fact_before_is_said_by_itself_and_in_order() {
        let other_line = |mut fact: Fact| {
            if let Fact::Stored { timeline, .. } = &mut fact {
                *timeline = Timeline::new(2);
            }
            fact
        };
        let apart = [
            // A hole, the same again, another timeline, another kind, and more commits than one transaction takes.
            (stored_at(1, 1), stored_at(3, 1)),
            (stored_at(1, 1), stored_at(1, 1)),
            (stored_at(1, 1), other_line(stored_at(2, 1))),
            (Fact::Backup { backup: BackupId::from_bytes([2; 16]) }, stored_at(1, 1)),
            (stored_at(1, JOINED_COMMITS), stored_at(2, 1)),
        ];
        for (first, second) in apart {
            let (sender, mut receiver) = channel();
            assert!(sender.offer(first.clone()) && sender.offer(second.clone()));
            assert_eq!(receiver.recv().await, Some(first));
            receiver.close();
            assert_eq!(receiver.recv().await, Some(second));
            assert_eq!(receiver.recv().await, None);
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
