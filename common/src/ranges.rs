//! Ranges of rows, by arithmetic: no list of a billion anything.
//!
//! Law: the ranges of a cut are disjoint, in order, and cover `0..total`.

use serde::{Deserialize, Serialize};

/// Rows `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowRange {
    /// First row.
    pub start: u64,
    /// One past the last row.
    pub end: u64,
}

impl RowRange {
    /// Number of rows.
    #[must_use]
    pub fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether it holds no row.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.end <= self.start
    }
}

/// A cut of `first..last` into ranges of equal length, the last one shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    first: u64,
    last: u64,
    length: u64,
}

impl Cut {
    /// Cuts `rows` into ranges of `length` rows; a length of 0 counts as 1.
    #[must_use]
    pub fn new(rows: RowRange, length: u64) -> Self {
        Self { first: rows.start, last: rows.end.max(rows.start), length: length.max(1) }
    }

    /// How many ranges there are.
    #[must_use]
    pub fn count(self) -> u64 {
        (self.last - self.first).div_ceil(self.length)
    }

    /// The i-th range; `None` past the end.
    #[must_use]
    pub fn get(self, i: u64) -> Option<RowRange> {
        let start = self.first.checked_add(i.checked_mul(self.length)?)?;
        (start < self.last).then(|| RowRange { start, end: start.saturating_add(self.length).min(self.last) })
    }

    /// Position of a range that this cut made; `None` for any other range.
    #[must_use]
    pub fn position(self, range: RowRange) -> Option<u64> {
        let i = range.start.checked_sub(self.first)? / self.length;
        (self.get(i) == Some(range)).then_some(i)
    }
}
