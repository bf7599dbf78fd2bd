//! A vector as whole numbers of 8 bits and a scale, and what it loses by that.
//!
//! Used alike for rows and queries. Law: what is said of the loss holds for the bytes that are written, whatever the
//! scale; computed in 64 bits, whose own rounding the caller adds.

use super::super::narrow;
use crate::scenario::Metric;

/// Numbers that are summed side by side.
pub(super) const LANES: usize = 16;
/// Added and taken away, it rounds what is small beside it to a whole number, which its lowest byte then holds:
/// 1.5 x 2^52.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// Rows whose median is the centre.
const SAMPLE: usize = 255;

/// What is subtracted from every vector after a multiplication with a factor of its own.
#[derive(Debug)]
pub(super) struct Centre {
    metric: Metric,
    dims: usize,
    /// Zeros follow up to whole lanes.
    values: Vec<[f32; LANES]>,
    pub(super) norm: f64,
}

/// A vector's bytes leave out some of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rounded {
    /// |v - c|^2
    pub(super) squares: f64,
    /// <v - c, c>
    pub(super) with_centre: f64,
    /// |v - c - scale x whole numbers|
    pub(super) residual: f64,
    /// |scale x whole numbers|
    pub(super) size: f64,
}

/// Least and greatest coordinate of some vectors, and how far they are from whole.
pub(super) struct Reach {
    low: [f32; LANES],
    high: [f32; LANES],
    fractions: [f32; LANES],
}

impl Centre {
    /// Where all numbers are whole and fit a byte, the middle of the bytes, so that nothing is lost; else the
    /// median of a sample, which outliers do not move.
    pub(super) fn of(metric: Metric, dims: usize, rows: &[f32]) -> Self {
        let mut centre = Self { metric, dims, values: vec![[0.0; LANES]; dims.div_ceil(LANES)], norm: 0.0 };
        let mut values = vec![0.0; dims];
        let middle = if metric == Metric::Cosine { None } else { middle(rows) };
        if let Some(middle) = middle {
            values.fill(middle);
        } else {
            let every = (rows.len() / dims).div_ceil(SAMPLE).max(1);
            let sample: Vec<&[f32]> = rows.chunks_exact(dims).step_by(every).collect();
            let factors: Vec<f64> = sample.iter().map(|row| centre.factor(norm(row))).collect();
            let mut column = Vec::with_capacity(sample.len());
            for (i, value) in values.iter_mut().enumerate() {
                column.clear();
                let numbers =
                    sample.iter().zip(&factors).map(|(row, factor)| narrow(f64::from(row[i]) * factor));
                column.extend(numbers.filter(|number| number.is_finite()));
                let middle = column.len() / 2;
                if middle < column.len() {
                    *value = *column.select_nth_unstable_by(middle, f32::total_cmp).1;
                }
            }
        }
        for (lanes, values) in centre.values.iter_mut().zip(values.chunks(LANES)) {
            *lanes = padded(values);
        }
        centre.norm = norm(&values);
        centre
    }

    /// The centre's coordinates.
    pub(super) fn values(&self) -> &[f32] {
        self.values.as_flattened().get(..self.dims).unwrap_or_default()
    }

    /// What a vector of this norm is multiplied by: the cosine is the inner product of vectors of norm 1.
    pub(super) fn factor(&self, norm: f64) -> f64 {
        match self.metric {
            Metric::L2 | Metric::InnerProduct => 1.0,
            Metric::Cosine if norm > 0.0 => 1.0 / norm,
            Metric::Cosine => 0.0,
        }
    }

    /// The factor of this vector.
    #[inline(always)]
    pub(super) fn factor_of(&self, vector: &[f32]) -> f64 {
        if self.metric == Metric::Cosine { self.factor(norm(vector)) } else { 1.0 }
    }

    /// Bytes that a vector's whole numbers take.
    pub(super) fn bytes(&self) -> usize {
        self.values.len() * LANES
    }

    #[inline(always)]
    pub(super) fn reach(&self, vector: &[f32], factor: f64, reach: &mut Reach) {
        let factor = narrow(factor);
        let (whole, rest) = vector.as_chunks::<LANES>();
        for (xs, cs) in whole.iter().zip(&self.values) {
            reach.add(xs, cs, factor);
        }
        if let (false, Some(cs)) = (rest.is_empty(), self.values.last()) {
            reach.add(&padded(rest), cs, factor);
        }
    }

