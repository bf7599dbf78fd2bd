//! What those who look on are shown of a session. For the eye only.

use vst_common::count;
use vst_common::ids::{PhaseIndex, RunId};
use vst_common::latency::Hdr;

use crate::work::Totals;

/// How far the phase of a worker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhaseView {
    /// Its position in the run.
    pub index: PhaseIndex,
    /// Its name.
    pub name: String,
    /// What became of its requests so far.
    pub totals: Totals,
    /// Requests that were sent and not answered.
    pub in_flight: u64,
    /// Requests that are due and wait for the target to take them.
    pub backlog: u64,
    /// How long the requests took that have ended so far.
    pub took: Buckets,
}

/// Upper bounds of [`Buckets`], nanoseconds.
pub const BUCKETS_NS: [u64; 16] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// A histogram as coarse as those who scrape can store it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    /// Values that are at most each of [`BUCKETS_NS`]; each count holds those before it.
    pub at_most: [u64; 16],
    /// All values.
    pub count: u64,
    /// Their sum, nanoseconds, as exact as three digits of each.
    pub sum_ns: u64,
}

impl From<&Hdr> for Buckets {
    fn from(hdr: &Hdr) -> Self {
        let sum = hdr.mean().unwrap_or(0.0) * count::to_f64(hdr.len());
        Self {
            at_most: BUCKETS_NS.map(|ns| hdr.count_at_most(ns)),
            count: hdr.len(),
            sum_ns: count::from_f64(sum),
        }
    }
}

/// What those who look on are shown of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// away, greeted, registered, closing or over.
    pub state: &'static str,
    /// The run that it is or was registered for.
    pub run: Option<RunId>,
    /// For how long load may still be sent without another word from the coordinator, nanoseconds.
    pub lease_left_ns: u64,
    /// Batches that the coordinator does not hold yet.
    pub unacknowledged: u64,
    /// The phase that it has, if any.
    pub phase: Option<PhaseView>,
}
