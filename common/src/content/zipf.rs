//! Numbers with Zipf's distribution, exactly, in constant time and memory.
//!
//! Rejection-inversion: W. Hörmann and G. Derflinger, "Rejection-inversion to generate variates from monotone discrete
//! distributions", ACM TOMACS 6 (1996). Exponent 1 and exponents near it are no special case, because the integral is
//! taken in the form that loses no digits there.

use crate::count;
use crate::seed::Draw;

/// Ranks 1..=n, rank r with probability in proportion to `r^-s`.
#[derive(Clone, Copy, Debug)]
pub struct Zipf {
    n: u64,
    s: f64,
    /// Integral of the hat up to 3/2, less the first rank's weight.
    low: f64,
    /// Integral of the hat up to n + 1/2.
    high: f64,
    /// A rank this close below its own inverse needs no look at the weight.
    squeeze: f64,
}

impl Zipf {
    /// `n` ranks (at least 1) with exponent `s` above 0.
    #[must_use]
    pub fn new(n: u64, s: f64) -> Self {
        let n = n.max(1);
        let low = integral(1.5, s) - 1.0;
        let high = integral(count::to_f64(n) + 0.5, s);
        let squeeze = 2.0 - inverse(integral(2.5, s) - weight(2.0, s), s);
        Self { n, s, low, high, squeeze }
    }

    /// A rank in 1..=n.
    pub fn draw(&self, draw: &mut Draw) -> u64 {
        loop {
            let u = self.high + draw.unit() * (self.low - self.high);
            let x = inverse(u, self.s);
            let k = count::from_f64(x + 0.5).clamp(1, self.n);
            let rank = count::to_f64(k);
            if rank - x <= self.squeeze || u >= integral(rank + 0.5, self.s) - weight(rank, self.s) {
                return k;
            }
        }
    }
}

/// The hat: `x^-s`.
fn weight(x: f64, s: f64) -> f64 {
    libm::exp(-s * libm::log(x))
}

/// Its integral from 1: `(x^(1-s) - 1) / (1 - s)`, and `ln x` for s = 1.
fn integral(x: f64, s: f64) -> f64 {
    let log = libm::log(x);
    expm1_over((1.0 - s) * log) * log
}

fn inverse(u: f64, s: f64) -> f64 {
    let t = (u * (1.0 - s)).max(-1.0);
    libm::exp(log1p_over(t) * u)
}

/// `(e^x - 1) / x`
fn expm1_over(x: f64) -> f64 {
    if x.abs() > 1e-8 { libm::expm1(x) / x } else { 1.0 + x * 0.5 * (1.0 + x / 3.0) }
}

/// `ln(1 + x) / x`
fn log1p_over(x: f64) -> f64 {
    if x.abs() > 1e-8 { libm::log1p(x) / x } else { 1.0 - x * (0.5 - x / 3.0) }
}
