//! `farshore standby backfresh`: a former primary becomes a standby of its successor's history, by moving only what differs.
//!
//! ```text
//! judged ─▶ the successor is the journal's ─▶ its divergent log kept aside ─▶ pg_rewind from the successor ─▶ nobody's primary any more ─▶ its own settings back, follows the journal ─▶ a standby
//! ```
//! What always holds: nothing in the directory is changed before what its successor never had is durable elsewhere; a directory in which anything runs, of another cluster, or whose timeline the
//! journal has not left, is not touched, and none takes blocks from a server whose history is not the journal's newest; what is written down as rewound is what no server ran in since; a cut is gone
//! on from by the same command. It is not started here.
//! What it does not do: it does not compare blocks (PostgreSQL's own `pg_rewind` does), and it fences nobody.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use farshore_applier::former::{self, Left};
use farshore_engines::postgres::restore::bin;
use farshore_engines::postgres::restore::control::{ClusterState, ControlFile};
use farshore_journal::Timeline;
use serde::Serialize;
use tokio::process::Command;
use tokio::task::spawn_blocking;

use super::create::conninfo;
use super::kept::{Kept, Of, Record, SETTINGS, Stage, replace, settled, synced};
use super::place::no_standby;
use super::remove::works_in;
use super::successor;
use crate::cli::restore::{History, Target};
use crate::cli::standby::StandbyBackfreshArgs;
use crate::commands::restore::Chosen;
use crate::commands::{self, Context};
use crate::config::EngineConfig;
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring;

/// What a standby's own settings say of recovery besides its `primary_conninfo`: the last line of a name counts, and these are ours. A target or a delay that its
/// `postgresql.conf` has from a restore before would end its recovery, or hold it back.
const OURS: [(&str, &str); 10] = [
    ("primary_slot_name", "''"),
    ("recovery_target_timeline", "'latest'"),
    ("restore_command", "''"),
    ("recovery_target", "''"),
    ("recovery_target_lsn", "''"),
    ("recovery_target_time", "''"),
    ("recovery_target_xid", "''"),
    ("recovery_target_name", "''"),
    ("recovery_target_action", "'pause'"),
    ("recovery_min_apply_delay", "0"),
];
/// So much of what the tool said is shown.
const SHOWN_LINES: usize = 12;

#[derive(Serialize)]
struct Shown {
    directory: PathBuf,
    database: String,
    standby: String,
    /// The timeline that it wrote, where its successor left that, and the journal's newest.
    timeline: Timeline,
    left: String,
    follows: Timeline,
    /// Where what its successor never had is kept, and how much log that is.
    kept: PathBuf,
    kept_log_bytes: u64,
}

