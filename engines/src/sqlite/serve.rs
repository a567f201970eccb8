//! The process that a database is followed in: told what to do by lines, says what it comes to by messages.
//!
//! What always holds: nobody else in this process opens the database (see [`super::hold`]), so it does nothing else; it ends when its
//! orders do, and with it every hold on the database; while writers are held it waits for nobody longer than they are to be held: what it says then waits in memory. A
//! crash leaves what [`super::follow`] says.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::base;
use super::follow::{At, FollowError, Follower, Listener, Options, Order, Taken};
use super::hold::Connections;
use super::talk::{Begin, Failed, MOST_BYTES, Message, Tell, VERSION};
use super::wake::{Bell, Wake, Woken};

/// Bytes that wait to be said before more is made, where waiting is allowed.
const WAITING_BYTES: usize = 8 << 20;
/// Bytes from which a look's records are said before its end is.
const TOGETHER_BYTES: usize = 64 << 10;
/// How often it says that it lives.
const ALIVE: Duration = Duration::from_secs(1);

/// Follows a database as it is told. Returns when its orders end, or when it cannot go on; whether it could.
///
/// # Errors
/// When there is nobody to be told by or to say anything to.
pub fn serve(input: impl Read + Send + 'static, output: impl Write + Send + 'static) -> io::Result<bool> {
    let mut input = BufReader::new(input);
    let mut line = String::new();
    input.read_line(&mut line)?;
    let begin: Begin = serde_json::from_str(&line)?;
    let said = Arc::new(Said::default());
    let saying = {
        let said = Arc::clone(&said);
        std::thread::spawn(move || say(&said, output))
    };
    let (orders, told) = std::sync::mpsc::channel();
    let bell = Bell::new()?;
    let rings = bell.clone();
    // Ends with the process: it may wait for a line for ever.
    let _reading = std::thread::spawn(move || {
        for line in input.lines() {
            let order = line.and_then(|line| serde_json::from_str(&line).map_err(io::Error::from));
            let Ok(order) = order else { break };
            if orders.send(order).is_err() {
                break;
            }
            rings.ring();
        }
        drop(orders);
        rings.ring();
    });
    let failed = match follow(&begin, &told, bell, &said) {
        Ok(()) => None,
        Err(why) => Some(Failed { doubt: why.is_doubt(), why: why.to_string() }),
    };
    let well = failed.is_none();
    if let Some(failed) = failed {
        said.say(Message::Failed(failed));
    }
    said.end();
    saying.join().unwrap_or_else(|_| Err(io::Error::other("saying ended early")))?;
    Ok(well)
}

fn follow(begin: &Begin, told: &Receiver<Tell>, bell: Bell, said: &Arc<Said>) -> Result<(), FollowError> {
    if begin.version != VERSION {
        let why = format!(
            "it is of version {VERSION}, and the service of {}: start the service anew",
            begin.version
        );
        return Err(io::Error::other(why).into());
    }
    let connections = Connections::open(&begin.path)?;
    let _ticking = Ticking::start(said, connections.holds_writers());
    let options = Options { log_frames: begin.log_frames, ..Options::with_spool(begin.spool.clone()) };
    let mut told = Told {
        told,
        said: Arc::clone(said),
        file: connections.file(),
        wake: Wake::new(bell, &connections.wal_path(), begin.every),
        released: begin.offset,
        copying: None,
        copied: None,
        wants_base: false,
        last_end: None,
    };
    let follower = Follower::prove(&connections, &mut told, begin.start(), options)?;
    said.say(Message::Proven);
    let followed = follower.run();
    if let Some(copying) = told.copying.take() {
        // Its descriptor must not be closed before the connections are.
        let _ = copying.join();
    }
    followed.map(|taken| said.say(Message::Alive(taken)))
}

