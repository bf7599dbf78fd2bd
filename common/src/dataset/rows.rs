//! Rows as they were stored, and as the index takes them: FLOAT32, little endian.

use bytes::Bytes;

use super::Element;
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
        let start = i.saturating_mul(self.row_bytes());
        let stored = self.bytes.get(start..start.saturating_add(self.row_bytes())).unwrap_or_default();
        out.extend(Coordinates { element: self.element, stored });
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
        match self.element {
            Element::F32 => out.extend_from_slice(&self.bytes),
            Element::U8 => append_f32_le(&self.bytes, out, f32::from),
            Element::I8 => append_f32_le(&self.bytes, out, signed),
        }
    }

    fn row_bytes(&self) -> usize {
        count::index(u64::from(self.dims).saturating_mul(self.element.bytes()))
    }
}

fn signed(byte: u8) -> f32 {
    f32::from(byte.cast_signed())
}

/// Four bytes out for each byte in, into memory that is there already: this form the compiler turns into SIMD.
fn append_f32_le(stored: &[u8], out: &mut Vec<u8>, number: impl Fn(u8) -> f32) {
    let start = out.len();
    out.resize(start + stored.len() * 4, 0);
    let (places, _) = out.split_at_mut(start).1.as_chunks_mut::<4>();
    for (place, byte) in places.iter_mut().zip(stored) {
        *place = number(*byte).to_le_bytes();
    }
}

/// The coordinates of one stored row.
struct Coordinates<'a> {
    element: Element,
    stored: &'a [u8],
}

impl Iterator for Coordinates<'_> {
    type Item = f32;

    fn next(&mut self) -> Option<f32> {
        match self.element {
            Element::F32 => {
                let (number, rest) = self.stored.split_first_chunk::<4>()?;
                self.stored = rest;
                Some(f32::from_le_bytes(*number))
            }
            Element::U8 | Element::I8 => {
                let (byte, rest) = self.stored.split_first()?;
                self.stored = rest;
                Some(if self.element == Element::U8 { f32::from(*byte) } else { signed(*byte) })
            }
        }
    }
}
