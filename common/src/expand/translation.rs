//! Copies under L2: the base moved by Delta along a few coordinates, which spell the copy's number.
//!
//! Copies n and m differ in some chosen coordinate j, where a query of one and a row of the other are at least
//! Delta - w_j apart (w_j: the largest |q_j - y_j|). So Delta > D_K + max w_j keeps every listed neighbour (at most
//! D_K away) nearer than any row of another copy. Delta is a power of two and the chosen coordinates lie on the grid of
//! the largest sum, so each moved coordinate is an exact 32-bit float and distances within a copy are those of the base.

use serde::{Deserialize, Serialize};

use super::{Extent, Refusal, exponent_above, narrow, power};
use crate::count;

/// Bits of a 32-bit float's significand.
const SIGNIFICAND: i32 = 24;
/// Values that Delta may have between two powers of two: it exceeds what is needed by at most an eighth of it.
const DELTA_STEPS: f64 = 8.0;

/// Where the copies are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Translation {
    /// Coordinates that spell the number, lowest digit first.
    pub places: Vec<u32>,
    /// Values that a digit has, at least 2.
    pub radix: u32,
    /// Delta, the step of a digit; a multiple of the grid.
    pub delta: f64,
    /// Chosen coordinates are rounded to multiples of 2 to this power.
    pub grid_exponent: i32,
    /// Whether that changes any vector.
    pub rounds: bool,
}

/// The numbers that separation rests on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Longest vector of the base.
    pub norm_max: f64,
    /// Largest |q_j - y_j| over the chosen coordinates.
    pub width: f64,
    /// Farthest listed neighbour, with what 32-bit arithmetic may add.
    pub reach: f64,
    /// Shortest move of a copy, and shortest difference of two moves.
    pub delta: f64,
    /// How much nearer than any row of another copy the farthest listed neighbour is.
    pub margin: f64,
}

impl Translation {
    /// Plans `copies` copies (the base counted in) for neighbours at most `reach` away. With `delta` the step is
    /// given instead of found.
    ///
    /// # Errors
    /// [`Refusal`] where separation cannot be proved.
    pub fn plan(
        base: &Extent,
        queries: &Extent,
        reach: f64,
        copies: u32,
        delta: Option<f64>,
    ) -> Result<(Self, Proof), Refusal> {
        let widths = queries.widths(base);
        let mut order: Vec<(f64, u32)> = widths.iter().copied().zip(0..).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let dims = count::len(widths.len());
        let (radix, digits) = digits(copies, dims).ok_or(Refusal::TooMany {
            copies,
            method: "translation",
            most: u64::from(dims > 0),
        })?;
        order.truncate(count::index(digits));
        let places: Vec<u32> = order.iter().map(|(_, place)| *place).collect();
        let width = order.iter().map(|(w, _)| *w).fold(0.0, f64::max);
        // Found first without rounding, then with what rounding to the grid of that step may add, until it holds.
        let mut step =
            delta.unwrap_or_else(|| above((width + widened(reach, dims)).max(base.norm_max).max(1e-30)));
        for _ in 0..8 {
            let plan = Self::on_grid(base, queries, places.clone(), radix, step);
            let grid = power(plan.grid_exponent);
            if !grid.is_normal() || !narrow(plan.largest(base, queries)).is_finite() {
                return Err(Refusal::Range { what: format!("a step of {step}") });
            }
            if (step / grid).fract() != 0.0 {
                return Err(Refusal::Range { what: format!("a step of {step} on a grid of {grid}") });
            }
            let rounding = if plan.rounds { grid } else { 0.0 };
            // Each of the digits' coordinates moves by at most half a grid step, in the query and in the row.
            let root = count::to_f64(digits).sqrt();
            let proof = prove(
                base.norm_max + root * rounding / 2.0,
                width + rounding,
                reach + root * rounding,
                step,
                dims,
            );
            match proof {
                Ok(proof) => return Ok((plan, proof)),
                Err(refusal) if delta.is_some() => return Err(refusal),
                Err(_) => step = above(step),
            }
        }
        Err(Refusal::Range { what: format!("a step of {step}, with the rounding that it needs,") })
    }

