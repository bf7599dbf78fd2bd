//! Copies whose coordinates are exchanged and negated: keeps all metrics and the dimension, proves nothing.
//!
//! P_n q and P_n x have the distance of q and x, so the truth of a copy is the base's; how near other copies come
//! depends on the data. A sample estimates it: for data that looks the same from all sides, such as uniform noise, a
//! permuted copy is as near as the own one and the expansion is refused.

use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::count;
use crate::ground_truth::{distance, nearest};
use crate::scenario::Metric;
use crate::seed::Draw;

/// Queries of a sample.
const QUERIES: usize = 32;
/// Other copies that each of them is compared with.
const OTHERS: u32 = 4;
/// Neighbours within the sample whose distance is the yardstick.
const NEIGHBOURS: usize = 10;
/// With more foreign rows per own row than this, an expansion is refused.
const RATIO_MOST: f64 = 0.5;

/// How the copies are permuted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permutation {
    /// Seed of all permutations.
    pub seed: u64,
    /// Copies, the base counted in.
    pub copies: u32,
}

/// What a sample says about other copies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Rows that were compared.
    pub rows: u64,
    /// Queries that were compared.
    pub queries: u64,
    /// Rows of one other copy for each row of the own, within the distance of the own neighbours.
    pub ratio: f64,
    /// The same with all other copies: foreign keys to expect among as many results as there are own ones.
    pub contamination: f64,
}

/// Places and signs of the coordinates of one copy.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Order(Vec<(usize, bool)>);

impl Permutation {
    /// The order of each copy; copy 0 is the base.
    pub(super) fn orders(self, dims: u32) -> Vec<Order> {
        (0..self.copies).map(|copy| Order::new(self.seed, copy, dims)).collect()
    }

    /// Estimates from a sample of rows and queries how many rows of other copies come near.
    ///
    /// # Errors
    /// [`Refusal::Isotropic`] when they come about as often as the own ones.
    pub fn estimate(
        self,
        metric: Metric,
        rows: &[Vec<f32>],
        queries: &[Vec<f32>],
    ) -> Result<Estimate, Refusal> {
        let dims = rows.first().map_or(0, Vec::len);
        let orders = self.orders(u32::try_from(dims).unwrap_or(0));
        let Some((_, others)) = orders.split_first() else {
            return Ok(Estimate { rows: 0, queries: 0, ratio: 0.0, contamination: 0.0 });
        };
        let others: Vec<&Order> = others.iter().take(count::index(u64::from(OTHERS))).collect();
        let (mut own, mut foreign) = (0_u64, 0_u64);
        let mut moved = Vec::new();
        for query in queries.iter().take(QUERIES) {
            let found = nearest(metric, (0..).zip(rows), query, NEIGHBOURS);
            let Some((_, reach)) = found.last().copied() else { break };
            own += count::len(found.len());
            for order in &others {
                moved.clear();
                order.apply(query, &mut moved);
                // A query of copy n sees the base as a query of the base sees the base permuted the other way.
                let near = rows.iter().filter(|row| distance(metric, &moved, row) <= reach);
                foreign += count::len(near.count());
            }
        }
        let per_copy = count::to_f64(count::len(others.len())) * count::to_f64(own);
        let ratio = if per_copy > 0.0 { count::to_f64(foreign) / per_copy } else { 0.0 };
        if ratio > RATIO_MOST {
            return Err(Refusal::Isotropic { ratio });
        }
        Ok(Estimate {
            rows: count::len(rows.len()),
            queries: count::len(queries.len().min(QUERIES)),
            ratio,
            contamination: ratio * f64::from(self.copies.saturating_sub(1)),
        })
    }
}

impl Order {
    fn new(seed: u64, copy: u32, dims: u32) -> Self {
        let dims = count::index(u64::from(dims));
        let mut order: Vec<(usize, bool)> = (0..dims).map(|i| (i, false)).collect();
        if copy > 0 {
            let mut draw = Draw::new(seed, copy, 0);
            for last in (1..dims).rev() {
                order.swap(last, count::index(draw.below(count::len(last) + 1)));
            }
            order.iter_mut().for_each(|(_, negative)| *negative = draw.below(2) == 1);
        }
        Self(order)
    }

    pub(super) fn apply(&self, vector: &[f32], out: &mut Vec<f32>) {
        out.extend(self.0.iter().map(|(place, negative)| {
            let x = vector.get(*place).copied().unwrap_or(0.0);
            if *negative { -x } else { x }
        }));
    }
}
