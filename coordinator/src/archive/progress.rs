//! Which entries each table's parts already hold, and which parts come next.
//!
//! Made from a listing when the archive opens, moved on as parts are written. Pure. Law: the parts of a table follow
//! each other without gap or overlap from the first entry on, whatever was written before a crash.

use std::collections::BTreeMap;

use vst_common::batch::Table;
use vst_common::entry;
use vst_common::run_dir::{Cover, Part};

/// How far the archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Every entry up to here was looked at, in this process or by what the parts show.
    scanned: u64,
    /// The first entry that no part of the table holds. At or below `scanned` where those entries have nothing for
    /// the table: its next part begins there all the same, so that its name covers them.
    next: BTreeMap<Table, u64>,
}

impl Progress {
    /// From what is to be read for each table.
    #[must_use]
    pub fn of<'a>(covers: impl IntoIterator<Item = (Table, &'a Cover)>) -> Self {
        let next: BTreeMap<Table, u64> =
            covers.into_iter().map(|(table, cover)| (table, first_uncovered(cover))).collect();
        let scanned = next.values().copied().min().unwrap_or(entry::FIRST).saturating_sub(1);
        Self { scanned, next }
    }

    /// The first entry to look at.
    #[must_use]
    pub fn resume_at(&self) -> u64 {
        self.scanned.saturating_add(1)
    }

    /// Whether an entry's batches of a table are still to be written.
    #[must_use]
    pub fn wants(&self, table: Table, entry: u64) -> bool {
        self.next.get(&table).is_some_and(|next| entry >= *next)
    }

    /// The part of a table that ends with entry `last`; `None` when all of that is written.
    #[must_use]
    pub fn part(&self, table: Table, last: u64) -> Option<Part> {
        let first = *self.next.get(&table)?;
        (first <= last).then_some(Part { table, first, last })
    }

    /// The part is in the directory.
    pub fn wrote(&mut self, part: Part) {
        self.next.insert(part.table, part.last.saturating_add(1));
    }

    /// Everything up to this entry that any table wants is written.
    pub fn scanned(&mut self, last: u64) {
        self.scanned = self.scanned.max(last);
    }
}

/// The end of the parts that follow each other from the first entry on, plus one.
fn first_uncovered(cover: &Cover) -> u64 {
    cover
        .parts
        .iter()
        .fold(entry::FIRST, |next, part| if part.first == next { part.last.saturating_add(1) } else { next })
}