/// Runs it.
///
/// # Errors
/// When it is not safe, the log could not be kept, or `pg_rewind` did not do it.
pub(super) async fn run(context: &mut Context, args: StandbyBackfreshArgs) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let (name, settings) = commands::database(&config, Some(&args.database))?;
    let EngineConfig::Postgres { bin_dir, .. } = &settings.engine else {
        let what = format!("{name} is a SQLite database: a copy is made anew, and nothing is rewound");
        return Err(refused(what, format!("`farshore standby run {name} --to DIR` makes one")).into());
    };
    let to = &args.place.to;
    let directory = std::fs::canonicalize(to).map_err(|why| no_standby(to, &why.to_string()))?;
    let standby = args.name.clone().unwrap_or_else(wiring::node);
    let control = judged(&directory).await?;
    let history =
        History { store: args.store.clone().or_else(|| settings.stores.first().cloned()), incarnation: None };
    let chosen = Box::pin(Chosen::open(&config, (name, settings), &Target::Latest, &history)).await?;
    let planned = Box::pin(chosen.planned(&config, name)).await?;
    let record = planned.source.record();
    if record.identity != control.system_identifier.to_string() {
        let what = format!(
            "`{}` is of cluster {}, and the journal of {}",
            directory.display(),
            control.system_identifier,
            record.identity
        );
        return Err(refused(what, "name the directory of the primary that was shipped").into());
    }
    let folder = match &args.keep {
        Some(folder) => std::path::absolute(folder)?,
        None => beside(&directory, control.timeline)?,
    };
    let kept = Kept { folder };
    if kept.folder.starts_with(&directory) {
        let what = format!("what is kept would lie in `{}`, which is rewound", directory.display());
        return Err(refused(what, "name another folder with --keep").into());
    }
    let known = kept.record().map_err(|why| not_kept(&kept, &why))?;
    let timeline = known.as_ref().map_or(control.timeline, |known| known.of.timeline);
    let history = former::left(&planned.source, timeline).await?;
    let history = history.unwrap_or(Left { newest: timeline, at: None, legs: Vec::new() });
    let newest = history.newest;
    let Some(left) = history.at else { return Err(no_successor(&directory, timeline, newest).into()) };
    let (incarnation, system) = (record.incarnation, control.system_identifier);
    let of = Of { directory: directory.clone(), incarnation, system, timeline, left };
    let programs =
        bin::find(bin_dir.as_deref(), control.major).await.map_err(|why| no_tool(&why.to_string()))?;
    let tool = std::path::absolute(programs.join("pg_rewind"))?;
    if !tool.exists() {
        return Err(no_tool(&format!("`{}` is not there", tool.display())).into());
    }
    if known.as_ref().is_none_or(|known| known.stage < Stage::Rewound) {
        successor::is_the_journals(&args.from, system, &history).await?;
    }
    let mut record = match known {
        Some(known) if known.of != of => {
            let what = format!(
                "`{}` holds what was kept of another directory or at another failover",
                kept.folder.display()
            );
            return Err(refused(what, "name another folder with --keep").into());
        }
        Some(known) if known.stage == Stage::Done => {
            let what = format!(
                "`{}` was made a standby already; what it had written is in `{}`",
                directory.display(),
                kept.folder.display()
            );
            return Err(
                refused(what, "start it; after another failover name another folder with --keep").into()
            );
        }
        Some(known) if known.stage >= Stage::Kept => known,
        _ => {
            let kept = Kept { folder: kept.folder.clone() };
            let control = control.clone();
            let done =
                spawn_blocking(move || kept.keep(of, &control).map_err(|why| not_kept(&kept, &why))).await?;
            done?
        }
    };
    tracing::info!(folder = %kept.folder.display(), log_bytes = record.log_bytes, "what its successor never had is kept");
    if record.stage < Stage::Rewound {
        // Run again behind its end it would have the server recover there, and write what is its own.
        if !is_rewound(&control, &directory, timeline) {
            let Some(()) = rewound(context, &tool, (&directory, &args.from), &kept).await? else {
                return Ok(Exit::Interrupted);
            };
        }
        let at = directory.clone();
        // Before anything else: whoever starts it meanwhile starts no primary.
        spawn_blocking(move || {
            follows_somebody(&at)?;
            settled(&at)
        })
        .await?
        .map_err(|why| not_followed(&directory, &why))?;
        is_no_primary(&directory, &record.of, &kept)?;
        record.stage = Stage::Rewound;
        kept.reach(&record).map_err(|why| not_kept(&kept, &why))?;
    } else {
        is_no_primary(&directory, &record.of, &kept)?;
    }
    let follow = conninfo(&args.server, &standby, (name, incarnation), args.apply_delay);
    let (at, folder) = (directory.clone(), kept.folder.clone());
    spawn_blocking(move || follows(&at, &folder, &follow))
        .await?
        .map_err(|why| not_followed(&directory, &why))?;
    former::adopt(&directory, &planned.plan)?;
    record.stage = Stage::Done;
    kept.reach(&record).map_err(|why| not_kept(&kept, &why))?;
    let shown = Shown {
        directory: directory.clone(),
        database: name.to_string(),
        standby: standby.clone(),
        timeline,
        left: left.to_string(),
        follows: newest,
        kept: kept.folder.clone(),
        kept_log_bytes: record.log_bytes,
    };
    let text = format!(
        "standby    {place}, follows timeline {newest}, which left its timeline {timeline} at {left}\n\
         kept       {kept}: what it wrote behind that, {bytes} bytes of log\n\
         known as   {standby}\n\
         start      pg_ctl -D {place} start\n\
         then       farshore standby list {name}\n",
        place = directory.display(),
        kept = kept.folder.display(),
        bytes = record.log_bytes,
    );
    context.output.one("farshore.standby-backfresh/1", &shown, &text)?;
    Ok(Exit::Done)
}

fn control_of(directory: &Path) -> Result<ControlFile, OperatorMessage> {
    let read = std::fs::read(directory.join("global/pg_control"));
    let read = read.map_err(|why| no_standby(directory, &format!("global/pg_control: {why}")))?;
    ControlFile::parse(&read).map_err(|why| no_standby(directory, &why.to_string()))
}

