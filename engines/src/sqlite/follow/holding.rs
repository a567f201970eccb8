//! Coming to hold the log, by a row of our own, and seeing that nothing came between what was shipped and that row.
//!
//! What always holds: while [`Follower::follow`] runs, a read of ours is held; it began behind what was shipped, with writers held.

use std::io;
use std::time::{Duration, Instant};

use super::anew::MOST_REST_BYTES;
use super::{FollowError, Follower, Listener, Log, Next, proof};
use crate::sqlite::hold::{Beat, Bridge, Turn};
use crate::sqlite::wal_file::Encoder;

/// How long writers are waited for before a read is first held.
pub(super) const FIRST_PATIENCE: Duration = Duration::from_secs(30);

impl<L: Listener> Follower<'_, L> {
    /// Holds for the first time, behind all that there is.
    pub(super) fn first_hold(&mut self) -> Result<Next, FollowError> {
        loop {
            if !self.fresh {
                self.look()?;
            }
            match self.hold(FIRST_PATIENCE, How::Behind, beat()?) {
                Ok(Some(held)) => return held,
                Ok(None) => {}
                Err(FollowError::Hold(why)) if why.is_busy() && self.listener.listens() => {}
                Err(why) => return Err(why),
            }
        }
    }

    #[allow(clippy::type_complexity)] // whether it was held, and what came of that
    pub(super) fn hold(
        &mut self,
        patience: Duration,
        how: How,
        row: Beat,
    ) -> Result<Option<Result<Next, FollowError>>, FollowError> {
        let connections = self.connections;
        let mut turn = Holding { follower: self, how, since: None };
        connections.hold(patience, row, &mut turn)
    }

    /// Whether the row that was just written is the next transaction, in the log as it was or in one begun anew: then nothing lies
    /// between what was shipped and it.
    fn find_row(&mut self, beat: Beat) -> Result<Row, FollowError> {
        let before = self.log.take();
        let now = match before {
            Some(Log { wal, shipped, .. }) if wal.is_in_place()? => {
                wal.header()?.map(|header| (wal, header, Some(shipped)))
            }
            Some(_) => None,
            None => proof::open(self.connections)?.map(|(wal, header)| (wal, header, None)),
        };
        let Some((wal, header, shipped)) = now else {
            return Err(self.doubt("its log is another one than a moment ago"));
        };
        let (from, row) = match shipped {
            Some(shipped) if shipped.salts == header.salts => (shipped, Row::Behind),
            Some(shipped) if header.salts.follow(shipped.salts) => {
                self.taken.begun_anew += 1;
                (header.begin(), Row::First)
            }
            Some(_) => return Err(self.doubt("its log was begun anew more than once")),
            None => (header.begin(), Row::First),
        };
        let mut fresh = wal.transactions(header, from, self.connections.counted()?.frames);
        let ours = match fresh.next()? {
            // The bytes are new: nobody else can have them.
            Some(transaction) => Encoder { wal: &wal, header }.holds(&transaction, &beat)?,
            None => false,
        };
        if !ours {
            return Err(self.doubt("another transaction came before ours"));
        }
        self.log = Some(Log { wal, header, shipped: from });
        Ok(row)
    }
}

/// Where a row of ours came to stand.
enum Row {
    /// Behind what was shipped.
    Behind,
    /// It began the log anew.
    First,
}

/// How the log comes to be held.
#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    /// Behind all that there is, for the first time.
    Behind,
    /// By a row that begins it anew, while this bridge holds it until then.
    Anew(Bridge),
    /// By a row that stands wherever it comes to stand, since this bridge holds the log until then.
    AsItIs(Bridge),
}

struct Holding<'f, 'a, L> {
    follower: &'f mut Follower<'a, L>,
    how: How,
    since: Option<Instant>,
}

impl<L: Listener> Turn for Holding<'_, '_, L> {
    type Held = Result<Next, FollowError>;
    type Error = FollowError;

    fn before(&mut self) -> Result<bool, FollowError> {
        self.since = Some(Instant::now());
        let follower = &mut *self.follower;
        match self.how {
            How::Behind if follower.fresh => follower.begin_here().map(|()| true),
            How::Behind if follower.rest_is_within(MOST_REST_BYTES)? => {
                follower.hurried(Follower::look)?;
                Ok(true)
            }
            How::Behind => Ok(false),
            How::Anew(bridge) => {
                let counted = follower.connections.counted()?;
                let shipped = follower.log.as_ref().map_or(0, |log| log.shipped.frames);
                let nothing_behind = counted.frames == bridge.frames && shipped == counted.frames;
                if !nothing_behind || counted.copied != counted.frames {
                    return Ok(false);
                }
                follower.connections.end_bridge(bridge)?;
                Ok(true)
            }
            How::AsItIs(_) => Ok(true),
        }
    }

    fn held(&mut self, beat: Beat) -> Result<Next, FollowError> {
        if let Some(since) = self.since {
            self.follower.taken.held(since.elapsed());
        }
        match self.how {
            How::AsItIs(bridge) => {
                self.follower.connections.end_bridge(bridge)?;
                self.follower.connections.copy_back()?;
            }
            How::Behind => {
                self.follower.find_row(beat)?;
            }
            How::Anew(_) => {
                if let Row::Behind = self.follower.find_row(beat)? {
                    // It did not begin the log anew, so no log that is begun anew later may be known by it.
                    if !self.follower.keep(self::beat()?).unwrap_or(false) {
                        self.follower.recent.void()?;
                    }
                }
            }
        }
        self.follower.follow()
    }
}

/// New bytes that no other transaction has.
pub(super) fn beat() -> Result<Beat, FollowError> {
    let mut beat = [0; 16];
    getrandom::fill(&mut beat).map_err(|why| io::Error::other(why.to_string()))?;
    Ok(beat)
}
