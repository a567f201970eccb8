//! Bytes that are in hand: of creates that arrive, and of answers that were not read yet.
//!
//! What always holds: of one connection no more than `IN_HAND_KIB` in each direction, and nobody waits without an end for a place or for the next bytes.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farshore_journal::store::remote::wire::{Answer, MOST_BYTES, Word};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes in hand at once of one connection, in units of a KiB: of creates, and of answers that were not read yet. The largest object fits.
pub(super) const IN_HAND_KIB: usize = 2 * (MOST_BYTES >> 10) as usize;
/// How long the bytes of a create may take to come, and per MiB of them more; and how long the next of them.
const BODY: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(4));
const NEXT_BYTES: Duration = Duration::from_secs(10);
/// How long somebody may wait until others' bytes are out of hand.
const PLACE: Duration = Duration::from_secs(20);

/// The body of an answer, with its place among those that were not read yet.
pub(super) struct Held {
    body: Full<Bytes>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Held {
    pub(super) fn new(body: Bytes, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { body: Full::new(body), _place: place }
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// So many bytes, in units of a KiB.
pub(super) fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024).max(1)).unwrap_or(u32::MAX)
}

/// That he is to ask again later.
pub(super) fn busy() -> Answer {
    Answer::refused(Word::Busy, "too much is in hand already")
}

/// A place for so many units.
///
/// # Errors
/// When others keep theirs for too long.
pub(super) async fn place(of: &Arc<Semaphore>, units: u32) -> Result<OwnedSemaphorePermit, Answer> {
    match tokio::time::timeout(PLACE, Arc::clone(of).acquire_many_owned(units)).await {
        Ok(Ok(place)) => Ok(place),
        _ => Err(busy()),
    }
}

/// The bytes of a create, and their place among those in hand.
pub(super) async fn whole(
    puts: &Arc<Semaphore>,
    mut body: Incoming,
    length: u64,
) -> Result<(Bytes, OwnedSemaphorePermit), Answer> {
    if length > MOST_BYTES {
        let why = format!("an object has at most {MOST_BYTES} bytes");
        return Err(Answer::refused(Word::Malformed, why));
    }
    let other = |why: &str| Answer::refused(Word::Malformed, format!("its bytes: {why}"));
    let place = place(puts, units(length)).await?;
    let read = async {
        let length = usize::try_from(length).map_err(|_| other("too many"))?;
        let mut bytes = BytesMut::with_capacity(length);
        loop {
            let next = tokio::time::timeout(NEXT_BYTES, body.frame()).await;
            let Some(frame) = next.map_err(|_| other("they stopped"))? else { break };
            let frame = frame.map_err(|why| other(&why.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > length {
                return Err(other("they are more than it says"));
            }
            bytes.extend_from_slice(&data);
        }
        match bytes.len() == length {
            true => Ok(bytes.freeze()),
            false => Err(other("they are fewer than it says")),
        }
    };
    let mib = u32::try_from(length >> 20).unwrap_or(u32::MAX);
    let bytes = tokio::time::timeout(BODY.0 + BODY.1 * mib, read).await;
    bytes.unwrap_or_else(|_| Err(other("they took too long"))).map(|bytes| (bytes, place))
}
