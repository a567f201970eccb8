//! The settings that decide whether a server can be protected, and how.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use super::session::{Session, column};
use crate::postgres::wire::Error;

const WHAT: &str = "the settings";

const NAMES: [&str; 17] = [
    "wal_level",
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "synchronous_standby_names",
    "max_wal_senders",
    "max_replication_slots",
    "wal_segment_size",
    "block_size",
    "max_slot_wal_keep_size",
    "idle_replication_slot_timeout",
    "archive_mode",
    "archive_command",
    "wal_sender_timeout",
    "data_checksums",
    "data_directory",
    "wal_keep_size",
];

/// A server's settings.
///
/// Source: <https://www.postgresql.org/docs/current/runtime-config.html>,
/// <https://www.postgresql.org/docs/current/view-pg-settings.html>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `minimal`, `replica` or `logical`; protection needs one of the last two.
    pub wal_level: String,
    /// Off means that the server itself loses data in a crash.
    pub fsync: bool,
    /// Off means that a page torn by a crash, or by a backup, cannot be repaired.
    pub full_page_writes: bool,
    /// What a commit waits for.
    pub synchronous_commit: String,
    /// Whom a commit waits for.
    pub synchronous_standby_names: String,
    /// How many connections may stream.
    pub max_wal_senders: u64,
    /// How many slots there may be.
    pub max_replication_slots: u64,
    /// A log segment's size.
    pub wal_segment_bytes: u64,
    /// A page's size; farshore knows 8 KiB only.
    pub block_bytes: u64,
    /// How much log a slot may hold back; `None` is without limit.
    pub max_slot_wal_keep_bytes: Option<u64>,
    /// How long a slot may go unused (from major 18 on); `None` is without limit.
    pub idle_replication_slot_timeout: Option<Duration>,
    /// How much log is kept whatever the slots say.
    pub wal_keep_bytes: u64,
    /// `off`, `on` or `always`.
    pub archive_mode: String,
    /// The archiver's command.
    pub archive_command: String,
    /// How long the server waits for a sign of life from us; `None` is for ever.
    pub wal_sender_timeout: Option<Duration>,
    /// Whether pages carry checksums.
    pub data_checksums: bool,
    /// Where its files are, if our role may know.
    pub data_directory: Option<PathBuf>,
}

impl Session {
    /// The settings that the checks look at.
    ///
    /// # Errors
    /// When the server does not answer, or hides one of them.
    pub async fn settings(&self) -> Result<Settings, Error> {
        let statement = "select name, setting, unit from pg_settings where name = any($1)";
        let rows = self.rows(WHAT, statement, &[&NAMES.as_slice()]).await?;
        let mut found = HashMap::new();
        for row in &rows {
            let setting: Option<String> = column(WHAT, row, "setting")?;
            let unit: Option<String> = column(WHAT, row, "unit")?;
            found.insert(column::<String>(WHAT, row, "name")?, (setting.unwrap_or_default(), unit));
        }
        Found(found).settings()
    }

    /// Every setting that our role may see, as text and in its own unit. What a managed service adds shows here too.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn settings_all(&self) -> Result<BTreeMap<String, String>, Error> {
        let rows =
            self.rows(WHAT, "select name, setting from pg_settings where setting is not null", &[]).await?;
        rows.iter().map(|row| Ok((column(WHAT, row, "name")?, column(WHAT, row, "setting")?))).collect()
    }
}

/// Settings by name, with the unit they are counted in.
struct Found(HashMap<String, (String, Option<String>)>);

impl Found {
    fn settings(&self) -> Result<Settings, Error> {
        Ok(Settings {
            wal_level: self.text("wal_level")?,
            fsync: self.switch("fsync")?,
            full_page_writes: self.switch("full_page_writes")?,
            synchronous_commit: self.text("synchronous_commit")?,
            synchronous_standby_names: self.text("synchronous_standby_names")?,
            max_wal_senders: self.count("max_wal_senders")?,
            max_replication_slots: self.count("max_replication_slots")?,
            wal_segment_bytes: self.count("wal_segment_size")?,
            block_bytes: self.count("block_size")?,
            // Source: the manual's page on replication settings: -1 is without limit.
            max_slot_wal_keep_bytes: self.scaled("max_slot_wal_keep_size")?,
            // Source: the same: 0 switches it off.
            idle_replication_slot_timeout: match self.0.contains_key("idle_replication_slot_timeout") {
                true => self.period("idle_replication_slot_timeout")?,
                false => None,
            },
            wal_keep_bytes: self.count("wal_keep_size")?,
            archive_mode: self.text("archive_mode")?,
            archive_command: self.text("archive_command")?,
            wal_sender_timeout: self.period("wal_sender_timeout")?,
            data_checksums: self.switch("data_checksums")?,
            data_directory: self.0.get("data_directory").map(|(text, _)| PathBuf::from(text)),
        })
    }

