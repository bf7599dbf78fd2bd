//! Names in a run directory, and which of its objects to read for a table.
//!
//! Pure functions of a listing, for `RunDir` and for the archive. Law: whatever parts there are, overlapping ones
//! included, [`cover`] chooses parts and entries that hold every entry of the log exactly once.

use crate::batch::Table;
use crate::entry;

/// The facts of the run: scenario and its hash, seed, versions, server configuration.
pub const RUN_JSON: &str = "run.json";
/// The folder of the run log.
pub const LOG: &str = "log";
/// The folder of files that are being written; nothing in it is part of the run.
pub const TEMPORARY: &str = "tmp";

const DIGITS: usize = 20;

/// Path of a log entry, relative to the run directory: `log/` and the number in 20 digits, so that names sort.
#[must_use]
pub fn entry_path(number: u64) -> String {
    format!("{LOG}/{number:0DIGITS$}")
}

/// The number of a log entry from its file name; `None` for any other file.
#[must_use]
pub fn entry_number(file_name: &str) -> Option<u64> {
    digits(file_name).filter(|number| *number >= entry::FIRST)
}

/// A Parquet file that holds one table's batches of an interval of log entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// The table.
    pub table: Table,
    /// First entry that it holds.
    pub first: u64,
    /// Last entry that it holds.
    pub last: u64,
}

impl Part {
    /// Its path, relative to the run directory: `<table>/part-<first>-<last>.parquet`, numbers in 20 digits.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/part-{:0DIGITS$}-{:0DIGITS$}.parquet", self.table.as_str(), self.first, self.last)
    }

    /// A part from its file name; `None` for any other file.
    #[must_use]
    pub fn parse(table: Table, file_name: &str) -> Option<Self> {
        let interval = file_name.strip_prefix("part-")?.strip_suffix(".parquet")?;
        let (first, last) = interval.split_once('-')?;
        let part = Self { table, first: digits(first)?, last: digits(last)? };
        (part.first >= entry::FIRST && part.first <= part.last).then_some(part)
    }
}

fn digits(text: &str) -> Option<u64> {
    (text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// What to read for one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cover {
    /// Disjoint parts, in order.
    pub parts: Vec<Part>,
    /// Entries that none of `parts` holds, in order.
    pub uncovered: Vec<u64>,
}

/// Entries that are neither in a part nor in the log, though later ones are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first one that is missing.
    pub first: u64,
    /// How many follow it without a break, itself included.
    pub count: u64,
}

/// Chooses what to read for one table, from all of its parts and all entries of the log (in any order).
///
/// Parts that overlap (two leaders compacted the same entries) are passed over; entries stay in the log, so what
/// only such a part holds is read from there.
///
/// # Errors
/// [`Gap`] when an entry is missing: something was taken from the directory.
pub fn cover(mut parts: Vec<Part>, mut entries: Vec<u64>) -> Result<Cover, Gap> {
    parts.sort_unstable_by_key(|part| (part.first, std::cmp::Reverse(part.last)));
    entries.sort_unstable();
    entries.dedup();
    let mut chosen = Cover::default();
    let mut entries = entries.into_iter().peekable();
    let mut next = entry::FIRST;
    for part in parts {
        if part.first < next {
            continue;
        }
        take_entries(&mut entries, &mut next, part.first, &mut chosen.uncovered)?;
        if next < part.first {
            return Err(Gap { first: next, count: part.first - next });
        }
        while entries.next_if(|number| *number <= part.last).is_some() {}
        next = part.last.saturating_add(1);
        chosen.parts.push(part);
    }
    take_entries(&mut entries, &mut next, u64::MAX, &mut chosen.uncovered)?;
    Ok(chosen)
}

/// Moves the entries before `end` over and `next` behind them.
fn take_entries(
    entries: &mut std::iter::Peekable<std::vec::IntoIter<u64>>,
    next: &mut u64,
    end: u64,
    into: &mut Vec<u64>,
) -> Result<(), Gap> {
    while let Some(number) = entries.next_if(|number| *number < end) {
        if number > *next {
            return Err(Gap { first: *next, count: number - *next });
        }
        into.push(number);
        *next = number.saturating_add(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_read_back(number in 1_u64.., length in 0_u64..1000) {
            let path = entry_path(number);
            prop_assert_eq!(entry_number(path.strip_prefix("log/").unwrap()), Some(number));
            let part = Part { table: Table::Memory, first: number, last: number.saturating_add(length) };
            let path = part.path();
            prop_assert_eq!(Part::parse(Table::Memory, path.strip_prefix("memory/").unwrap()), Some(part));
        }

        #[test]
        fn names_sort_as_numbers_do(a in 1_u64.., b in 1_u64..) {
            prop_assert_eq!(entry_path(a).cmp(&entry_path(b)), a.cmp(&b));
        }

        #[test]
        fn whatever_parts_there_are_each_entry_is_read_once(
            last in 0_u64..40,
            intervals in prop::collection::vec((1_u64..40, 0_u64..40), 0..8),
        ) {
            let parts: Vec<Part> = intervals
                .into_iter()
                .map(|(first, length)| Part { table: Table::Latency, first, last: (first + length).min(last) })
                .filter(|part| part.first <= part.last)
                .collect();
            let cover = cover(parts, (1..=last).rev().collect()).unwrap();
            let mut read: Vec<u64> = cover.parts.iter().flat_map(|part| part.first..=part.last).collect();
            read.extend(&cover.uncovered);
            read.sort_unstable();
            prop_assert_eq!(read, (1..=last).collect::<Vec<_>>());
        }

        #[test]
        fn a_missing_entry_is_never_passed_over(last in 2_u64..30, lost in 1_u64..29) {
            prop_assume!(lost < last);
            let entries: BTreeSet<u64> = (1..=last).filter(|number| *number != lost).collect();
            let found = cover(Vec::new(), entries.into_iter().collect());
            prop_assert_eq!(found, Err(Gap { first: lost, count: 1 }));
        }
    }

    #[test]
    fn files_that_are_not_whole_are_ignored() {
        for name in
            ["", "1", "00000000000000000001.tmp", ".tmp123", "00000000000000000000", "0000000000000000000x"]
        {
            assert_eq!(entry_number(name), None, "{name}");
        }
        for name in
            ["part-1-2.parquet", "part-00000000000000000002-00000000000000000001.parquet", "part.parquet"]
        {
            assert_eq!(Part::parse(Table::Latency, name), None, "{name}");
        }
    }

    #[test]
    fn a_part_outlives_the_entries_it_holds() {
        let part = Part { table: Table::Latency, first: 1, last: 3 };
        let cover = cover(vec![part], vec![4, 5]).unwrap();
        assert_eq!(cover, Cover { parts: vec![part], uncovered: vec![4, 5] });
    }

    #[test]
    fn a_gap_before_a_part_is_found() {
        let part = Part { table: Table::Latency, first: 4, last: 6 };
        assert_eq!(cover(vec![part], vec![1, 4, 5, 6, 7]), Err(Gap { first: 2, count: 2 }));
    }
}