    fn on_grid(base: &Extent, queries: &Extent, places: Vec<u32>, radix: u32, delta: f64) -> Self {
        let mut plan = Self { places, radix, delta, grid_exponent: 0, rounds: false };
        plan.grid_exponent = exponent_above(plan.largest(base, queries)) - SIGNIFICAND;
        let finest = |extent: &Extent| {
            plan.chosen().filter_map(|place| extent.grain.get(place)).copied().min().unwrap_or(i32::MAX)
        };
        plan.rounds = finest(base).min(finest(queries)) < plan.grid_exponent;
        plan
    }

    fn chosen(&self) -> impl Iterator<Item = usize> + '_ {
        self.places.iter().map(|place| count::index(u64::from(*place)))
    }

    /// The largest value that a chosen coordinate may take in any copy.
    fn largest(&self, base: &Extent, queries: &Extent) -> f64 {
        let own =
            self.chosen().map(|place| base.largest(place).max(queries.largest(place))).fold(0.0, f64::max);
        own + self.delta * f64::from(self.radix.saturating_sub(1))
    }

    /// Appends a copy of a vector: a row or a query, they move alike.
    pub(super) fn apply(&self, copy: u32, vector: &[f32], out: &mut Vec<f32>) {
        let start = out.len();
        out.extend_from_slice(vector);
        let Some(moved) = out.get_mut(start..) else { return };
        let (grid, delta) = (power(self.grid_exponent), self.delta);
        let radix = self.radix.max(2);
        let mut number = copy;
        for place in self.chosen() {
            let digit = f64::from(number % radix);
            number /= radix;
            if let Some(x) = moved.get_mut(place) {
                let rounded =
                    if self.rounds { (f64::from(*x) / grid).round_ties_even() * grid } else { f64::from(*x) };
                *x = narrow(rounded + digit * delta);
            }
        }
    }
}

/// The smallest value of [`DELTA_STEPS`] between two powers of two that is larger than `x`, which is positive and finite.
fn above(x: f64) -> f64 {
    let step = power(exponent_above(x) - 1) / DELTA_STEPS;
    ((x / step).floor() + 1.0) * step
}

/// Whether a step separates copies, with the numbers on which that rests.
///
/// # Errors
/// [`Refusal::Norm`] and [`Refusal::Near`].
pub fn prove(norm_max: f64, width: f64, reach: f64, delta: f64, dims: u64) -> Result<Proof, Refusal> {
    if delta <= norm_max {
        return Err(Refusal::Norm { moved: delta, norm_max });
    }
    let nearest = delta - width;
    let reach = widened(reach, dims);
    if nearest <= reach {
        return Err(Refusal::Near { moved: delta, norm_max, nearest, reach });
    }
    Ok(Proof { norm_max, width, reach, delta, margin: nearest - reach })
}

/// A distance with what 32-bit arithmetic may add to it, twice: the server errs on either side of the comparison.
fn widened(reach: f64, dims: u64) -> f64 {
    let error = (count::to_f64(dims) + 4.0) * f64::from(f32::EPSILON);
    reach * (1.0 + error)
}

/// The smallest radix, and the digits in it, that tell `copies` copies apart with at most `dims` digits.
fn digits(copies: u32, dims: u64) -> Option<(u32, u64)> {
    let needed = |radix: u32| {
        let mut digits = 0;
        let mut reached = 1_u64;
        while reached < u64::from(copies) {
            reached = reached.saturating_mul(u64::from(radix));
            digits += 1;
        }
        digits
    };
    if dims == 0 {
        return (copies <= 1).then_some((2, 0));
    }
    let mut radix = 2;
    while needed(radix) > dims {
        radix += 1;
    }
    Some((radix, needed(radix)))
}
