//! When each request of this lane is due.
//!
//! Made from the coordinator's order and the lane's place in the deal of shares; read by the pipeline. Law: the n-th
//! due instant depends on no reply; the union over all lanes is the scenario's schedule.

use vst_common::phase::PhaseOrder;
use vst_common::scenario::{Arrival, Load};
use vst_common::schedule::{DueIter, Schedule};
use vst_common::shares::{SHARES, ShareSet};

/// Due instants of an open loop, or request numbers of a closed one.
#[derive(Debug)]
pub(crate) struct Pacer {
    start: u64,
    /// From start to end of the phase; `None` where the work itself ends it.
    length: Option<u64>,
    due: Option<DueIter>,
    /// Numbers from this one on are never sent.
    limit: u64,
    /// Whether due instants ascend with the number, so that one past the limit ends the lane's part.
    ascending: bool,
    numbers: Numbers,
}

impl Pacer {
    /// For one lane of the fleet.
    pub(crate) fn new(order: &PhaseOrder, lane: u32) -> Self {
        let shares = ShareSet::for_lane(lane, order.lanes_total);
        let total = order.warm_up_ns.saturating_add(order.duration_ns);
        let length = (!order.work.is_leased() && total > 0).then_some(total);
        let due = Schedule::of_order(order).map(|schedule| DueIter::new(schedule, &shares));
        let limit = order.operations.unwrap_or(u64::MAX);
        let ascending = !matches!(order.load, Load::Open { arrival: Arrival::Poisson { .. }, .. });
        let mut pacer = Self { start: 0, length, due, limit, ascending, numbers: Numbers::new(&shares) };
        pacer.skip();
        pacer
    }

    /// Passes over numbers beyond the limit.
    fn skip(&mut self) {
        while let Some((n, _)) = self.due.as_ref().and_then(DueIter::peek) {
            if n < self.limit {
                return;
            }
            if self.ascending {
                self.due = None;
            } else if let Some(due) = &mut self.due {
                due.next();
            }
        }
    }

    /// Whether every request of this lane has been taken.
    pub(crate) fn is_exhausted(&self, closed: bool) -> bool {
        if closed { self.numbers.peek().is_none_or(|n| n >= self.limit) } else { self.peek_due().is_none() }
    }

    /// The schedule begins at `start` on the own clock.
    pub(crate) fn start(&mut self, start: u64) {
        self.start = start;
    }

    /// End of the phase on the own clock.
    pub(crate) fn end(&self) -> Option<u64> {
        self.length.map(|length| self.start.saturating_add(length))
    }

    /// The next due instant on the own clock.
    pub(crate) fn peek_due(&self) -> Option<u64> {
        let (_, due) = self.due.as_ref()?.peek()?;
        Some(self.start.saturating_add(due))
    }

    /// The next request that is due at or before `until`: its number and due instant.
    pub(crate) fn next_due(&mut self, until: u64) -> Option<(u64, u64)> {
        if self.peek_due()? > until {
            return None;
        }
        let (n, due) = self.due.as_mut()?.next()?;
        self.skip();
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