/// Whether `pg_rewind` came to its end in a directory of which nobody wrote that down: the control file is the last that it changes, and it does so only behind a `backup_label`.
///
/// Source: `perform_rewind` in `pg_rewind.c`.
fn is_rewound(control: &ControlFile, directory: &Path, timeline: Timeline) -> bool {
    control.state == ClusterState::InArchiveRecovery
        && recovers_on(control) > timeline
        && directory.join("backup_label").exists()
}

/// The newest timeline that a control file names: the second one is ahead where its successor had not written a checkpoint yet.
fn recovers_on(control: &ControlFile) -> Timeline {
    control.min_recovery_point.map_or(control.timeline, |(_, timeline)| timeline.max(control.timeline))
}

/// Refuses a directory that would go on as something else than a standby: one in which a server ran since it was rewound, or that `pg_rewind` let be where it should not have.
fn is_no_primary(directory: &Path, of: &Of, kept: &Kept) -> Result<(), OperatorMessage> {
    let control = control_of(directory)?;
    if is_standbys(&control, of) {
        return Ok(());
    }
    Err(OperatorMessage::new(
        Code::BackfreshFailed,
        format!(
            "`{}` is not as `pg_rewind` leaves one that it brought in line ({:?} on timeline {}): it was started since, or its successor had not written a checkpoint yet",
            directory.display(),
            control.state,
            control.timeline
        ),
        Safe::Known(format!(
            "what it had written and its successor never had is in `{}`",
            kept.folder.display()
        )),
        "do not start it; where it was not started, give `checkpoint` on its successor, then the same command again; else make it anew with `farshore standby create` in an empty directory",
    ))
}

/// Whether a server of this control file goes on with its successor's log: it was rewound, or ended where its successor's history leaves its own or before, so that there was nothing to rewind.
fn is_standbys(control: &ControlFile, of: &Of) -> bool {
    match control.state {
        ClusterState::InArchiveRecovery => recovers_on(control) > of.timeline,
        ClusterState::ShutDown => control.timeline == of.timeline && control.checkpoint < of.left,
        ClusterState::ShutDownInRecovery => {
            let ends = control.min_recovery_point.is_none_or(|(end, on)| on == of.timeline && end <= of.left);
            control.timeline == of.timeline && ends
        }
        ClusterState::Startup
        | ClusterState::ShuttingDown
        | ClusterState::InCrashRecovery
        | ClusterState::InProduction => false,
    }
}

/// Whether a directory can be rewound, as far as it says itself.
async fn judged(directory: &Path) -> anyhow::Result<ControlFile> {
    let control = control_of(directory)?;
    let at = directory.to_owned();
    if let Some(why) = spawn_blocking(move || works_in(&at)).await? {
        let what = format!("`{}` is not touched: {why}", directory.display());
        return Err(
            refused(what, "stop what runs there (`pg_ctl stop`), then give the same command again").into()
        );
    }
    if !control.data_checksums && !control.wal_log_hints {
        let what = format!(
            "`{}` has neither data checksums nor `wal_log_hints`, so that nothing says which of its blocks changed",
            directory.display()
        );
        return Err(refused(
            what,
            "make it anew with `farshore standby create`; for the next time set `wal_log_hints = on` on the primary, or have `pg_checksums` switch checksums on",
        )
        .into());
    }
    Ok(control)
}

/// Has PostgreSQL's tool do it; `None` when the run was asked to end meanwhile.
async fn rewound(
    context: &Context,
    program: &Path,
    (directory, from): (&Path, &str),
    kept: &Kept,
) -> anyhow::Result<Option<()>> {
    tracing::info!(program = %program.display(), "the directory is rewound");
    let mut command = Command::new(program);
    command.arg("--target-pgdata").arg(directory).arg("--source-server").arg(from);
    // Where it works whoever comes after us sees it, should it outlive us.
    command.current_dir(directory).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    for elsewhere in successor::ELSEWHERE {
        command.env_remove(elsewhere);
    }
    let output = tokio::select! {
        () = context.cancel.cancelled() => return Ok(None),
        output = command.output() => output,
    };
    let said = match output {
        Ok(output) if output.status.success() => return Ok(Some(())),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(SHOWN_LINES)..].join("; ")
        }
        Err(why) => format!("`{}` cannot be run: {why}", program.display()),
    };
    Err(OperatorMessage::new(
        Code::BackfreshFailed,
        format!("pg_rewind did not bring `{}` in line: {said}", directory.display()),
        Safe::Known(format!("what it had written and its successor never had is in `{}`", kept.folder.display())),
        "mend what it says and give the same command again, which goes on from there; where it says that log of its own is missing, or that was tried, make it anew with `farshore standby create` in an empty directory",
    )
    .into())
}

