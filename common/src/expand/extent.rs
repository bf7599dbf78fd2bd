//! How far vectors reach: the numbers from which separation is proved.
//!
//! Folded over rows by whoever scans a base (any cut, any order), or taken from the element type where that bounds
//! them. Law: every row that was added lies within the extent, and merging extents is adding all their rows.

use serde::{Deserialize, Serialize};

use crate::count;
use crate::dataset::{DatasetView, Element, Error};
use crate::ranges::RowRange;

/// Bytes of a base that are looked at although its type bounds it: seconds well spent, for the bounds of a type are far
/// wider than those of its vectors, and copies then lie farther apart than they need to.
const SCAN_MOST_BYTES: u64 = 256 << 20;
/// Rows that are read at a time.
const CHUNK_ROWS: u64 = 16_384;

/// Bounds of some vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extent {
    /// Length of the longest vector.
    pub norm_max: f64,
    /// Smallest and largest value of each coordinate; (inf, -inf) where there is no vector.
    pub bounds: Vec<(f32, f32)>,
    /// All values of a coordinate are multiples of 2 to this power.
    pub grain: Vec<i32>,
}

/// No value is on a finer grid than the smallest 32-bit float.
const GRAIN_OF_ZERO: i32 = 127;

impl Extent {
    /// Of no vectors.
    #[must_use]
    pub fn empty(dims: u32) -> Self {
        let dims = count::index(u64::from(dims));
        Self {
            norm_max: 0.0,
            bounds: vec![(f32::INFINITY, f32::NEG_INFINITY); dims],
            grain: vec![GRAIN_OF_ZERO; dims],
        }
    }

    /// What the element type allows, where that is little: bytes need no scan.
    #[must_use]
    pub fn of_type(element: Element, dims: u32) -> Option<Self> {
        let (low, high) = match element {
            Element::U8 => (0.0, 255.0),
            Element::I8 => (-128.0, 127.0),
            _ => return None,
        };
        let n = count::index(u64::from(dims));
        let farthest = f64::from(f32::max(-low, high));
        Some(Self {
            norm_max: farthest * f64::from(dims).sqrt(),
            bounds: vec![(low, high); n],
            grain: vec![0; n],
        })
    }

    /// Whether the bounds of the type have to do for so many rows: to look at each would take too long.
    #[must_use]
    pub fn is_by_type(element: Element, dims: u32, rows: u64) -> bool {
        let bytes = rows.saturating_mul(u64::from(dims)).saturating_mul(element.bytes());
        element.bounds().is_some() && bytes > SCAN_MOST_BYTES
    }

    /// Of the first rows of a data set: of what is in them, or of their type where that has to do.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn of_rows(view: &DatasetView, rows: u64) -> Result<Self, Error> {
        let (element, dims) = (view.manifest().element, view.manifest().dims);
        if let Some(extent) = Self::of_type(element, dims).filter(|_| Self::is_by_type(element, dims, rows)) {
            return Ok(extent);
        }
        let (mut extent, mut row, mut start) = (Self::empty(dims), Vec::new(), 0);
        while start < rows {
            let range = RowRange { start, end: start.saturating_add(CHUNK_ROWS).min(rows) };
            let read = view.read(range).await?;
            for i in 0..read.len() {
                read.row_f32(i, &mut row);
                extent.add(&row);
            }
            start = range.end;
        }
        Ok(extent)
    }

    /// Of some vectors.
    #[must_use]
    pub fn of(dims: u32, vectors: &[Vec<f32>]) -> Self {
        let mut extent = Self::empty(dims);
        vectors.iter().for_each(|vector| extent.add(vector));
        extent
    }

    /// Takes a vector in.
    pub fn add(&mut self, vector: &[f32]) {
        let mut square = 0_f64;
        for ((x, (low, high)), grain) in vector.iter().zip(&mut self.bounds).zip(&mut self.grain) {
            square += f64::from(*x) * f64::from(*x);
            *low = low.min(*x);
            *high = high.max(*x);
            *grain = (*grain).min(grain_of(*x));
        }
        self.norm_max = self.norm_max.max(square.sqrt());
    }

    /// Takes in all that another extent holds.
    pub fn merge(&mut self, other: &Self) {
        self.norm_max = self.norm_max.max(other.norm_max);
        for ((low, high), (l, h)) in self.bounds.iter_mut().zip(&other.bounds) {
            *low = low.min(*l);
            *high = high.max(*h);
        }
        for (grain, other) in self.grain.iter_mut().zip(&other.grain) {
            *grain = (*grain).min(*other);
        }
    }

    /// For each coordinate the largest |q - y| over these queries and a base's rows.
    #[must_use]
    pub fn widths(&self, base: &Self) -> Vec<f64> {
        let sides = |((ql, qh), (yl, yh)): (&(f32, f32), &(f32, f32))| {
            let over = f64::from(*qh) - f64::from(*yl);
            let under = f64::from(*yh) - f64::from(*ql);
            over.max(under).max(0.0)
        };
        self.bounds.iter().zip(&base.bounds).map(sides).collect()
    }

    /// A distance that no query has to any row of a base.
    #[must_use]
    pub fn farthest(&self, base: &Self) -> f64 {
        let by_widths = self.widths(base).iter().map(|w| w * w).sum::<f64>().sqrt();
        by_widths.min(self.norm_max + base.norm_max)
    }

    /// The largest absolute value of a coordinate.
    #[must_use]
    pub fn largest(&self, coordinate: usize) -> f64 {
        self.bounds.get(coordinate).map_or(0.0, |(low, high)| f64::from(low.abs().max(high.abs())))
    }
}

/// The power of two of the lowest set bit.
fn grain_of(x: f32) -> i32 {
    let bits = x.to_bits();
    let (exponent, fraction) = ((bits >> 23) & 0xFF, bits & 0x7F_FFFF);
    let significand = if exponent == 0 { fraction } else { fraction | 0x80_0000 };
    if significand == 0 {
        return GRAIN_OF_ZERO;
    }
    let scale = exponent.max(1).cast_signed() - 150;
    scale + significand.trailing_zeros().cast_signed()
}
