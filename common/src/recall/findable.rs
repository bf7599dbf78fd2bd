//! What a query has to find and what it may find, while rows come and go and where only some are asked for.
//!
//! Said by whoever arms a phase, read by the judge of each query. Law: what has to be found may be found.

use crate::attributes::Selection;
use crate::live_set::LiveSet;

/// The rows that decide about an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Findable {
    /// Alive all the time that the phase lasts.
    pub stable: LiveSet,
    /// Alive at some instant of it: those of these that are not stable are in transition.
    pub ever: LiveSet,
    /// The rows among which is asked; all where absent.
    pub selection: Option<Selection>,
}

impl From<&LiveSet> for Findable {
    /// Nothing changes and everything is asked for.
    fn from(live: &LiveSet) -> Self {
        Self { stable: *live, ever: *live, selection: None }
    }
}

/// What a row is to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The query excludes it.
    Excluded,
    /// Not alive at any instant.
    Dead,
    /// It comes or goes while the phase runs.
    Moving,
    /// It is there.
    Stable,
}

impl Findable {
    pub(super) fn standing(&self, copy: u32, row: u64) -> Standing {
        if self.selection.is_some_and(|selection| !selection.takes(row)) {
            Standing::Excluded
        } else if self.stable.is_live(copy, row) {
            Standing::Stable
        } else if self.ever.is_live(copy, row) {
            Standing::Moving
        } else {
            Standing::Dead
        }
    }

    /// Whether an answer has to hold the row, where it is near enough.
    #[must_use]
    pub fn has(&self, copy: u32, row: u64) -> bool {
        self.standing(copy, row) == Standing::Stable
    }

    /// Whether rows come or go.
    #[must_use]
    pub fn moves(&self) -> bool {
        self.stable != self.ever
    }
}
