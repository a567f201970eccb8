//! Resolves what was asked for against the journal: chooses the base, reads the log from it, finds the target.
//!
//! Bases are tried from the newest that may reach the target to older ones. A target that lies before a base's end is looked for
//! from the base before it, and no log is read twice but the stretch between.

use std::path::Path;

use farshore_engines::postgres::restore::control::{ControlFile, Major};
use farshore_engines::postgres::restore::safe_start::{
    self, ConfigFile, RecoveryTarget, Request, Setting, SourceSettings,
};
use farshore_journal::backup::{self, Backup, EntryKind, Manifest, Standing};
use farshore_journal::{JournalError, Offset, Position, Timeline};

use super::scan::{CommitSeen, Found, Outcome, Scan, Wanted};
use super::{
    Asked, Base, CommitThen, Neutralised, Plan, PlanError, PreparedThen, Resolved, SCHEMA, TablespaceThen,
    Window,
};
use crate::branches::{BranchError, Branches};
use crate::log::{Gap, LogReader, Next};
use crate::source::Source;

/// The control file's path in every backup.
pub(crate) const CONTROL_FILE: &str = "global/pg_control";
/// How far a search from an older base goes beyond the end of the newer one: more than any commit record takes.
const OVERLAP_BYTES: u64 = 256 << 20;
/// How far before a base commits are looked at, to know that it holds none that is later than a time.
const LOOK_BEFORE_BYTES: u64 = 64 << 20;
/// In a plan nobody has a port or directory for the server yet.
const NO_PORT: u16 = 5432;
const NO_SOCKET_DIR: &str = "/farshore";

/// A backup that may be the base.
#[derive(Debug, Clone)]
struct Candidate {
    standing: Standing,
    start: Position,
    end: Position,
}

/// Decides a restore.
///
/// # Errors
/// [`PlanError`] says what cannot be reached, and what can. Nothing was written in any case.
pub async fn resolve(source: &Source, asked: Asked) -> Result<Plan, PlanError> {
    let Some(branches) = Branches::read(source.reader()).await.map_err(timelines)? else {
        return Err(PlanError::NoBase { why: "the journal is empty".to_owned() });
    };
    let timeline = target_timeline(&branches, &asked);
    let (candidates, unfit) = candidates(source, &branches, timeline).await?;
    let windows = windows(&branches, timeline, &candidates);
    if candidates.is_empty() {
        let why = match unfit {
            0 => "none was completed".to_owned(),
            more => format!("{more} are unfinished, lack log, or lie on another timeline"),
        };
        return Err(PlanError::NoBase { why });
    }
    if let Asked::Position(position) = &asked {
        let stored = windows.iter().map(|window| window.to).max();
        if stored.is_none_or(|end| position.offset > end) {
            let why = "it lies behind what is stored".to_owned();
            return Err(PlanError::OutsideWindow { asked, why, windows });
        }
    }
    let mut search = Search { source, branches: &branches, timeline, asked: &asked, windows: &windows };
    let (backup, found) = search.run(&candidates).await?;
    describe(source, asked, timeline, &backup, *found).await
}

fn timelines(why: BranchError) -> PlanError {
    match why {
        BranchError::Journal(why) => PlanError::Journal(why),
        other => PlanError::Timelines { why: other.to_string() },
    }
}

fn target_timeline(branches: &Branches, asked: &Asked) -> Timeline {
    match asked {
        Asked::Position(position) => position.timeline.unwrap_or(branches.newest()),
        Asked::Latest | Asked::Time(_) | Asked::Transaction(_) | Asked::Point(_) => branches.newest(),
    }
}

