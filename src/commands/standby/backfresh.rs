//! `farshore standby backfresh`: a former primary becomes a standby of its successor's history, by moving only what differs.
//!
//! ```text
//! judged ─▶ its divergent log kept aside ─▶ pg_rewind from the successor ─▶ its own settings back, follows the journal ─▶ a standby
//! ```
//! What always holds: nothing in the directory is changed before what its successor never had is durable elsewhere; a directory in which anything runs, of another cluster, or whose timeline the
//! journal has not left, is not touched; a cut is gone on from by the same command. It is not started here.
//! What it does not do: it does not compare blocks (PostgreSQL's own `pg_rewind` does), and it fences nobody.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use farshore_applier::former::{self, Left};
use farshore_engines::postgres::restore::bin;
use farshore_engines::postgres::restore::control::ControlFile;
use farshore_journal::Timeline;
use serde::Serialize;
use tokio::process::Command;
use tokio::task::spawn_blocking;

use super::create::conninfo;
use super::kept::{Kept, Of, Record, SETTINGS, Stage, replace, synced};
use super::place::no_standby;
use super::remove::works_in;
use crate::cli::restore::{History, Target};
use crate::cli::standby::StandbyBackfreshArgs;
use crate::commands::restore::Chosen;
use crate::commands::{self, Context};
use crate::config::EngineConfig;
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring;

/// What a standby's own settings say of recovery: the last line of a name counts, and these are ours.
const OURS: [&str; 4] =
    ["primary_conninfo", "primary_slot_name", "recovery_target_timeline", "restore_command"];
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
    let Left { newest, at } =
        former::left(&planned.source, timeline).await?.unwrap_or(Left { newest: timeline, at: None });
    let Some(left) = at else { return Err(no_successor(&directory, timeline, newest).into()) };
    let (incarnation, system) = (record.incarnation, control.system_identifier);
    let of = Of { directory: directory.clone(), incarnation, system, timeline, left };
    let programs =
        bin::find(bin_dir.as_deref(), control.major).await.map_err(|why| no_tool(&why.to_string()))?;
    let tool = programs.join("pg_rewind");
    if !tool.exists() {
        return Err(no_tool(&format!("`{}` is not there", tool.display())).into());
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
        let Some(()) = rewound(context, &tool, (&directory, &args.from), &kept).await? else {
            return Ok(Exit::Interrupted);
        };
        record.stage = Stage::Rewound;
        kept.reach(&record).map_err(|why| not_kept(&kept, &why))?;
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

/// Whether a directory can be rewound, as far as it says itself.
async fn judged(directory: &Path) -> anyhow::Result<ControlFile> {
    let read = std::fs::read(directory.join("global/pg_control"));
    let read = read.map_err(|why| no_standby(directory, &format!("global/pg_control: {why}")))?;
    let control = ControlFile::parse(&read).map_err(|why| no_standby(directory, &why.to_string()))?;
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
    command.env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
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
    synced(&directory.join("pg_replslot"))?;
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
        OURS.iter().any(|ours| ours.eq_ignore_ascii_case(&name))
    };
    let mut text: String =
        own.lines().filter(|line| !is_ours(line)).map(|line| format!("{line}\n")).collect();
    let quoted = follow.replace('\\', "\\\\").replace('\'', "''");
    text.push_str(&format!(
        "primary_conninfo = '{quoted}'\nprimary_slot_name = ''\nrecovery_target_timeline = 'latest'\nrestore_command = ''\n"
    ));
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

fn refused(what: String, todo: impl Into<String>) -> OperatorMessage {
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
    use super::*;

    #[test]
    fn its_own_settings_stay_but_for_those_by_which_it_follows() {
        let own = "shared_buffers = '1GB'\nprimary_conninfo = 'host=old'\nPrimary_Slot_Name = 'x'\nprimary_conninfo_of_others = 1\n";
        let text = with_ours(own, "host=db password='a\\b'");
        assert_eq!(
            text,
            "shared_buffers = '1GB'\nprimary_conninfo_of_others = 1\nprimary_conninfo = 'host=db password=''a\\\\b'''\nprimary_slot_name = ''\nrecovery_target_timeline = 'latest'\nrestore_command = ''\n"
        );
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
