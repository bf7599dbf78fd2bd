//! About what a run will take, for a person who has not started it yet: time, memory of the servers, storage.
//!
//! Fed with the scenario and the headers of its data; read by the dry run. Law: what depends on the target's speed is
//! left out and named, not guessed; the figures are orders of magnitude and are shown as such.

use vst_common::scenario::Step;
use vst_common::scenario::check::Checked;

use super::DataFacts;
use super::copies::population;
use super::phases::rows;

/// A component of a vector is stored as a 32-bit float.
const COMPONENT_BYTES: u64 = 4;
/// A neighbour in the graph; the lowest level has two times M of them.
const LINK_BYTES: u64 = 8;
/// Key, hash and table entries around a row.
const ROW_BYTES: u64 = 200;
/// What a lane's histograms take in the run directory for each second of load.
const LANE_BYTES_PER_S: u64 = 4 * 1024;
/// What a node's samples take in the run directory for each second.
const NODE_BYTES_PER_S: u64 = 1024;
/// `run.json`, the plan and the tables' own headers.
const FOLDER_BYTES: u64 = 256 * 1024;

/// About what a run will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Phases of a stated length, milliseconds.
    pub timed_ms: u64,
    /// Longest that the target may take to settle, milliseconds.
    pub settle_ms: u64,
    /// Rows written or deleted, at the target's own speed.
    pub rows_moved: u64,
    /// Memory that the servers need on top of what they use, bytes over all primaries.
    pub server_bytes: u64,
    /// Size of the run directory, bytes.
    pub storage_bytes: u64,
}

/// Adds up what the phases ask for.
#[must_use]
pub fn estimate(checked: &Checked, data: Option<&DataFacts>, nodes: u64) -> Estimate {
    let scenario = &checked.scenario;
    let rows = population(scenario, rows(scenario, data)).cells();
    let (mut timed_ms, mut settle_ms, mut rows_moved) = (0_u64, 0_u64, 0_u64);
    for phase in &scenario.phases {
        match &phase.step {
            Step::Query(query) => timed_ms += query.warm_up_ms.saturating_add(query.duration_ms),
            Step::Settle(settle) => settle_ms += settle.max_wait_ms,
            Step::Ingest { .. } | Step::Shrink(_) | Step::Update(_) | Step::Churn(_) => rows_moved += rows,
            Step::Mixed(mixed) => rows_moved += mixed.operations,
            Step::Kv(kv) => timed_ms += kv.warm_up_ms.saturating_add(kv.duration_ms),
            Step::CreateIndex | Step::Checkpoint => {}
        }
    }
    // The row's own copy and the index's, and the graph around it.
    let dims = data.map_or(0, |data| data.expansion.index_dims(data.base.dims));
    let vector = u64::from(dims).saturating_mul(COMPONENT_BYTES);
    let links = u64::from(scenario.index.as_ref().map_or(0, |index| index.m)).saturating_mul(2 * LINK_BYTES);
    let server_bytes = rows.saturating_mul(2 * vector + links + ROW_BYTES);
    let lanes = u64::from(scenario.fleet.workers).saturating_mul(u64::from(scenario.fleet.lanes));
    let per_s = lanes * LANE_BYTES_PER_S + nodes * NODE_BYTES_PER_S;
    let storage_bytes = FOLDER_BYTES.saturating_add(per_s.saturating_mul(timed_ms.div_ceil(1_000)));
    Estimate { timed_ms, settle_ms, rows_moved, server_bytes, storage_bytes }
}
