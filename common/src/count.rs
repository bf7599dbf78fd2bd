//! Conversions between counts of different width that can neither wrap nor panic.
//!
//! Arrow columns are `i64` (DataFusion turns `u64 / literal` into a decimal), counts in the program are `u64`; a count
//! past the other's range saturates instead of changing sign.

/// A count as an Arrow column stores it; saturates at `i64::MAX`.
#[must_use]
pub fn to_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A stored count back; negative becomes zero.
#[must_use]
pub fn to_u64(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// A length as a count.
#[must_use]
pub fn len(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// A count as an index into memory; saturates where `usize` is narrower.
#[must_use]
pub fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// A count as a float, for ratios: exact up to 2^53.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "ratios need no more than 53 bits")]
pub fn to_f64(n: u64) -> f64 {
    n as f64
}

/// A non-negative float as a count: rounds down, saturates, NaN is zero.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturating by definition of `as`"
)]
pub fn from_f64(x: f64) -> u64 {
    x as u64
}
