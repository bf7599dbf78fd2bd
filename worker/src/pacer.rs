//! When each request of this lane is due.
//!
//! Made from the coordinator's order and the lane's place in the deal of shares; read by the pipeline. Law: the n-th
//! due instant depends on no reply; the union over all lanes is the scenario's schedule.

use vst_common::phase::PhaseOrder;
use vst_common::schedule::{DueIter, Schedule};
use vst_common::shares::{SHARES, ShareSet};

/// Due instants of an open loop, or request numbers of a closed one.
#[derive(Debug)]
pub(crate) struct Pacer {
    start: u64,
    /// From start to end of the phase; `None` where the work itself ends it.
    length: Option<u64>,
    schedule: Option<Schedule>,
    /// Of the shares that were dealt, then of those taken over.
    due: Vec<DueIter>,
    /// Numbers from this one on are not sent.
    limit: u64,
    numbers: Numbers,
}

impl Pacer {
    /// For one lane of the fleet.
    pub(crate) fn new(order: &PhaseOrder, lane: u32) -> Self {
        let shares = ShareSet::for_lane(lane, order.lanes_total);
        let total = order.warm_up_ns.saturating_add(order.duration_ns);
        let length = (!order.work.is_leased() && total > 0).then_some(total);
        let schedule = Schedule::of_order(order);
        let due = schedule.iter().map(|schedule| DueIter::new(schedule.clone(), &shares)).collect();
        let limit = order.operations.unwrap_or(u64::MAX);
        Self { start: 0, length, schedule, due, limit, numbers: Numbers::new(&shares) }
    }

    /// Whether every request of this lane has been taken.
    pub(crate) fn is_exhausted(&self, closed: bool) -> bool {
        if closed { self.numbers.peek().is_none_or(|n| n >= self.limit) } else { self.peek_due().is_none() }
    }

    /// The schedule begins at `start` on the own clock.
    pub(crate) fn start(&mut self, start: u64) {
        self.start = start;
    }

    /// From an instant after the start on these shares are this lane's too. What of them is due already when this comes
    /// is sent late and not left out.
    pub(crate) fn take_over(&mut self, from_ns: u64, shares: &ShareSet) {
        let Some(schedule) = &self.schedule else { return };
        let mut due = DueIter::new(schedule.clone(), &ShareSet::empty());
        // Nothing of it was decided yet, so no instant is too early.
        if due.change(from_ns, shares).is_ok() {
            self.due.push(due);
        }
    }

    /// End of the phase on the own clock.
    pub(crate) fn end(&self) -> Option<u64> {
        self.length.map(|length| self.start.saturating_add(length))
    }

    /// The next due instant on the own clock.
    pub(crate) fn peek_due(&self) -> Option<u64> {
        let earliest = self.due.iter().filter_map(DueIter::peek).map(|(_, due)| due).min()?;
        Some(self.start.saturating_add(earliest))
    }

    /// The next request that is due at or before `until`: its number and due instant.
    pub(crate) fn next_due(&mut self, until: u64) -> Option<(u64, u64)> {
        let standing = |due: &DueIter| due.peek().map_or(u64::MAX, |(_, due)| due);
        let first = match self.due.as_mut_slice() {
            [only] => only,
            several => several.iter_mut().min_by_key(|due| standing(due))?,
        };
        let (_, due) = first.peek()?;
        if self.start.saturating_add(due) > until {
            return None;
        }
        let (n, due) = first.next()?;
        Some((n, self.start.saturating_add(due)))
    }

    /// The next request number of a closed loop.
    pub(crate) fn next_number(&mut self) -> Option<u64> {
        self.numbers.peek().filter(|n| *n < self.limit)?;
        self.numbers.next()
    }
}

/// The numbers of a lane's shares, ascending: a closed loop takes them as fast as replies come.
#[derive(Debug)]
struct Numbers {
    shares: Vec<u32>,
    at: usize,
    round: u64,
}

impl Numbers {
    fn new(shares: &ShareSet) -> Self {
        Self { shares: shares.iter().collect(), at: 0, round: 0 }
    }

    fn peek(&self) -> Option<u64> {
        let share = *self.shares.get(self.at)?;
        Some(self.round * u64::from(SHARES) + u64::from(share))
    }
}

impl Iterator for Numbers {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let n = self.peek()?;
        self.at += 1;
        if self.at == self.shares.len() {
            self.at = 0;
            self.round += 1;
        }
        Some(n)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vst_common::ids::PhaseIndex;
    use vst_common::scenario::Arrival;

    use super::*;

    const LENGTH_NS: u64 = 2_000_000_000;

    fn pacer(schedule: &Schedule, shares: &ShareSet) -> Pacer {
        Pacer {
            start: 0,
            length: Some(LENGTH_NS),
            schedule: Some(schedule.clone()),
            due: vec![DueIter::new(schedule.clone(), shares)],
            limit: u64::MAX,
            numbers: Numbers::new(shares),
        }
    }

    proptest! {
        /// Whenever a lane hears that it takes over another one's shares, early or late: the two send every request of
        /// both once, but for those that were due while the shares were nobody's, and each lane in order of due instants.
        #[test]
        fn what_a_lane_takes_over_is_sent_once_and_all_of_it(
            poisson in any::<bool>(), rate in 500.0..20_000.0, lanes in 2u32..6,
            dies in 0..LENGTH_NS, later in 1..LENGTH_NS / 2, heard in 0..LENGTH_NS
        ) {
            let arrival = if poisson { Arrival::Poisson { rate } } else { Arrival::Constant { rate } };
            let schedule = Schedule::new(&arrival, LENGTH_NS, 7, PhaseIndex(1));
            let (own, other) = (ShareSet::for_lane(0, lanes), ShareSet::for_lane(1, lanes));
            let from = dies.saturating_add(later);
            let (mut heir, mut dead) = (pacer(&schedule, &own), pacer(&schedule, &other));
            let mut sent: Vec<u64> = std::iter::from_fn(|| dead.next_due(dies)).map(|(n, _)| n).collect();
            let take = |heir: &mut Pacer, until: u64| -> Vec<(u64, u64)> {
                std::iter::from_fn(|| heir.next_due(until)).collect()
            };
            let early = take(&mut heir, heard);
            heir.take_over(from, &other);
            let late = take(&mut heir, LENGTH_NS);
            // What was due already when it was heard of comes first, and then all is in order.
            prop_assert!(late.windows(2).all(|w| w[0].1 <= w[1].1));
            sent.extend(early.iter().chain(&late).map(|(n, _)| *n));
            sent.sort_unstable();
            prop_assert!(sent.windows(2).all(|w| w[0] != w[1]), "sent twice");
            let all = schedule.due_in(&own.union(&other), 0, LENGTH_NS);
            let nobodys = schedule.due_in(&other, dies + 1, from);
            prop_assert_eq!(sent.len() as u64, all - nobodys);
        }
    }
}
