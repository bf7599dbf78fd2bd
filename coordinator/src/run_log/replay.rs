//! What a log holds, as whoever continues it needs to know.
//!
//! A fold over the entries in order, made when a coordinator opens the log. It keeps the controls and which batches
//! were delivered, never the batches. Law: the log itself is checked on the way (it belongs to this run, epochs never
//! fall), so that nobody continues a log that two leaders wrote at once.

use vst_common::entry::{Control, Entry};
use vst_common::ids::RunId;

use super::Error;
use crate::intake::Delivered;

/// What the entries of a log say.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    /// Number of the last entry; 0 for an empty log.
    pub last: u64,
    /// Epoch of the last leader; 0 for an empty log.
    pub epoch: u64,
    /// All controls in order, each with the number of its entry.
    pub controls: Vec<(u64, Control)>,
    /// Which batches the log holds.
    pub delivered: Delivered,
}

impl Replay {
    /// Takes in the next entry.
    ///
    /// # Errors
    /// [`Error::OtherRun`] when the log is another run's; [`Error::EpochFell`] when the entry's epoch is below that of
    /// the one before.
    pub fn take(&mut self, entry: Entry, run: &RunId) -> Result<(), Error> {
        if entry.epoch < self.epoch {
            return Err(Error::EpochFell { number: entry.number, epoch: entry.epoch, before: self.epoch });
        }
        self.epoch = entry.epoch;
        self.last = entry.number;
        for control in entry.controls {
            match &control {
                Control::Led { run: found, .. } if found != run => {
                    return Err(Error::OtherRun { wanted: run.clone(), found: found.clone() });
                }
                _ => self.controls.push((entry.number, control)),
            }
        }
        for batch in entry.batches {
            if !self.delivered.insert(&batch.worker, batch.generation, batch.sequence) {
                tracing::error!(
                    entry = entry.number, worker = %batch.worker, generation = %batch.generation,
                    sequence = batch.sequence.0, "the log holds a batch twice: this is a bug"
                );
            }
        }
        Ok(())
    }
}
