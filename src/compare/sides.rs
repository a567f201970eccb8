//! The two sides of a comparison, each with a transaction that sees the same.
//!
//! What always holds: the two snapshots that are given out see the same commits, as `docs/adr/2026-11-28-compare.md` argues; whatever is in doubt is another try, and after the last one a reason.

use std::time::{Duration, Instant};

use farshore_applier::compare::cut::{Cut, Stand};
use farshore_applier::compare::{CutError, Found, find_cut};
use farshore_applier::source::Source;
use farshore_engines::postgres::sql::Session;
use farshore_engines::postgres::sql::compare::Snapshot;
use farshore_engines::postgres::wire::{ConnectParams, Error};
use farshore_journal::{Offset, Position, Timeline};

use super::holding::Holding;
use crate::message::OperatorMessage;

/// Snapshots that are taken until one has a cut.
const TRIES: u32 = 40;
/// How long the journal may take to hold what the primary has made: an idle one flushes within a quarter of a minute.
const SHIPPED: Duration = Duration::from_secs(60);
/// How long a standby may take to replay what it is sent at a cut.
const REPLAYED: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
/// How long a statement may take: digests of a range, of which there are many.
const STATEMENT: Duration = Duration::from_secs(600);
/// Numbers of transactions that a standby is asked for.
const MOST_ASKED: usize = 100_000;

/// Why a database of the cluster was not compared.
#[derive(Debug)]
pub enum Not {
    /// For this reason.
    Compared(String),
    /// Nor is any other: nobody holds the standby.
    Held(OperatorMessage),
}

impl From<Error> for Not {
    fn from(why: Error) -> Self {
        Self::Compared(said(&why))
    }
}

/// What a server said, without what it may have said of values.
pub fn said(why: &Error) -> String {
    match why.code() {
        Some(code) => format!("the server refused it with SQLSTATE {code}"),
        None => why.to_string(),
    }
}

/// Both sides.
pub struct Sides {
    /// The one that takes writes.
    pub primary: Session,
    /// The one that follows.
    pub standby: Session,
    /// Where both are.
    pub at: Position,
    /// How many snapshots were taken.
    pub snapshots: u32,
    /// Since when the primary's is open.
    pub open: Instant,
}

/// Where both are asked.
pub struct Ways<'a> {
    /// The primary.
    pub primary: &'a ConnectParams,
    /// The standby.
    pub standby: &'a ConnectParams,
    /// What it is called by whoever serves and holds it.
    pub called: &'a str,
    /// The journal that the standby follows.
    pub source: &'a Source,
    /// Its timeline.
    pub timeline: Timeline,
}

