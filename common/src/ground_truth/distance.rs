//! Exact distances, and how far a server's 32-bit distance may be from them.

use crate::count;
use crate::scenario::Metric;

/// Unit round-off of a 32-bit float: half the distance from 1 to the next.
pub(super) const UNIT_F32: f64 = f32::EPSILON as f64 / 2.0;

/// Distance in 64-bit arithmetic: L2 squared; 1 - cosine; 1 - inner product. Dimensions that only one vector has are
/// ignored. The cosine with a zero vector counts as 0.
#[must_use]
pub fn distance(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let pairs = a.iter().zip(b).map(|(x, y)| (f64::from(*x), f64::from(*y)));
    match metric {
        Metric::L2 => pairs.map(|(x, y)| (x - y) * (x - y)).sum(),
        Metric::InnerProduct => 1.0 - pairs.map(|(x, y)| x * y).sum::<f64>(),
        Metric::Cosine => {
            let dot: f64 = pairs.map(|(x, y)| x * y).sum();
            let norms = norm(a) * norm(b);
            if norms > 0.0 { 1.0 - dot / norms } else { 1.0 }
        }
    }
}

/// [`distance`] of several vectors from one, to the same bits: sums are as long as the vectors, and the processor works on
/// all of them at once.
#[must_use]
pub(super) fn distances<const N: usize>(metric: Metric, a: &[f32], others: [&[f32]; N]) -> [f64; N] {
    if metric != Metric::L2 || others.iter().any(|b| b.len() != a.len()) {
        return others.map(|b| distance(metric, a, b));
    }
    let mut sums = [0.0; N];
    for (i, x) in a.iter().enumerate() {
        for (sum, b) in sums.iter_mut().zip(&others) {
            let difference = f64::from(*x) - f64::from(b[i]);
            *sum += difference * difference;
        }
    }
    sums
}

fn norm(a: &[f32]) -> f64 {
    a.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

/// An own distance, with the error that 32-bit arithmetic may make in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Exact to 64-bit arithmetic.
    pub distance: f64,
    /// Bound of |32-bit distance - distance|, whatever the order of summation.
    pub f32_error: f64,
}

impl Measured {
    /// Whether 32-bit arithmetic may put this one before the other.
    #[must_use]
    pub fn ties_with(self, kth: Self) -> bool {
        self.distance <= kth.distance + kth.f32_error + self.f32_error
    }
}

/// Distance with its bound: n rounded operations in a row err by at most `gamma(n) = n u / (1 - n u)`, relative to the
/// sum of the terms' sizes (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 2002, chapter 3). In d
/// dimensions n is d + 2 for L2 (difference, square, sum) and d + 1 for the inner product; the cosine normalises both
/// vectors first, 2 d + 8 in all.
#[must_use]
pub fn measure(metric: Metric, a: &[f32], b: &[f32]) -> Measured {
    let distance = distance(metric, a, b);
    let dims = count::to_f64(count::len(a.len().min(b.len())));
    let terms = || a.iter().zip(b).map(|(x, y)| (f64::from(*x) * f64::from(*y)).abs()).sum::<f64>();
    let f32_error = match metric {
        Metric::L2 => gamma(dims + 2.0) * distance,
        Metric::InnerProduct => gamma(dims + 1.0) * terms() + UNIT_F32 * (1.0 + distance.abs()),
        Metric::Cosine => {
            let norms = norm(a) * norm(b);
            let terms = if norms > 0.0 { terms() / norms } else { 0.0 };
            gamma(2.0 * dims + 8.0) * terms + 2.0 * UNIT_F32
        }
    };
    Measured { distance, f32_error }
}

pub(super) fn gamma(operations: f64) -> f64 {
    operations * UNIT_F32 / (1.0 - operations * UNIT_F32)
}

/// The k nearest of some rows, best first, ties by row number: exact, one row at a time.
#[must_use]
pub fn nearest<V: AsRef<[f32]>>(
    metric: Metric,
    rows: impl IntoIterator<Item = (u64, V)>,
    query: &[f32],
    k: usize,
) -> Vec<(u64, f64)> {
    let mut all: Vec<(u64, f64)> =
        rows.into_iter().map(|(row, vector)| (row, distance(metric, query, vector.as_ref()))).collect();
    all.sort_unstable_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    all.truncate(k);
    all
}
