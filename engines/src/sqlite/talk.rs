//! What the process that follows a database says, and what it is told.
//!
//! ```text
//! a message: kind (1) | bytes of what follows (4, little-endian) | the bytes: raw, or JSON
//! an order:  a line of JSON
//! ```

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::follow::{At, Start, Taken};
use super::wal::PlaceDigest;

/// Most bytes of a message: what is raw is cut into such pieces.
pub const MOST_BYTES: usize = 1 << 20;

/// The build that speaks so: a service and a process that it starts must be one, and a file may be replaced while the service runs.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Bytes before what a message says.
pub const HEAD_BYTES: usize = 5;

/// The first order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The database.
    pub path: PathBuf,
    /// The number of the last transaction that was shipped.
    pub number: u64,
    /// Where its record ends.
    pub offset: u64,
    /// What its place has; `None`: with whatever the database is now.
    pub behind: Option<PlaceDigest>,
    /// The file that keeps records while the log is begun anew.
    pub spool: PathBuf,
    /// Frames of the log from which it is begun anew.
    pub log_frames: u32,
    /// How often the database is looked at.
    pub every: Duration,
    /// [`VERSION`].
    pub version: String,
}

impl Begin {
    /// Where to begin.
    pub fn start(&self) -> Start {
        Start { number: self.number, offset: self.offset, behind: self.behind }
    }
}

/// A later order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tell {
    /// Our log is needed no more up to here.
    Released(u64),
    /// Name the state that is there now.
    Point(String),
    /// Copy the file.
    Base,
    /// End.
    Stop,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Bytes that continue our log.
    Log(Bytes),
    /// All that was committed when the database was looked at was given: our log ends here.
    End(At),
    /// A part of the record of what a copy lacks.
    Beneath(Bytes),
    /// That record is whole, and a copy begins.
    Base(At),
    /// A part of the copy, in order.
    Copy(Bytes),
    /// The copy is whole. Records up to the last [`End`](Self::End) before this are part of it.
    Copied,
    /// The copy broke off, for this reason; following goes on.
    NotCopied(String),
    /// It lives, and this is what it took of the writers so far. Says nothing of the log.
    Alive(Taken),
    /// It was shown that the database goes on from where following begins.
    Proven,
    /// It ends: the log cannot be shown to go on, or something failed.
    Failed(Failed),
}

/// Why a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Nothing shows that the database goes on from where following was to begin, or had come.
    pub doubt: bool,
    /// In words.
    pub why: String,
}

const LOG: u8 = 1;
const END: u8 = 2;
const BENEATH: u8 = 3;
const BASE: u8 = 4;
const COPY: u8 = 5;
const COPIED: u8 = 6;
const ALIVE: u8 = 7;
const FAILED: u8 = 8;
const NOT_COPIED: u8 = 9;
const PROVEN: u8 = 10;

impl Message {
    /// Writes it.
    ///
    /// # Errors
    /// When `out` does not take it.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let json = |kind, value: Result<Vec<u8>, serde_json::Error>| value.map(|value| (kind, value));
        let json = match self {
            Self::Log(bytes) => return raw(out, LOG, bytes),
            Self::Beneath(bytes) => return raw(out, BENEATH, bytes),
            Self::Copy(bytes) => return raw(out, COPY, bytes),
            Self::Copied => return raw(out, COPIED, &[]),
            Self::Proven => return raw(out, PROVEN, &[]),
            Self::NotCopied(why) => json(NOT_COPIED, serde_json::to_vec(why)),
            Self::End(at) => json(END, serde_json::to_vec(at)),
            Self::Base(at) => json(BASE, serde_json::to_vec(at)),
            Self::Alive(taken) => json(ALIVE, serde_json::to_vec(taken)),
            Self::Failed(failed) => json(FAILED, serde_json::to_vec(failed)),
        };
        let (kind, bytes) = json.map_err(io::Error::other)?;
        raw(out, kind, &bytes)
    }

    /// Reads the next one.
    ///
    /// # Errors
    /// When nothing more comes, or it is none.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut head = [0; HEAD_BYTES];
        from.read_exact(&mut head)?;
        let (kind, length) = Self::head(head)?;
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes)?;
        Self::parse(kind, bytes.into())
    }

    /// Its kind, and the bytes of what it says.
    ///
    /// # Errors
    /// When no message is so long.
    pub fn head(head: [u8; HEAD_BYTES]) -> io::Result<(u8, usize)> {
        let [kind, length @ ..] = head;
        match u32::from_le_bytes(length) as usize {
            length if length <= MOST_BYTES => Ok((kind, length)),
            length => Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes"))),
        }
    }

    /// The message of this kind that says this.
    ///
    /// # Errors
    /// When there is none.
    pub fn parse(kind: u8, bytes: Bytes) -> io::Result<Self> {
        Ok(match kind {
            LOG => Self::Log(bytes),
            BENEATH => Self::Beneath(bytes),
            COPY => Self::Copy(bytes),
            COPIED => Self::Copied,
            PROVEN => Self::Proven,
            END => Self::End(serde_json::from_slice(&bytes)?),
            BASE => Self::Base(serde_json::from_slice(&bytes)?),
            ALIVE => Self::Alive(serde_json::from_slice(&bytes)?),
            NOT_COPIED => Self::NotCopied(serde_json::from_slice(&bytes)?),
            FAILED => Self::Failed(serde_json::from_slice(&bytes)?),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of kind {kind}"))),
        })
    }
}

fn raw(out: &mut impl Write, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut head = [kind, 0, 0, 0, 0];
    head[1..].copy_from_slice(&length.to_le_bytes());
    out.write_all(&head)?;
    out.write_all(bytes)
}