/// What is to be said, in order.
#[derive(Default)]
struct Said {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Message>,
    /// Of those, and of what is just being said.
    bytes: usize,
    ended: bool,
    /// What was taken of the writers so far.
    taken: Taken,
    /// Where our log ended at a look since the last sign of life.
    looked: Option<At>,
    /// Nobody listens any more.
    deaf: bool,
}

impl Said {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never waits.
    fn say(&self, message: Message) {
        self.put(message);
        self.changed.notify_all();
    }

    /// Says it together with what is said next: no later than a sign of life.
    fn put(&self, message: Message) {
        let mut waiting = self.waiting();
        waiting.bytes += size(&message);
        waiting.messages.push_back(message);
        if waiting.bytes >= TOGETHER_BYTES {
            drop(waiting);
            self.changed.notify_all();
        }
    }

    /// Says that the process lives; that nothing new came, where somebody looked.
    fn tick(&self) {
        let mut waiting = self.waiting();
        let looked = waiting.looked.take().map(Message::End);
        let alive = Message::Alive(waiting.taken);
        waiting.messages.extend(looked.into_iter().chain([alive]));
        drop(waiting);
        self.changed.notify_all();
    }

    /// Waits until not too much waits to be said.
    fn room(&self) -> io::Result<()> {
        self.room_until(None)
    }

    /// The same, no longer than until then: with writers held, what is said waits in memory, and nobody has to be there to hear it.
    fn room_until(&self, until: Option<Instant>) -> io::Result<()> {
        let mut waiting = self.waiting();
        while waiting.bytes >= WAITING_BYTES && !waiting.deaf {
            waiting = match until {
                None => self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(until) => match until.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => {
                        let waited = self.changed.wait_timeout(waiting, left);
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                    _ => return Ok(()),
                },
            };
        }
        match waiting.deaf && until.is_none() {
            true => Err(io::ErrorKind::BrokenPipe.into()),
            false => Ok(()),
        }
    }

    /// Waits for what there is to say, and takes it; none when all was said.
    fn next(&self) -> Option<VecDeque<Message>> {
        let mut waiting = self.waiting();
        while waiting.messages.is_empty() {
            if waiting.ended {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        Some(std::mem::take(&mut waiting.messages))
    }

    /// So many bytes were said.
    fn gone(&self, bytes: usize) {
        self.waiting().bytes -= bytes;
        if bytes > 0 {
            self.changed.notify_all();
        }
    }

    fn end(&self) {
        self.waiting().ended = true;
        self.changed.notify_all();
    }
}

fn size(message: &Message) -> usize {
    match message {
        Message::Log(bytes) | Message::Beneath(bytes) | Message::Copy(bytes) => bytes.len(),
        _ => 0,
    }
}

/// Says each second that the process lives, whatever it is at: copying a large log back may take long. Not while writers are held, which
/// must not take long.
struct Ticking {
    end: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Ticking {
    fn start(said: &Arc<Said>, holds_writers: Arc<AtomicBool>) -> Self {
        let (end, ended) = std::sync::mpsc::channel();
        let said = Arc::clone(said);
        let thread = std::thread::spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(ALIVE) {
                if !holds_writers.load(Ordering::Relaxed) {
                    said.tick();
                }
            }
        });
        Self { end, thread: Some(thread) }
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        let _ = self.end.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// However saying ends, nobody waits for it any more.
struct Deaf<'a>(&'a Said);

impl Drop for Deaf<'_> {
    fn drop(&mut self) {
        self.0.waiting().deaf = true;
        self.0.changed.notify_all();
    }
}

fn say(said: &Said, mut output: impl Write) -> io::Result<()> {
    let _deaf = Deaf(said);
    // What is little goes out in one write: each wakes whoever listens.
    let (mut together, mut bytes) = (Vec::new(), 0);
    while let Some(messages) = said.next() {
        for message in messages {
            let large = size(&message) >= TOGETHER_BYTES;
            if large || together.len() >= TOGETHER_BYTES {
                output.write_all(&together)?;
                together.clear();
                said.gone(std::mem::take(&mut bytes));
            }
            if large {
                message.write(&mut output)?
            } else {
                message.write(&mut together)?
            }
            bytes += size(&message);
        }
        output.write_all(&together).and_then(|()| output.flush())?;
        together.clear();
        said.gone(std::mem::take(&mut bytes));
    }
    Ok(())
}

/// The follower's listener: passes on what it hears and what it is told.
struct Told<'a> {
    told: &'a Receiver<Tell>,
    said: Arc<Said>,
    file: Arc<File>,
    wake: Wake,
    released: u64,
    copying: Option<JoinHandle<io::Result<u64>>>,
    /// What there is to say of a copy that has ended.
    copied: Option<Message>,
    /// A copy was asked for while one was made.
    wants_base: bool,
    last_end: Option<At>,
}

