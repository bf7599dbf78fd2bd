//! The exact k nearest rows of many queries, over a base that is never in memory as a whole.
//!
//! Fed with blocks of rows in any order and cut; read by `vst dataset ground-truth`, by the planner of copies and by
//! workers whose published truth has been deleted away. Arithmetic in 8 bits ([`quantised`]) or 32 bits ([`single`])
//! proposes candidates, with a bound of its own error; each candidate that could count is judged again by [`distance`].
//! Law: the result is that of brute force in 64-bit arithmetic, ties by row, for any cut of the base, any order of
//! blocks and any threads.

mod quantised;
mod single;

use std::sync::{Mutex, OnceLock, PoisonError};

use self::quantised::{GROUP, Hit, Panels, Quantised, ROWS_TOGETHER};
use self::single::{Products, TILE, multiply};
use super::distance::{UNIT_F32, distance, distances};
use crate::count;
use crate::scenario::Metric;

/// Scores that the scan looks at together.
const LANES: usize = 16;
/// Candidates of a query that may wait to be judged, beyond those that it asks for.
const WAITING: usize = 512;
/// Numbers of the rows that are prepared at a time, whatever the length of what is added.
const SLICE: usize = 16 << 20;
/// Fewer queries are not worth the rounding of the rows.
const FEWEST: usize = 8;
/// Of so many rows one may have to be judged before it would have been cheaper to propose with 32 bits.
const JUDGED: usize = 32;

/// A neighbour: its row and its exact distance.
pub type Neighbour = (u64, f64);

/// A search for the k nearest rows of each of some queries.
#[derive(Debug)]
pub struct ExactSearch {
    metric: Metric,
    dims: usize,
    queries: Vec<f32>,
    states: Vec<State>,
    /// From the first rows on; none where 8 bits do not serve.
    quantised: OnceLock<Option<Quantised>>,
    panels: Panels,
}

/// What is known of one query's neighbours.
#[derive(Clone, Debug)]
struct State {
    k: usize,
    /// |q|, in 64 bits.
    norm: f64,
    /// Judged, best first, at most k.
    found: Vec<Neighbour>,
    /// Not judged yet: score, row within the block.
    waiting: Vec<(f32, usize)>,
    /// Scores above this cannot be among the k nearest.
    limit: f32,
}