    fn get(&self, name: &str) -> Result<&(String, Option<String>), Error> {
        self.0.get(name).ok_or_else(|| Error::protocol(WHAT, format!("{name} is not shown")))
    }

    fn text(&self, name: &str) -> Result<String, Error> {
        self.get(name).map(|(text, _)| text.clone())
    }

    fn switch(&self, name: &str) -> Result<bool, Error> {
        self.get(name).map(|(text, _)| text == "on")
    }

    /// In bytes, milliseconds or plain number; `None` for -1.
    fn scaled(&self, name: &str) -> Result<Option<u64>, Error> {
        let (text, unit) = self.get(name)?;
        let odd = || Error::protocol(WHAT, format!("{name} is {text} {}", unit.as_deref().unwrap_or("")));
        if text == "-1" {
            return Ok(None);
        }
        let factor = match unit.as_deref() {
            None | Some("" | "B" | "ms") => 1,
            Some("kB") => 1 << 10,
            Some("8kB") => 8 << 10,
            Some("MB") => 1 << 20,
            Some("s") => 1_000,
            Some("min") => 60_000,
            Some(_) => return Err(odd()),
        };
        let number: u64 = text.parse().map_err(|_| odd())?;
        number.checked_mul(factor).map(Some).ok_or_else(odd)
    }

    fn count(&self, name: &str) -> Result<u64, Error> {
        self.scaled(name)?.ok_or_else(|| Error::protocol(WHAT, format!("{name} is -1")))
    }

    /// A time of which 0 means that there is no limit.
    fn period(&self, name: &str) -> Result<Option<Duration>, Error> {
        Ok(self.scaled(name)?.filter(|millis| *millis > 0).map(Duration::from_millis))
    }
}
/// One row of `pg_settings`, as a backup keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingRow {
    /// Its name.
    pub name: String,
    /// Its value.
    pub setting: String,
    /// Where the value came from.
    pub source: String,
    /// When it can be changed.
    pub context: String,
}

impl Session {
    /// Every setting that our role may see.
    ///
    /// Source: <https://www.postgresql.org/docs/current/view-pg-settings.html>.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn setting_rows(&self) -> Result<Vec<SettingRow>, Error> {
        const WHAT: &str = "pg_settings";
        let statement =
            "select name, coalesce(setting, '') as setting, source, context from pg_settings order by name";
        let rows = self.rows(WHAT, statement, &[]).await?;
        let text = |row: &tokio_postgres::Row, name: &str| column::<String>(WHAT, row, name);
        rows.iter()
            .map(|row| {
                Ok(SettingRow {
                    name: text(row, "name")?,
                    setting: text(row, "setting")?,
                    source: text(row, "source")?,
                    context: text(row, "context")?,
                })
            })
            .collect()
    }

    /// The server's configuration files with their contents, wherever they lie; none where our role may not read files.
    ///
    /// Source: `pg_read_binary_file` in
    /// <https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-GENFILE>.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn config_files(&self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        const WHAT: &str = "pg_read_binary_file";
        let statement = "select setting as path, pg_read_binary_file(setting, 0, 1048576, true) as content
                         from pg_settings where name in ('config_file', 'hba_file', 'ident_file')";
        let rows = match self.rows(WHAT, statement, &[]).await {
            // Insufficient privilege: the settings' values are kept all the same.
            Err(error) if error.code() == Some("42501") => return Ok(Vec::new()),
            rows => rows?,
        };
        let mut files = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Some(content) = column::<Option<Vec<u8>>>(WHAT, row, "content")? {
                files.push((column(WHAT, row, "path")?, content));
            }
        }
        Ok(files)
    }
}
