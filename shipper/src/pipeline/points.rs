//! Recovery points that are named in the stream of a database's log, for an engine whose log has no other way in.
//!
//! What always holds: who asked hears of a point only once it is stored; one that was not heard of may be stored all the same, and
//! is then in the journal under its name. A name that is asked for twice at a time is two points.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use farshore_journal::{Offset, Position};
use tokio::sync::{Notify, oneshot};

use crate::progress::PointFact;

/// A point that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// A restore to it ends here.
    pub at: Position,
    /// When it was named.
    pub time: DateTime<Utc>,
}

/// Where points are asked for.
#[derive(Debug, Clone, Default)]
pub struct Points {
    asked: Arc<Notify>,
    waiting: Arc<Mutex<VecDeque<Asked>>>,
}

/// A point that was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) name: String,
    by: oneshot::Sender<Named>,
}

impl Points {
    /// Asks for one. It is named once a stream runs; the answer fails when the stream breaks before it is known to be stored.
    pub fn ask(&self, name: String) -> oneshot::Receiver<Named> {
        let (by, answer) = oneshot::channel();
        self.waiting().push_back(Asked { name, by });
        self.asked.notify_one();
        answer
    }

    /// The next that was asked for by somebody who still waits.
    pub(super) async fn next(&self) -> Asked {
        loop {
            let asked = {
                let mut waiting = self.waiting();
                waiting.retain(|asked| !asked.by.is_closed());
                waiting.pop_front()
            };
            match asked {
                Some(asked) => return asked,
                None => self.asked.notified().await,
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Asked>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Points that the source was told to name and that are not yet known to be stored, oldest first.
#[derive(Debug, Default)]
pub(super) struct Naming(VecDeque<(Asked, Offset)>);

impl Naming {
    /// The source was told, when so much of its log was `received`: a point of that name before there is another's.
    pub(super) fn told(&mut self, asked: Asked, received: Offset) {
        self.0.push_back((asked, received));
    }

    /// The stream that was told is over: nobody knows what became of them.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// A point is stored.
    pub(super) fn stored(&mut self, point: &PointFact, at: Position) {
        let is_it = |(asked, received): &(Asked, Offset)| asked.name == point.name && point.end > *received;
        let Some(asked) = self.0.iter().position(is_it) else { return };
        let (Some((asked, _)), Some(time)) =
            (self.0.remove(asked), DateTime::from_timestamp_micros(point.time_micros))
        else {
            return;
        };
        // Whoever asked may have gone.
        let _ = asked.by.send(Named { at, time });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_journal::Timeline;

    fn stored(naming: &mut Naming, name: &str, offset: u64) {
        let end = Offset::new(offset);
        let point = PointFact { end, time_micros: 7, name: name.to_owned() };
        naming.stored(&point, Position::new(Timeline::new(1), end));
    }

    #[tokio::test]
    async fn who_asked_hears_of_its_own_point_and_only_once_it_is_stored() {
        let (points, mut naming) = (Points::default(), Naming::default());
        let (mut first, gone, mut second) =
            (points.ask("a".to_owned()), points.ask("gone".to_owned()), points.ask("b".to_owned()));
        drop(gone);
        naming.told(points.next().await, Offset::new(10));
        naming.told(points.next().await, Offset::new(12));
        assert!(first.try_recv().is_err() && second.try_recv().is_err());
        stored(&mut naming, "by-another", 13);
        stored(&mut naming, "b", 12);
        assert!(second.try_recv().is_err(), "one of before it was asked for");
        stored(&mut naming, "b", 20);
        assert_eq!(second.await.unwrap().at.offset.get(), 20);
        assert!(first.try_recv().is_err());
        naming.forget();
        assert!(first.await.is_err(), "the stream broke");
    }
}
