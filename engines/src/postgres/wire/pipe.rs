//! Frames over a socket, both ways, without a copy per message.
//!
//! What always holds: a frame above a bound ([`MAX_FRAME`] unless said otherwise) is refused before it is buffered; reading and writing go on
//! together, so neither end can block the other; every future here may be dropped at any point and asked again
//! (cancel-safe): what was read stays in `input`, what is to be written stays in `output`.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

/// Largest message we take. Log data comes in at most 128 KiB, backup data in 32 KiB; a history file of a
/// thousand promotions is below 100 KiB. Source: `MAX_SEND_SIZE` in PostgreSQL's `walsender.c`.
pub(crate) const MAX_FRAME: usize = 1 << 20;
/// One buffer holds several of the largest log messages, so that a partial one is moved once in four.
const READ_BUFFER: usize = 512 << 10;
/// Below this much room a new buffer is worth more than a small read.
const MIN_READ: usize = 64 << 10;
/// The buffer for whoever sends commands and positions.
const SMALL_BUFFER: usize = 8 << 10;
const HEAD: usize = 5;

/// One message of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its kind.
    pub(crate) tag: u8,
    /// What follows the length.
    pub(crate) body: Bytes,
}

/// A socket with what was read and not yet taken, and what is to be written.
#[derive(Debug)]
pub(crate) struct Pipe<S> {
    socket: S,
    input: BytesMut,
    output: BytesMut,
    unflushed: bool,
    max_frame: usize,
    /// How much is made room for at a time, and what is too little.
    read_buffer: (usize, usize),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Pipe<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self::bounded(socket, MAX_FRAME)
    }

    /// With another bound of a message.
    pub(crate) fn bounded(socket: S, max_frame: usize) -> Self {
        // Of whoever sends small messages only, little is held.
        let read_buffer = match max_frame < MAX_FRAME {
            true => (SMALL_BUFFER, SMALL_BUFFER / 8),
            false => (READ_BUFFER, MIN_READ),
        };
        let (input, output) = (BytesMut::new(), BytesMut::new());
        Self { socket, input, output, unflushed: false, max_frame, read_buffer }
    }

    /// Whether all of the output has gone.
    pub(crate) fn is_sent(&self) -> bool {
        self.output.is_empty()
    }

    pub(crate) fn socket(&self) -> &S {
        &self.socket
    }

    /// Where to put what shall be sent by the next [`Self::send`] or [`Self::next`].
    pub(crate) fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Says that nothing more is sent, and takes what still comes until the other side closes: what was sent would be lost with the connection otherwise. The caller sets
    /// the deadline.
    pub(crate) async fn linger(&mut self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut self.socket).poll_shutdown(cx)).await?;
        loop {
            self.input.clear();
            self.input.reserve(SMALL_BUFFER);
            if poll_fn(|cx| poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.input)).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Sends everything in the output. Cancel-safe.
    pub(crate) async fn send(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_send(cx)).await
    }

    /// The next message; `None` when the server closed the connection between two messages. Sends what is in the
    /// output meanwhile. Cancel-safe.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Frame>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Self::next`], and comes back with nothing as soon as all that was in the output has gone. `None` when the connection was closed. Cancel-safe.
    pub(crate) async fn next_or_sent(&mut self) -> io::Result<Option<Option<Frame>>> {
        let had = !self.output.is_empty();
        poll_fn(|cx| match self.poll_next(cx) {
            Poll::Ready(next) => Poll::Ready(next.map(|frame| frame.map(Some))),
            Poll::Pending if had && self.output.is_empty() && !self.unflushed => Poll::Ready(Ok(Some(None))),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.output))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(written);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Frame>>> {
        if let Some(frame) = take_frame(&mut self.input, self.max_frame)? {
            return Poll::Ready(Ok(Some(frame)));
        }
        let mut unsent = match self.poll_send(cx) {
            Poll::Ready(Ok(())) => None,
            // The server may have said why before it closed its end: read that first.
            Poll::Ready(Err(error)) => Some(error),
            Poll::Pending => None,
        };
        loop {
            let room = self.input.capacity() - self.input.len();
            if room < self.read_buffer.1 {
                self.input.reserve(self.read_buffer.0);
            }
            let read = match poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.input) {
                Poll::Pending => match unsent.take() {
                    Some(error) => return Poll::Ready(Err(error)),
                    None => return Poll::Pending,
                },
                Poll::Ready(read) => read?,
            };
            if read == 0 {
                return Poll::Ready(match (self.input.is_empty(), unsent.take()) {
                    (_, Some(error)) => Err(error),
                    (true, None) => Ok(None),
                    (false, None) => Err(io::ErrorKind::UnexpectedEof.into()),
                });
            }
            if let Some(frame) = take_frame(&mut self.input, self.max_frame)? {
                return Poll::Ready(Ok(Some(frame)));
            }
        }
    }
}

/// Takes the first whole frame off the input.
fn take_frame(input: &mut BytesMut, max_frame: usize) -> io::Result<Option<Frame>> {
    let Some(head) = input.first_chunk::<HEAD>() else { return Ok(None) };
    let [tag, length @ ..] = *head;
    let length = u32::from_be_bytes(length) as usize;
    if !(4..=max_frame).contains(&length) {
        let problem = format!("a message of {length} bytes; at most {max_frame} are taken");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    if input.len() < length + 1 {
        return Ok(None);
    }
    let mut body = input.split_to(length + 1).freeze();
    body.advance(HEAD);
    Ok(Some(Frame { tag, body }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn frames_arrive_whole_however_they_are_cut() {
        let (ours, mut theirs) = tokio::io::duplex(7);
        let mut pipe = Pipe::new(ours);
        let writer = async {
            for size in [0u32, 1, 300, 65_536] {
                theirs.write_all(&[&[b'd'][..], &(size + 4).to_be_bytes()].concat()).await.unwrap();
                theirs.write_all(&vec![size as u8; size as usize]).await.unwrap();
            }
            drop(theirs);
        };
        let reader = async {
            for size in [0u32, 1, 300, 65_536] {
                let frame = pipe.next().await.unwrap().unwrap();
                assert_eq!(frame, Frame { tag: b'd', body: vec![size as u8; size as usize].into() });
            }
            assert_eq!(pipe.next().await.unwrap(), None);
        };
        tokio::join!(writer, reader);
    }

    #[tokio::test]
    async fn a_frame_above_the_bound_is_refused_before_it_is_buffered() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(&[b'd', 0x7F, 0xFF, 0xFF, 0xFF]).await.unwrap();
        let error = Pipe::new(ours).next().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_connection_cut_inside_a_frame_is_an_error() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(&[b'd', 0, 0, 0, 9, 1]).await.unwrap();
        drop(theirs);
        assert_eq!(Pipe::new(ours).next().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn two_ends_that_both_write_first_do_not_block_each_other() {
        let (ours, theirs) = tokio::io::duplex(16);
        let both = [Pipe::new(ours), Pipe::new(theirs)].map(|mut pipe| async move {
            pipe.output().extend_from_slice(&[&[b'd', 0, 0, 16, 4][..], &[7; 4096]].concat());
            let frame = pipe.next().await.unwrap().unwrap();
            pipe.send().await.unwrap();
            frame.body.len()
        });
        assert_eq!(futures::future::join_all(both).await, [4096, 4096]);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take_frame(&mut input, MAX_FRAME) {}
        }
    }
}
