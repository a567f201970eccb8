//! A tail's own thread: it writes and flushes what is handed to it, one group after another.
//!
//! ```text
//! handed ─▶ all that waits is a group ─▶ written in its order ─▶ one flush ─▶ the looks (`FORMAT.md` T2) ─▶ answered
//! ```
//!
//! Always: what is answered with `Ok` was written and flushed, with all that was handed before, before it was looked; behind a failure nothing is written any more.
//! A thread of its own, and not one of the runtime's: a flush begins when the one before has ended, without anybody being woken between, and a disk that hangs holds up this thread alone. It ends with its tail,
//! or when the disk answers.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use bytes::Bytes;
use nix::errno::Errno;
use tokio::sync::oneshot;

use super::super::super::tails::{Appending, TAIL_BYTES, Tail};
use super::super::super::{Key, Operation, StoreError};
use super::super::tree::{Tree, failed};
use super::{is_closed, is_named};

/// How many entries may wait: more than an owner hands over before he hears of the first.
const MOST: usize = 16;

/// An entry on its way, and whoever waits for it.
struct Handed {
    at: u64,
    bytes: Bytes,
    free: Key,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

/// A tail that this process began: the near end of its thread.
#[derive(Debug)]
pub(super) struct FileTail {
    /// None once something was not handed over: nothing behind it may be.
    to: Option<SyncSender<Handed>>,
    what: String,
}

impl Tail for FileTail {
    fn append(&mut self, at: u64, bytes: Bytes, free: &Key) -> Appending {
        let what = self.what.clone();
        let refused = |what, reason: &str| StoreError::Answer {
            operation: Operation::Append,
            what,
            reason: reason.to_owned(),
            ambiguous: true,
        };
        let (answer, heard) = oneshot::channel();
        let given_up = "it was given up";
        let reason = match &self.to {
            None => given_up,
            Some(to) => match to.try_send(Handed { at, bytes, free: free.clone(), answer }) {
                Ok(()) => {
                    let ended = move |_| refused(what, given_up);
                    return Appending::new(async move { heard.await.map_err(ended)? });
                }
                Err(TrySendError::Full(_)) => "too much waits for its disk",
                Err(TrySendError::Disconnected(_)) => given_up,
            },
        };
        self.to = None;
        Appending::new(std::future::ready(Err(refused(what, reason))))
    }
}

/// What the thread has in hand.
pub(super) struct Appender {
    pub(super) tree: Arc<Tree>,
    pub(super) folder: OwnedFd,
    pub(super) file: File,
    pub(super) name: String,
    pub(super) what: String,
}

impl Appender {
    /// Starts the thread.
    pub(super) fn start(self) -> io::Result<FileTail> {
        let (to, handed) = sync_channel(MOST);
        let what = self.what.clone();
        std::thread::Builder::new().name("tail".to_owned()).spawn(move || self.run(&handed))?;
        Ok(FileTail { to: Some(to), what })
    }

    fn run(self, handed: &Receiver<Handed>) {
        while let Ok(first) = handed.recv() {
            let mut group = vec![first];
            group.extend(handed.try_iter().take(MOST));
            match self.append(&group) {
                Ok(()) => group.into_iter().for_each(|entry| {
                    let _ = entry.answer.send(Ok(()));
                }),
                Err(why) => {
                    let _ = group.swap_remove(0).answer.send(Err(why));
                    return;
                }
            }
        }
    }

    fn append(&self, group: &[Handed]) -> Result<(), StoreError> {
        let io = |step, error: io::Error| failed(Operation::Append, &self.what, step, error, true);
        for entry in group {
            if entry.at.saturating_add(entry.bytes.len() as u64) > TAIL_BYTES {
                return Err(io("write behind the tail's end", Errno::EFBIG.into()));
            }
            fail::fail_point!("store-tail-write", |arg| {
                Err(io("write to the tail", super::super::create::injected(arg)))
            });
            self.file.write_all_at(&entry.bytes, entry.at).map_err(|error| io("write to the tail", error))?;
            fail::fail_point!("store-tail-written");
        }
        // After a failure the tail is given up: a second flush could lie.
        fail::fail_point!("store-tail-flush", |arg| {
            Err(io("flush the tail", super::super::create::injected(arg)))
        });
        self.file.sync_data().map_err(|error| io("flush the tail", error))?;
        fail::fail_point!("store-tail-flushed");
        // Only now, and in this order: whoever deletes takes the name first, then `closed`, when his opening stands.
        let is_named =
            is_named(&self.folder, &self.name, &self.file).map_err(|error| io("look at the tail", error))?;
        let is_closed =
            is_closed(&self.folder).map_err(|error| io("look whether the tail is closed", error))?;
        let mut is_taken = false;
        // Mostly all are of one round.
        for of_round in group.chunk_by(|entry, next| entry.free == next.free) {
            is_taken |= self.tree.is_there(&of_round[0].free)?;
        }
        if !is_named || is_closed || is_taken {
            return Err(StoreError::Refused {
                operation: Operation::Append,
                what: self.what.clone(),
                reason: "another took the journal over, or looks for its end".to_owned(),
            });
        }
        Ok(())
    }
}
