//! `farshore backup`: takes, lists and shows base backups. What is listed is read from the stores themselves.

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::job::JobKind;
use farshore_journal::backup;
use farshore_journal::reader::Reader;
use farshore_journal::{BackupId, DatabaseName};
use farshore_shipper::base_backup::Phase;
use serde::Serialize;

use crate::base_backups::{self, Asked, How, Process, STUCK, Streams};
use crate::cli::BackupCommand;
use crate::cli::zone::Zone;
use crate::commands::{self, Context, expire, job};
use crate::config::{Config, DatabaseConfig, EngineConfig, StoreName};
use crate::exit::Exit;
use crate::jobs::held::Reporter;
use crate::jobs::{record, spec, work};
use crate::message::{Code, OperatorMessage, Safe};
use crate::output::Row;
use crate::socket::{Request, asks};
use crate::wiring;

/// One backup, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct Listed {
    database: DatabaseName,
    store: String,
    incarnation: String,
    /// The number that its store's record gives the incarnation.
    incarnation_number: u64,
    id: BackupId,
    label: String,
    started: String,
    /// When its manifest was written, its last object; none of one that is unfinished.
    finished: Option<DateTime<Utc>>,
    /// Bytes of its objects in the store: what was moved there for it.
    stored_bytes: u64,
    /// Bytes of the database's files; none where no digests of its blocks were kept.
    database_bytes: Option<u64>,
    /// The backups whose bytes it may refer to, and that stay for as long as it does.
    refers_to: Vec<BackupId>,
    host: String,
    state: &'static str,
    timeline: Option<u32>,
    start: Option<String>,
    end: Option<String>,
    sealed: Option<bool>,
}

impl Row for Listed {
    const HEADER: &'static [&'static str] = &[
        "DATABASE",
        "STORE",
        "INC",
        "BACKUP",
        "STATE",
        "STARTED (UTC)",
        "ENDED (UTC)",
        "BYTES",
        "DATABASE BYTES",
        "REFERS TO",
        "TL",
        "START",
        "END",
        "LABEL",
    ];

    fn cells(&self, zone: Zone) -> Vec<String> {
        let seconds = |time: DateTime<Utc>| zone.show(time, SecondsFormat::Secs);
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            self.database.to_string(),
            self.store.clone(),
            self.incarnation_number.to_string(),
            self.id.to_string(),
            self.state.to_owned(),
            self.started.parse().map_or_else(|_| self.started.clone(), seconds),
            self.finished.map_or_else(|| "-".to_owned(), seconds),
            self.stored_bytes.to_string(),
            self.database_bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string()),
            match self.refers_to.len() {
                0 => "-".to_owned(),
                1 => "1 backup".to_owned(),
                more => format!("{more} backups"),
            },
            self.timeline.map_or_else(|| "-".to_owned(), |timeline| timeline.to_string()),
            or_none(&self.start),
            or_none(&self.end),
            self.label.clone(),
        ]
    }
}

/// Runs it.
///
/// # Errors
/// When the backup failed, or a store cannot be read.
pub async fn run(context: &mut Context, args: BackupCommand) -> anyhow::Result<Exit> {
    let config = context.config()?;
    match args {
        BackupCommand::Run { database, refresh, full, no_wait } => {
            let refresh = (refresh || full).then_some(refresh);
            if !no_wait {
                return take(context, &config, &database, refresh).await;
            }
            let (name, _) = commands::database(&config, Some(&database))?;
            let wanted = spec::Backup { store: None, refresh };
            let asked = spec::queued(JobKind::Backup, Some(name), &wanted);
            job::queue(context, &config, asked).await
        }
        BackupCommand::Expire(args) => expire::run(context, &config, args).await,
        BackupCommand::List(choice) => {
            let mut listed = Vec::new();
            for (name, settings) in commands::databases(&config, choice.database.as_ref())? {
                for store in &settings.stores {
                    listed.extend(list(&config, name, store).await?);
                }
            }
            context.output.list("farshore.backup-list/1", &listed)?;
            Ok(Exit::Done)
        }
        BackupCommand::Show { database, backup } => {
            let (name, settings) = commands::database(&config, Some(&database))?;
            for store in &settings.stores {
                if let Some(found) =
                    list(&config, name, store).await?.into_iter().find(|listed| listed.id == backup)
                {
                    context.output.list("farshore.backup-list/1", &[found])?;
                    return Ok(Exit::Done);
                }
            }
            Err(OperatorMessage::new(
                Code::BackupUnknown,
                format!("no store of {name} has a backup {backup}"),
                Safe::Known("nothing was changed".to_owned()),
                format!("`farshore backup list {name}` shows those there are"),
            )
            .into())
        }
    }
}

