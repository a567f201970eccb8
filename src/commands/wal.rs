//! `farshore wal`: PostgreSQL's `archive_command` and `restore_command`. Its exit codes are translated in `exit.rs`:
//! return [`Exit::FetchAbsent`] from `wal fetch` only when the store said "not there".
//!
//! `wal push` hands the archiver's file to the service, or without one appends what the journal lacks of it, and succeeds only when
//! as many stores as `durable` asks for hold every byte of it.

mod fetch;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use farshore_engines::postgres::log::SegmentBytes;
use farshore_engines::postgres::log::file_name::{LogFileName, SegmentName};
use farshore_journal::reader::Reader;
use farshore_journal::registry::Repository;
use farshore_journal::{DatabaseName, Offset};
use farshore_shipper::push::alone::{self, Left};
use farshore_shipper::push::room::Room;
use tokio::task::JoinSet;

use crate::cli::WalCommand;
use crate::commands::{self, Context};
use crate::config::{Config, DatabaseConfig, EngineConfig};
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::pushed::Counted;
use crate::socket::push::{self, Answer, PATIENCE};
use crate::wiring::Purpose;
use crate::{room_lock, wiring};

/// How long it is waited for the stores when nothing was appended from here and someone else may append it.
const SHORT_PATIENCE: Duration = Duration::from_secs(10);
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
        WalCommand::Push { database, pass_unheld, path } => {
            let (name, settings) = commands::database(&config, database.as_ref())?;
            only_postgres(name, settings, Code::PushRefused)?;
            push(&config, name, settings, &path, pass_unheld).await
        }
        WalCommand::Fetch { database, history, file, path } => {
            let (name, settings) = commands::database(&config, database.as_ref())?;
            only_postgres(name, settings, Code::FetchDoubt)?;
            fetch::run(&config, name, &history, &file, &path).await
        }
    }
}

/// Log files are PostgreSQL's: no other engine hands any over or asks for one.
fn only_postgres(name: &DatabaseName, settings: &DatabaseConfig, code: Code) -> Result<(), OperatorMessage> {
    match &settings.engine {
        EngineConfig::Postgres { .. } => Ok(()),
        EngineConfig::Sqlite { .. } => Err(OperatorMessage::new(
            code,
            format!("{name} is a SQLite database: it has no log files to push or to fetch"),
            Safe::Known("nothing was read or written".to_owned()),
            format!(
                "`farshore run` ships {name}, and `farshore restore {name}` brings it back; name a PostgreSQL database here"
            ),
        )),
    }
}

