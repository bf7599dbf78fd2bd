//! Random arrivals: each share is a Poisson process of its own.
//!
//! The superposition of S independent processes of rate lambda / S is one of rate lambda, exactly, so lanes need no
//! agreement beyond who owns which share. Law: a share's arrivals depend on (seed, phase, share) alone, to the
//! nanosecond and on every machine.

use crate::count;
use crate::ids::PhaseIndex;
use crate::seed::{Draw, mix};
use crate::shares::SHARES;

/// Keeps the arrivals of share s apart from the content of request s, which draws from the same (seed, phase).
const ARRIVALS: u64 = 0x6172_7269_7661_6C73;

/// The arrivals of one share in order: (request number, due in nanoseconds after the start of the phase). The j-th
/// (from 0) of share s is request `j * SHARES + s`.
#[derive(Clone, Debug)]
pub struct PoissonShare {
    draw: Draw,
    mean_gap_ns: f64,
    at_ns: f64,
    n: u64,
    length_ns: u64,
    limit: u64,
}

impl PoissonShare {
    /// Share `share` of a phase of so many nanoseconds and requests, with `rate` requests per second over all shares.
    pub(super) fn new(
        rate: f64,
        (length_ns, limit): (u64, u64),
        seed: u64,
        phase: PhaseIndex,
        share: u32,
    ) -> Self {
        Self {
            draw: Draw::new(mix(seed ^ ARRIVALS), phase.0, u64::from(share)),
            // Infinite without load: then nothing arrives within any length.
            mean_gap_ns: 1e9 * f64::from(SHARES) / rate.max(0.0),
            at_ns: 0.0,
            n: u64::from(share),
            length_ns,
            limit,
        }
    }
}

impl Iterator for PoissonShare {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<Self::Item> {
        // The inverse of the exponential distribution. libm's logarithm, because that of the platform differs in the
        // last bit between machines, and a share may change machines in mid-phase.
        self.at_ns += self.mean_gap_ns * -libm::log(self.draw.unit());
        let due_ns = count::from_f64(self.at_ns.ceil());
        if due_ns >= self.length_ns || self.n >= self.limit || self.at_ns.is_nan() {
            return None;
        }
        let n = self.n;
        self.n = n.saturating_add(u64::from(SHARES));
        Some((n, due_ns))
    }
}
