//! A restore as a command takes it and as a job keeps it: each of the other.
//!
//! What always holds: what is read back from a job means what was written; a word that means nothing here is refused, never guessed.

use farshore_catalog::job::spec;

use super::Planned;
use crate::cli::History;
use crate::cli::restore::{LogPoint, Target, Then};
use crate::cli::time::Moment;

/// A target, as a job keeps it.
pub(crate) fn kept(target: &Target) -> spec::Target {
    match target {
        Target::Latest => spec::Target::Latest,
        Target::At(moment) => spec::Target::At(moment.utc()),
        Target::Pos(LogPoint::On(position)) => spec::Target::Pos(position.to_string()),
        Target::Pos(LogPoint::Anywhere(offset)) => spec::Target::Pos(offset.to_string()),
        Target::Xid(xid) => spec::Target::Xid(*xid),
        Target::Point(name) => spec::Target::Point(name.clone()),
    }
}

/// A target that a job keeps.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn target(kept: &spec::Target) -> Result<Target, String> {
    Ok(match kept {
        spec::Target::Latest => Target::Latest,
        spec::Target::At(time) => Target::At(Moment::of(*time)),
        spec::Target::Pos(text) => Target::Pos(text.parse()?),
        spec::Target::Xid(xid) => Target::Xid(*xid),
        spec::Target::Point(name) => Target::Point(name.clone()),
    })
}

/// A history, as a job keeps it.
pub(crate) fn kept_history(history: &History) -> spec::History {
    spec::History {
        store: history.store.as_ref().map(ToString::to_string),
        incarnation: history.incarnation.as_ref().map(ToString::to_string),
    }
}

/// A history that a job keeps.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn history(kept: &spec::History) -> Result<History, String> {
    Ok(History {
        store: kept.store.as_deref().map(str::parse).transpose()?,
        incarnation: kept.incarnation.as_deref().map(str::parse).transpose()?,
    })
}

/// What a restored server does, as a job keeps it.
pub(crate) const fn kept_then(then: Then) -> spec::Then {
    match then {
        Then::Pause => spec::Then::Pause,
        Then::Promote => spec::Then::Promote,
        Then::Shutdown => spec::Then::Shutdown,
    }
}

/// What a restored server does that a job keeps.
pub(crate) const fn then(kept: spec::Then) -> Then {
    match kept {
        spec::Then::Pause => Then::Pause,
        spec::Then::Promote => Then::Promote,
        spec::Then::Shutdown => Then::Shutdown,
    }
}

/// What a target led to.
pub(crate) fn resolved(planned: &Planned) -> spec::Resolved {
    let resolved = &planned.plan.resolved;
    spec::Resolved {
        position: farshore_journal::Position::new(resolved.timeline, resolved.position).to_string(),
        store: planned.store.clone(),
        incarnation: planned.source.record().number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_keeps_reads_back_as_what_was_asked_for() {
        let moment: chrono::DateTime<chrono::Utc> = "2026-03-29T14:05:00Z".parse().unwrap();
        let all = [
            Target::Latest,
            Target::At(Moment::of(moment)),
            Target::Pos("4:5F/3AA7B9A0".parse().unwrap()),
            Target::Pos("5F/3AA7B9A0".parse().unwrap()),
            Target::Xid(u64::MAX),
            Target::Point("before release".to_owned()),
        ];
        for asked in all {
            let text = serde_json::to_string(&kept(&asked)).unwrap();
            let back: spec::Target = serde_json::from_str(&text).unwrap();
            assert_eq!(target(&back).unwrap(), asked, "{text}");
        }
        assert!(target(&spec::Target::Pos("here".to_owned())).is_err());
        for asked in [Then::Pause, Then::Promote, Then::Shutdown] {
            assert_eq!(then(kept_then(asked)), asked);
        }
        let asked = History { store: Some("main".parse().unwrap()), incarnation: Some("3".parse().unwrap()) };
        assert_eq!(history(&kept_history(&asked)).unwrap(), asked);
    }
}
