//! Who owns which part of an open phase's schedule, from when to when.
//!
//! Dealt when the phase is armed; what somebody who is gone would have sent from an announced instant on is dealt to
//! those who are there. Also counts what fell due while nobody owned it. Law: at each instant a share has one owner or
//! none, and whoever folds the same deals and moves has the same holdings.

use std::collections::{BTreeMap, BTreeSet};

use vst_common::ids::Generation;
use vst_common::schedule::Schedule;
use vst_common::shares::ShareSet;

/// A part of the schedule in one hand.
#[derive(Clone, Debug)]
struct Holding {
    owner: Generation,
    /// Lane of that worker, from 0.
    lane: u32,
    shares: ShareSet,
    /// After the start instant, nanoseconds.
    from_ns: u64,
    /// When others took it over.
    until_ns: u64,
}

/// What a worker takes over at an instant: for each of its lanes that gets some, the shares.
pub(crate) type Inherited = Vec<(u32, ShareSet)>;

/// All holdings of a phase.
#[derive(Clone, Debug)]
pub(crate) struct Ownership(Vec<Holding>);

impl Ownership {
    /// As dealt before the phase: (worker, first lane, lanes) of `total` lanes.
    pub(crate) fn dealt(deal: &[(Generation, u32, u32)], total: u32) -> Self {
        let lanes =
            deal.iter().flat_map(|(owner, first, lanes)| (0..*lanes).map(move |lane| (*owner, *first, lane)));
        let holding = |(owner, first, lane): (Generation, u32, u32)| Holding {
            owner,
            lane,
            shares: ShareSet::for_lane(first.saturating_add(lane), total),
            from_ns: 0,
            until_ns: u64::MAX,
        };
        Self(lanes.map(holding).collect())
    }

    /// Whether anything is still in the hands of one of these.
    pub(crate) fn is_held_by(&self, gone: &BTreeSet<Generation>) -> bool {
        self.0.iter().any(|h| h.until_ns == u64::MAX && !h.shares.is_empty() && gone.contains(&h.owner))
    }

    /// From `from_ns` on what is in the hands of those who are gone belongs to `heirs`, (worker, lanes): share by share
    /// in turn, so that lanes go on to interleave in time.
    pub(crate) fn pass_on(&mut self, from_ns: u64, gone: &BTreeSet<Generation>, heirs: &[(Generation, u32)]) {
        let lanes: Vec<(Generation, u32)> =
            heirs.iter().flat_map(|(heir, lanes)| (0..*lanes).map(move |lane| (*heir, lane))).collect();
        if lanes.is_empty() {
            return;
        }
        let mut left = ShareSet::empty();
        for holding in self.0.iter_mut().filter(|h| h.until_ns == u64::MAX && gone.contains(&h.owner)) {
            holding.until_ns = from_ns;
            left = left.union(&holding.shares);
        }
        let mut given: BTreeMap<(Generation, u32), ShareSet> = BTreeMap::new();
        for (share, lane) in left.iter().zip(lanes.iter().cycle()) {
            given.entry(*lane).or_insert_with(ShareSet::empty).insert(share);
        }
        let holding = |((owner, lane), shares)| Holding { owner, lane, shares, from_ns, until_ns: u64::MAX };
        self.0.extend(given.into_iter().map(holding));
    }

    /// What a worker took over, by the instant from which on it is its own.
    pub(crate) fn taken_over(&self, owner: Generation) -> BTreeMap<u64, Inherited> {
        let mut taken: BTreeMap<u64, Inherited> = BTreeMap::new();
        for holding in self.0.iter().filter(|h| h.owner == owner && h.from_ns > 0) {
            taken.entry(holding.from_ns).or_default().push((holding.lane, holding.shares.clone()));
        }
        taken
    }

    /// Who took something over at an instant.
    pub(crate) fn heirs_at(&self, from_ns: u64) -> BTreeSet<Generation> {
        self.0.iter().filter(|h| h.from_ns == from_ns && from_ns > 0).map(|h| h.owner).collect()
    }

    /// How many requests fell due for a worker from one instant to another, while they were its own.
    pub(crate) fn due(&self, schedule: &Schedule, owner: Generation, from_ns: u64, until_ns: u64) -> u64 {
        let own = self.0.iter().filter(|h| h.owner == owner);
        own.map(|h| schedule.due_in(&h.shares, from_ns.max(h.from_ns), until_ns.min(h.until_ns)))
            .fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vst_common::shares::SHARES;

    use super::*;

    proptest! {
        /// Whoever goes when: each share always has at most one owner, all of them once everything was passed on, and
        /// what is due over all owners is the schedule but for the time when nobody owned it.
        #[test]
        fn every_share_has_one_owner_or_none(
            lanes in prop::collection::vec(1u32..4, 2..8), leaves in prop::collection::vec(0usize..8, 0..7)
        ) {
            let total: u32 = lanes.iter().sum();
            let mut first = 0;
            let deal: Vec<(Generation, u32, u32)> = lanes.iter().zip(1..).map(|(lanes, g)| {
                first += lanes;
                (Generation(g), first - lanes, *lanes)
            }).collect();
            let mut ownership = Ownership::dealt(&deal, total);
            let mut gone = BTreeSet::new();
            for (at, pick) in (1u64..).zip(leaves) {
                let here: Vec<_> = deal.iter().filter(|(g, _, _)| !gone.contains(g)).map(|(g, _, l)| (*g, *l)).collect();
                if here.len() < 2 {
                    break;
                }
                gone.insert(here[pick % here.len()].0);
                prop_assert!(ownership.is_held_by(&gone));
                let heirs: Vec<_> = here.into_iter().filter(|(g, _)| !gone.contains(g)).collect();
                ownership.pass_on(at * 1_000, &gone, &heirs);
                prop_assert!(!ownership.is_held_by(&gone));
                for instant in [at * 1_000 - 1, at * 1_000] {
                    let mut seen = 0;
                    let mut all = ShareSet::empty();
                    for h in ownership.0.iter().filter(|h| (h.from_ns..h.until_ns).contains(&instant)) {
                        seen += h.shares.len();
                        all = all.union(&h.shares);
                    }
                    prop_assert_eq!((seen, all.len()), (SHARES, SHARES));
                }
                let told: u32 = ownership.heirs_at(at * 1_000).into_iter()
                    .flat_map(|heir| ownership.taken_over(heir).remove(&(at * 1_000)).unwrap())
                    .map(|(_, shares)| shares.len()).sum();
                prop_assert!(told > 0, "the heirs are told");
            }
        }
    }
}
