//! Proposes neighbours by a matrix product in 32-bit arithmetic, on any machine.
//!
//! Fed with the rows of a block and some queries by [`super::Block`], which reads the scores. Law: every score is within
//! [`Products::error`] of what exact arithmetic gives.

use super::super::distance::gamma;
use super::{narrow, norm};
use crate::count;
use crate::scenario::Metric;

/// Rows and queries of one matrix product: both operands and the result stay in the cache of a core.
pub(super) const TILE: usize = 512;

/// What scores are made of besides products: score = a + b * (row . query), the smaller the nearer.
#[derive(Debug)]
pub(super) struct Products {
    metric: Metric,
    dims: usize,
    pub(super) a: Vec<f32>,
    pub(super) b: Vec<f32>,
    /// Largest norm among the rows.
    norm_max: f64,
}

impl Products {
    /// Of these rows.
    pub(super) fn new(metric: Metric, dims: usize, rows: &[f32], takes_part: &[bool]) -> Self {
        let (mut a, mut b) = (Vec::with_capacity(takes_part.len()), Vec::with_capacity(takes_part.len()));
        let mut norm_max = 0_f64;
        for (takes_part, vector) in takes_part.iter().zip(rows.chunks_exact(dims)) {
            if !takes_part {
                a.push(f32::INFINITY);
                b.push(0.0);
                continue;
            }
            let norm = norm(vector);
            norm_max = norm_max.max(norm);
            let (add, factor) = match metric {
                Metric::L2 => (norm * norm, -2.0),
                Metric::InnerProduct => (0.0, -1.0),
                Metric::Cosine => (0.0, if norm > 0.0 { -1.0 / norm } else { 0.0 }),
            };
            a.push(narrow(add));
            b.push(narrow(factor));
        }
        Self { metric, dims, a, b, norm_max }
    }

    /// Bound of |score - score in exact arithmetic| for a query of this norm.
    pub(super) fn error(&self, norm: f64) -> f64 {
        // Each product and each sum rounds once, in whatever order (Higham 2002, chapter 3); what the scores add to
        // the product rounds a few times more. Products that underflow lose no more than the smallest normal number.
        let relative = gamma(count::to_f64(count::len(self.dims)) + 8.0);
        let size = match self.metric {
            Metric::L2 => 2.0 * self.norm_max * norm + 2.0 * self.norm_max * self.norm_max,
            Metric::InnerProduct => self.norm_max * norm,
            Metric::Cosine => norm,
        };
        relative * size + count::to_f64(count::len(self.dims)) * f64::from(f32::MIN_POSITIVE)
    }

    /// Whether 32-bit arithmetic reaches far enough for these rows and this query.
    pub(super) fn in_range(&self, norm: f64) -> bool {
        let most = f64::from(f32::MAX) / 16.0;
        let size = self.norm_max.max(norm);
        size * size < most
    }
}

/// products[query * TILE + row] = row . query, for at most TILE rows.
#[expect(
    unsafe_code,
    reason = "the matrix product takes pointers; the asserted lengths are what it reads and writes"
)]
pub(super) fn multiply(rows: &[f32], queries: &[f32], dims: usize, products: &mut [f32]) {
    let (m, n) = (rows.len() / dims, queries.len() / dims);
    assert!(m <= TILE && products.len() >= n * TILE, "the result has no room");
    let Ok(across) = isize::try_from(dims) else { return };
    const DOWN: isize = 512;
    const { assert!(TILE == 512, "DOWN is TILE") };
    // SAFETY: `rows` holds m x dims numbers, `queries` n x dims, `products` n columns of TILE >= m numbers; the strides
    // name no place beyond them, and the result overlaps neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            dims,
            products.as_mut_ptr(),
            DOWN,
            1,
            false,
            rows.as_ptr(),
            1,
            across,
            queries.as_ptr(),
            across,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
