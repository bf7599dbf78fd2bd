//! Copies under cosine and inner product: sixteen more dimensions hold a code word of the copy's number.
//!
//! A translation would reorder neighbours under these metrics. Instead x becomes (x, a c_n) and q becomes (q, b c_n),
//! where c_n is a word of a Reed-Muller code over 4, signs +-1, of length 1: two words have an inner product of at most
//! mu. Under the inner product a = s, b = u: similarities within a copy grow by s u, those to other copies by at most
//! s u mu. Under cosine a = t|x|, b = t|q|: a similarity s becomes (s + t^2) / (1 + t^2) within and at most
//! (s + t^2 mu) / (1 + t^2) across. Either way the order within a copy is kept and copies are apart where the gain,
//! (1 - mu) s u or (1 - mu) t^2, exceeds the spread of listed similarities.

use serde::{Deserialize, Serialize};

use super::{Refusal, exponent_above, narrow, power};
use crate::count;
use crate::scenario::Metric;

/// Dimensions that a lift adds.
pub const DIMS: u32 = 16;
/// Words of the [16,5,8] code, which are orthogonal or opposite.
const ORTHOGONAL: u32 = 32;
/// Words of the [16,11,4] code, whose inner products are at most one half.
const WORDS: u32 = 2_048;

/// How the copies are lifted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lift {
    /// Factor of a row's code word: of |x| under cosine.
    pub row_scale: f64,
    /// Factor of a query's code word: of |q| under cosine.
    pub query_scale: f64,
    /// Whether the factors are relative to the vector's length.
    pub relative: bool,
}

/// The numbers that separation rests on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Largest inner product of two code words.
    pub mu: f64,
    /// What the own copy gains over others.
    pub separation: f64,
    /// Largest difference between a query's first and last listed similarity.
    pub spread: f64,
    /// Separation less spread.
    pub margin: f64,
}

impl Lift {
    /// Plans `copies` copies for similarities that spread over at most `spread`; `size` bounds |x| |q| (1 for cosine).
    /// With `gain` the gain of the own copy is given instead of found.
    ///
    /// # Errors
    /// [`Refusal`] where separation cannot be proved.
    pub fn plan(
        metric: Metric,
        dims: u32,
        spread: f64,
        size: f64,
        copies: u32,
        gain: Option<f64>,
    ) -> Result<(Self, Proof), Refusal> {
        if metric == Metric::L2 {
            return Err(Refusal::Metric { method: "lift", metric, instead: "translation" });
        }
        if copies > WORDS {
            return Err(Refusal::TooMany { copies, method: "lift", most: u64::from(WORDS) });
        }
        let relative = metric == Metric::Cosine;
        let mu = if copies <= ORTHOGONAL { 0.0 } else { 0.5 };
        // The server errs by this in each of the two similarities that it compares, relative to their size.
        let error = |gain: f64| {
            let operations = 2.0 * f64::from(dims.saturating_add(DIMS)) + 8.0;
            let size = if relative { 1.0 + gain } else { size + gain };
            2.0 * operations * f64::from(f32::EPSILON) * size
        };
        let proof = |gain: f64| {
            let (separation, spread) = (gain * (1.0 - mu), spread + error(gain));
            Proof { mu, separation, spread, margin: separation - spread }
        };
        let found = || {
            let mut exponent = exponent_above((spread / (1.0 - mu)).max(1e-30));
            while proof(power(exponent)).margin <= 0.0 && exponent < 120 {
                exponent += 1;
            }
            power(exponent)
        };
        let gain = gain.unwrap_or_else(found);
        let proof = proof(gain);
        if proof.margin <= 0.0 {
            return Err(Refusal::Lift { separation: proof.separation, spread: proof.spread });
        }
        if !narrow(gain).is_finite() {
            return Err(Refusal::Range { what: format!("a gain of {gain}") });
        }
        let lift = if relative {
            Self { row_scale: gain.sqrt(), query_scale: gain.sqrt(), relative }
        } else {
            // Powers of two on either side, so that the code words are exact.
            let side = power(exponent_above(gain.sqrt()));
            Self { row_scale: side, query_scale: gain / side, relative }
        };
        Ok((lift, proof))
    }

    /// Appends a copy of a vector with its code word times `scale`.
    pub(super) fn apply(self, copy: u32, vector: &[f32], scale: f64, out: &mut Vec<f32>) {
        out.extend_from_slice(vector);
        let length = if self.relative {
            vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt()
        } else {
            1.0
        };
        let size = narrow(scale * length / 4.0);
        out.extend((0..DIMS).map(|position| if bit(copy, position) { -size } else { size }));
    }
}

/// One bit of a word of the Reed-Muller code of order 2 and length 16 (MacWilliams and Sloane, The Theory of
/// Error-Correcting Codes, chapter 13): the polynomial whose coefficients are the bits of `word`, at a point. The five
/// lowest coefficients are the linear ones and the constant, so the first 32 words are the code of order 1.
fn bit(word: u32, point: u32) -> bool {
    let x = |i: u32| (point >> i) & 1;
    let terms = [
        x(0),
        x(1),
        x(2),
        x(3),
        1,
        x(0) & x(1),
        x(0) & x(2),
        x(0) & x(3),
        x(1) & x(2),
        x(1) & x(3),
        x(2) & x(3),
    ];
    let chosen = (0_u32..).zip(terms).filter(|(i, _)| (word >> i) & 1 == 1);
    count::len(chosen.filter(|(_, term)| *term == 1).count()) % 2 == 1
}