async fn take(
    context: &mut Context,
    config: &Config,
    named: &DatabaseName,
    refresh: Option<bool>,
) -> anyhow::Result<Exit> {
    let (name, settings) = commands::database(config, Some(named))?;
    let catalog = record::catalog(config).await;
    let asked = spec::asked(JobKind::Backup, Some(name), &spec::Backup { store: None, refresh });
    let held = record::begin(catalog.as_ref(), asked, &context.cancel).await;
    let reporter = held.reporter();
    let work = Box::pin(into_stores(config, (name, settings), catalog.as_ref(), refresh, &reporter));
    let taken = match held.beside(work).await {
        Some(Ok(taken)) => {
            held.end_done(Ok(work::backups(&taken))).await;
            taken
        }
        Some(Err(why)) => {
            held.end_done(Err(why.clone())).await;
            return Err(why.into());
        }
        None => {
            held.end_stopped().await;
            return Ok(Exit::Interrupted);
        }
    };
    let mut listed = Vec::new();
    for (store, id) in taken {
        listed.extend(list(config, name, &store).await?.into_iter().filter(|listed| listed.id == id));
    }
    context.output.list("farshore.backup-list/1", &listed)?;
    Ok(Exit::Done)
}

/// One base backup into each of the database's stores.
async fn into_stores(
    config: &Config,
    (name, settings): (&DatabaseName, &DatabaseConfig),
    catalog: Option<&Catalog>,
    refresh: Option<bool>,
    reporter: &Reporter,
) -> Result<Vec<(StoreName, BackupId)>, OperatorMessage> {
    // This process ships nothing.
    let streams = Streams::new();
    let process = Process { streams: &streams, catalog };
    let mut taken = Vec::new();
    for store in &settings.stores {
        let say = |progress: base_backups::TakeProgress| {
            reporter.say(work::of_backup(store, &progress));
            match progress.phase {
                Phase::Checkpoint => tracing::info!("waiting for the server's checkpoint"),
                Phase::WaitingForLog(end) => {
                    tracing::info!(%end, "waiting until the journal is stored up to the backup's end")
                }
                Phase::Copying | Phase::Storing | Phase::Claiming => {
                    tracing::debug!(
                        taken_bytes = progress.taken_bytes,
                        total_bytes = progress.total_bytes,
                        "copying"
                    );
                }
            }
        };
        let id = match &settings.engine {
            EngineConfig::Postgres { .. } => {
                let asked = Asked { label: "by hand", how: How::said(refresh) };
                let take = base_backups::take(config, name, store, asked, process, STUCK, &say);
                Box::pin(take).await?.id
            }
            EngineConfig::Sqlite { .. } if refresh == Some(true) => {
                return Err(base_backups::failed(
                    name,
                    store,
                    &"a SQLite database is copied as a whole: leave --refresh out",
                ));
            }
            EngineConfig::Sqlite { .. } => of_stream(config, name, store).await?,
        };
        taken.push((store.clone(), id));
    }
    Ok(taken)
}

