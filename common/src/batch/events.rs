//! Table `events`: what happened that is not a measurement.
//!
//! Redirects, lost connections, faults, phase moves: written by workers and by the coordinator, read by the report's
//! validity section and by whoever asks why a curve has a kink.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use super::columns::{Columns, Reader, nobody};
use super::table::{Error, Stamp, Table};
use crate::clock::WallNs;
use crate::ids::{NodeId, PhaseIndex};

/// One row of `events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// When; for several of a kind, the first.
    pub at: WallNs,
    /// Name of the phase.
    pub phase: String,
    /// Its position in the run.
    pub phase_index: PhaseIndex,
    /// What: `moved`, `connection_lost`, `reconnected`, ...
    pub kind: String,
    /// Where, if at one node.
    pub node: Option<NodeId>,
    /// Details for people.
    pub detail: String,
    /// How many of the same were folded into this row, at least 1.
    pub count: u64,
}

/// The columns of `events`.
pub(super) fn schema() -> SchemaRef {
    columns(&nobody(), &[]).schema()
}

fn columns<'a>(stamp: &'a Stamp, rows: &'a [EventRow]) -> Columns<'a, EventRow> {
    Columns::new(stamp, rows)
        .instant("at", |r: &EventRow| r.at)
        .text("phase", |r| &r.phase)
        .int("phase_index", |r| r.phase_index.0.into())
        .text("kind", |r| &r.kind)
        .text_or_null("node", |r| r.node.as_ref().map(NodeId::as_str))
        .text("detail", |r| &r.detail)
        .int("count", |r| r.count)
}

/// A batch of table `events`.
///
/// # Errors
/// [`Error`] when the batch cannot be written.
pub fn to_batch(stamp: &Stamp, rows: &[EventRow]) -> Result<RecordBatch, Error> {
    columns(stamp, rows).finish()
}

/// The rows of a batch of table `events`.
///
/// # Errors
/// [`Error`] when the batch is of another schema or holds a value that no row can have.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<(Stamp, EventRow)>, Error> {
    let reader = Reader::new(Table::Events, batch)?;
    let at = reader.instant("at")?;
    let phase = reader.text("phase")?;
    let phase_index = reader.int("phase_index")?;
    let kind = reader.text("kind")?;
    let node = reader.text("node")?;
    let detail = reader.text("detail")?;
    let count = reader.int("count")?;
    let stamps = reader.stamps()?.into_iter().enumerate();
    stamps
        .map(|(i, stamp)| {
            let row = EventRow {
                at: at.at(i),
                phase: phase.at(i).to_owned(),
                phase_index: phase_index.phase(i)?,
                kind: kind.at(i).to_owned(),
                node: node.get(i).map(NodeId::new),
                detail: detail.at(i).to_owned(),
                count: count.at(i),
            };
            Ok((stamp, row))
        })
        .collect()
}
