//! The messages of a base backup.
//!
//! ```text
//! 15 on:  Start ─▶ Tablespaces ─▶ Tagged (one copy: 'n' archive, 'd' data, 'm' manifest, 'p' progress) ─▶ End ─▶ Done
//! 14:     Start ─▶ Tablespaces ─▶ Plain (a copy per tablespace, then one for the manifest) ─────────────▶ End ─▶ Done
//! ```
//! What always holds: a message that is out of order fails the backup; a server silent for
//! [`BackupOptions::stall_timeout`] is an error; [`BackupEvent::Finished`] comes only after the server completed the
//! command, or completed it but for damaged pages.
//!
//! Dropping the stream closes the connection, and the server ends the backup at its next message.

use bytes::{Buf, Bytes};
use farshore_journal::{Position, Timeline};
use tokio::time::{Instant, timeout_at};

use super::options::BackupOptions;
use crate::postgres::wire::{
    Connection, Error, Frame, ServerMessage, field, optional, parse_row, server_message, text,
};

const WHAT: &str = "BASE_BACKUP";
/// More tablespaces than anyone has.
const MAX_TABLESPACES: usize = 10_000;

/// A tablespace of a backup. The main data directory is one of them, without oid and location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Its number; `None` for the main data directory.
    pub oid: Option<u32>,
    /// Where it lies on the server.
    pub location: Option<String>,
    /// Its size as the server estimated it, when progress was asked for.
    pub size_bytes: Option<u64>,
}

