//! `farshore wal`: PostgreSQL's `archive_command` and `restore_command`. Its exit codes are translated in `exit.rs`:
//! return [`Exit::FetchAbsent`] from `wal fetch` only when the store said "not there".
//!
//! `wal push` holds the archiver's file against the journal that `farshore run` ships, in as many stores as `durable` asks for,
//! and succeeds only when every byte is stored there. It puts nothing into the journal itself.

mod fetch;

use std::path::Path;
use std::time::{Duration, Instant};

use farshore_engines::postgres::log::SegmentBytes;
use farshore_engines::postgres::log::file_name::LogFileName;
use farshore_journal::DatabaseName;
use farshore_journal::reader::Reader;
use farshore_shipper::push::{self, Pushed};

use crate::cli::WalCommand;
use crate::commands::{self, Context};
use crate::config::{Config, DatabaseConfig, StoreName};
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring;

/// How long a push waits for the shipper before PostgreSQL is told to ask again.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks meanwhile.
const LOOK: Duration = Duration::from_millis(200);

/// Runs it.
///
/// # Errors
/// Any doubt, for `wal fetch`: PostgreSQL then stops instead of ending recovery early. For `wal push` whatever keeps the file
/// from being stored: PostgreSQL keeps it and asks again.
pub async fn run(context: &mut Context, args: WalCommand) -> anyhow::Result<Exit> {
    let config = context.config()?;
    match args {
        WalCommand::Push { database, path } => {
            let (name, settings) = commands::database(&config, database.as_ref())?;
            push(&config, name, settings, &path).await
        }
        WalCommand::Fetch { database, history, file, path } => {
            let (name, _) = commands::database(&config, database.as_ref())?;
            fetch::run(&config, name, &history, &file, &path).await
        }
    }
}

async fn push(
    config: &Config,
    name: &DatabaseName,
    settings: &DatabaseConfig,
    path: &Path,
) -> anyhow::Result<Exit> {
    let required = settings.required();
    let begun = Instant::now();
    loop {
        let mut stored = 0;
        let mut why = "no store was asked".to_owned();
        for store in &settings.stores {
            match in_store(config, name, store, path).await? {
                Pushed::Stored => stored += 1,
                Pushed::NotYet { stored: Some(at) } => why = format!("{store} holds the journal up to {at}"),
                Pushed::NotYet { stored: None } => why = format!("{store} holds nothing yet"),
                Pushed::NeverHeld { at } => {
                    return Err(refused(
                        name,
                        path,
                        &format!("{store} does not hold the log from {at} on, and never will"),
                    )
                    .into());
                }
                Pushed::Differs { from, to } => {
                    return Err(refused(
                        name,
                        path,
                        &format!("{store} holds other bytes from {from} to {to}"),
                    )
                    .into());
                }
            }
        }
        if stored >= required {
            return Ok(Exit::Done);
        }
        if begun.elapsed() > PATIENCE {
            return Err(refused(name, path, &format!("{why}: is `farshore run` shipping?")).into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What one store says of the file. History and backup files are not log: the journal holds histories of its own.
async fn in_store(
    config: &Config,
    name: &DatabaseName,
    store: &StoreName,
    path: &Path,
) -> anyhow::Result<Pushed> {
    let repository = wiring::repository(config, store).await?;
    let Some(record) = repository.incarnations(name).await?.pop() else {
        return Ok(Pushed::NotYet { stored: None });
    };
    let reader = Reader::new(&repository, &record)?;
    let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
    let (segment, partial) = match LogFileName::parse(file, SegmentBytes::new(record.segment_bytes)?)? {
        LogFileName::Segment(segment) => (segment, false),
        LogFileName::Partial(segment) => (segment, true),
        LogFileName::History(timeline) => {
            let Some(last) = reader.last().await? else { return Ok(Pushed::NotYet { stored: None }) };
            let stored = last.header().end_position();
            let here =
                stored.timeline >= timeline && reader.branch(timeline, last.header().number).await?.is_some();
            return Ok(if here { Pushed::Stored } else { Pushed::NotYet { stored: Some(stored) } });
        }
        LogFileName::Backup { .. } => return Ok(Pushed::Stored),
    };
    let mut bytes = tokio::fs::read(path).await?;
    if partial {
        // A promoted server archives the old timeline's last segment under this name: its log ends at the fork, which the new
        // timeline's chunk names. What the journal holds of it is what there is.
        let Some(last) = reader.last().await? else { return Ok(Pushed::NotYet { stored: None }) };
        let stored = last.header().end_position();
        if stored.timeline <= segment.timeline() {
            return Ok(Pushed::NotYet { stored: Some(stored) });
        }
        let timeline = segment.timeline();
        let behind = reader.first_where(last.header().number, |header| header.timeline > timeline).await?;
        let log = behind.header().start.bytes_since(segment.start()).unwrap_or(0);
        bytes.truncate(usize::try_from(log)?);
    }
    Ok(push::check(&reader, segment.timeline(), segment.start(), &bytes).await?)
}

fn refused(name: &DatabaseName, path: &Path, why: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::PushRefused,
        format!("{} of {name} is not stored as required: {why}", path.display()),
        Safe::Known("PostgreSQL keeps the file and asks again; nothing was called stored".to_owned()),
        format!(
            "`farshore status {name}` shows how far shipping is; `farshore verify {name}` what is stored"
        ),
    )
}
