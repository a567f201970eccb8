//! The keep slot on every host of the database's: it holds the log until it is released, and after a failover too.
//!
//! One task per host, so that a host that does not answer holds up no other. What always holds: a slot is moved forward only,
//! to what is released on that host's own timeline, and never beyond; a look that failed concludes nothing. On a standby the
//! live slots are moved too: they are left over from when it was the primary, nobody streams by them, and they would fill its disk.
//! A crash leaves slots that keep log; the next start uses them. What it does not do: it never drops a slot that keeps something.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use farshore_engines::postgres::sql::{Session, SlotState};
use farshore_engines::postgres::wire::{ConnectParams, Error, Host, SlotName};
use farshore_journal::{Offset, Position, Timeline};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fill_rate::FillRate;
use crate::progress::Progress;
use crate::recorder::PrimaryFacts;
use crate::retention;
use crate::spool::decide::{held_from, let_go};
use crate::spool::files::SpoolFiles;
use crate::spool::{Run, SpoolState, Spooled};
use crate::waits::{WaitsSeen, WaitsWatch};

/// How often a slot is moved and the primary's log is looked at.
const WATCH: Duration = Duration::from_secs(1);
/// How often a slot is used although nothing moves it: well below any sensible `idle_replication_slot_timeout`.
const TOUCH: Duration = Duration::from_secs(5);
/// How long a spool needs at most to see what the keeper saw, and to say that what it compared counts no more.
const DOUBT: Duration = Duration::from_secs(5);
/// How long it may take to say whether it has a folder of a cluster's.
const FOLDER: Duration = Duration::from_secs(10);

/// Where the keep slot stands on a host that takes writes, and whose host it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotStands {
    /// From where on it keeps the log.
    pub at: Offset,
    /// How far the host's log was flushed.
    pub flushed: Offset,
    /// The cluster.
    pub system_identifier: u64,
    /// Bytes of one of its log segments.
    pub segment_bytes: u64,
}

/// A spool, as the keeper looks at it.
#[derive(Debug, Clone)]
pub struct SpoolSeen {
    /// Its files: a cluster that has some here is ours, whether or not a store says so.
    pub files: SpoolFiles,
    /// How it stands.
    pub told: watch::Receiver<Spooled>,
}

impl SpoolSeen {
    /// What it holds of a timeline; with whether log may be let go on the strength of it.
    fn run(&self, timeline: Timeline) -> (Option<Run>, bool) {
        let told = self.told.borrow();
        (told.run.filter(|run| run.timeline == timeline), told.state == SpoolState::Taking)
    }
}

/// What was last learnt of the keep slot on one host. `None` is "not known".
#[derive(Debug, Clone, Default)]
pub struct HostKept {
    /// Whether the host takes writes, and on which timeline.
    pub primary: Option<Timeline>,
    /// From where on the log is kept, by the slot and by what the spool holds before it.
    pub kept_from: Option<Offset>,
    /// Where the slot itself stands, on a primary.
    pub stands: Option<SlotStands>,
    /// What is released there.
    pub released: Option<Position>,
    /// Bytes of log that the host keeps.
    pub retained_bytes: Option<u64>,
    /// Seconds until the disk of its log is full at the present rate.
    pub seconds_to_full: Option<u64>,
    /// Why the slot keeps nothing, or less than it should.
    pub trouble: Option<String>,
    /// Whether its commits wait, where they are to.
    pub waits: Option<WaitsSeen>,
}

/// Free bytes beside the log of the server with this data directory and system identifier, when its files are on this machine.
pub type FreeBytes = Arc<dyn Fn(&str, u64) -> Option<u64> + Send + Sync>;

/// The slot on each host, as the pipelines look at it.
pub type Kept = Vec<(Host, watch::Receiver<HostKept>)>;

/// What is kept where.
#[derive(Clone)]
pub struct Keeper {
    /// How the hosts are reached.
    pub params: ConnectParams,
    /// The slot that keeps.
    pub keep: SlotName,
    /// The targets' slots.
    pub live: Vec<SlotName>,
    /// How far the targets are.
    pub targets: Vec<watch::Receiver<Progress>>,
    /// Looks for free space.
    pub free: FreeBytes,
    /// Looks whether commits wait, where nobody else does.
    pub waits: Option<WaitsWatch>,
    /// The spool, where there is one.
    pub spool: Option<SpoolSeen>,
}