    /// Writes the bytes of a vector, 128 for 0.
    #[inline(always)]
    pub(super) fn round(&self, vector: &[f32], factor: f64, scale: f32, bytes: &mut [u8]) -> Rounded {
        let scales = (factor, f64::from(scale), 1.0 / f64::from(scale));
        let mut sums = [[0.0_f64; LANES]; 4];
        let (whole, rest) = vector.as_chunks::<LANES>();
        let bytes = bytes.as_chunks_mut::<LANES>().0;
        for ((xs, cs), bytes) in whole.iter().zip(&self.values).zip(&mut *bytes) {
            sums = round_lanes(sums, xs, cs, scales, bytes);
        }
        if let (false, Some(cs), Some(bytes)) =
            (rest.is_empty(), self.values.last(), bytes.get_mut(whole.len()))
        {
            sums = round_lanes(sums, &padded(rest), cs, scales, bytes);
        }
        let [squares, with_centre, lost, kept] = sums.map(|lanes| lanes.iter().sum::<f64>());
        Rounded { squares, with_centre, residual: lost.sqrt(), size: kept.sqrt() }
    }
}

/// Rounds some coordinates and adds what they are to sums.
#[inline(always)]
fn round_lanes(
    sums: [[f64; LANES]; 4],
    xs: &[f32; LANES],
    cs: &[f32; LANES],
    (factor, scale, per_scale): (f64, f64, f64),
    bytes: &mut [u8; LANES],
) -> [[f64; LANES]; 4] {
    let [mut squares, mut with_centre, mut lost, mut kept] = sums;
    for j in 0..LANES {
        let centre = f64::from(cs[j]);
        let part = f64::from(xs[j]) * factor - centre;
        let steps = part * per_scale;
        let steps = if steps < 127.0 { steps } else { 127.0 };
        let steps = if steps > -128.0 { steps } else { -128.0 };
        let marked = steps + ROUND;
        bytes[j] = marked.to_bits().to_le_bytes()[0] ^ 0x80;
        let near = (marked - ROUND) * scale;
        squares[j] += part * part;
        with_centre[j] += part * centre;
        lost[j] += (part - near) * (part - near);
        kept[j] += near * near;
    }
    [squares, with_centre, lost, kept]
}

impl Reach {
    /// Of no vector.
    #[inline(always)]
    pub(super) fn nothing() -> Self {
        Self { low: [0.0; LANES], high: [0.0; LANES], fractions: [0.0; LANES] }
    }

    #[inline(always)]
    fn add(&mut self, xs: &[f32; LANES], cs: &[f32; LANES], factor: f32) {
        for j in 0..LANES {
            let part = xs[j] * factor - cs[j];
            self.low[j] = if part < self.low[j] { part } else { self.low[j] };
            self.high[j] = if part > self.high[j] { part } else { self.high[j] };
            self.fractions[j] += (part - part.round_ties_even()).abs();
        }
    }

    /// The step from a whole number to the next: 1 where nothing is lost by it.
    #[inline(always)]
    pub(super) fn scale(&self) -> f32 {
        let low = self.low.iter().fold(0.0_f32, |low, x| low.min(*x));
        let high = self.high.iter().fold(0.0_f32, |high, x| high.max(*x));
        if self.fractions.iter().sum::<f32>() == 0.0 && low >= -128.0 && high <= 127.0 {
            return 1.0;
        }
        (high.max(-low) / 127.0).max(f32::MIN_POSITIVE)
    }
}

impl Rounded {
    /// Whether 32-bit scores reach far enough for such vectors.
    pub(super) fn is_in_range(&self) -> bool {
        let most = f64::from(f32::MAX) / 256.0;
        self.squares < most && self.with_centre.abs() < most && self.residual < most && self.size < most
    }
}

/// The norm, in 64-bit arithmetic.
#[inline(always)]
pub(super) fn norm(vector: &[f32]) -> f64 {
    let mut sums = [0.0_f64; LANES];
    let (whole, rest) = vector.as_chunks::<LANES>();
    for xs in whole {
        for (sum, x) in sums.iter_mut().zip(xs) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    let rest = rest.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
    (sums.iter().sum::<f64>() + rest).sqrt()
}

#[inline(always)]
fn padded(part: &[f32]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    for (lane, x) in lanes.iter_mut().zip(part) {
        *lane = *x;
    }
    lanes
}

/// What to subtract from whole numbers within 256 of each other so that they fit a signed byte.
fn middle(numbers: &[f32]) -> Option<f32> {
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    for number in numbers {
        if number.fract() != 0.0 {
            return None;
        }
        (low, high) = (low.min(*number), high.max(*number));
    }
    let low = [0.0, -128.0].into_iter().find(|usual| *usual <= low && high - usual <= 255.0).unwrap_or(low);
    (high - low <= 255.0 && low.abs() < 1e6).then_some(low + 128.0)
}
