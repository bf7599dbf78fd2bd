//! Intake's decisions: which delivered batches go to the log, and when a delivery is acknowledged.
//!
//! Fed by the shell in `intake`, which performs the actions. Pure. Law: each batch is appended once, however often it
//! is delivered; a delivery of sequence n is acknowledged only when the log holds 1..=n of its stream, so that an
//! acknowledgement means "everything up to here"; arrival order is irrelevant.

use std::collections::{BTreeMap, BTreeSet};

use vst_common::entry::StoredBatch;
use vst_common::ids::{Generation, Sequence, WorkerId};

use super::delivered::{Delivered, Sequences, StreamKey};

/// How far ahead of the first missing sequence a delivery may be: the bound of what intake remembers per stream.
pub const WINDOW: u64 = 1 << 20;

/// Somebody who waits for an acknowledgement.
pub trait Waiter {
    /// Whether nobody listens any more.
    fn is_gone(&self) -> bool;
}

/// Something that happened.
#[derive(Debug)]
pub enum Event<W> {
    /// A batch came in, checked by `admission`.
    Delivered(StoredBatch, W),
    /// Somebody wants to know when the log holds everything of a stream up to a sequence.
    Awaited(StreamKey, Sequence, W),
    /// The log holds the batch.
    Durable(StreamKey, Sequence),
    /// The log did not take the batch.
    Failed(StreamKey, Sequence, Refused),
    /// A worker says that it will never deliver beyond this sequence for the phase that ends.
    Stated(StreamKey, Sequence),
    /// The run is closed: nothing new is taken.
    Closed,
}

/// Something to do.
#[derive(Debug)]
pub enum Action<W> {
    /// Append the batch to the log. Answered by [`Event::Durable`] or [`Event::Failed`].
    Append(StoredBatch),
    /// Tell the waiter that the log holds everything of the stream up to its sequence.
    Acknowledge(W, StreamKey, Sequence),
    /// Tell the waiter that it will not be acknowledged here.
    Refuse(W, Refusal),
    /// The log now holds everything of the stream up to this sequence.
    Reached(StreamKey, Sequence),
}

/// The log did not take a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Why a delivery is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Of a run that is not this coordinator's.
    #[error("batch belongs to run `{found}`, this coordinator keeps run `{wanted}`")]
    OtherRun {
        /// The run here.
        wanted: String,
        /// The run in the delivery.
        found: String,
    },
    /// Nobody registered as that.
    #[error("no worker `{worker}` is registered as {generation}: a worker says hello before it delivers")]
    Stranger {
        /// Who it says that it is.
        worker: WorkerId,
        /// In which registration.
        generation: u64,
    },
    /// The batch is not one of its table.
    #[error("batch {sequence} of worker `{worker}` is refused: {reason}")]
    Batch {
        /// Who delivered it.
        worker: WorkerId,
        /// In which registration.
        generation: u64,
        /// Its sequence.
        sequence: u64,
        /// What is wrong.
        reason: String,
    },
    /// The message carries no readable identity.
    #[error("delivery is refused: {0}")]
    Delivery(String),
    /// A sequence that no stream can have now.
    #[error(
        "sequence {sequence} of worker `{worker}` is refused: sequences begin at 1, and {through} is the last one here without a gap"
    )]
    Sequence {
        /// Who delivered it.
        worker: WorkerId,
        /// Its sequence.
        sequence: u64,
        /// The last sequence without a gap.
        through: u64,
    },
    /// The run is closed.
    #[error("the run is closed")]
    Closed,
    /// The log does not take it; deliver it to the coordinator that leads.
    #[error("not kept: {0}; deliver it again to the coordinator that leads")]
    Log(Refused),
}

/// How far a delivery stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamReport {
    /// Who delivers.
    pub worker: WorkerId,
    /// In which registration.
    pub generation: Generation,
    /// The log holds everything up to here.
    pub through: Sequence,
    /// The worker's last statement; `None` for a stream that is open-ended.
    pub stated: Option<Sequence>,
    /// Batches up to the statement that the log does not hold.
    pub missing: u64,
}

#[derive(Debug)]
struct Stream<W> {
    held: Sequences,
    /// Appended, not yet durable.
    pending: BTreeSet<u64>,
    waiting: BTreeMap<u64, Vec<W>>,
    stated: Option<Sequence>,
}

impl<W> Default for Stream<W> {
    fn default() -> Self {
        Self { held: Sequences::default(), pending: BTreeSet::new(), waiting: BTreeMap::new(), stated: None }
    }
}

/// What intake knows of all delivery streams.
#[derive(Debug)]
pub struct IntakeCore<W> {
    streams: BTreeMap<StreamKey, Stream<W>>,
    closed: bool,
}

impl<W: Waiter> IntakeCore<W> {
    /// Nothing but what the log holds.
    #[must_use]
    pub fn new(delivered: Delivered) -> Self {
        let stream = |(key, held)| (key, Stream { held, ..Stream::default() });
        Self { streams: delivered.into_iter().map(stream).collect(), closed: false }
    }

