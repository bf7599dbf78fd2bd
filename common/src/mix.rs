//! What each request of a mixed phase does: a query, a row that comes, one that goes, one that is written again.
//!
//! The coordinator plans the population with it, workers fetch rows, send and judge by it. Rows go from the front of
//! the live set's order and come from behind those that are alive, as in a churn; only rows that stay are written again.
//! Laws: what request n does depends on n alone; no row both comes and goes, none twice; whatever the order in which
//! requests end, the population afterwards is the planned one, and [`Mix::stable`] was alive all the time.

use serde::{Deserialize, Serialize};

use crate::content::Pattern;
use crate::live_set::LiveSet;
use crate::seed::mix;

/// Keeps the rows that are written again apart from other draws.
const AGAIN: u64 = 0x0A6A_1290;

/// Shares of the requests of a mixed phase: each so many of the sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MixWeights {
    /// Nearest neighbours are asked for.
    pub query: u32,
    /// A row that is not alive is written.
    pub ingest: u32,
    /// A row that is alive is deleted.
    pub delete: u32,
    /// A row that stays alive is written again.
    pub update: u32,
}

impl MixWeights {
    /// In the order of the operations.
    #[must_use]
    pub fn all(self) -> [u32; 4] {
        [self.query, self.ingest, self.delete, self.update]
    }
}

const QUERY: usize = 0;
const INGEST: usize = 1;
const DELETE: usize = 2;
const UPDATE: usize = 3;

/// What one request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Asks.
    Query,
    /// Writes the cell at this position of the order as it was before the phase.
    Ingest(u64),
    /// Deletes the cell at this position.
    Delete(u64),
    /// Writes the cell at this position again.
    Update(u64),
}

/// A mixed phase over a population.
#[derive(Clone, Debug)]
pub struct Mix {
    pattern: Pattern,
    before: LiveSet,
    gone: u64,
    come: u64,
}

impl Mix {
    /// The first `requests` requests by these weights, over what was alive before.
    #[must_use]
    pub fn new(weights: MixWeights, requests: u64, before: LiveSet) -> Self {
        // Not of the phase's number: how many rows come and go must be known before phases are numbered.
        let pattern = Pattern::new(&weights.all(), before.seed, 0);
        let (gone, come) = (pattern.before(DELETE, requests), pattern.before(INGEST, requests));
        Self { pattern, before, gone, come }
    }

    /// Rows that go.
    #[must_use]
    pub fn gone(&self) -> u64 {
        self.gone
    }

    /// Rows that come.
    #[must_use]
    pub fn come(&self) -> u64 {
        self.come
    }

    /// Whether there are rows enough: those that go are alive, those that come are not, and something stays that can be
    /// written again.
    #[must_use]
    pub fn fits(&self) -> bool {
        let before = self.before;
        let stays = before.count().checked_sub(self.gone);
        let again = self.pattern.before(UPDATE, u64::from(u32::MAX)) > 0;
        self.come <= before.cells().saturating_sub(before.count())
            && stays.is_some_and(|stays| stays > 0 || !again)
    }

    /// What is alive before, during and after the phase.
    #[must_use]
    pub fn stable(&self) -> LiveSet {
        self.before.moved_on(self.gone, 0)
    }

    /// What is alive at some instant of the phase.
    #[must_use]
    pub fn ever(&self) -> LiveSet {
        self.before.with_cut(self.before.count().saturating_add(self.come))
    }

    /// What is alive when the phase has ended.
    #[must_use]
    pub fn after(&self) -> LiveSet {
        self.before.moved_on(self.gone, self.come)
    }

    /// Whether request `n` asks.
    #[must_use]
    pub fn asks(&self, n: u64) -> bool {
        self.pattern.operation(n) == QUERY
    }

