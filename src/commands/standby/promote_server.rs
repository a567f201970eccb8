//! `farshore standby promote` of a standby that a PostgreSQL server keeps.
//!
//! What always holds: the server is told only once it received and replayed all that its incarnation's journal holds, asked before and behind the wait; or `--as-it-is` said that it need not. A store
//! that cannot be asked is not taken for one that holds no more. It is called promoted once it says itself that it recovers no more, and its new timeline's history says where it left the former.
//!
//! ```text
//! journal's end ─▶ received and replayed (waited for) ─▶ journal's end anew, the same ─▶ pg_promote ─▶ proof ─▶ primary_conninfo taken out
//! ```
//! A cut between the last two leaves a database of its own that still names whom it followed: PostgreSQL does not ask that of a primary. A paused replay is let go once all was received, or no more is. PostgreSQL
//! lets it go by itself too, and replays all that was received before it opens (`recoveryPausesHere`, `CheckForStandbyTrigger` in `xlogrecovery.c`): no promotion ends where a pause stands.

use std::path::Path;
use std::time::Duration;

use farshore_applier::plan::{Asked, resolve};
use farshore_applier::source::Source;
use farshore_engines::postgres::log::history::TimelineHistory;
use farshore_engines::postgres::sql::Pause;
use farshore_engines::postgres::standby::{Known, Stands, Step, Waited, stands, step};
use farshore_journal::{Offset, Position, Timeline};
use serde::Serialize;
use tokio::time::Instant;

use super::place::Standby;
use super::server::Server;
use super::told_server::{behind, not_promoted, unasked, unproved};
use super::{Journals, journals};
use crate::cli::restore::Target;
use crate::cli::standby::StandbyPromoteArgs;
use crate::commands::restore::hold_against_heads;
use crate::commands::{self, Context};
use crate::config::StoreConfig;
use crate::exit::Exit;

/// Between two looks at the server.
const LOOK: Duration = Duration::from_millis(100);
/// How long nothing may move before no more is expected: longer than the 5 s after which a standby asks its upstream again (`wal_retrieve_retry_interval`).
const STILL: Duration = Duration::from_secs(7);
/// How often the journal's end may have moved on by the time that the standby has reached it.
const ROUNDS: u32 = 3;
/// How long the journal's end must stand beyond the time that a shipper waits for more before it stores what it has.
const SETTLED: Duration = Duration::from_secs(2);
/// What a statement may take longer than the server was given for it.
const SPARE: Duration = Duration::from_secs(15);

#[derive(Serialize)]
struct Shown {
    directory: std::path::PathBuf,
    database: String,
    /// The timeline that it writes.
    timeline: Timeline,
    /// Where it left the timeline that it followed.
    left: String,
    /// Whether all that the store holds is in it; none where the store was not asked.
    reaches_the_end: Option<bool>,
    /// Whether it follows nobody any more, whatever is done to it.
    follows_nobody: bool,
}

/// What is promoted, and on whose word.
enum Word {
    /// It has all up to here.
    All(Position),
    /// The operator's.
    AsItIs,
}

/// Runs it.
pub(super) async fn run(
    context: &mut Context,
    args: &StandbyPromoteArgs,
    standby: &Standby,
) -> anyhow::Result<Exit> {
    let wait = args.wait.get();
    let mut server = Server::ask(standby, args.server.user.as_deref(), wait + SPARE).await?;
    let word = match args.as_it_is {
        true => Word::AsItIs,
        false => match Box::pin(reached(context, &mut server, wait)).await? {
            Some(end) => Word::All(end),
            None => return Ok(Exit::Interrupted),
        },
    };
    let (timeline, left) = promoted(&mut server, wait).await?;
    let follows_nobody = follows_nobody(&server).await;
    show(context, standby, &word, (timeline, left), follows_nobody)
}

/// Waits until the standby has replayed all that the journal holds; `None` when the run was asked to end meanwhile.
async fn reached(
    context: &Context,
    server: &mut Server<'_>,
    wait: Duration,
) -> anyhow::Result<Option<Position>> {
    let standby = server.standby;
    // For what is said where the store cannot be asked.
    let received = server.received().await?;
    let (mut source, flush) =
        Box::pin(asked(context, standby)).await.map_err(|why| unasked(standby, received, &why))?;
    let until = Instant::now() + wait;
    let (mut whole, mut resumed) = (None, false);
    for _ in 0..ROUNDS {
        let end = end(&source).await.map_err(|why| unasked(standby, received, &why))?;
        let Some(known) = waited(context, server, &source, (end, &mut whole, &mut resumed), until).await?
        else {
            return Ok(None);
        };
        tokio::select! {
            () = context.cancel.cancelled() => return Ok(None),
            () = tokio::time::sleep(flush + SETTLED) => {}
        }
        // Anew: a journal whose end stands still may have been followed by another.
        (source, _) =
            Box::pin(asked(context, standby)).await.map_err(|why| unasked(standby, received, &why))?;
        let now = self::end(&source).await.map_err(|why| unasked(standby, received, &why))?;
        match (now == end, stands(&known)) {
            (true, Stands::Done) => return Ok(Some(end)),
            (true, _) => return Err(behind(standby, &known, resumed).into()),
            // What it has more may have come to the journal since.
            (false, _) => whole = None,
        }
    }
    Err(super::told_server::grows(standby).into())
}

