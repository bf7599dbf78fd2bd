//! What those who look on are shown of a session. For the eye only.

use vst_common::ids::{PhaseIndex, RunId};

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