/// Rows of one block, prepared.
struct Block<'a> {
    metric: Metric,
    dims: usize,
    first_row: u64,
    rows: &'a [f32],
    takes_part: &'a [bool],
    rounded: Option<(&'a Quantised, &'a Panels)>,
    products: OnceLock<Products>,
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
        Self {
            metric,
            dims: dims.max(1),
            queries,
            states,
            quantised: OnceLock::new(),
            panels: Panels::default(),
        }
    }

    /// Takes rows in: `rows` holds them one after another, the first is row `first_row` of the base. Rows that `takes_part`
    /// refuses are passed over. Uses up to `threads` threads.
    pub fn add(&mut self, first_row: u64, rows: &[f32], takes_part: impl Fn(u64) -> bool, threads: usize) {
        let step = (SLICE / self.dims).max(ROWS_TOGETHER);
        let mut first = first_row;
        for rows in rows.chunks(step * self.dims) {
            let n = rows.len() / self.dims;
            let takes_part: Vec<bool> = (first..).take(n).map(&takes_part).collect();
            self.add_slice(first, rows, &takes_part, threads);
            first = first.saturating_add(count::len(n));
        }
    }

    fn add_slice(&mut self, first_row: u64, rows: &[f32], takes_part: &[bool], threads: usize) {
        let (metric, dims) = (self.metric, self.dims);
        let quantised = if self.states.len() < FEWEST {
            None
        } else {
            self.quantised.get_or_init(|| Quantised::new(metric, dims, &self.queries, rows)).as_ref()
        };
        let panels = &mut self.panels;
        let rounded = quantised.filter(|quantised| quantised.fill(panels, rows, takes_part, threads));
        let rounded = rounded.map(|quantised| (quantised, &self.panels));
        let block = Block { metric, dims, first_row, rows, takes_part, rounded, products: OnceLock::new() };
        let most = if rounded.is_some() { 4 * GROUP } else { TILE };
        let each = self.states.len().div_ceil(threads.max(1)).next_multiple_of(GROUP).clamp(GROUP, most);
        let tiles = self.states.chunks_mut(each).zip(self.queries.chunks(each * dims));
        // Taken one by one, because a thread may get less of its core than another.
        let tiles = Mutex::new((0..).step_by(each).zip(tiles));
        let work = || {
            loop {
                let tile = tiles.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((first, (states, queries))) = tile else { return };
                block.search(first, states, queries);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
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

impl Block<'_> {
    /// Finds the neighbours of some queries, the first of which is query `first` of all.
    fn search(&self, first: usize, states: &mut [State], queries: &[f32]) {
        let done = self
            .rounded
            .map_or(0, |(quantised, panels)| self.search_rounded(quantised, panels, first, states, queries));
        if done < self.takes_part.len() {
            self.search_products(done, states, queries);
        }
    }

    /// How many rows were searched: not all where too many of them are too close together for 8 bits.
    fn search_rounded(
        &self,
        quantised: &Quantised,
        panels: &Panels,
        first: usize,
        states: &mut [State],
        queries: &[f32],
    ) -> usize {
        let limit =
            |query: usize, state: &State| state.kth().map_or(f32::MAX, |kth| quantised.limit(query, kth));
        for (query, state) in (first..).zip(&mut *states) {
            state.limit = limit(query, state);
        }
        let mut hits: Vec<Hit> = Vec::new();
        let (all, mut done) = (self.takes_part.len(), 0);
        while done < all {
            let rows = done..(done + ROWS_TOGETHER).min(all);
            let mut judged = 0;
            let groups = states.chunks_mut(GROUP).zip(queries.chunks(GROUP * self.dims));
            for (group, (states, queries)) in (first / GROUP..).zip(groups) {
                let mut limits = [f32::NEG_INFINITY; GROUP];
                for (limit, state) in limits.iter_mut().zip(&*states) {
                    *limit = state.limit;
                }
                quantised.scan(panels, rows.clone(), group, &limits, &mut hits);
                for hit in hits.drain(..) {
                    if let Some(state) = states.get_mut(hit.query) {
                        state.waiting.push((hit.low, rows.start + hit.row));
                    }
                }
                let columns = states.iter_mut().zip(queries.chunks_exact(self.dims));
                for (query, (state, vector)) in (group * GROUP..).zip(columns) {
                    if state.waiting.len() > state.k + WAITING {
                        state.narrow(|row| quantised.spread(panels, query, row));
                        if state.waiting.len() > state.k + WAITING / 2 {
                            judged += state.waiting.len();
                            state.judge(self, vector);
                            state.limit = limit(query, state);
                        }
                    }
                }
            }
            done = rows.end;
            if judged > rows.len() * states.len() / JUDGED {
                break;
            }
        }
        for ((query, state), vector) in (first..).zip(&mut *states).zip(queries.chunks_exact(self.dims)) {
            state.narrow(|row| quantised.spread(panels, query, row));
            state.judge(self, vector);
        }
        done
    }

    /// Searches all rows from a place on.
    fn search_products(&self, from: usize, states: &mut [State], queries: &[f32]) {
        let products =
            self.products.get_or_init(|| Products::new(self.metric, self.dims, self.rows, self.takes_part));
        if !states.iter().all(|state| products.in_range(state.norm)) {
            return self.search_slowly(from, states, queries);
        }
        let errors: Vec<f64> = states.iter().map(|state| products.error(state.norm)).collect();
        for (state, error) in states.iter_mut().zip(&errors) {
            state.limit = state.limit_of_found(self.metric, *error);
        }
        let mut scores = vec![0_f32; TILE * states.len()];
        let rows = self.rows.get(from * self.dims..).unwrap_or_default();
        for (tile, rows) in rows.chunks(TILE * self.dims).enumerate() {
            let (start, n) = (from + tile * TILE, rows.len() / self.dims);
            multiply(rows, queries, self.dims, &mut scores);
            let range = start..start + n;
            let (Some(a), Some(b)) = (products.a.get(range.clone()), products.b.get(range)) else { return };
            let columns = states.iter_mut().zip(queries.chunks_exact(self.dims)).zip(&errors);
            for (scores, ((state, query), error)) in scores.chunks_exact(TILE).zip(columns) {
                state.scan(start, scores.get(..n).unwrap_or_default(), a, b);
                if state.waiting.len() > state.k + WAITING {
                    state.narrow(|_| 2.0 * error);
                    if state.waiting.len() > state.k + WAITING / 2 {
                        // Too many are too close for 32-bit arithmetic to tell them apart.
                        state.judge(self, query);
                        state.limit = state.limit_of_found(self.metric, *error);
                    }
                }
            }
        }
        for ((state, query), error) in states.iter_mut().zip(queries.chunks_exact(self.dims)).zip(&errors) {
            state.narrow(|_| 2.0 * error);
            state.judge(self, query);
        }
    }

    /// For numbers whose squares leave the range of 32 bits: every row is judged.
    fn search_slowly(&self, from: usize, states: &mut [State], queries: &[f32]) {
        for (state, query) in states.iter_mut().zip(queries.chunks_exact(self.dims)) {
            let rows = self.takes_part.iter().enumerate().skip(from);
            for (i, _) in rows.filter(|(_, takes_part)| **takes_part) {
                state.waiting.push((0.0, i));
                if state.waiting.len() > WAITING {
                    state.judge(self, query);
                }
            }
            state.judge(self, query);
        }
    }

    fn row(&self, i: usize) -> Option<&[f32]> {
        self.rows.get(i * self.dims..(i + 1) * self.dims)
    }
}

impl State {
    /// The distance of the k-th neighbour, once so many are found.
    fn kth(&self) -> Option<f64> {
        self.found.get(self.k.checked_sub(1)?).map(|(_, distance)| *distance)
    }

    /// The score that the k-th neighbour found so far has, widened by the error.
    fn limit_of_found(&self, metric: Metric, error: f64) -> f32 {
        let Some(farthest) = self.kth() else { return f32::MAX };
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

    /// Drops those waiting that k others beat whatever the error, and lowers the limit to that; `spread` says by how much
    /// the k-th score could be more than it is, counting the error on both sides.
    fn narrow(&mut self, spread: impl Fn(usize) -> f64) {
        let Some(last) = self.k.checked_sub(1).filter(|last| *last < self.waiting.len()) else { return };
        let mut most: Vec<f64> =
            self.waiting.iter().map(|(score, row)| f64::from(*score) + spread(*row)).collect();
        let (_, kth, _) = most.select_nth_unstable_by(last, f64::total_cmp);
        self.limit = self.limit.min(above(*kth));
        let limit = self.limit;
        self.waiting.retain(|(score, _)| *score <= limit);
    }

    /// Judges those waiting by their exact distance.
    fn judge(&mut self, block: &Block<'_>, query: &[f32]) {
        let at = |i: usize| block.first_row.saturating_add(count::len(i));
        let (fours, rest) = self.waiting.as_chunks::<4>();
        for four in fours {
            let rows = four.map(|(_, i)| block.row(i).unwrap_or_default());
            let judged = four.iter().zip(distances(block.metric, query, rows));
            self.found.extend(judged.map(|((_, i), distance)| (at(*i), distance)));
        }
        for (_, i) in rest {
            let row = block.row(*i).unwrap_or_default();
            self.found.push((at(*i), distance(block.metric, query, row)));
        }
        self.waiting.clear();
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

#[cfg(test)]
mod tests;
