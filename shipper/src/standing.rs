//! How a database stands, from how its targets stand: what may be said of it as a whole.
//!
//! What always holds: *stored* is what as many targets have as `durable` asks for, and the state is that of the worst target among
//! the best so many; a target that stopped for good is never hidden behind a healthy one, since it stops the others.

use chrono::{DateTime, Utc};
use farshore_journal::{Offset, Position};

use crate::progress::{PipelineState, Progress};
use crate::retention;

/// A database's shipping as a whole. `None` is "not known".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    /// Where it stands.
    pub state: PipelineState,
    /// The end of what this process has.
    pub received: Option<Position>,
    /// What the required targets confirmed.
    pub stored: Option<Position>,
    /// The least that a primary was told is flushed.
    pub reported: Option<Offset>,
    /// The end of the source's log when it was last heard.
    pub source_end: Option<Offset>,
    /// When it was last heard.
    pub last_contact: Option<DateTime<Utc>>,
    /// The newest commit that the required targets have.
    pub last_stored_commit: Option<DateTime<Utc>>,
    /// The oldest commit received that they do not have.
    pub oldest_unstored_commit: Option<DateTime<Utc>>,
}

/// Folds the targets into one; `required` of them must have a position for it to count as stored.
pub fn standing(targets: &[Progress], required: usize) -> Standing {
    let positions: Vec<Option<Position>> = targets.iter().map(|target| target.stored).collect();
    let stored = retention::stored(&positions, required);
    // The target that decides what is stored decides too what is not.
    let deciding = stored.and_then(|stored| targets.iter().find(|target| target.stored == Some(stored)));
    let newest = targets.iter().filter_map(|target| target.received).map(|p| p.timeline).max();
    let received = targets.iter().filter_map(|target| target.received);
    Standing {
        state: state(targets, required),
        received: received.filter(|p| Some(p.timeline) == newest).max_by_key(|p| p.offset),
        stored,
        reported: targets.iter().filter_map(|target| target.reported).min(),
        source_end: targets.iter().filter_map(|target| target.source_end).max(),
        last_contact: targets.iter().filter_map(|target| target.last_contact).max(),
        last_stored_commit: deciding.and_then(|target| target.last_stored_commit),
        oldest_unstored_commit: deciding.and_then(|target| target.oldest_unstored_commit),
    }
}

fn state(targets: &[Progress], required: usize) -> PipelineState {
    let mut states: Vec<PipelineState> = targets.iter().map(|target| target.state).collect();
    states.sort_by_key(|state| rank(*state));
    match states.last() {
        Some(ended @ (PipelineState::Fenced | PipelineState::Failed)) => *ended,
        _ => required.checked_sub(1).and_then(|at| states.get(at)).copied().unwrap_or_default(),
    }
}

/// From best to worst.
fn rank(state: PipelineState) -> u8 {
    match state {
        PipelineState::Connected => 0,
        PipelineState::Setup => 1,
        PipelineState::Accumulating => 2,
        PipelineState::Bypass => 3,
        PipelineState::Degraded => 4,
        PipelineState::Fenced => 5,
        PipelineState::Failed => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_journal::Timeline;

    fn target(state: PipelineState, stored: u64, oldest: i64) -> Progress {
        let at = |offset| Some(Position::new(Timeline::new(1), Offset::new(offset)));
        Progress {
            state,
            stored: at(stored),
            received: at(stored + 5),
            source_end: Some(Offset::new(100)),
            oldest_unstored_commit: DateTime::from_timestamp(oldest, 0),
            ..Progress::default()
        }
    }

    #[test]
    fn stored_state_and_age_are_those_of_the_required_targets() {
        let targets = [target(PipelineState::Connected, 90, 9), target(PipelineState::Accumulating, 40, 4)];
        let any = standing(&targets, 1);
        assert_eq!((any.state, any.stored.unwrap().offset.get()), (PipelineState::Connected, 90));
        assert_eq!(any.oldest_unstored_commit, DateTime::from_timestamp(9, 0));
        let all = standing(&targets, 2);
        assert_eq!((all.state, all.stored.unwrap().offset.get()), (PipelineState::Accumulating, 40));
        assert_eq!(all.oldest_unstored_commit, DateTime::from_timestamp(4, 0));
        assert_eq!(all.received.unwrap().offset.get(), 95);
    }

    #[test]
    fn a_target_that_stopped_for_good_is_not_hidden_and_an_unknown_one_is_not_stored() {
        let mut targets = vec![target(PipelineState::Connected, 90, 9), target(PipelineState::Fenced, 90, 9)];
        assert_eq!(standing(&targets, 1).state, PipelineState::Fenced);
        targets[1] = Progress::default();
        let all = standing(&targets, 2);
        assert_eq!((all.stored, all.oldest_unstored_commit), (None, None));
        assert_eq!(standing(&[], 1).state, PipelineState::Setup);
    }
}