/// By the service: a SQLite database is copied by what follows it.
async fn of_stream(
    config: &Config,
    name: &DatabaseName,
    store: &StoreName,
) -> Result<BackupId, OperatorMessage> {
    let request = Request::Backup(asks::Backup { database: name.clone(), store: store.to_string() });
    match asks::ask::<asks::Complete>(&config.service.socket, &request).await {
        Ok(Some(Ok(complete))) => Ok(complete.id),
        Ok(Some(Err(what))) => Err(base_backups::not_taken(name, what)),
        Ok(None) => Err(base_backups::failed(
            name,
            store,
            &"no service ships it, and a SQLite database is copied by what follows it: start `farshore run`, which takes one by itself when one is due",
        )),
        Err(why) => Err(OperatorMessage::new(
            Code::BackupFailed,
            format!("what became of the base backup of {name} into {store} is not known: {why:#}"),
            Safe::Unknown("it may be complete; older ones stay as they are".to_owned()),
            format!("`farshore backup list {name}` shows whether there is one that began just now"),
        )),
    }
}

/// The backups of a database in one store, of all its incarnations, oldest incarnation first.
async fn list(config: &Config, name: &DatabaseName, store: &StoreName) -> anyhow::Result<Vec<Listed>> {
    let repository = wiring::repository(config, store).await?;
    let mut listed = Vec::new();
    for record in repository.incarnations(name).await? {
        let reader = Reader::new(&repository, &record)?;
        for id in backup::list(&reader).await? {
            let standing = backup::standing(&reader, id).await?;
            let range = standing.complete;
            listed.push(Listed {
                database: name.clone(),
                store: store.to_string(),
                incarnation: record.incarnation.to_string(),
                incarnation_number: record.number,
                id,
                label: standing.opening.label,
                started: standing.opening.started,
                finished: range.and_then(|range| DateTime::from_timestamp_micros(range.written_at)),
                stored_bytes: backup::stored_bytes(&reader, id).await?,
                // Information: a table that does not read is verify's to name.
                database_bytes: backup::database_bytes(&reader, id).await.unwrap_or_default(),
                refers_to: standing.opening.refers,
                host: standing.opening.host,
                // Without a manifest it may run, or have been cut off: the store does not tell, and no restore uses it.
                state: if range.is_some() { "complete" } else { "unfinished" },
                timeline: range.map(|range| range.start.timeline.get()),
                start: range.map(|range| range.start.offset.to_string()),
                end: range.map(|range| range.end.offset.to_string()),
                sealed: range.map(|range| range.sealed),
            });
        }
    }
    listed.sort_by(|a, b| a.started.cmp(&b.started));
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_listed_with_when_it_ended_and_what_it_takes_and_one_that_did_not_end_with_neither_claimed()
    {
        let mut listed = Listed {
            database: "orders".parse().unwrap(),
            store: "main".to_owned(),
            incarnation: String::new(),
            incarnation_number: 3,
            id: BackupId::from_bytes([1; 16]),
            label: "taken because there was none".to_owned(),
            started: "2026-07-01T12:00:00.123456789+00:00".to_owned(),
            finished: Some("2026-07-01T12:05:00Z".parse().unwrap()),
            stored_bytes: 4096,
            database_bytes: Some(8192),
            refers_to: vec![BackupId::from_bytes([2; 16])],
            host: String::new(),
            state: "complete",
            timeline: Some(1),
            start: None,
            end: None,
            sealed: Some(false),
        };
        let berlin = Zone::of(Some(chrono_tz::Europe::Berlin));
        let cells = listed.cells(berlin);
        assert_eq!(cells.len(), Listed::HEADER.len());
        assert_eq!(cells[2], "3");
        assert_eq!(cells[5..8], ["2026-07-01T14:00:00+02:00", "2026-07-01T14:05:00+02:00", "4096"]);
        assert_eq!(cells[8..10], ["8192", "1 backup"]);
        listed.finished = None;
        assert_eq!(listed.cells(Zone::UTC)[5..8], ["2026-07-01T12:00:00Z", "-", "4096"]);
    }
}
