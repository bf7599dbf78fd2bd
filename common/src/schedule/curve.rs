//! The arrival function and its inverse, in exact integers.
//!
//! Rates are whole millionths of a request per second and time is whole nanoseconds, so that the *work* by an instant
//! (rate times time) is a whole number and 10^15 of it make one request. Due instants then ascend with the number and
//! are the same on every machine, which no float formula promises; a float is used only to guess where to look.

use crate::count;
use crate::scenario::Arrival;

/// Work of one request: 10^6 millionths x 10^9 nanoseconds.
const REQUEST: u128 = 1_000_000_000_000_000;

/// The largest rate, requests per second: one per nanosecond.
pub const MAX_RATE: f64 = 1e9;

const NS_PER_MS: u64 = 1_000_000;

/// The mean number of arrivals by each instant.
#[derive(Clone, Debug)]
pub(super) enum Curve {
    /// Constant rates one after another, the last for ever.
    Pieces(Vec<Piece>),
    /// Constant rates that repeat.
    Periodic { cycle: Vec<Piece>, period_ns: u64, work: u128 },
    /// A rate that changes linearly.
    Ramp { from: u64, to: u64, length_ns: u64 },
}

/// A stretch of constant rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    start_ns: u64,
    /// Work before it.
    work: u128,
    /// Millionths of a request per second.
    rate: u64,
}

impl Curve {
    pub(super) fn new(arrival: &Arrival, length_ns: u64) -> Self {
        match arrival {
            Arrival::Constant { rate } | Arrival::Poisson { rate } => constant(millionths(*rate)),
            Arrival::Ramp { from, to } => {
                let (from, to) = (millionths(*from), millionths(*to));
                if from == to || length_ns == 0 { constant(from) } else { Self::Ramp { from, to, length_ns } }
            }
            Arrival::Steps { steps } => {
                let stretches =
                    steps.iter().map(|(rate, ms)| (millionths(*rate), ms.saturating_mul(NS_PER_MS)));
                Self::Pieces(chain(stretches).0)
            }
            Arrival::Burst { base, peak, length_ms, period_ms } => {
                let (base, peak) = (millionths(*base), millionths(*peak));
                if *period_ms == 0 {
                    return constant(base);
                }
                // The first burst begins with the phase.
                let period_ns = period_ms.saturating_mul(NS_PER_MS);
                let burst_ns = length_ms.saturating_mul(NS_PER_MS).min(period_ns);
                let (cycle, work) = chain([(peak, burst_ns), (base, period_ns - burst_ns)].into_iter());
                Self::Periodic { cycle, period_ns, work }
            }
        }
    }

    /// Work by an instant, rounded down.
    fn work(&self, t_ns: u64) -> u128 {
        match self {
            Self::Pieces(pieces) => work_in(pieces, t_ns),
            Self::Periodic { cycle, period_ns, work } => {
                u128::from(t_ns / period_ns) * work + work_in(cycle, t_ns % period_ns)
            }
            Self::Ramp { from, to, length_ns } => ramp_work(*from, *to, *length_ns, t_ns),
        }
    }

    /// The first nanosecond that is not before Lambda^-1(n), and at which there is load; `None` if there is none.
    pub(super) fn inverse(&self, n: u64) -> Option<u64> {
        let work = u128::from(n) * REQUEST;
        match self {
            Self::Pieces(pieces) => inverse_in(pieces, work),
            Self::Periodic { cycle, period_ns, work: per_cycle } => {
                let cycles = work.checked_div(*per_cycle)?;
                let before = u64::try_from(cycles).ok()?.checked_mul(*period_ns)?;
                before.checked_add(inverse_in(cycle, work - cycles * per_cycle)?)
            }
            Self::Ramp { from, to, length_ns } => ramp_inverse(*from, *to, *length_ns, work),
        }
    }

    /// How many n have their inverse before `t_ns`.
    pub(super) fn due_before(&self, t_ns: u64) -> u64 {
        let Some(last_ns) = t_ns.checked_sub(1) else {
            return 0;
        };
        // Those whose work is reached by the nanosecond before, but not those that wait for load to return. A ramp
        // has no such wait (and its work is rounded, which the second bound could not bear).
        let reached = self.work(last_ns) / REQUEST + 1;
        let n = match self {
            Self::Ramp { .. } => reached,
            Self::Pieces(_) | Self::Periodic { .. } => reached.min(self.work(t_ns).div_ceil(REQUEST)),
        };
        u64::try_from(n).unwrap_or(u64::MAX)
    }

    /// Requests per second.
    pub(super) fn rate_at(&self, t_ns: u64) -> f64 {
        let rate = match self {
            Self::Pieces(pieces) => piece_at(pieces, t_ns).map_or(0, |p| p.rate),
            Self::Periodic { cycle, period_ns, .. } => {
                piece_at(cycle, t_ns % period_ns).map_or(0, |p| p.rate)
            }
            Self::Ramp { from, to, length_ns } => {
                let part = count::to_f64(t_ns) / count::to_f64(*length_ns);
                return (count::to_f64(*from) * (1.0 - part) + count::to_f64(*to) * part) / 1e6;
            }
        };
        count::to_f64(rate) / 1e6
    }