/// Looks until nothing more is to be waited for; how it then stands.
async fn waited(
    context: &Context,
    server: &mut Server<'_>,
    source: &Source,
    (journal, whole, resumed): (Position, &mut Option<Position>, &mut bool),
    until: Instant,
) -> anyhow::Result<Option<Known>> {
    let mut moved = (None, Instant::now());
    let mut asked = false;
    loop {
        let recovery = server.recovery().await?;
        if !recovery.in_recovery {
            return Err(super::place::of_its_own(
                &server.standby.directory,
                server.standby.database.as_str(),
            )
            .into());
        }
        let received = server.received().await?;
        let replayed = recovery.replayed.unwrap_or(Offset::new(0));
        if moved.0 != Some((received, replayed)) {
            moved = (Some((received, replayed)), Instant::now());
        }
        let known = Known { received, replayed, journal, whole: *whole };
        // A server that is held takes what comes, and does not connect again once nothing does.
        let gets_no_more =
            matches!(stands(&known), Stands::Behind(_) | Stands::OlderTimeline) && !recovery.streams;
        if recovery.pause != Pause::Not && (stands(&known) == Stands::Replays || gets_no_more) {
            if recovery.has_target {
                return Err(super::told_server::has_target(server.standby).into());
            }
            server.session.replay_resume().await.map_err(|why| server.unanswered(&why))?;
            *resumed = true;
        }
        let waited =
            Waited { still: moved.1.elapsed(), patience: STILL, left: Instant::now() < until, asked };
        match step(&known, waited) {
            Step::Promote | Step::Refuse => return Ok(Some(known)),
            Step::AskWhole => {
                asked = true;
                *whole = last_whole(source).await;
            }
            Step::Wait => tokio::select! {
                () = context.cancel.cancelled() => return Ok(None),
                () = tokio::time::sleep(LOOK) => {}
            },
        }
    }
}

/// Where the last whole record of the journal ends, as a restore of its latest state finds it. It is a question only: where it has no answer the standby is held to what the journal has.
async fn last_whole(source: &Source) -> Option<Position> {
    match Box::pin(resolve(source, Asked::Latest)).await {
        Ok(plan) => Some(Position::new(plan.resolved.timeline, plan.resolved.position)),
        Err(why) => {
            tracing::warn!(error = %why, "where the last whole record of the journal ends is not known: the standby is held to all bytes of it");
            None
        }
    }
}

/// The standby's own journal, held against what is known of its end, where no newer incarnation began; and how long a shipper of this configuration waits before it stores what it has.
async fn asked(context: &Context, standby: &Standby) -> anyhow::Result<(Source, Duration)> {
    let config = context.config()?;
    let (name, settings) = commands::database(&config, Some(&standby.database))?;
    let found = journals(&config, (&standby.database, standby.store, standby.incarnation)).await?;
    if let Some(newer) = found.newer() {
        return Err(super::told_server::anew(standby, &newer).into());
    }
    let Journals { mut all, own, store } = found;
    let source = all.swap_remove(own);
    hold_against_heads(&config, name, settings, &source, store.as_str(), &Target::Latest, true).await?;
    let billing = config.stores.get(&store).map(StoreConfig::billing);
    let flush = billing.map_or(Duration::ZERO, |billing| settings.flush_plan(billing).interval);
    Ok((source, flush))
}

async fn end(source: &Source) -> anyhow::Result<Position> {
    let last = source.reader().last().await?;
    last.map(|last| last.header().end_position()).ok_or_else(|| anyhow::anyhow!("its journal is empty"))
}