/// Gives the server its own settings again, and makes it a standby of the journal.
fn follows(directory: &Path, kept: &Path, follow: &str) -> std::io::Result<()> {
    follows_somebody(directory)?;
    for name in SETTINGS {
        match std::fs::read(kept.join(name)) {
            Ok(own) if name == "postgresql.auto.conf" => {
                let own = String::from_utf8_lossy(&own).into_owned();
                replace(&directory.join(name), with_ours(&own, follow).as_bytes())?;
            }
            Ok(own) => replace(&directory.join(name), &own)?,
            // It has its settings elsewhere.
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {}
            Err(why) => return Err(why),
        }
    }
    if !kept.join("postgresql.auto.conf").exists() {
        replace(&directory.join("postgresql.auto.conf"), with_ours("", follow).as_bytes())?;
    }
    // Slots of its time as a primary would keep log for nobody.
    for entry in std::fs::read_dir(directory.join("pg_replslot"))? {
        let path = entry?.path();
        if path.is_dir() {
            std::fs::remove_dir_all(path)?;
        }
    }
    synced(&directory.join("pg_replslot"))
}

/// Has whoever starts it start a standby, of whatever it follows. Durable on `Ok`.
fn follows_somebody(directory: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(directory.join("recovery.signal")) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    replace(&directory.join("standby.signal"), b"")
}

/// A server's own settings, with those by which it follows in the place of others of these names.
fn with_ours(own: &str, follow: &str) -> String {
    let is_ours = |line: &str| {
        let name: String =
            line.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        name.eq_ignore_ascii_case("primary_conninfo")
            || OURS.iter().any(|(ours, _)| ours.eq_ignore_ascii_case(&name))
    };
    let mut text: String =
        own.lines().filter(|line| !is_ours(line)).map(|line| format!("{line}\n")).collect();
    let quoted = follow.replace('\\', "\\\\").replace('\'', "''");
    text.push_str(&format!("primary_conninfo = '{quoted}'\n"));
    text.extend(OURS.iter().map(|(name, value)| format!("{name} = {value}\n")));
    text
}

/// The folder beside a directory, named after the timeline that it wrote.
fn beside(directory: &Path, timeline: Timeline) -> anyhow::Result<PathBuf> {
    let name =
        directory.file_name().ok_or_else(|| anyhow::anyhow!("`{}` has no name", directory.display()))?;
    let parent = directory.parent().unwrap_or(Path::new("/"));
    // A directory that was rewound and cut off is on its successor's timeline: the record beside it says which was its own.
    let folder = |timeline: u32| {
        let mut name = name.to_owned();
        name.push(format!(".diverged-{timeline}"));
        parent.join(name)
    };
    let unfinished = (1..=timeline.get()).rev().map(folder).find(|folder| {
        let record: Option<Record> = Kept { folder: folder.clone() }.record().unwrap_or_default();
        record.is_some_and(|record| record.stage < Stage::Done)
    });
    Ok(unfinished.unwrap_or_else(|| folder(timeline.get())))
}

pub(super) fn refused(what: String, todo: impl Into<String>) -> OperatorMessage {
    OperatorMessage::new(Code::BackfreshRefused, what, Safe::Known("nothing was changed".to_owned()), todo)
}

fn no_tool(why: &str) -> OperatorMessage {
    refused(
        format!("PostgreSQL's own `pg_rewind` cannot be run: {why}"),
        "install PostgreSQL's server programs of the directory's version, or name their folder in `bin_dir`",
    )
}

fn no_successor(directory: &Path, timeline: Timeline, newest: Timeline) -> OperatorMessage {
    if newest == timeline && directory.join("standby.signal").exists() {
        let what = format!(
            "`{}` is a standby already, on the journal's newest timeline {newest}",
            directory.display()
        );
        return refused(what, "start it; `farshore standby list` shows how far it is");
    }
    let what = match newest == timeline {
        true => format!(
            "the journal knows of no successor: its newest timeline is {newest}, which `{}` wrote",
            directory.display()
        ),
        false => format!(
            "the journal's newest timeline {newest} does not go on from timeline {timeline}, which `{}` wrote",
            directory.display()
        ),
    };
    refused(
        what,
        "have `farshore run` ship the successor first (its `url`), so that the journal has its history; then give the same command again",
    )
}