    /// Lambda, not rounded to whole requests.
    pub(super) fn expected_by(&self, t_ns: u64) -> f64 {
        float(self.work(t_ns)) / float(REQUEST)
    }
}

fn millionths(rate: f64) -> u64 {
    count::from_f64((rate.min(MAX_RATE) * 1e6).round())
}

fn constant(rate: u64) -> Curve {
    Curve::Pieces(vec![Piece { start_ns: 0, work: 0, rate }])
}

/// Stretches (rate, nanoseconds) one after another, with the work of all. The last has no end of its own.
fn chain(stretches: impl Iterator<Item = (u64, u64)>) -> (Vec<Piece>, u128) {
    let (mut start_ns, mut work, mut pieces) = (0_u64, 0_u128, Vec::new());
    for (rate, ns) in stretches.filter(|(_, ns)| *ns > 0) {
        pieces.push(Piece { start_ns, work, rate });
        start_ns = start_ns.saturating_add(ns);
        work += u128::from(rate) * u128::from(ns);
    }
    (pieces, work)
}

fn piece_at(pieces: &[Piece], t_ns: u64) -> Option<&Piece> {
    pieces.get(pieces.partition_point(|p| p.start_ns <= t_ns).checked_sub(1)?)
}

fn work_in(pieces: &[Piece], t_ns: u64) -> u128 {
    piece_at(pieces, t_ns).map_or(0, |p| p.work + u128::from(p.rate) * u128::from(t_ns - p.start_ns))
}

fn inverse_in(pieces: &[Piece], work: u128) -> Option<u64> {
    // Of the pieces that begin with exactly this work the last: the ones before it are pauses.
    let piece = pieces.get(pieces.partition_point(|p| p.work <= work).checked_sub(1)?)?;
    let rate = u128::from(piece.rate);
    let wait = (work - piece.work + rate.saturating_sub(1)).checked_div(rate)?;
    piece.start_ns.checked_add(u64::try_from(wait).ok()?)
}

/// Work of a ramp: from t + (to - from) t^2 / 2L, rounded down; t ends at L.
///
/// With t^2 = q 2L + r the last term is (to - from) (q + r / 2L), and no product passes 128 bits.
fn ramp_work(from: u64, to: u64, length_ns: u64, t_ns: u64) -> u128 {
    let t = u128::from(t_ns.min(length_ns));
    let double = 2 * u128::from(length_ns);
    let (q, r) = (t * t / double, t * t % double);
    let change = u128::from(from.abs_diff(to));
    let even = u128::from(from) * t;
    if to >= from {
        even + change * q + change * r / double
    } else {
        even.saturating_sub(change * q).saturating_sub((change * r).div_ceil(double))
    }
}

/// The first nanosecond by which a ramp has done this much work.
fn ramp_inverse(from: u64, to: u64, length_ns: u64, work: u128) -> Option<u64> {
    let done = |t_ns: u64| ramp_work(from, to, length_ns, t_ns) >= work;
    if !done(length_ns) {
        return None;
    }
    let guess = ramp_guess(from, to, length_ns, work).min(length_ns);
    // From the guess outwards in growing strides until the answer lies in (before, reached], then by halves. A guess
    // that is right, the usual case, costs two looks.
    let (mut stride, mut before, mut reached) = (1_u64, None, length_ns);
    let mut look = guess;
    loop {
        if done(look) {
            reached = look;
            if before.is_some() || look == 0 {
                break;
            }
            look = look.saturating_sub(stride);
        } else {
            before = Some(look);
            if reached <= guess {
                break;
            }
            look = look.saturating_add(stride).min(length_ns);
        }
        stride = stride.saturating_mul(2);
    }
    let mut low = before.map_or(0, |b| b + 1);
    while low < reached {
        let middle = low + (reached - low) / 2;
        if done(middle) {
            reached = middle;
        } else {
            low = middle + 1;
        }
    }
    Some(reached)
}

/// Where a ramp has done this much work, up to the rounding of floats: the root of s t^2 / 2 + from t = work in the
/// form that loses no digits when the slope s is small or from is large.
fn ramp_guess(from: u64, to: u64, length_ns: u64, work: u128) -> u64 {
    let (from, to) = (count::to_f64(from), count::to_f64(to));
    let slope = (to - from) / count::to_f64(length_ns);
    let root = (from * from + 2.0 * slope * float(work)).max(0.0).sqrt();
    count::from_f64((2.0 * float(work) / (from + root)).ceil())
}

#[expect(clippy::cast_precision_loss, reason = "for guesses and for display; exact up to 2^53")]
fn float(work: u128) -> f64 {
    work as f64
}