    /// What request `n` does.
    #[must_use]
    pub fn deed(&self, n: u64) -> Deed {
        match self.pattern.operation(n) {
            INGEST => Deed::Ingest(self.before.count().saturating_add(self.pattern.before(INGEST, n))),
            DELETE => Deed::Delete(self.pattern.before(DELETE, n)),
            UPDATE => {
                let stays = self.before.count().saturating_sub(self.gone).max(1);
                Deed::Update(self.gone.saturating_add(mix(self.before.seed ^ AGAIN ^ mix(n)) % stays))
            }
            _ => Deed::Query,
        }
    }

    /// How many of the requests below `n` write a row.
    #[must_use]
    pub fn written_before(&self, n: u64) -> u64 {
        self.pattern.before(INGEST, n).saturating_add(self.pattern.before(UPDATE, n))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::count;

    fn cells(live: LiveSet) -> HashSet<(u32, u64)> {
        (0..live.count()).map(|position| live.cell_at(position).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn in_any_order_the_requests_make_the_planned_population_and_what_is_stable_never_leaves(
            seed: u64, rows in 1_u64..200, copies in 1_u32..4, alive in 0.0_f64..=1.0, requests in 0_u64..300,
            query in 0_u32..8, ingest in 0_u32..8, delete in 0_u32..8, update in 0_u32..8, shuffle: u64,
        ) {
            let weights = MixWeights { query, ingest, delete, update };
            prop_assume!(weights.all().iter().any(|weight| *weight > 0));
            let before = LiveSet::empty(seed, rows, copies).keep(alive);
            let plan = Mix::new(weights, requests, before);
            prop_assume!(plan.fits());
            let mut numbers: Vec<u64> = (0..requests).collect();
            numbers.sort_by_key(|n| crate::seed::mix(n ^ shuffle));
            let (mut now, mut changed) = (cells(before), HashSet::new());
            let (stable, ever) = (cells(plan.stable()), cells(plan.ever()));
            let mut written = 0;
            for n in numbers {
                prop_assert_eq!(plan.asks(n), plan.deed(n) == Deed::Query);
                match plan.deed(n) {
                    Deed::Query => {}
                    Deed::Ingest(position) => {
                        let cell = before.cell_at(position).unwrap();
                        prop_assert!(now.insert(cell) && changed.insert(cell));
                        written += 1;
                    }
                    Deed::Delete(position) => {
                        let cell = before.cell_at(position).unwrap();
                        prop_assert!(now.remove(&cell) && changed.insert(cell));
                    }
                    Deed::Update(position) => {
                        prop_assert!(stable.contains(&before.cell_at(position).unwrap()));
                        written += 1;
                    }
                }
                prop_assert!(stable.is_subset(&now) && now.is_subset(&ever));
            }
            prop_assert_eq!(plan.written_before(requests), written);
            prop_assert_eq!(cells(plan.after()), now);
            prop_assert_eq!(count::len(changed.len()), plan.gone() + plan.come());
            // Each weight holds over every whole round.
            let sum: u64 = weights.all().iter().map(|weight| u64::from(*weight)).sum();
            if requests % sum == 0 {
                prop_assert_eq!(plan.gone(), requests / sum * u64::from(delete));
                prop_assert_eq!(plan.come(), requests / sum * u64::from(ingest));
            }
        }
    }

    #[test]
    fn what_asks_for_more_rows_than_there_are_does_not_fit() {
        let full = LiveSet::empty(1, 100, 1).full();
        let weights = |ingest, delete, update| MixWeights { query: 1, ingest, delete, update };
        let fits = |weights, requests, live| Mix::new(weights, requests, live).fits();
        assert!(!fits(weights(1, 0, 0), 2, full), "nothing is left to come");
        assert!(fits(weights(0, 1, 0), 200, full) && !fits(weights(0, 1, 0), 202, full));
        assert!(!fits(weights(0, 1, 1), 300, full), "nothing stays to be written again");
        assert!(fits(weights(1, 1, 1), 40, full.keep(0.5)));
    }
}