/// Connects to the first host that is what is wanted.
///
/// # Errors
/// When none is.
pub async fn connect(params: &ConnectParams, database: &str, in_recovery: bool) -> Result<Session, String> {
    let params = params.clone().with_database(database);
    let mut timeouts = params.timeouts();
    timeouts.answer = STATEMENT;
    let params = params.with_timeouts(timeouts);
    let mut why = "no host is named".to_owned();
    for host in params.hosts() {
        let session = match Session::connect(&params, host).await {
            Ok(session) => session,
            Err(error) => {
                why = error.to_string();
                continue;
            }
        };
        match session.in_recovery().await {
            Ok(found) if found == in_recovery => return Ok(session),
            Ok(true) => why = format!("{host} is a standby"),
            Ok(false) => why = format!("{host} is no standby: it takes writes"),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

/// Brings both sides of a database to one cut. The standby was sent log up to `sent` by now.
///
/// # Errors
/// When that cannot be done, with the reason.
pub async fn open(
    ways: &Ways<'_>,
    database: &str,
    holding: &mut Holding,
    sent: Offset,
) -> Result<Sides, Not> {
    let side = |which: &'static str| move |why: String| Not::Compared(format!("the {which}: {why}"));
    let primary = connect(ways.primary, database, false).await.map_err(side("primary"))?;
    let standby = connect(ways.standby, database, true).await.map_err(side("standby"))?;
    is_held(&standby, ways.called).await?;
    near(&standby, sent).await?;
    let mut last = String::new();
    for snapshots in 1..=TRIES {
        primary.compare_open(STATEMENT).await?;
        let open = Instant::now();
        match tried(ways, (&primary, &standby), holding, sent).await? {
            Ok(at) => {
                let at = Position::new(ways.timeline, at);
                return Ok(Sides { primary, standby, at, snapshots, open });
            }
            Err(why) => last = why,
        }
        primary.compare_close().await?;
        standby.compare_close().await?;
    }
    Err(Not::Compared(format!(
        "none of {TRIES} snapshots of the primary had a cut in the log that the standby could stand at; of the last: {last}"
    )))
}

/// That the server at the standby's address is the one that is held: every standby of the cluster looks like it.
async fn is_held(standby: &Session, called: &str) -> Result<(), Not> {
    match standby.follows_as().await? {
        Some(found) if found == called => Ok(()),
        Some(found) => Err(Not::Compared(format!(
            "the server at the standby's address follows as {found}, and not as {called}: correct its address in the configuration"
        ))),
        None => Err(Not::Compared(
            "the server at the standby's address does not say that it follows: it receives no log now, or the role lacks pg_monitor there".to_owned(),
        )),
    }
}

/// One try; why it was none, where another may be one.
async fn tried(
    ways: &Ways<'_>,
    (primary, standby): (&Session, &Session),
    holding: &mut Holding,
    sent: Offset,
) -> Result<Result<Offset, String>, Not> {
    let snapshot = primary.compare_snapshot().await?;
    let made = primary.log_made().await?;
    if primary.written_timeline().await? != Some(ways.timeline) {
        return Err(Not::Compared(format!(
            "the primary does not write timeline {} any more: it was promoted, or another took its place",
            ways.timeline
        )));
    }
    let cut = match cut(ways, (sent, made), &snapshot).await? {
        Ok(cut) => cut,
        Err(why) => return Ok(Err(why)),
    };
    if cut.ceiling() > sent {
        holding.raise(cut.ceiling()).await.map_err(Not::Held)?;
    }
    let Some(before) = stands(standby, cut).await? else {
        return Ok(Err("the standby has replayed more already".to_owned()));
    };
    standby.compare_open(STATEMENT).await?;
    let seen = standby.compare_standby_snapshot().await?;
    let Some(after) = seen.replayed.filter(|after| cut.stand(*after) == Stand::Within) else {
        return Ok(Err("the standby did not stay where it was held".to_owned()));
    };
    // Whatever has committed there is below its `xmax`; it is asked for nothing that it cannot know.
    let Some(unseen) = snapshot.unseen(seen.snapshot.xmax(), MOST_ASKED) else {
        return Ok(Err("too many transactions run".to_owned()));
    };
    if !standby.committed_of(&unseen).await?.is_empty() {
        return Ok(Err(
            "a commit that the primary does not show yet lies before where the standby is".to_owned()
        ));
    }
    tracing::debug!(%before, %after, begin = %cut.begin, end = %cut.end, "both sides are at one cut");
    Ok(Ok(after))
}

/// The cut of a snapshot, once the journal holds all log that it may lie in.
async fn cut(
    ways: &Ways<'_>,
    range: (Offset, Offset),
    snapshot: &Snapshot,
) -> Result<Result<Cut, String>, Not> {
    let began = Instant::now();
    loop {
        match find_cut(ways.source, ways.timeline, range, snapshot).await {
            Ok(Found::Cut(cut)) => return Ok(Ok(cut)),
            Ok(Found::Mixed(mixed)) => {
                let why = format!(
                    "it sees the commit at {} and not the one at {}, before it",
                    mixed.seen, mixed.unseen
                );
                return Ok(Err(why));
            }
            Ok(Found::NotYet) if began.elapsed() < SHIPPED => tokio::time::sleep(LOOK).await,
            Ok(Found::NotYet) => {
                let why = format!(
                    "the journal did not hold the primary's log up to {} within {} seconds",
                    range.1,
                    SHIPPED.as_secs()
                );
                return Err(Not::Compared(why));
            }
            Err(why @ CutError::Journal(_)) if began.elapsed() < SHIPPED => {
                tracing::debug!(error = %why, "the journal cannot be read now");
                tokio::time::sleep(LOOK * 10).await;
            }
            Err(why) => {
                return Err(Not::Compared(format!("the journal: {}", crate::message::with_causes(&why))));
            }
        }
    }
}

/// Waits until the standby has replayed about all that it was sent: nobody's snapshot is open for that.
async fn near(standby: &Session, sent: Offset) -> Result<(), Not> {
    const NEAR: u64 = 1 << 20;
    let (mut last, mut moved) = (None, Instant::now());
    loop {
        let replayed = standby.replayed().await?;
        if replayed.is_some_and(|replayed| replayed.get().saturating_add(NEAR) >= sent.get()) {
            return Ok(());
        }
        if replayed != last {
            (last, moved) = (replayed, Instant::now());
        }
        if moved.elapsed() > REPLAYED {
            let at = replayed.map_or_else(|| "nowhere".to_owned(), |at| at.to_string());
            return Err(Not::Compared(format!(
                "the standby stands at {at} and does not replay what it was sent, up to {sent}: is its replay paused?"
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the standby stands at the cut; `None` where it has replayed more.
async fn stands(standby: &Session, cut: Cut) -> Result<Option<Offset>, Not> {
    let began = Instant::now();
    loop {
        if let Some(replayed) = standby.replayed().await? {
            match cut.stand(replayed) {
                Stand::Within => return Ok(Some(replayed)),
                Stand::Behind => return Ok(None),
                Stand::Before => {}
            }
        }
        if began.elapsed() > REPLAYED {
            return Err(Not::Compared(format!(
                "the standby did not replay up to {} within {} seconds",
                cut.begin,
                REPLAYED.as_secs()
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}
