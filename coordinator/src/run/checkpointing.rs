//! A checkpoint: the target is left alone until every node was sampled several times within the phase.

use vst_common::clock::{MonoNs, SECOND_NS};

use super::Happened;
use super::book::Book;
use super::ending::Ending;
use super::state::{State, TransitionTo};

/// Sampling intervals that a checkpoint lasts: three whole ticks lie inside whatever the phase of the tick is.
const INTERVALS: u64 = 4;

#[derive(Debug)]
pub(crate) struct Checkpointing {
    until: MonoNs,
}

impl Checkpointing {
    pub(crate) fn new(now: MonoNs, book: &Book) -> Self {
        // The second on top is for the worker to hear of the phase and for the samples to be taken in.
        let length = book.settings.sample_interval_ns.saturating_mul(INTERVALS).saturating_add(SECOND_NS);
        Self { until: now.saturating_add(length) }
    }

    pub(crate) fn advance(self, happened: &Happened, now: MonoNs, book: &mut Book) -> State {
        match happened {
            Happened::Tick if now >= self.until => self.to(Ending::quiet(now, book)),
            _ => State::Checkpointing(self),
        }
    }
}