impl Listener for Told<'_> {
    fn log(&mut self, mut bytes: Bytes, until: Option<Instant>) -> io::Result<()> {
        while !bytes.is_empty() {
            self.said.room_until(until)?;
            let message = Message::Log(bytes.split_to(bytes.len().min(MOST_BYTES)));
            if until.is_some() { self.said.say(message) } else { self.said.put(message) }
        }
        Ok(())
    }

    fn beneath(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(MOST_BYTES) {
            self.said.room()?;
            self.said.say(Message::Beneath(Bytes::copy_from_slice(piece)));
        }
        Ok(())
    }

    fn base(&mut self, at: At) {
        self.said.say(Message::Base(at));
        let (said, file) = (Arc::clone(&self.said), Arc::clone(&self.file));
        self.copying = Some(std::thread::spawn(move || {
            base::copy(&file, &mut |bytes| {
                said.room()?;
                said.say(Message::Copy(bytes));
                Ok(())
            })
        }));
    }

    fn end(&mut self, at: At) {
        self.said.waiting().looked = Some(at);
        if self.last_end != Some(at) {
            self.last_end = Some(at);
            self.wake.came();
            self.said.say(Message::End(at));
        }
        if let Some(copied) = self.copied.take() {
            self.said.say(copied);
        }
        // Said behind the next look: what the copy caught of transactions that were not seen yet is then among the records.
        if self.copying.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(copying) = self.copying.take()
        {
            self.copied = Some(match copying.join() {
                Ok(Ok(_)) => Message::Copied,
                Ok(Err(why)) => Message::NotCopied(why.to_string()),
                Err(_) => Message::NotCopied("it ended early".to_owned()),
            });
        }
    }

    fn released(&mut self) -> u64 {
        self.released
    }

    fn listens(&self) -> bool {
        !self.said.waiting().deaf
    }

    fn next(&mut self, taken: Taken, more: bool) -> Order {
        self.said.waiting().taken = taken;
        if self.said.room().is_err() {
            return Order::Stop;
        }
        if self.wants_base && self.copying.is_none() && self.copied.is_none() {
            self.wants_base = false;
            return Order::Base;
        }
        if self.copying.is_some() || self.copied.is_some() {
            // That it has ended is seen by a look.
            self.wake.came();
        }
        loop {
            match self.told.try_recv() {
                // Nothing to look for.
                Ok(Tell::Released(offset)) => self.released = self.released.max(offset),
                Ok(Tell::Point(name)) => return Order::Point(name),
                Ok(Tell::Base) => {
                    self.wants_base = true;
                    return Order::Look;
                }
                Ok(Tell::Stop) | Err(TryRecvError::Disconnected) => return Order::Stop,
                Err(TryRecvError::Empty) if more => return Order::Look,
                Err(TryRecvError::Empty) => match self.wake.wait() {
                    Woken::Rung => {}
                    Woken::Look => return Order::Look,
                },
            }
        }
    }

    fn now_micros(&mut self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
    }
}