/// The complete backups in the target's history whose log is stored to their end, newest first; how many are none.
async fn candidates(
    source: &Source,
    branches: &Branches,
    timeline: Timeline,
) -> Result<(Vec<Candidate>, usize), PlanError> {
    let mut fit = Vec::new();
    let mut unfit = 0;
    for id in backup::list(source.reader()).await? {
        let standing = match backup::standing(source.reader(), id).await {
            Ok(standing) => standing,
            // One bad backup must not hide the good ones; verify names it.
            Err(JournalError::Object { .. } | JournalError::Misplaced { .. }) => {
                unfit += 1;
                continue;
            }
            Err(JournalError::Store(why)) if why.is_not_found() => {
                unfit += 1;
                continue;
            }
            Err(why) => return Err(why.into()),
        };
        let range = standing.complete.filter(|range| {
            let segment = source.shape().segment_bytes.get();
            let first = range.start.offset.segment_start(segment);
            let in_history = branches.is_in_history(timeline, range.end);
            in_history && branches.stored_end(timeline, first).is_some_and(|end| end >= range.end.offset)
        });
        match range {
            Some(range) => fit.push(Candidate { standing, start: range.start, end: range.end }),
            None => unfit += 1,
        }
    }
    fit.sort_by_key(|candidate| std::cmp::Reverse((candidate.end.offset, candidate.start.offset)));
    Ok((fit, unfit))
}

fn windows(branches: &Branches, timeline: Timeline, candidates: &[Candidate]) -> Vec<Window> {
    let window = |candidate: &Candidate| {
        let to = branches.stored_end(timeline, candidate.start.offset)?;
        Some(Window {
            base: candidate.standing.id,
            timeline,
            from: candidate.end.offset,
            to,
            finished: candidate.standing.opening.started.clone(),
        })
    };
    candidates.iter().filter_map(window).collect()
}

struct Search<'a> {
    source: &'a Source,
    branches: &'a Branches,
    timeline: Timeline,
    asked: &'a Asked,
    windows: &'a [Window],
}

