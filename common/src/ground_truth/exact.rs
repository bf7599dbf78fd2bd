//! The exact k nearest rows of many queries, over a base that is never in memory as a whole.
//!
//! Fed with blocks of rows in any order and cut; read by `vst dataset ground-truth`, by the planner of copies and by
//! workers whose published truth has been deleted away. A matrix product in 32-bit arithmetic proposes candidates, with
//! a bound of its own error; each candidate that could count is judged again by [`distance`]. Law: the result is that
//! of brute force in 64-bit arithmetic, ties by row, for any cut of the base, any order of blocks and any threads.

use super::distance::{UNIT_F32, distance, gamma};
use crate::count;
use crate::scenario::Metric;

/// Rows and queries of one matrix product: both operands and the result stay in the cache of a core.
const TILE: usize = 512;
/// Scores that the scan looks at together.
const LANES: usize = 16;
/// Candidates of a query that may wait to be judged, beyond those that it asks for.
const WAITING: usize = 512;

/// A neighbour: its row and its exact distance.
pub type Neighbour = (u64, f64);

/// A search for the k nearest rows of each of some queries.
#[derive(Debug)]
pub struct ExactSearch {
    metric: Metric,
    dims: usize,
    queries: Vec<f32>,
    states: Vec<State>,
}

/// What is known of one query's neighbours.
#[derive(Clone, Debug)]
struct State {
    k: usize,
    /// |q|, and |q|^2 in 64 bits.
    norm: f64,
    /// Judged, best first, at most k.
    found: Vec<Neighbour>,
    /// Not judged yet: score, row within the block.
    waiting: Vec<(f32, usize)>,
    /// Scores above this cannot be among the k nearest.
    limit: f32,
}

/// Rows of one block, prepared: score = a + b * (row . query), the smaller the nearer.
struct Block<'a> {
    first_row: u64,
    rows: &'a [f32],
    dims: usize,
    a: Vec<f32>,
    b: Vec<f32>,
    takes_part: Vec<bool>,
    /// Largest norm among the rows.
    norm_max: f64,
}

impl ExactSearch {
    /// A search for `k` neighbours of each query; `queries` holds them one after another, `dims` numbers each.
    #[must_use]
    pub fn new(metric: Metric, dims: usize, queries: Vec<f32>, k: usize) -> Self {
        let states = queries
            .chunks_exact(dims.max(1))
            .map(|query| State {
                k,
                norm: norm(query),
                found: Vec::with_capacity(k),
                waiting: Vec::new(),
                limit: f32::MAX,
            })
            .collect();
        Self { metric, dims: dims.max(1), queries, states }
    }

    /// Takes rows in: `rows` holds them one after another, the first is row `first_row` of the base. Rows that `takes_part`
    /// refuses are passed over. Uses up to `threads` threads.
    pub fn add(&mut self, first_row: u64, rows: &[f32], takes_part: impl Fn(u64) -> bool, threads: usize) {
        let block = Block::new(self.metric, self.dims, first_row, rows, takes_part);
        let (metric, dims) = (self.metric, self.dims);
        let each = self.states.len().div_ceil(threads.max(1)).max(1);
        let shares = self.states.chunks_mut(each).zip(self.queries.chunks(each * dims));
        std::thread::scope(|scope| {
            let mut shares = shares.peekable();
            while let Some((states, queries)) = shares.next() {
                let block = &block;
                let mut work = move || {
                    let tiles = states.chunks_mut(TILE).zip(queries.chunks(TILE * dims));
                    tiles.for_each(|(states, queries)| block.search(metric, states, queries));
                };
                if shares.peek().is_some() {
                    scope.spawn(work);
                } else {
                    work();
                }
            }
        });
    }

    /// Takes in what another search found of the same queries over other rows.
    pub fn merge(&mut self, other: Self) {
        for (state, other) in self.states.iter_mut().zip(other.states) {
            state.found.extend(other.found);
            state.keep_nearest();
        }
    }

    /// The neighbours of each query, nearest first, equal distances by row; fewer than k where there are no more rows.
    #[must_use]
    pub fn finish(self) -> Vec<Vec<Neighbour>> {
        self.states.into_iter().map(|state| state.found).collect()
    }
}

impl<'a> Block<'a> {
    fn new(
        metric: Metric,
        dims: usize,
        first_row: u64,
        rows: &'a [f32],
        takes_part: impl Fn(u64) -> bool,
    ) -> Self {
        let n = rows.len() / dims;
        let (mut a, mut b) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let takes_part: Vec<bool> = (first_row..).take(n).map(takes_part).collect();
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
        Self { first_row, rows, dims, a, b, takes_part, norm_max }
    }

    /// Bound of |score - score in exact arithmetic| for a query of this norm.
    fn error(&self, metric: Metric, norm: f64) -> f64 {
        // Each product and each sum rounds once, in whatever order (Higham 2002, chapter 3); what the scores add to
        // the product rounds a few times more. Products that underflow lose no more than the smallest normal number.
        let relative = gamma(count::to_f64(count::len(self.dims)) + 8.0);
        let size = match metric {
            Metric::L2 => 2.0 * self.norm_max * norm + 2.0 * self.norm_max * self.norm_max,
            Metric::InnerProduct => self.norm_max * norm,
            Metric::Cosine => norm,
        };
        relative * size + count::to_f64(count::len(self.dims)) * f64::from(f32::MIN_POSITIVE)
    }

    /// Whether 32-bit arithmetic reaches far enough for these rows and this query.
    fn in_range(&self, norm: f64) -> bool {
        let most = f64::from(f32::MAX) / 16.0;
        let size = self.norm_max.max(norm);
        size * size < most
    }

