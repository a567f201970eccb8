//! One table on both sides: digests by ranges of blocks, narrowed to rows where they differ.
//!
//! What always holds: a table is `equal` when every range of it was digested on both sides and is alike; whatever keeps one of them from an answer makes it `not compared`.

use std::time::{Duration, Instant};

use farshore_applier::compare::narrow;
use farshore_catalog::compare::Verdict;
use farshore_engines::postgres::sql::Session;
use farshore_engines::postgres::sql::compare::{Seeds, Table};
use farshore_engines::postgres::wire::Error;
use tokio_util::sync::CancellationToken;

use super::outcome::{Named, TableCame};
use super::sides::{Sides, said};

/// Blocks that are digested by one question.
const STEP: u64 = 1024;
/// A block, as it is when nobody built PostgreSQL otherwise: for the throttle.
const BLOCK: u64 = 8192;
/// Blocks of a table whose rows are looked at, and rows that are named.
const MOST_BLOCKS: usize = 1000;
const MOST_NAMED: usize = 100;

/// How fast both sides may be read, together with what has been.
#[derive(Debug)]
pub struct Throttle {
    rate: Option<u64>,
    owed: Duration,
    since: Instant,
}

impl Throttle {
    /// So many bytes a second; as fast as it goes without.
    pub fn new(rate: Option<u64>) -> Self {
        Self { rate, owed: Duration::ZERO, since: Instant::now() }
    }

    /// How long to wait after so much was read: the time that it may take, less what it took.
    fn wait(&mut self, bytes: u64, now: Instant) -> Duration {
        let Some(rate) = self.rate.filter(|rate| *rate > 0) else { return Duration::ZERO };
        let took = now.saturating_duration_since(self.since);
        self.since = now;
        let micros = u128::from(bytes) * 1_000_000 / u128::from(rate);
        self.owed =
            self.owed.saturating_sub(took) + Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        self.owed
    }
}

/// What is asked of it.
pub struct Wanted<'a> {
    /// What begins the hashes.
    pub seeds: Seeds,
    /// Whether keys are named.
    pub keys: bool,
    /// Cancelled when it is to end.
    pub stop: &'a CancellationToken,
}

/// Compares one; `None` when it was stopped.
///
/// # Errors
/// When a side does not answer at all any more.
pub async fn compared(
    sides: &Sides,
    table: &Table,
    wanted: &Wanted<'_>,
    throttle: &mut Throttle,
) -> Result<Option<TableCame>, Error> {
    if let Some(reason) = &table.hindrance {
        return Ok(Some(TableCame::not(table.shown(), reason)));
    }
    let came = read(sides, table, wanted, throttle).await;
    let (primary, standby) =
        tokio::join!(sides.primary.compare_end_table(), sides.standby.compare_end_table());
    primary?;
    standby?;
    Ok(match came {
        Ok(came) => came,
        Err((side, why)) => Some(TableCame::not(table.shown(), reason(side, &why))),
    })
}

fn reason(side: &str, why: &Error) -> String {
    match why.code() {
        Some("55P03") => format!("somebody has it locked on the {side}"),
        Some("57014") => format!("a question took too long on the {side}"),
        Some("42501") => {
            format!("row-level security or a right keeps the role from all of its rows on the {side}")
        }
        Some(code @ ("XX001" | "XX002")) => {
            format!("the {side} cannot read it: it is damaged there (SQLSTATE {code})")
        }
        _ => format!("on the {side}: {}", said(why)),
    }
}

type Failed = (&'static str, Error);

/// Asks both sides at once.
macro_rules! both {
    ($sides:expr, $ask:expr) => {{
        let ask = $ask;
        let (primary, standby) = tokio::join!(ask(&$sides.primary), ask(&$sides.standby));
        (primary.map_err(|why| ("primary", why))?, standby.map_err(|why| ("standby", why))?)
    }};
}

async fn read(
    sides: &Sides,
    table: &Table,
    wanted: &Wanted<'_>,
    throttle: &mut Throttle,
) -> Result<Option<TableCame>, Failed> {
    let seeds = wanted.seeds;
    let held = both!(sides, async |side: &Session| side.compare_begin_table(table).await);
    let (Some(blocks), Some(others)) = held else {
        return Ok(Some(TableCame::not(table.shown(), "it was renamed, truncated or rewritten meanwhile")));
    };
    let mut came = TableCame::of(table.shown(), Verdict::Equal, None);
    let mut looked_at = 0;
    for range in narrow::ranges(blocks.max(others), STEP) {
        if wanted.stop.is_cancelled() {
            return Ok(None);
        }
        let (primary, standby) =
            both!(sides, async |side: &Session| side.compare_digest(table, range, seeds).await);
        came.rows = came.rows.saturating_add(primary.rows);
        came.bytes = came.bytes.saturating_add(primary.bytes);
        if primary != standby {
            came.verdict = Verdict::Different;
            let (primary, standby) =
                both!(sides, async |side: &Session| side.compare_digest_blocks(table, range, seeds).await);
            for block in narrow::blocks(&primary, &standby) {
                if looked_at == MOST_BLOCKS {
                    came.more = true;
                    break;
                }
                looked_at += 1;
                rows(sides, table, wanted, block, &mut came).await?;
            }
        }
        let read = range.1.unwrap_or(blocks.max(others)).saturating_sub(range.0).saturating_mul(BLOCK);
        let wait = throttle.wait(read.max(primary.bytes), Instant::now());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = wanted.stop.cancelled() => return Ok(None),
        }
    }
    let still = both!(sides, async |side: &Session| side.compare_is_table(table).await);
    match still {
        (true, true) => Ok(Some(came)),
        _ => Ok(Some(TableCame::not(table.shown(), "it was renamed, truncated or rewritten meanwhile"))),
    }
}

/// Names the rows of a block that differ.
async fn rows(
    sides: &Sides,
    table: &Table,
    wanted: &Wanted<'_>,
    block: u64,
    came: &mut TableCame,
) -> Result<(), Failed> {
    let seeds = wanted.seeds;
    let (primary, standby) =
        both!(sides, async |side: &Session| side.compare_digest_rows(table, block, seeds).await);
    for row in narrow::rows(&primary, &standby) {
        came.differences = came.differences.saturating_add(1);
        if came.named.len() >= MOST_NAMED {
            continue;
        }
        let key = match (wanted.keys, row.kind) {
            (false, _) => None,
            (true, narrow::Kind::Extra) => {
                sides.standby.compare_key(table, &row.at).await.map_err(|why| ("standby", why))?
            }
            (true, _) => sides.primary.compare_key(table, &row.at).await.map_err(|why| ("primary", why))?,
        };
        came.named.push(Named { kind: row.kind, at: row.at, key });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_takes_as_long_as_its_rate_says_and_not_longer() {
        let mut throttle = Throttle::new(Some(1_000_000));
        let began = throttle.since;
        let at = |millis| began + Duration::from_millis(millis);
        assert_eq!(throttle.wait(1_000_000, at(400)), Duration::from_secs(1));
        // It waited, and read for 200 ms.
        assert_eq!(throttle.wait(500_000, at(1600)), Duration::from_millis(500));
        assert_eq!(throttle.wait(500_000, at(9000)), Duration::from_millis(500));
        assert_eq!(Throttle::new(None).wait(1 << 40, began), Duration::ZERO);
    }
}
