//! Is a pushed file stored, and in how many stores? What both ways of `wal push` ask, the service's and its own.

use std::path::Path;

use farshore_engines::postgres::log::file_name::LogFileName;
use farshore_engines::postgres::log::{LogDecoder, SegmentBytes};
use farshore_journal::reader::Reader;
use farshore_journal::{DatabaseName, Position};
use farshore_shipper::push::{self, Pushed};

use crate::config::{Config, StoreName};
use crate::wiring;

/// Stores that hold a file, and why others do not, over several looks.
#[derive(Debug, Default)]
pub struct Counted {
    stored: Vec<StoreName>,
    never: Vec<(StoreName, String)>,
    waiting: Option<String>,
    /// Whether a file that will never be held counts as held: the operator said so.
    pass_unheld: bool,
}

impl Counted {
    /// A count that begins; `pass_unheld` as the flag of `wal push` says.
    pub fn new(pass_unheld: bool) -> Self {
        Self { pass_unheld, ..Self::default() }
    }

    /// Looks at the stores that have not said a last word yet and that `reached` says may have it. Whether as many hold it as are
    /// required.
    ///
    /// # Errors
    /// When so many will never hold it that the others are not enough.
    pub async fn look(
        &mut self,
        config: &Config,
        name: &DatabaseName,
        path: &Path,
        reached: impl Fn(usize) -> bool,
    ) -> anyhow::Result<bool> {
        let Some(settings) = config.databases.get(name) else { anyhow::bail!("{name} is not configured") };
        for (at, store) in settings.stores.iter().enumerate() {
            if self.stored.contains(store) || self.never.iter().any(|(never, _)| never == store) {
                continue;
            }
            if !reached(at) {
                self.waiting = Some(format!("{store} does not hold it yet"));
                continue;
            }
            match in_store(config, name, store, path).await {
                Ok(Pushed::Stored) => self.stored.push(store.clone()),
                Ok(Pushed::NotYet { stored: Some(at) }) => {
                    self.waiting = Some(format!("{store} holds the journal up to {at}"));
                }
                Ok(Pushed::NotYet { stored: None }) => {
                    self.waiting = Some(format!("{store} holds nothing yet"))
                }
                Ok(Pushed::NeverHeld { at }) if self.pass_unheld => {
                    tracing::warn!(database = %name, store = %store, file = %path.display(), from = %at,
                        "a file passes whose log the journal does not hold and never will");
                    self.stored.push(store.clone());
                }
                Ok(Pushed::NeverHeld { at }) => {
                    let why = format!(
                        "{store} does not hold the log from {at} on, and never will (--pass-unheld lets such a file pass)"
                    );
                    self.never.push((store.clone(), why));
                }
                Ok(Pushed::Differs { from, to }) => {
                    self.never
                        .push((store.clone(), format!("{store} holds other bytes from {from} to {to}")));
                }
                // One store that is away is no reason to refuse what enough others hold.
                Err(why) => self.waiting = Some(format!("{store}: {why:#}")),
            }
        }
        if self.stored.len() >= settings.required() {
            return Ok(true);
        }
        match self.never.first() {
            Some((_, why)) if settings.stores.len() - self.never.len() < settings.required() => {
                anyhow::bail!("{why}")
            }
            _ => Ok(false),
        }
    }

    /// Why it is not stored yet.
    pub fn why(&self) -> String {
        let never = self.never.first().map(|(_, why)| why.clone());
        self.waiting.clone().or(never).unwrap_or_else(|| "no store was asked".to_owned())
    }
}

/// What one store says of the file. The journal holds histories of its own, and what a backup file says it does not need.
///
/// # Errors
/// When the store or the file does not read.
pub async fn in_store(
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
            let bytes = tokio::fs::read(path).await?;
            return Ok(push::check_history(&reader, timeline, &bytes).await?);
        }
        LogFileName::Backup { .. } => return Ok(Pushed::Stored),
    };
    let mut bytes = tokio::fs::read(path).await?;
    if partial {
        // A promoted server archives the old timeline's last segment under this name: its log ends at the fork, which the new
        // timeline's chunk names. A sibling that was promoted elsewhere has more, or lies behind the fork: all of its log must be
        // held, and what a record's rest leaves behind the last whole one is no log.
        let Some(last) = reader.last().await? else { return Ok(Pushed::NotYet { stored: None }) };
        let stored = last.header().end_position();
        if stored.timeline <= segment.timeline() {
            return Ok(Pushed::NotYet { stored: Some(stored) });
        }
        let timeline = segment.timeline();
        let behind = reader.first_where(last.header().number, |header| header.timeline > timeline).await?;
        let fork = behind.header().start;
        let shape = push::shape(&record)?;
        let mut decoder = LogDecoder::new(shape, Position::new(timeline, segment.start()))?;
        // It ends with an error where its log ends.
        let _ends = decoder.push(&bytes, &mut |_| {});
        let log_end = decoder.checked_end().map_or(fork, |checked| checked.max(fork));
        match log_end.bytes_since(segment.start()).filter(|log| *log > 0) {
            Some(log) => bytes.truncate(usize::try_from(log)?),
            None => return Ok(Pushed::NeverHeld { at: segment.start() }),
        }
    }
    Ok(push::check(&reader, segment.timeline(), segment.start(), &bytes).await?)
}