impl Search<'_> {
    async fn run(&mut self, candidates: &[Candidate]) -> Result<(Backup, Box<Found>), PlanError> {
        // What was read from a newer base need not be read again to know that the target is not there.
        let mut until = None;
        let mut last_refusal = None;
        for candidate in candidates {
            if matches!(self.asked, Asked::Position(p) if p.offset < candidate.end.offset) {
                continue;
            }
            let Some(backup) =
                Backup::open(self.source.reader(), candidate.standing.id, self.source.unlock()).await?
            else {
                continue;
            };
            match self.from(&backup, until).await? {
                Outcome::Found(found) if found.record.end >= candidate.end.offset && found.base_is_early => {
                    return Ok((backup, found));
                }
                // The target lies before this base is consistent, or is not behind it.
                Outcome::Found(_) | Outcome::Before | Outcome::Absent => {
                    until = candidate.end.offset.checked_add(OVERLAP_BYTES);
                }
                Outcome::Aborted { at } => {
                    let xid = if let Asked::Transaction(xid) = self.asked { *xid } else { 0 };
                    return Err(PlanError::Aborted { xid, at });
                }
                Outcome::Ambiguous { at } => {
                    return Err(PlanError::Ambiguous { asked: self.asked.clone(), at });
                }
                Outcome::TimeBeyond { newest_micros } => {
                    let newest = newest_micros.and_then(chrono::DateTime::from_timestamp_micros);
                    let why = match newest {
                        Some(newest) => {
                            format!("the newest time in the journal is {newest}: take the latest state")
                        }
                        None => "the journal holds no time behind the base".to_owned(),
                    };
                    last_refusal.get_or_insert(self.outside(why));
                    break;
                }
            }
        }
        Err(last_refusal.unwrap_or_else(|| match self.asked {
            Asked::Transaction(_) | Asked::Point(_) => {
                PlanError::NotFound { asked: self.asked.clone(), windows: self.windows.to_vec() }
            }
            Asked::Latest | Asked::Time(_) | Asked::Position(_) => {
                self.outside("it lies before the oldest backup is consistent".to_owned())
            }
        }))
    }

    fn outside(&self, why: String) -> PlanError {
        PlanError::OutsideWindow { asked: self.asked.clone(), why, windows: self.windows.to_vec() }
    }

    fn wanted(&self) -> Wanted {
        match self.asked {
            Asked::Latest => Wanted::End,
            Asked::Time(time) => Wanted::Time(time.timestamp_micros()),
            Asked::Position(position) => Wanted::Position(position.offset),
            Asked::Transaction(xid) => Wanted::Transaction(*xid),
            Asked::Point(name) => Wanted::Point(name.clone()),
        }
    }

    /// Reads the log from the base's segment on, until the target is found. For a time, from some way before: a base that holds a
    /// later commit is no base for it, whatever follows.
    async fn from(&self, backup: &Backup, until: Option<Offset>) -> Result<Outcome, PlanError> {
        let start = backup.manifest().start.offset;
        let first = start.segment_start(self.source.shape().segment_bytes.get());
        let before = match self.asked {
            Asked::Time(_) => self.before(first),
            Asked::Latest | Asked::Position(_) | Asked::Transaction(_) | Asked::Point(_) => first,
        };
        match self.scan(backup, before, until).await? {
            // What lies before the base may have a gap, or be another incarnation's begin: not our matter.
            (_, Some(gap)) if gap.at.offset < start => self.scan(backup, first, until).await,
            other => Ok(other),
        }
        .and_then(|(outcome, gap)| match (outcome, gap) {
            (outcome, None) => Ok(outcome),
            // Behind a gap nothing can be reached from here; before it, what was asked for may have been found.
            (outcome @ (Outcome::Aborted { .. } | Outcome::Ambiguous { .. }), Some(_)) => Ok(outcome),
            (outcome @ Outcome::Found(_), Some(_))
                if matches!(self.asked, Asked::Transaction(_) | Asked::Point(_)) =>
            {
                Ok(outcome)
            }
            (_, Some(gap)) => Err(PlanError::Gap {
                asked: self.asked.clone(),
                at: gap.at,
                end: gap.end,
                windows: self.windows.to_vec(),
            }),
        })
    }

    /// The earliest segment's start, not too far before `first`, from which the log is stored without a break.
    fn before(&self, first: Offset) -> Offset {
        let segment = self.source.shape().segment_bytes.get();
        let segments = (LOOK_BEFORE_BYTES / segment).max(1);
        let starts =
            (1..=segments).rev().filter_map(|back| first.get().checked_sub(back * segment)).map(Offset::new);
        let mut stored = starts
            .filter(|start| self.branches.stored_end(self.timeline, *start).is_some_and(|end| end > first));
        stored.next().unwrap_or(first)
    }

    async fn scan(
        &self,
        backup: &Backup,
        first: Offset,
        until: Option<Offset>,
    ) -> Result<(Outcome, Option<Gap>), PlanError> {
        let manifest = backup.manifest();
        let base = Position::new(self.timeline, first);
        let damaged = |whole_to, source| PlanError::Damaged { base, whole_to, source };
        let start = manifest.start.offset;
        let scan = Scan::new(self.source.shape(), base, start, manifest.next_transaction, self.wanted());
        let mut scan = scan.map_err(|source| damaged(None, source))?;
        let mut log = LogReader::new(self.source, self.branches, self.timeline, first, until);
        loop {
            match log.next().await? {
                Next::Bytes(piece) => {
                    // Decoding takes a core for as long as a checksum of the log does.
                    let pushed = tokio::task::spawn_blocking(move || {
                        let done = scan.push(&piece.bytes);
                        (scan, done)
                    });
                    let (back, done) = pushed.await.map_err(|_| cut_off())?;
                    scan = back;
                    if done.map_err(|source| damaged(scan.whole_to(), source))? {
                        return Ok((scan.finish(), None));
                    }
                }
                Next::Gap(gap) => return Ok((scan.finish(), Some(gap))),
                Next::End => return Ok((scan.finish(), None)),
            }
        }
    }
}

