//! Packing frames on blocking threads, in order, while their object is still being gathered.
//!
//! What always holds: what [`Packing::take`] gives is packed in the order in which it was handed over, without a hole. At most
//! `JOBS` frames are packed at a time. A packing that is dropped lets its last frames be packed for nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;

use crate::error::JournalError;
use crate::format::FormatError;
use crate::format::pack::{Compression, Packed, Packer};

/// Frames packed at a time: one for each core of a small machine.
const JOBS: usize = 2;

/// Packers that are shared and used again: a compressor's memory costs more than a small frame.
#[derive(Debug, Clone)]
pub struct Packers {
    compression: Compression,
    idle: Arc<Mutex<Vec<Packer>>>,
}

impl Packers {
    /// Packers that compress so; made when they are needed.
    pub fn new(compression: Compression) -> Self {
        Self { compression, idle: Arc::default() }
    }

    /// Packs one frame. Takes a core for as long as compression takes.
    ///
    /// # Errors
    /// As [`Packer::pack`].
    pub fn pack(&self, plain: &[u8]) -> Result<Packed, FormatError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut packer = match idle {
            Some(packer) => packer,
            None => Packer::new(self.compression)?,
        };
        let packed = packer.pack(plain);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(packer);
        packed
    }
}

/// An object's frames on their way.
#[derive(Debug)]
pub struct Packing {
    packers: Packers,
    running: VecDeque<JoinHandle<Result<Packed, FormatError>>>,
    done: Vec<Packed>,
}

impl Packing {
    /// Nothing yet.
    pub fn new(packers: Packers) -> Self {
        Self { packers, running: VecDeque::new(), done: Vec::new() }
    }

    /// Whether no more may be handed over before [`joined`](Self::joined).
    pub fn is_full(&self) -> bool {
        self.running.len() >= JOBS
    }

    /// Whether all that was handed over is packed.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Hands over a frame's plain bytes. Never waits.
    pub fn hand(&mut self, plain: Vec<u8>) {
        let packers = self.packers.clone();
        self.running.push_back(tokio::task::spawn_blocking(move || packers.pack(&plain)));
    }

    /// Waits for the oldest frame that is being packed; for ever when there is none.
    ///
    /// # Errors
    /// When it cannot be packed: the object is void.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost when it is dropped.
    pub async fn joined(&mut self) -> Result<(), JournalError> {
        let Some(oldest) = self.running.front_mut() else { return std::future::pending().await };
        let packed = oldest.await;
        self.running.pop_front();
        let packed = packed
            .map_err(|_| JournalError::NotHeld { what: "the frame: its packing ended early".to_owned() })?;
        self.done.push(packed.map_err(|source| JournalError::Encode { what: "frame", source })?);
        Ok(())
    }

    /// What is packed so far, in order; complete when [`is_idle`](Self::is_idle).
    pub fn take(&mut self) -> Vec<Packed> {
        std::mem::take(&mut self.done)
    }
}