    fn search(&self, metric: Metric, states: &mut [State], queries: &[f32]) {
        if !states.iter().all(|state| self.in_range(state.norm)) {
            return self.search_slowly(metric, states, queries);
        }
        let errors: Vec<f64> = states.iter().map(|state| self.error(metric, state.norm)).collect();
        for (state, error) in states.iter_mut().zip(&errors) {
            state.limit = state.limit_of_found(metric, *error);
        }
        let mut products = vec![0_f32; TILE * states.len()];
        for (tile, rows) in self.rows.chunks(TILE * self.dims).enumerate() {
            let (start, n) = (tile * TILE, rows.len() / self.dims);
            multiply(rows, queries, self.dims, &mut products);
            let range = start..start + n;
            let (Some(a), Some(b)) = (self.a.get(range.clone()), self.b.get(range)) else { return };
            let columns = states.iter_mut().zip(queries.chunks_exact(self.dims)).zip(&errors);
            for (products, ((state, query), error)) in products.chunks_exact(TILE).zip(columns) {
                state.scan(start, products.get(..n).unwrap_or_default(), a, b);
                if state.waiting.len() > state.k + WAITING {
                    state.narrow(*error);
                    if state.waiting.len() > state.k + WAITING / 2 {
                        // Too many are too close for 32-bit arithmetic to tell them apart.
                        state.judge(metric, query, self);
                        state.limit = state.limit_of_found(metric, *error);
                    }
                }
            }
        }
        for ((state, query), error) in states.iter_mut().zip(queries.chunks_exact(self.dims)).zip(&errors) {
            state.narrow(*error);
            state.judge(metric, query, self);
        }
    }

    /// For numbers whose squares leave the range of 32 bits: every row is judged.
    fn search_slowly(&self, metric: Metric, states: &mut [State], queries: &[f32]) {
        for (state, query) in states.iter_mut().zip(queries.chunks_exact(self.dims)) {
            let alive = self.takes_part.iter().enumerate().filter(|(_, takes_part)| **takes_part);
            for (i, _) in alive {
                state.waiting.push((0.0, i));
                if state.waiting.len() > WAITING {
                    state.judge(metric, query, self);
                }
            }
            state.judge(metric, query, self);
        }
    }

    fn row(&self, i: usize) -> Option<&[f32]> {
        self.rows.get(i * self.dims..(i + 1) * self.dims)
    }
}

impl State {
    /// The score that the k-th neighbour found so far has, widened by the error.
    fn limit_of_found(&self, metric: Metric, error: f64) -> f32 {
        let Some((_, farthest)) = self.found.get(self.k.wrapping_sub(1)) else { return f32::MAX };
        let score = match metric {
            Metric::L2 => farthest - self.norm * self.norm,
            Metric::InnerProduct => farthest - 1.0,
            Metric::Cosine => (farthest - 1.0) * self.norm,
        };
        // The distance itself was rounded, relative to the terms that it was computed from.
        let own = 1e-12 * (farthest.abs() + self.norm * self.norm + 1.0);
        above(score + error + own)
    }

    /// Notes the rows of a tile whose score could count.
    fn scan(&mut self, start: usize, products: &[f32], a: &[f32], b: &[f32]) {
        let score = |a: &f32, b: &f32, product: &f32| a + b * product;
        let limit = self.limit;
        let groups = products.chunks(LANES).zip(a.chunks(LANES)).zip(b.chunks(LANES));
        for (group, ((products, a), b)) in groups.enumerate() {
            let rows = || products.iter().zip(a).zip(b);
            // Without a branch per row, so that the compiler makes SIMD of it.
            let near = rows().fold(0_u32, |near, ((p, a), b)| near | u32::from(score(a, b, p) <= limit));
            if near == 0 {
                continue;
            }
            for (i, ((p, a), b)) in rows().enumerate() {
                let score = score(a, b, p);
                if score <= limit {
                    self.waiting.push((score, start + group * LANES + i));
                }
            }
        }
    }

    /// Drops those waiting that k others beat by more than the error, and lowers the limit to that.
    fn narrow(&mut self, error: f64) {
        let Some(last) = self.k.checked_sub(1).filter(|last| *last < self.waiting.len()) else { return };
        let (_, kth, _) = self.waiting.select_nth_unstable_by(last, |x, y| x.0.total_cmp(&y.0));
        self.limit = self.limit.min(above(f64::from(kth.0) + 2.0 * error));
        let limit = self.limit;
        self.waiting.retain(|(score, _)| *score <= limit);
    }

    /// Judges those waiting by their exact distance.
    fn judge(&mut self, metric: Metric, query: &[f32], block: &Block<'_>) {
        let judged = self.waiting.drain(..).filter_map(|(_, i)| {
            let row = block.row(i)?;
            Some((block.first_row.saturating_add(count::len(i)), distance(metric, query, row)))
        });
        self.found.extend(judged);
        self.keep_nearest();
    }

    fn keep_nearest(&mut self) {
        self.found.sort_unstable_by(|x, y| x.1.total_cmp(&y.1).then(x.0.cmp(&y.0)));
        self.found.truncate(self.k);
    }
}

fn norm(vector: &[f32]) -> f64 {
    vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounds to the nearest; what is out of range becomes infinite"
)]
fn narrow(x: f64) -> f32 {
    x as f32
}

/// A 32-bit number that is not below `x`.
fn above(x: f64) -> f32 {
    narrow(x + x.abs() * 2.0 * UNIT_F32).next_up().min(f32::MAX)
}

/// products[query * TILE + row] = row . query, for at most TILE rows.
#[expect(
    unsafe_code,
    reason = "the matrix product takes pointers; the asserted lengths are what it reads and writes"
)]
fn multiply(rows: &[f32], queries: &[f32], dims: usize, products: &mut [f32]) {
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

#[cfg(test)]
mod tests;
