//! What one pass over vectors tells: the largest norm, the width of each coordinate, rows that no index can hold.
//!
//! Filled range by range in any order; read by `vst dataset` and by whoever proves that copies stay apart. Law: a
//! survey of two parts, joined, is the survey of both.

use serde::{Deserialize, Serialize};

use super::{DatasetManifest, Rows};
use crate::count;

/// Faulty rows that are named.
const NAMED: usize = 5;

/// Bounds of vectors, and what is wrong with some of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Survey {
    /// Rows that were seen; 0 for bounds that the type alone gives.
    pub rows: u64,
    /// The largest L2 norm.
    pub norm_max: f64,
    /// The least value of each coordinate.
    pub low: Vec<f32>,
    /// The greatest value of each coordinate.
    pub high: Vec<f32>,
    /// Rows with a coordinate that is not a number or infinite.
    pub not_finite: u64,
    /// The first of those that were met.
    pub not_finite_rows: Vec<u64>,
    /// Rows of length zero, which have no direction.
    pub zero: u64,
    /// The first of those that were met.
    pub zero_rows: Vec<u64>,
}

impl Survey {
    /// Bounds that hold for any rows of this type, without reading one; `None` where the type does not bound them.
    #[must_use]
    pub fn of_type(manifest: &DatasetManifest) -> Option<Self> {
        let (low, high) = manifest.element.bounds()?;
        let dims = count::index(u64::from(manifest.dims));
        let most = f64::from(low.abs().max(high.abs()));
        Some(Self {
            norm_max: most * f64::from(manifest.dims).sqrt(),
            low: vec![low; dims],
            high: vec![high; dims],
            ..Self::default()
        })
    }

    /// The width of each coordinate.
    #[must_use]
    pub fn widths(&self) -> Vec<f32> {
        self.low.iter().zip(&self.high).map(|(low, high)| high - low).collect()
    }

    /// Takes in rows whose first has the number `first`.
    pub fn add(&mut self, first: u64, rows: &Rows) {
        let dims = count::index(u64::from(rows.dims));
        self.low.resize(dims, f32::INFINITY);
        self.high.resize(dims, f32::NEG_INFINITY);
        let mut row = Vec::with_capacity(dims);
        for (number, i) in (first..).zip(0..rows.len()) {
            rows.row_f32(i, &mut row);
            self.rows += 1;
            if row.iter().any(|x| !x.is_finite()) {
                self.not_finite += 1;
                note(&mut self.not_finite_rows, number);
                continue;
            }
            let norm = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
            if norm == 0.0 {
                self.zero += 1;
                note(&mut self.zero_rows, number);
            }
            self.norm_max = self.norm_max.max(norm);
            for ((low, high), x) in self.low.iter_mut().zip(&mut self.high).zip(&row) {
                *low = low.min(*x);
                *high = high.max(*x);
            }
        }
    }

    /// Takes in another part.
    pub fn join(&mut self, other: Self) {
        if self.low.is_empty() {
            self.low.clone_from(&other.low);
            self.high.clone_from(&other.high);
        }
        self.rows += other.rows;
        self.norm_max = self.norm_max.max(other.norm_max);
        for (mine, its) in self.low.iter_mut().zip(&other.low) {
            *mine = mine.min(*its);
        }
        for (mine, its) in self.high.iter_mut().zip(&other.high) {
            *mine = mine.max(*its);
        }
        self.not_finite += other.not_finite;
        self.zero += other.zero;
        other.not_finite_rows.into_iter().for_each(|row| note(&mut self.not_finite_rows, row));
        other.zero_rows.into_iter().for_each(|row| note(&mut self.zero_rows, row));
    }
}

/// Keeps the least few.
fn note(rows: &mut Vec<u64>, row: u64) {
    rows.push(row);
    rows.sort_unstable();
    rows.truncate(NAMED);
}
