//! Rows as they were stored, and as the index takes them: FLOAT32, little endian.

use std::ops::Range;

use bytes::Bytes;

use super::Element;
use super::element::{append_f32, append_f32_le, row_number, write_f32_le};
use crate::count;

/// Some rows of a data set, packed as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Dimensions of a row.
    pub dims: u32,
    /// What a coordinate is stored as.
    pub element: Element,
    /// The rows, one after another.
    pub bytes: Bytes,
}

impl Rows {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len().checked_div(self.row_bytes()).unwrap_or(0)
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The i-th row as numbers, in place of what `out` held; `out` is left empty where there is no such row.
    pub fn row_f32(&self, i: usize, out: &mut Vec<f32>) {
        out.clear();
        append_f32(self.element, self.stored(i), out);
    }

    /// All rows as numbers, one after another, in place of what `out` held.
    pub fn all_f32(&self, out: &mut Vec<f32>) {
        out.clear();
        append_f32(self.element, &self.bytes, out);
    }

    /// Some of the rows; they share their bytes with these.
    #[must_use]
    pub fn slice(&self, rows: Range<usize>) -> Self {
        let size = self.row_bytes();
        let end = rows.end.saturating_mul(size).min(self.bytes.len());
        let start = rows.start.saturating_mul(size).min(end);
        Self { bytes: self.bytes.slice(start..end), ..self.clone() }
    }

    /// Each row as numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = Vec<f32>> + '_ {
        (0..self.len()).map(|i| {
            let mut row = Vec::new();
            self.row_f32(i, &mut row);
            row
        })
    }

    /// Appends all rows as FLOAT32 little endian, `dims x 4` bytes each.
    pub fn to_f32_le(&self, out: &mut Vec<u8>) {
        append_f32_le(self.element, &self.bytes, out);
    }

    /// Writes rows as FLOAT32 little endian, as many as there are and as there is room for.
    pub fn write_f32_le(&self, rows: Range<usize>, out: &mut [u8]) {
        let size = self.row_bytes();
        let (start, end) =
            (rows.start.saturating_mul(size), rows.end.saturating_mul(size).min(self.bytes.len()));
        write_f32_le(self.element, self.bytes.get(start..end).unwrap_or_default(), out);
    }

    /// The i-th row as row numbers of another data set (a neighbour list); `None` for an entry that cannot be one.
    pub fn row_numbers(&self, i: usize) -> impl Iterator<Item = Option<u64>> + '_ {
        let stored = self.stored(i);
        let places = stored.len() / count::index(self.element.bytes());
        (0..places).map(move |place| row_number(self.element, stored, place))
    }

    /// Bytes of the i-th row as stored; empty where there is no such row.
    #[must_use]
    pub fn stored(&self, i: usize) -> &[u8] {
        let start = i.saturating_mul(self.row_bytes());
        self.bytes.get(start..start.saturating_add(self.row_bytes())).unwrap_or_default()
    }

    fn row_bytes(&self) -> usize {
        count::index(u64::from(self.dims).saturating_mul(self.element.bytes()))
    }
}
