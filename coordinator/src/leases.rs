//! Who works on which range of a phase: the books of leases.
//!
//! Fed by `run::loading` with what workers ask for and hand back; the ranges come from a [`Cut`], so a billion rows
//! cost no list. A range that was leased and is neither held nor back in the pool is done: done needs no memory.
//! Law: each range is done exactly once, is never held by two at once, and is in exactly one of: never leased, in the
//! pool, held, kept back, done. What a lost worker held is kept back until that worker can send nothing more.

use std::collections::{BTreeMap, BTreeSet};

use vst_common::ids::Generation;
use vst_common::ranges::{Cut, RowRange};

/// After this many failed tries the range, and with it the phase, has failed: of as many different workers, where the
/// fleet has so many.
pub const TRIES: usize = 3;

/// What became of a range that a worker handed back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handed {
    /// Every row of it ended well: it is done.
    Done,
    /// Not every row was tried; it is back in the pool.
    Unfinished,
    /// Some rows failed; it is back in the pool for another try.
    Again,
    /// It failed for the [`TRIES`]th time.
    Failed,
    /// This worker does not hold it (any more): nothing was booked.
    NotHeld,
}

/// The leases of one phase.
#[derive(Clone, Debug)]
pub struct Leases {
    cut: Cut,
    /// Ranges from this position on were never leased.
    next: u64,
    /// Positions that came back.
    pool: BTreeSet<u64>,
    held: BTreeMap<u64, Generation>,
    /// Held by workers that are lost and may still be sending.
    kept_back: BTreeMap<u64, Generation>,
    /// Who failed a range, in order; only ranges that failed and are not done.
    failed: BTreeMap<u64, Vec<Generation>>,
    /// Held ranges that their holder was asked for.
    asked_back: BTreeSet<u64>,
    rows_done: u64,
}

impl Leases {
    /// Nothing leased yet.
    #[must_use]
    pub fn new(cut: Cut) -> Self {
        Self {
            cut,
            next: 0,
            pool: BTreeSet::new(),
            held: BTreeMap::new(),
            kept_back: BTreeMap::new(),
            failed: BTreeMap::new(),
            asked_back: BTreeSet::new(),
            rows_done: 0,
        }
    }

    /// As another coordinator's log has them: these ranges are done, and who holds which of the others is not known.
    #[must_use]
    pub fn resume(cut: Cut, done: &[RowRange]) -> Self {
        let mut leases = Self::new(cut);
        let positions: BTreeSet<u64> = done.iter().filter_map(|range| cut.position(*range)).collect();
        leases.next = positions.last().map_or(0, |last| last.saturating_add(1));
        leases.pool = (0..leases.next).filter(|position| !positions.contains(position)).collect();
        leases.rows_done = positions.iter().filter_map(|p| cut.get(*p)).map(|range| range.len()).sum();
        leases
    }

    /// A worker came back and says which ranges it holds: those, as far as they are not done or another's, and no
    /// others are its own.
    pub fn adopt(&mut self, holder: Generation, held: &[RowRange]) {
        let stated: BTreeSet<u64> = held.iter().filter_map(|range| self.cut.position(*range)).collect();
        for position in positions(&self.held, holder) {
            if !stated.contains(&position) {
                self.held.remove(&position);
                self.pool.insert(position);
            }
        }
        for position in stated {
            // Leased by a coordinator whose log does not say so.
            while self.next <= position {
                self.pool.insert(self.next);
                self.next = self.next.saturating_add(1);
            }
            if self.pool.remove(&position) {
                self.held.insert(position, holder);
            }
        }
    }

    /// Leases up to `wanted` ranges to a worker; fewer, or none, where no more are free.
    ///
    /// A range that this worker failed before is given to it only when each of `fleet` has failed it: whether the
    /// range or the worker is to blame shows only where another one tries it.
    pub fn lease(&mut self, holder: Generation, wanted: u64, fleet: &BTreeSet<Generation>) -> Vec<RowRange> {
        let mut out = Vec::new();
        while vst_common::count::len(out.len()) < wanted {
            let Some(position) = self.pick(holder, fleet) else { break };
            let Some(range) = self.cut.get(position) else { break };
            self.held.insert(position, holder);
            out.push(range);
        }
        out
    }

