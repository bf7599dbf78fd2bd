//! Which batches are in the log, per delivery stream.
//!
//! A delivery stream is what one (worker, generation) delivers, over all tables and connections. Filled by the log's
//! replay and by `intake` as batches become durable. Law: `through` is the largest n such that 1..=n are all held.

use std::collections::{BTreeMap, BTreeSet};

use vst_common::ids::{Generation, Sequence, WorkerId};

/// Names a delivery stream.
pub type StreamKey = (WorkerId, Generation);

/// A set of sequences from 1 on, of which most have no gap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequences {
    through: u64,
    beyond: BTreeSet<u64>,
}

impl Sequences {
    /// Adds one; `false` when it was there before. 0 is no sequence and counts as there.
    pub fn insert(&mut self, sequence: Sequence) -> bool {
        if self.contains(sequence) {
            return false;
        }
        self.beyond.insert(sequence.0);
        while let Some(next) = self.through.checked_add(1)
            && self.beyond.remove(&next)
        {
            self.through = next;
        }
        true
    }

    /// Whether it is there.
    #[must_use]
    pub fn contains(&self, sequence: Sequence) -> bool {
        sequence.0 <= self.through || self.beyond.contains(&sequence.0)
    }

    /// The last of those that are there without a gap from 1 on; 0 for none.
    #[must_use]
    pub fn through(&self) -> Sequence {
        Sequence(self.through)
    }

    /// How many of `1..=last` are not there.
    #[must_use]
    pub fn missing(&self, last: Sequence) -> u64 {
        let beyond = self.beyond.range(..=last.0).count();
        last.0.saturating_sub(self.through).saturating_sub(vst_common::count::len(beyond))
    }
}

/// The batches that a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered(BTreeMap<StreamKey, Sequences>);

impl Delivered {
    /// Adds a batch; `false` when it was there before.
    pub fn insert(&mut self, worker: &WorkerId, generation: Generation, sequence: Sequence) -> bool {
        self.0.entry((worker.clone(), generation)).or_default().insert(sequence)
    }

    /// The streams that delivered anything.
    pub fn streams(&self) -> impl Iterator<Item = (&StreamKey, &Sequences)> {
        self.0.iter()
    }
}

impl IntoIterator for Delivered {
    type Item = (StreamKey, Sequences);
    type IntoIter = std::collections::btree_map::IntoIter<StreamKey, Sequences>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_set_that_was_put_in(inserted in prop::collection::vec(1_u64..30, 0..60), last in 0_u64..40) {
            let mut sequences = Sequences::default();
            let mut model = BTreeSet::new();
            for n in inserted {
                prop_assert_eq!(sequences.insert(Sequence(n)), model.insert(n));
            }
            for n in 1..40 {
                prop_assert_eq!(sequences.contains(Sequence(n)), model.contains(&n));
            }
            let through = (1..).find(|n| !model.contains(n)).unwrap() - 1;
            prop_assert_eq!(sequences.through(), Sequence(through));
            let missing = (1..=last).filter(|n| !model.contains(n)).count() as u64;
            prop_assert_eq!(sequences.missing(Sequence(last)), missing);
        }
    }
}