/// Promotes it, and asks for the proof: the timeline that it writes, and where that left the one that was followed.
async fn promoted(server: &mut Server<'_>, wait: Duration) -> anyhow::Result<(Timeline, Position)> {
    let standby = server.standby;
    let before = server.received().await?;
    server.leave().await;
    let replayed = server.recovery().await?.replayed.unwrap_or(Offset::new(0));
    let seconds = i32::try_from(wait.as_secs()).unwrap_or(i32::MAX);
    let done = server.session.promote(seconds).await.map_err(|why| server.unanswered(&why))?;
    let timeline = server.session.written_timeline().await.map_err(|why| server.unanswered(&why))?;
    let Some(timeline) = timeline.filter(|_| done) else {
        return Err(not_promoted(standby, seconds, before).into());
    };
    match left_at(&standby.directory, timeline) {
        Ok(left) if goes_on(before.timeline, replayed, left) => Ok((timeline, left)),
        Ok(left) => {
            Err(unproved(standby, timeline, &format!("it left {left}, and stood at {before}")).into())
        }
        Err(why) => Err(unproved(standby, timeline, &why).into()),
    }
}

/// Whether a timeline that left another there goes on from what was replayed. It may have followed to a later one before it opened.
fn goes_on(timeline: Timeline, replayed: Offset, left: Position) -> bool {
    left.timeline > timeline || (left.timeline == timeline && left.offset >= replayed)
}

/// Where a timeline left its parent, by its history file.
fn left_at(directory: &Path, timeline: Timeline) -> Result<Position, String> {
    let path = directory.join(format!("pg_wal/{:08X}.history", timeline.get()));
    let text = std::fs::read(&path).map_err(|why| format!("{}: {why}", path.display()))?;
    let history = TimelineHistory::parse(timeline, &text).map_err(|why| why.to_string())?;
    let last = history.ancestors().last().ok_or("its history names no ancestor")?;
    Ok(Position::new(last.timeline, last.left_at))
}

/// Takes out whom it followed. It is a database of its own whatever comes of this: what is left would count only once somebody made it a standby again.
async fn follows_nobody(server: &Server<'_>) -> bool {
    if let Err(why) = server.session.follow_nobody().await {
        tracing::warn!(error = %why, "primary_conninfo was not taken out of the server's settings: take it out by hand");
        return false;
    }
    // A session reads its settings anew between two statements.
    for _ in 0..50 {
        if server
            .session
            .follows()
            .await
            .is_ok_and(|follows| follows.is_some_and(|conninfo| conninfo.is_empty()))
        {
            return true;
        }
        tokio::time::sleep(LOOK).await;
    }
    tracing::warn!("primary_conninfo stands in one of the server's own files too: take it out by hand");
    false
}

fn show(
    context: &mut Context,
    standby: &Standby,
    word: &Word,
    (timeline, left): (Timeline, Position),
    follows_nobody: bool,
) -> anyhow::Result<Exit> {
    let (place, database) = (standby.directory.display(), &standby.database);
    let holds = match word {
        Word::All(end) => format!("it has all that is stored (up to {end})"),
        Word::AsItIs => {
            "it replayed all that it had received, and whether the store holds more was not asked".to_owned()
        }
    };
    let text = format!(
        "promoted   {place}: it takes writes, on timeline {timeline}, which left {left}; {holds}\n\
         first      stop what ships from the former primary, and see that it takes no more writes: nothing fences it\n\
         second     open what {place}/postgresql.conf and pg_hba.conf still keep closed: addresses, users, replication, memory\n\
         third      let the `url` of {database} name this server and ship from it: `farshore run` goes on with timeline {timeline}, or begins an incarnation where this server does not have the log any more that shows it\n\
         fourth     farshore backup run {database}\n"
    );
    let shown = Shown {
        directory: standby.directory.clone(),
        database: database.to_string(),
        timeline,
        left: left.to_string(),
        reaches_the_end: matches!(word, Word::All(_)).then_some(true),
        follows_nobody,
    };
    context.output.one("farshore.standby-server-promoted/1", &shown, &text)?;
    Ok(if follows_nobody { Exit::Done } else { Exit::Partial })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_is_proved_only_where_it_goes_on_from_all_that_was_replayed() {
        let at = |timeline, offset| Position::new(Timeline::new(timeline), Offset::new(offset));
        for (left, proved) in [
            (at(2, 100), true),
            (at(2, 120), true),
            (at(2, 99), false),
            (at(1, 100), false),
            (at(3, 1), true),
        ] {
            assert_eq!(goes_on(Timeline::new(2), Offset::new(100), left), proved, "{left}");
        }
    }

    #[test]
    fn where_a_timeline_left_its_parent_is_read_from_its_own_history() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pg_wal")).unwrap();
        let history = folder.path().join("pg_wal/0000000B.history");
        std::fs::write(history, "1\t0/3000060\tno recovery target specified\n\n10\t0/5A000028\tmore\n")
            .unwrap();
        let left = left_at(folder.path(), Timeline::new(11)).unwrap();
        assert_eq!(left.to_string(), "10:0/5A000028");
        assert!(left_at(folder.path(), Timeline::new(12)).unwrap_err().contains("0000000C.history"));
    }
}
