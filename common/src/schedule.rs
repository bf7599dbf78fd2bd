//! When each request of an open phase is due.
//!
//! A phase has an arrival function Lambda(t), the number of requests expected by t; request n is due at
//! Lambda^-1(n), fixed before the phase starts and the same for any fleet. Load lanes walk their shares' part with
//! [`DueIter`]; the coordinator counts what nobody owned with [`Schedule::due_in`]. Laws: the union over all lanes is
//! the schedule, each request once, also across hand-overs; no due instant depends on who asks.

mod curve;
mod due;
mod poisson;

use crate::count;
use crate::ids::PhaseIndex;
use crate::phase::PhaseOrder;
use crate::scenario::{Arrival, Load};
use crate::shares::{SHARES, ShareSet, share_of};

use curve::Curve;
pub use curve::MAX_RATE;
pub use due::DueIter;
pub use poisson::PoissonShare;

/// Why a lane's shares could not change.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The instant is not after what was taken or announced before.
    #[error("shares cannot change at {from_ns} ns: {decided_ns} ns is already decided; name a later instant")]
    Decided {
        /// The instant asked for, nanoseconds after the start of the phase.
        from_ns: u64,
        /// The latest due instant that was taken, or change that was announced.
        decided_ns: u64,
    },
}

/// The due instants of a phase, in nanoseconds after its start.
#[derive(Clone, Debug)]
pub struct Schedule {
    curve: Curve,
    /// Present where arrivals are random; `curve` is then their mean.
    random: Option<Random>,
    length_ns: u64,
    /// Numbers from this one on are not sent.
    limit: u64,
}

/// Where random arrivals take their numbers from.
#[derive(Clone, Copy, Debug)]
struct Random {
    rate: f64,
    seed: u64,
    phase: PhaseIndex,
}

impl Schedule {
    /// The schedule of a phase of `length_ns`; a ramp reaches its end there. `seed` and `phase` decide Poisson
    /// arrivals only.
    ///
    /// Rates are taken to the nearest millionth of a request per second and end at [`MAX_RATE`]; what is negative or
    /// not a number is no load. Scenario checking refuses all of these before.
    #[must_use]
    pub fn new(arrival: &Arrival, length_ns: u64, seed: u64, phase: PhaseIndex) -> Self {
        let curve = Curve::new(arrival, length_ns);
        let random = matches!(arrival, Arrival::Poisson { .. }).then(|| Random {
            rate: curve.rate_at(0),
            seed,
            phase,
        });
        Self { curve, random, length_ns, limit: u64::MAX }
    }

    /// The same schedule with its requests 0 to `operations` and no others.
    #[must_use]
    pub fn limited(self, operations: u64) -> Self {
        Self { limit: operations, ..self }
    }

    /// The schedule of an order, warm-up included; `None` for a closed loop, which has none.
    #[must_use]
    pub fn of_order(order: &PhaseOrder) -> Option<Self> {
        match &order.load {
            Load::Open { arrival, .. } => {
                let length_ns = match order.warm_up_ns.saturating_add(order.duration_ns) {
                    // The number of operations, or of rows, or another phase ends it: long enough for any number.
                    0 if order.operations.is_some() || order.work.is_leased() || order.beside.is_some() => {
                        u64::MAX / 4
                    }
                    length_ns => length_ns,
                };
                let schedule = Self::new(arrival, length_ns, order.seed, order.index);
                Some(schedule.limited(order.operations.unwrap_or(u64::MAX)))
            }
            Load::Closed { .. } => None,
        }
    }

    /// Length of the phase, nanoseconds. What is due is due before it.
    #[must_use]
    pub fn length_ns(&self) -> u64 {
        self.length_ns
    }

    /// When request `n` is due: the first nanosecond that is not before Lambda^-1(n). `None` if that is not within
    /// the phase. While the rate is 0 nothing falls due: what would, waits for the first instant with load.
    ///
    /// Constant time, but for Poisson: the arrivals of its share before it are drawn again.
    #[must_use]
    pub fn due_ns(&self, n: u64) -> Option<u64> {
        if n >= self.limit {
            return None;
        }
        if self.random.is_some() {
            let j = count::index(n / u64::from(SHARES));
            return self.arrivals(share_of(n))?.nth(j).map(|(_, due_ns)| due_ns);
        }
        self.curve.inverse(n).filter(|due_ns| *due_ns < self.length_ns)
    }

    /// How many requests are due in the phase; `None` for Poisson, where only the mean is known beforehand.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        self.random.is_none().then(|| self.due_before(self.length_ns))
    }

    /// Of a schedule that is not random: how many requests are due before `t_ns`. The numbers below it are exactly
    /// those, for due instants ascend with n.
    fn due_before(&self, t_ns: u64) -> u64 {
        self.curve.due_before(t_ns.min(self.length_ns)).min(self.limit)
    }

    /// How many requests of these shares are due in `from_ns..until_ns`. Arithmetic, but for Poisson: those shares'
    /// arrivals before `until_ns` are drawn again.
    #[must_use]
    pub fn due_in(&self, shares: &ShareSet, from_ns: u64, until_ns: u64) -> u64 {
        if self.random.is_some() {
            let within = |share| {
                self.arrivals(share).map_or(0, |all| {
                    let before = all.take_while(|(_, due_ns)| *due_ns < until_ns);
                    count::len(before.filter(|(_, due_ns)| *due_ns >= from_ns).count())
                })
            };
            return shares.iter().map(within).sum();
        }
        let all = u64::from(SHARES);
        // Of the numbers 0..n, those of share s.
        let of = |n: u64, s: u32| n / all + u64::from(u64::from(s) < n % all);
        let (first, last) = (self.due_before(from_ns), self.due_before(until_ns));
        shares.iter().map(|s| of(last, s).saturating_sub(of(first, s))).sum()
    }

    /// Offered rate at an instant, requests per second; 0 outside the phase.
    #[must_use]
    pub fn rate_at(&self, t_ns: u64) -> f64 {
        if t_ns < self.length_ns { self.curve.rate_at(t_ns) } else { 0.0 }
    }

    /// Lambda: how many requests are expected before `t_ns`, not rounded to whole ones.
    #[must_use]
    pub fn expected_by(&self, t_ns: u64) -> f64 {
        self.curve.expected_by(t_ns.min(self.length_ns)).min(count::to_f64(self.limit))
    }

    /// The arrivals of one share; `None` unless arrivals are random.
    #[must_use]
    pub fn arrivals(&self, share: u32) -> Option<PoissonShare> {
        let Random { rate, seed, phase } = self.random?;
        Some(PoissonShare::new(rate, (self.length_ns, self.limit), seed, phase, share))
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers, for comparison")]
mod tests;
