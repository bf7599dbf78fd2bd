//! What a coordinate is stored as, and how it becomes the FLOAT32 that the index takes.
//!
//! Read by every format and by whoever writes vectors or ids. Law: both ways to numbers (one row, or all rows at once)
//! give the same bits.

use std::fmt;

use half::f16;
use half::slice::HalfFloatSliceExt;
use serde::{Deserialize, Serialize};

use crate::count;

/// What a coordinate is stored as; numbers of several bytes are little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// 64-bit float; rounded to the nearest 32-bit float.
    F64,
    /// Unsigned byte.
    U8,
    /// Signed byte.
    I8,
    /// 32-bit integer; neighbour lists, rarely vectors.
    I32,
    /// Unsigned 32-bit integer; neighbour lists.
    U32,
    /// 64-bit integer; neighbour lists.
    I64,
    /// Unsigned 64-bit integer; neighbour lists.
    U64,
}

impl Element {
    /// All of them.
    pub const ALL: [Self; 9] =
        [Self::F32, Self::F16, Self::F64, Self::U8, Self::I8, Self::I32, Self::U32, Self::I64, Self::U64];

    /// Bytes of one coordinate.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::F16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    /// Whether it can hold row numbers.
    #[must_use]
    pub fn is_integer(self) -> bool {
        matches!(self, Self::I32 | Self::U32 | Self::I64 | Self::U64)
    }

    /// The least and the greatest value, where the type alone bounds them tightly enough to plan with.
    #[must_use]
    pub fn bounds(self) -> Option<(f32, f32)> {
        match self {
            Self::U8 => Some((0.0, 255.0)),
            Self::I8 => Some((-128.0, 127.0)),
            _ => None,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::F64 => "f64",
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::I32 => "i32",
            Self::U32 => "u32",
            Self::I64 => "i64",
            Self::U64 => "u64",
        })
    }
}

/// Appends stored coordinates as FLOAT32 little endian.
pub(super) fn append_f32_le(element: Element, stored: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let numbers = stored.len() / count::index(element.bytes()).max(1);
    out.resize(start.saturating_add(numbers.saturating_mul(4)), 0);
    if let Some(places) = out.get_mut(start..) {
        write_f32_le(element, stored, places);
    }
}

/// Writes stored coordinates as FLOAT32 little endian, as many as there is room for.
pub(super) fn write_f32_le(element: Element, stored: &[u8], out: &mut [u8]) {
    match element {
        Element::F32 => {
            let length = out.len().min(stored.len());
            if let (Some(out), Some(stored)) = (out.get_mut(..length), stored.get(..length)) {
                out.copy_from_slice(stored);
            }
        }
        Element::U8 => each::<1>(stored, out, |b| f32::from(u8::from_le_bytes(b))),
        Element::I8 => each::<1>(stored, out, |b| f32::from(i8::from_le_bytes(b))),
        Element::F16 => halves(stored, out),
        Element::F64 => each::<8>(stored, out, |b| narrow(f64::from_le_bytes(b))),
        Element::I32 => each::<4>(stored, out, |b| narrow(f64::from(i32::from_le_bytes(b)))),
        Element::U32 => each::<4>(stored, out, |b| narrow(f64::from(u32::from_le_bytes(b)))),
        Element::I64 => each::<8>(stored, out, |b| whole(i64::from_le_bytes(b))),
        Element::U64 => each::<8>(stored, out, |b| narrow(count::to_f64(u64::from_le_bytes(b)))),
    }
}

/// Appends stored coordinates as numbers.
pub(super) fn append_f32(element: Element, stored: &[u8], out: &mut Vec<f32>) {
    match element {
        Element::U8 => out.extend(stored.iter().map(|byte| f32::from(*byte))),
        Element::I8 => out.extend(stored.iter().map(|byte| f32::from(i8::from_le_bytes([*byte])))),
        Element::F32 => {
            out.extend(stored.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)))
        }
        _ => {
            let mut bytes = Vec::new();
            append_f32_le(element, stored, &mut bytes);
            out.extend(bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)));
        }
    }
}

/// The stored integer at a place; `None` for floats, for negative numbers and past the end.
pub(super) fn row_number(element: Element, stored: &[u8], place: usize) -> Option<u64> {
    let size = count::index(element.bytes());
    let start = place.checked_mul(size)?;
    let bytes = stored.get(start..start.checked_add(size)?)?;
    match element {
        Element::I32 => u64::try_from(i32::from_le_bytes(bytes.try_into().ok()?)).ok(),
        Element::U32 => Some(u64::from(u32::from_le_bytes(bytes.try_into().ok()?))),
        Element::I64 => u64::try_from(i64::from_le_bytes(bytes.try_into().ok()?)).ok(),
        Element::U64 => Some(u64::from_le_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}

/// Four bytes out for each number in, into memory that is there already: this form the compiler turns into SIMD.
fn each<const N: usize>(stored: &[u8], out: &mut [u8], number: impl Fn([u8; N]) -> f32) {
    let (stored, _) = stored.as_chunks::<N>();
    let (places, _) = out.as_chunks_mut::<4>();
    for (place, bytes) in places.iter_mut().zip(stored) {
        *place = number(*bytes).to_le_bytes();
    }
}

/// In blocks, because the library converts slices with the processor's own instruction and single numbers without it.
fn halves(stored: &[u8], out: &mut [u8]) {
    const BLOCK: usize = 256;
    let (stored, _) = stored.as_chunks::<2>();
    let (places, _) = out.as_chunks_mut::<4>();
    let mut halves = [f16::ZERO; BLOCK];
    let mut numbers = [0.0_f32; BLOCK];
    for (places, block) in places.chunks_mut(BLOCK).zip(stored.chunks(BLOCK)) {
        for (half, bytes) in halves.iter_mut().zip(block) {
            *half = f16::from_le_bytes(*bytes);
        }
        halves.convert_to_f32_slice(&mut numbers);
        for (place, number) in places.iter_mut().zip(&numbers) {
            *place = number.to_le_bytes();
        }
    }
}

/// Appends one number.
pub(super) fn put_f32(number: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(&narrow(number).to_le_bytes());
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounds to the nearest 32-bit float, which is what the index holds"
)]
fn narrow(number: f64) -> f32 {
    number as f32
}

#[expect(
    clippy::cast_precision_loss,
    reason = "an integer past 2^53 as a coordinate has no exact float either way"
)]
fn whole(number: i64) -> f32 {
    narrow(number as f64)
}
