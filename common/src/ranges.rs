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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut() -> impl Strategy<Value = (RowRange, u64)> {
        let start = prop_oneof![0..1000_u64, u64::MAX - 1000..=u64::MAX];
        (start, 0..1000_u64, 0..200_u64)
            .prop_map(|(start, rows, length)| (RowRange { start, end: start.saturating_add(rows) }, length))
    }

    proptest! {
        #[test]
        fn the_ranges_of_a_cut_are_disjoint_in_order_and_cover_its_rows((rows, length) in cut()) {
            let cut = Cut::new(rows, length);
            let mut next = rows.start;
            for i in 0..cut.count() {
                let range = cut.get(i).unwrap();
                prop_assert_eq!(range.start, next);
                prop_assert!(!range.is_empty() && range.len() <= length.max(1));
                prop_assert!(range.len() == length.max(1) || i + 1 == cut.count(), "only the last is shorter");
                next = range.end;
            }
            prop_assert_eq!(next, rows.end);
            prop_assert_eq!(cut.get(cut.count()), None);
            prop_assert_eq!(cut.get(u64::MAX), None);
        }

        #[test]
        fn a_range_is_found_if_and_only_if_the_cut_made_it((rows, length) in cut(), i in 0..50_u64, shift in 0..3_u64) {
            let cut = Cut::new(rows, length);
            if let Some(range) = cut.get(i) {
                prop_assert_eq!(cut.position(range), Some(i));
                let other = RowRange { start: range.start, end: range.end.saturating_add(shift) };
                prop_assert_eq!(cut.position(other).is_some(), other == range);
                let moved = RowRange { start: range.start.saturating_sub(shift), end: range.end };
                prop_assert_eq!(cut.position(moved).is_some(), moved == range);
            }
        }
    }
}