async fn describe(
    source: &Source,
    asked: Asked,
    timeline: Timeline,
    backup: &Backup,
    found: Found,
) -> Result<Plan, PlanError> {
    let manifest = backup.manifest();
    // Records in front of the base's start share its first segment and are not replayed.
    let made = found.tablespaces.iter().filter(|(at, _)| *at >= manifest.start.offset);
    tablespaces_possible(made.map(|(_, location)| Path::new(location)))?;
    let control = control_file(backup).await?;
    let target = RecoveryTarget { record_start: found.record.start, timeline, end: found.record.end };
    let request = Request {
        major: control.major,
        port: NO_PORT,
        socket_dir: NO_SOCKET_DIR.into(),
        target,
        consistent_from: manifest.end.offset,
        restore_command: None,
        shared_buffers_limit: u64::MAX,
        preload: Vec::new(),
    };
    let safe = safe_start::plan(&source_settings(manifest), &control, &request)?;
    let segment = manifest.segment_bytes;
    let first = manifest.start.offset.segment_start(segment);
    let log_bytes = found.record.end.get().saturating_sub(first.get());
    let segments = log_bytes.div_ceil(segment);
    let files: u64 = manifest.entries.iter().map(|entry| entry.size).sum();
    let reader = source.reader();
    Ok(Plan {
        schema: SCHEMA.to_owned(),
        database: source.record().database.clone(),
        store: reader.store_id(),
        incarnation: reader.incarnation(),
        asked,
        resolved: Resolved {
            time: found.commit.and_then(|commit| chrono::DateTime::from_timestamp_micros(commit.time_micros)),
            position: found.record.end,
            xid: found.commit.and_then(|commit| commit.xid),
            timeline,
            record_start: found.record.start,
        },
        base: Base {
            id: backup.id(),
            label: manifest.label.clone(),
            start: manifest.start,
            end: manifest.end,
            finished: manifest.finished.clone(),
            bytes: files,
            entries: manifest.entries.len() as u64,
        },
        replay_bytes: found.record.end.get().saturating_sub(manifest.start.offset.get()),
        segments,
        writes_bytes: files + segments * segment,
        estimate_seconds: None,
        neutralised: safe
            .neutralised
            .into_iter()
            .filter(|row| !is_placeholder(&row.setting))
            .map(neutralised)
            .collect(),
        prepared: prepared(manifest, &found),
        out_of_order: found.out_of_order.iter().map(commit_then).collect(),
        tablespaces: manifest
            .tablespaces
            .iter()
            .map(|t| TablespaceThen { oid: t.oid, location: t.location.clone() })
            .collect(),
    })
}

/// Replay makes a tablespace at the place that the source named, whatever is there; on the source's own machine that is
/// the live one. Only an empty directory can take it. One inside of the data directory has no such place.
fn tablespaces_possible<'a>(made: impl Iterator<Item = &'a Path>) -> Result<(), PlanError> {
    let mut outside: Vec<&Path> = made.filter(|location| location.is_absolute()).collect();
    outside.sort_unstable();
    outside.dedup();
    let entries = |place: &Path| std::fs::read_dir(place).map(|mut entries| entries.next().is_some());
    // What cannot be looked at counts as something.
    let holds = |place: &Path| match entries(place) {
        Ok(something) => something,
        Err(why) => why.kind() != std::io::ErrorKind::NotFound,
    };
    if let Some(location) = safe_start::tablespaces_in_the_way(outside.iter().copied(), holds).first() {
        return Err(PlanError::TablespaceInTheWay { location: location.to_path_buf() });
    }
    match outside.iter().find(|place| entries(place).is_err()) {
        Some(location) => Err(PlanError::TablespaceNowhere { location: location.to_path_buf() }),
        None => Ok(()),
    }
}

/// Settings whose value a plan cannot know yet.
fn is_placeholder(setting: &str) -> bool {
    matches!(setting, "port" | "unix_socket_directories")
}