/// What a base backup brings, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupEvent {
    /// The copy begins: replay must start here.
    Started {
        /// Start of the log that the backup needs.
        start: Position,
        /// What is copied.
        tablespaces: Vec<Tablespace>,
    },
    /// The tar archive of a tablespace begins, and the one before ends.
    Archive {
        /// Which tablespace; `None` for the main data directory.
        tablespace: Option<u32>,
    },
    /// Bytes of the archive.
    Data(Bytes),
    /// Bytes of the manifest; the last archive has ended.
    Manifest(Bytes),
    /// How many bytes the server has read (from major 15 on, when asked for).
    Progress(u64),
    /// The copy is whole.
    Finished {
        /// Replay must reach this, or the copy is not consistent.
        end: Position,
        /// The server met pages with a wrong checksum: what was copied is damaged there.
        damaged: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum Stage {
    Start {
        start: Option<Position>,
    },
    Tablespaces {
        start: Position,
        found: Vec<Tablespace>,
    },
    Tagged {
        manifest: bool,
    },
    /// The archives to come, the next one last; then the manifest.
    Plain {
        left: Vec<Option<u32>>,
        copying: Copying,
    },
    End {
        end: Option<Position>,
        damaged: bool,
    },
    Done,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copying {
    Nothing,
    Archive,
    Manifest,
}

/// A base backup under way.
#[derive(Debug)]
pub struct BackupStream {
    connection: Connection,
    stage: Stage,
    options: BackupOptions,
    listening: Option<Instant>,
}

impl BackupStream {
    /// Asks the server for a base backup.
    ///
    /// # Errors
    /// When the connection was abandoned before; all else comes from [`Self::next_event`].
    pub fn start(mut connection: Connection, options: BackupOptions) -> Result<Self, Error> {
        connection.begin(WHAT, &options.command(connection.server_version().major))?;
        Ok(Self { connection, stage: Stage::Start { start: None }, options, listening: None })
    }

    /// The next event. After [`BackupEvent::Finished`], [`Self::into_connection`] gives the connection back.
    ///
    /// # Errors
    /// Whatever breaks the copy. The backup is over after any error.
    ///
    /// # Cancel safety
    /// May be dropped and asked again at any point; nothing is lost.
    pub async fn next_event(&mut self) -> Result<BackupEvent, Error> {
        loop {
            if matches!(self.stage, Stage::Done | Stage::Failed) {
                return Err(Error::Closed { what: WHAT });
            }
            let waited = match self.stage {
                Stage::Start { .. } | Stage::Tablespaces { .. } => self.options.start_timeout,
                _ => self.options.stall_timeout,
            };
            let listening = *self.listening.get_or_insert_with(Instant::now);
            let next = timeout_at(listening + waited, self.connection.next_frame()).await;
            self.listening = None;
            let taken = match next {
                Err(_) => Err(Error::NoAnswer { what: WHAT, waited }),
                Ok(Err(source)) => Err(Error::Transfer { what: WHAT, source }),
                Ok(Ok(None)) => Err(Error::Closed { what: WHAT }),
                Ok(Ok(Some(frame))) => self.take(frame),
            };
            match taken {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(error) => {
                    self.stage = Stage::Failed;
                    return Err(error);
                }
            }
        }
    }

    /// The connection, ready for commands.
    ///
    /// # Errors
    /// When the backup has not finished.
    pub fn into_connection(mut self) -> Result<Connection, Error> {
        if self.stage != Stage::Done {
            return Err(Error::Abandoned);
        }
        self.connection.finish();
        Ok(self.connection)
    }

    fn take(&mut self, Frame { tag, mut body }: Frame) -> Result<Option<BackupEvent>, Error> {
        let major = self.connection.server_version().major;
        match (&mut self.stage, tag) {
            (_, b'N' | b'S' | b'A') => return Ok(None),
            (stage, b'E') => return refused(stage, server_message(body)).map(|()| None),
            (Stage::Start { start: None } | Stage::Tablespaces { .. }, b'T') => {}
            (Stage::Start { start: start @ None }, b'D') => *start = Some(position(body)?),
            (Stage::Start { start: Some(start) }, b'C') => {
                self.stage = Stage::Tablespaces { start: *start, found: Vec::new() };
            }
            (Stage::Tablespaces { found, .. }, b'D') if found.len() < MAX_TABLESPACES => {
                found.push(tablespace(body)?);
            }
            (Stage::Tablespaces { start, found }, b'C') => {
                let (start, tablespaces) = (*start, std::mem::take(found));
                self.stage = if major <= 14 {
                    let left = tablespaces.iter().rev().map(|tablespace| tablespace.oid).collect();
                    Stage::Plain { left, copying: Copying::Nothing }
                } else {
                    Stage::Tagged { manifest: false }
                };
                return Ok(Some(BackupEvent::Started { start, tablespaces }));
            }
            (Stage::Tagged { .. }, b'H') => {}
            (Stage::Tagged { manifest }, b'd') => return tagged(manifest, body).map(Some),
            (Stage::Tagged { manifest: true }, b'c') => {
                self.stage = Stage::End { end: None, damaged: false };
            }
            (Stage::Plain { left, copying: copying @ Copying::Nothing }, b'H') => match left.pop() {
                Some(tablespace) => {
                    *copying = Copying::Archive;
                    return Ok(Some(BackupEvent::Archive { tablespace }));
                }
                None => *copying = Copying::Manifest,
            },
            (Stage::Plain { copying: Copying::Archive, .. }, b'd') => {
                return Ok(Some(BackupEvent::Data(body)));
            }
            (Stage::Plain { copying: Copying::Manifest, .. }, b'd') => {
                return Ok(Some(BackupEvent::Manifest(body)));
            }
            (Stage::Plain { copying: copying @ Copying::Archive, .. }, b'c') => *copying = Copying::Nothing,
            (Stage::Plain { copying: Copying::Manifest, .. }, b'c') => {
                self.stage = Stage::End { end: None, damaged: false };
            }
            (Stage::End { .. }, b'T' | b'C') => {}
            (Stage::End { end: end @ None, .. }, b'D') => *end = Some(position(std::mem::take(&mut body))?),
            (Stage::End { end: Some(end), damaged }, b'Z') => {
                let finished = BackupEvent::Finished { end: *end, damaged: *damaged };
                self.stage = Stage::Done;
                return Ok(Some(finished));
            }
            _ => return Err(malformed(&format!("an unexpected message of kind {tag:#04x}"))),
        }
        Ok(None)
    }
}

/// An error ends the backup, but for the one that comes when all is sent: some pages were damaged.
///
/// Source: `perform_base_backup` in PostgreSQL's `basebackup.c`: XX001 (data corrupted) follows the end position.
fn refused(stage: &mut Stage, message: Box<ServerMessage>) -> Result<(), Error> {
    match stage {
        Stage::End { end: Some(_), damaged } if message.code == "XX001" => {
            *damaged = true;
            Ok(())
        }
        _ => Err(Error::Server { what: WHAT, message }),
    }
}

fn tagged(manifest: &mut bool, mut body: Bytes) -> Result<BackupEvent, Error> {
    match (body.try_get_u8(), *manifest) {
        (Ok(b'n'), false) => {
            let name = text(&mut body).ok_or_else(|| malformed("an archive without a name"))?;
            text(&mut body).ok_or_else(|| malformed("an archive without a location"))?;
            let tablespace = match name.strip_suffix(".tar") {
                Some("base") => None,
                Some(oid) => Some(oid.parse().map_err(|_| malformed("an archive of no tablespace"))?),
                None => return Err(malformed("an archive that is not tar")),
            };
            Ok(BackupEvent::Archive { tablespace })
        }
        (Ok(b'm'), false) => {
            *manifest = true;
            Ok(BackupEvent::Manifest(body))
        }
        (Ok(b'd'), false) => Ok(BackupEvent::Data(body)),
        (Ok(b'd'), true) => Ok(BackupEvent::Manifest(body)),
        (Ok(b'p'), _) => {
            body.try_get_u64().map(BackupEvent::Progress).map_err(|_| malformed("a malformed progress"))
        }
        _ => Err(malformed("an unexpected part of the copy")),
    }
}

fn position(body: Bytes) -> Result<Position, Error> {
    let row = parse_row(WHAT, body)?;
    let timeline: Timeline = field(WHAT, &row, 1)?;
    Ok(Position::new(timeline, field(WHAT, &row, 0)?))
}

fn tablespace(body: Bytes) -> Result<Tablespace, Error> {
    let row = parse_row(WHAT, body)?;
    let size_kib: Option<u64> = optional(WHAT, &row, 2)?;
    Ok(Tablespace {
        oid: optional(WHAT, &row, 0)?,
        location: optional(WHAT, &row, 1)?,
        size_bytes: size_kib.map(|kib| kib.saturating_mul(1024)),
    })
}

fn malformed(problem: &str) -> Error {
    Error::protocol(WHAT, problem)
}