    /// Takes in what happened and says what to do, in order.
    pub fn step(&mut self, event: Event<W>) -> Vec<Action<W>> {
        match event {
            Event::Delivered(batch, waiter) => self.delivered(batch, waiter),
            Event::Awaited(key, sequence, waiter) => self.awaited(key, sequence, waiter),
            Event::Durable(key, sequence) => self.durable(key, sequence),
            Event::Failed(key, sequence, reason) => self.failed(&key, sequence, &reason),
            Event::Stated(key, sequence) => {
                let stream = self.streams.entry(key).or_default();
                stream.stated = stream.stated.max(Some(sequence));
                Vec::new()
            }
            Event::Closed => self.close(),
        }
    }

    /// How far each stream is, in the order of their keys.
    #[must_use]
    pub fn report(&self) -> Vec<StreamReport> {
        let report = |((worker, generation), stream): (&StreamKey, &Stream<W>)| StreamReport {
            worker: worker.clone(),
            generation: *generation,
            through: stream.held.through(),
            stated: stream.stated,
            missing: stream.stated.map_or(0, |last| stream.held.missing(last)),
        };
        self.streams.iter().map(report).collect()
    }

    fn delivered(&mut self, batch: StoredBatch, waiter: W) -> Vec<Action<W>> {
        if self.closed {
            return vec![Action::Refuse(waiter, Refusal::Closed)];
        }
        let (key, sequence) = ((batch.worker.clone(), batch.generation), batch.sequence);
        let stream = self.streams.entry(key.clone()).or_default();
        let through = stream.held.through().0;
        if sequence.0 == 0 || sequence.0.saturating_sub(through) > WINDOW {
            let refusal = Refusal::Sequence { worker: batch.worker, sequence: sequence.0, through };
            return vec![Action::Refuse(waiter, refusal)];
        }
        if sequence.0 <= through {
            return vec![Action::Acknowledge(waiter, key, sequence)];
        }
        stream.wait(sequence, waiter);
        let is_new = !stream.held.contains(sequence) && stream.pending.insert(sequence.0);
        if is_new { vec![Action::Append(batch)] } else { Vec::new() }
    }

    fn awaited(&mut self, key: StreamKey, sequence: Sequence, waiter: W) -> Vec<Action<W>> {
        let stream = self.streams.entry(key.clone()).or_default();
        if sequence <= stream.held.through() {
            return vec![Action::Acknowledge(waiter, key, sequence)];
        }
        if self.closed {
            return vec![Action::Refuse(waiter, Refusal::Closed)];
        }
        stream.wait(sequence, waiter);
        Vec::new()
    }

    fn durable(&mut self, key: StreamKey, sequence: Sequence) -> Vec<Action<W>> {
        let stream = self.streams.entry(key.clone()).or_default();
        stream.pending.remove(&sequence.0);
        let before = stream.held.through();
        stream.held.insert(sequence);
        let through = stream.held.through();
        if through == before {
            return Vec::new();
        }
        let still = stream.waiting.split_off(&through.0.saturating_add(1));
        let ready = std::mem::replace(&mut stream.waiting, still);
        let mut actions = vec![Action::Reached(key.clone(), through)];
        for (sequence, waiters) in ready {
            let acknowledge = |waiter| Action::Acknowledge(waiter, key.clone(), Sequence(sequence));
            actions.extend(waiters.into_iter().map(acknowledge));
        }
        actions
    }

    /// What the log refuses may be delivered again, so it is forgotten; its waiters are told.
    fn failed(&mut self, key: &StreamKey, sequence: Sequence, reason: &Refused) -> Vec<Action<W>> {
        let Some(stream) = self.streams.get_mut(key) else { return Vec::new() };
        stream.pending.remove(&sequence.0);
        let waiters = stream.waiting.remove(&sequence.0).unwrap_or_default();
        waiters.into_iter().map(|waiter| Action::Refuse(waiter, Refusal::Log(reason.clone()))).collect()
    }

    /// Nothing new is taken; who waits for what is on its way to the log still gets it, the others are told.
    fn close(&mut self) -> Vec<Action<W>> {
        self.closed = true;
        let mut actions = Vec::new();
        for stream in self.streams.values_mut() {
            let mut reachable = stream.held.clone();
            for pending in &stream.pending {
                reachable.insert(Sequence(*pending));
            }
            let hopeless = stream.waiting.split_off(&reachable.through().0.saturating_add(1));
            let refuse = |waiter| Action::Refuse(waiter, Refusal::Closed);
            actions.extend(hopeless.into_values().flatten().map(refuse));
        }
        actions
    }
}

impl<W: Waiter> Stream<W> {
    /// Each connection that was cut left a waiter; they go when the sequence is delivered again.
    fn wait(&mut self, sequence: Sequence, waiter: W) {
        let waiters = self.waiting.entry(sequence.0).or_default();
        waiters.retain(|waiter| !waiter.is_gone());
        waiters.push(waiter);
    }
}

#[cfg(test)]
mod tests;
