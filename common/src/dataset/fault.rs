//! What went wrong on the way to a store and was overcome: repeated requests, told to whoever keeps the run's events.
//!
//! Filled by the reader of an object, emptied by the worker that reads rows and by commands. Bounded: a store that
//! fails for an hour costs a count, not memory.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Faults whose words are kept between two calls of [`ReadFaults::take`].
const KEPT: usize = 64;

/// A request that was sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFault {
    /// What was read.
    pub url: String,
    /// First byte asked for.
    pub offset: u64,
    /// Which attempt failed, from 1.
    pub attempt: u32,
    /// Why, in the store's words.
    pub reason: String,
}

impl fmt::Display for ReadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, offset, attempt, reason } = self;
        write!(f, "attempt {attempt} at byte {offset} of {url} failed and is repeated: {reason}")
    }
}

/// The faults of all objects of a data set; clones share them.
#[derive(Clone, Debug, Default)]
pub struct ReadFaults(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    total: u64,
    faults: Vec<ReadFault>,
}

impl ReadFaults {
    /// Notes a fault.
    pub(super) fn note(&self, fault: ReadFault) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.total = kept.total.saturating_add(1);
        if kept.faults.len() < KEPT {
            kept.faults.push(fault);
        }
    }

    /// Takes the faults of another over.
    pub fn absorb(&self, other: &Self) {
        let Kept { total, faults } =
            std::mem::take(&mut *other.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.total = kept.total.saturating_add(total);
        let room = KEPT.saturating_sub(kept.faults.len());
        kept.faults.extend(faults.into_iter().take(room));
    }

    /// How many there were since the data set was opened.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).total
    }

    /// Those since the last call, the first few of them.
    #[must_use]
    pub fn take(&self) -> Vec<ReadFault> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).faults)
    }
}