    fn pick(&mut self, holder: Generation, fleet: &BTreeSet<Generation>) -> Option<u64> {
        let mine = |p: &&u64| self.failed.get(*p).is_some_and(|by| by.contains(&holder));
        if let Some(position) = self.pool.iter().find(|p| !mine(p)).copied() {
            self.pool.remove(&position);
            return Some(position);
        }
        if self.next < self.cut.count() {
            self.next += 1;
            return Some(self.next - 1);
        }
        let by_all =
            |p: &&u64| self.failed.get(*p).is_none_or(|by| fleet.iter().all(|worker| by.contains(worker)));
        let position = self.pool.iter().find(by_all).copied()?;
        self.pool.remove(&position);
        Some(position)
    }

    /// Takes a range back: `ok` rows ended well, `failed` did not, the rest was not tried.
    pub fn hand_back(&mut self, holder: Generation, range: RowRange, ok: u64, failed: u64) -> Handed {
        let Some(position) = self.cut.position(range) else { return Handed::NotHeld };
        if self.held.get(&position) != Some(&holder) {
            return Handed::NotHeld;
        }
        self.held.remove(&position);
        self.asked_back.remove(&position);
        if failed == 0 && ok >= range.len() {
            self.failed.remove(&position);
            self.rows_done = self.rows_done.saturating_add(range.len());
            return Handed::Done;
        }
        self.pool.insert(position);
        if failed == 0 {
            return Handed::Unfinished;
        }
        let by = self.failed.entry(position).or_default();
        by.push(holder);
        if by.len() >= TRIES { Handed::Failed } else { Handed::Again }
    }

    /// A range to ask back for one of `waiting` workers that have nothing to do: of the worker that holds most, and
    /// more than one, the one that it is likely to begin last. No more are asked for at once than there are who wait,
    /// and each once per lease.
    pub fn ask_back(&mut self, waiting: usize) -> Option<(Generation, RowRange)> {
        if self.asked_back.len() >= waiting {
            return None;
        }
        let mut by_holder: BTreeMap<Generation, Vec<u64>> = BTreeMap::new();
        for (position, holder) in self.held.iter().filter(|(p, _)| !self.asked_back.contains(p)) {
            by_holder.entry(*holder).or_default().push(*position);
        }
        let most = by_holder.into_iter().filter(|(_, held)| held.len() > 1);
        let (holder, held) = most.max_by_key(|(_, held)| held.len())?;
        let position = held.last().copied()?;
        self.asked_back.insert(position);
        Some((holder, self.cut.get(position)?))
    }

    /// A worker is lost: what it held is nobody's until [`Leases::release`]. Gives how many ranges that were.
    pub fn lose(&mut self, holder: Generation) -> u64 {
        let lost = positions(&self.held, holder);
        for position in &lost {
            self.asked_back.remove(position);
            self.held.remove(position);
            self.kept_back.insert(*position, holder);
        }
        vst_common::count::len(lost.len())
    }

    /// A worker has ended or can send nothing more: what it held, lost or not, is free. Gives how many ranges that
    /// were.
    pub fn release(&mut self, holder: Generation) -> u64 {
        self.lose(holder);
        let free = positions(&self.kept_back, holder);
        for position in &free {
            self.kept_back.remove(position);
            self.pool.insert(*position);
        }
        vst_common::count::len(free.len())
    }

    /// Whether every range is done.
    #[must_use]
    pub fn all_done(&self) -> bool {
        let open = self.pool.len() + self.held.len() + self.kept_back.len();
        self.next >= self.cut.count() && open == 0
    }

    /// Ranges that are done.
    #[must_use]
    pub fn ranges_done(&self) -> u64 {
        let open = vst_common::count::len(self.pool.len() + self.held.len() + self.kept_back.len());
        self.next.saturating_sub(open)
    }

    /// Rows in the ranges that are done.
    #[must_use]
    pub fn rows_done(&self) -> u64 {
        self.rows_done
    }

    /// Who holds a range now.
    #[must_use]
    pub fn holder(&self, range: RowRange) -> Option<Generation> {
        self.cut.position(range).and_then(|p| self.held.get(&p)).copied()
    }
}

