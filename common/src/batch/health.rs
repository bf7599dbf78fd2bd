//! Table `health`: what the load generator says about itself.
//!
//! Written by `worker::health` per lane and interval; the verdict reads it: a slip over its bound means that the
//! worker, not the target, made requests late. The clock columns let analysis align workers.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use super::columns::{Columns, Reader, nobody};
use super::table::{Error, Stamp, Table};
use crate::clock::WallNs;
use crate::ids::PhaseIndex;
use crate::latency::Hdr;

/// One row of `health`.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthRow {
    /// Name of the phase.
    pub phase: String,
    /// Its position in the run.
    pub phase_index: PhaseIndex,
    /// Position of the lane in the deal of shares over the fleet.
    pub lane: u32,
    /// Start of the interval.
    pub interval_start: WallNs,
    /// Length of the interval, nanoseconds.
    pub interval_ns: u64,
    /// The worker's own delays: sent minus the later of due and slot free.
    pub slip: Hdr,
    /// Time in which the lane was doing something, nanoseconds.
    pub busy_ns: u64,
    /// CPU time of the lane's thread, nanoseconds.
    pub cpu_ns: u64,
    /// Most requests in flight at once.
    pub in_flight_max: u64,
    /// Most requests that waited for a slot at once.
    pub backlog_max: u64,
    /// Coordinator's clock minus the worker's, nanoseconds.
    pub clock_offset_ns: i64,
    /// Bound of that offset's error: half the round trip, nanoseconds.
    pub clock_error_ns: u64,
    /// Batches made and not yet acknowledged.
    pub unacknowledged: u64,
}

/// The columns of `health`.
pub(super) fn schema() -> SchemaRef {
    columns(&nobody(), &[]).schema()
}

fn columns<'a>(stamp: &'a Stamp, rows: &'a [HealthRow]) -> Columns<'a, HealthRow> {
    Columns::new(stamp, rows)
        .text("phase", |r: &HealthRow| &r.phase)
        .int("phase_index", |r| r.phase_index.0.into())
        .int("lane", |r| r.lane.into())
        .instant("interval_start", |r| r.interval_start)
        .int("interval_ns", |r| r.interval_ns)
        .histogram("slip_hdr", |r| (!r.slip.is_empty()).then_some(&r.slip))
        .int_or_null("slip_p99_ns", |r| r.slip.quantile(0.99))
        .int_or_null("slip_max_ns", |r| r.slip.max())
        .int("busy_ns", |r| r.busy_ns)
        .int("cpu_ns", |r| r.cpu_ns)
        .int("in_flight_max", |r| r.in_flight_max)
        .int("backlog_max", |r| r.backlog_max)
        .signed("clock_offset_ns", |r| r.clock_offset_ns)
        .int("clock_error_ns", |r| r.clock_error_ns)
        .int("unacknowledged", |r| r.unacknowledged)
}

/// A batch of table `health`.
///
/// # Errors
/// [`Error`] when a histogram or the batch cannot be written.
pub fn to_batch(stamp: &Stamp, rows: &[HealthRow]) -> Result<RecordBatch, Error> {
    columns(stamp, rows).finish()
}

/// The rows of a batch of table `health`.
///
/// # Errors
/// [`Error`] when the batch is of another schema or holds a value that no row can have.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<(Stamp, HealthRow)>, Error> {
    let reader = Reader::new(Table::Health, batch)?;
    let phase = reader.text("phase")?;
    let phase_index = reader.int("phase_index")?;
    let lane = reader.int("lane")?;
    let interval_start = reader.instant("interval_start")?;
    let interval_ns = reader.int("interval_ns")?;
    let slip = reader.histogram("slip_hdr")?;
    let busy_ns = reader.int("busy_ns")?;
    let cpu_ns = reader.int("cpu_ns")?;
    let in_flight_max = reader.int("in_flight_max")?;
    let backlog_max = reader.int("backlog_max")?;
    let clock_offset_ns = reader.int("clock_offset_ns")?;
    let clock_error_ns = reader.int("clock_error_ns")?;
    let unacknowledged = reader.int("unacknowledged")?;
    let stamps = reader.stamps()?.into_iter().enumerate();
    stamps
        .map(|(i, stamp)| {
            let row = HealthRow {
                phase: phase.at(i).to_owned(),
                phase_index: phase_index.phase(i)?,
                lane: lane.small(i)?,
                interval_start: interval_start.at(i),
                interval_ns: interval_ns.at(i),
                slip: slip.get(i)?.unwrap_or_default(),
                busy_ns: busy_ns.at(i),
                cpu_ns: cpu_ns.at(i),
                in_flight_max: in_flight_max.at(i),
                backlog_max: backlog_max.at(i),
                clock_offset_ns: clock_offset_ns.signed(i).unwrap_or(0),
                clock_error_ns: clock_error_ns.at(i),
                unacknowledged: unacknowledged.at(i),
            };
            Ok((stamp, row))
        })
        .collect()
}
