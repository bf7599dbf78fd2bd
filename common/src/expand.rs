//! Copies of a base that keep its truth: where each copy lies, and the proof that no other comes near.
//!
//! Planned by the coordinator (and `vst dataset expand`) from extents of the data, applied by workers to every row and
//! query, checked again by whoever judges answers. Law: within a copy the order of neighbours is that of the base; no
//! row of another copy is among the neighbours of a query; where that cannot be proved the expansion is refused with
//! its numbers (signed permutations alone are estimated instead).

pub mod extent;
pub mod lift;
pub mod permutation;
pub mod translation;

use serde::{Deserialize, Serialize};

pub use extent::Extent;
pub use lift::Lift;
pub use permutation::Permutation;
pub use translation::Translation;

use crate::count;
use crate::scenario::Metric;

/// Queries times copies that a phase asks at most, unless there are more queries: keeps what a worker prepares small.
const PAIRS_MOST: u64 = 65_536;

/// Why a population of copies is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The rule of the field is broken.
    #[error(
        "copies are moved by |V| = {moved}, which is not more than the longest base vector (NormMax = {norm_max})"
    )]
    Norm {
        /// Length of the shortest translation.
        moved: f64,
        /// Length of the longest vector of the base.
        norm_max: f64,
    },
    /// Another copy may hold a nearer row.
    #[error(
        "copies are not separate: moved by |V| = {moved} (NormMax = {norm_max}), a row of another copy can come as \
         near as {nearest}, while neighbours are up to {reach} away"
    )]
    Near {
        /// Length of the shortest difference of two translations.
        moved: f64,
        /// Length of the longest vector of the base.
        norm_max: f64,
        /// Lower bound of a query's distance to rows of other copies.
        nearest: f64,
        /// Distance of the farthest neighbour that the truth lists, with the error of 32-bit arithmetic.
        reach: f64,
    },
    /// Similarities spread more than the lift separates.
    #[error(
        "copies are not separate: the lift tells them apart by {separation}, similarities of listed neighbours spread \
         over {spread}"
    )]
    Lift {
        /// Loss of similarity between copies.
        separation: f64,
        /// Largest difference between the first and the last listed similarity.
        spread: f64,
    },
    /// The numbers leave the range in which 32-bit floats are exact enough.
    #[error("{what} cannot be had in 32-bit floats")]
    Range {
        /// What.
        what: String,
    },
    /// There are not so many copies of this kind.
    #[error("{copies} copies were asked for, {method} gives at most {most}")]
    TooMany {
        /// As asked.
        copies: u32,
        /// The method.
        method: &'static str,
        /// Copies that it can tell apart.
        most: u64,
    },
    /// The method does not keep this metric's order.
    #[error("{method} does not keep the order of neighbours under {metric:?}: use {instead}")]
    Metric {
        /// The method.
        method: &'static str,
        /// Metric of the index.
        metric: Metric,
        /// The method that does.
        instead: &'static str,
    },
    /// The data looks the same from all sides.
    #[error(
        "signed permutations do not separate this data: a query finds {ratio:.2} times as many rows of another copy \
         as of its own within the same distance (bound: 0.5)"
    )]
    Isotropic {
        /// Rows of another copy per row of the own, within the distance of the own neighbours.
        ratio: f64,
    },
}

/// How copies of the base are made. Copy 0 is the base itself, as the index takes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expansion {
    /// One copy, unchanged.
    #[default]
    None,
    /// Moved along a few coordinates (L2).
    Translation(Translation),
    /// Sixteen dimensions more (cosine, inner product).
    Lift(Lift),
    /// Coordinates exchanged and negated (any metric; separation is estimated, not proved).
    Permutation(Permutation),
}

impl Expansion {
    /// The word for it in files and reports.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Translation(_) => "translation",
            Self::Lift(_) => "lift",
            Self::Permutation(_) => "signed permutation",
        }
    }

    /// Dimensions of the index for a base of `dims` dimensions.
    #[must_use]
    pub fn index_dims(&self, dims: u32) -> u32 {
        match self {
            Self::Lift(_) => dims.saturating_add(lift::DIMS),
            Self::None | Self::Translation(_) | Self::Permutation(_) => dims,
        }
    }

    /// Whether the base itself is changed (rounded) before it is loaded.
    #[must_use]
    pub fn rounds(&self) -> bool {
        matches!(self, Self::Translation(t) if t.rounds)
    }

    /// What makes copies of vectors with `dims` dimensions.
    #[must_use]
    pub fn copier(&self, dims: u32) -> Copier {
        let orders = match self {
            Self::Permutation(p) => p.orders(dims),
            _ => Vec::new(),
        };
        Copier { expansion: self.clone(), orders }
    }
}

/// Makes copies of vectors; built once per phase.
#[derive(Clone, Debug)]
pub struct Copier {
    expansion: Expansion,
    orders: Vec<permutation::Order>,
}

impl Copier {
    /// Whether every row stays as it is: there is the base alone.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.expansion == Expansion::None
    }

    /// A row of the base as copy `copy` has it, in place of what `out` held.
    pub fn row(&self, copy: u32, row: &[f32], out: &mut Vec<f32>) {
        self.apply(copy, row, out, |lift| lift.row_scale);
    }

    /// A query as it is asked of copy `copy`, in place of what `out` held.
    pub fn query(&self, copy: u32, query: &[f32], out: &mut Vec<f32>) {
        self.apply(copy, query, out, |lift| lift.query_scale);
    }

    fn apply(&self, copy: u32, vector: &[f32], out: &mut Vec<f32>, scale: impl Fn(&Lift) -> f64) {
        out.clear();
        match &self.expansion {
            Expansion::None => out.extend_from_slice(vector),
            Expansion::Translation(t) => t.apply(copy, vector, out),
            Expansion::Lift(lift) => lift.apply(copy, vector, scale(lift), out),
            Expansion::Permutation(_) => match self.orders.get(count::index(u64::from(copy))) {
                Some(order) => order.apply(vector, out),
                None => out.extend_from_slice(vector),
            },
        }
    }
}

/// How many (query, copy) pairs a phase asks; `blob_bytes` is the size of one query as sent.
#[must_use]
pub fn pairs(queries: u64, copies: u32) -> u64 {
    queries.saturating_mul(u64::from(copies.max(1))).min(PAIRS_MOST.max(queries).max(u64::from(copies)))
}

/// The (query, copy) of a pair: copies take turns, and every pair is another one.
#[must_use]
pub fn pair(number: u64, queries: u64, copies: u32) -> (u64, u32) {
    let copies = u64::from(copies.max(1));
    let copy = number % copies;
    // Copies begin at different queries, so that a part of all pairs still asks many queries.
    let query = (number / copies).wrapping_add(copy) % queries.max(1);
    (query, u32::try_from(copy).unwrap_or(0))
}

/// A number as the index has it.
#[expect(clippy::cast_possible_truncation, reason = "rounds to the nearest 32-bit float")]
fn narrow(x: f64) -> f32 {
    x as f32
}

/// The smallest power of two above `x`, as its exponent; `x` is positive and finite.
fn exponent_above(x: f64) -> i32 {
    let mut exponent = 0;
    while power(exponent) <= x && exponent < 1023 {
        exponent += 1;
    }
    while exponent > -1022 && power(exponent - 1) > x {
        exponent -= 1;
    }
    exponent
}

/// 2 to a power, exactly.
fn power(exponent: i32) -> f64 {
    2_f64.powi(exponent)
}

#[cfg(test)]
mod tests;