fn positions(of: &BTreeMap<u64, Generation>, holder: Generation) -> Vec<u64> {
    of.iter().filter(|(_, h)| **h == holder).map(|(p, _)| *p).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Deed {
        Lease { by: u64, wanted: u64 },
        Finish { pick: usize },
        Fail { pick: usize },
        Leave { pick: usize },
        Twice { pick: usize },
        Lose { by: u64 },
        Release { by: u64 },
    }

    fn deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            3 => (1u64..5, 1u64..6).prop_map(|(by, wanted)| Deed::Lease { by, wanted }),
            4 => any::<usize>().prop_map(|pick| Deed::Finish { pick }),
            1 => any::<usize>().prop_map(|pick| Deed::Fail { pick }),
            1 => any::<usize>().prop_map(|pick| Deed::Leave { pick }),
            1 => any::<usize>().prop_map(|pick| Deed::Twice { pick }),
            1 => (1u64..5).prop_map(|by| Deed::Lose { by }),
            1 => (1u64..5).prop_map(|by| Deed::Release { by }),
        ]
    }

    /// What the test believes: who holds what, and how often each range was booked as done.
    #[derive(Default)]
    struct Model {
        held: BTreeMap<RowRange, Generation>,
        kept_back: BTreeMap<RowRange, Generation>,
        done: BTreeMap<RowRange, u32>,
        last_done: Vec<(Generation, RowRange)>,
        fleet: BTreeSet<Generation>,
    }

    impl Model {
        fn nth(&self, pick: usize) -> Option<(RowRange, Generation)> {
            let n = self.held.len();
            if n == 0 { None } else { self.held.iter().nth(pick % n).map(|(r, g)| (*r, *g)) }
        }

        fn take(&mut self, leases: &mut Leases, by: Generation, wanted: u64) {
            for range in leases.lease(by, wanted, &self.fleet) {
                assert!(!self.held.contains_key(&range), "{range:?} leased while somebody holds it");
                assert!(
                    !self.kept_back.contains_key(&range),
                    "{range:?} leased while its last holder may send"
                );
                assert!(!self.done.contains_key(&range), "{range:?} leased although it is done");
                self.held.insert(range, by);
            }
        }
    }

    proptest! {
        #[test]
        fn each_range_is_done_exactly_once_and_held_by_one(
            start in 0u64..50, rows in 0u64..400, length in 1u64..40, deeds in prop::collection::vec(deed(), 0..120)
        ) {
            let cut = Cut::new(RowRange { start, end: start + rows }, length);
            let mut leases = Leases::new(cut);
            let mut model = Model { fleet: (1..5).map(Generation).collect(), ..Model::default() };
            for deed in deeds {
                match deed {
                    Deed::Lease { by, wanted } => model.take(&mut leases, Generation(by), wanted),
                    Deed::Finish { pick } => if let Some((range, by)) = model.nth(pick) {
                        prop_assert_eq!(leases.hand_back(by, range, range.len(), 0), Handed::Done);
                        model.held.remove(&range);
                        *model.done.entry(range).or_default() += 1;
                        model.last_done.push((by, range));
                    },
                    Deed::Fail { pick } => if let Some((range, by)) = model.nth(pick) {
                        let handed = leases.hand_back(by, range, 0, range.len());
                        prop_assert!(matches!(handed, Handed::Again | Handed::Failed));
                        model.held.remove(&range);
                    },
                    Deed::Leave { pick } => if let Some((range, by)) = model.nth(pick) {
                        prop_assert_eq!(leases.hand_back(by, range, range.len() - 1, 0), Handed::Unfinished);
                        model.held.remove(&range);
                    },
                    Deed::Twice { pick } => if !model.last_done.is_empty() {
                        let (by, range) = model.last_done[pick % model.last_done.len()];
                        prop_assert_eq!(leases.hand_back(by, range, range.len(), 0), Handed::NotHeld);
                    },
                    Deed::Lose { by } => {
                        let gone = Generation(by);
                        let held: Vec<RowRange> =
                            model.held.iter().filter(|(_, g)| **g == gone).map(|(r, _)| *r).collect();
                        prop_assert_eq!(leases.lose(gone), held.len() as u64);
                        for range in held {
                            model.held.remove(&range);
                            model.kept_back.insert(range, gone);
                            prop_assert_eq!(leases.hand_back(gone, range, range.len(), 0), Handed::NotHeld);
                        }
                    }
                    Deed::Release { by } => {
                        let of = |all: &BTreeMap<RowRange, Generation>| -> Vec<RowRange> {
                            all.iter().filter(|(_, g)| **g == Generation(by)).map(|(r, _)| *r).collect()
                        };
                        let free = [of(&model.held), of(&model.kept_back)].concat();
                        prop_assert_eq!(leases.release(Generation(by)), free.len() as u64);
                        model.held.retain(|r, _| !free.contains(r));
                        model.kept_back.retain(|r, _| !free.contains(r));
                    }
                }
                prop_assert_eq!(leases.ranges_done(), model.done.len() as u64);
                prop_assert_eq!(leases.rows_done(), model.done.keys().map(|r| r.len()).sum::<u64>());
            }
            // Whatever happened, one worker that stays finishes the phase.
            let last = Generation(99);
            for (range, by) in std::mem::take(&mut model.held) {
                prop_assert_eq!(leases.hand_back(by, range, range.len(), 0), Handed::Done);
                *model.done.entry(range).or_default() += 1;
            }
            prop_assert!(model.kept_back.is_empty() || !leases.all_done(), "what is kept back is not done");
            for by in 1..5 {
                leases.release(Generation(by));
            }
            model.kept_back.clear();
            model.fleet = BTreeSet::from([last]);
            while !leases.all_done() {
                model.take(&mut leases, last, 3);
                prop_assert!(!model.held.is_empty(), "not all done, yet nothing to lease");
                for (range, by) in std::mem::take(&mut model.held) {
                    prop_assert_eq!(leases.hand_back(by, range, range.len(), 0), Handed::Done);
                    *model.done.entry(range).or_default() += 1;
                }
            }
            prop_assert!(model.done.values().all(|n| *n == 1));
            prop_assert_eq!(model.done.keys().map(|r| r.len()).sum::<u64>(), rows);
        }
    }

    proptest! {
        /// Whoever asks when: a range fails only after three tries, and of three different workers where there are so
        /// many; and as long as it has not, somebody of the fleet is given it.
        #[test]
        fn a_poisoned_range_is_tried_by_as_many_workers_as_there_are(
            workers in 1u64..6, asks in prop::collection::vec(0u64..6, 0..60)
        ) {
            let fleet: BTreeSet<Generation> = (0..workers).map(Generation).collect();
            let mut leases = Leases::new(Cut::new(RowRange { start: 0, end: 10 }, 10));
            let everybody_in_turn = (0..100).map(|n| n % workers);
            let mut tried = Vec::new();
            for by in asks.into_iter().map(|ask| ask % workers).chain(everybody_in_turn).map(Generation) {
                let Some(range) = leases.lease(by, 1, &fleet).first().copied() else { continue };
                tried.push(by);
                if leases.hand_back(by, range, 0, range.len()) == Handed::Failed {
                    break;
                }
            }
            prop_assert_eq!(tried.len(), TRIES);
            let different: BTreeSet<Generation> = tried.into_iter().collect();
            prop_assert_eq!(different.len(), fleet.len().min(TRIES));
        }
    }

    #[test]
    fn who_has_nothing_to_do_takes_from_the_one_that_holds_most_and_asks_once() {
        let (slow, quick, fleet) =
            (Generation(1), Generation(2), BTreeSet::from([Generation(1), Generation(2)]));
        let mut leases = Leases::new(Cut::new(RowRange { start: 0, end: 40 }, 10));
        assert_eq!(leases.ask_back(1), None, "nobody holds anything");
        let held = leases.lease(slow, 3, &fleet);
        let own = leases.lease(quick, 1, &fleet);
        assert_eq!(leases.ask_back(1), Some((slow, held[2])));
        assert_eq!(leases.ask_back(1), None, "one who waits wants one");
        assert_eq!(leases.ask_back(2), Some((slow, held[1])));
        assert_eq!(leases.ask_back(3), None, "a last range is its holder's");
        assert_eq!(leases.hand_back(slow, held[2], 0, 0), Handed::Unfinished);
        assert_eq!(leases.lease(quick, 1, &fleet), vec![held[2]]);
        assert_eq!(leases.hand_back(quick, own[0], 10, 0), Handed::Done);
        assert_eq!(leases.hand_back(quick, held[2], 10, 0), Handed::Done);
        assert_eq!(leases.hand_back(slow, held[1], 10, 0), Handed::Done);
    }
}