fn not_kept(kept: &Kept, why: &std::io::Error) -> OperatorMessage {
    OperatorMessage::new(
        Code::BackfreshFailed,
        format!("what its successor never had could not be kept in `{}`: {why}", kept.folder.display()),
        Safe::Known("the former primary's directory is as it was, unless it was rewound before".to_owned()),
        "make room, or name another folder with --keep; then give the same command again",
    )
}

fn not_followed(directory: &Path, why: &std::io::Error) -> OperatorMessage {
    OperatorMessage::new(
        Code::BackfreshFailed,
        format!("`{}` was rewound, and could not be set up to follow: {why}", directory.display()),
        Safe::Known(
            "what it had written and its successor never had is kept; do not start it yet".to_owned(),
        ),
        "mend what it says, then give the same command again",
    )
}

#[cfg(test)]
mod tests {
    use super::super::kept::tests::control;
    use super::*;

    #[test]
    fn its_own_settings_stay_but_for_those_by_which_it_follows() {
        let own = "shared_buffers = '1GB'\nprimary_conninfo = 'host=old'\nPrimary_Slot_Name = 'x'\nprimary_conninfo_of_others = 1\nrecovery_target_time = '2020-01-01'\nrecovery_min_apply_delay = 5h\n";
        let text = with_ours(own, "host=db password='a\\b'");
        assert_eq!(
            text,
            "shared_buffers = '1GB'\nprimary_conninfo_of_others = 1\nprimary_conninfo = 'host=db password=''a\\\\b'''\nprimary_slot_name = ''\nrecovery_target_timeline = 'latest'\nrestore_command = ''\nrecovery_target = ''\nrecovery_target_lsn = ''\nrecovery_target_time = ''\nrecovery_target_xid = ''\nrecovery_target_name = ''\nrecovery_target_action = 'pause'\nrecovery_min_apply_delay = 0\n"
        );
    }

    #[test]
    fn only_what_was_rewound_or_ended_before_the_fork_goes_on_as_a_standby() {
        use ClusterState::{
            InArchiveRecovery, InCrashRecovery, InProduction, ShutDown, ShutDownInRecovery, ShuttingDown,
            Startup,
        };
        let of = Of {
            directory: PathBuf::from("/d"),
            incarnation: farshore_journal::IncarnationId::from_bytes([1; 16]),
            system: 7,
            timeline: Timeline::new(1),
            left: farshore_journal::Offset::new(500),
        };
        let says = |state, timeline, checkpoint, recovers: Option<(u64, u32)>| {
            let mut control = control(state, timeline, checkpoint);
            control.min_recovery_point =
                recovers.map(|(end, on)| (farshore_journal::Offset::new(end), Timeline::new(on)));
            is_standbys(&control, &of)
        };
        assert!(says(InArchiveRecovery, 2, 600, Some((700, 2))));
        assert!(says(InArchiveRecovery, 1, 400, Some((700, 2))), "its successor had written no checkpoint");
        assert!(!says(InArchiveRecovery, 1, 400, Some((450, 1))));
        assert!(says(ShutDown, 1, 400, None), "there was nothing to rewind");
        assert!(!says(ShutDown, 1, 500, None));
        assert!(!says(ShutDown, 2, 400, None), "it was started, and is its own");
        assert!(says(ShutDownInRecovery, 1, 400, Some((500, 1))));
        assert!(!says(ShutDownInRecovery, 1, 400, Some((501, 1))));
        for state in [Startup, ShuttingDown, InCrashRecovery, InProduction] {
            assert!(!says(state, 2, 600, None) && !says(state, 1, 400, None), "{state:?}");
        }
    }

    #[test]
    fn what_was_cut_off_is_gone_on_from_whatever_its_timeline_is_by_then() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("data");
        let kept = Kept { folder: folder.path().join("data.diverged-1") };
        assert_eq!(beside(&directory, Timeline::new(1)).unwrap(), kept.folder);
        std::fs::create_dir(&kept.folder).unwrap();
        let of = Of {
            directory: directory.clone(),
            incarnation: farshore_journal::IncarnationId::from_bytes([1; 16]),
            system: 7,
            timeline: Timeline::new(1),
            left: farshore_journal::Offset::new(5),
        };
        kept.reach(&Record { of: of.clone(), stage: Stage::Rewound, log_bytes: 0 }).unwrap();
        assert_eq!(beside(&directory, Timeline::new(2)).unwrap(), kept.folder);
        kept.reach(&Record { of, stage: Stage::Done, log_bytes: 0 }).unwrap();
        assert_eq!(beside(&directory, Timeline::new(2)).unwrap(), folder.path().join("data.diverged-2"));
    }
}