impl Keeper {
    /// Keeps until cancelled: `told`, one for each host in the order of the URL, get what is learnt there, `facts` what is
    /// learnt of the primary.
    pub async fn run(
        self,
        told: Vec<watch::Sender<HostKept>>,
        facts: watch::Sender<PrimaryFacts>,
        cancel: CancellationToken,
    ) {
        let mut heard: Vec<_> = told.iter().map(watch::Sender::subscribe).collect();
        let mut hosts = JoinSet::new();
        for (host, told) in self.params.hosts().iter().zip(told) {
            hosts.spawn(self.clone().keep_on(host.clone(), told, cancel.clone()));
        }
        facts.send_modify(|facts| facts.slot_awaited = true);
        loop {
            let of_hosts: Vec<HostKept> =
                heard.iter_mut().map(|heard| heard.borrow_and_update().clone()).collect();
            let before = facts.borrow().clone();
            facts.send_replace(of_primary(&of_hosts, before));
            tokio::select! {
                () = cancel.cancelled() => break,
                () = any_changed(&mut heard) => {}
            }
        }
        while hosts.join_next().await.is_some() {}
    }

    async fn keep_on(self, host: Host, told: watch::Sender<HostKept>, cancel: CancellationToken) {
        let mut session: Option<Session> = None;
        let mut place = Place { waits: self.waits.clone(), ..Place::default() };
        // The slot is made as soon as it is known whose it is: a service that is stopped within its first second leaves one too.
        tokio::select! {
            () = cancel.cancelled() => return,
            () = any_knows_its_cluster(self.targets.clone()) => {}
            // Its folder tells too.
            () = tokio::time::sleep(WATCH), if self.spool.is_some() => {}
        }
        loop {
            let looked = async {
                let sql = match session.take() {
                    Some(sql) => sql,
                    None => {
                        // What was not seen meanwhile is not vouched for.
                        (place.glanced, place.is_new) = (None, true);
                        Session::connect(&self.params, &host).await?
                    }
                };
                let found = self.look(&sql, &mut place).await?;
                Ok::<_, Error>((sql, found))
            };
            let looked = tokio::select! {
                () = cancel.cancelled() => return,
                looked = looked => looked,
            };
            match looked {
                Ok((sql, found)) => {
                    session = Some(sql);
                    place.say(&host, found.trouble.as_deref());
                    told.send_replace(found);
                }
                // A server that said no keeps nothing for us, and that is told. One that is away keeps its log by itself: its slot
                // is there, and what was last learnt of it stays.
                Err(why @ Error::Server { .. }) => {
                    place.say(&host, Some(&why.to_string()));
                    told.send_modify(|kept| {
                        (kept.kept_from, kept.stands) = (None, None);
                        kept.trouble = Some(why.to_string());
                        kept.retained_bytes = None;
                        kept.seconds_to_full = None;
                    });
                }
                Err(why) => {
                    tracing::debug!(%host, error = %why, "the host's slots could not be looked at");
                    told.send_modify(|kept| (kept.retained_bytes, kept.seconds_to_full) = (None, None));
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(WATCH) => {}
            }
        }
    }

    async fn look(&self, sql: &Session, place: &mut Place) -> Result<HostKept, Error> {
        let known = self.targets.iter().find_map(|target| target.borrow().cluster);
        let cluster = sql.system_identifier().await?;
        let is_ours = match known {
            // A stranger: a slot there would fill a disk that is not ours to fill.
            Some(known) => known == cluster,
            // No store has said yet whose journal it is.
            None => self.is_spooled(cluster).await,
        };
        if !is_ours {
            return Ok(HostKept::default());
        }
        let primary = !sql.in_recovery().await?;
        let Position { timeline, offset: flushed } = sql.current_position().await?;
        let slots = sql.slot_list().await?;
        // A slot is made where a store bears witness, not for a folder's sake.
        if known.is_none() && slots.iter().all(|slot| slot.name != self.keep || slot.is_lost()) {
            return Ok(HostKept::default());
        }
        let mut kept = HostKept { primary: primary.then_some(timeline), ..HostKept::default() };
        let slot = match slots.iter().find(|slot| slot.name == self.keep) {
            // A slot whose log was given up keeps nothing and cannot be moved: only a new one keeps what comes.
            Some(slot) if slot.is_lost() => {
                tracing::error!(slot = %self.keep, "the server gave up the log that this slot kept; it is made anew");
                sql.slot_drop(&self.keep).await?;
                place.lost = true;
                None
            }
            None => {
                place.lost |= place.stood_at.is_some();
                None
            }
            found => found,
        };
        let released = self.released().filter(|released| released.timeline == timeline);
        let Some(restart) = slot.and_then(|slot| slot.restart) else {
            if slot.is_some() {
                sql.slot_drop(&self.keep).await?;
            }
            let made = sql.slot_create_keep(&self.keep).await?;
            kept.kept_from = Some(made);
            place.lacks(self.lacking(made, released), released.is_some());
            kept.trouble = place.lacking.clone().filter(|_| primary);
            if primary {
                kept.waits = place.glance(sql).await?;
            }
            place.stood_at = kept.kept_from;
            place.touched = Some(Instant::now());
            return Ok(kept);
        };
        let segment_bytes = match self.segment_bytes() {
            Some(bytes) => bytes,
            None => sql.settings().await?.wal_segment_bytes,
        };
        let (run, counts) = self.spool.as_ref().map_or((None, false), |spool| spool.run(timeline));
        // A server that went back in its history, or that was lost sight of, is another one until the spool was compared with it anew.
        let went_back = place.stood_at.is_some_and(|stood_at| restart < stood_at)
            || place.flushed.replace(flushed).is_some_and(|before| flushed < before)
            || primary && run.is_some_and(|run| flushed < run.end);
        if went_back || std::mem::take(&mut place.is_new) {
            place.doubted = Some(Instant::now());
        }
        let is_doubted = place.doubted.is_some_and(|since| since.elapsed() < DOUBT);
        let elsewhere = counts && self.is_shipped_by_another(&slots);
        place.elsewhere = if elsewhere { place.elsewhere + 1 } else { 0 };
        let counted = run.filter(|_| counts && !is_doubted && !elsewhere);
        let released_at = released.map(|released| released.offset);
        let goes = |from| let_go(from, released_at, counted, flushed, segment_bytes);
        let to = goes(restart);
        let ours = place.stood_at.max(place.asked).max(released_at);
        // An answer that is lost must not make a move of ours look like another's.
        place.asked = place.asked.max(Some(to).filter(|to| *to > restart));
        let reached = self.advance(sql, restart, to, place).await?;
        // What nobody streams by would hold what is stored, or what the spool has.
        if !primary || counted.is_some() {
            self.follow(sql, &slots, goes).await?;
        }
        // Until what is released has come to where it stands, it keeps less than it should.
        place.moved_by_another = match released {
            Some(released) if released.offset >= restart => false,
            _ => {
                place.moved_by_another
                    || (place.stood_at.is_some() && ours.is_some_and(|ours| restart > ours))
            }
        };
        place.stood_at = Some(reached);
        let held = held_from(reached, run);
        kept.kept_from = Some(held);
        kept.stands =
            primary.then_some(SlotStands { at: reached, flushed, system_identifier: cluster, segment_bytes });
        // What is let go because the spool has it is not what the stores release.
        kept.released = released.map(|released| match run {
            Some(_) => released,
            None => Position::new(timeline, released.offset.max(reached)),
        });
        let moved = place.moved_by_another.then(|| {
            format!(
                "someone else moves the slot {}: the log that it lets go may not be stored everywhere",
                self.keep
            )
        });
        place.lacks(self.lacking(held, released), released.is_some());
        let elsewhere = (place.elsewhere > 5 && primary).then(|| {
            "somebody else streams by this database's slots: what the spool has is not let go, since another service has not this spool"
                .to_owned()
        });
        kept.trouble = moved.or_else(|| place.lacking.clone().filter(|_| primary)).or(elsewhere);
        if primary {
            kept.waits = place.glance(sql).await?;
            let retained = slots.iter().filter_map(|slot| slot.retained_bytes).max().unwrap_or(0);
            kept.retained_bytes = Some(retained);
            place.rate.saw(Instant::now(), retained);
            kept.seconds_to_full =
                self.free_bytes(sql, cluster).await?.and_then(|free| place.rate.seconds_to_full(free));
        }
        Ok(kept)
    }

    async fn free_bytes(&self, sql: &Session, cluster: u64) -> Result<Option<u64>, Error> {
        let Some(directory) = sql.data_directory().await? else { return Ok(None) };
        let free = Arc::clone(&self.free);
        Ok(tokio::task::spawn_blocking(move || free(&directory, cluster)).await.ok().flatten())
    }

    /// What every target has stored and compared, less what a resume asks for again.
    fn released(&self) -> Option<Position> {
        let stored: Vec<_> = self.targets.iter().map(|target| target.borrow().releasable).collect();
        retention::released(&stored, self.segment_bytes()?)
    }

    fn segment_bytes(&self) -> Option<u64> {
        self.targets.iter().find_map(|target| target.borrow().segment_bytes)
    }

    /// Whether somebody else streams by one of the targets' slots: another service, which has not this spool.
    fn is_shipped_by_another(&self, slots: &[SlotState]) -> bool {
        self.live.iter().zip(&self.targets).any(|(live, target)| {
            let is_used = slots.iter().any(|slot| slot.name == *live && slot.active_pid.is_some());
            is_used && !target.borrow().streams
        })
    }

    /// Whether the spool has a folder of this cluster's.
    async fn is_spooled(&self, cluster: u64) -> bool {
        let Some(spool) = &self.spool else { return false };
        let segments = spool.files.of(cluster);
        let looked = tokio::task::spawn_blocking(move || segments.has_folder());
        tokio::time::timeout(FOLDER, looked).await.is_ok_and(|looked| looked.unwrap_or(false))
    }

    /// Why the slot keeps less than a resume asks for, if it does: it was made anew after it was lost or dropped.
    fn lacking(&self, kept_from: Offset, released: Option<Position>) -> Option<String> {
        let segment_bytes = self.segment_bytes()?;
        let released = released?.offset;
        (kept_from.segment_start(segment_bytes) > released).then(|| {
            format!(
                "the slot {} keeps the log from {kept_from} on, and not all of it is stored from {released} on: it was made anew",
                self.keep
            )
        })
    }

    /// Moves the slot, or touches it when it has not been used for a while. Where it stands then.
    async fn advance(
        &self,
        sql: &Session,
        restart: Offset,
        to: Offset,
        place: &mut Place,
    ) -> Result<Offset, Error> {
        let idle = place.touched.is_none_or(|touched| touched.elapsed() >= TOUCH);
        if to == restart && !idle {
            return Ok(restart);
        }
        let reached = sql.slot_advance(&self.keep, to).await?;
        place.touched = Some(Instant::now());
        Ok(reached)
    }

    /// Moves the live slots that nobody streams by. One that is in use, by a standby of a standby say, is left alone.
    /// Each moves over what may be let go from where it stands, and no further.
    async fn follow(
        &self,
        sql: &Session,
        slots: &[SlotState],
        to: impl Fn(Offset) -> Offset,
    ) -> Result<(), Error> {
        for slot in slots.iter().filter(|slot| self.live.contains(&slot.name) && slot.active_pid.is_none()) {
            let Some(restart) = slot.restart.filter(|restart| !slot.is_lost() && to(*restart) > *restart)
            else {
                continue;
            };
            match sql.slot_advance(&slot.name, to(restart)).await {
                Ok(_) | Err(Error::SlotInUse { .. } | Error::SlotMissing { .. }) => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }
}

/// What one host's task remembers from look to look.
#[derive(Default)]
struct Place {
    stood_at: Option<Offset>,
    /// The furthest that it was moved to.
    asked: Option<Offset>,
    /// How far its log was flushed at the last look.
    flushed: Option<Offset>,
    /// The session was made anew, and nothing was looked at by it.
    is_new: bool,
    /// Since when it is not known to be the server that it was.
    doubted: Option<Instant>,
    /// How many looks on end somebody else streamed by the targets' slots.
    elsewhere: u32,
    touched: Option<Instant>,
    moved_by_another: bool,
    /// The slot was lost or dropped, and the one that was made in its place keeps less than a resume asks for.
    lost: bool,
    /// What is said of that.
    lacking: Option<String>,
    rate: FillRate,
    said: Option<String>,
    waits: Option<WaitsWatch>,
    /// When it was last looked at, in this session.
    glanced: Option<Instant>,
}

impl Place {
    /// Whether commits wait there, where that is watched.
    async fn glance(&mut self, sql: &Session) -> Result<Option<WaitsSeen>, Error> {
        let Some(waits) = &mut self.waits else { return Ok(None) };
        let seen = sql.waits_glance().await?;
        let since = self.glanced.replace(Instant::now()).map(|glanced| glanced.elapsed());
        Ok(Some(waits.look(&seen, since.filter(|since| *since < WATCH * 5), Utc::now())))
    }

    /// What a look found of a slot that was lost. Nothing while it is not `known` what is released: what was said stays.
    fn lacks(&mut self, lacking: Option<String>, known: bool) {
        if self.lost && known {
            self.lost = lacking.is_some();
            self.lacking = lacking;
        }
    }

    /// Says a trouble once, until another comes or it is gone.
    fn say(&mut self, host: &Host, trouble: Option<&str>) {
        if self.said.as_deref() == trouble {
            return;
        }
        match trouble {
            Some(trouble) => tracing::error!(%host, "the keep slot: {trouble}"),
            None => tracing::info!(%host, "the keep slot keeps the log again"),
        }
        self.said = trouble.map(str::to_owned);
    }
}

/// Waits until one of these changes; for ever when there is none that can.
async fn any_changed(heard: &mut [watch::Receiver<HostKept>]) {
    let mut changes: FuturesUnordered<_> = heard.iter_mut().map(watch::Receiver::changed).collect();
    while let Some(changed) = changes.next().await {
        if changed.is_ok() {
            return;
        }
    }
    std::future::pending().await
}

/// Waits until a target knows which cluster it ships; for ever when none ever will.
async fn any_knows_its_cluster(mut targets: Vec<watch::Receiver<Progress>>) {
    let mut known: FuturesUnordered<_> = targets
        .iter_mut()
        .map(|target| async { target.wait_for(|progress| progress.cluster.is_some()).await.is_ok() })
        .collect();
    while let Some(known) = known.next().await {
        if known {
            return;
        }
    }
    std::future::pending().await
}

/// What is known of the primary: the host that takes writes, of several the one on the newest timeline, as the pipelines choose.
/// What is released once stays so.
fn of_primary(hosts: &[HostKept], before: PrimaryFacts) -> PrimaryFacts {
    let primary = hosts.iter().filter(|host| host.primary.is_some()).max_by_key(|host| host.primary);
    match primary {
        Some(host) => PrimaryFacts {
            released: host.released.or(before.released),
            retained_bytes: host.retained_bytes,
            seconds_to_full: host.seconds_to_full,
            trouble: host.trouble.clone(),
            slot_awaited: host.kept_from.is_none(),
            waits: host.waits.clone(),
        },
        // A server that never let itself be asked whether it takes writes may say why.
        None => PrimaryFacts {
            retained_bytes: None,
            seconds_to_full: None,
            trouble: before.trouble.or_else(|| hosts.iter().find_map(|host| host.trouble.clone())),
            ..before
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_primaries_the_one_on_the_newest_timeline_is_told_of() {
        let host = |timeline: Option<u32>, bytes| HostKept {
            primary: timeline.map(Timeline::new),
            retained_bytes: Some(bytes),
            ..HostKept::default()
        };
        let hosts = [host(Some(1), 10), host(Some(2), 20), host(None, 30)];
        assert_eq!(of_primary(&hosts, PrimaryFacts::default()).retained_bytes, Some(20));
        assert_eq!(of_primary(&hosts[2..], PrimaryFacts::default()).retained_bytes, None);
    }

    #[test]
    fn the_keep_slot_is_awaited_until_it_was_seen_on_the_primary() {
        let awaiting = PrimaryFacts { slot_awaited: true, ..PrimaryFacts::default() };
        let primary = |kept_from: Option<u64>| HostKept {
            primary: Some(Timeline::new(1)),
            kept_from: kept_from.map(Offset::new),
            ..HostKept::default()
        };
        let standby = HostKept { kept_from: Some(Offset::new(1 << 24)), ..HostKept::default() };
        let unknown = of_primary(std::slice::from_ref(&standby), awaiting.clone());
        assert!(unknown.slot_awaited && unknown.trouble.is_none(), "a standby's slot is not the primary's");
        assert!(of_primary(&[standby, primary(None)], awaiting.clone()).slot_awaited);
        let seen = of_primary(&[primary(Some(1 << 24))], awaiting);
        assert!(!seen.slot_awaited);
        assert!(
            !of_primary(&[HostKept::default()], seen).slot_awaited,
            "a primary that is away keeps its slot"
        );
    }

    #[test]
    fn a_server_that_never_let_itself_be_asked_says_why() {
        let refused = HostKept { trouble: Some("no entry in pg_hba.conf".to_owned()), ..HostKept::default() };
        let told = of_primary(&[HostKept::default(), refused], PrimaryFacts::default());
        assert_eq!(told.trouble.as_deref(), Some("no entry in pg_hba.conf"));
    }
}