pub(crate) fn neutralised(row: safe_start::Neutralised) -> Neutralised {
    Neutralised { setting: row.setting, was: row.was, now: row.now, why: row.why.to_owned() }
}

fn commit_then(commit: &CommitSeen) -> CommitThen {
    CommitThen {
        xid: commit.xid,
        time: chrono::DateTime::from_timestamp_micros(commit.time_micros),
        position: commit.end,
    }
}

/// Prepared in the log and undecided at the target, and those that the base's files hold prepared.
/// Source: `TwoPhaseFilePath`, src/backend/access/transam/twophase.c: `pg_twophase/` and the number in hexadecimal, 8
/// digits, from 17 on 16.
fn prepared(manifest: &Manifest, found: &Found) -> Vec<PreparedThen> {
    let in_base = manifest.entries.iter().filter_map(|entry| {
        let name = entry.path.strip_prefix("pg_twophase/").filter(|_| entry.kind == EntryKind::File)?;
        u64::from_str_radix(name, 16)
            .ok()
            .filter(|_| matches!(name.len(), 8 | 16))
            .map(|number| (number, name.len()))
    });
    let low = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default();
    let known = |number: u64| found.prepared.iter().any(|(id, _)| id.low == low(number));
    let held = in_base.filter(|(number, _)| !found.decided.contains(&low(*number)) && !known(*number));
    let held =
        held.map(|(number, digits)| PreparedThen { xid: (digits == 16).then_some(number), name: None });
    let logged =
        found.prepared.iter().map(|(id, name)| PreparedThen { xid: id.full, name: Some(name.clone()) });
    held.chain(logged).collect()
}

/// What the backup keeps of its server's configuration.
pub(crate) fn source_settings(manifest: &Manifest) -> SourceSettings {
    let settings = manifest.settings.iter().map(|row| Setting {
        name: row.name.clone(),
        setting: row.setting.clone(),
        source: row.source.clone(),
        context: row.context.clone(),
    });
    let files = manifest.config_files.iter();
    let files = files.map(|file| ConfigFile { path: file.path.clone(), content: file.content.clone() });
    SourceSettings { settings: settings.collect(), config_files: files.collect() }
}

/// The backup's control file, read from the part that holds it.
pub(crate) async fn control_file(backup: &Backup) -> Result<ControlFile, PlanError> {
    let bad = |source| PlanError::Control { backup: backup.id(), source };
    let manifest = backup.manifest();
    let bytes = entry_bytes(backup, CONTROL_FILE).await?.ok_or_else(|| bad(None))?;
    let control = ControlFile::parse(&bytes).map_err(|why| bad(Some(why)))?;
    let same = Major::new(manifest.major) == Some(control.major)
        && manifest.identity.parse() == Ok(control.system_identifier);
    if same { Ok(control) } else { Err(bad(None)) }
}

/// A small file of a backup; `None` when it has none, or it is not small.
async fn entry_bytes(backup: &Backup, path: &str) -> Result<Option<Vec<u8>>, PlanError> {
    const SMALL: u64 = 1 << 20;
    let manifest = backup.manifest();
    let Some(index) = manifest.entries.iter().position(|entry| entry.path == path && entry.size <= SMALL)
    else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    for (part, places) in manifest.parts.iter().zip(manifest.places()) {
        let Some(place) = places.iter().find(|place| place.entry == index) else { continue };
        let plain = backup.part(part.number).await?;
        let from = usize::try_from(place.in_part).unwrap_or(usize::MAX);
        let count = usize::try_from(place.bytes).unwrap_or(usize::MAX);
        bytes.extend_from_slice(plain.get(from..from.saturating_add(count)).unwrap_or_default());
    }
    Ok((bytes.len() as u64 == manifest.entries[index].size).then_some(bytes))
}

fn cut_off() -> PlanError {
    PlanError::Journal(JournalError::NotHeld { what: "the log: reading it was cut off".to_owned() })
}
