//! Notices that nothing of a base backup moves any more.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use farshore_shipper::base_backup::Phase;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);

/// When something of a backup moved last.
pub(super) struct Watched {
    after: Duration,
    last: Mutex<(Option<Phase>, Instant)>,
}

impl Watched {
    /// One that has just begun, and may stand still for `after`.
    pub fn new(after: Duration) -> Self {
        Self { after, last: Mutex::new((None, Instant::now())) }
    }

    /// Something moved.
    pub fn moved(&self, phase: Phase) {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *last = (Some(phase), Instant::now());
    }

    /// Resolves when nothing moved for too long.
    pub async fn stuck(&self) {
        loop {
            tokio::time::sleep(LOOK.min(self.after)).await;
            let (phase, since) = *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if bound(phase, self.after).is_some_and(|bound| since.elapsed() > bound) {
                return;
            }
        }
    }
}

/// How long a phase may stand still. A server's checkpoint shows no progress, and the connection bounds it; the wait for the
/// log has a bound of its own, which the journal's progress moves on.
fn bound(phase: Option<Phase>, after: Duration) -> Option<Duration> {
    match phase {
        None | Some(Phase::Copying | Phase::Storing | Phase::Claiming) => Some(after),
        Some(Phase::Checkpoint | Phase::WaitingForLog(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_moves_is_not_stuck_and_what_stands_still_is() {
        let watched = Watched::new(Duration::from_millis(300));
        let moves = async {
            for _ in 0..20 {
                watched.moved(Phase::Copying);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = moves => {}
            () = watched.stuck() => panic!("it moved"),
        }
        watched.stuck().await;
        watched.moved(Phase::Checkpoint);
        let waited = tokio::time::timeout(Duration::from_secs(1), watched.stuck()).await;
        assert!(waited.is_err(), "a checkpoint shows no progress");
    }
}
