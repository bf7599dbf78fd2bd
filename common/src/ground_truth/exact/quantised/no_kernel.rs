//! Where no instructions for products of bytes are known: nothing is quantised, and 32-bit arithmetic proposes.

use super::{GROUP, Group, Hit, Panel, Quantised, Step};

/// No instructions: there is no value of this type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isa {}

impl Isa {
    pub(super) fn all() -> Vec<Self> {
        Vec::new()
    }

    pub(super) fn scan(
        self,
        _panels: &[Panel],
        _steps: &[Step],
        _group: &Group,
        _limits: &[f32; GROUP],
        _hits: &mut Vec<Hit>,
    ) {
        match self {}
    }

    pub(super) fn fill(
        self,
        _queries: &Quantised,
        _panels: &mut [Panel],
        _steps: &mut [Step],
        _rows: &[f32],
        _takes_part: &[bool],
    ) -> bool {
        match self {}
    }
}
