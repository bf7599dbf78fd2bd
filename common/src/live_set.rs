//! What is alive: the population as a fold over the mutation steps.

use serde::{Deserialize, Serialize};

/// Placeholder of the real thing; same fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveSet {
    /// Key of the permutation.
    pub seed: u64,
    /// Rows of the base that take part.
    pub rows: u64,
    /// Copies of the base, at least 1.
    pub copies: u32,
    /// Cells at positions below this are alive.
    pub cut: u64,
}
