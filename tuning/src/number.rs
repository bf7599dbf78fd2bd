//! Conversions between counts and floats that can neither wrap nor panic.

/// A length as a float; exact below 2^32, which no search reaches.
pub(crate) fn float(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::from(u32::MAX), f64::from)
}

/// A whole number as a float: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "parameters of a server stay below 2^53")]
pub(crate) fn of_int(n: i64) -> f64 {
    n as f64
}

/// The nearest whole number; saturates, NaN is zero.
#[expect(clippy::cast_possible_truncation, reason = "saturating by definition of `as`")]
pub(crate) fn nearest(x: f64) -> i64 {
    x.round() as i64
}
