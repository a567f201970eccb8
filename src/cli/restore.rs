//! The arguments of `farshore restore`, and what they mean once clap has taken them.
//!
//! What always holds: exactly one target and exactly one destination; restoring in place needs the database's name
//! typed a second time; a server is given a port only when it is started.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Args, ValueEnum};
use farshore_journal::{DatabaseName, IncarnationId, Offset, Position};

use crate::cli::time::Moment;
use crate::config::StoreName;

/// What `--pos` was given: with a timeline, or on the newest that reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogPoint {
    /// On the timeline named.
    On(Position),
    /// Without a timeline; refused later if more than one timeline passes it.
    Anywhere(Offset),
}

impl FromStr for LogPoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed =
            if text.contains(':') { text.parse().map(Self::On) } else { text.parse().map(Self::Anywhere) };
        parsed.map_err(|_| {
            "not a log position; write 5F/3AA7B9A0, or 4:5F/3AA7B9A0 with its timeline".to_owned()
        })
    }
}

/// Which incarnation of a database: by the number that its store gives it, or by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incarnation {
    /// The number, from 0 on; each store counts by itself.
    Number(u64),
    /// The id.
    Id(IncarnationId),
}

impl FromStr for Incarnation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = || text.parse().map(Self::Number);
        text.parse()
            .map(Self::Id)
            .or_else(|_| number())
            .map_err(|_| "not an incarnation; write its number, as 0, or the 32 letters of its id".to_owned())
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Id(id) => id.fmt(f),
        }
    }
}

/// Which of a database's histories is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct History {
    /// The store to read from; without it the first of the database's stores that holds it
    #[arg(long, value_name = "NAME")]
    pub store: Option<StoreName>,
    /// The incarnation, by its number or id; without it the newest
    #[arg(long, value_name = "N_OR_ID")]
    pub incarnation: Option<Incarnation>,
}

/// Where a tablespace goes: `16412=/srv/fast` or `/old/path=/srv/fast`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablespaceMove {
    /// Which one.
    pub from: TablespaceRef,
    /// Its new place, absolute.
    pub to: PathBuf,
}

/// A tablespace, by its number or its old place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TablespaceRef {
    /// By number.
    Oid(u32),
    /// By the directory it had.
    Path(PathBuf),
}

impl FromStr for TablespaceMove {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || "write OID=/NEW/PATH or /OLD/PATH=/NEW/PATH".to_owned();
        let (from, to) = text.split_once('=').ok_or_else(bad)?;
        let to = PathBuf::from(to);
        let from = match from.parse::<u32>() {
            Ok(oid) if oid > 0 => TablespaceRef::Oid(oid),
            _ if from.starts_with('/') => TablespaceRef::Path(from.into()),
            _ => return Err(bad()),
        };
        if !to.is_absolute() {
            return Err(bad());
        }
        Ok(Self { from, to })
    }
}

/// What a restored server does once it has reached its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Then {
    /// Stays read-only at the target, so that one can look first.
    Pause,
    /// Opens for writing on a new timeline.
    Promote,
    /// Stops.
    Shutdown,
}

/// `farshore restore`
#[derive(Debug, Clone, Args)]
#[command(
    group(ArgGroup::new("target").required(true).multiple(false)),
    group(ArgGroup::new("destination").required(true).multiple(false)),
)]
pub struct RestoreArgs {
    /// The database whose history is restored
    #[arg(value_name = "DB")]
    pub database: DatabaseName,

    /// To the newest commit that is stored
    #[arg(long, group = "target")]
    pub latest: bool,
    /// To just before the first commit later than TIME: 2026-03-29T14:05:00Z or "2026-03-29 16:05[Europe/Berlin]"
    #[arg(long, group = "target", value_name = "TIME")]
    pub at: Option<Moment>,
    /// To every record that ends at or before this log position: 5F/3AA7B9A0 or 4:5F/3AA7B9A0
    #[arg(long, group = "target", value_name = "POSITION")]
    pub pos: Option<LogPoint>,
    /// To the commit of this 64-bit transaction id
    #[arg(long, group = "target", value_name = "XID")]
    pub xid: Option<u64>,
    /// To a named recovery point
    #[arg(long, group = "target", value_name = "NAME")]
    pub point: Option<String>,

    /// Restore into this new or empty directory
    #[arg(long, group = "destination", value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Restore over the database itself; needs --confirm
    #[arg(long, group = "destination", requires = "confirm")]
    pub in_place: bool,
    /// The database's name once more, to restore in place
    #[arg(long, value_name = "NAME", requires = "in_place")]
    pub confirm: Option<String>,

    /// Which history
    #[command(flatten)]
    pub history: History,
    /// Begin an interrupted restore into the same directory anew: what it wrote is removed first
    #[arg(long, requires = "to", conflicts_with = "dry_run")]
    pub resume: bool,
    /// Show the plan and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Have a service on this machine restore, beneath one of its `restore_roots`; `farshore job watch` follows it
    #[arg(long, requires = "to", conflicts_with_all = ["dry_run", "resume", "tablespaces"])]
    pub no_wait: bool,
    /// Start the server once its files are in place
    #[arg(long, requires = "port")]
    pub start: bool,
    /// The port of the started server
    #[arg(long, value_name = "N", requires = "start", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// What the server does at the target
    #[arg(long, value_enum, default_value = "pause")]
    pub then: Then,
    /// A new place for a tablespace; may be given several times
    #[arg(long = "tablespace", value_name = "OID_OR_PATH=NEW")]
    pub tablespaces: Vec<TablespaceMove>,
}

/// What the restore aims at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The newest stored commit.
    Latest,
    /// Just before the first commit later than this.
    At(Moment),
    /// A log position.
    Pos(LogPoint),
    /// A transaction.
    Xid(u64),
    /// A named recovery point.
    Point(String),
}

/// Where the restore writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A new place.
    To(PathBuf),
    /// Over the database itself, confirmed by name.
    InPlace,
}

impl RestoreArgs {
    /// The one target; `None` only if clap's group was not asked.
    pub fn target(&self) -> Option<Target> {
        let given = [
            self.latest.then_some(Target::Latest),
            self.at.map(Target::At),
            self.pos.map(Target::Pos),
            self.xid.map(Target::Xid),
            self.point.clone().map(Target::Point),
        ];
        let mut given = given.into_iter().flatten();
        given.next().filter(|_| given.next().is_none())
    }

    /// The one destination. In place only when the name was typed again, letter for letter.
    pub fn destination(&self) -> Option<Destination> {
        match (&self.to, self.in_place) {
            (Some(to), false) => Some(Destination::To(to.clone())),
            (None, true) if self.confirm.as_deref() == Some(self.database.as_str()) => {
                Some(Destination::InPlace)
            }
            _ => None,
        }
    }
}