async fn push(
    config: &Config,
    name: &DatabaseName,
    settings: &DatabaseConfig,
    path: &Path,
    pass_unheld: bool,
) -> anyhow::Result<Exit> {
    let refuse = |why: &str| refused(name, path, why);
    let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
    let begun = Instant::now();
    let room = Room::new(config.service.room(name));
    let mut why_alone = None;
    let mut patience = PATIENCE;
    if is_segment(file) {
        let lock = loop {
            // A service that runs is the one that appends; it takes the file from here.
            match Box::pin(push::hand_over(&config.service.socket, name, file, path, pass_unheld)).await {
                Ok(Some(Answer { stored: true, .. })) => return Ok(Exit::Done),
                Ok(Some(Answer { why, .. })) => return Err(refuse(&why).into()),
                Ok(None) => {}
                // It may listen to another user only: then the stores say whether it stores the file.
                Err(why) => {
                    why_alone = Some(format!("the service does not take files: {why:#}"));
                    break None;
                }
            }
            match room_lock::try_lock(&room) {
                Ok(Some(lock)) => break Some(lock),
                Ok(None) => {}
                Err(why) => {
                    why_alone = Some(format!("nothing can be appended from here: {why}"));
                    break None;
                }
            }
            if begun.elapsed() > SHORT_PATIENCE {
                why_alone = Some("another process holds the journal's lock and takes no files".to_owned());
                break None;
            }
            tokio::time::sleep(LOOK).await;
        };
        if let Some(_lock) = &lock {
            let appended = Box::pin(alone(config, name, settings, &room, path)).await;
            patience = match appended.as_ref().err().map(|why| why.downcast_ref::<Left>()) {
                // Nobody else appends: what does not continue the journal now does not in a moment either.
                None | Some(Some(Left::NotBegun | Left::Unproved(_))) => Duration::ZERO,
                Some(Some(Left::ShippedElsewhere { .. })) => PATIENCE,
                Some(Some(Left::Ship(_)) | None) => SHORT_PATIENCE,
            };
            why_alone = appended.err().map(|why| format!("{why:#}"));
        }
    }
    // Whoever stored it, the stores are what is asked.
    let mut counted = Counted::new(pass_unheld);
    loop {
        match Box::pin(counted.look(config, name, path, |_| true)).await {
            Ok(true) => return Ok(Exit::Done),
            Ok(false) => {}
            Err(why) => return Err(refuse(&format!("{why:#}")).into()),
        }
        if begun.elapsed() > patience {
            let why = counted.why();
            let why = why_alone.map_or_else(|| why.clone(), |alone| format!("{why}; {alone}"));
            return Err(refuse(&format!("{why}: is `farshore run` shipping?")).into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether it is a whole log segment's name, whatever a segment's size.
fn is_segment(file: &str) -> bool {
    file.len() == 24 && file.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_lowercase())
}

/// Without a service: the file goes into the room and from there into every store whose journal it continues. All stores are tried
/// at the same time; one that is away keeps none of the others from it.
async fn alone(
    config: &Config,
    name: &DatabaseName,
    settings: &DatabaseConfig,
    room: &Room,
    path: &Path,
) -> anyhow::Result<()> {
    let taken_in = keep(room, path).await?;
    let mut stores = JoinSet::new();
    for store_name in &settings.stores {
        let (store, _) = wiring::open_store(config, store_name, Purpose::Append)?;
        let Some(store_config) = config.stores.get(store_name) else { continue };
        let options = wiring::writer_options(settings, store_config)?;
        let (room, name, store_name) = (room.clone(), name.clone(), store_name.clone());
        stores.spawn(async move {
            let appended = async {
                let repository = Repository::open(store).await?;
                let Some(record) = repository.incarnations(&name).await?.pop() else {
                    anyhow::bail!("nothing was shipped yet: start `farshore run` first");
                };
                let reader = Reader::new(&repository, &record)?;
                anyhow::Ok(alone::append(&reader, &record, &room, &options).await?)
            };
            match tokio::time::timeout(PATIENCE, Box::pin(appended)).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(why)) => Err(why.context(store_name.to_string())),
                Err(_) => Err(anyhow::anyhow!("{store_name} did not answer in time")),
            }
        });
    }
    let mut first = Ok(());
    while let Some(ended) = stores.join_next().await {
        first = first.and(ended?);
    }
    if first.is_err() {
        // A file that was not taken must not stand in the way of the right one. Whoever pushes it again brings it again.
        for path in taken_in {
            let _ = tokio::fs::remove_file(path).await;
        }
    }
    first
}

/// Copies the file into the room, and the one before it that lies beside it unless the room has it: a journal that ends near the
/// begin of the one is compared in the other. Its length is a segment's, or it is none.
async fn keep(room: &Room, path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (room, path) = (room.clone(), path.to_owned());
    tokio::task::spawn_blocking(move || {
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        let bytes = SegmentBytes::new(std::fs::metadata(&path)?.len())?;
        let LogFileName::Segment(segment) = LogFileName::parse(file, bytes)? else {
            anyhow::bail!("{file} is no whole segment");
        };
        let mut taken_in = Vec::new();
        let mut take_in = |segment: &SegmentName, path: &Path| {
            let part = room.part(segment, &format!("alone-{}", std::process::id()))?;
            std::fs::copy(path, &part)?;
            taken_in.push(room.take_in(segment, &part)?);
            std::io::Result::Ok(())
        };
        if let Some(last_byte) = segment.start().get().checked_sub(1) {
            let before = SegmentName::holding(segment.timeline(), Offset::new(last_byte), bytes);
            let beside = path.with_file_name(before.to_string());
            if !room.has(&before)
                && let Err(why) = take_in(&before, &beside)
                && why.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(file = %beside.display(), error = %why, "the file before could not be taken as a witness");
            }
        }
        take_in(&segment, &path)?;
        Ok(taken_in)
    })
    .await?
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
